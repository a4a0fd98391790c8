//! `portolan status`, `reset`, `completion`, `environment`, `exit-codes`.

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::{Value, json};

use super::context::Context;
use super::node::summaries;
use super::output::{Answer, Terminal, table};
use super::process;
use super::{Cli, Confirmation};
use crate::error::{ErrorCode, Result};

/// The nodes, projects and identities of this home. Asks nobody else.
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Accepted for older scripts: nothing here waits.
    #[arg(long, value_name = "DURATION", hide = true)]
    timeout: Option<String>,
}

impl Status {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let home = context.home();
        let database = home.database()?;
        let (identities, projects) = (database.identities()?, database.projects()?);
        drop(database);
        let (node_rows, nodes) = summaries(context)?;
        let mark = |is_default: bool| {
            if is_default {
                "default".to_owned()
            } else {
                String::new()
            }
        };
        let section = |title: &str, headings: &[&str], rows: &[Vec<String>]| {
            let body = if rows.is_empty() {
                "none\n".to_owned()
            } else {
                table(headings, rows)
            };
            let indented: String = body.lines().map(|line| format!("  {line}\n")).collect();
            format!("{title}\n{indented}\n")
        };
        let identity_rows: Vec<Vec<String>> = identities
            .iter()
            .map(|identity| {
                vec![
                    identity.name.clone(),
                    identity.identifier.clone(),
                    mark(identity.is_default),
                ]
            })
            .collect();
        let project_rows: Vec<Vec<String>> = projects
            .iter()
            .map(|(project, is_default)| {
                vec![
                    project.name.clone(),
                    project.access_route.clone(),
                    mark(*is_default),
                ]
            })
            .collect();
        let plain = format!(
            "Portolan {}, home {}\n\n{}{}{}",
            env!("CARGO_PKG_VERSION"),
            home.path().display(),
            section("Projects", &["NAME", "ROUTE", ""], &project_rows),
            section("Identities", &["NAME", "IDENTIFIER", ""], &identity_rows),
            section(
                "Nodes",
                &["NAME", "STATUS", "ROLE", "LISTENS AT", "PROCESS", ""],
                &node_rows
            ),
        );
        let projects: Vec<Value> = projects
            .iter()
            .map(|(project, is_default)| super::project::record(project, *is_default))
            .collect();
        let identities: Vec<Value> = identities
            .iter()
            .map(|identity| {
                json!({
                    "name": identity.name,
                    "identifier": identity.identifier,
                    "is_default": identity.is_default,
                })
            })
            .collect();
        let json = json!({
            "portolan_version": env!("CARGO_PKG_VERSION"),
            "home": home.path(),
            "spaces": [],
            "projects": projects,
            "identities": identities,
            "nodes": nodes,
        });
        context.terminal.answer(&Answer::new(plain, json))
    }
}

/// Stop all nodes and remove everything that Portolan keeps in its home. Can be repeated.
///
/// What an installer put there (`bin`, `env`) stays.
#[derive(Debug, clap::Args)]
pub(super) struct Reset {
    #[command(flatten)]
    confirmation: Confirmation,
    /// Accepted for older scripts; has no effect.
    #[arg(long, hide = true)]
    all: bool,
}

impl Reset {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        let home = context.home();
        let question = format!("Removing everything in {}", home.path().display());
        context.terminal.confirm(self.confirmation.yes, &question)?;
        // Twice: a node that was being created while the first round ran.
        for _ in 0..2 {
            for name in home.node_names()? {
                process::stop(&home.node_folder(&name)?).await?;
            }
            home.reset()?;
        }
        context
            .terminal
            .done("All nodes were stopped and the home was emptied.");
        context
            .terminal
            .answer(&Answer::new("Reset.", json!({ "home": home.path() })).machine(""))
    }
}

/// Print a completion script: source <(portolan completion --shell bash).
#[derive(Debug, clap::Args)]
pub(super) struct Completion {
    #[arg(short, long, value_name = "SHELL")]
    shell: Shell,
}

impl Completion {
    pub(super) fn run(self, terminal: &Terminal) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "portolan", &mut script);
        terminal.raw(&script)
    }
}

/// Every environment variable that is read, with its default and meaning.
pub(super) const ENVIRONMENT: [(&str, &str, &str); 19] = [
    (
        "PORTOLAN_HOME",
        "~/.portolan",
        "The folder for everything that is kept.",
    ),
    (
        "OCKAM_HOME",
        "",
        "As PORTOLAN_HOME, which counts more, when the binary is called by a link named `ockam`.",
    ),
    ("HOME", "", "Where ~ is; needed only if PORTOLAN_HOME is not set."),
    (
        "PORTOLAN_PASSPHRASE",
        "",
        "Seals the secret keys of the home; needed by every command and node from then on.",
    ),
    (
        "PORTOLAN_KEY_FILE",
        "",
        "The same, with a file of 32 bytes or 64 hexadecimal digits.",
    ),
    (
        "ENROLLMENT_TICKET",
        "",
        "The ticket for `node create`: joins the project first.",
    ),
    (
        "SSL_CERT_FILE",
        "what the system trusts",
        "The certificate authorities that are trusted for https and for outlets with --tls.",
    ),
    (
        "PORTOLAN_LOG",
        "info for nodes, off for commands",
        "What is logged: a level, or `crate=level,…`.",
    ),
    (
        "PORTOLAN_LOG_FORMAT",
        "text",
        "`json` for one JSON object a line.",
    ),
    (
        "PORTOLAN_TCP_PORTAL_SKIP_HANDSHAKE",
        "false",
        "As --skip-handshake of tcp-inlet and tcp-outlet.",
    ),
    (
        "PORTOLAN_TCP_PORTAL_ENABLE_NAGLE",
        "false",
        "As --enable-nagle of tcp-inlet and tcp-outlet.",
    ),
    (
        "PORTOLAN_PORTAL_MEMORY",
        "256",
        "For a node when it starts: MiB, 1 at least, that the windows of all its portal connections may have together; new connections are refused when they are used up.",
    ),
    (
        "PORTOLAN_PLUGIN_MEMORY",
        "2048",
        "For a node when it starts: MiB, 1 at least, that the plugins in all its portal connections may have together; what they want beyond that is refused, and so are new connections.",
    ),
    (
        "PORTOLAN_ARBITERS",
        "one for every two cores",
        "Threads of a node that carry messages, 1 to 64; see --stripes of tcp-inlet.",
    ),
    ("QUIET", "false", "As --quiet."),
    ("NO_COLOR", "false", "As --no-color."),
    ("NO_INPUT", "false", "As --no-input."),
    ("TERM", "", "`dumb` means no colours."),
    ("COLUMNS", "", "The width of help texts."),
];

/// Environment variables that are read.
#[derive(Debug, clap::Args)]
pub(super) struct Environment {}

impl Environment {
    pub(super) fn run(self, terminal: &Terminal) -> Result<()> {
        let rows: Vec<Vec<String>> = ENVIRONMENT
            .iter()
            .map(|(name, default, meaning)| {
                vec![(*name).to_owned(), (*default).to_owned(), (*meaning).to_owned()]
            })
            .collect();
        let json: Vec<Value> = ENVIRONMENT
            .iter()
            .map(|(name, default, meaning)| json!({ "name": name, "default": default, "meaning": meaning }))
            .collect();
        let plain = table(&["NAME", "DEFAULT", "MEANING"], &rows);
        let answer = Answer::new(plain.clone(), json!(json)).machine(plain);
        terminal.answer(&answer)
    }
}

/// The text of `portolan help exit-codes`.
pub(super) fn exit_codes_text() -> String {
    let mut text = String::from(
        "What exit codes mean. With --output json, errors are JSON on stderr, with the code's name in \"code\".\n\n",
    );
    text.push_str("    0  success\n");
    for code in ErrorCode::ALL {
        text.push_str(&format!(
            "  {:>3}  {}: {}\n",
            code.exit_code(),
            code.as_str(),
            code.meaning()
        ));
    }
    text
}

/// What exit codes mean.
#[derive(Debug, clap::Args)]
pub(super) struct ExitCodes {}

impl ExitCodes {
    pub(super) fn run(self, terminal: &Terminal) -> Result<()> {
        let mut json = vec![json!({ "exit_code": 0, "code": Value::Null, "meaning": "success" })];
        json.extend(ErrorCode::ALL.map(
            |code| json!({ "exit_code": code.exit_code(), "code": code.as_str(), "meaning": code.meaning() }),
        ));
        let text = exit_codes_text();
        terminal.answer(&Answer::new(text.clone(), json!(json)).machine(text))
    }
}

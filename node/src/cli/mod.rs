//! The commands, their arguments and what they print.
//!
//! `portolan <noun> <verb> [NAME] [--flags]`. One file for each noun; one tree of clap types yields parsing, help,
//! completions and `docs/commands.md`. [`App`](crate::App) runs it.

mod channel;
mod config;
mod context;
mod credential;
mod demo;
mod fetch;
mod housekeeping;
mod identity;
mod inlet;
mod log;
mod member;
mod message;
mod node;
mod outlet;
mod output;
mod plugin;
mod policy;
mod process;
mod project;
mod reference;
mod relay;
mod service;
mod tcp;
mod values;
mod vault;
mod worker;

use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Parser, Subcommand};

use crate::error::{Error, ErrorCode, Result};
use crate::state::Home;
use crate::worker_types::WorkerTypes;

use context::Context;
use output::{Format, Terminal};

/// Encrypted portals between services in private networks.
#[derive(Debug, Parser)]
#[command(
    name = "portolan",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = "Start here:\n  \
        portolan demo                         see everything work on this machine\n  \
        portolan enroll                       make a project on this machine\n  \
        portolan project ticket               invite another machine\n  \
        portolan help exit-codes              what exit codes mean\n  \
        portolan environment                  environment variables"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Print nothing but results and errors.
    #[arg(short, long, global = true, env = "QUIET", hide_env = true, value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    quiet: bool,
    /// Log to stderr; repeat for more (-v info, -vv debug, -vvv trace).
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Print without colours.
    #[arg(long, global = true, env = "NO_COLOR", hide_env = true, value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    no_color: bool,
    /// Never ask questions.
    #[arg(long, global = true, env = "NO_INPUT", hide_env = true, value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    no_input: bool,
    /// The form of the result; without it, people get text and pipes get the shortest useful form.
    #[arg(long, global = true, value_name = "FORMAT")]
    output: Option<Format>,
    /// JSON on one line.
    #[arg(long, global = true)]
    compact_output: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show on this machine what Portolan does: a portal between two companies, end to end.
    Demo(demo::Args),
    /// Make a project on this machine if none is known, and be its administrator.
    Enroll(project::EnrollHere),
    /// Projects: create one, invite machines, join.
    #[command(subcommand)]
    Project(project::Command),
    /// Members of a project.
    #[command(subcommand)]
    ProjectMember(member::Command),
    /// Nodes: processes that hold relays, policies and portals.
    #[command(subcommand)]
    Node(node::Command),
    /// Relays: a name at the project under which a node can be reached.
    #[command(subcommand)]
    Relay(relay::Command),
    /// Policies: who may use a portal or a relay.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Outlets: the end of a portal that connects to the service.
    #[command(subcommand)]
    TcpOutlet(outlet::Command),
    /// Inlets: the end of a portal that the application connects to.
    #[command(subcommand)]
    TcpInlet(inlet::Command),
    /// Identities: keys that others know by an identifier.
    #[command(subcommand)]
    Identity(identity::Command),
    /// Credentials: signed statements about an identity.
    #[command(subcommand)]
    Credential(credential::Command),
    /// Vaults: where secret keys are kept.
    #[command(subcommand)]
    Vault(vault::Command),
    /// Secure channels between nodes.
    #[command(subcommand)]
    SecureChannel(channel::Command),
    /// Listeners for secure channels.
    #[command(subcommand)]
    SecureChannelListener(channel::ListenerCommand),
    /// TCP connections between nodes.
    #[command(subcommand)]
    TcpConnection(tcp::ConnectionCommand),
    /// TCP listeners of nodes.
    #[command(subcommand)]
    TcpListener(tcp::ListenerCommand),
    /// Messages to workers.
    #[command(subcommand)]
    Message(message::Command),
    /// Workers of a node: start one by the name of its type, stop it, see what it did.
    #[command(subcommand)]
    Worker(worker::Command),
    /// Plugins: workers and portal interceptors that are WebAssembly components.
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Services of a node.
    #[command(subcommand)]
    Service(service::Command),
    /// Nodes, projects and identities of this home.
    Status(housekeeping::Status),
    /// Stop all nodes and remove everything that Portolan keeps in its home.
    Reset(housekeeping::Reset),
    /// A completion script for a shell.
    Completion(housekeeping::Completion),
    /// Environment variables that are read.
    Environment(housekeeping::Environment),
    /// What exit codes mean.
    #[command(long_about = housekeeping::exit_codes_text(), help_template = "{about}")]
    ExitCodes(housekeeping::ExitCodes),
    /// The reference of all commands, Markdown.
    #[command(hide = true)]
    Markdown(reference::Markdown),
}

/// Run the command line of this process, with the worker types of this program or with what is wrong with them, and say how it ended.
pub(crate) fn run_with(types: Result<WorkerTypes>) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_arguments(&error),
    };
    let global = cli.global.clone();
    let terminal = Terminal::new(
        global.output,
        global.compact_output,
        global.quiet,
        global.no_color,
        global.no_input,
    );
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal.error(&Error::failed(format!("the process cannot start: {error}")));
            return ExitCode::from(ErrorCode::Failed.exit_code());
        }
    };
    start_log(&cli);
    let result = runtime.block_on(async {
        match types {
            Ok(types) => cli.run(terminal.clone(), types).await,
            Err(error) => Err(error),
        }
    });
    // Threads that still read stdin or look up a name do not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal.error(&error);
            ExitCode::from(error.code.exit_code())
        }
    }
}

/// Nodes log from "info" up, background nodes into their file; commands log only what is asked for.
fn start_log(cli: &Cli) {
    let (is_node, child) = match &cli.command {
        Command::Node(command) => (command.runs_here(), command.runs_in_background()),
        Command::Project(command) => (command.runs_here(), None),
        _ => (false, None),
    };
    let level = match (cli.global.verbose, is_node) {
        (0, false) => "off",
        (0, true) | (1, _) => "info",
        (2, _) => "debug",
        _ => "trace",
    };
    // A home that cannot be opened is reported by the command itself, in a moment.
    let file = child.and_then(|name| Some(Home::open().ok()?.node_folder(name).ok()?.log()));
    log::start(level, file.as_deref());
}

/// Wrong arguments, as JSON if the result was to be JSON.
fn wrong_arguments(error: &clap::Error) -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let json = words
        .iter()
        .any(|word| word == "--output=json" || word == "--compact-output")
        || words
            .windows(2)
            .any(|pair| matches!(pair, [flag, value] if flag == "--output" && value == "json"));
    if error.use_stderr() && json {
        let text = error.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
        Terminal::new(Some(Format::Json), false, false, true, true).error(&Error::invalid(text));
    } else {
        // Help and version go to stdout and are no error; wrong arguments go to stderr.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

impl Cli {
    async fn run(self, terminal: Terminal, types: WorkerTypes) -> Result<()> {
        match self.command {
            // These need no home.
            Command::Demo(args) => args.run(&terminal).await,
            Command::Completion(args) => args.run(&terminal),
            Command::Environment(args) => args.run(&terminal),
            Command::ExitCodes(args) => args.run(&terminal),
            Command::Markdown(args) => args.run(&terminal),
            command => command.run(&Context::new(terminal, Home::open()?, types)).await,
        }
    }
}

impl Command {
    async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Enroll(args) => args.run(context).await,
            Command::Project(command) => command.run(context).await,
            Command::ProjectMember(command) => command.run(context).await,
            Command::Node(command) => command.run(context).await,
            Command::Relay(command) => command.run(context).await,
            Command::Policy(command) => command.run(context).await,
            Command::TcpOutlet(command) => command.run(context).await,
            Command::TcpInlet(command) => command.run(context).await,
            Command::Identity(command) => command.run(context),
            Command::Credential(command) => command.run(context).await,
            Command::Vault(command) => command.run(context),
            Command::SecureChannel(command) => command.run(context).await,
            Command::SecureChannelListener(command) => command.run(context).await,
            Command::TcpConnection(command) => command.run(context).await,
            Command::TcpListener(command) => command.run(context).await,
            Command::Message(command) => command.run(context).await,
            Command::Worker(command) => command.run(context).await,
            Command::Plugin(command) => command.run(context).await,
            Command::Service(command) => command.run(context).await,
            Command::Status(args) => args.run(context),
            Command::Reset(args) => args.run(context).await,
            Command::Demo(_)
            | Command::Completion(_)
            | Command::Environment(_)
            | Command::ExitCodes(_)
            | Command::Markdown(_) => Ok(()),
        }
    }
}

/// Which of several things a `delete` or `show` is about.
#[derive(Debug, Clone, clap::Args)]
struct Confirmation {
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

/// The names that a `delete` is about: the one given, all of them, or, where nothing was said, an error that lists them.
fn names_to_delete(kind: &str, name: Option<String>, all: bool, known: &[String]) -> Result<Vec<String>> {
    match (name, all) {
        (Some(name), _) => Ok(vec![name]),
        (None, true) => Ok(known.to_vec()),
        (None, false) if known.is_empty() => Ok(Vec::new()),
        (None, false) => Err(Error::invalid(format!(
            "which {kind} to delete was not said: there is {}",
            known.join(", ")
        ))
        .hint("give a name, or --all")),
    }
}

#[cfg(test)]
mod tests;

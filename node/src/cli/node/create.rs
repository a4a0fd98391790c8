//! A new node: in the background, or in this process.

use std::sync::{Arc, OnceLock};

use super::foreground::{self, IfItNeverRan};
use super::show::shown;
use crate::cli::config::{self, CommandLine, Configuration, Given, Plan};
use crate::cli::context::{Context, DEFAULT_LISTENER};
use crate::cli::process::{self, Parent, StopSignals};
use crate::cli::{project, values};
use crate::error::{Error, Result};
use crate::host_port::HostPort;

/// The variable of the environment that holds a ticket.
const TICKET: &str = "ENROLLMENT_TICKET";

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// A name (letters, digits, `-` and `_`), or a configuration: a file, a URL, or YAML as text. Default: the default node if it is
    /// stopped, else a random name; with a configuration, the name that it says, else a random one.
    #[arg(value_name = "NAME|CONFIGURATION", value_parser = config::given)]
    given: Option<Given>,
    /// A configuration as text (YAML), a file or a URL; with it, NAME can be given too.
    #[arg(long, visible_alias = "node-config", value_name = "TEXT")]
    configuration: Option<String>,
    /// A variable of the configuration: `$NAME` in it becomes VALUE. Can be repeated.
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = config::variable)]
    variables: Vec<(String, String)>,
    /// Say what the configuration would do, and change nothing.
    #[arg(long)]
    check: bool,
    /// Where the node listens for other nodes. Default: 127.0.0.1:0.
    #[arg(short, long, value_name = "HOST:PORT", value_parser = values::host_port)]
    tcp_listener_address: Option<HostPort>,
    /// Stay in this process; log to stderr.
    #[arg(short, long)]
    foreground: bool,
    /// Stop when stdin is closed (with --foreground).
    #[arg(short, long)]
    exit_on_eof: bool,
    /// The node's identity, by local name; made if it does not exist. Default: the default identity.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// The project whose credentials the node presents and requires. Default: the default project.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Join the project of this ticket first: a file, a URL, or the ticket itself.
    #[arg(
        long,
        value_name = "TICKET",
        env = TICKET,
        hide_env_values = true
    )]
    enrollment_ticket: Option<String>,
    /// Internal: this process was started by `node create` or `node start`; run what is written down.
    #[arg(long, hide = true)]
    child_process: bool,
    /// The configuration, once it was read: the log asks for it before the command runs.
    #[arg(skip)]
    read: OnceLock<Result<Option<Configuration>>>,
}

impl Create {
    /// Whether this process becomes a node.
    pub(super) fn runs_here(&self) -> bool {
        !self.check
            && (self.foreground
                || matches!(self.configuration(), Ok(Some(configuration)) if configuration.foreground()))
    }

    /// The node that this process becomes in the background.
    pub(super) fn runs_in_background(&self) -> Option<&str> {
        let given = self.given.as_ref().filter(|_| self.child_process)?;
        Some(given.text.as_str())
    }

    /// The configuration, if there is one.
    fn configuration(&self) -> &Result<Option<Configuration>> {
        self.read.get_or_init(|| {
            if self.child_process {
                return Ok(None);
            }
            let Some(from) = self.source()? else {
                return Ok(None);
            };
            let mut variables = self.variables.clone();
            let has_ticket = variables.iter().any(|(name, _)| name == TICKET);
            if let (Some(ticket), false) = (&self.enrollment_ticket, has_ticket) {
                // As if it had come from the environment.
                variables.push((TICKET.to_owned(), ticket.clone()));
            }
            from.read(&variables).map(Some)
        })
    }

    /// Where the configuration comes from, if there is one.
    fn source(&self) -> Result<Option<Given>> {
        let given = self.given.as_ref().filter(|given| given.is_configuration());
        match (given, &self.configuration) {
            (Some(_), Some(_)) => Err(Error::invalid(
                "there are two configurations: one as the argument and one in --configuration",
            )),
            (Some(given), None) => Ok(Some(given.clone())),
            (None, Some(text)) => Ok(Some(Given::flag(text))),
            (None, None) => Ok(None),
        }
    }

    fn name(&self) -> Option<&str> {
        self.given.as_ref().and_then(Given::name)
    }

    pub(crate) async fn run(mut self, context: &Context) -> Result<()> {
        if self.child_process {
            return self.run_as_child(context).await;
        }
        self.configuration();
        match self.read.take() {
            Some(Ok(Some(configuration))) => {
                if let Some(source) = self.source()? {
                    source.warn(context);
                }
                return self.run_configuration(context, configuration).await;
            }
            Some(Err(error)) => return Err(error),
            _ => {}
        }
        if self.check || !self.variables.is_empty() {
            let flag = if self.check { "--check" } else { "--variable" };
            return Err(Error::invalid(format!("{flag} goes only with a configuration"))
                .hint("give a file: portolan node create FILE"));
        }
        if self.exit_on_eof && !self.foreground {
            return Err(Error::invalid("--exit-on-eof goes only with --foreground"));
        }
        if let Some(name) = self.name()
            && context.home().node_folder(name)?.is_running()
        {
            // Said before anything is changed.
            return Err(
                Error::exists(format!("the node `{name}` is already running")).hint(format!(
                    "stop it first: portolan node stop {name}, or choose another name"
                )),
            );
        }
        if let Some(ticket) = &self.enrollment_ticket {
            project::join(context, ticket, self.identity.as_deref(), project::ENROLL_TIMEOUT).await?;
        }
        let name = match self.name() {
            Some(name) => name.to_owned(),
            None => match context.home().default_node()? {
                Some(name) if !context.home().node_folder(&name)?.is_running() => name,
                _ => context.home().free_node_name()?,
            },
        };
        let listener = match &self.tcp_listener_address {
            Some(listener) => listener.to_string(),
            None => DEFAULT_LISTENER.to_owned(),
        };
        let spec = context.plain_spec(
            &name,
            self.identity.as_deref(),
            self.project.as_deref(),
            &listener,
        )?;
        if self.foreground {
            let signals = StopSignals::install()?;
            let node = context.write_node(&spec)?;
            return foreground::run(context, signals, node, self.exit_on_eof, IfItNeverRan::Remove).await;
        }
        let node = context.write_node(&spec)?;
        let folder = node.folder().clone();
        let status = process::start_new(node).await?;
        context.adopt_as_default(&folder)?;
        context.terminal.done(format!(
            "The node `{name}` is running and listens at {}.",
            status.tcp_listener_address
        ));
        if status.project.is_none() {
            context.terminal.note(
                "It belongs to no project yet, so its portals are open to everybody who can reach it, unless a policy \
                 says otherwise.\nJoin a project with `portolan project enroll TICKET`: the node notices by itself.",
            );
        }
        context.terminal.answer(&shown(context, &folder, &status)?)
    }

    async fn run_configuration(&self, context: &Context, configuration: Configuration) -> Result<()> {
        let line = CommandLine {
            name: self.name(),
            ticket: self.enrollment_ticket.as_deref(),
            identity: self.identity.as_deref(),
            project: self.project.as_deref(),
            tcp_listener_address: self.tcp_listener_address.as_ref(),
            foreground: self.foreground,
            exit_on_eof: self.exit_on_eof,
        };
        let plan = Plan::new(context, configuration, &line)?;
        if self.check {
            plan.show(context)
        } else {
            plan.run(context).await
        }
    }

    async fn run_as_child(self, context: &Context) -> Result<()> {
        let parent = Parent::detach();
        let signals = StopSignals::install()?;
        let node = match self.given.as_ref().map(|given| {
            let node = context.home().node(&given.text)?;
            node.take_over(process::handed_over()?)
        }) {
            Some(Ok(node)) => node,
            Some(Err(error)) => {
                parent.failed(&error);
                return Err(error);
            }
            None => return Err(Error::invalid("--child-process needs a name")),
        };
        let parent = Arc::new(parking_lot::Mutex::new(Some(parent)));
        let on_ready = parent.clone();
        let result = process::run_here(node, context.types().clone(), signals, false, move |_| {
            if let Some(parent) = on_ready.lock().take() {
                parent.ready();
            }
        })
        .await;
        if let (Err(error), Some(parent)) = (&result, parent.lock().take()) {
            parent.failed(error);
        }
        result
    }
}

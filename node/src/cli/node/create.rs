//! A new node: in the background, or in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::show::shown;
use crate::cli::context::{Context, DEFAULT_LISTENER};
use crate::cli::process::{self, Parent, StopSignals};
use crate::cli::{project, values};
use crate::error::{Error, Result};
use crate::host_port::HostPort;
use crate::state::NodeFolder;

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Letters, digits, `-` and `_`. Default: the default node if it is stopped, else a random name.
    #[arg(value_parser = values::node)]
    pub(super) name: Option<String>,
    /// Where the node listens for other nodes.
    #[arg(short, long, value_name = "HOST:PORT", default_value = DEFAULT_LISTENER, value_parser = values::host_port)]
    tcp_listener_address: HostPort,
    /// Stay in this process; log to stderr.
    #[arg(short, long)]
    pub(super) foreground: bool,
    /// Stop when stdin is closed (with --foreground).
    #[arg(short, long, requires = "foreground")]
    exit_on_eof: bool,
    /// The node's identity, by local name; made if it does not exist. Default: the default identity.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// The project whose credentials the node presents and requires. Default: the default project.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Join the project of this ticket first: a file, or the ticket itself.
    #[arg(
        long,
        value_name = "TICKET",
        env = "ENROLLMENT_TICKET",
        hide_env_values = true
    )]
    enrollment_ticket: Option<String>,
    /// Internal: this process was started by `node create` or `node start`; run what is written down.
    #[arg(long, hide = true)]
    pub(super) child_process: bool,
}

impl Create {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        if self.child_process {
            return self.run_as_child(context).await;
        }
        if let Some(name) = &self.name
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
        let name = match &self.name {
            Some(name) => name.clone(),
            None => match context.home().default_node()? {
                Some(name) if !context.home().node_folder(&name)?.is_running() => name,
                _ => context.home().free_node_name()?,
            },
        };
        let listener = self.tcp_listener_address.to_string();
        let spec = context.plain_spec(
            &name,
            self.identity.as_deref(),
            self.project.as_deref(),
            &listener,
        )?;
        let folder = context.write_node(&spec)?;
        if self.foreground {
            return self.run_in_foreground(context, &folder).await;
        }
        let status = process::start_new(&folder).await?;
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

    async fn run_in_foreground(&self, context: &Context, folder: &NodeFolder) -> Result<()> {
        let signals = StopSignals::install()?;
        let node = folder.open()?;
        context.adopt_as_default(folder)?;
        let (context, folder_of) = (context.clone(), folder.clone());
        let ran = Arc::new(AtomicBool::new(false));
        let runs = ran.clone();
        let result = process::run_here(node, signals, self.exit_on_eof, move |status| {
            runs.store(true, Ordering::Relaxed);
            context.terminal.done(format!(
                "The node `{}` is running. Stop it with Ctrl-C.",
                status.name
            ));
            if let Ok(answer) = shown(&context, &folder_of, status) {
                let _ = context.terminal.answer(&answer);
                if !context.terminal.stdout_is_terminal {
                    let _ = context.terminal.raw(b"\n");
                }
            }
        })
        .await;
        if result.is_err() && !ran.load(Ordering::Relaxed) {
            // It never ran: leave no trace.
            let _ = folder.remove();
        }
        result
    }

    async fn run_as_child(self, context: &Context) -> Result<()> {
        let parent = Parent::detach();
        let signals = StopSignals::install()?;
        let node = match self.name.as_deref().map(|name| context.home().node(name)?.open()) {
            Some(Ok(node)) => node,
            Some(Err(error)) => {
                parent.failed(&error);
                return Err(error);
            }
            None => return Err(Error::invalid("--child-process needs a name")),
        };
        let parent = Arc::new(parking_lot::Mutex::new(Some(parent)));
        let on_ready = parent.clone();
        let result = process::run_here(node, signals, false, move |_| {
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

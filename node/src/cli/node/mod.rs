//! `portolan node …`.
//!
//! - `create`: a new node, in the background or here; what a background node's process does.
//! - `foreground`: a node in this process.
//! - `show`: what a node is, asked of it or read from the disk; whether it is well.
//! - `logs`: what it wrote.

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::output::{Answer, count};
use crate::cli::process::{self, StopSignals, Stopped};
use crate::cli::{Confirmation, names_to_delete, values};
use crate::error::{Error, Result};
use crate::state::{NodeFolder, NodeRole};

mod create;
mod foreground;
mod logs;
mod show;

use foreground::IfItNeverRan;
use show::Wanted;
pub(crate) use show::{shown, summaries};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a node and start it; it runs in the background when the command returns.
    ///
    /// A running node of that name is an error. A stopped one is made anew: `node start` is what brings it back with its
    /// relays, policies and portals.
    ///
    /// A configuration says what the node is to hold: relays, policies, outlets and inlets (docs/configuration.md). All of it
    /// is checked before anything is done, and all of it is there when the command returns; if something fails, what was
    /// done is undone.
    Create(Box<create::Create>),
    /// What a node is and what it holds.
    ///
    /// With --running or --ready it fails with exit code 6 if the node is not that, and says why: for the probes of
    /// supervisors.
    Show {
        /// Default: the default node.
        #[arg(value_parser = values::node)]
        name: Option<String>,
        /// Fail unless the node runs and answers within 2 s.
        #[arg(long)]
        running: bool,
        /// Fail unless it also has a valid credential, if it belongs to a project, all its relays and inlets are up, and all workers
        /// that were started by name run.
        #[arg(long)]
        ready: bool,
    },
    /// All nodes of this home.
    List,
    /// Start a stopped node, with the relays, policies, workers, inlets and outlets that it had.
    Start {
        /// Default: the default node.
        #[arg(value_parser = values::node)]
        name: Option<String>,
        /// Stay in this process; log to stderr.
        #[arg(short, long)]
        foreground: bool,
        /// Stop when stdin is closed (with --foreground).
        #[arg(short, long, requires = "foreground")]
        exit_on_eof: bool,
    },
    /// Stop a node. What it held is kept for `node start`.
    Stop {
        /// Default: the default node.
        #[arg(value_parser = values::node, conflicts_with = "all")]
        name: Option<String>,
        /// Every node of this home.
        #[arg(long)]
        all: bool,
        /// Accepted for older scripts; has no effect.
        #[arg(short, long, hide = true)]
        force: bool,
    },
    /// Stop a node and remove everything that it kept.
    Delete {
        #[arg(value_parser = values::node, conflicts_with = "all")]
        name: Option<String>,
        /// Every node of this home.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        confirmation: Confirmation,
        /// Accepted for older scripts; has no effect.
        #[arg(short, long, hide = true)]
        force: bool,
    },
    /// Print the log of a background node.
    Logs(logs::Logs),
    /// Show the default node, or make another one the default.
    Default {
        #[arg(value_parser = values::node)]
        name: Option<String>,
    },
}

impl Command {
    /// Whether this process becomes a node.
    pub(crate) fn runs_here(&self) -> bool {
        match self {
            Command::Create(create) => create.runs_here(),
            Command::Start { foreground, .. } => *foreground,
            _ => false,
        }
    }

    /// The node that this process becomes in the background.
    pub(crate) fn runs_in_background(&self) -> Option<&str> {
        match self {
            Command::Create(create) => create.runs_in_background(),
            _ => None,
        }
    }

    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Create(create) => create.run(context).await,
            Command::Show { name, running, ready } => {
                let wanted = match (running, ready) {
                    (_, true) => Wanted::Ready,
                    (true, false) => Wanted::Running,
                    (false, false) => Wanted::Anything,
                };
                show::show(context, name, wanted).await
            }
            Command::List => show::list(context),
            Command::Start {
                name,
                foreground: true,
                exit_on_eof,
            } => {
                let folder = default_or(context, name)?;
                let signals = StopSignals::install()?;
                foreground::run(context, signals, folder.open()?, exit_on_eof, IfItNeverRan::Keep).await
            }
            Command::Start { name, .. } => start(context, name).await,
            Command::Stop { name, all, .. } => stop(context, name, all).await,
            Command::Delete {
                name,
                all,
                confirmation,
                ..
            } => delete(context, name, all, confirmation.yes).await,
            Command::Logs(logs) => logs.run(context).await,
            Command::Default { name } => default(context, name),
        }
    }
}

fn is_default(context: &Context, name: &str) -> Result<bool> {
    Ok(context.home().default_node()?.as_deref() == Some(name))
}

fn default_or(context: &Context, name: Option<String>) -> Result<NodeFolder> {
    let name = match name {
        Some(name) => name,
        None => context
            .home()
            .default_node()?
            .ok_or_else(|| Error::not_found("there is no node yet").hint("make one: portolan node create"))?,
    };
    context.home().node(&name)
}

async fn start(context: &Context, name: Option<String>) -> Result<()> {
    let folder = default_or(context, name)?;
    let name = folder.name().to_owned();
    if folder.is_running() && !process::is_ending(&folder).await {
        context
            .terminal
            .note(format!("The node `{name}` is already running."));
        return show::show(context, Some(name), Wanted::Anything).await;
    }
    let status = process::start(folder.open()?).await?;
    let mut restored = Vec::new();
    for (number, one) in [
        (status.relays.len(), "relay"),
        (status.inlets.len(), "inlet"),
        (status.outlets.len(), "outlet"),
    ] {
        if number > 0 {
            restored.push(count(number, one));
        }
    }
    let restored = if restored.is_empty() {
        String::new()
    } else {
        format!(" with {}", restored.join(", "))
    };
    context
        .terminal
        .done(format!("The node `{name}` is running again{restored}."));
    context.terminal.answer(&show::shown(context, &folder, &status)?)
}

async fn stop(context: &Context, name: Option<String>, all: bool) -> Result<()> {
    let folders = if all {
        let names = context.home().node_names()?;
        names
            .iter()
            .map(|name| context.home().node_folder(name))
            .collect::<Result<Vec<_>>>()?
    } else {
        vec![default_or(context, name)?]
    };
    let mut stopped = Vec::new();
    for folder in folders {
        let name = folder.name();
        match process::stop(&folder).await? {
            Stopped::WasNotRunning if all => continue,
            Stopped::WasNotRunning => context
                .terminal
                .note(format!("The node `{name}` is not running.")),
            Stopped::Asked => context.terminal.done(format!("The node `{name}` was stopped.")),
            Stopped::Killed => context
                .terminal
                .warn(format!("The node `{name}` did not stop and was killed.")),
        }
        stopped.push(name.to_owned());
    }
    let text = if stopped.is_empty() {
        "No node is running.".to_owned()
    } else {
        format!("Stopped: {}", stopped.join(", "))
    };
    context
        .terminal
        .answer(&Answer::new(text, json!(stopped)).machine(stopped.join("\n")))
}

async fn delete(context: &Context, name: Option<String>, all: bool, yes: bool) -> Result<()> {
    let known = context.home().node_names()?;
    let names = names_to_delete("node", name, all, &known)?;
    if names.is_empty() {
        return context
            .terminal
            .answer(&Answer::new("There is no node.", json!([])));
    }
    for name in &names {
        context.home().node(name)?;
    }
    context
        .terminal
        .confirm(yes, &format!("Deleting {}", names.join(", ")))?;
    for name in &names {
        remove(context, name).await?;
        context.terminal.done(format!("The node `{name}` was deleted."));
    }
    context.terminal.answer(
        &Answer::new(format!("Deleted: {}", names.join(", ")), json!(names)).machine(names.join("\n")),
    )
}

/// Stop a node and remove its folder. If it was the default, a running one follows, or any.
pub(crate) async fn remove(context: &Context, name: &str) -> Result<()> {
    let folder = stop_to_remove(context, name).await?;
    folder.remove()
}

/// Stop a node that is to be removed. If it is the default one, another takes its place.
pub(crate) async fn stop_to_remove(context: &Context, name: &str) -> Result<NodeFolder> {
    let folder = context.home().node(name)?;
    let was_default = is_default(context, name)?;
    process::stop(&folder).await?;
    if was_default {
        let home = context.home();
        let rest: Vec<NodeFolder> = home
            .node_names()?
            .iter()
            .map(|name| home.node_folder(name))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .filter(|other| other.name() != name)
            .filter(|other| other.spec().is_ok_and(|spec| spec.role == NodeRole::Node))
            .collect();
        if let Some(next) = rest.iter().find(|folder| folder.is_running()).or(rest.first()) {
            home.set_default_node(next.name())?;
        }
    }
    Ok(folder)
}

fn default(context: &Context, name: Option<String>) -> Result<()> {
    let name = match name {
        Some(name) => {
            context.home().node(&name)?;
            context.home().set_default_node(&name)?;
            context
                .terminal
                .done(format!("The default node is now `{name}`."));
            name
        }
        None => default_or(context, None)?.name().to_owned(),
    };
    context
        .terminal
        .answer(&Answer::new(name.clone(), json!({ "name": name })).machine(name))
}

//! `portolan node …`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::context::{Context, DEFAULT_LISTENER};
use super::output::{Answer, card, count, span, table, until};
use super::process::{self, Parent, Stopped};
use super::{Confirmation, names_to_delete, project, values};
use crate::control::api::{ConnectionStatus, NodeStatus, path};
use crate::control::client::NodeClient;
use crate::error::{Error, ErrorCode, Result};
use crate::host_port::HostPort;
use crate::state::{NodeFolder, NodeRole, now};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a node and start it; it runs in the background when the command returns.
    ///
    /// A running node of that name is an error. A stopped one is made anew: `node start` is what brings it back with its
    /// relays, policies and portals.
    Create(Create),
    /// What a node is and what it holds.
    Show {
        /// Default: the default node.
        #[arg(value_parser = values::node)]
        name: Option<String>,
    },
    /// All nodes of this home.
    List,
    /// Start a stopped node, with the relays, policies, inlets and outlets that it had.
    Start {
        /// Default: the default node.
        #[arg(value_parser = values::node)]
        name: Option<String>,
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
    Logs(Logs),
    /// Show the default node, or make another one the default.
    Default {
        #[arg(value_parser = values::node)]
        name: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// Letters, digits, `-` and `_`. Default: the default node if it is stopped, else a random name.
    #[arg(value_parser = values::node)]
    name: Option<String>,
    /// Where the node listens for other nodes.
    #[arg(short, long, value_name = "HOST:PORT", default_value = DEFAULT_LISTENER, value_parser = values::host_port)]
    tcp_listener_address: HostPort,
    /// Stay in this process; log to stderr.
    #[arg(short, long)]
    foreground: bool,
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
    child_process: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Logs {
    /// Default: the default node.
    #[arg(value_parser = values::node)]
    name: Option<String>,
    /// Go on printing what is written.
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines.
    #[arg(short = 'n', long, value_name = "NUMBER")]
    lines: Option<usize>,
    /// Print the path of the file instead.
    #[arg(long, conflicts_with_all = ["follow", "lines"])]
    path: bool,
}

impl Command {
    /// Whether this process becomes a node.
    pub(super) fn runs_here(&self) -> bool {
        matches!(self, Command::Create(create) if create.foreground)
    }

    /// The node that this process becomes in the background.
    pub(super) fn runs_in_background(&self) -> Option<&str> {
        match self {
            Command::Create(create) if create.child_process => create.name.as_deref(),
            _ => None,
        }
    }

    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Create(create) => create.run(context).await,
            Command::Show { name } => show(context, name).await,
            Command::List => list(context),
            Command::Start { name } => start(context, name).await,
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

impl Create {
    async fn run(self, context: &Context) -> Result<()> {
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
        let node = folder.open()?;
        context.adopt_as_default(folder)?;
        let (context, folder_of) = (context.clone(), folder.clone());
        let ran = Arc::new(AtomicBool::new(false));
        let runs = ran.clone();
        let result = process::run_here(node, self.exit_on_eof, move |status| {
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
        let result = process::run_here(node, false, move |_| {
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

async fn show(context: &Context, name: Option<String>) -> Result<()> {
    let folder = default_or(context, name)?;
    if folder.is_running() {
        let client = NodeClient::new(folder.clone()).with_timeout(Duration::from_secs(2));
        match client.get::<NodeStatus>(path::NODE).await {
            Ok(status) => return context.terminal.answer(&shown(context, &folder, &status)?),
            // A process that holds the lock and does not answer is shown as such.
            Err(error) => context.terminal.warn(error.message),
        }
    }
    context.terminal.answer(&shown_from_disk(context, &folder)?)
}

/// A running node.
fn shown(context: &Context, folder: &NodeFolder, status: &NodeStatus) -> Result<Answer> {
    let is_default = is_default(context, &status.name)?;
    let port = status
        .tcp_listener_address
        .rsplit_once(':')
        .map_or("0", |(_, port)| port);
    let verbose = format!("/dnsaddr/localhost/tcp/{port}");
    let short = format!("/node/{}", status.name);
    let up = |status: ConnectionStatus| match status {
        ConnectionStatus::Up => "up",
        ConnectionStatus::Down => "down",
    };
    let because = |reason: &Option<String>| {
        reason
            .as_ref()
            .map(|reason| format!(" ({reason})"))
            .unwrap_or_default()
    };
    let relays = status.relays.iter().map(|relay| {
        let down = relay.connection_status == ConnectionStatus::Down;
        let why = if down {
            because(&relay.last_failure)
        } else {
            String::new()
        };
        format!(
            "{} at {}, {}{why}",
            relay.name,
            relay.at,
            up(relay.connection_status)
        )
    });
    let inlets = status.inlets.iter().map(|inlet| {
        let down = inlet.status == ConnectionStatus::Down;
        let why = if down {
            because(&inlet.last_failure)
        } else {
            String::new()
        };
        format!(
            "{} {} -> {}, {}{why}",
            inlet.alias,
            inlet.bind_addr,
            inlet.outlet_addr,
            up(inlet.status)
        )
    });
    let outlets = status
        .outlets
        .iter()
        .map(|outlet| format!("/service/{} -> {}", outlet.address, outlet.to));
    let credential = match (status.credential_expires_at, &status.credential_failure) {
        (Some(end), None) => format!("ends {}", until(end, now())),
        (Some(end), Some(failure)) => format!("ends {}; not renewed: {failure}", until(end, now())),
        (None, Some(failure)) => format!("none: {failure}"),
        (None, None) => String::new(),
    };
    let lines = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join("\n");
    let mark = if is_default { " (default)" } else { "" };
    let plain = card(&[
        ("Node", format!("{}{mark}", status.name)),
        (
            "Status",
            format!("running for {}, process {}", span(status.uptime), status.pid),
        ),
        (
            "Identity",
            format!("{} {}", status.identity_name, status.identifier),
        ),
        ("Project", status.project.clone().unwrap_or_else(|| "none".into())),
        ("Credential", credential),
        (
            "Listens at",
            format!("{}  ({verbose})", status.tcp_listener_address),
        ),
        ("Relays", lines(&mut relays.into_iter())),
        ("Inlets", lines(&mut inlets.into_iter())),
        ("Outlets", lines(&mut outlets.into_iter())),
        (
            "Serves relays",
            lines(&mut status.served_relays.iter().map(|relay| relay.name.clone())),
        ),
        (
            "Services",
            status
                .services
                .iter()
                .map(|service| service.addr.clone())
                .collect::<Vec<_>>()
                .join(", "),
        ),
        ("Workers", status.workers.to_string()),
    ]);
    let json = json!({
        "name": status.name,
        "identity_name": status.identity_name,
        "identifier": status.identifier,
        "is_default": is_default,
        "status": "running",
        "pid": status.pid,
        "uptime": status.uptime,
        "version": status.version,
        "role": status.role,
        "project": status.project,
        "credential_expires_at": status.credential_expires_at,
        "credential_failure": status.credential_failure,
        "route": { "short": short, "verbose": verbose },
        "tcp_listener_address": status.tcp_listener_address,
        "status_endpoint_address": Value::Null,
        "transports": status.tcp_listeners,
        "secure_channel_listeners": status.secure_channel_listeners,
        "relays": status.relays,
        "inlets": status.inlets,
        "outlets": status.outlets,
        "services": status.services,
        "served_relays": status.served_relays,
        "workers": status.workers,
        "log": folder.log(),
    });
    Ok(Answer::new(plain, json).machine(status.name.clone()))
}

/// A node that does not answer: what is written down about it.
fn shown_from_disk(context: &Context, folder: &NodeFolder) -> Result<Answer> {
    let database = folder.read()?;
    let spec = database.spec()?;
    let status = if folder.is_running() { "zombie" } else { "stopped" };
    let (relays, inlets, outlets) = (database.relays()?, database.inlets()?, database.outlets()?);
    let is_default = is_default(context, folder.name())?;
    let mark = if is_default { " (default)" } else { "" };
    let lines = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join("\n");
    let plain = card(&[
        ("Node", format!("{}{mark}", folder.name())),
        (
            "Status",
            if status == "zombie" {
                "running, does not answer".into()
            } else {
                "stopped".into()
            },
        ),
        ("Identity", spec.identity.clone()),
        (
            "Relays",
            lines(
                &mut relays
                    .iter()
                    .map(|relay| format!("{} at {}", relay.name, relay.at)),
            ),
        ),
        (
            "Inlets",
            lines(
                &mut inlets
                    .iter()
                    .map(|inlet| format!("{} {} -> {}", inlet.alias, inlet.from, inlet.to)),
            ),
        ),
        (
            "Outlets",
            lines(
                &mut outlets
                    .iter()
                    .map(|outlet| format!("/service/{} -> {}", outlet.address, outlet.to)),
            ),
        ),
    ]);
    let json = json!({
        "name": folder.name(),
        "identity_name": spec.identity,
        "is_default": is_default,
        "status": status,
        "pid": if status == "zombie" { folder.pid() } else { None },
        "role": role(&spec.role),
        "project": spec.project,
        "route": { "short": format!("/node/{}", folder.name()), "verbose": Value::Null },
        "tcp_listener_address": database.bound_address()?.unwrap_or(spec.tcp_listener_address),
        "status_endpoint_address": Value::Null,
        "transports": [],
        "secure_channel_listeners": [],
        "relays": relays,
        "inlets": inlets,
        "outlets": outlets,
        "services": [],
        "log": folder.log(),
    });
    Ok(Answer::new(plain, json).machine(folder.name()))
}

pub(super) fn role(role: &NodeRole) -> &'static str {
    match role {
        NodeRole::Node => "node",
        NodeRole::Project(_) => "project",
    }
}

/// What `node list` and `status` say of each node.
pub(super) fn summaries(context: &Context) -> Result<(Vec<Vec<String>>, Vec<Value>)> {
    let default = context.home().default_node()?;
    let (mut rows, mut json) = (Vec::new(), Vec::new());
    for name in context.home().node_names()? {
        let folder = context.home().node_folder(&name)?;
        let running = folder.is_running();
        let (status, pid) = if running {
            ("running", folder.pid())
        } else {
            ("stopped", None)
        };
        let is_default = default.as_deref() == Some(&name);
        // A node whose database is damaged is still listed.
        let spec = folder.spec().ok();
        let role = spec.as_ref().map_or("unknown", |spec| role(&spec.role));
        let address = if running {
            folder.bound_address().unwrap_or_default()
        } else {
            String::new()
        };
        rows.push(vec![
            name.clone(),
            status.to_owned(),
            role.to_owned(),
            address.clone(),
            pid.map(|pid| pid.to_string()).unwrap_or_default(),
            if is_default {
                "default".into()
            } else {
                String::new()
            },
        ]);
        json.push(json!({
            "node_name": name,
            "status": { "status": status, "pid": pid },
            "pid": pid,
            "is_default": is_default,
            "role": role,
            "identity_name": spec.map(|spec| spec.identity),
            "tcp_listener_address": if running { Some(address) } else { None },
        }));
    }
    Ok((rows, json))
}

fn list(context: &Context) -> Result<()> {
    let (rows, json) = summaries(context)?;
    let plain = if rows.is_empty() {
        "There is no node yet. Make one: portolan node create".to_owned()
    } else {
        table(&["NAME", "STATUS", "ROLE", "LISTENS AT", "PROCESS", ""], &rows)
    };
    context.terminal.answer(&Answer::new(plain, Value::Array(json)))
}

async fn start(context: &Context, name: Option<String>) -> Result<()> {
    let folder = default_or(context, name)?;
    let name = folder.name().to_owned();
    if folder.is_running() {
        context
            .terminal
            .note(format!("The node `{name}` is already running."));
        return show(context, Some(name)).await;
    }
    let status = process::start(&folder).await?;
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
    context.terminal.answer(&shown(context, &folder, &status)?)
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
pub(super) async fn remove(context: &Context, name: &str) -> Result<()> {
    let folder = context.home().node(name)?;
    let was_default = is_default(context, name)?;
    process::stop(&folder).await?;
    folder.remove()?;
    if was_default {
        let home = context.home();
        let rest: Vec<NodeFolder> = home
            .node_names()?
            .iter()
            .map(|name| home.node_folder(name))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .filter(|folder| folder.spec().is_ok_and(|spec| spec.role == NodeRole::Node))
            .collect();
        if let Some(next) = rest.iter().find(|folder| folder.is_running()).or(rest.first()) {
            home.set_default_node(next.name())?;
        }
    }
    Ok(())
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

impl Logs {
    async fn run(self, context: &Context) -> Result<()> {
        let folder = default_or(context, self.name)?;
        let path = folder.log();
        if self.path || context.terminal.wants_json() {
            let shown = path.display().to_string();
            return context
                .terminal
                .answer(&Answer::new(shown.clone(), json!({ "path": path })).machine(shown));
        }
        let mut file = open_log(&path)?;
        let fail =
            |error: std::io::Error| Error::state(format!("{} cannot be read: {error}", path.display()));
        if let Some(lines) = self.lines {
            skip_to_last(&mut file, lines).map_err(fail)?;
        }
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = file.read(&mut buffer).map_err(fail)?;
            if length > 0 {
                context.terminal.raw(buffer.get(..length).unwrap_or_default())?;
            } else if self.follow {
                tokio::time::sleep(Duration::from_millis(200)).await;
                // A log that was moved aside is read to its end; then the new one is.
                if let Some(next) = successor(&file, &path) {
                    file = next;
                }
            } else {
                return Ok(());
            }
        }
    }
}

fn open_log(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(
            ErrorCode::NotFound,
            "the node has no log: it has never run in the background",
        ),
        _ => Error::state(format!("{} cannot be read: {error}", path.display())),
    })
}

/// The file that has taken the place of `file` at `path`, if one has.
fn successor(file: &File, path: &Path) -> Option<File> {
    use std::os::unix::fs::MetadataExt;
    let next = File::open(path).ok()?;
    let (old, new) = (file.metadata().ok()?, next.metadata().ok()?);
    (old.ino() != new.ino() || old.dev() != new.dev()).then_some(next)
}

/// Move to where the last `lines` lines begin.
fn skip_to_last(file: &mut File, lines: usize) -> std::io::Result<()> {
    const STEP: u64 = 64 * 1024;
    let mut position = file.metadata()?.len();
    let mut ends = 0;
    let mut buffer = Vec::new();
    while position > 0 {
        let start = position.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        buffer.clear();
        file.by_ref().take(position - start).read_to_end(&mut buffer)?;
        for (index, byte) in buffer.iter().enumerate().rev() {
            if *byte != b'\n' {
                continue;
            }
            // The end of the last line is not the end of a line before it.
            if ends == lines {
                file.seek(SeekFrom::Start(start + index as u64 + 1))?;
                return Ok(());
            }
            ends += 1;
        }
        position = start;
    }
    file.rewind()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_lines_of_a_log_are_found() {
        let mut file = tempfile::tempfile().unwrap();
        for number in 0..20_000 {
            writeln!(file, "line {number}").unwrap();
        }
        let last = |file: &mut File, lines| {
            skip_to_last(file, lines).unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            text.lines().count()
        };
        for lines in [1, 2, 10_000, 20_000, 30_000] {
            assert_eq!(last(&mut file, lines), lines.min(20_000));
        }
        assert_eq!(last(&mut file, 0), 0);
    }
}

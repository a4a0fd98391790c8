//! What a node is: asked of it, or read from the disk.

use std::time::Duration;

use serde_json::{Value, json};

use super::{default_or, is_default};
use crate::cli::context::Context;
use crate::cli::output::{Answer, card, span, table, until};
use crate::cli::worker::worker_state;
use crate::control::api::{ConnectionStatus, NodeStatus, WorkerState, path};
use crate::control::client::NodeClient;
use crate::error::{Error, Result};
use crate::state::{NodeFolder, NodeRole, now};

/// The role of a project's node.
const PROJECT: &str = "project";

/// What the command asks of the node beside showing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing: a stopped node is shown, too.
    Anything,
    /// It runs and answers.
    Running,
    /// It can do all that it was made for.
    Ready,
}

pub(super) async fn show(context: &Context, name: Option<String>, wanted: Wanted) -> Result<()> {
    let folder = default_or(context, name)?;
    if folder.is_running() || wanted != Wanted::Anything {
        let client = NodeClient::new(folder.clone()).with_timeout(Duration::from_secs(2));
        match client.get::<NodeStatus>(path::NODE).await {
            Ok(status) => {
                if wanted == Wanted::Ready {
                    ready(&status)?;
                }
                return context.terminal.answer(&shown(context, &folder, &status)?);
            }
            Err(error) if wanted != Wanted::Anything => return Err(error),
            // A process that holds the lock and does not answer is shown as such.
            Err(error) => context.terminal.warn(error.message),
        }
    }
    context.terminal.answer(&shown_from_disk(context, &folder)?)
}

/// An error that says all that a node lacks in order to do what it was made for.
fn ready(status: &NodeStatus) -> Result<()> {
    let down = |what: &str, name: &str, why: &Option<String>| match why {
        Some(why) => format!("{what} `{name}` is down: {why}"),
        None => format!("{what} `{name}` is down"),
    };
    let mut lacks = Vec::new();
    // A project's own node needs none: it is the one that asks others for theirs.
    let is_member = status.project.is_some() && status.role != PROJECT;
    if is_member && status.credential_expires_at.is_none_or(|end| end <= now()) {
        lacks.push(match &status.credential_failure {
            Some(why) => format!("it has no valid credential: {why}"),
            None => "it has no valid credential".to_owned(),
        });
    }
    for relay in &status.relays {
        if relay.connection_status == ConnectionStatus::Down {
            lacks.push(down("the relay", &relay.name, &relay.last_failure));
        }
    }
    for inlet in &status.inlets {
        if inlet.status == ConnectionStatus::Down {
            lacks.push(down("the inlet", &inlet.alias, &inlet.last_failure));
        }
    }
    for worker in &status.started_workers {
        if matches!(worker.state, WorkerState::Failed | WorkerState::Ended) {
            let why = worker.problem.as_deref().unwrap_or("it has ended");
            lacks.push(format!("the worker `{}` does not run: {why}", worker.address));
        }
    }
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Error::unreachable(format!(
        "the node `{}` runs, but is not ready: {}",
        status.name,
        lacks.join("; ")
    ))
    .hint(format!(
        "it goes on trying; see portolan node logs {}, or its standard error in the foreground",
        status.name
    )))
}

/// A running node.
pub(crate) fn shown(context: &Context, folder: &NodeFolder, status: &NodeStatus) -> Result<Answer> {
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
    let started = status.started_workers.iter().map(|worker| {
        let state = worker_state(worker.state);
        let why = because(&worker.problem);
        format!("/service/{}, a {}, {state}{why}", worker.address, worker.kind)
    });
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
        ("Own workers", lines(&mut started.into_iter())),
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
        "started_workers": status.started_workers,
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
    let workers = database.workers()?;
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
        (
            "Own workers",
            lines(
                &mut workers
                    .iter()
                    .map(|worker| format!("/service/{}, a {}", worker.address, worker.kind)),
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
        "started_workers": workers,
        "log": folder.log(),
    });
    Ok(Answer::new(plain, json).machine(folder.name()))
}

fn role(role: &NodeRole) -> &'static str {
    match role {
        NodeRole::Node => "node",
        NodeRole::Project(_) => PROJECT,
    }
}

/// What `node list` and `status` say of each node.
pub(crate) fn summaries(context: &Context) -> Result<(Vec<Vec<String>>, Vec<Value>)> {
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

pub(crate) fn list(context: &Context) -> Result<()> {
    let (rows, json) = summaries(context)?;
    let plain = if rows.is_empty() {
        "There is no node yet. Make one: portolan node create".to_owned()
    } else {
        table(&["NAME", "STATUS", "ROLE", "LISTENS AT", "PROCESS", ""], &rows)
    };
    context.terminal.answer(&Answer::new(plain, Value::Array(json)))
}

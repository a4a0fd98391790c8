//! `portolan worker …`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::context::Context;
use super::output::{Answer, card, table};
use super::{Confirmation, config, names_to_delete, policy, values};
use crate::control::api::{
    StartWorker, StartedWorker, WorkerState, WorkerStatus, WorkerTypeStatus, item, path,
};
use crate::control::client::NodeClient;
use crate::error::Result;
use crate::worker_types::WorkerTypes;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Start a worker by the name of its type. It comes back when the node starts again.
    Start(Start),
    /// Stop a worker that was started by name, and forget it. It finishes the message that it is handling.
    Stop {
        /// Its address.
        #[arg(value_parser = values::service, conflicts_with = "all")]
        address: Option<String>,
        /// Every worker of the node that was started by name.
        #[arg(long)]
        all: bool,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// The addresses of all workers of a node.
    List {
        /// Only those that were started by name, with what they did.
        #[arg(long)]
        started: bool,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// One worker that was started by name: its configuration, who may reach it, what it did.
    Show {
        /// Its address.
        #[arg(value_parser = values::service)]
        address: String,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// What can be started by name.
    Types {
        /// The node. Default: the default node; without one, what this program knows.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Start {
    /// The type; `portolan worker types` lists them.
    #[arg(value_name = "TYPE", value_parser = values::service, required_unless_present = "plugin")]
    kind: Option<String>,
    /// Instead of a type: a plugin, by its name; `portolan plugin list` lists them.
    #[arg(long, value_name = "NAME", value_parser = values::plain, conflicts_with = "kind")]
    plugin: Option<String>,
    /// With --plugin: a right that this worker has beside those that the plugin was granted. Can be repeated.
    #[arg(long, value_name = "RIGHT", requires = "plugin")]
    grant: Vec<String>,
    /// The worker's address. Default: the name of its type or plugin.
    #[arg(long, value_name = "ADDRESS", value_parser = values::service)]
    address: Option<String>,
    /// The type's own configuration, JSON (or YAML): {"to": "echo", "messages-per-second": 10}.
    #[arg(long, value_name = "JSON", value_parser = values::configuration, conflicts_with = "config_file")]
    config: Option<Value>,
    /// The same, from a file that is read now.
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Who may reach it from other nodes. Default: the node's policy for `worker`; without one, only workers of its node.
    #[arg(long, visible_alias = "expression", value_name = "POLICY", value_parser = policy::expression)]
    allow: Option<String>,
    /// The node. Default: the default node, made if there is none.
    #[arg(long, value_name = "NODE", value_parser = values::node)]
    at: Option<String>,
}

impl Start {
    /// Its type.
    pub(super) fn kind(&self) -> &str {
        let kind = self.kind.as_deref().or(self.plugin.as_deref());
        kind.unwrap_or_default()
    }

    /// Its plugin, if it is one.
    pub(super) fn plugin(&self) -> Option<&str> {
        self.plugin.as_deref()
    }

    /// Where it will be.
    pub(super) fn address(&self) -> &str {
        self.address.as_deref().unwrap_or(self.kind())
    }

    /// Its own policy, if it has one.
    pub(super) fn policy(&self) -> Option<&str> {
        self.allow.as_deref()
    }

    /// The node that holds it; `None` is the default one.
    pub(super) fn node(&mut self) -> &mut Option<String> {
        &mut self.at
    }

    /// The type's own configuration.
    pub(super) fn config(&self) -> Result<Value> {
        match (&self.config, &self.config_file) {
            (Some(config), _) => Ok(config.clone()),
            (None, Some(path)) => config::file(path),
            (None, None) => Ok(Value::Null),
        }
    }

    /// Whether it makes sense on a node of this program. Changes nothing.
    pub(super) fn check(&self, types: &WorkerTypes) -> Result<()> {
        let config = self.config()?;
        if self.plugin.is_some() {
            // What it takes, only the plugin itself knows.
            return Ok(());
        }
        types.known(self.kind())?.check(&config)
    }

    /// Make it. The node decides whether it can: it may be another program than this one.
    pub(super) async fn make(self, context: &Context) -> Result<(StartedWorker, NodeClient)> {
        let config = self.config()?;
        if let Some(allow) = &self.allow {
            policy::warn(context, allow).await;
        }
        let client = context.node(self.at.as_deref()).await?;
        let request = StartWorker {
            kind: self.kind().to_owned(),
            is_plugin: self.plugin.is_some(),
            grant: self.grant,
            address: self.address,
            config,
            allow: self.allow,
        };
        let worker: StartedWorker = client.post(path::WORKERS, &request).await?;
        context.terminal.done(format!(
            "The node `{}` has the worker /service/{}, a {}.",
            client.name(),
            worker.address,
            worker.kind
        ));
        Ok((worker, client))
    }

    async fn run(self, context: &Context) -> Result<()> {
        let (worker, client) = self.make(context).await?;
        let address = format!("/service/{}", worker.address);
        let json = described(&worker, client.name());
        context
            .terminal
            .answer(&Answer::new(plain(&worker, client.name()), json).machine(address))
    }
}

/// Who reaches it, for people.
fn reached(policy: Option<&str>) -> String {
    match policy {
        None => "only workers of its node".to_owned(),
        Some(policy) => format!("workers of its node, and peers if {policy}"),
    }
}

/// For people.
pub(super) fn worker_state(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Starting => "starting",
        WorkerState::Running => "running",
        WorkerState::Restarting => "restarting",
        WorkerState::Ended => "ended",
        WorkerState::Failed => "failed",
    }
}

fn plain(worker: &StartedWorker, node: &str) -> String {
    let problem = worker
        .problem
        .as_ref()
        .map(|problem| format!(": {problem}"))
        .unwrap_or_default();
    card(&[
        ("Worker", format!("/service/{}", worker.address)),
        (
            if worker.is_plugin { "Plugin" } else { "Type" },
            worker.kind.clone(),
        ),
        ("May", worker.rights.join(", ")),
        ("Node", node.to_owned()),
        ("State", format!("{}{problem}", worker_state(worker.state))),
        ("What to do", worker.hint.clone().unwrap_or_default()),
        ("Reached by", reached(worker.policy.as_deref())),
        (
            "Messages",
            format!(
                "{} handled, {} failed, {} waiting, {} refused",
                worker.handled, worker.failed, worker.waiting, worker.refused
            ),
        ),
        (
            "Restarts",
            if worker.restarts == 0 {
                String::new()
            } else {
                worker.restarts.to_string()
            },
        ),
        (
            "Memory",
            worker
                .memory
                .map(|bytes| format!("{} KiB", bytes.div_ceil(1024)))
                .unwrap_or_default(),
        ),
        ("Last failure", worker.last_failure.clone().unwrap_or_default()),
        (
            "Configuration",
            if worker.config.is_null() {
                String::new()
            } else {
                worker.config.to_string()
            },
        ),
    ])
}

fn described(worker: &StartedWorker, node: &str) -> Value {
    let mut json = json!(worker);
    json["node_name"] = json!(node);
    json["worker_address"] = json!(format!("/service/{}", worker.address));
    json
}

/// One line for each, in `worker list --started`.
fn rows(workers: &[StartedWorker]) -> Vec<Vec<String>> {
    workers
        .iter()
        .map(|worker| {
            vec![
                format!("/service/{}", worker.address),
                worker.kind.clone(),
                worker_state(worker.state).to_owned(),
                worker.handled.to_string(),
                worker.failed.to_string(),
                worker.waiting.to_string(),
                worker.refused.to_string(),
            ]
        })
        .collect()
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Start(start) => start.run(context).await,
            Command::Stop {
                address,
                all,
                at,
                confirmation,
            } => stop(context, address, all, at.as_deref(), &confirmation).await,
            Command::List { started, at } => list(context, started, at.as_deref()).await,
            Command::Show { address, at } => {
                let client = context.some_node(at.as_deref())?;
                let worker: StartedWorker = client.get(&item(path::WORKERS, &address)).await?;
                let json = described(&worker, client.name());
                context
                    .terminal
                    .answer(&Answer::new(plain(&worker, client.name()), json))
            }
            Command::Types { at } => types(context, at.as_deref()).await,
        }
    }
}

async fn stop(
    context: &Context,
    address: Option<String>,
    all: bool,
    at: Option<&str>,
    confirmation: &Confirmation,
) -> Result<()> {
    let client = context.some_node(at)?;
    let known = started_workers(&client).await?;
    let known: Vec<String> = known.into_iter().map(|worker| worker.address).collect();
    let names = names_to_delete("worker", address, all, &known)?;
    if all && !names.is_empty() {
        context
            .terminal
            .confirm(confirmation.yes, &format!("Stopping {}", names.join(", ")))?;
    }
    for name in &names {
        client.delete(&item(path::WORKERS, name)).await?;
        context.terminal.done(format!("The worker `{name}` was stopped."));
    }
    let json: Vec<Value> = names
        .iter()
        .map(|name| json!({ "address": name, "node": client.name() }))
        .collect();
    context.terminal.answer(&Answer::new(
        format!("Stopped: {}", names.join(", ")),
        json!(json),
    ))
}

async fn started_workers(client: &NodeClient) -> Result<Vec<StartedWorker>> {
    let workers: Vec<WorkerStatus> = client.get(path::WORKERS).await?;
    let mut started: Vec<StartedWorker> = workers
        .into_iter()
        .filter_map(|worker| worker.started.map(|started| *started))
        .collect();
    started.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(started)
}

async fn list(context: &Context, started: bool, at: Option<&str>) -> Result<()> {
    let client = context.existing_node(at)?;
    let node = client.as_ref().map(|client| client.name().to_owned());
    if started {
        let workers = match &client {
            Some(client) => started_workers(client).await?,
            None => Vec::new(),
        };
        let plain = if workers.is_empty() {
            "No worker was started by name. Start one: portolan worker start TYPE".to_owned()
        } else {
            table(
                &[
                    "ADDRESS", "TYPE", "STATE", "HANDLED", "FAILED", "WAITING", "REFUSED",
                ],
                &rows(&workers),
            )
        };
        return context
            .terminal
            .answer(&Answer::new(plain, json!({ "node_name": node, "list": workers })));
    }
    let workers: Vec<WorkerStatus> = match &client {
        Some(client) => client.get(path::WORKERS).await?,
        None => Vec::new(),
    };
    let rows: Vec<Vec<String>> = workers
        .iter()
        .map(|worker| vec![worker.address.clone(), worker.kind.clone().unwrap_or_default()])
        .collect();
    let plain = if rows.is_empty() {
        "There is no worker.".to_owned()
    } else {
        table(&["ADDRESS", "TYPE"], &rows)
    };
    let list: Vec<Value> = workers
        .iter()
        .map(|worker| json!({ "addr": worker.address, "type": worker.kind }))
        .collect();
    context
        .terminal
        .answer(&Answer::new(plain, json!({ "node_name": node, "list": list })))
}

async fn types(context: &Context, at: Option<&str>) -> Result<()> {
    // Only looking: a default node that is stopped is no reason to say nothing.
    let client = match at {
        Some(name) => context.existing_node(Some(name))?,
        None => context.existing_node(None).ok().flatten(),
    };
    let types: Vec<WorkerTypeStatus> = match client {
        Some(client) => client.get(path::WORKER_TYPES).await?,
        None => context
            .types()
            .iter()
            .map(|known| WorkerTypeStatus {
                name: known.name().to_owned(),
                about: known.about().to_owned(),
            })
            .collect(),
    };
    let rows: Vec<Vec<String>> = types
        .iter()
        .map(|known| vec![known.name.clone(), known.about.clone()])
        .collect();
    let plain = if rows.is_empty() {
        "This program has no worker types.".to_owned()
    } else {
        table(&["TYPE", "WHAT IT DOES"], &rows)
    };
    context.terminal.answer(&Answer::new(plain, json!(types)))
}

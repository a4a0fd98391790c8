//! `portolan relay …`.

use std::time::Duration;

use serde_json::{Value, json};

use super::context::Context;
use super::output::{Answer, card, table};
use super::{Confirmation, names_to_delete, values};
use crate::control::api::{ConnectionStatus, CreateRelay, RelayStatus, item, path};
use crate::control::client::{DEFAULT_TIMEOUT, NodeClient};
use crate::error::{Error, Result};
use crate::multiaddr::MultiAddr;

/// How long `relay create` waits for the first registration.
const WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Register a name under which this node can be reached: `/service/forward_to_NAME` at the project.
    ///
    /// The node keeps it registered, through restarts of either side. It is an error if the other side says that you have
    /// no right to the name; if it cannot be reached, the node goes on trying and the command warns.
    Create(Create),
    /// The relays of a node.
    List {
        /// The node. Default: the default node.
        #[arg(long, alias = "at", value_name = "NODE", value_parser = values::node)]
        to: Option<String>,
    },
    /// One relay: whether it is up, and if not, why.
    Show {
        #[arg(default_value = "default", value_parser = values::alias)]
        name: String,
        /// The node. Default: the default node.
        #[arg(long, alias = "to", value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// Give a name up.
    Delete {
        #[arg(value_parser = values::alias, conflicts_with = "all")]
        name: Option<String>,
        /// Every relay of the node.
        #[arg(long)]
        all: bool,
        /// The node. Default: the default node.
        #[arg(long, alias = "to", value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// The name; your credential must give you the right to it.
    #[arg(default_value = "default", value_parser = values::alias)]
    name: String,
    /// The node that will be reached. Default: the default node, made if there is none.
    #[arg(long, value_name = "NODE", value_parser = values::node)]
    to: Option<String>,
    /// Where the name is registered: a node, or a route. Default: the default project.
    #[arg(long, value_name = "ROUTE", allow_hyphen_values = true)]
    at: Option<String>,
    /// The identity that is expected there (not with a project, whose identity is known).
    #[arg(long, value_name = "IDENTIFIER", value_parser = values::identifier)]
    authorized: Option<String>,
    /// Ask for another name there than the one that is used here.
    #[arg(long, value_name = "NAME", value_parser = values::alias)]
    relay_address: Option<String>,
    /// Return at once, whatever becomes of it.
    #[arg(long, visible_alias = "no-wait")]
    no_connection_wait: bool,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Create(create) => create.run(context).await,
            Command::List { to } => list(context, to.as_deref()).await,
            Command::Show { name, at } => {
                let client = context.some_node(at.as_deref())?;
                let status: RelayStatus = client.get(&item(path::RELAYS, &name)).await?;
                context.terminal.answer(&shown(&status, &client))
            }
            Command::Delete {
                name,
                all,
                at,
                confirmation,
            } => delete(context, name, all, at.as_deref(), confirmation.yes).await,
        }
    }
}

/// Where a relay is made: a bare node name is a node of this home.
fn place(context: &Context, at: Option<&str>, project: impl FnOnce() -> Result<String>) -> Result<MultiAddr> {
    match at {
        None => MultiAddr::from_argument(&format!("/project/{}", project()?)),
        Some(at) if !at.contains('/') && at != "-" => {
            let name = values::node(at).map_err(Error::invalid)?;
            // Said here, because the node would go on trying.
            context.home().node(&name)?;
            MultiAddr::from_argument(&format!("/node/{name}"))
        }
        Some(at) => {
            let at = values::route(at)?;
            if let Some(name) = at.project() {
                // As above.
                context.project(Some(name))?;
            }
            Ok(at)
        }
    }
}

impl Create {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The node that it leads to; `None` is the default one.
    pub(super) fn node(&mut self) -> &mut Option<String> {
        &mut self.to
    }

    /// Where it is made. Changes nothing.
    pub(super) fn check(
        &self,
        context: &Context,
        project: impl FnOnce() -> Result<String>,
    ) -> Result<MultiAddr> {
        let at = place(context, self.at.as_deref(), project)?;
        if let (Some(project), Some(_)) = (at.project(), &self.authorized) {
            return Err(
                Error::invalid(format!("--authorized does not go with the project `{project}`"))
                    .hint("leave it out: the identity of a project is known"),
            );
        }
        Ok(at)
    }

    /// Make it, at `project` unless a place was said.
    pub(super) async fn make(
        self,
        context: &Context,
        project: impl FnOnce() -> Result<String>,
    ) -> Result<(RelayStatus, NodeClient)> {
        let at = self.check(context, project)?;
        let client = context
            .node(self.to.as_deref())
            .await?
            .with_timeout(WAIT + DEFAULT_TIMEOUT);
        let request = CreateRelay {
            name: self.name.clone(),
            relay_address: self.relay_address,
            at: at.to_string(),
            authorized: self.authorized,
            wait_ms: if self.no_connection_wait {
                0
            } else {
                values::milliseconds(WAIT)
            },
        };
        let status: RelayStatus = client.post(path::RELAYS, &request).await?;
        let why = status
            .last_failure
            .clone()
            .unwrap_or_else(|| "no answer yet".into());
        if status.refused && !self.no_connection_wait {
            // A name that will not be given is not worth keeping.
            client.delete(&item(path::RELAYS, &self.name)).await?;
            // A ticket is only for who joins: it adds no right to a member's.
            return Err(
                Error::refused(format!("the relay `{}` was refused: {why}", self.name)).hint(format!(
                    "take another name; or have an administrator give this member the right (portolan project-member \
                     add IDENTIFIER --relay {}, with the attributes that it has) and run portolan project enroll here: \
                     within 5 s the node has the right",
                    self.name
                )),
            );
        }
        let (terminal, node) = (&context.terminal, client.name());
        match status.connection_status {
            ConnectionStatus::Up => terminal.done(format!(
                "The node `{node}` can be reached at {} through {}.",
                remote_address(&status),
                status.at
            )),
            ConnectionStatus::Down if self.no_connection_wait => {}
            ConnectionStatus::Down => {
                terminal.warn(format!(
                    "The relay `{}` is not up yet: {why}.\nThe node goes on trying.",
                    status.name
                ));
            }
        }
        Ok((status, client))
    }

    async fn run(self, context: &Context) -> Result<()> {
        let (status, client) = self.make(context, || Ok(context.project(None)?.name)).await?;
        let json = json!({
            "name": status.name,
            "forwarding_route": remote_address(&status),
            "remote_address": remote_address(&status),
            "worker_address": status.worker_address,
            "flow_control_id": status.flow_control_id,
            "connection_status": status.connection_status,
            "destination_address": status.at,
            "last_failure": status.last_failure,
        });
        let answer = Answer::new(plain(&status, client.name()), json);
        context.terminal.answer(&answer.machine(remote_address(&status)))
    }
}

/// `/service/forward_to_x`, also while it is down.
fn remote_address(status: &RelayStatus) -> String {
    status
        .remote_address
        .clone()
        .unwrap_or_else(|| format!("/service/forward_to_{}", status.name))
}

fn said(status: ConnectionStatus) -> &'static str {
    match status {
        ConnectionStatus::Up => "up",
        ConnectionStatus::Down => "down",
    }
}

fn plain(status: &RelayStatus, node: &str) -> String {
    card(&[
        ("Relay", status.name.clone()),
        ("Status", said(status.connection_status).to_owned()),
        ("Last failure", status.last_failure.clone().unwrap_or_default()),
        ("Leads to", format!("/node/{node}")),
        ("At", status.at.clone()),
        ("Reached by", format!("{}{}", status.at, remote_address(status))),
    ])
}

fn shown(status: &RelayStatus, client: &NodeClient) -> Answer {
    Answer::new(plain(status, client.name()), record(status, client.name()))
}

fn record(status: &RelayStatus, node: &str) -> Value {
    json!({
        "name": status.name,
        "destination": format!("/node/{node}"),
        "connection_status": status.connection_status,
        "relay_route": format!("{}{}", status.at, remote_address(status)),
        "remote_address": remote_address(status),
        "worker_address": status.worker_address,
        "at": status.at,
        "last_failure": status.last_failure,
        "refused": status.refused,
    })
}

async fn list(context: &Context, node: Option<&str>) -> Result<()> {
    let (relays, name) = match context.existing_node(node)? {
        Some(client) => (
            client.get::<Vec<RelayStatus>>(path::RELAYS).await?,
            client.name().to_owned(),
        ),
        None => (Vec::new(), String::new()),
    };
    let rows: Vec<Vec<String>> = relays
        .iter()
        .map(|relay| {
            vec![
                relay.name.clone(),
                said(relay.connection_status).to_owned(),
                relay.at.clone(),
                relay.last_failure.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let plain = if rows.is_empty() {
        "There is no relay. Register one: portolan relay create NAME".to_owned()
    } else {
        table(&["NAME", "STATUS", "AT", "LAST FAILURE"], &rows)
    };
    let json: Vec<Value> = relays.iter().map(|relay| record(relay, &name)).collect();
    context.terminal.answer(&Answer::new(plain, json!(json)))
}

async fn delete(
    context: &Context,
    name: Option<String>,
    all: bool,
    at: Option<&str>,
    yes: bool,
) -> Result<()> {
    let client = context.some_node(at)?;
    let known: Vec<String> = client
        .get::<Vec<RelayStatus>>(path::RELAYS)
        .await?
        .into_iter()
        .map(|relay| relay.name)
        .collect();
    let names = names_to_delete("relay", name, all, &known)?;
    if !names.is_empty() {
        context
            .terminal
            .confirm(yes, &format!("Deleting {}", names.join(", ")))?;
    }
    for name in &names {
        client.delete(&item(path::RELAYS, name)).await?;
        context.terminal.done(format!("The relay `{name}` was deleted."));
    }
    let json = json!(
        names
            .iter()
            .map(|name| json!({ "name": name, "node": client.name() }))
            .collect::<Vec<_>>()
    );
    context
        .terminal
        .answer(&Answer::new(format!("Deleted: {}", names.join(", ")), json))
}

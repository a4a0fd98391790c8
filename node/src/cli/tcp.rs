//! `portolan tcp-connection …` and `portolan tcp-listener …`: the transport between nodes.

use std::time::Duration;

use serde_json::{Value, json};

use super::channel::{delete_one, get_all};
use super::context::Context;
use super::output::{Answer, card, table};
use super::{Confirmation, values};
use crate::control::api::{
    CreateTcpConnection, CreateTcpListener, TcpConnectionStatus, TcpListenerStatus, item, path,
};
use crate::control::client::DEFAULT_TIMEOUT;
use crate::error::Result;
use crate::host_port::HostPort;

#[derive(Debug, clap::Subcommand)]
pub(super) enum ConnectionCommand {
    /// Connect a node to another one; what is sent to the address that is printed goes over the connection.
    Create {
        /// The node that connects. Default: the default node, made if there is none.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        from: Option<String>,
        /// Where the other node listens.
        #[arg(short, long, value_name = "HOST:PORT", value_parser = values::host_port)]
        to: HostPort,
        /// Limit for the connection.
        #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
        timeout: Duration,
    },
    /// The TCP connections of a node.
    List {
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// One connection.
    Show {
        /// Its address, or the address of the other side.
        address: String,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// Close a connection.
    Delete {
        /// Its address, or the address of the other side.
        address: String,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum ListenerCommand {
    /// Listen for other nodes at one more address.
    Create {
        #[arg(value_name = "HOST:PORT", value_parser = values::host_port)]
        address: HostPort,
        /// The node. Default: the default node, made if there is none.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// The TCP listeners of a node.
    List {
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// One listener.
    Show {
        /// `host:port` or the listener's address.
        address: String,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// Stop listening at an address; open connections stay.
    Delete {
        /// `host:port` or the listener's address.
        address: String,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

/// The worker's name, without `/service/` or `/worker/`.
fn bare(address: &str) -> &str {
    address
        .strip_prefix("/service/")
        .or_else(|| address.strip_prefix("/worker/"))
        .unwrap_or(address)
}

fn connection_plain(connection: &TcpConnectionStatus) -> String {
    card(&[
        ("Connection", format!("/service/{}", connection.address)),
        ("To", connection.peer.clone()),
        ("Role", connection.role.clone()),
        (
            "Flow control",
            connection.flow_control_id.clone().unwrap_or_default(),
        ),
    ])
}

fn connection_record(connection: &TcpConnectionStatus) -> Value {
    json!({
        "address": format!("/service/{}", connection.address),
        "to": connection.peer,
        "role": connection.role,
        "flow_control_id": connection.flow_control_id,
    })
}

impl ConnectionCommand {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            ConnectionCommand::Create { from, to, timeout } => {
                let client = context
                    .node(from.as_deref())
                    .await?
                    .with_timeout(timeout + DEFAULT_TIMEOUT);
                let request = CreateTcpConnection {
                    to: to.to_string(),
                    timeout_ms: values::milliseconds(timeout),
                };
                let connection: TcpConnectionStatus = client.post(path::TCP_CONNECTIONS, &request).await?;
                let address = format!("/service/{}", connection.address);
                context.terminal.done(format!(
                    "The node `{}` is connected to {}.",
                    client.name(),
                    connection.peer
                ));
                let json = json!({
                    "from": client.name(),
                    "to": connection.peer,
                    "address": address,
                    "flow_control_id": connection.flow_control_id,
                });
                context
                    .terminal
                    .answer(&Answer::new(connection_plain(&connection), json).machine(address))
            }
            ConnectionCommand::List { at } => {
                let all: Vec<TcpConnectionStatus> =
                    get_all(context, at.as_deref(), path::TCP_CONNECTIONS).await?;
                let rows: Vec<Vec<String>> = all
                    .iter()
                    .map(|one| {
                        vec![
                            format!("/service/{}", one.address),
                            one.role.clone(),
                            one.peer.clone(),
                        ]
                    })
                    .collect();
                let plain = if rows.is_empty() {
                    "There is no TCP connection.".to_owned()
                } else {
                    table(&["ADDRESS", "ROLE", "TO"], &rows)
                };
                let json: Vec<Value> = all.iter().map(connection_record).collect();
                context.terminal.answer(&Answer::new(plain, json!(json)))
            }
            ConnectionCommand::Show { address, at } => {
                let client = context.some_node(at.as_deref())?;
                let connection: TcpConnectionStatus =
                    client.get(&item(path::TCP_CONNECTIONS, bare(&address))).await?;
                context.terminal.answer(&Answer::new(
                    connection_plain(&connection),
                    connection_record(&connection),
                ))
            }
            ConnectionCommand::Delete {
                address,
                at,
                confirmation,
            } => {
                let client = context.some_node(at.as_deref())?;
                let address = bare(&address);
                delete_one(
                    context,
                    &client,
                    path::TCP_CONNECTIONS,
                    "TCP connection",
                    address,
                    confirmation.yes,
                )
                .await
            }
        }
    }
}

/// As the reference prints it: how a node on this machine reaches the listener.
fn route(listener: &TcpListenerStatus) -> String {
    let port = listener.address.rsplit_once(':').map_or("0", |(_, port)| port);
    format!("/dnsaddr/localhost/tcp/{port}")
}

fn listener_answer(listener: &TcpListenerStatus) -> Answer {
    let plain = card(&[
        ("Listener", listener.address.clone()),
        ("Route", route(listener)),
        ("Worker", listener.worker_address.clone().unwrap_or_default()),
        (
            "Flow control",
            listener.flow_control_id.clone().unwrap_or_default(),
        ),
    ]);
    Answer::new(plain, listener_record(listener))
}

fn listener_record(listener: &TcpListenerStatus) -> Value {
    json!({
        "address": listener.address,
        "route": route(listener),
        "worker_address": listener.worker_address,
        "flow_control_id": listener.flow_control_id,
    })
}

impl ListenerCommand {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            ListenerCommand::Create { address, at } => {
                let client = context.node(at.as_deref()).await?;
                let request = CreateTcpListener {
                    address: address.to_string(),
                };
                let listener: TcpListenerStatus = client.post(path::TCP_LISTENERS, &request).await?;
                context.terminal.done(format!(
                    "The node `{}` listens at {}, too.",
                    client.name(),
                    listener.address
                ));
                context
                    .terminal
                    .answer(&listener_answer(&listener).machine(route(&listener)))
            }
            ListenerCommand::List { at } => {
                let all: Vec<TcpListenerStatus> =
                    get_all(context, at.as_deref(), path::TCP_LISTENERS).await?;
                let rows: Vec<Vec<String>> = all
                    .iter()
                    .map(|one| vec![one.address.clone(), route(one)])
                    .collect();
                let plain = if rows.is_empty() {
                    "There is no TCP listener.".to_owned()
                } else {
                    table(&["ADDRESS", "ROUTE"], &rows)
                };
                let json: Vec<Value> = all.iter().map(listener_record).collect();
                context.terminal.answer(&Answer::new(plain, json!(json)))
            }
            ListenerCommand::Show { address, at } => {
                let client = context.some_node(at.as_deref())?;
                let listener: TcpListenerStatus =
                    client.get(&item(path::TCP_LISTENERS, bare(&address))).await?;
                context.terminal.answer(&listener_answer(&listener))
            }
            ListenerCommand::Delete {
                address,
                at,
                confirmation,
            } => {
                let client = context.some_node(at.as_deref())?;
                let address = bare(&address);
                delete_one(
                    context,
                    &client,
                    path::TCP_LISTENERS,
                    "TCP listener",
                    address,
                    confirmation.yes,
                )
                .await
            }
        }
    }
}

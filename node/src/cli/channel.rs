//! `portolan secure-channel …` and `portolan secure-channel-listener …`.

use std::time::Duration;

use serde_json::{Value, json};

use super::context::Context;
use super::output::{Answer, attributes, card, table};
use super::{Confirmation, values};
use crate::control::api::{
    ChannelTraffic, CreateSecureChannel, CreateSecureChannelListener, SecureChannelListenerStatus,
    SecureChannelStatus, item, path,
};
use crate::control::client::{DEFAULT_TIMEOUT, NodeClient};
use crate::error::{Error, Result};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Open a secure channel; what is sent to the address that is printed comes out at the other end.
    Create {
        /// The node that opens it. Default: the default node, made if there is none.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        from: Option<String>,
        /// The route to the listener; `-` as a segment is read from stdin.
        #[arg(long, value_name = "ROUTE", allow_hyphen_values = true)]
        to: String,
        /// The identity that is expected at the other end. Can be repeated.
        #[arg(short, long, value_name = "IDENTIFIER", value_parser = values::identifier)]
        authorized: Vec<String>,
        /// The identity to use. Default: the node's.
        #[arg(long, value_name = "NAME")]
        identity: Option<String>,
        /// A credential to present, hex. Default: the node's own.
        #[arg(short, long, value_name = "HEX")]
        credential: Option<String>,
        /// Limit for the handshake.
        #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
        timeout: Duration,
    },
    /// The secure channels of a node.
    List {
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// One secure channel.
    Show {
        /// Its address.
        #[arg(value_parser = values::service)]
        address: String,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// Close a secure channel.
    Delete {
        /// Its address.
        #[arg(value_parser = values::service)]
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
    /// Accept secure channels at an address.
    Create {
        #[arg(value_parser = values::service)]
        address: String,
        /// The node. Default: the default node, made if there is none.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
        /// An identity that may connect; without any, all may. Can be repeated.
        #[arg(short, long, value_name = "IDENTIFIER", value_parser = values::identifier)]
        authorized: Vec<String>,
        /// The identity to answer with. Default: the node's.
        #[arg(long, value_name = "NAME")]
        identity: Option<String>,
    },
    /// The secure channel listeners of a node.
    List {
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// One listener.
    Show {
        #[arg(value_parser = values::service)]
        address: String,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// Stop accepting secure channels at an address; open ones stay.
    Delete {
        #[arg(value_parser = values::service)]
        address: String,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

fn plain(channel: &SecureChannelStatus) -> String {
    card(&[
        ("Channel", format!("/service/{}", channel.address)),
        ("Peer", channel.peer.clone()),
        ("Role", channel.role.clone()),
        ("To", channel.to.clone()),
        ("Attributes", attributes(&channel.attributes)),
        ("Suite", channel.suite.clone()),
        ("Sent", traffic(&channel.sent)),
        ("Received", traffic(&channel.received)),
        ("Rejected", channel.rejected.to_string()),
    ])
}

fn traffic(direction: &ChannelTraffic) -> String {
    let ChannelTraffic {
        messages,
        bytes,
        rekeys,
    } = direction;
    format!("{messages} messages, {bytes} bytes; key replaced {rekeys} times")
}

fn record(channel: &SecureChannelStatus) -> Value {
    json!({
        "address": format!("/service/{}", channel.address),
        "to": channel.to,
        "peer": channel.peer,
        "role": channel.role,
        "attributes": channel.attributes,
        "suite": channel.suite,
        "sent": channel.sent,
        "received": channel.received,
        "rejected": channel.rejected,
    })
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Create {
                from,
                to,
                authorized,
                identity,
                credential,
                timeout,
            } => {
                let to = values::route(&to)?;
                if let Some(name) = &identity {
                    context.home().identity(name)?;
                }
                let client = context
                    .node(from.as_deref())
                    .await?
                    .with_timeout(timeout + DEFAULT_TIMEOUT);
                let request = CreateSecureChannel {
                    to: to.to_string(),
                    authorized,
                    identity,
                    credential,
                    timeout_ms: values::milliseconds(timeout),
                };
                let channel: SecureChannelStatus = client.post(path::SECURE_CHANNELS, &request).await?;
                context
                    .terminal
                    .done(format!("A secure channel to {} is open.", channel.peer));
                let address = format!("/service/{}", channel.address);
                // A list of one, as scripts for the reference expect.
                let json = json!([record(&channel)]);
                context
                    .terminal
                    .answer(&Answer::new(plain(&channel), json).machine(address))
            }
            Command::List { at } => {
                let channels: Vec<SecureChannelStatus> =
                    get_all(context, at.as_deref(), path::SECURE_CHANNELS).await?;
                let rows: Vec<Vec<String>> = channels
                    .iter()
                    .map(|channel| {
                        vec![
                            format!("/service/{}", channel.address),
                            channel.role.clone(),
                            channel.peer.clone(),
                        ]
                    })
                    .collect();
                let plain = if rows.is_empty() {
                    "There is no secure channel.".to_owned()
                } else {
                    table(&["ADDRESS", "ROLE", "PEER"], &rows)
                };
                let json: Vec<Value> = channels.iter().map(record).collect();
                context.terminal.answer(&Answer::new(plain, json!(json)))
            }
            Command::Show { address, at } => {
                let client = context.some_node(at.as_deref())?;
                let channel: SecureChannelStatus = client.get(&item(path::SECURE_CHANNELS, &address)).await?;
                context
                    .terminal
                    .answer(&Answer::new(plain(&channel), record(&channel)))
            }
            Command::Delete {
                address,
                at,
                confirmation,
            } => {
                let client = context.some_node(at.as_deref())?;
                delete_one(
                    context,
                    &client,
                    path::SECURE_CHANNELS,
                    "secure channel",
                    &address,
                    confirmation.yes,
                )
                .await
            }
        }
    }
}

/// Everything of a collection; nothing if there is no node.
pub(super) async fn get_all<T: serde::de::DeserializeOwned>(
    context: &Context,
    at: Option<&str>,
    collection: &str,
) -> Result<Vec<T>> {
    match context.existing_node(at)? {
        Some(client) => client.get(collection).await,
        None => Ok(Vec::new()),
    }
}

/// Delete one member of a collection and say so.
pub(super) async fn delete_one(
    context: &Context,
    client: &NodeClient,
    collection: &str,
    kind: &str,
    name: &str,
    yes: bool,
) -> Result<()> {
    context
        .terminal
        .confirm(yes, &format!("Deleting the {kind} {name}"))?;
    client.delete(&item(collection, name)).await?;
    context.terminal.done(format!("The {kind} {name} was deleted."));
    let json = json!({ "address": name, "node": client.name() });
    context
        .terminal
        .answer(&Answer::new(format!("Deleted: {name}"), json).machine(name))
}

fn listener_plain(listener: &SecureChannelListenerStatus) -> String {
    let authorized = if listener.authorized.is_empty() {
        "any identity".to_owned()
    } else {
        listener.authorized.join("\n")
    };
    card(&[
        ("Listener", format!("/service/{}", listener.address)),
        ("Answers as", listener.identifier.clone()),
        ("Accepts", authorized),
    ])
}

fn listener_record(listener: &SecureChannelListenerStatus) -> Value {
    json!({
        "address": format!("/service/{}", listener.address),
        "identifier": listener.identifier,
        "authorized": listener.authorized,
    })
}

impl ListenerCommand {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            ListenerCommand::Create {
                address,
                at,
                authorized,
                identity,
            } => {
                if let Some(name) = &identity {
                    context.home().identity(name)?;
                }
                let client = context.node(at.as_deref()).await?;
                let request = CreateSecureChannelListener {
                    address,
                    authorized,
                    identity,
                };
                let listener: SecureChannelListenerStatus =
                    client.post(path::SECURE_CHANNEL_LISTENERS, &request).await?;
                let address = format!("/service/{}", listener.address);
                context.terminal.done(format!(
                    "The node `{}` accepts secure channels at {address}.",
                    client.name()
                ));
                let answer = Answer::new(listener_plain(&listener), listener_record(&listener));
                context.terminal.answer(&answer.machine(address))
            }
            ListenerCommand::List { at } => {
                let listeners: Vec<SecureChannelListenerStatus> =
                    get_all(context, at.as_deref(), path::SECURE_CHANNEL_LISTENERS).await?;
                let rows: Vec<Vec<String>> = listeners
                    .iter()
                    .map(|listener| {
                        vec![
                            format!("/service/{}", listener.address),
                            listener.identifier.clone(),
                        ]
                    })
                    .collect();
                let plain = if rows.is_empty() {
                    "There is no secure channel listener.".to_owned()
                } else {
                    table(&["ADDRESS", "ANSWERS AS"], &rows)
                };
                let json: Vec<Value> = listeners.iter().map(listener_record).collect();
                context.terminal.answer(&Answer::new(plain, json!(json)))
            }
            ListenerCommand::Show { address, at } => {
                let client = context.some_node(at.as_deref())?;
                let all: Vec<SecureChannelListenerStatus> =
                    client.get(path::SECURE_CHANNEL_LISTENERS).await?;
                let listener = all
                    .into_iter()
                    .find(|listener| listener.address == address)
                    .ok_or_else(|| {
                        Error::not_found(format!(
                            "the node `{}` has no secure channel listener `{address}`",
                            client.name()
                        ))
                    })?;
                context.terminal.answer(&Answer::new(
                    listener_plain(&listener),
                    listener_record(&listener),
                ))
            }
            ListenerCommand::Delete {
                address,
                at,
                confirmation,
            } => {
                let client = context.some_node(at.as_deref())?;
                let kind = "secure channel listener";
                delete_one(
                    context,
                    &client,
                    path::SECURE_CHANNEL_LISTENERS,
                    kind,
                    &address,
                    confirmation.yes,
                )
                .await
            }
        }
    }
}

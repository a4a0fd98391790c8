//! `portolan message …`.

use std::time::Duration;

use serde_json::json;

use super::context::Context;
use super::output::Answer;
use super::values;
use crate::control::api::{MessageReply, SendMessage, path};
use crate::control::client::DEFAULT_TIMEOUT;
use crate::engine::remote;
use crate::error::{Error, Result};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Send a message to a worker and print the answer.
    Send(Send),
}

#[derive(Debug, clap::Args)]
pub(super) struct Send {
    /// The text, or hexadecimal digits with --hex.
    message: String,
    /// Where to: `/node/n1/service/uppercase`, `/project/default/service/echo`; `-` as a segment is read from stdin.
    #[arg(short, long, value_name = "ROUTE", allow_hyphen_values = true)]
    to: String,
    /// The node that sends. Default: a temporary one in this process.
    #[arg(short, long, value_name = "NODE", value_parser = values::node)]
    from: Option<String>,
    /// The message is hexadecimal digits, and so is the answer that is printed.
    #[arg(long)]
    hex: bool,
    /// How long to wait for the answer.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    timeout: Duration,
    /// The identity for secure channels on the way. Default: the node's, or the default identity.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// The project whose credential is presented. Default: the default project.
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    project: Option<String>,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        let Command::Send(send) = self;
        let payload = if send.hex {
            let digits: String = send.message.split_whitespace().collect();
            hex::decode(&digits)
                .map_err(|error| Error::invalid(format!("the message is not hexadecimal: {error}")))?
        } else {
            send.message.into_bytes()
        };
        let route = values::route(&send.to)?;
        if route.is_empty() {
            return Err(
                Error::invalid("the route is empty").hint("give one, for example /node/n1/service/echo")
            );
        }
        if let Some(name) = &send.identity {
            context.home().identity(name)?;
        }
        let request = SendMessage {
            route: route.to_string(),
            payload: hex::encode(payload),
            timeout_ms: values::milliseconds(send.timeout),
            identity: send.identity.clone(),
        };
        let reply: MessageReply = match &send.from {
            Some(from) => {
                let client = context
                    .some_node(Some(from))?
                    .with_timeout(send.timeout + DEFAULT_TIMEOUT);
                client.post(path::MESSAGES, &request).await?
            }
            None => {
                let identity = context.own_identity(send.identity.as_deref())?;
                let project = match (
                    send.project.as_deref().or(route.project()),
                    context.home().default_project()?,
                ) {
                    (Some(name), _) => Some(context.project(Some(name))?),
                    (None, default) => default,
                };
                remote::send_message(context.home(), &identity.record.name, project.as_ref(), &request)
                    .await?
            }
        };
        let bytes = hex::decode(&reply.payload)
            .map_err(|error| Error::failed(format!("the answer cannot be read: {error}")))?;
        let text = match String::from_utf8(bytes) {
            Ok(text) if !send.hex => text,
            _ => reply.payload.clone(),
        };
        context
            .terminal
            .answer(&Answer::new(text.clone(), json!({ "reply": text, "hex": reply.payload })).machine(text))
    }
}

//! `portolan service …`.

use serde_json::json;

use super::channel::get_all;
use super::context::Context;
use super::output::{Answer, card, table};
use super::values;
use crate::control::api::{ServiceStatus, StartService, path};
use crate::error::Result;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The services of a node.
    List {
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// Start a service.
    #[command(subcommand)]
    Start(Start),
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Start {
    /// Passes every message on to the next address of its route.
    Hop {
        /// Where it is reached.
        #[arg(long, value_name = "ADDRESS", default_value = "hop", value_parser = values::service)]
        addr: String,
        /// The node. Default: the default node, made if there is none.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::List { at } => {
                let services: Vec<ServiceStatus> = get_all(context, at.as_deref(), path::SERVICES).await?;
                let rows: Vec<Vec<String>> = services
                    .iter()
                    .map(|service| vec![format!("/service/{}", service.addr), service.kind.clone()])
                    .collect();
                let plain = if rows.is_empty() {
                    "There is no service.".to_owned()
                } else {
                    table(&["ADDRESS", "TYPE"], &rows)
                };
                context.terminal.answer(&Answer::new(plain, json!(services)))
            }
            Command::Start(Start::Hop { addr, at }) => {
                let client = context.node(at.as_deref()).await?;
                let request = StartService {
                    kind: "hop".into(),
                    address: addr,
                };
                let service: ServiceStatus = client.post(path::SERVICES, &request).await?;
                let address = format!("/service/{}", service.addr);
                context
                    .terminal
                    .done(format!("The node `{}` has a hop at {address}.", client.name()));
                let plain = card(&[("Service", address.clone()), ("Type", service.kind.clone())]);
                context
                    .terminal
                    .answer(&Answer::new(plain, json!(service)).machine(address))
            }
        }
    }
}

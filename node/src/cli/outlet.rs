//! `portolan tcp-outlet …`.

use std::io::Read;

use serde_json::{Value, json};

use super::context::Context;
use super::output::{Answer, card, table};
use super::{Confirmation, names_to_delete, policy, values};
use crate::control::api::{CreateOutlet, InterceptedBy, OutletStatus, item, path};
use crate::control::client::NodeClient;
use crate::error::{Error, Result};
use crate::host_port::{HostPort, Scheme};
use crate::tls::{MAX_CERTIFICATES, Tls};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Open a portal's end that connects to a TCP service. The service is not asked until someone comes through.
    Create(Create),
    /// The outlets of a node.
    List {
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// One outlet, with what went wrong last.
    Show {
        /// Its name or address. Default: `outlet`.
        #[arg(default_value = "outlet", value_parser = values::service)]
        name: String,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// Close an outlet and every connection through it.
    Delete {
        #[arg(value_parser = values::service, conflicts_with = "all")]
        name: Option<String>,
        /// Every outlet of the node.
        #[arg(long)]
        all: bool,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// The outlet's address. Default: `outlet`, or a random one if that is taken.
    #[arg(value_parser = values::service, conflicts_with = "from")]
    name: Option<String>,
    /// The same as NAME.
    #[arg(long, value_name = "ADDRESS", value_parser = values::service)]
    from: Option<String>,
    /// The service: host and port, or only a port of this machine.
    #[arg(long, value_name = "HOST:PORT", value_parser = values::host_port)]
    to: HostPort,
    /// Speak TLS to the service. Its certificate must be for the host in --to.
    #[arg(long)]
    tls: bool,
    /// With --tls: the authority that the service's certificate must be from, or that very certificate; a file (PEM) that is
    /// read now. Default: the authorities that the machine trusts.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<std::path::PathBuf>,
    /// The node. Default: the default node, made if there is none.
    #[arg(long, value_name = "NODE", value_parser = values::node)]
    at: Option<String>,
    /// Who may connect. Default: the node's policy for `tcp-outlet`.
    #[arg(long, visible_alias = "expression", value_name = "POLICY", value_parser = policy::expression)]
    allow: Option<String>,
    /// Leave out the portal's own ping and pong.
    #[arg(long, env = "PORTOLAN_TCP_PORTAL_SKIP_HANDSHAKE", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    skip_handshake: bool,
    /// Let the system wait for more bytes before it sends (Nagle's algorithm).
    #[arg(long, env = "PORTOLAN_TCP_PORTAL_ENABLE_NAGLE", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    enable_nagle: bool,
    /// What sees the bytes of each connection, and may change or end it: an interceptor that the node's program has.
    #[arg(long, value_name = "NAME", value_parser = values::alias)]
    intercept: Option<String>,
    /// The interceptor's own configuration, JSON (or YAML).
    #[arg(long, value_name = "JSON", value_parser = values::configuration, requires = "intercept")]
    intercept_config: Option<Value>,
}

impl Create {
    /// Its address, if one was said.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref().or(self.from.as_deref())
    }

    /// The service.
    pub(super) fn target(&self) -> &HostPort {
        &self.to
    }

    /// Its own policy, if it has one.
    pub(super) fn policy(&self) -> Option<&str> {
        self.allow.as_deref()
    }

    /// The node that holds it; `None` is the default one.
    pub(super) fn node(&mut self) -> &mut Option<String> {
        &mut self.at
    }

    /// Whether it makes sense. Changes nothing.
    pub(super) fn check(&self) -> Result<()> {
        if self.to.scheme() == Scheme::Udp {
            return Err(Error::invalid("an outlet carries TCP, not UDP"));
        }
        if self.to.port() == 0 {
            return Err(Error::invalid("port 0 is not the port of a service"));
        }
        if self.tls_ca.is_some() && !self.speaks_tls() {
            return Err(Error::invalid("--tls-ca goes only with --tls"));
        }
        self.certificates().map(|_| ())
    }

    fn speaks_tls(&self) -> bool {
        self.tls || self.to.scheme() == Scheme::Tls
    }

    /// What the file with the authority says.
    fn certificates(&self) -> Result<Option<String>> {
        let Some(path) = &self.tls_ca else {
            return Ok(None);
        };
        let fail = |error: std::io::Error| {
            Error::invalid(format!(
                "the certificates in {} cannot be read: {error}",
                path.display()
            ))
        };
        let mut text = String::new();
        std::fs::File::open(path)
            .map_err(fail)?
            .take(MAX_CERTIFICATES as u64 + 1)
            .read_to_string(&mut text)
            .map_err(fail)?;
        Tls::new(Some(&text))?;
        Ok(Some(text))
    }

    /// Make it.
    pub(super) async fn make(self, context: &Context) -> Result<(OutletStatus, NodeClient)> {
        self.check()?;
        if let Some(allow) = &self.allow {
            policy::warn(context, allow).await;
        }
        let client = context.node(self.at.as_deref()).await?;
        let request = CreateOutlet {
            address: self.name().map(str::to_owned),
            to: self.to.to_string(),
            tls: self.speaks_tls(),
            tls_ca: self.certificates()?,
            allow: self.allow,
            skip_handshake: self.skip_handshake,
            enable_nagle: self.enable_nagle,
            intercept: intercepted(self.intercept, self.intercept_config),
        };
        let status: OutletStatus = client.post(path::TCP_OUTLETS, &request).await?;
        let address = format!("/service/{}", status.address);
        context.terminal.done(format!(
            "The outlet {address} of the node `{}` leads to {}.",
            client.name(),
            status.to
        ));
        match status.policy.as_deref() {
            None => context.terminal.warn(
                "No policy lets anybody through. Make one: portolan policy create --resource-type tcp-outlet --allow POLICY",
            ),
            Some("(= true true)") => context.terminal.warn(
                "Everybody who can reach this node may come through: it belongs to no project, and no policy says \
                 otherwise.\nAdd --allow POLICY, or join a project: portolan project enroll TICKET",
            ),
            Some(_) => {}
        }
        Ok((status, client))
    }

    async fn run(self, context: &Context) -> Result<()> {
        let (status, client) = self.make(context).await?;
        let address = format!("/service/{}", status.address);
        let json = json!({
            "to": status.to,
            "worker_addr": address,
            "payload": Value::Null,
            "privileged": false,
            "node_name": client.name(),
            "policy": status.policy,
            "tls": status.tls,
            "intercept": status.intercept,
        });
        context
            .terminal
            .answer(&Answer::new(plain(&status, client.name()), json).machine(address))
    }
}

/// What was said about an interceptor.
pub(super) fn intercepted(name: Option<String>, config: Option<Value>) -> Option<InterceptedBy> {
    name.map(|name| InterceptedBy {
        name,
        config: config.unwrap_or_default(),
    })
}

/// An interceptor and its configuration, for people.
pub(super) fn interceptor(by: Option<&InterceptedBy>) -> String {
    match by {
        None => String::new(),
        Some(by) if by.config.is_null() => by.name.clone(),
        Some(by) => format!("{} {}", by.name, by.config),
    }
}

/// A policy for people; `(= true true)` is how the node says that nothing restricts.
pub(super) fn allowed(policy: Option<&str>) -> String {
    match policy {
        None => "nobody: there is no policy".to_owned(),
        Some("(= true true)") => {
            "everybody: the node belongs to no project and nobody gave it a policy".to_owned()
        }
        Some(policy) => policy.to_owned(),
    }
}

fn plain(status: &OutletStatus, node: &str) -> String {
    let traffic = &status.traffic;
    card(&[
        ("Outlet", format!("/service/{}", status.address)),
        ("Node", node.to_owned()),
        (
            "Leads to",
            if status.tls {
                format!("{} (TLS)", status.to)
            } else {
                status.to.clone()
            },
        ),
        ("Allowed if", allowed(status.policy.as_deref())),
        ("Intercepted by", interceptor(status.intercept.as_ref())),
        (
            "Connections",
            format!(
                "{} open, {} so far, {} failed",
                status.connections, traffic.connections, traffic.failed
            ),
        ),
        (
            "Traffic",
            format!("{} bytes in, {} bytes out", traffic.bytes_up, traffic.bytes_down),
        ),
        ("Last failure", status.last_failure.clone().unwrap_or_default()),
    ])
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Create(create) => create.run(context).await,
            Command::List { at } => {
                let outlets: Vec<OutletStatus> = match context.existing_node(at.as_deref())? {
                    Some(client) => client.get(path::TCP_OUTLETS).await?,
                    None => Vec::new(),
                };
                let rows: Vec<Vec<String>> = outlets
                    .iter()
                    .map(|outlet| {
                        vec![
                            format!("/service/{}", outlet.address),
                            outlet.to.clone(),
                            outlet.connections.to_string(),
                            allowed(outlet.policy.as_deref()),
                        ]
                    })
                    .collect();
                let plain = if rows.is_empty() {
                    "There is no outlet. Open one: portolan tcp-outlet create --to HOST:PORT".to_owned()
                } else {
                    table(&["FROM", "TO", "OPEN", "ALLOWED IF"], &rows)
                };
                let json: Vec<Value> = outlets
                    .iter()
                    .map(|outlet| {
                        json!({
                            "from": format!("/service/{}", outlet.address),
                            "to": outlet.to,
                            "policy": outlet.policy,
                            "intercept": outlet.intercept,
                            "connections": outlet.connections,
                            "last_failure": outlet.last_failure,
                        })
                    })
                    .collect();
                context.terminal.answer(&Answer::new(plain, json!(json)))
            }
            Command::Show { name, at } => {
                let client = context.some_node(at.as_deref())?;
                let status: OutletStatus = client.get(&item(path::TCP_OUTLETS, &name)).await?;
                let json = json!({
                    "node_name": client.name(),
                    "worker_address": format!("/service/{}", status.address),
                    "to": status.to,
                    "tls": status.tls,
                    "policy": status.policy,
                    "intercept": status.intercept,
                    "connections": status.connections,
                    "last_failure": status.last_failure,
                    "traffic": status.traffic,
                });
                context
                    .terminal
                    .answer(&Answer::new(plain(&status, client.name()), json))
            }
            Command::Delete {
                name,
                all,
                at,
                confirmation,
            } => {
                let client = context.some_node(at.as_deref())?;
                let outlets: Vec<OutletStatus> = client.get(path::TCP_OUTLETS).await?;
                let known: Vec<String> = outlets.into_iter().map(|outlet| outlet.address).collect();
                let names = names_to_delete("outlet", name, all, &known)?;
                if !names.is_empty() {
                    context
                        .terminal
                        .confirm(confirmation.yes, &format!("Deleting {}", names.join(", ")))?;
                }
                for name in &names {
                    client.delete(&item(path::TCP_OUTLETS, name)).await?;
                    context.terminal.done(format!("The outlet `{name}` was deleted."));
                }
                let json: Vec<Value> = names
                    .iter()
                    .map(|name| json!({ "name": name, "node": client.name() }))
                    .collect();
                context.terminal.answer(&Answer::new(
                    format!("Deleted: {}", names.join(", ")),
                    json!(json),
                ))
            }
        }
    }
}

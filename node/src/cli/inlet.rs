//! `portolan tcp-inlet …`.

use std::time::Duration;

use serde_json::{Value, json};

use super::context::Context;
use super::output::{Answer, card, table};
use super::{Confirmation, names_to_delete, outlet, policy, values};
use crate::control::api::{ConnectionStatus, CreateInlet, InletStatus, item, path};
use crate::control::client::NodeClient;
use crate::error::{Error, Result};
use crate::host_port::{HostPort, Scheme};
use crate::multiaddr::MultiAddr;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Open a portal's end on a local port, for an application to connect to.
    ///
    /// The other end need not be there yet: the inlet connects by itself when it is, and closes clients at once until then.
    Create(Create),
    /// The inlets of a node.
    List {
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// One inlet: whether it is connected, and if not, why.
    Show {
        /// Its name. Can be left out if there is only one.
        #[arg(value_parser = values::alias)]
        name: Option<String>,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// Close an inlet and every connection through it.
    Delete {
        #[arg(value_parser = values::alias, conflicts_with = "all")]
        name: Option<String>,
        /// Every inlet of the node.
        #[arg(long)]
        all: bool,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

/// The node's own limit.
const MAX_STRIPES: i64 = crate::engine::MAX_STRIPES as i64;

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// Default: a random name.
    #[arg(value_parser = values::alias)]
    name: Option<String>,
    /// Older spelling of NAME.
    #[arg(long, hide = true, conflicts_with = "name", value_parser = values::alias)]
    alias: Option<String>,
    /// Where applications connect: host and port, or only a port of this machine. Default: a free port of 127.0.0.1.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0", hide_default_value = true, value_parser = values::host_port)]
    from: HostPort,
    /// The outlet: its name behind the relay, or a full route. Default: `outlet`.
    #[arg(long, value_name = "OUTLET|ROUTE", allow_hyphen_values = true)]
    to: Option<String>,
    /// The relay at the default project through which the outlet's node is reached. Default: `default`.
    #[arg(long, value_name = "RELAY", value_parser = values::alias)]
    via: Option<String>,
    /// The node. Default: the default node, made if there is none.
    #[arg(long, value_name = "NODE", value_parser = values::node)]
    at: Option<String>,
    /// The identity for the channel to the other end. Default: the node's.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// The identity that is expected at the other end (not with a project's route).
    #[arg(long, value_name = "IDENTIFIER", value_parser = values::identifier)]
    authorized: Option<String>,
    /// Who may be at the other end. Default: the node's policy for `tcp-inlet`.
    #[arg(long, visible_alias = "expression", value_name = "POLICY", value_parser = policy::expression)]
    allow: Option<String>,
    /// How long to wait for the first connection.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::duration)]
    connection_wait: Duration,
    /// Return at once, connected or not.
    #[arg(long, visible_alias = "no-wait")]
    no_connection_wait: bool,
    /// The longest pause between attempts to connect again.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = values::duration)]
    retry_wait: Duration,
    /// Limit for the request to the node.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    timeout: Duration,
    /// Leave out the portal's own ping and pong.
    #[arg(long, env = "PORTOLAN_TCP_PORTAL_SKIP_HANDSHAKE", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    skip_handshake: bool,
    /// Let the system wait for more bytes before it sends (Nagle's algorithm).
    #[arg(long, env = "PORTOLAN_TCP_PORTAL_ENABLE_NAGLE", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    enable_nagle: bool,
    /// Paths to the outlet side by side, each with a connection and a channel of its own, for nodes with several cores: new
    /// applications use the one with the fewest. 1 to 16.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=MAX_STRIPES))]
    stripes: u8,
    /// What sees the bytes of each connection, and may change or end it: an interceptor that the node's program has.
    #[arg(long, value_name = "NAME", value_parser = values::alias)]
    intercept: Option<String>,
    /// The interceptor's own configuration, JSON (or YAML).
    #[arg(long, value_name = "JSON", value_parser = values::configuration, requires = "intercept")]
    intercept_config: Option<Value>,
}

/// The route to an outlet: `to` is its name behind the relay `via` at the default project, or the whole route.
fn outlet_route(
    to: Option<&str>,
    via: Option<&str>,
    project: impl FnOnce() -> Result<String>,
) -> Result<MultiAddr> {
    match to {
        Some(to) if to.contains('/') || to == "-" || to == "self" => {
            if via.is_some() {
                return Err(Error::invalid("--via does not go with a full route in --to")
                    .hint("name the outlet in --to, or put the relay into the route"));
            }
            values::route(to)
        }
        to => {
            let outlet = to.unwrap_or("outlet");
            values::service(outlet).map_err(Error::invalid)?;
            let (relay, project) = (via.unwrap_or("default"), project()?);
            MultiAddr::from_argument(&format!(
                "/project/{project}/service/forward_to_{relay}/secure/api/service/{outlet}"
            ))
        }
    }
}

impl Create {
    /// Its name, if one was said.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref().or(self.alias.as_deref())
    }

    /// Where applications connect.
    pub(super) fn listener(&self) -> &HostPort {
        &self.from
    }

    /// Its own policy, if it has one.
    pub(super) fn policy(&self) -> Option<&str> {
        self.allow.as_deref()
    }

    /// The identity for its channel; `None` is the node's.
    pub(super) fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    /// The node that holds it; `None` is the default one.
    pub(super) fn node(&mut self) -> &mut Option<String> {
        &mut self.at
    }

    /// The route to its outlet. Changes nothing.
    pub(super) fn check(&self, project: impl FnOnce() -> Result<String>) -> Result<MultiAddr> {
        if self.from.scheme() != Scheme::Tcp {
            return Err(Error::invalid("an inlet listens for TCP only"));
        }
        let route = outlet_route(self.to.as_deref(), self.via.as_deref(), project)?;
        if let (Some(project), Some(_)) = (route.project(), &self.authorized) {
            return Err(
                Error::invalid(format!("--authorized does not go with the project `{project}`"))
                    .hint("say who may be at the other end with --allow"),
            );
        }
        Ok(route)
    }

    /// Make it; behind a relay, the one at `project`.
    pub(super) async fn make(
        self,
        context: &Context,
        project: impl FnOnce() -> Result<String>,
    ) -> Result<(InletStatus, NodeClient)> {
        let route = self.check(project)?;
        if let Some(name) = &self.identity {
            context.home().identity(name)?;
        }
        if let Some(allow) = &self.allow {
            policy::warn(context, allow).await;
        }
        let wait = if self.no_connection_wait {
            Duration::ZERO
        } else {
            self.connection_wait
        };
        let client = context
            .node(self.at.as_deref())
            .await?
            .with_timeout(self.timeout + wait);
        let request = CreateInlet {
            alias: self.name.or(self.alias),
            from: self.from.to_string(),
            to: route.to_string(),
            identity: self.identity,
            authorized: self.authorized,
            allow: self.allow,
            wait_ms: values::milliseconds(wait),
            retry_wait_ms: values::milliseconds(self.retry_wait),
            skip_handshake: self.skip_handshake,
            enable_nagle: self.enable_nagle,
            stripes: self.stripes,
            intercept: outlet::intercepted(self.intercept, self.intercept_config),
        };
        let status: InletStatus = client.post(path::TCP_INLETS, &request).await?;
        let terminal = &context.terminal;
        terminal.done(format!(
            "The inlet `{}` of the node `{}` listens at {}.",
            status.alias,
            client.name(),
            status.bind_addr
        ));
        if status.status == ConnectionStatus::Down && !wait.is_zero() {
            let why = status
                .last_failure
                .clone()
                .unwrap_or_else(|| "no answer yet".into());
            terminal.warn(format!(
                "It is not connected yet: {why}.\nIt goes on trying; `portolan tcp-inlet show {}` says how it stands.",
                status.alias
            ));
        }
        if status.policy.is_none() {
            terminal.warn("No policy lets anybody be at the other end. Make one: portolan policy create --resource-type tcp-inlet --allow POLICY");
        }
        Ok((status, client))
    }

    async fn run(self, context: &Context) -> Result<()> {
        let (status, client) = self.make(context, || Ok(context.project(None)?.name)).await?;
        let answer = Answer::new(plain(&status, client.name()), record(&status, client.name()));
        context.terminal.answer(&answer.machine(status.bind_addr.clone()))
    }
}

fn said(status: ConnectionStatus) -> &'static str {
    match status {
        ConnectionStatus::Up => "up",
        ConnectionStatus::Down => "down",
    }
}

fn plain(status: &InletStatus, node: &str) -> String {
    let traffic = &status.traffic;
    card(&[
        ("Inlet", status.alias.clone()),
        ("Node", node.to_owned()),
        ("Listens at", status.bind_addr.clone()),
        ("Leads to", status.outlet_addr.clone()),
        ("Status", said(status.status).to_owned()),
        ("Last failure", status.last_failure.clone().unwrap_or_default()),
        ("Allowed if", outlet::allowed(status.policy.as_deref())),
        ("Intercepted by", outlet::interceptor(status.intercept.as_ref())),
        ("Paths", paths(status)),
        (
            "Connections",
            format!(
                "{} open, {} so far, {} failed",
                status.connections, traffic.connections, traffic.failed
            ),
        ),
        (
            "Traffic",
            format!("{} bytes out, {} bytes in", traffic.bytes_up, traffic.bytes_down),
        ),
    ])
}

/// How its paths stand, if there are several.
fn paths(status: &InletStatus) -> String {
    let stripes = &status.stripes;
    if stripes.len() < 2 {
        return String::new();
    }
    let up = stripes
        .iter()
        .filter(|stripe| stripe.status == ConnectionStatus::Up)
        .count();
    let load: Vec<String> = stripes
        .iter()
        .map(|stripe| stripe.connections.to_string())
        .collect();
    format!(
        "{up} of {} up, with {} connections",
        stripes.len(),
        load.join(", ")
    )
}

fn record(status: &InletStatus, node: &str) -> Value {
    json!({
        "alias": status.alias,
        "node_name": node,
        "bind_addr": status.bind_addr,
        "worker_addr": status.worker_addr,
        "payload": Value::Null,
        "outlet_route": status.outlet_route,
        "outlet_addr": status.outlet_addr,
        "status": status.status,
        "last_failure": status.last_failure,
        "policy": status.policy,
        "intercept": status.intercept,
        "connections": status.connections,
        "stripes": status.stripes,
        "traffic": status.traffic,
        "privileged": false,
    })
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Create(create) => create.run(context).await,
            Command::List { at } => {
                let (inlets, node): (Vec<InletStatus>, _) = match context.existing_node(at.as_deref())? {
                    Some(client) => (client.get(path::TCP_INLETS).await?, client.name().to_owned()),
                    None => (Vec::new(), String::new()),
                };
                let rows: Vec<Vec<String>> = inlets
                    .iter()
                    .map(|inlet| {
                        vec![
                            inlet.alias.clone(),
                            inlet.bind_addr.clone(),
                            inlet.outlet_addr.clone(),
                            said(inlet.status).to_owned(),
                            inlet.connections.to_string(),
                        ]
                    })
                    .collect();
                let plain = if rows.is_empty() {
                    "There is no inlet. Open one: portolan tcp-inlet create --from PORT --via RELAY"
                        .to_owned()
                } else {
                    table(&["NAME", "LISTENS AT", "LEADS TO", "STATUS", "OPEN"], &rows)
                };
                let json: Vec<Value> = inlets.iter().map(|inlet| record(inlet, &node)).collect();
                context.terminal.answer(&Answer::new(plain, json!(json)))
            }
            Command::Show { name, at } => {
                let client = context.some_node(at.as_deref())?;
                let name = match name {
                    Some(name) => name,
                    None => {
                        let inlets: Vec<InletStatus> = client.get(path::TCP_INLETS).await?;
                        match inlets.as_slice() {
                            [only] => only.alias.clone(),
                            [] => {
                                return Err(Error::not_found(format!(
                                    "the node `{}` has no inlet",
                                    client.name()
                                )));
                            }
                            many => {
                                let names: Vec<&str> =
                                    many.iter().map(|inlet| inlet.alias.as_str()).collect();
                                return Err(Error::invalid(format!(
                                    "which inlet to show was not said: there is {}",
                                    names.join(", ")
                                )));
                            }
                        }
                    }
                };
                let status: InletStatus = client.get(&item(path::TCP_INLETS, &name)).await?;
                context.terminal.answer(&Answer::new(
                    plain(&status, client.name()),
                    record(&status, client.name()),
                ))
            }
            Command::Delete {
                name,
                all,
                at,
                confirmation,
            } => {
                let client = context.some_node(at.as_deref())?;
                let inlets: Vec<InletStatus> = client.get(path::TCP_INLETS).await?;
                let known: Vec<String> = inlets.into_iter().map(|inlet| inlet.alias).collect();
                let one = name.is_some();
                let names = names_to_delete("inlet", name, all, &known)?;
                if !names.is_empty() {
                    context
                        .terminal
                        .confirm(confirmation.yes, &format!("Deleting {}", names.join(", ")))?;
                }
                for name in &names {
                    client.delete(&item(path::TCP_INLETS, name)).await?;
                    context.terminal.done(format!("The inlet `{name}` was deleted."));
                }
                let mut json: Vec<Value> = names
                    .iter()
                    .map(|name| json!({ "alias": name, "node": client.name() }))
                    .collect();
                let json = if one {
                    json.pop().unwrap_or_default()
                } else {
                    json!(json)
                };
                context
                    .terminal
                    .answer(&Answer::new(format!("Deleted: {}", names.join(", ")), json))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_to_an_outlet_is_made_from_its_name_and_the_relay() {
        let project = || Ok("default".to_owned());
        let route = |to, via| outlet_route(to, via, project).map(|route| route.to_string());
        assert_eq!(
            route(None, Some("postgres")).unwrap(),
            "/project/default/service/forward_to_postgres/secure/api/service/outlet"
        );
        assert_eq!(
            route(Some("db"), None).unwrap(),
            "/project/default/service/forward_to_default/secure/api/service/db"
        );
        assert_eq!(route(Some("/service/x"), None).unwrap(), "/service/x");
        assert!(route(Some("/service/x"), Some("r")).is_err());
        assert!(route(Some("a#b"), None).is_err());
        assert!(outlet_route(None, None, || Err(Error::not_found("none"))).is_err());
    }
}

//! The keys at the top of a configuration.

use super::resources::{self, Item, Kind};
use super::yaml::{Key, Node, Place, Value};
use super::{Configuration, Origin};
use crate::cli::values;
use crate::error::Result;
use crate::state::check_plain_name;

/// The keys that mean something here, as the documentation writes them.
const KNOWN: [&str; 21] = [
    "version",
    "variables",
    "name",
    "identity",
    "ticket",
    "project",
    "tcp-listener-address",
    "foreground",
    "exit-on-eof",
    "relays",
    "policies",
    "tcp-outlets",
    "tcp-inlets",
    "plugins",
    "workers",
    "relay",
    "policy",
    "tcp-outlet",
    "tcp-inlet",
    "plugin",
    "worker",
];

/// Keys of the same file format that ask for something which does not exist here, and what to do about it.
const ABSENT: [(&str, &str); 23] = [
    ("udp", "nodes speak TCP; leave it out"),
    ("enable-udp", "nodes speak TCP; leave it out"),
    ("udp-listener-address", "nodes speak TCP; leave it out"),
    (
        "status-endpoint",
        "nodes have no status endpoint; ask with `portolan node show NAME`",
    ),
    (
        "status-endpoint-port",
        "nodes have no status endpoint; ask with `portolan node show NAME`",
    ),
    (
        "services",
        "a node's services are not configured here; leave it out",
    ),
    (
        "launch-config",
        "a node's services are not configured here; leave it out",
    ),
    (
        "launch-configuration",
        "a node's services are not configured here; leave it out",
    ),
    ("opentelemetry-context", "nodes export no traces; leave it out"),
    (
        "in-memory",
        "nodes keep their state in PORTOLAN_HOME; leave it out",
    ),
    ("child-process", "this is internal; leave it out"),
    (
        "skip-is-running-check",
        "a running node is known by its lock; leave it out",
    ),
    ("kafka-inlet", "use tcp-inlet: Kafka is carried as TCP"),
    ("kafka-inlets", "use tcp-inlets: Kafka is carried as TCP"),
    ("kafka-outlet", "use tcp-outlet: Kafka is carried as TCP"),
    ("kafka-outlets", "use tcp-outlets: Kafka is carried as TCP"),
    ("influxdb-inlet", "use tcp-inlet: InfluxDB is carried as TCP"),
    ("influxdb-inlets", "use tcp-inlets: InfluxDB is carried as TCP"),
    ("influxdb-outlet", "use tcp-outlet: InfluxDB is carried as TCP"),
    ("influxdb-outlets", "use tcp-outlets: InfluxDB is carried as TCP"),
    (
        "nodes",
        "one configuration makes one node: write one file for each",
    ),
    ("vaults", "make them before: portolan vault create"),
    (
        "identities",
        "the node's identity is made if it does not exist: identity: NAME",
    ),
];

/// Keys that ask for nothing that is not so anyway.
const WITHOUT_EFFECT: [&str; 3] = ["no-status-endpoint", "http-server", "enable-http-server"];

/// Read the keys at the top.
pub(super) fn read(tree: &Node, origin: Origin) -> Result<Configuration> {
    let Value::Map(entries) = &tree.value else {
        return Err(origin
            .wrong(
                tree.place,
                format!("a configuration is a map, and this is {}", tree.value.kind()),
            )
            .hint("for example: tcp-outlet: { to: 5432 }"));
    };
    if entries.is_empty() {
        return Err(origin.wrong(tree.place, "the configuration is empty"));
    }
    let mut all = Configuration {
        origin: origin.clone(),
        notes: Vec::new(),
        name: None,
        ticket: None,
        identity: None,
        project: None,
        tcp_listener_address: None,
        foreground: false,
        exit_on_eof: false,
        items: Vec::new(),
    };
    let (mut policies, mut plugins, mut workers) = (Vec::new(), Vec::new(), Vec::new());
    let (mut relays, mut outlets, mut inlets) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen: Vec<&str> = Vec::new();
    for (key, node) in entries {
        let plain = key.name.replace('_', "-");
        let section = match plain.as_str() {
            "relay" => "relays",
            "policy" => "policies",
            "tcp-outlet" => "tcp-outlets",
            "tcp-inlet" => "tcp-inlets",
            "plugin" => "plugins",
            "worker" => "workers",
            "enrollment-ticket" => "ticket",
            other => other,
        };
        if let Some(known) = KNOWN.iter().find(|known| **known == section) {
            if seen.contains(known) {
                return Err(origin.wrong(key.place, format!("the section `{known}` is there twice")));
            }
            seen.push(known);
        }
        match section {
            "version" => match node.value.text() {
                Some("1") => {}
                _ => return Err(origin.wrong(node.place, "the only version is 1")),
            },
            // Read before the rest.
            "variables" => {}
            "name" => all.name = Some(checked(key, node, &origin, values::node)?),
            "identity" => {
                all.identity = Some(checked(key, node, &origin, |text| {
                    check_plain_name("identities", text)?;
                    Ok(text.to_owned())
                })?);
            }
            "ticket" => all.ticket = Some(text(key, node, &origin)?.to_owned()),
            "project" => all.project = Some(text(key, node, &origin)?.to_owned()),
            "tcp-listener-address" => {
                all.tcp_listener_address = Some(checked(key, node, &origin, values::host_port)?);
            }
            "foreground" => all.foreground = switch(key, node, &origin)?,
            "exit-on-eof" => all.exit_on_eof = switch(key, node, &origin)?,
            "policies" => resources::section(Kind::Policy, node, &origin, &mut policies, &mut Vec::new())?,
            "plugins" => resources::section(Kind::Plugin, node, &origin, &mut plugins, &mut Vec::new())?,
            "workers" => resources::section(Kind::Worker, node, &origin, &mut workers, &mut Vec::new())?,
            "relays" => resources::section(Kind::Relay, node, &origin, &mut relays, &mut Vec::new())?,
            "tcp-outlets" => resources::section(Kind::Outlet, node, &origin, &mut outlets, &mut relays)?,
            "tcp-inlets" => resources::section(Kind::Inlet, node, &origin, &mut inlets, &mut Vec::new())?,
            other if WITHOUT_EFFECT.contains(&other) => {
                if node.value != Value::Bool(false) {
                    all.notes.push(format!("the key `{other}` has no effect here"));
                }
            }
            // What is switched off is as absent as it should be.
            other => match ABSENT.iter().find(|(name, _)| *name == other) {
                Some(_) if node.value == Value::Bool(false) => {}
                Some((name, advice)) => {
                    return Err(origin
                        .wrong(key.place, format!("`{name}` does not exist in Portolan"))
                        .hint(*advice));
                }
                None => return Err(unknown(key, &origin)),
            },
        }
    }
    for items in [policies, plugins, workers, relays, outlets, inlets] {
        all.items.extend(items);
    }
    no_name_twice(&all.items, &origin)?;
    Ok(all)
}

fn unknown(key: &Key, origin: &Origin) -> crate::error::Error {
    origin.unknown(key, "a configuration", &KNOWN)
}

fn text<'a>(key: &Key, node: &'a Node, origin: &Origin) -> Result<&'a str> {
    match &node.value {
        Value::Text(text) | Value::Number(text) if !text.trim().is_empty() => Ok(text),
        Value::Text(_) | Value::Number(_) | Value::Null => {
            Err(origin.wrong(key.place, format!("`{}` has no value", key.name)))
        }
        other => Err(origin.wrong(
            node.place,
            format!("`{}` must be one text, and is {}", key.name, other.kind()),
        )),
    }
}

fn checked<T>(
    key: &Key,
    node: &Node,
    origin: &Origin,
    check: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T> {
    check(text(key, node, origin)?)
        .map_err(|reason| origin.wrong(node.place, format!("`{}`: {reason}", key.name)))
}

fn switch(key: &Key, node: &Node, origin: &Origin) -> Result<bool> {
    match node.value {
        Value::Bool(value) => Ok(value),
        _ => Err(origin.wrong(node.place, format!("`{}` must be true or false", key.name))),
    }
}

/// Two of a kind cannot have one name, nor can two policies be for one thing.
fn no_name_twice(items: &[Item], origin: &Origin) -> Result<()> {
    let mut seen: Vec<(Kind, &str, Place)> = Vec::new();
    for item in items {
        let (kind, Some(name)) = item.resource.identity() else {
            continue;
        };
        if let Some((_, _, first)) = seen
            .iter()
            .find(|(other, taken, _)| *other == kind && *taken == name)
        {
            let what = match kind {
                Kind::Policy => format!("there are two policies for `{name}`"),
                Kind::Worker => format!("there are two workers at `{name}`"),
                _ => format!("there are two {}s named `{name}`", kind.name()),
            };
            return Err(origin.wrong(item.place, format!("{what}; the other one is at {first}")));
        }
        seen.push((kind, name, item.place));
    }
    Ok(())
}

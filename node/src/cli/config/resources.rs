//! Relays, policies, workers, outlets and inlets: the shapes in which a configuration may write them, and how what it says becomes
//! the same arguments that the command line takes.
//!
//! The keys of a resource are the long flags of its `create` command, so each resource is read by that command's own
//! parser: there is one place that knows what an outlet is.

use std::error::Error as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Args, Command, FromArgMatches};

use super::Origin;
use super::json;
use super::yaml::{Key, Node, Place, Value};
use crate::cli::{inlet, outlet, plugin, policy, relay, worker};
use crate::error::{Error, Result};

/// What a resource can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Policy,
    Relay,
    Outlet,
    Inlet,
    Worker,
    Plugin,
}

impl Kind {
    /// The section's name for one of them, which is the command's, too.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Policy => "policy",
            Kind::Relay => "relay",
            Kind::Outlet => "tcp-outlet",
            Kind::Inlet => "tcp-inlet",
            Kind::Worker => "worker",
            Kind::Plugin => "plugin",
        }
    }

    /// The key for what the command takes without a flag.
    fn positional(self) -> &'static str {
        match self {
            Kind::Worker => "type",
            Kind::Plugin => "file",
            _ => "name",
        }
    }

    /// Whether this key holds a configuration whose keys somebody else defines.
    fn has_configuration(self, key: &str) -> bool {
        match self {
            Kind::Worker => key == "config",
            Kind::Inlet | Kind::Outlet => key == "intercept-config",
            Kind::Policy | Kind::Relay | Kind::Plugin => false,
        }
    }

    fn command(self) -> Command {
        let command = Command::new(self.name())
            .no_binary_name(true)
            .disable_help_flag(true)
            .disable_version_flag(true);
        match self {
            Kind::Policy => policy::Create::augment_args(command),
            Kind::Relay => relay::Create::augment_args(command),
            Kind::Outlet => outlet::Create::augment_args(command),
            Kind::Inlet => inlet::Create::augment_args(command),
            Kind::Worker => worker::Start::augment_args(command),
            Kind::Plugin => plugin::Add::augment_args(command),
        }
    }
}

/// One thing to be made on the node.
#[derive(Debug)]
pub(super) enum Resource {
    Policy(policy::Create),
    Relay(relay::Create),
    Outlet(outlet::Create),
    Inlet(inlet::Create),
    Worker(worker::Start),
    Plugin(Box<plugin::Add>),
}

impl Resource {
    /// The node that was named for it.
    pub(super) fn node(&mut self) -> &mut Option<String> {
        match self {
            Resource::Policy(create) => create.node(),
            Resource::Relay(create) => create.node(),
            Resource::Outlet(create) => create.node(),
            Resource::Inlet(create) => create.node(),
            Resource::Worker(start) => start.node(),
            Resource::Plugin(add) => add.node(),
        }
    }

    /// Its kind and its name, if it was given one. Two of a kind cannot have one name.
    pub(super) fn identity(&self) -> (Kind, Option<&str>) {
        match self {
            Resource::Policy(create) => (Kind::Policy, Some(create.subject())),
            Resource::Relay(create) => (Kind::Relay, Some(create.name())),
            Resource::Outlet(create) => (Kind::Outlet, create.name()),
            Resource::Inlet(create) => (Kind::Inlet, create.name()),
            Resource::Worker(start) => (Kind::Worker, Some(start.address())),
            Resource::Plugin(add) => (Kind::Plugin, Some(add.name())),
        }
    }
}

/// A resource and where it is written.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) resource: Resource,
}

/// One resource as it is written: perhaps a name, and its keys.
struct Written<'a> {
    place: Place,
    name: Option<&'a str>,
    keys: &'a [(Key, Node)],
}

/// Read a section. A relay inside an outlet goes to `relays`.
pub(super) fn section(
    kind: Kind,
    node: &Node,
    origin: &Origin,
    out: &mut Vec<Item>,
    relays: &mut Vec<Item>,
) -> Result<()> {
    for written in shapes(kind, node, origin)? {
        out.push(resource(kind, &written, origin, relays)?);
    }
    Ok(())
}

/// A scalar is a name; a map of maps is names with their keys; another map is one resource; a list holds any of these.
fn shapes<'a>(kind: Kind, node: &'a Node, origin: &Origin) -> Result<Vec<Written<'a>>> {
    match &node.value {
        Value::List(nodes) if nodes.is_empty() => Err(empty(kind, node, origin)),
        Value::List(nodes) => {
            let mut all = Vec::new();
            for node in nodes {
                if matches!(node.value, Value::List(_)) {
                    return Err(
                        origin.wrong(node.place, format!("a list inside the list of `{}`", kind.name()))
                    );
                }
                all.extend(shapes(kind, node, origin)?);
            }
            Ok(all)
        }
        _ => single(kind, node, origin),
    }
}

fn empty(kind: Kind, node: &Node, origin: &Origin) -> Error {
    origin
        .wrong(node.place, format!("the section `{}` holds nothing", kind.name()))
        .hint("say what to make, or leave the section out")
}

fn single<'a>(kind: Kind, node: &'a Node, origin: &Origin) -> Result<Vec<Written<'a>>> {
    match &node.value {
        Value::Text(name) | Value::Number(name) if kind != Kind::Policy => Ok(vec![Written {
            place: node.place,
            name: Some(name),
            keys: &[],
        }]),
        Value::Map(entries) if entries.is_empty() => Err(empty(kind, node, origin)),
        Value::Map(entries) => {
            // An empty value stands for an empty map: `relays: { blue: , green: }`.
            let named = kind != Kind::Policy
                && entries
                    .iter()
                    .all(|(_, node)| matches!(node.value, Value::Map(_) | Value::Null));
            if !named {
                return Ok(vec![Written {
                    place: node.place,
                    name: None,
                    keys: entries,
                }]);
            }
            Ok(entries
                .iter()
                .map(|(key, node)| Written {
                    place: key.place,
                    name: Some(&key.name),
                    keys: match &node.value {
                        Value::Map(keys) => keys,
                        _ => &[],
                    },
                })
                .collect())
        }
        Value::Null => Err(empty(kind, node, origin)),
        other => Err(origin.wrong(
            node.place,
            format!("`{}` cannot be {}", kind.name(), other.kind()),
        )),
    }
}

/// The flags that a configuration can name, hidden ones last.
fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| arg.get_long().is_some())
}

fn find<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    flags(command).find(|arg| {
        let mut short = key.chars();
        arg.get_long() == Some(key)
            || arg.get_all_aliases().is_some_and(|names| names.contains(&key))
            || (arg.get_short().is_some() && arg.get_short() == short.next() && short.next().is_none())
    })
}

fn resource(kind: Kind, written: &Written<'_>, origin: &Origin, relays: &mut Vec<Item>) -> Result<Item> {
    let command = kind.command();
    let mut words: Vec<String> = Vec::new();
    // A worker is named by its address; `limited: { type: rate-limiter }`.
    let named = match kind {
        Kind::Worker | Kind::Plugin => None,
        _ => written.name,
    };
    let mut of_positional = named;
    let mut places: Vec<(String, Place)> = Vec::new();
    for (key, node) in written.keys {
        let plain = key.name.replace('_', "-");
        if kind == Kind::Outlet && matches!(plain.as_str(), "relay" | "relays") {
            section(Kind::Relay, node, origin, relays, &mut Vec::new())?;
            continue;
        }
        if plain == kind.positional() && of_positional.is_none() && kind != Kind::Policy {
            of_positional = Some(text(kind, key, node, origin)?);
            places.push((plain, key.place));
            continue;
        }
        if kind.has_configuration(&plain) {
            words.push(format!("--{plain}={}", json::of(node, origin)?));
            places.push((plain, key.place));
            continue;
        }
        let Some(arg) = find(&command, &plain) else {
            return Err(unknown(kind, &command, key, origin));
        };
        let long = arg.get_long().unwrap_or_default();
        if places.iter().any(|(other, _)| other == long) {
            return Err(origin.wrong(
                key.place,
                format!("`{long}` is said twice in one {}", kind.name()),
            ));
        }
        places.push((long.to_owned(), key.place));
        match (arg.get_action(), &node.value) {
            (ArgAction::SetTrue, Value::Bool(true)) => words.push(format!("--{long}")),
            (ArgAction::SetTrue, Value::Bool(false)) => {}
            (ArgAction::SetTrue, _) => {
                return Err(origin.wrong(node.place, format!("`{}` must be true or false", key.name)));
            }
            (ArgAction::Append, Value::List(nodes)) => {
                for node in nodes {
                    words.push(format!("--{long}={}", text(kind, key, node, origin)?));
                }
            }
            _ => {
                let value = text(kind, key, node, origin)?;
                if matches!(long, "to" | "at") && value.split('/').any(|segment| segment == "-") {
                    return Err(origin
                        .wrong(
                            node.place,
                            format!("`{}` holds a `-`, which would be read from stdin", key.name),
                        )
                        .hint("write the whole route into the configuration"));
                }
                words.push(format!("--{long}={value}"));
            }
        }
    }
    if let (Kind::Plugin, Some(name)) = (kind, written.name) {
        words.push(format!("--name={name}"));
    }
    if let (Kind::Worker, Some(address)) = (kind, written.name) {
        if places.iter().any(|(key, _)| key == "address") {
            return Err(origin.wrong(
                written.place,
                format!(
                    "the worker `{address}` is named by its address, and has another `address` among its keys"
                ),
            ));
        }
        words.push(format!("--address={address}"));
        // A type that needs no more said: its workers are called like it.
        if of_positional.is_none() && !places.iter().any(|(key, _)| key == "plugin") {
            of_positional = Some(address);
        }
    }
    if let Some(name) = of_positional {
        words.extend(["--".to_owned(), name.to_owned()]);
    }
    let place = written.place;
    let fail = |error: &clap::Error| complaint(kind, error, place, &places, origin);
    let matches = command
        .try_get_matches_from(words)
        .map_err(|error| fail(&error))?;
    let resource = match kind {
        Kind::Policy => policy::Create::from_arg_matches(&matches).map(Resource::Policy),
        Kind::Relay => relay::Create::from_arg_matches(&matches).map(Resource::Relay),
        Kind::Outlet => outlet::Create::from_arg_matches(&matches).map(Resource::Outlet),
        Kind::Inlet => inlet::Create::from_arg_matches(&matches).map(Resource::Inlet),
        Kind::Worker => worker::Start::from_arg_matches(&matches).map(Resource::Worker),
        Kind::Plugin => plugin::Add::from_arg_matches(&matches).map(|mut add| {
            if let Some(folder) = origin.folder() {
                add.relative_to(folder);
            }
            Resource::Plugin(Box::new(add))
        }),
    };
    Ok(Item {
        place,
        resource: resource.map_err(|error| fail(&error))?,
    })
}

fn text<'a>(kind: Kind, key: &Key, node: &'a Node, origin: &Origin) -> Result<&'a str> {
    match &node.value {
        Value::Text(text) | Value::Number(text) => Ok(text),
        // A name or a policy may be called so.
        Value::Bool(true) => Ok("true"),
        Value::Bool(false) => Ok("false"),
        other => Err(origin.wrong(
            node.place,
            format!(
                "`{}` of a {} must be one text or number, and is {}",
                key.name,
                kind.name(),
                other.kind()
            ),
        )),
    }
}

fn unknown(kind: Kind, command: &Command, key: &Key, origin: &Origin) -> Error {
    let mut known: Vec<&str> = flags(command)
        .filter(|arg| !arg.is_hide_set())
        .filter_map(Arg::get_long)
        .collect();
    if kind == Kind::Outlet {
        known.push("relay");
    }
    if matches!(kind, Kind::Worker | Kind::Plugin) {
        known.push(kind.positional());
    }
    origin.unknown(key, &format!("a {}", kind.name()), &known)
}

/// What the command's parser says, in terms of the configuration.
fn complaint(
    kind: Kind,
    error: &clap::Error,
    place: Place,
    places: &[(String, Place)],
    origin: &Origin,
) -> Error {
    // `--to <HOST:PORT>` is `to`; `[NAME]` is `name`.
    let plain = |text: &str| {
        text.trim_matches(['<', '>', '[', ']'])
            .split('|')
            .map(|one| {
                let one = one.split_whitespace().next().unwrap_or_default();
                one.strip_prefix("--")
                    .map_or_else(|| one.to_lowercase(), str::to_owned)
            })
            .collect::<Vec<_>>()
            .join("` or `")
    };
    let named: Vec<String> = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(one)) => vec![plain(one)],
        Some(ContextValue::Strings(several)) => several.iter().map(|one| plain(one)).collect(),
        _ => Vec::new(),
    };
    let place = named
        .first()
        .and_then(|name| places.iter().find(|(long, _)| long == name))
        .map_or(place, |(_, place)| *place);
    let (kind, first) = (kind.name(), named.first().cloned().unwrap_or_default());
    match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            let all = named.join("` and `");
            origin.wrong(place, format!("this {kind} lacks `{all}`"))
        }
        ErrorKind::ArgumentConflict => {
            let prior = match error.get(ContextKind::PriorArg) {
                Some(ContextValue::String(one)) => plain(one),
                Some(ContextValue::Strings(several)) => several
                    .iter()
                    .map(|one| plain(one))
                    .collect::<Vec<_>>()
                    .join("` and `"),
                _ => "another key".to_owned(),
            };
            origin.wrong(place, format!("`{first}` does not go with `{prior}` in a {kind}"))
        }
        _ => {
            let reason = match error.source() {
                Some(source) => source.to_string(),
                None => error
                    .to_string()
                    .trim_start_matches("error: ")
                    .split("\n\n")
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            };
            origin.wrong(place, format!("`{first}` of this {kind}: {}", reason.trim_end()))
        }
    }
}

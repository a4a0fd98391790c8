//! `portolan identity …`.

use std::time::Duration;

use portolan_identity::{Identity, KeyHandle, KeyType};
use serde_json::{Value, json};

use super::context::Context;
use super::output::{Answer, card, span, table};
use super::{Confirmation, names_to_delete, values};
use crate::error::{Error, Result};
use crate::state::{IdentityRecord, IdentitySource, now};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make an identity; the first one becomes the default.
    Create(Create),
    /// The identifier of an identity, or its whole change history.
    Show {
        /// Default: the default identity.
        name: Option<String>,
        /// The change history too: what others need in order to verify the identity.
        #[arg(short, long)]
        full: bool,
        /// How to print the change history.
        #[arg(long, value_name = "ENCODING", requires = "full", default_value = "plain")]
        encoding: Encoding,
    },
    /// All identities of this home.
    List,
    /// Show the default identity, or make another one the default.
    Default { name: Option<String> },
    /// Replace the keys of an identity. Its identifier, its credentials and the channels that are open stay.
    ///
    /// The signing key is replaced by a new one that the old one vouches for, and the old one is deleted; the purpose keys (of secure
    /// channels, and of an authority's credentials) are replaced with it. Running nodes take the new keys within seconds. Peers that
    /// have seen the rotation accept nothing by the old keys any more: a copy of this home from before is locked out.
    ///
    /// Rotating the identity of a project's authority: members that run learn of it at once, and get new credentials within seconds. A
    /// node that cannot reach the authority does not believe these until it can.
    Rotate {
        /// Default: the default identity.
        name: Option<String>,
        /// Only the purpose keys. The signing key stays.
        #[arg(long)]
        purpose_keys: bool,
    },
    /// When running nodes replace the keys of an identity by themselves: show it, or set it.
    ///
    /// By default the signing key is replaced after 365 days (that of a project's authority only by command), and the purpose keys
    /// after 90. Secrets of replaced purpose keys are deleted 10 minutes later.
    Schedule {
        /// Default: the default identity.
        name: Option<String>,
        /// Replace the signing key at this age, 1d at least; or `never`. A history ends after 128 changes.
        #[arg(long, value_name = "DURATION|never", value_parser = age)]
        identity_key: Option<Age>,
        /// Replace the purpose keys at this age, 60s at least.
        #[arg(long, value_name = "DURATION", value_parser = values::duration)]
        purpose_keys: Option<Duration>,
    },
    /// Delete an identity. Refused while a node uses it. Its key stays in the vault.
    Delete {
        #[arg(conflicts_with = "all")]
        name: Option<String>,
        /// Every identity of this home.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

/// An age at which something is done, or `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Age(Option<Duration>);

fn age(text: &str) -> std::result::Result<Age, String> {
    match text {
        "never" => Ok(Age(None)),
        text => values::duration(text).map(|age| Age(Some(age))),
    }
}

fn rotate(context: &Context, name: Option<&str>, purpose_keys: bool) -> Result<()> {
    let name = default_or(context, name)?.name;
    let home = context.home();
    let own = if purpose_keys {
        home.rotate_purpose_keys(&name)?
    } else {
        home.rotate_identity(&name)?
    };
    // What was replaced long ago, by nodes that do not run any more.
    home.delete_retired_keys(None, now())?;
    let what = if purpose_keys {
        "The purpose keys of"
    } else {
        "The keys of"
    };
    context
        .terminal
        .done(format!("{what} the identity `{name}` were replaced."));
    let changes = own.identity.history().len();
    let plain = card(&[
        ("Identity", name),
        ("Identifier", own.record.identifier.clone()),
        ("Changes", changes.to_string()),
    ]);
    let mut json = json_of(&own.record);
    if let Value::Object(fields) = &mut json {
        fields.insert("changes".into(), json!(changes));
        let valid_from = own.identity.latest_change().valid_from;
        fields.insert("valid_from".into(), json!(valid_from));
    }
    let answer = Answer::new(plain, json).machine(own.record.identifier.clone());
    context.terminal.answer(&answer)
}

fn schedule(
    context: &Context,
    name: Option<&str>,
    identity_key: Option<Age>,
    purpose_keys: Option<Duration>,
) -> Result<()> {
    let name = default_or(context, name)?.name;
    let home = context.home();
    let mut schedule = home.rotation_schedule(&name)?;
    if identity_key.is_some() || purpose_keys.is_some() {
        if let Some(Age(age)) = identity_key {
            schedule.identity_key = age.map(|age| age.as_secs());
        }
        if let Some(age) = purpose_keys {
            schedule.purpose_keys = age.as_secs();
        }
        home.set_rotation_schedule(&name, schedule)?;
    }
    let identity = schedule.identity_key.map_or("never".to_owned(), span);
    let plain = card(&[
        ("Identity", name.clone()),
        ("Signing key after", identity),
        ("Purpose keys after", span(schedule.purpose_keys)),
    ]);
    let json = json!({
        "name": name,
        "identity_key": schedule.identity_key,
        "purpose_keys": schedule.purpose_keys,
    });
    context.terminal.answer(&Answer::new(plain, json))
}

/// How signed data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Encoding {
    /// For people.
    Plain,
    /// Hexadecimal digits.
    Hex,
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// Default: a random name.
    name: Option<String>,
    /// The vault for its key. Default: the default vault.
    #[arg(long, value_name = "NAME")]
    vault: Option<String>,
    /// Use this key of the vault instead of a new one (hex of the SHA-256 of its public key).
    #[arg(short, long, value_name = "ID", conflicts_with = "identity")]
    key_id: Option<String>,
    /// Take over an identity whose key is in the vault, from its change history in hex.
    #[arg(long, value_name = "HEX")]
    identity: Option<String>,
}

impl Create {
    fn run(self, context: &Context) -> Result<()> {
        let home = context.home();
        let (name, vault) = (self.name.as_deref(), self.vault.as_deref());
        let own = match (&self.key_id, &self.identity) {
            (None, None) => home.create_identity(name, vault, KeyType::default())?,
            (Some(key), _) => {
                let bytes: [u8; 32] = hex::decode(key)
                    .ok()
                    .and_then(|bytes| bytes.try_into().ok())
                    .ok_or_else(|| Error::invalid("--key-id is not 64 hexadecimal digits"))?;
                home.take_over_identity(name, vault, IdentitySource::Key(&KeyHandle::from(bytes)))?
            }
            (None, Some(history)) => {
                home.take_over_identity(name, vault, IdentitySource::History(history))?
            }
        };
        context
            .terminal
            .done(format!("The identity `{}` was made.", own.record.name));
        context
            .terminal
            .answer(&short(&own.record).machine(own.record.identifier.clone()))
    }
}

fn short(record: &IdentityRecord) -> Answer {
    let mark = if record.is_default { " (default)" } else { "" };
    let plain = card(&[
        ("Identity", format!("{}{mark}", record.name)),
        ("Identifier", record.identifier.clone()),
        ("Vault", record.vault.clone()),
    ]);
    Answer::new(plain, json_of(record))
}

fn json_of(record: &IdentityRecord) -> Value {
    json!({
        "name": record.name,
        "identifier": record.identifier,
        "vault_name": record.vault,
        "is_default": record.is_default,
    })
}

fn full(record: &IdentityRecord, encoding: Encoding) -> Result<Answer> {
    let history = hex::encode(&record.history);
    let identity = Identity::decode(&record.history, None)
        .map_err(|error| Error::state(format!("the identity `{}` is damaged: {error}", record.name)))?;
    let mut plain = format!("Identifier: {}\n", record.identifier);
    let mut changes = Vec::new();
    for (number, change) in identity.changes().enumerate() {
        let key = format!(
            "{}: {}",
            change.public_key.key_type(),
            hex::encode(change.public_key.as_bytes())
        );
        plain.push_str(&format!(
            "  Change[{number}]:\n    identifier:              {}\n    primary_public_key:      {key}\n    valid from, until (UTC): {} {}\n",
            change.hash, change.valid_from, change.valid_until
        ));
        changes.push(json!({
            "hash": change.hash.to_string(),
            "public_key": hex::encode(change.public_key.as_bytes()),
            "key_type": change.public_key.key_type().to_string(),
            "valid_from": change.valid_from,
            "valid_until": change.valid_until,
        }));
    }
    let mut json = json_of(record);
    if let Value::Object(fields) = &mut json {
        fields.insert("change_history".into(), json!(history));
        fields.insert("changes".into(), json!(changes));
    }
    Ok(match encoding {
        Encoding::Hex => Answer::new(history.clone(), json).machine(history),
        Encoding::Plain => Answer::new(plain.clone(), json).machine(plain.trim_end().to_owned()),
    })
}

fn default_or(context: &Context, name: Option<&str>) -> Result<IdentityRecord> {
    let database = context.home().database()?;
    match name {
        Some(name) => database.identity(name),
        None => database.default_identity()?.ok_or_else(|| {
            Error::not_found("there is no identity yet").hint("make one: portolan identity create NAME")
        }),
    }
}

impl Command {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let home = context.home();
        match self {
            Command::Create(create) => create.run(context),
            Command::Show {
                name,
                full: wants_full,
                encoding,
            } => {
                let record = default_or(context, name.as_deref())?;
                let answer = if wants_full {
                    full(&record, encoding)?
                } else {
                    Answer::new(record.identifier.clone(), json_of(&record))
                        .machine(record.identifier.clone())
                };
                context.terminal.answer(&answer)
            }
            Command::List => {
                let identities = home.database()?.identities()?;
                let rows: Vec<Vec<String>> = identities
                    .iter()
                    .map(|identity| {
                        let mark = if identity.is_default { "default" } else { "" };
                        vec![
                            identity.name.clone(),
                            identity.identifier.clone(),
                            identity.vault.clone(),
                            mark.to_owned(),
                        ]
                    })
                    .collect();
                let plain = if rows.is_empty() {
                    "There is no identity yet. Make one: portolan identity create NAME".to_owned()
                } else {
                    table(&["NAME", "IDENTIFIER", "VAULT", ""], &rows)
                };
                let json: Vec<Value> = identities.iter().map(json_of).collect();
                context.terminal.answer(&Answer::new(plain, json!(json)))
            }
            Command::Default { name } => {
                let name = match name {
                    Some(name) => {
                        if home.identity(&name)?.is_default {
                            return Err(Error::exists(format!("`{name}` is the default identity already")));
                        }
                        home.database()?.set_default_identity(&name)?;
                        context
                            .terminal
                            .done(format!("The default identity is now `{name}`."));
                        name
                    }
                    None => default_or(context, None)?.name,
                };
                context
                    .terminal
                    .answer(&Answer::new(name.clone(), json!({ "name": name })).machine(name))
            }
            Command::Rotate { name, purpose_keys } => rotate(context, name.as_deref(), purpose_keys),
            Command::Schedule {
                name,
                identity_key,
                purpose_keys,
            } => schedule(context, name.as_deref(), identity_key, purpose_keys),
            Command::Delete {
                name,
                all,
                confirmation,
            } => {
                let known: Vec<String> = home
                    .database()?
                    .identities()?
                    .into_iter()
                    .map(|identity| identity.name)
                    .collect();
                let names = names_to_delete("identity", name, all, &known)?;
                if names.is_empty() {
                    return context
                        .terminal
                        .answer(&Answer::new("There is no identity.", json!([])));
                }
                for name in &names {
                    home.identity(name)?;
                    if let Some(node) = home.user_of_identity(name)? {
                        return Err(Error::exists(format!(
                            "the identity `{name}` is used by the node `{node}`"
                        ))
                        .hint(format!("delete the node first: portolan node delete {node}")));
                    }
                }
                context
                    .terminal
                    .confirm(confirmation.yes, &format!("Deleting {}", names.join(", ")))?;
                for name in &names {
                    home.delete_identity(name)?;
                    context
                        .terminal
                        .done(format!("The identity `{name}` was deleted."));
                }
                let text = format!("Deleted: {}", names.join(", "));
                context
                    .terminal
                    .answer(&Answer::new(text, json!(names)).machine(names.join("\n")))
            }
        }
    }
}

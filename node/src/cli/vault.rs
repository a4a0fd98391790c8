//! `portolan vault …`.

use serde_json::{Value, json};

use super::context::Context;
use super::output::{Answer, card, table};
use super::{Confirmation, names_to_delete};
use crate::error::{Error, Result};
use crate::state::{VaultRecord, now, random_name};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a vault in the home's database; the first one becomes the default.
    Create {
        /// Default: `default` for the first one, then a random name.
        name: Option<String>,
    },
    /// One vault.
    Show {
        /// Default: the default vault.
        name: Option<String>,
    },
    /// All vaults of this home.
    List,
    /// Delete a vault and every key in it. Refused while an identity uses it.
    Delete {
        #[arg(conflicts_with = "all")]
        name: Option<String>,
        /// Every vault of this home.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

fn record(vault: &VaultRecord) -> Value {
    json!({
        "vault": {
            "name": vault.name,
            "vault_type": { "DatabaseVault": { "use_aws_kms": "No" } },
            "is_default": vault.is_default,
        }
    })
}

fn plain(vault: &VaultRecord) -> String {
    let mark = if vault.is_default { " (default)" } else { "" };
    card(&[
        ("Vault", format!("{}{mark}", vault.name)),
        ("Kept in", "the database of this home".into()),
    ])
}

impl Command {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let mut database = context.home().database()?;
        match self {
            Command::Create { name } => {
                let known = database.vaults()?;
                let name = match name {
                    Some(name) => name,
                    None if known.is_empty() => "default".to_owned(),
                    None => random_name(|name| known.iter().any(|vault| vault.name == name))?,
                };
                let vault = database.create_vault(&name, now())?;
                context.terminal.done(format!("The vault `{name}` was made."));
                context
                    .terminal
                    .answer(&Answer::new(plain(&vault), record(&vault)).machine(name))
            }
            Command::Show { name } => {
                let vaults = database.vaults()?;
                let vault = match name {
                    Some(name) => database.vault(&name)?,
                    None => vaults.into_iter().find(|vault| vault.is_default).ok_or_else(|| {
                        Error::not_found("there is no vault yet").hint("make one: portolan vault create")
                    })?,
                };
                context
                    .terminal
                    .answer(&Answer::new(plain(&vault), record(&vault)))
            }
            Command::List => {
                let vaults = database.vaults()?;
                let rows: Vec<Vec<String>> = vaults
                    .iter()
                    .map(|vault| {
                        vec![
                            vault.name.clone(),
                            if vault.is_default {
                                "default".into()
                            } else {
                                String::new()
                            },
                        ]
                    })
                    .collect();
                let plain = if rows.is_empty() {
                    "There is no vault yet. Make one: portolan vault create".to_owned()
                } else {
                    table(&["NAME", ""], &rows)
                };
                let json: Vec<Value> = vaults.iter().map(record).collect();
                context.terminal.answer(&Answer::new(plain, json!(json)))
            }
            Command::Delete {
                name,
                all,
                confirmation,
            } => {
                let known: Vec<String> = database.vaults()?.into_iter().map(|vault| vault.name).collect();
                let names = names_to_delete("vault", name, all, &known)?;
                if names.is_empty() {
                    return context
                        .terminal
                        .answer(&Answer::new("There is no vault.", json!([])));
                }
                for name in &names {
                    database.vault(name)?;
                }
                context.terminal.confirm(
                    confirmation.yes,
                    &format!("Deleting {} and all keys in it", names.join(", ")),
                )?;
                for name in &names {
                    database.delete_vault(name)?;
                    context.terminal.done(format!("The vault `{name}` was deleted."));
                }
                let text = format!("Deleted: {}", names.join(", "));
                context
                    .terminal
                    .answer(&Answer::new(text, json!(names)).machine(names.join("\n")))
            }
        }
    }
}

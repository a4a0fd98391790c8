//! `portolan project-member …`.

use std::collections::BTreeMap;

use serde_json::json;

use super::context::Context;
use super::output::{Answer, attributes, card, span, table};
use super::project::{AUTHORITY_TIMEOUT, Trust};
use super::{Confirmation, values};
use crate::engine::remote::{self, Caller, Member};
use crate::error::{Error, Result};
use crate::state::now;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// All members and what the authority attests of them.
    List {
        /// Only those who can invite others.
        #[arg(long, alias = "enroller")]
        enrollers: bool,
        #[command(flatten)]
        trust: Trust,
    },
    /// The identifiers of all members.
    ListIds {
        #[command(flatten)]
        trust: Trust,
    },
    /// One member.
    Show {
        /// Default: yourself.
        #[arg(value_parser = values::identifier)]
        identifier: Option<String>,
        #[command(flatten)]
        trust: Trust,
    },
    /// Add an identity as a member, or change what the authority attests of one.
    Add {
        #[arg(value_parser = values::identifier)]
        identifier: String,
        /// What the authority will attest; a bare key means `key=true`. Can be repeated.
        #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = values::attribute)]
        attribute: Vec<(String, String)>,
        /// Give the right to this relay name, or to any with `*`.
        #[arg(long, value_name = "NAME")]
        relay: Option<String>,
        /// Give the right to invite others.
        #[arg(long)]
        enroller: bool,
        #[command(flatten)]
        trust: Trust,
    },
    /// Remove a member: it gets no credential any more, and what it has open ends within seconds.
    ///
    /// Its portals, relays and channels are closed at the project's node and at every node of a member that can reach the
    /// authority, whatever credential it still holds. A node that cannot reach the authority finds out by the end of that credential. Tickets
    /// that it made are withdrawn, and tickets made before do not bring it back: invite it again with a new one.
    Delete {
        #[arg(value_parser = values::identifier, conflicts_with = "all", required_unless_present = "all")]
        identifier: Option<String>,
        /// Every member but yourself.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        trust: Trust,
    },
}

fn caller(context: &Context, trust: &Trust) -> Result<Caller> {
    let project = context.project(trust.project.as_deref())?;
    context.caller(trust.identity.as_deref(), project, AUTHORITY_TIMEOUT)
}

fn ago(time: u64) -> String {
    format!("{} ago", span(now().saturating_sub(time)))
}

fn plain(member: &Member) -> String {
    card(&[
        ("Member", member.identifier.clone()),
        ("Attributes", attributes(&member.attributes.attributes)),
        ("Added", ago(member.attributes.added_at)),
        (
            "Added by",
            member.attributes.attested_by.clone().unwrap_or_default(),
        ),
    ])
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::List { enrollers, trust } => {
                let mut members = remote::list_members(&caller(context, &trust)?).await?;
                if enrollers {
                    members.retain(|member| {
                        member
                            .attributes
                            .attributes
                            .get("ockam-role")
                            .is_some_and(|role| role == "enroller")
                    });
                }
                let rows: Vec<Vec<String>> = members
                    .iter()
                    .map(|member| {
                        let said = &member.attributes;
                        vec![
                            member.identifier.clone(),
                            ago(said.added_at),
                            attributes(&said.attributes),
                        ]
                    })
                    .collect();
                let plain = if rows.is_empty() {
                    "The project has no such member.".to_owned()
                } else {
                    table(&["IDENTIFIER", "ADDED", "ATTRIBUTES"], &rows)
                };
                context.terminal.answer(&Answer::new(plain, json!(members)))
            }
            Command::ListIds { trust } => {
                let ids = remote::list_member_ids(&caller(context, &trust)?).await?;
                let json: Vec<_> = ids.iter().map(|id| json!({ "identifier": id })).collect();
                context.terminal.answer(&Answer::new(ids.join("\n"), json!(json)))
            }
            Command::Show { identifier, trust } => {
                let caller = caller(context, &trust)?;
                let identifier = match identifier {
                    Some(identifier) => identifier,
                    None => context.home().identity(&caller.identity)?.identifier,
                };
                let member = remote::show_member(&caller, &identifier).await?;
                context
                    .terminal
                    .answer(&Answer::new(plain(&member), json!(member)))
            }
            Command::Add {
                identifier,
                attribute,
                relay,
                enroller,
                trust,
            } => {
                let wanted = rights(attribute, relay, enroller)?;
                let caller = caller(context, &trust)?;
                let before = remote::add_member(&caller, &identifier, &wanted).await?;
                let project = caller.project.name;
                context
                    .terminal
                    .done(format!("{identifier} is a member of the project `{project}`."));
                if let Some(before) = before.map(|member| member.attributes.attributes)
                    && before != wanted
                {
                    context.terminal.note(format!(
                        "This replaces what was attested before: {}",
                        attributes(&before)
                    ));
                }
                let plain = card(&[
                    ("Member", identifier.clone()),
                    ("Attributes", attributes(&wanted)),
                ]);
                let json = json!({ "project": project, "identifier": identifier, "attributes": wanted });
                context
                    .terminal
                    .answer(&Answer::new(plain, json).machine(identifier))
            }
            Command::Delete {
                identifier,
                all,
                confirmation,
                trust,
            } => {
                let caller = caller(context, &trust)?;
                let identifiers = match (identifier, all) {
                    (Some(identifier), _) => vec![identifier],
                    (None, _) => {
                        let own = context.home().identity(&caller.identity)?.identifier;
                        let mut ids = remote::list_member_ids(&caller).await?;
                        ids.retain(|id| *id != own);
                        ids
                    }
                };
                // One that is named needs no question: it is said in full.
                if all {
                    context
                        .terminal
                        .confirm(confirmation.yes, "Deleting all members but yourself")?;
                }
                let project = caller.project.name.clone();
                // The authority says yes to everything that is no member; who meant another one has to learn of it.
                if let [identifier] = &identifiers[..]
                    && !all
                    && !remote::list_member_ids(&caller).await?.contains(identifier)
                {
                    return Err(Error::not_found(format!(
                        "{identifier} is no member of the project `{project}`: nobody was removed"
                    ))
                    .hint("its members: portolan project-member list"));
                }
                let mut deleted = Vec::new();
                for identifier in identifiers {
                    match remote::delete_member(&caller, &identifier).await {
                        Ok(()) => deleted.push(identifier),
                        // Pre-trusted members and other enrollers stay; the rest goes on.
                        Err(error) if all => context.terminal.warn(format!("{identifier} stays: {error}")),
                        Err(error) => return Err(error),
                    }
                }
                for identifier in &deleted {
                    context.terminal.done(format!(
                        "{identifier} is no longer a member of the project `{project}`."
                    ));
                }
                let json = json!({ "project": project, "identifiers": deleted });
                context
                    .terminal
                    .answer(&Answer::new(deleted.join("\n"), json).machine(deleted.join("\n")))
            }
        }
    }
}

fn rights(
    mut attribute: Vec<(String, String)>,
    relay: Option<String>,
    enroller: bool,
) -> Result<BTreeMap<String, String>> {
    if let Some(relay) = relay {
        if relay != "*" {
            values::alias(&relay).map_err(Error::invalid)?;
        }
        attribute.push(("ockam-relay".into(), relay));
    }
    if enroller {
        attribute.push(("ockam-role".into(), "enroller".into()));
    }
    values::attributes(&attribute)
}

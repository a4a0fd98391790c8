//! `portolan credential …`.

use std::path::PathBuf;
use std::time::Duration;

use portolan_identity::CredentialAndPurposeKey;
use serde_json::{Value, json};

use super::context::Context;
use super::identity::Encoding;
use super::output::{Answer, attributes, card, until};
use super::values;
use crate::control::api::{CredentialStatus, StoreCredential, path};
use crate::credential::{self, text as attributes_text};
use crate::error::{Error, ErrorCode, Result};
use crate::state::{CredentialRecord, now};

/// The largest credential that is read from a file.
const MAX_CREDENTIAL: u64 = 64 * 1024;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Sign a statement about an identity, with one of yours.
    Issue(Issue),
    /// Check a credential; exit code 9 if it does not hold.
    Verify {
        #[command(flatten)]
        given: Given,
    },
    /// Check a credential and keep it.
    Store {
        #[command(flatten)]
        given: Given,
        /// What it is for: `project-member-<id>` or a word of yours.
        #[arg(long, value_name = "TEXT")]
        scope: String,
        /// Give it to this running node. Default: keep it in the home.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// Credentials that are kept.
    List(List),
    /// What a credential says and whether it holds: the one given, or those kept about an identity.
    Show {
        /// An identity of this home. Default: the default identity.
        name: Option<String>,
        /// Look at this credential instead.
        #[arg(long, value_name = "HEX", conflicts_with = "name")]
        credential: Option<String>,
        /// Look at the credential in this file instead.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "credential"])]
        credential_path: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Issue {
    /// The vault of the signing identity; it is known from the identity.
    #[arg(hide = true)]
    vault: Option<String>,
    /// The identity that signs. Default: the default identity.
    #[arg(long = "as", value_name = "NAME")]
    issuer: Option<String>,
    /// The identity that it is about.
    #[arg(long = "for", value_name = "IDENTIFIER", value_parser = values::identifier)]
    subject: String,
    /// What is said; a bare key means `key=true`. Can be repeated.
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = values::attribute)]
    attribute: Vec<(String, String)>,
    /// How to print it.
    #[arg(long, value_name = "ENCODING", default_value = "plain")]
    encoding: Encoding,
    /// How long it holds.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = values::duration)]
    ttl: Duration,
}

#[derive(Debug, clap::Args)]
pub(super) struct Given {
    /// Who must have signed it: an identifier that is known here (an identity of yours, the authority of a project), or
    /// a change history in hex.
    #[arg(long, value_name = "IDENTIFIER|HISTORY")]
    issuer: String,
    /// The credential.
    #[arg(
        long,
        value_name = "HEX",
        conflicts_with = "credential_path",
        required_unless_present = "credential_path"
    )]
    credential: Option<String>,
    /// The file that holds the credential.
    #[arg(long, value_name = "FILE")]
    credential_path: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Those of this running node. Default: those of the home.
    #[arg(long, value_name = "NODE", value_parser = values::node)]
    at: Option<String>,
    /// Only those about this identity.
    #[arg(long, value_name = "IDENTIFIER", value_parser = values::identifier)]
    subject: Option<String>,
    /// Only those signed by this identity.
    #[arg(long, value_name = "IDENTIFIER", value_parser = values::identifier)]
    issuer: Option<String>,
}

/// A kept credential as the control interface shows it.
pub(super) fn status(record: &CredentialRecord) -> CredentialStatus {
    CredentialStatus {
        subject: record.subject.clone(),
        issuer: record.issuer.clone(),
        scope: record.scope.clone(),
        created_at: record.created_at,
        expires_at: record.expires_at,
        attributes: record.attributes.clone(),
        credential: hex::encode(&record.credential),
    }
}

fn plain(status: &CredentialStatus) -> String {
    card(&[
        ("Subject", status.subject.clone()),
        ("Issuer", status.issuer.clone()),
        ("For", status.scope.clone()),
        ("Attributes", attributes(&status.attributes)),
        ("Ends", until(status.expires_at, now())),
    ])
}

fn read(credential: Option<&str>, file: Option<&PathBuf>) -> Result<String> {
    use std::io::Read;
    let mut text = String::new();
    match (credential, file) {
        (Some(given), _) => text.push_str(given),
        (None, Some(path)) => {
            std::fs::File::open(path)
                .and_then(|file| file.take(MAX_CREDENTIAL).read_to_string(&mut text))
                .map_err(|error| Error::invalid(format!("{} cannot be read: {error}", path.display())))?;
        }
        (None, None) => return Err(Error::invalid("no credential was given").hint("add --credential HEX")),
    }
    Ok(text.trim().to_owned())
}

/// A credential that holds, as it would be kept.
fn verified(context: &Context, given: &Given, scope: &str) -> Result<CredentialRecord> {
    let text_of = read(given.credential.as_deref(), given.credential_path.as_ref())?;
    credential::verify(context.home(), &text_of, &given.issuer, scope)
}

impl Issue {
    fn run(self, context: &Context) -> Result<()> {
        let said = values::attributes(&self.attribute)?;
        let issuer = context.own_identity(self.issuer.as_deref())?;
        let failed = |error: &dyn std::fmt::Display| {
            Error::failed(format!("the credential cannot be issued: {error}"))
        };
        let text = credential::issue(
            context.home(),
            Some(&issuer.record.name),
            &self.subject,
            &said,
            self.ttl,
        )?;
        let credential = CredentialAndPurposeKey::from_hex(&text).map_err(|error| failed(&error))?;
        let data = credential.credential.read().map_err(|error| failed(&error))?;
        let json = json!({
            "credential": text,
            "subject": self.subject,
            "issuer": issuer.record.identifier,
            "created_at": data.created_at,
            "expires_at": data.expires_at,
            "attributes": said,
        });
        let answer = match self.encoding {
            Encoding::Hex => Answer::new(text.clone(), json).machine(text),
            Encoding::Plain => {
                let plain = card(&[
                    ("Subject", self.subject),
                    ("Issuer", issuer.record.identifier),
                    ("Attributes", attributes(&said)),
                    ("Ends", until(data.expires_at, now())),
                    ("Credential", text.clone()),
                ]);
                Answer::new(plain, json).machine(text)
            }
        };
        context.terminal.answer(&answer)
    }
}

fn show_list(context: &Context, found: &[CredentialStatus]) -> Result<()> {
    let plain_of = if found.is_empty() {
        "There is no credential.".to_owned()
    } else {
        found.iter().map(plain).collect::<Vec<_>>().join("\n")
    };
    context.terminal.answer(&Answer::new(plain_of, json!(found)))
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Issue(issue) => issue.run(context),
            Command::Verify { given } => {
                let result = verified(context, &given, "");
                let holds = match &result {
                    Ok(_) => true,
                    Err(error) if error.code == ErrorCode::NotVerified => false,
                    Err(error) => return Err(error.clone()),
                };
                let reason = result.as_ref().err().map(ToString::to_string);
                context.terminal.answer(
                    &Answer::new(holds.to_string(), json!({ "verified": holds, "reason": reason }))
                        .machine(holds.to_string()),
                )?;
                result.map(drop)
            }
            Command::Store { given, scope, at } => {
                let record = verified(context, &given, &scope)?;
                let kept = match at {
                    Some(node) => {
                        let client = context.some_node(Some(&node))?;
                        let request = StoreCredential {
                            credential: hex::encode(&record.credential),
                            issuer: record.issuer.clone(),
                            scope,
                        };
                        client
                            .post::<_, CredentialStatus>(path::CREDENTIALS, &request)
                            .await?
                    }
                    None => {
                        context.home().database()?.put_credential(&record)?;
                        status(&record)
                    }
                };
                context.terminal.done("The credential was verified and kept.");
                context.terminal.answer(&Answer::new(plain(&kept), json!(kept)))
            }
            Command::List(list) => {
                let mut found: Vec<CredentialStatus> = match &list.at {
                    Some(node) => context.some_node(Some(node))?.get(path::CREDENTIALS).await?,
                    None => context
                        .home()
                        .database()?
                        .credentials()?
                        .iter()
                        .map(status)
                        .collect(),
                };
                found.retain(|credential| {
                    list.subject
                        .as_ref()
                        .is_none_or(|subject| *subject == credential.subject)
                        && list
                            .issuer
                            .as_ref()
                            .is_none_or(|issuer| *issuer == credential.issuer)
                });
                show_list(context, &found)
            }
            Command::Show {
                name,
                credential,
                credential_path,
            } => {
                if credential.is_none() && credential_path.is_none() {
                    let identity = context.own_identity(name.as_deref())?.record;
                    let found: Vec<CredentialStatus> = context
                        .home()
                        .database()?
                        .credentials()?
                        .iter()
                        .filter(|credential| credential.subject == identity.identifier)
                        .map(status)
                        .collect();
                    return show_list(context, &found);
                }
                let given = read(credential.as_deref(), credential_path.as_ref())?;
                show_unverified(context, &given)
            }
        }
    }
}

/// What a credential claims. Says that nothing was checked.
fn show_unverified(context: &Context, given: &str) -> Result<()> {
    let wrong = |error: &dyn std::fmt::Display| Error::invalid(format!("this is not a credential: {error}"));
    let credential = CredentialAndPurposeKey::from_hex(given).map_err(|error| wrong(&error))?;
    let said = credential.credential.read().map_err(|error| wrong(&error))?;
    let issuer = credential
        .attestation
        .read()
        .map_err(|error| wrong(&error))?
        .subject
        .to_string();
    let attributes_of = attributes_text(&said.attributes);
    let subject = said.subject.map(|subject| subject.to_string());
    let plain = card(&[
        ("Subject", subject.clone().unwrap_or_default()),
        ("Issuer", issuer.clone()),
        ("Attributes", attributes(&attributes_of)),
        ("Ends", until(said.expires_at, now())),
        ("Verified", "no: `portolan credential verify` checks it".into()),
    ]);
    let json: Value = json!({
        "subject": subject,
        "issuer": issuer,
        "created_at": said.created_at,
        "expires_at": said.expires_at,
        "attributes": attributes_of,
        "verified": Value::Null,
    });
    context.terminal.answer(&Answer::new(plain, json))
}

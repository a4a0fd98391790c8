//! Accepting an invitation.

use std::io::Read;
use std::time::Duration;

use serde_json::json;

use super::Trust;
use crate::cli::context::Context;
use crate::cli::output::{Answer, attributes, card, until};
use crate::cli::values;
use crate::control::api::CredentialStatus;
use crate::engine::remote::{self, Caller, Redeemed};
use crate::error::{Error, ErrorCode, Result};
use crate::state::{OwnIdentity, Project, now};

/// The largest ticket that is read from a file. Real ones have a few kilobytes.
const MAX_TICKET: u64 = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Enroll {
    /// A file, the ticket itself, or `-` for stdin. Without one, a credential is fetched for a member that was added
    /// before.
    #[arg(value_name = "TICKET")]
    ticket: Option<String>,
    /// Limit for everything.
    #[arg(long, value_name = "DURATION", default_value = "240s", value_parser = values::duration)]
    timeout: Duration,
    #[command(flatten)]
    trust: Trust,
}

/// The text of a ticket from what was given: a file, stdin or the text itself.
pub(crate) fn ticket_text(given: &str) -> Result<String> {
    let given = given.trim();
    if given.is_empty() {
        return Err(Error::invalid("the ticket is empty"));
    }
    let limited = |reader: &mut dyn Read, what: &str| {
        let mut text = String::new();
        reader
            .take(MAX_TICKET + 1)
            .read_to_string(&mut text)
            .map_err(|error| Error::invalid(format!("the ticket cannot be read from {what}: {error}")))?;
        if text.len() as u64 > MAX_TICKET {
            return Err(Error::invalid(format!(
                "{what} is no ticket: it is longer than {MAX_TICKET} bytes"
            )));
        }
        if text.trim().is_empty() {
            return Err(Error::invalid(format!("the ticket is empty: {what} has no text")));
        }
        Ok(text)
    };
    if given == "-" {
        return limited(&mut std::io::stdin().lock(), "stdin");
    }
    if given.starts_with("http://") || given.starts_with("https://") {
        return Err(Error::invalid("tickets are not fetched from URLs")
            .hint("fetch it first: portolan project enroll \"$(curl -fsS URL)\""));
    }
    // A ticket is far longer than a path can be, and asking the system about it then fails, which is as good as "no".
    if std::path::Path::new(given).is_file() {
        let mut file = std::fs::File::open(given)
            .map_err(|error| Error::invalid(format!("the ticket file {given} cannot be read: {error}")))?;
        return limited(&mut file, given);
    }
    if given.starts_with(['/', '.', '~']) && given.len() < 4096 && !given.contains(',') {
        return Err(Error::not_found(format!("there is no ticket file {given}")));
    }
    Ok(given.to_owned())
}

/// What became of joining a project.
pub(crate) struct Joined {
    identity: OwnIdentity,
    project: Project,
    credential: CredentialStatus,
}

impl Joined {
    /// The local name of the project.
    pub(crate) fn project_name(&self) -> &str {
        &self.project.name
    }
}

/// Join the project of a ticket. Repeating it with the same identity is a success, even when the ticket is used up.
pub(crate) async fn join(
    context: &Context,
    ticket: &str,
    identity: Option<&str>,
    timeout: Duration,
) -> Result<Joined> {
    let ticket = remote::read_ticket(&ticket_text(ticket)?)?;
    let identity = context.own_identity(identity)?;
    let home = context.home();
    let before = home.database()?.projects()?;
    let was_known = before.iter().find(|(project, _)| project.id == ticket.project.id);
    // Another name may have been given to it here.
    let project = match was_known {
        Some((known, _)) => Project {
            name: known.name.clone(),
            ..ticket.project.clone()
        },
        None => ticket.project.clone(),
    };
    home.database()?.put_project(&project, false)?;
    let caller = Caller {
        home: home.clone(),
        identity: identity.record.name.clone(),
        project: project.clone(),
        timeout,
    };
    let result = async {
        let redeemed = remote::redeem_ticket(&caller, &ticket).await?;
        Ok::<_, Error>((redeemed, remote::fetch_credential(&caller).await?))
    }
    .await;
    match result {
        Ok((redeemed, credential)) => {
            let is = match redeemed {
                Redeemed::Enrolled => "is now",
                Redeemed::AlreadyMember => "was already",
            };
            context.terminal.done(format!(
                "`{}` {is} a member of the project `{}`.",
                identity.record.name, project.name
            ));
            Ok(Joined {
                identity,
                project,
                credential,
            })
        }
        Err(error) => {
            // A project that could not be joined is not kept; one that was known before is left as it was.
            let mut database = home.database()?;
            match was_known {
                Some((known, _)) => database.put_project(known, false)?,
                None => database.delete_project(&project.name)?,
            }
            Err(error)
        }
    }
}

impl Enroll {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        let joined = match &self.ticket {
            Some(ticket) => join(context, ticket, self.trust.identity.as_deref(), self.timeout).await?,
            None => {
                let project = context.project(self.trust.project.as_deref())?;
                let identity = context.own_identity(self.trust.identity.as_deref())?;
                let caller = context.caller(Some(&identity.record.name), project.clone(), self.timeout)?;
                let credential =
                    remote::fetch_credential(&caller)
                        .await
                        .map_err(|error| match error.code {
                            ErrorCode::Refused => error.hint(format!(
                                "use a ticket, or ask an administrator: portolan project-member add {}",
                                identity.record.identifier
                            )),
                            _ => error,
                        })?;
                context.terminal.done(format!(
                    "`{}` is a member of the project `{}`.",
                    identity.record.name, project.name
                ));
                Joined {
                    identity,
                    project,
                    credential,
                }
            }
        };
        context.terminal.answer(&enrolled(
            &joined.identity,
            &joined.project,
            &joined.credential,
            false,
        ))
    }
}

pub(super) fn enrolled(
    identity: &OwnIdentity,
    project: &Project,
    credential: &CredentialStatus,
    by_identifier: bool,
) -> Answer {
    let plain = card(&[
        (
            "Identity",
            format!("{} {}", identity.record.name, identity.record.identifier),
        ),
        ("Project", project.name.clone()),
        ("Attributes", attributes(&credential.attributes)),
        (
            "Credential",
            format!("ends {}", until(credential.expires_at, now())),
        ),
    ]);
    let json = json!({
        "identity": identity.record.identifier,
        "identity_name": identity.record.name,
        "project_name": project.name,
        "credential": {
            "credential": credential.credential,
            "subject": credential.subject,
            "issuer": credential.issuer,
            "created_at": credential.created_at,
            "expires_at": credential.expires_at,
            "attributes": credential.attributes,
        },
    });
    let answer = Answer::new(plain, json);
    if by_identifier {
        answer.machine(identity.record.identifier.clone())
    } else {
        answer.machine(project.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_text_or_a_file_and_white_space_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticket");
        std::fs::write(&path, "abc\n").unwrap();
        assert_eq!(ticket_text(path.to_str().unwrap()).unwrap().trim(), "abc");
        assert_eq!(ticket_text(" abc\n").unwrap(), "abc");
        assert_eq!(ticket_text(&"a".repeat(10_000)).unwrap().len(), 10_000);
        assert_eq!(
            ticket_text("/etc/no/such/ticket").unwrap_err().code,
            ErrorCode::NotFound
        );
        assert!(ticket_text("https://a/b").unwrap_err().message.contains("URL"));
        std::fs::write(&path, "\n").unwrap();
        assert!(
            ticket_text(path.to_str().unwrap())
                .unwrap_err()
                .message
                .contains("empty")
        );
        std::fs::write(&path, vec![b'a'; 70_000]).unwrap();
        assert!(
            ticket_text(path.to_str().unwrap())
                .unwrap_err()
                .message
                .contains("longer")
        );
    }
}

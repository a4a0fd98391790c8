//! Accepting an invitation.

use std::io::Read;
use std::time::Duration;

use serde_json::json;

use super::Trust;
use crate::cli::context::Context;
use crate::cli::output::{Answer, attributes, card, until};
use crate::cli::{fetch, values};
use crate::control::api::CredentialStatus;
use crate::engine::remote::{self, ReadTicket};
use crate::error::{Error, ErrorCode, Result};
use crate::project::{self, HowJoined, Joined};
use crate::state::{OwnIdentity, Project, now};

/// The largest ticket that is read from a file or a URL. Real ones have a few kilobytes.
const MAX_TICKET: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Enroll {
    /// A file, a URL, the ticket itself, or `-` for stdin. Without one, a credential is fetched for a member that was added
    /// before.
    #[arg(value_name = "TICKET")]
    ticket: Option<String>,
    /// Limit for everything.
    #[arg(long, value_name = "DURATION", default_value = "240s", value_parser = values::duration)]
    timeout: Duration,
    #[command(flatten)]
    trust: Trust,
}

/// A ticket from what was given: a file, a URL, stdin or the text itself. The text of it, and what it says.
///
/// # Errors
///
/// Which of these it was taken for, and why it is none. A ticket is a secret: no error shows one.
pub(crate) fn ticket(given: &str) -> Result<(String, ReadTicket)> {
    let (text, from) = ticket_text(given)?;
    let read = remote::read_ticket(&text).map_err(|error| Error {
        message: match &from {
            Some(from) => format!("{from} has no ticket: {}", error.message),
            None => match shown(&text) {
                Some(text) => format!("`{text}` is neither a file here nor a ticket: {}", error.message),
                None => error.message,
            },
        },
        ..error
    })?;
    Ok((text, read))
}

/// What was given, if it looks like the name of a file and not like a part of a ticket.
fn shown(text: &str) -> Option<String> {
    let is_name = text.len() <= 100 && !text.contains(',') && !text.bytes().all(|b| b.is_ascii_hexdigit());
    is_name.then(|| text.escape_debug().to_string())
}

/// The text, and where it comes from unless it was given itself.
fn ticket_text(given: &str) -> Result<(String, Option<String>)> {
    let given = given.trim();
    if given.is_empty() {
        return Err(Error::invalid("the ticket is empty"));
    }
    let checked = |text: String, from: &str| {
        if text.trim().is_empty() {
            return Err(Error::invalid(format!("the ticket is empty: {from} has no text")));
        }
        Ok((text.trim().to_owned(), Some(from.to_owned())))
    };
    let limited = |reader: &mut dyn Read, from: &str| {
        let mut text = String::new();
        reader
            .take(MAX_TICKET as u64 + 1)
            .read_to_string(&mut text)
            .map_err(|error| unreadable(from, &error))?;
        if text.len() > MAX_TICKET {
            return Err(Error::invalid(format!(
                "{from} is no ticket: it is longer than {MAX_TICKET} bytes"
            )));
        }
        checked(text, from)
    };
    if given == "-" {
        return limited(&mut std::io::stdin().lock(), "stdin");
    }
    if fetch::is_url(given) {
        return checked(fetch::text(given, "the ticket", MAX_TICKET)?, "the URL's answer");
    }
    let is_path = given.starts_with(['/', '.', '~']) && given.len() < 4096 && !given.contains(',');
    // A ticket is far longer than a name of a file can be, and asking the system about it then fails.
    match std::fs::metadata(given) {
        Ok(found) if found.is_dir() => Err(Error::invalid(format!("{given} is a folder, not a ticket file"))),
        Ok(_) => {
            let mut file = std::fs::File::open(given).map_err(|error| unreadable(given, &error))?;
            limited(&mut file, given)
        }
        Err(error) if is_path && error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::not_found(format!("there is no ticket file {given}"))
                .hint("give the file, the ticket itself, its URL, or `-` for stdin"))
        }
        Err(error) if is_path => Err(unreadable(given, &error)),
        Err(_) => Ok((given.to_owned(), None)),
    }
}

fn unreadable(from: &str, error: &std::io::Error) -> Error {
    let failed = Error::invalid(format!("the ticket cannot be read from {from}: {error}"));
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            failed.hint("let this user read it, and no other: a ticket is a secret until it is used")
        }
        _ => failed,
    }
}

/// Join the project of a ticket. Repeating it with the same identity is a success, even when the ticket is used up.
pub(crate) async fn join(
    context: &Context,
    ticket: &str,
    identity: Option<&str>,
    timeout: Duration,
) -> Result<Joined> {
    fetch::warn_if_open(context, ticket, "the ticket");
    let (_, ticket) = self::ticket(ticket)?;
    let joined = project::join(context.home(), &ticket, identity, timeout).await?;
    let Joined {
        identity,
        project,
        credential,
        how,
    } = &joined;
    let (identity, project) = (&identity.record, &project.name);
    let terminal = &context.terminal;
    match how {
        HowJoined::Enrolled => {
            terminal.done(format!("`{}` is now a member of the project `{project}`.", identity.name));
        }
        HowJoined::AlreadyMember => {
            terminal.done(format!(
                "`{}` was already a member of the project `{project}`.",
                identity.name
            ));
            // Which project it is for is in every credential.
            let said = credential.attributes.iter();
            let has = match attributes(said.filter(|(name, _)| *name != "trust_context_id")) {
                none if none.is_empty() => "none".to_owned(),
                has => has,
            };
            terminal.note(format!(
                "The ticket changed nothing: a member keeps the attributes that it has ({has}).\nAn administrator changes \
                 them: portolan project-member add {} --attribute KEY=VALUE …",
                identity.identifier
            ));
        }
        HowJoined::AsFarAsKnown(error) => terminal.warn(format!(
            "`{}` is a member of the project `{project}` as far as this home knows; the authority cannot be asked: {error}",
            identity.name
        )),
    }
    Ok(joined)
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
                    how: HowJoined::AlreadyMember,
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
        let given = path.to_str().unwrap();
        std::fs::write(&path, "abc\n").unwrap();
        assert_eq!(ticket_text(given).unwrap(), ("abc".into(), Some(given.into())));
        assert_eq!(ticket_text(" abc\n").unwrap(), ("abc".into(), None));
        assert_eq!(ticket_text(&"a".repeat(10_000)).unwrap().0.len(), 10_000);
    }

    #[test]
    fn what_is_no_ticket_is_told_as_what_it_was_taken_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticket");
        let given = path.to_str().unwrap();
        let says = |given: &str, words: &str| {
            let Err(error) = ticket(given) else {
                panic!("{given} was taken for a ticket");
            };
            assert!(error.message.contains(words), "{error}");
            assert!(!error.message.contains(&"2f".repeat(40)), "{error}");
            error.code
        };
        assert_eq!(says(given, "there is no ticket file"), ErrorCode::NotFound);
        says(folder.path().to_str().unwrap(), "is a folder");
        for (content, words) in [
            (b"\n".to_vec(), "is empty"),
            (vec![b'a'; 70_000], "longer than"),
            (b"\xff\xfe".to_vec(), "cannot be read"),
            (
                b"hello".to_vec(),
                "ticket has no ticket: this is not an enrollment ticket",
            ),
        ] {
            std::fs::write(&path, content).unwrap();
            says(given, words);
        }
        says("ticket.txt", "`ticket.txt` is neither a file here nor a ticket");
        says(
            "http://127.0.0.1:1/t",
            "cannot be fetched from http://127.0.0.1:1/t",
        );
        says(&"2f".repeat(40), "ticket");
    }
}

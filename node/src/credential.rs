//! Credentials by hand: signed by an identity of a home, verified, kept.
//!
//! In a project the authority issues credentials and nodes renew them without being asked. These functions are for programs that
//! do without: one identity says something about another, and whoever believes that identity believes the statement.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use portolan_identity::{Attributes, CredentialAndPurposeKey, Identifier, Identity};

use crate::error::{Error, ErrorCode, Result};
use crate::state::{CredentialRecord, Home, now};

/// Sign a statement about `subject` (`I…`), in the name of an identity of the home (the default one, made if there is none). Hex.
///
/// # Errors
///
/// When the subject is no identifier, the life is less than a second, the attributes are too many or too long, or the keys cannot
/// be used.
pub fn issue(
    home: &Home,
    issuer: Option<&str>,
    subject: &str,
    attributes: &BTreeMap<String, String>,
    life: Duration,
) -> Result<String> {
    let issuer = home.acting_identity(issuer)?;
    let subject: Identifier = subject
        .parse()
        .map_err(|error| Error::invalid(format!("`{subject}` is not an identifier: {error}")))?;
    if life.as_secs() == 0 {
        return Err(Error::invalid("a credential that ends at once is of no use").hint("give --ttl 30m"));
    }
    let failed = |error: &dyn Display| Error::failed(format!("the credential cannot be issued: {error}"));
    let pairs = attributes
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let attributes = Attributes::from_pairs(pairs).map_err(|error| failed(&error))?;
    let credential = CredentialAndPurposeKey::issue(
        &*issuer.vault,
        home,
        &issuer.identity,
        &subject,
        None,
        attributes,
        now(),
        life.as_secs(),
    )
    .map_err(|error| failed(&error))?;
    Ok(credential.to_hex())
}

/// Check a credential, in hex, against whom it must be signed by: a change history in hex, or the identifier of an identity of this
/// home or of a project that it knows. As it would be kept for `scope`.
///
/// # Errors
///
/// [`NotVerified`](ErrorCode::NotVerified) when it does not hold; [`NotFound`](ErrorCode::NotFound) when the issuer is not known.
pub fn verify(home: &Home, credential: &str, issuer: &str, scope: &str) -> Result<CredentialRecord> {
    let issuer = authority(home, issuer)?;
    let not_verified = |error: &dyn Display| {
        Error::new(
            ErrorCode::NotVerified,
            format!("the credential is not verified: {error}"),
        )
    };
    let credential =
        CredentialAndPurposeKey::from_hex(credential.trim()).map_err(|error| not_verified(&error))?;
    let said = credential
        .verify(None, &[issuer], now())
        .map_err(|error| not_verified(&error))?;
    Ok(CredentialRecord {
        subject: said.subject.to_string(),
        issuer: said.issuer.to_string(),
        scope: scope.to_owned(),
        created_at: said.created_at,
        expires_at: said.expires_at,
        attributes: text(&said.attributes),
        credential: credential.encode(),
    })
}

/// The issuer's change history, by its identifier if this home knows it, or as given.
fn authority(home: &Home, issuer: &str) -> Result<Identity> {
    let issuer = issuer.trim();
    let Ok(identifier) = issuer.parse::<Identifier>() else {
        return Identity::from_hex(issuer, None).map_err(|error| {
            Error::invalid(format!(
                "the issuer is neither an identifier nor a change history: {error}"
            ))
        });
    };
    let database = home.database()?;
    let own = database
        .identities()?
        .into_iter()
        .map(|identity| hex::encode(identity.history));
    let of_projects = database
        .projects()?
        .into_iter()
        .flat_map(|(project, _)| [project.authority_identity, project.project_change_history])
        .flatten();
    own.chain(of_projects)
        .find_map(|history| Identity::from_hex(&history, Some(&identifier)).ok())
        .ok_or_else(|| {
            Error::not_found(format!("the change history of {identifier} is not known here")).hint(
                "give the change history itself: --issuer \"$(portolan identity show --full --encoding hex NAME)\"",
            )
        })
}

/// Attributes as text, whatever bytes they are.
pub(crate) fn text(attributes: &Attributes) -> BTreeMap<String, String> {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    attributes
        .iter()
        .map(|(name, value)| (lossy(name), lossy(value)))
        .collect()
}

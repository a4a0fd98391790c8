//! Making credentials (specification 03 §4.5, 02 §4.3).

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use portolan_identity::{
    Attributes, CredentialAndPurposeKey, HistoryOrder, Identifier, Identity, IdentityRepository,
    PurposeKeyRepository, Vault,
};

use crate::attributes::{RELAY, TLS_CERTIFICATE, TRUST_CONTEXT_ID};
use crate::authority::Authority;
use crate::refusal::Refusal;
use crate::rules::Caller;

/// Seconds that a credential lives by default: one hour. Removing a member takes effect at the latest when
/// its credential ends, so it should end soon; the reference's 30 days are
/// [`portolan_identity::credential::CREDENTIAL_LIFETIME`]. A stock node fetches the next one two minutes
/// before the end and needs the authority only then and at its start.
pub const DEFAULT_CREDENTIAL_TTL: u64 = 3600;

/// Shortest life that is issued, in seconds. For projects with stock nodes it should be 180 at least: such a node
/// takes a credential of 120 s or less as already due for renewal and asks without pause (§6.1).
pub const MIN_CREDENTIAL_TTL: u64 = 5;

/// Longest life that is issued, in seconds: a year.
pub const MAX_CREDENTIAL_TTL: u64 = 365 * 24 * 3600;

/// What goes into credentials.
#[derive(Clone, Debug)]
pub struct CredentialSettings {
    /// The project id.
    pub project_id: String,
    /// Whether the project id is in every credential as `trust_context_id`. Older peers look at it.
    pub include_trust_context_id: bool,
    /// Seconds that a credential lives, see [`DEFAULT_CREDENTIAL_TTL`].
    pub ttl: u64,
}

/// Settings that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// Outside [`MIN_CREDENTIAL_TTL`] to [`MAX_CREDENTIAL_TTL`].
    #[error("a credential must live {MIN_CREDENTIAL_TTL} to {MAX_CREDENTIAL_TTL} s, not {0}")]
    Ttl(u64),
    /// Empty or too long.
    #[error("the project id must have 1 to 255 bytes")]
    ProjectId,
}

/// Issues credentials in the name of the authority.
pub struct Issuer {
    /// As of the last rotation that is known.
    identity: RwLock<Identity>,
    vault: Arc<dyn Vault>,
    purpose_keys: Arc<dyn PurposeKeyRepository>,
    identities: Arc<dyn IdentityRepository>,
    settings: CredentialSettings,
    /// The key for credentials is made on first use; two first uses at once would make two.
    one_at_a_time: Mutex<()>,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer")
            .field("identity", self.identity.read().identifier())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    /// An issuer that signs as `identity` with keys in `vault`. `identities` is where secure channels keep
    /// what they learn of peers: a credential says which change of the subject was the latest known.
    ///
    /// # Errors
    /// [`InvalidSettings`].
    pub fn new(
        identity: Identity,
        vault: Arc<dyn Vault>,
        purpose_keys: Arc<dyn PurposeKeyRepository>,
        identities: Arc<dyn IdentityRepository>,
        settings: CredentialSettings,
    ) -> Result<Self, InvalidSettings> {
        if !(MIN_CREDENTIAL_TTL..=MAX_CREDENTIAL_TTL).contains(&settings.ttl) {
            return Err(InvalidSettings::Ttl(settings.ttl));
        }
        if !(1..=255).contains(&settings.project_id.len()) {
            return Err(InvalidSettings::ProjectId);
        }
        Ok(Self {
            identity: RwLock::new(identity),
            vault,
            purpose_keys,
            identities,
            settings,
            one_at_a_time: Mutex::new(()),
        })
    }

    /// The settings.
    pub fn settings(&self) -> &CredentialSettings {
        &self.settings
    }

    /// The credential for `caller` (§4.5).
    ///
    /// # Errors
    /// [`Refusal::UnauthorizedMember`] for who is not a member; [`Refusal::Internal`] if it cannot be made.
    pub fn issue_to(
        &self,
        authority: &Authority,
        caller: &Caller,
        now: u64,
    ) -> Result<CredentialAndPurposeKey, Refusal> {
        let subject = &caller.identifier;
        // An administrator by credential gets what an administrator needs and none of its own attributes, as
        // in the reference.
        if authority.roles().account_authority && caller.account_admin {
            let attributes = self.attributes([(RELAY, "*"), (TLS_CERTIFICATE, "true")].into_iter())?;
            return self.sign(subject, attributes, now);
        }
        let (member, created_at) = authority
            .prepare_credential(subject, now)?
            .ok_or(Refusal::UnauthorizedMember)?;
        let attributes = self.attributes(member.attributes.iter())?;
        self.sign(subject, attributes, created_at)
    }

    fn attributes<'a>(
        &'a self,
        own: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Attributes, Refusal> {
        let context = self
            .settings
            .include_trust_context_id
            .then_some((TRUST_CONTEXT_ID, &*self.settings.project_id));
        // The context comes last: nobody's attribute replaces it.
        Attributes::from_pairs(own.chain(context)).map_err(|error| {
            tracing::error!(%error, "attributes of a member do not fit a credential");
            Refusal::Internal("issue a credential")
        })
    }

    /// The authority's identity, which another process may have rotated.
    fn latest_identity(&self) -> Result<Identity, portolan_identity::Error> {
        let known = self.identity.read().clone();
        let Some(history) = self.purpose_keys.latest_history(known.identifier())? else {
            return Ok(known);
        };
        let latest = Identity::verify_with_known(history, Some(known.identifier()), Some(&known))?;
        if latest.compare(&known) != HistoryOrder::Newer {
            return Ok(known);
        }
        self.identity.write().clone_from(&latest);
        Ok(latest)
    }

    fn sign(
        &self,
        subject: &Identifier,
        attributes: Attributes,
        now: u64,
    ) -> Result<CredentialAndPurposeKey, Refusal> {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, %subject, "cannot issue a credential");
            Refusal::Internal("issue a credential")
        };
        let latest = self
            .identities
            .get(subject)
            .map_err(|e| failed(&e))?
            .map(|known| known.latest_change_hash());
        let _guard = self.one_at_a_time.lock();
        let issuer = self.latest_identity().map_err(|e| failed(&e))?;
        CredentialAndPurposeKey::issue(
            &*self.vault,
            &*self.purpose_keys,
            &issuer,
            subject,
            // Who never rotated has its identifier as latest change.
            latest.or_else(|| Some(subject.change_hash())),
            attributes,
            now,
            self.settings.ttl,
        )
        .map_err(|e| failed(&e))
    }
}

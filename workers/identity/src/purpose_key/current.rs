//! The purpose keys of our own identities: made when they are needed, kept while they are good (§3.2).

use super::{AttestationData, Purpose, PurposeKeyAttestation, PurposePublicKey};
use crate::{
    ChangeHistory, Error, Identifier, Identity, KeyHandle, KeyType, MAX_CLOCK_SKEW, StorageError, Vault,
};
use parking_lot::RwLock;
use std::collections::HashMap;

/// How long the attestation of a new key holds, in seconds: 180 days. It holds longer where a credential that the key
/// signs must, and ends earlier where the identity does.
///
/// The reference takes five years. But an attestation cannot be withdrawn: a stolen purpose key speaks for its identity
/// until the attestation ends or the verifier learns of a rotation (§9.2, S10). Verifiers accept any lifetime.
pub const PURPOSE_KEY_LIFETIME: u64 = 180 * 24 * 60 * 60;

/// The age, in seconds, at which [`current_purpose_key`] replaces a key that would still be accepted: 90 days. Half of the
/// lifetime is left for clocks that are wrong and for those who keep a key at hand for long.
pub const PURPOSE_KEY_RENEWAL: u64 = 90 * 24 * 60 * 60;

/// A purpose key of ours, ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurposeKey {
    /// Names the secret half in the vault.
    pub handle: KeyHandle,
    /// The attestation to show to peers.
    pub attestation: PurposeKeyAttestation,
    /// What the attestation says.
    pub data: AttestationData,
}

impl PurposeKey {
    /// Whether a peer that knows the latest state of `identity` accepts this key now, and it is not yet time to renew it.
    /// This compares a few numbers: whoever makes many handshakes keeps the key and asks here before each, and asks
    /// [`current_purpose_key`] when the answer is no.
    pub fn is_current(&self, identity: &Identity, now: u64) -> bool {
        self.data.subject == *identity.identifier()
            && self.data.subject_latest_change_hash == identity.latest_change_hash()
            && self.data.expires_at >= now
            && self.data.created_at <= now.saturating_add(MAX_CLOCK_SKEW)
            && !self.is_due_for_renewal(now)
    }

    fn is_due_for_renewal(&self, now: u64) -> bool {
        now.saturating_sub(self.data.created_at) >= PURPOSE_KEY_RENEWAL
    }
}

/// Keeps the current attestation per identity and purpose.
pub trait PurposeKeyRepository: Send + Sync {
    /// The current attestation.
    fn get(
        &self,
        identifier: &Identifier,
        purpose: Purpose,
    ) -> Result<Option<PurposeKeyAttestation>, StorageError>;

    /// Replaces the current attestation. The secret of the key before is of use to handshakes that have begun already, and to
    /// nobody later: whoever owns the vault deletes it after a while.
    fn put(
        &self,
        identifier: &Identifier,
        purpose: Purpose,
        attestation: &PurposeKeyAttestation,
    ) -> Result<(), StorageError>;

    /// The change history of one of our identities as it is now, where it is known: another process may have rotated the
    /// identity. `None` where nobody else can.
    fn latest_history(&self, _identifier: &Identifier) -> Result<Option<ChangeHistory>, StorageError> {
        Ok(None)
    }
}

/// A repository that forgets everything with the process. It grows with the number of our own identities only.
#[derive(Debug, Default)]
pub struct MemoryPurposeKeyRepository {
    attestations: RwLock<HashMap<(Identifier, Purpose), PurposeKeyAttestation>>,
}

impl PurposeKeyRepository for MemoryPurposeKeyRepository {
    fn get(
        &self,
        identifier: &Identifier,
        purpose: Purpose,
    ) -> Result<Option<PurposeKeyAttestation>, StorageError> {
        Ok(self.attestations.read().get(&(*identifier, purpose)).cloned())
    }

    fn put(
        &self,
        identifier: &Identifier,
        purpose: Purpose,
        attestation: &PurposeKeyAttestation,
    ) -> Result<(), StorageError> {
        self.attestations
            .write()
            .insert((*identifier, purpose), attestation.clone());
        Ok(())
    }
}

/// The key of `identity` for `purpose` (§3.2): the one in the repository if peers will accept it now and its secret is in
/// the vault; otherwise a new one, which replaces it. Ask again before every use, since an attestation ends with time and
/// with rotation; asking costs one signature check, which [`PurposeKey::is_current`] spares.
///
/// Secrets of replaced keys stay in the vault, since handshakes that have begun still refer to them; when they go is for
/// the repository to say.
pub fn current_purpose_key(
    vault: &dyn Vault,
    repository: &dyn PurposeKeyRepository,
    identity: &Identity,
    purpose: Purpose,
    now: u64,
) -> Result<PurposeKey, Error> {
    purpose_key_that_lasts(vault, repository, identity, purpose, now, now)
}

/// As [`current_purpose_key`], and prefers a key that holds until `until`: one that ends earlier is kept only if a new
/// one would not last longer.
pub(crate) fn purpose_key_that_lasts(
    vault: &dyn Vault,
    repository: &dyn PurposeKeyRepository,
    identity: &Identity,
    purpose: Purpose,
    now: u64,
    until: u64,
) -> Result<PurposeKey, Error> {
    let until = until.min(identity.latest_change().valid_until);
    if let Some(attestation) = repository.get(identity.identifier(), purpose)?
        && let Some(key) = usable(vault, identity, purpose, attestation, now)?
        && key.data.expires_at >= until
        && !key.is_due_for_renewal(now)
    {
        return Ok(key);
    }
    // Until its renewal, the key must outlast not only this use but also the next of the same length; or else every
    // use would make another key.
    let lifetime = PURPOSE_KEY_LIFETIME.max(until.saturating_sub(now).saturating_add(PURPOSE_KEY_RENEWAL));
    let key = create_purpose_key(vault, identity, purpose, now, lifetime)?;
    repository.put(identity.identifier(), purpose, &key.attestation)?;
    Ok(key)
}

/// Makes a new purpose key, valid for `lifetime` seconds, and stores nothing but its secret.
pub fn create_purpose_key(
    vault: &dyn Vault,
    identity: &Identity,
    purpose: Purpose,
    now: u64,
    lifetime: u64,
) -> Result<PurposeKey, Error> {
    let (handle, public_key) = match purpose {
        Purpose::SecureChannel => {
            let handle = vault.generate_x25519_key()?;
            (
                handle,
                PurposePublicKey::SecureChannelStatic(vault.x25519_public_key(&handle)?),
            )
        }
        Purpose::Credentials => {
            let handle = vault.generate_signing_key(KeyType::Ed25519)?;
            (
                handle,
                PurposePublicKey::CredentialSigning(vault.verifying_key(&handle)?),
            )
        }
    };
    let attested = PurposeKeyAttestation::create(vault, identity, public_key, now, lifetime)
        .and_then(|attestation| Ok((attestation.read()?, attestation)));
    match attested {
        Ok((data, attestation)) => Ok(PurposeKey {
            handle,
            attestation,
            data,
        }),
        Err(e) => {
            // Callers try again; every attempt would leave a useless key behind. The first failure is the one to report.
            let _ = vault.delete_key(&handle);
            Err(e)
        }
    }
}

/// The stored key, if a peer would accept it and we can use it.
fn usable(
    vault: &dyn Vault,
    identity: &Identity,
    purpose: Purpose,
    attestation: PurposeKeyAttestation,
    now: u64,
) -> Result<Option<PurposeKey>, Error> {
    let Ok(data) = attestation.verify(identity, now) else {
        return Ok(None);
    };
    if data.public_key.purpose() != purpose {
        return Ok(None);
    }
    let handle = match &data.public_key {
        PurposePublicKey::SecureChannelStatic(key) => vault.x25519_handle(key)?,
        PurposePublicKey::CredentialSigning(key) => vault.signing_handle(key)?,
    };
    Ok(vault.contains(&handle)?.then_some(PurposeKey {
        handle,
        attestation,
        data,
    }))
}

//! Who we are at our end of a channel.

use std::sync::Arc;

use parking_lot::RwLock;
use portolan_identity::{
    CredentialAndPurposeKey, HistoryOrder, Identifier, Identity, KeyHandle, Purpose, PurposeKeyRepository,
    PurposePublicKey, Vault, VaultError, current_purpose_key,
};

use crate::aead::KeyBytes;
use crate::handshake::{DhError, PublicKeyBytes, StaticKey};
use crate::wire::identity::IdentityPayload;

/// An identity of ours, with what is needed to prove it. Clones are cheap, and all of them learn of a rotation.
#[derive(Clone)]
pub struct LocalIdentity {
    identifier: Identifier,
    /// As of the last rotation that we know of.
    current: Arc<RwLock<Identity>>,
    vault: Arc<dyn Vault>,
    purpose_keys: Arc<dyn PurposeKeyRepository>,
}

impl LocalIdentity {
    /// `vault` holds the identity's signing key, and will hold the static keys of its channels; `purpose_keys` remembers
    /// which of these is current, and may know of a rotation by another process
    /// ([`PurposeKeyRepository::latest_history`]); it is asked before each handshake.
    #[must_use]
    pub fn new(
        identity: Identity,
        vault: Arc<dyn Vault>,
        purpose_keys: Arc<dyn PurposeKeyRepository>,
    ) -> Self {
        Self {
            identifier: *identity.identifier(),
            current: Arc::new(RwLock::new(identity)),
            vault,
            purpose_keys,
        }
    }

    /// Who we are.
    #[must_use]
    pub fn identifier(&self) -> &Identifier {
        &self.identifier
    }

    /// Our identity, as of the last rotation that we know of.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.current.read().clone()
    }

    /// Looks whether the identity was rotated. Handshakes of later, and credentials that are presented on channels that are open,
    /// show the new history. Says whether it was. May block.
    ///
    /// # Errors
    /// When the repository fails, or holds a history that does not verify.
    pub fn look_for_rotation(&self) -> Result<bool, portolan_identity::Error> {
        let Some(history) = self.purpose_keys.latest_history(&self.identifier)? else {
            return Ok(false);
        };
        let known = self.identity();
        if *known.history() == history {
            return Ok(false);
        }
        let latest = Identity::verify_with_known(history, Some(&self.identifier), Some(&known))?;
        let mut current = self.current.write();
        let newer = latest.compare(&current) == HistoryOrder::Newer;
        if newer {
            *current = latest;
        }
        Ok(newer)
    }

    /// The static key for a handshake that begins now, and its attestation. May block.
    pub(crate) fn static_key(&self, now: u64) -> Result<AttestedKey, portolan_identity::Error> {
        self.look_for_rotation()?;
        let identity = self.identity();
        let key = current_purpose_key(
            self.vault.as_ref(),
            self.purpose_keys.as_ref(),
            &identity,
            Purpose::SecureChannel,
            now,
        )?;
        let PurposePublicKey::SecureChannelStatic(public) = key.data.public_key else {
            return Err(portolan_identity::VaultError::UnknownKey(key.handle).into());
        };
        let vault = Arc::clone(&self.vault);
        Ok(AttestedKey {
            key: Arc::new(VaultKey {
                vault,
                handle: key.handle,
                public,
            }),
            attestation: key.attestation.encode(),
            history: identity.history().encode().into(),
        })
    }

    /// The payload that proves who we are, and what we answer or confirm beyond the reference protocol.
    pub(crate) fn payload(
        &self,
        key: &AttestedKey,
        credential: Option<&CredentialAndPurposeKey>,
        extensions: Option<&[u8]>,
    ) -> Vec<u8> {
        let credential = credential.map(CredentialAndPurposeKey::encode);
        IdentityPayload {
            change_history: &key.history,
            attestation: &key.attestation,
            credentials: credential.as_deref().into_iter().collect(),
            extensions,
        }
        .encode()
    }
}

impl std::fmt::Debug for LocalIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LocalIdentity").field(self.identifier()).finish()
    }
}

/// A static key and the proof that it is ours.
#[derive(Clone)]
pub(crate) struct AttestedKey {
    pub(crate) key: Arc<dyn StaticKey>,
    pub(crate) attestation: Vec<u8>,
    /// The change history, encoded, whose latest key has attested it.
    pub(crate) history: Arc<[u8]>,
}

/// A static key whose secret half stays in a vault.
struct VaultKey {
    vault: Arc<dyn Vault>,
    handle: KeyHandle,
    public: PublicKeyBytes,
}

impl StaticKey for VaultKey {
    fn public_key(&self) -> PublicKeyBytes {
        self.public
    }

    fn diffie_hellman(&self, their_public_key: &PublicKeyBytes) -> Result<KeyBytes, DhError> {
        match self.vault.x25519(&self.handle, their_public_key) {
            Ok(shared) => Ok(KeyBytes::new(*shared.as_bytes())),
            Err(VaultError::NonContributory) => Err(DhError::WeakKey),
            Err(error) => {
                tracing::warn!("the vault cannot use our secure channel key: {error}");
                Err(DhError::Unavailable("the vault cannot use it; the log says why"))
            }
        }
    }
}

//! Who we are at our end of a channel.

use std::sync::Arc;

use portolan_identity::{
    CredentialAndPurposeKey, Identifier, Identity, KeyHandle, Purpose, PurposeKeyRepository,
    PurposePublicKey, Vault, VaultError, current_purpose_key,
};

use crate::aead::KeyBytes;
use crate::handshake::{DhError, PublicKeyBytes, StaticKey};
use crate::wire::identity::IdentityPayload;

/// An identity of ours, with what is needed to prove it. Clones are cheap.
#[derive(Clone)]
pub struct LocalIdentity {
    identity: Identity,
    vault: Arc<dyn Vault>,
    purpose_keys: Arc<dyn PurposeKeyRepository>,
}

impl LocalIdentity {
    /// `vault` holds the identity's signing key, and will hold the static keys of its channels; `purpose_keys` remembers
    /// which of these is current.
    #[must_use]
    pub fn new(
        identity: Identity,
        vault: Arc<dyn Vault>,
        purpose_keys: Arc<dyn PurposeKeyRepository>,
    ) -> Self {
        Self {
            identity,
            vault,
            purpose_keys,
        }
    }

    /// Who we are.
    #[must_use]
    pub fn identifier(&self) -> &Identifier {
        self.identity.identifier()
    }

    /// Our identity.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The static key for a handshake that begins now, and its attestation. May block.
    pub(crate) fn static_key(&self, now: u64) -> Result<AttestedKey, portolan_identity::Error> {
        let key = current_purpose_key(
            self.vault.as_ref(),
            self.purpose_keys.as_ref(),
            &self.identity,
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
            change_history: self.identity.history().encode(),
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

//! Secret keys behind handles.
//!
//! Whoever uses a [`Vault`] names a key by its [`KeyHandle`] and gets back signatures and shared secrets; the key itself
//! stays inside. The software vault keeps keys in a [`SecretStore`]; a vault over a hardware or cloud key store
//! implements the same trait.

mod software;
mod store;

pub use software::SoftwareVault;
pub use store::{MemorySecretStore, Secret, SecretKind, SecretStore};

use crate::{KeyType, Signature, StorageError, VerifyingKey, sha256};
use std::fmt;
use zeroize::Zeroizing;

/// The local name of a secret key: the SHA-256 of its public key (§1.4). It never appears on a wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHandle([u8; 32]);

impl KeyHandle {
    /// The handle of the secret key that belongs to a public signing key.
    pub fn of_verifying_key(key: &VerifyingKey) -> Self {
        KeyHandle(sha256(key.as_bytes()))
    }

    /// The handle of the secret key that belongs to an X25519 public key.
    pub fn of_x25519_key(public: &[u8; 32]) -> Self {
        KeyHandle(sha256(public))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for KeyHandle {
    fn from(bytes: [u8; 32]) -> Self {
        KeyHandle(bytes)
    }
}

impl fmt::Display for KeyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The result of a Diffie-Hellman exchange. It is wiped when it is dropped, and is never printed.
pub struct SharedSecret(Zeroizing<[u8; 32]>);

impl SharedSecret {
    /// For implementations of [`Vault`].
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        SharedSecret(bytes)
    }

    /// The 32 bytes, to be fed to a key derivation.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// Why a vault could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The vault has no key of this handle.
    #[error("the vault has no secret key {0}")]
    UnknownKey(KeyHandle),
    /// The key exists, but is of a kind that cannot do this.
    #[error("the secret key {handle} is a {found} key and cannot do this")]
    WrongKind {
        /// The key asked for.
        handle: KeyHandle,
        /// Its kind.
        found: SecretKind,
    },
    /// The bytes given are not a secret key of the kind named.
    #[error("these bytes are not a secret key of kind {0}")]
    InvalidSecret(SecretKind),
    /// The peer's public key makes every shared secret zero: a broken or hostile peer.
    #[error("the peer's X25519 public key has small order")]
    NonContributory,
    /// The operating system gave no random bytes.
    #[error("no randomness from the operating system: {0}")]
    Randomness(String),
    /// The store of the secrets failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Another kind of vault failed for a reason of its own.
    #[error("the vault failed: {0}")]
    Backend(String),
}

/// Signing and Diffie-Hellman with keys that stay inside (§1).
///
/// Calls may block for as long as the store takes; none waits for the network in the software vault.
pub trait Vault: Send + Sync {
    /// Makes a new signing key.
    fn generate_signing_key(&self, key_type: KeyType) -> Result<KeyHandle, VaultError>;

    /// The public half of a signing key.
    fn verifying_key(&self, handle: &KeyHandle) -> Result<VerifyingKey, VaultError>;

    /// Signs a digest (§1.3): Ed25519 over the 32 bytes; ECDSA over the SHA-256 of the 32 bytes.
    fn sign(&self, handle: &KeyHandle, digest: &[u8; 32]) -> Result<Signature, VaultError>;

    /// Makes a new X25519 key.
    fn generate_x25519_key(&self) -> Result<KeyHandle, VaultError>;

    /// The public half of an X25519 key.
    fn x25519_public_key(&self, handle: &KeyHandle) -> Result<[u8; 32], VaultError>;

    /// X25519 of a secret key of ours and a public key of the peer.
    ///
    /// A result of all zeroes, which only a public key of small order gives, is [`VaultError::NonContributory`].
    fn x25519(&self, handle: &KeyHandle, peer: &[u8; 32]) -> Result<SharedSecret, VaultError>;

    /// Whether the vault has this key.
    fn contains(&self, handle: &KeyHandle) -> Result<bool, VaultError>;

    /// Deletes a key for good. Says whether there was one.
    fn delete_key(&self, handle: &KeyHandle) -> Result<bool, VaultError>;

    /// The handle of the secret key of a public signing key. Vaults whose handles are the hash of the public key, as those
    /// of the software vault, need not implement this.
    fn signing_handle(&self, key: &VerifyingKey) -> Result<KeyHandle, VaultError> {
        Ok(KeyHandle::of_verifying_key(key))
    }

    /// The handle of the secret key of an X25519 public key; as [`signing_handle`](Vault::signing_handle).
    fn x25519_handle(&self, public: &[u8; 32]) -> Result<KeyHandle, VaultError> {
        Ok(KeyHandle::of_x25519_key(public))
    }
}

/// Fills a new array with random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, VaultError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut bytes[..]).map_err(|e| VaultError::Randomness(e.to_string()))?;
    Ok(bytes)
}

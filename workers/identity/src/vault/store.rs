//! Where the software vault keeps its secrets.

use super::KeyHandle;
use crate::{DecodeError, StorageError};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// What a secret is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretKind {
    /// An Ed25519 seed.
    Ed25519,
    /// A P-256 scalar, big-endian.
    EcdsaP256,
    /// An X25519 scalar.
    X25519,
}

impl SecretKind {
    /// The name, as in the reference's databases where they have one.
    pub fn as_str(self) -> &'static str {
        match self {
            SecretKind::Ed25519 => "EdDSACurve25519",
            SecretKind::EcdsaP256 => "ECDSASHA256CurveP256",
            SecretKind::X25519 => "X25519",
        }
    }
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SecretKind {
    type Err = DecodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [SecretKind::Ed25519, SecretKind::EcdsaP256, SecretKind::X25519]
            .into_iter()
            .find(|k| k.as_str() == text)
            .ok_or_else(|| DecodeError::new("secret kind", format!("unknown kind {text:?}")))
    }
}

/// A secret key: its kind and its 32 bytes. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Secret {
    kind: SecretKind,
    bytes: Zeroizing<[u8; 32]>,
}

impl Secret {
    /// A secret of these bytes.
    pub fn new(kind: SecretKind, bytes: Zeroizing<[u8; 32]>) -> Self {
        Secret { kind, bytes }
    }

    /// What it is good for.
    pub fn kind(&self) -> SecretKind {
        self.kind
    }

    /// The bytes, for a store to write. Do not let them go anywhere else.
    pub fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}, ..)", self.kind)
    }
}

/// Keeps secrets by handle. The node's store writes them to its database, sealed if the user wants that
/// ([`crate::sealed`]).
pub trait SecretStore: Send + Sync {
    /// Keeps a secret; one that is already kept under the handle is replaced.
    fn put(&self, handle: &KeyHandle, secret: &Secret) -> Result<(), StorageError>;

    /// The secret of this handle, if there is one.
    fn get(&self, handle: &KeyHandle) -> Result<Option<Secret>, StorageError>;

    /// Forgets a secret. Says whether there was one.
    fn delete(&self, handle: &KeyHandle) -> Result<bool, StorageError>;
}

impl<S: SecretStore + ?Sized> SecretStore for std::sync::Arc<S> {
    fn put(&self, handle: &KeyHandle, secret: &Secret) -> Result<(), StorageError> {
        (**self).put(handle, secret)
    }

    fn get(&self, handle: &KeyHandle) -> Result<Option<Secret>, StorageError> {
        (**self).get(handle)
    }

    fn delete(&self, handle: &KeyHandle) -> Result<bool, StorageError> {
        (**self).delete(handle)
    }
}

/// A store that forgets everything with the process. For tests and for nodes without a home.
#[derive(Default)]
pub struct MemorySecretStore {
    secrets: RwLock<HashMap<KeyHandle, Secret>>,
}

impl SecretStore for MemorySecretStore {
    fn put(&self, handle: &KeyHandle, secret: &Secret) -> Result<(), StorageError> {
        self.secrets.write().insert(*handle, secret.clone());
        Ok(())
    }

    fn get(&self, handle: &KeyHandle) -> Result<Option<Secret>, StorageError> {
        Ok(self.secrets.read().get(handle).cloned())
    }

    fn delete(&self, handle: &KeyHandle) -> Result<bool, StorageError> {
        Ok(self.secrets.write().remove(handle).is_some())
    }
}

impl fmt::Debug for MemorySecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemorySecretStore({} secrets)", self.secrets.read().len())
    }
}

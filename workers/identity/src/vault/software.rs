//! The vault that computes in this process.

use super::{
    KeyHandle, MemorySecretStore, Secret, SecretKind, SecretStore, SharedSecret, Vault, VaultError, random,
};
use crate::{KeyType, Signature, VerifyingKey};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Keys that are held ready in memory. A node uses three or four; a project's authority, the same.
const MAX_LOADED_KEYS: usize = 32;

/// Signs and exchanges keys in this process, with secrets from a [`SecretStore`].
///
/// A key that was used once stays loaded (and wiped on drop), so that handshakes do not wait for the store. Keys that
/// another process deletes from a shared store can therefore still be used here until they are deleted here.
pub struct SoftwareVault {
    store: Box<dyn SecretStore>,
    loaded: RwLock<HashMap<KeyHandle, Arc<LoadedKey>>>,
}

/// A secret in the form its algorithm computes with. All three wipe themselves.
enum LoadedKey {
    Ed25519(ed25519_dalek::SigningKey),
    EcdsaP256(p256::ecdsa::SigningKey),
    X25519(x25519_dalek::StaticSecret),
}

impl SoftwareVault {
    /// A vault over `store`.
    pub fn new(store: impl SecretStore + 'static) -> Self {
        SoftwareVault {
            store: Box::new(store),
            loaded: RwLock::default(),
        }
    }

    /// A vault that forgets everything with the process.
    pub fn in_memory() -> Self {
        SoftwareVault::new(MemorySecretStore::default())
    }

    /// Takes in a key from elsewhere. Its handle follows from its public key; a key that is already there is unchanged.
    pub fn import(&self, secret: &Secret) -> Result<KeyHandle, VaultError> {
        let key = LoadedKey::new(secret)?;
        let handle = key.handle();
        self.store.put(&handle, secret)?;
        self.keep(handle, Arc::new(key));
        Ok(handle)
    }

    fn generate(&self, kind: SecretKind) -> Result<KeyHandle, VaultError> {
        // One in 2^32 random strings is not a P-256 scalar; every string is a key of the other kinds.
        for _ in 0..4 {
            match self.import(&Secret::new(kind, random()?)) {
                Err(VaultError::InvalidSecret(_)) => continue,
                done => return done,
            }
        }
        Err(VaultError::Randomness(
            "four strings in a row were not a key".into(),
        ))
    }

    fn load(&self, handle: &KeyHandle) -> Result<Arc<LoadedKey>, VaultError> {
        if let Some(key) = self.loaded.read().get(handle) {
            return Ok(key.clone());
        }
        let secret = self.store.get(handle)?.ok_or(VaultError::UnknownKey(*handle))?;
        let key = Arc::new(LoadedKey::new(&secret)?);
        self.keep(*handle, key.clone());
        Ok(key)
    }

    fn keep(&self, handle: KeyHandle, key: Arc<LoadedKey>) {
        let mut loaded = self.loaded.write();
        if loaded.len() >= MAX_LOADED_KEYS && !loaded.contains_key(&handle) {
            let victim = loaded.keys().next().copied();
            victim.map(|v| loaded.remove(&v));
        }
        loaded.insert(handle, key);
    }
}

impl LoadedKey {
    fn new(secret: &Secret) -> Result<Self, VaultError> {
        Ok(match secret.kind() {
            SecretKind::Ed25519 => LoadedKey::Ed25519(ed25519_dalek::SigningKey::from_bytes(secret.expose())),
            SecretKind::EcdsaP256 => LoadedKey::EcdsaP256(
                p256::ecdsa::SigningKey::from_slice(secret.expose())
                    .map_err(|_| VaultError::InvalidSecret(SecretKind::EcdsaP256))?,
            ),
            SecretKind::X25519 => LoadedKey::X25519(x25519_dalek::StaticSecret::from(*secret.expose())),
        })
    }

    fn kind(&self) -> SecretKind {
        match self {
            LoadedKey::Ed25519(_) => SecretKind::Ed25519,
            LoadedKey::EcdsaP256(_) => SecretKind::EcdsaP256,
            LoadedKey::X25519(_) => SecretKind::X25519,
        }
    }

    fn handle(&self) -> KeyHandle {
        match self {
            LoadedKey::X25519(key) => KeyHandle::of_x25519_key(x25519_dalek::PublicKey::from(key).as_bytes()),
            LoadedKey::Ed25519(key) => KeyHandle::of_verifying_key(&ed25519_public(key)),
            LoadedKey::EcdsaP256(key) => KeyHandle::of_verifying_key(&p256_public(key)),
        }
    }
}

fn ed25519_public(key: &ed25519_dalek::SigningKey) -> VerifyingKey {
    VerifyingKey::Ed25519(key.verifying_key().to_bytes())
}

fn p256_public(key: &p256::ecdsa::SigningKey) -> VerifyingKey {
    let point = key.verifying_key().to_sec1_point(false);
    let mut bytes = [0; 65];
    bytes.copy_from_slice(point.as_bytes());
    VerifyingKey::EcdsaP256(bytes)
}

impl Vault for SoftwareVault {
    fn generate_signing_key(&self, key_type: KeyType) -> Result<KeyHandle, VaultError> {
        self.generate(match key_type {
            KeyType::Ed25519 => SecretKind::Ed25519,
            KeyType::EcdsaP256 => SecretKind::EcdsaP256,
        })
    }

    fn verifying_key(&self, handle: &KeyHandle) -> Result<VerifyingKey, VaultError> {
        match &*self.load(handle)? {
            LoadedKey::Ed25519(key) => Ok(ed25519_public(key)),
            LoadedKey::EcdsaP256(key) => Ok(p256_public(key)),
            other => Err(VaultError::WrongKind {
                handle: *handle,
                found: other.kind(),
            }),
        }
    }

    fn sign(&self, handle: &KeyHandle, digest: &[u8; 32]) -> Result<Signature, VaultError> {
        match &*self.load(handle)? {
            LoadedKey::Ed25519(key) => {
                use ed25519_dalek::Signer;
                Ok(Signature::Ed25519(key.sign(digest).to_bytes()))
            }
            LoadedKey::EcdsaP256(key) => {
                use p256::ecdsa::signature::Signer;
                // `sign` hashes its message, here the digest: the double hash of §1.3. RFC 6979, deterministic.
                let signature: p256::ecdsa::Signature = key
                    .try_sign(digest)
                    .map_err(|e| VaultError::Backend(e.to_string()))?;
                Ok(Signature::EcdsaP256(signature.to_bytes().into()))
            }
            other => Err(VaultError::WrongKind {
                handle: *handle,
                found: other.kind(),
            }),
        }
    }

    fn generate_x25519_key(&self) -> Result<KeyHandle, VaultError> {
        self.generate(SecretKind::X25519)
    }

    fn x25519_public_key(&self, handle: &KeyHandle) -> Result<[u8; 32], VaultError> {
        match &*self.load(handle)? {
            LoadedKey::X25519(key) => Ok(x25519_dalek::PublicKey::from(key).to_bytes()),
            other => Err(VaultError::WrongKind {
                handle: *handle,
                found: other.kind(),
            }),
        }
    }

    fn x25519(&self, handle: &KeyHandle, peer: &[u8; 32]) -> Result<SharedSecret, VaultError> {
        match &*self.load(handle)? {
            LoadedKey::X25519(key) => {
                let shared = key.diffie_hellman(&x25519_dalek::PublicKey::from(*peer));
                if !shared.was_contributory() {
                    return Err(VaultError::NonContributory);
                }
                Ok(SharedSecret::new(Zeroizing::new(shared.to_bytes())))
            }
            other => Err(VaultError::WrongKind {
                handle: *handle,
                found: other.kind(),
            }),
        }
    }

    fn contains(&self, handle: &KeyHandle) -> Result<bool, VaultError> {
        match self.load(handle) {
            Ok(_) => Ok(true),
            Err(VaultError::UnknownKey(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn delete_key(&self, handle: &KeyHandle) -> Result<bool, VaultError> {
        let existed = self.store.delete(handle)?;
        self.loaded.write().remove(handle);
        Ok(existed)
    }
}

impl fmt::Debug for SoftwareVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SoftwareVault({} keys loaded)", self.loaded.read().len())
    }
}

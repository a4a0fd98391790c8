//! X25519 keys of the handshake: the static one may live in a vault, the ephemeral one lives here and briefly.

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::aead::KeyBytes;

/// An X25519 public key (RFC 7748).
pub type PublicKeyBytes = [u8; 32];

/// Why a Diffie-Hellman computation yielded nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DhError {
    /// The other side's public key is of small order: the result would be zero, whatever our key is.
    #[error("the public key is of small order")]
    WeakKey,
    /// The keeper of our secret did not do it.
    #[error("the secret key is not available: {0}")]
    Unavailable(&'static str),
}

/// The long-lived key of one side, wherever its secret half is kept.
pub trait StaticKey: Send + Sync {
    /// The public half.
    fn public_key(&self) -> PublicKeyBytes;

    /// X25519 of the secret half and `their_public_key`.
    ///
    /// # Errors
    /// [`DhError`]
    fn diffie_hellman(&self, their_public_key: &PublicKeyBytes) -> Result<KeyBytes, DhError>;
}

/// A secret key in memory. Erased when dropped.
#[derive(Clone)]
pub struct X25519Secret {
    secret: StaticSecret,
    public: PublicKey,
}

impl X25519Secret {
    /// The key with these secret bytes; for an ephemeral key they come from the system's random generator.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let secret = StaticSecret::from(*bytes);
        let public = PublicKey::from(&secret);
        Self { secret, public }
    }
}

impl StaticKey for X25519Secret {
    fn public_key(&self) -> PublicKeyBytes {
        self.public.to_bytes()
    }

    fn diffie_hellman(&self, their_public_key: &PublicKeyBytes) -> Result<KeyBytes, DhError> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(*their_public_key));
        if shared.was_contributory() {
            Ok(Zeroizing::new(shared.to_bytes()))
        } else {
            Err(DhError::WeakKey)
        }
    }
}

impl std::fmt::Debug for X25519Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("X25519Secret(..)")
    }
}

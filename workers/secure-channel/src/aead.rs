//! Authenticated encryption behind one trait, whoever implements it.
//!
//! A [`Suite`] is an algorithm, as it is named in the protocol. A [`Provider`] is a library that implements some of
//! the suites. [`AeadKey`] is a key that is ready for use: its schedule and tables are computed once, when it is made,
//! and sealing and opening neither allocate nor copy.

mod awslc;
mod preference;
mod rustcrypto;

use zeroize::Zeroizing;

pub use awslc::{AwsLcAes256Gcm, AwsLcChaCha20Poly1305};
pub use preference::Suites;
pub use rustcrypto::RustCryptoChaCha20Poly1305;

/// Bytes of a key, in every suite.
pub const KEY_LEN: usize = 32;
/// Bytes of a nonce, in every suite.
pub const NONCE_LEN: usize = 12;
/// Bytes of an authentication tag, in every suite.
pub const TAG_LEN: usize = 16;

/// The bytes of a key. Erased when dropped.
pub type KeyBytes = Zeroizing<[u8; KEY_LEN]>;
/// A nonce as the AEAD takes it.
pub type Nonce = [u8; NONCE_LEN];
/// An authentication tag.
pub type Tag = [u8; TAG_LEN];

/// The nonce for the counter `n`: four zero bytes, then `n` big-endian (spec 02 §5.2 and §6.1).
///
/// The Noise specification would have ChaCha20-Poly1305 count little-endian; this protocol is big-endian throughout.
#[must_use]
pub fn nonce(n: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&n.to_be_bytes());
    nonce
}

/// Why an AEAD refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AeadError {
    /// The tag does not match: the bytes were not sealed with this key, nonce and associated data.
    #[error("the message does not authenticate")]
    NotAuthentic,
    /// The plaintext is longer than the algorithm can protect (some 64 GiB).
    #[error("the message is too long to be sealed")]
    TooLong,
}

/// One AEAD algorithm of one provider, with a key.
pub trait Aead: Sized + Send + Sync {
    /// Prepares `key` for use.
    fn new(key: &[u8; KEY_LEN]) -> Self;

    /// Encrypts `data` where it stands and returns the tag.
    ///
    /// # Errors
    /// [`AeadError::TooLong`]; `data` is then undefined.
    fn seal(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> Result<Tag, AeadError>;

    /// Decrypts `data` where it stands, if `tag` matches.
    ///
    /// # Errors
    /// [`AeadError::NotAuthentic`]; `data` is then undefined, but it is not the plaintext.
    fn open(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8], tag: &Tag) -> Result<(), AeadError>;
}

/// An algorithm, with its number in extension X1 (spec 06).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Suite {
    /// 0: AES-256-GCM, the reference's suite. Every peer has it.
    #[default]
    Aes256Gcm,
    /// 1: ChaCha20-Poly1305, for CPUs without AES instructions. Only after negotiation.
    ChaCha20Poly1305,
}

impl Suite {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> u64 {
        match self {
            Self::Aes256Gcm => 0,
            Self::ChaCha20Poly1305 => 1,
        }
    }

    /// The suite with this number, if we have it.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.number() == number)
    }
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        })
    }
}

/// A library that implements suites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provider {
    /// aws-lc-rs: both suites, with the instructions of the CPU at hand.
    AwsLc,
    /// The `chacha20poly1305` crate: ChaCha20-Poly1305 in pure Rust.
    RustCrypto,
}

/// A key that is ready for use.
pub struct AeadKey(Inner);

enum Inner {
    AwsLcAes(AwsLcAes256Gcm),
    AwsLcChaCha(AwsLcChaCha20Poly1305),
    // Boxed: its state is in line, the others' is behind a pointer, and every channel holds several keys.
    RustCryptoChaCha(Box<RustCryptoChaCha20Poly1305>),
}

impl AeadKey {
    /// A key for `suite` in the provider that was measured to be the fastest.
    #[must_use]
    pub fn new(suite: Suite, key: &[u8; KEY_LEN]) -> Self {
        Self(match suite {
            Suite::Aes256Gcm => Inner::AwsLcAes(Aead::new(key)),
            Suite::ChaCha20Poly1305 => Inner::AwsLcChaCha(Aead::new(key)),
        })
    }

    /// A key for `suite` in `provider`, or nothing if that provider does not have the suite.
    #[must_use]
    pub fn with_provider(provider: Provider, suite: Suite, key: &[u8; KEY_LEN]) -> Option<Self> {
        match (provider, suite) {
            (Provider::AwsLc, suite) => Some(Self::new(suite, key)),
            (Provider::RustCrypto, Suite::ChaCha20Poly1305) => {
                Some(Self(Inner::RustCryptoChaCha(Box::new(Aead::new(key)))))
            }
            (Provider::RustCrypto, Suite::Aes256Gcm) => None,
        }
    }

    /// See [`Aead::seal`].
    ///
    /// # Errors
    /// [`AeadError::TooLong`]
    pub fn seal(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> Result<Tag, AeadError> {
        match &self.0 {
            Inner::AwsLcAes(key) => key.seal(nonce, aad, data),
            Inner::AwsLcChaCha(key) => key.seal(nonce, aad, data),
            Inner::RustCryptoChaCha(key) => key.seal(nonce, aad, data),
        }
    }

    /// See [`Aead::open`].
    ///
    /// # Errors
    /// [`AeadError::NotAuthentic`]
    pub fn open(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8], tag: &Tag) -> Result<(), AeadError> {
        match &self.0 {
            Inner::AwsLcAes(key) => key.open(nonce, aad, data, tag),
            Inner::AwsLcChaCha(key) => key.open(nonce, aad, data, tag),
            Inner::RustCryptoChaCha(key) => key.open(nonce, aad, data, tag),
        }
    }
}

impl std::fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AeadKey(..)")
    }
}

#[cfg(test)]
mod tests;

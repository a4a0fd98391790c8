//! ChaCha20-Poly1305 of the `chacha20poly1305` crate: pure Rust, no C compiler, no CPU features needed.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

use super::{Aead, AeadError, KEY_LEN, Nonce, Tag};

/// ChaCha20-Poly1305.
pub struct RustCryptoChaCha20Poly1305(ChaCha20Poly1305);

impl Aead for RustCryptoChaCha20Poly1305 {
    fn new(key: &[u8; KEY_LEN]) -> Self {
        Self(ChaCha20Poly1305::new(key.into()))
    }

    fn seal(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> Result<Tag, AeadError> {
        self.0
            .encrypt_inout_detached(nonce.into(), aad, data.into())
            .map(Into::into)
            .map_err(|_| AeadError::TooLong)
    }

    fn open(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8], tag: &Tag) -> Result<(), AeadError> {
        self.0
            .decrypt_inout_detached(nonce.into(), aad, data.into(), tag.into())
            .map_err(|_| AeadError::NotAuthentic)
    }
}

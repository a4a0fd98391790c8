//! AEADs of aws-lc-rs: assembly that uses what the CPU has.

use aws_lc_rs::aead::{self, Aad, Algorithm, LessSafeKey, UnboundKey};

use super::{Aead, AeadError, KEY_LEN, Nonce, TAG_LEN, Tag};

/// AES-256-GCM.
pub struct AwsLcAes256Gcm(LessSafeKey);

/// ChaCha20-Poly1305.
pub struct AwsLcChaCha20Poly1305(LessSafeKey);

// "Less safe" because the caller chooses the nonce. The record layer does: its nonces are on the wire.
fn key(algorithm: &'static Algorithm, key: &[u8; KEY_LEN]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(algorithm, key).expect("the key has the length of the algorithm"))
}

fn seal(key: &LessSafeKey, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> Result<Tag, AeadError> {
    let nonce = aead::Nonce::assume_unique_for_key(*nonce);
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::from(aad), data)
        .map_err(|_| AeadError::TooLong)?;
    let mut out = [0; TAG_LEN];
    out.copy_from_slice(tag.as_ref());
    Ok(out)
}

fn open(key: &LessSafeKey, nonce: &Nonce, aad: &[u8], data: &mut [u8], tag: &Tag) -> Result<(), AeadError> {
    let nonce = aead::Nonce::assume_unique_for_key(*nonce);
    key.open_in_place_separate_tag(nonce, Aad::from(aad), tag, data)
        .map(|_| ())
        .map_err(|_| AeadError::NotAuthentic)
}

impl Aead for AwsLcAes256Gcm {
    fn new(bytes: &[u8; KEY_LEN]) -> Self {
        Self(key(&aead::AES_256_GCM, bytes))
    }

    fn seal(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> Result<Tag, AeadError> {
        seal(&self.0, nonce, aad, data)
    }

    fn open(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8], tag: &Tag) -> Result<(), AeadError> {
        open(&self.0, nonce, aad, data, tag)
    }
}

impl Aead for AwsLcChaCha20Poly1305 {
    fn new(bytes: &[u8; KEY_LEN]) -> Self {
        Self(key(&aead::CHACHA20_POLY1305, bytes))
    }

    fn seal(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> Result<Tag, AeadError> {
        seal(&self.0, nonce, aad, data)
    }

    fn open(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8], tag: &Tag) -> Result<(), AeadError> {
        open(&self.0, nonce, aad, data, tag)
    }
}

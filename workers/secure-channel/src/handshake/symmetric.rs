//! `CipherState` and `SymmetricState` of the Noise specification (its §5.1 and §5.2).

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::HandshakeError;
use crate::aead::{AeadKey, KEY_LEN, KeyBytes, Suite, TAG_LEN, nonce};

/// A key and a counter.
///
/// The key is prepared anew for each use: a handshake uses each of its keys at most twice, and the prepared form would
/// be most of what an unfinished handshake costs in memory.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct CipherState {
    k: [u8; KEY_LEN],
    n: u64,
}

impl CipherState {
    /// `InitializeKey(k)`
    #[must_use]
    pub fn initialize_key(k: &[u8; KEY_LEN]) -> Self {
        Self { k: *k, n: 0 }
    }

    /// `EncryptWithAd(ad, plaintext)`: appends ciphertext and tag to `out`.
    ///
    /// # Errors
    /// None that a handshake message can have; its length is bounded.
    pub fn encrypt_with_ad(
        &mut self,
        ad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), HandshakeError> {
        let start = out.len();
        out.extend_from_slice(plaintext);
        let tag = AeadKey::new(Suite::Aes256Gcm, &self.k)
            .seal(&nonce(self.n), ad, &mut out[start..])
            .map_err(|_| HandshakeError::TooLong {
                message: 0,
                len: plaintext.len(),
            })?;
        out.extend_from_slice(&tag);
        self.n += 1;
        Ok(())
    }

    /// `DecryptWithAd(ad, ciphertext)`, in place: the plaintext is the result.
    ///
    /// # Errors
    /// [`HandshakeError::NotAuthentic`], also when there is no room for a tag.
    pub fn decrypt_with_ad<'a>(
        &mut self,
        message: u8,
        ad: &[u8],
        ciphertext: &'a mut [u8],
    ) -> Result<&'a mut [u8], HandshakeError> {
        let (data, tag) = ciphertext
            .split_last_chunk_mut::<TAG_LEN>()
            .ok_or(HandshakeError::NotAuthentic { message })?;
        AeadKey::new(Suite::Aes256Gcm, &self.k)
            .open(&nonce(self.n), ad, data, tag)
            .map_err(|_| HandshakeError::NotAuthentic { message })?;
        self.n += 1;
        Ok(data)
    }
}

/// The chaining key, the hash of all that was said, and the cipher in force.
#[derive(Clone)]
pub struct SymmetricState {
    ck: Zeroizing<[u8; 32]>,
    h: [u8; 32],
    cipher: Option<CipherState>,
}

impl SymmetricState {
    /// `InitializeSymmetric(protocol_name)` and `MixHash("")` for the empty prologue.
    #[must_use]
    pub fn initialize_symmetric(protocol_name: &[u8; 32]) -> Self {
        let mut state = Self {
            ck: Zeroizing::new(*protocol_name),
            h: *protocol_name,
            cipher: None,
        };
        state.mix_hash(&[]);
        state
    }

    /// `MixHash(data)`
    pub fn mix_hash(&mut self, data: &[u8]) {
        self.h = Sha256::new()
            .chain_update(self.h)
            .chain_update(data)
            .finalize()
            .into();
    }

    /// `MixKey(input_key_material)`
    pub fn mix_key(&mut self, input_key_material: &[u8]) {
        let (ck, k) = hkdf2(&self.ck, input_key_material);
        self.ck = ck;
        self.cipher = Some(CipherState::initialize_key(&k));
    }

    /// `EncryptAndHash(plaintext)`: appends to `out`. Before the first key, the plaintext itself.
    ///
    /// # Errors
    /// As [`CipherState::encrypt_with_ad`].
    pub fn encrypt_and_hash(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), HandshakeError> {
        let start = out.len();
        match &mut self.cipher {
            Some(cipher) => cipher.encrypt_with_ad(&self.h, plaintext, out)?,
            None => out.extend_from_slice(plaintext),
        }
        self.mix_hash(&out[start..]);
        Ok(())
    }

    /// `DecryptAndHash(ciphertext)`, in place. Before the first key, the ciphertext is the plaintext.
    ///
    /// # Errors
    /// [`HandshakeError::NotAuthentic`]; this state is then of no further use, work on a clone.
    pub fn decrypt_and_hash<'a>(
        &mut self,
        message: u8,
        ciphertext: &'a mut [u8],
    ) -> Result<&'a mut [u8], HandshakeError> {
        let h = self.h;
        self.mix_hash(ciphertext);
        match &mut self.cipher {
            Some(cipher) => cipher.decrypt_with_ad(message, &h, ciphertext),
            None => Ok(ciphertext),
        }
    }

    /// `Split()`: the two transport keys, in the order of the Noise specification.
    #[must_use]
    pub fn split(&self) -> (KeyBytes, KeyBytes) {
        hkdf2(&self.ck, &[])
    }

    /// `GetHandshakeHash()`
    #[must_use]
    pub fn handshake_hash(&self) -> [u8; 32] {
        self.h
    }
}

impl std::fmt::Debug for SymmetricState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SymmetricState(..)")
    }
}

/// `HKDF(chaining_key, input_key_material, 2)`: RFC 5869 with an empty `info` (spec 02 §1.5).
fn hkdf2(chaining_key: &[u8; 32], input_key_material: &[u8]) -> (KeyBytes, KeyBytes) {
    let mut okm = Zeroizing::new([0; 64]);
    Hkdf::<Sha256>::new(Some(chaining_key), input_key_material)
        .expand(&[], okm.as_mut_slice())
        .expect("64 bytes are fewer than the 8160 that HKDF-SHA256 can yield");
    let (mut first, mut second) = (KeyBytes::default(), KeyBytes::default());
    first.copy_from_slice(&okm[..32]);
    second.copy_from_slice(&okm[32..]);
    (first, second)
}

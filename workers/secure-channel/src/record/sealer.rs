//! The sending direction.

use super::{Generation, NONCE_LEN, OVERHEAD, REKEY_INTERVAL, RecordError};
use crate::aead::{KeyBytes, Suite, TAG_LEN, nonce};

/// Seals messages and numbers them.
pub struct Sealer {
    suite: Suite,
    current: Generation,
    pub(super) next_nonce: u64,
}

impl Sealer {
    /// `key` is [`crate::handshake::SessionKeys::send`].
    #[must_use]
    pub fn new(suite: Suite, key: KeyBytes) -> Self {
        Self {
            suite,
            current: Generation::new(suite, key),
            next_nonce: 0,
        }
    }

    /// The number of the message that is sealed next; so many were sealed before.
    #[must_use]
    pub fn next_nonce(&self) -> u64 {
        self.next_nonce
    }

    /// Makes a record of `buffer` where it stands: the plaintext is between [`NONCE_LEN`] bytes at the front and
    /// [`TAG_LEN`] bytes at the back, which are overwritten. Returns the record's nonce.
    ///
    /// # Errors
    /// [`RecordError::NoRoom`] (the buffer's contents are then undefined) or [`RecordError::Exhausted`].
    pub fn seal(&mut self, buffer: &mut [u8]) -> Result<u64, RecordError> {
        if buffer.len() < OVERHEAD {
            return Err(RecordError::NoRoom);
        }
        let (front, rest) = buffer
            .split_first_chunk_mut::<NONCE_LEN>()
            .ok_or(RecordError::NoRoom)?;
        let (plaintext, back) = rest
            .split_last_chunk_mut::<TAG_LEN>()
            .ok_or(RecordError::NoRoom)?;
        let n = self.advance()?;
        *front = n.to_be_bytes();
        *back = self
            .current
            .cipher
            .seal(&nonce(n), &[], plaintext)
            .map_err(|_| RecordError::NoRoom)?;
        Ok(n)
    }

    /// Takes a nonce, and with it the key for it. A nonce that was taken is used up, whatever happens next.
    fn advance(&mut self) -> Result<u64, RecordError> {
        let n = self.next_nonce;
        // 2^64 - 1 is the nonce of the rekey operation.
        self.next_nonce = n.checked_add(1).ok_or(RecordError::Exhausted)?;
        if n > 0 && n.is_multiple_of(REKEY_INTERVAL) {
            self.current = self.current.next(self.suite);
        }
        Ok(n)
    }

    #[cfg(test)]
    pub(super) fn skip_to(&mut self, n: u64) {
        while self.next_nonce < n {
            self.advance().unwrap();
        }
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("suite", &self.suite)
            .field("next_nonce", &self.next_nonce)
            .finish()
    }
}

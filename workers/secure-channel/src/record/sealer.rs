//! The sending direction.

use super::{
    Generation, HEADER_FRONT, HEADER_ONLY, MAX_RECORDS, NONCE_LEN, OVERHEAD, REKEY_INTERVAL, RecordError,
    SEALED_LEN,
};
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

    /// Makes a record of `buffer` where it stands, of which only the header is sealed: `sealed` bytes after the first
    /// [`HEADER_FRONT`], which are overwritten. What follows stays as it is; its length is authenticated, its bytes are not.
    ///
    /// For payloads that are themselves records of another channel, and for nothing else. Returns the record's nonce.
    ///
    /// # Errors
    /// [`RecordError::NoRoom`] (the buffer's contents are then undefined), also if `sealed` is 0 or above 65 535;
    /// [`RecordError::Exhausted`].
    pub fn seal_header(&mut self, buffer: &mut [u8], sealed: usize) -> Result<u64, RecordError> {
        let length = u16::try_from(sealed).map_err(|_| RecordError::NoRoom)?;
        let (front, body) = buffer
            .split_first_chunk_mut::<HEADER_FRONT>()
            .ok_or(RecordError::NoRoom)?;
        if sealed == 0 || body.len() < sealed {
            return Err(RecordError::NoRoom);
        }
        let (header, rest) = body.split_at_mut(sealed);
        let n = self.advance()? | HEADER_ONLY;
        let tag = self
            .current
            .cipher
            .seal(&nonce(n), &rest_len(rest), header)
            .map_err(|_| RecordError::NoRoom)?;
        front[..NONCE_LEN].copy_from_slice(&n.to_be_bytes());
        front[NONCE_LEN..][..SEALED_LEN].copy_from_slice(&length.to_be_bytes());
        front[NONCE_LEN + SEALED_LEN..].copy_from_slice(&tag);
        Ok(n & !HEADER_ONLY)
    }

    /// Takes a nonce, and with it the key for it. A nonce that was taken is used up, whatever happens next.
    fn advance(&mut self) -> Result<u64, RecordError> {
        let n = self.next_nonce;
        if n >= MAX_RECORDS {
            return Err(RecordError::Exhausted);
        }
        self.next_nonce = n + 1;
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

/// The associated data of a sealed header: nothing may be cut off what follows it, or be added.
pub(super) fn rest_len(rest: &[u8]) -> [u8; 8] {
    (rest.len() as u64).to_be_bytes()
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("suite", &self.suite)
            .field("next_nonce", &self.next_nonce)
            .finish()
    }
}

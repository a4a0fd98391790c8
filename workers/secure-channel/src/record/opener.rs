//! The receiving direction.

use super::sealer::rest_len;
use super::window::Window;
use super::{
    Generation, HEADER_FRONT, HEADER_ONLY, MAX_AHEAD, NONCE_LEN, OVERHEAD, REKEY_INTERVAL, RecordError,
    SEALED_LEN,
};
use crate::aead::{AeadKey, KeyBytes, Nonce, Suite, TAG_LEN, Tag, nonce};

/// How a record stands to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It is the one that was expected.
    InOrder,
    /// So many before it have not arrived (yet).
    Ahead(u64),
    /// A later one has already arrived.
    Late,
}

/// An opened record.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The number that the sender gave it.
    pub nonce: u64,
    /// Whether it came in its place.
    pub order: Order,
    /// The plaintext, a part of the buffer. If only the header was sealed, that.
    pub plaintext: &'a mut [u8],
    /// What follows a header that alone was sealed: its length is what the sender said, its bytes may have been altered on
    /// the way. `None` if all of the record was sealed.
    pub rest: Option<&'a mut [u8]>,
}

impl Opened<'_> {
    /// Whether records are missing before this one, or this one was itself missing before: whoever carries a stream of
    /// bytes over the channel must then close it.
    #[must_use]
    pub fn gap(&self) -> bool {
        self.order != Order::InOrder
    }
}

/// Opens records, each at most once.
pub struct Opener {
    suite: Suite,
    sealed_headers: bool,
    window: Window,
    /// Which interval `current` belongs to: the number of rekeys so far.
    pub(super) interval: u64,
    current: Generation,
    /// The key of the interval before. Only the bytes: it is used for the few records that come late, and the prepared
    /// form would be a third of an idle channel's memory.
    pub(super) previous: Option<KeyBytes>,
}

/// Keys that a record in a later interval made us derive, kept only if it authenticates.
struct Trial {
    interval: u64,
    current: Generation,
    previous: KeyBytes,
}

impl Opener {
    /// `key` is [`crate::handshake::SessionKeys::receive`]. Follows gaps of up to [`MAX_AHEAD`] records.
    #[must_use]
    pub fn new(suite: Suite, key: KeyBytes) -> Self {
        Self::with_max_ahead(suite, key, MAX_AHEAD)
    }

    /// As [`Self::new`], but follows gaps of up to `max_ahead` records.
    #[must_use]
    pub fn with_max_ahead(suite: Suite, key: KeyBytes, max_ahead: u64) -> Self {
        Self {
            suite,
            sealed_headers: false,
            window: Window::new(max_ahead),
            interval: 0,
            current: Generation::new(suite, key),
            previous: None,
        }
    }

    /// Also opens records of which only the header is sealed, as both ends have agreed. Otherwise they are refused.
    #[must_use]
    pub fn accept_sealed_headers(mut self, accept: bool) -> Self {
        self.sealed_headers = accept;
        self
    }

    /// Opens `record` where it stands.
    ///
    /// # Errors
    /// [`RecordError`]; nothing is then changed but the record's bytes, which are undefined. The caller drops the record
    /// and says nothing to the peer (spec 02 §10, trap 25).
    pub fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<Opened<'a>, RecordError> {
        let truncated = RecordError::Truncated(record.len());
        if record.len() < OVERHEAD {
            return Err(truncated);
        }
        let number = *record.first_chunk::<NONCE_LEN>().ok_or(truncated)?;
        let on_wire = u64::from_be_bytes(number);
        let header_only = self.sealed_headers && on_wire & HEADER_ONLY != 0;
        let n = if header_only {
            on_wire & !HEADER_ONLY
        } else {
            on_wire
        };
        self.window.check(n)?;
        let (plaintext, rest) = if header_only {
            let (front, body) = record.split_first_chunk_mut::<HEADER_FRONT>().ok_or(truncated)?;
            let (length, tag) = front[NONCE_LEN..].split_at(SEALED_LEN);
            let length = u16::from_be_bytes(length.try_into().map_err(|_| truncated)?).into();
            let tag = tag.try_into().map_err(|_| truncated)?;
            let (header, rest) = body.split_at_mut_checked(length).ok_or(truncated)?;
            self.decrypt(n, &nonce(on_wire), &rest_len(rest), header, tag)?;
            (header, Some(rest))
        } else {
            let body = &mut record[NONCE_LEN..];
            let (data, tag) = body.split_last_chunk_mut::<TAG_LEN>().ok_or(truncated)?;
            self.decrypt(n, &nonce(on_wire), &[], data, tag)?;
            (data, None)
        };
        let expected = self.window.expected();
        let order = match n.cmp(&expected) {
            std::cmp::Ordering::Equal => Order::InOrder,
            std::cmp::Ordering::Greater => Order::Ahead(n - expected),
            std::cmp::Ordering::Less => Order::Late,
        };
        self.window.accept(n);
        Ok(Opened {
            nonce: n,
            order,
            plaintext,
            rest,
        })
    }

    /// Decrypts with the key of the interval of `n`; moves on to that interval if the record was genuine.
    fn decrypt(
        &mut self,
        n: u64,
        nonce: &Nonce,
        aad: &[u8],
        data: &mut [u8],
        tag: &Tag,
    ) -> Result<(), RecordError> {
        let not_authentic = |_| RecordError::NotAuthentic(n);
        let interval = n / REKEY_INTERVAL;
        if interval == self.interval {
            self.current
                .cipher
                .open(nonce, aad, data, tag)
                .map_err(not_authentic)
        } else if interval > self.interval {
            let trial = self.try_rekey(interval);
            trial
                .current
                .cipher
                .open(nonce, aad, data, tag)
                .map_err(not_authentic)?;
            self.interval = trial.interval;
            self.current = trial.current;
            self.previous = Some(trial.previous);
            Ok(())
        } else {
            // The window reaches back into the interval before, and no further.
            let previous = self.previous.as_ref().filter(|_| interval + 1 == self.interval);
            let key = previous.ok_or(RecordError::TooOld(n))?;
            AeadKey::new(self.suite, key)
                .open(nonce, aad, data, tag)
                .map_err(not_authentic)
        }
    }

    /// The keys of a later interval. The window bounds how much later it is.
    fn try_rekey(&self, interval: u64) -> Trial {
        let mut previous = self.current.key.clone();
        let mut current = self.current.next(self.suite);
        for _ in self.interval + 1..interval {
            previous = current.key.clone();
            current = current.next(self.suite);
        }
        Trial {
            interval,
            current,
            previous,
        }
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener")
            .field("suite", &self.suite)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

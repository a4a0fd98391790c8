//! The record layer: sealing and opening messages once the handshake is done (spec 02 §6.1, §6.7).
//!
//! ```text
//! | nonce: 8 bytes, big-endian | ciphertext | tag: 16 bytes |
//! ```
//!
//! A [`Sealer`] numbers what it seals; an [`Opener`] accepts each number once, in any order within a window. Both work
//! in place in the caller's buffer and allocate only when they rekey, every [`REKEY_INTERVAL`] messages. There is no
//! associated data: the routes outside a record are changed by every hop.
//!
//! # Order of use
//!
//! A `Sealer` and an `Opener` are made from the two keys of a handshake, one per direction. [`Sealer::seal`] and
//! [`Opener::open`] are all there is; neither has a clock or an event of its own.
//!
//! # What an attacker in between can do
//!
//! Drop, delay, repeat, reorder and alter. Altered and repeated records are refused. Dropped and reordered ones are
//! *reported* ([`Opened::order`]): a channel over a transport that keeps order must not let a hole pass into a stream
//! of bytes, and whoever carries streams closes them when a record is missing or late. A refused record changes nothing:
//! a key that was derived only to look at it is thrown away, and the window moves after authentication only.
//!
//! # Larger gaps
//!
//! The reference gives up a direction for good after 32 lost records in a row. This receiver follows a gap of up to
//! [`MAX_AHEAD`] records: it derives the keys in between, on trial, and keeps the last two if the record turns out to be
//! genuine. The sender cannot tell the difference.

mod opener;
mod sealer;
mod window;

use crate::aead::{AeadKey, KEY_LEN, KeyBytes, Suite, TAG_LEN, nonce};

pub use opener::{Opened, Opener, Order};
pub use sealer::Sealer;

/// Bytes of the nonce in front of a record.
pub const NONCE_LEN: usize = 8;
/// Bytes that a record is longer than its plaintext.
pub const OVERHEAD: usize = NONCE_LEN + TAG_LEN;
/// A key seals this many messages; then it is replaced by one derived from it. Fixed by the protocol.
pub const REKEY_INTERVAL: u64 = 32;
/// A record is accepted this far behind the newest. Fixed by the protocol, and what the bitmap holds.
pub const MAX_BEHIND: u64 = 32;
/// A record is accepted this far ahead of the newest. 128 rekeys, some 50 µs of work, are the most that a forged
/// record can cost; a gigabit of datagrams may lose its path for several milliseconds and go on.
pub const MAX_AHEAD: u64 = 4096;
/// How far ahead the reference follows: one interval.
pub const REFERENCE_MAX_AHEAD: u64 = 32;

/// Why a message was not sealed, or a record not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The peer's record is too short to be one.
    #[error("a record of {0} bytes is shorter than {OVERHEAD}")]
    Truncated(usize),
    /// A record with this nonce was accepted before: it was repeated on the way.
    #[error("record {0} was received before")]
    Replayed(u64),
    /// The record is so late that it cannot be told from a repeated one.
    #[error("record {0} is too far behind")]
    TooOld(u64),
    /// So many records are missing that the keys in between are not worth deriving.
    #[error("record {0} is too far ahead")]
    TooFarAhead(u64),
    /// The record was altered, or sealed with another key.
    #[error("record {0} does not authenticate")]
    NotAuthentic(u64),
    /// The buffer that we were given has no room for nonce and tag, or the message is too long for the AEAD.
    #[error("there is no room to seal the message")]
    NoRoom,
    /// All nonces are used: the channel must be replaced. (At a million messages a second: after 585 000 years.)
    #[error("all nonces of the channel are used")]
    Exhausted,
}

/// The key of one interval, ready for use.
struct Generation {
    key: KeyBytes,
    cipher: AeadKey,
}

impl Generation {
    fn new(suite: Suite, key: KeyBytes) -> Self {
        let cipher = AeadKey::new(suite, &key);
        Self { key, cipher }
    }

    /// Rekey: what 32 zero bytes encrypt to under the last nonce (spec 02 §6.7). The tag is of no use.
    fn next(&self, suite: Suite) -> Self {
        let mut key = KeyBytes::new([0; KEY_LEN]);
        self.cipher
            .seal(&nonce(u64::MAX), &[], key.as_mut_slice())
            .expect("32 bytes are not too long for any AEAD");
        Self::new(suite, key)
    }
}

#[cfg(test)]
mod tests;

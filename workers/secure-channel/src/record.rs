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
//! # Sealed headers
//!
//! Where a channel runs inside another, as it does through a relay, what the outer one carries is a record already: protected
//! from end to end by keys that nobody on the way has. If both ends of the outer channel want it (extension X5), such a
//! message is made into a record of another form, of which only the beginning is sealed:
//!
//! ```text
//! | nonce with its highest bit set: 8 | length s of the sealed part: 2 | tag: 16 | sealed part: s | the rest, as it is |
//! ```
//!
//! The sealed part has the routes, the length of the payload and its first [`PREFIX_LEN`] bytes; the length of the rest is its
//! associated data. [`Sealer::seal_header`] makes such records, [`Opener::accept_sealed_headers`] lets them in. Both forms share
//! the counter, the keys and the window. The highest bit is a part of the AEAD's nonce, so that no record can be taken for one of
//! the other form.
//!
//! What is not sealed here can be altered on the way, and is said to be so ([`Opened::rest`]): nobody but the other end of
//! the inner channel may take it for anything, and that end refuses an altered record.
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
/// Set in the nonce of a record of which only the header is sealed.
const HEADER_ONLY: u64 = 1 << 63;
/// Numbers that a channel has in each direction. The highest bit is taken, and with all bits set it is the nonce of the rekey
/// operation.
const MAX_RECORDS: u64 = HEADER_ONLY - 1;
/// Bytes of the length of the sealed part.
const SEALED_LEN: usize = 2;
/// Bytes in front of the sealed part of a record with a sealed header.
pub const HEADER_FRONT: usize = NONCE_LEN + SEALED_LEN + TAG_LEN;
/// Bytes of the payload that are sealed with the header. A record begins with its number, and one with a sealed header also
/// with its form, its length and its tag, 26 bytes in all: none of it shall show on the wire, lest an observer count the
/// records of each channel inside. 32 are two blocks of AES.
pub const PREFIX_LEN: usize = 32;
/// Payloads from this size on are carried under a sealed header. Measured (`records` in `benches/`, `carried`), that is the cheaper
/// form from some 400 bytes on with AES-256-GCM and from 250 with ChaCha20-Poly1305; at this size it saves 0.15 µs and 0.7 µs
/// for sealing and opening together. Below, too little is saved for what shows on the wire.
pub const HEADER_ONLY_FROM: usize = 1024;

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
    /// All nonces are used: the channel must be replaced. (At a million messages a second: after 292 000 years.)
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

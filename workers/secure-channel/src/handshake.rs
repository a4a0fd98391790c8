//! The handshake: Noise XX, as the reference speaks it (spec 02 §5.2–§5.4).
//!
//! ```text
//! -> e                 payload 1, in the clear
//! <- e, ee, s, es      payload 2, encrypted
//! -> s, se             payload 3, encrypted and authenticated
//! ```
//!
//! Whoever knows the Noise specification knows this module: [`SymmetricState`] and [`CipherState`] are its objects,
//! with its names. Three things differ from a textbook `Noise_XX_25519_AESGCM_SHA256`: the protocol's name, nonces that
//! count big-endian, and the two transport keys, which are swapped.
//!
//! Each state is a type, and each step consumes it, so that a step out of order does not compile:
//!
//! | initiator | responder |
//! |---|---|
//! | [`Initiator::write_message_1`] → | [`Responder::read_message_1`] → |
//! | [`InitiatorAwaitingMessage2::read_message_2`] → | [`ResponderWritingMessage2::write_message_2`] → |
//! | [`InitiatorWritingMessage3::write_message_3`] → [`SessionKeys`] | [`ResponderAwaitingMessage3::read_message_3`] → [`SessionKeys`] |
//!
//! Reading is the one step that an attacker can make fail. It hands the state back with the error
//! ([`Rejected`]), unchanged: a forged message costs its own processing and nothing else, and the genuine message is
//! still accepted afterwards. (The reference throws its chaining key away before it has authenticated anything, so
//! that one forged message 2 ends a handshake.) A message 2 that is well formed, but whose *payload* turns out to be
//! worthless, is undone with [`InitiatorWritingMessage3::reject`].
//!
//! Nothing here has a socket, a clock or randomness: the ephemeral key is a parameter. Payloads are opaque bytes. The
//! handshake authenticates the peer's *static key*; that this key belongs to an identity is for the payload to prove
//! (spec 02 §5.5), and for the caller to check, before it sends anything else.

mod dh;
mod initiator;
mod responder;
mod symmetric;

use crate::aead::{KeyBytes, TAG_LEN};

pub use dh::{DhError, PublicKeyBytes, StaticKey, X25519Secret};
pub use initiator::{Initiator, InitiatorAwaitingMessage2, InitiatorWritingMessage3};
pub use responder::{Responder, ResponderAwaitingMessage3, ResponderWritingMessage2};
pub use symmetric::{CipherState, SymmetricState};

/// The protocol's name: exactly 32 bytes, so that it is `ck` as it stands (spec 02 §5.1).
pub const PROTOCOL_NAME: &[u8; 32] = b"OCKAM_XX_25519_AES256_GCM_SHA256";
/// The longest handshake message, in bytes; the limit of the Noise specification.
pub const MAX_MESSAGE_LEN: usize = 65_535;
/// Bytes of an X25519 public key.
pub const DH_LEN: usize = 32;
/// Bytes of an encrypted public key.
const SEALED_KEY_LEN: usize = DH_LEN + TAG_LEN;
/// The shortest message 1: a key.
pub const MIN_MESSAGE_1_LEN: usize = DH_LEN;
/// The shortest message 2: a key, an encrypted key, an encrypted empty payload.
pub const MIN_MESSAGE_2_LEN: usize = DH_LEN + SEALED_KEY_LEN + TAG_LEN;
/// The shortest message 3: an encrypted key, an encrypted empty payload.
pub const MIN_MESSAGE_3_LEN: usize = SEALED_KEY_LEN + TAG_LEN;

/// Why a step of the handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer (or someone in between) sent fewer bytes than the message must have.
    #[error("message {message} of the handshake has {len} bytes, fewer than {min}")]
    Truncated {
        /// Which of the three messages.
        message: u8,
        /// Its length.
        len: usize,
        /// The least that it must have.
        min: usize,
    },
    /// The peer sent more than [`MAX_MESSAGE_LEN`] bytes, or our own payload would make us do so.
    #[error("message {message} of the handshake has {len} bytes, more than {MAX_MESSAGE_LEN}")]
    TooLong {
        /// Which of the three messages.
        message: u8,
        /// Its length.
        len: usize,
    },
    /// The message was forged, altered, or belongs to another handshake.
    #[error("message {message} of the handshake does not authenticate")]
    NotAuthentic {
        /// Which of the three messages.
        message: u8,
    },
    /// The peer's key takes no part in the shared secret (a point of small order); no honest peer has one.
    #[error("the peer sent a key of small order")]
    WeakKey,
    /// Our own static key could not be used.
    #[error("our static key could not be used: {0}")]
    StaticKey(&'static str),
}

impl From<DhError> for HandshakeError {
    fn from(error: DhError) -> Self {
        match error {
            DhError::WeakKey => Self::WeakKey,
            DhError::Unavailable(why) => Self::StaticKey(why),
        }
    }
}

/// A message that was not accepted, and the state as it was before it.
#[derive(Debug)]
pub struct Rejected<State> {
    /// Goes on as if the message had not come.
    pub state: State,
    /// Why it was not accepted.
    pub error: HandshakeError,
}

/// What a completed handshake yields: the input of the record layer.
pub struct SessionKeys {
    /// Seals what we send.
    pub send: KeyBytes,
    /// Opens what we receive.
    pub receive: KeyBytes,
    /// The static key that the peer has proven to hold.
    pub remote_static: PublicKeyBytes,
    /// `h` at the end: the same at both ends, and unique to this handshake. For channel binding.
    pub handshake_hash: [u8; 32],
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKeys(..)")
    }
}

fn check_len(message: u8, len: usize, min: usize) -> Result<(), HandshakeError> {
    if len < min {
        Err(HandshakeError::Truncated { message, len, min })
    } else if len > MAX_MESSAGE_LEN {
        Err(HandshakeError::TooLong { message, len })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

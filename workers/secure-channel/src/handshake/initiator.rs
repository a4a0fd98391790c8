//! The side that sends messages 1 and 3.

use std::sync::Arc;

use super::dh::{PublicKeyBytes, StaticKey, X25519Secret};
use super::{
    DH_LEN, HandshakeError, MAX_MESSAGE_LEN, MIN_MESSAGE_1_LEN, MIN_MESSAGE_2_LEN, MIN_MESSAGE_3_LEN,
    PROTOCOL_NAME, Rejected, SEALED_KEY_LEN, SessionKeys, SymmetricState, check_len,
};
use crate::aead::KeyBytes;

/// An initiator that has said nothing yet.
pub struct Initiator {
    symmetric: SymmetricState,
    s: Arc<dyn StaticKey>,
    e: X25519Secret,
}

impl Initiator {
    /// `s` is the static key; `e` are 32 bytes from the system's random generator, used for this handshake only.
    #[must_use]
    pub fn new(s: Arc<dyn StaticKey>, e: &KeyBytes) -> Self {
        Self::with_protocol_name(PROTOCOL_NAME, s, e)
    }

    pub(super) fn with_protocol_name(name: &[u8; 32], s: Arc<dyn StaticKey>, e: &KeyBytes) -> Self {
        Self {
            symmetric: SymmetricState::initialize_symmetric(name),
            s,
            e: X25519Secret::from_bytes(e),
        }
    }

    /// `-> e`. The payload travels in the clear, but cannot be altered unnoticed; a stock peer ignores it.
    ///
    /// # Errors
    /// [`HandshakeError::TooLong`] if the payload is.
    pub fn write_message_1(
        mut self,
        payload: &[u8],
    ) -> Result<(InitiatorAwaitingMessage2, Vec<u8>), HandshakeError> {
        let len = MIN_MESSAGE_1_LEN.saturating_add(payload.len());
        check_len(1, len, 0)?;
        let mut message = Vec::with_capacity(len);
        message.extend_from_slice(&self.e.public_key());
        self.symmetric.mix_hash(&message);
        self.symmetric.encrypt_and_hash(payload, &mut message)?;
        Ok((
            InitiatorAwaitingMessage2 {
                symmetric: self.symmetric,
                s: self.s,
                e: self.e,
            },
            message,
        ))
    }
}

/// An initiator that has sent message 1.
pub struct InitiatorAwaitingMessage2 {
    symmetric: SymmetricState,
    s: Arc<dyn StaticKey>,
    e: X25519Secret,
}

impl InitiatorAwaitingMessage2 {
    /// `<- e, ee, s, es`. The message is decrypted in place; its payload is a part of it.
    ///
    /// # Errors
    /// [`Rejected`] with this state, unchanged. The message's bytes are then undefined.
    pub fn read_message_2(
        self,
        message: &mut [u8],
    ) -> Result<(InitiatorWritingMessage3, &mut [u8]), Rejected<Self>> {
        // Everything happens on a copy: an attacker must not get at the state before the message has authenticated.
        let mut symmetric = self.symmetric.clone();
        match self.try_read(&mut symmetric, message) {
            Ok((re, rs, payload)) => Ok((
                InitiatorWritingMessage3 {
                    symmetric,
                    before: self,
                    re,
                    rs,
                },
                payload,
            )),
            Err(error) => Err(Rejected { state: self, error }),
        }
    }

    fn try_read<'a>(
        &self,
        symmetric: &mut SymmetricState,
        message: &'a mut [u8],
    ) -> Result<(PublicKeyBytes, PublicKeyBytes, &'a mut [u8]), HandshakeError> {
        let len = message.len();
        check_len(2, len, MIN_MESSAGE_2_LEN)?;
        let truncated = HandshakeError::Truncated {
            message: 2,
            len,
            min: MIN_MESSAGE_2_LEN,
        };
        let (re, rest) = message.split_first_chunk_mut::<DH_LEN>().ok_or(truncated)?;
        let (rs, payload) = rest.split_first_chunk_mut::<SEALED_KEY_LEN>().ok_or(truncated)?;
        symmetric.mix_hash(re);
        symmetric.mix_key(self.e.diffie_hellman(re)?.as_slice());
        let rs: &mut [u8] = symmetric.decrypt_and_hash(2, rs)?;
        let rs = PublicKeyBytes::try_from(&*rs).map_err(|_| truncated)?;
        symmetric.mix_key(self.e.diffie_hellman(&rs)?.as_slice());
        let payload = symmetric.decrypt_and_hash(2, payload)?;
        Ok((*re, rs, payload))
    }
}

/// An initiator that has accepted message 2, and must now decide, by its payload, whether it goes on.
pub struct InitiatorWritingMessage3 {
    symmetric: SymmetricState,
    before: InitiatorAwaitingMessage2,
    re: PublicKeyBytes,
    rs: PublicKeyBytes,
}

impl InitiatorWritingMessage3 {
    /// The static key that the responder has proven to hold.
    #[must_use]
    pub fn remote_static(&self) -> &PublicKeyBytes {
        &self.rs
    }

    /// The payload of message 2 was worth nothing: waits on, as if that message had not come.
    #[must_use]
    pub fn reject(self) -> InitiatorAwaitingMessage2 {
        self.before
    }

    /// `-> s, se`, and the end of the handshake.
    ///
    /// # Errors
    /// [`HandshakeError::TooLong`] if the payload is; [`HandshakeError::StaticKey`] or [`HandshakeError::WeakKey`].
    pub fn write_message_3(self, payload: &[u8]) -> Result<(SessionKeys, Vec<u8>), HandshakeError> {
        let Self {
            mut symmetric,
            before,
            re,
            rs,
        } = self;
        let len = MIN_MESSAGE_3_LEN.saturating_add(payload.len());
        if len > MAX_MESSAGE_LEN {
            return Err(HandshakeError::TooLong { message: 3, len });
        }
        let mut message = Vec::with_capacity(len);
        symmetric.encrypt_and_hash(&before.s.public_key(), &mut message)?;
        symmetric.mix_key(before.s.diffie_hellman(&re)?.as_slice());
        symmetric.encrypt_and_hash(payload, &mut message)?;
        // Swapped: the Noise specification has the initiator send with the first key (spec 02 §5.4).
        let (k1, k2) = symmetric.split();
        let keys = SessionKeys {
            send: k2,
            receive: k1,
            remote_static: rs,
            handshake_hash: symmetric.handshake_hash(),
        };
        Ok((keys, message))
    }
}

impl std::fmt::Debug for InitiatorAwaitingMessage2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InitiatorAwaitingMessage2(..)")
    }
}

impl std::fmt::Debug for InitiatorWritingMessage3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InitiatorWritingMessage3(..)")
    }
}

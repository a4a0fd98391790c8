//! The side that sends message 2.

use std::sync::Arc;

use super::dh::{PublicKeyBytes, StaticKey, X25519Secret};
use super::{
    DH_LEN, HandshakeError, MIN_MESSAGE_1_LEN, MIN_MESSAGE_2_LEN, MIN_MESSAGE_3_LEN, PROTOCOL_NAME, Rejected,
    SEALED_KEY_LEN, SessionKeys, SymmetricState, check_len,
};
use crate::aead::KeyBytes;

/// A responder that has heard nothing yet.
pub struct Responder {
    symmetric: SymmetricState,
    s: Arc<dyn StaticKey>,
    e: X25519Secret,
}

impl Responder {
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

    /// `-> e`. The payload (a part of `message`) is in the clear and so far from anybody.
    ///
    /// # Errors
    /// [`HandshakeError::Truncated`] or [`HandshakeError::TooLong`]. There is nothing to go on with: a responder
    /// begins with a message 1.
    pub fn read_message_1(self, message: &[u8]) -> Result<(ResponderWritingMessage2, &[u8]), HandshakeError> {
        let Self { mut symmetric, s, e } = self;
        let len = message.len();
        check_len(1, len, MIN_MESSAGE_1_LEN)?;
        let (re, payload) = message
            .split_first_chunk::<DH_LEN>()
            .ok_or(HandshakeError::Truncated {
                message: 1,
                len,
                min: MIN_MESSAGE_1_LEN,
            })?;
        symmetric.mix_hash(re);
        // There is no key yet, so that `DecryptAndHash` is `MixHash`.
        symmetric.mix_hash(payload);
        Ok((
            ResponderWritingMessage2 {
                symmetric,
                s,
                e,
                re: *re,
            },
            payload,
        ))
    }
}

/// A responder that has read message 1.
pub struct ResponderWritingMessage2 {
    symmetric: SymmetricState,
    s: Arc<dyn StaticKey>,
    e: X25519Secret,
    re: PublicKeyBytes,
}

impl ResponderWritingMessage2 {
    /// `<- e, ee, s, es`. The payload can be read by whoever sent message 1.
    ///
    /// # Errors
    /// [`HandshakeError::TooLong`] if the payload is; [`HandshakeError::WeakKey`] if message 1 carried such a key;
    /// [`HandshakeError::StaticKey`].
    pub fn write_message_2(
        self,
        payload: &[u8],
    ) -> Result<(ResponderAwaitingMessage3, Vec<u8>), HandshakeError> {
        let Self {
            mut symmetric,
            s,
            e,
            re,
        } = self;
        let len = MIN_MESSAGE_2_LEN.saturating_add(payload.len());
        check_len(2, len, 0)?;
        let mut message = Vec::with_capacity(len);
        message.extend_from_slice(&e.public_key());
        symmetric.mix_hash(&message);
        symmetric.mix_key(e.diffie_hellman(&re)?.as_slice());
        symmetric.encrypt_and_hash(&s.public_key(), &mut message)?;
        symmetric.mix_key(s.diffie_hellman(&re)?.as_slice());
        symmetric.encrypt_and_hash(payload, &mut message)?;
        Ok((ResponderAwaitingMessage3 { symmetric, e }, message))
    }
}

/// A responder that has sent message 2. This is all that an unfinished handshake costs: some 200 bytes.
pub struct ResponderAwaitingMessage3 {
    symmetric: SymmetricState,
    e: X25519Secret,
}

impl ResponderAwaitingMessage3 {
    /// `-> s, se`, and the end of the handshake. The message is decrypted in place; its payload is a part of it.
    ///
    /// Only the sender of message 1 can make this succeed.
    ///
    /// # Errors
    /// [`Rejected`] with this state, unchanged. The message's bytes are then undefined.
    pub fn read_message_3(self, message: &mut [u8]) -> Result<(SessionKeys, &mut [u8]), Rejected<Self>> {
        match self.try_read(message) {
            Ok(done) => Ok(done),
            Err(error) => Err(Rejected { state: self, error }),
        }
    }

    fn try_read<'a>(&self, message: &'a mut [u8]) -> Result<(SessionKeys, &'a mut [u8]), HandshakeError> {
        let len = message.len();
        check_len(3, len, MIN_MESSAGE_3_LEN)?;
        let truncated = HandshakeError::Truncated {
            message: 3,
            len,
            min: MIN_MESSAGE_3_LEN,
        };
        let mut symmetric = self.symmetric.clone();
        let (rs, payload) = message
            .split_first_chunk_mut::<SEALED_KEY_LEN>()
            .ok_or(truncated)?;
        let rs: &mut [u8] = symmetric.decrypt_and_hash(3, rs)?;
        let rs = PublicKeyBytes::try_from(&*rs).map_err(|_| truncated)?;
        symmetric.mix_key(self.e.diffie_hellman(&rs)?.as_slice());
        let payload = symmetric.decrypt_and_hash(3, payload)?;
        // Swapped: the Noise specification has the responder send with the second key (spec 02 §5.4).
        let (k1, k2) = symmetric.split();
        let keys = SessionKeys {
            send: k1,
            receive: k2,
            remote_static: rs,
            handshake_hash: symmetric.handshake_hash(),
        };
        Ok((keys, payload))
    }
}

impl std::fmt::Debug for ResponderAwaitingMessage3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResponderAwaitingMessage3(..)")
    }
}

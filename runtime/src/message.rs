//! What moves between workers.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use crate::body::{Body, DecodeError};
use crate::{Address, Payload, Route};

/// The identifier of a peer, as a secure channel has authenticated it: SHA-256 of the first change of its identity
/// (spec 02 §2.1). Text form: `I` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerIdentifier(pub [u8; 32]);

impl fmt::Display for PeerIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("I")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The text is not `I` followed by 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an identifier is `I` followed by 64 hex digits")]
pub struct NotAnIdentifier;

impl FromStr for PeerIdentifier {
    type Err = NotAnIdentifier;

    fn from_str(text: &str) -> Result<Self, NotAnIdentifier> {
        let digits = text.trim().strip_prefix('I').ok_or(NotAnIdentifier)?.as_bytes();
        let (pairs, rest) = digits.as_chunks::<2>();
        let mut bytes = [0; 32];
        if pairs.len() != 32 || !rest.is_empty() {
            return Err(NotAnIdentifier);
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let digit = |c: &u8| char::from(*c).to_digit(16).ok_or(NotAnIdentifier);
            *byte = (digit(high)? * 16 + digit(low)?) as u8;
        }
        Ok(Self(bytes))
    }
}

/// Who sent a message, as authenticated by the secure channel that delivered it last.
#[derive(Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer's identifier.
    pub identifier: PeerIdentifier,
    /// The address of our encryptor of that channel: tells two channels with the same peer apart.
    pub channel: Address,
}

/// What a node knows about a message and never sends (spec 01 §2.3): dropped at every transport.
#[derive(Clone, Debug, Default)]
pub struct LocalInfo {
    /// The authenticated peer, if the message came out of a secure channel.
    pub peer: Option<Arc<Peer>>,
}

/// A message on its way through a node (spec 01 §2.3, LocalMessage).
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The hops that it still has to travel. The first is the current addressee.
    pub onward: Route,
    /// The hops that an answer travels.
    pub back: Route,
    /// The content.
    pub payload: Payload,
    /// What this node alone knows about it.
    pub local: LocalInfo,
}

impl Message {
    /// A message along `onward`, to be answered along `back`.
    pub fn new(onward: impl Into<Route>, back: impl Into<Route>, payload: impl Into<Payload>) -> Self {
        Self {
            onward: onward.into(),
            back: back.into(),
            payload: payload.into(),
            local: LocalInfo::default(),
        }
    }

    /// The authenticated peer, if the message came out of a secure channel.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        self.local.peer.as_ref()
    }
}

/// A message in a mailbox, with its true local sender, which cannot be forged (spec 01 §2.3, RelayMessage).
#[derive(Debug)]
pub struct Envelope {
    /// The mailbox from which the message was sent. May differ from the first hop of its return route.
    pub source: Address,
    /// The message; the first onward hop is the mailbox that it arrived in.
    pub message: Message,
}

/// A received message whose body is of type `M`, once it is decoded.
pub struct Routed<M> {
    envelope: Envelope,
    body: PhantomData<fn() -> M>,
}

impl<M: Body> Routed<M> {
    pub(crate) fn new(envelope: Envelope) -> Self {
        Self {
            envelope,
            body: PhantomData,
        }
    }

    /// The hops that are left, the receiving mailbox first.
    pub fn onward_route(&self) -> &Route {
        &self.envelope.message.onward
    }

    /// Where an answer goes.
    pub fn return_route(&self) -> &Route {
        &self.envelope.message.back
    }

    /// The mailbox from which the message was sent inside this node.
    pub fn source(&self) -> &Address {
        &self.envelope.source
    }

    /// The authenticated peer, if the message came out of a secure channel.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        self.envelope.message.peer()
    }

    /// The undecoded content.
    pub fn payload(&self) -> &[u8] {
        self.envelope.message.payload.as_slice()
    }

    /// Decodes the body.
    ///
    /// # Errors
    /// If the payload is not a valid encoding of `M`.
    pub fn body(&self) -> Result<M, DecodeError> {
        M::decode(self.payload())
    }

    /// Decodes the body, giving the message up.
    ///
    /// # Errors
    /// If the payload is not a valid encoding of `M`.
    pub fn into_body(self) -> Result<M, DecodeError> {
        self.body()
    }

    /// The message itself, to be changed and forwarded.
    pub fn into_message(self) -> Message {
        self.envelope.message
    }
}

impl<M: Body> fmt::Debug for Routed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.envelope.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_print_and_parse() {
        let text = format!("I{}", "0aF9".repeat(16));
        let identifier: PeerIdentifier = text.parse().unwrap();
        assert_eq!(identifier.to_string(), text.to_lowercase().replacen('i', "I", 1));
        for wrong in [
            "",
            "I",
            "I00",
            &text[1..],
            &format!("{text}0"),
            &text.replace('F', "g"),
        ] {
            assert!(wrong.parse::<PeerIdentifier>().is_err(), "{wrong}");
        }
    }
}

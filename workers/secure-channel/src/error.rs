//! Why there is no channel, and whose fault that is.

use std::time::Duration;

use portolan_identity::{AttestationError, Identifier};
use portolan_runtime::Route;

use crate::extensions::NegotiationError;
use crate::handshake::HandshakeError;
use crate::wire::WireError;

/// Why a peer was not accepted. It is never told (spec 02 §5.6).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// Its payload cannot be read.
    #[error("its identity cannot be read: {0}")]
    Wire(#[from] WireError),
    /// Its history does not verify, or our store of histories failed.
    #[error("its identity was refused: {0}")]
    Identity(#[from] portolan_identity::Error),
    /// It presents a history that we know to be outdated: an old backup, or an old, stolen key.
    #[error(
        "{0} presents an identity from before a rotation that we know of: restored from an old backup, or stolen"
    )]
    OutdatedHistory(Identifier),
    /// It presents a history that contradicts the one that we know.
    #[error("{0} presents an identity that contradicts the one that we know")]
    ConflictingHistory(Identifier),
    /// Its static key is not attested by its identity.
    #[error("the key of {0} was refused: {1}")]
    Attestation(Identifier, AttestationError),
    /// The attested key is not the one that took part in the handshake.
    #[error("{0} presents an attestation of another key")]
    WrongKey(Identifier),
    /// We do not agree on what goes beyond the reference protocol.
    #[error("there is no agreement on how to protect the channel: {0}")]
    Extensions(#[from] NegotiationError),
    /// It is who it says, but we do not want it.
    #[error("{0} is not trusted here")]
    Untrusted(Identifier),
}

impl From<portolan_identity::DecodeError> for PeerError {
    fn from(error: portolan_identity::DecodeError) -> Self {
        Self::Identity(error.into())
    }
}

impl From<portolan_identity::StorageError> for PeerError {
    fn from(error: portolan_identity::StorageError) -> Self {
        Self::Identity(error.into())
    }
}

/// Why a secure channel could not be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody answered in time. A peer that does not trust us does not answer either.
    #[error(
        "no secure channel along {route} within {after:?}: nobody answers there, or it was not a secure channel listener"
    )]
    Timeout {
        /// Where we tried.
        route: Route,
        /// How long.
        after: Duration,
    },
    /// The connection under the handshake ended.
    #[error("the connection along {0} was lost during the handshake")]
    TransportLost(Route),
    /// The peer that answered was not accepted.
    #[error("the peer was not accepted: {0}")]
    Peer(#[from] PeerError),
    /// Our own part of the handshake failed.
    #[error("the handshake failed: {0}")]
    Handshake(#[from] HandshakeError),
    /// Our own identity cannot be presented.
    #[error("our own identity cannot be presented: {0}")]
    Identity(#[from] portolan_identity::Error),
    /// A message could not be sent, an address is in use, or the node is stopping.
    #[error(transparent)]
    Runtime(#[from] portolan_runtime::Error),
    /// The system gave no random bytes.
    #[error("the operating system gives no random bytes")]
    Randomness,
}

impl From<portolan_runtime::SendError> for Error {
    fn from(error: portolan_runtime::SendError) -> Self {
        Self::Runtime(error.into())
    }
}

//! What can go wrong, and whose fault it is.

use std::time::Duration;

use crate::body::DecodeError;
use crate::{Address, Route};

/// Why a message was not delivered. The message is gone; nothing was sent to anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The onward route is empty.
    #[error("the message has no hop left to go to")]
    NoRoute,
    /// Nobody listens at the next hop.
    #[error("there is no worker at {0}")]
    NotFound(Address),
    /// The next hop is not an address of this node, and addresses of other transports are resolved before sending.
    #[error("{0} is not an address inside this node; connect to it first and route through the connection")]
    NotLocal(Address),
    /// A rule forbids it.
    #[error(transparent)]
    Refused(Box<RefusedDelivery>),
    /// The worker there could not send it on.
    #[error("{0} could not send the message on")]
    NotPassed(Address),
    /// One handler produced more messages than its outbox holds while a destination was busy.
    #[error("{0} does not take messages fast enough, and the sender's outbox is full")]
    Overloaded(Address),
}

/// A delivery that a rule forbids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sending from {from} to {to} was refused: {reason}")]
pub struct RefusedDelivery {
    /// Who wanted to send.
    pub from: Address,
    /// To whom.
    pub to: Address,
    /// Which rule said no.
    pub reason: Refusal,
}

/// Which rule refused a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The destination was never made reachable from where the message came from (spec 01 §4.1).
    #[error("the destination is not reachable from that connection or channel (flow control)")]
    FlowControl,
    /// The payload is a [carried record](crate::Sealing::Carried), and who is there neither opens records nor sends them on.
    #[error(
        "the payload is a record of a secure channel that was carried without being authenticated on the way, and this worker \
         neither opens records nor says that it sends them on as they are"
    )]
    Record,
    /// The sender's outgoing access control said no.
    #[error("outgoing access control: {0}")]
    Outgoing(Denial),
    /// The destination's incoming access control said no.
    #[error("incoming access control: {0}")]
    Incoming(Denial),
}

/// The reason that an access control gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denial(pub std::borrow::Cow<'static, str>);

/// Anything that can go wrong in the runtime and in workers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A message could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// A message could not be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// No answer in time.
    #[error("no answer from {route} within {after:?}")]
    Timeout {
        /// Who was asked.
        route: Box<Route>,
        /// How long we waited.
        after: Duration,
    },
    /// A worker exists at the address.
    #[error("the address {0} is in use by another worker of this node")]
    AddressInUse(Address),
    /// Nothing to stop or to look at.
    #[error("there is no worker at {0}")]
    NoWorker(Address),
    /// The node or the worker is stopping.
    #[error("the node is stopping")]
    Stopped,
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An error of a worker's own.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// An error of a worker's own, from its text.
    pub fn other(text: impl Into<String>) -> Self {
        Self::Other(text.into().into())
    }

    /// An error of the operating system, with what was tried.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }
}

/// The result of most operations here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

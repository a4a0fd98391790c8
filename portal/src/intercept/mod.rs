//! Interceptors: what stands between an application and its end of a portal, and sees the bytes of each connection.
//!
//! An [`Intercept`] is given to an inlet or an outlet ([`Interception`], in its options). It is asked for an [`Interceptor`]
//! when a connection begins, and may refuse it. The interceptor gets the bytes of both directions in order, and what it gives in
//! their place goes on; it may end the connection, with a reason that both ends see.
//!
//! ```text
//! application ⇄ socket ⇄ interceptor ⇄ portal connection ⇄ route to the other end
//! ```
//!
//! The portal's side knows nothing of it: credits count the bytes that cross the route, that is what leaves the interceptor at one
//! end and what enters it at the other, so that an interceptor may add and remove as much as it likes. An end that has no
//! interceptor has none of this in its way.
//!
//! There are three ways to write one:
//!
//! * [`Filter`], which does its work at once on the thread of the connection, made into an interceptor by [`Inline`].
//! * [`remote`], for work that is done elsewhere, such as on a thread of its own, piece by piece.
//! * [`Interceptor`] itself, which is asked for everything and may answer later.
//!
//! # Bounds
//!
//! | what | bound | then |
//! |---|---|---|
//! | one piece of input | [`CHUNK`](portolan_runtime::payload::CHUNK), or a message of the other end | – |
//! | pieces in each direction that are worked on elsewhere ([`remote`]) | 3 | no more input is given |
//! | all that is held in the connections of a node | its [`WindowMemory`] | whoever holds something takes no more; at last connections are ended |
//! | output that waits for an application | [`HELD`] and the output of one piece | no more input is given |
//! | output of a [`Filter`] for one piece | [`MAX_OUTPUT`] and the piece's own length | the connection is ended |
//! | time without an answer of an interceptor | [`ANSWER_WITHIN`], a setting | the connection is ended |
//!
//! # Ends
//!
//! The end of a direction is passed through: the interceptor may add last bytes, and its own end is the end of that direction. A
//! connection that an interceptor ends, or that fails with it (a panic, no answer, too much output), is closed with the reason
//! *intercepted* at the other end; the application sees a reset if any byte had gone through, so that what was cut short never
//! looks complete. What it had given before may be lost with it.

#[cfg(test)]
mod tests;

mod inline;
mod remote;
mod socket;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use portolan_runtime::{Payload, PeerIdentifier};

pub use self::inline::{Filter, Inline, MAX_OUTPUT, Output};
pub use self::remote::{Task, Work, remote};
pub(crate) use self::socket::Intercepted;
use crate::memory::WindowMemory;
use crate::socket::Socket;

/// Output of an interceptor that may wait for an application, in bytes, before more input is given to it.
pub const HELD: usize = 2 * portolan_runtime::payload::CHUNK;

/// How long an interceptor may neither take anything nor give anything, while it has something to do.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Which end of the portal an interceptor stands at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where the client connects.
    Inlet,
    /// Where the service is.
    Outlet,
}

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the service.
    ToService,
    /// From the service to the client.
    ToClient,
}

impl Side {
    /// The direction of what the application at this end sends.
    fn application_sends(self) -> Direction {
        match self {
            Self::Inlet => Direction::ToService,
            Self::Outlet => Direction::ToClient,
        }
    }

    /// The direction of what the application at this end receives.
    fn application_receives(self) -> Direction {
        match self {
            Self::Inlet => Direction::ToClient,
            Self::Outlet => Direction::ToService,
        }
    }
}

/// What is known of a connection when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Where the interceptor stands.
    pub side: Side,
    /// The name of the inlet, or the address of the outlet.
    pub portal: Arc<str>,
    /// The peer at the other end of the secure channel; `None` if there is no channel.
    pub peer: Option<PeerIdentifier>,
    /// What an authority that this node trusts has signed for that peer, as it stood when the connection began.
    pub attributes: Vec<(String, String)>,
    /// At an inlet the socket address of the client; at an outlet the target, `host:port`.
    pub endpoint: Option<String>,
}

/// Why an interceptor ends a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Ended {
    text: String,
    failed: bool,
}

impl Ended {
    /// The interceptor has decided so. The text is told to the other end: one line, without secrets.
    pub fn because(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            failed: false,
        }
    }

    /// The interceptor does not work.
    pub fn failed(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            failed: true,
        }
    }

    fn by(mut self, name: &str) -> Named {
        let what = if self.failed {
            "failed"
        } else {
            "ended the connection"
        };
        self.text = format!("the interceptor `{name}` {what}: {}", self.text);
        Named(self)
    }
}

/// The same, with the name of the interceptor: how it travels through what knows only of errors of sockets.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Named(Ended);

impl From<Named> for io::Error {
    fn from(named: Named) -> Self {
        Self::other(named)
    }
}

/// What an interceptor says, if it is what ended a connection with this error.
pub(crate) fn said(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<Named>().map(ToString::to_string)
}

/// Makes the interceptors of an inlet or outlet. Shared by all its connections.
pub trait Intercept: Send + Sync {
    /// The name for people, in reasons and logs.
    fn name(&self) -> &str;

    /// A connection begins. Called on the thread of the connection, which others use: it must not block.
    ///
    /// # Errors
    /// Why this connection is refused.
    fn open(&self, connection: &ConnectionInfo) -> Result<Box<dyn Interceptor>, Ended>;
}

/// Stands in one connection.
///
/// The two directions have nothing to do with each other: one may end or wait while the other goes on. For each direction the
/// connection asks [`poll_ready`](Self::poll_ready) before each [`give`](Self::give) and [`end`](Self::end), and takes output
/// by [`poll_take`](Self::poll_take) whenever there is room for it, until that says that the direction is over. No method may
/// block. When the connection is over the interceptor is dropped, wherever it stands.
pub trait Interceptor: Send {
    /// Whether more may be given. If it is pending, the task is woken when more may be given *or* taken.
    ///
    /// It must become ready by itself while all output is taken; after [`ANSWER_WITHIN`] the connection is ended.
    ///
    /// # Errors
    /// Why the connection ends.
    fn poll_ready(&mut self, direction: Direction, cx: &mut Context<'_>) -> Poll<Result<(), Ended>>;

    /// Bytes have come, never none. How they are cut into pieces means nothing.
    fn give(&mut self, direction: Direction, bytes: Payload);

    /// No more bytes come in this direction.
    fn end(&mut self, direction: Direction);

    /// Bytes of this direction that it holds: given and not worked on, or worked on and not taken. They count against the memory that
    /// a node has for portals.
    fn held(&self, direction: Direction) -> usize {
        let _ = direction;
        0
    }

    /// What goes on in place of what was given; `None` when the direction is over, after [`end`](Self::end) and all output.
    /// If it is pending, the task is woken when there is something.
    ///
    /// # Errors
    /// Why the connection ends.
    fn poll_take(
        &mut self,
        direction: Direction,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Payload>, Ended>>;
}

/// How a peer's attributes are found: names and values that an authority has signed for it.
pub type PeerAttributes = Arc<dyn Fn(&PeerIdentifier) -> Vec<(String, String)> + Send + Sync>;

/// That an inlet or outlet has an interceptor, and what is told to it.
#[derive(Clone)]
pub struct Interception {
    intercept: Arc<dyn Intercept>,
    portal: Arc<str>,
    attributes: Option<PeerAttributes>,
    answer_within: Duration,
    memory: WindowMemory,
}

impl Interception {
    /// The connections of the inlet or outlet that is called `portal` shall be intercepted by this.
    pub fn new(portal: impl Into<Arc<str>>, intercept: Arc<dyn Intercept>) -> Self {
        Self {
            intercept,
            portal: portal.into(),
            attributes: None,
            answer_within: ANSWER_WITHIN,
            memory: WindowMemory::default(),
        }
    }

    /// Where the attributes of peers are found. Without, no peer has any.
    #[must_use]
    pub fn attributes(mut self, attributes: PeerAttributes) -> Self {
        self.attributes = Some(attributes);
        self
    }

    /// How long an interceptor may neither take nor give anything while it has something to do. Default: [`ANSWER_WITHIN`].
    #[must_use]
    pub fn answer_within(mut self, limit: Duration) -> Self {
        self.answer_within = limit;
        self
    }

    /// Counts what is held as what waits for applications is counted.
    pub(crate) fn counted_in(mut self, memory: &WindowMemory) -> Self {
        self.memory = memory.clone();
        self
    }

    /// Asks for an interceptor for a connection. The error has a text for people and for the other end.
    pub(crate) fn open(
        &self,
        side: Side,
        peer: Option<PeerIdentifier>,
        endpoint: Option<String>,
    ) -> io::Result<Opened> {
        let attributes = match (&peer, &self.attributes) {
            (Some(peer), Some(attributes)) => attributes(peer),
            _ => Vec::new(),
        };
        let info = ConnectionInfo {
            side,
            portal: Arc::clone(&self.portal),
            peer,
            attributes,
            endpoint,
        };
        let name: Arc<str> = self.intercept.name().into();
        let interceptor = guarded(|| self.intercept.open(&info))
            .and_then(|opened| opened)
            .map_err(|ended| ended.by(&name))?;
        Ok(Opened {
            interceptor,
            name,
            side,
            answer_within: self.answer_within,
            memory: self.memory.clone(),
        })
    }
}

impl fmt::Debug for Interception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interception")
            .field("name", &self.intercept.name())
            .field("portal", &self.portal)
            .finish_non_exhaustive()
    }
}

/// An interceptor for a connection whose socket is not there yet.
pub(crate) struct Opened {
    interceptor: Box<dyn Interceptor>,
    name: Arc<str>,
    side: Side,
    answer_within: Duration,
    memory: WindowMemory,
}

impl Opened {
    /// Puts it between the connection and this socket.
    pub(crate) fn around(self, socket: Socket) -> Socket {
        Socket::Intercepted(Box::new(Intercepted::new(self, socket)))
    }
}

/// Runs code of an interceptor: one that panics ends its connection and nothing else.
fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, Ended> {
    // Whoever panicked is not called again.
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        // What it says may be about what it saw: it goes to the log of this node and not to the other end.
        tracing::error!(
            "an interceptor panicked: {}",
            text.unwrap_or("it did not say why")
        );
        Ended::failed("it panicked")
    })
}

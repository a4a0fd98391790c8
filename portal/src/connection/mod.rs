//! One portal connection at one end: one task that moves bytes between the application's socket and the route to the
//! other end.
//!
//! The task is a future written by hand, so that it can do all that is possible at once and never waits in the middle of one
//! thing while another could go on: it takes what the other end has sent also while the application takes nothing, as far
//! as the window goes, which is smaller than what may wait here. So a slow application never makes the channel wait, and a
//! channel that takes nothing never keeps what comes in from the application.
//!
//! With a stock peer, which knows no window, the connection takes up to [`crate::stream::STOCK_BUFFER`] and then leaves messages
//! where they are, in its mailbox, and then in the channel; an application that takes nothing at all meanwhile is closed
//! after [`STALL`](time), and after [`GRACE`](time) if the channel waits.
//!
//! A connection of which nothing is heard holds no buffer and no queue.
//!
//! `incoming` is the way to the application, `outgoing` the way from it, `time` what happens when nothing does, and `ends` how
//! it is over.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{self, Poll};
use std::time::Duration;

use portolan_runtime::{AccessControl, Address, Context, Message, Payload, PeerIdentifier, Route};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use self::ends::{denied, path_lost};
use self::time::{BEAT, Due};
use crate::application::{Arrived, Reader};
use crate::early::Entry;
use crate::gate::Refused;
use crate::inlet::USUAL_ANSWER;
use crate::protocol::PortalMessage;
use crate::socket::Socket;
use crate::status::Open;
use crate::stream::Stream;

mod ends;
mod incoming;
mod outgoing;
mod time;

pub(crate) use ends::End;

/// How long what is said last may wait for a path that takes nothing.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often in one turn everything is tried, before other tasks of the thread have theirs.
const ROUNDS: usize = 16;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What may happen outside a connection.
enum Outside {
    /// The connection or channel to the other end has ended.
    PathLost,
    /// The rules may have changed.
    AskRules(watch::Receiver<()>),
}

/// A block and not an `async fn`, whose future would have space for its parameters twice; and what waits for the path is boxed, since
/// it would have been moved once more.
#[allow(clippy::manual_async_fn)]
fn outside(
    path_lost: Option<Boxed<()>>,
    mut again: watch::Receiver<()>,
) -> impl Future<Output = Outside> + Send {
    async move {
        let is_lost = {
            let mut path_lost = path_lost;
            let mut asked_again = pin!(again.changed());
            let mut nobody_asks = false;
            poll_fn(|cx| {
                if let Some(lost) = &mut path_lost
                    && lost.as_mut().poll(cx).is_ready()
                {
                    return Poll::Ready(true);
                }
                if nobody_asks {
                    return Poll::Pending;
                }
                match asked_again.as_mut().poll(cx) {
                    Poll::Ready(Ok(())) => Poll::Ready(false),
                    Poll::Ready(Err(_)) => {
                        nobody_asks = true;
                        Poll::Pending
                    }
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        };
        match is_lost {
            true => Outside::PathLost,
            false => Outside::AskRules(again),
        }
    }
}

/// The end of the connection or channel to the other end.
fn end_of_path(ctx: &Context, first_hop: Option<&Address>) -> Option<Boxed<()>> {
    first_hop.map(|hop| -> Boxed<()> { Box::pin(ctx.node().ended(hop)) })
}

/// What only an inlet's connection needs, and only until the Pong.
pub(crate) struct Asking {
    /// The route to the outlet.
    pub(crate) route: Route,
    /// Where is noted whether the outlet takes early bytes.
    pub(crate) takes_early: Arc<AtomicBool>,
}

/// What only an outlet's connection needs, and only until the target is connected.
pub(crate) struct Connecting {
    pub(crate) target: Arc<str>,
    pub(crate) socket: Boxed<io::Result<Socket>>,
    pub(crate) pong: PortalMessage,
    pub(crate) limit: Duration,
}

/// What a connection is made of at either end.
pub(crate) struct Parts {
    pub(crate) stream: Stream,
    pub(crate) remote: Option<Route>,
    pub(crate) first_hop: Option<Address>,
    /// Who the other end is, for an outlet; an inlet learns that from the Pong.
    pub(crate) peer: Option<PeerIdentifier>,
    pub(crate) refused: Option<Arc<Refused>>,
    /// Whom it may be sent to.
    pub(crate) outgoing: AccessControl,
    pub(crate) early: Option<Box<Entry>>,
    pub(crate) deadline: Instant,
    pub(crate) open: Open,
}

/// One end of a connection.
pub(crate) struct Connection {
    ctx: Context,
    /// The application's; at an outlet, once it is connected.
    socket: Option<Socket>,
    asking: Option<Box<Asking>>,
    connecting: Option<Box<Connecting>>,
    stream: Stream,
    reader: Reader,
    arrived: Arrived,
    /// Where the other end is, once known.
    remote: Option<Route>,
    refused: Option<Arc<Refused>>,
    outgoing: AccessControl,
    /// The connection or channel towards the other end: when that ends, so does the stream.
    first_hop: Option<Address>,
    outside: Boxed<Outside>,
    /// The peer's identifier must stay what it was.
    peer: Option<PeerIdentifier>,
    pinned: bool,
    early: Option<Box<Entry>>,
    /// What was read before the Pong; kept until then also if it was sent, since the outlet may not have taken it.
    held: Vec<Payload>,
    /// The application's end has been read and is not told yet.
    local_end: bool,
    /// A wrapped stream keeps what was written.
    unflushed: bool,
    /// The other end's direction is over: the application is told once all is written.
    remote_end: bool,
    /// All that is left to do is to write what has arrived.
    closing: Option<Box<End>>,
    deadline: Option<(Instant, Due)>,
    beat: Instant,
    /// Beats since the last message of the other end.
    missed: u32,
    timer: Pin<Box<Sleep>>,
    open: Open,
}

impl Connection {
    /// An inlet's connection, to be asked for.
    pub(crate) fn inlet(ctx: Context, parts: Parts, socket: Socket, asking: Asking) -> Self {
        let mut connection = Self {
            socket: Some(socket),
            asking: Some(Box::new(asking)),
            ..Self::new(ctx, parts)
        };
        let usual = Instant::now() + USUAL_ANSWER;
        // The other time, until which it is given up, stays in `beat`.
        if connection.open.0.watches_delays() && usual < connection.beat {
            connection.deadline = Some((usual, Due::Expected));
        }
        connection
    }

    /// An outlet's connection, to be connected.
    pub(crate) fn outlet(ctx: Context, parts: Parts, connecting: Connecting) -> Self {
        Self {
            connecting: Some(Box::new(connecting)),
            ..Self::new(ctx, parts)
        }
    }

    fn new(ctx: Context, parts: Parts) -> Self {
        let path_lost = end_of_path(&ctx, parts.first_hop.as_ref());
        let outside = Box::pin(outside(path_lost, parts.open.0.asked_again()));
        Self {
            ctx,
            socket: None,
            asking: None,
            connecting: None,
            stream: parts.stream,
            reader: Reader::new(),
            arrived: Arrived::default(),
            remote: parts.remote,
            refused: parts.refused,
            outgoing: parts.outgoing,
            first_hop: parts.first_hop,
            outside,
            pinned: parts.peer.is_some(),
            peer: parts.peer,
            early: parts.early,
            held: Vec::new(),
            local_end: false,
            unflushed: false,
            remote_end: false,
            closing: None,
            deadline: Some((parts.deadline, Due::Opened)),
            beat: parts.deadline,
            missed: 0,
            timer: Box::pin(sleep_until(parts.deadline)),
            open: parts.open,
        }
    }

    /// Asks the outlet for the connection.
    pub(crate) fn ask(&mut self, ping: &PortalMessage) -> Result<(), End> {
        self.tell(ping).map_err(|end| match end {
            End::Silent {
                failure: Some((kind, text)),
            }
            | End::Local { kind, text, .. } => End::Silent {
                failure: Some((kind, format!("the outlet cannot be asked: {text}"))),
            },
            end => end,
        })
    }

    /// Runs the connection to its end.
    pub(crate) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<End> {
        match self.advance(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// Does all that can be done now. When it returns, the task is woken when there is more.
    fn advance(&mut self, cx: &mut task::Context<'_>) -> Result<(), End> {
        for _ in 0..ROUNDS {
            if let Some(reason) = self.refused.as_ref().and_then(|refused| refused.poll(cx))
                && self.closing.is_none()
            {
                return Err(denied(reason.into()));
            }
            self.connect(cx)?;
            let mut moved = self.receive(cx)?;
            moved |= self.write(cx)?;
            moved |= self.read(cx)?;
            if moved {
                continue;
            }
            if !self.look_outside(cx)? && !self.keep_time(cx)? {
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Sees whether the path or the rules have changed.
    fn look_outside(&mut self, cx: &mut task::Context<'_>) -> Result<bool, End> {
        // When both directions are over nobody has anything to lose any more.
        if self.stream.is_finished() {
            return Ok(false);
        }
        match self.outside.as_mut().poll(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Outside::PathLost) => Err(path_lost()),
            Poll::Ready(Outside::AskRules(again)) => {
                let path_lost = end_of_path(&self.ctx, self.first_hop.as_ref());
                self.outside = Box::pin(outside(path_lost, again));
                self.ask_rules().map(|()| true)
            }
        }
    }

    /// Whether the other end may still be spoken to.
    fn ask_rules(&self) -> Result<(), End> {
        let Some(remote) = &self.remote else {
            return Ok(());
        };
        let message = Message::new(remote, self.ctx.address(), Vec::new());
        self.ctx
            .check_outgoing(&self.outgoing, &message)
            .map_err(|denial| denied(denial.to_string()))
    }

    /// Waits for the target, and answers the inlet when it is connected.
    fn connect(&mut self, cx: &mut task::Context<'_>) -> Result<(), End> {
        let Some(connecting) = &mut self.connecting else {
            return Ok(());
        };
        let Poll::Ready(connected) = connecting.socket.as_mut().poll(cx) else {
            return Ok(());
        };
        match connected {
            Ok(socket) => {
                self.socket = Some(socket);
                // The first message to the inlet: payloads come after it.
                self.answer()
            }
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    fn answer(&mut self) -> Result<(), End> {
        let Some(connecting) = self.connecting.take() else {
            return Ok(());
        };
        self.deadline = None;
        self.beat = Instant::now() + BEAT;
        self.tell(&connecting.pong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thousands of connections do nothing most of the time. What they hold then is this, a timer, and what the runtime
    /// needs for a worker; buffers come and go.
    #[test]
    fn a_connection_is_small_while_nothing_moves() {
        assert!(size_of::<Connection>() <= 704, "{}", size_of::<Connection>());
    }
}

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
//! after [`STALL`], and after [`GRACE`] if the channel waits.
//!
//! A connection of which nothing is heard holds no buffer and no queue.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll};
use std::time::Duration;

use portolan_runtime::{
    AccessControl, Address, Context, Envelope, MailboxOptions, Message, Payload, PeerIdentifier, Refusal,
    Route, SendError, WorkerOptions,
};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::application::{Arrived, GATHERED, Reader, SMALL_CHUNK};
use crate::early::Entry;
use crate::gate::Refused;
use crate::protocol::{PortalMessage, Reason, payload_header};
use crate::socket::Socket;
use crate::status::{FailureKind, Open};
use crate::stream::{Beat, Event, Role, Stream, WORTHWHILE};

/// How long an application may take nothing while its buffer is full, with a peer that knows no window.
const STALL: Duration = Duration::from_secs(30);
/// The same while the channel waits, and with it all others that use it.
const GRACE: Duration = Duration::from_secs(5);
/// How often is looked whether it does: nobody tells.
const LOOK: Duration = Duration::from_secs(1);
/// How long what is said last may wait for a path that takes nothing.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// After our application's end, how long a stock peer may still send what is in flight.
const LINGER: Duration = Duration::from_secs(2);
/// How long the application may take nothing of the last bytes of an ended stream.
const LAST_WRITE: Duration = Duration::from_secs(60);
/// Less than this is not worth a message of its own before the Pong.
const WORTHWHILE_EARLY: usize = 1024;
/// How often an end that knows windows gives a sign of life, a credit of nothing: through a relay nobody else would
/// tell that the other node is gone.
const BEAT: Duration = Duration::from_secs(10);
/// Beats without any message of the other end after which it is taken for dead.
const MISSED_BEATS: u32 = 3;
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

async fn outside(path_lost: Option<impl Future<Output = ()>>, mut again: watch::Receiver<()>) -> Outside {
    let path_lost = async {
        match path_lost {
            Some(lost) => lost.await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = path_lost => Outside::PathLost,
        Ok(()) = again.changed() => Outside::AskRules(again),
    }
}

/// How a connection ends.
pub(crate) enum End {
    /// Both applications are done.
    Finished,
    /// The other end closed it; clean, unless it gave a reason that says otherwise.
    Remote { failure: Option<(FailureKind, String)> },
    /// We close it.
    Local {
        reason: Reason,
        kind: FailureKind,
        text: String,
    },
    /// There is nobody to tell.
    Silent { failure: Option<(FailureKind, String)> },
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

/// Why a time was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The Pong must have come, or the target be connected.
    Opened,
    /// A stock peer has had its time after our end.
    Lingered,
    /// The application must have taken something; looked at so many times.
    Stalled(u8),
    /// The last bytes must have been written.
    Written,
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
    pub(crate) fn inlet(ctx: Context, parts: Parts, socket: TcpStream, asking: Asking) -> Self {
        Self {
            socket: Some(Socket::Plain(socket)),
            asking: Some(Box::new(asking)),
            ..Self::new(ctx, parts)
        }
    }

    /// An outlet's connection, to be connected.
    pub(crate) fn outlet(ctx: Context, parts: Parts, connecting: Connecting) -> Self {
        Self {
            connecting: Some(Box::new(connecting)),
            ..Self::new(ctx, parts)
        }
    }

    fn new(ctx: Context, parts: Parts) -> Self {
        let path_lost = parts.first_hop.as_ref().map(|hop| ctx.node().ended(hop));
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

    /// Says why, to whom it concerns.
    pub(crate) async fn end(mut self, end: End) {
        let failure = match end {
            End::Finished => None,
            End::Remote { failure } | End::Silent { failure } => failure,
            End::Local { reason, kind, text } => {
                if let Some(message) = self.stream.close(reason, &text) {
                    self.say_goodbye(&message).await;
                }
                Some((kind, text))
            }
        };
        let Some((kind, text)) = failure else {
            return;
        };
        self.open.0.fail(kind, text);
        if self.stream.has_carried_data()
            && let Some(socket) = &self.socket
        {
            socket.end_with_an_error();
        }
    }

    /// That the stream is over may be told to whom nothing else may be sent any more: then from an address of its own, past
    /// the rule.
    async fn say_goodbye(&mut self, message: &PortalMessage) {
        let Some(goodbye) = self.message(message) else {
            return;
        };
        if let Err(SendError::Refused(_)) = self.ctx.forward(goodbye) {
            let options = MailboxOptions::new(Address::random()).outgoing(AccessControl::AllowAll);
            if let Ok(mut ctx) = self.ctx.detached(WorkerOptions::with_mailbox(options))
                && let Some(goodbye) = self.message(message)
                && ctx.forward(goodbye).is_ok()
            {
                let _ = timeout(ANSWER_TIMEOUT, ctx.flush()).await;
            }
        }
        // What still comes must not wait for an end that is not told for want of room.
        let told = poll_fn(|cx| {
            for _ in 0..GATHERED {
                match self.ctx.poll_next(cx) {
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) => {
                        let _ = self.ctx.poll_flush(cx);
                        return Poll::Ready(());
                    }
                    Poll::Pending => return self.ctx.poll_flush(cx),
                }
            }
            cx.waker().wake_by_ref();
            self.ctx.poll_flush(cx)
        });
        let _ = timeout(ANSWER_TIMEOUT, told).await;
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
                let path_lost = self.first_hop.as_ref().map(|hop| self.ctx.node().ended(hop));
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

    fn unreachable(&mut self, error: &io::Error) -> End {
        let target = self
            .connecting
            .as_ref()
            .map(|connecting| Arc::clone(&connecting.target));
        let text = format!(
            "the target {} cannot be reached: {error}",
            target.unwrap_or_default()
        );
        // A stock inlet takes a refusal only after a Pong.
        match self.answer() {
            Ok(()) => End::Local {
                reason: Reason::Unreachable,
                kind: FailureKind::Unreachable,
                text,
            },
            Err(_) => End::Silent {
                failure: Some((FailureKind::Unreachable, text)),
            },
        }
    }

    /// Takes what the other end has sent. Whether there was something.
    fn receive(&mut self, cx: &mut task::Context<'_>) -> Result<bool, End> {
        for taken in 0..GATHERED {
            if self.is_full() {
                if self.ctx.poll_stopping(cx).is_ready() {
                    return Err(stopped());
                }
                return Ok(taken > 0);
            }
            match self.ctx.poll_next(cx) {
                Poll::Ready(Some(_)) if self.closing.is_some() => {}
                Poll::Ready(Some(envelope)) => self.interpret(envelope)?,
                Poll::Ready(None) => return Err(stopped()),
                Poll::Pending => return Ok(taken > 0),
            }
        }
        Ok(true)
    }

    fn interpret(&mut self, envelope: Envelope) -> Result<(), End> {
        let Envelope { source, mut message } = envelope;
        self.missed = 0;
        if message.onward.len() != 1 {
            return Ok(()); // Nothing lies behind this worker (spec 01 §10.4).
        }
        let peer = message.peer().map(|peer| peer.identifier);
        if self.pinned && peer != self.peer {
            tracing::warn!("a portal message of another identity is ignored");
            return Ok(());
        }
        if self
            .early
            .as_ref()
            .is_some_and(|early| *early.channel() == source)
        {
            // The inlet knows this connection's own address now: nothing more comes by way of the outlet's.
            self.early = None;
        }
        if self.early.is_some()
            && !self.stream.takes_early()
            && PortalMessage::is_payload(message.payload.as_slice())
        {
            // The Pong says that it was not taken: it comes again, from the inlet itself.
            return Ok(());
        }
        let event = match self.stream.handle_message(message.payload.as_slice()) {
            Ok(event) => event,
            Err(error) => {
                tracing::debug!("a portal message is ignored: {error}");
                return Ok(());
            }
        };
        match event {
            Event::Opened { early } => {
                (self.peer, self.pinned) = (peer, true);
                self.opened(early, std::mem::take(&mut message.back));
                Ok(())
            }
            Event::Data { start, end } => {
                message.payload.truncate(end);
                message.payload.strip_front(start);
                self.arrived.push(message.payload);
                Ok(())
            }
            Event::Credit => Ok(()),
            Event::Ignored => self.grant(),
            Event::RemoteEnd => {
                self.remote_end = true;
                Ok(())
            }
            Event::Answer(answer) => self.tell(&answer),
            Event::Overrun => Err(broken_protocol("the other end sends more than the window allows")),
            Event::Withheld => Err(broken_protocol(
                "the other end has given back less of its credit than it must have",
            )),
            Event::NoMemory => Err(End::Local {
                reason: Reason::Limit,
                kind: FailureKind::Limit,
                text: self.stream.memory().exhausted(),
            }),
            Event::Closed(reason) => match self.blame(reason) {
                None if self.socket.is_some() => {
                    // All that came before the end is still delivered.
                    self.remote_end = true;
                    self.write_the_rest(End::Remote { failure: None });
                    Ok(())
                }
                failure => Err(End::Remote { failure }),
            },
        }
    }

    /// All that is left is to write what has arrived.
    fn write_the_rest(&mut self, end: End) {
        self.closing = Some(Box::new(end));
        self.deadline = Some((Instant::now() + LAST_WRITE, Due::Written));
    }

    /// The Pong has come. What was read from the client is sent now, unless the outlet has taken it already.
    fn opened(&mut self, early: bool, remote: Route) {
        if let Some(asking) = self.asking.take() {
            asking
                .takes_early
                .store(self.stream.takes_early(), Ordering::Relaxed);
        }
        if early {
            self.held = Vec::new();
        }
        self.remote = Some(remote);
        self.deadline = None;
        self.beat = Instant::now() + BEAT;
    }

    /// What the peer's reason says about whose fault it is; `None` for a clean end.
    fn blame(&self, reason: Option<(Reason, String)>) -> Option<(FailureKind, String)> {
        let (reason, text) = match reason {
            None if self.stream.has_carried_data() || self.stream.role() == Role::Outlet => return None,
            None => {
                return Some((
                    FailureKind::Peer,
                    "the outlet closed the connection at once".to_owned(),
                ));
            }
            Some(given) => given,
        };
        let kind = match reason {
            Reason::Finished => return None,
            Reason::Unreachable => FailureKind::Unreachable,
            Reason::Denied => FailureKind::DeniedByPeer,
            Reason::Limit => FailureKind::Limit,
            Reason::Reset => FailureKind::Reset,
            Reason::Stopped | Reason::Stalled | Reason::Protocol | Reason::Other(_) => FailureKind::Peer,
        };
        // What a peer says is shown to people: one line, no control characters.
        let text: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        Some((kind, format!("the other end says: {text}")))
    }

    /// Writes what has arrived to the application, and grants credit for it. Whether it took something.
    fn write(&mut self, cx: &mut task::Context<'_>) -> Result<bool, End> {
        let Some(socket) = &mut self.socket else {
            return Ok(false);
        };
        let mut moved = false;
        while !self.arrived.is_empty() {
            let stream = &mut self.stream;
            match self
                .arrived
                .poll_write(socket, cx, |length| stream.delivered(length))
            {
                Poll::Ready(Ok(written)) => {
                    moved = true;
                    self.open
                        .0
                        .to_application
                        .fetch_add(written as u64, Ordering::Relaxed);
                }
                // It is gone, and all that was left to do was to write to it.
                Poll::Ready(Err(error)) => {
                    return Err(self.closing.take().map_or_else(|| broken(&error), |end| *end));
                }
                Poll::Pending => break,
            }
        }
        self.unflushed |= moved;
        if self.unflushed {
            match socket.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) if self.closing.is_none() => return Err(broken(&error)),
                Poll::Ready(Err(_)) | Poll::Pending => {}
            }
        }
        if self.arrived.is_empty() {
            if self.remote_end {
                if socket.poll_shutdown(cx).is_pending() {
                    let limit = (Instant::now() + LAST_WRITE, Due::Written);
                    self.deadline.get_or_insert(limit);
                    return Ok(moved);
                }
                self.remote_end = false;
                self.deadline.take_if(|(_, due)| *due == Due::Written);
            }
            if let Some(end) = self.closing.take() {
                return Err(*end);
            }
            if self.stream.is_finished() && !self.ctx.has_unsent() {
                return Err(End::Finished);
            }
        }
        self.watch_stall(moved);
        if moved {
            // An application that is slow is not one that takes nothing.
            if self.closing.is_some() {
                self.deadline = Some((Instant::now() + LAST_WRITE, Due::Written));
            }
            self.grant()?;
        }
        Ok(moved)
    }

    /// Whether a stock peer has sent all that may wait here. What comes after the end is not kept.
    fn is_full(&mut self) -> bool {
        self.closing.is_none() && !self.stream.has_room()
    }

    /// A stock peer's channel waits while the buffer and the mailbox of its connection are full, and others that use it too.
    fn watch_stall(&mut self, moved: bool) {
        let stalled = self.is_full();
        match self.deadline {
            Some((_, Due::Stalled(_))) if moved || !stalled => self.deadline = None,
            None if stalled => self.deadline = Some((Instant::now() + LOOK, Due::Stalled(0))),
            _ => {}
        }
    }

    /// Looks at an application that took nothing since the last time: it has less time while others wait.
    fn look_at_stall(&mut self, looks: u8) -> Result<(), End> {
        self.deadline = None;
        if self.write_past_readiness()? {
            return Ok(());
        }
        let looks = looks.saturating_add(1);
        let limit = if self.ctx.is_waited_for() { GRACE } else { STALL };
        if LOOK * looks.into() >= limit {
            return Err(self.overdue(Due::Stalled(looks)));
        }
        self.deadline = Some((Instant::now() + LOOK, Due::Stalled(looks)));
        Ok(())
    }

    /// The system says that a socket takes more only when a third of its buffer is free, which may be megabytes. An
    /// application that reads slowly takes something long before.
    fn write_past_readiness(&mut self) -> Result<bool, End> {
        let (Some(socket), stream) = (&mut self.socket, &mut self.stream) else {
            return Ok(false);
        };
        match self.arrived.write_now(socket, |length| stream.delivered(length)) {
            Ok(written) => {
                let count = &self.open.0.to_application;
                count.fetch_add(written as u64, Ordering::Relaxed);
                Ok(written > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(broken(&error)),
        }
    }

    fn grant(&mut self) -> Result<(), End> {
        match self.stream.poll_credit() {
            Some(credit) => self.tell(&credit),
            None => Ok(()),
        }
    }

    /// Reads from the application and sends what was read. Whether there was something.
    fn read(&mut self, cx: &mut task::Context<'_>) -> Result<bool, End> {
        if self.ctx.has_unsent() {
            // Bytes that nobody takes yet: no more are read, but what comes in is still taken.
            if self.ctx.poll_flush(cx).is_pending() {
                return Ok(false);
            }
            if self.stream.is_finished() {
                return Ok(true);
            }
        }
        if self.closing.is_some() {
            return Ok(false);
        }
        if self.asking.is_some() {
            return self.read_ahead(cx);
        }
        if let Some(held) = self.held.first_mut() {
            let sendable = self.stream.sendable();
            let payload = if held.len() <= sendable {
                self.held.remove(0)
            } else if sendable >= WORTHWHILE {
                // The first window may be smaller than what was read.
                let part = Payload::copy_from(&held.as_slice()[..sendable]);
                held.strip_front(sendable);
                part
            } else {
                return Ok(false);
            };
            self.send(payload)?;
            return Ok(true);
        }
        if self.local_end {
            return self.tell_local_end();
        }
        let sendable = self.stream.sendable();
        if sendable < WORTHWHILE {
            return Ok(false);
        }
        match self.poll_application(sendable, cx)? {
            Poll::Ready(Some(payload)) => self.send(payload)?,
            Poll::Ready(None) => {
                self.local_end = true;
                self.held = Vec::new();
            }
            Poll::Pending => return Ok(false),
        }
        Ok(true)
    }

    /// Reads while the Pong is awaited: what may be sent early, and sends it; else one chunk, so that a client that leaves
    /// is noticed.
    fn read_ahead(&mut self, cx: &mut task::Context<'_>) -> Result<bool, End> {
        let early = self.stream.may_send_early();
        let limit = match early {
            true => self.stream.sendable(),
            false if self.held.is_empty() => SMALL_CHUNK,
            false => 0,
        };
        if limit < WORTHWHILE_EARLY || self.local_end {
            return Ok(false);
        }
        match self.poll_application(limit, cx)? {
            Poll::Ready(Some(payload)) => {
                if early {
                    self.send(payload.clone())?;
                }
                self.held.push(payload);
            }
            Poll::Ready(None) => self.local_end = true,
            Poll::Pending => return Ok(false),
        }
        Ok(true)
    }

    /// `None`: it has sent its last byte.
    fn poll_application(
        &mut self,
        limit: usize,
        cx: &mut task::Context<'_>,
    ) -> Result<Poll<Option<Payload>>, End> {
        let Some(socket) = &mut self.socket else {
            return Ok(Poll::Pending);
        };
        match self.reader.poll_read(socket, limit, cx) {
            Poll::Ready(Ok(payload)) if payload.is_empty() => Ok(Poll::Ready(None)),
            Poll::Ready(Ok(payload)) => {
                self.open
                    .0
                    .from_application
                    .fetch_add(payload.len() as u64, Ordering::Relaxed);
                Ok(Poll::Ready(Some(payload)))
            }
            Poll::Ready(Err(error)) => Err(broken(&error)),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn tell_local_end(&mut self) -> Result<bool, End> {
        let Some(message) = self.stream.handle_local_end() else {
            return Ok(false);
        };
        self.tell(&message)?;
        if self.stream.is_lingering() {
            self.deadline = Some((Instant::now() + LINGER, Due::Lingered));
        }
        Ok(true)
    }

    fn send(&mut self, mut payload: Payload) -> Result<(), End> {
        let Some(to) = self.destination() else {
            return Err(path_lost());
        };
        let (header, used) = payload_header(payload.len());
        let message = Message {
            onward: to.clone(),
            back: Route::from(self.ctx.address()),
            payload: {
                self.stream.sent(payload.len());
                payload.prepend(&header[..used]);
                payload
            },
            local: Default::default(),
        };
        // If it cannot be sent the bytes are gone: the stream must not go on without them.
        self.ctx.forward(message).map_err(unsent)
    }

    fn tell(&mut self, message: &PortalMessage) -> Result<(), End> {
        match self.message(message) {
            Some(message) => self.ctx.forward(message).map_err(unsent),
            None => Ok(()),
        }
    }

    fn message(&self, message: &PortalMessage) -> Option<Message> {
        let to = self.destination()?;
        Some(Message::new(to, self.ctx.address(), message.encode()))
    }

    /// Before the Pong, everything goes to the outlet itself.
    fn destination(&self) -> Option<&Route> {
        let asked = self.asking.as_ref().map(|asking| &asking.route);
        self.remote.as_ref().or(asked)
    }

    /// Does what is due at this time. Whether there was something.
    fn keep_time(&mut self, cx: &mut task::Context<'_>) -> Result<bool, End> {
        let beats = self.connecting.is_none() && self.stream.is_open() && self.stream.has_window();
        let next = match self.deadline {
            Some((at, _)) if beats => at.min(self.beat),
            Some((at, _)) => at,
            None if beats => self.beat,
            None => return Ok(false),
        };
        if self.timer.deadline() != next {
            self.timer.as_mut().reset(next);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return Ok(false);
        }
        let deadline = self.deadline;
        match deadline {
            Some((at, Due::Written)) if at <= next && self.closing.is_none() => {
                // The application does not take the end of a wrapped stream; the other direction may go on.
                (self.remote_end, self.deadline) = (false, None);
                Ok(true)
            }
            Some((at, Due::Lingered)) if at <= next && !self.arrived.is_empty() && !self.is_full() => {
                // The application is slower than the path: what has arrived is still its own.
                self.remote_end = true;
                self.write_the_rest(End::Finished);
                Ok(true)
            }
            Some((at, Due::Stalled(looks))) if at <= next => self.look_at_stall(looks).map(|()| true),
            Some((at, due)) if at <= next => Err(self.overdue(due)),
            _ => self.give_sign_of_life().map(|()| true),
        }
    }

    fn overdue(&mut self, due: Due) -> End {
        match due {
            Due::Opened => {
                if let Some(connecting) = &self.connecting {
                    let limit = connecting.limit;
                    let late = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"));
                    return self.unreachable(&late);
                }
                let text = if self.ctx.has_unsent() {
                    "the outlet cannot be asked: the path to it takes nothing"
                } else {
                    "the outlet did not answer in time; its node, or the path to it, is down"
                };
                let failure = Some((FailureKind::NoAnswer, text.to_owned()));
                End::Silent { failure }
            }
            // The end of a stream that lacks its last bytes must not look like a clean one.
            Due::Lingered | Due::Written if !self.arrived.is_empty() => End::Silent {
                failure: Some((
                    FailureKind::Stalled,
                    format!(
                        "the application did not take the last {} bytes",
                        self.arrived.bytes()
                    ),
                )),
            },
            Due::Lingered => End::Finished,
            Due::Written => self.closing.take().map_or(End::Finished, |end| *end),
            Due::Stalled(looks) => {
                let time = LOOK * looks.into();
                let others = if time < STALL {
                    " while others waited behind it"
                } else {
                    ""
                };
                End::Local {
                    reason: Reason::Stalled,
                    kind: FailureKind::Stalled,
                    text: format!("the application took nothing for {time:?}{others}"),
                }
            }
        }
    }

    fn give_sign_of_life(&mut self) -> Result<(), End> {
        self.beat = Instant::now() + BEAT;
        // What has not left cannot have been answered.
        let heard = self.missed == 0 && !self.ctx.has_unsent();
        self.missed += 1;
        if self.missed > MISSED_BEATS {
            let text = format!("nothing was heard of the other end for {:?}", BEAT * MISSED_BEATS);
            return Err(End::Silent {
                failure: Some((FailureKind::PathLost, text)),
            });
        }
        match self.stream.handle_beat(heard) {
            Beat::Nothing => self.tell(&PortalMessage::Credit(0)),
            Beat::Tell(reclaim) => self.tell(&reclaim),
            Beat::Unanswered => Err(broken_protocol("the other end does not give unused credit back")),
        }
    }
}

fn broken(error: &io::Error) -> End {
    End::Local {
        reason: Reason::Reset,
        kind: FailureKind::Reset,
        text: format!("the application's connection broke: {error}"),
    }
}

fn broken_protocol(text: &str) -> End {
    End::Local {
        reason: Reason::Protocol,
        kind: FailureKind::Peer,
        text: text.to_owned(),
    }
}

fn stopped() -> End {
    End::Local {
        reason: Reason::Stopped,
        kind: FailureKind::Peer,
        text: "the portal was deleted or its node is stopping".to_owned(),
    }
}

fn denied(text: String) -> End {
    End::Local {
        reason: Reason::Denied,
        kind: FailureKind::Denied,
        text,
    }
}

fn path_lost() -> End {
    End::Silent {
        failure: Some((
            FailureKind::PathLost,
            "the connection or channel to the other end was lost".to_owned(),
        )),
    }
}

/// A message could not be sent.
fn unsent(error: SendError) -> End {
    if let SendError::Refused(refused) = &error
        && let Refusal::Outgoing(denial) = &refused.reason
    {
        return denied(denial.to_string());
    }
    End::Silent {
        failure: Some((FailureKind::PathLost, error.to_string())),
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

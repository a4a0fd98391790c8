//! One portal connection at one end: the worker that writes to the application's socket and the one that reads it.
//!
//! The writing worker owns the connection and the reading worker. Its mailbox holds what the other end has sent; the
//! window that we grant is smaller than what the mailbox holds, so a slow application never makes the channel wait.
//! With a stock peer, which knows no window, a full mailbox does make it wait; an application that takes nothing at
//! all meanwhile is closed after [`STALL`].

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use portolan_runtime::{
    AccessControl, Address, Capacity, Context, Envelope, MailboxOptions, Message, Payload, PeerIdentifier,
    Placement, Route, SendError, WorkerOptions,
};
use smallvec::SmallVec;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use crate::gate::{self, Pending, Signals};
use crate::protocol::{PortalMessage, Reason, payload_header};
use crate::socket::{Reading, Socket, Writing};
use crate::status::{FailureKind, Open, PortalStatus};
use crate::stream::{Event, MESSAGE_COST, Role, Stream, WINDOW};

/// How long an application may take nothing while its buffer is full, with a peer that knows no window.
pub(crate) const STALL: Duration = Duration::from_secs(30);
/// After our application's end, how long a stock peer may still send what is in flight.
const LINGER: Duration = Duration::from_secs(2);
/// How long the last bytes of an ended stream may take to be written.
const LAST_WRITE: Duration = Duration::from_secs(60);
/// Largest chunk: a pooled buffer full. Reads of it need few system calls and few records, see `benches/`.
const CHUNK: usize = portolan_runtime::payload::CHUNK;
/// Smallest chunk buffer, for interactive traffic.
const SMALL_CHUNK: usize = 4 * 1024;
/// Less credit than this is not worth a message of its own.
const WORTHWHILE: usize = 16 * 1024;
/// How often an end that knows windows gives a sign of life, a credit of nothing: through a relay nobody else would
/// tell that the other node is gone.
const BEAT: Duration = Duration::from_secs(10);
/// Beats without any message of the other end after which it is taken for dead.
const MISSED_BEATS: u32 = 3;
/// Index of the mailbox that only says goodbye.
const GOODBYE: usize = 1;
/// Payloads gathered into one write.
const GATHERED: usize = 64;

/// What may wait for a connection. The window fits, whatever the sizes of its messages, and there is room for hours of
/// control messages behind it, so that a peer that respects the window never fills it.
const QUEUE: Capacity = Capacity {
    messages: 2 * WINDOW as usize / MESSAGE_COST,
    bytes: WINDOW as usize + CHUNK,
};

/// What the two workers of a connection share.
struct Shared {
    core: Mutex<Stream>,
    /// Where the other end is, once known.
    remote: OnceLock<Route>,
    /// Told when the stream opens or gets credit.
    reader: Notify,
    signals: Arc<Signals>,
    status: Arc<PortalStatus>,
    /// The address that the other end sends to.
    own: Address,
}

/// Who may send to, and be sent to by, a connection.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) incoming: AccessControl,
    pub(crate) outgoing: AccessControl,
}

/// Prepares the addresses of a connection.
pub(crate) struct Blueprint {
    address: Address,
    signals: Arc<Signals>,
    rules: Rules,
}

impl Blueprint {
    pub(crate) fn new(rules: &Rules) -> Self {
        Self {
            address: Address::random(),
            signals: Arc::default(),
            rules: rules.clone(),
        }
    }

    pub(crate) fn options(&self, placement: Placement) -> WorkerOptions {
        WorkerOptions::with_mailbox(
            MailboxOptions::new(&self.address)
                .incoming(gate::incoming(&self.rules.incoming, &self.signals))
                .outgoing(gate::outgoing(&self.rules.outgoing, &self.signals)),
        )
        // That the stream is over may be told to whom nothing else may be sent any more.
        .mailbox(MailboxOptions::new(Address::random()).outgoing(AccessControl::AllowAll))
        .capacity(QUEUE)
        .placement(placement)
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }
}

/// What is known about the other end when a connection starts.
#[derive(Debug, Default)]
pub(crate) struct FarEnd {
    /// Where it is; an inlet learns that from the Pong.
    pub(crate) remote: Option<Route>,
    /// Who it is, for an outlet; an inlet learns that from the Pong.
    pub(crate) peer: Option<PeerIdentifier>,
    /// The connection or channel towards it: when that ends, so does the stream.
    pub(crate) first_hop: Option<Address>,
}

/// How a connection ends.
enum End {
    /// Both applications are done.
    Finished,
    /// The other end closed it; `clean` unless it gave a reason that says otherwise.
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

/// The owner of a connection.
pub(crate) struct Connection {
    ctx: Context,
    shared: Arc<Shared>,
    writing: Writing,
    frames: Vec<Payload>,
    path_lost: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The peer's identifier must stay what it was.
    peer: Option<PeerIdentifier>,
    pinned: bool,
    /// Whom it may be sent to.
    outgoing: AccessControl,
    /// Told when that may have changed.
    asked_again: watch::Receiver<()>,
    beat: Pin<Box<Sleep>>,
    /// Beats since the last message of the other end.
    missed: u32,
    _open: Open,
}

impl Connection {
    /// Makes the connection's parts; for an outlet the remote route is known already.
    pub(crate) fn start(
        ctx: Context,
        blueprint: Blueprint,
        socket: impl Into<Socket>,
        core: Stream,
        far: FarEnd,
        open: Open,
    ) -> portolan_runtime::Result<Self> {
        let (reading, writing) = socket.into().into_split();
        let FarEnd {
            remote,
            peer,
            first_hop,
        } = far;
        let path_lost: Pin<Box<dyn Future<Output = ()> + Send>> = match &first_hop {
            Some(hop) => Box::pin(ctx.node().ended(hop)),
            None => Box::pin(std::future::pending()),
        };
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            remote: remote.map(OnceLock::from).unwrap_or_default(),
            reader: Notify::new(),
            signals: Arc::clone(&blueprint.signals),
            status: Arc::clone(&open.0),
            own: blueprint.address.clone(),
        });
        let reader = Arc::clone(&shared);
        ctx.start_task(
            WorkerOptions::with_mailbox(
                MailboxOptions::new(Address::random())
                    .outgoing(gate::outgoing(&blueprint.rules.outgoing, &blueprint.signals)),
            ),
            move |ctx| async move {
                let stopping = ctx.stopping();
                tokio::select! {
                    biased;
                    () = stopping => {}
                    () = reader.read(ctx, reading) => {}
                }
            },
        )?;
        Ok(Self {
            ctx,
            shared,
            writing,
            frames: Vec::new(),
            path_lost,
            pinned: peer.is_some(),
            peer,
            outgoing: blueprint.rules.outgoing,
            asked_again: open.0.asked_again(),
            beat: Box::pin(sleep(BEAT)),
            missed: 0,
            _open: open,
        })
    }

    /// Runs the connection to its end. `deadline` is when the Pong must have come.
    pub(crate) async fn run(mut self, deadline: Option<Instant>) {
        let end = self.serve(deadline).await;
        let status = Arc::clone(&self.shared.status);
        let aborted = match end {
            End::Finished => false,
            End::Remote { failure } | End::Silent { failure } => {
                let aborted = failure.is_some();
                if let Some((kind, text)) = failure {
                    status.fail(kind, text);
                }
                aborted
            }
            End::Local { reason, kind, text } => {
                let tell = self.shared.core.lock().close(reason, &text);
                if let Some(message) = tell {
                    let _ = self.tell_from(GOODBYE, message);
                    self.ctx.flush().await;
                }
                status.fail(kind, text);
                true
            }
        };
        if aborted && self.shared.core.lock().has_carried_data() {
            self.writing.abort();
        }
    }

    async fn serve(&mut self, deadline: Option<Instant>) -> End {
        let mut deadline = deadline;
        loop {
            let waiting = deadline.is_some();
            let until = deadline.unwrap_or_else(Instant::now);
            let envelope = tokio::select! {
                biased;
                envelope = self.ctx.next() => envelope,
                pending = self.shared.signals.raised() => match self.consider(pending) {
                    Ok(linger) => {
                        if linger {
                            deadline = Some(Instant::now() + LINGER);
                        }
                        if self.shared.core.lock().is_finished() {
                            return End::Finished;
                        }
                        continue;
                    }
                    Err(end) => return end,
                },
                () = &mut self.path_lost => return path_lost(),
                Ok(()) = self.asked_again.changed() => match self.ask_rules() {
                    Ok(()) => continue,
                    Err(end) => return end,
                },
                () = &mut self.beat => {
                    self.missed += 1;
                    if let Err(end) = self.give_sign_of_life().await {
                        return end;
                    }
                    continue;
                }
                () = sleep_until(until), if waiting => {
                    if self.shared.core.lock().is_open() {
                        return End::Finished; // A stock peer has had its time after our end.
                    }
                    return End::Silent { failure: Some((
                        FailureKind::NoAnswer,
                        "the outlet did not answer in time; its node, or the path to it, is down".to_owned(),
                    )) };
                }
            };
            let Some(envelope) = envelope else {
                return End::Local {
                    reason: Reason::Stopped,
                    kind: FailureKind::Peer,
                    text: "the portal was deleted or its node is stopping".to_owned(),
                };
            };
            self.missed = 0;
            match self.receive(envelope).await {
                Ok(opened) => {
                    if opened {
                        deadline = None;
                    }
                }
                Err(end) => return end,
            }
        }
    }

    /// Whether the other end may still be spoken to.
    fn ask_rules(&self) -> Result<(), End> {
        let Some(remote) = self.shared.remote.get() else {
            return Ok(());
        };
        let message = Message::new(remote, &self.shared.own, Vec::new());
        self.ctx
            .check_outgoing(&self.outgoing, &message)
            .map_err(|denial| End::Local {
                reason: Reason::Denied,
                kind: FailureKind::Denied,
                text: denial.to_string(),
            })
    }

    async fn give_sign_of_life(&mut self) -> Result<(), End> {
        self.beat.as_mut().reset(Instant::now() + BEAT);
        let alive = {
            let core = self.shared.core.lock();
            core.is_open() && core.has_window()
        };
        if !alive {
            self.missed = 0;
            return Ok(());
        }
        if self.missed > MISSED_BEATS {
            let text = format!("nothing was heard of the other end for {:?}", BEAT * MISSED_BEATS);
            return Err(End::Silent {
                failure: Some((FailureKind::PathLost, text)),
            });
        }
        if self.tell(PortalMessage::Credit(0)).is_err() {
            return Err(path_lost());
        }
        self.ctx.flush().await;
        Ok(())
    }

    /// Looks at what the reader or a rule has signalled. `Ok(true)`: linger for a stock peer.
    fn consider(&mut self, pending: Pending) -> Result<bool, End> {
        if let Some(text) = pending.denied {
            return Err(End::Local {
                reason: Reason::Denied,
                kind: FailureKind::Denied,
                text,
            });
        }
        if let Some(text) = pending.broken {
            let text = format!("the application's connection broke: {text}");
            return Err(End::Local {
                reason: Reason::Reset,
                kind: FailureKind::Reset,
                text,
            });
        }
        if let Some(text) = pending.unsent {
            return Err(End::Silent {
                failure: Some((FailureKind::PathLost, text)),
            });
        }
        Ok(pending.local_end && self.shared.core.lock().is_lingering())
    }

    /// Handles a message and those that wait behind it. `Ok(true)` when the stream has just opened.
    async fn receive(&mut self, envelope: Envelope) -> Result<bool, End> {
        let mut opened = false;
        let mut next = Some(envelope);
        while let Some(Envelope { message, .. }) = next.take() {
            match self.interpret(message)? {
                Event::Opened => opened = true,
                Event::Data { .. } if self.frames.len() < GATHERED => {
                    next = self.ctx.try_next();
                    continue;
                }
                Event::Data { .. } | Event::Ignored => {}
                Event::Credit => self.shared.reader.notify_one(),
                Event::RemoteEnd => {
                    self.write().await?;
                    self.end_writing().await;
                    if self.shared.core.lock().is_finished() {
                        return Err(End::Finished);
                    }
                }
                Event::Closed(reason) => {
                    let failure = self.blame(reason);
                    if failure.is_none() {
                        // All that came before the end is still delivered.
                        let _ = timeout(LAST_WRITE, self.write()).await;
                        self.end_writing().await;
                    }
                    return Err(End::Remote { failure });
                }
            }
        }
        self.write().await?;
        Ok(opened)
    }

    fn interpret(&mut self, mut message: Message) -> Result<Event, End> {
        if message.onward.len() != 1 {
            return Ok(Event::Ignored); // Nothing lies behind this worker (spec 01 §10.4).
        }
        let peer = message.peer().map(|peer| peer.identifier);
        if self.shared.remote.get().is_some() && self.pinned && peer != self.peer {
            tracing::warn!("a portal message of another identity is ignored");
            return Ok(Event::Ignored);
        }
        let event = match self.shared.core.lock().handle_message(message.payload.as_slice()) {
            Ok(event) => event,
            Err(error) => {
                tracing::debug!("a portal message is ignored: {error}");
                return Ok(Event::Ignored);
            }
        };
        match &event {
            Event::Opened => {
                (self.peer, self.pinned) = (peer, true);
                let _ = self.shared.remote.set(std::mem::take(&mut message.back));
                self.shared.reader.notify_one();
            }
            Event::Data { start, end } if end > start => {
                message.payload.truncate(*end);
                message.payload.strip_front(*start);
                self.frames.push(message.payload);
            }
            _ => {}
        }
        Ok(event)
    }

    /// What the peer's reason says about whose fault it is; `None` for a clean end.
    fn blame(&self, reason: Option<(Reason, String)>) -> Option<(FailureKind, String)> {
        let (reason, text) = match reason {
            None if self.shared.core.lock().has_carried_data()
                || self.shared.core.lock().role() == Role::Outlet =>
            {
                return None;
            }
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

    /// Writes all that was received, and grants credit for it.
    async fn write(&mut self) -> Result<(), End> {
        let mut first = 0;
        let mut written_of_first = 0;
        let mut stalled_since = Instant::now();
        while first < self.frames.len() {
            let written = {
                let slices: SmallVec<[IoSlice<'_>; GATHERED]> = self.frames[first..]
                    .iter()
                    .map(|frame| IoSlice::new(frame.as_slice()))
                    .collect();
                self.writing.try_write_vectored(&slices)
            };
            let mut written = match written {
                Ok(0) => return Err(broken(&io::ErrorKind::WriteZero.into())),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_writable(stalled_since).await?;
                    continue;
                }
                Err(error) => return Err(broken(&error)),
            };
            stalled_since = Instant::now();
            self.shared
                .status
                .to_application
                .fetch_add(written as u64, Ordering::Relaxed);
            while first < self.frames.len() && written >= self.frames[first].len() {
                let length = self.frames[first].len();
                written -= length;
                self.frames[first] = Payload::new();
                first += 1;
                let credit = self
                    .shared
                    .core
                    .lock()
                    .delivered(length + std::mem::take(&mut written_of_first));
                if let Some(credit) = credit
                    && self.tell(credit).is_err()
                {
                    return Err(path_lost());
                }
            }
            if written > 0 {
                self.frames[first].strip_front(written);
                written_of_first += written;
            }
        }
        self.frames.clear();
        while let Err(error) = self.writing.try_flush() {
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(broken(&error));
            }
            self.wait_writable(stalled_since).await?;
        }
        if self.ctx.has_unsent() {
            self.ctx.flush().await;
        }
        Ok(())
    }

    async fn wait_writable(&mut self, stalled_since: Instant) -> Result<(), End> {
        loop {
            let has_window = self.shared.core.lock().has_window();
            tokio::select! {
                biased;
                ready = self.writing.writable() => return ready.map_err(|error| broken(&error)),
                pending = self.shared.signals.raised() => { self.consider(pending)?; }
                () = &mut self.path_lost => return Err(path_lost()),
                Ok(()) = self.asked_again.changed() => self.ask_rules()?,
                // What the other end has sent waits behind the application: its beats do not count meanwhile.
                () = &mut self.beat => {
                    // It must not make the channel, which others use too, wait for our application.
                    if has_window && self.ctx.is_waited_for() {
                        return Err(End::Local {
                            reason: Reason::Protocol,
                            kind: FailureKind::Peer,
                            text: "the other end sends more than the window allows".to_owned(),
                        });
                    }
                    self.give_sign_of_life().await?;
                }
                () = sleep_until(stalled_since + STALL), if !has_window => {
                    return Err(End::Local {
                        reason: Reason::Stalled,
                        kind: FailureKind::Stalled,
                        text: format!("the application took nothing for {STALL:?} while others waited behind it"),
                    });
                }
            }
        }
    }

    async fn end_writing(&mut self) {
        // A wrapped stream has something to say at its end, which the application may not take.
        let _ = timeout(LAST_WRITE, self.writing.shutdown()).await;
    }

    fn tell(&mut self, message: PortalMessage) -> Result<(), SendError> {
        self.tell_from(0, message)
    }

    fn tell_from(&mut self, index: usize, message: PortalMessage) -> Result<(), SendError> {
        let Some(remote) = self.shared.remote.get() else {
            return Ok(());
        };
        self.ctx
            .forward_from(index, Message::new(remote, &self.shared.own, message.encode()))
    }
}

fn broken(error: &io::Error) -> End {
    End::Local {
        reason: Reason::Reset,
        kind: FailureKind::Reset,
        text: format!("the application's connection broke: {error}"),
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

impl Shared {
    /// The reading worker.
    async fn read(&self, mut ctx: Context, mut reading: Reading) {
        let mut size = SMALL_CHUNK;
        let mut held: Option<Payload> = None;
        // Before the Pong one chunk is read ahead, so that a client that leaves is noticed.
        let remote = loop {
            if let Some(remote) = self.remote.get() {
                break remote.clone();
            }
            tokio::select! {
                () = self.reader.notified() => {}
                chunk = read_chunk(&mut reading, SMALL_CHUNK, usize::MAX), if held.is_none() => match chunk {
                    Ok(chunk) if !chunk.is_empty() => held = Some(chunk),
                    Ok(_) => break self.wait_for_remote().await,
                    Err(error) => return self.signals.raise(|state| state.broken = Some(error.to_string())),
                },
            }
        };
        loop {
            let sendable = self.core.lock().sendable();
            if sendable < WORTHWHILE {
                if self.core.lock().is_finished() {
                    return;
                }
                self.reader.notified().await;
                continue;
            }
            let chunk = match held.take() {
                Some(chunk) => Ok(chunk),
                None => read_chunk(&mut reading, size, sendable).await,
            };
            let mut payload = match chunk {
                Ok(payload) => payload,
                Err(error) => return self.signals.raise(|state| state.broken = Some(error.to_string())),
            };
            let length = payload.len();
            if length == 0 {
                let message = self.core.lock().handle_local_end();
                if let Some(message) = message {
                    let _ = ctx.forward(Message::new(&remote, &self.own, message.encode()));
                    ctx.flush().await;
                }
                return self.signals.raise(|state| state.local_end = true);
            }
            if length >= size && size < CHUNK {
                size = (size * 8).min(CHUNK);
            } else if length < size / 16 {
                size = (size / 8).max(SMALL_CHUNK);
            }
            self.core.lock().sent(length);
            self.status
                .from_application
                .fetch_add(length as u64, Ordering::Relaxed);
            let (header, used) = payload_header(length);
            payload.prepend(&header[..used]);
            let message = Message {
                onward: remote.clone(),
                back: Route::from(&self.own),
                payload,
                local: Default::default(),
            };
            if let Err(error) = ctx.forward(message) {
                // The bytes are gone: the stream must not go on without them.
                return self.signals.raise(|state| state.unsent = Some(error.to_string()));
            }
            if ctx.has_unsent() {
                ctx.flush().await;
            }
        }
    }

    /// The client ended its direction before the Pong: a half-close that is sent on once there is somebody to tell.
    async fn wait_for_remote(&self) -> Route {
        loop {
            if let Some(remote) = self.remote.get() {
                return remote.clone();
            }
            self.reader.notified().await;
        }
    }
}

/// Reads once, at most `limit` bytes. Empty at the end of the stream.
async fn read_chunk(reading: &mut Reading, size: usize, limit: usize) -> io::Result<Payload> {
    let make = || {
        if size >= CHUNK {
            Payload::pooled()
        } else {
            Payload::with_capacity(size)
        }
    };
    reading.read(limit.min(size), make).await
}

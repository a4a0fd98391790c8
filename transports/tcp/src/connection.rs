//! The two workers of a connection.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::BufMut;
use portolan_runtime::payload::POOLED_CAPACITY;
use portolan_runtime::{
    AccessControl, Address, Capacity, Context, Flow, MAX_HOPS, MailboxOptions, Message, Node, Payload,
    Placement, Stage, WorkerOptions, wire,
};
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::buffer::ReceiveBuffer;
use crate::frame::{self, FrameError, HEADER, MAX_FRAME, Progress, VERSION};
use crate::options::TcpOptions;

/// Messages and bytes that may wait to be written.
const WRITE_QUEUE: Capacity = Capacity {
    messages: 256,
    bytes: 2 * 1024 * 1024,
};
/// Frames and bytes gathered into one write.
const GATHERED_FRAMES: usize = 64;
const GATHERED_BYTES: usize = 1024 * 1024;
/// After the peer has ended its direction, answers that are on their way may still be written: until nothing came for
/// this long.
const LINGER_IDLE: Duration = Duration::from_millis(200);
/// And at most this long.
const LINGER: Duration = Duration::from_secs(5);
/// Frames from this size on are read into a buffer of their own.
const LARGE_FRAME: usize = 32 * 1024;
/// How often a sender whose peer takes nothing looks whether others wait for that.
const LOOK: Duration = Duration::from_millis(500);
/// Silence after which an empty receive buffer is given back.
const BUFFER_IDLE: Duration = Duration::from_millis(500);

/// What both workers and whoever lists connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) sender: Address,
    pub(crate) receiver: Address,
    pub(crate) flow: Arc<Flow>,
    /// The peer's socket address, as given when connecting.
    pub(crate) peer: String,
    /// Counts those that were closed because others waited behind them.
    held_up: Arc<AtomicU64>,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// Told by the receiver when nothing more will come.
    peer_done: Notify,
}

/// Why a receiver ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the peer closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Decode(#[from] portolan_runtime::DecodeError),
    #[error("the peer took longer than {0:?} for {1}")]
    Timeout(Duration, &'static str),
}

impl Shared {
    pub(crate) fn new(
        node: &Node,
        spawner: Option<&Arc<Flow>>,
        peer: String,
        held_up: Arc<AtomicU64>,
    ) -> Arc<Self> {
        Arc::new(Self {
            sender: Address::random(),
            receiver: Address::random(),
            flow: node.new_flow(spawner),
            peer,
            held_up,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            peer_done: Notify::new(),
        })
    }

    /// Starts the workers of a connection. `done` is dropped when the connection is over.
    pub(crate) fn start<D: Send + 'static>(
        self: &Arc<Self>,
        node: &Node,
        stream: std::net::TcpStream,
        options: Arc<TcpOptions>,
        placement: Placement,
        done: D,
    ) -> portolan_runtime::Result<()> {
        let shared = Arc::clone(self);
        let sender = MailboxOptions::new(&self.sender)
            .incoming(AccessControl::AllowAll)
            .terminal()
            .flow_alias(Arc::clone(&self.flow));
        node.start_task(
            WorkerOptions::with_mailbox(sender)
                .capacity(WRITE_QUEUE)
                .room_for_transit()
                .stage(Stage::Transport)
                .placement(placement),
            move |mut ctx| async move {
                match shared.run(&mut ctx, stream, options).await {
                    Ok(()) => {}
                    Err(error) if error.get_ref().is_some_and(|inner| inner.is::<HeldUp>()) => {
                        shared.held_up.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(sender = %shared.sender, peer = shared.peer, "a TCP connection is closed: {error}");
                    }
                    Err(error) => {
                        tracing::debug!(sender = %shared.sender, "a TCP connection ends: {error}");
                    }
                }
                // Before the context, with which the worker has ended.
                drop(done);
            },
        )?;
        Ok(())
    }

    async fn run(
        self: &Arc<Self>,
        ctx: &mut Context,
        stream: std::net::TcpStream,
        options: Arc<TcpOptions>,
    ) -> io::Result<()> {
        let (reading, writing) = TcpStream::from_std(stream)?.into_split();
        let receiver = MailboxOptions::new(&self.receiver)
            .outgoing(AccessControl::AllowAll)
            .producer(Arc::clone(&self.flow));
        let (shared, limits) = (Arc::clone(self), Arc::clone(&options));
        ctx.start_task(
            WorkerOptions::with_mailbox(receiver)
                .stage(Stage::Transport)
                .transit(),
            move |mut ctx| async move {
                let stopping = ctx.stopping();
                let end = tokio::select! {
                    biased;
                    () = stopping => return,
                    end = shared.receive(&mut ctx, reading, &limits) => end,
                };
                if let Err(error) = end {
                    tracing::debug!(sender = %shared.sender, "a TCP receiver ends: {error}");
                }
                shared.peer_done.notify_one();
            },
        )
        .map_err(io::Error::other)?;
        self.send(ctx, writing, &options).await
    }

    async fn receive(
        &self,
        ctx: &mut Context,
        mut reading: OwnedReadHalf,
        options: &TcpOptions,
    ) -> Result<(), End> {
        let mut buffer = ReceiveBuffer::new();
        let mut version_seen = false;
        let mut waited = Duration::ZERO;
        loop {
            let mut begun = None;
            loop {
                if !version_seen {
                    match buffer.received().first() {
                        None => break,
                        Some(&VERSION) => {
                            buffer.take(1);
                            version_seen = true;
                        }
                        Some(&other) => return Err(FrameError::Version(other).into()),
                    }
                }
                let limit = if self.flow.is_authenticated() {
                    options.frame_limit
                } else {
                    options.stranger_frame_limit
                };
                match frame::check(buffer.received(), limit)? {
                    Progress::Complete(total) => {
                        waited = Duration::ZERO;
                        self.deliver(ctx, buffer.take_frame(total))?;
                        if ctx.has_unsent() {
                            ctx.flush().await;
                        }
                    }
                    Progress::Partial(total)
                        if (LARGE_FRAME..POOLED_CAPACITY).contains(&total)
                            && self.flow.is_authenticated() =>
                    {
                        let begun = buffer.take(buffer.received().len());
                        let allowed = options.allowance(total);
                        let Some(frame) = self
                            .read_large(&mut reading, &begun, total, allowed, &mut waited)
                            .await?
                        else {
                            return Err(End::Closed);
                        };
                        waited = Duration::ZERO;
                        buffer.expect_header();
                        self.deliver(ctx, frame)?;
                        if ctx.has_unsent() {
                            ctx.flush().await;
                        }
                    }
                    Progress::Partial(total) => {
                        begun = Some(total);
                        break;
                    }
                    Progress::Header => break,
                }
            }
            let allowed = if !version_seen || !buffer.received().is_empty() {
                options.allowance(begun.unwrap_or(0))
            } else if self.flow.is_authenticated() {
                Duration::MAX
            } else {
                options.stranger_idle_timeout
            };
            let count = read(&mut reading, &mut buffer, begun, allowed, &mut waited).await?;
            if count == 0 {
                return Err(End::Closed);
            }
            self.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
            buffer.note_read(count);
        }
    }

    /// Reads the rest of a frame of an authenticated peer into a pooled buffer of its own, with head and tail room: a
    /// relay sends it on under longer headers. `None` at the end of the stream.
    async fn read_large(
        &self,
        reading: &mut OwnedReadHalf,
        begun: &[u8],
        total: usize,
        allowed: Duration,
        waited: &mut Duration,
    ) -> Result<Option<Payload>, End> {
        let mut frame = Payload::pooled();
        frame.append(begun);
        while frame.len() < total {
            let missing = total - frame.len();
            let mut space = frame.buffer_mut().limit(missing);
            let waiting = Waiting {
                pause: Duration::MAX,
                allowed,
                what: "the rest of a frame",
            };
            match receive_some(reading, &mut space, waiting, waited).await? {
                Some(0) => return Ok(None),
                count => {
                    self.bytes_in
                        .fetch_add(count.unwrap_or_default() as u64, Ordering::Relaxed);
                }
            }
        }
        Ok(Some(frame))
    }

    /// Hands one message on. Only what is malformed is an error; that nobody takes it is not the peer's business.
    fn deliver(&self, ctx: &mut Context, mut payload: Payload) -> Result<(), End> {
        let decoded = wire::decode(&payload.as_slice()[HEADER..])?;
        if decoded.onward.is_empty() {
            return Ok(()); // A heartbeat (spec 01 §6.4).
        }
        payload.strip_front(HEADER + decoded.payload.start);
        payload.truncate(decoded.payload.len());
        let mut message = Message {
            onward: decoded.onward,
            back: decoded.back,
            payload,
            local: Default::default(),
        };
        message.back.prepend(self.sender.clone());
        // The router has counted and logged what it refused.
        let _ = ctx.forward(message);
        Ok(())
    }

    async fn send(
        &self,
        ctx: &mut Context,
        mut writing: OwnedWriteHalf,
        options: &TcpOptions,
    ) -> io::Result<()> {
        write_all(&mut writing, &[VERSION], options.write_timeout).await?;
        let mut head = Vec::with_capacity(256);
        let mut frames: Vec<Payload> = Vec::new();
        let mut peer_done: Option<Instant> = None;
        let mut done = pin!(self.peer_done.notified());
        loop {
            let next = match ctx.try_next() {
                Some(next) => Some(next),
                None => tokio::select! {
                    biased;
                    next = ctx.next_even_when_stopping() => next,
                    () = &mut done, if peer_done.is_none() => {
                        peer_done = Some(Instant::now());
                        continue;
                    }
                    () = linger(peer_done) => None,
                },
            };
            let Some(envelope) = next else {
                break;
            };
            let mut bytes = 0;
            let mut envelope = Some(envelope);
            while let Some(next) = envelope {
                if let Some(frame) = encode(next.message, &mut head) {
                    bytes += frame.len();
                    frames.push(frame);
                }
                envelope = if frames.len() < GATHERED_FRAMES && bytes < GATHERED_BYTES {
                    ctx.try_next()
                } else {
                    None
                };
            }
            write_frames(ctx, &mut writing, &mut frames, options).await?;
            self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
            if frames.capacity() > GATHERED_FRAMES {
                frames = Vec::new();
            }
            if peer_done.is_some_and(|since| since.elapsed() > LINGER) {
                break;
            }
        }
        timeout(LINGER, writing.shutdown()).await.unwrap_or(Ok(()))
    }
}

/// How long answers may still come after the peer has ended its direction.
async fn linger(peer_done: Option<Instant>) {
    match peer_done {
        Some(_) => tokio::time::sleep(LINGER_IDLE).await,
        None => std::future::pending().await,
    }
}

/// Turns a message into a frame, around its payload. `None` if it is too long for the protocol: then this message
/// alone is lost, not the connection, since its origin may be somebody else than those who use the connection.
fn encode(mut message: Message, head: &mut Vec<u8>) -> Option<Payload> {
    message.onward.step();
    if message.onward.len() > MAX_HOPS || message.back.len() > MAX_HOPS {
        // The peer's decoder would close the connection, which others use too.
        tracing::debug!("a message with more than {MAX_HOPS} hops is dropped");
        return None;
    }
    head.clear();
    head.extend_from_slice(&[0; HEADER]);
    wire::put_message_head(
        head,
        message.onward.as_slice(),
        message.back.as_slice(),
        message.payload.len(),
    );
    let length = head.len() - HEADER + message.payload.len();
    if length > MAX_FRAME {
        tracing::warn!("a message of {length} bytes is too long for TCP (limit {MAX_FRAME}) and is dropped");
        return None;
    }
    head[..HEADER].copy_from_slice(&(length as u32).to_be_bytes());
    message.payload.prepend(head);
    Some(std::mem::take(&mut message.payload))
}

/// One read. `waited` sums up the time that the peer has kept us waiting since its last complete frame.
async fn read(
    reading: &mut OwnedReadHalf,
    buffer: &mut ReceiveBuffer,
    begun: Option<usize>,
    allowed: Duration,
    waited: &mut Duration,
) -> Result<usize, End> {
    loop {
        let pause = if buffer.is_large() {
            BUFFER_IDLE
        } else {
            Duration::MAX
        };
        let what = if begun.is_some() {
            "the rest of a frame"
        } else {
            "its next bytes"
        };
        let waiting = Waiting { pause, allowed, what };
        let limit = buffer.read_limit();
        let mut space = buffer.for_reading(begun).limit(limit);
        match receive_some(reading, &mut space, waiting, waited).await? {
            Some(count) => return Ok(count),
            None => buffer.release(),
        }
    }
}

/// How long to wait for bytes, and for which.
struct Waiting {
    /// After this there shall be something else to do.
    pause: Duration,
    /// After this the peer has taken too long.
    allowed: Duration,
    what: &'static str,
}

/// Reads once; `None` after the pause. One system call, unless it has to wait: tokio takes a read that does not fill
/// the space for a sign that the socket is empty, and asks it again only when it has said that there is more.
async fn receive_some(
    reading: &mut OwnedReadHalf,
    space: &mut impl BufMut,
    waiting: Waiting,
    waited: &mut Duration,
) -> Result<Option<usize>, End> {
    let mut attempt = pin!(reading.read_buf(space));
    // First without a timer.
    if let Poll::Ready(result) = poll_fn(|cx| Poll::Ready(attempt.as_mut().poll(cx))).await {
        return Ok(Some(result?));
    }
    let left = match waiting.allowed {
        Duration::MAX => Duration::MAX,
        allowed => allowed.saturating_sub(*waited),
    };
    let limit = left.min(waiting.pause);
    if limit == Duration::MAX {
        return Ok(Some(attempt.await?));
    }
    let since = Instant::now();
    let result = timeout(limit, attempt).await;
    *waited += since.elapsed();
    match result {
        Ok(count) => Ok(Some(count?)),
        Err(_) if limit < left => Ok(None),
        Err(_) => Err(End::Timeout(waiting.allowed, waiting.what)),
    }
}

async fn write_all(writing: &mut OwnedWriteHalf, bytes: &[u8], limit: Duration) -> io::Result<()> {
    timeout(limit, writing.write_all(bytes))
        .await
        .unwrap_or_else(|_| Err(stalled(limit)))
}

fn stalled(limit: Duration) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("the peer took no byte for {limit:?}"),
    )
}

/// The peer takes nothing, and others wait for that.
#[derive(Debug, thiserror::Error)]
#[error(
    "the peer took no byte for {0:?} while others waited behind it: its node stands still, or cannot be reached"
)]
struct HeldUp(Duration);

/// Waits for the peer to take something, as long as it may take nothing.
async fn await_room<F: Future<Output = io::Result<usize>>>(
    ctx: &Context,
    mut attempt: Pin<&mut F>,
    look: &Cell<bool>,
    options: &TcpOptions,
) -> io::Result<usize> {
    let since = Instant::now();
    loop {
        let waited = since.elapsed();
        if waited >= options.write_timeout {
            return Err(stalled(options.write_timeout));
        }
        if waited >= options.hold_up_timeout && ctx.holds_up_transit() {
            return Err(io::Error::other(HeldUp(options.hold_up_timeout)));
        }
        let pause = LOOK
            .min(options.hold_up_timeout)
            .min(options.write_timeout - waited);
        if let Ok(result) = timeout(pause, attempt.as_mut()).await {
            return result;
        }
        look.set(true);
    }
}

async fn write_frames(
    ctx: &Context,
    writing: &mut OwnedWriteHalf,
    frames: &mut Vec<Payload>,
    options: &TcpOptions,
) -> io::Result<()> {
    let mut first = 0;
    while first < frames.len() {
        let mut written = {
            let slices: SmallVec<[IoSlice<'_>; GATHERED_FRAMES]> = frames[first..]
                .iter()
                .map(|frame| IoSlice::new(frame.as_slice()))
                .collect();
            let look = Cell::new(false);
            let mut attempt = pin!(poll_fn(|cx| {
                let polled = match slices.as_slice() {
                    [one] => Pin::new(&mut *writing).poll_write(cx, one),
                    all => Pin::new(&mut *writing).poll_write_vectored(cx, all),
                };
                match polled {
                    // The kernel tells of room when a third of the buffer is free. A slow peer that reads takes longer for that.
                    Poll::Pending if look.take() => {
                        let stream: &TcpStream = (*writing).as_ref();
                        match SockRef::from(stream).send_vectored(&slices) {
                            Ok(0) => Poll::Pending,
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                            result => Poll::Ready(result),
                        }
                    }
                    polled => polled,
                }
            }));
            // First without a timer: nearly always there is room.
            match poll_fn(|cx| Poll::Ready(attempt.as_mut().poll(cx))).await {
                Poll::Ready(result) => result?,
                Poll::Pending => await_room(ctx, attempt, &look, options).await?,
            }
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while first < frames.len() && written >= frames[first].len() {
            written -= frames[first].len();
            // Its buffer is free from now on.
            frames[first] = Payload::new();
            first += 1;
        }
        if written > 0 {
            frames[first].strip_front(written);
        }
    }
    frames.clear();
    Ok(())
}

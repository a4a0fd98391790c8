//! The two workers that a connection has at each end, as a TCP connection has them: one sends, one receives.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portolan_runtime::{
    AccessControl, Address, Capacity, Context, Flow, MAX_HOPS, MailboxOptions, Message, Node, Payload,
    Result, Stage, WorkerOptions, wire,
};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::link::{Arrival, End, Flight, Mode};
use crate::network::Network;

/// Messages and bytes that may wait to be sent, as over TCP.
const WRITE_QUEUE: Capacity = Capacity {
    messages: 256,
    bytes: 2 * 1024 * 1024,
};
/// The longest message, in bytes, as over TCP: longer ones are dropped.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// How long a peer may take nothing while what came over other connections waits behind it, as over TCP; and how often is looked.
const HOLD_UP: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(500);
/// How long an end that closes waits for room for what it has still to say.
const LINGER: Duration = Duration::from_secs(5);

/// One direction of a connection.
pub(crate) struct Pipe {
    pub(crate) number: u64,
    pub(crate) from: Arc<str>,
    pub(crate) to: Arc<str>,
    pub(crate) flight: Mutex<Flight>,
    /// Told when the receiver should look again.
    pub(crate) arrival: Notify,
    /// Told when the sender should look again.
    pub(crate) room: Notify,
}

impl Pipe {
    pub(crate) fn new(number: u64, from: &Arc<str>, to: &Arc<str>, mode: Mode) -> Self {
        Self {
            number,
            from: Arc::clone(from),
            to: Arc::clone(to),
            flight: Mutex::new(Flight::new(mode)),
            arrival: Notify::new(),
            room: Notify::new(),
        }
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}→{} #{}", self.from, self.to, self.number)
    }
}

/// A connection to another node. A handle: dropping it changes nothing, see [`Connection::close_on_drop`].
#[derive(Debug, Clone)]
pub struct Connection {
    node: Node,
    peer: Arc<str>,
    sender: Address,
    receiver: Address,
    flow: Arc<Flow>,
}

impl Connection {
    /// The address that stands in routes: what is sent there goes to the peer.
    pub fn sender(&self) -> &Address {
        &self.sender
    }

    /// The address from which received messages come.
    pub fn receiver(&self) -> &Address {
        &self.receiver
    }

    /// The flow of received messages: make its consumers what the peer shall reach.
    pub fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// The name of the node at the other end.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Whether this end is open.
    pub fn is_open(&self) -> bool {
        self.node.has_worker(&self.sender)
    }

    /// Waits until this end has ended.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.node.ended(&self.sender)
    }

    /// Closes the connection, after what waits to be sent.
    pub fn close(&self) {
        let _ = self.node.stop_worker(&self.sender);
    }

    /// Closes the connection when it is dropped: for what a session keeps.
    #[must_use]
    pub fn close_on_drop(&self) -> CloseOnDrop {
        CloseOnDrop(self.clone())
    }
}

/// Closes a connection when dropped.
#[derive(Debug)]
pub struct CloseOnDrop(Connection);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The two directions of a connection, as one end has them.
pub(crate) struct Ends {
    pub(crate) network: Network,
    pub(crate) outgoing: Arc<Pipe>,
    pub(crate) incoming: Arc<Pipe>,
}

/// Starts the workers of one end: they are there when this returns. `done` is dropped when that is over.
pub(crate) fn start<D: Send + 'static>(
    node: &Node,
    spawner: Option<&Arc<Flow>>,
    ends: Ends,
    done: D,
) -> Result<Connection> {
    let flow = node.new_flow(spawner);
    let (sender, receiver) = (Address::random(), Address::random());
    let mailbox = MailboxOptions::new(&sender)
        .incoming(AccessControl::AllowAll)
        .terminal()
        .flow_alias(Arc::clone(&flow));
    let connection = Connection {
        node: node.clone(),
        peer: Arc::clone(&ends.outgoing.to),
        sender,
        receiver: receiver.clone(),
        flow: Arc::clone(&flow),
    };
    let Ends {
        network,
        outgoing,
        incoming,
    } = ends;
    let receiving = Receiving {
        network: network.clone(),
        pipe: incoming,
        sender: connection.sender.clone(),
    };
    node.start_task(
        WorkerOptions::with_mailbox(mailbox)
            .capacity(WRITE_QUEUE)
            .room_for_transit()
            .stage(Stage::Transport),
        move |mut ctx| async move {
            let end = send(&mut ctx, &network, &outgoing).await;
            network.finish(&outgoing, end);
            // Before the context, with which the worker has ended.
            drop(done);
        },
    )?;
    let mailbox = MailboxOptions::new(&receiver)
        .outgoing(AccessControl::AllowAll)
        .producer(flow);
    node.start_task_of(
        &connection.sender,
        WorkerOptions::with_mailbox(mailbox)
            .stage(Stage::Transport)
            .transit(),
        move |ctx| receiving.run(ctx),
    )?;
    Ok(connection)
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Sends what comes, until the worker is stopped or what it sends does not arrive.
async fn send(ctx: &mut Context, network: &Network, pipe: &Pipe) -> End {
    let mut closing = None;
    loop {
        let envelope = tokio::select! {
            biased;
            envelope = ctx.next_even_when_stopping() => envelope,
            // Something has arrived, and what came after it has the same time again.
            () = pipe.room.notified() => continue,
            () = at(network.gives_up(pipe)) => return End::Reset,
        };
        let Some(envelope) = envelope else {
            return End::Closed;
        };
        let Some(bytes) = encode(envelope.message) else {
            continue;
        };
        let mut since = Instant::now();
        while !pipe.flight.lock().has_room() {
            if since.elapsed() >= HOLD_UP && ctx.holds_up_transit() {
                return End::Reset;
            }
            if ctx.is_stopping() && closing.is_none() {
                closing = Some(Instant::now() + LINGER);
            }
            tokio::select! {
                biased;
                () = pipe.room.notified() => since = Instant::now(),
                () = sleep(LOOK) => {}
                () = at(closing) => return End::Reset,
                () = ctx.stopping(), if closing.is_none() => {}
                () = at(network.gives_up(pipe)) => return End::Reset,
            }
        }
        network.transmit(pipe, bytes);
    }
}

/// A message in bytes; nothing if no transport would carry it.
fn encode(mut message: Message) -> Option<Vec<u8>> {
    message.onward.step();
    if message.onward.len() > MAX_HOPS || message.back.len() > MAX_HOPS {
        tracing::debug!("a message with more than {MAX_HOPS} hops is dropped");
        return None;
    }
    let mut bytes = Vec::with_capacity(256 + message.payload.len());
    wire::put_message_head(
        &mut bytes,
        message.onward.as_slice(),
        message.back.as_slice(),
        message.payload.len(),
    );
    bytes.extend_from_slice(message.payload.as_slice());
    if bytes.len() > MAX_MESSAGE {
        tracing::warn!(
            "a message of {} bytes is too long (limit {MAX_MESSAGE}) and is dropped",
            bytes.len()
        );
        return None;
    }
    Some(bytes)
}

/// The receiving worker.
struct Receiving {
    network: Network,
    pipe: Arc<Pipe>,
    sender: Address,
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let mut flight = self.pipe.flight.lock();
        flight.unheard = true;
        flight.drop_frames();
        drop(flight);
        self.pipe.room.notify_one();
    }
}

impl Receiving {
    async fn run(self, mut ctx: Context) {
        let stopping = ctx.stopping();
        tokio::pin!(stopping);
        loop {
            let next = match self.network.arrive(&self.pipe) {
                Arrival::Frame(bytes) => {
                    if !self.deliver(&mut ctx, &bytes) {
                        break;
                    }
                    if ctx.has_unsent() {
                        ctx.flush().await;
                    }
                    if ctx.is_stopping() {
                        return;
                    }
                    continue;
                }
                Arrival::End(_) => break,
                Arrival::At(time) => Some(time),
                Arrival::Nothing => None,
            };
            tokio::select! {
                biased;
                () = &mut stopping => return,
                () = self.pipe.arrival.notified() => {}
                () = at(next) => {}
            }
        }
        let _ = ctx.node().stop_worker(&self.sender);
    }

    /// Hands one message on. `false` if it is malformed; that nobody takes it is not the peer's business.
    fn deliver(&self, ctx: &mut Context, bytes: &[u8]) -> bool {
        let decoded = match wire::decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => {
                tracing::debug!("a connection ends: {error}");
                return false;
            }
        };
        let mut message = Message::new(
            decoded.onward,
            decoded.back,
            Payload::copy_from(&bytes[decoded.payload]),
        );
        if !message.onward.is_empty() {
            message.back.prepend(self.sender.clone());
            // The router has counted and logged what it refused.
            let _ = ctx.forward(message);
        }
        true
    }
}

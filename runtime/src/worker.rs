//! The ways to write a worker, and where it is started.

use std::sync::Arc;

use crate::Address;
use crate::access::AccessControl;
use crate::body::Body;
use crate::cell::Stage;
use crate::context::Context;
use crate::error::{Result, SendError};
use crate::flow::Flow;
use crate::mailbox::{Capacity, Transit};
use crate::message::{Envelope, Message, Peer, Routed};
use crate::node::Node;

/// A worker that handles messages one at a time, and may wait in the middle of one.
///
/// An error that a handler returns is logged; the worker goes on with the next message.
#[allow(async_fn_in_trait)] // Handlers run on the arbiter that the worker lives on and need not be `Send`.
pub trait Worker: Send + Sized + 'static {
    /// The type of the message bodies.
    type Message: Body;

    /// Runs before the first message. An error stops the worker.
    async fn initialize(&mut self, _ctx: &mut Context) -> Result<()> {
        Ok(())
    }

    /// Handles one message.
    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<Self::Message>) -> Result<()>;

    /// Runs after the last message, unless the node is torn down.
    async fn shutdown(&mut self, _ctx: &mut Context) -> Result<()> {
        Ok(())
    }
}

/// A worker that handles each message at once, without ever waiting: the form of everything on the data path.
///
/// What it sends goes through [`Context::forward`]. If a destination is full, the runtime keeps what was sent and gives
/// the worker no further message until there is room.
pub trait SyncWorker: Send + Sized + 'static {
    /// Runs before the first message. An error stops the worker.
    fn initialize(&mut self, _ctx: &mut Context) -> Result<()> {
        Ok(())
    }

    /// Handles one message.
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()>;

    /// Runs after the last message.
    fn shutdown(&mut self, _ctx: &mut Context) {}

    /// The same as a [`Passage`], if that is what the worker is: then it is started as one.
    fn as_passage(&self) -> Option<Arc<dyn Passage>> {
        None
    }
}

/// A worker that only changes a message and sends it on, without state that needs a turn of its own: a hop, an echo, a
/// relay.
///
/// It runs inside the turn of whoever sends to it, so it costs no queue. What is more, a slow destination behind it
/// makes only those wait who send there: a worker with a mailbox, shared by all peers of a node, would be held up by the
/// one peer that does not read its answers.
pub trait Passage: Send + Sync + 'static {
    /// Changes a message so that its first onward hop is where it goes next. When this is called the first hop is the
    /// passage itself. `Ok(false)` when the message is done and goes nowhere.
    ///
    /// # Errors
    /// If the message cannot go on: it is gone then, and its sender is told.
    fn pass(&self, node: &Node, source: &Address, message: &mut Message) -> Result<bool>;

    /// Whether it also takes [carried records](crate::Sealing::Carried), which nobody on the way has authenticated: right for
    /// whoever sends payloads on without looking at them, and for nobody else. A message with one is refused otherwise.
    fn carries_records(&self) -> bool {
        false
    }

    /// Told whether a message of this many bytes was accepted by its next hop.
    fn passed(&self, _bytes: usize, _accepted: bool) {}

    /// Told that a message that it has changed did not get to its next hop.
    fn lost(&self, _node: &Node, _error: &SendError) {}

    /// Whether it takes messages now. For one that [has a worker behind it](crate::Context::set_passage): if not, they go to that
    /// worker's mailbox.
    fn is_ready(&self) -> bool {
        true
    }
}

/// A worker that is driven by a source of its own, for instance a socket, instead of by messages.
#[allow(async_fn_in_trait)]
pub trait Processor: Send + Sized + 'static {
    /// Runs before the first step. An error stops the processor.
    async fn initialize(&mut self, _ctx: &mut Context) -> Result<()> {
        Ok(())
    }

    /// Does one step. `Ok(false)` and errors end the processor.
    async fn process(&mut self, ctx: &mut Context) -> Result<bool>;

    /// Runs after the last step.
    async fn shutdown(&mut self, _ctx: &mut Context) -> Result<()> {
        Ok(())
    }
}

/// One address of a worker, and who may use it.
#[derive(Debug, Clone)]
pub struct MailboxOptions {
    pub(crate) address: Address,
    pub(crate) incoming: AccessControl,
    pub(crate) outgoing: AccessControl,
    pub(crate) terminal: bool,
    pub(crate) opens_records: bool,
    pub(crate) peer: Option<Arc<Peer>>,
    pub(crate) producer: Option<Arc<Flow>>,
    pub(crate) alias: Option<Arc<Flow>>,
}

impl MailboxOptions {
    /// An address to which nobody may send and from which nothing may be sent, until something is allowed.
    pub fn new(address: impl Into<Address>) -> Self {
        Self {
            address: address.into(),
            incoming: AccessControl::DenyAll,
            outgoing: AccessControl::DenyAll,
            terminal: false,
            opens_records: false,
            peer: None,
            producer: None,
            alias: None,
        }
    }

    /// Who may send to this address.
    pub fn incoming(mut self, control: AccessControl) -> Self {
        self.incoming = control;
        self
    }

    /// To whom may be sent from this address.
    pub fn outgoing(mut self, control: AccessControl) -> Self {
        self.outgoing = control;
        self
    }

    /// Messages sent to this address leave the node (spec 01 §2.1).
    pub fn terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// Whoever is at this address opens records of secure channels, or sends them on as they are: it also gets
    /// [carried ones](crate::Sealing::Carried), which nobody on the way has authenticated. Terminal addresses do anyway.
    pub fn opens_records(mut self) -> Self {
        self.opens_records = true;
        self
    }

    /// The authenticated peer that messages sent to this address reach.
    pub fn peer(mut self, peer: Arc<Peer>) -> Self {
        self.peer = Some(peer);
        self
    }

    /// What is sent from this address came from outside, and may go to the consumers of this flow only.
    pub fn producer(mut self, flow: Arc<Flow>) -> Self {
        self.producer = Some(flow);
        self
    }

    /// The flow can be found by this address too, though another address produces it.
    pub fn flow_alias(mut self, flow: Arc<Flow>) -> Self {
        self.alias = Some(flow);
        self
    }
}

/// Where and how a worker is started.
///
/// From an address alone, the worker accepts what flow control lets through, that is messages of this node's own
/// workers, and may send to any local address.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    pub(crate) mailboxes: Vec<MailboxOptions>,
    pub(crate) capacity: Capacity,
    pub(crate) stage: Stage,
    pub(crate) placement: Placement,
    pub(crate) transit: Transit,
}

/// On which arbiter, that is on which thread, a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// Where its owner runs, so that messages between them cross no thread; for a worker without owner, the next.
    #[default]
    Owner,
    /// On the next arbiter in turn: for what begins a flow of its own, such as a transport connection.
    Next,
    /// On the arbiter with this number; they are counted round.
    Index(usize),
    /// On the next of the arbiters that stand aside, on which no worker runs unless it is placed so: for code that may take long
    /// over a message, and shall not delay those that carry data. See [`NodeBuilder::aside_arbiters`](crate::NodeBuilder::aside_arbiters).
    Aside,
}

impl WorkerOptions {
    /// A worker whose primary address is given with its own rules.
    pub fn with_mailbox(primary: MailboxOptions) -> Self {
        Self {
            mailboxes: vec![primary],
            capacity: Capacity::default(),
            stage: Stage::default(),
            placement: Placement::default(),
            transit: Transit::default(),
        }
    }

    /// A worker with this primary address.
    pub fn new(address: impl Into<Address>) -> Self {
        Self::with_mailbox(
            MailboxOptions::new(address)
                .incoming(AccessControl::AllowAll)
                .outgoing(AccessControl::AllowAll),
        )
    }

    /// Who may send to the primary address.
    pub fn incoming(mut self, control: AccessControl) -> Self {
        self.mailboxes[0].incoming = control;
        self
    }

    /// To whom may be sent from the primary address.
    pub fn outgoing(mut self, control: AccessControl) -> Self {
        self.mailboxes[0].outgoing = control;
        self
    }

    /// A further address of the same worker.
    pub fn mailbox(mut self, mailbox: MailboxOptions) -> Self {
        self.mailboxes.push(mailbox);
        self
    }

    /// How much may wait for the worker.
    pub fn capacity(mut self, capacity: Capacity) -> Self {
        self.capacity = capacity;
        self
    }

    /// When the worker stops while the node stops.
    pub fn stage(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    /// The worker hands on what others have sent, to many destinations, as what receives at a connection does. Where there is
    /// [room for it](Self::room_for_transit), what it sends may wait beyond a mailbox's capacity, so that one destination that takes
    /// nothing does not keep it from serving the others.
    pub fn transit(mut self) -> Self {
        self.transit.is_source = true;
        self
    }

    /// For what is in transit there is more room in the mailbox than its capacity: up to [`TRANSIT_ROOM`](crate::TRANSIT_ROOM) bytes.
    pub fn room_for_transit(mut self) -> Self {
        self.transit.has_room = true;
        self
    }

    /// Where the worker runs.
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }
}

impl<A: Into<Address>> From<A> for WorkerOptions {
    fn from(address: A) -> Self {
        Self::new(address)
    }
}

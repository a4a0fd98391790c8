//! What a worker can do: send, receive, start and stop.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;

use crate::access::{AccessControl, Delivery};
use crate::body::Body;
use crate::cell::Cell;
use crate::error::{Denial, Error, Result, SendError};
use crate::flow::Flow;
use crate::mailbox::{Mailbox, PushError};
use crate::message::{Envelope, Message, Routed};
use crate::node::Node;
use crate::router::{Known, Next, Record, Through};
use crate::worker::{Passage, Processor, SyncWorker, Worker, WorkerOptions};
use crate::{Address, Payload, Route};

/// How long [`Context::send_and_receive`] waits for an answer (spec 01 §3).
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Messages that one handler may produce while their destinations are full.
const OUTBOX_LIMIT: usize = 1024;

/// An outbox that grew beyond this many slots in a burst is not kept for the next one who needs one.
const KEPT_OUTBOX: usize = 16;
/// Empty outboxes that each thread keeps, for whoever finds no room next. No worker keeps its own: thousands may have found none at
/// the same moment.
const SPARE_OUTBOXES: usize = 8;

/// Messages that a worker handles before it lets others on its thread go on.
const TURN: u32 = 256;

/// What finds no room.
#[derive(Default)]
struct Unsent {
    outbox: VecDeque<(Arc<Mailbox>, Envelope)>,
    /// Where numbered messages have found none, and are nevertheless.
    over: Vec<Arc<Mailbox>>,
    /// So many.
    over_messages: usize,
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.outbox.is_empty() && self.over.is_empty()
    }

    /// Delivers what there is room for, in order; then whether nothing waits for this mailbox.
    fn leaves_free(&mut self, target: &Arc<Mailbox>, own: &Arc<Mailbox>) -> bool {
        while let Some((mailbox, envelope)) = self.outbox.pop_front() {
            if let Err(PushError::Full(envelope)) = mailbox.try_push(envelope, own) {
                self.outbox.push_front((mailbox, envelope));
                break;
            }
        }
        !self
            .outbox
            .iter()
            .any(|(mailbox, _)| Arc::ptr_eq(mailbox, target))
    }
}

/// A worker's own view of its node.
///
/// A context that was made by [`Node::context`] belongs to no worker: it is a mailbox to send from and to receive
/// with. When a context is dropped, its addresses are released and what it owns is stopped.
pub struct Context {
    node: Node,
    cell: Arc<Cell>,
    batch: VecDeque<Envelope>,
    /// Most workers never need it.
    unsent: Option<Box<Unsent>>,
    known: Option<Known>,
    turn: u32,
}

impl Context {
    pub(crate) fn new(node: Node, cell: Arc<Cell>) -> Self {
        Self {
            node,
            cell,
            batch: VecDeque::new(),
            unsent: None,
            known: None,
            turn: 0,
        }
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The primary address.
    pub fn address(&self) -> &Address {
        self.cell.primary()
    }

    /// All addresses, the primary one first.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.cell.records.iter().map(|record| &record.address)
    }

    /// The arbiter that the worker runs on.
    pub fn arbiter(&self) -> usize {
        self.cell.arbiter as usize
    }

    /// Says from now on that what is sent from the address with this index (0 is the primary one) came from outside,
    /// and may go to the consumers of `flow` only. Can be said once.
    pub fn set_producer(&self, index: usize, flow: Arc<Flow>) {
        if let Some(record) = self.cell.records.get(index) {
            let _ = record.producer.set(flow);
        }
    }

    /// Says that `flow` can be found by the address with this index, though another address produces it.
    pub fn set_flow_alias(&self, index: usize, flow: Arc<Flow>) {
        if let Some(record) = self.cell.records.get(index) {
            let _ = record.alias.set(flow);
        }
    }

    /// Sends a message on from the primary address, without waiting.
    ///
    /// The routes are taken as they are: the first onward hop is where the message goes. If that mailbox is full, the
    /// message is kept and delivered before the worker gets its next one ([`Context::flush`]).
    ///
    /// # Errors
    /// If there is nobody at the next hop or a rule forbids the delivery; the message is gone then.
    #[inline]
    pub fn forward(&mut self, message: Message) -> Result<(), SendError> {
        self.forward_from(0, message)
    }

    /// As [`Context::forward`], from the address with this index.
    ///
    /// # Errors
    /// As [`Context::forward`].
    #[inline]
    pub fn forward_from(&mut self, index: usize, message: Message) -> Result<(), SendError> {
        let Some(sender) = self.cell.records.get(index) else {
            return Err(SendError::NoRoute);
        };
        let router = self.node.router();
        let target = router.admit_known(sender, index, &message, &mut self.known)?;
        if target.passage.get().is_some() {
            let may_pass = match &mut self.unsent {
                None => true,
                // What waits for room must not be overtaken by what comes after it.
                Some(unsent) => unsent.leaves_free(&target.mailbox, &self.cell.mailbox),
            };
            if may_pass && target.way_through().is_some() {
                return self.forward_through(index, message);
            }
        }
        let envelope = Envelope {
            source: sender.address.clone(),
            message,
        };
        // What others send goes through the passage of such a worker, and must not overtake what it sends itself.
        let is_numbered = self.cell.records[0].is_numbering();
        put(
            &mut self.unsent,
            target,
            envelope,
            is_numbered,
            &self.cell.mailbox,
        )
    }

    /// Sends a message on that was admitted to a passage.
    fn forward_through(&mut self, index: usize, mut message: Message) -> Result<(), SendError> {
        let (Some(sender), Some(first)) = (self.cell.records.get(index), &self.known) else {
            return Err(SendError::NoRoute);
        };
        let first = Arc::clone(first.record());
        if self
            .unsent
            .as_ref()
            .is_some_and(|unsent| unsent.over_messages >= OUTBOX_LIMIT)
        {
            // Before it gets a number, without which the order would be broken.
            return Err(SendError::Overloaded(first.address.clone()));
        }
        let passed = self.node.router().pass(&self.node, sender, first, &mut message)?;
        let Next::Mailbox { target, source, last } = passed else {
            return Ok(());
        };
        let is_numbered = last.as_ref().is_some_and(|last| last.is_numbering());
        put(
            &mut self.unsent,
            &target,
            Envelope { source, message },
            is_numbered,
            &self.cell.mailbox,
        )
        .inspect_err(|error| {
            if let Some(through) = last.as_ref().and_then(|last| last.passage.get()) {
                through.passage.lost(&self.node, error);
            }
        })
    }

    /// Asks a rule about a message that has arrived: for workers that answer what they refuse, instead of letting the
    /// runtime drop it.
    ///
    /// # Errors
    /// The reason that the rule gives.
    pub fn check_incoming(&self, rule: &AccessControl, envelope: &Envelope) -> Result<(), Denial> {
        let destination = envelope.message.onward.next().unwrap_or(self.address());
        rule.check_incoming(&Delivery {
            source: &envelope.source,
            destination,
            message: &envelope.message,
            router: self.node.router(),
        })
    }

    /// Asks a rule about a message that would be sent from this worker's address.
    ///
    /// # Errors
    /// The reason that the rule gives.
    pub fn check_outgoing(&self, rule: &AccessControl, message: &Message) -> Result<(), Denial> {
        let destination = message.onward.next().unwrap_or(self.address());
        rule.check_outgoing(&Delivery {
            source: self.address(),
            destination,
            message,
            router: self.node.router(),
        })
    }

    /// Whether messages wait for room at their destinations.
    pub fn has_unsent(&self) -> bool {
        self.unsent.as_ref().is_some_and(|unsent| !unsent.is_empty())
    }

    /// Says that messages to the primary address go through this passage from now on, in the turn of whoever sends them, and from
    /// there on from the address with the index `from`; see [`Passage`]. Only while this worker waits for messages and has none:
    /// else, and from other threads, they come to its mailbox, and it must do the same with them. Can be said once.
    pub fn set_passage(&self, passage: Arc<dyn Passage>, from: usize) {
        let from = (from > 0).then(|| self.cell.records.get(from).cloned()).flatten();
        let through = Box::new(Through {
            passage,
            from,
            has_worker: true,
            known: Mutex::default(),
        });
        let _ = self.cell.records[0].passage.set(through);
    }

    /// Whether others wait for room in this worker's mailbox, and handle no further messages meanwhile.
    pub fn is_waited_for(&self) -> bool {
        self.cell.mailbox.is_waited_for()
    }

    /// Whether somebody waits for room in this worker's mailbox who hands on what others have sent to many destinations
    /// ([`WorkerOptions::transit`]), directly or by way of others: whoever is sent something there by those waits too.
    pub fn holds_up_transit(&self) -> bool {
        self.cell.mailbox.holds_up_transit()
    }

    /// Waits until all that was forwarded has found room in the mailboxes that it is for. The runtime does this after each message
    /// of a [`SyncWorker`].
    pub async fn flush(&mut self) {
        while let Some((mailbox, size)) = self.deliver_unsent() {
            let own = &self.cell.mailbox;
            // A worker that is asked to stop has its mailbox closed.
            let has_room = poll_fn(|cx| {
                if mailbox.poll_room(size, own, cx).is_ready() {
                    return Poll::Ready(true);
                }
                own.poll_closed(cx).map(|()| false)
            });
            if !has_room.await {
                self.unsent = None;
                return;
            }
            self.has_room(&mailbox);
        }
    }

    /// Delivers what waits, up to a message for which there is no room: gives its mailbox and size. Apart from
    /// [`Context::flush`], whose future has no place for a message then.
    fn deliver_unsent(&mut self) -> Option<(Arc<Mailbox>, usize)> {
        let unsent = self.unsent.as_mut()?;
        if let Some(mailbox) = unsent.over.last() {
            return Some((Arc::clone(mailbox), 1));
        }
        while let Some((mailbox, envelope)) = unsent.outbox.pop_front() {
            if let Err(PushError::Full(envelope)) = mailbox.try_push(envelope, &self.cell.mailbox) {
                let size = envelope.message.payload.len();
                unsent.outbox.push_front((Arc::clone(&mailbox), envelope));
                return Some((mailbox, size));
            }
        }
        give_unsent(self.unsent.take());
        None
    }

    /// There is room again in this mailbox.
    fn has_room(&mut self, mailbox: &Arc<Mailbox>) {
        if let Some(unsent) = &mut self.unsent {
            unsent.over.retain(|over| !Arc::ptr_eq(over, mailbox));
            if unsent.over.is_empty() {
                unsent.over_messages = 0;
            }
        }
    }

    /// Sends a body along a route, and waits until it is in the next mailbox. Answers come back to the primary
    /// address.
    ///
    /// # Errors
    /// As [`Context::forward`].
    pub async fn send<M: Body>(&mut self, route: impl Into<Route>, body: M) -> Result<()> {
        let message = Message {
            onward: route.into(),
            back: self.address().into(),
            payload: body.encode(),
            local: Default::default(),
        };
        self.send_message(message).await
    }

    /// Sends a message as it is, and waits until it is in the next mailbox.
    ///
    /// # Errors
    /// As [`Context::forward`].
    pub async fn send_message(&mut self, message: Message) -> Result<()> {
        self.forward(message)?;
        self.flush().await;
        Ok(())
    }

    /// Sends a body along a route and waits for one answer, 30 s at most.
    ///
    /// # Errors
    /// As [`Context::send`], and [`Error::Timeout`] without answer.
    pub async fn send_and_receive<M: Body, R: Body>(
        &self,
        route: impl Into<Route>,
        body: M,
    ) -> Result<Routed<R>> {
        self.send_and_receive_within(DEFAULT_TIMEOUT, route, body).await
    }

    /// Sends a body along a route and waits for one answer. The answer comes to an address made for this request
    /// alone, which is a consumer of the flow that the route begins with.
    ///
    /// # Errors
    /// As [`Context::send`], and [`Error::Timeout`] without answer.
    pub async fn send_and_receive_within<M: Body, R: Body>(
        &self,
        timeout: Duration,
        route: impl Into<Route>,
        body: M,
    ) -> Result<Routed<R>> {
        let route = route.into();
        let Some(first) = route.next() else {
            return Err(SendError::NoRoute.into());
        };
        let options = WorkerOptions::new(Address::random()).outgoing(AccessControl::only(first));
        let mut asker = self.node.detached(Some(&self.cell), options)?;
        if let Some(flow) = self.node.flow_of(first) {
            self.node.add_consumer(&flow, asker.address());
        }
        let exchange = async {
            asker.send(&route, body).await?;
            asker.receive().await
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Timeout {
                route: Box::new(route.clone()),
                after: timeout,
            }),
        }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the worker has been asked to stop.
    pub async fn receive<M: Body>(&mut self) -> Result<Routed<M>> {
        self.next().await.map(Routed::new).ok_or(Error::Stopped)
    }

    /// Waits for the next message; `None` when the worker has been asked to stop. Messages are given one at a time.
    pub async fn next(&mut self) -> Option<Envelope> {
        if self.cell.ending.is_stopping() {
            return None;
        }
        self.next_even_when_stopping().await
    }

    /// The next message, if it has been taken out of the mailbox already and it is not somebody else's turn.
    #[inline]
    pub(crate) fn next_at_once(&mut self) -> Option<Envelope> {
        if self.turn + 1 >= TURN || self.cell.ending.is_stopping() {
            return None;
        }
        let envelope = self.batch.pop_front()?;
        self.turn += 1;
        Some(envelope)
    }

    /// As [`Context::next`], but gives what still waits after the worker was asked to stop, then `None`.
    pub async fn next_even_when_stopping(&mut self) -> Option<Envelope> {
        if self.batch.is_empty() {
            let open = poll_fn(|cx| self.cell.mailbox.poll_take(cx, &mut self.batch)).await;
            if !open {
                return None;
            }
        }
        self.turn += 1;
        if self.turn >= TURN {
            self.turn = 0;
            yield_once().await;
        }
        self.batch.pop_front()
    }

    /// The next message if one is there already.
    pub fn try_next(&mut self) -> Option<Envelope> {
        if self.batch.is_empty() {
            self.cell.mailbox.take_now(&mut self.batch);
        }
        self.batch.pop_front()
    }

    /// As [`Context::next`], for a worker that is one hand-written future.
    pub fn poll_next(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Option<Envelope>> {
        if self.cell.ending.is_stopping() {
            return Poll::Ready(None);
        }
        if self.batch.is_empty() && !ready!(self.cell.mailbox.poll_take(cx, &mut self.batch)) {
            return Poll::Ready(None);
        }
        Poll::Ready(self.batch.pop_front())
    }

    /// Ready with `true` when [`Context::next`] has a message to give, which stays where it is; with `false` when the worker has been
    /// asked to stop.
    pub(crate) fn poll_arrived(&mut self, cx: &mut std::task::Context<'_>) -> Poll<bool> {
        if self.cell.ending.is_stopping() {
            return Poll::Ready(false);
        }
        if self.batch.is_empty() {
            return self.cell.mailbox.poll_take(cx, &mut self.batch);
        }
        Poll::Ready(true)
    }

    /// Ready when the worker has been asked to stop: for a hand-written future that takes no messages at present.
    pub fn poll_stopping(&self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        self.cell.mailbox.poll_closed(cx)
    }

    /// As [`Context::flush`], for a worker that is one hand-written future: so it can take messages meanwhile, which a
    /// worker that fills a mailbox must do when whoever empties that one may send to it.
    pub fn poll_flush(&mut self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        while let Some((mailbox, size)) = self.deliver_unsent() {
            ready!(mailbox.poll_room(size, &self.cell.mailbox, cx));
            self.has_room(&mailbox);
        }
        Poll::Ready(())
    }

    /// Whether the worker has been asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.cell.ending.is_stopping()
    }

    /// Waits until the worker is asked to stop. The future borrows nothing, so that it can be waited for beside other
    /// things.
    pub fn stopping(&self) -> impl Future<Output = ()> + 'static {
        let cell = Arc::clone(&self.cell);
        async move { cell.ending.stopping().await }
    }

    /// Asks this worker to stop after the current message. Its addresses are released at once.
    pub fn stop(&self) {
        self.cell.stop();
    }

    /// Starts a worker that this one owns: it stops when this one does.
    ///
    /// # Errors
    /// If an address is in use or the node is stopping.
    pub fn start_worker<W: Worker>(&self, options: impl Into<WorkerOptions>, worker: W) -> Result<Address> {
        self.node
            .start_owned_worker(Some(&self.cell), options.into(), worker)
    }

    /// As [`Context::start_worker`], for a [`SyncWorker`].
    ///
    /// # Errors
    /// If an address is in use or the node is stopping.
    pub fn start_sync_worker<W: SyncWorker>(
        &self,
        options: impl Into<WorkerOptions>,
        worker: W,
    ) -> Result<Address> {
        self.node
            .start_owned_sync_worker(Some(&self.cell), options.into(), worker)
    }

    /// As [`Context::start_worker`], for a [`Passage`].
    ///
    /// # Errors
    /// If an address is in use or the node is stopping.
    pub fn start_passage(
        &self,
        options: impl Into<WorkerOptions>,
        passage: Arc<dyn Passage>,
    ) -> Result<Address> {
        self.node
            .start_owned_passage(Some(&self.cell), options.into(), passage)
    }

    /// As [`Context::start_worker`], for a [`Processor`].
    ///
    /// # Errors
    /// If an address is in use or the node is stopping.
    pub fn start_processor<P: Processor>(
        &self,
        options: impl Into<WorkerOptions>,
        processor: P,
    ) -> Result<Address> {
        self.node
            .start_owned_processor(Some(&self.cell), options.into(), processor)
    }

    /// Starts a task with mailboxes of its own, which this worker owns: the most general form.
    ///
    /// # Errors
    /// If an address is in use or the node is stopping.
    pub fn start_task<F, T>(&self, options: impl Into<WorkerOptions>, task: F) -> Result<Address>
    where
        F: FnOnce(Context) -> T + Send + 'static,
        T: Future<Output = ()> + 'static,
    {
        self.node.start_owned_task(Some(&self.cell), options.into(), task)
    }

    /// A mailbox without a worker, owned by this one.
    ///
    /// # Errors
    /// If an address is in use or the node is stopping.
    pub fn detached(&self, options: impl Into<WorkerOptions>) -> Result<Context> {
        self.node.detached(Some(&self.cell), options.into())
    }

    /// A payload taken from the pool.
    pub fn payload(&self) -> Payload {
        Payload::pooled()
    }
}

/// Puts a message into a mailbox, or keeps what finds no room, in order.
#[inline]
fn put(
    unsent: &mut Option<Box<Unsent>>,
    target: &Record,
    envelope: Envelope,
    is_numbered: bool,
    by: &Mailbox,
) -> Result<(), SendError> {
    let pushed = if is_numbered {
        if unsent
            .as_ref()
            .is_some_and(|unsent| unsent.over_messages >= OUTBOX_LIMIT)
        {
            return Err(SendError::Overloaded(target.address.clone()));
        }
        target.mailbox.push_numbered(envelope, by)
    } else if unsent.as_ref().is_some_and(|unsent| !unsent.is_empty()) {
        Err(PushError::Full(envelope))
    } else {
        target.mailbox.try_push(envelope, by).map(|()| true)
    };
    match pushed {
        Ok(true) => Ok(()),
        Ok(false) => {
            note_over(unsent.get_or_insert_with(take_unsent), &target.mailbox);
            Ok(())
        }
        Err(PushError::Closed) => Err(SendError::NotFound(target.address.clone())),
        Err(PushError::Full(envelope)) => {
            let outbox = &mut unsent.get_or_insert_with(take_unsent).outbox;
            if outbox.len() >= OUTBOX_LIMIT {
                return Err(SendError::Overloaded(target.address.clone()));
            }
            outbox.push_back((Arc::clone(&target.mailbox), envelope));
            Ok(())
        }
    }
}

fn note_over(unsent: &mut Unsent, mailbox: &Arc<Mailbox>) {
    unsent.over_messages += 1;
    if !unsent.over.iter().any(|known| Arc::ptr_eq(known, mailbox)) {
        unsent.over.push(Arc::clone(mailbox));
    }
}

thread_local! {
    #[allow(clippy::vec_box)] // A context has a pointer to its outbox, which most have none of, and takes these as they are.
    static SPARE: RefCell<Vec<Box<Unsent>>> = const { RefCell::new(Vec::new()) };
}

fn take_unsent() -> Box<Unsent> {
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
    spare.unwrap_or_default()
}

/// Keeps an outbox, which must be empty, for others.
fn give_unsent(unsent: Option<Box<Unsent>>) {
    let Some(unsent) = unsent.filter(|unsent| unsent.outbox.capacity() <= KEPT_OUTBOX) else {
        return;
    };
    debug_assert!(unsent.is_empty());
    // A thread that ends keeps nothing any more.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < SPARE_OUTBOXES {
            spare.push(unsent);
        }
    });
}

impl Drop for Context {
    fn drop(&mut self) {
        self.cell.finish();
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("address", self.address())
            .finish_non_exhaustive()
    }
}

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            Poll::Ready(())
        } else {
            yielded = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AccessControl, Capacity};

    #[tokio::test]
    async fn an_outbox_is_there_while_something_waits_and_for_the_next_one_after_that() {
        let node = Node::builder().arbiters(1).build().unwrap();
        let small = Capacity {
            messages: 1,
            ..Capacity::default()
        };
        let mut target = node
            .context(WorkerOptions::new("target").capacity(small))
            .unwrap();
        let rules = |name: &str| WorkerOptions::new(name).outgoing(AccessControl::only("target"));
        let spares = || SPARE.with_borrow(Vec::len);
        for sender in ["one", "two"] {
            let mut sender = node.context(rules(sender)).unwrap();
            for number in 0..3_u8 {
                sender
                    .forward(Message::new("target", sender.address(), vec![number]))
                    .unwrap();
            }
            assert!(sender.has_unsent() && sender.unsent.is_some());
            assert_eq!(spares(), 0);
            let taking = async {
                for number in 0..3_u8 {
                    let taken = target.next().await.unwrap();
                    assert_eq!(taken.message.payload.as_slice(), [number]);
                }
            };
            tokio::join!(sender.flush(), taking);
            assert!(sender.unsent.is_none());
            assert_eq!(spares(), 1);
        }
        node.stop().await;
    }

    fn small() -> Capacity {
        Capacity {
            messages: 4,
            bytes: 1 << 20,
        }
    }

    fn sends(name: &str) -> WorkerOptions {
        WorkerOptions::new(name).outgoing(AccessControl::only("full"))
    }

    #[tokio::test]
    async fn what_is_in_transit_waits_beyond_the_capacity_where_there_is_room_for_it() {
        let node = Node::builder().arbiters(1).build().unwrap();
        let mut full = node
            .context(WorkerOptions::new("full").capacity(small()).room_for_transit())
            .unwrap();
        let mut own = node.context(sends("own")).unwrap();
        let mut transit = node.context(sends("transit").transit()).unwrap();
        let message = |sender: &Context| Message::new("full", sender.address(), vec![7_u8; 1 << 20]);
        own.forward(message(&own)).unwrap();
        assert!(!own.has_unsent());
        own.forward(message(&own)).unwrap();
        assert!(own.has_unsent(), "what begins here waits with who sends it");
        let mut taken = 0;
        while !transit.has_unsent() {
            transit.forward(message(&transit)).unwrap();
            taken += 1;
        }
        // Each counts a little more than its bytes, and the last one has found no room.
        assert_eq!(taken, crate::TRANSIT_ROOM >> 20);
        assert!(!full.holds_up_transit(), "nobody waits before it says so");
        poll_fn(|cx| {
            assert!(transit.poll_flush(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(full.holds_up_transit());
        for _ in 0..taken {
            assert!(full.next().await.is_some());
        }
        for sender in [&mut own, &mut transit] {
            sender.flush().await;
            assert!(full.next().await.is_some());
        }
        // The room is there again.
        for _ in 0..taken {
            assert!(!transit.has_unsent());
            transit.forward(message(&transit)).unwrap();
        }
        node.stop().await;
    }

    #[tokio::test]
    async fn whoever_is_waited_for_by_somebody_in_transit_holds_it_up_too() {
        let node = Node::builder().arbiters(1).build().unwrap();
        let full = node
            .context(WorkerOptions::new("full").capacity(small()))
            .unwrap();
        let mut between = node.context(sends("between").capacity(small())).unwrap();
        let mut transit = node
            .context(
                WorkerOptions::new("transit")
                    .outgoing(AccessControl::only("between"))
                    .transit(),
            )
            .unwrap();
        for number in 0..5_u8 {
            between
                .forward(Message::new("full", "between", vec![number]))
                .unwrap();
            transit
                .forward(Message::new("between", "transit", vec![number]))
                .unwrap();
        }
        poll_fn(|cx| {
            assert!(between.poll_flush(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(
            !full.holds_up_transit(),
            "it keeps waiting only one that waits for itself"
        );
        poll_fn(|cx| {
            assert!(transit.poll_flush(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(between.holds_up_transit() && full.holds_up_transit());
        node.stop().await;
    }
}

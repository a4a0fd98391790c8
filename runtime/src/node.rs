//! A node: arbiters, the router, and the handle that everything is started with.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{self, Poll};
use std::time::Duration;

use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, ArbiterHandle, AsyncContext};
use parking_lot::Mutex;

use crate::access::{AccessControl, Delivery};
use crate::cell::{ByNumber, Cell, Stage};
use crate::context::Context;
use crate::error::{Denial, Error, Result};
use crate::flow::Flow;
use crate::mailbox::Mailbox;
use crate::message::{Message, Routed};
use crate::router::{Record, Refusals, Router, Through};
use crate::run::{run_processor, run_sync_worker, run_worker};
use crate::turn::Task;
use crate::worker::{Passage, Placement, Processor, SyncWorker, Worker, WorkerOptions};
use crate::{Address, Body, Route};

/// How long the workers of one stage may take to stop before the next stage is stopped.
const STAGE_TIMEOUT: Duration = Duration::from_secs(1);

/// A handle to a running node. Cheap to clone, usable from any thread, with or without an async runtime around it.
#[derive(Clone, Debug)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    router: Arc<Router>,
    arbiters: Vec<Arbiter>,
    next_arbiter: AtomicUsize,
    /// Started when the first worker is placed there; counted on after `arbiters`.
    aside: OnceLock<Vec<Arbiter>>,
    aside_starting: Mutex<()>,
    aside_count: usize,
    next_aside: AtomicUsize,
    next_cell: AtomicU64,
    /// All workers, for listing and for stopping stage by stage.
    cells: Mutex<ByNumber<Weak<Cell>>>,
    stopping: AtomicBool,
    /// What is the node's own: nothing if it runs on an arbiter that it was given.
    system: OnceLock<actix::System>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// What workers run on.
#[derive(Debug, Clone)]
struct Arbiter {
    key: ArbiterKey,
    handle: ArbiterHandle,
}

/// Tells arbiters of a process apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ArbiterKey {
    /// A thread can be an arbiter of one system, and later of another.
    system: usize,
    number: u64,
}

thread_local! {
    /// Which arbiter this thread is.
    static ARBITER: std::cell::Cell<Option<ArbiterKey>> = const { std::cell::Cell::new(None) };
}

impl ArbiterKey {
    /// That of this thread, which is an arbiter of this system.
    fn of_this_thread(system: usize) -> Self {
        static ARBITERS: AtomicU64 = AtomicU64::new(1);
        if let Some(key) = ARBITER.get()
            && key.system == system
        {
            return key;
        }
        let number = ARBITERS.fetch_add(1, Ordering::Relaxed);
        let key = Self { system, number };
        ARBITER.set(Some(key));
        key
    }
}

/// How a node is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeBuilder {
    arbiters: Option<usize>,
    aside: Option<usize>,
    here: bool,
}

impl NodeBuilder {
    /// The number of arbiters, that is of threads that workers run on. Default: one for every two cores. What a relay
    /// carries goes from one connection to another; on two cores, two arbiters cost a fifth more CPU time for each byte
    /// than one (see `docs/performance.md`), and the applications at the ends want a core too.
    pub fn arbiters(mut self, count: usize) -> Self {
        self.arbiters = Some(count.max(1));
        self
    }

    /// The number of arbiters of workers that are [placed aside](Placement::Aside). They are started with the first of them.
    /// Default: one for every two cores, as of the others.
    pub fn aside_arbiters(mut self, count: usize) -> Self {
        self.aside = Some(count.max(1));
        self
    }

    /// No threads of its own: all workers run on the arbiter, that is on the actix system's thread, that [`build`](Self::build)
    /// is called on. So several nodes can share one thread and one clock, which may be a virtual one; the crate
    /// `portolan-simulated` makes a network of them. How many arbiters were asked for does not matter then.
    ///
    /// Such a node ends with its system at the latest. [`Node::block_on`] cannot be used on its thread.
    pub fn on_current_arbiter(mut self) -> Self {
        self.here = true;
        self
    }

    /// Starts the node.
    ///
    /// # Errors
    /// If threads cannot be started, or if this thread was to be the node's arbiter and is none.
    pub fn build(self) -> Result<Node> {
        if self.here {
            return Self::build_here();
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let half = (cores / 2).max(1);
        let count = self.arbiters.unwrap_or(half);
        let aside = self.aside.unwrap_or(half);
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("portolan-node".into())
            .spawn(move || {
                let runner = actix::System::new();
                let arbiters = runner.block_on(async move {
                    let mut arbiters = Vec::with_capacity(count);
                    for _ in 0..count {
                        arbiters.extend(start_arbiter().await);
                    }
                    arbiters
                });
                let _ = send.send((actix::System::current(), arbiters));
                if let Err(error) = runner.run() {
                    tracing::error!("a node's system ended with an error: {error}");
                }
            })
            .map_err(|error| Error::io("starting a node's thread", error))?;
        let (system, arbiters) = receive
            .recv()
            .map_err(|_| Error::other("the node's thread ended before the node was ready"))?;
        if arbiters.len() < count {
            return Err(Error::other(
                "a thread of the node ended before the node was ready",
            ));
        }
        Ok(Node::of(arbiters, aside, OnceLock::from(system), Some(thread)))
    }

    fn build_here() -> Result<Node> {
        let (Some(system), Some(handle)) = (actix::System::try_current(), actix::Arbiter::try_current())
        else {
            return Err(Error::other(
                "this thread is no arbiter: build the node inside an actix system, or without `on_current_arbiter`",
            ));
        };
        let key = ArbiterKey::of_this_thread(system.id());
        Ok(Node::of(vec![Arbiter { key, handle }], 0, OnceLock::new(), None))
    }
}

/// On a thread of its own; nothing if that ends at once.
async fn start_arbiter() -> Option<Arbiter> {
    let handle = actix::Arbiter::new().handle();
    let (told, key) = tokio::sync::oneshot::channel();
    handle.spawn_fn(move || {
        let system = actix::System::current().id();
        let _ = told.send(ArbiterKey::of_this_thread(system));
    });
    Some(Arbiter {
        key: key.await.ok()?,
        handle,
    })
}

/// Starts arbiters from anywhere: on a thread that is told of the system, since they can be started nowhere else.
fn start_aside(system: actix::System, count: usize) -> Result<Vec<Arbiter>> {
    let failed = |error| Error::io("starting threads", error);
    let arbiters = std::thread::Builder::new()
        .name("portolan-aside".into())
        .spawn(move || {
            actix::System::set_current(system);
            let runner = tokio::runtime::Builder::new_current_thread().build()?;
            let mut arbiters = Vec::with_capacity(count);
            for _ in 0..count {
                arbiters.extend(runner.block_on(start_arbiter()));
            }
            Ok(arbiters)
        })
        .map_err(failed)?
        .join()
        .map_err(|_| Error::Stopped)?
        .map_err(failed)?;
    if arbiters.len() < count {
        return Err(Error::Stopped);
    }
    Ok(arbiters)
}

/// The actor that a worker runs in: its arbiter polls the worker's loop until that ends.
struct WorkerActor {
    task: Task,
}

impl Actor for WorkerActor {
    type Context = actix::Context<Self>;
}

/// What the actor does. It has nothing of its own, so that it needs no memory.
struct Loop;

impl ActorFuture<WorkerActor> for Loop {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        actor: &mut WorkerActor,
        ctx: &mut actix::Context<WorkerActor>,
        cx: &mut task::Context<'_>,
    ) -> Poll<()> {
        let ended = Pin::new(&mut actor.task).poll(cx);
        if ended.is_ready() {
            ctx.stop();
        }
        ended
    }
}

impl WorkerActor {
    /// On the arbiter that this thread is.
    fn run(mailbox: &Mailbox, worker: impl Future<Output = ()> + 'static) {
        let task = Task::new(&mailbox.place, worker);
        Self::create(|ctx| {
            ctx.spawn(Loop);
            Self { task }
        });
    }
}

impl Node {
    fn of(
        arbiters: Vec<Arbiter>,
        aside_count: usize,
        system: OnceLock<actix::System>,
        thread: Option<std::thread::JoinHandle<()>>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                router: Arc::new(Router::new()),
                arbiters,
                next_arbiter: AtomicUsize::new(0),
                aside: OnceLock::new(),
                aside_starting: Mutex::default(),
                aside_count,
                next_aside: AtomicUsize::new(0),
                next_cell: AtomicU64::new(1),
                cells: Mutex::default(),
                stopping: AtomicBool::new(false),
                system,
                thread: Mutex::new(thread),
            }),
        }
    }

    /// How to make a node.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// A node with default settings.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    pub(crate) fn router(&self) -> &Router {
        &self.inner.router
    }

    /// Starts a worker.
    ///
    /// # Errors
    /// If an address is in use or the node is stopping.
    pub fn start_worker<W: Worker>(&self, options: impl Into<WorkerOptions>, worker: W) -> Result<Address> {
        self.start_owned_worker(None, options.into(), worker)
    }

    /// Starts a [`SyncWorker`].
    ///
    /// # Errors
    /// If an address is in use or the node is stopping.
    pub fn start_sync_worker<W: SyncWorker>(
        &self,
        options: impl Into<WorkerOptions>,
        worker: W,
    ) -> Result<Address> {
        self.start_owned_sync_worker(None, options.into(), worker)
    }

    /// Starts a [`Passage`].
    ///
    /// # Errors
    /// If an address is in use or the node is stopping.
    pub fn start_passage(
        &self,
        options: impl Into<WorkerOptions>,
        passage: Arc<dyn Passage>,
    ) -> Result<Address> {
        self.start_owned_passage(None, options.into(), passage)
    }

    /// Starts a [`Processor`].
    ///
    /// # Errors
    /// If an address is in use or the node is stopping.
    pub fn start_processor<P: Processor>(
        &self,
        options: impl Into<WorkerOptions>,
        processor: P,
    ) -> Result<Address> {
        self.start_owned_processor(None, options.into(), processor)
    }

    /// Starts a task with mailboxes of its own.
    ///
    /// # Errors
    /// If an address is in use or the node is stopping.
    pub fn start_task<F, T>(&self, options: impl Into<WorkerOptions>, task: F) -> Result<Address>
    where
        F: FnOnce(Context) -> T + Send + 'static,
        T: Future<Output = ()> + 'static,
    {
        self.start_owned_task(None, options.into(), task)
    }

    /// Starts a task that the worker at `owner` owns: for a [`Passage`], which has no [`Context`] to start one with.
    ///
    /// # Errors
    /// If there is no such worker, an address is in use, or the node is stopping.
    pub fn start_task_of<F, T>(
        &self,
        owner: &Address,
        options: impl Into<WorkerOptions>,
        task: F,
    ) -> Result<Address>
    where
        F: FnOnce(Context) -> T + Send + 'static,
        T: Future<Output = ()> + 'static,
    {
        let owner = self
            .cell_at(owner)
            .ok_or_else(|| Error::NoWorker(owner.clone()))?;
        self.start_owned_task(Some(&owner), options.into(), task)
    }

    /// Asks a rule about a message that has come to a [`Passage`]: for one that answers what it refuses.
    ///
    /// # Errors
    /// The reason that the rule gives.
    pub fn check_incoming(
        &self,
        rule: &AccessControl,
        source: &Address,
        destination: &Address,
        message: &Message,
    ) -> Result<(), Denial> {
        rule.check_incoming(&Delivery {
            source,
            destination,
            message,
            router: self.router(),
        })
    }

    pub(crate) fn start_owned_worker<W: Worker>(
        &self,
        owner: Option<&Arc<Cell>>,
        options: WorkerOptions,
        worker: W,
    ) -> Result<Address> {
        self.start_owned_task(owner, options, |ctx| run_worker(ctx, worker))
    }

    pub(crate) fn start_owned_sync_worker<W: SyncWorker>(
        &self,
        owner: Option<&Arc<Cell>>,
        options: WorkerOptions,
        worker: W,
    ) -> Result<Address> {
        match worker.as_passage() {
            Some(passage) => self.start_owned_passage(owner, options, passage),
            None => self.start_owned_task(owner, options, |ctx| run_sync_worker(ctx, worker)),
        }
    }

    pub(crate) fn start_owned_passage(
        &self,
        owner: Option<&Arc<Cell>>,
        options: WorkerOptions,
        passage: Arc<dyn Passage>,
    ) -> Result<Address> {
        let cell = self.register(owner, options, Some(passage))?;
        if owner.is_none() && !cell.ending.is_finished() {
            self.router().keep(Arc::clone(&cell));
        }
        Ok(cell.primary().clone())
    }

    pub(crate) fn start_owned_processor<P: Processor>(
        &self,
        owner: Option<&Arc<Cell>>,
        options: WorkerOptions,
        processor: P,
    ) -> Result<Address> {
        self.start_owned_task(owner, options, |ctx| run_processor(ctx, processor))
    }

    pub(crate) fn start_owned_task<F, T>(
        &self,
        owner: Option<&Arc<Cell>>,
        options: WorkerOptions,
        task: F,
    ) -> Result<Address>
    where
        F: FnOnce(Context) -> T + Send + 'static,
        T: Future<Output = ()> + 'static,
    {
        let cell = self.register(owner, options, None)?;
        let address = cell.primary().clone();
        let arbiter = self.arbiter(cell.arbiter as usize).ok_or(Error::Stopped)?.clone();
        let mailbox = Arc::clone(&cell.mailbox);
        let ctx = Context::new(self.clone(), cell);
        let start = move || WorkerActor::run(&mailbox, task(ctx));
        if ARBITER.get() == Some(arbiter.key) {
            start();
        } else if !arbiter.handle.spawn_fn(start) {
            return Err(Error::Stopped);
        }
        Ok(address)
    }

    pub(crate) fn detached(&self, owner: Option<&Arc<Cell>>, options: WorkerOptions) -> Result<Context> {
        Ok(Context::new(self.clone(), self.register(owner, options, None)?))
    }

    /// A mailbox without a worker: to send from and to receive with. It owns what it starts.
    ///
    /// # Errors
    /// If the address is in use or the node is stopping.
    pub fn context(&self, options: impl Into<WorkerOptions>) -> Result<Context> {
        self.detached(None, options.into())
    }

    fn register(
        &self,
        owner: Option<&Arc<Cell>>,
        options: WorkerOptions,
        passage: Option<Arc<dyn Passage>>,
    ) -> Result<Arc<Cell>> {
        let inner = &self.inner;
        if inner.stopping.load(Ordering::Acquire) || owner.is_some_and(|owner| owner.ending.is_finished()) {
            return Err(Error::Stopped);
        }
        let count = inner.arbiters.len();
        let arbiter = match (options.placement, owner) {
            (Placement::Index(index), _) => index % count,
            (Placement::Aside, _) => self.next_aside()?,
            (Placement::Owner, Some(owner)) => owner.arbiter as usize,
            _ => self.next_arbiter(),
        };
        let mailbox = Arc::new(Mailbox::new(options.capacity, options.transit));
        let number = inner.next_cell.fetch_add(1, Ordering::Relaxed);
        let cell = Arc::new_cyclic(|cell: &Weak<Cell>| Cell {
            number,
            arbiter: arbiter as u32,
            stage: options.stage,
            mailbox: Arc::clone(&mailbox),
            records: options
                .mailboxes
                .into_iter()
                .map(|options| {
                    Arc::new(Record {
                        address: options.address,
                        mailbox: Arc::clone(&mailbox),
                        incoming: options.incoming,
                        outgoing: options.outgoing,
                        terminal: options.terminal,
                        takes_records: options.terminal
                            || options.opens_records
                            || passage.as_ref().is_some_and(|passage| passage.carries_records()),
                        peer: options.peer,
                        producer: options.producer.map(OnceLock::from).unwrap_or_default(),
                        alias: options.alias.map(OnceLock::from).unwrap_or_default(),
                        cell: cell.clone(),
                        passage: passage
                            .clone()
                            .map(passive)
                            .map(OnceLock::from)
                            .unwrap_or_default(),
                        released: AtomicBool::new(false),
                    })
                })
                .collect(),
            parent: owner.map_or_else(Weak::new, Arc::downgrade),
            children: Mutex::default(),
            ending: Default::default(),
            router: Arc::clone(&inner.router),
            passive: passage.is_some(),
        });
        inner.router.register(&cell.records)?;
        {
            let mut cells = inner.cells.lock();
            // Dead entries are swept when the map would grow, so that it stays as large as what is alive.
            if cells.len() == cells.capacity() {
                cells.retain(|_, cell| cell.strong_count() > 0);
            }
            cells.insert(number, Arc::downgrade(&cell));
        }
        if let Some(owner) = owner {
            owner
                .children
                .lock()
                .get_or_insert_default()
                .insert(number, Arc::clone(&cell));
            if owner.ending.is_stopping() {
                cell.stop();
            }
        }
        Ok(cell)
    }

    /// Sends a body along a route from an address made for it.
    ///
    /// # Errors
    /// If nobody is at the next hop or a rule forbids it.
    pub async fn send<M: Body>(&self, route: impl Into<Route>, body: M) -> Result<()> {
        self.context(Address::random())?.send(route, body).await
    }

    /// Sends a message as it is, from an address made for it.
    ///
    /// # Errors
    /// If nobody is at the next hop or a rule forbids it.
    pub async fn send_message(&self, message: Message) -> Result<()> {
        self.context(Address::random())?.send_message(message).await
    }

    /// Sends a body along a route and waits for one answer, 30 s at most. Needs a tokio runtime around it; from
    /// synchronous code use [`Node::block_on`].
    ///
    /// # Errors
    /// If nobody is at the next hop, a rule forbids it, or there is no answer.
    pub async fn send_and_receive<M: Body, R: Body>(
        &self,
        route: impl Into<Route>,
        body: M,
    ) -> Result<Routed<R>> {
        self.context(Address::random())?
            .send_and_receive(route, body)
            .await
    }

    /// As [`Node::send_and_receive`], with a time-out of the caller's.
    ///
    /// # Errors
    /// As [`Node::send_and_receive`].
    pub async fn send_and_receive_within<M: Body, R: Body>(
        &self,
        timeout: Duration,
        route: impl Into<Route>,
        body: M,
    ) -> Result<Routed<R>> {
        self.context(Address::random())?
            .send_and_receive_within(timeout, route, body)
            .await
    }

    /// Runs what computes or blocks for long beside the arbiters, which have messages to move. `None` if the node goes down
    /// meanwhile.
    ///
    /// On a node that [shares a thread](NodeBuilder::on_current_arbiter) it runs there, at once: another thread would bring its
    /// own pace into what shall happen in the same order each time. Needs a tokio runtime around it.
    pub async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self.inner.system.get().is_none() {
            return Some(work());
        }
        tokio::task::spawn_blocking(work).await.ok()
    }

    /// Runs a future on one of the node's arbiters and waits for it: for synchronous programs.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the node stops meanwhile. An error if this is called on that arbiter, which would wait for itself.
    pub fn block_on<F, T, R>(&self, future: F) -> Result<R>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        let arbiter = &self.inner.arbiters[0];
        if ARBITER.get() == Some(arbiter.key) {
            return Err(Error::other(
                "the node cannot wait for itself: `block_on` was called on the thread that the future would run on",
            ));
        }
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        arbiter.handle.spawn_fn(move || {
            actix::spawn(async move {
                let _ = send.send(future().await);
            });
        });
        receive.recv().map_err(|_| Error::Stopped)
    }

    /// Asks the worker at this address to stop, and what it owns. The addresses are free when this returns.
    ///
    /// # Errors
    /// [`Error::NoWorker`] if there is none.
    pub fn stop_worker(&self, address: &Address) -> Result<()> {
        match self.cell_at(address) {
            Some(cell) => {
                cell.stop();
                Ok(())
            }
            None => Err(Error::NoWorker(address.clone())),
        }
    }

    /// Asks the worker to stop and waits until it has ended.
    ///
    /// # Errors
    /// [`Error::NoWorker`] if there is none.
    pub async fn stop_worker_and_wait(&self, address: &Address) -> Result<()> {
        let cell = self
            .cell_at(address)
            .ok_or_else(|| Error::NoWorker(address.clone()))?;
        cell.stop();
        cell.ending.finished().await;
        Ok(())
    }

    /// Waits until the worker at this address has ended; at once if there is none. The worker is looked up when this
    /// is called, not when the future is polled.
    pub fn ended(&self, address: &Address) -> impl Future<Output = ()> + Send + 'static {
        let cell = self.cell_at(address);
        async move {
            if let Some(cell) = cell {
                cell.ending.finished().await;
            }
        }
    }

    fn cell_at(&self, address: &Address) -> Option<Arc<Cell>> {
        self.router().find(address)?.cell.upgrade()
    }

    /// Whether somebody listens at this address.
    pub fn has_worker(&self, address: &Address) -> bool {
        self.router().find(address).is_some()
    }

    /// The next arbiter in turn, as [`Placement::Next`] would take it: for flows that shall be on different ones, which are
    /// then placed on this, the one after it, and so on.
    pub fn next_arbiter(&self) -> usize {
        let inner = &self.inner;
        inner.next_arbiter.fetch_add(1, Ordering::Relaxed) % inner.arbiters.len()
    }

    fn arbiter(&self, number: usize) -> Option<&Arbiter> {
        let inner = &self.inner;
        match number.checked_sub(inner.arbiters.len()) {
            None => inner.arbiters.get(number),
            Some(number) => inner.aside.get()?.get(number),
        }
    }

    /// The next of the arbiters that stand aside; of a node without threads of its own, the one that it has.
    fn next_aside(&self) -> Result<usize> {
        let inner = &self.inner;
        let Some(system) = inner.system.get() else {
            return Ok(self.next_arbiter());
        };
        let aside = match inner.aside.get() {
            Some(aside) => aside,
            None => {
                let _one_at_a_time = inner.aside_starting.lock();
                match inner.aside.get() {
                    Some(aside) => aside,
                    None => {
                        let started = start_aside(system.clone(), inner.aside_count)?;
                        inner.aside.get_or_init(|| started)
                    }
                }
            }
        };
        let next = inner.next_aside.fetch_add(1, Ordering::Relaxed) % aside.len().max(1);
        Ok(inner.arbiters.len() + next)
    }

    /// The arbiter that the worker at this address runs on.
    pub fn arbiter_of(&self, address: &Address) -> Option<usize> {
        self.cell_at(address).map(|cell| cell.arbiter as usize)
    }

    /// Messages that wait at this address.
    pub fn waiting_at(&self, address: &Address) -> usize {
        self.router()
            .find(address)
            .map_or(0, |record| record.mailbox.len())
    }

    /// Whether messages sent to this address leave the node.
    pub fn is_terminal(&self, address: &Address) -> bool {
        self.router().find(address).is_some_and(|record| record.terminal)
    }

    /// The authenticated peer at the other end, if this is the address of a secure channel's encryptor.
    pub fn peer_of(&self, address: &Address) -> Option<Arc<crate::Peer>> {
        self.router().find(address)?.peer.clone()
    }

    /// All addresses of the node, sorted.
    pub fn addresses(&self) -> Vec<Address> {
        self.router().addresses()
    }

    /// The primary addresses of all workers, sorted.
    pub fn workers(&self) -> Vec<Address> {
        let cells = self.inner.cells.lock();
        let mut workers: Vec<_> = cells
            .values()
            .filter_map(Weak::upgrade)
            .filter(|cell| !cell.ending.is_finished())
            .map(|cell| cell.primary().clone())
            .collect();
        workers.sort();
        workers
    }

    /// What was refused so far.
    pub fn refusals(&self) -> &Refusals {
        &self.router().refusals
    }

    /// A new flow; see [`Flow`].
    pub fn new_flow(&self, spawner: Option<&Arc<Flow>>) -> Arc<Flow> {
        Flow::new(spawner.cloned())
    }

    /// Lets the producers of `flow` reach `address`, until the worker there stops.
    pub fn add_consumer(&self, flow: &Arc<Flow>, address: &Address) {
        self.router().add_consumer(flow, address);
    }

    /// The flow that is found by this address: that of its producer, or the one that it is an alias of.
    pub fn flow_of(&self, address: &Address) -> Option<Arc<Flow>> {
        self.router().find(address)?.flow().cloned()
    }

    /// The flow that this very address produces.
    pub fn produced_by(&self, address: &Address) -> Option<Arc<Flow>> {
        self.router().find(address)?.producer.get().cloned()
    }

    /// The flows that this address consumes.
    pub fn flows_consumed_by(&self, address: &Address) -> Vec<Arc<Flow>> {
        self.router().consumed_by(address)
    }

    /// Whether the node is stopping or has stopped.
    pub fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Acquire)
    }

    /// Stops all workers, stage by stage, then the arbiters. Needs a tokio runtime around it; must not be awaited on
    /// one of the node's own arbiters.
    pub async fn stop(&self) {
        if self.inner.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        for stage in [
            Stage::Application,
            Stage::InnerChannel,
            Stage::Channel,
            Stage::Transport,
        ] {
            let cells: Vec<_> = self
                .inner
                .cells
                .lock()
                .values()
                .filter_map(Weak::upgrade)
                .filter(|cell| cell.stage == stage && !cell.ending.is_finished())
                .collect();
            cells.iter().for_each(|cell| cell.stop());
            let all = async {
                for cell in &cells {
                    cell.ending.finished().await;
                }
            };
            let _ = tokio::time::timeout(STAGE_TIMEOUT, all).await;
        }
        if let Some(system) = self.inner.system.get() {
            system.stop();
        }
        let thread = self.inner.thread.lock().take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// As [`Node::stop`], for synchronous programs.
    pub fn stop_blocking(&self) {
        let node = self.clone();
        let stopper = std::thread::spawn(move || {
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
            {
                runtime.block_on(node.stop());
            }
        });
        let _ = stopper.join();
    }
}

/// A passage without a worker.
fn passive(passage: Arc<dyn Passage>) -> Box<Through> {
    Box::new(Through {
        passage,
        from: None,
        has_worker: false,
        known: Mutex::default(),
    })
}

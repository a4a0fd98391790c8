//! What a worker did, counted around it: the worker itself and the runtime know nothing of it.
//!
//! A worker that is started with a [`Place`](super::Place) is put into [`Counted`], which is the same worker with a counter on
//! either side of its handler. So workers that nobody counts, that is the whole data path, cost nothing more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use portolan_runtime::{
    Address, Body, Context, Envelope, Message, Node, Passage, Result, Routed, SyncWorker, Worker,
};
use tokio::sync::watch;

/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 500;

/// How far a worker has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It is being initialized.
    Starting,
    /// It takes messages.
    Running,
    /// It could not be initialized, for this reason.
    Failed(String),
    /// It has ended.
    Ended,
}

/// What a worker did since it was started.
#[derive(Debug)]
pub struct Tally {
    handled: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    /// Bytes; 0 is unknown.
    memory: AtomicU64,
    last_failure: Mutex<Option<String>>,
    phase: watch::Sender<Phase>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            handled: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            memory: AtomicU64::new(0),
            last_failure: Mutex::default(),
            phase: watch::Sender::new(Phase::Starting),
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Tally {
    /// Messages whose handler succeeded.
    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// Messages whose handler failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Messages of peers that no policy let through to the worker.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Memory of the worker in bytes, where somebody knows it.
    pub fn memory(&self) -> Option<u64> {
        Some(self.memory.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Why the last message failed.
    pub fn last_failure(&self) -> Option<String> {
        self.last_failure.lock().clone()
    }

    /// How far the worker has come.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Waits until the worker takes messages, or cannot.
    pub(crate) async fn settled(&self) -> Phase {
        let mut phase = self.phase.subscribe();
        match phase.wait_for(|phase| *phase != Phase::Starting).await {
            Ok(phase) => phase.clone(),
            // Its sender is in `self`.
            Err(_) => Phase::Ended,
        }
    }

    /// A message was handled: for workers that are started as tasks and count for themselves.
    pub fn count_handled(&self) {
        add(&self.handled);
    }

    /// A message failed, for this reason.
    pub fn count_failed(&self, reason: &dyn std::fmt::Display) {
        add(&self.failed);
        *self.last_failure.lock() = Some(reason.to_string().chars().take(MAX_REASON).collect());
    }

    /// The worker has this much memory at present, in bytes.
    pub fn set_memory(&self, bytes: u64) {
        self.memory.store(bytes, Ordering::Relaxed);
    }

    /// The worker takes messages from now on.
    pub fn set_running(&self) {
        self.phase.send_if_modified(|phase| {
            let is_new = *phase == Phase::Starting;
            if is_new {
                *phase = Phase::Running;
            }
            is_new
        });
    }

    /// The worker cannot start, for this reason.
    pub fn set_failed(&self, reason: &dyn std::fmt::Display) {
        let reason = reason.to_string().chars().take(MAX_REASON).collect();
        self.phase.send_replace(Phase::Failed(reason));
    }

    fn set_ended(&self) {
        self.phase.send_if_modified(|phase| {
            let is_new = !matches!(phase, Phase::Failed(_) | Phase::Ended);
            if is_new {
                *phase = Phase::Ended;
            }
            is_new
        });
    }

    pub(crate) fn count_refused(&self) {
        add(&self.refused);
    }

    fn initialized(&self, result: &Result<()>) {
        match result {
            Ok(()) => self.set_running(),
            Err(error) => self.set_failed(error),
        }
    }

    fn count<T>(&self, result: &Result<T>) {
        match result {
            Ok(_) => add(&self.handled),
            Err(error) => self.count_failed(error),
        }
    }
}

/// Says that the worker has ended when it goes, however it goes.
pub(super) struct Alive(pub(super) Arc<Tally>);

impl Drop for Alive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.last_failure.lock() = Some("it panicked; the node's log says where".to_owned());
        }
        self.0.set_ended();
    }
}

/// A worker whose messages are counted.
pub(super) struct Counted<W> {
    pub(super) worker: W,
    pub(super) tally: Alive,
}

impl<W: Worker> Worker for Counted<W>
where
    W::Message: Body,
{
    type Message = W::Message;

    async fn initialize(&mut self, ctx: &mut Context) -> Result<()> {
        let result = self.worker.initialize(ctx).await;
        self.tally.0.initialized(&result);
        result
    }

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<Self::Message>) -> Result<()> {
        let result = self.worker.handle_message(ctx, message).await;
        self.tally.0.count(&result);
        result
    }

    async fn shutdown(&mut self, ctx: &mut Context) -> Result<()> {
        self.worker.shutdown(ctx).await
    }
}

impl<W: SyncWorker> SyncWorker for Counted<W> {
    fn initialize(&mut self, ctx: &mut Context) -> Result<()> {
        let result = self.worker.initialize(ctx);
        self.tally.0.initialized(&result);
        result
    }

    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let result = self.worker.handle(ctx, envelope);
        self.tally.0.count(&result);
        result
    }

    fn shutdown(&mut self, ctx: &mut Context) {
        self.worker.shutdown(ctx);
    }
}

/// A passage whose messages are counted: handled are those that its next hop has accepted.
pub(super) struct CountedPassage {
    pub(super) passage: Arc<dyn Passage>,
    pub(super) tally: Alive,
}

impl Passage for CountedPassage {
    fn pass(&self, node: &Node, source: &Address, message: &mut Message) -> Result<bool> {
        let result = self.passage.pass(node, source, message);
        match &result {
            Ok(true) => {}
            Ok(false) => self.tally.0.count_handled(),
            Err(error) => self.tally.0.count_failed(error),
        }
        result
    }

    fn carries_records(&self) -> bool {
        self.passage.carries_records()
    }

    fn passed(&self, bytes: usize, accepted: bool) {
        self.passage.passed(bytes, accepted);
        if accepted {
            self.tally.0.count_handled();
        } else {
            self.tally.0.count_failed(&"its next hop did not take it");
        }
    }
}

//! What an owner can see of a plugin worker while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::log::Log;
use crate::{Plugin, Rights};

/// A number that others read while it grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) handled: Counter,
    pub(crate) failed: Counter,
    pub(crate) dropped: Counter,
    pub(crate) sent: Counter,
    pub(crate) refused_to_send: Counter,
    pub(crate) refused_to_reach: Counter,
    pub(crate) restarts: Counter,
    pub(crate) replacements: Counter,
    pub(crate) memory: Counter,
    pub(crate) pending: Counter,
}

/// What a plugin worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Its first instance is being started.
    #[default]
    Starting,
    /// It handles messages.
    Running,
    /// Its instance has failed, and the next one is started in a while.
    Restarting,
    /// It has ended.
    Stopped,
}

/// What is known of a plugin worker at one moment. Numbers count from its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// Messages that the plugin has handled without an error.
    pub handled: u64,
    /// Messages that the plugin answered with an error, that it broke down over, or that could not be given to it.
    pub failed: u64,
    /// Messages that were dropped because the plugin was not ready and its queue was full.
    pub dropped: u64,
    /// Messages that it has sent.
    pub sent: u64,
    /// Messages that it was not allowed to send, or that nobody took.
    pub refused_to_send: u64,
    /// Messages that others were not allowed to send to it.
    pub refused_to_reach: u64,
    /// How often it was started again after a failure.
    pub restarts: u64,
    /// How often it was replaced.
    pub replacements: u64,
    /// Log lines that it has written.
    pub log_lines: u64,
    /// Log lines that were too many.
    pub log_lines_dropped: u64,
    /// Bytes of memory that its instance has.
    pub memory: u64,
    /// Messages that wait.
    pub waiting: usize,
    /// Why its instance last failed, or its last error.
    pub last_error: Option<String>,
}

/// What the worker, its address's rule and its handles share.
pub(crate) struct Shared {
    pub(crate) counters: Counters,
    pub(crate) rights: RwLock<Arc<Rights>>,
    pub(crate) plugin: RwLock<Plugin>,
    pub(crate) log: Arc<Log>,
    state: Mutex<(State, Option<String>)>,
    changed: Notify,
}

impl Shared {
    pub(crate) fn new(plugin: Plugin, rights: Rights, log: Log) -> Self {
        Self {
            counters: Counters::default(),
            rights: RwLock::new(Arc::new(rights)),
            plugin: RwLock::new(plugin),
            log: Arc::new(log),
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state.lock().0
    }

    pub(crate) fn set_state(&self, state: State) {
        self.state.lock().0 = state;
        self.changed.notify_waiters();
    }

    pub(crate) fn set_error(&self, error: &str) {
        self.state.lock().1 = Some(error.to_owned());
        self.changed.notify_waiters();
    }

    pub(crate) fn status(&self, waiting: usize) -> Status {
        let (state, last_error) = self.state.lock().clone();
        let counters = &self.counters;
        Status {
            state,
            handled: counters.handled.get(),
            failed: counters.failed.get(),
            dropped: counters.dropped.get(),
            sent: counters.sent.get(),
            refused_to_send: counters.refused_to_send.get(),
            refused_to_reach: counters.refused_to_reach.get(),
            restarts: counters.restarts.get(),
            replacements: counters.replacements.get(),
            log_lines: self.log.written.get(),
            log_lines_dropped: self.log.dropped.get(),
            memory: counters.memory.get(),
            waiting: waiting + counters.pending.get() as usize,
            last_error,
        }
    }

    /// Waits until `condition` holds; looks again whenever the state or the last error changes.
    pub(crate) async fn until(&self, mut condition: impl FnMut() -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if condition() {
                return;
            }
            changed.await;
        }
    }
}

//! What an inlet or an outlet can say about itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use portolan_runtime::environment;
use tokio::sync::watch;

/// What kind of failure ended a connection, or kept it from beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The inlet has no route to its outlet at present.
    NotConnected,
    /// No Pong came in time: the outlet, or the path to it, is dead.
    NoAnswer,
    /// The outlet cannot connect to its target.
    Unreachable,
    /// A policy of this node forbids it.
    Denied,
    /// A policy of the other node forbids it.
    DeniedByPeer,
    /// Too many connections.
    Limit,
    /// The path broke while the connection was open.
    PathLost,
    /// The application's connection broke.
    Reset,
    /// The application did not read.
    Stalled,
    /// An interceptor, here or at the other end, ended it or failed.
    Intercepted,
    /// Something else that the peer did or said.
    Peer,
}

/// The last thing that went wrong.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What kind of thing.
    pub kind: FailureKind,
    /// For people: one sentence without full stop.
    pub text: String,
    /// When.
    pub at: SystemTime,
}

/// Called with each failure, on the thread of the connection. Must not block.
pub type FailureHook = Arc<dyn Fn(&Failure) + Send + Sync>;

/// Called when an outlet lets a client wait for longer than usual, on the thread of the connection. Must not block.
pub type DelayHook = Arc<dyn Fn() + Send + Sync>;

/// Counters of an inlet or outlet since it was made.
#[derive(Default)]
pub struct PortalStatus {
    open: AtomicU64,
    total: AtomicU64,
    pub(crate) from_application: AtomicU64,
    pub(crate) to_application: AtomicU64,
    last_failure: Mutex<Option<Failure>>,
    hook: Option<FailureHook>,
    delay_hook: Option<DelayHook>,
    logged: Mutex<Option<(Instant, u32)>>,
    again: watch::Sender<()>,
}

/// Log lines about failures of one inlet or outlet in a second; further ones are counted by their last failure only.
const LOGGED_PER_SECOND: u32 = 5;

impl PortalStatus {
    pub(crate) fn new(hook: Option<FailureHook>, delay_hook: Option<DelayHook>) -> Arc<Self> {
        Arc::new(Self {
            hook,
            delay_hook,
            ..Self::default()
        })
    }

    /// Whether anybody wants to know of delays.
    pub(crate) fn watches_delays(&self) -> bool {
        self.delay_hook.is_some()
    }

    pub(crate) fn delayed(&self) {
        if let Some(hook) = &self.delay_hook {
            hook();
        }
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections opened so far.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes read from applications (inlet) or from the target (outlet); with an interceptor, those that it let go on.
    pub fn from_application(&self) -> u64 {
        self.from_application.load(Ordering::Relaxed)
    }

    /// Bytes written to applications or to the target; with an interceptor, those that were given to it.
    pub fn to_application(&self) -> u64 {
        self.to_application.load(Ordering::Relaxed)
    }

    /// Every open connection asks its rules again, and is closed if they refuse: rules are asked for each message, but a connection
    /// on which nothing is said must not outlive the right to it either.
    pub fn ask_rules_again(&self) {
        self.again.send_replace(());
    }

    pub(crate) fn asked_again(&self) -> watch::Receiver<()> {
        self.again.subscribe()
    }

    /// The last thing that went wrong.
    pub fn last_failure(&self) -> Option<Failure> {
        self.last_failure.lock().clone()
    }

    pub(crate) fn fail(&self, kind: FailureKind, text: impl Into<String>) {
        let failure = Failure {
            kind,
            text: text.into(),
            at: environment::system_time(),
        };
        if self.may_log() {
            tracing::info!(?kind, "a portal connection failed: {}", failure.text);
        }
        if let Some(hook) = &self.hook {
            hook(&failure);
        }
        *self.last_failure.lock() = Some(failure);
    }

    /// Peers and clients can fail as often as they like; they must not fill a disk.
    fn may_log(&self) -> bool {
        let mut logged = self.logged.lock();
        let now = Instant::now();
        match logged.as_mut() {
            Some((since, count)) if now.duration_since(*since) < Duration::from_secs(1) => {
                *count += 1;
                *count <= LOGGED_PER_SECOND
            }
            _ => {
                *logged = Some((now, 1));
                true
            }
        }
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Open {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }
}

impl std::fmt::Debug for PortalStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortalStatus")
            .field("open", &self.open())
            .field("total", &self.total())
            .finish_non_exhaustive()
    }
}

/// Counts a connection as open as long as it lives.
#[derive(Debug)]
pub(crate) struct Open(pub(crate) Arc<PortalStatus>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

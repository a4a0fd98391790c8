//! One running worker: its addresses, its mailbox and its place in the tree of owners.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Address;
use crate::mailbox::Mailbox;
use crate::router::{Record, Router};

/// The order in which a stopping node stops its workers: what is above goes first, so that channels can still say
/// goodbye through their transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stage {
    /// Services, portals, users' workers.
    #[default]
    Application,
    /// Secure channels.
    Channel,
    /// Transports.
    Transport,
}

/// A flag that can be waited for.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    set: AtomicBool,
    notify: Notify,
}

impl Latch {
    pub(crate) fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self) -> bool {
        let first = !self.set.swap(true, Ordering::AcqRel);
        self.notify.notify_waiters();
        first
    }

    pub(crate) async fn wait(&self) {
        loop {
            let notified = self.notify.notified();
            if self.is_set() {
                return;
            }
            notified.await;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) number: u64,
    pub(crate) arbiter: usize,
    pub(crate) stage: Stage,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) records: Vec<Arc<Record>>,
    pub(crate) parent: Weak<Cell>,
    pub(crate) children: Mutex<HashMap<u64, Arc<Cell>>>,
    pub(crate) stopping: Latch,
    pub(crate) finished: Latch,
    pub(crate) router: Arc<Router>,
    /// Has no task: it ends when it is asked to.
    pub(crate) passive: bool,
}

impl Cell {
    pub(crate) fn primary(&self) -> &Address {
        &self.records[0].address
    }

    /// Asks the worker to stop. Its addresses are released at once.
    pub(crate) fn stop(&self) {
        if self.stopping.set() {
            self.router.unregister(&self.records);
            self.mailbox.close();
            if self.passive {
                self.finish();
            }
        }
    }

    /// The worker has ended: nothing of it or of what it owns stays.
    pub(crate) fn finish(&self) {
        self.stop();
        self.mailbox.clear();
        let children: Vec<_> = self.children.lock().drain().map(|(_, child)| child).collect();
        children.iter().for_each(|child| child.stop());
        if let Some(parent) = self.parent.upgrade() {
            parent.children.lock().remove(&self.number);
        }
        if self.passive {
            self.router.release(self.number);
        }
        self.finished.set();
    }
}

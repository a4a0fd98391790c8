//! One running worker: its addresses, its mailbox and its place in the tree of owners.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use smallvec::SmallVec;
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
    /// Secure channels that go through another channel, as through that of a relay: their goodbye needs it.
    InnerChannel,
    /// Secure channels over a transport connection.
    Channel,
    /// Transports.
    Transport,
}

/// How far a worker has come on its way out, and who waits for that.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    is_stopping: AtomicBool,
    is_finished: AtomicBool,
    notify: Notify,
}

impl Ending {
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished.load(Ordering::Acquire)
    }

    /// `true` the first time.
    fn set_stopping(&self) -> bool {
        let first = !self.is_stopping.swap(true, Ordering::AcqRel);
        self.notify.notify_waiters();
        first
    }

    fn set_finished(&self) {
        self.is_finished.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    /// Waits until the worker has been asked to stop.
    pub(crate) async fn stopping(&self) {
        self.wait(&self.is_stopping).await;
    }

    /// Waits until the worker has ended.
    pub(crate) async fn finished(&self) {
        self.wait(&self.is_finished).await;
    }

    async fn wait(&self, flag: &AtomicBool) {
        loop {
            let notified = self.notify.notified();
            if flag.load(Ordering::Acquire) {
                return;
            }
            notified.await;
        }
    }
}

/// By the number of a worker, which nobody outside chooses. What is done with all of them is done in the same order each time
/// that the same has happened before: a simulation depends on that.
pub(crate) type ByNumber<V> = HashMap<u64, V, foldhash::fast::FixedState>;

type Children = ByNumber<Arc<Cell>>;

#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) number: u64,
    pub(crate) arbiter: u32,
    pub(crate) stage: Stage,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) records: SmallVec<[Arc<Record>; 1]>,
    pub(crate) parent: Weak<Cell>,
    /// What it owns; most own nothing.
    pub(crate) children: Mutex<Option<Box<Children>>>,
    pub(crate) ending: Ending,
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
        if self.ending.set_stopping() {
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
        let children = self.children.lock().take();
        children
            .iter()
            .flat_map(|children| children.values())
            .for_each(|child| child.stop());
        if let Some(parent) = self.parent.upgrade()
            && let Some(children) = parent.children.lock().as_mut()
        {
            children.remove(&self.number);
        }
        if self.passive {
            self.router.release(self.number);
        }
        self.ending.set_finished();
    }
}

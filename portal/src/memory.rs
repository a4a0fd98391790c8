//! How much memory the windows of all streams of a node may promise together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the windows of a node may have beyond the smallest, by default, in bytes: 64 streams at their largest.
pub const WINDOW_MEMORY: u64 = 256 * 1024 * 1024;

/// The memory that windows share. Every stream has the smallest window ([`crate::stream::MIN_WINDOW`]) without asking; what
/// it grants beyond comes from here and goes back when it is used up, given back, or the stream ends. Clones share.
#[derive(Debug, Clone)]
pub struct WindowMemory(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: u64,
    used: AtomicU64,
    /// The window of a stream that could not have what it wanted; 0 when there is none.
    wanting: AtomicU64,
}

impl WindowMemory {
    /// So many bytes for all streams that are given a clone of it.
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Account {
            limit,
            used: AtomicU64::new(0),
            wanting: AtomicU64::new(0),
        }))
    }

    /// The bytes that there are.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// The bytes that are promised now.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Takes bytes for a stream that has a window of `window`; all or none.
    pub(crate) fn take(&self, bytes: u64, window: u64) -> bool {
        let account = &self.0;
        let taken = account
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= account.limit)
            });
        if taken.is_err() {
            account.wanting.store(window, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether a stream with less than half of this window wanted more in vain: who asks shall do with less then. Says so
    /// to one stream for each one that wanted more.
    pub(crate) fn is_owed_by(&self, window: u64) -> bool {
        let wanting = self.0.wanting.load(Ordering::Relaxed);
        wanting != 0
            && window > 2 * wanting
            && self
                .0
                .wanting
                .compare_exchange(wanting, 0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl Default for WindowMemory {
    fn default() -> Self {
        Self::new(WINDOW_MEMORY)
    }
}

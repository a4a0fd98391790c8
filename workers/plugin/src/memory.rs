//! The memory that the interceptors of a node may have together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that the interceptors of a node may have together by default: 2 GiB of linear memory, tables and stacks, of which a usual plugin
/// touches a small part. Room for some 1,200 connections through a plugin in Rust.
pub const INTERCEPTOR_MEMORY: u64 = 2 * 1024 * 1024 * 1024;

/// The memory that instances share. Who connects to a portal makes an instance, so that the memory of one is no bound for a node: all that
/// an instance may hold comes from here when it begins or grows, and goes back when it ends. What is refused a plugin that grows is refused
/// as its own limit is; a connection for which there is nothing is refused. Clones share.
#[derive(Debug, Clone)]
pub struct SharedMemory(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: u64,
    used: AtomicU64,
}

impl SharedMemory {
    /// So many bytes for all that are given a clone of it.
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Account {
            limit,
            used: AtomicU64::new(0),
        }))
    }

    /// The bytes that there are.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// The bytes that instances have now, never more than the limit.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// All or none.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let taken = self
            .0
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= self.0.limit)
            });
        taken.is_ok()
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// For people.
    pub(crate) fn exhausted(&self) -> String {
        format!(
            "the {} MiB of memory that this node has for plugins in portal connections are used up (PORTOLAN_PLUGIN_MEMORY)",
            self.0.limit >> 20
        )
    }
}

impl Default for SharedMemory {
    fn default() -> Self {
        Self::new(INTERCEPTOR_MEMORY)
    }
}

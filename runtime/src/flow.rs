//! Flow control: which addresses can be reached from where (spec 01 §4.1).
//!
//! Each connection and each secure channel is a **flow**. Its *producer* is the mailbox that emits what came from
//! outside; its *consumers* are the addresses that may receive that. A flow made by a listener remembers the
//! listener's flow, its *spawner*, and may deliver to the spawner's consumers too. Nothing is a consumer unless it was
//! made one: what was forgotten is unreachable from the network.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::Address;

/// Names a flow inside this node: 32 hex digits, never transmitted.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FlowId(pub(crate) Address);

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().unwrap_or_default())
    }
}

impl fmt::Debug for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The consumers of one connection, channel or listener.
pub struct Flow {
    id: FlowId,
    spawner: Option<Arc<Flow>>,
    consumers: RwLock<HashSet<Address, foldhash::fast::RandomState>>,
    /// Counts the changes of the consumers, so that a sender can remember what it has been told.
    generation: AtomicU64,
    authenticated: AtomicBool,
}

/// The state of a flow's consumers and of its spawner's. What was allowed in one generation is allowed as long as it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u64, u64);

impl Flow {
    pub(crate) fn new(spawner: Option<Arc<Flow>>) -> Arc<Self> {
        Arc::new(Self {
            id: FlowId(Address::random()),
            spawner,
            consumers: RwLock::default(),
            generation: AtomicU64::new(0),
            authenticated: AtomicBool::new(false),
        })
    }

    /// Its name.
    pub fn id(&self) -> &FlowId {
        &self.id
    }

    /// The flow of the listener that made this one.
    pub fn spawner(&self) -> Option<&Arc<Flow>> {
        self.spawner.as_ref()
    }

    /// Whether a message of this flow may go to `address`.
    pub fn allows(&self, address: &Address) -> bool {
        self.consumers.read().contains(address)
            || self
                .spawner
                .as_ref()
                .is_some_and(|spawner| spawner.consumers.read().contains(address))
    }

    /// Says that the peer at the other end has proven its identity through a secure channel over this flow. Transports
    /// then allow it more than a stranger.
    pub fn mark_authenticated(&self) {
        self.authenticated.store(true, Ordering::Relaxed);
    }

    /// Whether the peer has proven its identity.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    pub(crate) fn generation(&self) -> Generation {
        let of = |flow: &Self| flow.generation.load(Ordering::Acquire);
        Generation(of(self), self.spawner.as_deref().map_or(0, of))
    }

    pub(crate) fn insert(&self, address: Address) -> bool {
        let mut consumers = self.consumers.write();
        self.generation.fetch_add(1, Ordering::Release);
        consumers.insert(address)
    }

    pub(crate) fn remove(&self, address: &Address) {
        let mut consumers = self.consumers.write();
        consumers.remove(address);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The addresses that this flow may deliver to, without its spawner's.
    pub fn consumers(&self) -> Vec<Address> {
        self.consumers.read().iter().cloned().collect()
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow")
            .field("id", &self.id)
            .field("consumers", &self.consumers.read().len())
            .finish()
    }
}

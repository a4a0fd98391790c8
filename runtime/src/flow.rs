//! Flow control: which addresses can be reached from where (spec 01 §4.1).
//!
//! Each connection and each secure channel is a **flow**. Its *producer* is the mailbox that emits what came from
//! outside; its *consumers* are the addresses that may receive that. A flow made by a listener remembers the
//! listener's flow, its *spawner*, and may deliver to the spawner's consumers too. Nothing is a consumer unless it was
//! made one: what was forgotten is unreachable from the network.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    authenticated: AtomicBool,
}

impl Flow {
    pub(crate) fn new(spawner: Option<Arc<Flow>>) -> Arc<Self> {
        Arc::new(Self {
            id: FlowId(Address::random()),
            spawner,
            consumers: RwLock::default(),
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

    pub(crate) fn insert(&self, address: Address) -> bool {
        self.consumers.write().insert(address)
    }

    pub(crate) fn remove(&self, address: &Address) {
        self.consumers.write().remove(address);
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

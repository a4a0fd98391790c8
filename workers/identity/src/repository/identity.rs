//! The histories of the identities that a node has met.

use crate::{ChangeHistory, Error, HistoryOrder, Identifier, Identity, StorageError};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Remembers the latest history of identities, so that nobody can go back behind a rotation that we have seen (§2.6).
pub trait IdentityRepository: Send + Sync {
    /// The latest history that we know.
    fn get(&self, identifier: &Identifier) -> Result<Option<Identity>, StorageError>;

    /// Compares with what is stored (§2.6) and stores the identity if it is [`HistoryOrder::Newer`], which it also is if
    /// nothing was stored. The comparison and the replacement are one step.
    ///
    /// Call it after everything else about a peer was checked: whoever is turned away must not leave a trace (§9.2, S2).
    fn update(&self, identity: Identity) -> Result<HistoryOrder, StorageError>;

    /// Forgets an identity. Says whether it was known.
    fn remove(&self, identifier: &Identifier) -> Result<bool, StorageError>;
}

/// Verifies a received history against what the repository knows, and changes nothing there. Changes that are already known are
/// not verified again. The order is that of the received history to the stored one; [`HistoryOrder::Newer`] if none is stored.
///
/// [`HistoryOrder::Older`] and [`HistoryOrder::Conflict`] mean that the peer must be refused.
pub fn verify_received(
    repository: &dyn IdentityRepository,
    history: ChangeHistory,
    expected: Option<&Identifier>,
) -> Result<(Identity, HistoryOrder), Error> {
    let known = repository.get(&history.claimed_identifier())?;
    let identity = Identity::verify_with_known(history, expected, known.as_ref())?;
    let order = known.map_or(HistoryOrder::Newer, |known| identity.compare(&known));
    Ok((identity, order))
}

/// A bounded repository in memory.
///
/// When it is full, the identity that was not asked for or presented for the longest time is forgotten, and with it the
/// protection against its old keys. Pinned identities (our own and the authorities) are never forgotten.
#[derive(Debug)]
pub struct MemoryIdentityRepository {
    capacity: usize,
    clock: AtomicU64,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Identifier, Entry>,
    /// How many of the entries are not pinned.
    unpinned: usize,
    /// The bytes of their histories.
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    identity: Identity,
    pinned: bool,
    /// The tick of the last use.
    used: AtomicU64,
}

impl MemoryIdentityRepository {
    /// Identities that are remembered by default. One of a single change takes less than a KiB.
    pub const DEFAULT_CAPACITY: usize = 16 * 1024;

    /// Bytes of histories that are remembered, beside pinned ones: strangers may have histories of 64 KiB each.
    pub const MAX_BYTES: usize = 32 * 1024 * 1024;

    /// A repository of at most this many identities that are not pinned; at least one.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        MemoryIdentityRepository {
            capacity,
            clock: AtomicU64::new(0),
            state: RwLock::default(),
        }
    }

    /// Stores an identity as [`update`](IdentityRepository::update) does, and never forgets it.
    pub fn pin(&self, identity: Identity) -> HistoryOrder {
        self.store(identity, true)
    }

    /// How many identities are remembered.
    pub fn len(&self) -> usize {
        self.state.read().entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn store(&self, identity: Identity, pin: bool) -> HistoryOrder {
        let now = self.tick();
        let state = &mut *self.state.write();
        if let Some(entry) = state.entries.get_mut(identity.identifier()) {
            let order = identity.compare(&entry.identity);
            if matches!(order, HistoryOrder::Equal | HistoryOrder::Newer) {
                if pin && !entry.pinned {
                    entry.pinned = true;
                    state.unpinned -= 1;
                    state.bytes -= size(&entry.identity);
                }
                *entry.used.get_mut() = now;
            }
            if order == HistoryOrder::Newer {
                if !entry.pinned {
                    state.bytes = state.bytes - size(&entry.identity) + size(&identity);
                }
                entry.identity = identity;
            }
            return order;
        }
        if !pin {
            while state.unpinned > 0
                && (state.unpinned >= self.capacity || state.bytes + size(&identity) > Self::MAX_BYTES)
            {
                state.forget_least_used();
            }
            state.unpinned += 1;
            state.bytes += size(&identity);
        }
        let identifier = *identity.identifier();
        state.entries.insert(
            identifier,
            Entry {
                identity,
                pinned: pin,
                used: AtomicU64::new(now),
            },
        );
        HistoryOrder::Newer
    }
}

fn size(identity: &Identity) -> usize {
    identity.history().encode().len()
}

impl State {
    fn forget_least_used(&mut self) {
        let victim = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.pinned)
            .min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed))
            .map(|(identifier, _)| *identifier);
        if let Some(identifier) = victim {
            self.remove(&identifier);
        }
    }

    fn remove(&mut self, identifier: &Identifier) -> bool {
        let removed = self.entries.remove(identifier);
        if let Some(entry) = removed.as_ref().filter(|entry| !entry.pinned) {
            self.unpinned -= 1;
            self.bytes -= size(&entry.identity);
        }
        removed.is_some()
    }
}

impl Default for MemoryIdentityRepository {
    fn default() -> Self {
        MemoryIdentityRepository::new(Self::DEFAULT_CAPACITY)
    }
}

impl IdentityRepository for MemoryIdentityRepository {
    fn get(&self, identifier: &Identifier) -> Result<Option<Identity>, StorageError> {
        Ok(self.state.read().entries.get(identifier).map(|entry| {
            entry.used.store(self.tick(), Ordering::Relaxed);
            entry.identity.clone()
        }))
    }

    fn update(&self, identity: Identity) -> Result<HistoryOrder, StorageError> {
        Ok(self.store(identity, false))
    }

    fn remove(&self, identifier: &Identifier) -> Result<bool, StorageError> {
        Ok(self.state.write().remove(identifier))
    }
}

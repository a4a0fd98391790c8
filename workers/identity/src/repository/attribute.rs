//! What authorities said of the peers of a node.

use crate::{Attributes, Identifier, StorageError, VerifiedCredential};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one authority said of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAttributes {
    /// Of whom.
    pub peer: Identifier,
    /// Who said it.
    pub authority: Identifier,
    /// What.
    pub attributes: Attributes,
    /// When the authority said it (`created_at` of the credential), UTC seconds.
    pub issued_at: u64,
    /// When we learned of it, UTC seconds.
    pub added_at: u64,
    /// From this second on it does not hold any more, UTC seconds; `None`: it holds until it is removed.
    pub expires_at: Option<u64>,
}

impl PeerAttributes {
    /// What a verified credential says, learned at `now`.
    pub fn from_credential(credential: &VerifiedCredential, now: u64) -> Self {
        PeerAttributes {
            peer: credential.subject,
            authority: credential.issuer,
            attributes: credential.attributes.clone(),
            issued_at: credential.created_at,
            added_at: now,
            expires_at: Some(credential.expires_at),
        }
    }

    /// Whether it holds at `now`.
    pub fn holds_at(&self, now: u64) -> bool {
        self.expires_at.is_none_or(|expires_at| expires_at > now)
    }
}

/// What became of attributes that were to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// They are stored; what the same authority said before is replaced.
    Stored,
    /// The authority has said something else since. That stays: a peer cannot get back the rights of yesterday by showing
    /// yesterday's credential.
    Superseded,
    /// They were issued before the peer was revoked.
    Revoked,
}

/// Remembers what authorities said of peers, per peer *and* authority: one authority never overwrites another
/// (§9.2, S16).
pub trait AttributeRepository: Send + Sync {
    /// Stores what an authority said, in place of what it said of the same peer before.
    fn insert(&self, entry: PeerAttributes) -> Result<PutOutcome, StorageError>;

    /// What `authority` said of `peer`, if it holds at `now`. This is on the path of messages: it answers from memory.
    fn get(&self, peer: &Identifier, authority: &Identifier, now: u64) -> Option<Arc<PeerAttributes>>;

    /// Forgets what every authority said of a peer. Says how many entries that were. The peer may present its credentials
    /// again; see [`revoke`](AttributeRepository::revoke).
    fn remove(&self, peer: &Identifier) -> Result<usize, StorageError>;

    /// Forgets what `authority` said of `peer`, and from now on refuses what it said at `revoked_at` (UTC seconds) or before.
    /// Says whether there was something.
    fn revoke(
        &self,
        peer: &Identifier,
        authority: &Identifier,
        revoked_at: u64,
    ) -> Result<bool, StorageError>;

    /// A number that is different after every insertion, removal and revocation. A decision made from what
    /// [`get`](AttributeRepository::get) returned may be kept as long as this number stays and the entry has not expired.
    fn generation(&self) -> u64;

    /// Stores what was said without a credential of its own, as of `now`.
    fn put(
        &self,
        peer: &Identifier,
        attributes: Attributes,
        authority: &Identifier,
        now: u64,
        expires_at: Option<u64>,
    ) -> Result<PutOutcome, StorageError> {
        self.insert(PeerAttributes {
            peer: *peer,
            authority: *authority,
            attributes,
            issued_at: now,
            added_at: now,
            expires_at,
        })
    }

    /// Stores what a verified credential says.
    fn put_credential(&self, credential: &VerifiedCredential, now: u64) -> Result<PutOutcome, StorageError> {
        self.insert(PeerAttributes::from_credential(credential, now))
    }
}

/// A bounded repository in memory.
///
/// When it is full, expired entries go first, then the one that would expire soonest. Revocations are bounded by the same
/// number; when there are too many, the oldest is forgotten (the credentials it was against have most likely expired).
#[derive(Debug)]
pub struct MemoryAttributeRepository {
    capacity: usize,
    generation: AtomicU64,
    losses: AtomicU64,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Per peer, what each authority said. Few authorities, so a list.
    entries: HashMap<Identifier, Vec<Arc<PeerAttributes>>>,
    /// Over all peers.
    count: usize,
    /// (peer, authority) -> what was issued until then is refused.
    revoked: HashMap<(Identifier, Identifier), u64>,
}

impl MemoryAttributeRepository {
    /// Entries that are remembered by default. With a handful of attributes, one takes less than a KiB.
    pub const DEFAULT_CAPACITY: usize = 16 * 1024;

    /// A repository of at most this many entries, at least one.
    pub fn new(capacity: usize) -> Self {
        MemoryAttributeRepository {
            capacity: capacity.max(1),
            generation: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            state: RwLock::default(),
        }
    }

    /// Forgets what does not hold any more at `now`.
    pub fn forget_expired(&self, now: u64) {
        let anything = |state: &State| state.entries.values().flatten().any(|entry| !entry.holds_at(now));
        if !anything(&self.state.read()) {
            return;
        }
        let mut state = self.state.write();
        state.retain(|entry| entry.holds_at(now));
        self.lost();
        self.changed();
    }

    /// A number that is different whenever somebody may have lost a right: an entry was replaced by another one with other
    /// attributes, removed, revoked, or [found expired](Self::forget_expired). A renewal of the same attributes changes
    /// [`generation`](AttributeRepository::generation) only.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    fn lost(&self) {
        self.losses.fetch_add(1, Ordering::Release);
    }

    /// How many entries there are, expired ones included.
    pub fn len(&self) -> usize {
        self.state.read().count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Called with the lock held, so that whoever sees the new state afterwards also sees the new number.
    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }
}

impl Default for MemoryAttributeRepository {
    fn default() -> Self {
        MemoryAttributeRepository::new(Self::DEFAULT_CAPACITY)
    }
}

impl State {
    fn retain(&mut self, mut keep: impl FnMut(&PeerAttributes) -> bool) {
        let mut count = 0;
        self.entries.retain(|_, list| {
            list.retain(|entry| keep(entry));
            count += list.len();
            !list.is_empty()
        });
        self.count = count;
    }

    fn make_room(&mut self, capacity: usize, now: u64) {
        if self.count < capacity {
            return;
        }
        self.retain(|entry| entry.holds_at(now));
        if self.count < capacity {
            return;
        }
        let victim = self
            .entries
            .values()
            .flatten()
            .min_by_key(|entry| entry.expires_at.unwrap_or(u64::MAX))
            .map(|entry| (entry.peer, entry.authority));
        if let Some((peer, authority)) = victim {
            self.take(&peer, &authority);
        }
    }

    fn take(&mut self, peer: &Identifier, authority: &Identifier) -> bool {
        let Some(list) = self.entries.get_mut(peer) else {
            return false;
        };
        let before = list.len();
        list.retain(|entry| entry.authority != *authority);
        let removed = before - list.len();
        if list.is_empty() {
            self.entries.remove(peer);
        }
        self.count -= removed;
        removed > 0
    }
}

impl AttributeRepository for MemoryAttributeRepository {
    fn insert(&self, entry: PeerAttributes) -> Result<PutOutcome, StorageError> {
        let mut state = self.state.write();
        let revoked_at = state.revoked.get(&(entry.peer, entry.authority));
        if revoked_at.is_some_and(|revoked_at| entry.issued_at <= *revoked_at) {
            return Ok(PutOutcome::Revoked);
        }
        let stored = state
            .entries
            .get_mut(&entry.peer)
            .and_then(|list| list.iter_mut().find(|e| e.authority == entry.authority));
        match stored {
            Some(stored) if stored.issued_at > entry.issued_at && stored.holds_at(entry.added_at) => {
                return Ok(PutOutcome::Superseded);
            }
            Some(stored) => {
                if stored.attributes.map() != entry.attributes.map() {
                    self.lost();
                }
                *stored = Arc::new(entry);
            }
            None => {
                state.make_room(self.capacity, entry.added_at);
                state.count += 1;
                state.entries.entry(entry.peer).or_default().push(Arc::new(entry));
            }
        }
        self.changed();
        Ok(PutOutcome::Stored)
    }

    fn get(&self, peer: &Identifier, authority: &Identifier, now: u64) -> Option<Arc<PeerAttributes>> {
        let state = self.state.read();
        let entry = state
            .entries
            .get(peer)?
            .iter()
            .find(|e| e.authority == *authority)?;
        entry.holds_at(now).then(|| entry.clone())
    }

    fn remove(&self, peer: &Identifier) -> Result<usize, StorageError> {
        let mut state = self.state.write();
        let removed = state.entries.remove(peer).map_or(0, |list| list.len());
        state.count -= removed;
        self.lost();
        self.changed();
        Ok(removed)
    }

    fn revoke(
        &self,
        peer: &Identifier,
        authority: &Identifier,
        revoked_at: u64,
    ) -> Result<bool, StorageError> {
        let mut state = self.state.write();
        let key = (*peer, *authority);
        if state.revoked.len() >= self.capacity && !state.revoked.contains_key(&key) {
            let oldest = state
                .revoked
                .iter()
                .min_by_key(|(_, at)| **at)
                .map(|(key, _)| *key);
            oldest.map(|k| state.revoked.remove(&k));
        }
        let until = state.revoked.entry(key).or_insert(revoked_at);
        *until = revoked_at.max(*until);
        // What was issued later is not meant: the removal may be told long after its time.
        let void = state
            .entries
            .get(peer)
            .and_then(|list| list.iter().find(|entry| entry.authority == *authority))
            .is_some_and(|entry| entry.issued_at <= revoked_at);
        let removed = void && state.take(peer, authority);
        self.lost();
        self.changed();
        Ok(removed)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

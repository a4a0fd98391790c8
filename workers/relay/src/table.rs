//! Which relays there are, who owns them, and who may take which name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use portolan_runtime::{Address, Denial, PeerIdentifier, Route};

use crate::name::{NameError, RelayName};
use crate::protocol::RequestError;

/// Who a relay belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RelayOwner {
    /// An authenticated peer, whichever of its channels the registration came through.
    Peer(PeerIdentifier),
    /// Whoever is at the other end of this connection: nothing better is known without a secure channel.
    Connection(Address),
}

impl RelayOwner {
    /// The authenticated peer, if there is one.
    pub fn peer(&self) -> Option<PeerIdentifier> {
        match self {
            Self::Peer(identifier) => Some(*identifier),
            Self::Connection(_) => None,
        }
    }
}

impl fmt::Display for RelayOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(identifier) => identifier.fmt(f),
            Self::Connection(address) => write!(f, "the connection {address}"),
        }
    }
}

/// Why a name was not registered. Told to the target, so it says nothing about other owners.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unregistered {
    /// The registration message cannot be read, or asks for what cannot be a name.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The message cannot be answered, so nothing could be forwarded either.
    #[error("the registration names no worker that could be answered")]
    NoReturnAddress,
    /// The route back is longer than anybody needs, and would be added to each message.
    #[error("the route to the registering node is too long")]
    RouteTooLong,
    /// The authority or a policy says no.
    #[error("{0}")]
    Denied(#[from] Denial),
    /// Somebody else has the name.
    #[error("the name is held by somebody else, whose connection is alive")]
    Taken,
    /// The owner has as many relays as one may have.
    #[error("there are {0} relays of this peer already, which is the limit")]
    TooManyOfPeer(usize),
    /// The node has as many relays as it may have.
    #[error("there are {0} relays on this node already, which is the limit")]
    TooMany(usize),
    /// A worker of another kind is at the address, or the node is stopping.
    #[error("the relay could not be started")]
    NotStarted,
}

impl From<NameError> for Unregistered {
    fn from(error: NameError) -> Self {
        Self::Request(error.into())
    }
}

/// What a relay has forwarded.
#[derive(Debug, Default)]
pub struct Traffic {
    messages: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
}

impl Traffic {
    pub(crate) fn forwarded(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// One relay, as it is listed.
#[derive(Debug, Clone)]
pub struct RelayInfo {
    /// Its name, without prefix.
    pub name: RelayName,
    /// Who registered it.
    pub owner: RelayOwner,
    /// When it was registered.
    pub since: SystemTime,
    /// The route to the target.
    pub route: Route,
    /// Messages forwarded.
    pub messages: u64,
    /// Bytes of payload forwarded.
    pub bytes: u64,
    /// Messages that could not be forwarded.
    pub dropped: u64,
}

/// How often what happened at a relay service, since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayCounts {
    /// Relays that exist now.
    pub relays: usize,
    /// Registrations that succeeded.
    pub registered: u64,
    /// Of those, registrations that replaced a relay.
    pub replaced: u64,
    /// Registrations that were refused.
    pub refused: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Tells this relay from one that has replaced it.
    pub(crate) number: u64,
    pub(crate) owner: RelayOwner,
    /// The hop that everything for the target goes through. When it ends, so does the relay.
    pub(crate) via: Address,
    /// The whole return route of the registration, to tell the target something.
    pub(crate) answers: Route,
    /// The route that messages are put on.
    pub(crate) forward: Route,
    pub(crate) since: SystemTime,
    pub(crate) traffic: Arc<Traffic>,
}

#[derive(Debug, Default)]
pub(crate) struct Entries {
    relays: HashMap<RelayName, Entry>,
    /// Relays of each owner that has one.
    owned: HashMap<RelayOwner, usize>,
    counts: RelayCounts,
    next: u64,
}

/// Largest numbers of relays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quota {
    pub(crate) per_peer: usize,
    pub(crate) total: usize,
}

impl Entries {
    /// Decides whether `owner` may have the name, and gives the relay that it replaces, if any.
    ///
    /// A living relay can be replaced by its owner only. One whose connection has ended is nobody's.
    pub(crate) fn claim(
        &self,
        name: &RelayName,
        owner: &RelayOwner,
        quota: Quota,
        is_alive: impl Fn(&Address) -> bool,
    ) -> Result<Option<&Entry>, Unregistered> {
        let held = self.relays.get(name);
        if held.is_some_and(|entry| entry.owner != *owner && is_alive(&entry.via)) {
            return Err(Unregistered::Taken);
        }
        let owns_it = held.is_some_and(|entry| entry.owner == *owner);
        let owned = self.owned.get(owner).copied().unwrap_or_default();
        if !owns_it && owned >= quota.per_peer {
            return Err(Unregistered::TooManyOfPeer(quota.per_peer));
        }
        if held.is_none() && self.relays.len() >= quota.total {
            return Err(Unregistered::TooMany(quota.total));
        }
        Ok(held)
    }

    pub(crate) fn insert(&mut self, name: RelayName, mut entry: Entry) -> u64 {
        self.next += 1;
        entry.number = self.next;
        self.counts.registered += 1;
        if self.forget(&name).is_some() {
            self.counts.replaced += 1;
        }
        *self.owned.entry(entry.owner.clone()).or_default() += 1;
        self.relays.insert(name, entry);
        self.next
    }

    /// Takes the relay out if it is still the one with this number.
    pub(crate) fn remove(&mut self, name: &RelayName, number: u64) -> Option<Entry> {
        if self.relays.get(name)?.number == number {
            self.forget(name)
        } else {
            None
        }
    }

    pub(crate) fn contains(&self, name: &RelayName) -> bool {
        self.relays.contains_key(name)
    }

    pub(crate) fn forget(&mut self, name: &RelayName) -> Option<Entry> {
        let entry = self.relays.remove(name)?;
        if let Some(owned) = self.owned.get_mut(&entry.owner) {
            *owned -= 1;
            if *owned == 0 {
                self.owned.remove(&entry.owner);
            }
        }
        Some(entry)
    }

    pub(crate) fn count_refusal(&mut self) {
        self.counts.refused += 1;
    }
}

/// The relays of a node: a handle to look at them, and to end some. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RelayTable {
    pub(crate) entries: Arc<Mutex<Entries>>,
}

impl RelayTable {
    /// All relays, sorted by name.
    pub fn relays(&self) -> Vec<RelayInfo> {
        let entries = self.entries.lock();
        let mut relays: Vec<_> = entries
            .relays
            .iter()
            .map(|(name, entry)| RelayInfo {
                name: name.clone(),
                owner: entry.owner.clone(),
                since: entry.since,
                route: entry.forward.clone(),
                messages: entry.traffic.messages.load(Ordering::Relaxed),
                bytes: entry.traffic.bytes.load(Ordering::Relaxed),
                dropped: entry.traffic.dropped.load(Ordering::Relaxed),
            })
            .collect();
        relays.sort_by(|a, b| a.name.cmp(&b.name));
        relays
    }

    /// What has happened so far.
    pub fn counts(&self) -> RelayCounts {
        let entries = self.entries.lock();
        RelayCounts {
            relays: entries.relays.len(),
            ..entries.counts
        }
    }

    /// The names of the relays that one peer owns, sorted: what has to go when the peer is no longer a member.
    pub fn names_of(&self, peer: PeerIdentifier) -> Vec<RelayName> {
        let owner = RelayOwner::Peer(peer);
        let entries = self.entries.lock();
        let owned = entries.relays.iter().filter(|(_, entry)| entry.owner == owner);
        let mut names: Vec<_> = owned.map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const QUOTA: Quota = Quota {
        per_peer: 2,
        total: 4,
    };

    fn name(text: &str) -> RelayName {
        RelayName::new(text).unwrap()
    }

    fn peer(number: u8) -> RelayOwner {
        RelayOwner::Peer(PeerIdentifier([number; 32]))
    }

    fn entry(owner: RelayOwner, via: &str) -> Entry {
        Entry {
            number: 0,
            owner,
            via: via.into(),
            answers: Route::new(),
            forward: Route::new(),
            since: SystemTime::UNIX_EPOCH,
            traffic: Arc::default(),
        }
    }

    #[test]
    fn a_living_relay_is_replaced_by_its_owner_only() {
        let mut entries = Entries::default();
        entries.insert(name("a"), entry(peer(1), "channel-1"));
        let alive = |_: &Address| true;
        assert!(
            entries
                .claim(&name("a"), &peer(1), QUOTA, alive)
                .unwrap()
                .is_some()
        );
        for other in [peer(2), RelayOwner::Connection("channel-1".into())] {
            assert_eq!(
                entries.claim(&name("a"), &other, QUOTA, alive).unwrap_err(),
                Unregistered::Taken
            );
        }
        let dead = |via: &Address| *via != "channel-1".into();
        assert!(
            entries
                .claim(&name("a"), &peer(2), QUOTA, dead)
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn without_identity_the_connection_is_the_owner() {
        let mut entries = Entries::default();
        let (one, two) = (
            RelayOwner::Connection("one".into()),
            RelayOwner::Connection("two".into()),
        );
        entries.insert(name("a"), entry(one.clone(), "one"));
        assert!(entries.claim(&name("a"), &one, QUOTA, |_| true).is_ok());
        assert!(entries.claim(&name("a"), &two, QUOTA, |_| true).is_err());
        assert!(entries.claim(&name("a"), &peer(1), QUOTA, |_| true).is_err());
        assert!(entries.claim(&name("a"), &two, QUOTA, |_| false).is_ok());
    }

    #[test]
    fn a_peer_at_its_limit_can_still_replace_its_own() {
        let mut entries = Entries::default();
        entries.insert(name("a"), entry(peer(1), "c"));
        entries.insert(name("b"), entry(peer(1), "c"));
        assert_eq!(
            entries.claim(&name("x"), &peer(1), QUOTA, |_| true).unwrap_err(),
            Unregistered::TooManyOfPeer(2)
        );
        assert!(entries.claim(&name("b"), &peer(1), QUOTA, |_| true).is_ok());
        entries.insert(name("c"), entry(peer(2), "c"));
        entries.insert(name("d"), entry(peer(2), "c"));
        assert_eq!(
            entries.claim(&name("x"), &peer(3), QUOTA, |_| true).unwrap_err(),
            Unregistered::TooMany(4)
        );
    }

    #[test]
    fn a_relay_that_was_replaced_does_not_take_its_successor_out() {
        let mut entries = Entries::default();
        let first = entries.insert(name("a"), entry(peer(1), "c"));
        let second = entries.insert(name("a"), entry(peer(1), "d"));
        assert!(entries.remove(&name("a"), first).is_none());
        assert!(entries.remove(&name("a"), second).is_some());
        assert_eq!(entries.counts.replaced, 1);
    }

    proptest! {
        /// Whatever peers do in whatever order: quotas hold, and no living relay changes its owner.
        #[test]
        fn quotas_hold_and_living_relays_keep_their_owner(
            steps in proptest::collection::vec((0..6u8, 0..4u8, 0..4u8, any::<bool>()), 1..80)
        ) {
            let mut entries = Entries::default();
            let mut dead = HashSet::new();
            for (which, owner, via, dies) in steps {
                let (which, via) = (name(&format!("n{which}")), Address::from(format!("v{via}")));
                if dies {
                    dead.insert(via.clone());
                }
                let before = entries.relays.get(&which).cloned();
                let claim = entries.claim(&which, &peer(owner), QUOTA, |via| !dead.contains(via)).map(|_| ());
                if claim.is_ok() {
                    if let Some(before) = before {
                        prop_assert!(before.owner == peer(owner) || dead.contains(&before.via));
                    }
                    let mut new = entry(peer(owner), "");
                    new.via = via;
                    entries.insert(which, new);
                }
                prop_assert!(entries.relays.len() <= QUOTA.total);
                for owner in 0..4 {
                    let owned = entries.relays.values().filter(|entry| entry.owner == peer(owner)).count();
                    prop_assert!(owned <= QUOTA.per_peer);
                    prop_assert_eq!(entries.owned.get(&peer(owner)).copied().unwrap_or_default(), owned);
                }
            }
        }
    }
}

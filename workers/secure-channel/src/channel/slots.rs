//! How many handshakes and channels a listener has, and over which connection they came.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portolan_runtime::Address;

use crate::options::Limits;

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Slots {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hops: HashMap<Address, Hop>,
    pending: usize,
    open: usize,
}

#[derive(Debug, Default)]
struct Hop {
    /// Unfinished handshakes, oldest first: when each began and its responder's address.
    pending: VecDeque<(Instant, Address)>,
    open: usize,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    hop: Address,
    responder: Address,
    open: bool,
}

/// No place is free.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Slots {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
        })
    }

    /// A place for a handshake that came from `hop` and is answered by `responder`. The address of an older one, if that
    /// must go for it.
    pub(super) fn take(
        self: &Arc<Self>,
        hop: &Address,
        responder: &Address,
        now: Instant,
    ) -> Result<(Slot, Option<Address>), Full> {
        let mut state = self.state.lock();
        let evicted = if state
            .hops
            .get(hop)
            .is_some_and(|hop| hop.pending.len() >= self.limits.pending_per_hop)
        {
            Some(state.evict(hop, now, self.limits.pending_protected).ok_or(Full)?)
        } else if state.pending >= self.limits.pending {
            // Whoever occupies the most places loses one.
            let busiest = state
                .hops
                .iter()
                .max_by_key(|(_, hop)| hop.pending.len())
                .map(|(hop, _)| hop.clone());
            let evicted = busiest.and_then(|hop| state.evict(&hop, now, self.limits.pending_protected));
            Some(evicted.ok_or(Full)?)
        } else {
            None
        };
        state.pending += 1;
        state
            .hops
            .entry(hop.clone())
            .or_default()
            .pending
            .push_back((now, responder.clone()));
        let slot = Slot {
            slots: Arc::clone(self),
            hop: hop.clone(),
            responder: responder.clone(),
            open: false,
        };
        Ok((slot, evicted))
    }

    pub(super) fn pending(&self) -> usize {
        self.state.lock().pending
    }
}

impl State {
    fn evict(&mut self, hop: &Address, now: Instant, protected: Duration) -> Option<Address> {
        let pending = &mut self.hops.get_mut(hop)?.pending;
        let (since, _) = pending.front()?;
        if now.duration_since(*since) < protected {
            return None;
        }
        let (_, responder) = pending.pop_front()?;
        self.pending -= 1;
        Some(responder)
    }

    fn remove_pending(&mut self, hop: &Address, responder: &Address) {
        if let Some(hop) = self.hops.get_mut(hop)
            && let Some(place) = hop.pending.iter().position(|(_, found)| found == responder)
        {
            hop.pending.remove(place);
            self.pending -= 1;
        }
    }

    fn forget_if_empty(&mut self, hop: &Address) {
        if self
            .hops
            .get(hop)
            .is_some_and(|hop| hop.pending.is_empty() && hop.open == 0)
        {
            self.hops.remove(hop);
        }
    }
}

impl Slot {
    /// The handshake is finished: the place becomes that of an open channel, if there is one.
    pub(super) fn open(&mut self) -> Result<(), Full> {
        let mut state = self.slots.state.lock();
        let limits = &self.slots.limits;
        if state.open >= limits.open
            || state
                .hops
                .get(&self.hop)
                .is_some_and(|hop| hop.open >= limits.open_per_hop)
        {
            return Err(Full);
        }
        state.remove_pending(&self.hop, &self.responder);
        state.open += 1;
        state.hops.entry(self.hop.clone()).or_default().open += 1;
        self.open = true;
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state.lock();
        if self.open {
            state.open -= 1;
            if let Some(hop) = state.hops.get_mut(&self.hop) {
                hop.open -= 1;
            }
        } else {
            state.remove_pending(&self.hop, &self.responder);
        }
        state.forget_if_empty(&self.hop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> Arc<Slots> {
        Slots::new(Limits {
            pending: 5,
            pending_per_hop: 3,
            open: 2,
            open_per_hop: 1,
            pending_protected: Duration::from_secs(1),
        })
    }

    fn address(name: &str, i: usize) -> Address {
        Address::from(format!("{name}{i}"))
    }

    #[test]
    fn one_connection_cannot_take_the_places_of_another() {
        let slots = slots();
        let now = Instant::now();
        let (a, b) = (Address::from("a"), Address::from("b"));
        let held: Vec<_> = (0..3)
            .map(|i| slots.take(&a, &address("a", i), now).unwrap())
            .collect();
        assert_eq!(slots.take(&a, &address("a", 3), now).unwrap_err(), Full);
        let other = slots.take(&b, &address("b", 0), now).unwrap();
        assert_eq!(slots.pending(), 4);
        drop((held, other));
        assert_eq!(slots.pending(), 0);
        assert!(slots.state.lock().hops.is_empty());
    }

    #[test]
    fn an_old_handshake_gives_its_place_to_a_new_one() {
        let slots = slots();
        let start = Instant::now();
        let (a, b, c) = (Address::from("a"), Address::from("b"), Address::from("c"));
        let held: Vec<_> = (0..3)
            .map(|i| slots.take(&a, &address("a", i), start).unwrap())
            .collect();
        let later = start + Duration::from_secs(1);
        let (_new, evicted) = slots.take(&a, &address("a", 3), later).unwrap();
        assert_eq!(evicted, Some(address("a", 0)));
        // All places taken: the connection with the most gives one up.
        let _b: Vec<_> = (0..2)
            .map(|i| slots.take(&b, &address("b", i), later).unwrap())
            .collect();
        let (_c, evicted) = slots.take(&c, &address("c", 0), later).unwrap();
        assert_eq!(evicted, Some(address("a", 1)));
        drop(held);
        assert_eq!(slots.pending(), 4);
    }

    #[test]
    fn open_channels_are_limited_and_do_not_count_as_pending() {
        let slots = slots();
        let now = Instant::now();
        let (a, b) = (Address::from("a"), Address::from("b"));
        let (mut first, _) = slots.take(&a, &address("a", 0), now).unwrap();
        let (mut second, _) = slots.take(&a, &address("a", 1), now).unwrap();
        first.open().unwrap();
        assert_eq!(slots.pending(), 1);
        assert_eq!(second.open(), Err(Full));
        let (mut third, _) = slots.take(&b, &address("b", 0), now).unwrap();
        third.open().unwrap();
        drop(first);
        second.open().unwrap();
        drop((second, third));
        assert!(slots.state.lock().hops.is_empty());
        assert_eq!(slots.state.lock().open, 0);
    }
}

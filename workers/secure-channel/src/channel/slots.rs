//! How many handshakes and channels a listener has, over which connection they came, and which wait for a place.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portolan_runtime::{Address, Message};

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
    waiting: usize,
    /// Hops with messages that wait, each once; the first has its turn next.
    turns: VecDeque<Address>,
}

#[derive(Debug, Default)]
struct Hop {
    /// Unfinished handshakes, oldest first.
    pending: VecDeque<Pending>,
    open: usize,
    /// Messages 1 that find no place yet, oldest first.
    waiting: VecDeque<(Instant, Message)>,
}

#[derive(Debug)]
struct Pending {
    responder: Address,
    /// Since when the peer has our answer. Before that it is us who are slow.
    answered: Option<Instant>,
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

/// What becomes of a message 1 for which there is no place now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Queued {
    /// It waits. `first`: nothing waited before.
    Waits { first: bool },
    /// It waits instead of one that came over another connection, of which more wait than of any other.
    Displaces,
    /// As many wait as may.
    Refused,
}

impl Slots {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
        })
    }

    /// A place for a handshake that came from `hop` and is answered by `responder`. The address of an older one, if that
    /// must go for it. Nobody overtakes those that wait for the same reason.
    pub(super) fn take(
        self: &Arc<Self>,
        hop: &Address,
        responder: &Address,
        now: Instant,
    ) -> Result<(Slot, Option<Address>), Full> {
        let mut state = self.state.lock();
        if state.hops.get(hop).is_some_and(|hop| !hop.waiting.is_empty()) {
            return Err(Full);
        }
        let evicted = state.make_room(&self.limits, hop, now)?;
        Ok((self.occupy(&mut state, hop, responder), evicted))
    }

    /// Keeps a message 1 until there is a place for it.
    pub(super) fn queue(&self, hop: &Address, message: Message, now: Instant) -> Queued {
        let mut state = self.state.lock();
        let own = state.hops.get(hop).map_or(0, |hop| hop.waiting.len());
        if own >= self.limits.waiting_per_hop {
            return Queued::Refused;
        }
        let is_full = state.waiting >= self.limits.waiting;
        if is_full && !state.displace(own) {
            return Queued::Refused;
        }
        let first = state.waiting == 0;
        state.waiting += 1;
        if own == 0 {
            state.turns.push_back(hop.clone());
        }
        let entry = state.hops.entry(hop.clone()).or_default();
        entry.waiting.push_back((now, message));
        match is_full {
            true => Queued::Displaces,
            false => Queued::Waits { first },
        }
    }

    /// The next message 1 for which there is a place now, when it came, and the place; the connections take turns.
    #[allow(clippy::type_complexity)]
    pub(super) fn next(
        self: &Arc<Self>,
        responder: &Address,
        now: Instant,
    ) -> Option<(Instant, Message, Slot, Option<Address>)> {
        let mut state = self.state.lock();
        let mut place = 0;
        while let Some(hop) = state.turns.get(place).cloned() {
            let own = state.hops.get(&hop).map_or(0, |hop| hop.pending.len());
            match state.make_room(&self.limits, &hop, now) {
                Ok(evicted) => {
                    state.turns.remove(place);
                    let (since, message) = state.take_waiting(&hop)?;
                    let slot = self.occupy(&mut state, &hop, responder);
                    return Some((since, message, slot, evicted));
                }
                // It keeps its turn, until one of its own places is free.
                Err(Full) if own >= self.limits.pending_per_hop => place += 1,
                // All places are taken, for the other connections too.
                Err(Full) => return None,
            }
        }
        None
    }

    /// Whether messages wait.
    pub(super) fn is_waited_for(&self) -> bool {
        self.state.lock().waiting > 0
    }

    /// Nobody is accepted any more.
    pub(super) fn forget_waiting(&self) {
        let mut state = self.state.lock();
        state.waiting = 0;
        for hop in std::mem::take(&mut state.turns) {
            if let Some(entry) = state.hops.get_mut(&hop) {
                entry.waiting = VecDeque::new();
            }
            state.forget_if_empty(&hop);
        }
    }

    fn occupy(self: &Arc<Self>, state: &mut State, hop: &Address, responder: &Address) -> Slot {
        state.pending += 1;
        let pending = &mut state.hops.entry(hop.clone()).or_default().pending;
        pending.push_back(Pending {
            responder: responder.clone(),
            answered: None,
        });
        Slot {
            slots: Arc::clone(self),
            hop: hop.clone(),
            responder: responder.clone(),
            open: false,
        }
    }

    pub(super) fn pending(&self) -> usize {
        self.state.lock().pending
    }

    pub(super) fn waiting(&self) -> usize {
        self.state.lock().waiting
    }
}

impl State {
    /// Sees that there is a place; the address of an older handshake, if that must go for it.
    fn make_room(&mut self, limits: &Limits, hop: &Address, now: Instant) -> Result<Option<Address>, Full> {
        let own = self.hops.get(hop).map_or(0, |hop| hop.pending.len());
        let from = if own >= limits.pending_per_hop {
            hop.clone()
        } else if self.pending >= limits.pending {
            // Whoever occupies the most places loses one; of several, always the same.
            let busiest = self
                .hops
                .iter()
                .max_by_key(|(name, hop)| (hop.pending.len(), *name));
            busiest.map(|(hop, _)| hop.clone()).ok_or(Full)?
        } else {
            return Ok(None);
        };
        self.evict(&from, now, limits.pending_protected)
            .map(Some)
            .ok_or(Full)
    }

    fn evict(&mut self, hop: &Address, now: Instant, protected: Duration) -> Option<Address> {
        let pending = &mut self.hops.get_mut(hop)?.pending;
        let place = pending.iter().position(|pending| {
            pending
                .answered
                .is_some_and(|since| now.saturating_duration_since(since) >= protected)
        })?;
        let evicted = pending.remove(place)?;
        self.pending -= 1;
        Some(evicted.responder)
    }

    fn pending_of(&mut self, hop: &Address, responder: &Address) -> Option<&mut Pending> {
        let mut pending = self.hops.get_mut(hop)?.pending.iter_mut();
        pending.find(|pending| pending.responder == *responder)
    }

    fn remove_pending(&mut self, hop: &Address, responder: &Address) {
        if let Some(hop) = self.hops.get_mut(hop)
            && let Some(place) = hop
                .pending
                .iter()
                .position(|pending| pending.responder == *responder)
        {
            hop.pending.remove(place);
            self.pending -= 1;
        }
    }

    /// The oldest message of this hop, whose turn it was.
    fn take_waiting(&mut self, hop: &Address) -> Option<(Instant, Message)> {
        let entry = self.hops.get_mut(hop)?;
        let taken = entry.waiting.pop_front()?;
        if !entry.waiting.is_empty() {
            self.turns.push_back(hop.clone());
        }
        self.waiting -= 1;
        Some(taken)
    }

    /// Drops the newest message of the connection of which the most wait, if that is more than `own`.
    fn displace(&mut self, own: usize) -> bool {
        let most = self.hops.iter_mut().max_by_key(|(_, hop)| hop.waiting.len());
        // So that there is always another one left there, and its turn comes.
        let Some((_, hop)) = most.filter(|(_, hop)| hop.waiting.len() > own + 1) else {
            return false;
        };
        hop.waiting.pop_back();
        self.waiting -= 1;
        true
    }

    fn forget_if_empty(&mut self, hop: &Address) {
        if self
            .hops
            .get(hop)
            .is_some_and(|hop| hop.pending.is_empty() && hop.waiting.is_empty() && hop.open == 0)
        {
            self.hops.remove(hop);
        }
    }
}

impl Slot {
    /// The peer has been answered: from now on it is its turn.
    pub(super) fn answered(&self, now: Instant) {
        let mut state = self.slots.state.lock();
        if let Some(pending) = state.pending_of(&self.hop, &self.responder) {
            pending.answered = Some(now);
        }
    }

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
            waiting: 4,
            waiting_per_hop: 3,
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
        held.iter().for_each(|(slot, _)| slot.answered(start));
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

    #[test]
    fn whoever_waits_for_our_answer_keeps_its_place() {
        let slots = slots();
        let start = Instant::now();
        let a = Address::from("a");
        let held: Vec<_> = (0..3)
            .map(|i| slots.take(&a, &address("a", i), start).unwrap().0)
            .collect();
        let later = start + Duration::from_secs(2);
        assert_eq!(slots.take(&a, &address("a", 3), later).unwrap_err(), Full);
        held[1].answered(start);
        let (_new, evicted) = slots.take(&a, &address("a", 3), later).unwrap();
        assert_eq!(evicted, Some(address("a", 1)));
    }

    fn message(name: &str) -> Message {
        Message::new(name, name, name.as_bytes().to_vec())
    }

    #[test]
    fn what_finds_no_place_waits_and_the_connections_take_turns() {
        let slots = slots();
        let now = Instant::now();
        let hops: Vec<_> = ["a", "b"].map(Address::from).into();
        let mut held = Vec::new();
        for i in 0..5 {
            held.push(slots.take(&hops[i % 2], &address("r", i), now).unwrap().0);
        }
        assert_eq!(
            slots.queue(&hops[0], message("a1"), now),
            Queued::Waits { first: true }
        );
        assert_eq!(
            slots.queue(&hops[0], message("a2"), now),
            Queued::Waits { first: false }
        );
        slots.queue(&hops[0], message("a3"), now);
        // So many of one connection, and so many of all.
        assert_eq!(slots.queue(&hops[0], message("a4"), now), Queued::Refused);
        slots.queue(&hops[1], message("b1"), now);
        let third = Address::from("c");
        assert_eq!(slots.queue(&third, message("c1"), now), Queued::Displaces);
        assert_eq!(slots.queue(&third, message("c2"), now), Queued::Refused);
        assert_eq!(slots.waiting(), 4);
        assert!(slots.next(&address("n", 0), now).is_none(), "no place is free");
        let mut order = Vec::new();
        for _ in 0..2 {
            held.clear();
            while let Some((_, message, slot, evicted)) = slots.next(&address("n", order.len()), now) {
                assert_eq!(evicted, None);
                order.push(String::from_utf8(message.payload.as_slice().to_vec()).unwrap());
                held.push(slot);
            }
        }
        assert_eq!(order, ["a1", "b1", "c1", "a2"]);
        drop(held);
        let state = slots.state.lock();
        assert!(state.hops.is_empty() && state.turns.is_empty());
        assert_eq!((state.waiting, state.pending), (0, 0));
    }

    #[test]
    fn what_has_just_come_does_not_overtake_what_waits() {
        let slots = slots();
        let now = Instant::now();
        let a = Address::from("a");
        let mut held: Vec<_> = (0..3)
            .map(|i| slots.take(&a, &address("a", i), now).unwrap().0)
            .collect();
        slots.queue(&a, message("a1"), now);
        held.pop();
        assert_eq!(slots.take(&a, &address("a", 4), now).unwrap_err(), Full);
        let (since, ..) = slots.next(&address("a", 5), now).unwrap();
        assert_eq!(since, now);
    }
}

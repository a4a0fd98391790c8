//! How much memory the streams of a node may promise together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::stream::{LEAST_WINDOW, MIN_WINDOW};

/// What all streams of a node may promise together by default, in bytes: 32,768 streams with the least window, or some 47 with the
/// largest and room for thousands that begin.
pub const WINDOW_MEMORY: u64 = 256 * 1024 * 1024;

/// The memory that streams share: what the other ends may send before applications have taken it. All that a stream has
/// comes from here, its first window too, and goes back when it is used up, given back, or the stream ends. So what waits for
/// all applications together is never more than the limit, whatever the peers do. Clones share.
///
/// A quarter of it is kept for streams that begin: windows do not grow into that. As it becomes scarce streams begin with
/// less, from [`MIN_WINDOW`] down to [`LEAST_WINDOW`]; when there is not even that a new connection is refused.
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
    /// So many bytes for all streams that are given a clone of it. With less than [`LEAST_WINDOW`] there are no streams.
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

    /// The bytes that are promised now, never more than the limit.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// For people: why there is no stream.
    pub(crate) fn exhausted(&self) -> String {
        format!(
            "the {} MiB of memory that this node has for portal connections are used up (PORTOLAN_PORTAL_MEMORY)",
            self.0.limit >> 20
        )
    }

    /// Takes the first window of a stream: the larger the more is left. The least is given as long as there is any.
    pub(crate) fn take_first(&self) -> Option<u32> {
        let limit = self.0.limit;
        let steps = [
            (MIN_WINDOW, limit / 2),
            (MIN_WINDOW / 2, limit / 2 + limit / 4),
            (MIN_WINDOW / 4, limit - limit / 8),
            (LEAST_WINDOW, limit),
        ];
        steps
            .into_iter()
            .find(|&(window, bound)| self.take_up_to(bound, window.into(), window.into()))
            .map(|(window, _)| window)
    }

    /// Takes bytes for a stream that has a window of `window` and wants more; all or none.
    pub(crate) fn take(&self, bytes: u64, window: u64) -> bool {
        self.take_up_to(self.0.limit - self.0.limit / 4, bytes, window)
    }

    /// Takes bytes that are there already, so that they must be counted; all or none.
    pub(crate) fn take_for_arrived(&self, bytes: u64) -> bool {
        self.take_up_to(self.0.limit, bytes, MIN_WINDOW.into())
    }

    fn take_up_to(&self, bound: u64, bytes: u64, window: u64) -> bool {
        let account = &self.0;
        let taken = account
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= bound)
            });
        if taken.is_err() {
            account.wanting.store(window, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            self.0.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Whether so much is promised that streams that do nothing shall do with the least.
    pub(crate) fn is_scarce(&self) -> bool {
        self.used() > self.0.limit / 2
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

/// What one direction of an intercepted connection has of the memory: as much as it holds, in steps, so that small changes cost nothing.
#[derive(Debug)]
pub(crate) struct Held {
    memory: WindowMemory,
    taken: u64,
}

/// What is taken and given back at once.
const STEP: u64 = 16 * 1024;

impl Held {
    pub(crate) fn new(memory: WindowMemory) -> Self {
        Self { memory, taken: 0 }
    }

    /// So many bytes are held now. An error, for people, if there is no memory for them: they must go.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), String> {
        let bytes = bytes as u64;
        if bytes > self.taken {
            let more = (bytes - self.taken).next_multiple_of(STEP);
            if !self.memory.take_for_arrived(more) {
                return Err(self.memory.exhausted());
            }
            self.taken += more;
        } else if bytes == 0 || self.taken - bytes > 16 * STEP {
            let kept = bytes.next_multiple_of(STEP);
            self.memory.give_back(self.taken - kept);
            self.taken = kept;
        }
        Ok(())
    }

    /// Whether there is so little that whoever holds something shall take no more.
    pub(crate) fn is_scarce(&self) -> bool {
        self.memory.is_scarce()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.give_back(self.taken);
    }
}

impl Default for WindowMemory {
    fn default() -> Self {
        Self::new(WINDOW_MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_begin_with_less_as_memory_becomes_scarce_and_not_at_all_without() {
        let memory = WindowMemory::new(8 << 20);
        let windows: Vec<u32> = std::iter::from_fn(|| memory.take_first()).collect();
        assert!(windows.is_sorted_by(|first, next| first >= next));
        for window in [MIN_WINDOW, MIN_WINDOW / 2, MIN_WINDOW / 4, LEAST_WINDOW] {
            assert!(windows.contains(&window), "{window}");
        }
        let total: u64 = windows.iter().map(|window| u64::from(*window)).sum();
        assert_eq!((memory.used(), total), (memory.limit(), memory.limit()));
        memory.give_back(LEAST_WINDOW.into());
        assert_eq!(memory.take_first(), Some(LEAST_WINDOW));
        assert_eq!(memory.take_first(), None);
    }

    #[test]
    fn windows_that_grow_leave_room_for_streams_that_begin() {
        let memory = WindowMemory::new(8 << 20);
        while memory.take(MIN_WINDOW.into(), MIN_WINDOW.into()) {}
        assert_eq!(memory.used(), 6 << 20);
        assert!(memory.take_first().is_some());
        assert!(
            memory.is_owed_by(4 * u64::from(MIN_WINDOW)),
            "large ones become smaller"
        );
    }

    #[test]
    fn what_is_held_comes_out_of_the_memory_and_goes_back() {
        let memory = WindowMemory::new(1 << 20);
        let mut held = Held::new(memory.clone());
        held.set(1).unwrap();
        assert_eq!(memory.used(), STEP);
        held.set(1 << 20).unwrap();
        assert!(
            Held::new(memory.clone())
                .set(1)
                .unwrap_err()
                .contains("PORTOLAN_PORTAL_MEMORY")
        );
        held.set(0).unwrap();
        assert_eq!(memory.used(), 0);
        held.set(100).unwrap();
        drop(held);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn the_default_is_enough_for_an_inlet_and_an_outlet_that_are_full() {
        let connections = crate::inlet::MAX_CONNECTIONS + crate::outlet::MAX_CONNECTIONS;
        assert!(connections * u64::from(LEAST_WINDOW) <= WINDOW_MEMORY);
        let memory = WindowMemory::default();
        let at_once = std::iter::from_fn(|| memory.take_first()).count();
        assert!(at_once >= 10_000, "{at_once} begin within one sign of life");
    }
}

//! Empty queues, kept for mailboxes that get a message.

use std::cell::RefCell;
use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::Envelope;

type Queue = VecDeque<Envelope>;

/// A queue that grew beyond this many slots in a burst is not kept: this is what a mailbox of usual capacity grows to.
const KEPT_SLOTS: usize = 256;
/// Slots of a new queue.
const NEW_SLOTS: usize = 4;
/// Slots of all queues that each thread keeps, and that are kept for all threads: where messages cross threads, those that
/// send need what those that receive have left. A slot has about 350 bytes.
const STOCKED_SLOTS: usize = 1024;

/// The queue that was given last is taken first: its memory is still in the cache.
struct Stock {
    queues: Vec<Queue>,
    slots: usize,
}

impl Stock {
    const fn new() -> Self {
        Self {
            queues: Vec::new(),
            slots: 0,
        }
    }

    fn take(&mut self) -> Option<Queue> {
        let queue = self.queues.pop()?;
        self.slots -= queue.capacity();
        Some(queue)
    }

    /// Leaves the queue where it is if there is no room.
    fn give(&mut self, queue: &mut Option<Queue>) {
        if let Some(queue) = queue.take_if(|queue| self.slots + queue.capacity() <= STOCKED_SLOTS) {
            self.slots += queue.capacity();
            self.queues.push(queue);
        }
    }
}

thread_local! {
    static OWN: RefCell<Stock> = const { RefCell::new(Stock::new()) };
}

static COMMON: Mutex<Stock> = Mutex::new(Stock::new());

/// An empty queue with room.
pub(crate) fn take() -> Queue {
    OWN.try_with(|own| own.borrow_mut().take())
        .ok()
        .flatten()
        .or_else(|| COMMON.lock().take())
        .unwrap_or_else(|| VecDeque::with_capacity(NEW_SLOTS))
}

/// Gives a queue back, which must be empty.
pub(crate) fn give(queue: Queue) {
    debug_assert!(queue.is_empty());
    if queue.capacity() == 0 || queue.capacity() > KEPT_SLOTS {
        return;
    }
    let mut queue = Some(queue);
    // A thread that ends has no stock any more.
    let _ = OWN.try_with(|own| own.borrow_mut().give(&mut queue));
    if queue.is_some() {
        COMMON.lock().give(&mut queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> usize {
        OWN.with_borrow(|own| own.queues.len())
    }

    #[test]
    fn a_queue_that_was_given_back_is_used_again_and_an_outgrown_one_is_not() {
        std::thread::spawn(|| {
            let queue = Queue::with_capacity(16);
            let slots = queue.capacity();
            give(queue);
            assert_eq!(own(), 1);
            assert_eq!(take().capacity(), slots);
            assert_eq!(own(), 0);
            give(Queue::with_capacity(10 * KEPT_SLOTS));
            give(Queue::new());
            assert_eq!(own(), 0);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_keeps_so_many_slots_and_no_more() {
        std::thread::spawn(|| {
            for _ in 0..STOCKED_SLOTS {
                give(Queue::with_capacity(KEPT_SLOTS));
            }
            assert_eq!(own(), STOCKED_SLOTS / KEPT_SLOTS);
            assert_eq!(OWN.with_borrow(|own| own.slots), STOCKED_SLOTS);
            assert!(COMMON.lock().slots <= STOCKED_SLOTS);
            while own() > 0 {
                take();
            }
            assert_eq!(OWN.with_borrow(|own| own.slots), 0);
        })
        .join()
        .unwrap();
    }
}

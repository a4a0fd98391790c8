//! The bounded queue in front of a worker.
//!
//! A full mailbox does not lose messages: whoever sends waits, one message at a time, and does not take further
//! messages of its own meanwhile. That is how a slow transport slows what feeds it. Two queues are swapped, so that
//! the lock is taken once for many messages and nothing is allocated once the queues have grown.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::Envelope;

/// How much may wait in a mailbox. One message always fits into an empty one, whatever its size. As the worker takes
/// all that waits at once, twice as much can be held at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Messages.
    pub messages: usize,
    /// Bytes of payload.
    pub bytes: usize,
}

impl Default for Capacity {
    /// 256 messages, 1 MiB: enough that a burst of small messages does not stall, and four large chunks.
    fn default() -> Self {
        Self {
            messages: 256,
            bytes: 1024 * 1024,
        }
    }
}

pub(crate) enum PushError {
    Full(Envelope),
    Closed,
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    capacity: Capacity,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Envelope>,
    bytes: usize,
    receiver: Option<Waker>,
    senders: Vec<Waker>,
    closed: bool,
}

/// Queues that grew beyond this many slots in a burst are given back once they are empty.
const KEPT_SLOTS: usize = 16;

impl Mailbox {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
        }
    }

    pub(crate) fn try_push(&self, envelope: Envelope) -> Result<(), PushError> {
        let size = envelope.message.payload.len();
        let waker = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(PushError::Closed);
            }
            if self.is_full(&state, size) {
                return Err(PushError::Full(envelope));
            }
            state.bytes += size;
            state.queue.push_back(envelope);
            state.receiver.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    fn is_full(&self, state: &State, size: usize) -> bool {
        !state.queue.is_empty()
            && (state.queue.len() >= self.capacity.messages || state.bytes + size > self.capacity.bytes)
    }

    /// Ready when a message of this size fits or the mailbox is closed.
    pub(crate) fn poll_room(&self, size: usize, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.closed || !self.is_full(&state, size) {
            return Poll::Ready(());
        }
        if !state.senders.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.senders.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Takes all that waits into `batch`, which must be empty. `false` when the mailbox is closed and empty.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>, batch: &mut VecDeque<Envelope>) -> Poll<bool> {
        debug_assert!(batch.is_empty());
        let senders = {
            let mut state = self.state.lock();
            if state.queue.is_empty() {
                if state.closed {
                    return Poll::Ready(false);
                }
                if state.queue.capacity() > KEPT_SLOTS {
                    state.queue = VecDeque::new();
                }
                if batch.capacity() > KEPT_SLOTS {
                    *batch = VecDeque::new();
                }
                match &mut state.receiver {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            std::mem::swap(&mut state.queue, batch);
            state.bytes = 0;
            std::mem::take(&mut state.senders)
        };
        for waker in senders {
            waker.wake();
        }
        Poll::Ready(true)
    }

    /// Takes no more messages; what waits can still be taken.
    pub(crate) fn close(&self) {
        let (receiver, senders) = {
            let mut state = self.state.lock();
            state.closed = true;
            (state.receiver.take(), std::mem::take(&mut state.senders))
        };
        receiver.into_iter().chain(senders).for_each(Waker::wake);
    }

    /// Drops what waits.
    pub(crate) fn clear(&self) {
        let queue = {
            let mut state = self.state.lock();
            state.bytes = 0;
            std::mem::take(&mut state.queue)
        };
        drop(queue);
    }

    /// Whether somebody waits for room.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.state.lock().senders.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().queue.len()
    }
}

//! The bounded queue in front of a worker.
//!
//! A full mailbox does not lose messages: whoever sends waits, one message at a time, and does not take further
//! messages of its own meanwhile. That is how a slow transport slows what feeds it. Two queues are swapped, so that
//! the lock is taken once for many messages.
//!
//! An empty mailbox has no space for messages: it gets a queue with its first one from a stock that all mailboxes share, and
//! gives it back when it is empty again. So a worker that waits costs next to nothing, and a message costs no allocation.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::Envelope;
use crate::stock;
use crate::turn::Place;

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

/// Why a message is not in a mailbox.
pub(crate) enum PushError {
    Full(Envelope),
    Closed,
}

/// A receiver runs right behind the sender for a message of up to so many bytes. With larger ones, pieces of streams, it is better that
/// some gather first, which are then handled and written together.
const RUN_AT_ONCE: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Mailbox {
    messages: u32,
    bytes: u32,
    /// Where the receiver runs, and whether it has something to do.
    pub(crate) place: Place,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Envelope>,
    bytes: usize,
    receiver: Option<Waker>,
    senders: SmallVec<[Waker; 1]>,
    closed: bool,
    /// The receiver wants to hear of the end only.
    busy: bool,
}

impl State {
    fn wake_receiver(&mut self, cx: &Context<'_>) {
        match &mut self.receiver {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

impl Mailbox {
    pub(crate) fn new(capacity: Capacity) -> Self {
        // What is more than 4 GiB is no bound.
        let bound = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Self {
            messages: bound(capacity.messages),
            bytes: bound(capacity.bytes),
            place: Place::default(),
            state: Mutex::default(),
        }
    }

    pub(crate) fn try_push(&self, envelope: Envelope) -> Result<(), PushError> {
        self.push(envelope, false).map(drop)
    }

    /// Puts a message in that has a number, which it must not lose its place for: a record of a channel. What others send would
    /// overtake it, if it waited elsewhere for room. `false` if there was none: its sender must wait then until there is
    /// ([`Mailbox::poll_room`]), so that there is at most one more from each.
    pub(crate) fn push_numbered(&self, envelope: Envelope) -> Result<bool, PushError> {
        self.push(envelope, true)
    }

    fn push(&self, envelope: Envelope, is_numbered: bool) -> Result<bool, PushError> {
        let size = envelope.message.payload.len();
        let (waker, fits) = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(PushError::Closed);
            }
            let fits = !self.is_full(&state, size);
            if !fits && !is_numbered {
                return Err(PushError::Full(envelope));
            }
            if state.queue.capacity() == 0 {
                state.queue = stock::take();
            }
            state.bytes += size;
            state.queue.push_back(envelope);
            self.place.set_idle(false);
            let waker = if state.busy { None } else { state.receiver.take() };
            (waker, fits)
        };
        let waker = match waker {
            Some(waker) if size <= RUN_AT_ONCE => self.place.run_next(waker),
            waker => waker,
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(fits)
    }

    /// Whether the receiver runs on this thread, has handled all that was ever in here and waits for more.
    #[inline]
    pub(crate) fn is_idle_here(&self) -> bool {
        self.place.is_idle_here()
    }

    fn is_full(&self, state: &State, size: usize) -> bool {
        !state.queue.is_empty()
            && (state.queue.len() >= self.messages as usize || state.bytes + size > self.bytes as usize)
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
                // Nothing waits any more.
                stock::give(std::mem::take(&mut state.queue));
                stock::give(std::mem::take(batch));
                state.busy = false;
                state.wake_receiver(cx);
                self.place.set_idle(true);
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

    /// Ready when the mailbox is closed: for a receiver that has something to do before it takes more.
    pub(crate) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Poll::Ready(());
        }
        state.busy = true;
        state.wake_receiver(cx);
        Poll::Pending
    }

    /// Takes all that waits into `batch`, which must be empty, and does not ask to be told of more.
    pub(crate) fn take_now(&self, batch: &mut VecDeque<Envelope>) {
        debug_assert!(batch.is_empty());
        let senders = {
            let mut state = self.state.lock();
            if state.queue.is_empty() {
                return;
            }
            std::mem::swap(&mut state.queue, batch);
            state.bytes = 0;
            std::mem::take(&mut state.senders)
        };
        for waker in senders {
            waker.wake();
        }
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

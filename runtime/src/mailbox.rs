//! The bounded queue in front of a worker.
//!
//! A full mailbox does not lose messages: whoever sends waits, one message at a time, and does not take further
//! messages of its own meanwhile. That is how a slow transport slows what feeds it. Two queues are swapped, so that
//! the lock is taken once for many messages.
//!
//! Somebody who hands on what others have sent, to many destinations, must not wait for one of them: the others would wait too. So
//! what is in transit may wait beyond the capacity where mailboxes have [room for it](crate::WorkerOptions::room_for_transit), up to
//! [`TRANSIT_ROOM`], as long as all mailboxes of the process together hold no more than [`TRANSIT_MEMORY`] so. Only then does it
//! make its sender wait, which the receiver can see ([`crate::Context::holds_up_transit`]).
//!
//! An empty mailbox has no space for messages: it gets a queue with its first one from a stock that all mailboxes share, and
//! gives it back when it is empty again. So a worker that waits costs next to nothing, and a message costs no allocation.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::stock;
use crate::turn::Place;
use crate::{Envelope, Message};

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

/// What may wait in a mailbox beyond its capacity because it is in transit: bytes, with [`TRANSIT_COST`]s. That is two channels with the
/// largest window, or thirty with the least.
pub const TRANSIT_ROOM: usize = 32 * 1024 * 1024;
/// The same in all mailboxes of the process.
pub const TRANSIT_MEMORY: usize = 256 * 1024 * 1024;
/// What a message in transit counts beside its payload, in bytes.
pub const TRANSIT_COST: usize = 1024;

/// What waits in transit in this process.
static IN_TRANSIT: AtomicUsize = AtomicUsize::new(0);

/// How a mailbox and its worker take part in what is in transit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Transit {
    /// What the worker sends is in transit.
    pub(crate) is_source: bool,
    /// There is room for it in this mailbox.
    pub(crate) has_room: bool,
}

/// Mailboxes that wait for one another, one behind the other, are followed so far.
const FOLLOWED: usize = 4;

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
    pub(crate) transit: Transit,
    state: Mutex<State>,
}

/// Somebody who waits for room.
#[derive(Debug)]
struct Waiting {
    waker: Waker,
    /// Its own mailbox.
    by: Weak<Mailbox>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Envelope>,
    bytes: usize,
    receiver: Option<Waker>,
    senders: SmallVec<[Waiting; 1]>,
    /// Of what waits, what is beyond the capacity, with its costs.
    beyond: u32,
    /// The same of what was taken last.
    beyond_taken: u32,
    closed: bool,
    /// The receiver wants to hear of the end only.
    busy: bool,
    /// The receiver is woken by being run.
    is_run: bool,
}

/// Room that is not used any more.
fn give_back(beyond: u32) {
    if beyond > 0 {
        IN_TRANSIT.fetch_sub(beyond as usize, Ordering::Relaxed);
    }
}

impl State {
    /// What was taken last has been handled.
    fn settle(&mut self) {
        give_back(std::mem::take(&mut self.beyond_taken));
    }

    fn wake_receiver(&mut self, place: &Place, cx: &Context<'_>) {
        self.is_run = place.is_woken_by(cx.waker());
        match &mut self.receiver {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

impl Mailbox {
    pub(crate) fn new(capacity: Capacity, transit: Transit) -> Self {
        // What is more than 4 GiB is no bound.
        let bound = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Self {
            messages: bound(capacity.messages),
            bytes: bound(capacity.bytes),
            place: Place::default(),
            transit,
            state: Mutex::default(),
        }
    }

    /// `by`: the sender's own mailbox.
    pub(crate) fn try_push(&self, envelope: Envelope, by: &Mailbox) -> Result<(), PushError> {
        self.push(envelope, false, by).map(drop)
    }

    /// Puts a message in that has a number, which it must not lose its place for: a record of a channel. What others send would
    /// overtake it, if it waited elsewhere for room. `false` if there was none: its sender must wait then until there is
    /// ([`Mailbox::poll_room`]), so that there is at most one more from each.
    pub(crate) fn push_numbered(&self, envelope: Envelope, by: &Mailbox) -> Result<bool, PushError> {
        self.push(envelope, true, by)
    }

    fn push(&self, mut envelope: Envelope, is_numbered: bool, by: &Mailbox) -> Result<bool, PushError> {
        let size = envelope.message.payload.len();
        let (waker, is_run, fits) = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(PushError::Closed);
            }
            let fits =
                !self.is_full(&state, size) || self.takes_in_transit(&mut state, &mut envelope.message, by);
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
            (waker, state.is_run, fits)
        };
        let waker = match waker {
            Some(waker) if is_run && size <= RUN_AT_ONCE => self.place.run_next(waker),
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

    /// Takes room beyond the capacity for what is in transit, if there is some.
    fn takes_in_transit(&self, state: &mut State, message: &mut Message, by: &Mailbox) -> bool {
        if !self.transit.has_room || !by.transit.is_source {
            return false;
        }
        let routes = message.onward.iter().chain(message.back.iter());
        let cost =
            message.payload.len() + routes.map(|hop| hop.as_bytes().len()).sum::<usize>() + TRANSIT_COST;
        if state.beyond as usize + state.beyond_taken as usize + cost > TRANSIT_ROOM {
            return false;
        }
        let taken = IN_TRANSIT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(cost).filter(|used| *used <= TRANSIT_MEMORY)
        });
        if taken.is_ok() {
            // Less than `TRANSIT_ROOM`.
            state.beyond += cost as u32;
            // It must hold no more than it counts.
            message.payload.keep_little();
        }
        taken.is_ok()
    }

    /// Ready when a message of this size fits or the mailbox is closed. `by`: the sender's own mailbox.
    pub(crate) fn poll_room(&self, size: usize, by: &Arc<Mailbox>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.closed || !self.is_full(&state, size) {
            return Poll::Ready(());
        }
        if !state
            .senders
            .iter()
            .any(|waiting| waiting.waker.will_wake(cx.waker()))
        {
            state.senders.push(Waiting {
                waker: cx.waker().clone(),
                by: Arc::downgrade(by),
            });
        }
        Poll::Pending
    }

    /// Whether somebody waits for room here who hands on what others have sent, or for whom such a one waits.
    pub(crate) fn holds_up_transit(&self) -> bool {
        self.holds_up(FOLLOWED)
    }

    fn holds_up(&self, follow: usize) -> bool {
        // Not under the lock: some may wait for one another in a circle.
        let waiting: SmallVec<[Arc<Mailbox>; 4]> = {
            let state = self.state.lock();
            state
                .senders
                .iter()
                .filter_map(|waiting| waiting.by.upgrade())
                .collect()
        };
        waiting
            .iter()
            .any(|by| by.transit.is_source || follow > 0 && by.holds_up(follow - 1))
    }

    /// Takes all that waits into `batch`, which must be empty. `false` when the mailbox is closed and empty.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>, batch: &mut VecDeque<Envelope>) -> Poll<bool> {
        debug_assert!(batch.is_empty());
        let senders = {
            let mut state = self.state.lock();
            state.settle();
            if state.queue.is_empty() {
                if state.closed {
                    return Poll::Ready(false);
                }
                // Nothing waits any more.
                stock::give(std::mem::take(&mut state.queue));
                stock::give(std::mem::take(batch));
                state.busy = false;
                state.wake_receiver(&self.place, cx);
                self.place.set_idle(true);
                return Poll::Pending;
            }
            std::mem::swap(&mut state.queue, batch);
            state.bytes = 0;
            state.beyond_taken = std::mem::take(&mut state.beyond);
            std::mem::take(&mut state.senders)
        };
        for waiting in senders {
            waiting.waker.wake();
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
        state.wake_receiver(&self.place, cx);
        Poll::Pending
    }

    /// Takes all that waits into `batch`, which must be empty, and does not ask to be told of more.
    pub(crate) fn take_now(&self, batch: &mut VecDeque<Envelope>) {
        debug_assert!(batch.is_empty());
        let senders = {
            let mut state = self.state.lock();
            state.settle();
            if state.queue.is_empty() {
                return;
            }
            std::mem::swap(&mut state.queue, batch);
            state.bytes = 0;
            state.beyond_taken = std::mem::take(&mut state.beyond);
            std::mem::take(&mut state.senders)
        };
        for waiting in senders {
            waiting.waker.wake();
        }
    }

    /// Takes no more messages; what waits can still be taken.
    pub(crate) fn close(&self) {
        let (receiver, senders) = {
            let mut state = self.state.lock();
            state.closed = true;
            (state.receiver.take(), std::mem::take(&mut state.senders))
        };
        let senders = senders.into_iter().map(|waiting| waiting.waker);
        receiver.into_iter().chain(senders).for_each(Waker::wake);
    }

    /// Drops what waits.
    pub(crate) fn clear(&self) {
        let queue = {
            let mut state = self.state.lock();
            state.bytes = 0;
            state.settle();
            give_back(std::mem::take(&mut state.beyond));
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

impl Drop for Mailbox {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        give_back(state.beyond + state.beyond_taken);
    }
}

//! Turns of an arbiter: whom a worker sends to runs right behind it.
//!
//! A message that comes in over a connection goes through several workers of the same arbiter before it leaves: a receiver, a
//! decryptor, an encryptor or a portal connection, a sender. To go through the event loop for each of them would cost more than
//! what they do. So a worker that gets a message from another one on its own thread is run when that one returns, before the
//! arbiter looks at anything else, in the order in which the messages were sent. The event loop is asked only for the first of them, and for
//! whoever is woken by something else than a message.
//!
//! That is for small messages. With pieces of streams it is better that some gather; see [`crate::mailbox`].
//!
//! At most [`RUNS`] workers run behind one another; the others go through the event loop, so that sockets and timers have their turn
//! too.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, RawWakerVTable, Waker};

/// Workers that run behind one another before the event loop goes on.
const RUNS: usize = 24;

type Work = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static TURN: Turn = const { Turn::new() };
}

/// What one thread runs.
struct Turn {
    /// Which thread this is; 0 before it has run anything.
    thread: Cell<u32>,
    /// Whether a worker of this thread is running, who then looks after those that it sends to.
    is_running: Cell<bool>,
    /// Whose work is being polled, and what wakes all of it.
    polled: Cell<Option<(u32, Identity)>>,
    /// Whom something was sent to, and how the event loop is asked to poll it.
    ready: RefCell<VecDeque<(u32, Waker)>>,
    places: RefCell<Places>,
}

/// The tasks of a thread, by number.
struct Places {
    tasks: Vec<Entry>,
    free: Vec<u32>,
    /// What the event loop has not been told yet.
    panics: Vec<(u32, Box<dyn Any + Send>)>,
}

/// As small as it can be: there may be a hundred thousand that wait.
struct Entry {
    /// Nothing while it runs, and when it is over.
    work: Option<Work>,
    is_over: bool,
    /// Waits in `ready`.
    is_queued: bool,
}

/// Where the worker behind a mailbox runs: a thread and a place there. Nowhere before it has begun.
#[derive(Debug, Default)]
pub(crate) struct Place(AtomicU64);

/// The work of one worker, as the event loop sees it.
pub(crate) struct Task {
    place: u32,
}

/// What one waker has that another one, which wakes somebody else, has not.
type Identity = (*const (), *const RawWakerVTable);

fn identity(waker: &Waker) -> Identity {
    (waker.data(), waker.vtable())
}

/// In a [`Place`]: nothing is in the mailbox, and nothing was taken out that has not been handled.
const IDLE: u64 = 1 << 63;

impl Place {
    fn set(&self, thread: u32, place: u32) {
        let whole = u64::from(thread) << 32 | u64::from(place);
        self.0.fetch_or(whole, Ordering::Relaxed);
    }

    /// Says whether the worker has nothing to do. To be called under the mailbox's lock; other threads than the worker's own learn nothing
    /// from it.
    #[inline]
    pub(crate) fn set_idle(&self, is_idle: bool) {
        if is_idle {
            self.0.fetch_or(IDLE, Ordering::Relaxed);
        } else if self.0.load(Ordering::Relaxed) & IDLE != 0 {
            self.0.fetch_and(!IDLE, Ordering::Relaxed);
        }
    }

    /// Whether the worker runs on this thread and has nothing to do.
    #[inline]
    pub(crate) fn is_idle_here(&self) -> bool {
        let whole = self.0.load(Ordering::Relaxed);
        whole & IDLE != 0
            && TURN
                .try_with(|turn| thread_of(whole) == Some(turn.thread.get()))
                .unwrap_or(false)
    }

    /// Whether a mailbox that is looked into with this waker is looked into by the work at this place itself. A part of it that has
    /// wakers of its own, or a task that it has handed its mailbox to, hears of a message only when its own waker is woken.
    #[inline]
    pub(crate) fn is_woken_by(&self, waker: &Waker) -> bool {
        let whole = self.0.load(Ordering::Relaxed);
        TURN.try_with(|turn| {
            thread_of(whole) == Some(turn.thread.get())
                && turn.polled.get() == Some((whole as u32, identity(waker)))
        })
        .unwrap_or(false)
    }

    /// Has the worker run behind the one that runs now. Gives the waker back if none does on the worker's own thread: then it must be
    /// woken. The waker must be one by which all of the worker is woken ([`Place::is_woken_by`]).
    #[inline]
    pub(crate) fn run_next(&self, waker: Waker) -> Option<Waker> {
        let whole = self.0.load(Ordering::Relaxed);
        let mut waker = Some(waker);
        let _ = TURN.try_with(|turn| {
            if turn.is_running.get() && thread_of(whole) == Some(turn.thread.get()) {
                waker
                    .take()
                    .into_iter()
                    .for_each(|waker| turn.queue(whole as u32, waker));
            }
        });
        waker
    }
}

fn thread_of(whole: u64) -> Option<u32> {
    Some(((whole & !IDLE) >> 32) as u32).filter(|thread| *thread != 0)
}

impl Task {
    /// Work that this thread will run, found by `at`.
    pub(crate) fn new(at: &Place, work: impl Future<Output = ()> + 'static) -> Self {
        TURN.with(|turn| {
            let place = turn.take_place(Box::pin(work));
            at.set(turn.number(), place);
            Self { place }
        })
    }
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        TURN.with(|turn| {
            if turn.is_running.get() {
                // Inside another task, which then looks after those behind.
                turn.run(self.place, cx.waker());
            } else {
                let _running = Running::begin(turn);
                turn.run(self.place, cx.waker());
                turn.run_ready();
            }
            turn.outcome(self.place)
        })
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // A thread that ends has no places any more.
        let _ = TURN.try_with(|turn| turn.leave_place(self.place));
    }
}

/// The time during which somebody of a thread runs; over also after a panic.
struct Running<'a>(&'a Turn);

impl<'a> Running<'a> {
    fn begin(turn: &'a Turn) -> Self {
        turn.is_running.set(true);
        Self(turn)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.is_running.set(false);
    }
}

impl Turn {
    const fn new() -> Self {
        Self {
            thread: Cell::new(0),
            is_running: Cell::new(false),
            polled: Cell::new(None),
            ready: RefCell::new(VecDeque::new()),
            places: RefCell::new(Places {
                tasks: Vec::new(),
                free: Vec::new(),
                panics: Vec::new(),
            }),
        }
    }

    fn number(&self) -> u32 {
        static THREADS: AtomicU32 = AtomicU32::new(1);
        if self.thread.get() == 0 {
            // There is a bit less room for it than for a place.
            self.thread
                .set(THREADS.fetch_add(1, Ordering::Relaxed) & (u32::MAX >> 1));
        }
        self.thread.get()
    }

    fn take_place(&self, work: Work) -> u32 {
        let mut places = self.places.borrow_mut();
        let entry = Entry {
            work: Some(work),
            is_over: false,
            is_queued: false,
        };
        match places.free.pop() {
            Some(place) => {
                places.tasks[place as usize] = entry;
                place
            }
            None => {
                places.tasks.push(entry);
                (places.tasks.len() - 1) as u32
            }
        }
    }

    fn leave_place(&self, place: u32) {
        let left = {
            let mut places = self.places.borrow_mut();
            places.free.push(place);
            let entry = &mut places.tasks[place as usize];
            entry.is_over = true;
            if std::mem::take(&mut entry.is_queued) {
                // Whoever is here next has another waker, and must not be polled with this one.
                self.ready.borrow_mut().retain(|(queued, _)| *queued != place);
            }
            entry.work.take()
        };
        // What a worker does at its end may need places.
        drop(left);
    }

    fn queue(&self, place: u32, waker: Waker) {
        let mut places = self.places.borrow_mut();
        if let Some(entry) = places.tasks.get_mut(place as usize)
            && !std::mem::replace(&mut entry.is_queued, true)
        {
            self.ready.borrow_mut().push_back((place, waker));
        }
    }

    /// Runs a worker, unless it is running or over.
    fn run(&self, place: u32, waker: &Waker) {
        let work = {
            let mut places = self.places.borrow_mut();
            let entry = &mut places.tasks[place as usize];
            entry.is_queued = false;
            entry.work.take()
        };
        let Some(mut work) = work else {
            return;
        };
        let outer = self.polled.replace(Some((place, identity(waker))));
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let polled = work.as_mut().poll(&mut Context::from_waker(waker));
            match polled {
                Poll::Pending => Some(work),
                Poll::Ready(()) => None,
            }
        }));
        self.polled.set(outer);
        let mut places = self.places.borrow_mut();
        let panic = match polled {
            Ok(Some(work)) => {
                let entry = &mut places.tasks[place as usize];
                // Nobody asks for it any more, if its task was dropped meanwhile.
                if !entry.is_over {
                    entry.work = Some(work);
                }
                return;
            }
            Ok(None) => None,
            Err(panic) => Some((place, panic)),
        };
        places.panics.extend(panic);
        places.tasks[place as usize].is_over = true;
        // The event loop is told by its own task.
        waker.wake_by_ref();
    }

    /// Runs those that were sent something, and those that they send to.
    fn run_ready(&self) {
        let next = || self.ready.borrow_mut().pop_front();
        for _ in 0..RUNS {
            match next() {
                Some((place, waker)) => self.run(place, &waker),
                None => return,
            }
        }
        while let Some((place, waker)) = next() {
            self.places.borrow_mut().tasks[place as usize].is_queued = false;
            waker.wake();
        }
    }

    /// What became of it.
    fn outcome(&self, place: u32) -> Poll<()> {
        let panic = {
            let mut places = self.places.borrow_mut();
            if !places.tasks[place as usize].is_over {
                return Poll::Pending;
            }
            let panicked = places.panics.iter().position(|(at, _)| *at == place);
            panicked.map(|index| places.panics.swap_remove(index).1)
        };
        match panic {
            Some(panic) => resume_unwind(panic),
            None => Poll::Ready(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::rc::Rc;
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    /// A waker that is like no other.
    struct Own;

    impl Wake for Own {
        fn wake(self: Arc<Self>) {}
    }

    fn own_waker() -> Waker {
        Waker::from(Arc::new(Own))
    }

    #[test]
    fn who_takes_the_place_of_one_that_was_queued_is_not_polled_with_its_waker() {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let next = Rc::new(RefCell::new(None));
        let outer = {
            let (seen, next) = (Rc::clone(&seen), Rc::clone(&next));
            poll_fn(move |_| {
                let at = Place::default();
                let mut first = Task::new(&at, pending());
                let waker = own_waker();
                assert!(
                    Pin::new(&mut first)
                        .poll(&mut Context::from_waker(&waker))
                        .is_pending()
                );
                assert!(at.run_next(waker).is_none());
                let place = first.place;
                drop(first);
                let seen = Rc::clone(&seen);
                let work = poll_fn(move |cx: &mut Context<'_>| {
                    seen.borrow_mut().push(identity(cx.waker()));
                    Poll::Pending
                });
                let task = Task::new(&Place::default(), work);
                assert_eq!(task.place, place);
                *next.borrow_mut() = Some(task);
                Poll::Ready(())
            })
        };
        let mut outer = Task::new(&Place::default(), outer);
        let waker = own_waker();
        assert!(
            Pin::new(&mut outer)
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
        );
        assert!(seen.borrow().is_empty());
        let mut next = next.borrow_mut().take().unwrap();
        assert!(
            Pin::new(&mut next)
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        assert_eq!(*seen.borrow(), [identity(&waker)]);
    }

    #[test]
    fn only_the_waker_of_the_whole_work_is_that_of_the_place() {
        let at = Rc::new(Place::default());
        let others = own_waker();
        let work = {
            let (at, others) = (Rc::clone(&at), others.clone());
            poll_fn(move |cx: &mut Context<'_>| {
                assert!(at.is_woken_by(cx.waker()) && !at.is_woken_by(&others));
                assert!(!Place::default().is_woken_by(cx.waker()));
                Poll::Ready(())
            })
        };
        let mut task = Task::new(&at, work);
        assert!(
            Pin::new(&mut task)
                .poll(&mut Context::from_waker(&own_waker()))
                .is_ready()
        );
        assert!(!at.is_woken_by(&others), "nobody is polled any more");
    }
}

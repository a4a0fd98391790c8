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
use std::task::{Context, Poll, Waker};

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
    ready: RefCell<VecDeque<u32>>,
    places: RefCell<Places>,
}

/// The tasks of a thread, by number.
struct Places {
    tasks: Vec<Entry>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Entry {
    state: State,
    /// That of the event loop.
    waker: Option<Waker>,
    /// Waits in `ready`.
    queued: bool,
}

#[derive(Default)]
enum State {
    /// Nobody's place.
    #[default]
    Free,
    Waiting(Work),
    Running,
    Finished,
    Panicked(Box<dyn Any + Send>),
}

/// Where the worker behind a mailbox runs: a thread and a place there. Nowhere before it has begun.
#[derive(Debug, Default)]
pub(crate) struct Place(AtomicU64);

/// The work of one worker, as the event loop sees it.
pub(crate) struct Task {
    place: u32,
}

impl Place {
    fn set(&self, thread: u32, place: u32) {
        self.0
            .store(u64::from(thread) << 32 | u64::from(place), Ordering::Relaxed);
    }

    /// Whether that is on this thread.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        let thread = (self.0.load(Ordering::Relaxed) >> 32) as u32;
        thread != 0 && TURN.try_with(|turn| turn.thread.get() == thread).unwrap_or(false)
    }

    /// Has the worker run behind the one that runs now. `false` if none does on the worker's own thread: then it must be woken.
    #[inline]
    pub(crate) fn run_next(&self) -> bool {
        let whole = self.0.load(Ordering::Relaxed);
        let (thread, place) = ((whole >> 32) as u32, whole as u32);
        thread != 0
            && TURN
                .try_with(|turn| {
                    let here = turn.is_running.get() && turn.thread.get() == thread;
                    if here {
                        turn.queue(place);
                    }
                    here
                })
                .unwrap_or(false)
    }
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
            turn.look_to(self.place, cx.waker());
            if turn.is_running.get() {
                // Inside another task, which then looks after those behind.
                turn.run(self.place);
            } else {
                let _running = Running::begin(turn);
                turn.run(self.place);
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
            ready: RefCell::new(VecDeque::new()),
            places: RefCell::new(Places {
                tasks: Vec::new(),
                free: Vec::new(),
            }),
        }
    }

    fn number(&self) -> u32 {
        static THREADS: AtomicU32 = AtomicU32::new(1);
        if self.thread.get() == 0 {
            self.thread.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        self.thread.get()
    }

    fn take_place(&self, work: Work) -> u32 {
        let mut places = self.places.borrow_mut();
        let entry = Entry {
            state: State::Waiting(work),
            ..Entry::default()
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
            std::mem::take(&mut places.tasks[place as usize])
        };
        // What a worker does at its end may need places.
        drop(left);
    }

    /// Remembers how the event loop is asked to poll it.
    fn look_to(&self, place: u32, waker: &Waker) {
        let mut places = self.places.borrow_mut();
        let known = &mut places.tasks[place as usize].waker;
        match known {
            Some(known) => known.clone_from(waker),
            None => *known = Some(waker.clone()),
        }
    }

    fn queue(&self, place: u32) {
        let mut places = self.places.borrow_mut();
        if let Some(entry) = places.tasks.get_mut(place as usize)
            && !std::mem::replace(&mut entry.queued, true)
        {
            self.ready.borrow_mut().push_back(place);
        }
    }

    /// Runs a worker, unless it is running or over.
    fn run(&self, place: u32) {
        let (mut work, waker) = {
            let mut places = self.places.borrow_mut();
            let entry = &mut places.tasks[place as usize];
            entry.queued = false;
            match (std::mem::take(&mut entry.state), entry.waker.take()) {
                (State::Waiting(work), Some(waker)) => {
                    entry.state = State::Running;
                    (work, waker)
                }
                (state, waker) => {
                    (entry.state, entry.waker) = (state, waker);
                    return;
                }
            }
        };
        let polled = catch_unwind(AssertUnwindSafe(|| {
            work.as_mut().poll(&mut Context::from_waker(&waker))
        }));
        let state = match polled {
            Ok(Poll::Pending) => State::Waiting(work),
            Ok(Poll::Ready(())) => {
                drop(work);
                State::Finished
            }
            Err(panic) => {
                drop(work);
                State::Panicked(panic)
            }
        };
        let is_over = !matches!(state, State::Waiting(_));
        let mut places = self.places.borrow_mut();
        let entry = &mut places.tasks[place as usize];
        entry.state = state;
        if is_over {
            // The event loop is told by its own task.
            waker.wake_by_ref();
        }
        entry.waker = Some(waker);
    }

    /// Runs those that were sent something, and those that they send to.
    fn run_ready(&self) {
        let next = || self.ready.borrow_mut().pop_front();
        for _ in 0..RUNS {
            match next() {
                Some(place) => self.run(place),
                None => return,
            }
        }
        while let Some(place) = next() {
            let mut places = self.places.borrow_mut();
            let entry = &mut places.tasks[place as usize];
            entry.queued = false;
            if let Some(waker) = &entry.waker {
                waker.wake_by_ref();
            }
        }
    }

    /// What became of it.
    fn outcome(&self, place: u32) -> Poll<()> {
        let state = {
            let mut places = self.places.borrow_mut();
            let state = &mut places.tasks[place as usize].state;
            match state {
                State::Panicked(_) | State::Finished => std::mem::take(state),
                _ => return Poll::Pending,
            }
        };
        match state {
            State::Panicked(panic) => resume_unwind(panic),
            _ => Poll::Ready(()),
        }
    }
}

//! Interceptors whose work is done elsewhere: on another thread, or in another task.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use portolan_runtime::Payload;

use super::{Direction, Ended, Interceptor};

/// Pieces of each direction that may be on their way to the work, in work, or on their way back: one is worked on while the next one
/// is read and the last one is carried off.
const IN_FLIGHT: usize = 3;

/// An interceptor, and the [`Work`] that it has done elsewhere.
pub fn remote() -> (Box<dyn Interceptor>, Work) {
    let shared = Arc::<Mutex<Shared>>::default();
    let remote = Remote {
        shared: Arc::clone(&shared),
    };
    let work = Work {
        shared,
        current: None,
    };
    (Box::new(remote), work)
}

#[derive(Default)]
struct Shared {
    /// What is to be done, in the order in which it came.
    tasks: VecDeque<Task>,
    lanes: [Lane; 2],
    ended: Option<Ended>,
    /// The connection is gone.
    over: bool,
    connection: Option<Waker>,
    worker: Option<Waker>,
}

#[derive(Default)]
struct Lane {
    /// Pieces that are not done.
    given: usize,
    output: VecDeque<Payload>,
    over: bool,
    /// Bytes of pieces that are not done, and of output that was not taken.
    bytes: usize,
}

impl Shared {
    fn lane(&mut self, direction: Direction) -> &mut Lane {
        &mut self.lanes[usize::from(direction == Direction::ToClient)]
    }
}

/// One thing to do.
#[derive(Debug)]
pub struct Task {
    /// Of which direction.
    pub direction: Direction,
    /// What has come; `None` if no more comes in this direction.
    pub bytes: Option<Payload>,
}

/// What a connection wants to have done: [`next`](Self::next) says what, and [`done`](Self::done) what came out. If it is dropped before the
/// connection is over, the connection is ended.
pub struct Work {
    shared: Arc<Mutex<Shared>>,
    /// Whose task is being done, its bytes, and whether it was the last of its direction.
    current: Option<(Direction, usize, bool)>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl Work {
    /// The next thing to do; `None` when the connection is over. One that was not said to be done gives nothing.
    pub async fn next(&mut self) -> Option<Task> {
        self.done(None);
        let task = poll_fn(|cx| {
            let mut shared = self.shared.lock();
            if shared.over {
                return Poll::Ready(None);
            }
            match shared.tasks.pop_front() {
                Some(task) => Poll::Ready(Some(task)),
                None => {
                    shared.worker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await?;
        let length = task.bytes.as_ref().map_or(0, Payload::len);
        self.current = Some((task.direction, length, task.bytes.is_none()));
        Some(task)
    }

    /// The last task is done, and these bytes go on.
    pub fn done(&mut self, output: Option<Payload>) {
        let Some((direction, length, last)) = self.current.take() else {
            return;
        };
        let waker = {
            let mut shared = self.shared.lock();
            let lane = shared.lane(direction);
            lane.given -= 1;
            lane.bytes = lane.bytes - length + output.as_ref().map_or(0, Payload::len);
            lane.over |= last;
            lane.output.extend(output.filter(|bytes| !bytes.is_empty()));
            shared.connection.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Ends the connection.
    pub fn end(self, ended: Ended) {
        self.shared.lock().ended = Some(ended);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let waker = {
            let mut shared = self.shared.lock();
            let stopped = || Ended::failed("it was stopped");
            shared.ended.get_or_insert_with(stopped);
            shared.tasks.clear();
            shared.connection.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

struct Remote {
    shared: Arc<Mutex<Shared>>,
}

impl Remote {
    fn add(&self, direction: Direction, bytes: Option<Payload>) {
        let waker = {
            let mut shared = self.shared.lock();
            let lane = shared.lane(direction);
            lane.given += 1;
            lane.bytes += bytes.as_ref().map_or(0, Payload::len);
            if shared.ended.is_none() {
                shared.tasks.push_back(Task { direction, bytes });
            }
            shared.worker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// What `ready` finds; if it finds nothing the task is woken when there may be something.
    fn poll<T>(
        &self,
        direction: Direction,
        cx: &Context<'_>,
        ready: impl FnOnce(&mut Lane) -> Option<T>,
    ) -> Poll<Result<T, Ended>> {
        let mut shared = self.shared.lock();
        if let Some(ended) = &shared.ended {
            return Poll::Ready(Err(ended.clone()));
        }
        match ready(shared.lane(direction)) {
            Some(found) => Poll::Ready(Ok(found)),
            None => {
                match &mut shared.connection {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

impl Interceptor for Remote {
    fn poll_ready(&mut self, direction: Direction, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        self.poll(direction, cx, |lane| {
            (lane.given + lane.output.len() < IN_FLIGHT).then_some(())
        })
    }

    fn held(&self, direction: Direction) -> usize {
        self.shared.lock().lane(direction).bytes
    }

    fn give(&mut self, direction: Direction, bytes: Payload) {
        self.add(direction, Some(bytes));
    }

    fn end(&mut self, direction: Direction) {
        self.add(direction, None);
    }

    fn poll_take(
        &mut self,
        direction: Direction,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Payload>, Ended>> {
        self.poll(direction, cx, |lane| match lane.output.pop_front() {
            Some(bytes) => {
                lane.bytes -= bytes.len();
                Some(Some(bytes))
            }
            None => lane.over.then_some(None),
        })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let waker = {
            let mut shared = self.shared.lock();
            shared.over = true;
            shared.tasks.clear();
            shared.worker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

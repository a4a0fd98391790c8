//! An interceptor around a socket, which looks like a socket to the connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use portolan_runtime::Payload;
use portolan_runtime::payload::CHUNK;
use smallvec::SmallVec;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Direction, Ended, HELD, Interceptor, Named, Opened, guarded};
use crate::application::{GATHERED, Reader, SMALL_CHUNK};
use crate::memory::{Held, WindowMemory};
use crate::socket::Socket;

/// How often in one turn it is tried to get something out of an interceptor that holds everything back.
const ROUNDS: usize = 16;

/// The application's socket, and what stands between it and the connection.
pub(crate) struct Intercepted {
    socket: Socket,
    reader: Reader,
    interceptor: Guarded,
    from_application: Way,
    to_application: Way,
    /// Something was written to the application since the last time that somebody asked.
    progressed: bool,
}

/// One direction.
struct Way {
    direction: Direction,
    /// What the interceptor gave.
    output: VecDeque<Payload>,
    /// Its bytes.
    bytes: usize,
    /// The memory of its bytes and of those that the interceptor holds.
    held: Held,
    /// The interceptor was told that no more comes.
    told_end: bool,
    /// The interceptor has said that no more comes.
    over: bool,
    answer: Answer,
}

impl Way {
    fn new(direction: Direction, within: Duration, memory: WindowMemory) -> Self {
        Self {
            direction,
            output: VecDeque::new(),
            bytes: 0,
            held: Held::new(memory),
            told_end: false,
            over: false,
            answer: Answer {
                within,
                since: None,
                timer: None,
            },
        }
    }

    /// Bytes here and with the interceptor.
    fn all(&self, interceptor: &Guarded) -> usize {
        self.bytes + interceptor.interceptor.held(self.direction)
    }

    /// Counts them against the memory of the node.
    fn count(&mut self, interceptor: &mut Guarded) -> io::Result<()> {
        let all = self.all(interceptor);
        self.held
            .set(all)
            .map_err(|why| interceptor.end(Ended::failed(why)))
    }

    /// How much may be given at once: little where memory is scarce, and then nothing before all is gone that was given before.
    /// Whoever has that wakes the task.
    fn room(&self, interceptor: &Guarded) -> Option<usize> {
        match self.held.is_scarce() {
            false => Some(CHUNK),
            true => (self.all(interceptor) == 0).then_some(SMALL_CHUNK),
        }
    }

    /// Gives bytes to the interceptor.
    fn give(&mut self, interceptor: &mut Guarded, bytes: Payload) -> io::Result<()> {
        let direction = self.direction;
        interceptor.call(|it| it.give(direction, bytes))?;
        self.count(interceptor)
    }

    /// Takes what the interceptor has for this direction, as far as there is room. Whether there was something.
    fn collect(&mut self, interceptor: &mut Guarded, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut found = false;
        while !self.over && self.bytes < HELD && self.output.len() < GATHERED {
            let taken = match interceptor.call(|it| it.poll_take(self.direction, cx))? {
                Poll::Ready(Err(ended)) => return Err(interceptor.end(ended)),
                Poll::Ready(Ok(taken)) => taken,
                Poll::Pending => break,
            };
            found = true;
            match taken {
                Some(piece) if piece.is_empty() => {}
                Some(piece) => {
                    self.bytes += piece.len();
                    self.output.push_back(piece);
                }
                None if self.told_end => self.over = true,
                None => {
                    let early = Ended::failed("it ended a direction before its end");
                    return Err(interceptor.end(early));
                }
            }
        }
        if found {
            self.answer.came();
            self.count(interceptor)?;
        }
        Ok(found)
    }

    /// Whether the interceptor takes more. If not, it must do so in time.
    fn poll_ready(&mut self, interceptor: &mut Guarded, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match interceptor.call(|it| it.poll_ready(self.direction, cx))? {
            Poll::Ready(Ok(())) => {
                self.answer.came();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(ended)) => Poll::Ready(Err(interceptor.end(ended))),
            Poll::Pending => {
                ready!(self.answer.poll_missing(cx));
                let text = format!("it did not answer for {:?}", self.answer.within);
                Poll::Ready(Err(interceptor.end(Ended::failed(text))))
            }
        }
    }

    /// After the end it must come to its own end, in time.
    fn poll_last_word(&mut self, interceptor: &mut Guarded, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.answer.poll_missing(cx));
        let text = format!(
            "it did not answer for {:?} after the end of a direction",
            self.answer.within
        );
        Poll::Ready(interceptor.end(Ended::failed(text)))
    }

    /// Takes note that the first bytes of the output have gone on.
    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(first) = self.output.front_mut() {
            if count < first.len() {
                first.strip_front(count);
                return;
            }
            count -= first.len();
            self.output.pop_front();
        }
        self.output = VecDeque::new();
    }
}

/// Notices that an interceptor does not answer.
struct Answer {
    within: Duration,
    /// When it was first found that it must answer and does not.
    since: Option<Instant>,
    /// Set for the first such moment, and later only when it fires: usually the answer comes long before.
    timer: Option<std::pin::Pin<Box<Sleep>>>,
}

impl Answer {
    fn came(&mut self) {
        self.since = None;
    }

    /// Ready when it has been missing for too long.
    fn poll_missing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = *self.since.get_or_insert_with(Instant::now) + self.within;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(limit)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= limit {
                return Poll::Ready(());
            }
            timer.as_mut().reset(limit);
        }
    }
}

/// An interceptor that is not called any more after it has failed.
struct Guarded {
    interceptor: Box<dyn Interceptor>,
    name: Arc<str>,
    ended: Option<Ended>,
}

impl Guarded {
    fn call<T>(&mut self, call: impl FnOnce(&mut dyn Interceptor) -> T) -> io::Result<T> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone().by(&self.name).into());
        }
        guarded(|| call(&mut *self.interceptor)).map_err(|ended| self.end(ended))
    }

    /// It has ended the connection.
    fn end(&mut self, ended: Ended) -> io::Error {
        let named: Named = ended.clone().by(&self.name);
        self.ended = Some(ended);
        named.into()
    }
}

impl Intercepted {
    pub(super) fn new(opened: Opened, socket: Socket) -> Self {
        let Opened {
            interceptor,
            name,
            side,
            answer_within,
            memory,
        } = opened;
        Self {
            socket,
            reader: Reader::new(),
            interceptor: Guarded {
                interceptor,
                name,
                ended: None,
            },
            from_application: Way::new(side.application_sends(), answer_within, memory.clone()),
            to_application: Way::new(side.application_receives(), answer_within, memory),
            progressed: false,
        }
    }

    /// What goes on of what the application has sent, at most `limit` bytes; empty at the end.
    pub(crate) fn poll_read(&mut self, limit: usize, cx: &mut Context<'_>) -> Poll<io::Result<Payload>> {
        let way = &mut self.from_application;
        for _ in 0..ROUNDS {
            if way.output.is_empty() {
                way.collect(&mut self.interceptor, cx)?;
            }
            if let Some(first) = way.output.front_mut() {
                let limit = limit.min(CHUNK);
                let whole = first.len() <= limit;
                let piece = if whole {
                    std::mem::take(first)
                } else {
                    Payload::copy_from(&first.as_slice()[..limit])
                };
                if whole {
                    way.bytes -= piece.len();
                    way.output.pop_front();
                } else {
                    way.advance(piece.len());
                }
                way.count(&mut self.interceptor)?;
                return Poll::Ready(Ok(piece));
            }
            if way.over {
                return Poll::Ready(Ok(Payload::new()));
            }
            if way.told_end {
                return way.poll_last_word(&mut self.interceptor, cx).map(Err);
            }
            ready!(way.poll_ready(&mut self.interceptor, cx))?;
            let Some(room) = way.room(&self.interceptor) else {
                return Poll::Pending;
            };
            let read = ready!(self.reader.poll_read(&mut self.socket, room, cx))?;
            if read.is_empty() {
                way.told_end = true;
                self.interceptor.call(|it| it.end(way.direction))?;
            } else {
                way.give(&mut self.interceptor, read)?;
            }
        }
        // It holds back what the application sends: others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives the interceptor what the other end has sent, as much as one piece has room for: many small messages are one.
    pub(crate) fn poll_write(
        &mut self,
        slices: &[IoSlice<'_>],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_ready(cx))?;
        let Some(room) = self.to_application.room(&self.interceptor) else {
            return Poll::Pending;
        };
        let total = slices.iter().map(|slice| slice.len()).sum::<usize>().min(room);
        let mut piece = if total > CHUNK / 2 {
            Payload::pooled()
        } else {
            Payload::with_capacity(total)
        };
        for slice in slices {
            let room = total - piece.len();
            piece.append(&slice[..slice.len().min(room)]);
        }
        self.to_application.give(&mut self.interceptor, piece)?;
        Poll::Ready(Ok(total))
    }

    /// Whether more may be given for the application.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let way = &mut self.to_application;
        way.collect(&mut self.interceptor, cx)?;
        if way.bytes >= HELD || way.output.len() >= GATHERED {
            ready!(self.poll_output(cx))?;
        }
        self.to_application.poll_ready(&mut self.interceptor, cx)
    }

    /// Writes to the application all that there is for it now.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let way = &mut self.to_application;
            way.collect(&mut self.interceptor, cx)?;
            if way.output.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let slices: SmallVec<[IoSlice<'_>; 8]> = way
                .output
                .iter()
                .take(GATHERED)
                .map(|piece| IoSlice::new(piece.as_slice()))
                .collect();
            let written = ready!(self.socket.poll_write(&slices, cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            drop(slices);
            way.advance(written);
            way.count(&mut self.interceptor)?;
            self.progressed = true;
        }
    }

    /// Writes what there is, and is pending as long as there can be more: an interceptor may take its time.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_output(cx))?;
        if self.to_application.over {
            return self.socket.poll_flush(cx);
        }
        // Whether it is alive.
        if !self.to_application.told_end
            && let Poll::Ready(Err(error)) = self.to_application.poll_ready(&mut self.interceptor, cx)
        {
            return Poll::Ready(Err(error));
        }
        if let Poll::Ready(Err(error)) = self.socket.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Pending
    }

    /// Tells the interceptor that no more comes for the application, writes its last words, and ends that direction of the
    /// socket. An error is about what was still to be written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.to_application.told_end {
            ready!(self.poll_ready(cx))?;
            let way = &mut self.to_application;
            way.told_end = true;
            self.interceptor.call(|it| it.end(way.direction))?;
        }
        ready!(self.poll_output(cx))?;
        let way = &mut self.to_application;
        if !way.over {
            return way.poll_last_word(&mut self.interceptor, cx).map(Err);
        }
        // As with a socket alone, an application that has gone has nothing to lose.
        self.socket.poll_shutdown(cx).map(|_| Ok(()))
    }

    /// Writes what a socket takes that was not said to be ready; see [`Socket::write_now`].
    pub(crate) fn write_now(&mut self) -> io::Result<usize> {
        let way = &mut self.to_application;
        let Some(first) = way.output.front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let written = self.socket.write_now(first.as_slice())?;
        way.advance(written);
        way.count(&mut self.interceptor)?;
        Ok(written)
    }

    /// Whether the application has taken something since this was asked last.
    pub(crate) fn has_progressed(&mut self) -> bool {
        std::mem::take(&mut self.progressed)
    }

    /// Bytes that the application has not taken; `None` if its direction is over and nothing is left.
    pub(crate) fn unwritten(&self) -> Option<usize> {
        let way = &self.to_application;
        (!way.over || way.bytes > 0).then_some(way.bytes)
    }

    /// See [`Socket::end_with_an_error`].
    pub(crate) fn end_with_an_error(&self) {
        self.socket.end_with_an_error();
    }
}

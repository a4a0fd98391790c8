//! What is read from the application becomes messages, and what has arrived for it waits here.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use portolan_runtime::Payload;
use smallvec::SmallVec;

use crate::socket::Socket;

/// Largest chunk: a pooled buffer full. Reads of it need few system calls and few records, see `benches/`.
const CHUNK: usize = portolan_runtime::payload::CHUNK;
/// Smallest chunk buffer, for interactive traffic.
pub(crate) const SMALL_CHUNK: usize = 4 * 1024;
/// Payloads gathered into one write.
pub(crate) const GATHERED: usize = 64;
/// A message that is smaller than this is copied when it must wait: it may be a small part of a large buffer.
const COPIED_BELOW: usize = 32 * 1024;

/// What is read is copied into a buffer of its size when it has no more bytes than this.
const COPIED_READ: usize = 1024;

/// A queue that grew beyond this many slots goes back to the allocator once it is empty.
const KEPT_SLOTS: usize = 8;
/// Empty queues that each thread keeps, for whichever of its connections has something next. None keeps its own: thousands may have had
/// something at the same moment.
const SPARE_QUEUES: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<VecDeque<Payload>>> = const { RefCell::new(Vec::new()) };
}

fn take_queue() -> VecDeque<Payload> {
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
    spare.unwrap_or_default()
}

/// Keeps a queue, which must be empty, for others.
fn give_queue(queue: VecDeque<Payload>) {
    if !(1..=KEPT_SLOTS).contains(&queue.capacity()) {
        return;
    }
    // A thread that ends keeps nothing any more.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < SPARE_QUEUES {
            spare.push(queue);
        }
    });
}

/// Reads from the application.
#[derive(Debug)]
pub(crate) struct Reader {
    size: usize,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self { size: SMALL_CHUNK }
    }

    /// Reads once, at most `limit` bytes; empty at the end of the stream. Takes a buffer only when there is something
    /// to read.
    pub(crate) fn poll_read(
        &mut self,
        socket: &mut Socket,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Payload>> {
        let size = self.size;
        let make = || {
            if size >= CHUNK {
                Payload::pooled()
            } else {
                Payload::with_capacity(size)
            }
        };
        let mut payload = ready!(socket.poll_read(limit.min(size), make, cx))?;
        let length = payload.len();
        if length > 0 && length <= COPIED_READ && size == SMALL_CHUNK {
            // The buffer is free for the next read, also where this message has to wait: thousands may have something to say at
            // the same moment.
            payload = Payload::copy_from(payload.as_slice());
        }
        if length >= self.size && self.size < CHUNK {
            self.size = (self.size * 8).min(CHUNK);
        } else if length < self.size / 16 {
            self.size = (self.size / 8).max(SMALL_CHUNK);
        }
        Poll::Ready(Ok(payload))
    }
}

/// What has arrived for the application and was not written yet.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    frames: VecDeque<Payload>,
    bytes: usize,
    /// What was written of the first.
    written: usize,
    /// So many at the front are as small as they can be.
    compact: usize,
}

impl Arrived {
    pub(crate) fn push(&mut self, payload: Payload) {
        self.bytes += payload.len();
        if self.frames.capacity() == 0 {
            self.frames = take_queue();
        }
        self.frames.push_back(payload);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes what the socket takes, and tells the length of each message that was written to its end. Ready with the
    /// number of bytes; pending when the socket takes nothing more.
    pub(crate) fn poll_write(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
        delivered: impl FnMut(usize),
    ) -> Poll<io::Result<usize>> {
        let written = {
            let slices: SmallVec<[IoSlice<'_>; 8]> = self
                .frames
                .iter()
                .take(GATHERED)
                .map(|frame| IoSlice::new(frame.as_slice()))
                .collect();
            socket.poll_write(&slices, cx)
        };
        let Poll::Ready(written) = written else {
            self.shrink();
            return Poll::Pending;
        };
        let written = written?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.take(written, delivered);
        Poll::Ready(Ok(written))
    }

    /// Writes of the first message what the socket takes now, whether or not it was said to take anything; see
    /// [`Socket::write_now`].
    pub(crate) fn write_now(
        &mut self,
        socket: &mut Socket,
        delivered: impl FnMut(usize),
    ) -> io::Result<usize> {
        let Some(first) = self.frames.front() else {
            return Ok(0);
        };
        let written = socket.write_now(first.as_slice())?;
        self.take(written, delivered);
        Ok(written)
    }

    fn take(&mut self, mut written: usize, mut delivered: impl FnMut(usize)) {
        self.bytes -= written;
        while let Some(first) = self.frames.front_mut() {
            let length = first.len();
            if written < length {
                first.strip_front(written);
                self.written += written;
                return;
            }
            written -= length;
            self.compact = self.compact.saturating_sub(1);
            self.frames.pop_front();
            delivered(length + std::mem::take(&mut self.written));
        }
        give_queue(std::mem::take(&mut self.frames));
    }

    /// Lets go of buffers that are mostly used by others.
    fn shrink(&mut self) {
        for frame in self.frames.iter_mut().skip(self.compact) {
            if frame.len() < COPIED_BELOW {
                *frame = Payload::from_buffer(BytesMut::from(frame.as_slice()));
            }
        }
        self.compact = self.frames.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_been_written_leaves_no_queue_behind_and_the_next_one_takes_that() {
        let spares = || SPARE.with_borrow(Vec::len);
        let (mut one, mut other) = (Arrived::default(), Arrived::default());
        for arrived in [&mut one, &mut other] {
            for round in 0..3 {
                for length in [3, 5] {
                    arrived.push(Payload::copy_from(&vec![7; length]));
                }
                assert!(arrived.frames.capacity() > 0);
                assert_eq!(spares(), 0);
                let mut delivered = Vec::new();
                arrived.take(4, |length| delivered.push(length));
                assert_eq!((arrived.bytes(), arrived.is_empty()), (4, false));
                arrived.take(4, |length| delivered.push(length));
                assert_eq!(delivered, [3, 5], "{round}");
                assert!(arrived.is_empty() && arrived.frames.capacity() == 0);
                assert_eq!(spares(), 1);
            }
        }
    }
}

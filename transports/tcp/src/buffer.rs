//! Receive buffers that are used again.
//!
//! Messages that are not small are handed on as views into the buffer that they were read into, so a buffer can be written again only
//! when all of its messages are gone. A few buffers take turns. Their size follows the traffic: a connection that
//! carries small messages now and then keeps 4 KiB, a busy one reads half a mebibyte at a time, and an idle one gives
//! everything back.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use portolan_runtime::Payload;

/// First and smallest read, in bytes.
const SMALLEST: usize = 4 * 1024;
/// Largest read, in bytes: several portal chunks, so that a header and the chunk behind it cost one system call.
const LARGEST: usize = 512 * 1024;
/// A short read: the header of a large frame and its routes, and little of its content.
const HEADER_READ: usize = 1024;
/// Buffers that wait for their messages to be gone. With what is in mailboxes and write queues behind them, more would
/// not be free any sooner.
const RETIRED: usize = 6;
/// Frames up to this length are copied: what the smallest pooled buffer holds.
const COPIED: usize = 1024;
/// Small reads in a row after which the buffer shrinks.
const PATIENCE: u32 = 64;

#[derive(Debug)]
pub(crate) struct ReceiveBuffer {
    current: BytesMut,
    retired: VecDeque<BytesMut>,
    size: usize,
    small_reads: u32,
    header_next: bool,
}

impl ReceiveBuffer {
    pub(crate) fn new() -> Self {
        Self {
            current: BytesMut::new(),
            retired: VecDeque::new(),
            size: SMALLEST,
            small_reads: 0,
            header_next: false,
        }
    }

    /// What has been received and not yet been taken.
    pub(crate) fn received(&self) -> &[u8] {
        &self.current
    }

    /// Takes `count` bytes off the front.
    pub(crate) fn take(&mut self, count: usize) -> BytesMut {
        self.current.split_to(count)
    }

    /// Takes a frame of this many bytes off the front. A small one is copied, into a pooled buffer with room around it: that costs
    /// less than what a view does, which keeps all of this buffer from being read into again, and must be copied to get longer headers.
    pub(crate) fn take_frame(&mut self, count: usize) -> Payload {
        if count > COPIED {
            return Payload::from_buffer(self.take(count));
        }
        let mut frame = Payload::with_capacity(count);
        frame.append(&self.current[..count]);
        self.current.advance(count);
        frame
    }

    /// The next read shall be a short one: after a large frame, which has a buffer of its own, usually another follows,
    /// and what was read of it here must be copied there.
    pub(crate) fn expect_header(&mut self) {
        self.header_next = true;
    }

    /// How many bytes the next read may take.
    pub(crate) fn read_limit(&self) -> usize {
        if self.header_next { HEADER_READ } else { usize::MAX }
    }

    /// The buffer to append to, with room for at least one byte; `frame` is the length of the frame that has begun, if
    /// its header is there.
    pub(crate) fn for_reading(&mut self, frame: Option<usize>) -> &mut BytesMut {
        let begun = self.current.len();
        // Memory for a long frame is taken as it arrives, not when it is announced.
        let wanted = frame.map_or(self.size, |frame| {
            frame.saturating_sub(begun).min(begun.max(LARGEST))
        });
        let room = self.current.capacity() - begun;
        let enough = frame
            .map_or((self.size / 4).max(1), |_| wanted)
            .min(wanted.max(1));
        if room < enough {
            self.make_room(wanted.max(1));
        }
        &mut self.current
    }

    fn make_room(&mut self, wanted: usize) {
        if self.current.try_reclaim(wanted) {
            return;
        }
        let capacity = (self.current.len() + wanted).max(self.size);
        let free = self
            .retired
            .iter_mut()
            .position(|buffer| buffer.try_reclaim(capacity));
        let mut next = match free.and_then(|index| self.retired.remove(index)) {
            Some(mut buffer) => {
                buffer.clear();
                buffer
            }
            None => BytesMut::with_capacity(capacity),
        };
        next.extend_from_slice(&self.current);
        self.current.clear();
        let used = std::mem::replace(&mut self.current, next);
        if self.size > SMALLEST {
            if self.retired.len() == RETIRED {
                self.retired.pop_front();
            }
            self.retired.push_back(used);
        }
    }

    /// Learns from the result of a read.
    pub(crate) fn note_read(&mut self, count: usize) {
        if std::mem::take(&mut self.header_next) {
            return;
        }
        if count >= self.size / 2 && self.size < LARGEST {
            self.size *= 4;
            self.size = self.size.min(LARGEST);
            self.small_reads = 0;
        } else if count < self.size / 16 {
            self.small_reads += 1;
            if self.small_reads > PATIENCE && self.size > SMALLEST {
                self.size = (self.size / 4).max(SMALLEST);
                self.small_reads = 0;
                self.retired.clear();
            }
        } else {
            self.small_reads = 0;
        }
    }

    /// Whether there is memory worth giving back while nothing arrives.
    pub(crate) fn is_large(&self) -> bool {
        self.current.is_empty() && (self.size > SMALLEST || !self.retired.is_empty())
    }

    /// Gives all memory back. Nothing received may be left.
    pub(crate) fn release(&mut self) {
        debug_assert!(self.current.is_empty());
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_once_their_messages_are_gone() {
        let mut buffer = ReceiveBuffer::new();
        buffer.size = LARGEST;
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            let space = buffer.for_reading(None);
            space.extend_from_slice(&[7; 100_000]);
            let message = buffer.take(100_000);
            seen.insert(message.as_ptr() as usize / LARGEST);
            drop(message);
        }
        assert!(seen.len() < 10, "{} buffers for 100 messages", seen.len());
    }

    #[test]
    fn a_message_keeps_its_bytes_while_later_ones_arrive() {
        let mut buffer = ReceiveBuffer::new();
        let mut kept = Vec::new();
        for i in 0u8..200 {
            buffer.for_reading(None).extend_from_slice(&[i; 1000]);
            kept.push(buffer.take(1000));
        }
        for (i, message) in kept.iter().enumerate() {
            assert!(message.iter().all(|byte| usize::from(*byte) == i));
        }
    }

    #[test]
    fn a_long_frame_costs_what_has_arrived_of_it() {
        let mut buffer = ReceiveBuffer::new();
        buffer.for_reading(None).extend_from_slice(&[0; 4]);
        let space = buffer.for_reading(Some(16 * 1024 * 1024));
        assert!(space.capacity() <= 2 * LARGEST);
    }

    #[test]
    fn sizes_follow_the_traffic() {
        let mut buffer = ReceiveBuffer::new();
        for _ in 0..10 {
            buffer.note_read(buffer.size);
        }
        assert_eq!(buffer.size, LARGEST);
        for _ in 0..10_000 {
            buffer.note_read(10);
        }
        assert_eq!(buffer.size, SMALLEST);
    }
}

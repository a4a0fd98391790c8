//! The bytes of a message, with room in front and behind.
//!
//! On its way out a payload gets a portal header, one or two secure-channel headers and tags, and a transport header.
//! All of them are written around the bytes, into room that was left when the buffer was taken, so that the payload
//! itself is never copied. On its way in the same headers are stripped by moving an index, and the room that they
//! leave is used again when a relay sends the payload on.

use std::cell::RefCell;
use std::fmt;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

/// Room left in front of a payload that we create: two nested secure channels with three-hop routes and a transport
/// header take less than 500 bytes.
pub const HEADROOM: usize = 512;
/// Room left behind: each secure channel adds 17 bytes.
pub const TAILROOM: usize = 128;

/// Largest piece of a byte stream that is made into one message. Chosen by measurement (see `docs/performance.md`):
/// through a relay, 64 KiB cost a quarter more CPU time than this, for more system calls and records, and 256 KiB a
/// tenth more, for what no longer stays in the caches of a core.
pub const CHUNK: usize = 128 * 1024;
/// Capacity of the buffers that are pooled, without head and tail room: a chunk with the headers that it has when it
/// arrives.
pub const POOLED_CAPACITY: usize = CHUNK + 4 * 1024;
/// A payload that is copied, for want of room in front, goes into a pooled buffer from this size on.
const POOLED_FROM: usize = 32 * 1024;
/// Buffers that the pool keeps, 8 MiB; what is above goes back to the allocator.
const POOL_LIMIT: usize = 64;

/// One pool for all threads: a relay takes buffers on the thread of one connection and drops them on that of another. It is
/// locked twice for each chunk.
static POOL: Mutex<Vec<BytesMut>> = Mutex::new(Vec::new());

/// Whether the bytes of a payload are a record of a secure channel: protected already, from one end of that channel to the
/// other, whatever carries them in between.
///
/// This is knowledge of the node about these very bytes. It is never read from the wire, and a payload forgets it as soon as a
/// byte of it is touched: what was changed is no record any more, and must not pass for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sealing {
    /// Not known to be a record: a channel seals all of it.
    #[default]
    Unknown,
    /// A record that this node has sealed. A channel that carries it need not seal all of it a second time.
    Record,
    /// A record of which a channel has authenticated the beginning only, because its sender says that it is one. Whoever can
    /// alter what is between us and that sender can have altered the rest. Only the other end of the inner channel can tell:
    /// such a message goes to workers that open records or send them on, and to nobody else ([`crate::Passage::carries_records`],
    /// [`crate::MailboxOptions::opens_records`]).
    Carried,
}

/// Small buffers, by the bytes of content that they have room for: for a message of a service or an interactive application.
const SMALL: [usize; 3] = [128, 1024, 4 * 1024];
/// Small buffers of each size that each thread keeps, and as many for all threads: 440 KiB.
const SMALL_LIMIT: usize = 64;

type Shelves = [Vec<BytesMut>; SMALL.len()];

thread_local! {
    static SMALL_OWN: RefCell<Shelves> = const { RefCell::new([const { Vec::new() }; SMALL.len()]) };
}

/// Where messages cross threads, those that begin on one need what is left on another.
static SMALL_COMMON: [Mutex<Vec<BytesMut>>; SMALL.len()] = [const { Mutex::new(Vec::new()) }; SMALL.len()];

fn take_small(shelf: usize) -> Option<BytesMut> {
    SMALL_OWN
        .try_with(|own| own.borrow_mut()[shelf].pop())
        .ok()
        .flatten()
        .or_else(|| SMALL_COMMON[shelf].lock().pop())
}

fn give_small(shelf: usize, buffer: BytesMut) {
    let mut buffer = Some(buffer);
    // A thread that ends keeps nothing any more.
    let _ = SMALL_OWN.try_with(|own| {
        let shelf = &mut own.borrow_mut()[shelf];
        if shelf.len() < SMALL_LIMIT {
            shelf.extend(buffer.take());
        }
    });
    if buffer.is_some() {
        let mut common = SMALL_COMMON[shelf].lock();
        if common.len() < SMALL_LIMIT {
            common.extend(buffer);
        }
    }
}

/// The bytes of a message.
///
/// A payload owns its bytes alone, so that they can be encrypted and decrypted in place, although its buffer may be a
/// view into one large read shared with other payloads.
pub struct Payload {
    buffer: BytesMut,
    start: usize,
    pooled: bool,
    sealing: Sealing,
}

impl Payload {
    /// An empty payload.
    pub fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            start: 0,
            pooled: false,
            sealing: Sealing::Unknown,
        }
    }

    /// A payload with a copy of these bytes and room around them.
    pub fn copy_from(bytes: &[u8]) -> Self {
        let mut payload = Self::with_capacity(bytes.len());
        payload.buffer.extend_from_slice(bytes);
        payload
    }

    /// Copies the content if it stands in a buffer that is much larger: a part of what was received with it keeps all of that, and a
    /// pooled buffer all that it has. For what may wait long.
    pub(crate) fn keep_little(&mut self) {
        if !self.pooled || self.len() < POOLED_CAPACITY / 2 {
            *self = self.clone();
        }
    }

    /// An empty payload with head room, `capacity` bytes for content, and tail room.
    ///
    /// Small ones come from a pool, and go back there.
    pub fn with_capacity(capacity: usize) -> Self {
        let shelf = SMALL.iter().position(|room| capacity <= *room);
        let room = shelf.map_or(capacity, |shelf| SMALL[shelf]);
        let mut buffer = shelf
            .and_then(take_small)
            .unwrap_or_else(|| BytesMut::with_capacity(HEADROOM + room + TAILROOM));
        buffer.resize(HEADROOM, 0);
        Self {
            buffer,
            start: HEADROOM,
            pooled: shelf.is_some(),
            sealing: Sealing::Unknown,
        }
    }

    /// An empty payload of [`POOLED_CAPACITY`] from the pool; its buffer goes back there when dropped.
    pub fn pooled() -> Self {
        let buffer = POOL.lock().pop();
        match buffer {
            Some(mut buffer) => {
                buffer.resize(HEADROOM, 0);
                Self {
                    buffer,
                    start: HEADROOM,
                    pooled: true,
                    sealing: Sealing::Unknown,
                }
            }
            None => {
                let mut payload = Self::with_capacity(POOLED_CAPACITY);
                payload.pooled = true;
                payload
            }
        }
    }

    /// Takes over a received buffer; the payload starts at its beginning.
    pub fn from_buffer(buffer: BytesMut) -> Self {
        Self {
            buffer,
            start: 0,
            pooled: false,
            sealing: Sealing::Unknown,
        }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// The bytes, for work in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.sealing = Sealing::Unknown;
        let start = self.start;
        &mut self.buffer[start..]
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that can be put in front without a copy.
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Bytes that can be put behind without a copy.
    pub fn tailroom(&self) -> usize {
        self.buffer.capacity() - self.buffer.len()
    }

    /// Strips `count` bytes in front; they become head room.
    ///
    /// # Panics
    /// If the payload is shorter.
    pub fn strip_front(&mut self, count: usize) {
        assert!(count <= self.len(), "no more can be stripped than there is");
        self.sealing = Sealing::Unknown;
        self.start += count;
    }

    /// Shortens the payload to `length` bytes; what is cut becomes tail room. Nothing happens if it is shorter.
    pub fn truncate(&mut self, length: usize) {
        self.sealing = Sealing::Unknown;
        self.buffer.truncate(self.start + length);
    }

    /// Puts bytes in front.
    pub fn prepend(&mut self, bytes: &[u8]) {
        self.grow_front(bytes.len()).copy_from_slice(bytes);
    }

    /// Makes the payload `count` bytes longer in front and returns them, with undefined content.
    pub fn grow_front(&mut self, count: usize) -> &mut [u8] {
        self.sealing = Sealing::Unknown;
        if count > self.start {
            let needed = count + self.len();
            let pooled = (POOLED_FROM..=POOLED_CAPACITY).contains(&needed);
            let mut roomy = if pooled {
                Self::pooled()
            } else {
                Self::with_capacity(needed)
            };
            roomy.buffer.resize(roomy.start + count, 0);
            roomy.buffer.extend_from_slice(self.as_slice());
            roomy.start += count;
            *self = roomy;
        }
        self.start -= count;
        let start = self.start;
        &mut self.buffer[start..start + count]
    }

    /// Puts bytes behind.
    pub fn append(&mut self, bytes: &[u8]) {
        self.sealing = Sealing::Unknown;
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer for a reader that appends to it; at most `POOLED_CAPACITY` bytes should be added.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        self.sealing = Sealing::Unknown;
        &mut self.buffer
    }

    /// Whether the bytes are a record of a secure channel.
    pub fn sealing(&self) -> Sealing {
        self.sealing
    }

    /// Says that the bytes, as they stand, are a record of a secure channel. For the workers of channels: whoever says so of
    /// anything else has it carried over the wire in the clear.
    pub fn set_sealing(&mut self, sealing: Sealing) {
        self.sealing = sealing;
    }

    /// Bytes that this payload keeps alive, for accounting.
    pub fn footprint(&self) -> usize {
        self.buffer.len()
    }

    /// The bytes, in a form that can be shared. Copies.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.as_slice())
    }

    /// The bytes as a vector. Copies.
    pub fn to_vec(&self) -> Vec<u8> {
        self.as_slice().to_vec()
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if self.pooled {
            let mut buffer = std::mem::take(&mut self.buffer);
            let capacity = buffer.capacity();
            let is_small = |room: &usize| capacity == HEADROOM + room + TAILROOM;
            if let Some(shelf) = SMALL.iter().position(is_small) {
                // What is left becomes head room again.
                buffer.truncate(HEADROOM);
                give_small(shelf, buffer);
            } else if capacity >= HEADROOM + POOLED_CAPACITY {
                let mut pool = POOL.lock();
                if pool.len() < POOL_LIMIT {
                    pool.push(buffer);
                }
            }
        }
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Payload {
    /// Copies the bytes, and what is known of them.
    fn clone(&self) -> Self {
        let mut copy = Self::copy_from(self.as_slice());
        copy.sealing = self.sealing;
        copy
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    /// Shows the length only: payloads may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::copy_from(&bytes)
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_go_around_the_bytes_without_moving_them() {
        let mut payload = Payload::copy_from(b"middle");
        let before = payload.as_slice().as_ptr();
        payload.prepend(b"front ");
        payload.append(b" back");
        assert_eq!(payload.as_slice(), b"front middle back");
        payload.strip_front(6);
        assert_eq!(payload.as_slice().as_ptr(), before);
        payload.truncate(6);
        assert_eq!(payload.as_slice(), b"middle");
        assert_eq!(payload.headroom(), HEADROOM);
    }

    #[test]
    fn a_header_larger_than_the_room_still_fits() {
        let mut payload = Payload::from_buffer(BytesMut::from(&b"x"[..]));
        payload.prepend(&[7; 2000]);
        assert_eq!(payload.len(), 2001);
        assert_eq!(payload.as_slice()[2000], b'x');
        assert!(payload.headroom() >= HEADROOM);
    }

    #[test]
    fn a_payload_that_was_touched_is_not_known_to_be_a_record_any_more() {
        type Touch = fn(&mut Payload);
        let touches: [Touch; 8] = [
            |payload| payload.as_mut_slice()[0] = 1,
            |payload| payload.strip_front(1),
            |payload| payload.truncate(3),
            |payload| payload.prepend(b"x"),
            |payload| payload.grow_front(1)[0] = 1,
            |payload| payload.append(b"x"),
            |payload| payload.buffer_mut().extend_from_slice(b"x"),
            |payload| *payload = Payload::copy_from(payload.as_slice()),
        ];
        for known in [Sealing::Record, Sealing::Carried] {
            for touch in touches {
                let mut payload = Payload::copy_from(b"record");
                assert_eq!(payload.sealing(), Sealing::Unknown);
                payload.set_sealing(known);
                assert_eq!(payload.clone().sealing(), known);
                touch(&mut payload);
                assert_eq!(payload.sealing(), Sealing::Unknown);
            }
        }
    }

    #[test]
    fn small_buffers_are_used_again_and_come_back_empty() {
        std::thread::spawn(|| {
            let kept = || SMALL_OWN.with_borrow(|own| own.each_ref().map(Vec::len));
            for (size, shelf) in [(1, 0), (128, 0), (129, 1), (1024, 1), (1025, 2), (4096, 2)] {
                let mut payload = Payload::with_capacity(size);
                assert_eq!(kept()[shelf], 0);
                payload.append(&vec![7; size]);
                payload.prepend(b"header");
                drop(payload);
                assert_eq!(kept()[shelf], 1);
                let payload = Payload::with_capacity(size);
                assert_eq!(kept()[shelf], 0);
                assert!(payload.is_empty() && payload.tailroom() >= size + TAILROOM);
                assert_eq!(payload.headroom(), HEADROOM);
                // Not for the next size, which is on the same shelf.
                std::mem::forget(payload);
            }
            let many: Vec<_> = (0..3 * SMALL_LIMIT).map(|_| Payload::with_capacity(1)).collect();
            drop(many);
            assert_eq!(kept()[0], SMALL_LIMIT);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_small_buffer_that_was_outgrown_is_not_kept_as_one() {
        let mut payload = Payload::with_capacity(10);
        payload.append(&[7; 100_000]);
        drop(payload);
        assert!(Payload::with_capacity(10).buffer.capacity() < 10_000);
    }

    #[test]
    fn pooled_buffers_come_back_empty() {
        let mut payload = Payload::pooled();
        payload.append(b"abc");
        drop(payload);
        let payload = Payload::pooled();
        assert!(payload.is_empty());
        assert_eq!(payload.headroom(), HEADROOM);
    }
}

//! How much of a channel may be on its way (extension X6): the window of what was sealed and is not known to have arrived.
//!
//! A channel that runs through relays shares their connections with others. What it sends to a peer that does not read, because its
//! process stands still or its line is slow, waits at a relay; and when a relay has no room left, it waits itself, with
//! everything that comes over the same connection for whomever else. So each end says what has arrived (a *receipt*), and
//! the other keeps no more on its way than its window. Arrived means: opened by the peer's decryptor, whatever becomes of it then.
//! An application that does not read has nothing to do with it; that is for the windows of streams.
//!
//! # How large
//!
//! As small as it can be without costing throughput, and at least [`LEAST`]: twice what the path has delivered in the shortest time
//! that a receipt took. A path that is not filled delivers a whole window in that time, and the window doubles with each
//! round trip. Where it is filled, what is too much waits somewhere on the way, receipts take longer, and the window becomes
//! smaller. At most it is [`MOST`].
//!
//! The shortest time is measured again every [`PROBE_AFTER`]: for one round trip no more than [`RECEIPT_EVERY`] is sent, so that
//! nothing of ours waits on the way. A path may have become another one.
//!
//! No clock: time is a parameter. `SendWindow` is the sender's side: `is_open` is asked before sending, `handle_sent` and
//! `handle_receipt` are told what happens. `Arrivals` is the receiver's: `handle_arrived` says which receipt is due.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// What each message counts beside its payload, in bytes: tiny ones take memory too where they wait.
pub const MESSAGE_COST: usize = 1024;
/// The receiver says what has arrived whenever it is so much more, in bytes with [`MESSAGE_COST`]s. Both ends count the same, so
/// that the sender knows which message a receipt was caused by.
pub const RECEIPT_EVERY: u64 = 256 * 1024;
/// The smallest window, and the first. Two of them are what a connection queues before it makes anybody wait.
pub const LEAST: u64 = 1024 * 1024;
/// The largest window: 2.6 Gbit/s with a round trip of 50 ms. What a relay holds for one destination is more.
pub const MOST: u64 = 16 * 1024 * 1024;
/// The shortest time of a receipt is believed for so long.
pub const PROBE_AFTER: Duration = Duration::from_secs(30);
/// With so much on its way a message meets nothing of ours before it. One message may be more than fits.
const HARDLY_ANYTHING: u64 = 2 * RECEIPT_EVERY;

/// What a payload of this length counts.
pub(crate) fn cost(payload: usize) -> u64 {
    (payload + MESSAGE_COST) as u64
}

/// A message that causes a receipt.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// Sent when it was, with it.
    sent: u64,
    at: Instant,
    /// Known to have arrived then.
    arrived: u64,
}

/// The sender's side.
#[derive(Debug)]
pub(crate) struct SendWindow {
    sent: u64,
    /// As far as receipts say.
    arrived: u64,
    limit: u64,
    /// Those whose receipt has not come: no more than [`MOST`] divided by [`RECEIPT_EVERY`], and one message.
    marks: VecDeque<Mark>,
    /// The newest of them, or of those that there were.
    marked: u64,
    /// The shortest time that a receipt took, and when.
    shortest: Option<(Duration, Instant)>,
    /// Little is sent at present, to measure that again.
    probes: bool,
}

impl SendWindow {
    pub(crate) fn new() -> Self {
        Self {
            sent: 0,
            arrived: 0,
            limit: LEAST,
            marks: VecDeque::new(),
            marked: 0,
            shortest: None,
            probes: false,
        }
    }

    /// Whether another message may be sent, of any size.
    pub(crate) fn is_open(&self) -> bool {
        // A probe does not wait for a receipt that nobody owes: what it allows causes one.
        let limit = if self.probes { RECEIPT_EVERY } else { self.limit };
        self.sent - self.arrived < limit
    }

    /// A message with a payload of this length was sent.
    pub(crate) fn handle_sent(&mut self, payload: usize, now: impl FnOnce() -> Instant) {
        self.sent += cost(payload);
        if self.sent - self.marked >= RECEIPT_EVERY {
            self.marked = self.sent;
            self.marks.push_back(Mark {
                sent: self.sent,
                at: now(),
                arrived: self.arrived,
            });
        }
    }

    /// So much has arrived since the channel was opened. `false` if that cannot be: the peer breaks the protocol.
    pub(crate) fn handle_receipt(&mut self, total: u64, now: Instant) -> bool {
        let mut caused_by = None;
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.sent <= total) {
            caused_by = Some(mark);
        }
        let Some(mark) = caused_by.filter(|mark| mark.sent == total) else {
            return false;
        };
        self.arrived = total;
        let time = now
            .saturating_duration_since(mark.at)
            .max(Duration::from_micros(1));
        let on_its_way = mark.sent - mark.arrived;
        self.note_time(time, on_its_way, now);
        self.resize(time, on_its_way);
        true
    }

    fn note_time(&mut self, time: Duration, on_its_way: u64, now: Instant) {
        let old = self
            .shortest
            .is_none_or(|(_, since)| now.saturating_duration_since(since) >= PROBE_AFTER);
        let met_nothing = on_its_way <= HARDLY_ANYTHING;
        if self.shortest.is_none_or(|(shortest, _)| time <= shortest) || (old && met_nothing) {
            self.shortest = Some((time, now));
            self.probes = false;
        } else if old {
            self.probes = true;
        }
    }

    /// `delivered` arrived within the time that a receipt took.
    fn resize(&mut self, time: Duration, delivered: u64) {
        let Some((shortest, _)) = self.shortest else {
            return;
        };
        let filled = 2.0 * delivered as f64 * (shortest.as_secs_f64() / time.as_secs_f64());
        let fitting = (filled as u64).clamp(LEAST, MOST);
        // That little was on its way says nothing about how much can be.
        if fitting > self.limit || delivered >= self.limit / 2 {
            let step = self.limit / 8;
            self.limit = fitting.max(self.limit - step);
        }
    }

    /// How much may be on its way, unless that is being probed.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }
}

/// The receiver's side.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    total: u64,
    /// Of the last receipt.
    told: u64,
}

impl Arrivals {
    /// A message with a payload of this length has arrived. What to tell the sender, if it is time.
    pub(crate) fn handle_arrived(&mut self, payload: usize) -> Option<u64> {
        self.total += cost(payload);
        if self.total - self.told < RECEIPT_EVERY {
            return None;
        }
        self.told = self.total;
        Some(self.total)
    }
}

#[cfg(test)]
mod tests;

//! What the other end may send: windows, the credit that makes them up, and the memory that they are taken from.

use super::{
    Beat, Event, LEAST_WINDOW, MAX_WINDOW, MIN_WINDOW, Phase, RECLAIM_BEATS, STOCK_BUFFER, Stream, cost,
};
use crate::protocol::PortalMessage;

/// What a stock peer's stream takes of the memory at a time, in bytes: more than a stock message has.
pub(super) const STOCK_STEP: u64 = 64 * 1024;

/// A window of which less than one part in so many was used between two beats is taken back.
const HARDLY_USED: u32 = 16;

/// Credit that was asked back.
#[derive(Debug)]
pub(super) struct Reclaimed {
    asked: u32,
    /// What was granted since.
    since: u32,
    /// Beats since, in which the other end was heard.
    beats: u8,
}

impl Stream {
    /// Bytes of one message were given to the application.
    pub fn delivered(&mut self, bytes: usize) {
        self.waiting = self.waiting.saturating_sub(cost(bytes));
        // A stock peer's stream keeps its room as long as something comes.
        if self.expects_nothing() || self.agreed.window.is_none() && self.waiting == 0 {
            self.settle();
        }
    }

    /// Whether the next message may be taken. With a window always; of a stock peer, if there is room for it.
    pub fn has_room(&mut self) -> bool {
        if self.agreed.window.is_some() || self.waiting == 0 {
            return true;
        }
        if self.waiting >= STOCK_BUFFER {
            return false;
        }
        if self.waiting + STOCK_STEP <= self.taken {
            return true;
        }
        let more = self.memory.take(STOCK_STEP, self.taken);
        self.taken += if more { STOCK_STEP } else { 0 };
        more && self.waiting + STOCK_STEP <= self.taken
    }

    /// Credit to send, once enough has come together.
    pub fn poll_credit(&mut self) -> Option<PortalMessage> {
        self.agreed.window?;
        if self.phase != Phase::Open || self.remote_end || self.free() < u64::from(self.window / 4) {
            return None;
        }
        if self.window > MIN_WINDOW && self.memory.is_owed_by(self.window.into())
            || self.waiting > u64::from(self.window / 2)
        {
            self.window = (self.window / 2).max(MIN_WINDOW.min(self.window));
        } else if self.waiting == 0 {
            self.grow();
        }
        self.settle();
        let free = self.free();
        self.granted += free;
        if let Some(reclaimed) = &mut self.reclaimed {
            reclaimed.since = reclaimed
                .since
                .saturating_add(u32::try_from(free).unwrap_or(u32::MAX));
        }
        (free > 0).then_some(PortalMessage::Credit(free))
    }

    /// What of the window is neither granted nor waits.
    fn free(&self) -> u64 {
        u64::from(self.window).saturating_sub(self.granted + self.waiting)
    }

    fn grow(&mut self) {
        let more = self.window.min(MAX_WINDOW - self.window);
        if more > 0 && self.memory.take(more.into(), self.window.into()) {
            self.window += more;
            self.taken += u64::from(more);
        }
    }

    /// Whether the other end has no more bytes to send.
    fn expects_nothing(&self) -> bool {
        self.remote_end || self.phase == Phase::Ended
    }

    /// Gives back to the memory what is no longer promised.
    pub(super) fn settle(&mut self) {
        let promised = if self.expects_nothing() {
            self.waiting
        } else {
            u64::from(self.window).max(self.granted + self.waiting)
        };
        let spare = self.taken.saturating_sub(promised);
        self.taken -= spare;
        self.memory.give_back(spare);
    }

    /// To be called every now and then, such as with each sign of life: a window that was hardly used since the last time is
    /// taken back. `heard`: something came from the other end since then, and all that was sent to it is on its way.
    pub fn handle_beat(&mut self, heard: bool) -> Beat {
        let used = std::mem::take(&mut self.received);
        if !self.agreed.reclaim || self.phase != Phase::Open || self.remote_end {
            return Beat::Nothing;
        }
        if let Some(reclaimed) = &mut self.reclaimed {
            reclaimed.beats += u8::from(heard);
            return if reclaimed.beats >= RECLAIM_BEATS {
                Beat::Unanswered
            } else {
                Beat::Nothing
            };
        }
        let least = if self.memory.is_scarce() {
            LEAST_WINDOW
        } else {
            MIN_WINDOW
        };
        if self.window <= least || used > self.window / HARDLY_USED {
            return Beat::Nothing;
        }
        self.window = least;
        self.settle();
        let excess = (self.granted + self.waiting).saturating_sub(least.into());
        let asked = u32::try_from(excess.min(self.granted)).unwrap_or(u32::MAX);
        if asked == 0 {
            return Beat::Nothing;
        }
        self.reclaimed = Some(Reclaimed {
            asked,
            since: 0,
            beats: 0,
        });
        Beat::Tell(PortalMessage::Reclaim(asked.into()))
    }

    /// Credit was given back. All that was sent before that has arrived, so what the other end may still send is known.
    pub(super) fn handle_returned(&mut self, bytes: u64) -> Event {
        let Some(reclaimed) = self.reclaimed.take() else {
            return Event::Ignored;
        };
        self.granted = self.granted.saturating_sub(bytes);
        if bytes < reclaimed.asked.into() && self.granted > reclaimed.since.into() {
            return Event::Withheld;
        }
        self.settle();
        Event::Ignored
    }

    pub(super) fn handle_payload(&mut self, start: usize, end: usize) -> Event {
        let cost = cost(end - start);
        // What has no bytes waits for nobody.
        let waits = if end > start { cost } else { 0 };
        if self.agreed.window.is_some() {
            let Some(granted) = self.granted.checked_sub(cost) else {
                return Event::Overrun;
            };
            self.granted = granted;
            self.waiting += waits;
            self.received = self
                .received
                .saturating_add(u32::try_from(cost).unwrap_or(u32::MAX));
        } else {
            let lacking = (self.waiting + waits).saturating_sub(self.taken);
            if lacking > 0 && !self.memory.take_for_arrived(lacking) {
                return Event::NoMemory;
            }
            self.taken += lacking;
            self.waiting += waits;
        }
        if start == end {
            return Event::Ignored;
        }
        self.carried = true;
        Event::Data { start, end }
    }
}

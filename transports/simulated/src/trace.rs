//! What has happened: two runs with the same seed have the same trace.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Events that are kept to be shown. All of them are in the hash.
pub const KEPT_EVENTS: usize = 256;

/// What happened at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Simulated time since the beginning.
    pub at: Duration,
    /// What happened, in one line. Messages are told by their lengths and not by their contents: keys are made by real chance
    /// also in a simulation, and so is what is sealed with them.
    pub what: String,
}

/// The events of a simulation so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    hash: u64,
    count: u64,
    last: VecDeque<Event>,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            count: 0,
            last: VecDeque::new(),
        }
    }
}

impl Trace {
    pub(crate) fn push(&mut self, at: Duration, what: String) {
        // FNV-1a: all that is asked of it is to differ when the events do.
        let bytes = at.as_nanos().to_le_bytes().into_iter().chain(what.bytes());
        for byte in bytes.chain([0]) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.count += 1;
        if self.last.len() == KEPT_EVENTS {
            self.last.pop_front();
        }
        self.last.push_back(Event { at, what });
    }

    /// A hash over all events: equal for equal seeds.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last events, oldest first: [`KEPT_EVENTS`] at most.
    pub fn last(&self) -> impl Iterator<Item = &Event> {
        self.last.iter()
    }
}

/// The last of the events, one a line.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        writeln!(f, "{} events, the last of them:", self.count)?;
        for event in self.last.iter().skip(self.last.len().saturating_sub(SHOWN)) {
            writeln!(f, "{:>14.3} s  {}", event.at.as_secs_f64(), event.what)?;
        }
        Ok(())
    }
}

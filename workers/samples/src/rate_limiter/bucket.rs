//! Token buckets, one for each sender. Time is a parameter.
//!
//! A bucket is kept as the time at which it will be full again (GCRA): one number for messages and one for bytes, nothing that has to
//! be filled. A message fits if, after it, the bucket is full again within the time that a burst stands for.

use std::collections::HashMap;
use std::time::Duration;

use portolan_runtime::{Address, PeerIdentifier};

use super::{MAX_SENDERS, Per, RateLimit};

/// Who has a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Sender {
    Peer(PeerIdentifier),
    Local(Address),
    /// All of them, or those for whom there was no room.
    Shared,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes now.
    Now,
    /// It fits after this time, and its place is taken.
    After(Duration),
    /// It would wait longer than it may; nothing was taken for it.
    Over,
}

/// When a bucket is full again, in nanoseconds since the limiter was made.
#[derive(Debug, Clone, Copy, Default)]
struct Full {
    messages: u64,
    bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    per_second: u64,
    /// In nanoseconds of this rate.
    burst: u64,
}

const SECOND: u128 = 1_000_000_000;

impl Rate {
    fn new(per_second: u32, burst: u32) -> Self {
        let mut rate = Self {
            per_second: per_second.into(),
            burst: 0,
        };
        rate.burst = rate.cost(burst.into());
        rate
    }

    fn cost(&self, amount: u64) -> u64 {
        u64::try_from(u128::from(amount) * SECOND / u128::from(self.per_second)).unwrap_or(u64::MAX)
    }

    /// How long until this much fits, and when the bucket is full again after it.
    fn wait(&self, full: u64, now: u64, amount: u64) -> (u64, u64) {
        let cost = self.cost(amount);
        let begin = full.max(now);
        // What is larger than a burst needs a full bucket, and leaves a debt.
        let wait = begin
            .saturating_add(cost.min(self.burst))
            .saturating_sub(now.saturating_add(self.burst));
        (wait, begin.saturating_add(cost))
    }
}

/// The buckets of a limiter.
#[derive(Debug)]
pub struct Buckets {
    messages: Option<Rate>,
    bytes: Option<Rate>,
    per: Per,
    senders: HashMap<Sender, Full>,
}

impl Buckets {
    /// All of them full.
    pub fn new(limit: &RateLimit) -> Self {
        Self {
            messages: limit
                .messages_per_second
                .map(|rate| Rate::new(rate.get(), limit.burst)),
            bytes: limit
                .bytes_per_second
                .map(|rate| Rate::new(rate.get(), limit.burst_bytes)),
            per: limit.per,
            senders: HashMap::new(),
        }
    }

    /// Senders that are remembered.
    pub fn len(&self) -> usize {
        self.senders.len()
    }

    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// Decides about a message of so many bytes at the time `now`, that has this peer or else came from this worker. It may wait for
    /// `patience`.
    pub fn ask(
        &mut self,
        peer: Option<&PeerIdentifier>,
        source: &Address,
        bytes: usize,
        now: Duration,
        patience: Duration,
    ) -> Verdict {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4);
        let (now, patience) = (nanos(now), nanos(patience));
        let sender = match (self.per, peer) {
            (Per::All, _) => Sender::Shared,
            (Per::Sender, Some(peer)) => Sender::Peer(*peer),
            (Per::Sender, None) => Sender::Local(source.clone()),
        };
        let sender = self.room_for(sender, now);
        let before = self.senders.get(&sender).copied().unwrap_or_default();
        let mut after = before;
        let mut wait = 0;
        if let Some(rate) = &self.messages {
            let (needed, full) = rate.wait(before.messages, now, 1);
            wait = wait.max(needed);
            after.messages = full;
        }
        if let Some(rate) = &self.bytes {
            let (needed, full) = rate.wait(before.bytes, now, bytes as u64);
            wait = wait.max(needed);
            after.bytes = full;
        }
        if wait > patience {
            return Verdict::Over;
        }
        self.senders.insert(sender, after);
        if wait == 0 {
            Verdict::Now
        } else {
            Verdict::After(Duration::from_nanos(wait))
        }
    }

    /// The sender, if it is known or there is room for it. Those whose buckets are full are as good as new, and are forgotten.
    fn room_for(&mut self, sender: Sender, now: u64) -> Sender {
        if self.senders.len() < MAX_SENDERS || self.senders.contains_key(&sender) {
            return sender;
        }
        self.senders
            .retain(|_, full| full.messages > now || full.bytes > now);
        if self.senders.len() < MAX_SENDERS {
            sender
        } else {
            Sender::Shared
        }
    }
}

//! The limiter as a worker: a passage that drops, a task that delays.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portolan_runtime::{Address, Context, Envelope, Error, Message, Node, Passage, Result};

use super::{Buckets, MAX_HELD_BYTES, RateLimit, Verdict};
use crate::{Report, Target};

const OVER: &str = "over the limit";

/// Takes the limiter off the way and puts its target there.
fn lead(message: &mut Message, to: &Target) {
    message.onward.step();
    message.onward.prepend_route(to.route());
}

/// Drops what is over the limit. It runs inside the turn of whoever sends, and has no queue.
#[derive(Debug)]
pub struct Dropping {
    to: Target,
    buckets: Mutex<Buckets>,
    began: Instant,
}

impl Dropping {
    /// A limiter with full buckets.
    pub fn new(limit: &RateLimit) -> Self {
        Self {
            to: limit.to.clone(),
            buckets: Mutex::new(Buckets::new(limit)),
            began: Instant::now(),
        }
    }
}

impl Passage for Dropping {
    fn pass(&self, _: &Node, source: &Address, message: &mut Message) -> Result<bool> {
        let verdict = self.buckets.lock().ask(
            message.peer().map(|peer| &peer.identifier),
            source,
            message.payload.len(),
            self.began.elapsed(),
            Duration::ZERO,
        );
        if verdict != Verdict::Now {
            return Err(Error::other(OVER));
        }
        lead(message, &self.to);
        Ok(true)
    }
}

/// Delays what is over the limit.
pub struct Delaying {
    limit: RateLimit,
    buckets: Buckets,
    began: Instant,
    held: BinaryHeap<Reverse<Held>>,
    held_bytes: usize,
    next: u64,
    report: Report,
}

/// A message until it is its turn; messages of one sender keep their order.
struct Held {
    due: Instant,
    number: u64,
    message: Message,
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl Delaying {
    /// A limiter with full buckets.
    pub fn new(limit: RateLimit, report: Report) -> Self {
        Self {
            buckets: Buckets::new(&limit),
            limit,
            began: Instant::now(),
            held: BinaryHeap::new(),
            held_bytes: 0,
            next: 0,
            report,
        }
    }

    /// Runs until the worker is stopped. What is held then is lost, and counted.
    pub async fn run(mut self, mut ctx: Context) {
        loop {
            let due = self.held.peek().map(|Reverse(held)| held.due);
            let turn = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = turn => {
                    if let Some(Reverse(held)) = self.held.pop() {
                        self.held_bytes -= held.message.payload.len();
                        self.send(&mut ctx, held.message);
                    }
                }
                envelope = ctx.next() => match envelope {
                    Some(envelope) => self.take(&mut ctx, envelope),
                    None => break,
                },
            }
            ctx.flush().await;
        }
        for _ in 0..self.held.len() {
            (self.report)(Err(&"the limiter was stopped while it was held back"));
        }
    }

    fn take(&mut self, ctx: &mut Context, envelope: Envelope) {
        let Envelope { source, mut message } = envelope;
        lead(&mut message, &self.limit.to);
        let bytes = message.payload.len();
        let is_full = self.held.len() >= self.limit.max_held as usize
            || (self.held_bytes + bytes > MAX_HELD_BYTES && !self.held.is_empty());
        let patience = if is_full {
            Duration::ZERO
        } else {
            self.limit.max_delay
        };
        let now = Instant::now();
        let verdict = self.buckets.ask(
            message.peer().map(|peer| &peer.identifier),
            &source,
            bytes,
            now.duration_since(self.began),
            patience,
        );
        match verdict {
            Verdict::Now => self.send(ctx, message),
            Verdict::After(wait) => {
                self.held_bytes += bytes;
                self.next += 1;
                self.held.push(Reverse(Held {
                    due: now + wait,
                    number: self.next,
                    message,
                }));
            }
            Verdict::Over => (self.report)(Err(&OVER)),
        }
    }

    fn send(&self, ctx: &mut Context, message: Message) {
        match ctx.forward(message) {
            Ok(()) => (self.report)(Ok(())),
            Err(error) => (self.report)(Err(&error)),
        }
    }
}

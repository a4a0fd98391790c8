//! A rate limiter: stands in front of another worker and lets a limited number of messages or bytes through in each second.
//!
//! Each sender has a token bucket of its own (or all have one together). What is over the limit is either **dropped**, counted as
//! failed, and its sender told where that is a worker of the node; or **delayed** until it fits, as long as that is not longer than
//! a bound and not too many messages are held; beyond that it is dropped, too. Answers do not come by: they go straight to the sender.
//!
//! ```yaml
//! workers:
//!   slow:
//!     type: rate-limiter
//!     config:
//!       to: backend
//!       messages-per-second: 100
//!       burst: 200
//!       over: delay
//!       max-delay-ms: 500
//! ```
//!
//! A sender is the authenticated peer, on whichever channel its messages come; for a message that came through none, the local worker
//! that sent it.
//!
//! | module | idea |
//! |---|---|
//! | `bucket` | the token buckets: pure, time is a parameter |
//! | `worker` | a passage that drops, a task that delays |
//!
//! # What is bounded
//!
//! Senders that are remembered ([`MAX_SENDERS`]): one whose bucket is full again is forgotten without a trace, and if there are still
//! too many, those who come later share one bucket. Messages that are held: [`RateLimit::max_held`] and [`MAX_HELD_BYTES`].

mod bucket;
mod worker;

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

use crate::Target;

pub use bucket::{Buckets, Verdict};
pub use worker::{Delaying, Dropping};

/// Senders that a limiter remembers, each in about 60 bytes.
pub const MAX_SENDERS: usize = 4096;
/// Bytes of messages that a limiter holds back.
pub const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;
/// The longest delay.
pub const MAX_DELAY: Duration = Duration::from_secs(60);
/// The most messages that can be held back.
pub const MAX_HELD: u32 = 65_536;

/// Who shares a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// Each sender has its own.
    #[default]
    Sender,
    /// All senders together have one.
    All,
}

/// What happens to a message that is over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Over {
    /// It is dropped and counted.
    #[default]
    Drop,
    /// It waits until it fits, up to a bound.
    Delay,
}

/// The configuration of a rate limiter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct RateLimit {
    /// Where messages go that are within the limit.
    pub to: Target,
    /// Messages in each second; `None` is no limit.
    pub messages_per_second: Option<NonZeroU32>,
    /// Messages that may come at once. Default: those of one second.
    pub burst: u32,
    /// Bytes of payload in each second; `None` is no limit.
    pub bytes_per_second: Option<NonZeroU32>,
    /// Bytes that may come at once. Default: those of one second. A message that is larger passes when nothing else has passed for long
    /// enough, and then others wait the longer.
    pub burst_bytes: u32,
    /// Who shares a limit. Default: nobody.
    pub per: Per,
    /// What happens over the limit. Default: dropped.
    pub over: Over,
    /// The longest that a message is delayed. Default 1 s.
    pub max_delay: Duration,
    /// Messages that are held back at a time. Default 1024.
    pub max_held: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Written {
    to: Target,
    messages_per_second: Option<NonZeroU32>,
    burst: Option<NonZeroU32>,
    bytes_per_second: Option<NonZeroU32>,
    burst_bytes: Option<NonZeroU32>,
    #[serde(default)]
    per: Per,
    #[serde(default)]
    over: Over,
    max_delay_ms: Option<NonZeroU32>,
    max_held: Option<NonZeroU32>,
}

impl TryFrom<Written> for RateLimit {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written {
            messages_per_second,
            bytes_per_second,
            ..
        } = written;
        if messages_per_second.is_none() && bytes_per_second.is_none() {
            return Err("`messages-per-second` or `bytes-per-second` must be given".to_owned());
        }
        for (burst, rate, name, of) in [
            (written.burst, messages_per_second, "burst", "messages-per-second"),
            (
                written.burst_bytes,
                bytes_per_second,
                "burst-bytes",
                "bytes-per-second",
            ),
        ] {
            if burst.is_some() && rate.is_none() {
                return Err(format!("`{name}` goes only with `{of}`"));
            }
        }
        if written.over == Over::Drop {
            for (given, name) in [
                (written.max_delay_ms, "max-delay-ms"),
                (written.max_held, "max-held"),
            ] {
                if given.is_some() {
                    return Err(format!("`{name}` goes only with `over: delay`"));
                }
            }
        }
        let max_delay = Duration::from_millis(written.max_delay_ms.map_or(1000, u32::from).into());
        if max_delay > MAX_DELAY {
            return Err(format!("`max-delay-ms` is at most {}", MAX_DELAY.as_millis()));
        }
        let max_held = written.max_held.map_or(1024, u32::from);
        if max_held > MAX_HELD {
            return Err(format!("`max-held` is at most {MAX_HELD}"));
        }
        let of_a_second =
            |burst: Option<NonZeroU32>, rate: Option<NonZeroU32>| burst.or(rate).map_or(1, u32::from);
        Ok(Self {
            to: written.to,
            messages_per_second,
            burst: of_a_second(written.burst, messages_per_second),
            bytes_per_second,
            burst_bytes: of_a_second(written.burst_bytes, bytes_per_second),
            per: written.per,
            over: written.over,
            max_delay,
            max_held,
        })
    }
}

impl RateLimit {
    /// So many messages a second and sender to `to`; what is over that is dropped.
    pub fn messages(to: impl Into<Target>, per_second: NonZeroU32) -> Self {
        Self {
            to: to.into(),
            messages_per_second: Some(per_second),
            burst: per_second.get(),
            bytes_per_second: None,
            burst_bytes: 1,
            per: Per::Sender,
            over: Over::Drop,
            max_delay: Duration::from_secs(1),
            max_held: 1024,
        }
    }
}

#[cfg(test)]
mod tests;

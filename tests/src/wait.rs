//! Waiting for an event of another process, with a limit.

use std::time::{Duration, Instant};

/// How often a state of another process is asked for. Short against any limit that a scenario checks.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks `look` until it has an answer, for at most `limit`; `None` when it had none.
pub fn until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Asks `look` until it holds and returns how long that took.
///
/// # Panics
/// When it does not hold within `limit`, with `what` as the claim that failed.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut look: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    match until(limit, || look().then_some(())) {
        Some(()) => start.elapsed(),
        None => panic!("not within {limit:?}: {what}"),
    }
}

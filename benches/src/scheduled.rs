//! What the kernel's scheduler says of a process.

use std::fs;
use std::time::Duration;

/// What all threads of a process did since it began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scheduled {
    /// Time on a core.
    pub running: Duration,
    /// Time in which it could have run and had no core.
    pub waiting: Duration,
    /// How often it was given a core.
    pub turns: u64,
}

impl Scheduled {
    /// So far.
    pub fn of(process: u32) -> Self {
        let mut sum = Self::default();
        for thread in fs::read_dir(format!("/proc/{process}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let mut numbers = text.split_ascii_whitespace().map_while(|n| n.parse::<u64>().ok());
            let mut next = || numbers.next().unwrap_or(0);
            sum.running += Duration::from_nanos(next());
            sum.waiting += Duration::from_nanos(next());
            sum.turns += next();
        }
        sum
    }

    /// What was added since then.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            running: self.running.saturating_sub(before.running),
            waiting: self.waiting.saturating_sub(before.waiting),
            turns: self.turns.saturating_sub(before.turns),
        }
    }
}

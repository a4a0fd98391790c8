//! Lines that strangers can make us log are limited, so that they cannot fill a disk.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines per second, in the whole process. What is above is counted elsewhere and not logged.
const LINES_PER_SECOND: u32 = 10;

static WINDOW: Mutex<Option<(Instant, u32)>> = Mutex::new(None);

/// Whether another line may be logged now.
pub(crate) fn may_log() -> bool {
    may_log_at(&mut WINDOW.lock(), Instant::now())
}

fn may_log_at(window: &mut Option<(Instant, u32)>, now: Instant) -> bool {
    match window {
        Some((since, lines)) if now.duration_since(*since) < Duration::from_secs(1) => {
            *lines = lines.saturating_add(1);
            *lines <= LINES_PER_SECOND
        }
        _ => {
            *window = Some((now, 1));
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_second_and_no_more() {
        let (mut window, start) = (None, Instant::now());
        let mut lines = |at| (0..100).filter(|_| may_log_at(&mut window, at)).count();
        assert_eq!(lines(start), 10);
        assert_eq!(lines(start + Duration::from_millis(999)), 0);
        assert_eq!(lines(start + Duration::from_secs(1)), 10);
    }
}

//! Which nonces were accepted: the newest, and a bitmap of those just behind it.

use super::{MAX_BEHIND, RecordError};

/// Remembers accepted nonces (spec 02 §6.7). Before the first, the newest counts as 0, and 0 as not yet accepted.
#[derive(Debug, Clone)]
pub(super) struct Window {
    newest: u64,
    /// Bit `i` is set when `newest - i` was accepted.
    accepted: u64,
    max_ahead: u64,
}

impl Window {
    pub(super) fn new(max_ahead: u64) -> Self {
        Self {
            newest: 0,
            accepted: 0,
            max_ahead,
        }
    }

    /// The nonce that comes next when nothing is lost.
    pub(super) fn expected(&self) -> u64 {
        if self.accepted == 0 {
            0
        } else {
            self.newest.saturating_add(1)
        }
    }

    /// Whether `n` may be accepted, if it authenticates.
    pub(super) fn check(&self, n: u64) -> Result<(), RecordError> {
        if n > self.newest {
            return if n - self.newest <= self.max_ahead {
                Ok(())
            } else {
                Err(RecordError::TooFarAhead(n))
            };
        }
        let behind = self.newest - n;
        if behind > MAX_BEHIND {
            Err(RecordError::TooOld(n))
        } else if self.accepted & (1 << behind) != 0 {
            Err(RecordError::Replayed(n))
        } else {
            Ok(())
        }
    }

    /// Notes that `n`, which [`Self::check`] let pass, has authenticated.
    pub(super) fn accept(&mut self, n: u64) {
        if n > self.newest {
            let ahead = n - self.newest;
            self.accepted = if ahead < 64 { self.accepted << ahead } else { 0 };
            self.accepted |= 1;
            self.newest = n;
        } else {
            self.accepted |= 1 << (self.newest - n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{MAX_AHEAD, REFERENCE_MAX_AHEAD};

    struct Receiver(Window);

    impl Receiver {
        fn accepts(&mut self, n: u64) -> bool {
            let ok = self.0.check(n).is_ok();
            if ok {
                self.0.accept(n);
            }
            ok
        }
    }

    #[test]
    fn the_window_meets_the_expectations_of_the_reference() {
        const N: u64 = 32;
        let mut window = Receiver(Window::new(REFERENCE_MAX_AHEAD));
        assert!(window.accepts(0) && window.accepts(1));
        assert!(!window.accepts(0));
        assert!(!window.accepts(N + 2));
        assert!(window.accepts(N + 1));
        assert!(!window.accepts(1));
        assert!(window.accepts(N + 2) && window.accepts(N + 3));
        assert!(!window.accepts(N + 1) && !window.accepts(N + 2));
        assert!(window.accepts(2 * N));
        assert!(!window.accepts(N - 1));
        assert!(window.accepts(3 * N) && window.accepts(4 * N));
        assert!((3 * N + 1..4 * N).all(|n| window.accepts(n)));
        assert!((4 * N + 1..=5 * N).all(|n| window.accepts(n)));
    }

    #[test]
    fn the_first_nonce_may_be_up_to_the_limit_ahead() {
        for (limit, first) in [(32, 0), (32, 32), (MAX_AHEAD, MAX_AHEAD)] {
            assert!(Receiver(Window::new(limit)).accepts(first));
        }
        assert!(!Receiver(Window::new(32)).accepts(33));
        assert!(!Receiver(Window::new(MAX_AHEAD)).accepts(MAX_AHEAD + 1));
    }

    #[test]
    fn the_largest_nonces_do_not_overflow() {
        let mut window = Receiver(Window::new(u64::MAX));
        assert!(window.accepts(u64::MAX));
        assert_eq!(window.0.expected(), u64::MAX);
        assert!(window.accepts(u64::MAX - 32) && !window.accepts(u64::MAX - 33));
    }
}

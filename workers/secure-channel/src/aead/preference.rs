//! Which suites this machine runs best: by what its CPU can do, and by trying.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::{AeadKey, KEY_LEN, Suite, nonce};

/// Bytes sealed in one trial: long enough that the set-up of a call does not decide, short enough that both suites
/// together take less than 0.2 ms on any machine that we know.
const TRIAL_LEN: usize = 16 * 1024;
/// Trials of each suite, of which the best counts: one that was interrupted says nothing.
const TRIALS: usize = 5;

/// Suites in order of preference, each once, at least one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Suites {
    // The first `len` elements count; the rest are copies of the first.
    list: [Suite; Suite::ALL.len()],
    len: usize,
}

impl Suites {
    /// Exactly one suite.
    #[must_use]
    pub fn only(suite: Suite) -> Self {
        Self {
            list: [suite; Suite::ALL.len()],
            len: 1,
        }
    }

    /// These suites, the preferred first; later mentions of a suite count for nothing. `None` if there are none.
    #[must_use]
    pub fn new(suites: impl IntoIterator<Item = Suite>) -> Option<Self> {
        let mut suites = suites.into_iter();
        let mut list = Self::only(suites.next()?);
        for suite in suites {
            if !list.contains(suite) {
                list.list[list.len] = suite;
                list.len += 1;
            }
        }
        Some(list)
    }

    /// All suites in the order that suits this machine. Found out at the first call, which takes a fraction of a
    /// millisecond, and kept for the life of the process.
    ///
    /// Without AES instructions ChaCha20-Poly1305 comes first: AES is slow then, however it is made. With them
    /// AES-256-GCM does, unless a trial shows that it is the slower one here all the same, as in an emulator.
    #[must_use]
    pub fn preferred() -> Self {
        static PREFERRED: OnceLock<Suites> = OnceLock::new();
        *PREFERRED.get_or_init(|| order(has_aes_instructions(), best_time))
    }

    /// The suites, the preferred first.
    #[must_use]
    pub fn as_slice(&self) -> &[Suite] {
        &self.list[..self.len]
    }

    /// The preferred one.
    #[must_use]
    pub fn first(&self) -> Suite {
        self.list[0]
    }

    /// Whether a suite is among them.
    #[must_use]
    pub fn contains(&self, suite: Suite) -> bool {
        self.as_slice().contains(&suite)
    }
}

impl std::fmt::Debug for Suites {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// Whether the CPU has instructions for AES and for the multiplication that GCM needs.
fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn order(has_aes_instructions: bool, time: impl Fn(Suite) -> Duration) -> Suites {
    let (aes, chacha) = (Suite::Aes256Gcm, Suite::ChaCha20Poly1305);
    let aes_first = has_aes_instructions && time(aes) <= time(chacha);
    let list = if aes_first { [aes, chacha] } else { [chacha, aes] };
    Suites { list, len: 2 }
}

/// The shortest time that sealing [`TRIAL_LEN`] bytes took.
fn best_time(suite: Suite) -> Duration {
    let key = AeadKey::new(suite, &[0; KEY_LEN]);
    let mut data = vec![0; TRIAL_LEN];
    let trial = |n| {
        let begun = Instant::now();
        let sealed = key.seal(&nonce(n), &[], black_box(&mut data));
        let _ = black_box(sealed);
        begun.elapsed()
    };
    (0..TRIALS as u64).map(trial).min().unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Suite::{Aes256Gcm, ChaCha20Poly1305};

    #[test]
    fn the_order_follows_the_cpu_and_what_was_measured() {
        let took =
            |aes, chacha| move |suite| Duration::from_micros(if suite == Aes256Gcm { aes } else { chacha });
        for (instructions, aes, chacha, first) in [
            (true, 1, 7, Aes256Gcm),
            (true, 70, 7, ChaCha20Poly1305),
            (false, 1, 7, ChaCha20Poly1305),
            (false, 70, 7, ChaCha20Poly1305),
        ] {
            let suites = order(instructions, took(aes, chacha));
            assert_eq!((suites.first(), suites.as_slice().len()), (first, 2));
        }
    }

    #[test]
    fn the_preference_of_a_process_does_not_change() {
        let preferred = Suites::preferred();
        assert_eq!(preferred.as_slice().len(), Suite::ALL.len());
        assert!((0..100).all(|_| Suites::preferred() == preferred));
        if !has_aes_instructions() {
            assert_eq!(preferred.first(), ChaCha20Poly1305);
        }
    }

    #[test]
    fn a_list_has_each_suite_once_and_is_never_empty() {
        assert_eq!(Suites::new([]), None);
        let list = Suites::new([ChaCha20Poly1305, Aes256Gcm, ChaCha20Poly1305]).unwrap();
        assert_eq!(list.as_slice(), [ChaCha20Poly1305, Aes256Gcm]);
        assert_eq!(Suites::new([Aes256Gcm, Aes256Gcm]), Some(Suites::only(Aes256Gcm)));
        assert!(!Suites::only(Aes256Gcm).contains(ChaCha20Poly1305));
    }
}

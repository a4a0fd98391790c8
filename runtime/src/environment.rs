//! What a node takes from outside itself besides messages: chance, and the time of day.
//!
//! Workers ask here, and not the operating system, for what decides where and when something happens: addresses, delays, how long
//! a credential holds. So a [simulation](self#simulation) can give the same chance and the same time again. **Keys, and whatever
//! else must not be guessed, are not asked for here**: they come from the operating system always.
//!
//! Durations are measured by the clock of the timers, [`now`], which a simulation stops.
//!
//! # Simulation
//!
//! With the cargo feature `simulation`, which only test kits ask for, `Simulated` puts a seed and a first time of day in
//! the place of the operating system's, on one thread.

use std::time::{Instant, SystemTime};

/// Now, by the clock that the timers of this thread's tokio runtime go by.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Fills `bytes` by chance.
///
/// # Errors
/// If the operating system has no randomness to give.
pub fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    #[cfg(feature = "simulation")]
    if simulation::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes)
}

/// A number by chance, to spread delays with: 0 where the operating system has no randomness to give.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    match fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

/// The time of day.
pub fn system_time() -> SystemTime {
    #[cfg(feature = "simulation")]
    if let Some(now) = simulation::system_time() {
        return now;
    }
    SystemTime::now()
}

#[cfg(feature = "simulation")]
pub use simulation::Simulated;

#[cfg(feature = "simulation")]
mod simulation {
    use std::cell::RefCell;
    use std::marker::PhantomData;
    use std::time::SystemTime;

    use tokio::time::Instant;

    thread_local! {
        static PRESENT: RefCell<Option<World>> = const { RefCell::new(None) };
    }

    struct World {
        chance: u64,
        epoch: SystemTime,
        begun: Instant,
    }

    impl World {
        /// SplitMix64: each state gives one number, and all states come in turn.
        fn next(&mut self) -> u64 {
            self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut number = self.chance;
            number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            number ^ (number >> 31)
        }
    }

    /// As long as this lives, chance on this thread comes from a seed, and the time of day begins at a given one and goes on
    /// with the clock of the tokio runtime.
    #[derive(Debug)]
    pub struct Simulated {
        /// Must be dropped on the thread that it was made on.
        _thread: PhantomData<*const ()>,
    }

    impl Simulated {
        /// From now on. To be called inside the tokio runtime whose clock counts. One that was there before is replaced.
        #[must_use]
        pub fn new(seed: u64, epoch: SystemTime) -> Self {
            let begun = Instant::now();
            PRESENT.set(Some(World {
                chance: seed,
                epoch,
                begun,
            }));
            Self { _thread: PhantomData }
        }
    }

    impl Drop for Simulated {
        fn drop(&mut self) {
            let _ = PRESENT.try_with(|present| present.take());
        }
    }

    /// `false` if nothing is simulated.
    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        PRESENT.with_borrow_mut(|present| {
            let Some(world) = present else { return false };
            for chunk in bytes.chunks_mut(8) {
                let number = world.next().to_le_bytes();
                chunk.copy_from_slice(&number[..chunk.len()]);
            }
            true
        })
    }

    pub(super) fn system_time() -> Option<SystemTime> {
        PRESENT.with_borrow(|present| present.as_ref().map(|world| world.epoch + world.begun.elapsed()))
    }
}

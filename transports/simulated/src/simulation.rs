//! One run: a thread, a stopped clock, a seed.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::time::{Duration, SystemTime};

use portolan_runtime::environment::Simulated;
use tokio::time::timeout;

use crate::network::Network;

/// The time of day when a simulation begins: 1 January 2030, 00:00 UTC, in seconds since 1970.
pub const EPOCH: u64 = 1_893_456_000;

/// How long a simulation may last, in simulated time, unless it says otherwise. A scenario that waits for what never happens ends
/// here, instead of hanging.
pub const TIME_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// How a simulation is run.
#[derive(Debug, Clone, Copy)]
pub struct Simulation {
    seed: u64,
    limit: Duration,
}

/// Runs a scenario with this seed, and gives what it gives. See [`Simulation::run`].
///
/// # Panics
/// As [`Simulation::run`].
pub fn run<T>(seed: u64, scenario: impl AsyncFnOnce(Network) -> T) -> T {
    Simulation::with_seed(seed).run(scenario)
}

impl Simulation {
    /// A simulation in which all that happens by chance follows from this seed.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self {
            seed,
            limit: TIME_LIMIT,
        }
    }

    /// How long it may last, in simulated time. Default: [`TIME_LIMIT`].
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs a scenario on this thread to its end, stops all nodes, and makes sure that nothing of them is left.
    ///
    /// # Panics
    /// If the scenario panics, in which case the seed and the last events are added to its message; if it has not ended within
    /// the time limit; if a worker or a connection is left when all nodes have stopped; or if it is called inside a tokio runtime:
    /// write `#[test]`, not `#[tokio::test]`.
    pub fn run<T>(self, scenario: impl AsyncFnOnce(Network) -> T) -> T {
        let network = Network::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run_in(&network, scenario)));
        match outcome {
            Ok(output) => output,
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied());
                match text {
                    Some(text) => panic!("seed {}: {text}\n{}", self.seed, network.trace()),
                    None => panic_any(panic),
                }
            }
        }
    }

    fn run_in<T>(self, network: &Network, scenario: impl AsyncFnOnce(Network) -> T) -> T {
        let runner = actix::System::with_tokio_rt(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap_or_else(|error| panic!("a simulation needs a tokio runtime: {error}"))
        });
        runner.block_on(async {
            let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH);
            let _simulated = Simulated::new(self.seed, epoch);
            network.begin();
            let Ok(output) = timeout(self.limit, scenario(network.clone())).await else {
                panic!(
                    "the scenario has not ended within {:?} of simulated time: it waits for something that does not happen",
                    self.limit
                );
            };
            network.end().await;
            output
        })
    }
}

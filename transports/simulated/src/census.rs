//! Waiting for what shall happen, and seeing that nothing is left.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use portolan_runtime::Address;

use crate::network::Network;

/// How long [`Network::eventually`] waits, in simulated time.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(10);

/// Which workers and connections there were at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    workers: BTreeMap<Arc<str>, Vec<Address>>,
    connections: usize,
}

impl Census {
    /// The workers of all running nodes.
    pub fn workers(&self) -> usize {
        self.workers.values().map(Vec::len).sum()
    }

    /// The workers of one node, by their primary addresses, sorted.
    pub fn workers_of(&self, node: &str) -> &[Address] {
        self.workers.get(node).map_or(&[], Vec::as_slice)
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.connections
    }
}

/// What one census has and another has not.
struct Difference<'a>(&'a Census, &'a Census);

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(before, now) = self;
        for (more, fewer, word) in [(now, before, "new"), (before, now, "gone")] {
            for (node, workers) in &more.workers {
                let known = fewer.workers_of(node);
                for worker in workers.iter().filter(|worker| !known.contains(worker)) {
                    write!(f, "\n  {word} at {node}: {worker}")?;
                }
            }
        }
        write!(
            f,
            "\n  connections: {} then, {} now",
            before.connections, now.connections
        )
    }
}

impl Network {
    /// Which workers and connections there are now.
    pub fn census(&self) -> Census {
        let workers = self
            .state()
            .hosts
            .iter()
            .filter(|(_, host)| !host.crashed)
            .map(|(name, host)| (Arc::clone(name), host.node.workers()))
            .collect();
        Census {
            workers,
            connections: self.connections(),
        }
    }

    /// Waits until something holds, for [`PATIENCE`] of simulated time at most.
    ///
    /// # Panics
    /// If it does not hold within that time.
    pub async fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let limit = self.now() + PATIENCE;
        while !holds() {
            assert!(
                self.now() < limit,
                "not within {PATIENCE:?} of simulated time: {what}"
            );
            self.sleep(LOOK).await;
        }
    }

    /// Waits until there are the workers and connections of an earlier moment, and no others: what came since has gone, and
    /// nothing of it is left.
    ///
    /// # Panics
    /// If that is not so within [`PATIENCE`]. The message names what is left.
    pub async fn returns_to(&self, before: &Census) {
        let limit = self.now() + PATIENCE;
        loop {
            let now = self.census();
            if now == *before {
                return;
            }
            assert!(
                self.now() < limit,
                "after {PATIENCE:?} of simulated time there are not the same workers as before:{}",
                Difference(before, &now)
            );
            self.sleep(LOOK).await;
        }
    }
}

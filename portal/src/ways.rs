//! The ways from an inlet to its outlet: one, or several side by side.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// Most ways that an inlet can have side by side: more than there are cores that one service keeps busy.
pub const MAX_STRIPES: usize = 16;

/// Ways of some kind, each open or closed for a reason.
#[derive(Debug)]
pub(crate) struct Ways<W>(RwLock<Vec<Stripe<W>>>);

#[derive(Debug)]
struct Stripe<W> {
    /// Or why there is none.
    way: Result<W, String>,
    connections: Arc<AtomicU64>,
}

/// Counts a connection on its way as long as it lives.
#[derive(Debug)]
pub(crate) struct OnWay(Arc<AtomicU64>);

impl Drop for OnWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<W: Clone> Ways<W> {
    /// So many, at least one and [`MAX_STRIPES`] at most, which are closed.
    pub(crate) fn new(count: usize, reason: &str) -> Self {
        let stripes = (0..count.clamp(1, MAX_STRIPES)).map(|_| Stripe {
            way: Err(reason.to_owned()),
            connections: Arc::default(),
        });
        Self(RwLock::new(stripes.collect()))
    }

    /// Opens or closes a way. Those that are on it stay there. Nothing happens if there is no such way.
    pub(crate) fn set(&self, index: usize, way: Result<W, String>) {
        if let Some(stripe) = self.0.write().get_mut(index) {
            stripe.way = way;
        }
    }

    /// Opens or closes all.
    pub(crate) fn set_all(&self, mut way: impl FnMut() -> Result<W, String>) {
        self.0.write().iter_mut().for_each(|stripe| stripe.way = way());
    }

    pub(crate) fn is_any_open(&self) -> bool {
        self.0.read().iter().any(|stripe| stripe.way.is_ok())
    }

    /// Connections on one of them.
    pub(crate) fn connections(&self, index: usize) -> u64 {
        self.0
            .read()
            .get(index)
            .map_or(0, |stripe| stripe.connections.load(Ordering::Relaxed))
    }

    /// The open one with the fewest connections, of which the caller's is one now.
    ///
    /// # Errors
    /// Why the first is closed, if all are.
    pub(crate) fn take(&self) -> Result<(W, OnWay), String> {
        let stripes = self.0.read();
        let open = stripes
            .iter()
            .filter_map(|stripe| Some((stripe.way.as_ref().ok()?, &stripe.connections)));
        let Some((way, connections)) =
            open.min_by_key(|(_, connections)| connections.load(Ordering::Relaxed))
        else {
            let reason = stripes.iter().find_map(|stripe| stripe.way.as_ref().err());
            return Err(reason.cloned().unwrap_or_default());
        };
        connections.fetch_add(1, Ordering::Relaxed);
        Ok((way.clone(), OnWay(Arc::clone(connections))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_connection_takes_the_open_way_with_the_fewest() {
        let ways = Ways::new(3, "not yet");
        assert_eq!(ways.take().unwrap_err(), "not yet");
        assert!(!ways.is_any_open());
        for (index, way) in ["a", "b", "c"].into_iter().enumerate() {
            ways.set(index, Ok(way));
        }
        let taken: Vec<_> = (0..6).map(|_| ways.take().unwrap()).collect();
        let names: Vec<_> = taken.iter().map(|(way, _)| *way).collect();
        assert_eq!(names, ["a", "b", "c", "a", "b", "c"]);
        // Those on the second end.
        let rest: Vec<_> = taken.into_iter().filter(|(way, _)| *way != "b").collect();
        assert_eq!(ways.connections(1), 0);
        assert_eq!(ways.take().unwrap().0, "b");
        drop(rest);
        assert_eq!((0..3).map(|index| ways.connections(index)).sum::<u64>(), 0);
    }

    #[test]
    fn a_closed_way_gets_nobody_and_the_others_go_on() {
        let ways = Ways::new(2, "not yet");
        ways.set(1, Ok("b"));
        let one = ways.take().unwrap();
        let two = ways.take().unwrap();
        assert_eq!((one.0, two.0), ("b", "b"));
        ways.set(0, Ok("a"));
        ways.set(1, Err("broken".into()));
        assert_eq!(ways.take().unwrap().0, "a");
        assert_eq!(ways.connections(1), 2, "those that are on it stay");
        ways.set(0, Err("broken too".into()));
        assert_eq!(ways.take().unwrap_err(), "broken too");
        ways.set(7, Ok("there is no such way"));
        assert!(!ways.is_any_open());
    }

    #[test]
    fn there_are_as_many_ways_as_asked_for_within_the_limit() {
        for (asked, made) in [(0, 1), (1, 1), (16, 16), (17, 16)] {
            assert_eq!(Ways::<()>::new(asked, "").0.read().len(), made);
        }
    }
}

//! A rule that tells a connection when it refuses one of its messages.
//!
//! A message that is refused in the middle of a byte stream would leave a hole. So whoever is refused is closed.

use std::sync::Arc;

use parking_lot::Mutex;
use portolan_runtime::{AccessControl, AccessRule, Delivery, Denial};
use tokio::sync::Notify;

/// What a connection's other parts want its owner to know.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    state: Mutex<Pending>,
    notify: Notify,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Pending {
    /// The application has sent its last byte.
    pub(crate) local_end: bool,
    /// The application's connection broke.
    pub(crate) broken: Option<String>,
    /// A message could not be sent.
    pub(crate) unsent: Option<String>,
    /// A rule refused a message.
    pub(crate) denied: Option<String>,
}

impl Signals {
    pub(crate) fn raise(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.state.lock());
        self.notify.notify_one();
    }

    /// Waits for the next signal. Only one may wait.
    pub(crate) async fn raised(&self) -> Pending {
        self.notify.notified().await;
        self.state.lock().clone()
    }
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Incoming,
    Outgoing,
}

struct Gate {
    rule: AccessControl,
    direction: Direction,
    signals: Arc<Signals>,
}

impl AccessRule for Gate {
    fn check(&self, delivery: &Delivery<'_>) -> Result<(), Denial> {
        match self.direction {
            Direction::Incoming => self.rule.check_incoming(delivery),
            Direction::Outgoing => self.rule.check_outgoing(delivery),
        }
        .inspect_err(|denial| {
            self.signals
                .raise(|state| state.denied = Some(denial.to_string()))
        })
    }
}

fn gate(rule: &AccessControl, direction: Direction, signals: &Arc<Signals>) -> AccessControl {
    if matches!(rule, AccessControl::AllowAll) {
        return AccessControl::AllowAll;
    }
    AccessControl::rule(Gate {
        rule: rule.clone(),
        direction,
        signals: Arc::clone(signals),
    })
}

pub(crate) fn incoming(rule: &AccessControl, signals: &Arc<Signals>) -> AccessControl {
    gate(rule, Direction::Incoming, signals)
}

pub(crate) fn outgoing(rule: &AccessControl, signals: &Arc<Signals>) -> AccessControl {
    gate(rule, Direction::Outgoing, signals)
}

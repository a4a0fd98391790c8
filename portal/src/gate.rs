//! A rule that tells a connection when it refuses one of its messages.
//!
//! A message that is refused in the middle of a byte stream would leave a hole. So whoever is refused is closed.

use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::Mutex;
use portolan_runtime::{AccessControl, AccessRule, Address, Delivery, Denial};

/// What a rule has refused, for the connection to see.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reason: Option<Box<str>>,
    waker: Option<Waker>,
}

impl Refused {
    fn tell(&self, denial: &Denial) {
        let waker = {
            let mut state = self.state.lock();
            state.reason = Some(denial.to_string().into());
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Why a message was refused, if one was; else the task is woken when one is.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Option<Box<str>> {
        let mut state = self.state.lock();
        if state.reason.is_none() {
            match &mut state.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        state.reason.take()
    }
}

/// Where messages come from that the outlet has passed on, because they were sent before the connection's address was
/// known: the rule shall see them as it sees all others.
#[derive(Debug, Clone)]
pub(crate) struct Detour {
    pub(crate) outlet: Address,
    pub(crate) channel: Address,
}

struct Gate {
    rule: AccessControl,
    refused: Arc<Refused>,
    detour: Option<Detour>,
}

impl AccessRule for Gate {
    fn check(&self, delivery: &Delivery<'_>) -> Result<(), Denial> {
        let mut delivery = *delivery;
        if let Some(detour) = &self.detour
            && *delivery.source == detour.outlet
        {
            delivery.source = &detour.channel;
        }
        self.rule
            .check_incoming(&delivery)
            .inspect_err(|denial| self.refused.tell(denial))
    }
}

/// The rule for a connection's address, and where it tells what it refuses; a rule that allows everything tells nothing.
pub(crate) fn incoming(
    rule: &AccessControl,
    detour: Option<Detour>,
) -> (AccessControl, Option<Arc<Refused>>) {
    if matches!(rule, AccessControl::AllowAll) {
        return (AccessControl::AllowAll, None);
    }
    let refused = Arc::<Refused>::default();
    let gate = Gate {
        rule: rule.clone(),
        refused: Arc::clone(&refused),
        detour,
    };
    (AccessControl::rule(gate), Some(refused))
}

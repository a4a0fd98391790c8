//! The target's side of a registration, without actor, socket or clock (spec 03 §2.2).
//!
//! Order of calls: [`Registration::new`], send [`RelayRequest::encode`], then [`handle_answer`] for each message
//! whose only onward hop is the registration worker, and [`handle_timeout`] when [`poll_timeout`] has come, until one
//! of them gives an outcome. After an acceptance, go on with [`handle_answer`]: the relay can be lost.
//!
//! [`handle_answer`]: Registration::handle_answer
//! [`handle_timeout`]: Registration::handle_timeout
//! [`poll_timeout`]: Registration::poll_timeout

use std::time::{Duration, Instant};

use portolan_runtime::{Route, bare};

use crate::protocol::{self, REFUSAL, RelayRequest, shown};

/// How long a target waits for the answer to its registration (spec 03 §2.5).
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A relay that the service has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The relay's address on the relay node, as text: `forward_to_<name>`.
    pub remote_address: String,
    /// The route from the target to the relay.
    pub forwarding_route: Route,
}

/// What came of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The relay exists.
    Accepted(Accepted),
    /// The service refused, for this reason. One line, fit to be shown.
    Refused(String),
    /// Something answered that is no relay service, for this reason.
    Unintelligible(&'static str),
    /// Nobody answered. Another implementation refuses in this way.
    TimedOut(Duration),
    /// The relay existed and does not any more, for this reason. One line, fit to be shown.
    Lost(String),
}

#[derive(Debug)]
enum Phase {
    Waiting,
    /// The relay exists; this is its route.
    Accepted(Route),
    Over,
}

/// One registration.
#[derive(Debug)]
pub struct Registration {
    request: RelayRequest,
    timeout: Duration,
    deadline: Instant,
    phase: Phase,
}

impl Registration {
    /// A registration that is sent `now` and must be answered within `timeout`.
    pub fn new(request: RelayRequest, now: Instant, timeout: Duration) -> Self {
        Self {
            request,
            timeout,
            deadline: now + timeout,
            phase: Phase::Waiting,
        }
    }

    /// A message that arrived for the registration worker itself: its return route and its payload.
    pub fn handle_answer(&mut self, back: &Route, payload: &[u8]) -> Option<Outcome> {
        let text = bare::Reader::new(payload).string();
        match &self.phase {
            Phase::Waiting => {
                let outcome = match text {
                    Ok(text) => match text.strip_prefix(REFUSAL) {
                        Some(reason) => Outcome::Refused(shown(reason)),
                        None => self.accept(back, text),
                    },
                    Err(_) => Outcome::Unintelligible("it is not text"),
                };
                self.phase = match &outcome {
                    Outcome::Accepted(accepted) => Phase::Accepted(accepted.forwarding_route.clone()),
                    _ => Phase::Over,
                };
                Some(outcome)
            }
            // Anybody may get a message to us through some relays. What the relay node itself says comes along the
            // same hops as its acceptance did; what was relayed came along more.
            Phase::Accepted(route) => {
                let from_relay_node = match (back.as_slice().split_last(), route.as_slice().split_last()) {
                    (Some((origin, hops)), Some((_, known))) => {
                        *origin == protocol::refusal_origin() && hops == known
                    }
                    _ => false,
                };
                let reason = text.ok()?.strip_prefix(REFUSAL)?;
                from_relay_node.then(|| {
                    self.phase = Phase::Over;
                    Outcome::Lost(shown(reason))
                })
            }
            Phase::Over => None,
        }
    }

    fn accept(&self, back: &Route, text: &str) -> Outcome {
        if let RelayRequest::Named(name) = &self.request
            && !text.ends_with(name.as_str())
        {
            return Outcome::Unintelligible("it names another relay");
        }
        let relay = back.recipient().filter(|relay| relay.is_local());
        match relay.and_then(|relay| relay.as_str()) {
            Some(remote_address) => Outcome::Accepted(Accepted {
                remote_address: remote_address.to_owned(),
                forwarding_route: back.clone(),
            }),
            None => Outcome::Unintelligible("it does not come from a relay"),
        }
    }

    /// The connection to the relay node has ended.
    pub fn handle_connection_end(&mut self) -> Option<Outcome> {
        if matches!(self.phase, Phase::Over) {
            return None;
        }
        self.phase = Phase::Over;
        Some(Outcome::Lost("the connection to the relay node has ended".into()))
    }

    /// When [`Registration::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        matches!(self.phase, Phase::Waiting).then_some(self.deadline)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Outcome> {
        if now < self.poll_timeout()? {
            return None;
        }
        self.phase = Phase::Over;
        Some(Outcome::TimedOut(self.timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::RelayName;
    use portolan_runtime::{Body, Payload, route};
    use proptest::prelude::*;

    fn named(name: &str) -> Registration {
        let request = RelayRequest::Named(RelayName::new(name).unwrap());
        Registration::new(request, Instant::now(), ANSWER_TIMEOUT)
    }

    fn text(text: &str) -> Payload {
        text.to_owned().encode()
    }

    #[test]
    fn the_bare_and_the_prefixed_name_are_acceptances() {
        for answer in ["blue", "forward_to_blue", "whatever blue"] {
            let back = route!["connection", "forward_to_blue"];
            let outcome = named("blue").handle_answer(&back, text(answer).as_slice());
            assert_eq!(
                outcome,
                Some(Outcome::Accepted(Accepted {
                    remote_address: "forward_to_blue".into(),
                    forwarding_route: back,
                }))
            );
        }
    }

    #[test]
    fn an_answer_for_another_name_without_length_or_from_afar_is_none() {
        let back = route!["connection", "forward_to_blue"];
        for (back, payload) in [
            (back.clone(), text("forward_to_red")),
            (back.clone(), Payload::from(b"forward_to_blue".as_slice())),
            (
                route!["connection", protocol::refusal_origin()],
                text("forward_to_blue"),
            ),
            (Route::new(), text("forward_to_blue")),
        ] {
            let outcome = named("blue").handle_answer(&back, payload.as_slice());
            assert!(matches!(outcome, Some(Outcome::Unintelligible(_))), "{outcome:?}");
        }
    }

    #[test]
    fn for_a_name_made_by_chance_the_text_does_not_matter() {
        let mut registration = Registration::new(RelayRequest::Ephemeral, Instant::now(), ANSWER_TIMEOUT);
        let outcome =
            registration.handle_answer(&route!["c", "forward_to_00ff"], text("anything").as_slice());
        assert!(matches!(outcome, Some(Outcome::Accepted(_))));
    }

    #[test]
    fn a_refusal_shows_its_reason_on_one_line() {
        let back = route!["connection", protocol::refusal_origin()];
        let refusal = protocol::refusal(text("blue").as_slice(), "not\nyou\u{1b}[31m");
        let outcome = named("blue").handle_answer(&back, refusal.as_slice());
        assert_eq!(outcome, Some(Outcome::Refused("not you [31m".into())));
    }

    #[test]
    fn silence_ends_after_the_timeout_and_not_before() {
        let mut registration = named("blue");
        let deadline = registration.poll_timeout().unwrap();
        assert_eq!(
            registration.handle_timeout(deadline - Duration::from_millis(1)),
            None
        );
        assert_eq!(
            registration.handle_timeout(deadline),
            Some(Outcome::TimedOut(ANSWER_TIMEOUT))
        );
        assert_eq!(registration.poll_timeout(), None);
        let late = registration.handle_answer(&route!["c", "forward_to_blue"], text("blue").as_slice());
        assert_eq!(late, None);
    }

    #[test]
    fn a_relay_is_lost_when_its_node_says_so_and_not_when_a_sender_pretends_to_be_the_node() {
        let mut registration = named("blue");
        let back = route!["connection", "forward_to_blue"];
        registration.handle_answer(&back, text("blue").as_slice());
        assert_eq!(registration.handle_answer(&back, text("blue").as_slice()), None);
        let notice = protocol::refusal(&[], "replaced");
        let forged = route!["connection", "sender of somebody", protocol::refusal_origin()];
        assert_eq!(registration.handle_answer(&forged, notice.as_slice()), None);
        assert_eq!(registration.handle_answer(&back, notice.as_slice()), None);
        let genuine = route!["connection", protocol::refusal_origin()];
        assert_eq!(
            registration.handle_answer(&genuine, notice.as_slice()),
            Some(Outcome::Lost("replaced".into()))
        );
    }

    proptest! {
        #[test]
        fn any_answer_has_one_outcome_and_only_a_fitting_one_is_an_acceptance(
            payload in proptest::collection::vec(any::<u8>(), 0..40),
            hops in proptest::collection::vec(("[a-z]{0,4}", 0..3u8), 0..4),
        ) {
            let back: Route = hops
                .iter()
                .map(|(body, transport)| portolan_runtime::Address::new(*transport, body.as_bytes()))
                .collect();
            let mut registration = named("a");
            let outcome = registration.handle_answer(&back, &payload);
            prop_assert!(outcome.is_some());
            if matches!(outcome, Some(Outcome::Accepted(_))) {
                prop_assert!(String::decode(&payload).unwrap().ends_with('a'));
                prop_assert!(back.recipient().unwrap().is_local());
            }
        }
    }
}

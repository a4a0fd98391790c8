//! The rules that stand before outlets, inlets, echo and relays: policies, asked for each message.
//!
//! A rule runs on the sender's thread for each message of a portal, so its usual path is one look-up: a peer that was
//! allowed stays allowed until a policy, an attribute or the project changes, or the peer's credential expires. Denials are
//! not remembered.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use portolan_policy::ResourceType;
use portolan_runtime::{AccessControl, AccessRule, Delivery, Denial, Node, PeerIdentifier};

use super::policies::{Generation, Issuer, Policies};
use crate::state::now;
use crate::worker_types::Tally;

/// Peers whose allowance a rule remembers. Beyond it, all are forgotten and asked for anew.
const REMEMBERED: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Incoming,
    Outgoing,
}

/// What a rule asks.
enum Question {
    /// The policy of a resource.
    Policy {
        kind: ResourceType,
        resource: Arc<str>,
        issuer: Issuer,
    },
    /// Only whether the peer belongs to the node's project.
    Credential,
}

struct Remembered {
    generation: Generation,
    until: u64,
}

/// Both rules of a resource share what they remember: a peer is the same in either direction.
struct Guarded {
    policies: Arc<Policies>,
    question: Question,
    allowed: RwLock<HashMap<Option<PeerIdentifier>, Remembered, foldhash::fast::RandomState>>,
    warned: AtomicBool,
}

impl Guarded {
    fn check(&self, peer: Option<&PeerIdentifier>) -> Result<(), Denial> {
        let now = now();
        let generation = self.policies.generation();
        let peer = peer.copied();
        if let Some(known) = self.allowed.read().get(&peer)
            && known.generation == generation
            && now < known.until
        {
            return Ok(());
        }
        let until = self.ask(peer.as_ref(), now)?;
        let mut allowed = self.allowed.write();
        if allowed.len() >= REMEMBERED && !allowed.contains_key(&peer) {
            allowed.clear();
        }
        allowed.insert(peer, Remembered { generation, until });
        Ok(())
    }

    fn ask(&self, peer: Option<&PeerIdentifier>, now: u64) -> Result<u64, Denial> {
        match &self.question {
            Question::Policy {
                kind,
                resource,
                issuer,
            } => match self.policies.decide(*kind, resource, *issuer, peer, now) {
                Ok(allowed) => {
                    if allowed.unprotected && !self.warned.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            "{kind} `{resource}` is open to everybody who can reach this node: it belongs to no project \
                             and no policy was set"
                        );
                    }
                    Ok(allowed.until)
                }
                Err(reason) => Err(Denial(Cow::Owned(reason))),
            },
            Question::Credential => self
                .policies
                .has_credential(peer, now)
                .ok_or(Denial(Cow::Borrowed(
                    "the peer has no valid credential of this project",
                ))),
        }
    }
}

struct PolicyRule {
    guarded: Arc<Guarded>,
    direction: Direction,
}

impl AccessRule for PolicyRule {
    fn check(&self, delivery: &Delivery<'_>) -> Result<(), Denial> {
        match self.direction {
            Direction::Incoming => self
                .guarded
                .check(delivery.incoming_peer().map(|peer| &peer.identifier)),
            Direction::Outgoing => self
                .guarded
                .check(delivery.outgoing_peer().as_ref().map(|peer| &peer.identifier)),
        }
    }
}

struct FromOutside {
    guarded: Arc<Guarded>,
    node: Node,
    tally: Arc<Tally>,
}

impl AccessRule for FromOutside {
    fn check(&self, delivery: &Delivery<'_>) -> Result<(), Denial> {
        if self.node.produced_by(delivery.source).is_none() {
            return Ok(());
        }
        self.guarded
            .check(delivery.incoming_peer().map(|peer| &peer.identifier))
            .inspect_err(|_| self.tally.count_refused())
    }
}

/// What protects a resource in both directions.
#[derive(Clone)]
pub(crate) struct Guard {
    guarded: Arc<Guarded>,
}

impl Guard {
    fn new(policies: &Arc<Policies>, question: Question) -> Self {
        Self {
            guarded: Arc::new(Guarded {
                policies: Arc::clone(policies),
                question,
                allowed: RwLock::default(),
                warned: AtomicBool::new(false),
            }),
        }
    }

    /// The policy of a resource.
    pub(crate) fn policy(
        policies: &Arc<Policies>,
        kind: ResourceType,
        resource: &str,
        issuer: Issuer,
    ) -> Self {
        Self::new(
            policies,
            Question::Policy {
                kind,
                resource: resource.into(),
                issuer,
            },
        )
    }

    /// Any member of the node's project.
    pub(crate) fn members(policies: &Arc<Policies>) -> Self {
        Self::new(policies, Question::Credential)
    }

    /// For messages that come from a peer.
    pub(crate) fn incoming(&self) -> AccessControl {
        self.control(Direction::Incoming)
    }

    /// For messages that go to a peer.
    pub(crate) fn outgoing(&self) -> AccessControl {
        self.control(Direction::Outgoing)
    }

    /// For a worker that the owner started: workers of `node` reach it, and of those who are outside, whom the policy lets
    /// through. Whether a message comes from outside is seen by where it was sent from, which cannot be forged: the end of a
    /// connection or channel. What another worker of the node passes on was for that one's policy to decide.
    pub(crate) fn against_outside(&self, node: &Node, tally: Arc<Tally>) -> AccessControl {
        AccessControl::rule(FromOutside {
            guarded: Arc::clone(&self.guarded),
            node: node.clone(),
            tally,
        })
    }

    fn control(&self, direction: Direction) -> AccessControl {
        AccessControl::rule(PolicyRule {
            guarded: Arc::clone(&self.guarded),
            direction,
        })
    }
}

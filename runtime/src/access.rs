//! Who may send what to whom inside a node, beyond flow control (spec 01 §4.3).

use std::fmt;
use std::sync::Arc;

use crate::error::Denial;
use crate::message::{Peer, PeerIdentifier};
use crate::router::Router;
use crate::{Address, Message};

/// One message about to be delivered, as a rule sees it.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The mailbox from which the message is sent; cannot be forged.
    pub source: &'a Address,
    /// The mailbox to which it goes: the first onward hop.
    pub destination: &'a Address,
    /// The message.
    pub message: &'a Message,
    pub(crate) router: &'a Router,
}

impl Delivery<'_> {
    /// The peer that the message came from, if it came out of a secure channel.
    pub fn incoming_peer(&self) -> Option<&Arc<Peer>> {
        self.message.peer()
    }

    /// Whether the message comes from a connection or out of a secure channel, and not from a worker of this node.
    pub fn comes_from_outside(&self) -> bool {
        self.router
            .find(self.source)
            .is_some_and(|record| record.producer.get().is_some())
    }

    /// The peer that the message goes to: that of the first terminal address on its onward route, if that is a secure
    /// channel of this node (spec 01 §4.3, policy outgoing).
    pub fn outgoing_peer(&self) -> Option<Arc<Peer>> {
        self.message
            .onward
            .iter()
            .filter_map(|hop| self.router.find(hop))
            .find(|record| record.terminal)?
            .peer
            .clone()
    }
}

/// A rule of a user's or a crate's own. Checked for each message on the sender's thread: it must not block, and on its
/// usual path it should not allocate.
pub trait AccessRule: Send + Sync {
    /// Decides about one message.
    ///
    /// # Errors
    /// The reason, if the message must not be delivered.
    fn check(&self, delivery: &Delivery<'_>) -> Result<(), Denial>;
}

impl<F> AccessRule for F
where
    F: Fn(&Delivery<'_>) -> Result<(), Denial> + Send + Sync,
{
    fn check(&self, delivery: &Delivery<'_>) -> Result<(), Denial> {
        self(delivery)
    }
}

/// Decides about messages into a mailbox, or out of it.
///
/// Flow control has been checked before: what comes from a transport or out of a secure channel reaches only
/// addresses that were made its consumers.
#[derive(Clone, Default)]
pub enum AccessControl {
    /// Nobody.
    DenyAll,
    /// Whoever flow control lets through.
    #[default]
    AllowAll,
    /// Only from, or to, these addresses.
    Only(Arc<[Address]>),
    /// Only messages of an authenticated peer.
    AnyPeer,
    /// Only messages of one of these peers.
    Peers(Arc<[PeerIdentifier]>),
    /// A rule.
    Rule(Arc<dyn AccessRule>),
    /// All of these.
    All(Arc<[AccessControl]>),
    /// Any of these.
    Any(Arc<[AccessControl]>),
}

impl AccessControl {
    /// Only from, or to, one address.
    pub fn only(address: impl Into<Address>) -> Self {
        Self::Only(Arc::new([address.into()]))
    }

    /// A rule.
    pub fn rule(rule: impl AccessRule + 'static) -> Self {
        Self::Rule(Arc::new(rule))
    }

    /// Decides about a message that goes into a mailbox: for rules that are built around other rules.
    ///
    /// # Errors
    /// The reason, if the message must not be delivered.
    pub fn check_incoming(&self, delivery: &Delivery<'_>) -> Result<(), Denial> {
        self.check(delivery, Direction::Incoming)
    }

    /// Decides about a message that goes out of a mailbox.
    ///
    /// # Errors
    /// The reason, if the message must not be delivered.
    pub fn check_outgoing(&self, delivery: &Delivery<'_>) -> Result<(), Denial> {
        self.check(delivery, Direction::Outgoing)
    }

    pub(crate) fn check(&self, delivery: &Delivery<'_>, direction: Direction) -> Result<(), Denial> {
        let deny = |reason: &'static str| Err(Denial(reason.into()));
        match self {
            Self::AllowAll => Ok(()),
            Self::DenyAll => deny("this mailbox is closed to everybody"),
            Self::Only(addresses) => {
                let other = match direction {
                    Direction::Incoming => delivery.source,
                    Direction::Outgoing => delivery.destination,
                };
                if addresses.contains(other) {
                    Ok(())
                } else {
                    deny("the other address is not in the list")
                }
            }
            Self::AnyPeer => match delivery.incoming_peer() {
                Some(_) => Ok(()),
                None => deny("the message did not come through a secure channel"),
            },
            Self::Peers(peers) => match delivery.incoming_peer() {
                Some(peer) if peers.contains(&peer.identifier) => Ok(()),
                Some(_) => deny("the peer is not in the list"),
                None => deny("the message did not come through a secure channel"),
            },
            Self::Rule(rule) => rule.check(delivery),
            Self::All(controls) => controls
                .iter()
                .try_for_each(|control| control.check(delivery, direction)),
            Self::Any(controls) => {
                let mut last = deny("no rule allows it");
                for control in controls.iter() {
                    last = control.check(delivery, direction);
                    if last.is_ok() {
                        break;
                    }
                }
                last
            }
        }
    }
}

impl fmt::Debug for AccessControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DenyAll => f.write_str("DenyAll"),
            Self::AllowAll => f.write_str("AllowAll"),
            Self::Only(addresses) => f.debug_tuple("Only").field(addresses).finish(),
            Self::AnyPeer => f.write_str("AnyPeer"),
            Self::Peers(peers) => f.debug_tuple("Peers").field(peers).finish(),
            Self::Rule(_) => f.write_str("Rule"),
            Self::All(controls) => f.debug_tuple("All").field(controls).finish(),
            Self::Any(controls) => f.debug_tuple("Any").field(controls).finish(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Incoming,
    Outgoing,
}

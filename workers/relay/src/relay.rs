//! The worker `forward_to_<name>`: puts the route to the target in front of each message (spec 01 §2.4).
//!
//! It is a [passage](Passage): a target that does not read makes those wait who send to it, and nobody else.
//!
//! It changes the onward route only; the payload is not touched, let alone copied, and the return route stays as it
//! is, so that answers do not come through here. For these answers the relay makes the connections at its two sides
//! reachable from each other, as each message shows which two they are (spec 01 §4.1). A third connection stays
//! unreachable.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_runtime::{Address, Body, Error, MAX_HOPS, Message, Node, Passage, Result, Route};

use crate::table::Traffic;

/// Largest payload that a relay forwards, in bytes. A transport carries 16 MiB with both routes, which take 1 MiB at
/// most; what a relay adds must not make a message too large for the target's connection, which would be closed then.
pub const MAX_RELAYED_PAYLOAD: usize = 14 * 1024 * 1024;

/// Previous hops remembered as already made reachable. When there are more, all are forgotten and made again.
const REMEMBERED_HOPS: usize = 256;

pub(crate) struct Relay {
    /// The route to the target.
    pub(crate) forward: Route,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) connected: Mutex<HashSet<Address>>,
}

impl Relay {
    /// The payload that tells the target where its relay is.
    pub(crate) fn acceptance(remote_address: String) -> portolan_runtime::Payload {
        remote_address.encode()
    }

    /// Lets the target's connection deliver to the connection that a message came from, and the other way round.
    fn connect(&self, node: &Node, previous: &Address) {
        let mut connected = self.connected.lock();
        if connected.contains(previous) {
            return;
        }
        let Some(next) = self.forward.next() else { return };
        if let Some(flow) = node.flow_of(next) {
            node.add_consumer(&flow, previous);
        }
        let Some(flow) = node.flow_of(previous) else {
            return;
        };
        node.add_consumer(&flow, next);
        if connected.len() >= REMEMBERED_HOPS {
            connected.clear();
        }
        connected.insert(previous.clone());
    }
}

impl Passage for Relay {
    fn pass(&self, node: &Node, _: &Address, message: &mut Message) -> Result<bool> {
        message.onward.step();
        // A decoder that refuses a longer route closes the connection, and that connection is the target's.
        if message.onward.len() + self.forward.len() > MAX_HOPS || message.back.len() >= MAX_HOPS {
            self.traffic.dropped();
            return Err(Error::other(
                "a message for a relay has a longer route than transports carry",
            ));
        }
        if message.payload.len() > MAX_RELAYED_PAYLOAD {
            self.traffic.dropped();
            return Err(Error::other(
                "a message for a relay is larger than relays forward",
            ));
        }
        if let Some(previous) = message.back.next() {
            self.connect(node, previous);
        }
        message.onward.prepend_route(&self.forward);
        Ok(true)
    }

    fn carries_records(&self) -> bool {
        true
    }

    fn passed(&self, bytes: usize, accepted: bool) {
        if accepted {
            self.traffic.forwarded(bytes);
        } else {
            self.traffic.dropped();
        }
    }
}

//! Small services that every node can offer (spec 01 §5). All are [passages](Passage).

use std::sync::Arc;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::message::{Envelope, Message};
use crate::node::Node;
use crate::worker::{Passage, SyncWorker};
use crate::{Address, Body, Route};

/// Answers each message with its own payload, whatever it is: liveness pings depend on that (spec 01 T7).
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

/// Answers a BARE string with the same text in upper case.
#[derive(Debug, Clone, Copy, Default)]
pub struct Uppercase;

/// Sends each message on to its next hop and stays on the way back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hop;

/// Sends each message on to its next hop, and leaves no trace on the way back: for names that stand in a route only
/// because a peer expects them there.
#[derive(Debug, Clone, Default)]
pub struct Strip {
    /// Hops put in place of the stripped one.
    pub replacement: Route,
}

/// Turns a message around. `false` if there is nobody to answer.
fn turn(message: &mut Message) -> bool {
    let own = message.onward.step();
    message.onward = std::mem::replace(&mut message.back, own.map(Route::from).unwrap_or_default());
    // What an answerer sends is its own, not the peer's.
    message.local = Default::default();
    !message.onward.is_empty()
}

impl Passage for Echo {
    fn pass(&self, _: &Node, _: &Address, message: &mut Message) -> Result<bool> {
        message.onward.keep_first();
        Ok(turn(message))
    }
}

impl Passage for Uppercase {
    fn pass(&self, _: &Node, _: &Address, message: &mut Message) -> Result<bool> {
        let text = String::decode(message.payload.as_slice())?;
        message.payload = text.to_uppercase().encode();
        message.onward.keep_first();
        Ok(turn(message))
    }
}

impl Passage for Hop {
    fn pass(&self, _: &Node, _: &Address, message: &mut Message) -> Result<bool> {
        if let Some(own) = message.onward.step() {
            message.back.prepend(own);
        }
        message.local = Default::default();
        Ok(true)
    }

    fn carries_records(&self) -> bool {
        true
    }
}

impl Passage for Strip {
    fn pass(&self, _: &Node, _: &Address, message: &mut Message) -> Result<bool> {
        message.onward.step();
        message.onward.prepend_route(&self.replacement);
        Ok(true)
    }

    fn carries_records(&self) -> bool {
        true
    }
}

macro_rules! started_as_passage {
    ($($service:ty),*) => {$(
        impl SyncWorker for $service {
            fn handle(&mut self, _: &mut Context, _: Envelope) -> Result<()> {
                Err(Error::other("this worker is a passage and has no turn of its own"))
            }

            fn as_passage(&self) -> Option<Arc<dyn Passage>> {
                Some(Arc::new(self.clone()))
            }
        }
    )*};
}

started_as_passage!(Echo, Uppercase, Hop, Strip);

//! Small services that every node can offer (spec 01 §5).

use crate::context::Context;
use crate::error::Result;
use crate::message::{Envelope, Message};
use crate::worker::SyncWorker;
use crate::{Body, Route};

/// Answers each message with its own payload, whatever it is: liveness pings depend on that (spec 01 T7).
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl SyncWorker for Echo {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let Message { back, payload, .. } = envelope.message;
        if back.is_empty() {
            return Ok(());
        }
        ctx.forward(Message::new(back, ctx.address(), payload))?;
        Ok(())
    }
}

/// Answers a BARE string with the same text in upper case.
#[derive(Debug, Clone, Copy, Default)]
pub struct Uppercase;

impl SyncWorker for Uppercase {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let Message { back, payload, .. } = envelope.message;
        let text = String::decode(payload.as_slice())?;
        if back.is_empty() {
            return Ok(());
        }
        ctx.forward(Message::new(back, ctx.address(), text.to_uppercase().encode()))?;
        Ok(())
    }
}

/// Sends each message on to its next hop and stays on the way back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hop;

impl SyncWorker for Hop {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let mut message = envelope.message;
        if let Some(own) = message.onward.step() {
            message.back.prepend(own);
        }
        message.local = Default::default();
        ctx.forward(message)?;
        Ok(())
    }
}

/// Sends each message on to its next hop, and leaves no trace on the way back: for names that stand in a route only
/// because a peer expects them there.
#[derive(Debug, Clone, Default)]
pub struct Strip {
    /// Hops put in place of the stripped one.
    pub replacement: Route,
}

impl SyncWorker for Strip {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let mut message = envelope.message;
        message.onward.step();
        message.onward.prepend_route(&self.replacement);
        ctx.forward(message)?;
        Ok(())
    }
}

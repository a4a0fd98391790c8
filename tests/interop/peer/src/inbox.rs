//! A worker that remembers what reached it, and from whom.

use std::sync::Arc;

use parking_lot::Mutex;
use portolan_runtime::{Context, Envelope, Result, SyncWorker};

/// One message.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) payload: Vec<u8>,
    pub(crate) peer: Option<[u8; 32]>,
    pub(crate) back: Vec<String>,
}

/// The worker; clones share what was received.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inbox(pub(crate) Arc<Mutex<Vec<Received>>>);

impl SyncWorker for Inbox {
    fn handle(&mut self, _ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let message = &envelope.message;
        self.0.lock().push(Received {
            payload: message.payload.to_vec(),
            peer: message.peer().map(|peer| peer.identifier.0),
            back: message.back.iter().map(ToString::to_string).collect(),
        });
        Ok(())
    }
}

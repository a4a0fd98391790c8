//! Accepts channels at a well-known address.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portolan_runtime::{
    AccessControl, Address, Context, Envelope, Flow, MAX_HOPS, Message, Node, Payload, Stage, SyncWorker,
    WorkerOptions, environment,
};

use super::responder::Accepting;
use super::service::Shared;
use super::slots::{Full, Queued, Slots};
use crate::error::Error;
use crate::handshake::{MAX_MESSAGE_LEN, MIN_MESSAGE_1_LEN};
use crate::log_limit::may_log;
use crate::options::ListenerOptions;

/// A listener. A handle: dropping it changes nothing.
#[derive(Clone)]
pub struct SecureChannelListener {
    node: Node,
    address: Address,
    flow: Arc<Flow>,
    accepting: Arc<Accepting>,
}

impl SecureChannelListener {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The flow from which the channels' own flows descend: its consumers can be reached through every accepted channel.
    #[must_use]
    pub fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// Lets whoever opens a channel here reach `address` through it.
    pub fn add_consumer(&self, address: &Address) {
        self.node.add_consumer(&self.flow, address);
    }

    /// Lets what comes from `flow`, for instance that of a TCP listener, begin handshakes here.
    pub fn accept_from(&self, flow: &Arc<Flow>) {
        self.node.add_consumer(flow, &self.address);
    }

    /// Handshakes that have begun and are not finished.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.accepting.slots.pending()
    }

    /// Handshakes that wait for a place, because as many are unfinished as may be.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.accepting.slots.waiting()
    }

    /// Accepts no more channels. Those that are open stay.
    pub fn stop(&self) {
        let _ = self.node.stop_worker(&self.address);
    }
}

impl std::fmt::Debug for SecureChannelListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecureChannelListener")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The longest message 1 that may wait for a place, in bytes. A usual one has 32, and some for extensions.
const MAX_WAITING_LEN: usize = 512;
/// How often is looked whether an unfinished handshake has become old enough to give way, while others wait.
const LOOK: Duration = Duration::from_millis(100);

struct Listener {
    accepting: Arc<Accepting>,
}

pub(super) fn start(
    shared: &Arc<Shared>,
    address: Address,
    options: ListenerOptions,
) -> Result<SecureChannelListener, Error> {
    let node = shared.node.clone();
    let flow = node.new_flow(None);
    let accepting = Arc::new(Accepting {
        shared: Arc::clone(shared),
        options: options.channel,
        timeout: options.timeout,
        listener: address.clone(),
        flow: Arc::clone(&flow),
        slots: Slots::new(options.limits),
    });
    let listener = Listener {
        accepting: Arc::clone(&accepting),
    };
    node.start_sync_worker(
        WorkerOptions::new(address.clone()).stage(Stage::Channel),
        listener,
    )?;
    Ok(SecureChannelListener {
        node,
        address,
        flow,
        accepting,
    })
}

impl SyncWorker for Listener {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> portolan_runtime::Result<()> {
        let message = envelope.message;
        let counts = &self.accepting.shared.counts;
        // What cannot be a message 1 costs nothing more.
        let Some(hop) = message.back.next() else {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        let len = message.payload.len();
        if !(MIN_MESSAGE_1_LEN..=MAX_MESSAGE_LEN).contains(&len) || message.back.len() > MAX_HOPS {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let decryptor = Address::random();
        let accepting = &self.accepting;
        match accepting.slots.take(hop, &decryptor, environment::now()) {
            Ok((slot, evicted)) => accepting
                .start(decryptor, slot, evicted, message)
                .map_err(|error| portolan_runtime::Error::other(error.to_string())),
            Err(Full) => self.queue(ctx, message),
        }
    }
}

impl Listener {
    /// Keeps a message 1 for which there is no place now.
    fn queue(&self, ctx: &Context, mut message: Message) -> portolan_runtime::Result<()> {
        let (accepting, counts) = (&self.accepting, &self.accepting.shared.counts);
        let Some(hop) = message.back.next().cloned() else {
            return Ok(());
        };
        let queued = if message.payload.len() > MAX_WAITING_LEN {
            Queued::Refused
        } else {
            // It may be a small part of a large buffer.
            message.payload = Payload::copy_from(message.payload.as_slice());
            accepting.slots.queue(&hop, message, environment::now())
        };
        if let Queued::Refused | Queued::Displaces = queued {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            if may_log() {
                tracing::warn!(
                    listener = %ctx.address(), %hop,
                    "a handshake is refused: {} are unfinished and {} wait for a place; its initiator must try again",
                    accepting.slots.pending(),
                    accepting.slots.waiting()
                );
            }
        }
        if queued == (Queued::Waits { first: true }) {
            // A place may become free by time alone.
            let accepting = Arc::clone(accepting);
            let options = WorkerOptions::new(Address::random())
                .incoming(AccessControl::DenyAll)
                .outgoing(AccessControl::DenyAll)
                .stage(Stage::Channel);
            ctx.start_task(options, move |ctx| look_after(ctx, accepting))?;
        }
        Ok(())
    }
}

/// As long as messages wait, sees whether an unfinished handshake has become so old that it gives way.
async fn look_after(ctx: Context, accepting: Arc<Accepting>) {
    let mut stopping = pin!(ctx.stopping());
    while accepting.slots.is_waited_for() {
        tokio::select! {
            biased;
            () = &mut stopping => return,
            () = tokio::time::sleep(LOOK) => accepting.start_waiting(),
        }
    }
}

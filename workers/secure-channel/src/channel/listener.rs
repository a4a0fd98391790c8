//! Accepts channels at a well-known address.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use portolan_runtime::{
    Address, Context, Envelope, Flow, MAX_HOPS, Node, Stage, SyncWorker, WorkerOptions, environment,
};

use super::responder::{self, Accepting};
use super::service::Shared;
use super::slots::{Full, Slots};
use crate::error::Error;
use crate::handshake::{MAX_MESSAGE_LEN, MIN_MESSAGE_1_LEN};
use crate::options::ListenerOptions;

/// A listener. A handle: dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct SecureChannelListener {
    node: Node,
    address: Address,
    flow: Arc<Flow>,
    slots: Arc<Slots>,
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
        self.slots.pending()
    }

    /// Accepts no more channels. Those that are open stay.
    pub fn stop(&self) {
        let _ = self.node.stop_worker(&self.address);
    }
}

struct Listener {
    accepting: Arc<Accepting>,
    slots: Arc<Slots>,
}

pub(super) fn start(
    shared: &Arc<Shared>,
    address: Address,
    options: ListenerOptions,
) -> Result<SecureChannelListener, Error> {
    let node = shared.node.clone();
    let flow = node.new_flow(None);
    let slots = Slots::new(options.limits);
    let accepting = Arc::new(Accepting {
        shared: Arc::clone(shared),
        options: options.channel,
        timeout: options.timeout,
        listener: address.clone(),
        flow: Arc::clone(&flow),
    });
    let listener = Listener {
        accepting,
        slots: Arc::clone(&slots),
    };
    node.start_sync_worker(
        WorkerOptions::new(address.clone()).stage(Stage::Channel),
        listener,
    )?;
    Ok(SecureChannelListener {
        node,
        address,
        flow,
        slots,
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
        match self.slots.take(hop, &decryptor, environment::now()) {
            Ok((slot, evicted)) => {
                if let Some(evicted) = evicted {
                    counts.evicted.fetch_add(1, Ordering::Relaxed);
                    let _ = ctx.node().stop_worker(&evicted);
                }
                responder::start(&self.accepting, decryptor, slot, message)
                    .map_err(|error| portolan_runtime::Error::other(error.to_string()))
            }
            Err(Full) => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(listener = %ctx.address(), %hop, "a handshake finds no free place");
                Ok(())
            }
        }
    }
}

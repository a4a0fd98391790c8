//! The end that is asked for a channel.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portolan_runtime::{Address, Context, Flow, Message, Payload};

use super::Role;
use super::decryptor::Decryptor;
use super::handshake::{Finished, ephemeral, open, worker_options};
use super::service::Shared;
use super::slots::Slot;
use crate::error::{Error, PeerError};
use crate::handshake::{Rejected, Responder};
use crate::options::ChannelOptions;

/// What a listener gives to each of its responders.
pub(super) struct Accepting {
    pub(super) shared: Arc<Shared>,
    pub(super) options: ChannelOptions,
    pub(super) timeout: Duration,
    pub(super) listener: Address,
    pub(super) flow: Arc<Flow>,
}

/// Starts a responder that answers `message_1` from the address `decryptor`.
pub(super) fn start(
    accepting: &Arc<Accepting>,
    decryptor: Address,
    slot: Slot,
    message_1: Message,
) -> Result<(), Error> {
    let node = &accepting.shared.node;
    let flow = node.new_flow(Some(&accepting.flow));
    let worker = worker_options(&accepting.shared, &decryptor, &flow, message_1.back.next());
    // Whatever reaches the listener may carry the channel (spec 02 §5.8).
    for flow in node.flows_consumed_by(&accepting.listener) {
        node.add_consumer(&flow, &decryptor);
    }
    let for_task = Arc::clone(accepting);
    node.start_task(worker, move |ctx| run(ctx, for_task, slot, flow, message_1))?;
    Ok(())
}

async fn run(mut ctx: Context, accepting: Arc<Accepting>, slot: Slot, flow: Arc<Flow>, message_1: Message) {
    let counts = &accepting.shared.counts;
    let handshake = Box::pin(handshake(&mut ctx, &accepting, slot, flow, message_1));
    let opened = tokio::time::timeout(accepting.timeout, handshake).await;
    match opened {
        Ok(Ok(decryptor)) => {
            drop(accepting);
            decryptor.run(ctx).await;
        }
        Ok(Err(Error::Peer(PeerError::Untrusted(peer)))) => {
            counts.untrusted.fetch_add(1, Ordering::Relaxed);
            tracing::info!(%peer, listener = %accepting.listener, "a secure channel was refused: the peer is not trusted");
        }
        Ok(Err(error)) => {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(listener = %accepting.listener, "a handshake failed: {error}");
        }
        Err(_) => {
            counts.expired.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(listener = %accepting.listener, "a handshake was not finished in time");
        }
    }
}

async fn handshake(
    ctx: &mut Context,
    accepting: &Arc<Accepting>,
    mut slot: Slot,
    flow: Arc<Flow>,
    message_1: Message,
) -> Result<Decryptor, Error> {
    let Accepting { shared, options, .. } = accepting.as_ref();
    let stopped = || Error::from(portolan_runtime::Error::Stopped);
    let Message {
        back: route,
        payload: message_1,
        ..
    } = message_1;
    let transport_ended = route
        .next()
        .map(|hop| ctx.node().ended(hop))
        .ok_or(portolan_runtime::SendError::NoRoute)?;

    let credential = options.credentials.as_ref().and_then(|source| source.current());
    let (identity, presented, now) = (options.identity.clone(), credential.clone(), shared.now());
    let answer = shared.blocking(move || -> Result<_, Error> {
        let key = identity.static_key(now)?;
        let responder = Responder::new(Arc::clone(&key.key), &ephemeral()?);
        // The payload of message 1 is for extensions (spec 06).
        let (responder, _) = responder.read_message_1(message_1.as_slice())?;
        Ok(responder.write_message_2(&identity.payload(&key, presented.as_deref()))?)
    });
    let (mut state, message_2) = answer.await.ok_or_else(stopped)??;
    let back = ctx.address().clone();
    ctx.send_message(Message::new(route.clone(), back, Payload::from(message_2)))
        .await?;

    tokio::pin!(transport_ended);
    loop {
        let message = tokio::select! {
            biased;
            envelope = ctx.next() => envelope.ok_or_else(stopped)?.message,
            () = &mut transport_ended => return Err(Error::TransportLost(route)),
        };
        let mut payload = message.payload;
        let (judge, now) = (shared.judge(options), shared.now());
        let read = shared.blocking(move || match state.read_message_3(payload.as_mut_slice()) {
            Err(Rejected { state, .. }) => Ok(Err(state)),
            // Only the sender of message 1 can have written this: if it is not accepted, nobody else will come.
            Ok((keys, payload)) => judge
                .admit(payload, &keys.remote_static, now)
                .map(|peer| Ok((keys, peer))),
        });
        match read.await.ok_or_else(stopped)?? {
            Err(before) => {
                tracing::debug!(address = %ctx.address(), "a message that is no message 3 is ignored");
                state = before;
            }
            Ok((keys, peer)) => {
                if slot.open().is_err() {
                    shared.counts.refused.fetch_add(1, Ordering::Relaxed);
                    return Err(portolan_runtime::Error::other(
                        "the listener has as many open channels as it may",
                    )
                    .into());
                }
                let finished = Finished {
                    role: Role::Responder,
                    keys,
                    peer,
                    route,
                    flow,
                    presented: credential,
                    slot: Some(slot),
                };
                return open(shared, ctx, options, finished);
            }
        }
    }
}

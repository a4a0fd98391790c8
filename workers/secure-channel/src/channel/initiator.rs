//! The end that asks for a channel.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use portolan_identity::Identity;
use portolan_runtime::{Address, Context, Flow, Message, Payload, Route};
use tokio::sync::oneshot;

use super::decryptor::Decryptor;
use super::handshake::{Finished, ephemeral, open, worker_options};
use super::service::Shared;
use super::{Role, SecureChannel};
use crate::error::{Error, PeerError};
use crate::extensions::Agreement;
use crate::handshake::{Initiator, InitiatorAwaitingMessage2, Rejected, SessionKeys};
use crate::options::ChannelOptions;
use crate::wire::identity::IdentityPayload;

type Reply = oneshot::Sender<Result<SecureChannel, Error>>;

pub(super) fn start(
    shared: &Arc<Shared>,
    owner: Option<&Context>,
    route: Route,
    options: ChannelOptions,
    reply: Reply,
) -> Result<(), Error> {
    let node = &shared.node;
    let decryptor = Address::random();
    let flow = node.new_flow(None);
    let worker = worker_options(shared, &decryptor, &flow, route.next());
    // What answers comes in by the connection that the route begins with (spec 02 §5.8).
    if let Some(under) = route.next().and_then(|hop| node.flow_of(hop)) {
        node.add_consumer(&under, &decryptor);
    }
    let shared_by_task = Arc::clone(shared);
    let task = move |ctx| run(ctx, shared_by_task, route, options, flow, reply);
    match owner {
        Some(owner) => owner.start_task(worker, task)?,
        None => node.start_task(worker, task)?,
    };
    Ok(())
}

async fn run(
    mut ctx: Context,
    shared: Arc<Shared>,
    route: Route,
    options: ChannelOptions,
    flow: Arc<Flow>,
    mut reply: Reply,
) {
    let opened = {
        // Boxed, so that an open channel does not keep the space that its handshake needed.
        let handshake = Box::pin(handshake(&mut ctx, &shared, &route, &options, flow));
        tokio::select! {
            biased; // A channel that has just opened is given up all the same if nobody waits for it any more.
            opened = tokio::time::timeout(options.timeout, handshake) => {
                opened.unwrap_or(Err(Error::Timeout { route, after: options.timeout }))
            }
            () = reply.closed() => return,
        }
    };
    match opened {
        Ok(decryptor) => {
            let channel = shared.channel(Arc::clone(&decryptor.opening.state));
            drop((shared, options));
            if reply.send(Ok(channel)).is_ok() {
                Box::pin(decryptor.run(ctx)).await;
            }
        }
        Err(error) => {
            shared.counts.failed.fetch_add(1, Ordering::Relaxed);
            // The addresses are free before the caller may try again.
            drop(ctx);
            let _ = reply.send(Err(error));
        }
    }
}

async fn handshake(
    ctx: &mut Context,
    shared: &Arc<Shared>,
    route: &Route,
    options: &ChannelOptions,
    flow: Arc<Flow>,
) -> Result<Decryptor, Error> {
    let first = route.next().ok_or(portolan_runtime::SendError::NoRoute)?;
    let transport_ended = ctx.node().ended(first);
    let exchange = exchange(ctx, shared, route, options, flow);
    tokio::select! {
        biased;
        result = exchange => result,
        () = transport_ended => Err(Error::TransportLost(route.clone())),
    }
}

async fn exchange(
    ctx: &mut Context,
    shared: &Arc<Shared>,
    route: &Route,
    options: &ChannelOptions,
    flow: Arc<Flow>,
) -> Result<Decryptor, Error> {
    let stopped = || Error::from(portolan_runtime::Error::Stopped);
    let (identity, now) = (options.identity.clone(), shared.now());
    let key = shared
        .blocking(move || identity.static_key(now))
        .await
        .ok_or_else(stopped)??;
    let abilities = options.abilities(Some(route));
    let (mut state, message_1) =
        Initiator::new(Arc::clone(&key.key), &ephemeral()?).write_message_1(&abilities.offer())?;
    send(ctx, route.clone(), &message_1).await?;
    loop {
        let message = ctx.next().await.ok_or_else(stopped)?.message;
        let credential = options.credentials.as_ref().and_then(|source| source.current());
        let (judge, now) = (shared.judge(options), shared.now());
        let (identity, key, presented) = (options.identity.clone(), key.clone(), credential.clone());
        let mut payload = message.payload;
        let answer = shared
            .blocking(move || {
                answer(state, payload.as_mut_slice(), |payload, remote_static| {
                    let element = IdentityPayload::decode(payload)?.extensions;
                    let agreement = abilities.read_answer(element)?;
                    let peer = judge.admit(payload, remote_static, now)?;
                    let confirmation = abilities.confirmation(element, agreement);
                    let ours = identity.payload(&key, presented.as_deref(), confirmation.as_deref());
                    Ok((peer, agreement, ours))
                })
            })
            .await
            .ok_or_else(stopped)?;
        match answer? {
            Answer::NotForUs(before) => {
                tracing::debug!(address = %ctx.address(), "a message that is no message 2 is ignored");
                state = before;
            }
            Answer::Accepted {
                keys,
                peer,
                agreement,
                message_3,
            } => {
                let route = message.back;
                send(ctx, route.clone(), &message_3).await?;
                let finished = Finished {
                    role: Role::Initiator,
                    keys,
                    peer,
                    agreement,
                    route,
                    flow,
                    presented: credential,
                    slot: None,
                };
                return open(shared, ctx, options, finished);
            }
        }
    }
}

enum Answer {
    /// Forged, or something else altogether: we wait on.
    NotForUs(InitiatorAwaitingMessage2),
    Accepted {
        keys: SessionKeys,
        peer: Identity,
        agreement: Agreement,
        message_3: Vec<u8>,
    },
}

/// Reads message 2, and answers it if the peer is accepted: `admit` says who it is, what we agree on, and what we say.
///
/// A peer that completes Noise and is then not accepted ends the attempt: only somebody who sees message 1 on its way can
/// bring that about, and such a one could as well have dropped it. The caller learns at once what is wrong.
fn answer(
    state: InitiatorAwaitingMessage2,
    message: &mut [u8],
    admit: impl FnOnce(&[u8], &[u8; 32]) -> Result<(Identity, Agreement, Vec<u8>), PeerError>,
) -> Result<Answer, Error> {
    match state.read_message_2(message) {
        Err(Rejected { state, .. }) => Ok(Answer::NotForUs(state)),
        Ok((state, payload)) => {
            let (peer, agreement, our_payload) = admit(payload, state.remote_static())?;
            let (keys, message_3) = state.write_message_3(&our_payload)?;
            Ok(Answer::Accepted {
                keys,
                peer,
                agreement,
                message_3,
            })
        }
    }
}

async fn send(ctx: &mut Context, onward: Route, message: &[u8]) -> Result<(), Error> {
    let back = ctx.address().clone();
    ctx.send_message(Message::new(onward, back, Payload::copy_from(message)))
        .await?;
    Ok(())
}

//! The end that is asked for a channel.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portolan_runtime::{Address, Context, Flow, Message, Payload, Route, environment};

use super::Role;
use super::decryptor::Decryptor;
use super::handshake::{Finished, ephemeral, open, worker_options};
use super::service::Shared;
use super::slots::{Slot, Slots};
use crate::credentials::CurrentCredential;
use crate::error::{Error, PeerError};
use crate::extensions::Answer;
use crate::handshake::{Rejected, Responder, ResponderAwaitingMessage3};
use crate::log_limit::may_log;
use crate::options::{ChannelOptions, WAITING_TIME};
use crate::wire::identity::IdentityPayload;

/// What a listener gives to each of its responders.
pub(super) struct Accepting {
    pub(super) shared: Arc<Shared>,
    pub(super) options: ChannelOptions,
    pub(super) timeout: Duration,
    pub(super) listener: Address,
    pub(super) flow: Arc<Flow>,
    pub(super) slots: Arc<Slots>,
}

impl Accepting {
    /// Answers `message_1` from the address `decryptor`, in place of the responder `evicted`.
    pub(super) fn start(
        self: &Arc<Self>,
        decryptor: Address,
        slot: Slot,
        evicted: Option<Address>,
        message_1: Message,
    ) -> Result<(), Error> {
        if let Some(evicted) = evicted {
            self.shared.counts.evicted.fetch_add(1, Ordering::Relaxed);
            let _ = self.shared.node.stop_worker(&evicted);
        }
        start(self, decryptor, slot, message_1)
    }

    /// Answers those who wait, as many as there are places for.
    pub(super) fn start_waiting(self: &Arc<Self>) {
        while self.slots.is_waited_for() {
            if !self.shared.node.has_worker(&self.listener) {
                return self.slots.forget_waiting();
            }
            let (now, decryptor) = (environment::now(), Address::random());
            let Some((since, message_1, slot, evicted)) = self.slots.next(&decryptor, now) else {
                return;
            };
            let is_there = message_1
                .back
                .next()
                .is_some_and(|hop| self.shared.node.has_worker(hop));
            if !is_there || now.saturating_duration_since(since) > WAITING_TIME {
                // Its initiator has gone, or takes the answer for lost.
                self.shared.counts.expired.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if let Err(error) = self.start(decryptor, slot, evicted, message_1) {
                tracing::debug!(listener = %self.listener, "a handshake could not begin: {error}");
            }
        }
    }
}

/// Starts a responder that answers `message_1` from the address `decryptor`.
fn start(
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
    let (for_task, message_1) = (Arc::clone(accepting), Box::new(message_1));
    node.start_task(worker, move |ctx| run(ctx, for_task, slot, flow, message_1))?;
    Ok(())
}

async fn run(
    mut ctx: Context,
    accepting: Arc<Accepting>,
    slot: Slot,
    flow: Arc<Flow>,
    message_1: Box<Message>,
) {
    let counts = &accepting.shared.counts;
    // Each step is boxed, so that its space is free before the next one begins.
    let handshake = Box::pin(handshake(&mut ctx, &accepting, slot, flow, message_1));
    let opened = tokio::time::timeout(accepting.timeout, handshake).await;
    // Its place is free now.
    accepting.start_waiting();
    match opened {
        Ok(Ok(decryptor)) => {
            drop(accepting);
            Box::pin(decryptor.run(ctx)).await;
        }
        Ok(Err(Error::Peer(PeerError::Untrusted(peer)))) => {
            counts.untrusted.fetch_add(1, Ordering::Relaxed);
            if may_log() {
                tracing::info!(%peer, listener = %accepting.listener, "a channel was refused: the peer is not trusted");
            }
        }
        // Stopped by the listener, for a newer one, or with the node.
        Ok(Err(Error::Runtime(portolan_runtime::Error::Stopped))) => {}
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
    accepting: &Accepting,
    mut slot: Slot,
    flow: Arc<Flow>,
    message_1: Box<Message>,
) -> Result<Box<Decryptor>, Error> {
    let Accepting { shared, options, .. } = accepting;
    let answered = Box::pin(answer(ctx, shared, options, message_1)).await?;
    slot.answered(environment::now());
    let finished = Box::pin(await_message_3(ctx, shared, options, answered, flow)).await?;
    if slot.open().is_err() {
        shared.counts.refused.fetch_add(1, Ordering::Relaxed);
        return Err(
            portolan_runtime::Error::other("the listener has as many open channels as it may").into(),
        );
    }
    open(
        shared,
        ctx,
        options,
        Finished {
            slot: Some(slot),
            ..*finished
        },
    )
    .map(Box::new)
}

fn stopped() -> Error {
    portolan_runtime::Error::Stopped.into()
}

/// A handshake that waits for message 3.
struct Answered {
    state: ResponderAwaitingMessage3,
    answer: Answer,
    route: Route,
    presented: CurrentCredential,
}

/// Reads message 1 and answers with message 2.
async fn answer(
    ctx: &mut Context,
    shared: &Shared,
    options: &ChannelOptions,
    message_1: Box<Message>,
) -> Result<Box<Answered>, Error> {
    let Message {
        back: route,
        payload: message_1,
        ..
    } = *message_1;
    let credential = options.credentials.as_ref().and_then(|source| source.current());
    let (identity, presented, now) = (options.identity.clone(), credential.clone(), shared.now());
    let abilities = options.abilities(None);
    let answer = shared.blocking(move || -> Result<_, Error> {
        let key = identity.static_key(now)?;
        let responder = Responder::new(Arc::clone(&key.key), &ephemeral()?);
        let (responder, offer) = responder.read_message_1(message_1.as_slice())?;
        let answer = abilities.answer(offer).map_err(PeerError::from)?;
        let payload = identity.payload(&key, presented.as_deref(), answer.encode().as_deref());
        let (state, message_2) = responder.write_message_2(&payload)?;
        Ok((state, answer, message_2))
    });
    let (state, answer, message_2) = answer.await.ok_or_else(stopped)??;
    let back = ctx.address().clone();
    ctx.send_message(Message::new(route.clone(), back, Payload::from(message_2)))
        .await?;
    Ok(Box::new(Answered {
        state,
        answer,
        route,
        presented: credential,
    }))
}

/// Waits for message 3 and judges who sent it.
async fn await_message_3(
    ctx: &mut Context,
    shared: &Shared,
    options: &ChannelOptions,
    answered: Box<Answered>,
    flow: Arc<Flow>,
) -> Result<Box<Finished>, Error> {
    let Answered {
        mut state,
        answer,
        route,
        presented,
    } = *answered;
    let transport_ended = route
        .next()
        .map(|hop| ctx.node().ended(hop))
        .ok_or(portolan_runtime::SendError::NoRoute)?;
    tokio::pin!(transport_ended);
    loop {
        let mut payload = tokio::select! {
            biased;
            envelope = ctx.next() => envelope.ok_or_else(stopped)?.message.payload,
            () = &mut transport_ended => return Err(Error::TransportLost(route)),
        };
        let (judge, now) = (shared.judge(options), shared.now());
        let read = shared.blocking(move || -> Result<_, PeerError> {
            match state.read_message_3(payload.as_mut_slice()) {
                Err(Rejected { state, .. }) => Ok(Err(state)),
                // Only the sender of message 1 can have written this: if it is not accepted, nobody else will come.
                Ok((keys, payload)) => {
                    let element = IdentityPayload::decode(payload)?.extensions;
                    let agreement = answer.check_confirmation(element)?;
                    let peer = judge.admit(payload, &keys.remote_static, now)?;
                    Ok(Ok((keys, peer, agreement)))
                }
            }
        });
        match read.await.ok_or_else(stopped)?? {
            Err(before) => {
                tracing::debug!(address = %ctx.address(), "a message that is no message 3 is ignored");
                state = before;
            }
            Ok((keys, peer, agreement)) => {
                let role = Role::Responder;
                return Ok(Box::new(Finished {
                    role,
                    keys,
                    peer,
                    agreement,
                    route,
                    flow,
                    presented,
                    slot: None,
                }));
            }
        }
    }
}

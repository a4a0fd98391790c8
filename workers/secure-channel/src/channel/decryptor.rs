//! The worker that messages come out of a channel by.

use std::pin::Pin;
use std::sync::Arc;

use portolan_runtime::{Context, LocalInfo, MAX_HOPS, Message, Route, Sealing};

use super::service::{Registration, Shared};
use super::slots::Slot;
use super::{CloseReason, Role, State, Traffic};
use crate::options::GapPolicy;
use crate::peer::Judge;
use crate::record::{HEADER_FRONT, NONCE_LEN, Opener, PREFIX_LEN};
use crate::wire::WireError;
use crate::wire::message::{ChannelMessage, PayloadHeader};

/// Which of the worker's addresses is the one that decrypted messages are sent from.
pub(super) const INTERNAL: usize = 1;

type Ended = Pin<Box<dyn Future<Output = ()>>>;

/// Opens records in the buffer that they came in.
pub(super) struct Decryptor {
    pub(super) state: Arc<State>,
    pub(super) shared: Arc<Shared>,
    pub(super) opener: Opener,
    pub(super) judge: Judge,
    pub(super) gaps: GapPolicy,
    /// The highest nonce whose outer return route was looked at (spec 02 §6.6).
    pub(super) newest_route: u64,
    /// Keeps the channel in the list of open ones.
    pub(super) _registration: Registration,
    /// The listener's place, at the responder.
    pub(super) _slot: Option<Slot>,
}

/// What a record asks for beyond being passed on.
enum Step {
    Done,
    /// The route to the peer begins with another connection now.
    Moved,
    Close(CloseReason),
    /// New credentials: the plaintext. To be judged where blocking is allowed.
    Refresh(Vec<u8>),
}

impl Decryptor {
    /// Until the channel is closed. When this returns the context goes, and with it the encryptor.
    pub(super) async fn run(mut self, mut ctx: Context) {
        let reason = self.serve(&mut ctx).await;
        self.state.close(reason);
        tracing::debug!(channel = %self.state.peer.channel, peer = %self.state.remote, "closed: {reason}");
    }

    async fn serve(&mut self, ctx: &mut Context) -> CloseReason {
        let mut transport_ended = self.transport_ended(ctx);
        loop {
            // The message is gone before anything else is waited for: an idle channel keeps no space for one.
            let step = {
                let envelope = tokio::select! {
                    biased;
                    envelope = ctx.next() => envelope,
                    () = &mut transport_ended => return CloseReason::TransportLost,
                };
                match envelope {
                    Some(envelope) => self.handle(ctx, envelope.message),
                    None => return CloseReason::Stopped,
                }
            };
            match step {
                Step::Done => {}
                Step::Moved => transport_ended = self.transport_ended(ctx),
                Step::Close(reason) => return reason,
                Step::Refresh(plaintext) => Box::pin(self.refresh(plaintext)).await,
            }
            if ctx.has_unsent() {
                ctx.flush().await;
            }
        }
    }

    /// Resolves when what carries our records is gone.
    fn transport_ended(&self, ctx: &Context) -> Ended {
        match self.state.route.lock().next() {
            Some(hop) => Box::pin(ctx.node().ended(hop)),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn handle(&mut self, ctx: &mut Context, message: Message) -> Step {
        let Message {
            back, mut payload, ..
        } = message;
        let traffic = &self.state.traffic;
        let opened = match self.opener.open(payload.as_mut_slice()) {
            Ok(opened) => opened,
            Err(error) => {
                Traffic::count(&traffic.rejected, 1);
                tracing::debug!(channel = %self.state.peer.channel, "a record is dropped: {error}");
                return Step::Done;
            }
        };
        let nonce = opened.nonce;
        Traffic::count(&traffic.received_messages, 1);
        if opened.gap() {
            Traffic::count(&traffic.gaps, 1);
            tracing::debug!(channel = %self.state.peer.channel, "record {nonce} came {:?}", opened.order);
            if self.gaps == GapPolicy::Close {
                return Step::Close(CloseReason::Gap);
            }
        }
        if let Some(rest) = opened.rest {
            let rest = rest.len();
            return match PayloadHeader::decode(opened.plaintext, rest) {
                Ok(header) => {
                    let len = PREFIX_LEN + rest;
                    Traffic::count(&traffic.received_bytes, len);
                    Traffic::count(&traffic.received_carried, 1);
                    payload.strip_front(HEADER_FRONT + header.payload);
                    // Nobody but who opens the record inside can tell whether it is as it was sent.
                    payload.set_sealing(Sealing::Carried);
                    self.deliver(ctx, header.onward, header.back, payload);
                    self.follow(nonce, back)
                }
                Err(error) => {
                    self.complain(&error);
                    Step::Done
                }
            };
        }
        match ChannelMessage::decode(opened.plaintext) {
            Ok(ChannelMessage::Payload {
                onward,
                back: inner_back,
                payload: range,
            }) => {
                Traffic::count(&traffic.received_bytes, range.len());
                let len = range.len();
                payload.strip_front(NONCE_LEN + range.start);
                payload.truncate(len);
                self.deliver(ctx, onward, inner_back, payload);
                self.follow(nonce, back)
            }
            Ok(ChannelMessage::RefreshCredentials { .. }) => Step::Refresh(opened.plaintext.to_vec()),
            Ok(ChannelMessage::Close) => Step::Close(CloseReason::ByPeer),
            Err(error) => {
                self.complain(&error);
                Step::Done
            }
        }
    }

    /// Hands a decrypted message on; who may receive it is for flow control and access control to say.
    fn deliver(&self, ctx: &mut Context, onward: Route, mut back: Route, payload: portolan_runtime::Payload) {
        back.prepend(self.state.peer.channel.clone());
        let local = LocalInfo {
            peer: Some(Arc::clone(&self.state.peer)),
        };
        // A refusal is counted and logged by the router; the peer learns nothing (spec 01 T14).
        let _ = ctx.forward_from(
            INTERNAL,
            Message {
                onward,
                back,
                payload,
                local,
            },
        );
    }

    /// A responder sends its records the way on which the newest payload came (spec 02 §6.6).
    fn follow(&mut self, nonce: u64, back: Route) -> Step {
        if self.state.role == Role::Initiator || nonce <= self.newest_route {
            return Step::Done;
        }
        self.newest_route = nonce;
        let mut route = self.state.route.lock();
        let Some((peer, hops)) = route.as_slice().split_last() else {
            return Step::Done;
        };
        // A longer route would be refused by the next decoder, with the connection.
        if hops == back.as_slice() || back.len() >= MAX_HOPS {
            return Step::Done;
        }
        let mut moved = back;
        moved.push(peer.clone());
        let first_changed = moved.next() != route.next();
        tracing::debug!(channel = %self.state.peer.channel, "the peer is reached along {moved} now");
        *route = moved;
        if first_changed { Step::Moved } else { Step::Done }
    }

    async fn refresh(&self, plaintext: Vec<u8>) {
        let (judge, peer, now) = (self.judge.clone(), self.state.remote, self.shared.now());
        let judged = self
            .shared
            .blocking(move || match ChannelMessage::decode(&plaintext) {
                Ok(ChannelMessage::RefreshCredentials {
                    change_history,
                    credentials,
                }) => judge
                    .refresh(&peer, change_history, &credentials, now)
                    .map_err(|error| error.to_string()),
                _ => Ok(0),
            })
            .await;
        match judged {
            Some(Ok(accepted)) => {
                tracing::debug!(peer = %self.state.remote, "presented new credentials, {accepted} accepted");
            }
            Some(Err(error)) => {
                tracing::info!(peer = %self.state.remote, "new credentials are ignored: {error}")
            }
            None => {}
        }
    }

    fn complain(&self, error: &WireError) {
        tracing::debug!(peer = %self.state.remote, "sent what is no message: {error}");
    }
}

//! The worker that messages come out of a channel by.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use portolan_runtime::{Address, Context, MAX_HOPS, Message, Node, Passage, Result, Route, Sealing};
use tokio::sync::Notify;

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

/// Opens records in the buffer that they came in: those that go through in the turn of whoever received them, and those that come
/// by the decryptor's mailbox.
pub(super) struct Opening {
    pub(super) state: Arc<State>,
    gaps: GapPolicy,
    numbered: Mutex<Numbered>,
    /// What a record that went through asks the worker to do. None goes through until it is done.
    asked: Mutex<Option<Step>>,
    is_asked: AtomicBool,
    told: Notify,
}

/// What has to be used in order.
struct Numbered {
    opener: Opener,
    /// The highest nonce whose outer return route was looked at (spec 02 §6.6).
    newest_route: u64,
}

/// The worker of the receiving direction: it does what records ask for beyond being opened, takes those that do not go through at
/// once, and ends with the connection.
pub(super) struct Decryptor {
    pub(super) opening: Arc<Opening>,
    pub(super) shared: Arc<Shared>,
    pub(super) judge: Judge,
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
    pub(super) async fn run(self, mut ctx: Context) {
        ctx.set_passage(Arc::clone(&self.opening) as Arc<dyn Passage>, INTERNAL);
        let reason = self.serve(&mut ctx).await;
        let state = &self.opening.state;
        state.close(reason);
        tracing::debug!(channel = %state.peer.channel, peer = %state.remote, "closed: {reason}");
    }

    async fn serve(&self, ctx: &mut Context) -> CloseReason {
        let mut transport_ended = self.transport_ended(ctx);
        loop {
            // The message is gone before anything else is waited for: an idle channel keeps no space for one.
            let step = {
                let envelope = tokio::select! {
                    biased;
                    // What went through came before what is in the mailbox.
                    step = self.opening.asked() => Err(step),
                    envelope = ctx.next() => Ok(envelope),
                    () = &mut transport_ended => return CloseReason::TransportLost,
                };
                match envelope {
                    Ok(Some(mut envelope)) => {
                        let (is_for_here, step) = self.opening.open(&mut envelope.message);
                        if is_for_here {
                            // A refusal is counted and logged by the router; the peer learns nothing (spec 01 T14).
                            let _ = ctx.forward_from(INTERNAL, envelope.message);
                        }
                        step
                    }
                    Ok(None) => return CloseReason::Stopped,
                    Err(step) => step,
                }
            };
            match step {
                Step::Done => {}
                Step::Moved => transport_ended = self.transport_ended(ctx),
                Step::Close(reason) => return reason,
                Step::Refresh(plaintext) => Box::pin(self.refresh(plaintext)).await,
            }
            self.opening.is_asked.store(false, Ordering::Release);
            if ctx.has_unsent() {
                ctx.flush().await;
            }
        }
    }

    /// Resolves when what carries our records is gone.
    fn transport_ended(&self, ctx: &Context) -> Ended {
        match self.opening.state.route.lock().next() {
            Some(hop) => Box::pin(ctx.node().ended(hop)),
            None => Box::pin(std::future::ready(())),
        }
    }

    async fn refresh(&self, plaintext: Vec<u8>) {
        let (judge, peer, now) = (self.judge.clone(), self.opening.state.remote, self.shared.now());
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
                tracing::debug!(peer = %self.opening.state.remote, "presented new credentials, {accepted} accepted");
            }
            Some(Err(error)) => {
                tracing::info!(peer = %self.opening.state.remote, "new credentials are ignored: {error}")
            }
            None => {}
        }
    }
}

impl Opening {
    pub(super) fn new(state: Arc<State>, opener: Opener, gaps: GapPolicy) -> Arc<Self> {
        Arc::new(Self {
            state,
            gaps,
            numbered: Mutex::new(Numbered {
                opener,
                newest_route: 0,
            }),
            asked: Mutex::default(),
            is_asked: AtomicBool::new(false),
            told: Notify::new(),
        })
    }

    /// What a record that went through asks for.
    async fn asked(&self) -> Step {
        loop {
            let told = self.told.notified();
            if let Some(step) = self.asked.lock().take() {
                return step;
            }
            told.await;
        }
    }

    fn ask(&self, step: Step) {
        *self.asked.lock() = Some(step);
        self.is_asked.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    /// Makes the message of a record what is in it. Whether there is one to hand on, and what else there is to do.
    fn open(&self, message: &mut Message) -> (bool, Step) {
        let payload = &mut message.payload;
        let traffic = &self.state.traffic;
        let mut numbered = self.numbered.lock();
        let opened = match numbered.opener.open(payload.as_mut_slice()) {
            Ok(opened) => opened,
            Err(error) => {
                Traffic::count(&traffic.rejected, 1);
                tracing::debug!(channel = %self.state.peer.channel, "a record is dropped: {error}");
                return (false, Step::Done);
            }
        };
        let nonce = opened.nonce;
        Traffic::count(&traffic.received_messages, 1);
        if opened.gap() {
            Traffic::count(&traffic.gaps, 1);
            tracing::debug!(channel = %self.state.peer.channel, "record {nonce} came {:?}", opened.order);
            if self.gaps == GapPolicy::Close {
                return (false, Step::Close(CloseReason::Gap));
            }
        }
        if let Some(rest) = opened.rest {
            let rest = rest.len();
            return match PayloadHeader::decode(opened.plaintext, rest) {
                Ok(header) => {
                    let len = PREFIX_LEN + rest;
                    Traffic::count(&traffic.received_bytes, len);
                    Traffic::count(&traffic.received_carried, 1);
                    self.arrived(len);
                    payload.strip_front(HEADER_FRONT + header.payload);
                    // Nobody but who opens the record inside can tell whether it is as it was sent.
                    payload.set_sealing(Sealing::Carried);
                    self.deliver(&mut numbered, nonce, message, header.onward, header.back)
                }
                Err(error) => {
                    self.complain(&error);
                    (false, Step::Done)
                }
            };
        }
        match ChannelMessage::decode(opened.plaintext) {
            Ok(ChannelMessage::Payload {
                onward,
                back,
                payload: range,
            }) => {
                Traffic::count(&traffic.received_bytes, range.len());
                self.arrived(range.len());
                payload.strip_front(NONCE_LEN + range.start);
                payload.truncate(range.len());
                self.deliver(&mut numbered, nonce, message, onward, back)
            }
            Ok(ChannelMessage::RefreshCredentials { .. }) => {
                (false, Step::Refresh(opened.plaintext.to_vec()))
            }
            Ok(ChannelMessage::Close) => (false, Step::Close(CloseReason::ByPeer)),
            Ok(ChannelMessage::Receipt(total)) => match &self.state.windows {
                Some(windows) if !windows.handle_receipt(total) => {
                    (false, Step::Close(CloseReason::FalseReceipt))
                }
                _ => (false, Step::Done),
            },
            Err(error) => {
                self.complain(&error);
                (false, Step::Done)
            }
        }
    }

    /// Whatever becomes of it: it is not on its way any more.
    fn arrived(&self, payload: usize) {
        if let Some(windows) = &self.state.windows {
            windows.arrived(payload);
        }
    }

    /// Who may receive it is for flow control and access control to say.
    fn deliver(
        &self,
        numbered: &mut Numbered,
        nonce: u64,
        message: &mut Message,
        onward: Route,
        back: Route,
    ) -> (bool, Step) {
        message.onward = onward;
        let outer_back = std::mem::replace(&mut message.back, back);
        message.back.prepend(self.state.peer.channel.clone());
        message.local.peer = Some(Arc::clone(&self.state.peer));
        (true, self.follow(numbered, nonce, outer_back))
    }

    /// A responder sends its records the way on which the newest payload came (spec 02 §6.6).
    fn follow(&self, numbered: &mut Numbered, nonce: u64, back: Route) -> Step {
        if self.state.role == Role::Initiator || nonce <= numbered.newest_route {
            return Step::Done;
        }
        numbered.newest_route = nonce;
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

    fn complain(&self, error: &WireError) {
        tracing::debug!(peer = %self.state.remote, "sent what is no message: {error}");
    }
}

impl Passage for Opening {
    fn pass(&self, _: &Node, _: &Address, message: &mut Message) -> Result<bool> {
        let (is_for_here, step) = self.open(message);
        if !matches!(step, Step::Done) {
            self.ask(step);
        }
        Ok(is_for_here)
    }

    fn carries_records(&self) -> bool {
        true
    }

    fn is_ready(&self) -> bool {
        !self.is_asked.load(Ordering::Acquire)
    }
}

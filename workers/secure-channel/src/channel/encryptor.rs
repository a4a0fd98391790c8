//! The worker that messages go into a channel by.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use portolan_runtime::{
    AccessControl, Address, Context, Envelope, MAX_HOPS, Message, Node, Route, SendError,
};
use portolan_runtime::{MailboxOptions, Passage, Payload, Result, Sealing as PayloadSealing, WorkerOptions};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep};

use super::handshake::stage;
use super::{CloseReason, State, Traffic, Windows};
use crate::aead::TAG_LEN;
use crate::credentials::CurrentCredential;
use crate::local::LocalIdentity;
use crate::record::{HEADER_FRONT, HEADER_ONLY_FROM, NONCE_LEN, PREFIX_LEN, RecordError, Sealer};
use crate::wire::message::{CLOSE, PAYLOAD_TAIL, put_payload_head, put_receipt, refresh_credentials_message};

/// What stands behind a payload in a record: the padding, and room for the tag.
const TAIL: [u8; PAYLOAD_TAIL.len() + TAG_LEN] = {
    let mut tail = [0; PAYLOAD_TAIL.len() + TAG_LEN];
    tail[0] = PAYLOAD_TAIL[0];
    tail
};

/// The longest header that is sealed alone: its length stands in two bytes.
const MAX_HEADER: usize = u16::MAX as usize;

/// How long a closed window may keep others waiting before it is looked whether these carry what is for many.
const LOOK: Duration = Duration::from_millis(500);

/// How long a channel that ends waits for its transport to take the last messages.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Seals messages in the buffer that they came in: those that go through in the turn of their sender, and those that come by the
/// encryptor's mailbox.
struct Sealing {
    state: Arc<State>,
    numbered: Mutex<Numbered>,
}

/// What has to be used in order.
struct Numbered {
    sealer: Sealer,
    /// Where heads are written before they go into the head room. Kept, so that nothing is allocated per message.
    head: Vec<u8>,
}

/// The worker of the sending direction: it presents new credentials, takes the messages that do not go through at once, and says
/// goodbye.
pub(super) struct Encryptor {
    sealing: Arc<Sealing>,
    credentials: Option<Credentials>,
    /// Of the last receipt.
    receipt: Vec<u8>,
    /// The window is closed, and messages go all the same: whoever waits for us may be who brings the receipts that open it.
    past_window: bool,
}

/// Our credentials, for as long as a channel lives.
pub(super) struct Credentials {
    /// Whose change history goes into RefreshCredentials: as it is then, since a peer that has seen a rotation refuses the one of
    /// before.
    pub(super) identity: LocalIdentity,
    pub(super) source: watch::Receiver<CurrentCredential>,
    /// What the peer has seen last.
    pub(super) presented: CurrentCredential,
}

/// What an encryptor waits for.
enum Event {
    Message(Envelope),
    Credential,
    /// A receipt is due, or the window has opened.
    Window,
    Stop,
}

/// Why a message did not leave.
enum Failure {
    Record(RecordError),
    Send(SendError),
}

impl Failure {
    fn reason(&self) -> CloseReason {
        match self {
            Self::Record(RecordError::Exhausted) => CloseReason::Exhausted,
            Self::Record(_) => CloseReason::SendFailed,
            Self::Send(SendError::NotFound(_)) => CloseReason::TransportLost,
            Self::Send(_) => CloseReason::SendFailed,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Record(error) => error.fmt(f),
            Self::Send(error) => error.fmt(f),
        }
    }
}

/// Whether the peer's decoder would refuse one of the routes.
fn is_too_far(message: &Message) -> bool {
    message.onward.len() > MAX_HOPS + 1 || message.back.len() > MAX_HOPS
}

impl Encryptor {
    pub(super) fn new(state: Arc<State>, sealer: Sealer, credentials: Option<Credentials>) -> Self {
        let head = Vec::new();
        Self {
            sealing: Arc::new(Sealing {
                state,
                numbered: Mutex::new(Numbered { sealer, head }),
            }),
            credentials,
            receipt: Vec::new(),
            past_window: false,
        }
    }

    fn state(&self) -> &Arc<State> {
        &self.sealing.state
    }

    /// Starts the worker, owned by the decryptor's.
    pub(super) fn start(self, decryptor: &Context) -> Result<Address> {
        let state = self.state();
        let mailbox = MailboxOptions::new(state.peer.channel.clone())
            .incoming(AccessControl::AllowAll)
            .outgoing(AccessControl::AllowAll)
            .terminal()
            .peer(Arc::clone(&state.peer))
            .flow_alias(Arc::clone(&state.flow));
        let stage = stage(decryptor.node(), state.route.lock().next());
        // What comes from another thread, or finds the window closed, waits here and not at the connection.
        let options = WorkerOptions::with_mailbox(mailbox)
            .stage(stage)
            .room_for_transit();
        decryptor.start_task(options, |ctx| self.run(ctx))
    }

    async fn run(mut self, mut ctx: Context) {
        if let Err(failure) = self.serve(&mut ctx).await {
            tracing::debug!(channel = %ctx.address(), "the channel closes: {failure}");
            self.state().close(failure.reason());
        }
        // Whoever stops this address means the whole channel.
        let _ = ctx.node().stop_worker(&self.state().decryptor);
        Box::pin(self.say_goodbye(&mut ctx)).await;
    }

    /// Until the worker is asked to stop.
    async fn serve(&mut self, ctx: &mut Context) -> Result<(), Failure> {
        ctx.set_passage(Arc::clone(&self.sealing) as Arc<dyn Passage>, 0);
        // A credential that arrived between the handshake's payload and now. Nothing passes before the first wait for messages.
        self.refresh_credentials(ctx)?;
        if ctx.has_unsent() {
            ctx.flush().await;
        }
        loop {
            // The message is gone before anything else is waited for: an idle channel keeps no space for one.
            match self.next(ctx).await {
                Event::Message(envelope) if is_too_far(&envelope.message) => {
                    tracing::debug!(channel = %ctx.address(), "a message with a route that nobody would read is dropped");
                }
                Event::Message(mut envelope) => {
                    self.sealing.seal(&mut envelope.message)?;
                    ctx.forward(envelope.message).map_err(Failure::Send)?;
                }
                Event::Credential => self.refresh_credentials(ctx)?,
                Event::Window => {
                    self.past_window = false;
                    self.send_receipt(ctx)?;
                }
                Event::Stop => return Ok(()),
            }
            if ctx.has_unsent() {
                ctx.flush().await;
            }
        }
    }

    async fn next(&mut self, ctx: &mut Context) -> Event {
        let past_window = &mut self.past_window;
        let windows = self.sealing.state.windows.as_deref();
        let told = async {
            match windows {
                Some(windows) => windows.told().await,
                None => pending().await,
            }
        };
        let message = async {
            match windows {
                // Whether it is open is asked when there is a message: it may have been closed since the last one.
                Some(windows) => {
                    let mut look: Option<Pin<Box<Sleep>>> = None;
                    poll_fn(|cx| {
                        loop {
                            if *past_window || windows.is_open() {
                                return ctx.poll_next(cx);
                            }
                            if ctx.poll_stopping(cx).is_ready() {
                                return Poll::Ready(None);
                            }
                            let look = look.get_or_insert_with(|| Box::pin(sleep(LOOK)));
                            ready!(look.as_mut().poll(cx));
                            look.as_mut().reset(Instant::now() + LOOK);
                            *past_window = ctx.holds_up_transit();
                        }
                    })
                    .await
                }
                None => ctx.next().await,
            }
        };
        let credentials = &mut self.credentials;
        let credential = async {
            match credentials {
                Some(credentials) => credentials.source.changed().await.is_ok(),
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            // The peer may wait for it.
            () = told => Event::Window,
            envelope = message => envelope.map_or(Event::Stop, Event::Message),
            is_there = credential => {
                if !is_there {
                    // The source is gone; what was presented stays.
                    self.credentials = None;
                }
                Event::Credential
            }
        }
    }

    /// Tells the peer what has arrived, past the window: that is what the peer's depends on.
    fn send_receipt(&mut self, ctx: &mut Context) -> Result<(), Failure> {
        let due = self
            .state()
            .windows
            .as_ref()
            .and_then(|windows| windows.take_due());
        if let Some(total) = due {
            put_receipt(&mut self.receipt, total);
            let sealed = self.sealing.seal_control(&self.receipt)?;
            ctx.forward(sealed).map_err(Failure::Send)?;
        }
        Ok(())
    }

    /// Shows the peer our current credential, if it has not seen it (spec 02 §6.5).
    fn refresh_credentials(&mut self, ctx: &mut Context) -> Result<(), Failure> {
        let Some(credentials) = &mut self.credentials else {
            return Ok(());
        };
        let current = credentials.source.borrow_and_update().clone();
        let Some(credential) = current.filter(|current| credentials.presented.as_ref() != Some(current))
        else {
            return Ok(());
        };
        let message = refresh_credentials_message(
            credentials.identity.identity().history().encode(),
            &[&credential.encode()],
        );
        credentials.presented = Some(credential);
        let sealed = self.sealing.seal_control(&message)?;
        ctx.forward(sealed).map_err(Failure::Send)
    }

    /// Sends what was handed to us before the stop, and then Close, unless it was the peer who closed.
    async fn say_goodbye(&mut self, ctx: &mut Context) {
        let mut last = Vec::new();
        if self
            .state()
            .close_reason()
            .is_none_or(|reason| reason == CloseReason::Stopped)
        {
            while let Some(mut envelope) = ctx.try_next() {
                if !is_too_far(&envelope.message) && self.sealing.seal(&mut envelope.message).is_ok() {
                    last.push(envelope.message);
                }
            }
        }
        self.state().close(CloseReason::Stopped);
        if self.state().close_reason() != Some(CloseReason::ByPeer) {
            last.extend(self.sealing.seal_control(&CLOSE).ok());
        }
        // A worker that is stopping does not wait for room at the transport; another mailbox can.
        match ctx.node().context(Address::random()) {
            Ok(mut mailbox) => {
                let send = async {
                    for message in last {
                        if let Err(error) = mailbox.send_message(message).await {
                            tracing::debug!(channel = %ctx.address(), "the peer is not told of the end: {error}");
                            break;
                        }
                    }
                };
                let _ = tokio::time::timeout(GOODBYE_TIMEOUT, send).await;
            }
            // The node is stopping, too.
            Err(_) => {
                for message in last {
                    if ctx.forward(message).is_err() {
                        break;
                    }
                }
            }
        }
    }
}

impl Sealing {
    /// Makes a record of a message, ready to be sent on its way.
    fn seal(&self, message: &mut Message) -> Result<(), Failure> {
        let payload = &mut message.payload;
        let len = payload.len();
        let inner = message.onward.as_slice().get(1..).unwrap_or_default();
        // What is a record already needs no second seal.
        let header_only = self.state.agreement.sealed_headers
            && len >= HEADER_ONLY_FROM
            && payload.sealing() != PayloadSealing::Unknown;
        let front = if header_only { HEADER_FRONT } else { NONCE_LEN };
        let mut numbered = self.numbered.lock();
        let Numbered { sealer, head } = &mut *numbered;
        head.clear();
        head.resize(front, 0);
        put_payload_head(head, inner, message.back.as_slice(), len);
        payload.prepend(head);
        let header = head.len() - front + PREFIX_LEN;
        // Routes of addresses that are kilobytes long: as rare as it sounds.
        if header_only && header <= MAX_HEADER {
            sealer
                .seal_header(payload.as_mut_slice(), header)
                .map_err(Failure::Record)?;
            Traffic::count(&self.state.traffic.sent_carried, 1);
        } else {
            if header_only {
                payload.strip_front(HEADER_FRONT - NONCE_LEN);
            }
            payload.append(&TAIL);
            sealer.seal(payload.as_mut_slice()).map_err(Failure::Record)?;
        }
        drop(numbered);
        Traffic::count(&self.state.traffic.sent_bytes, len);
        if let Some(windows) = &self.state.windows {
            windows.sent(len);
        }
        // The outer return route is empty: the responder takes it for ours (spec 02 §6.3).
        self.address(message, Route::new());
        Ok(())
    }

    /// A record with a message of the channel itself. Its return route names us, as the reference's does; nobody
    /// reads it.
    fn seal_control(&self, message: &[u8]) -> Result<Message, Failure> {
        let mut payload = Payload::copy_from(message);
        payload.prepend(&[0; NONCE_LEN]);
        payload.append(&[0; TAG_LEN]);
        self.numbered
            .lock()
            .sealer
            .seal(payload.as_mut_slice())
            .map_err(Failure::Record)?;
        let mut message = Message {
            payload,
            ..Message::default()
        };
        self.address(&mut message, Route::from(&self.state.peer.channel));
        Ok(message)
    }

    /// Makes it the message that carries a record to the peer.
    fn address(&self, message: &mut Message, back: Route) {
        // A channel under this one may rely on it.
        message.payload.set_sealing(PayloadSealing::Record);
        Traffic::count(&self.state.traffic.sent_messages, 1);
        message.onward.clone_from(&self.state.route.lock());
        message.back = back;
        message.local = Default::default();
    }

    /// The channel ends: its worker is told by way of the decryptor's, which owns it.
    fn fail(&self, node: &Node, failure: &Failure) {
        tracing::debug!(channel = %self.state.peer.channel, "the channel closes: {failure}");
        self.state.close(failure.reason());
        let _ = node.stop_worker(&self.state.decryptor);
    }
}

impl Passage for Sealing {
    fn pass(&self, node: &Node, _: &Address, message: &mut Message) -> Result<bool> {
        if is_too_far(message) {
            tracing::debug!(channel = %self.state.peer.channel, "a message with a route that nobody would read is dropped");
            return Ok(false);
        }
        match self.seal(message) {
            Ok(()) => Ok(true),
            Err(failure) => {
                self.fail(node, &failure);
                Err(portolan_runtime::Error::other("the channel cannot seal it"))
            }
        }
    }

    fn carries_records(&self) -> bool {
        true
    }

    /// What finds the window closed waits in the worker's mailbox.
    fn is_ready(&self) -> bool {
        self.state.windows.as_deref().is_none_or(Windows::is_open)
    }

    fn lost(&self, node: &Node, error: &SendError) {
        self.fail(node, &Failure::Send(error.clone()));
    }
}

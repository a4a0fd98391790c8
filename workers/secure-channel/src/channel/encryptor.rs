//! The worker that messages go into a channel by.

use std::sync::Arc;
use std::time::Duration;

use portolan_runtime::{AccessControl, Address, Context, Envelope, MAX_HOPS, Message, Route, SendError};
use portolan_runtime::{MailboxOptions, Payload, Result, Sealing, WorkerOptions};
use tokio::sync::watch;

use super::handshake::stage;
use super::{CloseReason, State, Traffic};
use crate::aead::TAG_LEN;
use crate::credentials::CurrentCredential;
use crate::local::LocalIdentity;
use crate::record::{HEADER_FRONT, HEADER_ONLY_FROM, NONCE_LEN, PREFIX_LEN, RecordError, Sealer};
use crate::wire::message::{CLOSE, PAYLOAD_TAIL, put_payload_head, refresh_credentials_message};

/// What stands behind a payload in a record: the padding, and room for the tag.
const TAIL: [u8; PAYLOAD_TAIL.len() + TAG_LEN] = {
    let mut tail = [0; PAYLOAD_TAIL.len() + TAG_LEN];
    tail[0] = PAYLOAD_TAIL[0];
    tail
};

/// The longest header that is sealed alone: its length stands in two bytes.
const MAX_HEADER: usize = u16::MAX as usize;

/// How long a channel that ends waits for its transport to take the last messages.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Seals messages in the buffer that they came in.
pub(super) struct Encryptor {
    state: Arc<State>,
    sealer: Sealer,
    /// Where heads are written before they go into the head room. Kept, so that nothing is allocated per message.
    head: Vec<u8>,
    credentials: Option<Credentials>,
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
        Self {
            state,
            sealer,
            head: Vec::new(),
            credentials,
        }
    }

    /// Starts the worker, owned by the decryptor's.
    pub(super) fn start(self, decryptor: &Context) -> Result<Address> {
        let mailbox = MailboxOptions::new(self.state.peer.channel.clone())
            .incoming(AccessControl::AllowAll)
            .outgoing(AccessControl::AllowAll)
            .terminal()
            .peer(Arc::clone(&self.state.peer))
            .flow_alias(Arc::clone(&self.state.flow));
        let stage = stage(decryptor.node(), self.state.route.lock().next());
        let options = WorkerOptions::with_mailbox(mailbox).stage(stage);
        decryptor.start_task(options, |ctx| self.run(ctx))
    }

    async fn run(mut self, mut ctx: Context) {
        if let Err(failure) = self.serve(&mut ctx).await {
            tracing::debug!(channel = %ctx.address(), "the channel closes: {failure}");
            self.state.close(failure.reason());
        }
        // Whoever stops this address means the whole channel.
        let _ = ctx.node().stop_worker(&self.state.decryptor);
        Box::pin(self.say_goodbye(&mut ctx)).await;
    }

    /// Until the worker is asked to stop.
    async fn serve(&mut self, ctx: &mut Context) -> Result<(), Failure> {
        // A credential that arrived between the handshake's payload and now.
        self.refresh_credentials(ctx)?;
        loop {
            // The message is gone before anything else is waited for: an idle channel keeps no space for one.
            match self.next(ctx).await {
                Event::Message(envelope) if is_too_far(&envelope.message) => {
                    tracing::debug!(channel = %ctx.address(), "a message with a route that nobody would read is dropped");
                }
                Event::Message(envelope) => {
                    let sealed = self.seal(envelope.message)?;
                    ctx.forward(sealed).map_err(Failure::Send)?;
                }
                Event::Credential => self.refresh_credentials(ctx)?,
                Event::Stop => return Ok(()),
            }
            if ctx.has_unsent() {
                ctx.flush().await;
            }
        }
    }

    async fn next(&mut self, ctx: &mut Context) -> Event {
        let next = match &mut self.credentials {
            None => ctx.next().await,
            Some(credentials) => tokio::select! {
                biased;
                envelope = ctx.next() => envelope,
                changed = credentials.source.changed() => {
                    if changed.is_err() {
                        // The source is gone; what was presented stays.
                        self.credentials = None;
                    }
                    return Event::Credential;
                }
            },
        };
        next.map_or(Event::Stop, Event::Message)
    }

    /// Makes a record of a message, ready to be sent on its way.
    fn seal(&mut self, message: Message) -> Result<Message, Failure> {
        let Message {
            onward,
            back,
            mut payload,
            ..
        } = message;
        let len = payload.len();
        let inner = onward.as_slice().get(1..).unwrap_or_default();
        // What is a record already needs no second seal.
        let header_only = self.state.agreement.sealed_headers
            && len >= HEADER_ONLY_FROM
            && payload.sealing() != Sealing::Unknown;
        let front = if header_only { HEADER_FRONT } else { NONCE_LEN };
        self.head.clear();
        self.head.resize(front, 0);
        put_payload_head(&mut self.head, inner, back.as_slice(), len);
        payload.prepend(&self.head);
        let header = self.head.len() - front + PREFIX_LEN;
        // Routes of addresses that are kilobytes long: as rare as it sounds.
        if header_only && header <= MAX_HEADER {
            self.sealer
                .seal_header(payload.as_mut_slice(), header)
                .map_err(Failure::Record)?;
            Traffic::count(&self.state.traffic.sent_carried, 1);
        } else {
            if header_only {
                payload.strip_front(HEADER_FRONT - NONCE_LEN);
            }
            payload.append(&TAIL);
            self.sealer
                .seal(payload.as_mut_slice())
                .map_err(Failure::Record)?;
        }
        Traffic::count(&self.state.traffic.sent_bytes, len);
        // The outer return route is empty: the responder takes it for ours (spec 02 §6.3).
        Ok(self.record(payload, Route::new()))
    }

    /// A record with a message of the channel itself. Its return route names us, as the reference's does; nobody
    /// reads it.
    fn seal_control(&mut self, message: &[u8]) -> Result<Message, Failure> {
        let mut payload = Payload::copy_from(message);
        payload.prepend(&[0; NONCE_LEN]);
        payload.append(&[0; TAG_LEN]);
        self.sealer
            .seal(payload.as_mut_slice())
            .map_err(Failure::Record)?;
        Ok(self.record(payload, Route::from(&self.state.peer.channel)))
    }

    /// The message that carries a record to the peer.
    fn record(&self, mut payload: Payload, back: Route) -> Message {
        // A channel under this one may rely on it.
        payload.set_sealing(Sealing::Record);
        Traffic::count(&self.state.traffic.sent_messages, 1);
        Message {
            onward: self.state.route.lock().clone(),
            back,
            payload,
            local: Default::default(),
        }
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
        let sealed = self.seal_control(&message)?;
        ctx.forward(sealed).map_err(Failure::Send)
    }

    /// Sends what was handed to us before the stop, and then Close, unless it was the peer who closed.
    async fn say_goodbye(&mut self, ctx: &mut Context) {
        let mut last = Vec::new();
        if self
            .state
            .close_reason()
            .is_none_or(|reason| reason == CloseReason::Stopped)
        {
            while let Some(envelope) = ctx.try_next() {
                if !is_too_far(&envelope.message) {
                    last.extend(self.seal(envelope.message).ok());
                }
            }
        }
        self.state.close(CloseReason::Stopped);
        if self.state.close_reason() != Some(CloseReason::ByPeer) {
            last.extend(self.seal_control(&CLOSE).ok());
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

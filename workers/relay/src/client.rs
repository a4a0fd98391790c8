//! The target's registration worker (spec 03 §2.2, 01 §2.4 "remote-relay endpoint").
//!
//! The worker registers, and stays: an older relay service forwards messages to the worker instead of past it, and
//! then the worker takes itself off and sends them on. It does that from an address that belongs to the flow of the
//! connection to the relay node, so that they reach what is a consumer of that connection, and nothing else.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use portolan_runtime::{
    AccessControl, Address, Context, Envelope, Error, Flow, MailboxOptions, Message, Node, Route,
    WorkerOptions, environment,
};
use tokio::sync::{oneshot, watch};

use crate::protocol::RelayRequest;
use crate::registration::{ANSWER_TIMEOUT, Accepted, Outcome, Registration};

/// How a relay is registered.
#[derive(Debug, Clone)]
pub struct RegisterOptions {
    /// How long to wait for the answer. Default: 30 s.
    pub timeout: Duration,
    /// The flow that messages through the relay belong to. Default: that of the first hop of the route, or a new one
    /// without consumers if that has none.
    pub flow: Option<Arc<Flow>>,
}

impl Default for RegisterOptions {
    fn default() -> Self {
        Self {
            timeout: ANSWER_TIMEOUT,
            flow: None,
        }
    }
}

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The relay service refused.
    #[error("the relay service refused the relay: {0}")]
    Refused(String),
    /// Nobody answered.
    #[error(
        "the relay service did not answer within {0:?}; other implementations refuse in this way, so check that the \
         credential allows the relay's name"
    )]
    TimedOut(Duration),
    /// Something answered that is no relay service.
    #[error("the answer to the registration cannot be understood: {0}")]
    Unintelligible(&'static str),
    /// The connection ended before there was an answer.
    #[error("{0}")]
    ConnectionEnded(String),
    /// The registration could not be sent.
    #[error("the registration could not be sent: {0}")]
    NotSent(#[from] Error),
}

/// Registers a relay over a route to the relay node, without the service's address: the connection or the channel,
/// and what may come between. Waits until the relay exists. When the result, or the future, is dropped, nothing is
/// left behind on this node; the relay itself ends with the connection, as the protocol has no message for that.
///
/// # Errors
/// [`RegistrationError`], with the reason that the service gave, if it gave one.
pub async fn register(
    node: &Node,
    route: impl Into<Route>,
    request: RelayRequest,
    options: RegisterOptions,
) -> Result<RegisteredRelay, RegistrationError> {
    let mut onward: Route = route.into();
    onward.push(request.service().into());
    let flow = match (options.flow, onward.next()) {
        (Some(flow), _) => flow,
        (None, first) => first
            .and_then(|first| node.flow_of(first))
            .unwrap_or_else(|| node.new_flow(None)),
    };
    let worker = Address::random();
    let internal = Address::random();
    let outgoing = onward.next().map_or(AccessControl::DenyAll, AccessControl::only);
    let workers = WorkerOptions::with_mailbox(
        MailboxOptions::new(&worker)
            .incoming(AccessControl::AllowAll)
            .outgoing(outgoing),
    )
    .mailbox(
        MailboxOptions::new(&internal)
            .outgoing(AccessControl::AllowAll)
            .producer(Arc::clone(&flow)),
    );

    let (outcome, answered) = oneshot::channel();
    let (lost, when_lost) = watch::channel(None);
    let endpoint = Endpoint {
        internal,
        registration: Registration::new(request.clone(), environment::now(), options.timeout),
        outcome: Some(outcome),
        lost,
    };
    let message = Message::new(onward, &worker, request.encode());
    // Before the worker starts, lest the answer come first.
    node.add_consumer(&flow, &worker);
    node.start_task(workers, move |ctx| endpoint.run(ctx, message))?;
    let running = Running {
        node: node.clone(),
        worker,
    };

    match answered.await {
        Ok(Ok(Outcome::Accepted(accepted))) => Ok(RegisteredRelay {
            accepted,
            flow,
            lost: when_lost,
            running,
        }),
        Ok(Ok(Outcome::Refused(reason))) => Err(RegistrationError::Refused(reason)),
        Ok(Ok(Outcome::Unintelligible(why))) => Err(RegistrationError::Unintelligible(why)),
        Ok(Ok(Outcome::TimedOut(after))) => Err(RegistrationError::TimedOut(after)),
        Ok(Ok(Outcome::Lost(reason))) => Err(RegistrationError::ConnectionEnded(reason)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Error::Stopped.into()),
    }
}

/// A relay that exists. Dropping it stops the registration worker.
#[derive(Debug)]
pub struct RegisteredRelay {
    accepted: Accepted,
    flow: Arc<Flow>,
    lost: watch::Receiver<Option<Arc<str>>>,
    running: Running,
}

impl RegisteredRelay {
    /// The relay's address on the relay node, as text: `forward_to_<name>`.
    pub fn remote_address(&self) -> &str {
        &self.accepted.remote_address
    }

    /// The route from this node to the relay.
    pub fn forwarding_route(&self) -> &Route {
        &self.accepted.forwarding_route
    }

    /// The registration worker on this node.
    pub fn worker_address(&self) -> &Address {
        &self.running.worker
    }

    /// The flow that messages through the relay belong to. What they shall reach must be made a consumer of it.
    pub fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// Waits until the relay is known not to exist any more, and gives the reason. The future borrows nothing.
    pub fn lost(&self) -> impl Future<Output = String> + Send + 'static {
        let mut lost = self.lost.clone();
        async move {
            match lost.wait_for(Option::is_some).await {
                Ok(reason) => reason.as_deref().unwrap_or_default().to_owned(),
                Err(_) => "the registration worker has stopped".to_owned(),
            }
        }
    }
}

/// Stops the worker when dropped.
#[derive(Debug)]
struct Running {
    node: Node,
    worker: Address,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.node.stop_worker(&self.worker);
    }
}

/// Which of the worker's addresses sends on what came through the relay.
const INTERNAL: usize = 1;

struct Endpoint {
    internal: Address,
    registration: Registration,
    /// Taken when there is an answer.
    outcome: Option<oneshot::Sender<Result<Outcome, Error>>>,
    lost: watch::Sender<Option<Arc<str>>>,
}

impl Endpoint {
    async fn run(mut self, mut ctx: Context, registration: Message) {
        let connection = match registration.onward.next() {
            Some(first) => ctx.node().ended(first),
            None => return,
        };
        let mut connection = pin!(connection);
        // A connection that takes nothing must not keep the timeout from being noticed.
        let sent = async {
            ctx.send_message(registration).await?;
            Ok(())
        };
        let remaining = self
            .registration
            .poll_timeout()
            .map(tokio::time::Instant::from_std);
        let sent = match remaining {
            Some(deadline) => tokio::time::timeout_at(deadline, sent).await,
            None => Ok(sent.await),
        };
        if let Ok(Err(error)) = sent {
            if let Some(outcome) = self.outcome.take() {
                let _ = outcome.send(Err(error));
            }
            return;
        }
        loop {
            let timeout = self
                .registration
                .poll_timeout()
                .map(tokio::time::Instant::from_std);
            let waits = timeout.is_some();
            let outcome = tokio::select! {
                biased;
                () = &mut connection => self.registration.handle_connection_end(),
                envelope = ctx.next() => match envelope {
                    Some(envelope) => self.handle(&mut ctx, envelope),
                    None => return,
                },
                () = tokio::time::sleep_until(timeout.unwrap_or_else(tokio::time::Instant::now)), if waits => {
                    self.registration.handle_timeout(environment::now())
                }
            };
            if let Some(outcome) = outcome
                && self.report(outcome)
            {
                return;
            }
            if ctx.has_unsent() {
                ctx.flush().await;
            }
        }
    }

    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Option<Outcome> {
        let mut message = envelope.message;
        if message.onward.len() <= 1 {
            return self
                .registration
                .handle_answer(&message.back, message.payload.as_slice());
        }
        let own = message.onward.step();
        if message.onward.next() == own.as_ref() || message.onward.next() == Some(&self.internal) {
            tracing::debug!("a message through a relay wanted to go to the registration worker again");
        } else if let Err(error) = ctx.forward_from(INTERNAL, message) {
            tracing::debug!("a message through a relay could not be delivered: {error}");
        }
        None
    }

    /// Tells whoever waits. `true` if the worker has nothing left to do.
    fn report(&mut self, outcome: Outcome) -> bool {
        let over = !matches!(outcome, Outcome::Accepted(_));
        if let Some(waiting) = self.outcome.take() {
            return waiting.send(Ok(outcome)).is_err() || over;
        }
        if let Outcome::Lost(reason) = outcome {
            self.lost.send_replace(Some(reason.into()));
        }
        over
    }
}

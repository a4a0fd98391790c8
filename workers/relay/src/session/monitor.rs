//! Runs a session: builds paths with a closure, sends pings, shows the state.

use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use portolan_runtime::environment::random;
use portolan_runtime::{
    AccessControl, Address, Body, Cbor, Context, Message, Node, Result, Route, WorkerOptions, environment,
    route,
};
use tokio::sync::watch;

use super::core::{Action, Session, SessionSettings, SessionState};

/// The service at the end of a path that answers pings.
pub const ECHO: &str = "echo";

/// A path that was built, as the closure of a [`SessionMonitor`] gives it.
pub struct Connection {
    transport_route: Route,
    ended: BoxFuture<'static, String>,
    keep: Option<Box<dyn Send>>,
}

impl Connection {
    /// A path. `transport_route` leads to the node at its end, whose `echo` is pinged; it is empty for this node
    /// itself. `ended` resolves to the reason when the path is known to have ended.
    pub fn new(
        transport_route: impl Into<Route>,
        ended: impl Future<Output = String> + Send + 'static,
    ) -> Self {
        Self {
            transport_route: transport_route.into(),
            ended: Box::pin(ended),
            keep: None,
        }
    }

    /// Something that is dropped when the session gives the path up: it should close what was opened.
    pub fn keep(mut self, keep: impl Send + 'static) -> Self {
        self.keep = Some(Box::new(keep));
        self
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("transport_route", &self.transport_route)
            .finish_non_exhaustive()
    }
}

/// What there is to know about a session.
#[derive(Debug, Clone)]
pub struct SessionStatus {
    /// Whether there is a path.
    pub state: SessionState,
    /// Since when.
    pub since: SystemTime,
    /// Why the last path ended or the last attempt failed. Stays when the session is up again.
    pub reason: Option<Arc<str>>,
    /// How often a path was built, after the first time.
    pub reconnects: u64,
    /// The time that the last answered ping took, on the present path.
    pub round_trip: Option<Duration>,
    /// When the next attempt begins, if the session is down.
    pub retry_at: Option<SystemTime>,
}

impl SessionStatus {
    /// Whether there is a path.
    pub fn is_up(&self) -> bool {
        self.state == SessionState::Up
    }

    fn of(session: &Session, before: Option<&Self>) -> Self {
        let now = environment::system_time();
        let state = session.state();
        Self {
            state,
            since: before
                .filter(|before| before.state == state && before.reconnects == session.reconnects())
                .map_or(now, |before| before.since),
            reason: session.reason().cloned(),
            reconnects: session.reconnects(),
            round_trip: session.round_trip(),
            retry_at: session
                .retry_at()
                .map(|at| now + at.saturating_duration_since(environment::now())),
        }
    }
}

/// A running session. Dropping it ends it, and closes its path.
#[derive(Debug)]
pub struct SessionMonitor {
    node: Node,
    collector: Address,
    status: watch::Receiver<SessionStatus>,
}

impl SessionMonitor {
    /// Starts a session on a node. `connect` builds a path; its error is one sentence that says what failed. It runs
    /// on one of the node's arbiters, and is dropped in the middle when it takes too long or the session is stopped,
    /// so what it has opened until then should close itself when dropped.
    ///
    /// # Errors
    /// If the node is stopping.
    pub fn start<C, F, E>(node: &Node, settings: SessionSettings, connect: C) -> Result<Self>
    where
        C: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<Connection, E>> + 'static,
        E: fmt::Display + 'static,
    {
        let collector = Address::random();
        let session = Session::new(settings);
        let (status, watched) = watch::channel(SessionStatus::of(&session, None));
        let options = WorkerOptions::new(&collector).outgoing(AccessControl::DenyAll);
        node.start_task(options, move |ctx| run(ctx, session, status, connect))?;
        Ok(Self {
            node: node.clone(),
            collector,
            status: watched,
        })
    }

    /// The state, to be looked at and to be waited for.
    pub fn status(&self) -> watch::Receiver<SessionStatus> {
        self.status.clone()
    }

    /// The state now.
    pub fn current(&self) -> SessionStatus {
        self.status.borrow().clone()
    }

    /// Waits until there is a path; at once if there is one.
    ///
    /// # Errors
    /// [`portolan_runtime::Error::Stopped`] if the session ends before.
    pub async fn up(&self) -> Result<()> {
        let mut status = self.status.clone();
        let up = status.wait_for(SessionStatus::is_up).await;
        up.map(|_| ()).map_err(|_| portolan_runtime::Error::Stopped)
    }

    /// The address that pings come back to. It stays the same over all paths.
    pub fn collector(&self) -> &Address {
        &self.collector
    }

    /// Ends the session and waits until its path is closed.
    pub async fn stop(self) {
        let _ = self.node.stop_worker_and_wait(&self.collector).await;
    }
}

impl Drop for SessionMonitor {
    fn drop(&mut self) {
        let _ = self.node.stop_worker(&self.collector);
    }
}

fn pings(ctx: &Context) -> Result<Context> {
    ctx.detached(WorkerOptions::new(Address::random()).incoming(AccessControl::DenyAll))
}

/// What the session waits for beside time.
struct Path<F> {
    connecting: Option<Pin<Box<F>>>,
    connection: Option<Connection>,
    /// Pings are sent from here and not from the collector, so that one that waits for room in a busy connection does
    /// not keep answers from being read.
    pings: Context,
}

async fn run<C, F, E>(
    mut ctx: Context,
    mut session: Session,
    status: watch::Sender<SessionStatus>,
    mut connect: C,
) where
    C: FnMut() -> F,
    F: Future<Output = Result<Connection, E>>,
    E: fmt::Display,
{
    let mut path = match pings(&ctx) {
        Ok(pings) => Path {
            connecting: None,
            connection: None,
            pings,
        },
        Err(_) => return,
    };
    session.handle_start(environment::now());
    loop {
        while let Some(action) = session.poll_action() {
            match action {
                Action::Connect => path.connecting = Some(Box::pin(connect())),
                Action::Close => {
                    path.connecting = None;
                    path.connection = None;
                    // A ping that still waits for room in the old path must not keep those of the next one waiting.
                    if path.pings.has_unsent()
                        && let Ok(pings) = pings(&ctx)
                    {
                        path.pings = pings;
                    }
                }
                Action::Ping(content) => {
                    if let Err(reason) = path.ping(&ctx, content) {
                        session.handle_lost(environment::now(), &reason, random());
                    }
                }
            }
        }
        status.send_modify(|status| *status = SessionStatus::of(&session, Some(status)));

        let timeout = session.poll_timeout().map(tokio::time::Instant::from_std);
        tokio::select! {
            biased;
            envelope = ctx.next() => match envelope {
                Some(envelope) => {
                    if let Ok(Cbor(content)) = Cbor::<u64>::decode(envelope.message.payload.as_slice()) {
                        session.handle_pong(environment::now(), content);
                    }
                }
                None => return,
            },
            reason = ended(&mut path.connection) => session.handle_lost(environment::now(), &reason, random()),
            built = built(&mut path.connecting) => {
                path.connecting = None;
                match built {
                    Ok(connection) => {
                        path.connection = Some(connection);
                        session.handle_connected(environment::now(), random());
                    }
                    Err(reason) => session.handle_failed(environment::now(), &reason.to_string(), random()),
                }
            }
            () = path.pings.flush(), if path.pings.has_unsent() => {}
            () = sleep_until(timeout) => session.handle_timeout(environment::now(), random()),
        }
    }
}

impl<F> Path<F> {
    fn ping(&mut self, ctx: &Context, content: u64) -> Result<(), String> {
        let Some(connection) = &self.connection else {
            return Ok(());
        };
        let mut onward = connection.transport_route.clone();
        if let Some(flow) = onward.next().and_then(|first| ctx.node().flow_of(first)) {
            ctx.node().add_consumer(&flow, ctx.address());
        }
        onward.extend(&route![ECHO]);
        let message = Message::new(onward, ctx.address(), Cbor(content).encode());
        self.pings.forward(message).map_err(|error| error.to_string())
    }
}

async fn built<F: Future>(connecting: &mut Option<Pin<Box<F>>>) -> F::Output {
    match connecting {
        Some(connecting) => connecting.await,
        None => pending().await,
    }
}

async fn ended(connection: &mut Option<Connection>) -> String {
    match connection {
        Some(connection) => (&mut connection.ended).await,
        None => pending().await,
    }
}

async fn sleep_until(timeout: Option<tokio::time::Instant>) {
    match timeout {
        Some(timeout) => tokio::time::sleep_until(timeout).await,
        None => pending().await,
    }
}

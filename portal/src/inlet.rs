//! The end of a portal that listens for applications.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use portolan_runtime::{
    AccessControl, Address, Context, Error, Message, Node, Placement, Result, Route, WorkerOptions,
};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::connection::{Blueprint, Connection, FarEnd, Rules};
use crate::status::{FailureHook, FailureKind, PortalStatus};
use crate::stream::Stream;

/// How long the outlet's answer may take by default; the client is closed then.
pub const PONG_TIMEOUT: Duration = Duration::from_millis(4_800);
/// Connections of one inlet at a time, by default.
pub const MAX_CONNECTIONS: u64 = 16 * 1024;
/// Pauses after an error of `accept`.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How an inlet is made.
#[derive(Clone)]
pub struct InletOptions {
    /// Who may send to its connections.
    pub incoming: AccessControl,
    /// Whom its connections may be sent to.
    pub outgoing: AccessControl,
    /// How long the outlet's answer may take.
    pub pong_timeout: Duration,
    /// Connections at a time; further clients are closed at once.
    pub max_connections: u64,
    /// Leave Nagle's algorithm on towards applications.
    pub enable_nagle: bool,
    /// Told of each failure: a session may look at its path sooner.
    pub on_failure: Option<FailureHook>,
}

impl Default for InletOptions {
    fn default() -> Self {
        Self {
            incoming: AccessControl::AllowAll,
            outgoing: AccessControl::AllowAll,
            pong_timeout: PONG_TIMEOUT,
            max_connections: MAX_CONNECTIONS,
            enable_nagle: false,
            on_failure: None,
        }
    }
}

impl std::fmt::Debug for InletOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InletOptions")
            .field("pong_timeout", &self.pong_timeout)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Way {
    Open(Route),
    /// Why there is none.
    Paused(String),
}

/// A running inlet. It listens from the start; without a route it closes clients at once.
#[derive(Debug, Clone)]
pub struct Inlet {
    node: Node,
    address: Address,
    local: SocketAddr,
    way: Arc<RwLock<Way>>,
    status: Arc<PortalStatus>,
}

impl Inlet {
    /// Listens on `bind`, `ip:port`, without a route yet. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// If the socket address cannot be listened on.
    pub async fn start(node: &Node, bind: &str, options: InletOptions) -> Result<Self> {
        let listening = |source| Error::io(format!("cannot listen on {bind}"), source);
        let socket = TcpListener::bind(bind).await.map_err(listening)?;
        let local = socket.local_addr().map_err(listening)?;
        let socket = socket.into_std().map_err(listening)?;
        let status = PortalStatus::new(options.on_failure.clone());
        let way = Arc::new(RwLock::new(Way::Paused(
            "it has not been connected yet".to_owned(),
        )));
        let acceptor = Acceptor {
            rules: Rules {
                incoming: options.incoming.clone(),
                outgoing: options.outgoing.clone(),
            },
            options: Arc::new(options),
            way: Arc::clone(&way),
            status: Arc::clone(&status),
        };
        let address = node.start_task(
            WorkerOptions::new(Address::random()).incoming(AccessControl::DenyAll),
            move |ctx| acceptor.run(ctx, socket),
        )?;
        Ok(Self {
            node: node.clone(),
            address,
            local,
            way,
            status,
        })
    }

    /// New connections go along this route, whose last hop is the outlet. Open ones stay where they are.
    pub fn connect(&self, route: impl Into<Route>) {
        *self.way.write() = Way::Open(route.into());
    }

    /// New clients are closed at once, for this reason.
    pub fn pause(&self, reason: impl Into<String>) {
        *self.way.write() = Way::Paused(reason.into());
    }

    /// Whether clients are served.
    pub fn is_connected(&self) -> bool {
        matches!(*self.way.read(), Way::Open(_))
    }

    /// The socket address that it listens on.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The address of its worker.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its counters and last failure.
    pub fn status(&self) -> &Arc<PortalStatus> {
        &self.status
    }

    /// Stops listening and closes its connections.
    pub fn stop(&self) {
        let _ = self.node.stop_worker(&self.address);
    }

    /// As [`Inlet::stop`], and waits until the port is free.
    pub async fn stop_and_wait(&self) {
        let _ = self.node.stop_worker_and_wait(&self.address).await;
    }
}

struct Acceptor {
    rules: Rules,
    options: Arc<InletOptions>,
    way: Arc<RwLock<Way>>,
    status: Arc<PortalStatus>,
}

impl Acceptor {
    async fn run(self, ctx: Context, socket: std::net::TcpListener) {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!("an inlet could not be started: {error}");
                return;
            }
        };
        let mut pause = SHORTEST_PAUSE;
        let stopping = ctx.stopping();
        tokio::pin!(stopping);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stopping => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => {
                    pause = SHORTEST_PAUSE;
                    if let Err(error) = self.open(&ctx, socket) {
                        self.status.fail(FailureKind::Peer, error.to_string());
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                    ) => {}
                Err(error) => {
                    tracing::warn!("accepting a client failed, next try in {pause:?}: {error}");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Starts a portal connection, or closes the client by dropping its socket.
    fn open(&self, ctx: &Context, socket: TcpStream) -> Result<()> {
        let route = match &*self.way.read() {
            Way::Open(route) => route.clone(),
            Way::Paused(reason) => {
                self.status.fail(
                    FailureKind::NotConnected,
                    format!("a client was closed: {reason}"),
                );
                return Ok(());
            }
        };
        if self.status.open() >= self.options.max_connections {
            let limit = self.options.max_connections;
            self.status.fail(
                FailureKind::Limit,
                format!("a client was closed: {limit} are connected, which is the limit"),
            );
            return Ok(());
        }
        let io = |error| Error::io("preparing a client's socket", error);
        let _ = socket.set_nodelay(!self.options.enable_nagle);
        let _ = SockRef::from(&socket).set_keepalive(true);
        let socket = socket.into_std().map_err(io)?;
        let node = ctx.node().clone();
        let blueprint = Blueprint::new(&self.rules);
        let first_hop = route.next().cloned();
        // The connection lives where its channel lives, and can be reached from there alone.
        let placement = first_hop
            .as_ref()
            .and_then(|hop| node.arbiter_of(hop))
            .map_or(Placement::Owner, Placement::Index);
        let flow = first_hop.as_ref().and_then(|hop| node.flow_of(hop));
        let own = blueprint.address().clone();
        let options = blueprint.options(placement);
        let (open, pong_timeout) = (self.status.begin(), self.options.pong_timeout);
        if let Some(flow) = flow {
            node.add_consumer(&flow, &own);
        }
        ctx.start_task(options, move |mut ctx| async move {
            let (stream, ping) = Stream::inlet();
            let socket = match TcpStream::from_std(socket) {
                Ok(socket) => socket,
                Err(error) => return open.0.fail(FailureKind::Reset, error.to_string()),
            };
            let deadline = Instant::now() + pong_timeout;
            let own = ctx.address().clone();
            let asking = ctx.send_message(Message::new(route, &own, ping.encode()));
            match tokio::time::timeout_at(deadline, asking).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let text = format!("the outlet cannot be asked: {error}");
                    return open.0.fail(FailureKind::PathLost, text);
                }
                Err(_) => {
                    let text = "the outlet cannot be asked: the path to it takes nothing";
                    return open.0.fail(FailureKind::NoAnswer, text.to_owned());
                }
            }
            let far = FarEnd {
                first_hop,
                ..FarEnd::default()
            };
            match Connection::start(ctx, blueprint, socket, stream, far, open) {
                Ok(connection) => connection.run(Some(deadline)).await,
                Err(error) => tracing::debug!("a portal connection could not be started: {error}"),
            }
        })?;
        Ok(())
    }
}

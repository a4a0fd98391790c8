//! The end of a portal that listens for applications.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portolan_runtime::{
    AccessControl, Address, Context, Error, MailboxOptions, Node, Placement, Result, Route, WorkerOptions,
};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::connection::{Asking, Connection, End, Parts};
use crate::gate;
use crate::intercept::{Interception, Side};
use crate::memory::WindowMemory;
use crate::protocol::PortalMessage;
use crate::socket::{ByteStream, Socket};
use crate::status::{DelayHook, FailureHook, FailureKind, PortalStatus};
use crate::stream::Stream;
use crate::ways::{OnWay, Ways};

/// How long the outlet's answer may take by default; the client is closed then.
pub const PONG_TIMEOUT: Duration = Duration::from_millis(4_800);
/// An outlet that has not answered within this time, though there is hardly a path that takes longer, may be gone.
pub const USUAL_ANSWER: Duration = Duration::from_secs(1);
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
    /// What waits for applications and may still come, of all connections together; to be shared by all portals of a node.
    /// Clients for which there is none left are closed at once.
    pub memory: WindowMemory,
    /// Ways to the outlet side by side, [`MAX_STRIPES`](crate::MAX_STRIPES) at most; see [`Inlet::connect_stripe`].
    pub stripes: usize,
    /// What stands between clients and the portal.
    pub intercept: Option<Interception>,
    /// Told of each failure.
    pub on_failure: Option<FailureHook>,
    /// Told when an outlet has not answered a client for [`USUAL_ANSWER`]: a session may look whether its path is still there, long
    /// before the client is given up.
    pub on_delay: Option<DelayHook>,
}

impl Default for InletOptions {
    fn default() -> Self {
        Self {
            incoming: AccessControl::AllowAll,
            outgoing: AccessControl::AllowAll,
            pong_timeout: PONG_TIMEOUT,
            max_connections: MAX_CONNECTIONS,
            enable_nagle: false,
            memory: WindowMemory::default(),
            stripes: 1,
            intercept: None,
            on_failure: None,
            on_delay: None,
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

/// A way to the outlet.
#[derive(Debug, Clone)]
struct Way {
    route: Route,
    /// The outlet there has said that it takes bytes behind a Ping.
    takes_early: Arc<AtomicBool>,
}

impl Way {
    fn new(route: Route) -> Self {
        Self {
            route,
            takes_early: Arc::default(),
        }
    }
}

/// A running inlet. It listens from the start; without a route it closes clients at once.
#[derive(Debug, Clone)]
pub struct Inlet {
    node: Node,
    address: Address,
    local: SocketAddr,
    acceptor: Arc<Acceptor>,
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
        let status = PortalStatus::new(options.on_failure.clone(), options.on_delay.clone());
        let ways = Ways::new(options.stripes, "it has not been connected yet");
        let acceptor = Arc::new(Acceptor {
            options,
            ways,
            status,
        });
        let accepting = Arc::clone(&acceptor);
        let address = node.start_task(
            WorkerOptions::new(Address::random()).incoming(AccessControl::DenyAll),
            move |ctx| async move { accepting.run(ctx, socket).await },
        )?;
        Ok(Self {
            node: node.clone(),
            address,
            local,
            acceptor,
        })
    }

    /// Serves a client that has not come by the socket address: an application in this process, or one that came by a socket of
    /// another kind. Like the others it is closed, by dropping the stream, if it cannot be served; [`Inlet::status`] says why.
    ///
    /// The stream should tell a drop without a shutdown from the end of what it brings: that is how a client learns that the
    /// connection broke.
    ///
    /// # Errors
    /// If the inlet or the node is stopping.
    pub fn serve(&self, client: Box<dyn ByteStream>) -> Result<()> {
        let start = |options, request| {
            self.node
                .start_task_of(&self.address, options, move |ctx| serve(ctx, request))
        };
        self.acceptor
            .open(&self.node, |_| Ok(Client::Stream(client)), start)
    }

    /// New connections go along this route, whose last hop is the outlet. Open ones stay where they are.
    pub fn connect(&self, route: impl Into<Route>) {
        let route = route.into();
        self.acceptor.ways.set_all(|| Ok(Way::new(route.clone())));
    }

    /// As [`Inlet::connect`], for one of several ways side by side: a new connection gets the one with the fewest. They
    /// should begin with different hops, on different arbiters. Nothing happens if [`InletOptions::stripes`] has none of
    /// this index.
    pub fn connect_stripe(&self, index: usize, route: impl Into<Route>) {
        self.acceptor.ways.set(index, Ok(Way::new(route.into())));
    }

    /// New clients are closed at once, for this reason.
    pub fn pause(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.acceptor.ways.set_all(|| Err(reason.clone()));
    }

    /// As [`Inlet::pause`], for one of several ways; the others go on.
    pub fn pause_stripe(&self, index: usize, reason: impl Into<String>) {
        self.acceptor.ways.set(index, Err(reason.into()));
    }

    /// Whether clients are served.
    pub fn is_connected(&self) -> bool {
        self.acceptor.ways.is_any_open()
    }

    /// Connections on one of several ways.
    pub fn connections_on(&self, index: usize) -> u64 {
        self.acceptor.ways.connections(index)
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
        &self.acceptor.status
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

#[derive(Debug)]
struct Acceptor {
    options: InletOptions,
    ways: Ways<Way>,
    status: Arc<PortalStatus>,
}

impl Acceptor {
    async fn run(&self, ctx: Context, socket: std::net::TcpListener) {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!("an inlet could not be started: {error}");
                return;
            }
        };
        let mut pause = SHORTEST_PAUSE;
        let mut stopping = pin!(ctx.stopping());
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stopping => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => {
                    pause = SHORTEST_PAUSE;
                    if let Err(error) = self.accept(&ctx, socket) {
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

    fn accept(&self, ctx: &Context, socket: TcpStream) -> Result<()> {
        let client = |arbiter: Option<usize>| {
            let _ = socket.set_nodelay(!self.options.enable_nagle);
            let _ = SockRef::from(&socket).set_keepalive(true);
            if arbiter.is_none_or(|arbiter| arbiter == ctx.arbiter()) {
                return Ok(Client::Here(socket));
            }
            let io = |error| Error::io("preparing a client's socket", error);
            Ok(Client::Elsewhere(socket.into_std().map_err(io)?))
        };
        self.open(ctx.node(), client, |options, request| {
            ctx.start_task(options, move |ctx| serve(ctx, request))
        })
    }

    /// Starts a portal connection, or closes the client by dropping it. `client` is told on which arbiter it will be used.
    fn open(
        &self,
        node: &Node,
        client: impl FnOnce(Option<usize>) -> Result<Client>,
        start: impl FnOnce(WorkerOptions, Box<Request>) -> Result<Address>,
    ) -> Result<()> {
        let (Way { route, takes_early }, on_way) = match self.ways.take() {
            Ok(taken) => taken,
            Err(reason) => {
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
        let early = takes_early.load(Ordering::Relaxed);
        let Some((stream, ping)) = Stream::inlet(self.options.memory.clone(), early) else {
            let text = format!("a client was closed: {}", self.options.memory.exhausted());
            self.status.fail(FailureKind::Limit, text);
            return Ok(());
        };
        let own = Address::random();
        let (incoming, refused) = gate::incoming(&self.options.incoming, None);
        let first_hop = route.next().cloned();
        // The connection lives where its channel lives, and can be reached from there alone.
        let arbiter = first_hop.as_ref().and_then(|hop| node.arbiter_of(hop));
        let options = WorkerOptions::with_mailbox(
            MailboxOptions::new(&own)
                .incoming(incoming)
                .outgoing(self.options.outgoing.clone()),
        )
        .placement(arbiter.map_or(Placement::Owner, Placement::Index));
        let flow = first_hop.as_ref().and_then(|hop| node.flow_of(hop));
        let request = Box::new(Request {
            client: client(arbiter)?,
            intercept: self
                .options
                .intercept
                .clone()
                .map(|intercept| intercept.counted_in(&self.options.memory)),
            on_way,
            ping,
            asking: Asking { route, takes_early },
            parts: Parts {
                stream,
                remote: None,
                first_hop,
                peer: None,
                refused,
                outgoing: self.options.outgoing.clone(),
                early: None,
                deadline: Instant::now() + self.options.pong_timeout,
                open: self.status.begin(),
            },
        });
        if let Some(flow) = flow {
            node.add_consumer(&flow, &own);
        }
        start(options, request)?;
        Ok(())
    }
}

/// A client, and what it needs.
struct Request {
    client: Client,
    intercept: Option<Interception>,
    on_way: OnWay,
    ping: PortalMessage,
    asking: Asking,
    parts: Parts,
}

enum Client {
    /// Its socket can be used on this thread.
    Here(TcpStream),
    /// Its socket must be registered with another thread's event loop.
    Elsewhere(std::net::TcpStream),
    /// It came by another way.
    Stream(Box<dyn ByteStream>),
}

async fn serve(ctx: Context, request: Box<Request>) {
    let Some((_on_way, mut connection, asked)) = begin(ctx, request) else {
        return;
    };
    let end = match asked {
        Ok(()) => poll_fn(|cx| connection.poll(cx)).await,
        Err(end) => *end,
    };
    Box::pin(connection.end(end)).await;
}

/// Makes the connection and asks the outlet for it, or tells why there is none. Apart from [`serve`], whose future would have space for
/// all of this as long as the connection lives.
#[allow(clippy::type_complexity)]
fn begin(ctx: Context, request: Box<Request>) -> Option<(OnWay, Box<Connection>, Result<(), Box<End>>)> {
    let Request {
        client,
        intercept,
        on_way,
        ping,
        asking,
        parts,
    } = *request;
    let socket = match client {
        Client::Here(socket) => Ok(Socket::Plain(socket)),
        Client::Elsewhere(socket) => TcpStream::from_std(socket).map(Socket::Plain),
        Client::Stream(stream) => Ok(Socket::Wrapped(stream)),
    };
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => {
            parts.open.0.fail(FailureKind::Reset, error.to_string());
            return None;
        }
    };
    let socket = match intercept {
        None => socket,
        Some(intercept) => match intercepted(&ctx, &intercept, socket, &asking.route) {
            Ok(socket) => socket,
            Err(error) => {
                parts.open.0.fail(FailureKind::Intercepted, error.to_string());
                return None;
            }
        },
    };
    let mut connection = Box::new(Connection::inlet(ctx, parts, socket, asking));
    let asked = connection.ask(&ping).map_err(Box::new);
    Some((on_way, connection, asked))
}

/// Puts an interceptor before a client.
fn intercepted(ctx: &Context, intercept: &Interception, client: Socket, route: &Route) -> io::Result<Socket> {
    let node = ctx.node();
    // As rules for what is sent see it: the first hop that leaves the node is the channel, or there is none.
    let leaves = route.iter().find(|hop| node.is_terminal(hop));
    let peer = leaves.and_then(|channel| node.peer_of(channel));
    let endpoint = match &client {
        Socket::Plain(socket) => socket.peer_addr().ok().map(|address| address.to_string()),
        _ => None,
    };
    let opened = intercept.open(Side::Inlet, peer.map(|peer| peer.identifier), endpoint)?;
    Ok(opened.around(client))
}

//! Listening, connecting, listing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use portolan_runtime::{Address, Flow, Node, Placement, Stage, WorkerOptions};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::connection::Shared;
use crate::listener;
use crate::options::TcpOptions;
use crate::socket;

/// Why there is no listener or no connection.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The name has no address.
    #[error("cannot find the address of {address}: {source}")]
    Resolve {
        /// As given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody answered, or somebody refused.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// As given.
        address: String,
        /// What the system said about the last address tried.
        source: io::Error,
    },
    /// The node refused to start the workers.
    #[error(transparent)]
    Runtime(#[from] portolan_runtime::Error),
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// This node.
    Initiated,
    /// The peer.
    Accepted,
}

/// The TCP transport of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TcpTransport {
    node: Node,
    options: Arc<TcpOptions>,
    connections: Arc<DashMap<Address, TcpConnection>>,
    listeners: Arc<DashMap<Address, TcpListener>>,
    held_up: Arc<AtomicU64>,
}

/// A connection, as it is listed.
#[derive(Debug, Clone)]
pub struct TcpConnection {
    shared: Arc<Shared>,
    role: Role,
    since: Instant,
}

impl TcpConnection {
    /// The address that stands in routes: what is sent there goes to the peer.
    pub fn sender(&self) -> &Address {
        &self.shared.sender
    }

    /// The address from which received messages come.
    pub fn receiver(&self) -> &Address {
        &self.shared.receiver
    }

    /// The flow of received messages: make its consumers what the peer shall reach.
    pub fn flow(&self) -> &Arc<Flow> {
        &self.shared.flow
    }

    /// Who opened it.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The peer's socket address, as given when connecting.
    pub fn peer(&self) -> &str {
        &self.shared.peer
    }

    /// When it was opened.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Bytes received and sent.
    pub fn traffic(&self) -> (u64, u64) {
        (
            self.shared.bytes_in.load(Ordering::Relaxed),
            self.shared.bytes_out.load(Ordering::Relaxed),
        )
    }
}

/// A listener, as it is listed.
#[derive(Debug, Clone)]
pub struct TcpListener {
    address: Address,
    local: SocketAddr,
    flow: Arc<Flow>,
    accepts: watch::Sender<bool>,
}

impl TcpListener {
    /// From now on connections are accepted. See [`TcpTransport::bind`].
    pub fn accept(&self) {
        self.accepts.send_replace(true);
    }

    /// The address of the worker that accepts: stop it to stop listening.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The socket address that it listens on.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The flow whose consumers every accepted connection can reach.
    pub fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }
}

/// Resolves when the listener shall accept.
async fn accepting(mut told: watch::Receiver<bool>) {
    if told.wait_for(|accepts| *accepts).await.is_err() {
        // Nobody is left who could say so.
        std::future::pending::<()>().await;
    }
}

/// Takes a connection out of the list when it is over.
struct Listed<D> {
    connections: Arc<DashMap<Address, TcpConnection>>,
    sender: Address,
    _done: D,
}

impl<D> Drop for Listed<D> {
    fn drop(&mut self) {
        self.connections.remove(&self.sender);
    }
}

impl TcpTransport {
    /// The transport of a node.
    pub fn new(node: &Node, options: TcpOptions) -> Self {
        Self {
            node: node.clone(),
            options: Arc::new(options),
            connections: Arc::default(),
            listeners: Arc::default(),
            held_up: Arc::default(),
        }
    }

    pub(crate) fn options(&self) -> &Arc<TcpOptions> {
        &self.options
    }

    /// Listens on a socket address, `ip:port`; port 0 lets the system choose. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// If the address is not one of this machine or in use.
    pub async fn listen(&self, address: &str) -> Result<TcpListener, TcpError> {
        let listener = self.bind(address).await?;
        listener.accept();
        Ok(listener)
    }

    /// As [`listen`](Self::listen), but peers that connect wait with the system until [`TcpListener::accept`]: for a node that must
    /// know its address, or that it can have it, before what peers ask for is there. What is sent to a worker that is not there yet is
    /// lost, and a handshake, for instance, is tried again only half a minute later.
    ///
    /// # Errors
    /// If the address is not one of this machine or in use.
    pub async fn bind(&self, address: &str) -> Result<TcpListener, TcpError> {
        let failed = |source| TcpError::Listen {
            address: address.to_owned(),
            source,
        };
        let socket = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        let socket = socket.into_std().map_err(failed)?;
        let flow = self.node.new_flow(None);
        let (transport, spawner) = (self.clone(), Arc::clone(&flow));
        let (accepts, told) = watch::channel(false);
        let worker = self.node.start_task(
            WorkerOptions::new(Address::random())
                .stage(Stage::Transport)
                .placement(Placement::Next),
            move |ctx| async move {
                let address = ctx.address().clone();
                let listeners = Arc::clone(&transport.listeners);
                tokio::select! {
                    biased;
                    () = ctx.stopping() => {}
                    () = accepting(told) => listener::accept(ctx, socket, transport, spawner).await,
                }
                listeners.remove(&address);
            },
        )?;
        let listener = TcpListener {
            address: worker.clone(),
            local,
            flow,
            accepts,
        };
        self.listeners.insert(worker, listener.clone());
        Ok(listener)
    }

    /// Connects to `host:port`; all addresses of a name are tried in turn. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// If the name has no address, or none of its addresses answers in time.
    pub async fn connect(&self, address: &str) -> Result<TcpConnection, TcpError> {
        self.connect_on(address, Placement::Next).await
    }

    /// As [`TcpTransport::connect`], with the connection's workers on a given arbiter.
    ///
    /// # Errors
    /// As [`TcpTransport::connect`].
    pub async fn connect_on(&self, address: &str, placement: Placement) -> Result<TcpConnection, TcpError> {
        let failed = |source| TcpError::Connect {
            address: address.to_owned(),
            source,
        };
        let connecting = async {
            let resolved = tokio::net::lookup_host(address)
                .await
                .map_err(|source| TcpError::Resolve {
                    address: address.to_owned(),
                    source,
                })?;
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for candidate in resolved {
                match TcpStream::connect(candidate).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(failed(last))
        };
        let limit = self.options.connect_timeout;
        let stream = timeout(limit, connecting).await.unwrap_or_else(|_| {
            Err(failed(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {limit:?}"),
            )))
        })?;
        let stream = stream.into_std().map_err(failed)?;
        Ok(self.start(stream, None, Role::Initiated, address.to_owned(), placement, ())?)
    }

    pub(crate) fn start<D: Send + 'static>(
        &self,
        stream: std::net::TcpStream,
        spawner: Option<&Arc<Flow>>,
        role: Role,
        peer: String,
        placement: Placement,
        done: D,
    ) -> portolan_runtime::Result<TcpConnection> {
        socket::prepare(&stream, &self.options);
        let shared = Shared::new(&self.node, spawner, peer, Arc::clone(&self.held_up));
        let connection = TcpConnection {
            shared: Arc::clone(&shared),
            role,
            since: Instant::now(),
        };
        self.connections.insert(shared.sender.clone(), connection.clone());
        let listed = Listed {
            connections: Arc::clone(&self.connections),
            sender: shared.sender.clone(),
            _done: done,
        };
        shared.start(&self.node, stream, Arc::clone(&self.options), placement, listed)?;
        Ok(connection)
    }

    /// Closes a connection: what waits to be written is written first. The sender's address is gone when this returns.
    ///
    /// # Errors
    /// If there is no such connection.
    pub fn disconnect(&self, sender: &Address) -> portolan_runtime::Result<()> {
        self.node.stop_worker(sender)
    }

    /// Stops listening; accepted connections stay.
    ///
    /// # Errors
    /// If there is no such listener.
    pub fn stop_listener(&self, address: &Address) -> portolan_runtime::Result<()> {
        self.node.stop_worker(address)
    }

    /// All open connections.
    pub fn connections(&self) -> Vec<TcpConnection> {
        self.connections
            .iter()
            .map(|connection| connection.clone())
            .collect()
    }

    /// Connections that were closed because their peer took nothing while others waited behind it
    /// ([`TcpOptions::hold_up_timeout`]).
    pub fn held_up(&self) -> u64 {
        self.held_up.load(Ordering::Relaxed)
    }

    /// All listeners.
    pub fn listeners(&self) -> Vec<TcpListener> {
        self.listeners.iter().map(|listener| listener.clone()).collect()
    }
}

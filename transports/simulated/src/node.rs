//! A node in the network: listens, connects, and is otherwise a [`Node`] like others.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_runtime::{Flow, Node};
use tokio::time::{Instant, sleep, sleep_until};

use crate::connection::{self, Connection, Ends};
use crate::network::Network;

/// How long connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of one listener at a time, unless it says otherwise.
pub const MAX_CONNECTIONS: usize = 4096;
/// The first pause after which a connection request that was lost is repeated; each further one is twice as long.
const REPEAT: Duration = Duration::from_secs(1);

/// A node of the runtime, in a [`Network`]. A handle; it is used like the [`Node`] that it is.
#[derive(Debug, Clone)]
pub struct SimulatedNode {
    network: Network,
    name: Arc<str>,
    life: usize,
    node: Node,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// There never was a node with this name.
    #[error("there is no node {0} in the network")]
    Unknown(Arc<str>),
    /// The node does not listen, or takes no more connections, or has crashed.
    #[error("{0} refuses connections")]
    Refused(Arc<str>),
    /// No answer.
    #[error("no answer from {0} within {CONNECT_TIMEOUT:?}")]
    TimedOut(Arc<str>),
    /// The node that connects is not running any more.
    #[error("{0} has crashed or is stopping")]
    Stopped(Arc<str>),
}

/// What accepts connections at a node.
pub(crate) struct Listening {
    flow: Arc<Flow>,
    open: Arc<AtomicUsize>,
    limit: usize,
}

/// A listener. A handle: dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Listener {
    flow: Arc<Flow>,
    open: Arc<AtomicUsize>,
}

impl Listener {
    /// The flow whose consumers every accepted connection can reach.
    pub fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// Accepted connections that are open.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// Counts a connection as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Deref for SimulatedNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl SimulatedNode {
    pub(crate) fn new(network: Network, name: Arc<str>, life: usize, node: Node) -> Self {
        Self {
            network,
            name,
            life,
            node,
        }
    }

    /// Its name in the network.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The node of the runtime.
    pub fn runtime(&self) -> &Node {
        &self.node
    }

    /// Accepts connections, [`MAX_CONNECTIONS`] at a time. What peers shall reach must be made a consumer of the listener's flow.
    /// A second listener takes the place of the first.
    pub fn listen(&self) -> Listener {
        self.listen_to(MAX_CONNECTIONS)
    }

    /// As [`listen`](Self::listen), for so many connections at a time; further ones are refused.
    pub fn listen_to(&self, limit: usize) -> Listener {
        let listener = Listener {
            flow: self.node.new_flow(None),
            open: Arc::default(),
        };
        let mut state = self.network.state();
        if let Some(host) = state
            .hosts
            .get_mut(&self.name)
            .filter(|host| host.life == self.life)
        {
            host.listening = Some(Listening {
                flow: Arc::clone(&listener.flow),
                open: Arc::clone(&listener.open),
                limit,
            });
        }
        listener
    }

    /// Accepts no more connections. Those that are open stay.
    pub fn stop_listening(&self) {
        let mut state = self.network.state();
        if let Some(host) = state
            .hosts
            .get_mut(&self.name)
            .filter(|host| host.life == self.life)
        {
            host.listening = None;
        }
    }

    /// Connects to the node with this name. Takes a round trip at least; a request that is lost is repeated.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, to: &str) -> Result<Connection, ConnectError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let mut pause = REPEAT;
        loop {
            let Some(round_trip) = self.network.request(&self.name, to) else {
                if Instant::now() + pause >= deadline {
                    sleep_until(deadline).await;
                    self.network
                        .note(format!("{} cannot connect to {to}: no answer", self.name));
                    return Err(ConnectError::TimedOut(to.into()));
                }
                sleep(pause).await;
                pause *= 2;
                continue;
            };
            sleep(round_trip).await;
            if !self.network.state().is_cut(&self.name, to) {
                return self.establish(&to.into()).inspect_err(|error| {
                    self.network
                        .note(format!("{} cannot connect to {to}: {error}", self.name));
                });
            }
        }
    }

    fn establish(&self, to: &Arc<str>) -> Result<Connection, ConnectError> {
        let mut state = self.network.state();
        let runs = state
            .hosts
            .get(&self.name)
            .is_some_and(|host| host.life == self.life && !host.crashed);
        if !runs {
            return Err(ConnectError::Stopped(Arc::clone(&self.name)));
        }
        let refused = || ConnectError::Refused(Arc::clone(to));
        let host = state
            .hosts
            .get(to)
            .ok_or_else(|| ConnectError::Unknown(Arc::clone(to)))?;
        let listening = host.listening.as_ref().ok_or_else(refused)?;
        let (peer, flow, open) = (
            host.node.clone(),
            Arc::clone(&listening.flow),
            Arc::clone(&listening.open),
        );
        if open.load(Ordering::Relaxed) >= listening.limit {
            return Err(refused());
        }
        let (there, back) = Network::new_connection(&mut state, &self.name, to);
        state.record(format!("{there} connected"));
        drop(state);
        open.fetch_add(1, Ordering::Relaxed);
        let accepted = Ends {
            network: self.network.clone(),
            outgoing: Arc::clone(&back),
            incoming: Arc::clone(&there),
        };
        connection::start(&peer, Some(&flow), accepted, Counted(open)).map_err(|_| refused())?;
        let initiated = Ends {
            network: self.network.clone(),
            outgoing: there,
            incoming: back,
        };
        connection::start(&self.node, None, initiated, ())
            .map_err(|_| ConnectError::Stopped(Arc::clone(&self.name)))
    }
}

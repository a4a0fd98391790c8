//! The whole path in this process: an inlet's node, a relay's node, an outlet's node, as the libraries make them, joined by TCP on
//! loopback, with a secure channel of each end to the relay's node and one from end to end through it.
//!
//! For what has to be counted inside the processes. How long things take is better asked of real processes ([`crate::paths`]).

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use portolan_identity::{
    Identity, KeyType, MemoryAttributeRepository, MemoryIdentityRepository, MemoryPurposeKeyRepository,
    MemorySecretStore, SoftwareVault,
};
use portolan_portal::{Inlet, InletOptions, Outlet, OutletOptions};
use portolan_relay::{
    AllowEverybody, RegisterOptions, RegisteredRelay, RelayName, RelayRequest, RelayService,
    RelayServiceOptions, register,
};
use portolan_runtime::services::Echo;
use portolan_runtime::{Address, Node, Route, route};
use portolan_secure_channel::{
    ChannelOptions, ListenerOptions, LocalIdentity, SecureChannel, SecureChannelListener, SecureChannels,
};
use portolan_tcp::{TcpConnection, TcpListener, TcpOptions, TcpTransport};

use crate::load::Failure;

/// Name of the relay.
const NAME: &str = "far";

/// UTC seconds.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A new identity with its keys in memory.
///
/// # Errors
/// When the system gives no random numbers.
pub fn identity() -> Result<LocalIdentity, Failure> {
    let vault = Arc::new(SoftwareVault::new(MemorySecretStore::default()));
    let identity =
        Identity::create(vault.as_ref(), now() - 10, KeyType::Ed25519).map_err(failed("an identity"))?;
    Ok(LocalIdentity::new(
        identity,
        vault,
        Arc::new(MemoryPurposeKeyRepository::default()),
    ))
}

/// Says what could not be made.
pub fn failed<E: Display>(what: &str) -> impl Fn(E) -> Failure + use<'_, E> {
    move |error| Failure(format!("{what}: {error}"))
}

/// A node with a TCP transport, secure channels and an identity.
pub struct Party {
    /// The node.
    pub node: Node,
    /// Its connections.
    pub tcp: TcpTransport,
    /// Its channels.
    pub channels: SecureChannels,
    options: ChannelOptions,
}

impl Party {
    /// A node with so many arbiters.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn new(arbiters: usize) -> Result<Self, Failure> {
        let node = Node::builder()
            .arbiters(arbiters)
            .build()
            .map_err(failed("a node"))?;
        let channels = SecureChannels::new(
            &node,
            Arc::new(MemoryIdentityRepository::default()),
            Arc::new(MemoryAttributeRepository::default()),
        );
        Ok(Self {
            tcp: TcpTransport::new(&node, TcpOptions::default()),
            channels,
            options: ChannelOptions::new(identity()?),
            node,
        })
    }

    /// Accepts channels at `api`.
    ///
    /// # Errors
    /// When it does already.
    pub fn listen(&self) -> Result<SecureChannelListener, Failure> {
        self.channels
            .listen("api", ListenerOptions::new(self.options.clone()))
            .map_err(failed("a channel listener"))
    }

    /// Accepts TCP connections on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub async fn listen_tcp(&self) -> Result<TcpListener, Failure> {
        self.tcp.listen("127.0.0.1:0").await.map_err(failed("a listener"))
    }

    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(&self, address: SocketAddr) -> Result<TcpConnection, Failure> {
        self.tcp
            .connect(&address.to_string())
            .await
            .map_err(failed("a connection"))
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// When no channel listener answers at the end of the route.
    pub async fn channel(&self, route: impl Into<Route>) -> Result<SecureChannel, Failure> {
        self.channels
            .create(route, self.options.clone())
            .await
            .map_err(failed("a secure channel"))
    }

    /// Starts the echo service.
    ///
    /// # Errors
    /// When it runs already.
    pub fn echo(&self) -> Result<Address, Failure> {
        self.node.start_sync_worker("echo", Echo).map_err(failed("echo"))
    }
}

/// A node that others connect to, with a channel listener and a relay service.
pub struct Relay {
    /// The node and what is in it.
    pub party: Party,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Relay {
    /// Starts one.
    ///
    /// # Errors
    /// When a part cannot be made.
    pub async fn start(arbiters: usize) -> Result<Self, Failure> {
        let party = Party::new(arbiters)?;
        let listening = party.listen_tcp().await?;
        let listener = party.listen()?;
        listener.accept_from(listening.flow());
        let options = RelayServiceOptions {
            reachable_from: vec![Arc::clone(listener.flow())],
            ..RelayServiceOptions::default()
        };
        RelayService::start(&party.node, AllowEverybody, options).map_err(failed("a relay service"))?;
        Ok(Self {
            party,
            address: listening.local(),
        })
    }
}

/// The node behind a relay, with an outlet and the echo service.
pub struct Far {
    /// The node and what is in it.
    pub party: Party,
    _relay: RegisteredRelay,
}

impl Far {
    /// Starts one whose outlet leads to `service`, and registers `name` at the relay's node.
    ///
    /// # Errors
    /// When a part cannot be made.
    pub async fn start(
        relay: &Relay,
        name: &str,
        service: SocketAddr,
        arbiters: usize,
    ) -> Result<Self, Failure> {
        let party = Party::new(arbiters)?;
        let connection = party.connect(relay.address).await?;
        let channel = party.channel(route![connection.sender(), "api"]).await?;
        let request = RelayRequest::Named(RelayName::new(name).map_err(failed("a name"))?);
        let registered = register(
            &party.node,
            route![channel.address()],
            request,
            RegisterOptions::default(),
        )
        .await
        .map_err(failed("a relay"))?;
        let listener = party.listen()?;
        listener.accept_from(registered.flow());
        listener.add_consumer(&party.echo()?);
        let outlet = Outlet::start(
            &party.node,
            "outlet",
            &service.to_string(),
            OutletOptions::default(),
        )
        .map_err(failed("an outlet"))?;
        listener.add_consumer(outlet.address());
        Ok(Self {
            party,
            _relay: registered,
        })
    }
}

/// The node that wants to reach what is behind the relay, with an inlet.
pub struct Near {
    /// The node and what is in it.
    pub party: Party,
    /// The channel from end to end.
    pub channel: SecureChannel,
    /// The inlet.
    pub inlet: Inlet,
}

impl Near {
    /// Starts one that goes through the relay's node to the relay `name`.
    ///
    /// # Errors
    /// When a part cannot be made.
    pub async fn start(relay: &Relay, name: &str, arbiters: usize) -> Result<Self, Failure> {
        let party = Party::new(arbiters)?;
        let connection = party.connect(relay.address).await?;
        let outer = party.channel(route![connection.sender(), "api"]).await?;
        let through: Address = format!("forward_to_{name}").as_str().into();
        let channel = party.channel(route![outer.address(), through, "api"]).await?;
        let inlet = Inlet::start(&party.node, "127.0.0.1:0", InletOptions::default())
            .await
            .map_err(failed("an inlet"))?;
        inlet.connect(route![channel.address(), "outlet"]);
        Ok(Self {
            party,
            channel,
            inlet,
        })
    }
}

/// Inlet, relay and outlet, each in a node of its own.
pub struct Chain {
    /// Where the application is.
    pub near: Near,
    /// Between.
    pub relay: Relay,
    /// Where the service is.
    pub far: Far,
}

impl Chain {
    /// Starts one that leads to `service`.
    ///
    /// # Errors
    /// When a part cannot be made.
    pub async fn start(service: SocketAddr, arbiters: usize) -> Result<Self, Failure> {
        let relay = Relay::start(arbiters).await?;
        let far = Far::start(&relay, NAME, service, arbiters).await?;
        let near = Near::start(&relay, NAME, arbiters).await?;
        Ok(Self { near, relay, far })
    }

    /// Stops the three nodes.
    pub fn stop(self) {
        for party in [self.near.party, self.far.party, self.relay.party] {
            party.node.stop_blocking();
        }
    }
}

/// Is a chain that leads to `service`, until the process is ended. Calls `ready` with the inlet's address.
///
/// # Errors
/// When a part cannot be made.
pub fn run(service: SocketAddr, ready: impl FnOnce(SocketAddr)) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let chain = runtime
        .block_on(Chain::start(service, 1))
        .map_err(|failure| io::Error::other(failure.0))?;
    ready(chain.near.inlet.local());
    loop {
        std::thread::park();
    }
}

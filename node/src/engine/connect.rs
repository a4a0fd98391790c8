//! From a multi-address to a route: opens what stands in it (spec 04 B4).
//!
//! Read from left to right. `/project/<p>` and `/node/<n>` are looked up at that moment, so that a path that is built again
//! finds a node on its new port. Everything up to a `/secure/<listener>` becomes one hop, the new channel's encryptor; any
//! number of them may follow one another.
//!
//! ```text
//! /project/default /service/forward_to_db /secure/api /service/outlet
//!  └ TCP, channel ┘                                   └ stays in the route
//!    = [c1]        [c1, forward_to_db]     channel over
//!                                          [c1, forward_to_db, api]
//!                                          = [c2]      [c2, outlet]
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, select_all};
use futures_util::stream::FuturesUnordered;
use portolan_identity::{Identifier, Identity};
use portolan_runtime::{Address, Node, Placement, Route};
use portolan_secure_channel::{
    ChannelOptions, CredentialSource, LocalIdentity, SecureChannel, SecureChannels, TrustPolicy,
};
use portolan_tcp::transport::Role;
use portolan_tcp::{TcpConnection, TcpError, TcpTransport};

use crate::error::{Error, Result};
use crate::host_port::HostPort;
use crate::multiaddr::{Component, MultiAddr};
use crate::state::{Home, Project};

/// How long each part of a path that is given up may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(300);

/// Between two attempts to open a channel to somebody who may come later: how much later than the other end a path is there.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(2);
/// Limit for one of these attempts. Three of them overlap, so that a slow path works too.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(6);

/// Told when nobody has answered for a while.
pub(crate) type Waiting = Arc<dyn Fn() + Send + Sync>;

/// Opens connections and channels to other nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) node: Node,
    pub(crate) tcp: TcpTransport,
    pub(crate) channels: SecureChannels,
    pub(crate) home: Home,
}

/// How we appear to others on the way.
#[derive(Clone)]
pub(crate) struct Appearance {
    /// Our identity in every channel that is opened.
    pub(crate) identity: LocalIdentity,
    /// Whose credentials about others we believe.
    pub(crate) authorities: Vec<Identity>,
    /// The credential that we present.
    pub(crate) credentials: Option<Arc<dyn CredentialSource>>,
    /// The identity expected in the last channel that the route asks for with `/secure/…`.
    pub(crate) authorized: Vec<Identifier>,
    /// Limit for all of it.
    pub(crate) timeout: Duration,
    /// What whoever is at the other end may reach here. Nothing, unless it has to come back (a relay).
    pub(crate) reachable: &'static [&'static str],
    /// Be patient: a listener that does not answer, because its relay or its node is not there yet, is asked again and again
    /// within the limit, over the connection that is open already, and this is told why.
    pub(crate) waiting: Option<Waiting>,
    /// A TCP connection that this node has opened to the same address will do, as long as it lasts: for what has little to say and
    /// need not outlive it.
    pub(crate) borrow: bool,
}

impl Appearance {
    fn trust(&self) -> TrustPolicy {
        match self.authorized.as_slice() {
            [] => TrustPolicy::Everyone,
            some => TrustPolicy::identifiers(some.iter().copied()),
        }
    }
}

/// A route that was opened, and what was opened for it. When it is dropped, all of it is closed.
pub(crate) struct Path {
    node: Node,
    tcp: TcpTransport,
    route: Route,
    sender: Option<Address>,
    /// The connection is somebody else's, and is left open.
    borrowed: bool,
    channels: Vec<SecureChannel>,
    /// Where the connection runs, and with it the channels and what goes through them.
    placement: Placement,
}

impl Path {
    /// Nothing is open yet.
    fn new(connector: &Connector, placement: Placement) -> Self {
        Self {
            node: connector.node.clone(),
            tcp: connector.tcp.clone(),
            route: Route::new(),
            sender: None,
            borrowed: false,
            channels: Vec::new(),
            placement,
        }
    }

    /// The route to what was asked for.
    pub(crate) fn route(&self) -> &Route {
        &self.route
    }

    /// The route to the node at the other end: up to the last hop that leaves this node. Empty if all of it is here.
    pub(crate) fn transport_route(&self) -> Route {
        match (self.channels.last(), &self.sender) {
            (Some(channel), _) => channel.address().into(),
            (None, Some(sender)) => sender.into(),
            (None, None) => Route::new(),
        }
    }

    /// The last channel.
    pub(crate) fn channel(&self) -> Option<&SecureChannel> {
        self.channels.last()
    }

    /// Waits until any part of the path ends, and says which. The future borrows nothing.
    pub(crate) fn lost(&self) -> BoxFuture<'static, String> {
        let mut parts: Vec<BoxFuture<'static, String>> = Vec::new();
        for channel in &self.channels {
            let closed = channel.closed();
            parts.push(Box::pin(async move { closed.await.to_string() }));
        }
        if let Some(sender) = &self.sender {
            let ended = self.node.ended(sender);
            parts.push(Box::pin(async move {
                ended.await;
                "the TCP connection ended".to_owned()
            }));
        }
        if parts.is_empty() {
            return Box::pin(std::future::pending());
        }
        Box::pin(async move { select_all(parts).await.0 })
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let sender = self.sender.take().filter(|_| !self.borrowed);
        let mut channels = std::mem::take(&mut self.channels);
        if sender.is_none() && channels.is_empty() {
            return;
        }
        let (node, tcp) = (self.node.clone(), self.tcp.clone());
        // The innermost channel first: each says goodbye through the parts below it.
        let close = move |_| async move {
            while let Some(channel) = channels.pop() {
                let stopped = node.stop_worker_and_wait(channel.address());
                let _ = tokio::time::timeout(GOODBYE, stopped).await;
            }
            if let Some(sender) = sender {
                let _ = tcp.disconnect(&sender);
            }
        };
        // Fails only while the node stops, which stops everything in the same order.
        let _ = self.node.start_task(Address::random(), close);
    }
}

impl Connector {
    /// Open everything that stands in `address`.
    ///
    /// # Errors
    ///
    /// When something does not answer, answers as somebody else, or the address makes no sense. What was opened by then is
    /// closed.
    pub(crate) async fn connect(&self, address: &MultiAddr, appearance: &Appearance) -> Result<Path> {
        self.connect_on(address, appearance, Placement::Next).await
    }

    /// As [`connect`](Self::connect), on a given arbiter.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub(crate) async fn connect_on(
        &self,
        address: &MultiAddr,
        appearance: &Appearance,
        placement: Placement,
    ) -> Result<Path> {
        let limit = appearance.timeout;
        match tokio::time::timeout(limit, self.open(address, appearance, placement)).await {
            Ok(result) => result,
            Err(_) => Err(Error::timeout(format!(
                "no connection along {address} within {} s",
                limit.as_secs_f32()
            ))),
        }
    }

    async fn open(&self, address: &MultiAddr, appearance: &Appearance, placement: Placement) -> Result<Path> {
        let mut path = Path::new(self, placement);
        let mut components = address.components().iter().peekable();
        while let Some(component) = components.next() {
            let at_start = path.route.is_empty();
            let only_at_start = |what: &str| {
                if at_start {
                    Ok(())
                } else {
                    Err(Error::invalid(format!(
                        "{what} can only stand at the start of a route, in {address}"
                    )))
                }
            };
            match component {
                Component::Project(name) => {
                    only_at_start("a project")?;
                    let project = self.project(name).await?;
                    self.open_project(&mut path, &project, appearance).await?;
                }
                Component::Node(name) => {
                    only_at_start("a node")?;
                    let target = self.node_address(name).await?;
                    self.open_tcp(&mut path, &target, appearance).await?;
                }
                Component::Ip4(_) | Component::Ip6(_) | Component::DnsAddr(_) => {
                    only_at_start("a host")?;
                    let Some(Component::Tcp(port)) = components.next() else {
                        return Err(Error::invalid(format!(
                            "after a host there must be /tcp/<port>, in {address}"
                        )));
                    };
                    let target = socket_address(component, *port)?;
                    self.open_tcp(&mut path, &target, appearance).await?;
                }
                Component::Service(name) | Component::Worker(name) => {
                    path.route.push(Address::local(name));
                }
                Component::Secure(name) => {
                    path.route.push(Address::local(name));
                    // The identity that is expected is that of the other end; what lies between need not be known.
                    let between = components
                        .clone()
                        .any(|next| matches!(next, Component::Secure(_)));
                    let trust = if between {
                        TrustPolicy::Everyone
                    } else {
                        appearance.trust()
                    };
                    self.open_channel(&mut path, trust, appearance).await?;
                }
                Component::Tcp(_) | Component::Udp(_) => {
                    return Err(Error::invalid(format!(
                        "a port needs a host before it, and only /tcp/ is supported, in {address}"
                    )));
                }
                Component::Space(_) => {
                    return Err(Error::invalid(format!("/space/ is not supported, in {address}")));
                }
            }
        }
        Ok(path)
    }

    async fn open_project(&self, path: &mut Path, project: &Project, appearance: &Appearance) -> Result<()> {
        let expected = project
            .identity
            .as_deref()
            .and_then(|identifier| identifier.parse::<Identifier>().ok())
            .ok_or_else(|| {
                Error::invalid(format!("the project `{}` has no usable identity", project.name))
                    .hint("enroll again with a fresh ticket: portolan project enroll TICKET")
            })?;
        self.open_described(path, &project.access_route, expected, appearance)
            .await
            .map_err(|error| Error {
                message: format!(
                    "the project `{}` cannot be reached: {}",
                    project.name, error.message
                ),
                ..error
            })
    }

    /// Open the route of a project record (03 §5.1): a host, a port, services; the last one is a secure channel listener,
    /// at which exactly `expected` must answer.
    async fn open_described(
        &self,
        path: &mut Path,
        route: &str,
        expected: Identifier,
        appearance: &Appearance,
    ) -> Result<()> {
        let address: MultiAddr = route
            .parse()
            .map_err(|error| Error::invalid(format!("`{route}` is not a route: {error}")))?;
        let mut components = address.components().iter();
        while let Some(component) = components.next() {
            match component {
                Component::Ip4(_) | Component::Ip6(_) | Component::DnsAddr(_) if path.route.is_empty() => {
                    let Some(Component::Tcp(port)) = components.next() else {
                        return Err(Error::invalid(format!(
                            "`{route}` has a host without /tcp/<port>"
                        )));
                    };
                    let target = socket_address(component, *port)?;
                    self.open_tcp(path, &target, appearance).await?;
                }
                Component::Service(name) | Component::Worker(name) | Component::Secure(name)
                    if !path.route.is_empty() =>
                {
                    path.route.push(Address::local(name));
                }
                other => {
                    return Err(Error::invalid(format!(
                        "`{other}` cannot stand there in the route `{route}`"
                    )));
                }
            }
        }
        // The services on the way are at the project's own node: nobody lies between.
        self.open_channel_with(path, TrustPolicy::Identifier(expected), appearance, false)
            .await
    }

    /// Open everything that stands in `address`, and a channel to the listener at its end, unless that is the end of a channel
    /// already.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub(crate) async fn connect_listener(
        &self,
        address: &MultiAddr,
        appearance: &Appearance,
    ) -> Result<Path> {
        let mut path = self.connect(address, appearance).await?;
        let ends_in_channel = path
            .channel()
            .is_some_and(|channel| *path.route() == Route::from(channel.address()));
        if !ends_in_channel {
            let trust = appearance.trust();
            self.open_channel(&mut path, trust, appearance).await?;
        }
        Ok(path)
    }

    /// Open a channel to the listener at the end of a route as project records have it.
    pub(crate) async fn connect_described(
        &self,
        route: &str,
        expected: Identifier,
        appearance: &Appearance,
    ) -> Result<Path> {
        let mut path = Path::new(self, Placement::Next);
        let limit = appearance.timeout;
        let opening = self.open_described(&mut path, route, expected, appearance);
        match tokio::time::timeout(limit, opening).await {
            Ok(result) => result.map(|()| path),
            Err(_) => Err(Error::timeout(format!(
                "no connection along {route} within {} s",
                limit.as_secs_f32()
            ))),
        }
    }

    async fn open_tcp(&self, path: &mut Path, target: &str, appearance: &Appearance) -> Result<()> {
        let open = appearance.borrow.then(|| self.opened_to(target)).flatten();
        path.borrowed = open.is_some();
        let connection = match open {
            Some(connection) => connection,
            None => self
                .tcp
                .connect_on(target, path.placement)
                .await
                .map_err(tcp_error)?,
        };
        for name in appearance.reachable {
            self.node.add_consumer(connection.flow(), &Address::local(name));
        }
        path.sender = Some(connection.sender().clone());
        path.route = connection.sender().into();
        Ok(())
    }

    /// The oldest connection that this node has opened to an address.
    fn opened_to(&self, target: &str) -> Option<TcpConnection> {
        self.tcp
            .connections()
            .into_iter()
            .filter(|connection| connection.role() == Role::Initiated && connection.peer() == target)
            .min_by_key(TcpConnection::since)
    }

    async fn open_channel(&self, path: &mut Path, trust: TrustPolicy, appearance: &Appearance) -> Result<()> {
        self.open_channel_with(path, trust, appearance, true).await
    }

    async fn open_channel_with(
        &self,
        path: &mut Path,
        trust: TrustPolicy,
        appearance: &Appearance,
        windows: bool,
    ) -> Result<()> {
        let options = ChannelOptions::new(appearance.identity.clone())
            .trust(trust)
            .authorities(appearance.authorities.iter().cloned())
            .shared_credentials(appearance.credentials.clone())
            .windows(windows)
            .timeout(appearance.timeout);
        let create = |options: &ChannelOptions| self.channels.create(path.route.clone(), options.clone());
        let created = match &appearance.waiting {
            None => create(&options).await,
            Some(waiting) => {
                let options = options.timeout(ATTEMPT_TIMEOUT);
                let mut attempts = FuturesUnordered::new();
                attempts.push(create(&options));
                loop {
                    tokio::select! {
                        Some(ended) = attempts.next() => match ended {
                            Err(portolan_secure_channel::Error::Timeout { .. }) => {}
                            ended => break ended,
                        },
                        () = tokio::time::sleep(ATTEMPT_INTERVAL) => {
                            waiting();
                            attempts.push(create(&options));
                        }
                    }
                }
            }
        };
        let channel = created.map_err(channel_error)?;
        for name in appearance.reachable {
            channel.add_consumer(&Address::local(name));
        }
        path.route = channel.address().into();
        path.channels.push(channel);
        Ok(())
    }

    async fn project(&self, name: &str) -> Result<Project> {
        let (home, name) = (self.home.clone(), name.to_owned());
        blocking(move || home.project(&name)).await
    }

    async fn node_address(&self, name: &str) -> Result<String> {
        let (home, name) = (self.home.clone(), name.to_owned());
        let bound = blocking(move || home.node(&name)?.bound_address()).await?;
        Ok(reachable_here(&bound))
    }
}

/// Where to connect to reach a listener of this machine: one that listens on all addresses is reached on loopback.
pub(crate) fn reachable_here(bound: &str) -> String {
    match bound.parse::<std::net::SocketAddr>() {
        Ok(mut address) if address.ip().is_unspecified() => {
            address.set_ip(match address.ip() {
                std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
            address.to_string()
        }
        _ => bound.to_owned(),
    }
}

/// Do what waits for a disk beside the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::failed(format!("a task did not finish: {error}"))))
}

fn socket_address(host: &Component, port: u16) -> Result<String> {
    let address = match host {
        Component::Ip4(ip) => HostPort::new(ip, port),
        Component::Ip6(ip) => HostPort::new(ip, port),
        Component::DnsAddr(name) => HostPort::new(name, port),
        other => return Err(Error::invalid(format!("`{other}` is not a host"))),
    };
    address
        .map(|address| address.to_string())
        .map_err(|error| Error::invalid(error.to_string()))
}

/// A failure of the TCP transport, for people.
pub(crate) fn tcp_error(error: TcpError) -> Error {
    match &error {
        TcpError::Listen { address, source } => match source.kind() {
            std::io::ErrorKind::AddrInUse => Error::exists(format!("{address} is in use by another process"))
                .hint("choose another port, or 0 for a free one"),
            std::io::ErrorKind::AddrNotAvailable => {
                Error::invalid(format!("{address} is not an address of this machine"))
            }
            _ => Error::failed(error.to_string()),
        },
        TcpError::Resolve { .. } | TcpError::Connect { .. } => Error::unreachable(error.to_string()),
        TcpError::Runtime(_) => Error::failed(error.to_string()),
    }
}

/// A failure of a secure channel, for people.
pub(crate) fn channel_error(error: portolan_secure_channel::Error) -> Error {
    use portolan_secure_channel::Error as Channel;
    let text = error.to_string();
    match error {
        Channel::Timeout { .. } => Error::timeout(text),
        Channel::TransportLost(_) => Error::unreachable(text),
        Channel::Peer(_) => Error::new(crate::ErrorCode::NotVerified, text),
        Channel::Runtime(portolan_runtime::Error::Send(_)) => Error::unreachable(text),
        Channel::Runtime(portolan_runtime::Error::AddressInUse(address)) => {
            Error::exists(format!("the address `{address}` is in use in this node"))
        }
        _ => Error::failed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        assert_eq!(reachable_here("0.0.0.0:4000"), "127.0.0.1:4000");
        assert_eq!(reachable_here("[::]:4000"), "[::1]:4000");
        assert_eq!(reachable_here("10.0.0.1:4000"), "10.0.0.1:4000");
    }

    #[test]
    fn hosts_become_socket_addresses() {
        let address: MultiAddr = "/ip6/::1/tcp/80".parse().unwrap();
        assert_eq!(socket_address(&address.components()[0], 80).unwrap(), "[::1]:80");
        let address: MultiAddr = "/dnsaddr/hub.example/tcp/80".parse().unwrap();
        assert_eq!(
            socket_address(&address.components()[0], 80).unwrap(),
            "hub.example:80"
        );
    }
}

//! Relays, portals, policies, channels, connections: what the owner of a node asks for.
//!
//! Each is the function behind a command and behind a request of the control interface. What is created here is written down with
//! the node, and comes back when it is restored, except channels, listeners and connections, which belong to one run.

use portolan_policy::{Explanation, HANDLE_MESSAGE, Policy, SubjectEnvironment};

use super::Node;
use crate::control::api::{
    AddPlugin, CreateInlet, CreateOutlet, CreateRelay, CreateSecureChannel, CreateSecureChannelListener,
    CreateTcpConnection, CreateTcpListener, InletStatus, OutletStatus, PluginStatus, PolicyStatus,
    PolicyTarget, RelayStatus, SecureChannelListenerStatus, SecureChannelStatus, ServiceStatus, SetPolicy,
    StartService, TcpConnectionStatus, TcpListenerStatus,
};
use crate::error::{Error, ErrorCode, Result};

/// Relays: names under which this node is reached at another.
impl Node {
    /// Register a relay, and keep it registered through restarts of either side.
    ///
    /// # Errors
    ///
    /// When the name is taken here or makes no sense. One that is not up yet, or was refused, is no error: its status says so, and the
    /// node goes on trying.
    pub async fn create_relay(&self, relay: CreateRelay) -> Result<RelayStatus> {
        self.on(move |running| async move { running.create_relay(relay).await })
            .await
    }

    /// All relays, sorted by name.
    pub fn relays(&self) -> Vec<RelayStatus> {
        self.running().relays()
    }

    /// One relay.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn relay(&self, name: &str) -> Result<RelayStatus> {
        self.running().relay(name)
    }

    /// Give a name up.
    ///
    /// # Errors
    ///
    /// When there is none of that name, or the state cannot be written.
    pub async fn delete_relay(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.on(move |running| async move { running.delete_relay(&name) })
            .await
    }
}

/// Portals: inlets and outlets.
impl Node {
    /// Open an outlet: the end of a portal that connects to the service.
    ///
    /// # Errors
    ///
    /// When its address is taken, or the target, the certificates or the policy make no sense.
    pub async fn create_outlet(&self, outlet: CreateOutlet) -> Result<OutletStatus> {
        self.on(move |running| async move { running.create_outlet(outlet).await })
            .await
    }

    /// All outlets, sorted by address.
    pub fn outlets(&self) -> Vec<OutletStatus> {
        self.running().outlets()
    }

    /// One outlet.
    ///
    /// # Errors
    ///
    /// When there is none at that address.
    pub fn outlet(&self, address: &str) -> Result<OutletStatus> {
        self.running().outlet(address)
    }

    /// Close an outlet and every connection through it; its own policy goes with it.
    ///
    /// # Errors
    ///
    /// When there is none at that address, or the state cannot be written.
    pub async fn delete_outlet(&self, address: &str) -> Result<()> {
        let address = address.to_owned();
        self.on(move |running| async move { running.delete_outlet(&address) })
            .await
    }

    /// Open an inlet: the end of a portal that applications connect to. It listens when this returns; whether its outlet is
    /// connected, its status says.
    ///
    /// # Errors
    ///
    /// When its port or its name is taken, or the route or the policy makes no sense.
    pub async fn create_inlet(&self, inlet: CreateInlet) -> Result<InletStatus> {
        self.on(move |running| async move { running.create_inlet(inlet).await })
            .await
    }

    /// All inlets, sorted by name.
    pub fn inlets(&self) -> Vec<InletStatus> {
        self.running().inlets()
    }

    /// One inlet.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn inlet(&self, alias: &str) -> Result<InletStatus> {
        self.running().inlet(alias)
    }

    /// Close an inlet and every connection through it. Its port is free when this returns.
    ///
    /// # Errors
    ///
    /// When there is none of that name, or the state cannot be written.
    pub async fn delete_inlet(&self, alias: &str) -> Result<()> {
        let alias = alias.to_owned();
        self.on(move |running| async move { running.delete_inlet(&alias).await })
            .await
    }
}

/// Plugins: WebAssembly components, run without trust in their authors as workers ([`StartWorker::of_plugin`]) or as interceptors of
/// inlets and outlets ([`CreateOutlet::intercept`]).
///
/// [`StartWorker::of_plugin`]: crate::api::StartWorker::of_plugin
impl Node {
    /// Have a plugin from now on, or put another file in its place ([`AddPlugin::replace`]): its workers go over without losing a
    /// message, all of them or none, and connections that begin from then on have the new one as their interceptor. Compiling one takes
    /// its time the first time.
    ///
    /// # Errors
    ///
    /// When the name is taken, the file cannot be read, is no plugin for this node or has not the digest that it should have, or a right
    /// or a limit makes no sense. Nothing has changed then.
    pub async fn add_plugin(&self, plugin: AddPlugin) -> Result<PluginStatus> {
        self.on(move |running| async move { running.add_plugin(plugin).await })
            .await
    }

    /// All plugins, sorted by name.
    pub fn plugins(&self) -> Vec<PluginStatus> {
        self.running().plugins()
    }

    /// One plugin.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn plugin(&self, name: &str) -> Result<PluginStatus> {
        self.running().plugin(name)
    }

    /// Have a plugin no longer, and forget its code.
    ///
    /// # Errors
    ///
    /// When there is none of that name, a worker runs it, an inlet or outlet is intercepted by it, or the state cannot be written.
    pub async fn remove_plugin(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.on(move |running| async move { running.remove_plugin(&name).await })
            .await
    }
}

/// Policies: who may use what.
impl Node {
    /// Set a policy, replacing an older one. It counts at once, on open portals too.
    ///
    /// # Errors
    ///
    /// When it cannot be read or can never work.
    pub async fn set_policy(
        &self,
        target: PolicyTarget,
        expression: impl Into<String>,
    ) -> Result<PolicyStatus> {
        let request = SetPolicy {
            target,
            expression: expression.into(),
        };
        self.on(move |running| async move { running.set_policy(&request) })
            .await
    }

    /// All policies.
    pub fn policies(&self) -> Vec<PolicyStatus> {
        self.running().list_policies()
    }

    /// One policy.
    ///
    /// # Errors
    ///
    /// When there is none for this target.
    pub fn policy(&self, target: &PolicyTarget) -> Result<PolicyStatus> {
        self.running().policy(target)
    }

    /// Forget a policy. What it protected falls back to the policy of its type; without one, nobody may pass.
    ///
    /// # Errors
    ///
    /// When there is none for this target.
    pub async fn delete_policy(&self, target: &PolicyTarget) -> Result<()> {
        let target = target.clone();
        self.on(move |running| async move { running.delete_policy(&target) })
            .await
    }

    /// Why a peer with these attributes would pass at a resource, or would not: by the policy of the resource of this name, or else by
    /// that of an inlet's or outlet's type, or of the type `resource` itself.
    ///
    /// # Errors
    ///
    /// When no policy counts there.
    pub fn explain_policy<'a>(
        &self,
        resource: &str,
        attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Explanation> {
        let own = self.policy(&PolicyTarget::resource(resource));
        let of_type = || self.policy(&PolicyTarget::Type(resource.to_owned()));
        let expression = match own.or_else(|_| of_type()) {
            Ok(policy) => policy.expression,
            Err(none) => {
                let of_outlet = self.outlet(resource).ok().and_then(|outlet| outlet.policy);
                let of_inlet = || self.inlet(resource).ok().and_then(|inlet| inlet.policy);
                of_outlet.or_else(of_inlet).ok_or(none)?
            }
        };
        let policy = Policy::parse_stored(&expression).map_err(|error| {
            Error::new(
                ErrorCode::State,
                format!("the policy of `{resource}` cannot be read: {error}"),
            )
        })?;
        let attributes: std::collections::BTreeMap<String, String> = attributes
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let peer = format!("I{}", "0".repeat(64));
        let subject = SubjectEnvironment::new(&peer)
            .with_credential(true)
            .with_attributes(&attributes)
            .with_resource(resource)
            .with_action(HANDLE_MESSAGE);
        Ok(policy.explain(&subject))
    }
}

/// Secure channels and their listeners.
impl Node {
    /// Open a secure channel and keep it open. Its address, put first in a route, leads through it.
    ///
    /// # Errors
    ///
    /// When nobody answers, or somebody else than was wanted.
    pub async fn create_secure_channel(&self, channel: CreateSecureChannel) -> Result<SecureChannelStatus> {
        self.on(move |running| async move { running.create_secure_channel(channel).await })
            .await
    }

    /// All open channels, those that others have opened too, oldest first.
    pub fn secure_channels(&self) -> Vec<SecureChannelStatus> {
        self.running().secure_channels()
    }

    /// One channel.
    ///
    /// # Errors
    ///
    /// When there is none at that address.
    pub fn secure_channel(&self, address: &str) -> Result<SecureChannelStatus> {
        self.running().secure_channel(address)
    }

    /// Close a channel.
    ///
    /// # Errors
    ///
    /// When there is none at that address.
    pub async fn delete_secure_channel(&self, address: &str) -> Result<()> {
        let address = address.to_owned();
        self.on(move |running| async move { running.delete_secure_channel(&address).await })
            .await
    }

    /// Listen for secure channels at a further address. Every node listens at `api`.
    ///
    /// # Errors
    ///
    /// When the address is taken, or the identity is not known.
    pub async fn create_secure_channel_listener(
        &self,
        listener: CreateSecureChannelListener,
    ) -> Result<SecureChannelListenerStatus> {
        self.on(move |running| async move { running.create_secure_channel_listener(listener).await })
            .await
    }

    /// All listeners for secure channels.
    pub fn secure_channel_listeners(&self) -> Vec<SecureChannelListenerStatus> {
        self.running().secure_channel_listeners()
    }

    /// One listener.
    ///
    /// # Errors
    ///
    /// When there is none at that address.
    pub fn secure_channel_listener(&self, address: &str) -> Result<SecureChannelListenerStatus> {
        self.running().secure_channel_listener(address)
    }

    /// Listen no longer; channels that are open stay.
    ///
    /// # Errors
    ///
    /// When there is none at that address, or it is `api`.
    pub async fn delete_secure_channel_listener(&self, address: &str) -> Result<()> {
        let address = address.to_owned();
        self.on(move |running| async move { running.delete_secure_channel_listener(&address) })
            .await
    }
}

/// TCP connections and listeners, and services.
impl Node {
    /// Connect to another node, `host:port`, and keep the connection.
    ///
    /// # Errors
    ///
    /// When nobody answers there within 10 s.
    pub async fn create_tcp_connection(&self, to: impl Into<String>) -> Result<TcpConnectionStatus> {
        let request = CreateTcpConnection {
            to: to.into(),
            timeout_ms: 10_000,
        };
        self.on(move |running| async move { running.create_tcp_connection(request).await })
            .await
    }

    /// All TCP connections.
    pub fn tcp_connections(&self) -> Vec<TcpConnectionStatus> {
        self.running().tcp_connections()
    }

    /// One connection, by its worker's address or by `host:port` of the other end.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn tcp_connection(&self, address: &str) -> Result<TcpConnectionStatus> {
        self.running().tcp_connection(address)
    }

    /// Close a connection.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn delete_tcp_connection(&self, address: &str) -> Result<()> {
        let address = address.to_owned();
        self.on(move |running| async move { running.delete_tcp_connection(&address) })
            .await
    }

    /// Listen for other nodes at a further address, `host:port`; port 0 lets the system choose.
    ///
    /// # Errors
    ///
    /// When the port is taken, or is not this machine's.
    pub async fn create_tcp_listener(&self, address: impl Into<String>) -> Result<TcpListenerStatus> {
        let request = CreateTcpListener {
            address: address.into(),
        };
        self.on(move |running| async move { running.create_tcp_listener(request).await })
            .await
    }

    /// All listeners.
    pub fn tcp_listeners(&self) -> Vec<TcpListenerStatus> {
        self.running().tcp_listeners()
    }

    /// One listener, by its worker's address or by `host:port`.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn tcp_listener(&self, address: &str) -> Result<TcpListenerStatus> {
        self.running().tcp_listener(address)
    }

    /// Listen there no longer; connections that are open stay. The node's own listener cannot be deleted.
    ///
    /// # Errors
    ///
    /// When there is none, or it is the node's own.
    pub async fn delete_tcp_listener(&self, address: &str) -> Result<()> {
        let address = address.to_owned();
        self.on(move |running| async move { running.delete_tcp_listener(&address) })
            .await
    }

    /// Start the service `hop` at an address, reachable over plain connections: it passes messages on.
    ///
    /// # Errors
    ///
    /// When the address is taken.
    pub async fn start_hop(&self, address: impl Into<String>) -> Result<ServiceStatus> {
        let request = StartService {
            kind: "hop".to_owned(),
            address: address.into(),
        };
        self.on(move |running| async move { running.start_service_on_request(request) })
            .await
    }

    /// All services that come with the node: `echo`, `uppercase`, `hop`, listeners, relays.
    pub fn services(&self) -> Vec<ServiceStatus> {
        self.running().services()
    }
}

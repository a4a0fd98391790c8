//! A running node: put together from its spec, and taken apart when it stops.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portolan_identity::{Identifier, MemoryAttributeRepository, MemoryIdentityRepository};
use portolan_policy::ResourceType;
use portolan_relay::{RelayAuthority, RelayName, RelayService, RelayServiceOptions, RelayTable};
use portolan_runtime::services::{Echo, Uppercase};
use portolan_runtime::{Address, Denial, Node, Peer, SyncWorker, WorkerOptions};
use portolan_secure_channel::{ListenerOptions, SecureChannelListener, SecureChannels, TrustPolicy};
use portolan_tcp::{TcpListener, TcpOptions, TcpTransport};
use tokio::sync::Notify;

use super::connect::{Connector, Path, blocking, tcp_error};
use super::core::Core;
use super::guard::Guard;
use super::inlets::OpenInlet;
use super::outlets::OpenOutlet;
use super::plugins::Plugins;
use super::policies::{Issuer, Policies};
use super::project_node::ProjectNode;
use super::relays::Relay;
use super::services::local_name;
use super::settings::Settings;
use super::started::StartedWorkers;
use crate::control::api::{
    NodeStatus, SecureChannelListenerStatus, ServedRelay, ServiceStatus, TcpListenerStatus,
};
use crate::error::{Error, Result};
use crate::host_port::HostPort;
use crate::state::{NodeRole, NodeSpec, OpenNode, Project, now};
use crate::worker_types::WorkerTypes;

/// The node's secure channel listener.
pub(super) const API: &str = "api";
/// How often a node looks whether this home has joined a project, or knows another address of it.
const LOOK_FOR_PROJECT: Duration = Duration::from_secs(3);
/// How often a node looks whether keys of its identity are due to be replaced.
const LOOK_FOR_DUE_KEYS: Duration = Duration::from_secs(30);
/// How often a node looks whether somebody else has rotated an identity that it uses. Before a handshake it looks in any case.
const LOOK_FOR_ROTATIONS: Duration = Duration::from_secs(5);
/// How often a node looks whether a credential of a peer has expired, and with it the right to an open portal.
const LOOK_FOR_LOST_RIGHTS: Duration = Duration::from_secs(1);
/// Identities of peers that are remembered. Anybody may open a channel to `api`, with an identity of up to 64 KiB.
const KNOWN_IDENTITIES: usize = 4096;
/// How long the workers of a stopping node may take, together. The whole node stops within 2 s.
const STOP_LIMIT: Duration = Duration::from_millis(1500);

/// A running node.
pub(crate) struct Running {
    pub(crate) node: OpenNode,
    pub(super) spec: NodeSpec,
    pub(crate) core: Arc<Core>,
    pub(super) listener: TcpListener,
    started: Instant,
    bound: String,
    /// Addresses that can be reached through the channels that others open to `api`.
    through_channels: Mutex<BTreeSet<String>>,
    pub(super) channel_listeners: Mutex<BTreeMap<String, ChannelListener>>,
    /// Secure channels that were asked for by the owner, by encryptor.
    pub(super) channels: Mutex<BTreeMap<String, OwnChannel>>,
    pub(super) services: Mutex<Vec<ServiceStatus>>,
    served: Mutex<Option<RelayTable>>,
    project_node: Option<ProjectNode>,
    pub(super) relays: Mutex<BTreeMap<String, Relay>>,
    pub(super) outlets: Mutex<BTreeMap<String, OpenOutlet>>,
    pub(super) inlets: Mutex<BTreeMap<String, Arc<OpenInlet>>>,
    pub(super) creating_inlets: tokio::sync::Mutex<()>,
    pub(super) started_workers: StartedWorkers,
    #[cfg_attr(not(feature = "plugins"), expect(dead_code, reason = "there are none"))]
    pub(super) plugins: Plugins,
    stop_asked: Notify,
    /// What was said last about keys that cannot be rotated.
    key_complaint: Mutex<Option<Error>>,
    /// What was said last about a project that cannot be joined, so that it is not said again every few seconds.
    complaint: Mutex<Option<Error>>,
}

pub(super) struct ChannelListener {
    pub(super) listener: SecureChannelListener,
    pub(super) identifier: Identifier,
    pub(super) authorized: Vec<Identifier>,
}

pub(super) struct OwnChannel {
    pub(super) to: String,
    pub(super) _path: Path,
}

/// The right to a relay's name, as the node's authority gives it at that moment.
struct RelayRight(Arc<Policies>);

impl RelayAuthority for RelayRight {
    fn may_register(&self, peer: Option<&Peer>, name: &RelayName) -> std::result::Result<(), Denial> {
        let peer = peer.map(|peer| &peer.identifier);
        // The policy of type `relay` first, as for every resource; it counts only where an authority is known.
        if self.0.authority().is_some() {
            self.0
                .decide(
                    ResourceType::Relay,
                    "forwarding_service",
                    Issuer::OfNode,
                    peer,
                    now(),
                )
                .map_err(|reason| Denial(reason.into()))?;
        }
        self.0
            .may_register(peer, name.as_str(), now())
            .map_err(|reason| Denial(reason.into()))
    }
}

pub(crate) fn runtime_error(error: portolan_runtime::Error) -> Error {
    match &error {
        portolan_runtime::Error::AddressInUse(address) => Error::exists(format!(
            "the address `{address}` is in use by another worker of this node"
        )),
        portolan_runtime::Error::NoWorker(address) => {
            Error::not_found(format!("there is no worker at `{address}`"))
        }
        portolan_runtime::Error::Timeout { .. } => Error::timeout(error.to_string()),
        portolan_runtime::Error::Send(_) => Error::unreachable(error.to_string()),
        _ => Error::failed(error.to_string()),
    }
}

impl Running {
    /// Put the node together: transport, services, listener, and on a project node the authority. Relays, outlets and inlets
    /// come back with [`restore`](Self::restore), which also lets others in.
    pub(crate) async fn start(node: OpenNode, types: WorkerTypes, settings: &Settings) -> Result<Arc<Self>> {
        let spec = node.database().spec()?;
        let own = node.home().own_identity(&spec.identity)?;
        let mut builder = Node::builder();
        if let Some(count) = settings.arbiters {
            builder = builder.arbiters(count);
        }
        let runtime = builder.build().map_err(runtime_error)?;
        match Self::assemble(node, spec, own, settings, &runtime, types).await {
            Ok(running) => Ok(running),
            Err(error) => {
                runtime.stop().await;
                Err(error)
            }
        }
    }

    async fn assemble(
        node: OpenNode,
        spec: NodeSpec,
        own: crate::state::OwnIdentity,
        settings: &Settings,
        runtime: &Node,
        types: WorkerTypes,
    ) -> Result<Arc<Self>> {
        let attributes = Arc::new(MemoryAttributeRepository::default());
        let identities = Arc::new(MemoryIdentityRepository::new(KNOWN_IDENTITIES));
        // The first one of this identity in an empty repository.
        let _ = identities.pin(own.identity.clone());
        let policies = Arc::new(Policies::new(Arc::clone(&attributes)));
        policies.restore(node.database())?;
        let connector = Connector {
            node: runtime.clone(),
            tcp: TcpTransport::new(runtime, TcpOptions::default()),
            channels: SecureChannels::new(runtime, identities.clone(), attributes),
            home: node.home().clone(),
        };
        let authority = match &spec.role {
            NodeRole::Node => None,
            NodeRole::Project(role) => Some(node.home().own_identity(&role.authority_identity)?),
        };
        let core = Arc::new(Core::new(
            connector,
            policies,
            own,
            authority.as_ref().map(|authority| authority.identity.clone()),
            settings,
        ));

        let listener = bind(&node, &spec, &core).await?;
        let bound = listener.local().to_string();
        node.database().set_bound_address(&bound)?;

        let project_node = match (&spec.role, authority) {
            (NodeRole::Project(role), Some(authority)) => Some(ProjectNode::start(
                &core,
                role,
                authority,
                identities,
                node.folder().authority_database(),
                &listener,
            )?),
            _ => None,
        };
        let running = Arc::new(Self {
            spec,
            core,
            listener,
            started: Instant::now(),
            bound,
            through_channels: Mutex::default(),
            channel_listeners: Mutex::default(),
            channels: Mutex::default(),
            services: Mutex::default(),
            served: Mutex::default(),
            project_node,
            relays: Mutex::default(),
            outlets: Mutex::default(),
            inlets: Mutex::default(),
            creating_inlets: tokio::sync::Mutex::default(),
            started_workers: StartedWorkers::new(types),
            plugins: Plugins::new(settings.plugin_memory),
            stop_asked: Notify::new(),
            key_complaint: Mutex::default(),
            complaint: Mutex::default(),
            node,
        });
        running.start_services()?;
        Ok(running)
    }

    fn start_services(&self) -> Result<()> {
        let node = self.core.node();
        let echo = Guard::policy(&self.core.policies, ResourceType::Echoer, "echo", Issuer::OfNode);
        let options = WorkerOptions::new("echo")
            .incoming(echo.incoming())
            .outgoing(echo.outgoing());
        self.start_service(options, "echo", "echo", Echo)?;
        self.start_service("uppercase".into(), "uppercase", "uppercase", Uppercase)?;
        if let Some(project) = &self.project_node {
            self.services.lock().extend(project.services());
        }
        // Before anybody can come in. A node whose project cannot be read does not start: it would be open to everybody.
        self.try_adopt_project()?;
        if !self.channel_listeners.lock().contains_key(API) {
            self.open_api()?;
        }
        // Channels may lead to further channels through this node, and handshakes begin over plain connections.
        self.make_reachable(API, true);
        node.add_consumer(self.listener.flow(), &Address::local(API));
        Ok(())
    }

    fn start_service(
        &self,
        options: WorkerOptions,
        address: &str,
        kind: &str,
        worker: impl SyncWorker,
    ) -> Result<()> {
        self.core
            .node()
            .start_sync_worker(options, worker)
            .map_err(runtime_error)?;
        self.make_reachable(address, true);
        self.services.lock().push(ServiceStatus {
            addr: address.to_owned(),
            kind: kind.to_owned(),
        });
        Ok(())
    }

    /// Open the listener `api`, or open it anew with what is known of the project now. Channels that are open stay.
    fn open_api(&self) -> Result<()> {
        let own = self.core.own();
        let local = self.core.local(own);
        let identifier = *local.identifier();
        let mut listeners = self.channel_listeners.lock();
        // Whatever leads here, such as the connections of relays that are open, leads to the new one.
        let flows = self.core.node().flows_consumed_by(&Address::local(API));
        if let Some(older) = listeners.remove(API) {
            older.listener.stop();
        }
        let listener = self
            .core
            .connector
            .channels
            .listen(API, ListenerOptions::new(self.core.listening(local)))
            .map_err(super::connect::channel_error)?;
        for address in self.through_channels.lock().iter() {
            listener.add_consumer(&Address::local(address));
        }
        for tcp in self.core.connector.tcp.listeners() {
            listener.accept_from(tcp.flow());
        }
        for flow in &flows {
            listener.accept_from(flow);
        }
        self.serve_relays(&listener)?;
        listeners.insert(
            API.to_owned(),
            ChannelListener {
                listener,
                identifier,
                authorized: Vec::new(),
            },
        );
        Ok(())
    }

    fn serve_relays(&self, listener: &SecureChannelListener) -> Result<()> {
        let node = self.core.node();
        let again = self.served.lock().take().is_some();
        if again {
            // Its relays were registered before the node knew whom to allow that. Their owners will register again.
            let _ = node.stop_worker(&Address::local(portolan_relay::protocol::SERVICE));
        }
        let members = Guard::members(&self.core.policies);
        let options = RelayServiceOptions {
            reachable_from: vec![Arc::clone(self.listener.flow()), Arc::clone(listener.flow())],
            relay_access: members.incoming(),
            ..RelayServiceOptions::default()
        };
        let table = RelayService::start(node, RelayRight(Arc::clone(&self.core.policies)), options)
            .map_err(runtime_error)?;
        self.core.removals.set_relays(table.clone());
        *self.served.lock() = Some(table);
        if !again {
            for address in [
                portolan_relay::protocol::SERVICE,
                portolan_relay::protocol::STATIC_SERVICE,
            ] {
                self.services.lock().push(ServiceStatus {
                    addr: address.to_owned(),
                    kind: "forwarding_service".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Let others reach an address through channels to `api`, and, if `plain`, over connections without a channel too.
    pub(crate) fn make_reachable(&self, address: &str, plain: bool) {
        self.through_channels.lock().insert(address.to_owned());
        let local = Address::local(address);
        for listener in self.channel_listeners.lock().values() {
            listener.listener.add_consumer(&local);
        }
        if plain {
            for listener in self.core.connector.tcp.listeners() {
                self.core.node().add_consumer(listener.flow(), &local);
            }
        }
    }

    /// The worker at the address is gone.
    pub(super) fn make_unreachable(&self, address: &str) {
        self.through_channels.lock().remove(address);
    }

    /// Everything that may be reached through channels.
    pub(super) fn through_channels(&self) -> Vec<Address> {
        self.through_channels.lock().iter().map(Address::local).collect()
    }

    /// Look whether this home has joined a project meanwhile, or knows another address of it, and belong to it from now on.
    pub(crate) fn adopt_project(&self) {
        match self.try_adopt_project() {
            Ok(()) => *self.complaint.lock() = None,
            Err(error) => {
                let mut complaint = self.complaint.lock();
                if complaint.as_ref() != Some(&error) {
                    tracing::error!("this node cannot join the project of its home: {error}");
                    *complaint = Some(error);
                }
            }
        }
    }

    fn try_adopt_project(&self) -> Result<()> {
        if self.spec.role != NodeRole::Node {
            return Ok(());
        }
        let project = match self.node.project()? {
            Some(project) if project.is_ready() => project,
            // One that was deleted here is not left, nor after a restart: that would open what it protects.
            _ => return self.stay_closed(),
        };
        let listens = self.channel_listeners.lock().contains_key(API);
        let known = self.core.membership();
        if known.is_some_and(|membership| *membership.project() == project) && listens {
            return Ok(());
        }
        let name = project.name.clone();
        let membership = self.core.join(project)?;
        let authority = membership.authority().identifier().to_string();
        let kept = match self.node.database().authority() {
            Ok(Some(kept)) if kept == authority => Ok(()),
            _ => self.node.database().set_authority(&authority),
        };
        if let Err(error) = kept {
            tracing::error!("whose credentials count cannot be kept for the next start: {error}");
        }
        self.open_api()?;
        tracing::info!(project = name, "this node belongs to the project");
        Ok(())
    }

    /// Belong to no project, but still to the authority of the project that the node was in when it ran last, if it was in one.
    fn stay_closed(&self) -> Result<()> {
        if self.core.policies.authority().is_some() {
            return Ok(());
        }
        let Some(authority) = self.node.database().authority()? else {
            return Ok(());
        };
        let identifier = authority.parse().map_err(|error| {
            Error::state(format!(
                "the node's authority `{authority}` cannot be read: {error}"
            ))
        })?;
        self.core.policies.set_authority(Some(identifier));
        tracing::warn!(
            "this node belonged to a project that its home does not know any more: only policies that name identities let \
             anybody in"
        );
        Ok(())
    }

    /// Bring back what is stored: outlets and workers before relays, so that whoever comes through a relay finds them.
    pub(super) async fn restore(self: &Arc<Self>) -> Result<()> {
        let database = self.node.database();
        self.restore_plugins()?;
        for outlet in database.outlets()? {
            self.restore_outlet(outlet).await;
        }
        self.restore_workers(database.workers()?).await;
        for inlet in database.inlets()? {
            self.restore_inlet(inlet).await;
        }
        for relay in database.relays()? {
            self.restore_relay(relay);
        }
        // All is there that others may ask for.
        self.listener.accept();
        Ok(())
    }

    /// What has to be looked at from time to time, until the node stops.
    pub(super) async fn watch(&self) {
        let mut project = interval(LOOK_FOR_PROJECT);
        let mut rights = interval(LOOK_FOR_LOST_RIGHTS);
        let mut due_keys = interval(LOOK_FOR_DUE_KEYS);
        let mut rotations = interval(LOOK_FOR_ROTATIONS);
        let policies = &self.core.policies;
        let mut losses = policies.losses();
        loop {
            tokio::select! {
                _ = project.tick() => self.adopt_project(),
                _ = rights.tick() => {}
                _ = due_keys.tick() => self.rotate_what_is_due().await,
                _ = rotations.tick() => self.look_for_rotations().await,
                () = self.core.removals.lost() => {}
            }
            policies.attributes().forget_expired(now());
            let since = std::mem::replace(&mut losses, policies.losses());
            if since != losses {
                self.ask_rules_again();
            }
        }
    }

    /// Rotate the keys of our identities whose time has come, and delete old ones that nobody can need any more.
    async fn rotate_what_is_due(&self) {
        let (home, own) = (self.node.home().clone(), self.core.own().clone());
        let mut names = vec![self.spec.identity.clone()];
        if let NodeRole::Project(role) = &self.spec.role {
            names.push(role.authority_identity.clone());
        }
        let rotating = blocking(move || {
            for name in names {
                let rotated = home.rotate_what_is_due(&name, now())?;
                if rotated.identity || rotated.purpose_keys {
                    tracing::info!(identity = name, ?rotated, "keys were due and were rotated");
                }
            }
            home.delete_retired_keys(Some((&own.record.vault, &own.vault)), now())
        });
        let complaint = rotating.await.err();
        let mut said = self.key_complaint.lock();
        if let Some(error) = complaint.as_ref().filter(|error| said.as_ref() != Some(*error)) {
            tracing::error!("{error}");
        }
        *said = complaint;
    }

    /// Our identities may have been rotated: by this node, another one, or a command.
    pub(crate) async fn look_for_rotations(&self) {
        let core = Arc::clone(&self.core);
        let rotated = blocking(move || Ok(core.look_for_rotations()))
            .await
            .unwrap_or_default();
        for identity in rotated {
            tracing::info!(identifier = %identity.identifier(), changes = identity.history().len(), "an identity was rotated");
            if let Some(project) = &self.project_node {
                project.rotated(&self.core, &identity);
            }
        }
    }

    /// Open portals on which nothing is said at the moment end too when the right to them does.
    fn ask_rules_again(&self) {
        for outlet in self.outlets.lock().values() {
            outlet.ask_rules_again();
        }
        for inlet in self.inlets.lock().values() {
            inlet.ask_rules_again();
        }
    }

    /// Somebody wants the node to stop.
    pub(crate) fn ask_to_stop(&self) {
        self.stop_asked.notify_one();
    }

    /// Resolves when somebody wants the node to stop.
    pub(super) async fn asked_to_stop(&self) {
        self.stop_asked.notified().await;
    }

    /// Take everything down: portals, then channels, then connections.
    pub(super) async fn stop(&self) {
        let _ = tokio::time::timeout(STOP_LIMIT, self.core.node().stop()).await;
        // What holds on to the parts that are shared with sessions.
        self.relays.lock().clear();
        self.inlets.lock().clear();
        self.outlets.lock().clear();
        self.channels.lock().clear();
    }

    /// The relays that others have registered here.
    pub(super) fn served_relays(&self) -> Vec<ServedRelay> {
        let table = self.served.lock().clone();
        let relays = table.map(|table| table.relays()).unwrap_or_default();
        relays
            .into_iter()
            .map(|relay| ServedRelay {
                name: relay.name.as_str().to_owned(),
                owner: relay.owner.peer().map(|peer| peer.to_string()),
            })
            .collect()
    }

    /// The node that this is, if it is a project's.
    pub(super) fn project_node(&self) -> Option<&ProjectNode> {
        self.project_node.as_ref()
    }

    /// On a project's node: the local name of its administrator's identity, if that is in this home, and the project.
    pub(crate) fn administrator(&self) -> Result<Option<(String, Project)>> {
        let NodeRole::Project(role) = &self.spec.role else {
            return Ok(None);
        };
        let database = self.node.home().database()?;
        let administrator = database
            .identities()?
            .into_iter()
            .find(|identity| role.administrators.contains_key(&identity.identifier));
        let project = database
            .projects()?
            .into_iter()
            .map(|(project, _)| project)
            .find(|project| project.id == role.project_id);
        match (administrator, project) {
            (Some(administrator), Some(project)) => Ok(Some((administrator.name, project))),
            _ => Err(Error::not_found(
                "the identity of the project's administrator is not in this home",
            )),
        }
    }

    /// What the node says about itself.
    pub(crate) fn status(&self) -> NodeStatus {
        let membership = self.core.membership();
        let standing = membership.as_ref().map(|membership| membership.standing());
        let (role, project) = match &self.spec.role {
            NodeRole::Node => (
                "node",
                membership
                    .as_ref()
                    .map(|membership| membership.project().name.clone()),
            ),
            NodeRole::Project(role) => ("project", Some(role.project_name.clone())),
        };
        NodeStatus {
            name: self.spec.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.started.elapsed().as_secs(),
            identity_name: self.spec.identity.clone(),
            identifier: self.core.own().record.identifier.clone(),
            project,
            role: role.to_owned(),
            tcp_listener_address: self.bound.clone(),
            credential_expires_at: standing.as_ref().and_then(|standing| standing.expires_at),
            credential_failure: standing
                .and_then(|standing| standing.failure)
                .map(|failure| failure.message),
            tcp_listeners: self.tcp_listeners(),
            secure_channel_listeners: self.secure_channel_listeners(),
            relays: self.relays(),
            inlets: self.inlets(),
            outlets: self.outlets(),
            services: self.services(),
            started_workers: self.started_workers(),
            workers: self.core.node().workers().len() as u64,
            served_relays: self.served_relays(),
        }
    }

    /// All secure channel listeners.
    pub(crate) fn secure_channel_listeners(&self) -> Vec<SecureChannelListenerStatus> {
        let own = self.channel_listeners.lock();
        let mut all: Vec<_> = own
            .iter()
            .map(|(address, listener)| SecureChannelListenerStatus {
                address: address.clone(),
                identifier: listener.identifier.to_string(),
                authorized: listener.authorized.iter().map(Identifier::to_string).collect(),
            })
            .collect();
        all.extend(self.project_node.iter().map(ProjectNode::listener));
        all
    }

    /// All TCP listeners.
    pub(crate) fn tcp_listeners(&self) -> Vec<TcpListenerStatus> {
        let mut listeners: Vec<_> = self
            .core
            .connector
            .tcp
            .listeners()
            .iter()
            .map(tcp_listener_status)
            .collect();
        listeners.sort_by(|a, b| a.address.cmp(&b.address));
        listeners
    }
}

/// A clock that does not catch up on what it has missed.
fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

pub(super) fn tcp_listener_status(listener: &TcpListener) -> TcpListenerStatus {
    TcpListenerStatus {
        address: listener.local().to_string(),
        worker_address: Some(local_name(listener.address())),
        flow_control_id: Some(listener.flow().id().to_string()),
    }
}

/// Whom a listener accepts.
pub(super) fn trust(authorized: &[Identifier]) -> TrustPolicy {
    match authorized {
        [] => TrustPolicy::Everyone,
        some => TrustPolicy::identifiers(some.iter().copied()),
    }
}

/// Take the address at which others reach the node. Where the system chooses the port, the one of last time is tried first: others may have it in
/// their routes.
async fn bind(node: &OpenNode, spec: &NodeSpec, core: &Core) -> Result<TcpListener> {
    let wanted: HostPort = spec.tcp_listener_address.parse().map_err(|error| {
        Error::invalid(format!(
            "the listening address `{}`: {error}",
            spec.tcp_listener_address
        ))
    })?;
    let tcp = &core.connector.tcp;
    if wanted.port() == 0
        && let Some(before) = node.database().bound_address()?
        && let Ok(before) = before.parse::<HostPort>()
        && let Ok(again) = HostPort::new(wanted.host(), before.port())
        && let Ok(listener) = tcp.bind(&again.to_string()).await
    {
        return Ok(listener);
    }
    tcp.bind(&wanted.to_string()).await.map_err(|error| {
        let error = tcp_error(error);
        Error {
            message: format!("the node cannot listen for other nodes: {}", error.message),
            ..error
        }
    })
}

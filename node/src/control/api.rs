//! The control interface of a node: paths, requests, responses, errors.
//!
//! HTTP/1.1 with JSON bodies over the Unix socket `control.sock` in the node's folder. Every path begins with `/v1`.
//!
//! | method and path | request | response |
//! |---|---|---|
//! | `GET /v1/node` | | [`NodeStatus`] |
//! | `POST /v1/node/stop` | | [`Done`]; the node answers, then stops |
//! | `GET /v1/relays` | | `[`[`RelayStatus`]`]` |
//! | `POST /v1/relays` | [`CreateRelay`] | [`RelayStatus`] |
//! | `GET`, `DELETE /v1/relays/{name}` | | [`RelayStatus`], [`Done`] |
//! | `GET /v1/policies` | | `[`[`PolicyStatus`]`]` |
//! | `PUT /v1/policies` | [`SetPolicy`] | [`PolicyStatus`]; replaces an older one, takes effect at once |
//! | `GET`, `DELETE /v1/policies/{kind}/{name}` | `kind` is `type` or `resource` | [`PolicyStatus`], [`Done`] |
//! | `GET /v1/tcp-outlets` | | `[`[`OutletStatus`]`]` |
//! | `POST /v1/tcp-outlets` | [`CreateOutlet`] | [`OutletStatus`] |
//! | `GET`, `DELETE /v1/tcp-outlets/{address}` | | [`OutletStatus`], [`Done`] |
//! | `GET /v1/tcp-inlets` | | `[`[`InletStatus`]`]` |
//! | `POST /v1/tcp-inlets` | [`CreateInlet`] | [`InletStatus`] |
//! | `GET`, `DELETE /v1/tcp-inlets/{alias}` | | [`InletStatus`], [`Done`] |
//! | `GET /v1/secure-channels` | | `[`[`SecureChannelStatus`]`]` |
//! | `POST /v1/secure-channels` | [`CreateSecureChannel`] | [`SecureChannelStatus`] |
//! | `GET`, `DELETE /v1/secure-channels/{address}` | | [`SecureChannelStatus`], [`Done`] |
//! | `GET /v1/secure-channel-listeners` | | `[`[`SecureChannelListenerStatus`]`]` |
//! | `POST /v1/secure-channel-listeners` | [`CreateSecureChannelListener`] | [`SecureChannelListenerStatus`] |
//! | `GET`, `DELETE /v1/secure-channel-listeners/{address}` | | [`SecureChannelListenerStatus`], [`Done`] |
//! | `GET /v1/tcp-connections` | | `[`[`TcpConnectionStatus`]`]` |
//! | `POST /v1/tcp-connections` | [`CreateTcpConnection`] | [`TcpConnectionStatus`] |
//! | `GET`, `DELETE /v1/tcp-connections/{address}` | worker address or `host:port` | [`TcpConnectionStatus`], [`Done`] |
//! | `GET /v1/tcp-listeners` | | `[`[`TcpListenerStatus`]`]` |
//! | `POST /v1/tcp-listeners` | [`CreateTcpListener`] | [`TcpListenerStatus`] |
//! | `GET`, `DELETE /v1/tcp-listeners/{address}` | worker address or `host:port` | [`TcpListenerStatus`], [`Done`] |
//! | `GET /v1/services` | | `[`[`ServiceStatus`]`]` |
//! | `POST /v1/services` | [`StartService`] | [`ServiceStatus`] |
//! | `GET /v1/workers` | | `[`[`WorkerStatus`]`]`: all workers of the node |
//! | `POST /v1/workers` | [`StartWorker`] | [`StartedWorker`]; waits until it takes messages, or cannot |
//! | `GET`, `DELETE /v1/workers/{address}` | a worker that was started by name | [`StartedWorker`], [`Done`] |
//! | `GET /v1/plugins` | | `[`[`PluginStatus`]`]` |
//! | `POST /v1/plugins` | [`AddPlugin`] | [`PluginStatus`] |
//! | `GET`, `DELETE /v1/plugins/{name}` | | [`PluginStatus`], [`Done`] |
//! | `GET /v1/worker-types` | | `[`[`WorkerTypeStatus`]`]` |
//! | `POST /v1/messages` | [`SendMessage`] | [`MessageReply`] |
//! | `GET /v1/credentials` | | `[`[`CredentialStatus`]`]` |
//! | `POST /v1/credentials` | [`StoreCredential`] | [`CredentialStatus`]; the node presents it from then on |
//!
//! Names in paths are percent-encoded ([`item`] does it). Any other answer than 2xx carries an [`ErrorBody`]; its status
//! is [`ErrorCode::http_status`]. Bodies are at most [`MAX_BODY`] bytes.
//!
//! Routes in requests are multi-addresses in text form (04 part B). They may hold `/node/<name>` and `/project/<name>`:
//! the node looks these up each time it connects, so that a portal survives a restart of the other node on another port.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode};

/// The largest body of a request or response, in bytes.
pub const MAX_BODY: usize = 4 * 1024 * 1024;

/// Paths of collections and of single resources. A member of a collection is `item(COLLECTION, name)`.
pub mod path {
    /// The node itself.
    pub const NODE: &str = "/v1/node";
    /// Stop the node.
    pub const NODE_STOP: &str = "/v1/node/stop";
    /// Relays that lead to this node.
    pub const RELAYS: &str = "/v1/relays";
    /// Policies; members are `type/<resource type>` and `resource/<name>`.
    pub const POLICIES: &str = "/v1/policies";
    /// Portal outlets.
    pub const TCP_OUTLETS: &str = "/v1/tcp-outlets";
    /// Portal inlets.
    pub const TCP_INLETS: &str = "/v1/tcp-inlets";
    /// Secure channels.
    pub const SECURE_CHANNELS: &str = "/v1/secure-channels";
    /// Secure channel listeners.
    pub const SECURE_CHANNEL_LISTENERS: &str = "/v1/secure-channel-listeners";
    /// TCP connections of the TCP transport.
    pub const TCP_CONNECTIONS: &str = "/v1/tcp-connections";
    /// TCP listeners of the TCP transport.
    pub const TCP_LISTENERS: &str = "/v1/tcp-listeners";
    /// Services.
    pub const SERVICES: &str = "/v1/services";
    /// Workers.
    pub const WORKERS: &str = "/v1/workers";
    /// Plugins.
    pub const PLUGINS: &str = "/v1/plugins";
    /// What can be started by name.
    pub const WORKER_TYPES: &str = "/v1/worker-types";
    /// Send one message.
    pub const MESSAGES: &str = "/v1/messages";
    /// Credentials that the node holds about itself.
    pub const CREDENTIALS: &str = "/v1/credentials";
}

/// The path of one member of a collection: `item(path::RELAYS, "a b")` is `/v1/relays/a%20b`.
pub fn item(collection: &str, name: &str) -> String {
    let mut path = String::with_capacity(collection.len() + name.len() + 1);
    path.push_str(collection);
    path.push('/');
    push_encoded(&mut path, name);
    path
}

/// The path of one policy.
pub fn policy_item(target: &PolicyTarget) -> String {
    match target {
        PolicyTarget::Type(name) => item(&format!("{}/type", path::POLICIES), name),
        PolicyTarget::Resource(name) => item(&format!("{}/resource", path::POLICIES), name),
    }
}

fn push_encoded(out: &mut String, text: &str) {
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b':') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// The body of every answer that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// For programs.
    pub code: ErrorCode,
    /// What failed and why, in one sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<Error> for ErrorBody {
    fn from(error: Error) -> Self {
        Self {
            code: error.code,
            message: error.message,
            hint: error.hint,
        }
    }
}

impl From<ErrorBody> for Error {
    fn from(body: ErrorBody) -> Self {
        Self {
            code: body.code,
            message: body.message,
            hint: body.hint,
        }
    }
}

/// The answer where there is nothing to say but that it is done: `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// Whether the far end can be reached now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectionStatus {
    /// Connected; the last probe was answered.
    Up,
    /// Not connected; the node keeps trying, `last_failure` says why.
    Down,
}

// ---------------------------------------------------------------------------------------------------------------- node

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name in the home.
    pub name: String,
    /// The version of the running binary.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime: u64,
    /// The local name of its identity.
    pub identity_name: String,
    /// The identifier of its identity, `I…`.
    pub identifier: String,
    /// The local name of the project whose credentials it requires and presents, if any.
    pub project: Option<String>,
    /// `node` or `project` (a project node: authority and relay service).
    pub role: String,
    /// Where it listens for other nodes, `host:port` as bound.
    pub tcp_listener_address: String,
    /// Until when its own credential is valid (UTC seconds), if it has one.
    pub credential_expires_at: Option<u64>,
    /// Why it has no valid credential although it belongs to a project.
    pub credential_failure: Option<String>,
    /// TCP listeners.
    pub tcp_listeners: Vec<TcpListenerStatus>,
    /// Secure channel listeners.
    pub secure_channel_listeners: Vec<SecureChannelListenerStatus>,
    /// Relays.
    pub relays: Vec<RelayStatus>,
    /// Inlets.
    pub inlets: Vec<InletStatus>,
    /// Outlets.
    pub outlets: Vec<OutletStatus>,
    /// Services.
    pub services: Vec<ServiceStatus>,
    /// Workers that the owner started by name.
    #[serde(default)]
    pub started_workers: Vec<StartedWorker>,
    /// Number of live workers.
    pub workers: u64,
    /// Relays that other nodes have registered here (a project node): names and who owns them.
    #[serde(default)]
    pub served_relays: Vec<ServedRelay>,
}

/// A relay that another node has registered at this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedRelay {
    /// The name without `forward_to_`.
    pub name: String,
    /// The identifier of its owner.
    pub owner: Option<String>,
}

// -------------------------------------------------------------------------------------------------------------- relays

/// Register a relay that leads to this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateRelay {
    /// Local name (alias), unique in this node.
    pub name: String,
    /// The name asked for at the relay service; the remote address is `forward_to_<relay_address>`.
    /// Default: `name`.
    #[serde(default)]
    pub relay_address: Option<String>,
    /// Where the relay is made: a route to a node or project, `/project/default`, `/node/n2`, `/ip4/…/tcp/…`.
    pub at: String,
    /// The identity expected there (not with a project, whose identity is known).
    #[serde(default)]
    pub authorized: Option<String>,
    /// How long to wait for the first registration, in milliseconds; 0 returns at once. If it is not up by then the
    /// answer says `Down` and why, and the node goes on trying, unless the refusal is permanent.
    #[serde(default)]
    pub wait_ms: u64,
}

/// A relay that leads to this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Local name (alias).
    pub name: String,
    /// Where it was asked for (the route of the request).
    pub at: String,
    /// The route by which others reach this node through it, as seen from `at`: `/service/forward_to_x`.
    pub remote_address: Option<String>,
    /// The worker at `at` that forwards, when registered.
    pub worker_address: Option<String>,
    /// The flow-control id of the connection used, when registered.
    #[serde(default)]
    pub flow_control_id: Option<String>,
    /// Up or down.
    pub connection_status: ConnectionStatus,
    /// Why it is, or was last, down.
    pub last_failure: Option<String>,
    /// The far end said no for good (missing right to the name): trying goes on slowly, in case the right is granted.
    #[serde(default)]
    pub refused: bool,
}

// ------------------------------------------------------------------------------------------------------------ policies

/// What a policy is bound to. A policy bound to a resource wins over the one of its type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyTarget {
    /// All resources of a type: one of [`RESOURCE_TYPES`].
    Type(String),
    /// One resource: an inlet's alias, an outlet's address.
    Resource(String),
}

/// The resource types that a policy can name (04 A1.1).
pub const RESOURCE_TYPES: [&str; 5] = ["tcp-inlet", "tcp-outlet", "echoer", "relay", "worker"];

/// Bind an expression to a target, replacing the older one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPolicy {
    /// What it is bound to.
    pub target: PolicyTarget,
    /// The expression as the user typed it, in either form.
    pub expression: String,
}

/// A policy as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// What it is bound to.
    pub target: PolicyTarget,
    /// The expression in its s-expression form.
    pub expression: String,
    /// What the check found questionable (04, differences D1, D7–D10, D14): one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

// ------------------------------------------------------------------------------------------------------------- portals

/// What stands between an application and its end of a portal, and sees the bytes of each connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterceptedBy {
    /// The name of an interceptor that this node's program has.
    pub name: String,
    /// Its own configuration.
    #[serde(default)]
    pub config: serde_json::Value,
}

/// Open an outlet: the end of a portal that connects to the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateOutlet {
    /// Worker address; `None` lets the node choose: `outlet`, or a random one if that is taken.
    #[serde(default)]
    pub address: Option<String>,
    /// The target, `host:port`. Not checked for reachability.
    pub to: String,
    /// Speak TLS to the target.
    #[serde(default)]
    pub tls: bool,
    /// With `tls`: whom the target's certificate must be from, PEM. Default: whom the machine trusts.
    #[serde(default)]
    pub tls_ca: Option<String>,
    /// Who may connect: a policy bound to this outlet. Default: the policy of the type `tcp-outlet`.
    #[serde(default)]
    pub allow: Option<String>,
    /// Leave out the portal's own ping and pong.
    #[serde(default)]
    pub skip_handshake: bool,
    /// Leave Nagle's algorithm on.
    #[serde(default)]
    pub enable_nagle: bool,
    /// What sees the bytes of its connections.
    #[serde(default)]
    pub intercept: Option<InterceptedBy>,
}

/// An outlet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutletStatus {
    /// Worker address, without `/service/`.
    pub address: String,
    /// The target, `host:port`.
    pub to: String,
    /// Speaks TLS to the target.
    #[serde(default)]
    pub tls: bool,
    /// What sees the bytes of its connections.
    #[serde(default)]
    pub intercept: Option<InterceptedBy>,
    /// The policy in force, s-expression; `None` means that everybody is denied.
    pub policy: Option<String>,
    /// Portal connections open now.
    pub connections: u64,
    /// The last failure to reach the target, or refusal of a peer, with its reason.
    pub last_failure: Option<String>,
    /// Counters since the node started.
    #[serde(default)]
    pub traffic: Traffic,
}

/// Open an inlet: the end of a portal that the application connects to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateInlet {
    /// Name; `None` lets the node choose a random one.
    #[serde(default)]
    pub alias: Option<String>,
    /// Listening address, `host:port`; port 0 lets the system choose.
    pub from: String,
    /// The full route to the outlet.
    pub to: String,
    /// The local name of the identity for the channel. Default: the node's.
    #[serde(default)]
    pub identity: Option<String>,
    /// The identity expected at the other end (not with a project route).
    #[serde(default)]
    pub authorized: Option<String>,
    /// Who may be at the other end: a policy bound to this inlet. Default: the policy of the type `tcp-inlet`.
    #[serde(default)]
    pub allow: Option<String>,
    /// How long to wait for the first connection, in milliseconds; 0 returns at once.
    #[serde(default)]
    pub wait_ms: u64,
    /// Pause between attempts to connect again, in milliseconds; 0 means the node's back-off.
    #[serde(default)]
    pub retry_wait_ms: u64,
    /// Leave out the portal's own ping and pong.
    #[serde(default)]
    pub skip_handshake: bool,
    /// Leave Nagle's algorithm on.
    #[serde(default)]
    pub enable_nagle: bool,
    /// Paths to the outlet side by side, 1 to 16. Default: 1.
    #[serde(default = "one_stripe")]
    pub stripes: u8,
    /// What sees the bytes of its connections.
    #[serde(default)]
    pub intercept: Option<InterceptedBy>,
}

fn one_stripe() -> u8 {
    1
}

/// An inlet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InletStatus {
    /// Name.
    pub alias: String,
    /// Listening address as bound, `host:port`.
    pub bind_addr: String,
    /// The route asked for.
    pub outlet_addr: String,
    /// The route in use, when connected.
    pub outlet_route: Option<String>,
    /// What sees the bytes of its connections.
    #[serde(default)]
    pub intercept: Option<InterceptedBy>,
    /// The worker that accepts connections.
    pub worker_addr: Option<String>,
    /// Up or down.
    pub status: ConnectionStatus,
    /// Why it is, or was last, down; or why a client was closed.
    pub last_failure: Option<String>,
    /// The policy in force, s-expression; `None` means that everybody is denied.
    pub policy: Option<String>,
    /// Portal connections open now.
    pub connections: u64,
    /// The paths to the outlet side by side, each over a transport connection of its own.
    #[serde(default)]
    pub stripes: Vec<StripeStatus>,
    /// Counters since the node started.
    #[serde(default)]
    pub traffic: Traffic,
}

/// One of the paths from an inlet to its outlet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeStatus {
    /// Up or down.
    pub status: ConnectionStatus,
    /// The route in use, when connected.
    pub outlet_route: Option<String>,
    /// Portal connections on it.
    pub connections: u64,
    /// Why it is down.
    pub last_failure: Option<String>,
}

/// Counters of a portal end, since the node started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Connections so far.
    pub connections: u64,
    /// Connections that failed or were refused.
    pub failed: u64,
    /// Bytes from the inlet to the outlet.
    pub bytes_up: u64,
    /// Bytes from the outlet to the inlet.
    pub bytes_down: u64,
}

// ----------------------------------------------------------------------------------------------------- secure channels

/// Open a secure channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSecureChannel {
    /// The route to the listener.
    pub to: String,
    /// Identifiers of which the other side must be one; empty means any.
    #[serde(default)]
    pub authorized: Vec<String>,
    /// The local name of the identity to use. Default: the node's.
    #[serde(default)]
    pub identity: Option<String>,
    /// A credential to present, hex. Default: the node's own.
    #[serde(default)]
    pub credential: Option<String>,
    /// Time-out, in milliseconds.
    pub timeout_ms: u64,
}

/// A secure channel of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecureChannelStatus {
    /// The worker that seals what is sent to it: put it first in a route.
    pub address: String,
    /// The route to the other side's listener (empty for channels that the other side opened).
    pub to: String,
    /// The identifier of the other side.
    pub peer: String,
    /// `initiator` or `responder`.
    pub role: String,
    /// Verified attributes of the other side.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// What protects the records.
    #[serde(default)]
    pub suite: String,
    /// What was sealed.
    #[serde(default)]
    pub sent: ChannelTraffic,
    /// What was opened.
    #[serde(default)]
    pub received: ChannelTraffic,
    /// Records that did not open: forged, altered, repeated, too old.
    #[serde(default)]
    pub rejected: u64,
}

/// One direction of a secure channel, since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelTraffic {
    /// Records.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// How often the key was replaced.
    pub rekeys: u64,
}

/// Listen for secure channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSecureChannelListener {
    /// Worker address.
    pub address: String,
    /// Identifiers of which the other side must be one; empty means any.
    #[serde(default)]
    pub authorized: Vec<String>,
    /// The local name of the identity to use. Default: the node's.
    #[serde(default)]
    pub identity: Option<String>,
}

/// A secure channel listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecureChannelListenerStatus {
    /// Worker address.
    pub address: String,
    /// The identifier that it answers with.
    pub identifier: String,
    /// Identifiers that may connect; empty means any.
    #[serde(default)]
    pub authorized: Vec<String>,
}

// ----------------------------------------------------------------------------------------------------------------- tcp

/// Connect the TCP transport to another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTcpConnection {
    /// `host:port`.
    pub to: String,
    /// Time-out, in milliseconds.
    pub timeout_ms: u64,
}

/// A TCP connection of the TCP transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpConnectionStatus {
    /// The worker that sends over it: put it first in a route.
    pub address: String,
    /// The other end, `ip:port`.
    pub peer: String,
    /// `initiator` or `responder`.
    pub role: String,
    /// Flow-control id.
    #[serde(default)]
    pub flow_control_id: Option<String>,
}

/// Listen for other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTcpListener {
    /// `host:port`; port 0 lets the system choose.
    pub address: String,
}

/// A listener of the TCP transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpListenerStatus {
    /// As bound, `ip:port`.
    pub address: String,
    /// The worker that stands for it.
    #[serde(default)]
    pub worker_address: Option<String>,
    /// Flow-control id.
    #[serde(default)]
    pub flow_control_id: Option<String>,
}

// ---------------------------------------------------------------------------------------------- services and messages

/// Start a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartService {
    /// The kind: `hop`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Worker address.
    pub address: String,
}

/// A service of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Worker address.
    pub addr: String,
    /// The kind: `echo`, `uppercase`, `hop`, `secure_channel_listener`, `forwarding_service`, …
    #[serde(rename = "type")]
    pub kind: String,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its first address.
    pub address: String,
    /// What it is, where known: for one that the owner started by name, its type.
    #[serde(default)]
    pub kind: Option<String>,
    /// What the owner started by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Box<StartedWorker>>,
}

/// Start a worker of a type that the node knows by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartWorker {
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `kind` is the name of a plugin.
    #[serde(default)]
    pub is_plugin: bool,
    /// With a plugin: rights that this worker has beside those that the plugin was granted.
    #[serde(default)]
    pub grant: Vec<String>,
    /// Worker address. Default: the type's name.
    #[serde(default)]
    pub address: Option<String>,
    /// The type's own configuration, a map. Default: an empty one.
    #[serde(default)]
    pub config: serde_json::Value,
    /// Who may reach it from outside the node: a policy bound to this worker. Default: the policy of the type `worker`; without one,
    /// only workers of the node.
    #[serde(default)]
    pub allow: Option<String>,
}

/// How a worker is that the owner started by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// It is being initialized.
    Starting,
    /// It takes messages.
    Running,
    /// A plugin has failed, and is started again in a while; `problem` says why.
    Restarting,
    /// It has ended by itself.
    Ended,
    /// It could not be started, `problem` says why; the node tries again when it starts.
    Failed,
}

/// A worker that the owner started by name. Counters are since the start of the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartedWorker {
    /// Worker address.
    pub address: String,
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `kind` is the name of a plugin.
    #[serde(default)]
    pub is_plugin: bool,
    /// With a plugin: the rights that it has.
    #[serde(default)]
    pub rights: Vec<String>,
    /// With a plugin: how often it was started again after a failure.
    #[serde(default)]
    pub restarts: u64,
    /// Its configuration, as given.
    #[serde(default)]
    pub config: serde_json::Value,
    /// The policy in force for whoever is outside the node, s-expression; `None` means that only workers of the node reach it.
    pub policy: Option<String>,
    /// How it is.
    pub state: WorkerState,
    /// Why it is not running.
    #[serde(default)]
    pub problem: Option<String>,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
    /// Messages handled.
    pub handled: u64,
    /// Messages whose handling failed.
    pub failed: u64,
    /// Messages that wait.
    pub waiting: u64,
    /// Messages of peers that the policy did not let through.
    pub refused: u64,
    /// Bytes of memory, where known.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Why the last message failed.
    #[serde(default)]
    pub last_failure: Option<String>,
}

/// What is said about the limits of a plugin; what is not said is as usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginLimits {
    /// Memory of each instance, MiB.
    #[serde(default)]
    pub memory_mib: Option<u32>,
    /// How long it may compute for one message or, as an interceptor, for one piece of a connection; milliseconds.
    #[serde(default)]
    pub time_ms: Option<u32>,
    /// Messages that may wait.
    #[serde(default)]
    pub waiting: Option<u32>,
    /// Log lines for each second.
    #[serde(default)]
    pub log_lines: Option<u32>,
    /// What it may keep in the node's state, KiB.
    #[serde(default)]
    pub storage_kib: Option<u32>,
}

impl PluginLimits {
    /// These, and where nothing is said, those of before.
    #[must_use]
    pub fn over(self, before: &Self) -> Self {
        Self {
            memory_mib: self.memory_mib.or(before.memory_mib),
            time_ms: self.time_ms.or(before.time_ms),
            waiting: self.waiting.or(before.waiting),
            log_lines: self.log_lines.or(before.log_lines),
            storage_kib: self.storage_kib.or(before.storage_kib),
        }
    }
}

/// Have a plugin from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddPlugin {
    /// What it is called here.
    pub name: String,
    /// Its file, an absolute path that the node can read. It keeps a copy.
    pub file: String,
    /// The digest that the file must have: SHA-256, hex, also with `sha256:` before it.
    #[serde(default)]
    pub digest: Option<String>,
    /// The rights that it gets. Default: of those that it asks for `reply`, `from:local` and `storage`; when it replaces another, those
    /// that it had.
    #[serde(default)]
    pub grant: Option<Vec<String>>,
    /// Rights beside those.
    #[serde(default)]
    pub also: Vec<String>,
    /// Every right that it asks for.
    #[serde(default)]
    pub grant_all: bool,
    /// Its limits.
    #[serde(default)]
    pub limits: PluginLimits,
    /// Take the place of the plugin of that name. Its workers go over without losing a message, all of them or none.
    #[serde(default)]
    pub replace: bool,
}

/// Whether the node's copy of a plugin is what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginVerdict {
    /// It has its digest.
    Intact,
    /// It has another one, and is not loaded.
    Changed,
    /// It is not there.
    Missing,
}

/// A plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginStatus {
    /// What is written about it.
    #[serde(flatten)]
    pub plugin: crate::state::PluginSpec,
    /// Rights that it asks for and does not have.
    pub not_granted: Vec<String>,
    /// Whether the node's copy is what it was.
    pub verdict: PluginVerdict,
    /// Addresses of the workers that run it.
    pub workers: Vec<String>,
    /// The portals that it intercepts: `inlet NAME`, `outlet NAME`.
    #[serde(default)]
    pub intercepts: Vec<String>,
}

/// A worker type: what can be started by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerTypeStatus {
    /// Its name.
    pub name: String,
    /// What it does.
    pub about: String,
}

/// Send one message and wait for the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendMessage {
    /// Where to.
    pub route: String,
    /// The body, hex. It travels as one byte string (01 §1.1: length, bytes), as the services expect.
    pub payload: String,
    /// Time-out, in milliseconds.
    pub timeout_ms: u64,
    /// The local name of the identity for channels on the way. Default: the node's.
    #[serde(default)]
    pub identity: Option<String>,
}

/// The answer to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageReply {
    /// The body, hex, without its length prefix.
    pub payload: String,
}

// --------------------------------------------------------------------------------------------------------- credentials

/// Give the node a credential to present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCredential {
    /// The credential with its purpose key, hex.
    pub credential: String,
    /// The issuer that it must verify against, `I…`.
    pub issuer: String,
    /// What it is for: `project-member-<project id>` or a word of the user's.
    pub scope: String,
}

/// A credential that is held here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialStatus {
    /// Whom it is about.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// What it is for.
    pub scope: String,
    /// UTC seconds.
    pub created_at: u64,
    /// UTC seconds.
    pub expires_at: u64,
    /// What it says.
    pub attributes: BTreeMap<String, String>,
    /// The credential with its purpose key, hex (public data).
    pub credential: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_path_is_percent_encoded() {
        assert_eq!(item(path::RELAYS, "a b/c*"), "/v1/relays/a%20b%2Fc%2A");
        assert_eq!(
            item(path::TCP_CONNECTIONS, "127.0.0.1:80"),
            "/v1/tcp-connections/127.0.0.1:80"
        );
        let target = PolicyTarget::Type("tcp-outlet".into());
        assert_eq!(policy_item(&target), "/v1/policies/type/tcp-outlet");
    }

    #[test]
    fn a_request_with_only_what_is_required_is_understood() {
        let outlet: CreateOutlet = serde_json::from_str(r#"{"to":"127.0.0.1:5432"}"#).unwrap();
        assert_eq!(outlet.address, None);
        let policy: SetPolicy =
            serde_json::from_str(r#"{"target":{"type":"tcp-inlet"},"expression":"a"}"#).unwrap();
        assert_eq!(policy.target, PolicyTarget::Type("tcp-inlet".into()));
    }
}

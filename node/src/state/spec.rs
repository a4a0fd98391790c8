//! What a node should be: the part of its configuration that survives, and that `node start` restores.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a node should be. Relays, policies, outlets and inlets are kept beside it, one row each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its name in the home.
    pub name: String,
    /// The local name of its identity.
    pub identity: String,
    /// The local name of the project that it belongs to. `None` follows the default project, so that a node that was
    /// created before the enrollment belongs to the project after it.
    pub project: Option<String>,
    /// Where it listens for other nodes, `host:port` as asked for; port 0 lets the system choose.
    pub tcp_listener_address: String,
    /// What it is for.
    pub role: NodeRole,
    /// When it was created, UTC seconds.
    pub created_at: u64,
}

/// What a node is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "kebab-case")]
pub enum NodeRole {
    /// An ordinary node.
    Node,
    /// A project node: authority and relay service in one process.
    Project(ProjectNodeSpec),
}

/// What a project node needs to know beyond an ordinary node. Its own identity ([`NodeSpec::identity`]) is the
/// project's; the authority has another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectNodeSpec {
    /// The project's id: part of its routes and of the scope of its credentials.
    pub project_id: String,
    /// The project's name.
    pub project_name: String,
    /// The local name of the authority's identity.
    pub authority_identity: String,
    /// Pre-trusted members: identifier (`I…`) and attributes. The creator of the project is the first.
    pub administrators: BTreeMap<String, BTreeMap<String, String>>,
    /// How long an issued credential is valid, in seconds.
    pub credential_ttl: u64,
}

/// A relay that the node keeps registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelaySpec {
    /// Local name.
    pub name: String,
    /// The name asked for at the relay service.
    pub relay_address: String,
    /// Route to the node or project where it is made.
    pub at: String,
    /// Identity expected there.
    pub authorized: Option<String>,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// What it is bound to.
    pub target: crate::control::api::PolicyTarget,
    /// S-expression form.
    pub expression: String,
    /// The owner has set it; else it is the default, which was written when the node was first started.
    #[serde(default)]
    pub by_owner: bool,
}

/// An outlet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutletSpec {
    /// Worker address.
    pub address: String,
    /// Target, `host:port`.
    pub to: String,
    /// Speak TLS to the target.
    pub tls: bool,
    /// Whom the target's certificate must be from (PEM); `None`: whom the machine trusts.
    #[serde(default)]
    pub tls_ca: Option<String>,
    /// Leave out the portal's ping and pong.
    pub skip_handshake: bool,
    /// Leave Nagle's algorithm on.
    pub enable_nagle: bool,
    /// What sees the bytes of its connections.
    #[serde(default)]
    pub intercept: Option<crate::control::api::InterceptedBy>,
}

/// An inlet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InletSpec {
    /// Name.
    pub alias: String,
    /// Listening address as bound, `host:port`: a port that the system chose is kept.
    pub from: String,
    /// Full route to the outlet, `/node/…` and `/project/…` unresolved.
    pub to: String,
    /// Local name of the identity for the channel; `None` is the node's.
    pub identity: Option<String>,
    /// Identity expected at the other end.
    pub authorized: Option<String>,
    /// Pause between attempts to connect again, in milliseconds; 0 is the node's back-off.
    pub retry_wait_ms: u64,
    /// Leave out the portal's ping and pong.
    pub skip_handshake: bool,
    /// Leave Nagle's algorithm on.
    pub enable_nagle: bool,
    /// Paths to the outlet side by side. Nodes before this setting had one.
    #[serde(default = "one_stripe")]
    pub stripes: u8,
    /// What sees the bytes of its connections.
    #[serde(default)]
    pub intercept: Option<crate::control::api::InterceptedBy>,
}

/// A worker that the owner started by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerSpec {
    /// Worker address.
    pub address: String,
    /// The name of its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The type's own configuration.
    #[serde(default)]
    pub config: serde_json::Value,
    /// `kind` is the name of a plugin.
    #[serde(default)]
    pub is_plugin: bool,
    /// With a plugin: rights that this worker has beside those of the plugin.
    #[serde(default)]
    pub rights: Vec<String>,
}

/// A plugin that the owner added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginSpec {
    /// What it is called here.
    pub name: String,
    /// SHA-256 of its file, hex.
    pub digest: String,
    /// Where it came from. The node has a copy.
    pub file: String,
    /// `worker` or `interceptor`.
    pub kind: String,
    /// The version of the interface that it was built for.
    pub interface: String,
    /// Its name, as it says.
    pub title: String,
    /// Its version, as it says.
    pub version: String,
    /// What it does, as it says.
    pub description: String,
    /// Rights that it asks for.
    pub wants: Vec<String>,
    /// Rights that it has.
    pub rights: Vec<String>,
    /// What was said about its limits.
    #[serde(default)]
    pub limits: crate::control::api::PluginLimits,
    /// When it was added, UTC seconds.
    pub added_at: u64,
}

fn one_stripe() -> u8 {
    1
}

/// A project as this home knows it (03 §5.1). This is also the file format of `project show` and `project import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Id: part of routes and of credential scopes.
    pub id: String,
    /// Local name, as in `/project/<name>`.
    pub name: String,
    /// Always empty for a self-hosted project.
    #[serde(default)]
    pub space_name: String,
    /// Route to the project node's secure channel listener.
    pub access_route: String,
    /// Always empty for a self-hosted project.
    #[serde(default)]
    pub users: Vec<String>,
    /// Always empty for a self-hosted project.
    #[serde(default)]
    pub space_id: String,
    /// The project node's identifier, `I…`.
    #[serde(default)]
    pub identity: Option<String>,
    /// The project node's change history, hex.
    #[serde(default)]
    pub project_change_history: Option<String>,
    /// Route to the authority's secure channel listener.
    #[serde(default)]
    pub authority_access_route: Option<String>,
    /// The authority's change history, hex.
    #[serde(default)]
    pub authority_identity: Option<String>,
    /// Version of the project node, where known.
    #[serde(default)]
    pub version: Option<String>,
    /// Unused here; kept when a file of the reference is imported.
    #[serde(default)]
    pub running: Option<bool>,
    /// Unused here; kept when a file of the reference is imported.
    #[serde(default)]
    pub operation_id: Option<String>,
    /// Unused here; kept when a file of the reference is imported.
    #[serde(default)]
    pub user_roles: Vec<serde_json::Value>,
}

impl Project {
    /// Whether it has all that a member needs (03 §5.2).
    pub fn is_ready(&self) -> bool {
        !self.access_route.is_empty()
            && self.project_change_history.is_some()
            && self.authority_access_route.is_some()
            && self.authority_identity.is_some()
    }

    /// The scope under which a member's credential is kept: `project-member-<id>` (03 §5.3).
    pub fn credential_scope(&self) -> String {
        format!("project-member-{}", self.id)
    }
}

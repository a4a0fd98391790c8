//! A node with an identity.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use portolan_identity::{
    Identity, KeyType, MemoryAttributeRepository, MemoryIdentityRepository, MemoryPurposeKeyRepository,
    MemorySecretStore, SoftwareVault,
};
use portolan_portal::{Inlet, Outlet};
use portolan_relay::RegisteredRelay;
use portolan_runtime::services::{Echo, Hop, Uppercase};
use portolan_runtime::{Flow, Node};
use portolan_secure_channel::{LocalIdentity, SecureChannel, SecureChannelListener, SecureChannels};
use portolan_tcp::{TcpOptions, TcpTransport};

use crate::inbox::Inbox;

pub(crate) type Failure = Box<dyn std::error::Error>;

/// What a plain peer or a channel of ours may reach.
pub(crate) const SERVICES: [&str; 4] = ["echo", "uppercase", "hop", "inbox"];

pub(crate) struct Party {
    pub(crate) node: Node,
    pub(crate) vault: Arc<SoftwareVault>,
    pub(crate) purpose_keys: Arc<MemoryPurposeKeyRepository>,
    pub(crate) identity: Identity,
    pub(crate) identities: Arc<MemoryIdentityRepository>,
    pub(crate) attributes: Arc<MemoryAttributeRepository>,
    pub(crate) channels: SecureChannels,
    pub(crate) tcp: TcpTransport,
    pub(crate) inbox: Inbox,
    /// The flows of TCP listeners.
    pub(crate) flows: Vec<Arc<Flow>>,
    pub(crate) listeners: Vec<SecureChannelListener>,
    pub(crate) open: HashMap<String, SecureChannel>,
    pub(crate) relays: HashMap<String, RegisteredRelay>,
    pub(crate) outlets: Vec<Outlet>,
    pub(crate) inlets: Vec<Inlet>,
}

/// UTC seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Party {
    pub(crate) fn new() -> Result<Self, Failure> {
        let node = Node::builder().arbiters(1).build()?;
        let inbox = Inbox::default();
        node.start_sync_worker("echo", Echo)?;
        node.start_sync_worker("uppercase", Uppercase)?;
        node.start_sync_worker("hop", Hop)?;
        node.start_sync_worker("inbox", inbox.clone())?;
        let vault = Arc::new(SoftwareVault::new(MemorySecretStore::default()));
        // A rotation within the same second must be later.
        let identity = Identity::create(vault.as_ref(), now() - 10, KeyType::Ed25519)?;
        let identities = Arc::new(MemoryIdentityRepository::default());
        let attributes = Arc::new(MemoryAttributeRepository::default());
        Ok(Self {
            channels: SecureChannels::new(&node, identities.clone(), attributes.clone()),
            tcp: TcpTransport::new(&node, TcpOptions::default()),
            purpose_keys: Arc::default(),
            node,
            vault,
            identity,
            identities,
            attributes,
            inbox,
            flows: Vec::new(),
            listeners: Vec::new(),
            open: HashMap::new(),
            relays: HashMap::new(),
            outlets: Vec::new(),
            inlets: Vec::new(),
        })
    }

    pub(crate) fn local(&self) -> LocalIdentity {
        LocalIdentity::new(
            self.identity.clone(),
            self.vault.clone(),
            self.purpose_keys.clone(),
        )
    }
}

//! An authority with its services on a node, and a stand-in for the secure channel that says who is calling.

// Each test file uses its part of it.
#![allow(dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portolan_authority::api::Response;
use portolan_authority::attributes::MemberAttributes;
use portolan_authority::authority::Authority;
use portolan_authority::client::AuthorityClient;
use portolan_authority::issuer::{CredentialSettings, Issuer};
use portolan_authority::rules::RoleSettings;
use portolan_authority::services::{AccountAuthority, Running, Services};
use portolan_authority::store::Store;
use portolan_identity::{
    AttributeRepository, Identifier, Identity, IdentityRepository, KeyType, MemoryAttributeRepository,
    MemoryIdentityRepository, MemoryPurposeKeyRepository, MemorySecretStore, SoftwareVault,
};
use portolan_runtime::{
    Address, Context, Envelope, Node, Peer, PeerIdentifier, Result, Route, Routed, SyncWorker,
};

pub(crate) const NOW: u64 = 1_700_000_000;
pub(crate) const ADMIN: u8 = 1;

/// Stands for both ends of a secure channel with a peer: what passes comes from that peer.
struct FakeChannel(PeerIdentifier);

impl SyncWorker for FakeChannel {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let mut message = envelope.message;
        if let Some(own) = message.onward.step() {
            message.local.peer = Some(Arc::new(Peer {
                identifier: self.0,
                channel: own.clone(),
            }));
            message.back.prepend(own);
        }
        ctx.forward(message)?;
        Ok(())
    }
}

pub(crate) struct Hub {
    pub(crate) node: Node,
    pub(crate) authority: Arc<Authority>,
    pub(crate) identity: Identity,
    pub(crate) identities: Arc<MemoryIdentityRepository>,
    pub(crate) account_attributes: Arc<MemoryAttributeRepository>,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) running: Running,
}

pub(crate) fn id(byte: u8) -> Identifier {
    Identifier::from([byte; 32])
}

pub(crate) fn attributes(pairs: &[(&str, &str)]) -> MemberAttributes {
    MemberAttributes::new(pairs.iter().copied()).expect("inside all limits")
}

pub(crate) fn settings(ttl: u64) -> CredentialSettings {
    CredentialSettings {
        project_id: "p1".into(),
        include_trust_context_id: true,
        ttl,
    }
}

impl Hub {
    pub(crate) fn start() -> Self {
        Self::start_with(RoleSettings::default())
    }

    pub(crate) fn start_with(roles: RoleSettings) -> Self {
        let node = Node::new().expect("a node");
        let vault = Arc::new(SoftwareVault::new(MemorySecretStore::default()));
        let identity = Identity::create(&*vault, NOW, KeyType::Ed25519).expect("a vault in memory");
        let store = Store::open_in_memory(*identity.identifier()).expect("a store in memory");
        let authority = Arc::new(Authority::new(store, roles));
        authority
            .set_pre_trusted([(id(ADMIN), attributes(&[("ockam-role", "enroller")]))], NOW)
            .expect("a store in memory");
        let identities = Arc::new(MemoryIdentityRepository::default());
        let issuer = Issuer::new(
            identity.clone(),
            vault,
            Arc::new(MemoryPurposeKeyRepository::default()),
            Arc::clone(&identities) as Arc<dyn IdentityRepository>,
            settings(3600),
        )
        .expect("good settings");
        let clock = Arc::new(AtomicU64::new(NOW));
        let time = Arc::clone(&clock);
        let account_attributes = Arc::new(MemoryAttributeRepository::default());
        let mut services = Services::new(Arc::clone(&authority), Arc::new(issuer));
        services.clock = Arc::new(move || time.load(Ordering::Relaxed));
        if roles.account_authority {
            services.account_authority = Some(AccountAuthority {
                identifier: id(0xcc),
                attributes: Arc::clone(&account_attributes) as Arc<dyn AttributeRepository>,
            });
        }
        let running = services.start(&node).expect("free addresses");
        Self {
            node,
            authority,
            identity,
            identities,
            account_attributes,
            clock,
            running,
        }
    }

    /// The route into a channel of this peer.
    pub(crate) fn channel(&self, peer: Identifier) -> Route {
        let address = Address::local(format!("channel-{peer}"));
        if !self.node.has_worker(&address) {
            let channel = FakeChannel(PeerIdentifier(*peer.as_bytes()));
            self.node
                .start_sync_worker(address.clone(), channel)
                .expect("a free address");
        }
        Route::from(address)
    }

    pub(crate) fn context(&self) -> Context {
        self.node.context(Address::random()).expect("a running node")
    }

    pub(crate) fn client<'a>(&self, ctx: &'a Context, peer: u8) -> AuthorityClient<'a> {
        AuthorityClient::new(ctx, self.channel(id(peer))).with_timeout(Duration::from_secs(10))
    }

    /// Sends raw bytes as `peer` and returns the answer.
    pub(crate) async fn raw(&self, peer: u8, service: &str, payload: Vec<u8>) -> Response {
        let mut route = self.channel(id(peer));
        route.push(Address::local(service));
        let answer: Routed<Vec<u8>> = self
            .node
            .send_and_receive(route, payload)
            .await
            .expect("an answer");
        Response::decode(answer.payload()).expect("a response")
    }
}

//! Enrollment over real secure channels: the caller is who has shaken hands.

use std::sync::Arc;

use portolan_authority::attributes::MemberAttributes;
use portolan_authority::authority::Authority;
use portolan_authority::client::{AuthorityClient, ClientError, Enrollment};
use portolan_authority::issuer::{CredentialSettings, DEFAULT_CREDENTIAL_TTL, Issuer};
use portolan_authority::project::Project;
use portolan_authority::protocol::CreateToken;
use portolan_authority::rules::RoleSettings;
use portolan_authority::services::{Services, system_clock};
use portolan_authority::store::Store;
use portolan_authority::ticket::Ticket;
use portolan_identity::{
    Identity, IdentityRepository, KeyType, MemoryAttributeRepository, MemoryIdentityRepository,
    MemoryPurposeKeyRepository, MemorySecretStore, PurposeKeyRepository, SoftwareVault, Vault,
};
use portolan_runtime::{Address, Node};
use portolan_secure_channel::{
    ChannelOptions, ListenerOptions, LocalIdentity, SecureChannel, SecureChannels, TrustPolicy,
};

/// A vault with one identity, as a machine has it.
struct Party {
    identity: Identity,
    vault: Arc<dyn Vault>,
    purpose_keys: Arc<dyn PurposeKeyRepository>,
}

impl Party {
    fn new(now: u64) -> Self {
        let vault: Arc<dyn Vault> = Arc::new(SoftwareVault::new(MemorySecretStore::default()));
        let identity = Identity::create(&*vault, now, KeyType::Ed25519).expect("a vault in memory");
        Self {
            identity,
            vault,
            purpose_keys: Arc::new(MemoryPurposeKeyRepository::default()),
        }
    }

    fn local(&self) -> LocalIdentity {
        LocalIdentity::new(
            self.identity.clone(),
            Arc::clone(&self.vault),
            Arc::clone(&self.purpose_keys),
        )
    }

    /// A channel to the authority, which has to be the expected one.
    async fn connect(&self, node: &Node, authority: &Identity) -> SecureChannel {
        let channels = SecureChannels::new(
            node,
            Arc::new(MemoryIdentityRepository::default()),
            Arc::new(MemoryAttributeRepository::default()),
        );
        let options =
            ChannelOptions::new(self.local()).trust(TrustPolicy::Identifier(*authority.identifier()));
        channels
            .create("api", options)
            .await
            .expect("the authority answers")
    }
}

#[tokio::test]
async fn a_machine_with_a_ticket_enrolls_and_gets_its_credential_over_a_secure_channel() {
    let now = system_clock()();
    let node = Node::new().expect("a node");
    let (hub, admin, machine, late) = (Party::new(now), Party::new(now), Party::new(now), Party::new(now));

    // The hub.
    let identities = Arc::new(MemoryIdentityRepository::default());
    let store = Store::open_in_memory(*hub.identity.identifier()).expect("a store in memory");
    let authority = Arc::new(Authority::new(store, RoleSettings::default()));
    let enroller = MemberAttributes::new([("ockam-role", "enroller")]).expect("inside all limits");
    authority
        .set_pre_trusted([(*admin.identity.identifier(), enroller)], now)
        .expect("a store in memory");
    let issuer = Issuer::new(
        hub.identity.clone(),
        Arc::clone(&hub.vault),
        Arc::clone(&hub.purpose_keys),
        Arc::clone(&identities) as Arc<dyn IdentityRepository>,
        CredentialSettings {
            project_id: "p1".into(),
            include_trust_context_id: true,
            ttl: DEFAULT_CREDENTIAL_TTL,
        },
    )
    .expect("good settings");
    let services = Services::new(authority, Arc::new(issuer))
        .start(&node)
        .expect("free addresses");
    let channels = SecureChannels::new(&node, identities, Arc::new(MemoryAttributeRepository::default()));
    let listener = channels
        .listen("api", ListenerOptions::new(ChannelOptions::new(hub.local())))
        .expect("a free address");
    services.consume(listener.flow());

    // The administrator makes a ticket.
    let ctx = node.context(Address::random()).expect("a running node");
    let channel = admin.connect(&node, &hub.identity).await;
    let client = AuthorityClient::new(&ctx, channel.address());
    let attributes = MemberAttributes::new([("role", "client")]).expect("inside all limits");
    let token = CreateToken {
        attributes,
        ttl: None,
        uses: None,
    };
    let code = client.create_token(&token).await.expect("an administrator");
    let route = "/ip4/127.0.0.1/tcp/4000/service/p1/service/api";
    let project = Project::new(
        "p1",
        "bank",
        route,
        hub.identity.clone(),
        hub.identity.clone(),
        route,
    )
    .expect("good");
    let text = Ticket::new(project, code, None).to_text();

    // The machine knows nothing but the ticket.
    let ticket: Ticket = text.parse().expect("a ticket");
    let authority = ticket.project().authority();
    let channel = machine.connect(&node, authority).await;
    let client = AuthorityClient::new(&ctx, channel.address());
    assert_eq!(
        client.redeem(ticket.code()).await.expect("a fresh code"),
        Enrollment::Enrolled
    );
    let credential = client
        .credential(machine.identity.identifier(), authority, now)
        .await
        .expect("a member with a credential");
    let said = credential.credential.read().expect("just issued");
    assert_eq!(
        said.subject_latest_change_hash,
        Some(machine.identity.latest_change_hash())
    );
    assert!(said.attributes.has("role", "client"));
    assert!(
        matches!(client.member_ids().await, Err(ClientError::Refused(_))),
        "no enroller"
    );

    // Somebody else comes too late with the same ticket.
    let channel = late.connect(&node, authority).await;
    let client = AuthorityClient::new(&ctx, channel.address());
    assert!(matches!(
        client.redeem(ticket.code()).await,
        Err(ClientError::Code { .. })
    ));
    node.stop().await;
}

//! What every member may know: who was removed, told at once, and which attributes nobody has.

use std::sync::Arc;
use std::time::Duration;

use portolan_authority::attributes::MemberAttributes;
use portolan_authority::authority::Authority;
use portolan_authority::client::{AuthorityClient, ClientError};
use portolan_authority::issuer::{CredentialSettings, Issuer};
use portolan_authority::protocol::{CreateToken, MAX_REMOVALS, Removal, Removals, RemovalsQuestion};
use portolan_authority::rules::{Caller, RoleSettings};
use portolan_authority::services::Services;
use portolan_authority::store::Store;
use portolan_identity::{
    Identifier, Identity, KeyType, MemoryIdentityRepository, MemoryPurposeKeyRepository, MemorySecretStore,
    SoftwareVault,
};
use portolan_runtime::{Address, Context, Envelope, Node, Peer, PeerIdentifier, Result, Route, SyncWorker};

const NOW: u64 = 1_700_000_000;
const ADMIN: u8 = 1;

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

struct Hub {
    node: Node,
    authority: Arc<Authority>,
}

fn id(byte: u8) -> Identifier {
    Identifier::from([byte; 32])
}

fn attributes(pairs: &[(&str, &str)]) -> MemberAttributes {
    MemberAttributes::new(pairs.iter().copied()).expect("inside all limits")
}

fn admin() -> Caller {
    Caller {
        identifier: id(ADMIN),
        account_admin: false,
    }
}

impl Hub {
    /// With members 2 to 9.
    fn start() -> Self {
        let node = Node::new().expect("a node");
        let vault = Arc::new(SoftwareVault::new(MemorySecretStore::default()));
        let identity = Identity::create(&*vault, NOW, KeyType::Ed25519).expect("a vault in memory");
        let store = Store::open_in_memory(*identity.identifier()).expect("a store in memory");
        let authority = Arc::new(Authority::new(store, RoleSettings::default()));
        authority
            .set_pre_trusted([(id(ADMIN), attributes(&[("ockam-role", "enroller")]))], NOW)
            .expect("a store in memory");
        for member in 2..10 {
            authority
                .add_member(&admin(), &id(member), attributes(&[("role", "client")]), NOW)
                .expect("an administrator");
        }
        let issuer = Issuer::new(
            identity,
            vault,
            Arc::new(MemoryPurposeKeyRepository::default()),
            Arc::new(MemoryIdentityRepository::default()),
            CredentialSettings {
                project_id: "p1".into(),
                include_trust_context_id: true,
                ttl: 3600,
            },
        )
        .expect("good settings");
        let mut services = Services::new(Arc::clone(&authority), Arc::new(issuer));
        services.clock = Arc::new(|| NOW);
        services.start(&node).expect("free addresses");
        Self { node, authority }
    }

    fn context(&self) -> Context {
        self.node.context(Address::random()).expect("a running node")
    }

    fn client<'a>(&self, ctx: &'a Context, peer: u8) -> AuthorityClient<'a> {
        let address = Address::local(format!("channel-{peer}"));
        if !self.node.has_worker(&address) {
            let channel = FakeChannel(PeerIdentifier([peer; 32]));
            self.node
                .start_sync_worker(address.clone(), channel)
                .expect("a free address");
        }
        AuthorityClient::new(ctx, Route::from(address)).with_timeout(Duration::from_secs(10))
    }

    fn remove(&self, member: u8) {
        assert!(
            self.authority
                .delete_member(&admin(), &id(member), NOW)
                .expect("an administrator")
        );
    }
}

fn after(after: u64, wait: u64) -> RemovalsQuestion {
    RemovalsQuestion { after, wait }
}

#[tokio::test]
async fn a_member_that_waits_is_told_of_a_removal_when_it_happens() {
    let hub = Hub::start();
    let ctx = hub.context();
    let client = hub.client(&ctx, 2);
    let none = client.removals(&after(0, 0)).await.expect("a member");
    assert_eq!(none, Removals::default());
    let question = after(none.last, 30);
    let waiting = client.removals(&question);
    tokio::pin!(waiting);
    // It has been asked by then, or asks later; either way it is told.
    let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
    assert!(early.is_err(), "answered before anything happened: {early:?}");
    hub.remove(3);
    let told = tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .expect("long before the 30 s are over")
        .expect("a member");
    let removal = Removal {
        member: id(3),
        removed_at: NOW,
    };
    assert_eq!(told.removals, [removal]);
    // And is not told again.
    let none = client.removals(&after(told.last, 1)).await.expect("a member");
    assert_eq!(
        (none.last, none.removals, none.more),
        (told.last, Vec::new(), false)
    );
    hub.node.stop().await;
}

#[tokio::test]
async fn nobody_but_members_may_ask_or_wait() {
    let hub = Hub::start();
    let ctx = hub.context();
    hub.remove(2);
    for stranger in [2, 77] {
        let client = hub.client(&ctx, stranger);
        for wait in [0, 30] {
            let refused = client.removals(&after(0, wait)).await;
            assert!(matches!(refused, Err(ClientError::Refused(_))), "{refused:?}");
        }
        let refused = client.unknown_attributes(&["role"]).await;
        assert!(matches!(refused, Err(ClientError::Refused(_))), "{refused:?}");
    }
    hub.node.stop().await;
}

#[tokio::test]
async fn a_node_that_was_away_is_told_everything_in_pages() {
    let hub = Hub::start();
    let ctx = hub.context();
    let client = hub.client(&ctx, 2);
    let removed = MAX_REMOVALS + 7;
    for n in 0..removed {
        let mut bytes = [0xee; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let member = Identifier::from(bytes);
        hub.authority
            .add_member(&admin(), &member, attributes(&[]), NOW)
            .expect("an administrator");
        hub.authority
            .delete_member(&admin(), &member, NOW)
            .expect("an administrator");
    }
    let first = client.removals(&after(0, 30)).await.expect("a member");
    assert_eq!((first.removals.len(), first.more), (MAX_REMOVALS, true));
    let second = client.removals(&after(first.last, 30)).await.expect("a member");
    assert_eq!((second.removals.len(), second.more), (7, false));
    assert!(second.last > first.last);
    // Its number is of a database that was lost: it must not wait for numbers that will not come for long.
    let restored = client
        .removals(&after(second.last + 100, 30))
        .await
        .expect("a member");
    assert_eq!(restored.removals, first.removals);
    hub.node.stop().await;
}

#[tokio::test]
async fn a_member_that_asks_without_end_takes_nobodys_place() {
    let hub = Hub::start();
    let ctx = hub.context();
    let greedy = hub.client(&ctx, 2).with_timeout(Duration::from_millis(200));
    let question = after(0, 30);
    let asking = (0..40).map(|_| {
        Box::pin(tokio::time::timeout(
            Duration::from_millis(500),
            greedy.removals(&question),
        ))
    });
    let unanswered = futures_util::future::join_all(asking).await;
    assert!(
        unanswered.iter().all(|answer| answer.is_err()),
        "nothing has happened"
    );
    let other = hub.client(&ctx, 4);
    let question = after(0, 30);
    let waiting = other.removals(&question);
    tokio::pin!(waiting);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), &mut waiting)
            .await
            .is_err()
    );
    hub.remove(5);
    let told = waiting.await.expect("a member");
    assert_eq!(told.removals.len(), 1);
    hub.node.stop().await;
}

#[tokio::test]
async fn four_questions_of_a_member_wait_at_a_time() {
    let hub = Hub::start();
    let ctx = hub.context();
    let client = hub.client(&ctx, 2).with_timeout(Duration::from_secs(2));
    let question = after(0, 1);
    let asking = (0..6).map(|_| Box::pin(client.removals(&question)));
    let answers = futures_util::future::join_all(asking).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 4);
    // Their places are free again.
    client.removals(&question).await.expect("a member");
    hub.node.stop().await;
}

#[tokio::test]
async fn a_member_learns_which_attributes_nobody_has() {
    let hub = Hub::start();
    let ctx = hub.context();
    let token = CreateToken {
        attributes: attributes(&[("floor", "3")]),
        ttl: None,
        uses: None,
    };
    hub.authority
        .create_token(&admin(), token, NOW)
        .expect("an administrator");
    let client = hub.client(&ctx, 2);
    let unknown = client
        .unknown_attributes(&["role", "roll", "floor", "ockam-role"])
        .await
        .expect("a member");
    assert_eq!(unknown, ["roll"]);
    assert!(
        client.unknown_attributes(&["x"; 65]).await.is_err(),
        "too many names"
    );
    hub.node.stop().await;
}

#[test]
fn what_is_no_answer_is_not_read_as_one() {
    let good = Removals {
        last: 9,
        removals: vec![Removal {
            member: id(1),
            removed_at: NOW,
        }],
        more: true,
    };
    let bytes = good.encode();
    assert_eq!(Removals::decode(&bytes).expect("as written"), good);
    for cut in 0..bytes.len() {
        assert!(Removals::decode(&bytes[..cut]).is_err(), "cut after {cut} bytes");
    }
    let long = Removals {
        removals: vec![good.removals[0]; MAX_REMOVALS + 1],
        ..good
    };
    assert!(Removals::decode(&long.encode()).is_err());
    assert!(RemovalsQuestion::decode(&[0xa0]).is_err());
    let endless = RemovalsQuestion {
        after: 1,
        wait: u64::MAX,
    };
    let read = RemovalsQuestion::decode(&endless.encode()).expect("a question");
    assert!(read.wait <= 30);
}

//! The services as a member's node meets them: over routes, with a stand-in for the secure channel that says
//! who is calling.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portolan_authority::api::{Method, Request, Response, SECURE_CHANNEL_REQUIRED, Status};
use portolan_authority::client::{AuthorityClient, ClientError, Enrollment};
use portolan_authority::code::OneTimeCode;
use portolan_authority::issuer::{InvalidSettings, Issuer, MIN_CREDENTIAL_TTL};
use portolan_authority::protocol::{
    CREDENTIAL_ISSUER, CreateToken, DIRECT_AUTHENTICATOR, MEMBER_SERVICE, TOKEN_ACCEPTOR, TOKEN_ISSUER,
};
use portolan_authority::refusal::CodeRefusal;
use portolan_authority::rules::{Caller, RoleSettings};
use portolan_identity::{
    AttributeRepository, Attributes, HistoryOrder, Identity, IdentityRepository, KeyType,
    MemoryIdentityRepository, MemoryPurposeKeyRepository, MemorySecretStore, SoftwareVault,
};
use portolan_runtime::{
    AccessControl, Address, Capacity, Message, Peer, PeerIdentifier, Route, Routed, WorkerOptions,
};

mod hub;
use hub::{ADMIN, Hub, NOW, attributes, id, settings};

fn refused(error: ClientError) -> String {
    match error {
        ClientError::Refused(failure) if failure.status == Some(Status::Forbidden) => failure.to_string(),
        other => panic!("not a refusal: {other:?}"),
    }
}

#[tokio::test]
async fn a_ticket_makes_a_member_that_gets_a_credential() {
    let hub = Hub::start();
    let ctx = hub.context();
    let token = CreateToken {
        attributes: attributes(&[("role", "client"), ("ockam-relay", "blue")]),
        ttl: None,
        uses: None,
    };
    let code = hub
        .client(&ctx, ADMIN)
        .create_token(&token)
        .await
        .expect("an administrator");
    let member = hub.client(&ctx, 2);
    let early = member
        .credential(&id(2), &hub.identity, NOW)
        .await
        .expect_err("not a member yet");
    assert_eq!(refused(early), "unauthorized member");
    assert_eq!(
        member.redeem(&code).await.expect("a fresh code"),
        Enrollment::Enrolled
    );
    assert_eq!(
        member.redeem(&code).await.expect("the same identity again"),
        Enrollment::AlreadyMember
    );

    let credential = member
        .credential(&id(2), &hub.identity, NOW)
        .await
        .expect("a member");
    let said = credential
        .verify(Some(&id(2)), std::slice::from_ref(&hub.identity), NOW)
        .expect("just issued");
    let pairs: Vec<_> = said
        .attributes
        .iter()
        .map(|(n, v)| (n.to_vec(), v.to_vec()))
        .collect();
    let expected = [
        ("ockam-relay", "blue"),
        ("role", "client"),
        ("trust_context_id", "p1"),
    ];
    assert_eq!(
        pairs,
        expected.map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()))
    );
    assert_eq!(
        (said.created_at, said.expires_at, said.attributes.schema()),
        (NOW, NOW + 3600, 1)
    );
    assert_eq!(said.subject_latest_change_hash, Some(id(2).change_hash()));
    hub.node.stop().await;
}

#[tokio::test]
async fn each_refused_code_has_its_reason() {
    let hub = Hub::start();
    let ctx = hub.context();
    let admin = hub.client(&ctx, ADMIN);
    let code = admin
        .create_token(&CreateToken::default())
        .await
        .expect("an administrator");
    hub.client(&ctx, 2).redeem(&code).await.expect("a fresh code");
    let reason = async |peer: u8, code: &OneTimeCode| match hub.client(&ctx, peer).redeem(code).await {
        Err(ClientError::Code { reason, .. }) => reason,
        other => panic!("not about the code: {other:?}"),
    };
    assert_eq!(reason(3, &code).await, CodeRefusal::Used);
    assert_eq!(reason(3, &OneTimeCode::from([9; 32])).await, CodeRefusal::Unknown);
    let short = admin
        .create_token(&CreateToken {
            ttl: Some(5),
            ..CreateToken::default()
        })
        .await
        .expect("an administrator");
    hub.clock.store(NOW + 5, Ordering::Relaxed);
    assert_eq!(reason(3, &short).await, CodeRefusal::Expired);
    for _ in 0..9 {
        assert_eq!(reason(3, &OneTimeCode::from([9; 32])).await, CodeRefusal::Unknown);
    }
    assert_eq!(
        reason(3, &OneTimeCode::from([9; 32])).await,
        CodeRefusal::TooManyAttempts
    );
    hub.node.stop().await;
}

#[tokio::test]
async fn members_are_managed_over_the_wire() {
    let hub = Hub::start();
    let ctx = hub.context();
    let admin = hub.client(&ctx, ADMIN);
    admin
        .add_member(&id(2), attributes(&[("a", "b")]))
        .await
        .expect("an administrator");
    assert_eq!(
        admin.member_ids().await.expect("an administrator"),
        [id(1), id(2)]
    );
    let members = admin.members().await.expect("an administrator");
    let entry = admin.member(&id(2)).await.expect("an administrator");
    assert_eq!(members[&id(2)], entry);
    assert_eq!(
        (entry.added_at, entry.expires_at, entry.attested_by),
        (NOW, None, Some(id(ADMIN)))
    );
    assert_eq!(entry.attributes, BTreeMap::from([(b"a".to_vec(), b"b".to_vec())]));
    assert_eq!(
        members[&id(ADMIN)].attested_by.as_ref(),
        Some(hub.identity.identifier()),
        "pre-trusted"
    );
    let missing = admin.member(&id(9)).await.expect_err("not a member");
    assert_eq!(refused(missing), format!("Member {} not found", id(9)));
    admin.delete_member(&id(2)).await.expect("an administrator");
    admin
        .delete_member(&id(2))
        .await
        .expect("an unknown one is a success");
    let plain = hub.client(&ctx, 3);
    assert!(refused(plain.member_ids().await.expect_err("no member")).contains("only an enroller"));
    assert!(refused(plain.delete_all_members().await.expect_err("no member")).contains("only an enroller"));
    admin
        .add_member(&id(4), attributes(&[]))
        .await
        .expect("an administrator");
    admin.delete_all_members().await.expect("an administrator");
    assert_eq!(admin.member_ids().await.expect("an administrator"), [id(ADMIN)]);
    hub.node.stop().await;
}

#[tokio::test]
async fn attributes_are_integer_arrays_on_the_wire() {
    let hub = Hub::start();
    hub.authority
        .add_member(
            &portolan_authority::rules::Caller::new(id(ADMIN)),
            &id(2),
            attributes(&[("a", "b")]),
            100,
        )
        .expect("an administrator");
    for path in [
        format!("/{}", id(2)),
        format!("members/{}", id(2)),
        format!("//members/{}", id(2)),
    ] {
        let answer = hub
            .raw(
                ADMIN,
                DIRECT_AUTHENTICATOR,
                Request::new(7, Method::Get, path).encode(),
            )
            .await;
        let body = answer.into_success().expect("an administrator").expect("a body");
        assert_eq!(
            hex::encode(body),
            format!("a301a1811861811862021864045820{}", "01".repeat(32))
        );
    }
    hub.node.stop().await;
}

#[tokio::test]
async fn every_malformed_request_gets_a_400() {
    let hub = Hub::start();
    let post = |path: &str, body: &[u8]| {
        Request::new(5, Method::Post, path)
            .with_body(body.to_vec())
            .encode()
    };
    let cases: Vec<(&str, Vec<u8>, u32)> = vec![
        (TOKEN_ISSUER, vec![], 0),
        (TOKEN_ISSUER, vec![0xff; 40], 0),
        (TOKEN_ISSUER, b"\x05hello".to_vec(), 0),
        (TOKEN_ISSUER, post("/", b""), 5),
        (TOKEN_ISSUER, post("/", b"\xa1\x01\x80"), 5),
        (TOKEN_ISSUER, post("/", b"\xa1\x01\xa1\x41a\x41b"), 5),
        (TOKEN_ISSUER, post("/", b"\xa1\x01\xa1\x6aidentifier\x61x"), 5),
        (TOKEN_ISSUER, post("", b"\xa1\x01\xa0"), 5),
        (TOKEN_ISSUER, post("//", b"\xa1\x01\xa0"), 5),
        (TOKEN_ISSUER, post("tokens", b"\xa1\x01\xa0"), 5),
        (TOKEN_ISSUER, Request::new(5, Method::Get, "/").encode(), 5),
        (TOKEN_ACCEPTOR, Request::new(5, Method::Post, "/").encode(), 5),
        (TOKEN_ACCEPTOR, post("/", b"\xa1\x01\x41a"), 5),
        (CREDENTIAL_ISSUER, Request::new(5, Method::Post, "").encode(), 5),
        (
            DIRECT_AUTHENTICATOR,
            Request::new(5, Method::Get, "/members/").encode(),
            5,
        ),
        (
            DIRECT_AUTHENTICATOR,
            Request::new(5, Method::Get, "/members/I12").encode(),
            5,
        ),
        (
            DIRECT_AUTHENTICATOR,
            Request::new(5, Method::Delete, "/nobody").encode(),
            5,
        ),
        (
            DIRECT_AUTHENTICATOR,
            Request::new(5, Method::Put, "/").encode(),
            5,
        ),
        (
            DIRECT_AUTHENTICATOR,
            post("/members", b"\xa2\x01\x41a\x02\xa0"),
            5,
        ),
        (
            DIRECT_AUTHENTICATOR,
            vec![0x08, 0xa3, 0x01, 0x05, 0x02, 0x61, b'/', 0x04, 0xf4],
            5,
        ), // no method
    ];
    for (service, payload, re) in cases {
        let answer = hub.raw(ADMIN, service, payload.clone()).await;
        assert_eq!(
            (answer.re, answer.status),
            (re, Some(Status::BadRequest)),
            "{service} {}",
            hex::encode(payload)
        );
    }
    let good = hub
        .raw(ADMIN, TOKEN_ISSUER, post("/tokens", b"\xa1\x01\xa0"))
        .await;
    assert_eq!(good.status, Some(Status::Ok), "and the service goes on");
    hub.node.stop().await;
}

#[tokio::test]
async fn a_request_without_an_authenticated_peer_gets_a_400_whatever_it_says() {
    let hub = Hub::start();
    let request = Request::new(5, Method::Post, "/").encode();
    for service in [
        TOKEN_ISSUER,
        TOKEN_ACCEPTOR,
        CREDENTIAL_ISSUER,
        DIRECT_AUTHENTICATOR,
        MEMBER_SERVICE,
    ] {
        let answer: Routed<Vec<u8>> = hub
            .node
            .send_and_receive(service, request.clone())
            .await
            .expect("an answer");
        let response = Response::decode(answer.payload()).expect("a response");
        assert_eq!((response.re, response.status), (0, Some(Status::BadRequest)));
        assert_eq!(
            response.into_success().expect_err("400").to_string(),
            SECURE_CHANNEL_REQUIRED
        );
        assert_eq!(
            answer.return_route(),
            &Route::from(service),
            "answers come from the service"
        );
    }
    hub.node.stop().await;
}

#[tokio::test]
async fn of_twenty_clients_with_one_ticket_exactly_one_becomes_a_member() {
    let hub = Hub::start();
    let ctx = hub.context();
    let code = hub
        .client(&ctx, ADMIN)
        .create_token(&CreateToken::default())
        .await
        .expect("an administrator");
    let contexts: Vec<_> = (0..20).map(|_| hub.context()).collect();
    let attempts = contexts.iter().zip(10u8..).map(|(ctx, peer)| {
        let (client, code) = (hub.client(ctx, peer), code.clone());
        async move { client.redeem(&code).await }
    });
    let results = futures_util::future::join_all(attempts).await;
    assert_eq!(
        results
            .iter()
            .filter(|result| matches!(result, Ok(Enrollment::Enrolled)))
            .count(),
        1
    );
    let used = |result: &&_| {
        matches!(
            result,
            Err(ClientError::Code {
                reason: CodeRefusal::Used,
                ..
            })
        )
    };
    assert_eq!(results.iter().filter(used).count(), 19);
    hub.node.stop().await;
}

#[tokio::test]
async fn a_peer_that_takes_no_answers_holds_nobody_up() {
    let hub = Hub::start();
    // A channel whose other end does not read: a mailbox that nobody empties.
    let options = WorkerOptions::new("stuck")
        .incoming(AccessControl::AllowAll)
        .capacity(Capacity {
            messages: 1,
            bytes: 1,
        });
    let stuck = hub.node.context(options).expect("a free address");
    let peer = Arc::new(Peer {
        identifier: PeerIdentifier([8; 32]),
        channel: "stuck".into(),
    });
    let ctx = hub.context();
    for _ in 0..1000 {
        let mut message = Message::new(
            DIRECT_AUTHENTICATOR,
            "stuck",
            Request::new(1, Method::Post, "/").encode(),
        );
        message.local.peer = Some(Arc::clone(&peer));
        hub.node.send_message(message).await.expect("room in the mailbox");
    }
    let ids = tokio::time::timeout(Duration::from_secs(10), hub.client(&ctx, ADMIN).member_ids()).await;
    assert_eq!(ids.expect("in time").expect("an administrator"), [id(ADMIN)]);
    drop(stuck);
    hub.node.stop().await;
}

#[tokio::test]
async fn a_member_that_is_removed_gets_no_further_credential_and_one_that_returns_gets_a_later_one() {
    let hub = Hub::start();
    let ctx = hub.context();
    let admin = hub.client(&ctx, ADMIN);
    let member = hub.client(&ctx, 2);
    admin
        .add_member(&id(2), attributes(&[]))
        .await
        .expect("an administrator");
    let before = member
        .credential(&id(2), &hub.identity, NOW)
        .await
        .expect("a member");
    admin.delete_member(&id(2)).await.expect("an administrator");
    let after = member
        .credential(&id(2), &hub.identity, NOW)
        .await
        .expect_err("not a member any more");
    assert_eq!(refused(after), "unauthorized member");
    admin
        .add_member(&id(2), attributes(&[]))
        .await
        .expect("an administrator");
    let again = member
        .credential(&id(2), &hub.identity, NOW)
        .await
        .expect("a member again");
    let removed_at = hub.authority.revocations_after(0, 1).expect("a store in memory")[0].revoked_at;
    let created =
        |c: &portolan_identity::CredentialAndPurposeKey| c.credential.read().expect("just issued").created_at;
    assert!(created(&before) <= removed_at && created(&again) > removed_at);
    hub.node.stop().await;
}

#[tokio::test]
async fn a_member_that_is_removed_twice_within_a_second_has_no_credential_that_counts() {
    let hub = Hub::start();
    let ctx = hub.context();
    let (admin, member) = (hub.client(&ctx, ADMIN), hub.client(&ctx, 2));
    for _ in 0..2 {
        admin
            .add_member(&id(2), attributes(&[]))
            .await
            .expect("an administrator");
        let credential = member
            .credential(&id(2), &hub.identity, NOW)
            .await
            .expect("a member");
        admin.delete_member(&id(2)).await.expect("an administrator");
        let created = credential.credential.read().expect("just issued").created_at;
        let removals = hub.authority.revocations_after(0, 9).expect("a store in memory");
        assert_eq!(removals.len(), 1, "the last one counts");
        assert!(
            created <= removals[0].revoked_at,
            "created at {created}, removed at {}",
            removals[0].revoked_at
        );
    }
    hub.node.stop().await;
}

#[tokio::test]
async fn a_credential_of_before_the_clock_was_set_back_does_not_outlive_the_removal() {
    let hub = Hub::start();
    let ctx = hub.context();
    let (admin, member) = (hub.client(&ctx, ADMIN), hub.client(&ctx, 2));
    admin
        .add_member(&id(2), attributes(&[]))
        .await
        .expect("an administrator");
    let credential = member
        .credential(&id(2), &hub.identity, NOW)
        .await
        .expect("a member");
    let created = credential.credential.read().expect("just issued").created_at;
    let who = Caller::new(id(ADMIN));
    hub.authority
        .delete_member(&who, &id(2), created - 100)
        .expect("an administrator");
    let removals = hub.authority.revocations_after(0, 9).expect("a store in memory");
    assert_eq!(removals[0].revoked_at, created);
    hub.node.stop().await;
}

#[tokio::test]
async fn the_credential_names_the_latest_change_of_the_subject() {
    let hub = Hub::start();
    let ctx = hub.context();
    let vault = SoftwareVault::new(MemorySecretStore::default());
    let subject = Identity::create(&vault, NOW, KeyType::Ed25519).expect("a vault in memory");
    let known = MemoryIdentityRepository::default();
    let rotated = subject
        .rotate(&vault, &known, NOW + 1, KeyType::Ed25519)
        .expect("a vault in memory");
    let order = hub
        .identities
        .update(rotated.clone())
        .expect("a repository in memory");
    assert_eq!(order, HistoryOrder::Newer);
    hub.client(&ctx, ADMIN)
        .add_member(subject.identifier(), attributes(&[]))
        .await
        .expect("an administrator");
    let client = AuthorityClient::new(&ctx, hub.channel(*subject.identifier()));
    let credential = client
        .credential(subject.identifier(), &hub.identity, NOW)
        .await
        .expect("a member");
    let said = credential.credential.read().expect("just issued");
    assert_eq!(
        said.subject_latest_change_hash,
        Some(rotated.latest_change_hash())
    );
    hub.node.stop().await;
}

#[tokio::test]
async fn an_administrator_by_credential_manages_members_and_gets_an_administrators_credential() {
    let hub = Hub::start_with(RoleSettings {
        account_authority: true,
        enforce_admin_checks: true,
    });
    let ctx = hub.context();
    let admin = hub.client(&ctx, 9);
    assert!(refused(admin.member_ids().await.expect_err("no credential yet")).contains("only an enroller"));
    let claim = |project: &str| Attributes::from_pairs([("project", project)]).expect("inside all limits");
    hub.account_attributes
        .put(&id(9), claim("other"), &id(0xcc), NOW, Some(NOW + 60))
        .expect("in memory");
    assert!(admin.member_ids().await.is_err(), "of another project");
    hub.account_attributes
        .put(&id(9), claim("p1"), &id(0xdd), NOW, Some(NOW + 60))
        .expect("in memory");
    assert!(admin.member_ids().await.is_err(), "from another authority");
    hub.account_attributes
        .put(&id(9), claim("p1"), &id(0xcc), NOW, Some(NOW + 60))
        .expect("in memory");
    admin
        .add_member(&id(2), attributes(&[("ockam-role", "enroller")]))
        .await
        .expect("an administrator");
    let credential = admin
        .credential(&id(9), &hub.identity, NOW)
        .await
        .expect("an administrator");
    let said = credential.credential.read().expect("just issued").attributes;
    assert!(
        said.has("ockam-relay", "*")
            && said.has("ockam-tls-certificate", "true")
            && said.has("trust_context_id", "p1")
    );
    assert_eq!(said.len(), 3);
    hub.clock.store(NOW + 61, Ordering::Relaxed);
    assert!(admin.member_ids().await.is_err(), "expired");
    hub.node.stop().await;
}

#[tokio::test]
async fn only_consumers_of_the_flow_are_reached_and_stopping_leaves_nothing_behind() {
    let hub = Hub::start();
    let flow = hub.node.new_flow(None);
    hub.running.consume(&flow);
    for service in [
        TOKEN_ISSUER,
        TOKEN_ACCEPTOR,
        CREDENTIAL_ISSUER,
        DIRECT_AUTHENTICATOR,
    ] {
        assert!(flow.consumers().contains(&Address::local(service)));
    }
    assert_eq!(hub.running.addresses().len(), 5);
    hub.running.stop().await;
    assert_eq!(hub.node.workers(), Vec::<Address>::new());
    hub.node.stop().await;
}

#[test]
fn a_life_that_makes_stock_nodes_spin_is_refused() {
    let vault = Arc::new(SoftwareVault::new(MemorySecretStore::default()));
    let identity = Identity::create(&*vault, NOW, KeyType::Ed25519).expect("a vault in memory");
    let issuer = |ttl| {
        let vault = Arc::clone(&vault);
        let identities = Arc::new(MemoryIdentityRepository::default());
        Issuer::new(
            identity.clone(),
            vault,
            Arc::new(MemoryPurposeKeyRepository::default()),
            identities,
            settings(ttl),
        )
    };
    assert!(issuer(MIN_CREDENTIAL_TTL).is_ok());
    for ttl in [0, MIN_CREDENTIAL_TTL - 1, u64::MAX] {
        assert_eq!(issuer(ttl).expect_err("out of range"), InvalidSettings::Ttl(ttl));
    }
}

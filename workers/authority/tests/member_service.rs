//! What every member may know: who was removed, told at once, and which attributes nobody has.

use std::time::Duration;

use portolan_authority::client::ClientError;
use portolan_authority::protocol::{CreateToken, MAX_REMOVALS, Removal, Removals, RemovalsQuestion};
use portolan_authority::rules::Caller;
use portolan_identity::Identifier;

mod hub;
use hub::{ADMIN, Hub, NOW, attributes, id};

fn admin() -> Caller {
    Caller {
        identifier: id(ADMIN),
        account_admin: false,
    }
}

/// With members 2 to 9.
fn hub_with_members() -> Hub {
    let hub = Hub::start();
    for member in 2..10 {
        hub.authority
            .add_member(&admin(), &id(member), attributes(&[("role", "client")]), NOW)
            .expect("an administrator");
    }
    hub
}

fn remove(hub: &Hub, member: u8) {
    assert!(
        hub.authority
            .delete_member(&admin(), &id(member), NOW)
            .expect("an administrator")
    );
}

fn after(after: u64, wait: u64) -> RemovalsQuestion {
    RemovalsQuestion { after, wait }
}

#[tokio::test]
async fn a_member_that_waits_is_told_of_a_removal_when_it_happens() {
    let hub = hub_with_members();
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
    remove(&hub, 3);
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
    let hub = hub_with_members();
    let ctx = hub.context();
    remove(&hub, 2);
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
    let hub = hub_with_members();
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
    let hub = hub_with_members();
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
    remove(&hub, 5);
    let told = waiting.await.expect("a member");
    assert_eq!(told.removals.len(), 1);
    hub.node.stop().await;
}

#[tokio::test]
async fn four_questions_of_a_member_wait_at_a_time() {
    let hub = hub_with_members();
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
    let hub = hub_with_members();
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

//! A relay node, targets and senders, joined by connections inside one process.

mod common;

use std::time::Duration;

use common::{Link, Raw, RelayNode, eventually, link, soon, text};
use portolan_relay::table::RelayOwner;
use portolan_relay::{
    AllowEverybody, RegisterOptions, RegisteredRelay, RegistrationError, RelayName, RelayRequest,
    RelayServiceOptions, register,
};
use portolan_runtime::address::TCP;
use portolan_runtime::services::Echo;
use portolan_runtime::{
    AccessControl, Address, Denial, MAX_HOPS, Message, Node, Peer, PeerIdentifier, Route, Routed, route,
};

fn open() -> RelayNode {
    RelayNode::new(AllowEverybody, RelayServiceOptions::default())
}

fn named(name: &str) -> RelayRequest {
    RelayRequest::Named(RelayName::new(name).unwrap())
}

async fn try_registered(node: &Node, link: &Link, name: &str) -> Result<RegisteredRelay, RegistrationError> {
    register(node, &link.here, named(name), RegisterOptions::default()).await
}

async fn registered(node: &Node, link: &Link, name: &str) -> RegisteredRelay {
    try_registered(node, link, name).await.unwrap()
}

/// A target with `echo` behind a relay of this name.
async fn target(relay_node: &RelayNode, peer: Option<u8>, name: &str) -> (Node, Link, RegisteredRelay) {
    let (node, link) = relay_node.connected(peer);
    node.start_sync_worker("echo", Echo).unwrap();
    node.add_consumer(&node.flow_of(&link.here).unwrap(), &"echo".into());
    let relay = registered(&node, &link, name).await;
    (node, link, relay)
}

fn reason(result: Result<RegisteredRelay, RegistrationError>) -> String {
    match result {
        Err(RegistrationError::Refused(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_message_reaches_a_node_that_nobody_can_connect_to_and_is_answered() {
    let relay_node = open();
    let (_target, target_link, relay) = target(&relay_node, None, "blue").await;
    assert_eq!(relay.remote_address(), "forward_to_blue");
    assert_eq!(
        *relay.forwarding_route(),
        route![&target_link.here, "forward_to_blue"]
    );

    let (sender, link) = relay_node.connected(None);
    let answer: Routed<String> = sender
        .send_and_receive(route![&link.here, "forward_to_blue", "echo"], "hello".to_owned())
        .await
        .unwrap();
    assert_eq!(answer.body().unwrap(), "hello");
    // The relay is not on the way back.
    assert_eq!(
        *answer.return_route(),
        route![&link.here, &target_link.there, "echo"]
    );

    let relays = relay_node.table.relays();
    assert_eq!(relays.len(), 1);
    assert_eq!(
        (relays[0].messages, relays[0].bytes, relays[0].dropped),
        (1, 6, 0)
    );
    assert_eq!(relays[0].name.as_str(), "blue");
    assert_eq!(relays[0].owner, RelayOwner::Connection(target_link.there.clone()));
    assert_eq!(relays[0].route, Route::from(&target_link.there));
}

#[tokio::test]
async fn registrations_and_answers_are_those_of_the_reference() {
    let relay_node = open();
    let (node, link) = relay_node.connected(None);
    let mut raw = Raw::new(&node, &link);
    for service in ["forwarding_service", "static_forwarding_service"] {
        raw.send(Route::from(service), b"\x02r1 ignored".as_slice()).await;
        let answer = raw.next().await;
        assert_eq!(
            hex::encode(answer.payload.as_slice()),
            "0d666f72776172645f746f5f7231"
        );
        assert_eq!(answer.onward, Route::from(raw.ctx.address()));
        assert_eq!(answer.back, route![&link.here, "forward_to_r1"]);

        raw.send(Route::from(service), b"\x08register".as_slice()).await;
        let answer = raw.text().await;
        let name = answer.strip_prefix("forward_to_").unwrap();
        assert_eq!(name.len(), 32);
        assert!(name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    }
    assert_eq!(relay_node.table.counts().registered, 4);
}

#[tokio::test]
async fn a_forwarded_message_keeps_its_payload_and_its_way_back() {
    let relay_node = open();
    let (node, target_link) = relay_node.connected(None);
    let mut raw = Raw::new(&node, &target_link);
    let mut inner = node.context("inner").unwrap();
    node.add_consumer(&node.flow_of(&target_link.here).unwrap(), inner.address());
    // A route to the target with a hop of the target's own in between.
    raw.send_from(
        route!["inner", raw.ctx.address()],
        Route::from("forwarding_service"),
        text("blue"),
    )
    .await;
    let answer = soon(inner.next()).await.unwrap().message;
    assert_eq!(answer.onward, route!["inner", raw.ctx.address()]);
    let (sender, link) = relay_node.connected(None);
    let mut from = Raw::new(&sender, &link);
    from.send_from(
        route!["s1", "s2"],
        route!["forward_to_blue", "x", "y"],
        b"\x00\xff".as_slice(),
    )
    .await;
    let message = soon(inner.next()).await.unwrap().message;
    assert_eq!(message.onward, route!["inner", "x", "y"]);
    assert_eq!(message.back, route![&target_link.here, &link.there, "s1", "s2"]);
    assert_eq!(message.payload.as_slice(), b"\x00\xff");
}

#[tokio::test]
async fn names_that_would_hurt_somebody_are_refused_and_the_node_goes_on() {
    let relay_node = open();
    let (node, link) = relay_node.connected(None);
    let mut raw = Raw::new(&node, &link);
    let long = "x".repeat(5000);
    for (name, because) in [
        ("a#b", "`#`"),
        ("#", "`#`"),
        ("0#", "`#`"),
        (long.as_str(), "5000 bytes"),
        ("", "empty"),
        ("a\nb", "control character"),
        ("\u{1b}[2J", "control character"),
        ("refused: ", "meaning of its own"),
    ] {
        raw.send(Route::from("static_forwarding_service"), text(name))
            .await;
        let answer = raw.next().await;
        assert_eq!(answer.back, route![&link.here, Address::new(TCP, b"refused")]);
        let answer: String = portolan_runtime::Body::decode(answer.payload.as_slice()).unwrap();
        assert!(
            answer.starts_with("refused: ") && answer.contains(because),
            "{answer}"
        );
    }
    for garbage in [
        &b""[..],
        b"\x05blue",
        b"\x02\xff\xfe",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x",
        &[0x80; 20],
    ] {
        raw.send(Route::from("static_forwarding_service"), garbage).await;
        assert!(raw.text().await.starts_with("refused: "));
    }
    assert_eq!(relay_node.table.counts().refused, 13);
    assert_eq!(relay_node.table.counts().relays, 0);
    registered(&node, &link, "still works").await;
}

#[tokio::test]
async fn a_relay_needs_what_the_authority_says_and_the_reason_arrives() {
    let authority = |peer: Option<&Peer>, name: &RelayName| match peer {
        None => Err(Denial("a secure channel is needed".into())),
        Some(peer) if peer.identifier == PeerIdentifier([1; 32]) && name.as_str() == "blue" => Ok(()),
        Some(_) => Err(Denial(
            format!("the credential does not allow the relay {name}").into(),
        )),
    };
    let relay_node = RelayNode::new(authority, RelayServiceOptions::default());
    let (one, link_one) = relay_node.connected(Some(1));
    let (two, link_two) = relay_node.connected(Some(2));
    let (stranger, link_of_stranger) = relay_node.connected(None);
    let relay = registered(&one, &link_one, "blue").await;
    assert_eq!(
        reason(try_registered(&one, &link_one, "red").await),
        // The full stop keeps other implementations from taking this for an acceptance.
        "the credential does not allow the relay red."
    );
    assert_eq!(
        reason(try_registered(&two, &link_two, "blue").await),
        "the credential does not allow the relay blue."
    );
    assert_eq!(
        reason(try_registered(&stranger, &link_of_stranger, "blue").await),
        "a secure channel is needed"
    );
    let ephemeral = register(
        &one,
        &link_one.here,
        RelayRequest::Ephemeral,
        RegisterOptions::default(),
    )
    .await;
    assert!(reason(ephemeral).starts_with("the credential does not allow the relay "));
    assert_eq!(relay_node.table.counts().refused, 4);
    assert_eq!(relay_node.table.names_of(PeerIdentifier([1; 32])).len(), 1);
    drop(relay);
}

#[tokio::test]
async fn a_living_relay_is_replaced_by_the_same_identity_only() {
    let relay_node = open();
    let (_first, link, relay) = target(&relay_node, Some(1), "blue").await;
    let (thief, link_of_thief) = relay_node.connected(Some(2));
    assert!(reason(try_registered(&thief, &link_of_thief, "blue").await).contains("somebody else"));
    let (stranger, link_of_stranger) = relay_node.connected(None);
    assert!(reason(try_registered(&stranger, &link_of_stranger, "blue").await).contains("somebody else"));

    let (again, link_again) = relay_node.connected(Some(1));
    let second = registered(&again, &link_again, "blue").await;
    assert_eq!(relay_node.table.relays()[0].route, Route::from(&link_again.there));
    assert_eq!(relay_node.table.counts().replaced, 1);
    // Whoever still listens at the other end of the old path is told.
    let lost = soon(relay.lost()).await;
    assert!(lost.contains("replaced"), "{lost}");
    link.cut();
    eventually("the old connection is gone", || {
        !relay_node.node.has_worker(&link.there)
    })
    .await;
    assert!(
        relay_node.node.has_worker(&"forward_to_blue".into()),
        "the new relay stays"
    );
    drop(second);
}

#[tokio::test]
async fn without_identity_the_connection_owns_the_name_until_it_ends() {
    let relay_node = open();
    let (first, link, relay) = target(&relay_node, None, "blue").await;
    let again = registered(&first, &link, "blue").await;
    let (other, link_of_other) = relay_node.connected(None);
    assert!(reason(try_registered(&other, &link_of_other, "blue").await).contains("somebody else"));
    link.cut();
    let taken = registered(&other, &link_of_other, "blue").await;
    assert_eq!(relay_node.table.counts().relays, 1);
    drop((relay, again, taken));
}

#[tokio::test]
async fn a_relay_ends_with_its_connection_and_nothing_is_left() {
    let relay_node = open();
    let before = relay_node.node.workers();
    let (target, link, relay) = target(&relay_node, None, "blue").await;
    let more = registered(&target, &link, "green").await;
    link.cut();
    assert_eq!(
        soon(relay.lost()).await,
        "the connection to the relay node has ended"
    );
    eventually("all of it is gone", || relay_node.node.workers() == before).await;
    assert!(relay_node.table.relays().is_empty());
    let mut app = relay_node.node.context("app").unwrap();
    assert!(
        app.send("forward_to_blue", String::new()).await.is_err(),
        "a message to it fails at once"
    );
    eventually("the target has no registration worker either", || {
        !target.has_worker(relay.worker_address())
    })
    .await;
    drop((more, app));
}

#[tokio::test]
async fn the_registration_worker_goes_when_its_relay_is_dropped_or_was_refused() {
    let relay_node = open();
    let (node, link) = relay_node.connected(None);
    let before = node.workers();
    let relay = registered(&node, &link, "blue").await;
    assert_eq!(node.workers().len(), before.len() + 1);
    drop(relay);
    let (other, link_of_other) = relay_node.connected(None);
    let workers_of_other = other.workers();
    reason(try_registered(&other, &link_of_other, "blue").await);
    eventually("no registration worker is left", || {
        node.workers() == before && other.workers() == workers_of_other
    })
    .await;
}

#[tokio::test]
async fn silence_is_a_timeout_and_leaves_nothing_behind() {
    let relay_node = open();
    let (node, link) = relay_node.connected(None);
    let before = node.workers();
    let options = RegisterOptions {
        timeout: Duration::from_millis(50),
        ..Default::default()
    };
    // A node without relay service.
    let nowhere = register(&node, route![&link.here, "nowhere"], named("a"), options).await;
    assert!(matches!(nowhere, Err(RegistrationError::TimedOut(_))));
    let (other, link_of_other) = relay_node.connected(None);
    link_of_other.cut();
    eventually("the connection is gone", || {
        !other.has_worker(&link_of_other.here)
    })
    .await;
    assert!(matches!(
        try_registered(&other, &link_of_other, "a").await,
        Err(RegistrationError::NotSent(_))
    ));
    eventually("nothing is left", || node.workers() == before).await;
}

#[tokio::test]
async fn quotas_hold_for_peers_and_for_the_node() {
    let relay_node = RelayNode::new(
        AllowEverybody,
        RelayServiceOptions {
            relays_per_peer: 2,
            relays: 3,
            ..Default::default()
        },
    );
    let (one, link_one) = relay_node.connected(Some(1));
    // Another channel of the same peer does not help.
    let (one_again, link_again) = relay_node.connected(Some(1));
    let (two, link_two) = relay_node.connected(Some(2));
    let kept = [
        registered(&one, &link_one, "a").await,
        registered(&one_again, &link_again, "b").await,
    ];
    assert!(reason(try_registered(&one, &link_one, "c").await).contains("of this peer"));
    let third = registered(&two, &link_two, "c").await;
    assert!(reason(try_registered(&two, &link_two, "d").await).contains("on this node"));
    link_one.cut();
    eventually("there is room again", || relay_node.table.counts().relays == 2).await;
    registered(&two, &link_two, "d").await;
    drop((kept, third));
}

#[tokio::test]
async fn a_registration_without_return_address_gets_no_relay_into_the_node() {
    let relay_node = open();
    let (node, link) = relay_node.connected(None);
    let mut raw = Raw::new(&node, &link);
    relay_node.node.start_sync_worker("secret", Echo).unwrap();
    // With an empty return route the reference would make a relay that sends to any worker of the relay node.
    raw.send_from(Route::new(), Route::from("forwarding_service"), text("hole"))
        .await;
    // Neither can it be answered here.
    raw.send_from(
        Address::new(TCP, b"1.2.3.4:5"),
        Route::from("forwarding_service"),
        text("hole"),
    )
    .await;
    raw.nothing().await;
    raw.send(route!["forward_to_hole", "secret"], text("knock")).await;
    raw.nothing().await;
    assert_eq!(relay_node.table.counts().refused, 2);
    assert_eq!(relay_node.table.counts().relays, 0);
}

#[tokio::test]
async fn a_relay_to_a_worker_of_its_own_node_does_not_open_the_node() {
    let relay_node = open();
    let node = &relay_node.node;
    node.start_sync_worker("secret", Echo).unwrap();
    let relay = register(node, Route::new(), named("self"), RegisterOptions::default())
        .await
        .unwrap();
    let (peer, link) = relay_node.connected(None);
    let mut raw = Raw::new(&peer, &link);
    raw.send(route!["forward_to_self", "secret"], text("knock")).await;
    raw.nothing().await;
    node.add_consumer(relay.flow(), &"secret".into());
    raw.send(route!["forward_to_self", "secret"], text("knock")).await;
    assert_eq!(raw.text().await, "knock");
}

#[tokio::test]
async fn absurd_routes_are_refused_when_registered_and_dropped_when_sent() {
    let relay_node = open();
    let (node, link) = relay_node.connected(None);
    let mut raw = Raw::new(&node, &link);
    let many: Route = (0..40).map(|i| Address::from(format!("hop {i}"))).collect();
    raw.send_from(many, Route::from("forwarding_service"), text("many"))
        .await;
    raw.send_from(
        route!["x".repeat(5000)],
        Route::from("forwarding_service"),
        text("long"),
    )
    .await;
    raw.nothing().await;
    eventually("both are refused", || relay_node.table.counts().refused == 2).await;

    let (_target, _link, _relay) = target(&relay_node, None, "blue").await;
    // A route that fits into a message to us, but not into the message that it would become.
    let mut onward = route!["forward_to_blue"];
    for _ in 0..MAX_HOPS {
        onward.push("echo".into());
    }
    raw.send(onward, text("too many hops")).await;
    let mut back: Route = (0..MAX_HOPS - 1).map(|i| Address::from(format!("{i}"))).collect();
    back.push(raw.ctx.address().clone());
    raw.send_from(
        back,
        route!["forward_to_blue", "echo"],
        text("too many hops back"),
    )
    .await;
    raw.nothing().await;
    eventually("both are counted", || relay_node.table.relays()[0].dropped == 2).await;
    raw.send(route!["forward_to_blue", "echo"], text("fine")).await;
    assert_eq!(raw.text().await, "fine");
}

#[tokio::test]
async fn a_third_connection_reaches_neither_side_of_a_relay() {
    let relay_node = open();
    let (_target, target_link, _relay) = target(&relay_node, None, "blue").await;
    let (sender, link) = relay_node.connected(None);
    let _: Routed<String> = sender
        .send_and_receive(route![&link.here, "forward_to_blue", "echo"], "hello".to_owned())
        .await
        .unwrap();
    let (third, third_link) = relay_node.connected(None);
    let mut raw = Raw::new(&third, &third_link);
    raw.send(route![&target_link.there, "echo"], text("directly"))
        .await;
    raw.send(route![&link.there, "echo"], text("directly")).await;
    raw.nothing().await;
    // Both sides of the relay can: answers depend on it.
    let mut raw = Raw::new(&sender, &link);
    raw.send(route![&target_link.there, "echo"], text("directly"))
        .await;
    assert_eq!(raw.text().await, "directly");
}

#[tokio::test]
async fn a_relay_can_be_closed_to_strangers() {
    let relay_node = RelayNode::new(
        AllowEverybody,
        RelayServiceOptions {
            relay_access: AccessControl::AnyPeer,
            ..Default::default()
        },
    );
    let (_target, _link, _relay) = target(&relay_node, Some(1), "blue").await;
    let (stranger, link_of_stranger) = relay_node.connected(None);
    let mut raw = Raw::new(&stranger, &link_of_stranger);
    raw.send(route!["forward_to_blue", "echo"], text("hello")).await;
    raw.nothing().await;
    let (member, link_of_member) = relay_node.connected(Some(2));
    let mut raw = Raw::new(&member, &link_of_member);
    raw.send(route!["forward_to_blue", "echo"], text("hello")).await;
    assert_eq!(raw.text().await, "hello");
}

#[tokio::test]
async fn an_older_service_that_keeps_the_last_hop_is_served_too() {
    let relay_node = open();
    let (target, target_link, relay) = target(&relay_node, None, "blue").await;
    let worker = relay.worker_address().clone();
    let (sender, link) = relay_node.connected(None);
    let mut raw = Raw::new(&sender, &link);
    raw.send(
        route!["forward_to_blue", &worker, "echo"],
        text("through the worker"),
    )
    .await;
    assert_eq!(raw.text().await, "through the worker");
    // To itself it does not forward, and past flow control neither.
    target.start_sync_worker("secret", Echo).unwrap();
    raw.send(
        route!["forward_to_blue", &worker, &worker, "echo"],
        text("in a circle"),
    )
    .await;
    raw.send(route!["forward_to_blue", &worker, "secret"], text("knock"))
        .await;
    raw.send(route!["forward_to_blue", "secret"], text("knock")).await;
    raw.send(route!["forward_to_blue", "echo"], text("marker")).await;
    assert_eq!(raw.text().await, "marker");
    drop(target_link);
}

#[tokio::test]
async fn a_target_that_reads_nothing_holds_up_nobody_but_itself() {
    let relay_node = open();
    // A connection whose other end is never read: a plain mailbox that is full.
    let stuck = relay_node
        .node
        .context(
            portolan_runtime::WorkerOptions::new("stuck").capacity(portolan_runtime::Capacity {
                messages: 1,
                bytes: 1,
            }),
        )
        .unwrap();
    let mut app = relay_node.node.context("app").unwrap();
    for name in ["one", "two", "a#b", "a#c"] {
        app.send_message(Message::new(
            "forwarding_service",
            route!["stuck", "w"],
            text(name),
        ))
        .await
        .unwrap();
    }
    let (node, link) = relay_node.connected(None);
    soon(registered(&node, &link, "blue")).await;
    drop((stuck, app));
}

#[tokio::test]
async fn a_relay_can_be_ended_by_its_node() {
    let relay_node = open();
    let (_target, link, _relay) = target(&relay_node, Some(1), "blue").await;
    let owned = relay_node.table.names_of(PeerIdentifier([1; 32]));
    assert_eq!(owned.len(), 1);
    assert!(relay_node.table.end(&relay_node.node, &owned[0]));
    assert!(!relay_node.table.end(&relay_node.node, &owned[0]));
    assert!(!relay_node.node.has_worker(&"forward_to_blue".into()));
    assert!(relay_node.table.relays().is_empty());
    drop(link);
}

#[tokio::test]
async fn many_targets_come_and_go_and_the_node_is_as_before() {
    let relay_node = open();
    let before = relay_node.node.workers();
    let target = Node::builder().arbiters(1).build().unwrap();
    for round in 0..3 {
        let mut links = Vec::new();
        for i in 0..100 {
            let link = link(&target, &relay_node.node, &relay_node.listener, Some(i % 7));
            let relay = registered(&target, &link, &format!("n{i}")).await;
            links.push((link, relay));
        }
        assert_eq!(relay_node.table.counts().relays, 100, "round {round}");
        links.iter().for_each(|(link, _)| link.cut());
        drop(links);
        eventually("all relays are gone", || relay_node.node.workers() == before).await;
    }
    assert_eq!(relay_node.table.counts().relays, 0);
    eventually("the target has nothing left either", || {
        target.workers().is_empty()
    })
    .await;
}

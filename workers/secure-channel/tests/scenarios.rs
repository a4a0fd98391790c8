//! Channels between two nodes over TCP, and over routes of local hops.

mod common;

use std::time::Duration;

use common::*;
use portolan_identity::{AttributeRepository, IdentityRepository};
use portolan_runtime::{Address, Node, Payload, Route, WorkerOptions, route};
use portolan_secure_channel::{
    ChannelOptions, CloseReason, CurrentCredential, Error, FixedCredential, ListenerOptions, PeerError, Role,
    Suite, Suites, TrustPolicy,
};
use tokio::sync::watch;

#[tokio::test]
async fn a_message_reaches_the_peer_and_its_answer_comes_back() {
    let pair = Pair::new().await;
    let channel = pair
        .a
        .channels
        .create(pair.route(), pair.a.options())
        .await
        .unwrap();
    assert_eq!(channel.peer(), pair.b.id());
    assert_eq!(
        echo(&pair.a.node, through(channel.address(), &["echo"]), "hello")
            .await
            .as_deref(),
        Some("hello")
    );

    let info = &pair.b.channels.list()[0];
    assert_eq!(
        (info.role, &info.peer, &info.local),
        (Role::Responder, pair.a.id(), pair.b.id())
    );
    assert_eq!((info.received_messages, info.sent_messages), (1, 1));
    assert_eq!(channel.info().route.recipient(), Some(&info.decryptor));
    // Both connections know now that their peer has proven who it is.
    assert!(pair.connection.flow().is_authenticated());
    assert!(pair.tcp_b.connections()[0].flow().is_authenticated());
    pair.stop().await;
}

#[tokio::test]
async fn the_receiver_learns_who_sent_and_over_which_channel() {
    let pair = Pair::new().await;
    let collector = Collector::start(&pair.b.node, "collector");
    pair.listener.add_consumer(&"collector".into());
    let channel = pair
        .a
        .channels
        .create(pair.route(), pair.a.options())
        .await
        .unwrap();
    let mut message = message(through(channel.address(), &["collector", "further"]), b"content");
    message.back = route!["app", "further back"];
    pair.a.node.send_message(message).await.unwrap();
    eventually("the message arrives", || collector.len() == 1).await;
    let received = collector.received.lock()[0].clone();
    let peer = received.peer().unwrap();
    assert_eq!(peer.identifier.0, *pair.a.id().as_bytes());
    assert!(pair.b.channels.get(&peer.channel).is_some());
    assert_eq!(received.onward, route!["collector", "further"]);
    assert_eq!(received.back, route![peer.channel.clone(), "app", "further back"]);
    assert_eq!(received.payload.as_slice(), b"content");
    pair.stop().await;
}

#[tokio::test]
async fn a_long_stream_of_large_messages_arrives_in_order() {
    let pair = Pair::new().await;
    let collector = Collector::start(&pair.b.node, "collector");
    pair.listener.add_consumer(&"collector".into());
    let channel = pair
        .a
        .channels
        .create(pair.route(), pair.a.options())
        .await
        .unwrap();
    let mut context = pair.a.node.context(Address::random()).unwrap();
    let size = |i: usize| [10, 1000, 100_000, 262_144][i % 4];
    const COUNT: usize = 400;
    for i in 0..COUNT {
        let mut payload = Payload::with_capacity(size(i));
        payload.append(&vec![i as u8; size(i)]);
        let mut message = message(through(channel.address(), &["collector"]), b"");
        message.payload = payload;
        context.send_message(message).await.unwrap();
    }
    eventually("all arrive", || collector.len() == COUNT).await;
    for (i, message) in collector.received.lock().iter().enumerate() {
        assert_eq!(message.payload.len(), size(i));
        assert!(message.payload.as_slice().iter().all(|byte| *byte == i as u8));
    }
    assert_eq!(channel.info().sent_messages, COUNT as u64);
    assert_eq!(channel.info().sent_rekeys(), (COUNT as u64 - 1) / 32);
    drop(context);
    pair.stop().await;
}

#[tokio::test]
async fn full_load_in_both_directions_blocks_neither() {
    let pair = Pair::new().await;
    let at_b = Collector::start(&pair.b.node, "collector");
    pair.listener.add_consumer(&"collector".into());
    let channel = pair
        .a
        .channels
        .create(pair.route(), pair.a.options())
        .await
        .unwrap();
    assert!(
        echo(&pair.a.node, through(channel.address(), &["echo"]), "x")
            .await
            .is_some()
    );
    let at_a = Collector::start(&pair.a.node, "collector");
    channel.add_consumer(&"collector".into());
    let back = pair.b.channels.list()[0].encryptor.clone();
    const COUNT: usize = 300;
    let pump = |node: &Node, encryptor: Address| {
        let mut context = node.context(Address::random()).unwrap();
        async move {
            for _ in 0..COUNT {
                let large = message(through(&encryptor, &["collector"]), &[7; 100_000]);
                context.send_message(large).await.unwrap();
            }
        }
    };
    tokio::join!(
        pump(&pair.a.node, channel.address().clone()),
        pump(&pair.b.node, back)
    );
    eventually("all arrive", || at_a.len() == COUNT && at_b.len() == COUNT).await;
    pair.stop().await;
}

#[tokio::test]
async fn a_stopped_channel_tells_its_peer_once() {
    let pair = Pair::new().await;
    let channel = pair
        .a
        .channels
        .create(pair.route(), pair.a.options())
        .await
        .unwrap();
    assert!(
        echo(&pair.a.node, through(channel.address(), &["echo"]), "x")
            .await
            .is_some()
    );
    let at_b = pair.b.channels.get(&pair.b.channels.list()[0].encryptor).unwrap();
    channel.stop();
    assert_eq!(channel.closed().await, CloseReason::Stopped);
    assert_eq!(at_b.closed().await, CloseReason::ByPeer);
    eventually("nothing is left", || {
        pair.a.channels.list().is_empty()
            && pair.b.channels.list().is_empty()
            && !pair.a.node.has_worker(channel.address())
            && !pair.a.node.has_worker(channel.decryptor())
            && !pair.b.node.has_worker(at_b.decryptor())
    })
    .await;
    // Payload, its answer, Close: the peer does not answer Close with another one.
    assert_eq!((at_b.info().sent_messages, at_b.info().received_messages), (1, 2));
    pair.stop().await;
}

#[tokio::test]
async fn what_was_sent_before_a_stop_still_arrives() {
    let pair = Pair::new().await;
    let collector = Collector::start(&pair.b.node, "collector");
    pair.listener.add_consumer(&"collector".into());
    let channel = pair
        .a
        .channels
        .create(pair.route(), pair.a.options())
        .await
        .unwrap();
    let mut context = pair.a.node.context(Address::random()).unwrap();
    for _ in 0..50 {
        context
            .send_message(message(through(channel.address(), &["collector"]), b"last words"))
            .await
            .unwrap();
    }
    channel.stop();
    eventually("all arrive", || collector.len() == 50).await;
    drop(context);
    pair.stop().await;
}

#[tokio::test]
async fn both_ends_learn_at_once_that_the_connection_is_gone() {
    let pair = Pair::new().await;
    let channel = pair
        .a
        .channels
        .create(pair.route(), pair.a.options())
        .await
        .unwrap();
    assert!(
        echo(&pair.a.node, through(channel.address(), &["echo"]), "x")
            .await
            .is_some()
    );
    let at_b = pair.b.channels.get(&pair.b.channels.list()[0].encryptor).unwrap();
    let above = pair.a.node.ended(channel.address());
    pair.tcp_a.disconnect(pair.connection.sender()).unwrap();
    assert_eq!(channel.closed().await, CloseReason::TransportLost);
    above.await;
    // The goodbye of the other end may still have come through before the socket closed.
    assert!(matches!(
        at_b.closed().await,
        CloseReason::TransportLost | CloseReason::ByPeer
    ));
    eventually("nothing is left", || {
        pair.a.channels.list().is_empty() && pair.b.channels.list().is_empty()
    })
    .await;
    pair.stop().await;
}

#[tokio::test]
async fn an_owned_channel_ends_with_its_owner() {
    let pair = Pair::new().await;
    let owner = pair.a.node.context("owner").unwrap();
    let channel = pair
        .a
        .channels
        .create_owned(&owner, pair.route(), pair.a.options())
        .await
        .unwrap();
    drop(owner);
    assert_eq!(channel.closed().await, CloseReason::Stopped);
    eventually("the peer knows", || pair.b.channels.list().is_empty()).await;
    pair.stop().await;
}

#[tokio::test]
async fn an_initiator_refuses_a_peer_that_it_does_not_trust() {
    let pair = Pair::new().await;
    let options = pair.a.options().trust(TrustPolicy::Identifier(*pair.a.id()));
    let error = pair.a.channels.create(pair.route(), options).await.unwrap_err();
    assert!(
        matches!(error, Error::Peer(PeerError::Untrusted(peer)) if peer == *pair.b.id()),
        "{error}"
    );
    // Whoever is turned away leaves no trace.
    assert!(pair.a.identities.is_empty());
    let options = pair.a.options().trust(TrustPolicy::identifiers([*pair.b.id()]));
    assert!(pair.a.channels.create(pair.route(), options).await.is_ok());
    assert!(pair.a.identities.get(pair.b.id()).unwrap().is_some());
    pair.stop().await;
}

#[tokio::test]
async fn a_credential_gives_attributes_and_a_bad_one_gives_nothing_but_the_channel() {
    let (a, b, authority, stranger) = (Party::new(), Party::new(), Keys::new(), Keys::new());
    let options = ListenerOptions::new(b.options().authorities([authority.identity.clone()]));
    let pair = Pair::with(a, b, options).await;
    let (a, b) = (&pair.a, &pair.b);
    let known = || b.attributes.get(a.id(), authority.identity.identifier(), now());
    let somebody_else = stranger.identity.identifier();
    for bad in [
        stranger.issue(a.id(), "role", "member"),
        authority.issue(somebody_else, "role", "member"),
    ] {
        let options = a.options().credentials(FixedCredential::new(bad));
        let channel = a.channels.create(pair.route(), options).await.unwrap();
        assert!(
            echo(&a.node, through(channel.address(), &["echo"]), "x")
                .await
                .is_some()
        );
        assert!(known().is_none());
    }
    let good = authority.issue(a.id(), "role", "member");
    let channel = a
        .channels
        .create(pair.route(), a.options().credentials(FixedCredential::new(good)))
        .await
        .unwrap();
    assert!(
        echo(&a.node, through(channel.address(), &["echo"]), "x")
            .await
            .is_some()
    );
    assert!(known().unwrap().attributes.has("role", "member"));
    pair.stop().await;
}

#[tokio::test]
async fn new_credentials_are_pushed_into_open_channels_from_both_ends() {
    let (a, b, authority) = (Party::new(), Party::new(), Keys::new());
    let source_a = watch::Sender::new(CurrentCredential::None);
    let source_b = watch::Sender::new(CurrentCredential::None);
    let options = ListenerOptions::new(
        b.options()
            .authorities([authority.identity.clone()])
            .credentials(source_b.subscribe()),
    );
    let pair = Pair::with(a, b, options).await;
    let (a, b) = (&pair.a, &pair.b);
    let options = a
        .options()
        .authorities([authority.identity.clone()])
        .credentials(source_a.subscribe());
    let channel = a.channels.create(pair.route(), options).await.unwrap();
    assert!(
        echo(&a.node, through(channel.address(), &["echo"]), "x")
            .await
            .is_some()
    );
    let issuer = authority.identity.identifier();
    assert!(b.attributes.get(a.id(), issuer, now()).is_none());
    source_a.send_replace(Some(authority.issue(a.id(), "role", "a").into()));
    source_b.send_replace(Some(authority.issue(b.id(), "role", "b").into()));
    eventually("both know", || {
        let at_b = b
            .attributes
            .get(a.id(), issuer, now())
            .is_some_and(|known| known.attributes.has("role", "a"));
        let at_a = a
            .attributes
            .get(b.id(), issuer, now())
            .is_some_and(|known| known.attributes.has("role", "b"));
        at_a && at_b
    })
    .await;
    // The same credential again is no news.
    let sent = channel.info().sent_messages;
    source_a.send_modify(|_| ());
    assert!(
        echo(&a.node, through(channel.address(), &["echo"]), "x")
            .await
            .is_some()
    );
    assert_eq!(channel.info().sent_messages, sent + 1);
    pair.stop().await;
}

#[tokio::test]
async fn trust_by_attribute_wants_the_credential_of_an_authority() {
    let (a, b, authority) = (Party::new(), Party::new(), Keys::new());
    let options = ListenerOptions::new(
        b.options()
            .authorities([authority.identity.clone()])
            .trust(TrustPolicy::attribute("role", "member")),
    );
    let pair = Pair::with(a, b, options).await;
    let (a, b) = (&pair.a, &pair.b);
    let with = |value: &str| {
        a.options()
            .credentials(FixedCredential::new(authority.issue(a.id(), "role", value)))
    };
    for (options, untrusted) in [(a.options(), 1), (with("guest"), 2)] {
        a.channels.create(pair.route(), options).await.unwrap();
        eventually("refused", || b.channels.counters().untrusted == untrusted).await;
        assert!(b.identities.is_empty());
    }
    let channel = a.channels.create(pair.route(), with("member")).await.unwrap();
    assert!(
        echo(&a.node, through(channel.address(), &["echo"]), "x")
            .await
            .is_some()
    );
    // What was presented before still counts.
    let channel = a.channels.create(pair.route(), a.options()).await.unwrap();
    assert!(
        echo(&a.node, through(channel.address(), &["echo"]), "x")
            .await
            .is_some()
    );
    // Until it is revoked, and then the credential itself does not bring it back.
    b.attributes
        .revoke(a.id(), authority.identity.identifier(), now() + 1)
        .unwrap();
    a.channels.create(pair.route(), with("member")).await.unwrap();
    eventually("refused", || b.channels.counters().untrusted == 3).await;
    pair.stop().await;
}

#[tokio::test]
async fn a_peer_that_shows_its_history_from_before_a_rotation_is_refused() {
    let pair = Pair::new().await;
    let (a, b) = (&pair.a, &pair.b);
    let keys = a.keys.clone();
    let rotated = keys.identity.rotate_to_key(
        keys.vault.as_ref(),
        &portolan_identity::Vault::generate_signing_key(
            keys.vault.as_ref(),
            portolan_identity::KeyType::Ed25519,
        )
        .unwrap(),
        now(),
    );
    let rotated = Keys {
        identity: rotated.unwrap(),
        ..keys
    };
    let with = |keys: &Keys| ChannelOptions::new(keys.local()).timeout(Duration::from_secs(10));
    let channel = a.channels.create(pair.route(), with(&rotated)).await.unwrap();
    assert!(
        echo(&a.node, through(channel.address(), &["echo"]), "x")
            .await
            .is_some()
    );
    assert_eq!(channel.local(), a.id());
    let failed = b.channels.counters().failed;
    a.channels.create(pair.route(), with(&a.keys)).await.unwrap();
    eventually("refused", || b.channels.counters().failed == failed + 1).await;
    pair.stop().await;
}

#[tokio::test]
async fn an_attempt_without_answer_ends_in_time_and_leaves_nothing() {
    let pair = Pair::new().await;
    eventually("the connection has its two workers", || {
        pair.a.node.workers().len() == 2
    })
    .await;
    let before = pair.a.node.workers();
    let nowhere: Route = [pair.connection.sender().clone(), "nobody".into()].into();
    let options = pair.a.options().timeout(Duration::from_millis(200));
    let error = pair.a.channels.create(nowhere, options).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    let error = pair
        .a
        .channels
        .create("no such hop", pair.a.options())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::TransportLost(_) | Error::Runtime(_)),
        "{error}"
    );
    let error = pair
        .a
        .channels
        .create(Route::new(), pair.a.options())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Runtime(_)), "{error}");
    // An attempt that nobody waits for any more ends too.
    let nowhere: Route = [pair.connection.sender().clone(), "nobody".into()].into();
    let dropped = pair.a.channels.create(nowhere, pair.a.options());
    let _ = tokio::time::timeout(Duration::from_millis(50), dropped).await;
    eventually("nothing is left", || pair.a.node.workers() == before).await;
    pair.stop().await;
}

#[tokio::test]
async fn a_channel_runs_inside_another_and_over_hops() {
    let pair = Pair::new().await;
    // b forwards through a hop to a third party's listener in b's node: the inner channel ends there.
    let c = Party::on(&pair.b.node);
    let inner_listener = c
        .channels
        .listen("inner", ListenerOptions::new(c.options()))
        .unwrap();
    inner_listener.add_consumer(&"echo".into());
    start_hop(&pair.b.node, "hop");
    pair.listener.add_consumer(&"hop".into());
    let outer = pair
        .a
        .channels
        .create(pair.route(), pair.a.options())
        .await
        .unwrap();
    let inner = pair
        .a
        .channels
        .create(through(outer.address(), &["hop", "inner"]), pair.a.options())
        .await;
    // The decryptor of the inner responder must be reachable: the hop is inside the node, so flow control lets it.
    let inner = inner.unwrap();
    assert_eq!(inner.peer(), c.id());
    assert_eq!(
        echo(&pair.a.node, through(inner.address(), &["echo"]), "deep")
            .await
            .as_deref(),
        Some("deep")
    );
    // The inner one ends with the outer one.
    outer.stop();
    assert!(matches!(
        inner.closed().await,
        CloseReason::TransportLost | CloseReason::SendFailed
    ));
    pair.stop().await;
}

#[tokio::test]
async fn the_same_listener_accepts_a_channel_inside_a_channel() {
    let pair = Pair::new().await;
    pair.listener.add_consumer(&"api".into());
    let outer = pair
        .a
        .channels
        .create(pair.route(), pair.a.options())
        .await
        .unwrap();
    let inner = pair
        .a
        .channels
        .create(through(outer.address(), &["api"]), pair.a.options())
        .await
        .unwrap();
    assert_eq!(
        echo(&pair.a.node, through(inner.address(), &["echo"]), "deep")
            .await
            .as_deref(),
        Some("deep")
    );
    assert_eq!(pair.b.channels.list().len(), 2);
    // Close travels through the channel that carries it.
    inner.stop();
    eventually("only the outer one is left", || pair.b.channels.list().len() == 1).await;
    assert!(outer.is_open());
    pair.stop().await;
}

#[tokio::test]
async fn the_responder_follows_the_initiator_to_another_route() {
    let node = Node::builder().arbiters(1).build().unwrap();
    let (a, b) = (Party::on(&node), Party::on(&node));
    b.listen();
    let (first, second) = (Meddler::start(&node, "first"), Meddler::start(&node, "second"));
    let channel = a
        .channels
        .create(route!["first", "api"], a.options())
        .await
        .unwrap();
    assert!(
        echo(&node, through(channel.address(), &["echo"]), "x")
            .await
            .is_some()
    );
    // From now on the first hop sends everything over the second one, which puts itself into the return route.
    first.tamper(|mut message| {
        message.back.step();
        message.onward.prepend("second".into());
        vec![message]
    });
    // Nonce 1: the responder answers over the second hop, which is found in its list.
    assert!(
        echo(&node, through(channel.address(), &["echo"]), "x")
            .await
            .is_some()
    );
    let at_b = b.channels.list()[0].clone();
    assert_eq!(at_b.route.next(), Some(&"second".into()));
    assert_eq!(at_b.route.recipient(), Some(channel.decryptor()));
    assert!(second.seen() >= 2);
    node.stop().await;
}

#[tokio::test]
async fn messages_look_as_specified_on_their_way() {
    let node = Node::builder().arbiters(1).build().unwrap();
    let (a, b) = (Party::on(&node), Party::on(&node));
    b.listen();
    let path = Meddler::start(&node, "path");
    // Without offering what the reference has not; what an offer looks like is tested in `negotiation.rs`.
    let as_the_reference = a
        .options()
        .suites(Suites::only(Suite::Aes256Gcm))
        .sealed_headers(false);
    let channel = a
        .channels
        .create(route!["path", "api"], as_the_reference)
        .await
        .unwrap();
    assert!(
        echo(&node, through(channel.address(), &["echo"]), "hello")
            .await
            .is_some()
    );
    channel.stop();
    eventually("closed", || b.channels.list().is_empty() && path.seen() == 6).await;
    let at_b = channel.info().route.recipient().unwrap().clone();
    let at_a = channel.decryptor().clone();
    let seen = path.seen.lock().clone();
    let expect = |i: usize, len: Option<usize>, onward: Route, back: Route| {
        let message = &seen[i];
        assert_eq!((&message.onward, &message.back), (&onward, &back), "message {i}");
        assert!(
            len.is_none_or(|len| message.payload.len() == len),
            "message {i}: {}",
            message.payload.len()
        );
    };
    // Sizes as the reference has them with default identities and no credentials.
    expect(0, Some(32), route!["path", "api"], at_a.clone().into());
    expect(1, Some(419), route!["path", at_a.clone()], at_b.clone().into());
    expect(2, Some(387), route!["path", at_b.clone()], at_a.clone().into());
    expect(3, None, route!["path", at_b.clone()], Route::new());
    expect(4, None, route!["path", at_a], Route::new());
    expect(5, Some(5 + 24), route!["path", at_b], channel.address().into());
    for (message, nonce) in [(3, 0_u64), (4, 0), (5, 1)] {
        assert_eq!(seen[message].payload.as_slice()[..8], nonce.to_be_bytes());
    }
    for address in [channel.address(), channel.decryptor()] {
        assert!(address.as_bytes().len() == 32 && address.as_bytes().iter().all(u8::is_ascii_hexdigit));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_stopping_node_says_goodbye() {
    let pair = Pair::new().await;
    let channel = pair
        .a
        .channels
        .create(pair.route(), pair.a.options())
        .await
        .unwrap();
    assert!(
        echo(&pair.a.node, through(channel.address(), &["echo"]), "x")
            .await
            .is_some()
    );
    let at_b = pair.b.channels.get(&pair.b.channels.list()[0].encryptor).unwrap();
    pair.a.node.stop().await;
    assert_eq!(at_b.closed().await, CloseReason::ByPeer);
    pair.b.node.stop().await;
}

#[tokio::test]
async fn access_control_sees_the_peer_in_both_directions() {
    use portolan_runtime::{AccessControl, PeerIdentifier};
    let pair = Pair::new().await;
    let channel = pair
        .a
        .channels
        .create(pair.route(), pair.a.options())
        .await
        .unwrap();
    let refused = || {
        pair.b
            .node
            .refusals()
            .incoming
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    for (name, allowed, arrives) in [("mine", pair.a.id(), 1), ("not-mine", pair.b.id(), 0)] {
        let before = refused();
        let collector = Collector::default();
        let peers = [PeerIdentifier(*allowed.as_bytes())].into();
        let options = WorkerOptions::new(name).incoming(AccessControl::Peers(peers));
        pair.b.node.start_sync_worker(options, collector.clone()).unwrap();
        pair.listener.add_consumer(&name.into());
        pair.a
            .node
            .send_message(message(through(channel.address(), &[name]), b"x"))
            .await
            .unwrap();
        assert!(
            echo(&pair.a.node, through(channel.address(), &["echo"]), "flush")
                .await
                .is_some()
        );
        // It has been decided about; the collector may run on another thread.
        assert_eq!(refused() - before, 1 - arrives, "{name}");
        eventually(name, || collector.len() as u64 == arrives).await;
    }
    assert!(pair.a.node.is_terminal(channel.address()));
    assert_eq!(
        pair.a.node.peer_of(channel.address()).unwrap().identifier.0,
        *pair.b.id().as_bytes()
    );
    pair.stop().await;
}

//! Case 2: secure channels.

use std::time::Duration;

use ockam::identity::models::CredentialAndPurposeKey;
use ockam::identity::{Identifier, SecureChannel};
use ockam::identity::{
    SecureChannelListenerOptions, SecureChannelOptions, TrustIdentifierPolicy, TrustMultiIdentifiersPolicy,
};
use ockam::{Route, route};
use portolan_interop::peer::{Peer, string};
use portolan_interop::stock::{Stock, local};
use portolan_interop::{eventually, run};
use serde_json::json;

const MESSAGES: u64 = 10_000;
const SOON: Duration = Duration::from_secs(5);

fn id(text: &str) -> Identifier {
    Identifier::try_from(text).expect("an identifier")
}

/// A stock channel to a listener of a peer, over one TCP connection.
async fn to_peer(
    stock: &Stock,
    peer: &mut Peer,
    accept: serde_json::Value,
    options: SecureChannelOptions,
) -> SecureChannel {
    let connection = stock.connect(&peer.listen().await).await;
    peer_accepts(peer, accept).await;
    stock
        .channel(route![connection, "api"], options)
        .await
        .expect("a channel")
}

async fn peer_accepts(peer: &mut Peer, mut accept: serde_json::Value) {
    accept["do"] = json!("accept");
    accept["at"] = json!("api");
    peer.ok(accept).await;
}

/// A peer's connection to a stock listener for channels.
async fn to_stock(stock: &Stock, peer: &mut Peer, options: SecureChannelListenerOptions) -> String {
    let listener = stock.listen().await;
    stock.accept(options);
    peer.connect(&listener.socket_string()).await
}

#[test]
fn ten_thousand_messages_go_each_way_through_a_channel_that_stock_opened() {
    run(async {
        let (stock, mut peer) = (Stock::start().await, Peer::start().await);
        let channel = to_peer(&stock, &mut peer, json!({}), SecureChannelOptions::new()).await;
        assert_eq!(channel.their_identifier().to_string(), peer.identifier);
        let flow = channel.flow_control_id().clone();
        // The echoes are the ten thousand the other way.
        assert_eq!(
            stock
                .storm(route![channel.clone(), "echo"], &flow, MESSAGES, 64)
                .await,
            (MESSAGES, 0)
        );
        assert_eq!(
            stock
                .storm(route![channel.clone(), "echo"], &flow, 200, 128 * 1024)
                .await,
            (200, 0)
        );
        // Who it was is known there.
        stock
            .node
            .send(route![channel, "inbox"], "it is me".to_owned())
            .await
            .expect("sent");
        eventually("the message is there", SOON, async || {
            !peer.inbox().await.is_empty()
        })
        .await;
        assert_eq!(peer.inbox().await[0].1, Some(stock.identifier.to_string()));
    });
}

#[test]
fn ten_thousand_messages_go_each_way_through_a_channel_that_portolan_opened() {
    run(async {
        let (stock, mut peer) = (Stock::start().await, Peer::start().await);
        let connection = to_stock(&stock, &mut peer, SecureChannelListenerOptions::new()).await;
        let channel = peer.channel(json!({}), &[&connection, "api"]).await;
        for (count, size) in [(MESSAGES, 64), (200, 128 * 1024)] {
            let storm = json!({ "do": "storm", "route": [channel, "echo"], "count": count, "size": size });
            let heard = peer.ok(storm).await;
            assert_eq!(
                (heard["received"].as_u64(), heard["wrong"].as_u64()),
                (Some(count), Some(0)),
                "{heard}"
            );
        }
        peer.ok(json!({ "do": "send", "route": [channel, "inbox"], "payload": "00" }))
            .await;
        eventually("the message is there", SOON, async || {
            !stock.inbox.received().is_empty()
        })
        .await;
        assert_eq!(stock.inbox.received()[0].1, Some(peer.identifier.clone()));
    });
}

#[test]
fn a_channel_runs_over_two_tcp_hops_through_a_portolan_bridge() {
    run(async {
        let (near, far, mut bridge) = (Stock::start().await, Stock::start().await, Peer::start().await);
        let onward = to_stock(&far, &mut bridge, SecureChannelListenerOptions::new()).await;
        let connection = near.connect(&bridge.listen().await).await;
        let over: Route = route![connection, "hop", local(&onward), "api"];
        let channel = near
            .channel(over, SecureChannelOptions::new())
            .await
            .expect("a channel");
        let flow = channel.flow_control_id().clone();
        assert_eq!(
            near.storm(route![channel, "echo"], &flow, MESSAGES, 1000).await,
            (MESSAGES, 0)
        );
    });
}

#[test]
fn a_channel_runs_over_two_tcp_hops_through_a_stock_bridge_in_both_directions() {
    run(async {
        let (mut peer, stock, bridge) = (Peer::start().await, Stock::start().await, Stock::start().await);
        // Portolan opens it, stock answers.
        let far = stock.listen().await;
        stock.accept(SecureChannelListenerOptions::new());
        let onward = bridge.connect(&far.socket_string()).await;
        let connection = peer.connect(&bridge.listen().await.socket_string()).await;
        let onward = onward.sender_address().address().to_owned();
        let channel = peer
            .channel(json!({}), &[&connection, "hop", &onward, "api"])
            .await;
        let storm = json!({ "do": "storm", "route": [channel, "echo"], "count": MESSAGES, "size": 1000 });
        assert_eq!(peer.ok(storm).await["received"], MESSAGES);

        // Stock opens it, Portolan answers.
        let onward = bridge.connect(&peer.listen().await).await;
        peer_accepts(&mut peer, json!({})).await;
        let connection = stock.connect(&bridge.listen().await.socket_string()).await;
        let over: Route = route![connection, "hop", onward, "api"];
        let channel = stock
            .channel(over, SecureChannelOptions::new())
            .await
            .expect("a channel");
        let flow = channel.flow_control_id().clone();
        assert_eq!(
            stock.storm(route![channel, "echo"], &flow, MESSAGES, 1000).await,
            (MESSAGES, 0)
        );
    });
}

#[test]
fn stock_refuses_a_portolan_responder_that_it_does_not_trust() {
    run(async {
        let (stock, mut peer, other) = (Stock::start().await, Peer::start().await, Peer::start().await);
        let address = peer.listen().await;
        peer_accepts(&mut peer, json!({})).await;
        let wanted = id(&other.identifier);
        let brief = || SecureChannelOptions::new().with_timeout(Duration::from_secs(2));
        let one = brief().with_trust_policy(TrustIdentifierPolicy::new(wanted.clone()));
        let connection = stock.connect(&address).await;
        assert!(
            stock
                .channel(route![connection.clone(), "api"], one)
                .await
                .is_err()
        );
        let many = brief().with_trust_policy(TrustMultiIdentifiersPolicy::new(vec![
            wanted,
            stock.identifier.clone(),
        ]));
        assert!(
            stock
                .channel(route![connection.clone(), "api"], many)
                .await
                .is_err()
        );
        let right = brief().with_trust_policy(TrustIdentifierPolicy::new(id(&peer.identifier)));
        let channel = stock
            .channel(route![connection, "api"], right)
            .await
            .expect("the right one is trusted");
        assert_eq!(
            stock
                .ask(route![channel, "echo"], b"hello")
                .await
                .expect("an answer"),
            b"hello"
        );
        // The two refused handshakes left no channel at the responder, and nothing was delivered.
        let info = peer.ok(json!({ "do": "info" })).await;
        assert_eq!(info["channels"].as_array().map(Vec::len), Some(1), "{info}");
        assert!(peer.inbox().await.is_empty());
    });
}

#[test]
fn a_stock_responder_refuses_a_portolan_initiator_that_it_does_not_trust() {
    run(async {
        let (stock, mut peer) = (Stock::start().await, Peer::start().await);
        let nobody = TrustMultiIdentifiersPolicy::new(vec![stock.identifier.clone()]);
        let options = SecureChannelListenerOptions::new().with_trust_policy(nobody);
        let connection = to_stock(&stock, &mut peer, options).await;
        // An initiator believes that it is open; what it sends is never delivered (spec 02 §5.6).
        if let Ok(opened) = peer
            .call(json!({ "do": "channel", "route": [connection, "api"] }))
            .await
        {
            let channel = string(&opened, "encryptor");
            peer.ok(json!({ "do": "send", "route": [channel, "inbox"], "payload": "00" }))
                .await;
            assert!(peer.hears_nothing(&[&channel, "echo"], b"hello").await);
        }
        assert!(stock.inbox.received().is_empty());
    });
}

#[test]
fn portolan_refuses_a_stock_responder_that_it_does_not_trust() {
    run(async {
        let (stock, mut peer) = (Stock::start().await, Peer::start().await);
        let connection = to_stock(&stock, &mut peer, SecureChannelListenerOptions::new()).await;
        let own = peer.identifier.clone();
        for trusted in [json!([own]), json!([own, Peer::start().await.identifier])] {
            let wrong =
                json!({ "do": "channel", "route": [connection, "api"], "trust": trusted, "within": 3000 });
            let refused = peer.call(wrong).await.expect_err("it is not the one");
            assert!(!refused.contains("elapsed"), "a reason, not a timeout: {refused}");
        }
        let right = json!({ "trust": [stock.identifier.to_string()] });
        let channel = peer.channel(right, &[&connection, "api"]).await;
        assert_eq!(
            peer.ask(&[&channel, "echo"], b"hello").await.expect("an answer"),
            b"hello"
        );
        assert!(stock.inbox.received().is_empty());
    });
}

#[test]
fn a_portolan_responder_refuses_a_stock_initiator_that_it_does_not_trust() {
    run(async {
        let (stock, mut peer, trusted) = (Stock::start().await, Peer::start().await, Stock::start().await);
        let address = peer.listen().await;
        peer_accepts(&mut peer, json!({ "trust": [trusted.identifier.to_string()] })).await;
        let connection = stock.connect(&address).await;
        // A stock initiator believes that it is open.
        if let Ok(channel) = stock
            .channel(route![connection, "api"], SecureChannelOptions::new())
            .await
        {
            let _ = stock
                .node
                .send(route![channel.clone(), "inbox"], "hello".to_owned())
                .await;
            assert!(stock.hears_nothing(route![channel, "echo"], b"hello").await);
        }
        assert!(peer.inbox().await.is_empty());
        let connection = trusted.connect(&address).await;
        let channel = trusted
            .channel(route![connection, "api"], SecureChannelOptions::new())
            .await
            .expect("trusted");
        assert_eq!(
            trusted
                .ask(route![channel, "echo"], b"hello")
                .await
                .expect("an answer"),
            b"hello"
        );
    });
}

#[test]
fn portolan_notices_that_stock_closed_the_channel() {
    run(async {
        let (stock, mut peer) = (Stock::start().await, Peer::start().await);
        let channel = to_peer(&stock, &mut peer, json!({}), SecureChannelOptions::new()).await;
        assert_eq!(
            stock
                .ask(route![channel.clone(), "echo"], b"open")
                .await
                .expect("an answer"),
            b"open"
        );
        stock
            .node
            .secure_channels()
            .stop_secure_channel(stock.node.context(), channel.encryptor_address())
            .expect("it is open");
        eventually("the responder's channel is gone", SOON, async || {
            let info = peer.ok(json!({ "do": "info" })).await;
            info["channels"].as_array().is_some_and(Vec::is_empty)
        })
        .await;

        let connection = to_stock(&stock, &mut peer, SecureChannelListenerOptions::new()).await;
        let opened = peer.channel(json!({}), &[&connection, "api"]).await;
        assert_eq!(
            peer.ask(&[&opened, "echo"], b"open").await.expect("an answer"),
            b"open"
        );
        let entry = stock
            .node
            .secure_channels()
            .secure_channel_registry()
            .get_channel_list();
        let [entry] = entry.as_slice() else {
            panic!("one channel: {}", entry.len())
        };
        stock
            .node
            .secure_channels()
            .stop_secure_channel(stock.node.context(), entry.encryptor_messaging_address())
            .expect("it is open");
        let closed = peer
            .ok(json!({ "do": "closed", "encryptor": opened, "within": 5000 }))
            .await;
        assert_eq!(closed["reason"], "the peer closed the channel");
    });
}

#[test]
fn stock_notices_that_portolan_closed_the_channel() {
    run(async {
        let (stock, mut peer) = (Stock::start().await, Peer::start().await);
        let open = || {
            stock
                .node
                .secure_channels()
                .secure_channel_registry()
                .get_channel_list()
                .len()
        };
        let channel = to_peer(&stock, &mut peer, json!({}), SecureChannelOptions::new()).await;
        assert_eq!(
            stock
                .ask(route![channel, "echo"], b"open")
                .await
                .expect("an answer"),
            b"open"
        );
        assert_eq!(open(), 1);
        peer.ok(json!({ "do": "close" })).await;
        eventually("the initiator's channel is gone", SOON, async || open() == 0).await;

        let connection = to_stock(&stock, &mut peer, SecureChannelListenerOptions::new()).await;
        let opened = peer.channel(json!({}), &[&connection, "api"]).await;
        assert_eq!(
            peer.ask(&[&opened, "echo"], b"open").await.expect("an answer"),
            b"open"
        );
        assert_eq!(open(), 1);
        peer.ok(json!({ "do": "close", "encryptor": opened })).await;
        eventually("the responder's channel is gone", SOON, async || open() == 0).await;
    });
}

/// A credential for `subject` by a stock authority, which learns the subject's history for that.
async fn by_stock(authority: &Stock, subject: &str, history: &str, ttl: Duration) -> CredentialAndPurposeKey {
    authority.import(history).await;
    authority.issue(&id(subject), "role", "member", ttl).await
}

#[test]
fn credentials_of_a_stock_authority_are_honoured_at_both_ends() {
    run(async {
        let (stock, mut peer, authority) = (Stock::start().await, Peer::start().await, Stock::start().await);
        let authority_id = stock.import(&authority.history().await).await;
        let hour = Duration::from_secs(3600);
        let for_peer = by_stock(&authority, &peer.identifier, &peer.history, hour).await;
        let for_stock = by_stock(
            &authority,
            &stock.identifier.to_string(),
            &stock.history().await,
            hour,
        )
        .await;
        both_ends_know_the_role(
            &stock,
            &mut peer,
            &authority.history().await,
            &authority_id,
            for_stock,
            for_peer,
        )
        .await;
    });
}

#[test]
fn credentials_of_a_portolan_authority_are_honoured_at_both_ends() {
    run(async {
        let (stock, mut peer, mut authority) =
            (Stock::start().await, Peer::start().await, Peer::start().await);
        let authority_id = stock.import(&authority.history).await;
        let stock_id = stock.identifier.to_string();
        let for_peer = by_portolan(&mut authority, &peer.identifier, json!({})).await;
        let for_stock = by_portolan(&mut authority, &stock_id, json!({})).await;
        let history = authority.history.clone();
        both_ends_know_the_role(&stock, &mut peer, &history, &authority_id, for_stock, for_peer).await;
    });
}

async fn by_portolan(
    authority: &mut Peer,
    subject: &str,
    more: serde_json::Value,
) -> CredentialAndPurposeKey {
    let mut command = json!({ "do": "issue", "subject": subject, "attributes": { "role": "member" } });
    for (key, value) in more.as_object().into_iter().flatten() {
        command[key] = value.clone();
    }
    let credential = string(&authority.ok(command).await, "credential");
    CredentialAndPurposeKey::decode_from_string(&credential).expect("stock can read it")
}

fn hexadecimal(credential: &CredentialAndPurposeKey) -> String {
    credential.encode_as_string().expect("it has a text form")
}

/// Opens a channel in each direction with a credential at each end, and asks each end what it knows of the other.
async fn both_ends_know_the_role(
    stock: &Stock,
    peer: &mut Peer,
    authority_history: &str,
    authority: &Identifier,
    for_stock: CredentialAndPurposeKey,
    for_peer: CredentialAndPurposeKey,
) {
    let ours = json!({ "authorities": [authority_history], "credential": hexadecimal(&for_peer) });
    let options = SecureChannelOptions::new()
        .with_authority(authority.clone())
        .with_credential(for_stock.clone())
        .expect("options");
    let channel = to_peer(stock, peer, ours.clone(), options).await;
    assert_eq!(
        stock
            .ask(route![channel, "echo"], b"open")
            .await
            .expect("an answer"),
        b"open"
    );
    let peer_id = id(&peer.identifier);
    assert_eq!(
        stock.attribute(&peer_id, authority, "role").await.as_deref(),
        Some("member")
    );
    let question = json!({ "do": "attributes", "peer": stock.identifier.to_string(), "authority": authority.to_string() });
    assert_eq!(peer.ok(question.clone()).await["attributes"]["role"], "member");

    // The other way round, with two that have not met.
    let (fresh, mut visitor) = (Stock::start().await, Peer::start().await);
    let authority = fresh.import(authority_history).await;
    let options = SecureChannelListenerOptions::new().with_authority(authority.clone());
    let connection = to_stock(&fresh, &mut visitor, options).await;
    let opened = visitor
        .channel(
            json!({ "authorities": [authority_history] }),
            &[&connection, "api"],
        )
        .await;
    assert_eq!(
        visitor.ask(&[&opened, "echo"], b"open").await.expect("an answer"),
        b"open"
    );
    let visitor_id = id(&visitor.identifier);
    assert_eq!(
        fresh.attribute(&visitor_id, &authority, "role").await,
        None,
        "nothing was presented"
    );
    let connection = peer.connect(&fresh.listen_more().await).await;
    let opened = peer.channel(ours, &[&connection, "api"]).await;
    assert_eq!(
        peer.ask(&[&opened, "echo"], b"open").await.expect("an answer"),
        b"open"
    );
    assert_eq!(
        fresh.attribute(&peer_id, &authority, "role").await.as_deref(),
        Some("member")
    );
}

#[test]
fn expired_and_foreign_credentials_are_not_honoured_by_portolan() {
    run(async {
        let (mut peer, authority, foreign) =
            (Peer::start().await, Stock::start().await, Stock::start().await);
        let address = peer.listen().await;
        peer_accepts(&mut peer, json!({ "authorities": [authority.history().await] })).await;
        let question = |of: &Stock| json!({ "do": "attributes", "peer": of.identifier.to_string(), "authority": authority.identifier.to_string() });
        for (issuer, ttl, wait, honoured) in [
            (&authority, 1, 2500, false),
            (&foreign, 3600, 0, false),
            (&authority, 3600, 0, true),
        ] {
            let stock = Stock::start().await;
            let history = stock.history().await;
            let subject = stock.identifier.to_string();
            let credential = by_stock(issuer, &subject, &history, Duration::from_secs(ttl)).await;
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let connection = stock.connect(&address).await;
            let options = SecureChannelOptions::new()
                .with_credential(credential)
                .expect("options");
            let channel = stock
                .channel(route![connection, "api"], options)
                .await
                .expect("a channel all the same");
            assert_eq!(
                stock
                    .ask(route![channel, "echo"], b"open")
                    .await
                    .expect("an answer"),
                b"open"
            );
            let known = peer.ok(question(&stock)).await;
            assert_eq!(!known["attributes"].is_null(), honoured, "{known}");
        }
    });
}

#[test]
fn expired_and_foreign_credentials_are_not_honoured_by_stock() {
    run(async {
        let (stock, mut authority, mut foreign) =
            (Stock::start().await, Peer::start().await, Peer::start().await);
        let authority_id = stock.import(&authority.history).await;
        let address = stock.listen().await.socket_string();
        stock.accept(SecureChannelListenerOptions::new().with_authority(authority_id.clone()));
        let past = json!({ "ttl": 1 });
        for (own, more, wait, honoured) in [
            (true, past, 2500, false),
            (false, json!({}), 0, false),
            (true, json!({}), 0, true),
        ] {
            let mut peer = Peer::start().await;
            let issuer = if own { &mut authority } else { &mut foreign };
            let credential = by_portolan(issuer, &peer.identifier, more).await;
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let connection = peer.connect(&address).await;
            let presented = json!({ "credential": hexadecimal(&credential) });
            let channel = peer.channel(presented, &[&connection, "api"]).await;
            assert_eq!(
                peer.ask(&[&channel, "echo"], b"open").await.expect("an answer"),
                b"open"
            );
            let known = stock
                .attribute(&id(&peer.identifier), &authority_id, "role")
                .await;
            assert_eq!(known.is_some(), honoured);
        }
    });
}

#[test]
fn an_identity_is_the_same_after_a_key_rotation_at_either_side() {
    run(async {
        let (stock, mut peer) = (Stock::start().await, Peer::start().await);
        // Stock's keys change; the identifier does not.
        let channel = to_peer(&stock, &mut peer, json!({}), SecureChannelOptions::new()).await;
        assert_eq!(
            stock
                .ask(route![channel, "echo"], b"before")
                .await
                .expect("an answer"),
            b"before"
        );
        // Validity counts in whole seconds, and a new key must not be valid before the old one.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let creation = stock.node.identities_creation();
        creation
            .rotate_identity(&stock.identifier)
            .await
            .expect("a rotation");
        let connection = stock.connect(&peer.listen().await).await;
        let trusting =
            SecureChannelOptions::new().with_trust_policy(TrustIdentifierPolicy::new(id(&peer.identifier)));
        let channel = stock
            .channel(route![connection, "api"], trusting)
            .await
            .expect("a channel");
        assert_eq!(
            stock
                .ask(route![channel.clone(), "echo"], b"after")
                .await
                .expect("an answer"),
            b"after"
        );
        stock
            .node
            .send(route![channel, "inbox"], "it is me".to_owned())
            .await
            .expect("sent");
        eventually("the message is there", SOON, async || {
            !peer.inbox().await.is_empty()
        })
        .await;
        assert_eq!(peer.inbox().await[0].1, Some(stock.identifier.to_string()));

        // Portolan's keys change.
        let before = peer.identifier.clone();
        let connection = to_stock(&stock, &mut peer, SecureChannelListenerOptions::new()).await;
        let opened = peer.channel(json!({}), &[&connection, "api"]).await;
        assert_eq!(
            peer.ask(&[&opened, "echo"], b"before").await.expect("an answer"),
            b"before"
        );
        peer.rotate().await;
        assert_eq!(peer.identifier, before);
        let opened = peer.channel(json!({}), &[&connection, "api"]).await;
        assert_eq!(
            peer.ask(&[&opened, "echo"], b"after").await.expect("an answer"),
            b"after"
        );
        peer.ok(json!({ "do": "send", "route": [opened, "inbox"], "payload": "00" }))
            .await;
        eventually("the message is there", SOON, async || {
            !stock.inbox.received().is_empty()
        })
        .await;
        assert_eq!(stock.inbox.received()[0].1, Some(before));
    });
}

//! Case 7: somebody in the middle who drops, repeats, reorders and flips frames between a stock and a Portolan end.
//!
//! At a Portolan end the channel closes with the first record that is missing, late or damaged, so that what came out of it is
//! an unbroken beginning of what went in. A stock end keeps a window of 32 records instead (spec 02 §6.7): it goes on behind a
//! hole, but takes nothing that is not genuine, and nothing twice.

use std::collections::BTreeSet;
use std::time::Duration;

use ockam::identity::{SecureChannelListenerOptions, SecureChannelOptions};
use ockam::tcp::TcpInletOptions;
use ockam::{LocalMessage, Route, route};
use portolan_interop::middle::{Attack, Direction, Middle};
use portolan_interop::peer::{Peer, string};
use portolan_interop::stock::Stock;
use portolan_interop::{eventually, noise, run};
use portolan_tests::Service;
use portolan_tests::service;
use serde_json::json;
use std::io::{Read, Write};

const ATTACKS: [Attack; 4] = [Attack::Drop, Attack::Repeat, Attack::Reorder, Attack::Flip];
const MESSAGES: u64 = 300;
/// Records pass unharmed before the first attack, and between two.
const EVERY: u64 = 20;

fn numbered(number: u64) -> Vec<u8> {
    [number.to_be_bytes().as_slice(), &[number as u8; 90]].concat()
}

fn number(payload: &[u8]) -> u64 {
    let number = u64::from_be_bytes(payload[..8].try_into().expect("eight bytes"));
    assert_eq!(payload, numbered(number), "a wrong byte");
    number
}

/// Sends the numbered messages from a stock node; a channel that closed is no error.
async fn stock_sends(stock: &Stock, route: Route) {
    let context = stock.detached(ockam_core::Address::random_local());
    for number in 0..MESSAGES {
        let message = LocalMessage::new()
            .with_onward_route(route.clone())
            .with_payload(numbered(number));
        if context.forward(message).await.is_err() {
            break;
        }
    }
}

/// Sends the numbered messages from a peer; a channel that closed is no error.
async fn peer_sends(peer: &mut Peer, encryptor: &str) {
    for number in 0..MESSAGES {
        let payload = hex::encode(numbered(number));
        let command = json!({ "do": "send", "route": [encryptor, "inbox"], "payload": payload });
        if peer.call(command).await.is_err() {
            break;
        }
    }
}

/// What came is an unbroken beginning, and unless it is all, the channel is closed.
async fn peer_closed_in_time(peer: &mut Peer, attack: Attack) {
    let limit = Duration::from_secs(15);
    if attack == Attack::Repeat {
        // Repeated records are dropped, and nothing is missing.
        let all = async || peer.inbox().await.len() == MESSAGES as usize;
        eventually("every message is there", limit, all).await;
    } else {
        let closed = async || {
            let info = peer.ok(json!({ "do": "info" })).await;
            info["channels"].as_array().is_some_and(Vec::is_empty)
        };
        eventually(&format!("{attack:?}: the channel is closed"), limit, closed).await;
        let came = peer.inbox().await.len();
        assert!(
            came < MESSAGES as usize,
            "{attack:?}: it closed for another reason"
        );
    }
    let numbers: Vec<u64> = peer
        .inbox()
        .await
        .iter()
        .map(|(payload, _)| number(payload))
        .collect();
    let unbroken: Vec<u64> = (0..numbers.len() as u64).collect();
    assert_eq!(
        numbers, unbroken,
        "{attack:?}: a hole, a repetition or another order"
    );
    assert!(
        !numbers.is_empty(),
        "{attack:?}: the attack began too early to mean something"
    );
}

/// Everything that came is genuine, and nothing came twice.
async fn stock_took_nothing_wrong(stock: &Stock, what: &str) {
    let some = async || !stock.inbox.received().is_empty();
    eventually(&format!("{what}: something came"), Duration::from_secs(15), some).await;
    let mut before = usize::MAX;
    while before != stock.inbox.received().len() {
        before = stock.inbox.received().len();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let numbers: Vec<u64> = stock
        .inbox
        .received()
        .iter()
        .map(|(payload, _)| number(payload))
        .collect();
    let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(numbers.len(), distinct.len(), "{what}: something came twice");
    assert!(
        !numbers.is_empty(),
        "{what}: the attack began too early to mean something"
    );
}

#[test]
fn what_a_stock_initiator_sends_reaches_portolan_unbroken_or_not_at_all() {
    run(async {
        for attack in ATTACKS {
            let (stock, mut peer) = (Stock::start().await, Peer::start().await);
            let middle = Middle::start(&peer.listen().await).await;
            peer.ok(json!({ "do": "accept", "at": "api" })).await;
            let connection = stock.connect(&middle.address).await;
            let channel = stock
                .channel(route![connection, "api"], SecureChannelOptions::new())
                .await
                .expect("a channel");
            // The third message of the handshake has arrived.
            assert_eq!(
                stock
                    .ask(route![channel.clone(), "echo"], b"open")
                    .await
                    .expect("an answer"),
                b"open"
            );
            middle.attack(attack, Direction::Up, EVERY);
            stock_sends(&stock, route![channel, "inbox"]).await;
            peer_closed_in_time(&mut peer, attack).await;
            assert!(middle.attacked() > 0);
        }
    });
}

#[test]
fn what_a_stock_responder_sends_reaches_portolan_unbroken_or_not_at_all() {
    run(async {
        for attack in ATTACKS {
            let (stock, mut peer) = (Stock::start().await, Peer::start().await);
            let middle = Middle::start(&stock.listen().await.socket_string()).await;
            stock.accept(SecureChannelListenerOptions::new());
            let connection = peer.connect(&middle.address).await;
            let channel = peer.channel(json!({}), &[&connection, "api"]).await;
            assert_eq!(
                peer.ask(&[&channel, "echo"], b"open").await.expect("an answer"),
                b"open"
            );
            middle.attack(attack, Direction::Down, EVERY);
            let open = stock
                .node
                .secure_channels()
                .secure_channel_registry()
                .get_channel_list();
            let encryptor = open[0].encryptor_messaging_address().clone();
            stock_sends(&stock, route![encryptor, "inbox"]).await;
            peer_closed_in_time(&mut peer, attack).await;
            assert!(middle.attacked() > 0);
        }
    });
}

#[test]
fn what_portolan_sends_reaches_a_stock_initiator_genuine_and_once() {
    run(async {
        for attack in ATTACKS {
            let (stock, mut peer) = (Stock::start().await, Peer::start().await);
            let middle = Middle::start(&peer.listen().await).await;
            peer.ok(json!({ "do": "accept", "at": "api" })).await;
            let connection = stock.connect(&middle.address).await;
            let channel = stock
                .channel(route![connection, "api"], SecureChannelOptions::new())
                .await
                .expect("a channel");
            assert_eq!(
                stock
                    .ask(route![channel, "echo"], b"open")
                    .await
                    .expect("an answer"),
                b"open"
            );
            let info = peer.ok(json!({ "do": "info" })).await;
            let encryptor = string(&info["channels"][0], "encryptor");
            middle.attack(attack, Direction::Down, EVERY);
            peer_sends(&mut peer, &encryptor).await;
            stock_took_nothing_wrong(&stock, &format!("{attack:?}")).await;
            assert!(middle.attacked() > 0);
        }
    });
}

#[test]
fn what_portolan_sends_reaches_a_stock_responder_genuine_and_once() {
    run(async {
        for attack in ATTACKS {
            let (stock, mut peer) = (Stock::start().await, Peer::start().await);
            let middle = Middle::start(&stock.listen().await.socket_string()).await;
            stock.accept(SecureChannelListenerOptions::new());
            let connection = peer.connect(&middle.address).await;
            let channel = peer.channel(json!({}), &[&connection, "api"]).await;
            assert_eq!(
                peer.ask(&[&channel, "echo"], b"open").await.expect("an answer"),
                b"open"
            );
            middle.attack(attack, Direction::Up, EVERY);
            peer_sends(&mut peer, &channel).await;
            stock_took_nothing_wrong(&stock, &format!("{attack:?}")).await;
            assert!(middle.attacked() > 0);
        }
    });
}

#[test]
fn a_stream_from_a_stock_inlet_arrives_unbroken_at_portolan_or_ends() {
    run(async {
        for attack in ATTACKS {
            let (stock, mut peer) = (Stock::start().await, Peer::start().await);
            let received = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
            let kept = received.clone();
            let sink = Service::start(move |mut stream| {
                let mut buffer = [0; 64 * 1024];
                loop {
                    match stream.read(&mut buffer)? {
                        0 => return Ok(()),
                        n => kept
                            .lock()
                            .expect("nobody panics with it")
                            .extend_from_slice(&buffer[..n]),
                    }
                }
            });
            let middle = Middle::start(&peer.listen().await).await;
            peer.ok(json!({ "do": "accept", "at": "api" })).await;
            peer.ok(json!({ "do": "outlet", "at": "outlet", "to": sink.address.to_string() }))
                .await;
            let connection = stock.connect(&middle.address).await;
            let channel = stock
                .channel(route![connection, "api"], SecureChannelOptions::new())
                .await
                .expect("a channel");
            let inlet = stock
                .tcp
                .create_inlet("127.0.0.1:0", route![channel, "outlet"], TcpInletOptions::new())
                .await;
            let inlet = inlet.expect("an inlet").socket_address();
            middle.attack(attack, Direction::Up, 6);
            let bytes = noise(4_000_000);
            let mut stream = service::connect(inlet);
            stream
                .set_write_timeout(Some(Duration::from_secs(2)))
                .expect("a limit can be set");
            let _ = stream.write_all(&bytes);
            if attack == Attack::Repeat {
                tokio::time::sleep(Duration::from_millis(1500)).await;
            } else {
                let told = async || sink.accepted() == 1 && sink.open() == 0;
                eventually(
                    &format!("{attack:?}: the target was told"),
                    Duration::from_secs(15),
                    told,
                )
                .await;
            }
            let received = received.lock().expect("nobody panics with it");
            assert!(
                bytes.starts_with(&received),
                "{attack:?}: wrong bytes among {}",
                received.len()
            );
            assert!(middle.attacked() > 0);
            if attack != Attack::Repeat {
                assert!(received.len() < bytes.len(), "{attack:?}: nothing was noticed");
            }
        }
    });
}

#[test]
fn a_handshake_through_a_hostile_middle_gives_no_channel_or_a_good_one() {
    run(async {
        for attack in ATTACKS {
            for direction in [Direction::Up, Direction::Down] {
                // Stock asks.
                let (stock, mut peer) = (Stock::start().await, Peer::start().await);
                let middle = Middle::start(&peer.listen().await).await;
                peer.ok(json!({ "do": "accept", "at": "api" })).await;
                middle.attack(attack, direction, 1);
                let connection = stock.connect(&middle.address).await;
                let options = SecureChannelOptions::new().with_timeout(Duration::from_secs(1));
                if let Ok(channel) = stock.channel(route![connection, "api"], options).await {
                    let answer = stock
                        .ask_within(route![channel, "echo"], b"open", Duration::from_secs(1))
                        .await;
                    assert!(
                        answer.is_err() || answer.expect("an answer") == b"open",
                        "{attack:?} {direction:?}"
                    );
                }
                // Portolan asks.
                let middle = Middle::start(&stock.listen().await.socket_string()).await;
                stock.accept(SecureChannelListenerOptions::new());
                middle.attack(attack, direction, 1);
                let connection = peer.connect(&middle.address).await;
                let command = json!({ "do": "channel", "route": [connection, "api"], "within": 1000 });
                if let Ok(channel) = peer.call(command).await {
                    let encryptor = string(&channel, "encryptor");
                    let ask = json!({ "do": "ask", "route": [encryptor, "echo"], "payload": "6f70", "within": 1000 });
                    let answer = peer.call(ask).await;
                    assert!(
                        answer.is_err() || answer.expect("an answer")["payload"] == "6f70",
                        "{attack:?} {direction:?}"
                    );
                }
            }
        }
    });
}

//! Case 8: what Portolan puts its extensions into (spec 06, C1–C7) does not disturb a stock peer, at either end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use minicbor::Decoder;
use ockam::identity::{SecureChannelListenerOptions, SecureChannelOptions};
use ockam::route;
use ockam::tcp::{TcpInletOptions, TcpOutletOptions};
use ockam::transport::HostnamePort;
use portolan_interop::peer::{Peer, string};
use portolan_interop::stock::Stock;
use portolan_interop::{noise, run};
use portolan_tests::Service;
use portolan_tests::raw::{self, VERSION, message};
use portolan_tests::service;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(5);

/// A map with small keys, as offers are: `{1: [1, 0], 9: bytes(…)}`, up to the 2048 bytes that spec 06 allows.
fn offer() -> Vec<u8> {
    let mut offer = vec![0xa2, 0x01, 0x82, 0x01, 0x00, 0x09];
    raw::head(&mut offer, 2, 2000);
    offer.extend_from_slice(&noise(2000));
    offer
}

#[test]
fn c1_a_payload_in_message_1_is_ignored_by_a_stock_responder() {
    run(handshake_with(offer(), Vec::new()));
}

#[test]
fn c3_a_fourth_element_in_message_3_is_ignored_by_a_stock_responder() {
    run(handshake_with(Vec::new(), offer()));
}

#[test]
fn c1_and_c3_together_are_ignored_by_a_stock_responder() {
    run(handshake_with(offer(), offer()));
}

async fn handshake_with(offer: Vec<u8>, extra: Vec<u8>) {
    let (stock, mut peer) = (Stock::start().await, Peer::start().await);
    let listener = stock.listen().await;
    stock.accept(SecureChannelListenerOptions::new());
    let connection = peer.connect(&listener.socket_string()).await;
    let payload = noise(5000);
    let initiate = json!({ "do": "initiate", "route": [connection, "api"], "offer": hex::encode(offer),
        "extra": hex::encode(extra), "payload": hex::encode(&payload) });
    let echo = peer.ok(initiate).await;
    assert_eq!(string(&echo, "payload"), hex::encode(payload));
}

#[test]
fn c2_a_fourth_element_in_message_2_is_ignored_by_a_stock_initiator() {
    run(async {
        let (stock, mut peer) = (Stock::start().await, Peer::start().await);
        let connection = stock.connect(&peer.listen().await).await;
        let respond = json!({ "do": "respond", "extra": hex::encode(offer()) });
        let asking = async {
            // The responder is there a moment after it was asked for.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let channel = stock
                .channel(route![connection, "raw"], SecureChannelOptions::new())
                .await
                .expect("a channel");
            stock
                .ask(route![channel, "anything"], b"hello")
                .await
                .expect("an answer")
        };
        let (said, heard) = tokio::join!(peer.ok(respond), asking);
        assert_eq!(heard, b"hello");
        assert_eq!(string(&said, "payload"), hex::encode(b"hello"));
        assert_eq!(
            string(&said, "offer"),
            "",
            "a stock initiator sends an empty payload 1"
        );
    });
}

/// A map with this item for key 1 and noise under a key that nobody knows, close to the 2048 bytes that a map may have.
fn with_noise(key_1: &[u8]) -> Vec<u8> {
    let mut map = vec![0xa2, 0x01];
    map.extend_from_slice(key_1);
    map.extend_from_slice(&[0x18, 0x63]);
    raw::head(&mut map, 2, 2000);
    map.extend_from_slice(&noise(2000));
    map
}

#[test]
fn a_portolan_peer_answers_the_same_carriers_and_skips_what_it_does_not_know_in_them() {
    run(async {
        let (mut one, mut other) = (Peer::start().await, Peer::start().await);
        let connection = one.connect(&other.listen().await).await;
        other.ok(json!({ "do": "accept", "at": "api" })).await;
        // An offer of suite 0, and its confirmation.
        let initiate = json!({ "do": "initiate", "route": [connection, "api"], "offer": hex::encode(with_noise(&[0x81, 0x00])),
            "extra": hex::encode(with_noise(&[0x00])), "payload": "00ff" });
        assert_eq!(string(&one.ok(initiate).await, "payload"), "00ff");
    });
}

/// The message with tracing, as index 3, and further elements.
fn extended(mut message: Vec<u8>) -> Vec<u8> {
    message[0] = 0x86;
    message.extend_from_slice(&[0x62, b'{', b'}']);
    message.extend_from_slice(&offer());
    message.extend_from_slice(&[0x19, 0x03, 0xe8]);
    message
}

/// Onward route, return route and payload of a frame. Addresses are local.
fn parse(frame: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, Vec<u8>) {
    let mut decoder = Decoder::new(frame);
    decoder.array().expect("a message is an array");
    let mut route = || -> Vec<Vec<u8>> {
        let hops = decoder.array().expect("a route").expect("of known length");
        (0..hops)
            .map(|_| {
                decoder.array().expect("an address");
                decoder.u8().expect("a type");
                decoder.bytes().expect("a body").to_vec()
            })
            .collect()
    };
    let (onward, back) = (route(), route());
    (onward, back, decoder.bytes().expect("a payload").to_vec())
}

fn slices(route: &[Vec<u8>]) -> Vec<&[u8]> {
    route.iter().map(Vec::as_slice).collect()
}

#[test]
fn c4_further_elements_of_a_tcp_message_are_ignored_by_stock() {
    run(async {
        let stock = Stock::start().await;
        let address = stock.listen().await.socket_address().to_owned();
        let mut peer = raw::Peer::greet(address);
        assert_eq!(peer.read_version().expect("a version"), VERSION);
        peer.send_frame(&extended(message(&[b"echo"], &[b"me"], b"with more")));
        let (onward, _, payload) = parse(&peer.read_frame(LIMIT).expect("an answer"));
        assert_eq!((onward, payload), (vec![b"me".to_vec()], b"with more".to_vec()));
    });
}

/// A node of nobody, that a stock node connects to: runs `serve` with the connection.
fn server(serve: impl FnOnce(raw::Peer) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(&[VERSION]).expect("it is open");
        let mut peer = raw::Peer { stream };
        peer.read_version().expect("a version");
        serve(peer);
    });
    address
}

#[test]
fn c4_further_elements_are_ignored_by_a_stock_node_that_connected() {
    run(async {
        let stock = Stock::start().await;
        let address = server(|mut peer| {
            let (_, back, payload) = parse(&peer.read_frame(LIMIT).expect("a question"));
            peer.send_frame(&extended(message(&slices(&back), &[b"here"], &payload)));
            let _ = peer.end(LIMIT);
        });
        let connection = stock.connect(&address).await;
        assert_eq!(
            stock
                .ask(route![connection, "any"], b"with more")
                .await
                .expect("an answer"),
            b"with more"
        );
    });
}

#[test]
fn c5_messages_without_an_onward_route_are_ignored_by_stock_at_both_ends() {
    run(async {
        let stock = Stock::start().await;
        let mut peer = raw::Peer::greet(*stock.listen().await.socket_address());
        peer.read_version().expect("a version");
        for payload in [&b""[..], &offer()] {
            peer.send_frame(&message(&[], &[], payload));
        }
        peer.send_frame(&message(&[b"echo"], &[b"me"], b"alive"));
        assert_eq!(parse(&peer.read_frame(LIMIT).expect("an answer")).2, b"alive");

        let address = server(|mut peer| {
            peer.send_frame(&message(&[], &[], b""));
            let (_, back, payload) = parse(&peer.read_frame(LIMIT).expect("a question"));
            peer.send_frame(&message(&[], &[], &offer()));
            peer.send_frame(&message(&slices(&back), &[b"here"], &payload));
            let _ = peer.end(LIMIT);
        });
        let connection = stock.connect(&address).await;
        assert_eq!(
            stock
                .ask(route![connection, "any"], b"alive")
                .await
                .expect("an answer"),
            b"alive"
        );
    });
}

#[test]
fn c6_bytes_after_a_ping_are_ignored_by_a_stock_outlet() {
    run(async {
        let stock = Stock::start().await;
        let listener = stock.listen().await;
        let options = TcpOutletOptions::new().as_consumer(listener.flow_control_id());
        let target = HostnamePort::from(Service::echo().address);
        stock
            .tcp
            .create_outlet("outlet", target, options)
            .expect("an outlet");
        for extra in [noise(7), offer(), noise(2048)] {
            let mut peer = raw::Peer::greet(*listener.socket_address());
            peer.read_version().expect("a version");
            let ping = [&[0x00], extra.as_slice()].concat();
            peer.send_frame(&message(&[b"outlet"], &[b"me"], &ping));
            let (_, outlet, pong) = parse(&peer.read_frame(LIMIT).expect("a pong"));
            assert_eq!(pong, [0x01]);
            peer.send_frame(&message(&slices(&outlet), &[b"me"], b"\x03\x05hello"));
            assert_eq!(
                parse(&peer.read_frame(LIMIT).expect("the echo")).2,
                b"\x03\x05hello"
            );
        }
    });
}

#[test]
fn c7_bytes_after_a_pong_are_ignored_by_a_stock_inlet_and_the_stream_works_both_ways() {
    run(async {
        for extra in [noise(7), offer(), noise(2048)] {
            let stock = Stock::start().await;
            // An outlet made by hand: answers the ping, and then sends every payload back.
            let address = server(move |mut peer| {
                let (_, back, ping) = parse(&peer.read_frame(LIMIT).expect("a ping"));
                assert_eq!(ping, [0x00]);
                let pong = [&[0x01], extra.as_slice()].concat();
                peer.send_frame(&message(&slices(&back), &[b"worker"], &pong));
                while let Ok(frame) = peer.read_frame(LIMIT) {
                    let (onward, _, payload) = parse(&frame);
                    assert_eq!(onward, [b"worker"]);
                    if payload[0] != 0x03 {
                        return;
                    }
                    peer.send_frame(&message(&slices(&back), &[b"worker"], &payload));
                }
            });
            let connection = stock.connect(&address).await;
            let inlet = stock
                .tcp
                .create_inlet(
                    "127.0.0.1:0",
                    route![connection, "outlet"],
                    TcpInletOptions::new(),
                )
                .await;
            let mut stream: TcpStream = service::connect(inlet.expect("an inlet").socket_address());
            for size in [1, 100, 100_000] {
                let bytes = noise(size);
                stream.write_all(&bytes).expect("the inlet takes bytes");
                let mut echo = vec![0; size];
                stream.read_exact(&mut echo).expect("the stream works");
                assert!(echo == bytes);
            }
        }
    });
}

#[test]
fn a_portolan_inlet_and_a_stock_outlet_agree_on_no_extension_over_plain_tcp() {
    run(async {
        // What Portolan offers in its ping (C6) reaches a stock outlet in the clear here, and the portal works.
        let (stock, mut peer) = (Stock::start().await, Peer::start().await);
        let listener = stock.listen().await;
        let options = TcpOutletOptions::new().as_consumer(listener.flow_control_id());
        let target = HostnamePort::from(Service::echo().address);
        stock
            .tcp
            .create_outlet("outlet", target, options)
            .expect("an outlet");
        let connection = peer.connect(&listener.socket_string()).await;
        let inlet = peer
            .ok(json!({ "do": "inlet", "route": [connection, "outlet"] }))
            .await;
        let mut stream = service::connect(string(&inlet, "address").parse().expect("an address"));
        let bytes = noise(100_000);
        assert!(service::ask(&mut stream, &bytes).expect("an echo") == bytes);

        // And what it answers in its pong (C7) reaches a stock inlet.
        let address = peer.listen().await;
        peer.ok(json!({ "do": "outlet", "at": "outlet", "to": Service::echo().address.to_string() }))
            .await;
        let connection = stock.connect(&address).await;
        let inlet = stock
            .tcp
            .create_inlet(
                "127.0.0.1:0",
                route![connection, "outlet"],
                TcpInletOptions::new(),
            )
            .await;
        let mut stream = service::connect(inlet.expect("an inlet").socket_address());
        assert!(service::ask(&mut stream, &bytes).expect("an echo") == bytes);
    });
}

//! Case 1: messages over TCP.

use ockam::route;
use ockam_core::Route;
use portolan_interop::peer::Peer;
use portolan_interop::stock::Stock;
use portolan_interop::{noise, run};

/// Empty, one byte, the largest portal chunk, and much more than a mailbox or a read buffer holds at once.
const SIZES: [usize; 4] = [0, 1, 128 * 1024, 1024 * 1024];

/// A BARE string, as `uppercase` wants it.
fn bare(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    [&[length], text.as_bytes()].concat()
}

#[test]
fn stock_gets_echoes_of_every_size_from_portolan() {
    run(async {
        let (stock, mut peer) = (Stock::start().await, Peer::start().await);
        let connection = stock.connect(&peer.listen().await).await;
        for size in SIZES {
            let payload = noise(size);
            let answer = stock.ask(route![connection.clone(), "echo"], &payload).await;
            assert!(
                answer.expect("an answer") == payload,
                "{size} bytes came back changed"
            );
        }
    });
}

#[test]
fn portolan_gets_echoes_of_every_size_from_stock() {
    run(async {
        let (stock, mut peer) = (Stock::start().await, Peer::start().await);
        let listener = stock.listen().await;
        let connection = peer.connect(&listener.socket_string()).await;
        for size in SIZES {
            let payload = noise(size);
            let answer = peer
                .ask(&[&connection, "echo"], &payload)
                .await
                .expect("an answer");
            assert!(answer == payload, "{size} bytes came back changed");
        }
    });
}

#[test]
fn text_becomes_upper_case_at_the_other_side_in_both_directions() {
    run(async {
        let (stock, mut peer) = (Stock::start().await, Peer::start().await);
        let connection = stock.connect(&peer.listen().await).await;
        let text: String = stock
            .node
            .send_and_receive(route![connection, "uppercase"], "straße ﬁ".to_owned())
            .await
            .expect("an answer");
        assert_eq!(text, "STRASSE FI");

        let listener = stock.listen().await;
        let connection = peer.connect(&listener.socket_string()).await;
        let answer = peer
            .ask(&[&connection, "uppercase"], &bare("straße"))
            .await
            .expect("an answer");
        assert_eq!(answer, bare("STRASSE"));
    });
}

#[test]
fn a_message_takes_three_hops_there_and_back_in_both_directions() {
    run(async {
        let (stock, mut peer) = (Stock::start().await, Peer::start().await);
        let connection = stock.connect(&peer.listen().await).await;
        let hops: Route = route![connection, "hop", "hop", "hop", "echo"];
        assert_eq!(
            stock.ask(hops, b"over three hops").await.expect("an answer"),
            b"over three hops"
        );

        let listener = stock.listen().await;
        let connection = peer.connect(&listener.socket_string()).await;
        let answer = peer
            .ask(&[&connection, "hop", "hop", "hop", "echo"], b"and back")
            .await;
        assert_eq!(answer.expect("an answer"), b"and back");
    });
}

#[test]
fn a_portolan_node_is_the_bridge_between_two_stock_nodes() {
    run(async {
        let (near, far, mut bridge) = (Stock::start().await, Stock::start().await, Peer::start().await);
        let onward = bridge.connect(&far.listen().await.socket_string()).await;
        let connection = near.connect(&bridge.listen().await).await;
        for size in SIZES {
            let payload = noise(size);
            let over: Route = route![
                connection.clone(),
                "hop",
                portolan_interop::stock::local(&onward),
                "echo"
            ];
            assert!(
                near.ask(over, &payload).await.expect("an answer") == payload,
                "{size} bytes"
            );
        }
    });
}

#[test]
fn a_stock_node_is_the_bridge_between_two_portolan_nodes() {
    run(async {
        let (mut near, mut far, bridge) = (Peer::start().await, Peer::start().await, Stock::start().await);
        let onward = bridge.connect(&far.listen().await).await;
        let connection = near.connect(&bridge.listen().await.socket_string()).await;
        for size in SIZES {
            let payload = noise(size);
            let over = [
                connection.as_str(),
                "hop",
                onward.sender_address().address(),
                "echo",
            ];
            let answer = near.ask(&over, &payload).await.expect("an answer");
            assert!(answer == payload, "{size} bytes");
        }
    });
}

#[test]
fn what_is_not_reachable_hears_nothing_on_either_side_and_the_connection_lives() {
    run(async {
        let (stock, mut peer) = (Stock::start().await, Peer::start().await);
        let connection = stock.connect(&peer.listen().await).await;
        assert!(
            stock
                .hears_nothing(route![connection.clone(), "nobody"], b"hello")
                .await
        );
        assert_eq!(
            stock
                .ask(route![connection, "echo"], b"still")
                .await
                .expect("an answer"),
            b"still"
        );

        let connection = peer.connect(&stock.listen().await.socket_string()).await;
        assert!(peer.hears_nothing(&[&connection, "nobody"], b"hello").await);
        assert_eq!(
            peer.ask(&[&connection, "echo"], b"still")
                .await
                .expect("an answer"),
            b"still"
        );
    });
}

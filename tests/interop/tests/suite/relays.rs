//! Case 3: relays.

use std::time::{Duration, Instant};

use ockam::identity::{SecureChannelListenerOptions, SecureChannelOptions};
use ockam::route;
use portolan_interop::peer::Peer;
use portolan_interop::stock::{Stock, StockProcess};
use portolan_interop::{eventually, run};
use portolan_tests::Home;
use portolan_tests::project::free_address;
use serde_json::{Value, json};

const STOCK_NODE: &str = env!("CARGO_BIN_EXE_stock-node");

/// How long liveness is watched: four times as long as a relay whose pings fail lives (spec 03 §2.5).
const WATCHED: Duration = Duration::from_secs(120);

async fn relay_node() -> (Peer, String) {
    let mut peer = Peer::start().await;
    let address = peer.listen().await;
    peer.ok(json!({ "do": "relays" })).await;
    (peer, address)
}

/// Both a stock node and a Portolan node open a channel to `target` through the relay node at `address`, and get echoes.
async fn is_reached_by_both(address: &str, relay: &str, target: &str) {
    let stock = Stock::start().await;
    let connection = stock.connect(address).await;
    let through = route![connection, relay, "api"];
    let channel = stock
        .channel(through, SecureChannelOptions::new())
        .await
        .expect("a channel through the relay");
    assert_eq!(channel.their_identifier().to_string(), target);
    let flow = channel.flow_control_id().clone();
    assert_eq!(
        stock
            .storm(route![channel.clone(), "echo"], &flow, 10_000, 100)
            .await,
        (10_000, 0)
    );
    assert_eq!(
        stock.storm(route![channel, "echo"], &flow, 20, 128 * 1024).await,
        (20, 0)
    );

    let mut peer = Peer::start().await;
    let connection = peer.connect(address).await;
    let channel = peer
        .channel(json!({ "trust": [target] }), &[&connection, relay, "api"])
        .await;
    for (count, size) in [(10_000, 100), (20, 128 * 1024)] {
        let storm = json!({ "do": "storm", "route": [channel, "echo"], "count": count, "size": size });
        assert_eq!(peer.ok(storm).await["received"], count);
    }
}

#[test]
fn a_stock_node_registers_at_a_portolan_relay_and_is_reached() {
    run(async {
        let (_relay_node, address) = relay_node().await;
        let target = Stock::start().await;
        let connection = target.connect(&address).await;
        let flow = connection.flow_control_id().clone();
        let relay = target
            .register(route![connection.clone()], "blue")
            .await
            .expect("a relay");
        assert_eq!(relay.remote_address(), "forward_to_blue");
        let options = SecureChannelListenerOptions::new().as_consumer(&flow);
        target.accept(options);
        is_reached_by_both(&address, "forward_to_blue", &target.identifier.to_string()).await;
        // One without a name of its own.
        let options = ockam::remote::RemoteRelayOptions::new();
        let random = target
            .node
            .create_relay(route![connection], options)
            .await
            .expect("a relay");
        let address = random.remote_address();
        assert!(
            address.starts_with("forward_to_") && address.len() == 11 + 32,
            "{address}"
        );
    });
}

#[test]
fn a_portolan_node_registers_at_a_stock_relay_and_is_reached() {
    run(async {
        let relay_node = Stock::start().await;
        let address = relay_node.listen().await.socket_string();
        relay_node.serve_relays(&[]);
        let mut target = Peer::start().await;
        let connection = target.connect(&address).await;
        target.ok(json!({ "do": "accept", "at": "api" })).await;
        let registered = target
            .ok(json!({ "do": "register", "route": [connection], "name": "blue" }))
            .await;
        assert_eq!(registered["address"], "forward_to_blue");
        is_reached_by_both(&address, "forward_to_blue", &target.identifier).await;
        let random = target
            .ok(json!({ "do": "register", "route": [connection] }))
            .await;
        let name = random["address"].as_str().unwrap_or_default();
        assert!(
            name.starts_with("forward_to_") && name.len() == 11 + 32,
            "{random}"
        );
    });
}

#[test]
fn pings_of_a_stock_target_are_answered_for_two_minutes_and_its_relay_stays() {
    run(async {
        let (_relay_node, address) = relay_node().await;
        let target = Stock::start().await;
        let connection = target.connect(&address).await;
        let relay = target
            .register(route![connection.clone()], "steady")
            .await
            .expect("a relay");
        target.accept(SecureChannelListenerOptions::new().as_consumer(connection.flow_control_id()));
        // What a stock session sends: a random number in CBOR to `echo`, every 10 s (spec 03 §2.5).
        let start = Instant::now();
        while start.elapsed() < WATCHED {
            let ping = minicbor::to_vec(rand::random::<u64>()).expect("a number");
            let pong = target
                .ask(route![connection.clone(), "echo"], &ping)
                .await
                .expect("a pong");
            assert_eq!(pong, ping);
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        is_reached_by_both(&address, relay.remote_address(), &target.identifier.to_string()).await;
    });
}

/// A real node with a relay at a stock relay node.
fn node_with_relay(at: &str) -> Home {
    let home = Home::new();
    home.ok(["node", "create", "target"]);
    home.ok(["relay", "create", "steady", "--to", "target", "--at", at]);
    home
}

fn relay(home: &Home) -> Value {
    home.json(["relay", "show", "steady", "--at", "target"])
}

#[test]
fn the_relay_of_a_portolan_node_at_a_stock_node_stays_up_for_two_minutes() {
    run(async {
        let address = free_address();
        let _stock = StockProcess::start(STOCK_NODE, &address.to_string());
        let home = node_with_relay(&format!("/ip4/127.0.0.1/tcp/{}/secure/api", address.port()));
        let up = async || relay(&home)["connection_status"] == "Up";
        eventually("the relay is up", Duration::from_secs(15), up).await;
        let start = Instant::now();
        while start.elapsed() < WATCHED {
            assert_eq!(
                relay(&home)["connection_status"],
                "Up",
                "after {:?}",
                start.elapsed()
            );
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let identity = home.json(["identity", "show"]);
        let identifier = identity["identifier"].as_str().expect("an identifier");
        is_reached_by_both(&address.to_string(), "forward_to_steady", identifier).await;
    });
}

#[test]
fn a_portolan_node_registers_again_when_the_stock_relay_node_is_killed_and_started_again() {
    run(async {
        let address = free_address();
        let mut stock = StockProcess::start(STOCK_NODE, &address.to_string());
        let home = node_with_relay(&format!("/ip4/127.0.0.1/tcp/{}", address.port()));
        let up = async || relay(&home)["connection_status"] == "Up";
        let down = async || relay(&home)["connection_status"] != "Up";
        eventually("the relay is up", Duration::from_secs(15), up).await;
        stock.kill();
        eventually("the relay is down", Duration::from_secs(15), down).await;
        let _stock = StockProcess::start(STOCK_NODE, &address.to_string());
        eventually("the relay is up again", Duration::from_secs(45), up).await;
        let identity = home.json(["identity", "show"]);
        let identifier = identity["identifier"].as_str().expect("an identifier");
        is_reached_by_both(&address.to_string(), "forward_to_steady", identifier).await;
    });
}

#[test]
fn a_stock_node_registers_again_when_the_portolan_relay_node_is_killed_and_started_again() {
    run(async {
        let home = Home::new();
        let address = free_address().to_string();
        home.ok(["node", "create", "relays", "--tcp-listener-address", &address]);
        let target = Stock::start().await;
        let connection = target.connect(&address).await;
        target
            .register(route![connection], "back")
            .await
            .expect("a relay");
        home.kill_processes();
        home.ok(["node", "start", "relays"]);
        // The library leaves sessions to the application: this is what one does.
        let connection = target.connect(&address).await;
        target.accept(SecureChannelListenerOptions::new().as_consumer(connection.flow_control_id()));
        target
            .register(route![connection], "back")
            .await
            .expect("a relay again");
        is_reached_by_both(&address, "forward_to_back", &target.identifier.to_string()).await;
    });
}

#[test]
fn a_stock_initiator_hears_nothing_of_a_relay_that_is_not_there() {
    run(async {
        let (_relay_node, address) = relay_node().await;
        let stock = Stock::start().await;
        let connection = stock.connect(&address).await;
        assert!(
            stock
                .hears_nothing(route![connection.clone(), "forward_to_nobody", "echo"], b"hello")
                .await
        );
        assert_eq!(
            stock
                .ask(route![connection, "echo"], b"alive")
                .await
                .expect("an answer"),
            b"alive"
        );
    });
}

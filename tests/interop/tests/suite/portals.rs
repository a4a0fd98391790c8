//! Case 4: portals.

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ockam::identity::{SecureChannelListenerOptions, SecureChannelOptions};
use ockam::route;
use ockam::tcp::{TcpInletOptions, TcpOutletOptions};
use ockam::transport::HostnamePort;
use portolan_interop::peer::{Peer, string};
use portolan_interop::stock::Stock;
use portolan_interop::{eventually, noise, run};
use portolan_tests::Service;
use portolan_tests::service::{self, STREAM_LIMIT};
use serde_json::json;

/// How much goes each way.
const LARGE: usize = 200_000_000;

/// Whose the end is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Stock,
    Portolan,
}

/// How the node of the outlet is reached.
#[derive(Clone, Copy, Debug)]
enum Path {
    Direct,
    /// Through a relay at a node of this kind.
    Relay(Kind),
}

/// A portal: the address of its inlet, and all that must live for it.
struct Portal {
    inlet: SocketAddr,
    /// Dropped with the test.
    _kept: Vec<Box<dyn Any>>,
}

/// Where others reach the relay node, or the outlet's node.
async fn relay_node(kind: Kind, kept: &mut Vec<Box<dyn Any>>) -> String {
    match kind {
        Kind::Stock => {
            let stock = Stock::start().await;
            let address = stock.listen().await.socket_string();
            stock.serve_relays(&[]);
            kept.push(Box::new(stock));
            address
        }
        Kind::Portolan => {
            let mut peer = Peer::start().await;
            let address = peer.listen().await;
            peer.ok(json!({ "do": "relays" })).await;
            kept.push(Box::new(peer));
            address
        }
    }
}

/// A portal from an inlet of this kind to an outlet of the other one, inside a secure channel.
async fn portal(inlet: Kind, path: Path, target: SocketAddr) -> Portal {
    let mut kept: Vec<Box<dyn Any>> = Vec::new();
    let mut hops = Vec::new();
    let relay = match path {
        Path::Direct => None,
        Path::Relay(kind) => {
            hops.push("forward_to_blue");
            Some(relay_node(kind, &mut kept).await)
        }
    };
    hops.push("api");
    // The outlet's node.
    let address = if inlet == Kind::Portolan {
        let stock = Stock::start().await;
        let mut options = SecureChannelListenerOptions::new();
        let address = match relay {
            None => stock.listen().await.socket_string(),
            Some(relay) => {
                let connection = stock.connect(&relay).await;
                options = options.as_consumer(connection.flow_control_id());
                stock.register(route![connection], "blue").await.expect("a relay");
                relay
            }
        };
        let outlet = TcpOutletOptions::new().as_consumer(&options.spawner_flow_control_id());
        stock
            .tcp
            .create_outlet("outlet", HostnamePort::from(target), outlet)
            .expect("an outlet");
        stock.accept(options);
        kept.push(Box::new(stock));
        address
    } else {
        let mut peer = Peer::start().await;
        let address = match relay {
            None => peer.listen().await,
            Some(relay) => {
                let connection = peer.connect(&relay).await;
                peer.ok(json!({ "do": "register", "route": [connection], "name": "blue" }))
                    .await;
                relay
            }
        };
        peer.ok(json!({ "do": "accept", "at": "api" })).await;
        peer.ok(json!({ "do": "outlet", "at": "outlet", "to": target.to_string() }))
            .await;
        kept.push(Box::new(peer));
        address
    };
    // The inlet's node.
    let inlet = if inlet == Kind::Portolan {
        let mut peer = Peer::start().await;
        let connection = peer.connect(&address).await;
        let route: Vec<&str> = std::iter::once(connection.as_str()).chain(hops).collect();
        let channel = peer.channel(json!({}), &route).await;
        let inlet = peer
            .ok(json!({ "do": "inlet", "route": [channel, "outlet"] }))
            .await;
        kept.push(Box::new(peer));
        string(&inlet, "address").parse().expect("an address")
    } else {
        let stock = Stock::start().await;
        let first: ockam::Route = route![stock.connect(&address).await];
        let route: ockam::Route = hops
            .into_iter()
            .fold(first.modify(), |route, hop| route.append(hop))
            .into();
        let channel = stock
            .channel(route, SecureChannelOptions::new())
            .await
            .expect("a channel");
        let inlet = stock
            .tcp
            .create_inlet("127.0.0.1:0", route![channel, "outlet"], TcpInletOptions::new())
            .await;
        let address = inlet.expect("an inlet").socket_address();
        kept.push(Box::new(stock));
        address
    };
    Portal { inlet, _kept: kept }
}

/// Sends `length` bytes to an echo through the portal, and compares what comes back meanwhile with what was sent.
fn transfer(inlet: SocketAddr, length: usize) {
    let block = noise(1_000_003); // A length that no buffer has, so that a shift by a block is seen.
    let mut sending = service::connect(inlet);
    let mut receiving = sending.try_clone().expect("a socket can be shared");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for start in (0..length).step_by(block.len()) {
                let part = &block[..block.len().min(length - start)];
                sending.write_all(part).expect("the inlet takes bytes");
            }
        });
        let mut buffer = vec![0; block.len()];
        for start in (0..length).step_by(block.len()) {
            let expected = &block[..block.len().min(length - start)];
            let got = &mut buffer[..expected.len()];
            receiving
                .read_exact(got)
                .unwrap_or_else(|error| panic!("after {start} bytes: {error}"));
            assert!(got == expected, "changed after {start} bytes");
        }
    });
}

async fn large_transfer(inlet: Kind, path: Path) {
    let echo = Service::echo();
    let portal = portal(inlet, path, echo.address).await;
    let address = portal.inlet;
    tokio::task::spawn_blocking(move || transfer(address, LARGE))
        .await
        .expect("equal");
}

#[test]
fn two_hundred_megabytes_each_way_from_a_stock_inlet_to_a_portolan_outlet() {
    run(large_transfer(Kind::Stock, Path::Direct));
}

#[test]
fn two_hundred_megabytes_each_way_from_a_portolan_inlet_to_a_stock_outlet() {
    run(large_transfer(Kind::Portolan, Path::Direct));
}

#[test]
fn two_hundred_megabytes_each_way_from_a_stock_inlet_through_a_stock_relay() {
    run(large_transfer(Kind::Stock, Path::Relay(Kind::Stock)));
}

#[test]
fn two_hundred_megabytes_each_way_from_a_stock_inlet_through_a_portolan_relay() {
    run(large_transfer(Kind::Stock, Path::Relay(Kind::Portolan)));
}

#[test]
fn two_hundred_megabytes_each_way_from_a_portolan_inlet_through_a_stock_relay() {
    run(large_transfer(Kind::Portolan, Path::Relay(Kind::Stock)));
}

#[test]
fn two_hundred_megabytes_each_way_from_a_portolan_inlet_through_a_portolan_relay() {
    run(large_transfer(Kind::Portolan, Path::Relay(Kind::Portolan)));
}

/// Runs a test of one portal for each kind of inlet and each path.
fn on_every_portal(target: SocketAddr, test: impl Fn(SocketAddr, &str)) {
    run(async {
        for inlet in [Kind::Stock, Kind::Portolan] {
            for path in [
                Path::Direct,
                Path::Relay(Kind::Stock),
                Path::Relay(Kind::Portolan),
            ] {
                let portal = portal(inlet, path, target).await;
                test(portal.inlet, &format!("{inlet:?} inlet, {path:?}"));
            }
        }
    });
}

#[test]
fn two_hundred_connections_at_once_get_their_own_bytes() {
    on_every_portal(Service::echo().address, |inlet, what| {
        let mut streams: Vec<TcpStream> = (0..200).map(|_| service::connect(inlet)).collect();
        let said: Vec<Vec<u8>> = streams.iter().map(|_| noise(5000)).collect();
        for (stream, said) in streams.iter_mut().zip(&said) {
            stream.write_all(said).expect("the inlet takes bytes");
        }
        for (stream, said) in streams.iter_mut().zip(&said) {
            let mut heard = vec![0; said.len()];
            stream
                .read_exact(&mut heard)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(heard == *said, "{what}: another stream's bytes");
        }
    });
}

#[test]
fn a_client_that_closes_is_noticed_by_the_target() {
    let echo = Service::echo();
    on_every_portal(echo.address, |inlet, what| {
        let mut stream = service::connect(inlet);
        assert_eq!(
            service::ask(&mut stream, b"hello").expect("an answer"),
            b"hello",
            "{what}"
        );
        assert_eq!(echo.open(), 1, "{what}");
        drop(stream);
        portolan_tests::eventually(
            &format!("{what}: the target has no connection"),
            STREAM_LIMIT,
            || echo.open() == 0,
        );
    });
}

#[test]
fn a_target_that_closes_is_noticed_by_the_client_after_the_last_byte() {
    let bytes = noise(3_000_000);
    let sent = bytes.clone();
    let source = Service::start(move |mut stream| {
        stream.write_all(&sent)?;
        stream.shutdown(std::net::Shutdown::Both)
    });
    on_every_portal(source.address, |inlet, what| {
        let mut stream = service::connect(inlet);
        let mut heard = Vec::new();
        stream
            .read_to_end(&mut heard)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(heard == bytes, "{what}: {} of {} bytes", heard.len(), bytes.len());
    });
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("a bound socket has an address")
}

#[test]
fn a_target_that_is_down_ends_the_client_and_hurts_no_later_one() {
    run(async {
        let down = nobody();
        for inlet in [Kind::Stock, Kind::Portolan] {
            let portal = portal(inlet, Path::Direct, down).await;
            let mut stream = service::connect(portal.inlet);
            let _ = stream.write_all(b"is anybody there");
            // A Portolan outlet answers a stock inlet's ping and disconnects at once, for a stock inlet hears nothing else
            // before the pong. A stock outlet tells nobody (spec 01 §10.4): a Portolan inlet gives up by itself.
            let limit = if inlet == Kind::Stock {
                Duration::from_secs(3)
            } else {
                Duration::from_secs(20)
            };
            let end = service::end_of(&mut stream, limit);
            assert!(end.is_closed(), "{inlet:?}: {end:?}");
            // The target comes up: the next connection gets through.
            let listener = TcpListener::bind(down).expect("the port is free still");
            let accepted = std::thread::spawn(move || -> io::Result<Vec<u8>> {
                let (mut stream, _) = listener.accept()?;
                let mut heard = vec![0; 5];
                stream.read_exact(&mut heard)?;
                Ok(heard)
            });
            let mut stream = service::connect(portal.inlet);
            stream.write_all(b"hello").expect("the inlet takes bytes");
            let heard = async || accepted.is_finished();
            eventually("the target was reached", Duration::from_secs(10), heard).await;
            assert_eq!(
                accepted.join().expect("no panic").expect("bytes"),
                b"hello",
                "{inlet:?}"
            );
        }
    });
}

//! Portals over TCP between nodes in this process, with real sockets at both ends, and against peers that know no
//! extension or break the rules.

use std::sync::Arc;
use std::time::Duration;

use portolan_portal::protocol::{Offer, PortalMessage, payload_header};
use portolan_portal::{FailureKind, InletOptions, OutletOptions};
use portolan_runtime::{AccessControl, Context, Denial, Message, Payload, WorkerOptions, route};
use portolan_tcp::{TcpOptions, TcpTransport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::world::*;

mod world;

#[tokio::test]
async fn bytes_arrive_once_and_in_order_in_both_directions() {
    let world = world().await;
    let (mut client, mut server) = world.pair().await;
    let (up, down) = (pattern(24 << 20, 1), pattern(24 << 20, 2));
    let (mut client_reads, mut client_writes) = client.split();
    let (mut server_reads, mut server_writes) = server.split();
    let (mut up_received, mut down_received) = (vec![0; up.len()], vec![0; down.len()]);
    let both = async {
        let (a, b, c, d) = tokio::join!(
            client_writes.write_all(&up),
            server_writes.write_all(&down),
            server_reads.read_exact(&mut up_received),
            client_reads.read_exact(&mut down_received),
        );
        a.and(b).unwrap();
        c.and(d).unwrap();
    };
    soon("both directions", both).await;
    assert!(up_received == up && down_received == down);
    world.stop().await;
}

#[tokio::test]
async fn small_messages_go_back_and_forth() {
    let world = world().await;
    let (mut client, mut server) = world.pair().await;
    for i in 0..2000u32 {
        transfer(&mut client, &mut server, &i.to_be_bytes()).await;
        transfer(&mut server, &mut client, &[7]).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn one_direction_ends_and_the_other_goes_on() {
    let world = world().await;
    let (mut client, mut server) = world.pair().await;
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();
    let mut request = Vec::new();
    soon("the end of the request", server.read_to_end(&mut request))
        .await
        .unwrap();
    assert_eq!(request, b"request");
    let answer = pattern(3 << 20, 3);
    server.write_all(&answer).await.unwrap();
    drop(server);
    let mut received = Vec::new();
    soon("the whole answer", client.read_to_end(&mut received))
        .await
        .unwrap();
    assert!(received == answer);
    eventually("nothing is left", || {
        world.inlet.status().open() == 0 && world.outlet.status().open() == 0
    })
    .await;
    assert!(world.inlet.status().last_failure().is_none());
    world.stop().await;
}

#[tokio::test]
async fn a_reset_at_one_end_is_a_reset_at_the_other() {
    let world = world().await;
    let (mut client, mut server) = world.pair().await;
    transfer(&mut client, &mut server, b"hello").await;
    socket2::SockRef::from(&server)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(server);
    let end = soon("the client is closed", client.read(&mut [0; 10])).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    eventually("nothing is left", || {
        world.inlet.status().open() == 0 && world.outlet.status().open() == 0
    })
    .await;
    assert_eq!(
        world.inlet.status().last_failure().unwrap().kind,
        FailureKind::Reset
    );
    world.stop().await;
}

#[tokio::test]
async fn a_client_is_closed_with_the_reason_when_the_target_is_down() {
    let mut world = world().await;
    let address = world.target.local_addr().unwrap();
    world.target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(world.inlet.local()).await.unwrap();
    let end = soon("the client is closed", client.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(0) | Err(_)));
    let failure = world.inlet.status().last_failure().unwrap();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.text.contains(&address.to_string()), "{}", failure.text);
    assert_eq!(
        world.outlet.status().last_failure().unwrap().kind,
        FailureKind::Unreachable
    );
    world.stop().await;
}

#[tokio::test]
async fn a_client_without_a_route_is_closed_at_once_and_served_later() {
    let world = world().await;
    world.inlet.pause("the relay is down");
    let mut client = TcpStream::connect(world.inlet.local()).await.unwrap();
    assert!(matches!(
        soon("closed", client.read(&mut [0; 1])).await,
        Ok(0) | Err(_)
    ));
    let failure = world.inlet.status().last_failure().unwrap();
    assert_eq!(failure.kind, FailureKind::NotConnected);
    assert!(failure.text.contains("the relay is down"));
    world.inlet.connect(route![world.connection.sender(), "outlet"]);
    let (mut client, mut server) = world.pair().await;
    transfer(&mut client, &mut server, b"hello").await;
    world.stop().await;
}

#[tokio::test]
async fn an_outlet_that_does_not_answer_costs_a_client_no_more_than_the_time_out() {
    let options = InletOptions {
        pong_timeout: Duration::from_millis(300),
        ..InletOptions::default()
    };
    let world = world_with(options, OutletOptions::default()).await;
    world.inlet.connect(route![world.connection.sender(), "nobody"]);
    let mut client = TcpStream::connect(world.inlet.local()).await.unwrap();
    client.write_all(b"impatient").await.unwrap();
    let end = soon("the client is closed", client.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(0) | Err(_)));
    assert_eq!(
        world.inlet.status().last_failure().unwrap().kind,
        FailureKind::NoAnswer
    );
    eventually("nothing is left", || world.inlet.status().open() == 0).await;
    world.stop().await;
}

#[tokio::test]
async fn a_lost_path_closes_both_ends_with_a_reset() {
    let world = world().await;
    let (mut client, mut server) = world.pair().await;
    transfer(&mut client, &mut server, b"hello").await;
    for connection in world.far_tcp.connections() {
        world.far_tcp.disconnect(connection.sender()).unwrap();
    }
    assert!(
        soon("the client is closed", client.read(&mut [0; 1]))
            .await
            .is_err()
    );
    assert!(
        soon("the server is closed", server.read(&mut [0; 1]))
            .await
            .is_err()
    );
    assert_eq!(
        world.inlet.status().last_failure().unwrap().kind,
        FailureKind::PathLost
    );
    eventually("nothing is left", || {
        world.inlet.status().open() == 0 && world.outlet.status().open() == 0
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn one_client_that_does_not_read_delays_no_other() {
    let world = world().await;
    let (stalled, mut stalled_server) = world.pair().await;
    let flood = tokio::spawn(async move {
        let bytes = vec![1; 1 << 20];
        for _ in 0..64 {
            if stalled_server.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let (mut client, mut server) = world.pair().await;
    for seed in 0..20 {
        soon(
            "the busy one goes on",
            transfer(&mut server, &mut client, &pattern(1 << 20, seed)),
        )
        .await;
    }
    assert!(!flood.is_finished(), "the stalled one waits, in bounded memory");
    drop(stalled);
    soon("its server is closed", flood).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn many_connections_at_once_do_not_mix() {
    let world = world().await;
    let target = world.target.local_addr().unwrap();
    let _ = target;
    let inlet = world.inlet.local();
    let echo = async {
        loop {
            let (mut socket, _) = world.target.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut reads, mut writes) = socket.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
            });
        }
    };
    let clients = async {
        let mut running = tokio::task::JoinSet::new();
        for seed in 0..200 {
            running.spawn(async move {
                let bytes = pattern(50_000 + seed as usize * 100, seed);
                let mut client = TcpStream::connect(inlet).await.unwrap();
                let (mut reads, mut writes) = client.split();
                let mut received = Vec::new();
                let (sent, read) = tokio::join!(
                    async {
                        writes.write_all(&bytes).await?;
                        writes.shutdown().await
                    },
                    reads.read_to_end(&mut received)
                );
                sent.unwrap();
                read.unwrap();
                assert!(received == bytes);
            });
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
    };
    tokio::select! {
        () = echo => {}
        () = soon("all clients", clients) => {}
    }
    eventually("nothing is left", || {
        world.inlet.status().open() == 0 && world.outlet.status().open() == 0
    })
    .await;
    assert_eq!(world.inlet.status().total(), 200);
    world.stop().await;
}

#[tokio::test]
async fn a_policy_that_refuses_closes_the_client_at_once_and_says_so() {
    let deny = AccessControl::rule(|_: &portolan_runtime::Delivery<'_>| {
        Err(Denial("the sun does not shine".into()))
    });
    let outlet = OutletOptions {
        incoming: deny.clone(),
        ..OutletOptions::default()
    };
    let world = world_with(InletOptions::default(), outlet).await;
    let mut client = TcpStream::connect(world.inlet.local()).await.unwrap();
    assert!(matches!(
        soon("closed", client.read(&mut [0; 1])).await,
        Ok(0) | Err(_)
    ));
    assert_eq!(
        world.inlet.status().last_failure().unwrap().kind,
        FailureKind::DeniedByPeer
    );
    assert!(
        world
            .outlet
            .status()
            .last_failure()
            .unwrap()
            .text
            .contains("the sun does not shine")
    );
    world.stop().await;
    let inlet = InletOptions {
        incoming: deny,
        ..InletOptions::default()
    };
    let world = world_with(inlet, OutletOptions::default()).await;
    let mut client = TcpStream::connect(world.inlet.local()).await.unwrap();
    assert!(matches!(
        soon("closed", client.read(&mut [0; 1])).await,
        Ok(0) | Err(_)
    ));
    assert_eq!(
        world.inlet.status().last_failure().unwrap().kind,
        FailureKind::Denied
    );
    world.stop().await;
}

#[tokio::test]
async fn a_policy_that_changes_closes_an_open_connection_and_leaves_no_hole() {
    let allowed = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let flag = Arc::clone(&allowed);
    let rule = AccessControl::rule(move |_: &portolan_runtime::Delivery<'_>| {
        if flag.load(std::sync::atomic::Ordering::SeqCst) {
            Ok(())
        } else {
            Err(Denial("revoked".into()))
        }
    });
    let outlet = OutletOptions {
        incoming: rule.clone(),
        outgoing: rule,
        ..OutletOptions::default()
    };
    let world = world_with(InletOptions::default(), outlet).await;
    let (mut client, mut server) = world.pair().await;
    transfer(&mut client, &mut server, b"hello").await;
    allowed.store(false, std::sync::atomic::Ordering::SeqCst);
    client.write_all(b"more").await.unwrap();
    let mut rest = Vec::new();
    let _ = soon("the server is closed", server.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
    let _ = soon("the client is closed", client.read(&mut [0; 1])).await;
    world.stop().await;
}

// What follows plays a stock peer, or a broken one, by hand.

#[tokio::test]
async fn a_stock_inlet_sees_the_stock_protocol_and_nothing_else() {
    let world = world().await;
    let mut peer = stock_inlet(&world).await;
    let (mut server, _) = world.target.accept().await.unwrap();
    let (pong, remote) = receive(&mut peer).await;
    assert_eq!(pong, [1], "a Pong without anything behind it");
    peer.send_message(Message::new(&remote, "stock-inlet", b"\x03\x05hello".as_slice()))
        .await
        .unwrap();
    let mut hello = [0; 5];
    server.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    server.write_all(b"world").await.unwrap();
    assert_eq!(receive(&mut peer).await.0, b"\x03\x05world");
    drop(server);
    assert_eq!(receive(&mut peer).await.0, [2], "a Disconnect");
    eventually("the outlet's end is gone", || world.outlet.status().open() == 0).await;
    drop(peer);
    world.stop().await;
}

#[tokio::test]
async fn a_stock_inlet_is_told_with_a_pong_and_a_disconnect_that_the_target_is_down() {
    let mut world = world().await;
    world.target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = stock_inlet(&world).await;
    assert_eq!(receive(&mut peer).await.0, [1]);
    assert_eq!(receive(&mut peer).await.0, [2]);
    drop(peer);
    world.stop().await;
}

#[tokio::test]
async fn a_stock_inlets_disconnect_comes_after_its_data() {
    let world = world().await;
    let mut peer = stock_inlet(&world).await;
    let (mut server, _) = world.target.accept().await.unwrap();
    let (_, remote) = receive(&mut peer).await;
    let chunk = pattern(100_000, 9);
    for _ in 0..20 {
        let mut payload = Payload::copy_from(&chunk);
        let (header, used) = payload_header(chunk.len());
        payload.prepend(&header[..used]);
        peer.send_message(Message::new(&remote, "stock-inlet", payload))
            .await
            .unwrap();
    }
    peer.send_message(Message::new(&remote, "stock-inlet", [2u8].as_slice()))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut received = Vec::new();
    soon("all of it", server.read_to_end(&mut received))
        .await
        .unwrap();
    assert_eq!(received.len(), 20 * chunk.len());
    drop(peer);
    world.stop().await;
}

#[tokio::test]
async fn a_peer_that_sends_more_than_its_window_allows_does_not_hold_up_its_channel() {
    let world = world().await;
    let mut peer = world.near.context(WorkerOptions::new("greedy")).unwrap();
    world.near.add_consumer(world.connection.flow(), &"greedy".into());
    let offer = b"\x00\xa3\x01\x1a\x00\x04\x00\x00\x02\xf5\x03\xf5";
    let outlet = route![world.connection.sender(), "outlet"];
    peer.send_message(Message::new(outlet, "greedy", offer.as_slice()))
        .await
        .unwrap();
    // It takes nothing.
    let (server, _) = world.target.accept().await.unwrap();
    let (_, remote) = receive(&mut peer).await;
    let chunk = pattern(100_000, 9);
    let sending = async {
        while world.outlet.status().open() > 0 {
            let mut payload = Payload::copy_from(&chunk);
            let (header, used) = payload_header(chunk.len());
            payload.prepend(&header[..used]);
            let message = Message::new(&remote, "greedy", payload);
            let _ = tokio::time::timeout(Duration::from_millis(100), peer.send_message(message)).await;
        }
    };
    soon("the connection is closed", sending).await;
    let failure = world.outlet.status().last_failure().unwrap();
    assert!(failure.text.contains("window"), "{}", failure.text);
    let (mut client, mut other) = world.pair().await;
    transfer(&mut client, &mut other, b"others go on").await;
    drop((peer, server));
    world.stop().await;
}

#[tokio::test]
async fn stray_and_malformed_messages_open_nothing_and_break_nothing() {
    let world = world().await;
    let mut peer = stock_inlet(&world).await;
    let (mut server, _) = world.target.accept().await.unwrap();
    let (_, remote) = receive(&mut peer).await;
    for garbage in [
        &b""[..],
        b"\x07",
        b"\x03\xff\xff",
        b"\x83\x00",
        b"\x00",
        b"\x01",
        b"\x04\xff",
        b"\x05",
    ] {
        peer.send_message(Message::new(&remote, "stock-inlet", garbage))
            .await
            .unwrap();
        let outlet = route![world.connection.sender(), "outlet"];
        if garbage != b"\x00" {
            peer.send_message(Message::new(outlet, "stock-inlet", garbage))
                .await
                .unwrap();
        }
    }
    peer.send_message(Message::new(&remote, "stock-inlet", b"\x03\x02ok".as_slice()))
        .await
        .unwrap();
    let mut ok = [0; 2];
    server.read_exact(&mut ok).await.unwrap();
    assert_eq!(&ok, b"ok");
    assert_eq!(world.outlet.status().total(), 1);
    drop(peer);
    world.stop().await;
}

// W54.
#[tokio::test]
async fn beyond_the_limit_of_an_outlet_or_an_inlet_clients_are_closed_with_that_reason() {
    let options = OutletOptions {
        max_connections: 1,
        ..OutletOptions::default()
    };
    let world = world_with(InletOptions::default(), options).await;
    let (first, server) = world.pair().await;
    let mut second = TcpStream::connect(world.inlet.local()).await.unwrap();
    let closed = soon("the second is closed", second.read(&mut [0; 1])).await;
    assert!(!matches!(closed, Ok(1)));
    let failure = world.inlet.status().last_failure().unwrap();
    assert!(failure.text.contains("limit"), "{}", failure.text);
    drop((first, server));
    eventually("the place is free", || world.outlet.status().open() == 0).await;
    let _third = world.pair().await;
    world.stop().await;

    let options = InletOptions {
        max_connections: 1,
        ..InletOptions::default()
    };
    let world = world_with(options, OutletOptions::default()).await;
    let _first = world.pair().await;
    let mut second = TcpStream::connect(world.inlet.local()).await.unwrap();
    let closed = soon("the second is closed", second.read(&mut [0; 1])).await;
    assert!(!matches!(closed, Ok(1)));
    let failure = world.inlet.status().last_failure().unwrap();
    assert!(failure.text.contains("limit"), "{}", failure.text);
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_noticed() {
    let world = world().await;
    // An outlet that never answers.
    let _silent = world.far.context("silent").unwrap();
    world.inlet.connect(route![world.connection.sender(), "silent"]);
    let client = TcpStream::connect(world.inlet.local()).await.unwrap();
    eventually("the client is accepted", || world.inlet.status().open() == 1).await;
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    eventually("the connection is given up", || world.inlet.status().open() == 0).await;
    world.stop().await;
}

#[tokio::test]
async fn an_inlet_with_a_stock_outlet_uses_the_stock_protocol() {
    let world = world().await;
    let mut outlet = world.far.context(WorkerOptions::new("stock-outlet")).unwrap();
    for listener in world.far_tcp.listeners() {
        world.far.add_consumer(listener.flow(), &"stock-outlet".into());
    }
    world
        .inlet
        .connect(route![world.connection.sender(), "stock-outlet"]);
    let mut client = TcpStream::connect(world.inlet.local()).await.unwrap();
    let (ping, remote) = receive(&mut outlet).await;
    assert!(matches!(
        PortalMessage::decode(&ping).unwrap(),
        PortalMessage::Ping(Offer { half_close: true, .. })
    ));
    outlet
        .send_message(Message::new(&remote, "stock-outlet", [1u8].as_slice()))
        .await
        .unwrap();
    client.write_all(b"hello").await.unwrap();
    assert_eq!(receive(&mut outlet).await.0, b"\x03\x05hello");
    outlet
        .send_message(Message::new(&remote, "stock-outlet", b"\x03\x05world".as_slice()))
        .await
        .unwrap();
    let mut world_ = [0; 5];
    client.read_exact(&mut world_).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(receive(&mut outlet).await.0, [2]);
    outlet
        .send_message(Message::new(&remote, "stock-outlet", b"\x03\x04late".as_slice()))
        .await
        .unwrap();
    let mut late = Vec::new();
    soon("what was in flight still arrives", client.read_to_end(&mut late))
        .await
        .unwrap();
    assert_eq!(late, b"late");
    drop(outlet);
    world.stop().await;
}

/// A client that takes little at a time, so that bytes wait at the inlet.
async fn client_with_little_room(world: &World) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(world.inlet.local()).await.unwrap()
}

#[tokio::test]
async fn bytes_of_a_stock_outlet_that_wait_for_a_slow_client_are_not_cut_off_by_its_own_end() {
    let world = world().await;
    let mut outlet = world.far.context(WorkerOptions::new("stock-outlet")).unwrap();
    for listener in world.far_tcp.listeners() {
        world.far.add_consumer(listener.flow(), &"stock-outlet".into());
    }
    world
        .inlet
        .connect(route![world.connection.sender(), "stock-outlet"]);
    let mut client = client_with_little_room(&world).await;
    let (_, remote) = receive(&mut outlet).await;
    answer(&mut outlet, &remote, "stock-outlet", &[1]).await;
    // As much as the sockets take, and a little more.
    let chunk = pattern(60_000, 5);
    let (header, used) = payload_header(chunk.len());
    let message = [&header[..used], &chunk].concat();
    let status = world.inlet.status();
    let mut sent = 0;
    let filling = async {
        while sent - status.to_application() < 500_000 {
            answer(&mut outlet, &remote, "stock-outlet", &message).await;
            sent += chunk.len() as u64;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("bytes wait at the inlet", filling).await;
    client.shutdown().await.unwrap();
    assert_eq!(receive(&mut outlet).await.0, [2]);
    // Longer than the inlet waits for what is in flight.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut received = Vec::new();
    soon("all of it", client.read_to_end(&mut received))
        .await
        .unwrap();
    let all = chunk.repeat(sent as usize / chunk.len());
    assert!(received == all, "{} of {sent} bytes arrived", received.len());
    eventually("the inlet's end is gone", || world.inlet.status().open() == 0).await;
    drop(outlet);
    world.stop().await;
}

// X3 part 6: bytes behind the Ping.

/// Plays an outlet at `name` that knows extensions, by hand.
async fn outlet_by_hand(world: &World, name: &str) -> Context {
    let outlet = world.far.context(WorkerOptions::new(name)).unwrap();
    for listener in world.far_tcp.listeners() {
        world.far.add_consumer(listener.flow(), &name.into());
    }
    world.inlet.connect(route![world.connection.sender(), name]);
    outlet
}

const EARLY_PONG: &[u8] = b"\x01\xa5\x01\x1a\x00\x01\x00\x00\x02\xf5\x03\xf5\x06\xf5\x07\xf5";

async fn answer(outlet: &mut Context, remote: &portolan_runtime::Route, name: &str, message: &[u8]) {
    outlet
        .send_message(Message::new(remote, name, message))
        .await
        .unwrap();
}

#[tokio::test]
async fn bytes_go_right_behind_the_ping_once_the_outlet_is_known_to_take_them() {
    let world = world().await;
    let mut outlet = outlet_by_hand(&world, "by-hand").await;
    let mut first = TcpStream::connect(world.inlet.local()).await.unwrap();
    first.write_all(b"one").await.unwrap();
    let (ping, remote) = receive(&mut outlet).await;
    assert!(matches!(
        PortalMessage::decode(&ping).unwrap(),
        PortalMessage::Ping(Offer { early: true, .. })
    ));
    answer(&mut outlet, &remote, "by-hand", EARLY_PONG).await;
    assert_eq!(
        receive(&mut outlet).await.0,
        b"\x03\x03one",
        "only after the Pong"
    );

    let mut second = TcpStream::connect(world.inlet.local()).await.unwrap();
    second.write_all(b"two").await.unwrap();
    let (ping, remote) = receive(&mut outlet).await;
    assert_eq!(ping[0], 0);
    assert_eq!(receive(&mut outlet).await.0, b"\x03\x03two", "before any Pong");
    answer(&mut outlet, &remote, "by-hand", EARLY_PONG).await;
    second.write_all(b"three").await.unwrap();
    assert_eq!(
        receive(&mut outlet).await.0,
        b"\x03\x05three",
        "and nothing twice"
    );

    // Another outlet is another matter.
    let mut other = outlet_by_hand(&world, "other").await;
    let mut third = TcpStream::connect(world.inlet.local()).await.unwrap();
    third.write_all(b"four").await.unwrap();
    let (_, remote) = receive(&mut other).await;
    answer(&mut other, &remote, "other", b"\x01").await;
    assert_eq!(receive(&mut other).await.0, b"\x03\x04four");
    drop((outlet, other));
    world.stop().await;
}

#[tokio::test]
async fn an_outlet_that_no_longer_takes_bytes_behind_the_ping_loses_none() {
    let world = world().await;
    let mut outlet = outlet_by_hand(&world, "by-hand").await;
    let mut first = TcpStream::connect(world.inlet.local()).await.unwrap();
    let (_, remote) = receive(&mut outlet).await;
    answer(&mut outlet, &remote, "by-hand", EARLY_PONG).await;
    first.write_all(b"x").await.unwrap();
    receive(&mut outlet).await;
    let mut second = TcpStream::connect(world.inlet.local()).await.unwrap();
    second.write_all(b"precious").await.unwrap();
    let (_, remote) = receive(&mut outlet).await;
    assert_eq!(receive(&mut outlet).await.0, b"\x03\x08precious");
    // A stock outlet stands there now: it has dropped that.
    answer(&mut outlet, &remote, "by-hand", b"\x01").await;
    assert_eq!(receive(&mut outlet).await.0, b"\x03\x08precious", "again");
    second.write_all(b"more").await.unwrap();
    assert_eq!(receive(&mut outlet).await.0, b"\x03\x04more");
    // And the next connection waits.
    let mut third = TcpStream::connect(world.inlet.local()).await.unwrap();
    third.write_all(b"three").await.unwrap();
    let (_, remote) = receive(&mut outlet).await;
    answer(&mut outlet, &remote, "by-hand", b"\x01").await;
    assert_eq!(receive(&mut outlet).await.0, b"\x03\x05three");
    drop(outlet);
    world.stop().await;
}

#[tokio::test]
async fn bytes_behind_a_ping_reach_the_target_in_order_and_only_from_the_same_channel() {
    let world = world().await;
    let mut peer = world.near.context(WorkerOptions::new("peer")).unwrap();
    let listener = world.far_tcp.listeners().remove(0);
    let second = TcpTransport::new(&world.near, TcpOptions::default())
        .connect(&listener.local().to_string())
        .await
        .unwrap();
    for flow in [world.connection.flow(), second.flow()] {
        world.near.add_consumer(flow, &"peer".into());
    }
    let outlet = route![world.connection.sender(), "outlet"];
    let ping = b"\x00\xa5\x01\x1a\x00\x01\x00\x00\x02\xf5\x03\xf5\x06\xf5\x07\xf5";
    peer.send_message(Message::new(&outlet, "peer", ping.as_slice()))
        .await
        .unwrap();
    let elsewhere = route![second.sender(), "outlet"];
    peer.send_message(Message::new(elsewhere, "peer", b"\x03\x05wrong".as_slice()))
        .await
        .unwrap();
    for text in [b"\x03\x03one", b"\x03\x03two"] {
        peer.send_message(Message::new(&outlet, "peer", text.as_slice()))
            .await
            .unwrap();
    }
    let (mut server, _) = soon("the target is connected to", world.target.accept())
        .await
        .unwrap();
    let (pong, remote) = receive(&mut peer).await;
    assert_eq!(pong, EARLY_PONG);
    // What still comes by way of the outlet precedes what comes straight.
    peer.send_message(Message::new(&outlet, "peer", b"\x03\x05three".as_slice()))
        .await
        .unwrap();
    peer.send_message(Message::new(&remote, "peer", b"\x03\x04four".as_slice()))
        .await
        .unwrap();
    let mut received = [0; 15];
    soon("all four", server.read_exact(&mut received)).await.unwrap();
    assert_eq!(&received, b"onetwothreefour");
    // The detour is closed now.
    peer.send_message(Message::new(&outlet, "peer", b"\x03\x04late".as_slice()))
        .await
        .unwrap();
    peer.send_message(Message::new(&remote, "peer", b"\x05".as_slice()))
        .await
        .unwrap();
    let mut rest = Vec::new();
    soon("the end", server.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(world.outlet.status().total(), 1);
    drop((server, peer));
    world.stop().await;
}

#[tokio::test]
async fn a_target_that_is_down_costs_an_early_sender_an_error_and_no_silence() {
    let mut world = world().await;
    drop(world.pair().await);
    world.target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(world.inlet.local()).await.unwrap();
    client.write_all(b"request").await.unwrap();
    let end = soon("the client is closed", client.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(0) | Err(_)));
    assert_eq!(
        world.inlet.status().last_failure().unwrap().kind,
        FailureKind::Unreachable
    );
    world.stop().await;
}

// Windows.

#[tokio::test]
async fn one_direction_goes_on_while_the_application_takes_nothing_of_the_other() {
    let world = world().await;
    let (mut client, server) = world.pair().await;
    let (up, down) = (pattern(24 << 20, 1), pattern(24 << 20, 2));
    let (mut server_reads, mut server_writes) = server.into_split();
    let answering = tokio::spawn({
        let down = down.clone();
        async move { server_writes.write_all(&down).await.map(|()| server_writes) }
    });
    // The client reads nothing before it has sent everything.
    let mut received = vec![0; up.len()];
    let upload = async {
        let (sent, read) = tokio::join!(client.write_all(&up), server_reads.read_exact(&mut received));
        sent.unwrap();
        read.unwrap();
    };
    soon("everything is sent", upload).await;
    assert!(received == up);
    let mut received = vec![0; down.len()];
    soon("everything is received", client.read_exact(&mut received))
        .await
        .unwrap();
    assert!(received == down);
    answering.await.unwrap().unwrap();
    world.stop().await;
}

/// How much of a stream that nobody reads is held between the two applications, sockets aside.
fn held_down(world: &World) -> u64 {
    world.outlet.status().from_application() - world.inlet.status().to_application()
}

fn held_up(world: &World) -> u64 {
    world.inlet.status().from_application() - world.outlet.status().to_application()
}

/// One application writes for ever to one that never reads, beside seven pairs that go on.
async fn beside_a_stalled_one(stalled_server: bool) {
    let memory = portolan_portal::WindowMemory::new(8 << 20);
    let world = world_with(
        InletOptions {
            memory: memory.clone(),
            ..InletOptions::default()
        },
        OutletOptions {
            memory: memory.clone(),
            ..OutletOptions::default()
        },
    )
    .await;
    let (client, server) = world.pair().await;
    let (mut writer, _idle) = if stalled_server {
        (client, server)
    } else {
        (server, client)
    };
    let flood = tokio::spawn(async move {
        let bytes = vec![1; 1 << 20];
        while writer.write_all(&bytes).await.is_ok() {}
    });
    let mut busy = tokio::task::JoinSet::new();
    for seed in 0..7 {
        let (mut client, mut server) = world.pair().await;
        busy.spawn(async move {
            for round in 0..8 {
                let bytes = pattern(1 << 20, seed * 100 + round);
                transfer(&mut client, &mut server, &bytes).await;
                transfer(&mut server, &mut client, &bytes).await;
                transfer(&mut client, &mut server, b"and a small one").await;
            }
            (client, server)
        });
    }
    let mut pairs = Vec::new();
    while let Some(pair) = soon("the busy ones go on", busy.join_next()).await {
        pairs.push(pair.unwrap());
    }
    assert!(!flood.is_finished());
    let held = if stalled_server {
        held_up(&world)
    } else {
        held_down(&world)
    };
    assert!(held > 0, "it is stalled");
    assert!(held <= u64::from(portolan_portal::stream::MAX_WINDOW), "{held}");
    assert!(memory.used() <= memory.limit());
    drop((pairs, _idle));
    soon("the flood ends", flood).await.unwrap();
    eventually("nothing is left", || {
        world.inlet.status().open() == 0 && world.outlet.status().open() == 0 && memory.used() == 0
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn seven_clients_go_on_beside_one_that_never_reads() {
    beside_a_stalled_one(false).await;
}

#[tokio::test]
async fn seven_clients_go_on_beside_one_whose_server_never_reads() {
    beside_a_stalled_one(true).await;
}

//! What a peer or an application can make a node hold, or keep others from, has a bound: the memory that all portals of a node
//! share, the time that a stock peer's channel waits, and refusals that are not taken.

use std::time::Duration;

use portolan_portal::protocol::{PortalMessage, payload_header};
use portolan_portal::stream::{LEAST_WINDOW, MESSAGE_COST, STOCK_BUFFER};
use portolan_portal::{FailureKind, InletOptions, OutletOptions, WindowMemory};
use portolan_runtime::{
    AccessControl, Capacity, Context, Denial, MailboxOptions, Message, Payload, Route, WorkerOptions, route,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::*;

mod world;

fn inlet_with(memory: &WindowMemory) -> InletOptions {
    InletOptions {
        memory: memory.clone(),
        ..InletOptions::default()
    }
}

fn outlet_with(memory: &WindowMemory) -> OutletOptions {
    OutletOptions {
        memory: memory.clone(),
        ..OutletOptions::default()
    }
}

async fn is_closed(client: &mut TcpStream) {
    let end = soon("the client is closed", client.read(&mut [0; 1])).await;
    assert!(!matches!(end, Ok(1)));
}

fn payload(bytes: &[u8]) -> Payload {
    let mut payload = Payload::copy_from(bytes);
    let (header, used) = payload_header(bytes.len());
    payload.prepend(&header[..used]);
    payload
}

// The memory of a node.

#[tokio::test]
async fn connections_for_which_a_node_has_no_memory_are_refused_with_that_reason() {
    for at_outlet in [true, false] {
        let (plenty, little) = (WindowMemory::default(), WindowMemory::new(64 * 1024));
        let world = if at_outlet {
            world_with(inlet_with(&plenty), outlet_with(&little)).await
        } else {
            world_with(inlet_with(&little), outlet_with(&plenty)).await
        };
        let mut pairs = Vec::new();
        while little.used() < little.limit() {
            pairs.push(world.pair().await);
        }
        assert!(pairs.len() > 2, "{}", pairs.len());
        let mut client = TcpStream::connect(world.inlet.local()).await.unwrap();
        is_closed(&mut client).await;
        let failure = world.inlet.status().last_failure().unwrap();
        assert_eq!(failure.kind, FailureKind::Limit);
        assert!(
            failure.text.contains("PORTOLAN_PORTAL_MEMORY"),
            "{}",
            failure.text
        );
        for (client, server) in &mut pairs {
            let bytes = pattern(300_000, 1);
            soon("it goes up", transfer(client, server, &bytes)).await;
            soon("it goes down", transfer(server, client, &bytes)).await;
            assert!(little.used() <= little.limit());
        }
        pairs.pop();
        let room = || little.used() + u64::from(LEAST_WINDOW) <= little.limit();
        eventually("there is room again", room).await;
        let (mut client, mut server) = world.pair().await;
        transfer(&mut client, &mut server, b"in its place").await;
        drop((pairs, client, server));
        eventually("all is given back", || little.used() == 0).await;
        world.stop().await;
    }
}

#[tokio::test]
async fn first_bytes_that_a_small_window_has_no_room_for_arrive_once_all_the_same() {
    // Enough for one connection that takes bytes behind the Ping, and for some that do not.
    let memory = WindowMemory::new(64 * 1024);
    let world = world_with(InletOptions::default(), outlet_with(&memory)).await;
    let bytes = pattern(200_000, 3);
    let mut pairs = Vec::new();
    for _ in 0..3 {
        // The first tells the inlet that bytes are taken, the second comes with some, and they are not.
        let mut client = TcpStream::connect(world.inlet.local()).await.unwrap();
        let mut received = vec![0; bytes.len()];
        let exchange = async {
            let (sent, server) = tokio::join!(client.write_all(&bytes), async {
                let (mut server, _) = world.target.accept().await.unwrap();
                server.read_exact(&mut received).await.unwrap();
                server
            });
            sent.unwrap();
            server
        };
        let server = soon("all of it", exchange).await;
        assert!(received == bytes);
        pairs.push((client, server));
    }
    world.stop().await;
}

/// An inlet played by hand that knows all extensions, with a stream whose window has grown.
async fn grown_stream(world: &World, name: &str) -> (Context, Route) {
    let mut peer = world.near.context(WorkerOptions::new(name)).unwrap();
    world.near.add_consumer(world.connection.flow(), &name.into());
    let ping = b"\x00\xa5\x01\x1a\x00\x01\x00\x00\x02\xf5\x03\xf5\x06\xf5\x07\xf5";
    let outlet = route![world.connection.sender(), "outlet"];
    peer.send_message(Message::new(outlet, name, ping.as_slice()))
        .await
        .unwrap();
    let (mut server, _) = world.target.accept().await.unwrap();
    tokio::spawn(async move { tokio::io::copy(&mut server, &mut tokio::io::sink()).await });
    let (pong, remote) = receive(&mut peer).await;
    assert_eq!(pong[0], 1);
    let chunk = pattern(10_000, 1);
    let (mut credit, mut granted) = (65_536, 65_536);
    while granted < 1 << 20 {
        while credit >= (chunk.len() + MESSAGE_COST) as u64 {
            peer.send_message(Message::new(&remote, name, payload(&chunk)))
                .await
                .unwrap();
            credit -= (chunk.len() + MESSAGE_COST) as u64;
        }
        if let PortalMessage::Credit(more) = PortalMessage::decode(&receive(&mut peer).await.0).unwrap() {
            credit += more;
            granted += more;
        }
    }
    (peer, remote)
}

/// Waits for what asks for the credit back.
async fn reclaim(peer: &mut Context) {
    loop {
        let next = tokio::time::timeout(Duration::from_secs(12), peer.receive::<Vec<u8>>()).await;
        match next.expect("a sign of life").unwrap().payload().first() {
            Some(7) => return,
            Some(4) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_peer_that_does_not_give_unused_credit_back_is_closed() {
    let memory = WindowMemory::default();
    let world = world_with(InletOptions::default(), outlet_with(&memory)).await;
    let silent = async {
        let (mut peer, remote) = grown_stream(&world, "silent").await;
        reclaim(&mut peer).await;
        let mut beats = 0;
        loop {
            peer.send_message(Message::new(&remote, "silent", [4u8, 0].as_slice()))
                .await
                .unwrap();
            let next = tokio::time::timeout(Duration::from_secs(12), peer.receive::<Vec<u8>>()).await;
            let next = next.expect("a sign of life").unwrap().payload().to_vec();
            if next[0] == 6 {
                return (beats, next);
            }
            beats += 1;
            assert!(beats < 6, "it is closed");
        }
    };
    let lying = async {
        let (mut peer, remote) = grown_stream(&world, "lying").await;
        reclaim(&mut peer).await;
        peer.send_message(Message::new(&remote, "lying", [8u8, 0].as_slice()))
            .await
            .unwrap();
        receive(&mut peer).await.0
    };
    let ((beats, silent), lying) = tokio::join!(silent, lying);
    assert!(beats >= 2, "it had time");
    assert_eq!(silent[..2], [6, 7], "Close, protocol");
    assert_eq!(lying[..2], [6, 7], "Close, protocol");
    eventually("all is given back", || memory.used() == 0).await;
    world.stop().await;
}

// Stock peers.

const CHUNK: usize = 48 * 1024;

/// Sends as a stock inlet does, until the path takes no more for a while or the outlet's end is gone. Returns how many
/// chunks were sent.
async fn fill(world: &World, peer: &mut Context, remote: &Route, at_most: usize) -> usize {
    let chunk = pattern(CHUNK, 1);
    for sent in 0..at_most {
        let message = Message::new(remote, "stock-inlet", payload(&chunk));
        peer.forward(message).unwrap();
        while tokio::time::timeout(Duration::from_millis(200), peer.flush())
            .await
            .is_err()
        {
            if world.outlet.status().open() == 0 {
                return sent;
            }
        }
        if world.outlet.status().open() == 0 {
            return sent;
        }
    }
    at_most
}

#[tokio::test]
async fn a_stock_peers_stream_that_stands_still_holds_up_its_channel_for_a_short_time_only() {
    let memory = WindowMemory::default();
    let world = world_with(InletOptions::default(), outlet_with(&memory)).await;
    let mut peer = stock_inlet(&world).await;
    let (server, _) = world.target.accept().await.unwrap();
    let (_, remote) = receive(&mut peer).await;
    // Far less than the half minute that it has when nobody waits.
    let filling = fill(&world, &mut peer, &remote, usize::MAX);
    soon("the connection is closed", filling).await;
    let failure = world.outlet.status().last_failure().unwrap();
    assert_eq!(failure.kind, FailureKind::Stalled);
    assert!(failure.text.contains("while others waited"), "{}", failure.text);
    let (mut client, mut other) = world.pair().await;
    transfer(&mut client, &mut other, b"others go on").await;
    drop((peer, server, client, other));
    eventually("all is given back", || memory.used() == 0).await;
    world.stop().await;
}

#[tokio::test]
async fn a_stock_peers_stream_that_stands_still_is_left_alone_while_nobody_waits() {
    let memory = WindowMemory::default();
    let world = world_with(InletOptions::default(), outlet_with(&memory)).await;
    let mut peer = stock_inlet(&world).await;
    let (mut server, _) = world.target.accept().await.unwrap();
    let (_, remote) = receive(&mut peer).await;
    let mut sent = 0;
    let filling = async {
        while memory.used() < STOCK_BUFFER {
            sent += fill(&world, &mut peer, &remote, 1).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // These wait in the mailbox and leave room there.
        sent += fill(&world, &mut peer, &remote, 4).await;
    };
    soon("the buffer is full", filling).await;
    // Longer than it would have if others waited.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(world.outlet.status().open(), 1);
    let (mut client, mut other) = world.pair().await;
    transfer(&mut client, &mut other, b"nobody waits").await;
    let mut received = vec![0; sent * CHUNK];
    soon("all of it", server.read_exact(&mut received)).await.unwrap();
    assert!(received == pattern(CHUNK, 1).repeat(sent));
    drop(peer);
    world.stop().await;
}

#[tokio::test]
async fn a_stock_peers_transfer_to_a_slow_application_is_not_cut() {
    let world = world().await;
    let mut peer = stock_inlet(&world).await;
    let (mut server, _) = world.target.accept().await.unwrap();
    let (_, remote) = receive(&mut peer).await;
    let total = 400;
    let reading = async {
        let mut received = Vec::new();
        let mut part = vec![0; 64 * 1024];
        // Less than a socket tells of, for longer than an application has that takes nothing.
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let read = server.read(&mut part).await.unwrap();
            received.extend_from_slice(&part[..read]);
        }
        while received.len() < total * CHUNK {
            match server.read(&mut part).await.unwrap() {
                0 => break,
                read => received.extend_from_slice(&part[..read]),
            }
        }
        received
    };
    let sending = fill(&world, &mut peer, &remote, total);
    let (sent, received) =
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(sending, reading) })
            .await
            .expect("all of it");
    assert_eq!(sent, total);
    assert!(received == pattern(CHUNK, 1).repeat(total));
    drop(peer);
    world.stop().await;
}

// Refusals.

#[tokio::test]
async fn a_refused_peer_that_takes_no_answers_does_not_keep_others_from_theirs() {
    let outlet = OutletOptions {
        incoming: AccessControl::rule(|_: &portolan_runtime::Delivery<'_>| Err(Denial("no".into()))),
        ..OutletOptions::default()
    };
    let world = world_with(InletOptions::default(), outlet).await;
    let mailbox = MailboxOptions::new("deaf")
        .incoming(AccessControl::AllowAll)
        .outgoing(AccessControl::AllowAll);
    let options = WorkerOptions::with_mailbox(mailbox).capacity(Capacity {
        messages: 1,
        bytes: 1,
    });
    let mut deaf = world.far.context(options).unwrap();
    // Once somebody was refused, the connection between the nodes stands with all its workers.
    let refused = async || {
        let mut client = TcpStream::connect(world.inlet.local()).await.unwrap();
        is_closed(&mut client).await;
        let failure = world.inlet.status().last_failure().unwrap();
        assert_eq!(failure.kind, FailureKind::DeniedByPeer);
    };
    refused().await;
    let before = world.far.workers().len();
    for _ in 0..200 {
        deaf.send_message(Message::new("outlet", "deaf", [0u8].as_slice()))
            .await
            .unwrap();
    }
    eventually("refusals wait for the peer that takes none", || {
        world.far.workers().len() >= before + 3
    })
    .await;
    refused().await;
    eventually("they do not wait for ever", || {
        world.far.workers().len() <= before
    })
    .await;
    drop(deaf);
    world.stop().await;
}

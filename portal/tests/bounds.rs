//! What a peer or an application can make a node hold, or keep others from, has a bound: the memory that all portals of a node
//! share, and the time that a stock peer's channel waits. Here with real sockets, whose buffers are part of it; what takes long is in
//! `simulated.rs`.

use std::time::Duration;

use portolan_portal::protocol::payload_header;
use portolan_portal::stream::LEAST_WINDOW;
use portolan_portal::{FailureKind, InletOptions, OutletOptions, WindowMemory};
use portolan_runtime::{Context, Message, Payload, Route};
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

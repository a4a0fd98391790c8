//! Two nodes in this process that are connected over TCP, an inlet at one and an outlet at the other.

// Each test file uses its part of it.
#![allow(dead_code)]

use std::time::Duration;

use portolan_portal::{Inlet, InletOptions, Outlet, OutletOptions};
use portolan_runtime::{Context, Message, Node, Routed, WorkerOptions, route};
use portolan_tcp::{TcpConnection, TcpOptions, TcpTransport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}

/// Fails instead of hanging.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .unwrap_or_else(|_| panic!("not within 20 s: {what}"))
}

pub(crate) struct World {
    pub(crate) near: Node,
    pub(crate) far: Node,
    pub(crate) far_tcp: TcpTransport,
    pub(crate) connection: TcpConnection,
    pub(crate) inlet: Inlet,
    pub(crate) outlet: Outlet,
    pub(crate) target: TcpListener,
}

pub(crate) async fn world_with(inlet: InletOptions, outlet: OutletOptions) -> World {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = (Node::new().unwrap(), Node::new().unwrap());
    let far_tcp = TcpTransport::new(&far, TcpOptions::default());
    let listener = far_tcp.listen("127.0.0.1:0").await.unwrap();
    let outlet = Outlet::start(&far, "outlet", &target.local_addr().unwrap().to_string(), outlet).unwrap();
    far.add_consumer(listener.flow(), outlet.address());
    let connection = TcpTransport::new(&near, TcpOptions::default())
        .connect(&listener.local().to_string())
        .await
        .unwrap();
    let inlet = Inlet::start(&near, "127.0.0.1:0", inlet).await.unwrap();
    inlet.connect(route![connection.sender(), "outlet"]);
    World {
        near,
        far,
        far_tcp,
        connection,
        inlet,
        outlet,
        target,
    }
}

pub(crate) async fn world() -> World {
    world_with(InletOptions::default(), OutletOptions::default()).await
}

impl World {
    pub(crate) async fn pair(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.inlet.local()).await.unwrap();
        let (server, _) = soon("the target is connected to", self.target.accept())
            .await
            .unwrap();
        (client, server)
    }

    pub(crate) async fn stop(self) {
        self.near.stop().await;
        self.far.stop().await;
    }
}

pub(crate) fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

pub(crate) async fn transfer(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    let mut received = vec![0; bytes.len()];
    let (sent, read) = tokio::join!(from.write_all(bytes), to.read_exact(&mut received));
    sent.unwrap();
    read.unwrap();
    assert!(received == bytes, "the bytes differ");
}

/// Plays an inlet without extensions: sends a Ping along the connection, returns the answers.
pub(crate) async fn stock_inlet(world: &World) -> Context {
    let mut peer = world.near.context(WorkerOptions::new("stock-inlet")).unwrap();
    world
        .near
        .add_consumer(world.connection.flow(), &"stock-inlet".into());
    let ping = Message::new(
        route![world.connection.sender(), "outlet"],
        "stock-inlet",
        [0u8].as_slice(),
    );
    peer.send_message(ping).await.unwrap();
    peer
}

pub(crate) async fn receive(peer: &mut Context) -> (Vec<u8>, portolan_runtime::Route) {
    let message: Routed<Vec<u8>> = soon("a portal message", peer.receive()).await.unwrap();
    (message.payload().to_vec(), message.return_route().clone())
}

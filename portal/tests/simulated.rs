//! Portals in simulated time: what beats, time-outs and limits do, and what a stream is worth on bad lines.
//!
//! The applications are in this process: what they read and write goes through pipes in memory, since real sockets know no virtual
//! time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portolan_portal::protocol::{PortalMessage, payload_header};
use portolan_portal::stream::{MESSAGE_COST, STOCK_BUFFER};
use portolan_portal::{ByteStream, FailureKind, Inlet, InletOptions, Outlet, OutletOptions, WindowMemory};
use portolan_runtime::{
    AccessControl, Capacity, Context, Denial, MailboxOptions, Message, Payload, Route, Routed, WorkerOptions,
    route,
};
use portolan_simulated::{Connection, Link, Network, SimulatedNode, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// What a pipe to an application holds, as a socket's buffers do.
const PIPE: usize = 256 * 1024;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// Two nodes, with an inlet at one and an outlet at the other.
struct World {
    near: SimulatedNode,
    far: SimulatedNode,
    connection: Connection,
    inlet: Inlet,
    outlet: Outlet,
    /// What the outlet has connected to.
    servers: mpsc::Receiver<DuplexStream>,
}

async fn world_with(network: &Network, inlet: InletOptions, outlet: OutletOptions) -> World {
    let (near, far) = (network.node("near"), network.node("far"));
    // More than any test leaves unaccepted; further ones are refused.
    let (told, servers) = mpsc::channel(64);
    let outlet = OutletOptions {
        dial: Some(Arc::new(move |_| {
            let (ours, theirs) = duplex(PIPE);
            let refused = told
                .try_send(theirs)
                .map_err(|_| std::io::ErrorKind::ConnectionRefused.into());
            Box::pin(async move { refused.map(|()| Box::new(ours) as Box<dyn ByteStream>) })
        })),
        ..outlet
    };
    let outlet = Outlet::start(&far, "outlet", "the application", outlet).unwrap();
    far.add_consumer(far.listen().flow(), outlet.address());
    let connection = near.connect("far").await.unwrap();
    let inlet = Inlet::start(&near, "127.0.0.1:0", inlet).await.unwrap();
    inlet.connect(route![connection.sender(), "outlet"]);
    World {
        near,
        far,
        connection,
        inlet,
        outlet,
        servers,
    }
}

async fn world(network: &Network) -> World {
    world_with(network, InletOptions::default(), OutletOptions::default()).await
}

fn outlet_with(memory: &WindowMemory) -> OutletOptions {
    OutletOptions {
        memory: memory.clone(),
        ..OutletOptions::default()
    }
}

impl World {
    fn client(&self) -> DuplexStream {
        let (ours, theirs) = duplex(PIPE);
        self.inlet.serve(Box::new(theirs)).unwrap();
        ours
    }

    async fn server(&mut self) -> DuplexStream {
        soon("the target is connected to", self.servers.recv())
            .await
            .unwrap()
    }

    async fn pair(&mut self) -> (DuplexStream, DuplexStream) {
        let client = self.client();
        (client, self.server().await)
    }
}

/// Fails instead of hanging.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SECONDS(20), future)
        .await
        .unwrap_or_else(|_| panic!("not within 20 s: {what}"))
}

async fn is_closed(client: &mut DuplexStream) {
    let end = soon("the client is closed", client.read(&mut [0; 1])).await;
    assert!(!matches!(end, Ok(1)));
}

fn pattern(length: usize, seed: u64) -> Vec<u8> {
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

async fn transfer(from: &mut DuplexStream, to: &mut DuplexStream, bytes: &[u8]) {
    let mut received = vec![0; bytes.len()];
    let (sent, read) = tokio::join!(from.write_all(bytes), to.read_exact(&mut received));
    sent.unwrap();
    read.unwrap();
    assert!(received == bytes, "the bytes differ");
}

fn payload(bytes: &[u8]) -> Payload {
    let mut payload = Payload::copy_from(bytes);
    let (header, used) = payload_header(bytes.len());
    payload.prepend(&header[..used]);
    payload
}

async fn receive(peer: &mut Context) -> (Vec<u8>, Route) {
    let message: Routed<Vec<u8>> = soon("a portal message", peer.receive()).await.unwrap();
    (message.payload().to_vec(), message.return_route().clone())
}

/// Plays an inlet: sends this Ping along the connection.
async fn ping(world: &World, name: &str, ping: &[u8]) -> Context {
    let mut peer = world.near.context(WorkerOptions::new(name)).unwrap();
    world.near.add_consumer(world.connection.flow(), &name.into());
    let outlet = route![world.connection.sender(), "outlet"];
    peer.send_message(Message::new(outlet, name, ping)).await.unwrap();
    peer
}

// On bad lines.

#[test]
fn an_idle_connection_lives_for_an_hour_by_its_beats_and_ends_when_the_other_node_is_silent() {
    run(1, async |network| {
        let mut world = world(&network).await;
        let (mut client, mut server) = world.pair().await;
        transfer(&mut client, &mut server, b"hello").await;
        network.sleep(SECONDS(3600)).await;
        transfer(&mut server, &mut client, b"still there").await;
        // The connection between the nodes would take a minute to notice.
        let cut = network.now();
        network.partition("near", "far");
        let (near, far) = (async { client.read(&mut [0; 1]).await }, async {
            server.read(&mut [0; 1]).await
        });
        let _ = tokio::join!(near, far);
        let took = network.now() - cut;
        assert!(took >= SECONDS(30) && took <= SECONDS(45), "{took:?}");
        for status in [world.inlet.status(), world.outlet.status()] {
            assert_eq!(status.last_failure().unwrap().kind, FailureKind::PathLost);
        }
    });
}

#[test]
fn an_outlet_that_is_cut_off_costs_a_client_the_time_out_and_no_more() {
    run(1, async |network| {
        let world = world(&network).await;
        network.partition("near", "far");
        let begun = network.now();
        is_closed(&mut world.client()).await;
        assert_eq!(network.now() - begun, portolan_portal::inlet::PONG_TIMEOUT);
        let failure = world.inlet.status().last_failure().unwrap();
        assert_eq!(failure.kind, FailureKind::NoAnswer);
    });
}

#[test]
fn an_outlet_that_lets_a_client_wait_is_told_of_once_and_may_answer_all_the_same() {
    run(1, async |network| {
        let (told, mut delays) = mpsc::channel(8);
        let options = InletOptions {
            on_delay: Some(Arc::new(move || told.try_send(()).unwrap())),
            ..InletOptions::default()
        };
        let mut world = world_with(&network, options, OutletOptions::default()).await;
        let (mut client, mut server) = world.pair().await;
        transfer(&mut client, &mut server, b"quick").await;
        network.sleep(SECONDS(10)).await;
        assert!(delays.is_empty());
        network.link(
            "near",
            "far",
            Link {
                latency: Duration::from_millis(700),
                ..Link::default()
            },
        );
        let begun = network.now();
        let mut client = world.client();
        soon("the delay is told of", delays.recv()).await.unwrap();
        assert_eq!(network.now() - begun, portolan_portal::inlet::USUAL_ANSWER);
        let mut server = world.server().await;
        transfer(&mut client, &mut server, b"slow").await;
        network.sleep(SECONDS(10)).await;
        assert!(delays.is_empty());
    });
}

#[test]
fn bytes_arrive_once_and_in_order_or_the_connection_ends_whatever_the_network_does() {
    let transferred = |seed| {
        run(seed, async |network| {
            network.usual_link(Link {
                latency: Duration::from_millis(network.random() % 200),
                jitter: Duration::from_millis(network.random() % 200),
                loss: (network.random() % 20) as f64 / 100.0,
                ..Link::default()
            });
            let memory = WindowMemory::default();
            let inlet = InletOptions {
                memory: memory.clone(),
                ..InletOptions::default()
            };
            let mut world = world_with(&network, inlet, outlet_with(&memory)).await;
            let before = network.census();
            let bytes = pattern(1_500_000, seed);
            let (mut client, mut server) = world.pair().await;
            let weather = async {
                network
                    .sleep(Duration::from_millis(network.random() % 5_000))
                    .await;
                network.partition("near", "far");
                network
                    .sleep(Duration::from_millis(network.random() % 80_000))
                    .await;
                network.heal("near", "far");
            };
            let sending = async {
                for part in bytes.chunks(30_000) {
                    if client.write_all(part).await.is_err() {
                        break;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
                let _ = client.shutdown().await;
            };
            let receiving = async {
                let mut received = Vec::new();
                let _ = server.read_to_end(&mut received).await;
                received
            };
            let ((), (), received) = tokio::join!(weather, sending, receiving);
            assert!(bytes.starts_with(&received), "seed {seed}");
            let whole = received.len() == bytes.len();
            if !whole {
                let failures =
                    [world.inlet.status(), world.outlet.status()].map(|status| status.last_failure());
                assert!(
                    failures.iter().flatten().count() > 0,
                    "what is cut short is a failure that is told"
                );
            }
            drop((client, server));
            network
                .eventually("its memory is given back", || memory.used() == 0)
                .await;
            if world.connection.is_open() {
                network.returns_to(&before).await;
            }
            (whole, network.trace().hash())
        })
    };
    let mut ends = BTreeMap::new();
    for seed in 0..40 {
        let (whole, hash) = transferred(seed);
        *ends.entry(whole).or_insert(0) += 1;
        if seed % 20 == 0 {
            assert_eq!(
                transferred(seed),
                (whole, hash),
                "seed {seed} is not the same run again"
            );
        }
    }
    assert!(
        ends.len() == 2 && ends.values().all(|count| *count > 5),
        "both happen: {ends:?}"
    );
}

// The memory of a node.

/// An inlet played by hand that knows all extensions, with a stream whose window has grown.
async fn grown_stream(world: &World, server: &mut DuplexStream, peer: &mut Context) -> Route {
    let (pong, remote) = receive(peer).await;
    assert_eq!(pong[0], 1);
    let chunk = pattern(10_000, 1);
    let (mut credit, mut granted) = (65_536, 65_536);
    let back = peer.address().clone();
    let growing = async {
        while granted < 1 << 20 {
            while credit >= (chunk.len() + MESSAGE_COST) as u64 {
                peer.send_message(Message::new(&remote, &back, payload(&chunk)))
                    .await
                    .unwrap();
                credit -= (chunk.len() + MESSAGE_COST) as u64;
            }
            if let PortalMessage::Credit(more) = PortalMessage::decode(&receive(peer).await.0).unwrap() {
                credit += more;
                granted += more;
            }
        }
    };
    let mut sink = tokio::io::sink();
    tokio::select! {
        biased;
        () = growing => {}
        _ = tokio::io::copy(server, &mut sink) => panic!("the stream ends"),
    }
    assert_eq!(world.outlet.status().open(), 1);
    remote
}

const EXTENDED_PING: &[u8] = b"\x00\xa5\x01\x1a\x00\x01\x00\x00\x02\xf5\x03\xf5\x06\xf5\x07\xf5";

/// Waits for what asks for the credit back.
async fn reclaim(peer: &mut Context) {
    loop {
        let next = timeout(SECONDS(12), peer.receive::<Vec<u8>>()).await;
        match next.expect("a sign of life").unwrap().payload().first() {
            Some(7) => return,
            Some(4) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_peer_that_does_not_give_unused_credit_back_is_closed() {
    run(1, async |network| {
        let memory = WindowMemory::default();
        let mut world = world_with(&network, InletOptions::default(), outlet_with(&memory)).await;
        {
            let mut peer = ping(&world, "silent", EXTENDED_PING).await;
            let mut server = world.server().await;
            let remote = grown_stream(&world, &mut server, &mut peer).await;
            reclaim(&mut peer).await;
            let mut beats = 0;
            let last = loop {
                peer.send_message(Message::new(&remote, "silent", [4u8, 0].as_slice()))
                    .await
                    .unwrap();
                let next = timeout(SECONDS(12), peer.receive::<Vec<u8>>()).await;
                let next = next.expect("a sign of life").unwrap().payload().to_vec();
                if next[0] == 6 {
                    break next;
                }
                beats += 1;
                assert!(beats < 6, "it is closed");
            };
            assert!(beats >= 2, "it had time");
            assert_eq!(last[..2], [6, 7], "Close, protocol");
        }
        network
            .eventually("all is given back", || memory.used() == 0)
            .await;
        {
            let mut peer = ping(&world, "lying", EXTENDED_PING).await;
            let mut server = world.server().await;
            let remote = grown_stream(&world, &mut server, &mut peer).await;
            reclaim(&mut peer).await;
            peer.send_message(Message::new(&remote, "lying", [8u8, 0].as_slice()))
                .await
                .unwrap();
            assert_eq!(receive(&mut peer).await.0[..2], [6, 7], "Close, protocol");
        }
        network
            .eventually("all is given back", || memory.used() == 0)
            .await;
    });
}

// Stock peers.

const CHUNK: usize = 48 * 1024;

/// Sends as a stock inlet does, until the path takes no more for a while or the outlet's end is gone. Returns how many
/// chunks were sent.
async fn fill(outlet: &Outlet, peer: &mut Context, remote: &Route, at_most: usize) -> usize {
    let chunk = pattern(CHUNK, 1);
    for sent in 0..at_most {
        let message = Message::new(remote, "stock-inlet", payload(&chunk));
        peer.forward(message).unwrap();
        while timeout(Duration::from_millis(200), peer.flush()).await.is_err() {
            if outlet.status().open() == 0 {
                return sent;
            }
        }
        if outlet.status().open() == 0 {
            return sent;
        }
    }
    at_most
}

#[test]
fn a_stock_peers_stream_that_stands_still_holds_up_its_channel_for_a_short_time_only() {
    run(1, async |network| {
        let memory = WindowMemory::default();
        let mut world = world_with(&network, InletOptions::default(), outlet_with(&memory)).await;
        let mut peer = ping(&world, "stock-inlet", &[0]).await;
        let server = world.server().await;
        let (_, remote) = receive(&mut peer).await;
        // Far less than the half minute that it has when nobody waits.
        let filling = fill(&world.outlet, &mut peer, &remote, usize::MAX);
        soon("the connection is closed", filling).await;
        let failure = world.outlet.status().last_failure().unwrap();
        assert_eq!(failure.kind, FailureKind::Stalled);
        assert!(failure.text.contains("while others waited"), "{}", failure.text);
        let (mut client, mut other) = world.pair().await;
        transfer(&mut client, &mut other, b"others go on").await;
        drop((peer, server, client, other));
        network
            .eventually("all is given back", || memory.used() == 0)
            .await;
    });
}

#[test]
fn a_stock_peers_stream_that_stands_still_is_left_alone_while_nobody_waits() {
    run(1, async |network| {
        let memory = WindowMemory::default();
        let mut world = world_with(&network, InletOptions::default(), outlet_with(&memory)).await;
        let mut peer = ping(&world, "stock-inlet", &[0]).await;
        let mut server = world.server().await;
        let (_, remote) = receive(&mut peer).await;
        let mut sent = 0;
        let filling = async {
            while memory.used() < STOCK_BUFFER {
                sent += fill(&world.outlet, &mut peer, &remote, 1).await;
                sleep(Duration::from_millis(5)).await;
            }
            // These wait in the mailbox and leave room there.
            sent += fill(&world.outlet, &mut peer, &remote, 4).await;
        };
        soon("the buffer is full", filling).await;
        // Longer than it would have if others waited.
        sleep(SECONDS(8)).await;
        assert_eq!(world.outlet.status().open(), 1);
        let (mut client, mut other) = world.pair().await;
        transfer(&mut client, &mut other, b"nobody waits").await;
        let mut received = vec![0; sent * CHUNK];
        soon("all of it", server.read_exact(&mut received)).await.unwrap();
        assert!(received == pattern(CHUNK, 1).repeat(sent));
        drop(peer);
    });
}

#[test]
fn a_stock_peers_stream_that_stands_still_while_nobody_waits_ends_after_half_a_minute() {
    run(1, async |network| {
        let memory = WindowMemory::default();
        let mut world = world_with(&network, InletOptions::default(), outlet_with(&memory)).await;
        let mut peer = ping(&world, "stock-inlet", &[0]).await;
        let _server = world.server().await;
        let (_, remote) = receive(&mut peer).await;
        while memory.used() < STOCK_BUFFER {
            fill(&world.outlet, &mut peer, &remote, 1).await;
            sleep(Duration::from_millis(5)).await;
        }
        let begun = network.now();
        network
            .eventually("it is closed", || world.outlet.status().open() == 0)
            .await;
        let took = network.now() - begun;
        assert!(took >= SECONDS(29) && took <= SECONDS(32), "{took:?}");
        assert_eq!(
            world.outlet.status().last_failure().unwrap().kind,
            FailureKind::Stalled
        );
    });
}

// Refusals.

#[test]
fn a_refused_peer_that_takes_no_answers_does_not_keep_others_from_theirs() {
    run(1, async |network| {
        let outlet = OutletOptions {
            incoming: AccessControl::rule(|_: &portolan_runtime::Delivery<'_>| Err(Denial("no".into()))),
            ..OutletOptions::default()
        };
        let world = world_with(&network, InletOptions::default(), outlet).await;
        let mailbox = MailboxOptions::new("deaf")
            .incoming(AccessControl::AllowAll)
            .outgoing(AccessControl::AllowAll);
        let options = WorkerOptions::with_mailbox(mailbox).capacity(Capacity {
            messages: 1,
            bytes: 1,
        });
        let mut deaf = world.far.context(options).unwrap();
        let refused = async || {
            is_closed(&mut world.client()).await;
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
        network
            .eventually("refusals wait for the peer that takes none", || {
                world.far.workers().len() >= before + 3
            })
            .await;
        let begun = network.now();
        refused().await;
        network
            .eventually("they do not wait for ever", || {
                world.far.workers().len() <= before
            })
            .await;
        assert!(network.now() - begun <= SECONDS(6));
        drop(deaf);
    });
}

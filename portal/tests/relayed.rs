//! Portals through a relay in simulated time: destinations that stand still, and everybody else who uses the same connections.
//!
//! Every way is that of a real project: a channel to the relay's node, and in it one to the destination, over which the streams go.

use std::sync::Arc;
use std::time::Duration;

use portolan_identity::{
    Identity, KeyType, MemoryAttributeRepository, MemoryIdentityRepository, MemoryPurposeKeyRepository,
    MemorySecretStore, SoftwareVault,
};
use portolan_portal::{ByteStream, Inlet, InletOptions, Outlet, OutletOptions};
use portolan_relay::{
    AllowEverybody, RegisterOptions, RelayName, RelayRequest, RelayService, RelayServiceOptions, register,
};
use portolan_runtime::route;
use portolan_secure_channel::{
    ChannelOptions, ListenerOptions, LocalIdentity, SecureChannel, SecureChannels, window,
};
use portolan_simulated::{Connection, Link, Network, SimulatedNode, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What a pipe to an application holds, as a socket's buffers do.
const PIPE: usize = 256 * 1024;
const MIB: usize = 1024 * 1024;
const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// A node with an identity.
struct Party {
    node: SimulatedNode,
    channels: SecureChannels,
    identity: LocalIdentity,
}

impl Party {
    fn new(network: &Network, name: &str) -> Self {
        let node = network.node(name);
        let vault = Arc::new(SoftwareVault::new(MemorySecretStore::default()));
        let now = network.system_time().duration_since(std::time::UNIX_EPOCH);
        let created = now.unwrap().as_secs() - 10;
        let identity = Identity::create(vault.as_ref(), created, KeyType::Ed25519).unwrap();
        let purpose_keys = Arc::new(MemoryPurposeKeyRepository::default());
        let channels = SecureChannels::new(
            &node,
            Arc::new(MemoryIdentityRepository::default()),
            Arc::new(MemoryAttributeRepository::default()),
        );
        Self {
            node,
            channels,
            identity: LocalIdentity::new(identity, vault, purpose_keys),
        }
    }

    fn options(&self) -> ChannelOptions {
        ChannelOptions::new(self.identity.clone())
    }
}

/// The node `relay`, which everybody may have a relay at.
fn relay(network: &Network) -> Party {
    let party = Party::new(network, "relay");
    let listener = party
        .channels
        .listen("api", ListenerOptions::new(party.options()))
        .unwrap();
    listener.accept_from(party.node.listen().flow());
    let options = RelayServiceOptions {
        reachable_from: vec![Arc::clone(listener.flow())],
        ..Default::default()
    };
    RelayService::start(&party.node, AllowEverybody, options).unwrap();
    party
}

/// A node that is connected to the relay's.
struct Member {
    party: Party,
    connection: Connection,
    outer: SecureChannel,
}

impl Member {
    async fn new(network: &Network, name: &str) -> Self {
        let party = Party::new(network, name);
        let connection = party.node.connect("relay").await.unwrap();
        let outer = party
            .channels
            .create(route![connection.sender(), "api"], party.options())
            .await
            .unwrap();
        Self {
            party,
            connection,
            outer,
        }
    }
}

/// A member with an outlet behind a relay of its name.
struct Destination {
    member: Member,
    /// What the outlet has connected to.
    servers: mpsc::Receiver<DuplexStream>,
}

impl Destination {
    async fn new(network: &Network, name: &str) -> Self {
        let member = Member::new(network, name).await;
        let (told, servers) = mpsc::channel(64);
        let options = OutletOptions {
            dial: Some(Arc::new(move |_| {
                let (ours, theirs) = duplex(PIPE);
                let refused = told
                    .try_send(theirs)
                    .map_err(|_| std::io::ErrorKind::ConnectionRefused.into());
                Box::pin(async move { refused.map(|()| Box::new(ours) as Box<dyn ByteStream>) })
            })),
            ..OutletOptions::default()
        };
        let node = &member.party.node;
        let outlet = Outlet::start(node, "outlet", "the application", options).unwrap();
        let listener = member
            .party
            .channels
            .listen("api", ListenerOptions::new(member.party.options()))
            .unwrap();
        listener.add_consumer(outlet.address());
        listener.accept_from(member.outer.flow());
        let request = RelayRequest::Named(RelayName::new(name).unwrap());
        let registered = register(node, member.outer.address(), request, RegisterOptions::default())
            .await
            .unwrap();
        std::mem::forget(registered);
        Self { member, servers }
    }
}

/// A way from a member to a destination.
struct Way {
    inlet: Inlet,
    channel: SecureChannel,
}

impl Way {
    async fn new(from: &Member, to: &str, windows: bool) -> Self {
        let channel = from
            .party
            .channels
            .create(
                route![from.outer.address(), format!("forward_to_{to}"), "api"],
                from.party.options().windows(windows),
            )
            .await
            .unwrap();
        let inlet = Inlet::start(&from.party.node, "127.0.0.1:0", InletOptions::default())
            .await
            .unwrap();
        inlet.connect(route![channel.address(), "outlet"]);
        Self { inlet, channel }
    }

    async fn pair(&self, destination: &mut Destination) -> (DuplexStream, DuplexStream) {
        let (ours, theirs) = duplex(PIPE);
        self.inlet.serve(Box::new(theirs)).unwrap();
        let server = soon("the target is connected to", destination.servers.recv()).await;
        (ours, server.unwrap())
    }

    async fn pairs(&self, destination: &mut Destination, count: usize) -> Vec<(DuplexStream, DuplexStream)> {
        let mut pairs = Vec::new();
        for _ in 0..count {
            pairs.push(self.pair(destination).await);
        }
        pairs
    }
}

/// Fails instead of hanging.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SECONDS(120), future)
        .await
        .unwrap_or_else(|_| panic!("not within 120 s: {what}"))
}

/// A pattern whose period is prime, so that a piece that is missing shows.
const PERIOD: usize = 251;
const CHUNK: usize = 64 * 1024;

fn pattern() -> Vec<u8> {
    (0..CHUNK + PERIOD).map(|at| (at % PERIOD) as u8).collect()
}

/// Sends so many bytes of the pattern.
async fn send(from: &mut DuplexStream, bytes: usize) {
    let (pattern, mut at) = (pattern(), 0);
    while at < bytes {
        let (start, count) = (at % PERIOD, CHUNK.min(bytes - at));
        from.write_all(&pattern[start..start + count]).await.unwrap();
        at += count;
    }
}

/// Receives them, and sees that they are those.
async fn receive(to: &mut DuplexStream, bytes: usize) {
    let (pattern, mut chunk, mut at) = (pattern(), vec![0; CHUNK], 0);
    while at < bytes {
        let most = CHUNK.min(bytes - at);
        let count = to.read(&mut chunk[..most]).await.unwrap();
        assert!(count > 0, "the stream ends after {at} of {bytes} bytes");
        let start = at % PERIOD;
        assert!(
            pattern[start..start + count] == chunk[..count],
            "other bytes arrive than were sent"
        );
        at += count;
    }
}

/// Moves so many bytes through each, all at the same time, from the first to the second. How long that takes.
async fn transfer(network: &Network, pairs: Vec<(DuplexStream, DuplexStream)>, bytes: usize) -> Transferred {
    let began = network.now();
    let mut moving = JoinSet::new();
    for (mut from, mut to) in pairs {
        moving.spawn_local(async move {
            tokio::join!(send(&mut from, bytes), receive(&mut to, bytes));
            (from, to)
        });
    }
    let pairs = soon("all bytes arrive", moving.join_all()).await;
    Transferred {
        pairs,
        time: network.now() - began,
    }
}

struct Transferred {
    pairs: Vec<(DuplexStream, DuplexStream)>,
    time: Duration,
}

fn reversed(pairs: Vec<(DuplexStream, DuplexStream)>) -> Vec<(DuplexStream, DuplexStream)> {
    pairs.into_iter().map(|(one, other)| (other, one)).collect()
}

/// Lets each write for a while, more than anything on the way can hold. The other ends read nothing.
fn flood(pairs: Vec<(DuplexStream, DuplexStream)>) -> JoinSet<(DuplexStream, DuplexStream)> {
    let mut flooding = JoinSet::new();
    for (mut from, to) in pairs {
        flooding.spawn_local(async move {
            let _ = timeout(SECONDS(600), send(&mut from, 64 * MIB)).await;
            (from, to)
        });
    }
    flooding
}

const LINE: Link = Link {
    latency: Duration::from_millis(2),
    jitter: Duration::ZERO,
    loss: 0.0,
    bandwidth: Some(50_000_000),
    mode: portolan_simulated::Mode::Stream,
    give_up_after: Duration::from_secs(120),
};

/// No more than this part of the time may be lost.
const LITTLE: f64 = 1.05;

fn is_little(with: Duration, without: Duration) -> bool {
    with.as_secs_f64() <= LITTLE * without.as_secs_f64()
}

#[test]
fn a_destination_that_stands_still_delays_no_other_and_goes_on_where_it_was() {
    run(1, async |network| {
        network.usual_link(LINE);
        let _relay = relay(&network);
        let mut still = Destination::new(&network, "still").await;
        let mut busy = Destination::new(&network, "busy").await;
        let sender = Member::new(&network, "sender").await;
        let to_still = Way::new(&sender, "still", true).await;
        let to_busy = Way::new(&sender, "busy", true).await;
        // Windows that have grown: together many times what a relay has room for.
        let stalled = to_still.pairs(&mut still, 12).await;
        let stalled = transfer(&network, stalled, 8 * MIB).await.pairs;
        let working = to_busy.pairs(&mut busy, 7).await;
        let before = transfer(&network, working, 3 * MIB).await;
        let before = transfer(&network, before.pairs, 3 * MIB).await;

        network.partition("relay", "still");
        let mut flooding = JoinSet::new();
        for (mut from, mut to) in stalled {
            flooding.spawn_local(async move {
                tokio::join!(send(&mut from, 5 * MIB), receive(&mut to, 5 * MIB));
            });
        }
        // What still fits on the way takes its part of the sender's own line.
        network.sleep(SECONDS(1)).await;
        let meanwhile = transfer(&network, before.pairs, 3 * MIB).await;
        let time = (meanwhile.time, before.time);
        assert!(is_little(time.0, time.1), "{time:?}");
        // Longer than a relay waits for somebody who holds up others.
        network.sleep(SECONDS(10)).await;
        let again = transfer(&network, meanwhile.pairs, 3 * MIB).await;
        assert!(is_little(again.time, before.time), "{:?}", again.time);
        assert!(to_still.channel.is_open() && still.member.connection.is_open());

        network.heal("relay", "still");
        soon("what was held back arrives", flooding.join_all()).await;
    });
}

#[test]
fn many_senders_to_one_that_stands_still_delay_nobody() {
    run(2, async |network| {
        network.usual_link(LINE);
        let _relay = relay(&network);
        let mut still = Destination::new(&network, "still").await;
        let mut busy = Destination::new(&network, "busy").await;
        let mut senders = Vec::new();
        let mut stalled = Vec::new();
        for number in 0..8 {
            let sender = Member::new(&network, &format!("sender {number}")).await;
            let way = Way::new(&sender, "still", true).await;
            stalled.extend(way.pairs(&mut still, 2).await);
            senders.push((sender, way));
        }
        let stalled = transfer(&network, stalled, 4 * MIB).await.pairs;
        let to_busy = Way::new(&senders[3].0, "busy", true).await;
        let working = to_busy.pairs(&mut busy, 2).await;
        let before = transfer(&network, working, 3 * MIB).await;
        let before = transfer(&network, before.pairs, 3 * MIB).await;

        network.partition("relay", "still");
        let _flooding = flood(stalled);
        network.sleep(SECONDS(1)).await;
        let meanwhile = transfer(&network, before.pairs, 3 * MIB).await;
        assert!(is_little(meanwhile.time, before.time), "{:?}", meanwhile.time);
        assert!(still.member.connection.is_open());
    });
}

#[test]
fn a_node_with_inlets_that_stands_still_delays_nobody_who_takes_from_the_same_services() {
    run(3, async |network| {
        network.usual_link(LINE);
        let _relay = relay(&network);
        let mut service = Destination::new(&network, "service").await;
        let still = Member::new(&network, "still").await;
        let busy = Member::new(&network, "busy").await;
        let of_still = Way::new(&still, "service", true).await;
        let of_busy = Way::new(&busy, "service", true).await;
        let stalled = reversed(of_still.pairs(&mut service, 12).await);
        let stalled = transfer(&network, stalled, 8 * MIB).await.pairs;
        let working = reversed(of_busy.pairs(&mut service, 7).await);
        let before = transfer(&network, working, 3 * MIB).await;
        let before = transfer(&network, before.pairs, 3 * MIB).await;

        network.partition("relay", "still");
        let _flooding = flood(stalled);
        network.sleep(SECONDS(1)).await;
        let meanwhile = transfer(&network, before.pairs, 3 * MIB).await;
        assert!(is_little(meanwhile.time, before.time), "{:?}", meanwhile.time);
    });
}

/// As with a stock peer: nothing bounds what is on its way but what everybody on it holds.
#[test]
fn without_windows_a_destination_that_stands_still_is_given_up_as_soon_as_others_wait() {
    run(4, async |network| {
        network.usual_link(LINE);
        let relay = relay(&network);
        let mut still = Destination::new(&network, "still").await;
        let mut busy = Destination::new(&network, "busy").await;
        let sender = Member::new(&network, "sender").await;
        let to_still = Way::new(&sender, "still", false).await;
        let to_busy = Way::new(&sender, "busy", true).await;
        assert_eq!(to_still.channel.info().window, None);
        let stalled = to_still.pairs(&mut still, 12).await;
        let stalled = transfer(&network, stalled, 8 * MIB).await.pairs;
        let working = to_busy.pairs(&mut busy, 7).await;
        let before = transfer(&network, working, 3 * MIB).await;
        let before = transfer(&network, before.pairs, 3 * MIB).await;

        network.partition("relay", "still");
        let _flooding = flood(stalled);
        let meanwhile = transfer(&network, before.pairs, 3 * MIB).await;
        assert!(
            meanwhile.time < before.time + SECONDS(5),
            "{:?} and {:?}",
            meanwhile.time,
            before.time
        );
        // It is cut off at the relay; the others are as fast as ever.
        network.sleep(SECONDS(10)).await;
        let after = transfer(&network, meanwhile.pairs, 3 * MIB).await;
        assert!(is_little(after.time, before.time), "{:?}", after.time);
        network.heal("relay", "still");
        network
            .eventually("the destination learns that it was cut off", || {
                !still.member.connection.is_open()
            })
            .await;
        assert!(relay.channels.list().iter().all(|channel| channel.gaps == 0));
    });
}

#[test]
fn a_long_path_is_filled_as_without_windows_of_channels() {
    let times = [false, true].map(|windows| {
        let mut time = Duration::ZERO;
        run(5, async |network| {
            // A round trip of 50 ms over both lines.
            network.usual_link(Link {
                latency: Duration::from_micros(12_500),
                bandwidth: Some(60_000_000),
                ..LINE
            });
            let _relay = relay(&network);
            let mut far = Destination::new(&network, "far").await;
            let sender = Member::new(&network, "sender").await;
            let way = Way::new(&sender, "far", windows).await;
            let pairs = way.pairs(&mut far, 4).await;
            let up = transfer(&network, pairs, 32 * MIB).await;
            let down = transfer(&network, reversed(up.pairs), 32 * MIB).await;
            time = up.time + down.time;
            if windows {
                assert!(way.channel.info().window.unwrap() > 2 * window::LEAST);
            }
        });
        time
    });
    let [without, with] = times;
    assert!(
        is_little(with, without),
        "{with:?} with windows, {without:?} without"
    );
}

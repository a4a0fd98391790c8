//! Channels over lines that are slow, lossy, cut or watched by nobody, in simulated time.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use parking_lot::Mutex;
use portolan_identity::AttributeRepository;
use portolan_relay::{
    AllowEverybody, Connection as Path, RegisterOptions, RelayName, RelayRequest, RelayService,
    RelayServiceOptions, SessionMonitor, SessionSettings, register,
};
use portolan_runtime::{Address, Context, Envelope, Message, Route, SyncWorker, route};
use portolan_secure_channel::{
    ChannelOptions, CloseReason, Error, FixedCredential, ListenerOptions, SecureChannel,
    SecureChannelListener, TrustPolicy,
};
use portolan_simulated::{Connection, Link, Mode, Network, SimulatedNode, run};

const MS: fn(u64) -> Duration = Duration::from_millis;
const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// Two nodes and a connection between them: `a` connected to `b`, which listens for channels at `api`.
struct Pair {
    a: Party,
    b: Party,
    near: SimulatedNode,
    connection: Connection,
    listener: SecureChannelListener,
}

impl Pair {
    async fn new(network: &Network) -> Self {
        Self::with(network, ListenerOptions::new).await
    }

    async fn with(network: &Network, listening: impl FnOnce(ChannelOptions) -> ListenerOptions) -> Self {
        let (near, far) = (network.node("a"), network.node("b"));
        let (a, b) = (Party::on(&near), Party::on(&far));
        let listener = b.listen_with(listening(default_options(&b)));
        listener.accept_from(far.listen().flow());
        let connection = near.connect("b").await.unwrap();
        Self {
            a,
            b,
            near,
            connection,
            listener,
        }
    }

    fn route(&self) -> Route {
        route![self.connection.sender(), "api"]
    }

    async fn create(&self) -> Result<SecureChannel, Error> {
        self.a
            .channels
            .create(self.route(), default_options(&self.a))
            .await
    }
}

/// With the time-outs that a node has.
fn default_options(party: &Party) -> ChannelOptions {
    ChannelOptions::new(party.keys.local())
}

#[test]
fn a_channel_is_there_after_a_message_and_its_answer() {
    run(1, async |network| {
        network.usual_link(Link {
            latency: MS(100),
            ..Link::default()
        });
        let pair = Pair::new(&network).await;
        let begun = network.now();
        let channel = pair.create().await.unwrap();
        assert_eq!(network.now() - begun, MS(200));
        // What is sent at once comes behind the last message of the handshake.
        assert_eq!(
            echo(&pair.a.node, through(channel.address(), &["echo"]), "x").await,
            Some("x".into())
        );
        assert_eq!(network.now() - begun, MS(400));
    });
}

#[test]
fn a_handshake_survives_loss_and_jitter_of_a_stream() {
    for seed in 0..20 {
        run(seed, async |network| {
            network.usual_link(Link {
                latency: MS(150),
                jitter: MS(300),
                loss: 0.3,
                ..Link::default()
            });
            let pair = Pair::new(&network).await;
            let channel = pair.create().await.unwrap();
            for number in 0..50 {
                let text = number.to_string();
                let answer = pair
                    .near
                    .send_and_receive::<String, String>(through(channel.address(), &["echo"]), text.clone())
                    .await
                    .unwrap();
                assert_eq!(answer.into_body().unwrap(), text);
            }
            assert_eq!((channel.info().gaps, channel.info().rejected), (0, 0));
        });
    }
}

#[test]
fn over_datagrams_a_lost_handshake_fails_in_time_and_a_lost_record_ends_the_channel() {
    let mut ends = [0; 3];
    for seed in 0..60 {
        let end = run(seed, async |network| {
            network.usual_link(Link {
                latency: MS(50),
                loss: 0.1,
                mode: Mode::Datagram,
                ..Link::default()
            });
            let pair = Pair::new(&network).await;
            let before = network.census();
            let begun = network.now();
            let channel = match pair.create().await {
                Ok(channel) => channel,
                Err(error) => {
                    assert!(matches!(error, Error::Timeout { .. }), "{error}");
                    assert_eq!(network.now() - begun, SECONDS(30));
                    network.returns_to(&before).await;
                    return 0;
                }
            };
            // Its last message may be lost all the same: then nothing ever comes back.
            let mut answered = 0;
            for _ in 0..30 {
                if echo(&pair.a.node, through(channel.address(), &["echo"]), "x")
                    .await
                    .is_some()
                {
                    answered += 1;
                }
            }
            match channel.close_reason() {
                Some(reason) => {
                    assert!(
                        matches!(reason, CloseReason::Gap | CloseReason::ByPeer),
                        "{reason}"
                    );
                    1
                }
                // The goodbye is one of the records that can be lost.
                None => {
                    assert!(answered == 30 || pair.b.channels.list().is_empty(), "{answered}");
                    2
                }
            }
        });
        ends[end] += 1;
    }
    assert!(
        ends.iter().all(|count| *count > 0),
        "each of them happens: {ends:?}"
    );
}

#[test]
fn a_partition_at_any_moment_of_a_handshake_ends_in_a_channel_or_in_nothing() {
    let (mut opened, mut failed) = (0, 0);
    for cut_after in (0..=260).step_by(10) {
        let is_open = run(cut_after, async |network| {
            network.usual_link(Link {
                latency: MS(50),
                ..Link::default()
            });
            let pair = Pair::new(&network).await;
            let before = network.census();
            let begun = network.now();
            let cut = async {
                network.sleep(MS(cut_after)).await;
                network.partition("a", "b");
            };
            let (created, ()) = tokio::join!(pair.create(), cut);
            match created {
                Ok(_channel) => true,
                Err(error) => {
                    assert!(matches!(error, Error::Timeout { .. }), "{error}");
                    assert_eq!(network.now() - begun, SECONDS(30));
                    // The responder has given up before.
                    assert_eq!(pair.listener.pending(), 0);
                    network.returns_to(&before).await;
                    // Over the same connection, once it is whole again. What the cut has held back says nothing any more.
                    network.heal("a", "b");
                    let channel = pair.create().await.unwrap();
                    let answer = echo(&pair.a.node, through(channel.address(), &["echo"]), "x").await;
                    assert_eq!(answer.as_deref(), Some("x"));
                    false
                }
            }
        });
        if is_open {
            opened += 1;
        } else {
            failed += 1;
        }
    }
    assert!(opened >= 10 && failed >= 10, "{opened} opened, {failed} failed");
}

#[test]
fn an_abandoned_handshake_frees_its_place_after_ten_seconds() {
    run(1, async |network| {
        let pair = Pair::new(&network).await;
        let before = network.census();
        // Somebody who sends message 1 and no other.
        let mut stranger = pair.near.context("stranger").unwrap();
        let first = Message::new(pair.route(), "stranger", vec![9; 32]);
        stranger.send_message(first).await.unwrap();
        drop(stranger);
        network
            .eventually("it has begun", || pair.listener.pending() == 1)
            .await;
        let begun = network.now();
        network
            .eventually("it is given up", || pair.listener.pending() == 0)
            .await;
        let took = network.now() - begun;
        assert!(took >= MS(9_900) && took <= MS(10_100), "{took:?}");
        network.returns_to(&before).await;
        assert_eq!(pair.b.channels.counters().expired, 1);
    });
}

#[test]
fn both_ends_learn_that_their_nodes_cannot_reach_each_other_any_more() {
    run(1, async |network| {
        let pair = Pair::new(&network).await;
        let before = network.census();
        let channel = pair.create().await.unwrap();
        network
            .eventually("b has it too", || pair.b.channels.list().len() == 1)
            .await;
        let cut = network.now();
        let at_b = pair.b.channels.list()[0].encryptor.clone();
        let at_b = pair.b.channels.get(&at_b).unwrap();
        network.partition("a", "b");
        let (near, far) = tokio::join!(channel.closed(), at_b.closed());
        assert_eq!(
            (near, far),
            (CloseReason::TransportLost, CloseReason::TransportLost)
        );
        assert_eq!(network.now() - cut, SECONDS(60));
        network
            .eventually("nothing is left", || network.connections() == 0)
            .await;
        assert!(network.census().workers() < before.workers());
    });
}

#[test]
fn a_credential_counts_until_it_expires_and_not_a_second_longer() {
    run(1, async |network| {
        let authority = Keys::new();
        let issuer = authority.identity.clone();
        let pair = Pair::with(&network, |options| {
            ListenerOptions::new(options.authorities([issuer]))
        })
        .await;
        let issuer = authority.identity.identifier();
        // For an hour.
        let credential = authority.issue(pair.a.id(), "role", "member");
        let present = async || {
            let options = default_options(&pair.a).credentials(FixedCredential::new(credential.clone()));
            let channel = pair.a.channels.create(pair.route(), options).await.unwrap();
            let answer = echo(&pair.a.node, through(channel.address(), &["echo"]), "x").await;
            assert_eq!(answer.as_deref(), Some("x"), "there is a channel in any case");
        };
        let known = || pair.b.attributes.get(pair.a.id(), issuer, now()).is_some();
        present().await;
        assert!(known());
        network.sleep(SECONDS(3500)).await;
        assert!(known());
        network.sleep(SECONDS(200)).await;
        assert!(!known());
        present().await;
        assert!(!known(), "an old credential gives nothing");
    });
}

#[test]
fn what_is_no_consumer_cannot_be_reached_through_a_channel() {
    run(1, async |network| {
        let pair = Pair::new(&network).await;
        let collector = Collector::start(&pair.b.node, "private");
        let channel = pair.create().await.unwrap();
        pair.a
            .node
            .send_message(message(through(channel.address(), &["private"]), b"x"))
            .await
            .unwrap();
        assert!(
            echo(&pair.a.node, through(channel.address(), &["echo"]), "flush")
                .await
                .is_some()
        );
        assert_eq!(collector.len(), 0);
        // Neither can the channel's own plaintext addresses be reached from the connection under it.
        let encryptor_of_b = pair.b.channels.list()[0].encryptor.clone();
        let route = route![pair.connection.sender(), encryptor_of_b, "echo"];
        assert_eq!(echo(&pair.a.node, route, "inside").await, None);
    });
}

#[test]
fn a_responder_refuses_in_silence_and_keeps_no_trace() {
    run(1, async |network| {
        let nobody = Keys::new();
        let trust = TrustPolicy::Identifier(*nobody.identity.identifier());
        let pair = Pair::with(&network, |options| ListenerOptions::new(options.trust(trust))).await;
        // The initiator cannot know: nobody confirms its last message.
        let channel = pair.create().await.unwrap();
        network
            .eventually("the responder has refused", || {
                pair.b.channels.counters().untrusted == 1
            })
            .await;
        assert!(pair.b.channels.list().is_empty());
        assert!(pair.b.identities.is_empty());
        assert_eq!(pair.listener.pending(), 0);
        assert_eq!(
            echo(&pair.a.node, through(channel.address(), &["echo"]), "x").await,
            None
        );
    });
}

// A channel through a relay, on bad days.

/// What has arrived: for each channel its messages, by the numbers that they have.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<BTreeMap<u32, Vec<u32>>>>);

impl SyncWorker for Received {
    fn handle(&mut self, _: &mut Context, envelope: Envelope) -> portolan_runtime::Result<()> {
        let bytes = envelope.message.payload.as_slice();
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        self.0.lock().entry(number(0)).or_default().push(number(4));
        Ok(())
    }
}

/// A session that keeps a path of `node`, built by `connect`.
fn session<F>(node: &SimulatedNode, connect: impl FnMut() -> F + Send + 'static) -> SessionMonitor
where
    F: Future<Output = Result<Path, String>> + 'static,
{
    SessionMonitor::start(node, SessionSettings::default(), connect).unwrap()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Stops a channel when dropped.
struct Stops(SecureChannel);

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The channels that the sender has had, and how many messages went into each.
#[derive(Default)]
struct Sent {
    channels: Vec<(SecureChannel, u32)>,
}

/// Sends numbered messages from `a` to `b` through a channel over a relay, while the network has a bad time. Gives the hash of what
/// has happened, how many messages arrived, and how many channels there were.
async fn bad_day(network: Network) -> (u64, usize, usize) {
    let relay = network.node("relay");
    let listener = relay.listen();
    let options = RelayServiceOptions {
        reachable_from: vec![Arc::clone(listener.flow())],
        ..Default::default()
    };
    let table = RelayService::start(&relay, AllowEverybody, options).unwrap();
    relay
        .start_sync_worker("echo", portolan_runtime::services::Echo)
        .unwrap();
    relay.add_consumer(listener.flow(), &"echo".into());
    let (near, far) = (network.node("a"), network.node("b"));
    let (a, b) = (Arc::new(Party::on(&near)), Party::on(&far));
    let received = Received::default();
    far.start_sync_worker("collector", received.clone()).unwrap();
    let api = b.listen();
    api.add_consumer(&"collector".into());
    let before = network.census();

    let (target, flow) = (far.clone(), Arc::clone(api.flow()));
    let registered = session(&far, move || {
        let (node, _flow) = (target.clone(), Arc::clone(&flow));
        async move {
            let connection = node.connect("relay").await.map_err(text)?;
            let closes = connection.close_on_drop();
            node.add_consumer(connection.flow(), &"api".into());
            let name = RelayRequest::Named(RelayName::new("b").map_err(text)?);
            let relay = register(&node, connection.sender(), name, RegisterOptions::default())
                .await
                .map_err(text)?;
            let ended = connection.ended();
            let ended = async move {
                ended.await;
                "the connection has ended".to_owned()
            };
            Ok(Path::new(connection.sender(), ended).keep((relay, closes)))
        }
    });
    registered.up().await.unwrap();

    let sent = Arc::new(Mutex::new(Sent::default()));
    let (sender, party, channels) = (near.clone(), Arc::clone(&a), Arc::clone(&sent));
    let sending = session(&near, move || {
        let (node, party, channels) = (sender.clone(), Arc::clone(&party), Arc::clone(&channels));
        async move {
            let connection = node.connect("relay").await.map_err(text)?;
            let closes = connection.close_on_drop();
            let route = route![connection.sender(), "forward_to_b", "api"];
            let channel = party
                .channels
                .create(route, default_options(&party))
                .await
                .map_err(text)?;
            channels.lock().channels.push((channel.clone(), 0));
            let closed = channel.closed();
            let ended = async move { closed.await.to_string() };
            let address = channel.address().clone();
            Ok(Path::new(address, ended).keep((Stops(channel), closes)))
        }
    });

    let send = async || {
        let (address, channel, number) = {
            let mut sent = sent.lock();
            let channel = sent.channels.len() as u32;
            let Some((open, count)) = sent.channels.last_mut().filter(|(open, _)| open.is_open()) else {
                return;
            };
            *count += 1;
            (open.address().clone(), channel - 1, *count - 1)
        };
        let payload = [channel.to_be_bytes(), number.to_be_bytes()].concat();
        let onward: [Address; 2] = [address, "collector".into()];
        // A channel that has just ended takes nothing.
        if near
            .send_message(Message::new(onward, Route::new(), payload))
            .await
            .is_err()
        {
            sent.lock().channels[channel as usize].1 = number;
        }
    };
    for _ in 0..25 {
        let victim = ["a", "b"][(network.random() % 2) as usize];
        match network.random() % 6 {
            0 => network.partition(victim, "relay"),
            1 | 2 => network.heal(victim, "relay"),
            3 => network.isolate("relay"),
            4 => network.rejoin("relay"),
            _ => {
                let link = Link {
                    latency: MS(network.random() % 200),
                    jitter: MS(network.random() % 200),
                    loss: (network.random() % 30) as f64 / 100.0,
                    ..Link::default()
                };
                network.link(victim, "relay", link);
            }
        }
        for _ in 0..network.random() % 40 {
            send().await;
            network.sleep(MS(network.random() % 1000)).await;
        }
    }

    // Calm weather: within some minutes there is a channel again that carries messages.
    network.rejoin("relay");
    for name in ["a", "b"] {
        network.heal(name, "relay");
        network.link(name, "relay", Link::default());
    }
    network.sleep(SECONDS(300)).await;
    assert!(registered.current().is_up() && sending.current().is_up());
    for _ in 0..10 {
        send().await;
    }
    network.sleep(SECONDS(1)).await;

    let (mut arrived, channels) = (0, sent.lock().channels.len());
    for (number, (channel, count)) in sent.lock().channels.iter().enumerate() {
        let came = received
            .0
            .lock()
            .get(&(number as u32))
            .cloned()
            .unwrap_or_default();
        // In order, each once, and none of them without all that were sent before it.
        assert!(
            came.iter().copied().eq(0..came.len() as u32),
            "channel {number}: {came:?}"
        );
        assert!(came.len() <= *count as usize, "channel {number}");
        arrived += came.len();
        if number + 1 == channels {
            assert!(channel.is_open());
            assert_eq!(
                came.len(),
                *count as usize,
                "a channel that lives has lost nothing"
            );
        } else {
            assert!(
                !channel.is_open(),
                "channel {number} was replaced and has not ended"
            );
        }
    }

    sending.stop().await;
    registered.stop().await;
    network
        .eventually("no connection is left", || network.connections() == 0)
        .await;
    network.returns_to(&before).await;
    assert!(a.channels.list().is_empty() && b.channels.list().is_empty() && table.relays().is_empty());
    (network.trace().hash(), arrived, channels)
}

#[test]
fn each_message_arrives_in_order_and_once_or_its_channel_ends_whatever_the_network_does() {
    const SEEDS: u64 = 200;
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let some = |first: usize| {
        let (mut arrived, mut channels) = (0, 0);
        for seed in (first as u64..SEEDS).step_by(threads) {
            let (hash, messages, opened) = run(seed, bad_day);
            arrived += messages;
            channels += opened;
            if seed % 50 == 0 {
                assert_eq!(
                    run(seed, bad_day).0,
                    hash,
                    "seed {seed} is not the same run again"
                );
            }
        }
        (arrived, channels)
    };
    let (mut arrived, mut channels) = (0, 0);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|first| scope.spawn(move || some(first)))
            .collect();
        for thread in running {
            let (messages, opened) = thread.join().unwrap();
            arrived += messages;
            channels += opened;
        }
    });
    assert!(
        arrived > 20_000 && channels > 400,
        "{arrived} messages, {channels} channels"
    );
}

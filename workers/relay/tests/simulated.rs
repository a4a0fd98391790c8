//! Sessions on bad days: hours of partitions, crashes and silence, in simulated time.

use std::sync::Arc;
use std::time::Duration;

use portolan_relay::{
    AllowEverybody, Connection, RegisterOptions, RelayName, RelayRequest, RelayService, RelayServiceOptions,
    RelayTable, SessionMonitor, SessionSettings, register,
};
use portolan_runtime::services::Echo;
use portolan_runtime::{Routed, route};
use portolan_simulated::{Link, Network, SimulatedNode, run};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// The node `relay`, with a relay service and `echo` for everybody.
fn relay_node(network: &Network) -> RelayTable {
    let node = network.node("relay");
    let listener = node.listen();
    node.start_sync_worker("echo", Echo).unwrap();
    node.add_consumer(listener.flow(), &"echo".into());
    let options = RelayServiceOptions {
        reachable_from: vec![Arc::clone(listener.flow())],
        ..Default::default()
    };
    RelayService::start(&node, AllowEverybody, options).unwrap()
}

/// A session that keeps a relay with this name from `node` to the relay node, over which `echo` can be reached.
fn session(node: &SimulatedNode, name: &'static str) -> SessionMonitor {
    let connecting = node.clone();
    if !node.has_worker(&"echo".into()) {
        node.start_sync_worker("echo", Echo).unwrap();
    }
    SessionMonitor::start(node, SessionSettings::default(), move || {
        let node = connecting.clone();
        async move {
            let connection = node.connect("relay").await.map_err(|error| error.to_string())?;
            let closes = connection.close_on_drop();
            node.add_consumer(connection.flow(), &"echo".into());
            let name = RelayRequest::Named(RelayName::new(name).map_err(|error| error.to_string())?);
            let relay = register(&node, connection.sender(), name, RegisterOptions::default())
                .await
                .map_err(|error| error.to_string())?;
            let (lost, ended) = (relay.lost(), connection.ended());
            let ended = async move {
                tokio::select! {
                    biased;
                    reason = lost => reason,
                    () = ended => "the connection has ended".to_owned(),
                }
            };
            Ok::<_, String>(Connection::new(connection.sender(), ended).keep((relay, closes)))
        }
    })
    .unwrap()
}

/// Asks the `echo` behind a relay, over a connection of its own.
async fn ask(node: &SimulatedNode, relay: &str) -> Option<String> {
    let connection = node.connect("relay").await.ok()?;
    let _closes = connection.close_on_drop();
    let route = route![connection.sender(), format!("forward_to_{relay}"), "echo"];
    let answer: Routed<String> = node
        .send_and_receive_within(Duration::from_secs(5), route, "hello".to_owned())
        .await
        .ok()?;
    answer.into_body().ok()
}

#[test]
fn an_hour_of_partitions_heals_each_time_and_leaves_no_worker_behind() {
    run(1, async |network| {
        network.usual_link(Link {
            latency: Duration::from_millis(40),
            jitter: Duration::from_millis(20),
            loss: 0.01,
            ..Link::default()
        });
        let table = relay_node(&network);
        let (target, client) = (network.node("target"), network.node("client"));
        let before = network.census();
        let session = session(&target, "blue");
        session.up().await.unwrap();
        let mut rounds = 0;
        while network.now() < HOUR {
            rounds += 1;
            // From a blink, which nobody notices, to what both ends give up.
            let silence = Duration::from_millis(network.random() % 120_000);
            network.partition("target", "relay");
            network.sleep(silence).await;
            network.heal("target", "relay");
            let healed = network.now();
            network
                .eventually("the session is up and its relay is there", || {
                    session.current().is_up() && table.relays().len() == 1
                })
                .await;
            // At most: four pings until the path is given up, a minute until the relay node notices too, and an attempt.
            assert!(
                network.now() - healed < 2 * MINUTE,
                "{:?}",
                network.now() - healed
            );
            while ask(&client, "blue").await.is_none() {
                assert!(
                    network.now() - healed < 4 * MINUTE,
                    "a relay that is there carries messages"
                );
            }
            network.sleep(MINUTE).await;
        }
        assert!(rounds > 15, "{rounds}");
        assert!(
            session.current().reconnects > rounds / 4,
            "{:?}",
            session.current()
        );
        session.stop().await;
        target.stop_worker(&"echo".into()).unwrap();
        network.returns_to(&before).await;
        assert!(table.relays().is_empty());
    });
}

#[test]
fn an_hour_without_trouble_is_one_path_with_a_ping_every_ten_seconds() {
    run(2, async |network| {
        relay_node(&network);
        let target = network.node("target");
        let session = session(&target, "blue");
        session.up().await.unwrap();
        network.sleep(Duration::from_secs(5)).await;
        let before = network.trace().count();
        network.sleep(HOUR).await;
        let status = session.current();
        assert!(status.is_up() && status.reconnects == 0 && status.reason.is_none());
        assert_eq!(status.round_trip, Some(Duration::from_millis(20)));
        // Sent and arrived, there and back.
        assert_eq!(network.trace().count() - before, 360 * 4);
    });
}

#[test]
fn a_relay_node_that_crashes_again_and_again_is_found_again_by_all_its_targets() {
    run(3, async |network| {
        const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
        let mut table = relay_node(&network);
        let sessions: Vec<_> = NAMES
            .iter()
            .map(|name| session(&network.node(&format!("target-{name}")), name))
            .collect();
        let client = network.node("client");
        for round in 0..20 {
            network
                .eventually("all are there", || table.relays().len() == NAMES.len())
                .await;
            for name in NAMES {
                assert_eq!(ask(&client, name).await.as_deref(), Some("hello"), "{round}");
            }
            // A killed process, or a machine that lost its power and says nothing.
            if round % 2 == 1 {
                network.isolate("relay");
            }
            network.crash("relay");
            network.sleep(Duration::from_secs(network.random() % 100)).await;
            network.rejoin("relay");
            table = relay_node(&network);
        }
        for session in sessions {
            session.stop().await;
        }
        network
            .eventually("no relay is left", || table.relays().is_empty())
            .await;
        network
            .eventually("no connection is left", || network.connections() == 0)
            .await;
    });
}

#[test]
fn after_a_long_silence_attempts_are_rare_and_the_first_that_can_succeed_does() {
    run(4, async |network| {
        relay_node(&network);
        let target = network.node("target");
        let session = session(&target, "blue");
        session.up().await.unwrap();
        network.partition("target", "relay");
        network.sleep(3 * HOUR).await;
        let before = network.trace().count();
        network.sleep(HOUR).await;
        // An attempt takes 10 s in vain, and then there is a pause of 5 to 10 s.
        let attempts = network.trace().count() - before;
        assert!((170..=245).contains(&attempts), "{attempts}");
        network.heal("target", "relay");
        let healed = network.now();
        session.up().await.unwrap();
        assert!(network.now() - healed <= Duration::from_secs(20));
    });
}

#[test]
fn whatever_happens_a_session_comes_back_and_the_same_seed_is_the_same_day() {
    let day = async |network: Network| {
        let table = relay_node(&network);
        let names = ["a", "b", "c"];
        let before = network.census();
        let sessions: Vec<_> = names
            .iter()
            .map(|name| session(&network.node(name), name))
            .collect();
        for _ in 0..30 {
            let victim = names[(network.random() % 3) as usize];
            match network.random() % 5 {
                0 => network.partition(victim, "relay"),
                1 => network.heal(victim, "relay"),
                2 => network.isolate("relay"),
                3 => network.rejoin("relay"),
                _ => {
                    let link = Link {
                        latency: Duration::from_millis(network.random() % 300),
                        jitter: Duration::from_millis(network.random() % 300),
                        loss: (network.random() % 40) as f64 / 100.0,
                        ..Link::default()
                    };
                    network.link(victim, "relay", link);
                }
            }
            network.sleep(Duration::from_secs(network.random() % 45)).await;
        }
        network.rejoin("relay");
        for name in names {
            network.heal(name, "relay");
            network.link(name, "relay", Link::default());
        }
        network
            .eventually("all are there again", || {
                sessions.iter().all(|session| session.current().is_up())
                    && table.relays().len() == names.len()
            })
            .await;
        for session in sessions {
            session.stop().await;
        }
        for name in names {
            network.node(name).stop_worker(&"echo".into()).unwrap();
        }
        network
            .eventually("nothing is left", || network.connections() == 0)
            .await;
        network
            .eventually("no relay is left", || table.relays().is_empty())
            .await;
        assert_eq!(network.census().workers_of("relay"), before.workers_of("relay"));
        network.trace().hash()
    };
    for seed in 0..40 {
        let hash = run(seed, day);
        if seed % 10 == 0 {
            assert_eq!(run(seed, day), hash);
        }
    }
}

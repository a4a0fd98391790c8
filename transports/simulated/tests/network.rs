//! What the network does with messages, and that it does it again.

use std::time::Duration;

use portolan_runtime::services::{Echo, Hop};
use portolan_runtime::{Context, Routed, WorkerOptions, route};
use portolan_simulated::{
    ConnectError, Connection, Link, Listener, Mode, Network, SimulatedNode, Simulation, run,
};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A node that listens, with `echo` for everybody.
fn server(network: &Network, name: &str) -> (SimulatedNode, Listener) {
    let node = network.node(name);
    let listener = node.listen();
    node.start_sync_worker("echo", Echo).unwrap();
    node.add_consumer(listener.flow(), &"echo".into());
    (node, listener)
}

async fn ask(node: &SimulatedNode, connection: &Connection, text: &str) -> portolan_runtime::Result<String> {
    let route = route![connection.sender(), "echo"];
    let answer: Routed<String> = node.send_and_receive(route, text.to_owned()).await?;
    Ok(answer.into_body()?)
}

/// A mailbox at `node` that what comes over the connection can reach.
fn mailbox(node: &SimulatedNode, connection: &Connection, name: &str) -> Context {
    let mailbox = node.context(WorkerOptions::new(name)).unwrap();
    node.add_consumer(connection.flow(), mailbox.address());
    mailbox
}

#[test]
fn a_message_takes_the_latency_of_its_link_each_way() {
    run(1, async |network| {
        server(&network, "b");
        network.link(
            "a",
            "b",
            Link {
                latency: MS(250),
                ..Link::default()
            },
        );
        let a = network.node("a");
        let connection = a.connect("b").await.unwrap();
        assert_eq!(
            network.now(),
            MS(500),
            "a connection is there after one round trip"
        );
        assert_eq!(ask(&a, &connection, "hello").await.unwrap(), "hello");
        assert_eq!(network.now(), MS(1000));
    });
}

#[test]
fn bandwidth_is_shared_by_all_that_goes_the_same_way() {
    run(1, async |network| {
        server(&network, "b");
        network.usual_link(Link {
            latency: MS(10),
            bandwidth: Some(100_000),
            ..Link::default()
        });
        let a = network.node("a");
        let (first, second) = (a.connect("b").await.unwrap(), a.connect("b").await.unwrap());
        let begun = network.now();
        let text = "x".repeat(100_000);
        let (one, other) = tokio::join!(ask(&a, &first, &text), ask(&a, &second, &text));
        assert!(one.is_ok() && other.is_ok());
        let took = network.now() - begun;
        // The second has come there after 2 s, and comes back in 1 s more.
        assert!(took >= MS(3000) && took < MS(3100), "{took:?}");
    });
}

#[test]
fn a_stream_brings_everything_in_order_whatever_is_lost() {
    for seed in 0..20 {
        run(seed, async |network| {
            let (b, _) = server(&network, "b");
            network.usual_link(Link {
                jitter: MS(200),
                loss: 0.3,
                ..Link::default()
            });
            let a = network.node("a");
            let connection = a.connect("b").await.unwrap();
            let mut answers = mailbox(&a, &connection, "answers");
            for number in 0..200 {
                let text = format!("{number}");
                answers
                    .send(route![connection.sender(), "echo"], text)
                    .await
                    .unwrap();
            }
            for number in 0..200 {
                let answer: Routed<String> = answers.receive().await.unwrap();
                assert_eq!(answer.into_body().unwrap(), number.to_string());
            }
            assert_eq!(
                b.refusals().not_found.load(std::sync::atomic::Ordering::Relaxed),
                0
            );
        });
    }
}

#[test]
fn datagrams_are_lost_and_overtake_each_other_and_come_once() {
    run(7, async |network| {
        server(&network, "b");
        network.usual_link(Link {
            jitter: MS(200),
            loss: 0.2,
            mode: Mode::Datagram,
            ..Link::default()
        });
        let a = network.node("a");
        let connection = a.connect("b").await.unwrap();
        let mut answers = mailbox(&a, &connection, "answers");
        for number in 0..500 {
            let text = format!("{number}");
            answers
                .send(route![connection.sender(), "echo"], text)
                .await
                .unwrap();
        }
        network.sleep(Duration::from_secs(10)).await;
        let mut numbers: Vec<u32> = Vec::new();
        while let Some(envelope) = answers.try_next() {
            let text =
                <String as portolan_runtime::Body>::decode(envelope.message.payload.as_slice()).unwrap();
            numbers.push(text.parse().unwrap());
        }
        assert!((200..450).contains(&numbers.len()), "{}", numbers.len());
        assert!(!numbers.is_sorted());
        numbers.sort_unstable();
        let count = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    });
}

#[test]
fn a_short_partition_delays_and_a_long_one_ends_connections() {
    run(3, async |network| {
        let (b, listener) = server(&network, "b");
        let before = network.census();
        let a = network.node("a");
        let connection = a.connect("b").await.unwrap();
        network.partition("a", "b");
        let (answer, ()) = tokio::join!(ask(&a, &connection, "late"), async {
            network.sleep(Duration::from_secs(20)).await;
            network.heal("a", "b");
        });
        assert_eq!(answer.unwrap(), "late");
        assert!(network.now() > Duration::from_secs(20));

        network.partition("a", "b");
        connection.ended().await;
        network
            .eventually("b has given up too", || listener.connections() == 0)
            .await;
        assert!(!connection.is_open());
        assert_eq!(
            a.connect("b").await.unwrap_err(),
            ConnectError::TimedOut("b".into())
        );
        network.heal("a", "b");
        let again = a.connect("b").await.unwrap();
        assert_eq!(ask(&a, &again, "again").await.unwrap(), "again");
        again.close();
        drop(b);
        network
            .eventually("nothing is left", || network.connections() == 0)
            .await;
        assert_eq!(network.census().workers(), before.workers());
    });
}

#[test]
fn a_crash_resets_connections_and_a_node_with_the_same_name_can_take_its_place() {
    run(4, async |network| {
        server(&network, "b");
        let a = network.node("a");
        let connection = a.connect("b").await.unwrap();
        network.crash("b");
        connection.ended().await;
        assert_eq!(network.now(), MS(30), "the reset travels one way");
        assert_eq!(
            a.connect("b").await.unwrap_err(),
            ConnectError::Refused("b".into())
        );

        let (_, listener) = server(&network, "b");
        let connection = a.connect("b").await.unwrap();
        assert_eq!(ask(&a, &connection, "new").await.unwrap(), "new");
        assert_eq!(listener.connections(), 1);

        // Without power nobody is told anything.
        network.isolate("b");
        network.crash("b");
        let begun = network.now();
        connection.ended().await;
        assert!(network.now() - begun >= Duration::from_secs(60));
    });
}

#[test]
fn a_listener_takes_so_many_connections_and_no_more() {
    run(5, async |network| {
        let b = network.node("b");
        let listener = b.listen_to(2);
        let a = network.node("a");
        let first = a.connect("b").await.unwrap();
        let _second = a.connect("b").await.unwrap();
        assert_eq!(
            a.connect("b").await.unwrap_err(),
            ConnectError::Refused("b".into())
        );
        first.close();
        network
            .eventually("a place is free", || listener.connections() == 1)
            .await;
        assert!(a.connect("b").await.is_ok());
        assert_eq!(
            a.connect("c").await.unwrap_err(),
            ConnectError::Unknown("c".into())
        );
    });
}

#[test]
fn a_full_window_makes_its_sender_wait_and_loses_nothing() {
    run(6, async |network| {
        server(&network, "b");
        let a = network.node("a");
        let connection = a.connect("b").await.unwrap();
        let mut answers = mailbox(&a, &connection, "answers");
        network.partition("a", "b");
        let sending = {
            let route = route![connection.sender(), "echo"];
            let mut sender = a.context("sender").unwrap();
            let back = answers.address().clone();
            async move {
                for number in 0..2000u32 {
                    let payload = number.to_be_bytes();
                    let message = portolan_runtime::Message::new(&route, &back, payload.as_slice());
                    sender.send_message(message).await.unwrap();
                }
            }
        };
        let receiving = async {
            network.sleep(Duration::from_secs(5)).await;
            network.heal("a", "b");
            for number in 0..2000u32 {
                let envelope = answers.next().await.unwrap();
                assert_eq!(envelope.message.payload.as_slice(), number.to_be_bytes());
            }
        };
        tokio::join!(sending, receiving);
    });
}

/// Some traffic over three nodes on a bad day.
async fn bad_day(network: Network) -> u64 {
    network.usual_link(Link {
        latency: MS(30),
        jitter: MS(60),
        loss: 0.1,
        ..Link::default()
    });
    for name in ["a", "b", "c"] {
        let (node, listener) = server(&network, name);
        node.start_sync_worker("hop", Hop).unwrap();
        node.add_consumer(listener.flow(), &"hop".into());
    }
    for round in 0..20 {
        let names = ["a", "b", "c"];
        let one = names[(network.random() % 3) as usize];
        let other = names[(network.random() % 3) as usize];
        let node = network.node(one);
        if round % 5 == 4 {
            network.partition(one, other);
        }
        if let Ok(connection) = node.connect(other).await {
            let asked = (0..5).map(|_| ask(&node, &connection, "hello"));
            for answer in asked {
                let _ = answer.await;
            }
            connection.close();
        }
        network.heal(one, other);
    }
    network.trace().hash()
}

#[test]
fn the_same_seed_is_the_same_run_and_another_seed_is_another() {
    let first: Vec<u64> = (0..5).map(|seed| run(seed, bad_day)).collect();
    let again: Vec<u64> = (0..5).map(|seed| run(seed, bad_day)).collect();
    assert_eq!(first, again);
    let mut different = first.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), first.len());
}

#[test]
fn a_run_is_the_same_on_another_thread_while_others_run() {
    let here = run(11, bad_day);
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| run(11, bad_day))).collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), here);
    }
}

fn panic_of(scenario: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let panic = std::panic::catch_unwind(scenario).unwrap_err();
    panic.downcast_ref::<String>().cloned().unwrap()
}

#[test]
fn a_scenario_that_fails_says_its_seed_and_what_happened_last() {
    let text = panic_of(|| {
        run(1234, async |network| {
            network.node("lonely");
            network.sleep(Duration::from_secs(5)).await;
            network.note("about to fail");
            assert_eq!(1, 2, "as expected");
        });
    });
    for part in [
        "seed 1234",
        "as expected",
        "lonely starts",
        "5.000 s  about to fail",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_scenario_that_waits_for_ever_is_ended() {
    let text = panic_of(|| {
        Simulation::with_seed(1)
            .time_limit(Duration::from_secs(1000))
            .run(async |_| std::future::pending::<()>().await);
    });
    assert!(
        text.contains("waits for something that does not happen"),
        "{text}"
    );
}

#[test]
fn a_worker_that_does_not_end_fails_the_scenario() {
    let text = panic_of(|| {
        run(1, async |network| {
            let node = network.node("a");
            let task = async |ctx: Context| {
                let _kept = ctx;
                std::future::pending().await
            };
            node.start_task("stubborn", task).unwrap();
        });
    });
    assert!(
        text.contains("a has stopped, and these workers have not") && text.contains("stubborn"),
        "{text}"
    );
}

#[test]
fn what_is_left_is_named() {
    let text = panic_of(|| {
        run(1, async |network| {
            let node = network.node("a");
            let before = network.census();
            node.start_sync_worker("forgotten", Echo).unwrap();
            network.returns_to(&before).await;
        });
    });
    assert!(text.contains("new at a: 0#forgotten"), "{text}");
}

#[test]
fn the_time_of_day_goes_with_the_clock() {
    run(1, async |network| {
        let begun = network.system_time();
        assert_eq!(
            begun.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(),
            portolan_simulated::EPOCH
        );
        network.sleep(Duration::from_secs(3600)).await;
        assert_eq!(
            network.system_time().duration_since(begun).unwrap(),
            Duration::from_secs(3600)
        );
    });
}

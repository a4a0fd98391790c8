//! What a plugin worker does in a node.

mod support;

use std::sync::Arc;
use std::time::Duration;

use portolan_plugin::{
    Limits, MemoryStorage, PeerAttributes, PluginError, PluginWorker, State, WorkerSettings,
};
use portolan_runtime::{Capacity, Message, Node, Payload, Peer, PeerIdentifier, Route};
use support::{answer, ask, asker, load, puppet, rights, tell};

fn settings() -> WorkerSettings {
    WorkerSettings::new("p").rights(rights(&["reply", "from:local"]))
}

fn quick() -> Limits {
    Limits {
        restart_first: Duration::from_millis(1),
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_message_is_handled_and_answered() {
    let node = Node::new().unwrap();
    let plugin = load(&puppet());
    assert_eq!(plugin.info().name, "puppet");
    assert_eq!(plugin.info().version, "1.2.3");
    assert_eq!(plugin.info().wants, rights(&["reply", "from:local"]));
    let settings = settings().config("configuration");
    let worker = PluginWorker::start(&node, &plugin, settings).await.unwrap();
    let mut ctx = asker(&node, "asker");
    assert_eq!(ask(&mut ctx, "p", b"echo this").await, b"echo this");
    assert_eq!(ask(&mut ctx, "p", b"a").await, b"0#p");
    assert_eq!(ask(&mut ctx, "p", b"c").await, b"configuration");
    assert_eq!(worker.status().state, State::Running);
    worker.stop().await;
    assert_eq!(worker.status().state, State::Stopped);
    assert!(!node.has_worker(&"p".into()));
    assert_eq!(
        worker.replace(&plugin, None, None).await,
        Err(PluginError::Stopped)
    );
    node.stop().await;
}

#[tokio::test]
async fn an_error_is_counted_and_the_instance_goes_on() {
    let node = Node::new().unwrap();
    let worker = PluginWorker::start(&node, &load(&puppet()), settings())
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    tell(&mut ctx, "p", b"x").await;
    assert_eq!(ask(&mut ctx, "p", b"n").await, 2u32.to_le_bytes());
    worker.stop().await;
    let status = worker.status();
    assert_eq!((status.handled, status.failed, status.restarts), (1, 1, 0));
    assert!(status.last_error.unwrap().contains("I do not wis"));
    node.stop().await;
}

#[tokio::test]
async fn what_a_plugin_says_at_the_end_is_sent() {
    let node = Node::new().unwrap();
    let mut ticks = asker(&node, "ticks");
    let settings = settings().rights(rights(&["send:ticks", "from:local"]));
    let worker = PluginWorker::start(&node, &load(&puppet()), settings)
        .await
        .unwrap();
    worker.stop().await;
    assert_eq!(answer(&mut ticks).await, b"stopped");
    node.stop().await;
}

#[tokio::test]
async fn replacing_loses_no_message_and_handles_none_twice() {
    const MESSAGES: u32 = 2000;
    let node = Node::new().unwrap();
    let plugin = load(&puppet());
    let worker = PluginWorker::start(&node, &plugin, settings().config("old"))
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    let sender = {
        let node = node.clone();
        tokio::spawn(async move {
            let mut ctx = asker(&node, "sender");
            for _ in 0..MESSAGES {
                let message = Message::new("p", "asker", Payload::copy_from(b"c"));
                ctx.send_message(message).await.unwrap();
            }
        })
    };
    let mut answers = Vec::new();
    while answers.len() < 100 {
        answers.push(answer(&mut ctx).await);
    }
    let replaced = {
        let (worker, plugin) = (worker.clone(), plugin.clone());
        tokio::spawn(async move { worker.replace(&plugin, Some("new".into()), None).await })
    };
    while answers.len() < MESSAGES as usize {
        answers.push(answer(&mut ctx).await);
    }
    replaced.await.unwrap().unwrap();
    sender.await.unwrap();
    let old = answers.iter().take_while(|answer| *answer == b"old").count();
    assert!(old >= 100);
    assert!(answers[old..].iter().all(|answer| answer == b"new"));
    assert_eq!(ask(&mut ctx, "p", b"c").await, b"new");
    let status = worker.status();
    assert_eq!((status.failed, status.dropped, status.replacements), (0, 0, 1));
    node.stop().await;
}

#[tokio::test]
async fn a_replacement_that_does_not_start_changes_nothing() {
    let node = Node::new().unwrap();
    let plugin = load(&puppet());
    let worker = PluginWorker::start(&node, &plugin, settings().config("old"))
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    for config in ["reject", "trap"] {
        let error = worker
            .replace(&plugin, Some(config.into()), Some(rights(&[])))
            .await;
        assert!(error.is_err());
        assert_eq!(ask(&mut ctx, "p", b"c").await, b"old");
    }
    assert_eq!(worker.status().replacements, 0);
    node.stop().await;
}

#[tokio::test]
async fn a_replacement_heals_a_plugin_that_waits_for_its_restart() {
    let node = Node::new().unwrap();
    let limits = Limits {
        restart_first: Duration::from_secs(3600),
        restart_most: Duration::from_secs(3600),
        ..Limits::default()
    };
    let plugin = load(&puppet());
    let worker = PluginWorker::start(&node, &plugin, settings().limits(limits))
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    tell(&mut ctx, "p", b"trap").await;
    worker.until(|status| status.state == State::Restarting).await;
    tell(&mut ctx, "p", b"e").await;
    worker.replace(&plugin, None, None).await.unwrap();
    assert_eq!(answer(&mut ctx).await, b"e");
    node.stop().await;
}

#[tokio::test]
async fn each_failure_doubles_the_wait_before_the_next_start() {
    let node = Node::new().unwrap();
    let limits = Limits {
        restart_first: Duration::from_millis(20),
        restart_most: Duration::from_millis(80),
        ..Limits::default()
    };
    let worker = PluginWorker::start(&node, &load(&puppet()), settings().limits(limits))
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    for (failures, least) in [(1, 20), (2, 40), (3, 80), (4, 80)] {
        let begin = std::time::Instant::now();
        tell(&mut ctx, "p", b"trap").await;
        assert_eq!(ask(&mut ctx, "p", b"n").await, 1u32.to_le_bytes());
        assert!(begin.elapsed() >= Duration::from_millis(least), "{failures}");
        assert_eq!(worker.status().restarts, failures);
    }
    node.stop().await;
}

#[tokio::test]
async fn keys_and_values_survive_restarts_and_are_bounded() {
    let node = Node::new().unwrap();
    let limits = Limits {
        storage_bytes: 100,
        ..quick()
    };
    let storage = Arc::new(MemoryStorage::default());
    let settings = settings()
        .rights(rights(&["reply", "from:local", "storage"]))
        .limits(limits)
        .storage(storage);
    let worker = PluginWorker::start(&node, &load(&puppet()), settings.clone())
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    assert_eq!(ask(&mut ctx, "p", b"G").await, b"");
    assert_eq!(ask(&mut ctx, "p", b"Svalue").await, b"ok");
    tell(&mut ctx, "p", b"trap").await;
    assert_eq!(ask(&mut ctx, "p", b"G").await, b"value");
    let refused = ask(&mut ctx, "p", &[b'S'; 200]).await;
    assert_eq!(refused, b"the storage would have 200 bytes, and 100 is the limit");
    assert_eq!(ask(&mut ctx, "p", b"G").await, b"value");
    worker.stop().await;
    PluginWorker::start(&node, &load(&puppet()), settings)
        .await
        .unwrap();
    assert_eq!(ask(&mut ctx, "p", b"G").await, b"value");
    assert_eq!(ask(&mut ctx, "p", b"R").await, b"ok");
    assert_eq!(ask(&mut ctx, "p", b"G").await, b"");
    node.stop().await;
}

#[tokio::test]
async fn timers_are_called_once_unless_cancelled_and_are_bounded() {
    let node = Node::new().unwrap();
    let mut ticks = asker(&node, "ticks");
    let settings = settings().rights(rights(&["reply", "from:local", "send:ticks"]));
    let worker = PluginWorker::start(&node, &load(&puppet()), settings)
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    tell(&mut ctx, "p", b"W").await;
    assert_eq!(answer(&mut ticks).await, b"tick");
    assert_eq!(ask(&mut ctx, "p", &[b'w', 64]).await, b"ok");
    let refused = ask(&mut ctx, "p", &[b'w', 65]).await;
    assert_eq!(refused, b"64 timers are set already, which is the limit");
    assert_eq!(worker.status().restarts, 0);
    assert!(ticks.try_next().is_none());
    node.stop().await;
}

#[tokio::test]
async fn one_plugin_loops_and_the_other_keeps_answering() {
    let node = Node::builder().aside_arbiters(1).build().unwrap();
    let limits = Limits {
        time: Duration::from_secs(3600),
        ..Limits::default()
    };
    let plugin = load(&puppet());
    let looping = PluginWorker::start(&node, &plugin, settings().limits(limits))
        .await
        .unwrap();
    let other = WorkerSettings::new("other").rights(rights(&["reply", "from:local"]));
    PluginWorker::start(&node, &plugin, other).await.unwrap();
    let mut ctx = asker(&node, "asker");
    tell(&mut ctx, "p", b"loop").await;
    // More than what one handles before it lets the next one go on, so that the loop has begun.
    for _ in 0..200 {
        assert_eq!(ask(&mut ctx, "other", b"e").await, b"e");
    }
    let status = looping.status();
    assert_eq!(
        (status.handled, status.failed, status.state),
        (0, 0, State::Running)
    );
    // It can be stopped in the middle of it.
    looping.stop().await;
    assert!(
        looping
            .status()
            .last_error
            .unwrap()
            .contains("stopped in the middle")
    );
    node.stop().await;
}

#[tokio::test]
async fn nobody_waits_for_a_plugin_that_hangs() {
    let node = Node::new().unwrap();
    let limits = Limits {
        time: Duration::from_secs(3600),
        queue: Capacity {
            messages: 10,
            bytes: 1024 * 1024,
        },
        patience: Duration::from_millis(5),
        ..Limits::default()
    };
    let worker = PluginWorker::start(&node, &load(&puppet()), settings().limits(limits))
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    tell(&mut ctx, "p", b"loop").await;
    // All of these are taken, though there is room for a few only.
    for _ in 0..200 {
        tell(&mut ctx, "p", b"e").await;
    }
    // What was taken is counted once it has been looked at.
    while worker.status().dropped < 150 {
        tokio::task::yield_now().await;
    }
    let status = worker.status();
    assert!(status.waiting <= 20, "{status:?}");
    assert_eq!((status.handled, status.restarts), (0, 0));
    worker.stop().await;
    node.stop().await;
}

#[tokio::test]
async fn a_plugin_that_floods_itself_goes_on() {
    let node = Node::new().unwrap();
    let settings = settings().rights(rights(&["reply", "from:local", "send:p"]));
    let worker = PluginWorker::start(&node, &load(&puppet()), settings)
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    let outcomes = || {
        let status = worker.status();
        status.handled + status.dropped + status.refused_to_send
    };
    let before = outcomes();
    tell(&mut ctx, "p", b"bp").await;
    // The message that asked for the flood, and what became of each of the 2000.
    while outcomes() < before + 2001 {
        tokio::task::yield_now().await;
    }
    assert!(worker.status().refused_to_send > 0);
    assert_eq!(ask(&mut ctx, "p", b"e").await, b"e");
    assert_eq!(worker.status().restarts, 0);
    node.stop().await;
}

struct Roles;

impl PeerAttributes for Roles {
    fn attributes_of(&self, peer: &PeerIdentifier) -> Vec<(String, String)> {
        vec![("role".into(), format!("number {}", peer.0[0]))]
    }
}

#[tokio::test]
async fn the_peer_of_a_message_is_shown_and_its_name_cannot_be_borrowed() {
    let node = Node::new().unwrap();
    let settings = settings()
        .rights(rights(&["reply", "from:peers", "send:target"]))
        .attributes(Arc::new(Roles));
    PluginWorker::start(&node, &load(&puppet()), settings)
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    let mut target = asker(&node, "target");
    let peer = Arc::new(Peer {
        identifier: PeerIdentifier([9; 32]),
        channel: "channel".into(),
    });
    let message = |onward: &[&str], body: &[u8]| {
        let onward: Route = onward.iter().map(|hop| (*hop).into()).collect();
        let mut message = Message::new(onward, "asker", Payload::copy_from(body));
        message.local.peer = Some(Arc::clone(&peer));
        message
    };
    ctx.send_message(message(&["p"], b"P")).await.unwrap();
    assert_eq!(answer(&mut ctx).await, peer.identifier.to_string().as_bytes());
    ctx.send_message(message(&["p"], b"A")).await.unwrap();
    assert_eq!(answer(&mut ctx).await, b"number 9");
    // As it is, it still is the peer's, and it can be sent on once.
    ctx.send_message(message(&["p", "target"], b"pass"))
        .await
        .unwrap();
    let passed = target.next().await.unwrap().message;
    assert_eq!(
        (passed.payload.as_slice(), passed.peer()),
        (&b"pass"[..], Some(&peer))
    );
    assert!(answer(&mut ctx).await.starts_with(b"there is no message in hand"));
    // Changed, it is the plugin's.
    ctx.send_message(message(&["p", "target"], b"qchanged"))
        .await
        .unwrap();
    let forwarded = target.next().await.unwrap().message;
    assert_eq!(
        (forwarded.payload.as_slice(), forwarded.peer()),
        (&b"changed"[..], None)
    );
    assert_eq!(forwarded.back, Route::from("asker"));
    node.stop().await;
}

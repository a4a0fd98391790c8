//! What an interceptor does in a portal connection.

mod support;

use std::time::Duration;

use portolan_plugin::{
    Connection, Direction, Interceptors, Kind, Limits, Plugin, PluginError, PluginWorker, SharedMemory, Side,
    Verdict, WorkerSettings,
};
use portolan_runtime::{Node, PeerIdentifier};
use support::{engine, guest, load, puppet};

fn filter() -> Plugin {
    load(&guest(include_str!("guests/filter.wat"), "interceptor", &[]))
}

fn connection() -> Connection {
    Connection {
        side: Side::Outlet,
        peer: Some(PeerIdentifier([7; 32])),
        attributes: vec![("role".into(), "admin".into())],
        endpoint: Some("127.0.0.1:5432".into()),
    }
}

fn interceptors(config: &str) -> Interceptors {
    Interceptors::new(&filter(), "db", config, Limits::default()).unwrap()
}

#[tokio::test]
async fn bytes_are_passed_replaced_or_the_connection_is_ended() {
    let all = interceptors("");
    let mut one = all.open(&connection()).await.unwrap();
    assert_eq!(
        one.data(Direction::ToService, b"pass").await.unwrap(),
        Verdict::Pass
    );
    assert_eq!(one.data(Direction::ToClient, b"ok").await.unwrap(), Verdict::Pass);
    assert_eq!(
        one.data(Direction::ToService, b"i").await.unwrap(),
        Verdict::Replace(PeerIdentifier([7; 32]).to_string().into_bytes())
    );
    assert_eq!(
        one.data(Direction::ToService, &vec![b'p'; 256 * 1024])
            .await
            .unwrap(),
        Verdict::Pass
    );
    assert!(one.end(Direction::ToService).await.unwrap().is_empty());
    assert_eq!(one.end(Direction::ToClient).await.unwrap(), b"last words");
    assert_eq!(
        one.data(Direction::ToClient, b"e").await.unwrap(),
        Verdict::End("not today!".into())
    );
    let after = one.data(Direction::ToClient, b"pass").await.unwrap_err();
    assert_eq!(after, PluginError::Ended("not today!".into()));
    assert_eq!(all.status().instances, 1);
    one.close().await;
    let status = all.status();
    assert_eq!(
        (status.opened, status.ended, status.failed, status.instances),
        (1, 1, 0, 0)
    );
    assert!(status.last_error.unwrap().contains("not today!"));
}

#[tokio::test]
async fn a_connection_can_be_refused_with_a_reason() {
    let all = interceptors("refuse");
    let error = all.open(&connection()).await.unwrap_err();
    assert_eq!(error, PluginError::Rejected("not today!".into()));
    assert_eq!(all.status().refused, 1);
}

#[tokio::test]
async fn a_trap_or_a_loop_ends_this_connection_and_no_other() {
    let all = interceptors("");
    let mut bystander = all.open(&connection()).await.unwrap();
    for (bytes, reason) in [(&b"t"[..], "unreachable"), (b"loop", "longer than 100 ms")] {
        let mut one = all.open(&connection()).await.unwrap();
        let error = one.data(Direction::ToService, bytes).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        // What comes after is never let through.
        let again = one.data(Direction::ToService, b"pass").await.unwrap_err();
        assert!(
            matches!(&again, PluginError::Ended(why) if why.contains(reason)),
            "{again}"
        );
        assert!(one.end(Direction::ToService).await.is_err());
        one.close().await;
        assert_eq!(
            bystander.data(Direction::ToService, b"pass").await.unwrap(),
            Verdict::Pass
        );
    }
    assert_eq!(all.status().failed, 2);
}

#[tokio::test]
async fn a_call_that_is_given_up_ends_the_interceptor() {
    let limits = Limits {
        interceptor_time: Duration::from_secs(3600),
        ..Limits::default()
    };
    let all = Interceptors::new(&filter(), "db", "", limits).unwrap();
    let mut one = all.open(&connection()).await.unwrap();
    {
        let mut call = std::pin::pin!(one.data(Direction::ToService, b"loop"));
        // It gives way, or this would never return.
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
    }
    let error = one.data(Direction::ToService, b"pass").await.unwrap_err();
    assert!(matches!(error, PluginError::Ended(_)));
}

#[tokio::test]
async fn a_new_plugin_counts_for_new_connections() {
    let all = interceptors("");
    let mut old = all.open(&connection()).await.unwrap();
    all.replace(&filter(), Some("refuse".into())).unwrap();
    assert!(all.open(&connection()).await.is_err());
    assert_eq!(
        old.data(Direction::ToService, b"pass").await.unwrap(),
        Verdict::Pass
    );
}

#[tokio::test]
async fn a_worker_is_no_interceptor_and_the_other_way_round() {
    let engine = engine();
    let worker = Plugin::load(&engine, &puppet()).unwrap();
    assert_eq!(worker.kind(), Kind::Worker);
    let error = Interceptors::new(&worker, "db", "", Limits::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the plugin is a worker, and an interceptor is needed here"
    );
    let node = Node::new().unwrap();
    let error = PluginWorker::start(&node, &filter(), WorkerSettings::new("p"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the plugin is an interceptor, and a worker is needed here"
    );
    node.stop().await;
}

#[tokio::test]
async fn all_instances_together_have_no_more_memory_than_they_may_have() {
    let plugin = load(&guest(include_str!("guests/stream.wat"), "interceptor", &[]));
    let memory = SharedMemory::new(6 << 20);
    // It holds all that it gets.
    let all = Interceptors::within(&plugin, "db", "h", Limits::default(), memory.clone()).unwrap();
    let mut open = Vec::new();
    let refused = loop {
        match all.open(&connection()).await {
            Ok(one) => open.push(one),
            Err(error) => break error,
        }
        assert!(memory.used() <= memory.limit());
        assert!(open.len() < 100, "there is no end of it");
    };
    assert!(
        refused.to_string().contains("PORTOLAN_PLUGIN_MEMORY"),
        "{refused}"
    );
    assert!(open.len() > 2, "{}", open.len());
    open.truncate(2);
    let failed = loop {
        match open[0].data(Direction::ToService, &[0; 100_000]).await {
            Ok(verdict) => assert_eq!(verdict, Verdict::Replace(Vec::new())),
            Err(error) => break error,
        }
        assert!(memory.used() <= memory.limit());
    };
    assert!(failed.to_string().contains("PORTOLAN_PLUGIN_MEMORY"), "{failed}");
    // What it had is there for the other one.
    assert_eq!(
        open[1].data(Direction::ToService, &[0; 100_000]).await.unwrap(),
        Verdict::Replace(Vec::new())
    );
    drop(open);
    assert_eq!(memory.used(), 0);
}

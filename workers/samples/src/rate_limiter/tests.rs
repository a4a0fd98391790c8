use std::num::NonZeroU32;
use std::sync::Arc;

use portolan_runtime::{Address, Message, Node, PeerIdentifier};
use serde_json::json;

use super::*;

fn limit(config: serde_json::Value) -> RateLimit {
    serde_json::from_value(config).unwrap()
}

fn peer(number: u64) -> PeerIdentifier {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    PeerIdentifier(bytes)
}

fn ask(buckets: &mut Buckets, of: u64, bytes: usize, at_ms: u64, patience_ms: u64) -> Verdict {
    buckets.ask(
        Some(&peer(of)),
        &Address::local("channel"),
        bytes,
        Duration::from_millis(at_ms),
        Duration::from_millis(patience_ms),
    )
}

#[test]
fn a_burst_passes_and_then_the_rate_for_each_sender() {
    let mut buckets = Buckets::new(&limit(
        json!({ "to": "b", "messages-per-second": 10, "burst": 5 }),
    ));
    for _ in 0..5 {
        assert_eq!(ask(&mut buckets, 1, 1, 0, 0), Verdict::Now);
    }
    assert_eq!(ask(&mut buckets, 1, 1, 0, 0), Verdict::Over);
    assert_eq!(ask(&mut buckets, 2, 1, 0, 0), Verdict::Now);
    assert_eq!(ask(&mut buckets, 1, 1, 99, 0), Verdict::Over);
    assert_eq!(ask(&mut buckets, 1, 1, 100, 0), Verdict::Now);
    // Over ten seconds of trying all the time, a hundred.
    let passed = (101..=10_100)
        .filter(|at| ask(&mut buckets, 1, 1, *at, 0) == Verdict::Now)
        .count();
    assert_eq!(passed, 100);
    // Whoever was refused has lost nothing.
    assert_eq!(ask(&mut buckets, 1, 1, 60_000, 0), Verdict::Now);
}

#[test]
fn what_may_wait_is_told_how_long_and_its_place_is_taken() {
    let mut buckets = Buckets::new(&limit(
        json!({ "to": "b", "messages-per-second": 10, "burst": 1, "over": "delay" }),
    ));
    assert_eq!(ask(&mut buckets, 1, 1, 0, 250), Verdict::Now);
    assert_eq!(
        ask(&mut buckets, 1, 1, 0, 250),
        Verdict::After(Duration::from_millis(100))
    );
    assert_eq!(
        ask(&mut buckets, 1, 1, 0, 250),
        Verdict::After(Duration::from_millis(200))
    );
    assert_eq!(ask(&mut buckets, 1, 1, 0, 250), Verdict::Over);
    assert_eq!(
        ask(&mut buckets, 1, 1, 50, 250),
        Verdict::After(Duration::from_millis(250))
    );
}

#[test]
fn bytes_are_limited_and_one_that_is_larger_than_a_burst_leaves_a_debt() {
    let mut buckets = Buckets::new(&limit(
        json!({ "to": "b", "bytes-per-second": 1000, "burst-bytes": 100 }),
    ));
    assert_eq!(ask(&mut buckets, 1, 60, 0, 0), Verdict::Now);
    assert_eq!(ask(&mut buckets, 1, 60, 0, 0), Verdict::Over);
    assert_eq!(ask(&mut buckets, 1, 40, 0, 0), Verdict::Now);
    assert_eq!(ask(&mut buckets, 1, 500, 99, 0), Verdict::Over);
    assert_eq!(ask(&mut buckets, 1, 500, 100, 0), Verdict::Now);
    assert_eq!(ask(&mut buckets, 1, 1, 500, 0), Verdict::Over);
    assert_eq!(ask(&mut buckets, 1, 1, 502, 0), Verdict::Now);
    assert_eq!(ask(&mut buckets, 2, usize::MAX, 0, 0), Verdict::Now);
    assert_eq!(ask(&mut buckets, 2, 1, 1_000_000, 0), Verdict::Over);
}

#[test]
fn a_flood_of_senders_is_remembered_up_to_a_bound_and_limited_all_the_same() {
    let mut buckets = Buckets::new(&limit(json!({ "to": "b", "messages-per-second": 1 })));
    let mut passed = 0;
    for sender in 0..20_000 {
        passed += usize::from(ask(&mut buckets, sender, 1, 0, 0) == Verdict::Now);
    }
    assert!(buckets.len() <= MAX_SENDERS + 1);
    // One each for those who are remembered, one for all the others together.
    assert_eq!(passed, MAX_SENDERS + 1);
    // When they have been silent, they make room.
    assert_eq!(ask(&mut buckets, 30_000, 1, 2_000, 0), Verdict::Now);
    assert_eq!(buckets.len(), 1);
}

#[test]
fn all_senders_can_share_one_limit() {
    let mut buckets = Buckets::new(&limit(
        json!({ "to": "b", "messages-per-second": 2, "per": "all" }),
    ));
    assert_eq!(ask(&mut buckets, 1, 1, 0, 0), Verdict::Now);
    assert_eq!(ask(&mut buckets, 2, 1, 0, 0), Verdict::Now);
    assert_eq!(ask(&mut buckets, 3, 1, 0, 0), Verdict::Over);
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    for (config, expected) in [
        (json!({ "to": "b" }), "must be given"),
        (json!({ "to": "b", "messages-per-second": 0 }), "nonzero"),
        (json!({ "to": "", "messages-per-second": 1 }), "no address"),
        (json!({ "to": [], "messages-per-second": 1 }), "1 to 8 addresses"),
        (
            json!({ "to": "b", "messages-per-second": 1, "burst-bytes": 1 }),
            "goes only with `bytes-per-second`",
        ),
        (
            json!({ "to": "b", "messages-per-second": 1, "max-held": 1 }),
            "goes only with `over: delay`",
        ),
        (
            json!({ "to": "b", "messages-per-second": 1, "over": "delay", "max-delay-ms": 60_001 }),
            "at most 60000",
        ),
        (
            json!({ "to": "b", "messages-per-second": 1, "over": "x" }),
            "unknown variant",
        ),
    ] {
        let error = serde_json::from_value::<RateLimit>(config.clone()).unwrap_err();
        assert!(error.to_string().contains(expected), "{config}: {error}");
    }
}

/// What a target gets, and what was reported, of `count` messages that are sent at once.
async fn flood(limit: RateLimit, count: u32) -> (Vec<u32>, u32, u32) {
    let node = Node::new().unwrap();
    let mut target = node.context("b").unwrap();
    let told = Arc::new(parking_lot::Mutex::new((0, 0)));
    let report = {
        let told = Arc::clone(&told);
        Box::new(move |result: Result<(), &dyn std::fmt::Display>| {
            let mut told = told.lock();
            match result {
                Ok(()) => told.0 += 1,
                Err(_) => told.1 += 1,
            }
        })
    };
    let limiter = Delaying::new(limit, report);
    node.start_task("limiter", move |ctx| limiter.run(ctx)).unwrap();
    let mut sender = node.context("sender").unwrap();
    for number in 0..count {
        let message = Message::new(
            "limiter",
            "sender",
            portolan_runtime::Payload::copy_from(&number.to_le_bytes()),
        );
        sender.send_message(message).await.unwrap();
    }
    let mut got = Vec::new();
    loop {
        while let Some(envelope) = target.try_next() {
            let bytes = envelope.message.payload.as_slice();
            got.push(u32::from_le_bytes(bytes.try_into().unwrap()));
        }
        let (passed, dropped) = *told.lock();
        if passed + dropped == count && got.len() as u32 == passed {
            node.stop().await;
            return (got, passed, dropped);
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn delayed_messages_arrive_in_order_and_what_waits_too_long_is_dropped() {
    let config = json!({ "to": "b", "messages-per-second": 100, "burst": 2, "over": "delay", "max-delay-ms": 60_000, "max-held": 5 });
    let (got, passed, dropped) = flood(limit(config), 200).await;
    // A burst, and what could be held; the rest was dropped, unless the machine was so slow that tokens came meanwhile.
    assert!(passed >= 7, "{passed}");
    assert_eq!(passed + dropped, 200);
    assert!(got.is_sorted(), "{got:?}");
    assert_eq!(got[..2], [0, 1]);
}

#[tokio::test]
async fn what_is_over_the_limit_is_dropped_and_the_sender_told() {
    let node = Node::new().unwrap();
    let mut target = node.context("b").unwrap();
    let mut limit = RateLimit::messages("b", NonZeroU32::MIN);
    limit.per = Per::All;
    node.start_passage("limiter", Arc::new(Dropping::new(&limit)))
        .unwrap();
    let mut sender = node.context("sender").unwrap();
    let send = |_: u32| Message::new("limiter", "sender", portolan_runtime::Payload::copy_from(&[1]));
    sender.send_message(send(0)).await.unwrap();
    let mut refused = 0;
    for number in 1..1000 {
        refused += u32::from(sender.send_message(send(number)).await.is_err());
    }
    let mut arrived = 0;
    while target.try_next().is_some() {
        arrived += 1;
    }
    assert_eq!(arrived + refused, 1000);
    assert!(refused > 900, "{refused}");
    node.stop().await;
}

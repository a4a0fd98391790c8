//! A channel through a real relay, over TCP: three nodes, of which the middle one reads nothing and seals next to nothing.

mod common;

use std::sync::Arc;

use common::*;
use portolan_relay::{
    AllowEverybody, RegisterOptions, RelayName, RelayRequest, RelayService, RelayServiceOptions, register,
};
use portolan_runtime::route;
use portolan_secure_channel::ListenerOptions;
use portolan_tcp::{TcpOptions, TcpTransport};

#[tokio::test]
async fn a_relay_sends_records_on_as_they_are_in_both_directions() {
    let [a, b, relay] = std::array::from_fn(|_| Party::new());
    let tcp = |party: &Party| TcpTransport::new(&party.node, TcpOptions::default());
    let (tcp_a, tcp_b, tcp_relay) = (tcp(&a), tcp(&b), tcp(&relay));
    let listening = tcp_relay.listen("127.0.0.1:0").await.unwrap();
    let at = listening.local().to_string();
    let accepting = relay
        .channels
        .listen("api", ListenerOptions::new(relay.options()))
        .unwrap();
    accepting.accept_from(listening.flow());
    let options = RelayServiceOptions {
        reachable_from: vec![Arc::clone(accepting.flow())],
        ..Default::default()
    };
    RelayService::start(&relay.node, AllowEverybody, options).unwrap();

    // The target: a channel to the relay node, a relay through it, and a listener behind.
    let connection_b = tcp_b.connect(&at).await.unwrap();
    let outer_b = b
        .channels
        .create(route![connection_b.sender(), "api"], b.options())
        .await
        .unwrap();
    b.listen();
    outer_b.add_consumer(&"api".into());
    let request = RelayRequest::Named(RelayName::new("b").unwrap());
    let _registered = register(&b.node, outer_b.address(), request, RegisterOptions::default())
        .await
        .unwrap();

    let connection_a = tcp_a.connect(&at).await.unwrap();
    let outer_a = a
        .channels
        .create(route![connection_a.sender(), "api"], a.options())
        .await
        .unwrap();
    let inner = a
        .channels
        .create(route![outer_a.address(), "forward_to_b", "api"], a.options())
        .await
        .unwrap();
    assert_eq!(inner.peer(), b.id());

    for size in [10, 2_000, 300_000, 70_000, 100] {
        let text = "x".repeat(size);
        let answer = echo(&a.node, through(inner.address(), &["echo"]), &text).await;
        assert_eq!(answer, Some(text));
    }
    // Three of five were large enough, and each came back.
    for info in relay
        .channels
        .list()
        .iter()
        .chain([&outer_a.info(), &outer_b.info()])
    {
        assert_eq!((info.sent_carried, info.received_carried), (3, 3));
        assert_eq!((info.rejected, info.gaps), (0, 0));
    }
    assert_eq!(inner.info().sent_carried, 0);
    for party in [&a, &b, &relay] {
        party.node.stop().await;
    }
}

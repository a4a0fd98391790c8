//! A relay over real TCP connections.

mod common;

use std::sync::Arc;

use common::{eventually, soon};
use portolan_relay::{
    AllowEverybody, Connection, RegisterOptions, RelayName, RelayRequest, RelayService, RelayServiceOptions,
    SessionMonitor, SessionSettings, register,
};
use portolan_runtime::services::Echo;
use portolan_runtime::{Node, Routed, route};
use portolan_tcp::{TcpConnection, TcpOptions, TcpTransport};

/// Disconnects when dropped.
struct Open(TcpTransport, TcpConnection);

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.0.disconnect(self.1.sender());
    }
}

#[tokio::test]
async fn a_relay_over_tcp_carries_messages_and_comes_back_after_the_connection_is_cut() {
    let node = Node::new().unwrap();
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let listener = tcp.listen("127.0.0.1:0").await.unwrap();
    node.start_sync_worker("echo", Echo).unwrap();
    node.add_consumer(listener.flow(), &"echo".into());
    let options = RelayServiceOptions {
        reachable_from: vec![Arc::clone(listener.flow())],
        ..Default::default()
    };
    let table = RelayService::start(&node, AllowEverybody, options).unwrap();
    let address = listener.local().to_string();

    let target = Node::new().unwrap();
    target.start_sync_worker("echo", Echo).unwrap();
    let (connecting, to) = (target.clone(), address.clone());
    let session = SessionMonitor::start(&target, SessionSettings::default(), move || {
        let (node, to) = (connecting.clone(), to.clone());
        async move {
            let tcp = TcpTransport::new(&node, TcpOptions::default());
            let connection = tcp.connect(&to).await.map_err(|error| error.to_string())?;
            let open = Open(tcp, connection.clone());
            node.add_consumer(connection.flow(), &"echo".into());
            let name = RelayName::new("blue").map_err(|error| error.to_string())?;
            let request = RelayRequest::Named(name);
            let relay = register(&node, connection.sender(), request, RegisterOptions::default())
                .await
                .map_err(|error| error.to_string())?;
            let lost = relay.lost();
            Ok::<_, String>(Connection::new(connection.sender(), lost).keep((relay, open)))
        }
    })
    .unwrap();
    soon(session.up()).await.unwrap();

    let sender = Node::new().unwrap();
    let connection = TcpTransport::new(&sender, TcpOptions::default())
        .connect(&address)
        .await
        .unwrap();
    let ask = |text: String| {
        let (sender, route) = (
            sender.clone(),
            route![connection.sender(), "forward_to_blue", "echo"],
        );
        async move {
            let answer: Routed<String> = sender.send_and_receive(route, text).await.unwrap();
            answer.into_body().unwrap()
        }
    };
    let large = "x".repeat(50_000);
    assert_eq!(soon(ask("hello".into())).await, "hello");
    assert_eq!(soon(ask(large.clone())).await, large);

    let old = table.relays()[0].route.clone();
    tcp.disconnect(old.next().unwrap()).unwrap();
    let mut status = session.status();
    soon(status.wait_for(|status| status.is_up() && status.reconnects == 1))
        .await
        .unwrap();
    eventually("the relay is there again", || {
        table.relays().iter().any(|relay| relay.route != old)
    })
    .await;
    assert_eq!(soon(ask("again".into())).await, "again");
    soon(session.stop()).await;
    eventually("the relay ends with its target", || table.relays().is_empty()).await;
}

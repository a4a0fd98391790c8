//! Connections between nodes, and between a node and raw sockets that may be hostile.

use std::time::Duration;

use portolan_runtime::services::{Echo, Hop, Uppercase};
use portolan_runtime::{Address, Message, Node, Route, Routed, route};
use portolan_tcp::{TcpError, TcpListener, TcpOptions, TcpTransport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}

struct Server {
    node: Node,
    tcp: TcpTransport,
    listener: TcpListener,
}

async fn server(options: TcpOptions) -> Server {
    let node = Node::new().unwrap();
    let tcp = TcpTransport::new(&node, options);
    let listener = tcp.listen("127.0.0.1:0").await.unwrap();
    node.start_sync_worker("echo", Echo).unwrap();
    node.start_sync_worker("uppercase", Uppercase).unwrap();
    node.start_sync_worker("private", Echo).unwrap();
    for public in ["echo", "uppercase"] {
        node.add_consumer(listener.flow(), &public.into());
    }
    Server { node, tcp, listener }
}

#[tokio::test]
async fn who_connects_before_a_node_is_complete_waits_and_loses_nothing() {
    let near = Node::new().unwrap();
    let far = Node::new().unwrap();
    let tcp = TcpTransport::new(&far, TcpOptions::default());
    let listener = tcp.bind("127.0.0.1:0").await.unwrap();
    let local = listener.local().to_string();
    let asking = tokio::spawn({
        let near = near.clone();
        async move {
            let tcp = TcpTransport::new(&near, TcpOptions::default());
            let connection = tcp.connect(&local).await.unwrap();
            let route = route![connection.sender(), "echo"];
            near.send_and_receive::<String, String>(route, "early".into())
                .await
                .unwrap()
                .into_body()
                .unwrap()
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(tcp.connections().len(), 0);
    far.start_sync_worker("echo", Echo).unwrap();
    far.add_consumer(listener.flow(), &"echo".into());
    listener.accept();
    assert_eq!(asking.await.unwrap(), "early");
    near.stop().await;
    far.stop().await;
}

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// A raw connection that has exchanged version bytes.
async fn raw(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.listener.local()).await.unwrap();
    stream.write_all(&[1]).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 1);
    stream
}

async fn is_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the connection is still open");
}

#[tokio::test]
async fn the_bytes_on_the_wire_are_those_of_the_specification() {
    let server = server(TcpOptions::default()).await;
    let mut stream = TcpStream::connect(server.listener.local()).await.unwrap();
    // Version byte and frame in one segment, as the vector has them.
    stream
        .write_all(&unhex("010000001783818200446563686f81820043617070460568656c6c6f"))
        .await
        .unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 1);
    let length = stream.read_u32().await.unwrap();
    let mut reply = vec![0; length as usize];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(
        hex::encode(reply),
        "8381820043617070818200446563686f460568656c6c6f"
    );
    // Byte by byte, with tracing text.
    for byte in unhex("0000001a84818200446563686f81820043617070460568656c6c6f627b7d") {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let length = stream.read_u32().await.unwrap();
    let mut reply = vec![0; length as usize];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(
        hex::encode(reply),
        "8381820043617070818200446563686f460568656c6c6f"
    );
    server.node.stop().await;
}

#[tokio::test]
async fn messages_of_all_sizes_go_there_and_back() {
    let server = server(TcpOptions::default()).await;
    let node = Node::new().unwrap();
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let connection = tcp.connect(&server.listener.local().to_string()).await.unwrap();
    for size in [0usize, 1, 4096, 128 * 1024, 1024 * 1024] {
        let body: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let answer: Routed<Vec<u8>> = node
            .send_and_receive(route![connection.sender(), "echo"], body.clone())
            .await
            .unwrap();
        assert_eq!(answer.payload(), body, "{size} bytes");
    }
    node.stop().await;
    server.node.stop().await;
}

#[tokio::test]
async fn a_message_crosses_two_connections_over_a_bridge() {
    let server = server(TcpOptions::default()).await;
    let bridge = self::server(TcpOptions::default()).await;
    let onward = bridge
        .tcp
        .connect(&server.listener.local().to_string())
        .await
        .unwrap();
    bridge.node.start_sync_worker("hop", Hop).unwrap();
    bridge.node.add_consumer(bridge.listener.flow(), &"hop".into());
    let node = Node::new().unwrap();
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let connection = tcp.connect(&bridge.listener.local().to_string()).await.unwrap();
    // The way back enters the bridge through its connection to the server: that must be allowed too.
    bridge.node.add_consumer(onward.flow(), &"hop".into());
    let answer: Routed<String> = node
        .send_and_receive(
            route![connection.sender(), "hop", onward.sender(), "uppercase"],
            "hello".to_owned(),
        )
        .await
        .unwrap();
    assert_eq!(answer.body().unwrap(), "HELLO");
    for node in [node, bridge.node, server.node] {
        node.stop().await;
    }
}

#[tokio::test]
async fn what_is_no_consumer_is_unreachable_and_the_connection_lives() {
    let server = server(TcpOptions::default()).await;
    let node = Node::new().unwrap();
    let connection = TcpTransport::new(&node, TcpOptions::default())
        .connect(&server.listener.local().to_string())
        .await
        .unwrap();
    for hidden in ["private", "nobody"] {
        let answer = node
            .send_and_receive_within::<_, Vec<u8>>(
                Duration::from_millis(100),
                route![connection.sender(), hidden],
                vec![1],
            )
            .await;
        assert!(answer.is_err());
    }
    let answer: Routed<Vec<u8>> = node
        .send_and_receive(route![connection.sender(), "echo"], vec![2])
        .await
        .unwrap();
    assert_eq!(answer.payload(), [2]);
    node.stop().await;
    server.node.stop().await;
}

#[tokio::test]
async fn garbage_closes_the_connection_and_nothing_else() {
    let server = server(TcpOptions::default()).await;
    let before = server.node.workers().len();
    for (what, bytes) in [
        ("wrong version", "02"),
        ("an HTTP request", "474554202f20485454502f312e310d0a"),
        ("a header of more than 16 MiB", "0101000001"),
        ("a header of 16 MiB from a stranger", "0101000000"),
        ("an empty frame", "0100000000"),
        ("a truncated array", "01000000028381"),
        ("a route with a million hops", "0100000006839a000f4240"),
        ("an integer", "010000000118"),
        ("an address type above 255", "010000000a83818219010041618040"),
    ] {
        let mut stream = TcpStream::connect(server.listener.local()).await.unwrap();
        stream.write_all(&unhex(bytes)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), is_closed(&mut stream))
            .await
            .unwrap_or_else(|_| panic!("{what}"));
    }
    eventually("no worker is left behind", || {
        server.node.workers().len() == before
    })
    .await;
    assert!(server.tcp.connections().is_empty());
    let mut stream = raw(&server).await;
    stream
        .write_all(&unhex("0000001783818200446563686f81820043617070460568656c6c6f"))
        .await
        .unwrap();
    assert_eq!(stream.read_u32().await.unwrap(), 0x17);
    server.node.stop().await;
}

#[tokio::test]
async fn a_heartbeat_is_ignored_and_so_is_an_empty_route() {
    let server = server(TcpOptions::default()).await;
    let mut stream = raw(&server).await;
    stream.write_all(&unhex("0000000483808040")).await.unwrap();
    stream
        .write_all(&unhex("0000001783818200446563686f81820043617070460568656c6c6f"))
        .await
        .unwrap();
    assert_eq!(stream.read_u32().await.unwrap(), 0x17);
    server.node.stop().await;
}

#[tokio::test]
async fn a_stalled_peer_is_given_up() {
    let options = TcpOptions {
        frame_timeout: Duration::from_millis(200),
        stranger_idle_timeout: Duration::from_millis(400),
        ..TcpOptions::default()
    };
    let server = server(options).await;
    for (what, bytes) in [
        ("no version byte", ""),
        ("half a header", "010000"),
        ("half a frame", "010000001783818200"),
        ("nothing after the version byte", "01"),
    ] {
        let mut stream = TcpStream::connect(server.listener.local()).await.unwrap();
        stream.write_all(&unhex(bytes)).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(5), is_closed(&mut stream)).await;
        assert!(closed.is_ok(), "{what}");
    }
    eventually("all are gone", || server.tcp.connections().is_empty()).await;
    server.node.stop().await;
}

/// The address of the connection to somebody who has just connected.
async fn newest_sender(server: &Server, known: &[Address]) -> Address {
    let newest = || {
        let connections = server.tcp.connections();
        let senders = connections.iter().map(|connection| connection.sender().clone());
        senders.into_iter().find(|sender| !known.contains(sender))
    };
    eventually("the connection is there", || newest().is_some()).await;
    newest().unwrap()
}

/// Somebody who reads nothing, somebody who sends to him without end, and to `echo` over the same connection.
#[tokio::test]
async fn who_takes_nothing_is_cut_off_when_others_wait_behind_it_and_not_before() {
    let server = server(TcpOptions {
        hold_up_timeout: Duration::from_millis(200),
        ..TcpOptions::default()
    })
    .await;
    let deaf = raw(&server).await;
    let to_deaf = newest_sender(&server, &[]).await;
    server.node.add_consumer(server.listener.flow(), &to_deaf);
    let node = Node::new().unwrap();
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let connection = tcp.connect(&server.listener.local().to_string()).await.unwrap();
    let echo = || async {
        let route = route![connection.sender(), "echo"];
        let answer: Routed<String> = node.send_and_receive(route, "here".to_owned()).await.unwrap();
        assert_eq!(answer.into_body().unwrap(), "here");
    };
    let mut sender = node.context(Address::random()).unwrap();
    let mut sent = 0;
    let body = vec![7_u8; 512 * 1024];
    // What a connection queues by itself is 2 MiB, and the system takes some more: nobody waits yet.
    while sent < 24 * 1024 * 1024 {
        let message = Message::new(route![connection.sender(), &to_deaf], Route::new(), body.clone());
        sender.send_message(message).await.unwrap();
        sent += body.len();
    }
    for _ in 0..10 {
        echo().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        (server.tcp.held_up(), server.node.has_worker(&to_deaf)),
        (0, true)
    );
    // More than it holds for one who takes nothing.
    while sent < 64 * 1024 * 1024 {
        let message = Message::new(route![connection.sender(), &to_deaf], Route::new(), body.clone());
        sender.send_message(message).await.unwrap();
        sent += body.len();
    }
    echo().await;
    eventually("it is cut off", || !server.node.has_worker(&to_deaf)).await;
    assert_eq!(server.tcp.held_up(), 1);
    echo().await;
    drop(deaf);
    server.node.stop().await;
    node.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let server = server(TcpOptions {
        max_connections: 2,
        ..TcpOptions::default()
    })
    .await;
    let (one, _two) = (raw(&server).await, raw(&server).await);
    let mut three = TcpStream::connect(server.listener.local()).await.unwrap();
    is_closed(&mut three).await;
    drop(one);
    eventually("there is room again", || server.tcp.connections().len() == 1).await;
    let _four = raw(&server).await;
    server.node.stop().await;
}

#[tokio::test]
async fn a_reply_on_its_way_survives_the_end_of_the_peers_direction() {
    let server = server(TcpOptions::default()).await;
    for _ in 0..50 {
        let mut stream = raw(&server).await;
        stream
            .write_all(&unhex("0000001783818200446563686f81820043617070460568656c6c6f"))
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        assert_eq!(reply.len(), 4 + 0x17);
    }
    server.node.stop().await;
}

#[tokio::test]
async fn a_lost_connection_is_noticed_and_leaves_nothing_behind() {
    let server = server(TcpOptions::default()).await;
    let node = Node::new().unwrap();
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let connection = tcp.connect(&server.listener.local().to_string()).await.unwrap();
    let ended = node.ended(connection.sender());
    server.node.stop().await;
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
    assert!(tcp.connections().is_empty());
    eventually("no worker is left", || node.workers().is_empty()).await;
    assert!(
        node.send(route![connection.sender(), "echo"], vec![1])
            .await
            .is_err()
    );
    node.stop().await;
}

#[tokio::test]
async fn errors_say_what_was_tried_and_why_it_failed() {
    let node = Node::new().unwrap();
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let taken = tcp.listen("127.0.0.1:0").await.unwrap();
    let error = tcp.listen(&taken.local().to_string()).await.unwrap_err();
    assert!(matches!(&error, TcpError::Listen { .. }), "{error}");
    tcp.stop_listener(taken.address()).unwrap();
    eventually("the listener is closed", || tcp.listeners().is_empty()).await;
    let error = tcp
        .connect(&taken.local().to_string())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("cannot connect to 127.0.0.1:"), "{error}");
    let error = tcp.connect("no port").await.unwrap_err();
    assert!(matches!(error, TcpError::Resolve { .. }));
    node.stop().await;
}

#[tokio::test]
async fn many_messages_arrive_in_order() {
    let server = server(TcpOptions::default()).await;
    let node = Node::new().unwrap();
    let connection = TcpTransport::new(&node, TcpOptions::default())
        .connect(&server.listener.local().to_string())
        .await
        .unwrap();
    let mut app = node.context("app").unwrap();
    node.add_consumer(connection.flow(), &"app".into());
    let sender = node.clone();
    let route = route![connection.sender(), "echo"];
    tokio::spawn(async move {
        let mut source = sender.context("source").unwrap();
        for i in 0u32..20_000 {
            let mut message = portolan_runtime::Message::new(&route, "app", i.to_be_bytes().as_slice());
            if i % 1000 == 0 {
                message.payload.append(&[0; 100_000]);
            }
            source.send_message(message).await.unwrap();
        }
    });
    for i in 0u32..20_000 {
        let answer: Routed<Vec<u8>> = app.receive().await.unwrap();
        assert_eq!(&answer.payload()[..4], i.to_be_bytes());
    }
    drop(app);
    node.stop().await;
    server.node.stop().await;
}

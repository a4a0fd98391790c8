//! The plugins of `examples/plugins`, as they come out of their tools, in a node.
//!
//! `tests/plugins` builds them from source and then runs these tests; without it there is nothing to run.

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use portolan_plugin::{
    Connection, Direction, Engine, EngineOptions, Interceptor, Interceptors, Limits, MemoryStorage, Plugin,
    PluginError, PluginWorker, Side, Verdict, WorkerSettings,
};
use portolan_runtime::{Node, PeerIdentifier};
use support::{answer, ask, asker, tell};

fn folder() -> PathBuf {
    std::env::var_os("PORTOLAN_PLUGINS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins"),
        PathBuf::from,
    )
}

/// A sample, compiled; the second time out of the cache.
fn sample(name: &str) -> Plugin {
    let options = EngineOptions {
        cache: Some(folder().join("compiled")),
    };
    let path = folder().join(name).with_extension("wasm");
    Plugin::load_file(&Engine::new(options).unwrap(), &path, None)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// It answers, refuses a configuration in its own words, and goes on after a message whose answer cannot be sent.
async fn echoes(name: &str) {
    let node = Node::new().unwrap();
    let plugin = sample(name);
    assert_eq!(plugin.info().name, name);
    let settings = || WorkerSettings::new("echo").rights(plugin.info().wants.clone());

    let refused = PluginWorker::start(&node, &plugin, settings().config("{\"loud\": true}")).await;
    let error = refused.map(|_| ()).unwrap_err();
    assert!(matches!(error, PluginError::Rejected(_)), "{error:?}");
    assert!(error.to_string().contains("{\"loud\": true}"), "{error}");

    let worker = PluginWorker::start(&node, &plugin, settings().config("{}"))
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    for message in [&b"hello"[..], b"", b"\x00\xff", &[7; 40_000]] {
        assert_eq!(ask(&mut ctx, "echo", message).await, message);
    }
    let mut gone = asker(&node, "gone");
    gone.send_message(portolan_runtime::Message::new(
        "echo",
        "nobody",
        portolan_runtime::Payload::copy_from(b"x"),
    ))
    .await
    .unwrap();
    worker.until(|status| status.failed > 0).await;
    let status = worker.status();
    assert!(
        status
            .last_error
            .as_deref()
            .is_some_and(|text| text.contains("no answer was sent")),
        "{status:?}"
    );
    assert_eq!(status.restarts, 0, "{status:?}");
    assert_eq!(ask(&mut ctx, "echo", b"and on").await, b"and on");
    node.stop().await;
}

#[tokio::test]
#[ignore = "tests/plugins builds the samples and runs it"]
async fn the_echo_in_rust_answers() {
    echoes("echo-rust").await;
}

#[tokio::test]
#[ignore = "tests/plugins builds the samples and runs it"]
async fn the_echo_in_javascript_answers() {
    echoes("echo-js").await;
}

#[tokio::test]
#[ignore = "tests/plugins builds the samples and runs it"]
async fn the_echo_in_python_answers() {
    echoes("echo-python").await;
}

#[tokio::test]
#[ignore = "tests/plugins builds the samples and runs it"]
async fn the_word_counter_keeps_its_sums_over_a_restart_and_reports_them() {
    let node = Node::new().unwrap();
    let plugin = sample("word-count");
    let storage = Arc::new(MemoryStorage::default());
    let settings = |config: &str| {
        WorkerSettings::new("words")
            .rights(plugin.info().wants.clone())
            .storage(storage.clone())
            .config(config)
    };
    let mut ctx = asker(&node, "asker");
    let worker = PluginWorker::start(&node, &plugin, settings("")).await.unwrap();
    let first = ask(&mut ctx, "words", b"one two three").await;
    assert_eq!(first, b"3 words; 3 words in 1 messages so far");
    // What is no text is an error, and changes nothing.
    tell(&mut ctx, "words", b"\xff").await;
    worker.until(|status| status.failed == 1).await;
    worker.stop().await;

    let mut reports = asker(&node, "reports");
    let config = r#"{"report_to": "reports", "report_every": 1}"#;
    PluginWorker::start(&node, &plugin, settings(config))
        .await
        .unwrap();
    let second = ask(&mut ctx, "words", b"four").await;
    assert_eq!(second, b"1 words; 4 words in 2 messages so far");
    assert_eq!(answer(&mut reports).await, b"4 words in 2 messages");

    let wrong = PluginWorker::start(
        &node,
        &plugin,
        WorkerSettings::new("w").config("{\"report_every\": 0}"),
    )
    .await;
    assert!(wrong.is_err_and(|error| error.to_string().contains("1 to 86400")));
    node.stop().await;
}

fn connection(peer: Option<[u8; 32]>) -> Connection {
    Connection {
        side: Side::Outlet,
        peer: peer.map(PeerIdentifier),
        attributes: peer.map_or_else(Vec::new, |_| vec![("role".to_owned(), "reader".to_owned())]),
        endpoint: None,
    }
}

async fn opened(config: &str, connection: &Connection) -> Result<(Interceptors, Interceptor), PluginError> {
    let interceptors = Interceptors::new(&sample("http-headers"), "web", config, Limits::default())?;
    let interceptor = interceptors.open(connection).await?;
    Ok((interceptors, interceptor))
}

fn replaced(verdict: Verdict) -> String {
    match verdict {
        Verdict::Replace(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "tests/plugins builds the samples and runs it"]
async fn the_header_injector_replaces_forged_headers_and_passes_bodies() {
    let (interceptors, mut web) = opened("", &connection(Some([7; 32]))).await.unwrap();
    let held = web
        .data(Direction::ToService, b"POST / HTTP/1.1\r\nX-Portolan-Peer: Ifor")
        .await;
    assert_eq!(replaced(held.unwrap()), "");
    let head = web
        .data(Direction::ToService, b"ged\r\nContent-Length: 10\r\n\r\nab")
        .await;
    assert_eq!(
        replaced(head.unwrap()),
        format!(
            "POST / HTTP/1.1\r\nContent-Length: 10\r\nX-Portolan-Peer: I{}\r\n\
             X-Portolan-Attribute-Role: reader\r\n\r\nab",
            "07".repeat(32)
        )
    );
    // Bodies and answers are not touched.
    assert_eq!(
        web.data(Direction::ToService, b"cdefg").await.unwrap(),
        Verdict::Pass
    );
    assert_eq!(
        web.data(Direction::ToClient, b"HTTP/1.1 200 OK\r\n")
            .await
            .unwrap(),
        Verdict::Pass
    );
    let next = web.data(Direction::ToService, b"hijGET / HTTP/1.1\r\n\r\n").await;
    assert!(replaced(next.unwrap()).starts_with("hijGET / HTTP/1.1\r\nX-Portolan-Peer: I07"));
    web.close().await;
    assert_eq!(interceptors.status().ended, 0);
}

#[tokio::test]
#[ignore = "tests/plugins builds the samples and runs it"]
async fn the_header_injector_ends_what_hides_requests_and_says_why() {
    let (interceptors, mut web) = opened("", &connection(None)).await.unwrap();
    let hostile = b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let verdict = web.data(Direction::ToService, hostile).await.unwrap();
    assert!(
        matches!(&verdict, Verdict::End(reason) if reason.contains("both a length")),
        "{verdict:?}"
    );
    assert_eq!(interceptors.status().ended, 1);

    let refused = opened("{\"prefix\": \"\"}", &connection(None))
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(refused.to_string().contains("X-Portolan-"), "{refused}");
}

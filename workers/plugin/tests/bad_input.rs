//! What somebody is told who brings a plugin that does not do, and what becomes of one that misbehaves.

mod support;

use std::time::Duration;

use portolan_plugin::{Digest, Limits, Plugin, PluginError, PluginWorker, State, WIT, WorkerSettings};
use portolan_runtime::Node;
use support::{PUPPET, ask, asker, engine, guest, load, module, puppet, rights, tell};

fn refusal(bytes: &[u8]) -> String {
    Plugin::load(&engine(), bytes).unwrap_err().to_string()
}

fn settings() -> WorkerSettings {
    WorkerSettings::new("p").rights(rights(&["reply", "from:local"]))
}

fn quick() -> Limits {
    Limits {
        time: Duration::from_millis(50),
        restart_first: Duration::from_millis(1),
        ..Limits::default()
    }
}

#[test]
fn a_file_that_is_no_component_is_refused() {
    assert!(refusal(b"PK\x03\x04").contains("does not begin as WebAssembly"));
    assert!(refusal(PUPPET.as_bytes()).contains("file does not begin as WebAssembly"));
    let plain = wat::parse_str("(module)").unwrap();
    assert!(refusal(&plain).contains("does not say which interface"));
    let empty = wat::parse_str("(component)").unwrap();
    assert!(refusal(&empty).contains("neither `handler`"));
    let mut cut = wat::parse_str("(component (core module (func)))").unwrap();
    cut.truncate(cut.len() - 2);
    assert!(refusal(&cut).contains("cannot be compiled"));
}

#[test]
fn another_version_of_the_interface_is_refused_and_named() {
    for other in ["0.0.9", "0.2.0"] {
        let version = format!("@{other}");
        let wat = PUPPET.replace("@0.1.0", &version);
        let error = refusal(&module(&wat, &WIT.replace("@0.1.0", &version), "worker"));
        assert!(error.contains(other) && error.contains("0.1.x"), "{error}");
    }
}

#[test]
fn what_needs_wasi_is_refused_with_what_to_do() {
    let component =
        wat::parse_str(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#).unwrap();
    let error = refusal(&component);
    assert!(
        error.contains("wasi:cli/environment@0.2.0") && error.contains("without WASI"),
        "{error}"
    );
}

#[test]
fn a_right_that_is_none_is_refused_when_the_plugin_is_added() {
    let error = refusal(&guest(PUPPET, "worker", &["reply", "root"]));
    assert!(error.contains("`root` is no right"), "{error}");
}

#[test]
fn a_digest_that_does_not_match_is_refused_before_anything_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    std::fs::write(&path, b"not even WebAssembly").unwrap();
    let pinned = Digest::of(b"something else");
    let error = Plugin::load_file(&engine(), &path, Some(&pinned)).unwrap_err();
    assert_eq!(
        error,
        PluginError::Digest {
            pinned,
            found: Digest::of(b"not even WebAssembly")
        }
    );
}

#[tokio::test]
async fn a_plugin_outlives_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    std::fs::write(&path, puppet()).unwrap();
    let digest = Digest::of(&puppet());
    let engine = engine();
    let plugin = Plugin::load_file(&engine, &path, Some(&digest)).unwrap();
    assert_eq!(plugin.digest(), digest);
    let node = Node::new().unwrap();
    let worker = PluginWorker::start(&node, &plugin, settings().limits(quick()))
        .await
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut ctx = asker(&node, "asker");
    assert_eq!(ask(&mut ctx, "p", b"e1").await, b"e1");
    // Even its restart.
    tell(&mut ctx, "p", b"trap").await;
    assert_eq!(ask(&mut ctx, "p", b"e2").await, b"e2");
    assert_eq!(worker.status().restarts, 1);
    let error = Plugin::load_file(&engine, &path, None).unwrap_err().to_string();
    assert!(
        error.contains("p.wasm") && error.contains("add the plugin again"),
        "{error}"
    );
    node.stop().await;
}

#[tokio::test]
async fn a_configuration_that_the_plugin_rejects_leaves_nothing_behind() {
    let node = Node::new().unwrap();
    let plugin = load(&puppet());
    for (config, wanted) in [
        ("reject", "the plugin rejects its configuration: I do not wis"),
        (
            "trap",
            "failed in `start`: wasm trap: wasm `unreachable` instruction executed",
        ),
        ("loop", "failed in `start`: it computed for longer than 50 ms"),
    ] {
        let settings = settings().config(config).limits(quick());
        let error = PluginWorker::start(&node, &plugin, settings)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(wanted), "{error}");
        node.ended(&"p".into()).await;
        assert!(!node.has_worker(&"p".into()));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_missing_right_is_named_and_the_plugin_goes_on() {
    let node = Node::new().unwrap();
    let mut secret = asker(&node, "secret");
    let worker = PluginWorker::start(&node, &load(&puppet()), settings())
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    assert_eq!(ask(&mut ctx, "p", b"ssecret").await, b"send:secret");
    assert_eq!(worker.status().refused_to_send, 1);
    assert_eq!(
        ask(&mut ctx, "p", b"Svalue").await,
        b"the plugin has no right `storage`"
    );
    assert!(secret.try_next().is_none());
    // With the right it arrives.
    let more = rights(&["reply", "from:local", "send:sec*"]);
    worker.replace(&worker.plugin(), None, Some(more)).await.unwrap();
    assert_eq!(ask(&mut ctx, "p", b"ssecret").await, b"ok");
    assert_eq!(support::answer(&mut secret).await, b"ssecret");
    node.stop().await;
}

#[tokio::test]
async fn who_may_not_reach_a_plugin_is_told() {
    let node = Node::new().unwrap();
    let settings = WorkerSettings::new("p").rights(rights(&["reply", "from:peers"]));
    let worker = PluginWorker::start(&node, &load(&puppet()), settings)
        .await
        .unwrap();
    let error = node.send("p", b"e".to_vec()).await.unwrap_err().to_string();
    assert!(error.contains("was not granted `from:local`"), "{error}");
    assert_eq!(worker.status().refused_to_reach, 1);
    node.stop().await;
}

#[tokio::test]
async fn an_address_where_nobody_is_gives_an_error_to_the_plugin() {
    let node = Node::new().unwrap();
    let settings = WorkerSettings::new("p").rights(rights(&["reply", "from:local", "send:*"]));
    PluginWorker::start(&node, &load(&puppet()), settings)
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    assert_eq!(
        ask(&mut ctx, "p", b"snobody").await,
        b"there is no worker at 0#nobody"
    );
    assert_eq!(
        ask(&mut ctx, "p", b"s300#x").await,
        b"`300#x` is no address: what stands before `#` must be a number from 0 to 255"
    );
    node.stop().await;
}

#[tokio::test]
async fn an_endless_loop_ends_the_instance_and_not_the_worker() {
    let node = Node::new().unwrap();
    let worker = PluginWorker::start(&node, &load(&puppet()), settings().limits(quick()))
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    tell(&mut ctx, "p", b"loop").await;
    // It waits for the next instance.
    assert_eq!(ask(&mut ctx, "p", b"n").await, 1u32.to_le_bytes());
    let status = worker.status();
    assert_eq!(
        (status.failed, status.restarts, status.state),
        (1, 1, State::Running)
    );
    assert_eq!(
        status.last_error.unwrap(),
        "the plugin failed in `handle`: it computed for longer than 50 ms"
    );
    node.stop().await;
}

#[tokio::test]
async fn four_gibibytes_are_not_to_be_had() {
    let node = Node::new().unwrap();
    let worker = PluginWorker::start(&node, &load(&puppet()), settings().limits(quick()))
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    tell(&mut ctx, "p", b"memory").await;
    worker.until(|status| status.restarts == 1).await;
    let error = worker.status().last_error.unwrap();
    assert!(
        error.contains("it wanted 4294967296 bytes of memory, and 67108864 is its limit"),
        "{error}"
    );
    assert_eq!(ask(&mut ctx, "p", b"e").await, b"e");
    assert_eq!(worker.status().memory, 2 * 65536);
    tell(&mut ctx, "p", b"random").await;
    worker.until(|status| status.restarts == 2).await;
    assert!(worker.status().last_error.unwrap().contains("70000 random bytes"));
    node.stop().await;
}

#[tokio::test]
async fn a_flood_of_log_lines_is_counted_and_not_written() {
    let node = Node::new().unwrap();
    let worker = PluginWorker::start(&node, &load(&puppet()), settings())
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    let begin = std::time::Instant::now();
    ask(&mut ctx, "p", b"flood").await;
    let windows = 2 + begin.elapsed().as_secs();
    let status = worker.status();
    assert_eq!(status.log_lines + status.log_lines_dropped, 1000);
    assert!(status.log_lines <= 10 * windows, "{}", status.log_lines);
    node.stop().await;
}

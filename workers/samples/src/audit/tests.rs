use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use portolan_runtime::{Message, Node, Payload, WorkerOptions, services::Echo};
use serde_json::{Value, json};

use super::file::Rotated;
use super::*;

type Told = Arc<Mutex<Vec<Result<(), String>>>>;

fn settings(config: Value) -> AuditSettings {
    serde_json::from_value(config).unwrap()
}

/// A node with an audit in front of an echo.
fn audited(config: Value, folder: &std::path::Path) -> (Node, Told) {
    let node = Node::new().unwrap();
    node.start_sync_worker("backend", Echo).unwrap();
    let told = Told::default();
    let telling = Arc::clone(&told);
    let report = Box::new(move |result: Result<(), &dyn std::fmt::Display>| {
        telling.lock().push(result.map_err(|reason| reason.to_string()));
    });
    let audit = Audit::new(settings(config), folder, report).unwrap();
    let options = WorkerOptions::new("watched").mailbox(audit.mailbox());
    node.start_task(options, move |ctx| audit.run(ctx)).unwrap();
    (node, told)
}

async fn ask(node: &Node, body: &[u8]) -> Option<Vec<u8>> {
    let mut asker = node.context("asker").unwrap();
    let message = Message::new("watched", "asker", Payload::copy_from(body));
    asker.send_message(message).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), asker.next())
        .await
        .unwrap()?;
    Some(answer.message.payload.to_vec())
}

/// Waits until so many messages were handled.
async fn told(told: &Told, count: usize) -> Vec<Result<(), String>> {
    loop {
        let all = told.lock().clone();
        if all.len() >= count {
            return all;
        }
        tokio::task::yield_now().await;
    }
}

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn each_message_in_either_direction_is_one_line_before_it_passes() {
    let folder = tempfile::tempdir().unwrap();
    let (node, _) = audited(
        json!({ "to": "backend", "file": "audit.jsonl", "digest": true }),
        folder.path(),
    );
    assert_eq!(ask(&node, b"hello").await.unwrap(), b"hello");
    let lines = lines(&folder.path().join("audit.jsonl"));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(
        (&lines[0]["what"], &lines[1]["what"]),
        (&json!("request"), &json!("answer"))
    );
    assert_eq!(
        (&lines[0]["from"], &lines[0]["to"]),
        (&json!("0#asker"), &json!("0#backend"))
    );
    assert_eq!(
        (&lines[1]["from"], &lines[1]["to"]),
        (&json!("0#backend"), &json!("0#asker"))
    );
    assert_eq!(lines[0]["size"], 5);
    assert_eq!(
        lines[0]["sha256"],
        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    assert!(lines[0].get("peer").is_none());
    node.stop().await;
}

#[tokio::test]
async fn a_message_whose_line_cannot_be_written_does_not_pass_and_the_next_one_tries_again() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("logs");
    std::fs::create_dir(&inside).unwrap();
    let file = inside.join("audit.jsonl");
    let (node, results) = audited(json!({ "to": "backend", "file": file }), folder.path());
    assert!(ask(&node, b"1").await.is_some());
    // The folder is gone: nothing can be written, whoever asks (also not by root).
    std::fs::remove_dir_all(&inside).unwrap();
    for _ in 0..3 {
        node.send_message(Message::new("watched", "nobody", Payload::copy_from(b"2")))
            .await
            .unwrap();
    }
    let all = told(&results, 5).await;
    assert!(all[2..5].iter().all(Result::is_err), "{all:?}");
    assert!(all[2].as_ref().unwrap_err().contains("audit.jsonl"), "{all:?}");
    std::fs::create_dir(&inside).unwrap();
    assert!(ask(&node, b"3").await.is_some());
    let lines = lines(&file);
    assert_eq!(
        (&lines[0]["what"], &lines[0]["lines"]),
        (&json!("missing"), &json!(3))
    );
    assert_eq!(lines.len(), 3);
    node.stop().await;
}

#[tokio::test]
async fn where_the_owner_prefers_it_messages_pass_unwritten() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("logs");
    std::fs::create_dir(&inside).unwrap();
    let file = inside.join("audit.jsonl");
    let config = json!({ "to": "backend", "file": file, "when-unwritable": "pass" });
    let (node, _) = audited(config, folder.path());
    std::fs::remove_dir_all(&inside).unwrap();
    assert!(ask(&node, b"1").await.is_some());
    node.stop().await;
}

#[test]
fn a_full_disk_leaves_no_half_line() {
    // `/dev/full` is a disk that is full.
    let mut full = Rotated::new("/dev/full".into(), 10_000, 1);
    assert_eq!(
        full.write(b"line\n").unwrap_err().kind(),
        std::io::ErrorKind::StorageFull
    );
    let audit = Audit::new(
        settings(json!({ "to": "b", "file": "/nowhere/audit" })),
        std::path::Path::new("/"),
        Box::new(|_| {}),
    );
    assert!(audit.err().unwrap().contains("/nowhere/audit"));
}

#[test]
fn files_are_rotated_and_never_more_than_was_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut file = Rotated::new(path.clone(), MIN_BYTES, 2);
    let line = [b"x".repeat(999), b"\n".to_vec()].concat();
    for _ in 0..50 {
        file.write(&line).unwrap();
    }
    let mut sizes: Vec<(String, u64)> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                entry.metadata().unwrap().len(),
            )
        })
        .collect();
    sizes.sort();
    assert_eq!(
        sizes,
        [("a".into(), 2000), ("a.1".into(), 4000), ("a.2".into(), 4000)]
    );
    // Somebody moves it away: there is a new one.
    std::fs::rename(&path, folder.path().join("moved")).unwrap();
    file.write(&line).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1000);
}

#[test]
fn a_line_that_was_cut_off_gets_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    std::fs::write(&path, "{\"time\":\"20").unwrap();
    let mut file = Rotated::new(path.clone(), MIN_BYTES, 0);
    file.write(b"{}\n").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"time\":\"20\n{}\n");
}

#[test]
fn times_are_written_as_everybody_writes_them() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00.000000Z"),
        (951_782_399, "2000-02-28T23:59:59.000000Z"),
        (951_782_400, "2000-02-29T00:00:00.000000Z"),
        (1_709_251_200, "2024-03-01T00:00:00.000000Z"),
        (4_102_444_799, "2099-12-31T23:59:59.000000Z"),
    ] {
        assert_eq!(line::time(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    for (config, expected) in [
        (json!({ "file": "a" }), "missing field `to`"),
        (json!({ "to": "b", "keep": 1 }), "only with `file`"),
        (
            json!({ "to": "b", "file": "a", "max-bytes": 10 }),
            "at least 4096",
        ),
        (json!({ "to": "b", "file": "a", "keep": 101 }), "at most 100"),
        (json!({ "to": "b", "file": ".." }), "not the name of a file"),
    ] {
        let error = serde_json::from_value::<AuditSettings>(config)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}

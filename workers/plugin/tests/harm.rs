//! Plugins whose author means harm: what they cost the node is bounded, and nobody else notices.

mod support;

use std::time::Duration;

use portolan_plugin::{Limits, MAX_HANDED_OVER, Plugin, PluginWorker, WorkerSettings, componentize};
use portolan_runtime::{Message, Node, Payload, Route};
use support::{PUPPET, ask, asker, engine, guest, load, puppet, rights, tell};

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

#[tokio::test]
async fn what_a_call_sends_and_nobody_takes_is_bounded_in_bytes() {
    const MIB: usize = 1024 * 1024;
    let node = Node::new().unwrap();
    let worker = PluginWorker::start(
        &node,
        &load(&puppet()),
        settings().rights(rights(&["reply", "from:local", "send:sink"])),
    )
    .await
    .unwrap();
    let mut sink = asker(&node, "sink");
    let mut ctx = asker(&node, "asker");
    tell(&mut ctx, "p", b"Bsink").await;
    // Nothing is taken before all have been tried.
    while worker.status().sent + worker.status().refused_to_send < 64 {
        tokio::task::yield_now().await;
    }
    let status = worker.status();
    for _ in 0..status.sent {
        assert_eq!(support::answer(&mut sink).await.len(), MIB);
    }
    assert_eq!(ask(&mut ctx, "p", b"e").await, b"e");
    assert_eq!(status.sent + status.refused_to_send, 64);
    // What waits in the mailbox, which takes a message that is as large as itself, and what waits for it.
    let most = MAX_HANDED_OVER / MIB + 4;
    assert!(status.sent as usize <= most, "{} of 64 were sent", status.sent);
    node.stop().await;
}

#[tokio::test]
async fn an_answer_goes_along_a_return_route_and_nowhere_else() {
    let node = Node::new().unwrap();
    let worker = PluginWorker::start(&node, &load(&puppet()), settings())
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    // Whoever stands at the first hop can lead to many others: it is not for the plugin to choose among them.
    let back = Route::from_iter([ctx.address().clone(), "behind".into()]);
    let message = Message::new("p", back, Payload::copy_from(b"sasker"));
    ctx.send_message(message).await.unwrap();
    assert_eq!(support::answer(&mut ctx).await, b"send:asker");
    assert_eq!(worker.status().refused_to_send, 1);
    // A route that a message came by is one, also later.
    assert_eq!(ask(&mut ctx, "p", b"e").await, b"e");
    let back = Route::from_iter([ctx.address().clone(), "behind".into()]);
    let message = Message::new("p", back, Payload::copy_from(b"sasker"));
    ctx.send_message(message).await.unwrap();
    assert_eq!(support::answer(&mut ctx).await, b"sasker");
    assert_eq!(support::answer(&mut ctx).await, b"ok");
    node.stop().await;
}

#[tokio::test]
async fn timers_that_are_always_due_hold_up_no_message() {
    let node = Node::new().unwrap();
    PluginWorker::start(&node, &load(&puppet()), settings())
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    assert_eq!(ask(&mut ctx, "p", b"z").await, b"ok");
    for _ in 0..100 {
        assert_eq!(ask(&mut ctx, "p", b"e").await, b"e");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_right_that_is_missed_is_named_on_one_line() {
    let node = Node::new().unwrap();
    PluginWorker::start(&node, &load(&puppet()), settings())
        .await
        .unwrap();
    let mut ctx = asker(&node, "asker");
    let answer = ask(&mut ctx, "p", b"sx\nERROR \x1b[2Kthe node is on fire").await;
    assert_eq!(answer, b"send:x\\nERROR \\u{1b}[2Kthe node is on fire");
    node.stop().await;
}

/// Numbers that look random, the same ones each time (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// A file that was damaged in one of the ways in which files are.
fn damaged(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len());
        match dice.below(6) {
            0 => bytes.truncate(at.max(9)),
            1 => bytes[at] ^= 1 << dice.below(8),
            2 => bytes[at] = dice.below(256) as u8,
            3 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, 0x0b][dice.below(6)],
            4 => {
                let end = (at + 1 + dice.below(16)).min(bytes.len());
                bytes.drain(at..end);
                bytes.resize(bytes.len().max(9), 0);
            }
            _ => {
                let end = (at + 1 + dice.below(64)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                let to = dice.below(bytes.len());
                bytes.splice(to..to, again);
            }
        }
    }
    bytes
}

/// How many files are damaged. Longer by hand: `PORTOLAN_FUZZ_ROUNDS=100000 PORTOLAN_FUZZ_SEED=1`.
fn rounds() -> usize {
    let rounds = std::env::var("PORTOLAN_FUZZ_ROUNDS").ok();
    rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(300)
}

fn seed() -> u64 {
    let seed = std::env::var("PORTOLAN_FUZZ_SEED").ok();
    seed.and_then(|seed| seed.parse().ok()).unwrap_or(7)
}

#[tokio::test]
async fn a_damaged_file_is_refused_or_runs_within_its_limits() {
    let engine = engine();
    let core = puppet();
    let component = componentize(&core).unwrap().into_owned();
    let filter = guest(include_str!("guests/filter.wat"), "interceptor", &[]);
    let node = Node::new().unwrap();
    let honest = Plugin::load(&engine, &core).unwrap();
    PluginWorker::start(
        &node,
        &honest,
        WorkerSettings::new("honest").rights(rights(&["reply", "from:local"])),
    )
    .await
    .unwrap();
    let mut ctx = asker(&node, "asker");
    let mut dice = Dice(seed());
    let mut ran = 0;
    for round in 0..rounds() {
        let bytes = damaged([&core, &component, &filter][round % 3], &mut dice);
        let plugin = match Plugin::load(&engine, &bytes) {
            Ok(plugin) => plugin,
            Err(error) => {
                let text = error.to_string();
                assert!(
                    !text.contains("gave up"),
                    "seed {}, round {round}: {text}",
                    seed()
                );
                assert!(!text.contains('\n') && text.len() < 8192, "{text}");
                continue;
            }
        };
        let settings = WorkerSettings::new("p").rights(rights(&["reply", "from:local", "storage", "send:*"]));
        let Ok(worker) = PluginWorker::start(&node, &plugin, settings.limits(quick())).await else {
            continue;
        };
        ran += 1;
        for body in [
            &b"e"[..],
            b"sasker",
            b"w\x40",
            b"Sx",
            b"G",
            b"p",
            b"q",
            b"f",
            b"x",
            b"W",
            b"random",
        ] {
            tell(&mut ctx, "p", body).await;
        }
        worker.stop().await;
        while ctx.try_next().is_some() {}
    }
    assert!(ran > 0, "all files were refused");
    assert_eq!(ask(&mut ctx, "honest", b"e").await, b"e");
    node.stop().await;
}

#[test]
fn the_type_that_a_module_says_it_has_is_not_looked_at() {
    // A section whose packages need one another in a circle would end the process of whoever follows them.
    let mut module = wat::parse_str(PUPPET).unwrap();
    let note = b"\x0ecomponent-type\0asm\x0d\0\x01\0 whatever";
    module.extend([0, note.len() as u8]);
    module.extend(note);
    assert!(componentize(&module).is_ok());
}

/// The puppet with another `describe`, or other results.
fn puppet_that(from: &str, to: &str) -> Vec<u8> {
    assert!(PUPPET.contains(from));
    guest(&PUPPET.replace(from, to), "worker", &["reply", "from:local"])
}

#[test]
fn what_a_plugin_says_of_itself_is_looked_at() {
    const PLACE: &str = "describe\") (result i32) (i32.const 1024))";
    let engine = engine();
    for (body, wanted) in [
        // A record that is not aligned, one that lies outside, one whose texts do.
        ("(i32.const 1025)", "not aligned"),
        ("(i32.const -4)", "out of bounds"),
        (
            "(i32.store (i32.const 1024) (i32.const -8)) (i32.const 1024)",
            "out of bounds",
        ),
        (
            "(i32.store (i32.const 1028) (i32.const -1)) (i32.const 1024)",
            "out of bounds",
        ),
        // A text that is none.
        (
            "(i32.store8 (i32.load (i32.const 1024)) (i32.const 255)) (i32.const 1024)",
            "invalid utf-8",
        ),
        // Rights without end, and a text of almost all memory.
        (
            "(i32.store (i32.const 1052) (i32.const 268435455)) (i32.const 1024)",
            "out of bounds",
        ),
        (
            "(i32.store (i32.const 1052) (i32.const 8000)) (i32.const 1024)",
            "",
        ),
        (
            "(drop (memory.grow (i32.const 300))) (i32.store (i32.const 1024) (i32.const 65536))
             (i32.store (i32.const 1028) (i32.const 18000000)) (i32.const 1024)",
            "too much data",
        ),
        // What it may not do before there is a worker.
        (
            "(call $own_address (i32.const 3072)) (i32.const 1024)",
            "there is no worker yet",
        ),
        (
            "(call $timer (i32.const 1) (i32.const 1) (i32.const 3072)) (i32.const 1024)",
            "there is no worker yet",
        ),
        (
            "(call $send (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 3072)) (i32.const 1024)",
            "there is no worker yet",
        ),
        // Results that the host shall write where there is nothing.
        (
            "(call $random (i32.const 8) (i32.const -4)) (i32.const 1024)",
            "out of bounds",
        ),
        (
            "(call $log (i32.const 9) (i32.const 0) (i32.const 0)) (i32.const 1024)",
            "",
        ),
        (
            "(call $log (i32.const 1) (i32.const 0) (i32.const -1)) (i32.const 1024)",
            "out of bounds",
        ),
        // Deep down.
        (
            "(call $realloc (i32.const 0) (i32.const 0) (i32.const 1) (i32.const -70000)) drop (unreachable)",
            "unreachable",
        ),
    ] {
        let bytes = puppet_that(PLACE, &format!("describe\") (result i32) {body})"));
        let error = match Plugin::load(&engine, &bytes) {
            Ok(_) => panic!("{body} is taken"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(wanted), "{body}: {error}");
    }
    let deep = puppet_that(
        PLACE,
        "describe\") (result i32) (call $down (i32.const 0))) (func $down (param i32) (result i32) (i32.add (i32.const 1) (call $down (local.get 0))))",
    );
    let error = Plugin::load(&engine, &deep).unwrap_err().to_string();
    assert!(error.contains("call stack exhausted"), "{error}");
}

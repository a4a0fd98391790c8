//! Plugins on a node: added, granted rights, run as workers, replaced, and everything that can be wrong with them.

use std::path::PathBuf;
use std::time::Duration;

use portolan_tests::{Home, Outcome, eventually};
use serde_json::Value;

use crate::{exit, support};

/// The puppet of `workers/plugin/tests/guests` does what the first byte of a message says. A message of the command line begins
/// with its length, so it is told by that: 101 bytes are `e`, an echo.
const ECHO: usize = 0x65;
const LOOP: usize = 0x6c;
const MEMORY: usize = 0x6d;
const TRAP: usize = 0x74;
const FLOOD: usize = 0x66;
const SEND: usize = 0x73;
const STORE: usize = 0x53;
const GET: usize = 0x47;

struct Owner {
    home: Home,
}

impl Owner {
    /// With a node and this plugin in a file.
    fn with(bytes: &[u8]) -> Self {
        let home = Home::new();
        home.ok(["node", "create", "n1"]);
        let owner = Self { home };
        owner.file("puppet.wasm", bytes);
        owner
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn add(&self, more: &[&str]) -> Outcome {
        let file = self.home.path().join("puppet.wasm");
        let line = ["plugin", "add", file.to_str().unwrap(), "--name", "puppet"];
        self.home.run(line.into_iter().chain(more.iter().copied()))
    }

    fn start(&self, more: &[&str]) -> Outcome {
        let line = ["worker", "start", "--plugin", "puppet", "--address", "p"];
        self.home.run(line.into_iter().chain(more.iter().copied()))
    }

    /// Says something of so many bytes.
    fn tell(&self, length: usize) -> Outcome {
        let text = "x".repeat(length);
        self.home.run([
            "message",
            "send",
            &text,
            "--from",
            "n1",
            "--to",
            "/service/p",
            "--timeout",
            "3s",
        ])
    }

    fn echoes(&self) -> bool {
        self.tell(ECHO).stdout == "x".repeat(ECHO)
    }

    fn worker(&self) -> Value {
        self.home.json(["worker", "show", "p"])
    }

    fn plugin(&self) -> Value {
        self.home.json(["plugin", "show", "puppet"])
    }
}

#[track_caller]
fn succeeds(outcome: &Outcome) {
    assert!(outcome.succeeded(), "{outcome}");
}

#[track_caller]
fn fails(outcome: &Outcome, code: Option<i32>, says: &[&str]) {
    assert_eq!(outcome.code, code, "{outcome}");
    outcome.says(says);
}

#[test]
fn a_plugin_is_added_run_replaced_and_removed() {
    let owner = Owner::with(&support::guest(
        support::PUPPET,
        "worker",
        &["reply", "from:local", "send:other"],
    ));
    let added = owner.add(&[]);
    succeeds(&added);
    // What leads further was not granted without a word.
    added.says(&["send:other", "--grant"]);
    let plugin = owner.plugin();
    assert_eq!(
        plugin["rights"],
        serde_json::json!(["reply", "from:local"]),
        "{plugin}"
    );
    assert_eq!(plugin["verdict"], "intact", "{plugin}");
    fails(&owner.add(&[]), exit::ALREADY_EXISTS, &["--replace"]);
    succeeds(&owner.start(&[]));
    assert!(owner.echoes());
    let worker = owner.worker();
    assert_eq!(
        (&worker["state"], &worker["handled"]),
        (&"running".into(), &1.into()),
        "{worker}"
    );
    assert!(worker["memory"].as_u64().unwrap() >= 65536, "{worker}");
    fails(
        &owner.home.run(["plugin", "remove", "puppet"]),
        exit::ALREADY_EXISTS,
        &["in use by the worker p", "worker stop p"],
    );
    // Another version: the worker goes over, and what was granted stays.
    let before = owner.plugin()["digest"].clone();
    owner.file(
        "puppet.wasm",
        &support::guest(support::PUPPET, "worker", &["reply", "from:local", "storage"]),
    );
    succeeds(&owner.add(&["--replace"]));
    assert_ne!(owner.plugin()["digest"], before);
    assert_eq!(owner.plugin()["not_granted"], serde_json::json!(["storage"]));
    assert!(owner.echoes());
    assert_eq!(owner.worker()["handled"], 2, "the worker is the same one");
    // A kill is no harm, nor that the file is gone.
    std::fs::remove_file(owner.home.path().join("puppet.wasm")).unwrap();
    owner.home.kill_processes();
    owner.home.ok(["node", "start", "n1"]);
    assert!(owner.echoes());
    owner.home.ok(["worker", "stop", "p"]);
    owner.home.ok(["plugin", "remove", "puppet"]);
    assert_eq!(owner.home.json(["plugin", "list"]), serde_json::json!([]));
    let left = std::fs::read_dir(owner.home.path().join("nodes/n1/plugins")).unwrap();
    assert_eq!(left.count(), 0, "the copies are gone");
}

#[test]
fn what_is_no_plugin_is_refused_with_what_to_do() {
    let owner = Owner::with(b"no component");
    fails(
        &owner.add(&[]),
        exit::INVALID_ARGUMENT,
        &["no WebAssembly component"],
    );
    fails(
        &owner.home.run(["plugin", "add", "/dev/zero", "--name", "puppet"]),
        exit::INVALID_ARGUMENT,
        &["/dev/zero", "no regular file"],
    );
    let older = support::PUPPET.replace("@0.1.0", "@0.0.9");
    let wit = portolan_plugin::WIT.replace("@0.1.0", "@0.0.9");
    owner.file("puppet.wasm", &support::module(&older, &wit, "worker"));
    fails(
        &owner.add(&[]),
        exit::INVALID_ARGUMENT,
        &["0.0.9", "build it again"],
    );
    owner.file("puppet.wasm", &support::puppet());
    let wrong = "0".repeat(64);
    fails(&owner.add(&["--digest", &wrong]), Some(9), &["is pinned", &wrong]);
    fails(
        &owner.add(&["--grant", "everything"]),
        exit::INVALID_ARGUMENT,
        &["is no right"],
    );
    fails(
        &owner.add(&["--max-memory", "0"]),
        exit::INVALID_ARGUMENT,
        &["max-memory is 1 to"],
    );
    fails(
        &owner.start(&[]),
        exit::NOT_FOUND,
        &["no plugin `puppet`", "plugin add"],
    );
    let digest = portolan_plugin::Digest::of(&support::puppet()).to_string();
    succeeds(&owner.add(&["--digest", &format!("sha256:{digest}")]));
    for (config, says) in [
        ("\"r\"", "rejects its configuration"),
        ("\"t\"", "failed in `start`"),
        ("\"l\"", "failed in `start`"),
    ] {
        let refused = owner.start(&["--config", config]);
        assert!(!refused.succeeded(), "{refused}");
        refused.says(&["the worker `p` cannot start", says]);
        fails(
            &owner.home.run(["worker", "show", "p"]),
            exit::NOT_FOUND,
            &["no worker `p`"],
        );
    }
    succeeds(&owner.start(&[]));
}

#[test]
fn a_plugin_that_traps_loops_or_grows_is_started_again_and_nothing_else_notices() {
    let owner = Owner::with(&support::puppet());
    succeeds(&owner.add(&["--max-time", "100ms", "--max-memory", "8"]));
    succeeds(&owner.start(&[]));
    for (number, harm) in [TRAP, LOOP, MEMORY].into_iter().enumerate() {
        assert!(!owner.tell(harm).succeeded());
        // The node goes on meanwhile.
        assert_eq!(
            owner
                .home
                .ok(["message", "send", "hi", "--to", "/node/n1/service/uppercase"]),
            "HI"
        );
        eventually("the plugin was started again", Duration::from_secs(30), || {
            let worker = owner.worker();
            worker["state"] == "running" && worker["restarts"] == number as u64 + 1
        });
        assert!(owner.echoes());
    }
    let worker = owner.worker();
    assert_eq!(worker["failed"], 3, "{worker}");
    assert!(worker["last_failure"].is_string(), "{worker}");
    // A flood of log lines is cut, and the log says so.
    owner.tell(FLOOD);
    assert!(owner.echoes());
    assert!(owner.home.logs().matches("one of many lines").count() < 100);
}

#[test]
fn a_right_that_is_missing_is_named_and_can_be_granted() {
    let owner = Owner::with(&support::guest(
        support::PUPPET,
        "worker",
        &["reply", "from:local", "storage"],
    ));
    succeeds(&owner.add(&["--grant", "reply", "--allow-from", "local"]));
    succeeds(&owner.start(&[]));
    let to = "x".repeat(SEND);
    owner.tell(SEND);
    assert!(
        owner.home.logs().contains(&format!("has no right `send:{to}`")),
        "the log names it"
    );
    assert_eq!(owner.tell(STORE).stdout, "the plugin has no right `storage`");
    succeeds(&owner.add(&["--replace", "--grant-all"]));
    assert_eq!(owner.tell(STORE).stdout, "ok");
    assert_eq!(owner.tell(GET).stdout.len(), STORE);
    // What it keeps survives a kill, and goes with the worker.
    owner.home.kill_processes();
    owner.home.ok(["node", "start", "n1"]);
    assert_eq!(owner.tell(GET).stdout.len(), STORE);
    owner.home.ok(["worker", "stop", "p"]);
    succeeds(&owner.start(&["--grant", &format!("send:{to}")]));
    assert_eq!(owner.tell(GET).stdout, "");
    assert!(owner.worker()["rights"].to_string().contains(&to));
}

#[test]
fn a_copy_that_was_changed_or_removed_is_not_run_and_the_owner_is_told() {
    let owner = Owner::with(&support::puppet());
    succeeds(&owner.add(&[]));
    succeeds(&owner.start(&[]));
    let digest = owner.plugin()["digest"].as_str().unwrap().to_owned();
    let copy = owner.home.path().join(format!("nodes/n1/plugins/{digest}.wasm"));
    for (change, verdict, says) in [
        (true, "changed", "is pinned"),
        (false, "missing", "cannot be read"),
    ] {
        if change {
            std::fs::write(&copy, b"another").unwrap();
        } else {
            std::fs::remove_file(&copy).unwrap();
        }
        assert_eq!(owner.plugin()["verdict"], verdict);
        if change {
            assert!(owner.echoes(), "what runs goes on");
        }
        owner.home.kill_processes();
        owner.home.ok(["node", "start", "n1"]);
        let worker = owner.worker();
        assert_eq!(worker["state"], "failed", "{worker}");
        assert!(worker["problem"].as_str().unwrap().contains(says), "{worker}");
        assert!(worker["hint"].as_str().unwrap().contains("--replace"), "{worker}");
    }
    // What the hint says helps.
    succeeds(&owner.add(&["--replace"]));
    assert_eq!(owner.worker()["state"], "running");
    assert!(owner.echoes());
}

#[test]
fn the_configuration_file_of_a_node_has_its_plugins() {
    let home = Home::new();
    std::fs::write(home.path().join("puppet.wasm"), support::puppet()).unwrap();
    let file = home.path().join("node.yaml");
    // The path is relative to the file.
    let text = "name: n1\nplugins:\n  puppet: { file: puppet.wasm, max-memory: 8 }\nworkers:\n  p: { plugin: puppet }\n";
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    home.json(["node", "create", path, "--check"]);
    home.ok(["node", "create", path]);
    let owner = Owner { home };
    assert!(owner.echoes());
    assert_eq!(owner.plugin()["limits"]["memory_mib"], 8);
    std::fs::write(
        &file,
        text.replace("puppet.wasm", "nowhere.wasm").replace("n1", "n2"),
    )
    .unwrap();
    let refused = owner.home.fails(["node", "create", path]);
    refused.says(&["node.yaml, line 3", "nowhere.wasm"]);
}

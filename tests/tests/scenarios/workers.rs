//! Workers that are started by name, on nodes of a program with a type of its own (`node/examples/custom_node.rs`).

use std::time::Duration;

use portolan_tests::{Home, Outcome, Project, binary, eventually};
use serde_json::Value;

use crate::exit;

const GREETING: &str = r#"{"greeting": "Good morning"}"#;

fn custom() -> Home {
    Home::new().of_program(binary::example("custom_node"))
}

/// A home with a node that has the greeter `hello`.
fn with_greeter() -> Home {
    let home = custom();
    home.ok(["node", "create", "n1"]);
    home.ok([
        "worker",
        "start",
        "greeter",
        "--address",
        "hello",
        "--config",
        GREETING,
    ]);
    home
}

fn greet(home: &Home, name: &str) -> Outcome {
    home.run(["message", "send", name, "--from", "n1", "--to", "/service/hello"])
}

fn shown(home: &Home) -> Value {
    home.json(["worker", "show", "hello"])
}

#[test]
fn a_worker_is_started_by_the_name_of_its_type_counted_and_stopped() {
    let home = custom();
    home.ok(["node", "create", "n1"]);
    let types = home.json(["worker", "types"]);
    assert!(
        types
            .as_array()
            .unwrap()
            .iter()
            .any(|known| known["name"] == "greeter"),
        "{types}"
    );
    assert_eq!(
        home.ok([
            "worker",
            "start",
            "greeter",
            "--address",
            "hello",
            "--config",
            GREETING
        ]),
        "/service/hello"
    );
    for name in ["World", "Moon"] {
        assert_eq!(greet(&home, name).stdout, format!("Good morning, {name}!"));
    }
    // What is no text is a message that fails.
    home.fails([
        "message",
        "send",
        "--hex",
        "ff",
        "--from",
        "n1",
        "--to",
        "/service/hello",
        "--timeout",
        "200ms",
    ]);
    let worker = shown(&home);
    assert_eq!(worker["state"], "running", "{worker}");
    assert_eq!(
        (&worker["handled"], &worker["failed"]),
        (&Value::from(2), &Value::from(1)),
        "{worker}"
    );
    assert!(worker["last_failure"].is_string(), "{worker}");
    assert_eq!(worker["config"]["greeting"], "Good morning");
    let list = home.json(["worker", "list", "--started"]);
    assert_eq!(list["list"][0]["address"], "hello", "{list}");
    let node = home.json(["node", "show", "n1"]);
    assert_eq!(node["started_workers"][0]["type"], "greeter", "{node}");
    assert!(home.json(["worker", "list"]).to_string().contains("greeter"));

    home.ok(["worker", "stop", "hello"]);
    let gone = home.fails(["worker", "show", "hello"]);
    assert_eq!(gone.code, exit::NOT_FOUND, "{gone}");
    assert!(!greet(&home, "World").succeeded());
    assert_eq!(home.fails(["worker", "stop", "hello"]).code, exit::NOT_FOUND);
    // The address is free again.
    home.ok([
        "worker",
        "start",
        "greeter",
        "--address",
        "hello",
        "--config",
        GREETING,
    ]);
}

#[test]
fn a_configuration_that_its_type_does_not_take_is_refused_with_the_name_of_the_field() {
    let home = custom();
    home.ok(["node", "create", "n1"]);
    for (config, says) in [
        (r#"{"greting": "x"}"#, "missing field `greeting`"),
        (r#"{"greeting": "x", "loud": true}"#, "there is no field `loud`"),
        (r#"{"greeting": 7}"#, "`greeting`: invalid type"),
        ("[1]", "must be a map"),
        ("{", "line 1"),
        ("", "missing field `greeting`"),
    ] {
        let refused = home.fails(["worker", "start", "greeter", "--config", config]);
        assert_eq!(refused.code, exit::INVALID_ARGUMENT, "{refused}");
        refused.says(&[says]);
    }
    let unknown = home.fails(["worker", "start", "greter"]);
    assert_eq!(unknown.code, exit::NOT_FOUND, "{unknown}");
    unknown.says(&["did you mean `greeter`"]);
    let file = home.path().join("greeter.yaml");
    std::fs::write(&file, "greeting: Hi\n").unwrap();
    let file = file.to_str().unwrap();
    home.ok([
        "worker",
        "start",
        "greeter",
        "--address",
        "hello",
        "--config-file",
        file,
    ]);
    assert_eq!(greet(&home, "you").stdout, "Hi, you!");
    for (address, says) in [
        ("hello", "already has a worker at `hello`"),
        ("echo", "is in use"),
    ] {
        let taken = home.fails([
            "worker",
            "start",
            "greeter",
            "--address",
            address,
            "--config",
            GREETING,
        ]);
        assert_eq!(taken.code, exit::ALREADY_EXISTS, "{taken}");
        taken.says(&[says]);
    }
    // What was refused left nothing behind.
    let list = home.json(["worker", "list", "--started"]);
    assert_eq!(list["list"].as_array().unwrap().len(), 1, "{list}");
}

#[test]
fn workers_come_back_when_the_node_starts_again_also_after_it_was_killed() {
    let home = with_greeter();
    home.kill_processes();
    home.ok(["node", "start", "n1"]);
    assert_eq!(greet(&home, "you").stdout, "Good morning, you!");
    home.ok(["node", "stop", "n1"]);
    home.ok(["node", "start", "n1"]);
    assert_eq!(greet(&home, "you").stdout, "Good morning, you!");
    home.ok(["worker", "stop", "hello"]);
    home.kill_processes();
    home.ok(["node", "start", "n1"]);
    assert!(!greet(&home, "you").succeeded());
}

#[test]
fn a_type_that_the_program_does_not_know_is_reported_and_the_node_runs_all_the_same() {
    let home = with_greeter();
    home.ok(["node", "stop", "n1"]);
    // The same home, and a program without that type.
    let home = home.of_program(binary::portolan());
    home.ok(["node", "start", "n1"]);
    let worker = shown(&home);
    assert_eq!(worker["state"], "failed", "{worker}");
    let problem = worker["problem"].as_str().unwrap();
    assert!(problem.contains("no worker type `greeter`"), "{worker}");
    assert!(
        worker["hint"]
            .as_str()
            .unwrap()
            .contains("with the program that has it"),
        "{worker}"
    );
    assert!(home.json(["worker", "list"]).to_string().contains("greeter"));
    assert_eq!(
        home.ok(["message", "send", "hi", "--to", "/node/n1/service/uppercase"]),
        "HI"
    );
    home.ok(["node", "stop", "n1"]);
    let home = home.of_program(binary::example("custom_node"));
    home.ok(["node", "start", "n1"]);
    assert_eq!(greet(&home, "you").stdout, "Good morning, you!");
}

#[test]
fn the_configuration_file_of_a_node_has_its_workers() {
    let home = custom();
    let file = home.path().join("node.yaml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap().to_owned();
    write(
        "name: n1\nworkers:\n  hello:\n    type: greeter\n    config:\n      greeting: Hi\n      loud: true\n",
    );
    for check in [true, false] {
        let mut line = vec!["node", "create", &path];
        line.extend(check.then_some("--check"));
        let refused = home.fails(line);
        assert_eq!(refused.code, exit::INVALID_ARGUMENT, "{refused}");
        refused.says(&["node.yaml, line 3", "there is no field `loud`"]);
    }
    assert!(!home.json(["node", "list"]).to_string().contains("n1"));
    write(
        "name: n1\nworkers:\n  hello:\n    type: greeter\n    config: { greeting: $WORD }\nvariables: { WORD: Hi }\n",
    );
    let would = home.json(["node", "create", &path, "--check"]);
    assert!(
        would["steps"]
            .to_string()
            .contains("start the worker `hello`, a greeter"),
        "{would}"
    );
    home.ok(["node", "create", &path]);
    assert_eq!(greet(&home, "you").stdout, "Hi, you!");
}

#[test]
fn only_its_node_reaches_a_worker_until_the_owner_allows_more() {
    let project = Project::start();
    let home = custom();
    home.ok([
        "project",
        "enroll",
        &project.ticket(&["--attribute", "role=service", "--relay", "greeter"]),
    ]);
    home.ok(["node", "create", "n1"]);
    home.ok([
        "worker",
        "start",
        "greeter",
        "--address",
        "hello",
        "--config",
        GREETING,
    ]);
    home.ok(["relay", "create", "greeter"]);
    let client = project.member("client", &["--attribute", "role=client"]);
    let route = "/project/default/service/forward_to_greeter/secure/api/service/hello";
    let ask = |timeout: &str| {
        client
            .home
            .run(["message", "send", "you", "--to", route, "--timeout", timeout])
    };
    // The way is there: echo answers along it.
    let echo = route.replace("/hello", "/echo");
    eventually("the relay carries", Duration::from_secs(20), || {
        client
            .home
            .run(["message", "send", "you", "--to", &echo, "--timeout", "5s"])
            .succeeded()
    });
    assert!(!ask("500ms").succeeded());
    let worker = shown(&home);
    assert_eq!(worker["refused"], 1, "{worker}");
    assert_eq!(worker["policy"], Value::Null, "{worker}");
    // Over a plain connection there is no way at all, with a hop on it neither.
    home.ok(["service", "start", "hop"]);
    for route in ["/node/n1/service/hello", "/node/n1/service/hop/service/hello"] {
        home.fails(["message", "send", "you", "--to", route, "--timeout", "300ms"]);
    }
    assert_eq!(shown(&home)["handled"], 0);

    home.ok([
        "policy",
        "create",
        "--resource",
        "hello",
        "--allow",
        "role=client",
    ]);
    assert_eq!(ask("10s").stdout, "Good morning, you!");
    home.ok(["policy", "delete", "hello", "--yes"]);
    assert!(!ask("500ms").succeeded());
    // For all workers, or with the worker itself.
    home.ok([
        "policy",
        "create",
        "--resource-type",
        "worker",
        "--allow",
        "role=client",
    ]);
    assert_eq!(ask("10s").stdout, "Good morning, you!");
    home.ok(["worker", "stop", "hello"]);
    home.ok([
        "worker",
        "start",
        "greeter",
        "--address",
        "hello",
        "--config",
        GREETING,
        "--allow",
        "role=other",
    ]);
    assert!(!ask("500ms").succeeded());
    home.kill_processes();
    home.ok(["node", "start", "n1"]);
    eventually("the relay carries again", Duration::from_secs(20), || {
        client
            .home
            .run(["message", "send", "you", "--to", &echo, "--timeout", "5s"])
            .succeeded()
    });
    assert!(!ask("500ms").succeeded());
    assert_eq!(shown(&home)["policy"], "(= subject.role \"other\")");
}

#[test]
fn a_rate_limiter_and_an_audit_stand_in_front_of_a_worker() {
    let home = with_greeter();
    let audit = r#"{"to": "hello", "file": "audit.jsonl"}"#;
    home.ok([
        "worker",
        "start",
        "audit",
        "--address",
        "watched",
        "--config",
        audit,
    ]);
    // One byte in a second: after a message of a hundred, none passes for longer than this test lasts.
    let slow = r#"{"to": "watched", "bytes-per-second": 1, "per": "all"}"#;
    home.ok([
        "worker",
        "start",
        "rate-limiter",
        "--address",
        "slow",
        "--config",
        slow,
    ]);
    let name = "x".repeat(100);
    let ask = || home.run(["message", "send", &name, "--from", "n1", "--to", "/service/slow"]);
    assert_eq!(ask().stdout, format!("Good morning, {name}!"));
    for _ in 0..3 {
        assert!(!ask().succeeded());
    }
    let limiter = home.json(["worker", "show", "slow"]);
    assert_eq!(
        (&limiter["handled"], &limiter["failed"]),
        (&Value::from(1), &Value::from(3)),
        "{limiter}"
    );
    assert_eq!(limiter["last_failure"], "over the limit", "{limiter}");

    let file = home.path().join("nodes/n1/audit.jsonl");
    let lines: Vec<Value> = std::fs::read_to_string(&file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "a request and an answer: {lines:?}");
    assert_eq!(
        (&lines[0]["what"], &lines[0]["to"]),
        (&Value::from("request"), &Value::from("0#hello"))
    );
    // After a kill the file goes on where it was.
    home.kill_processes();
    home.ok(["node", "start", "n1"]);
    assert!(ask().succeeded());
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 4);

    let unwritable = r#"{"to": "hello", "file": "/proc/nowhere/audit"}"#;
    let refused = home.fails(["worker", "start", "audit", "--config", unwritable]);
    refused.says(&["/proc/nowhere/audit", "name another `file`"]);
    home.fails(["worker", "show", "audit"]);
}

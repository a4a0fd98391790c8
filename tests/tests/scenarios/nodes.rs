//! Nodes: names, ports, life and death.

use std::net::TcpListener;
use std::time::Duration;

use portolan_tests::project::Project;
use portolan_tests::{Home, Service, process, until};

use crate::exit;

#[test]
fn a_node_is_ready_when_the_command_returns_and_outlives_it() {
    let home = Home::new();
    // `run` waits for the end of both outputs: a background node must not hold them open.
    let outcome = home.run(["node", "create", "n1"]);
    assert!(outcome.succeeded(), "{outcome}");
    let shown = home.json(["node", "show", "n1"]);
    assert_eq!(shown["status"], "running", "{shown}");
    assert!(process::is_alive(home.node_process("n1")));
    assert_eq!(
        home.ok(["message", "send", "hello", "--to", "/node/n1/service/uppercase"]),
        "HELLO"
    );
}

#[test]
fn a_node_name_that_exists_is_refused_and_the_running_node_stays() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    let pid = home.node_process("n1");
    let refused = home.fails(["node", "create", "n1"]);
    assert_eq!(refused.code, exit::ALREADY_EXISTS, "{refused}");
    refused.says(&["n1"]);
    assert_eq!(home.node_process("n1"), pid);
}

#[test]
fn names_that_are_not_names_are_refused() {
    let home = Home::new();
    for name in ["n!", "n.1", "../n", "a/b", "", " ", "n1\n", "./config.yaml"] {
        home.fails(["node", "create", "--", name]);
    }
    assert!(home.processes().is_empty());
}

#[test]
fn a_port_in_use_is_refused_and_leaves_no_node() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = home.fails(["node", "create", "n1", "--tcp-listener-address", &address]);
    refused.says(&[&address]).says(&["in use"]);
    assert!(
        !home.json(["node", "list"]).to_string().contains("n1"),
        "a node that never ran is listed"
    );
    assert!(home.processes().is_empty(), "a process was left behind");
}

#[test]
fn an_inlet_on_a_port_in_use_is_refused() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = home.fails([
        "tcp-inlet",
        "create",
        "--from",
        &address,
        "--to",
        "/node/n1/secure/api/service/outlet",
    ]);
    refused.says(&[&address]).says(&["in use"]);
}

#[test]
fn two_inlets_of_one_alias_and_two_outlets_of_one_address_are_refused() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    let route = "/node/n1/secure/api/service/outlet";
    home.ok(["tcp-outlet", "create", "--from", "o1", "--to", "127.0.0.1:9"]);
    let refused = home.fails(["tcp-outlet", "create", "--from", "o1", "--to", "127.0.0.1:9"]);
    assert_eq!(refused.says(&["o1"]).code, exit::ALREADY_EXISTS, "{refused}");
    home.ok([
        "tcp-inlet",
        "create",
        "i1",
        "--from",
        "127.0.0.1:0",
        "--to",
        route,
        "--no-connection-wait",
    ]);
    let refused = home.fails([
        "tcp-inlet",
        "create",
        "i1",
        "--from",
        "127.0.0.1:0",
        "--to",
        route,
        "--no-connection-wait",
    ]);
    assert_eq!(refused.says(&["i1"]).code, exit::ALREADY_EXISTS, "{refused}");
}

#[test]
fn what_does_not_exist_is_not_found() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    for command in [
        ["node", "show", "missing"],
        ["tcp-inlet", "show", "missing"],
        ["tcp-outlet", "show", "missing"],
        ["relay", "show", "missing"],
        ["policy", "show", "missing"],
        ["identity", "show", "missing"],
    ] {
        let outcome = home.fails(command);
        assert_eq!(outcome.code, exit::NOT_FOUND, "{outcome}");
        outcome.says(&["missing"]);
    }
}

#[test]
fn wrong_arguments_end_with_their_exit_code_and_on_standard_error() {
    let home = Home::new();
    for command in [
        &["no-such-noun"][..],
        &["node", "no-such-verb"],
        &["node", "create", "--no-such-flag"],
    ] {
        let outcome = home.fails(command);
        assert_eq!(outcome.code, exit::INVALID_ARGUMENT, "{outcome}");
        assert!(outcome.stdout.is_empty(), "{outcome}");
    }
}

#[test]
fn an_error_is_json_when_json_was_asked_for() {
    let home = Home::new();
    let outcome = home.run(["node", "show", "missing", "--output", "json"]);
    assert_eq!(outcome.code, exit::NOT_FOUND, "{outcome}");
    let text = if outcome.stdout.is_empty() {
        &outcome.stderr
    } else {
        &outcome.stdout
    };
    assert!(text.contains("not-found") && text.contains('{'), "{outcome}");
}

#[test]
fn a_stopped_node_starts_again_with_its_name_and_identity() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    let before = home.json(["node", "show", "n1"]);
    home.ok(["node", "stop", "n1"]);
    assert!(home.processes().is_empty());
    home.ok(["node", "start", "n1"]);
    let after = home.json(["node", "show", "n1"]);
    assert_eq!(before["identity_name"], after["identity_name"]);
    assert_eq!(before["identifier"], after["identifier"]);
}

#[test]
fn a_deleted_node_leaves_nothing_and_its_name_can_be_used_again() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    home.ok(["node", "delete", "n1", "--yes"]);
    assert!(home.processes().is_empty());
    home.ok(["node", "create", "n1"]);
}

#[test]
fn a_foreground_node_ends_with_code_0_soon_after_sigterm() {
    let home = Home::new();
    let mut node = home.start(["node", "create", "n1", "--foreground"]);
    let listed = until(Duration::from_secs(10), || {
        home.run(["node", "list", "--output", "json"])
            .stdout
            .contains("running")
            .then_some(())
    });
    assert!(listed.is_some(), "the foreground node is not listed as running");
    process::terminate(node.pid());
    assert_eq!(node.ends_within(Duration::from_secs(2)), Some(Some(0)));
}

#[test]
fn a_stopped_node_runs_in_the_foreground_again_with_what_it_held() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    home.ok(["tcp-outlet", "create", "web", "--to", "8080"]);
    home.ok(["node", "stop", "n1"]);
    let mut node = home.start(["node", "start", "n1", "--foreground"]);
    let running = until(Duration::from_secs(10), || {
        home.run(["node", "show", "n1", "--running"])
            .succeeded()
            .then_some(())
    });
    assert!(running.is_some(), "the node does not run: {}", home.logs());
    assert_eq!(home.node_process("n1"), node.pid());
    assert_eq!(home.json(["tcp-outlet", "show", "web"])["to"], "127.0.0.1:8080");
    let second = home.fails(["node", "start", "n1", "--foreground"]);
    second.says(&["n1", "running"]);
    process::terminate(node.pid());
    assert_eq!(node.ends_within(Duration::from_secs(2)), Some(Some(0)));
    // Stopped, not gone.
    assert_eq!(home.json(["node", "show", "n1"])["status"], "stopped");
}

#[test]
fn a_probe_fails_while_a_node_is_stopped() {
    let home = Home::new();
    assert_eq!(home.fails(["node", "show", "--running"]).code, exit::NOT_FOUND);
    home.ok(["node", "create", "n1"]);
    home.ok(["node", "show", "n1", "--running"]);
    home.ok(["node", "show", "n1", "--ready"]);
    home.ok(["node", "stop", "n1"]);
    for flag in ["--running", "--ready"] {
        let down = home.fails(["node", "show", "n1", flag]);
        assert_eq!(down.code, exit::UNREACHABLE, "{down}");
        down.says(&["n1", "not running"]);
    }
    // Without a probe's flag it is shown all the same.
    assert_eq!(home.json(["node", "show", "n1"])["status"], "stopped");
}

#[test]
fn a_probe_for_readiness_fails_until_the_inlet_is_connected_and_says_what_is_missing() {
    let project = Project::start();
    project.home.ok(["node", "show", &project.node_name(), "--ready"]);
    let analysis = project.member("analysis", &["--attribute", "role=client"]);
    analysis.home.ok(["node", "show", "--ready"]);
    analysis.inlet("inlet", &["--via", "bank", "--no-connection-wait"]);
    analysis.home.ok(["node", "show", "--running"]);
    let missing = analysis.home.fails(["node", "show", "--ready"]);
    assert_eq!(missing.code, exit::UNREACHABLE, "{missing}");
    missing.says(&["inlet", "down"]);

    let service = Service::echo();
    let bank = project.bank(service.address);
    bank.home.ok(["node", "show", "--ready"]);
    analysis.inlet_is_up("inlet");
    analysis.home.ok(["node", "show", "--ready"]);
}

#[test]
fn reset_removes_nodes_and_state_and_can_be_repeated() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    home.ok(["node", "create", "n2"]);
    home.ok(["reset", "-y"]);
    assert!(home.processes().is_empty());
    home.ok(["reset", "-y"]);
    assert_eq!(home.json(["node", "list"]), serde_json::json!([]));
    home.ok(["node", "create", "n1"]);
}

#[test]
fn a_node_listens_on_loopback_only_unless_told_otherwise() {
    if !portolan_tests::skip::unless_installed("ss") {
        return;
    }
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    let pid = home.node_process("n1");
    let mut command = std::process::Command::new("ss");
    command.arg("-Htlnp");
    let listed = portolan_tests::home::run(command, Duration::from_secs(10)).stdout;
    let own: Vec<_> = listed
        .lines()
        .filter(|line| line.contains(&format!("pid={pid},")))
        .collect();
    assert!(!own.is_empty(), "ss does not show the node's listener: {listed}");
    for line in own {
        let address = line.split_ascii_whitespace().nth(3).unwrap_or("");
        assert!(
            address.starts_with("127.") || address.starts_with("[::1]"),
            "{line}"
        );
    }
}

#[test]
fn a_stranger_on_plain_tcp_reaches_neither_management_nor_portals_nor_relays() {
    use portolan_tests::raw::{Peer, bare_bytes, message};
    // A node of a project: one without has nobody to tell members from strangers by.
    let project = Project::start();
    let home = Home::new();
    let ticket = project.ticket(&["--attribute", "any"]);
    home.ok(["project", "enroll", &ticket]);
    let address = portolan_tests::project::free_address();
    home.ok([
        "node",
        "create",
        "n1",
        "--tcp-listener-address",
        &address.to_string(),
    ]);
    home.ok(["tcp-outlet", "create", "--to", "127.0.0.1:9"]);
    for service in [
        "node_manager",
        "_internal.nodemanager",
        "echo",
        "outlet",
        "forwarding_service",
        "static_forwarding_service",
        "credential_issuer",
    ] {
        let mut peer = Peer::greet(address);
        assert_eq!(peer.read_version().unwrap(), portolan_tests::raw::VERSION);
        peer.send_frame(&message(&[service.as_bytes()], &[b"me"], &bare_bytes(b"hello")));
        let answer = peer.read_frame(Duration::from_millis(700));
        // A refusal with its reason is an answer too.
        let refused = answer
            .as_ref()
            .map_or(true, |answer| answer.windows(8).any(|part| part == b"refused:"));
        assert!(refused, "{service} answered a stranger: {answer:?}");
    }
    assert!(process::is_alive(home.node_process("n1")));
}

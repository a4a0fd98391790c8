//! Getting the binary onto a machine, and running it as others would have been run.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use portolan_tests::home::{COMMAND_LIMIT, run};
use portolan_tests::service::echoes;
use portolan_tests::{Home, Outcome, Project, Service, binary, eventually, process, skip, until, web};

fn installer() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../install.sh")
}

/// Runs a text with `sh` for a user whose `HOME` is the home's folder, and who has set no `PORTOLAN_HOME`.
fn shell(home: &Home, text: &str, variables: &[(&str, &str)]) -> Outcome {
    let mut command = Command::new("sh");
    command.arg("-ec").arg(text);
    home.furnish(&mut command);
    command.env_remove("PORTOLAN_HOME").env("HOME", home.path());
    command.env("INSTALLER", installer());
    for (name, value) in variables {
        command.env(name, value);
    }
    run(command, COMMAND_LIMIT)
}

#[test]
fn the_installer_piped_from_a_server_installs_a_binary_that_a_new_shell_finds_and_reset_keeps() {
    if !skip::unless_installed("curl") {
        return;
    }
    let bytes = std::fs::read(binary::portolan()).unwrap();
    let script = std::fs::read(installer()).unwrap();
    let server = web::files(HashMap::from([
        ("/portolan".to_owned(), bytes),
        ("/install.sh".to_owned(), script),
        ("/other".to_owned(), b"#!/bin/sh\necho something else\n".to_vec()),
    ]));
    let home = Home::new();
    let url = format!("http://{}", server.address);
    let sum = shell(
        &home,
        r#"sha256sum "$BINARY" | cut -d ' ' -f 1"#,
        &[("BINARY", &binary::portolan().to_string_lossy())],
    );
    let variables = [("URL", url.as_str()), ("SUM", sum.stdout.as_str())];
    let installed = shell(
        &home,
        r#"curl -fsS "$URL/install.sh" | sh -s -- "$URL/portolan" "$SUM"
           . "$HOME/.portolan/env"
           . "$HOME/.portolan/env"
           [ "$(command -v portolan)" = "$HOME/.portolan/bin/portolan" ]
           portolan --version
           portolan identity create alice
           portolan reset -y
           [ -x "$HOME/.portolan/bin/portolan" ] && [ -f "$HOME/.portolan/env" ]
           portolan identity list"#,
        &variables,
    );
    assert!(installed.succeeded(), "{installed}");
    assert!(
        installed.stdout.ends_with("[]"),
        "reset left something: {installed}"
    );
    let binary_before = std::fs::metadata(home.path().join(".portolan/bin/portolan")).unwrap();
    for (arguments, says) in [
        (r#""$URL/portolan" 0000"#, "checksum is wrong"),
        (r#""$URL/portolan""#, "SHA-256"),
        (r#""$URL/none" 0000"#, "cannot be fetched"),
        ("/no/such/file", "no file /no/such/file"),
        ("", "which binary?"),
        (r#""$INSTALLER""#, "not portolan"),
    ] {
        let refused = shell(
            &home,
            &format!(r#"cat "$INSTALLER" | sh -s -- {arguments}"#),
            &variables,
        );
        assert!(!refused.succeeded(), "{arguments}: {refused}");
        refused.says_any(&[says, "does not run"]);
    }
    use std::os::unix::fs::MetadataExt;
    let after = std::fs::metadata(home.path().join(".portolan/bin/portolan")).unwrap();
    assert_eq!(
        after.ino(),
        binary_before.ino(),
        "a failed installation has changed the binary"
    );
    let left = std::fs::read_dir(home.path().join(".portolan/bin"))
        .unwrap()
        .count();
    assert_eq!(left, 1, "a failed installation left a file");
}

#[test]
fn scripts_that_call_the_binary_by_the_references_name_run_with_its_home() {
    let project = Project::start();
    let service = Service::echo();
    let home = Home::new();
    let ticket = project.ticket(&["--attribute", "role=service", "--relay", "bank"]);
    let target = service.address.to_string();
    let made = shell(
        &home,
        r#"PORTOLAN_LINK=ockam sh "$INSTALLER" "$BINARY"
           . "$HOME/.portolan/env"
           export OCKAM_HOME="$HOME/elsewhere"
           ockam project enroll "$TICKET"
           ockam node create bank
           ockam policy create --resource-type tcp-outlet --expression '(= subject.role "client")'
           ockam tcp-outlet create --to "$TARGET"
           ockam relay create bank
           [ -d "$HOME/elsewhere/nodes/bank" ] && [ ! -d "$HOME/.portolan/nodes" ]
           [ "$(portolan node list)" = "[]" ]"#,
        &[
            ("BINARY", &binary::portolan().to_string_lossy()),
            ("TICKET", &ticket),
            ("TARGET", &target),
        ],
    );
    let clean_up = || {
        shell(
            &home,
            r#". "$HOME/.portolan/env"; OCKAM_HOME="$HOME/elsewhere" ockam reset -y"#,
            &[],
        )
    };
    if !made.succeeded() {
        clean_up();
        panic!("{made}");
    }
    let (_analysis, inlet) = project.analysis();
    let carried = until(Duration::from_secs(15), || echoes(inlet).then_some(()));
    let cleaned = clean_up();
    assert!(carried.is_some(), "the portal does not carry: {made}");
    assert!(cleaned.succeeded(), "{cleaned}");
    assert!(!echoes(inlet), "reset left the node");
}

#[test]
fn a_foreground_node_from_a_configuration_and_a_ticket_in_the_environment_serves_and_ends_with_code_0() {
    let project = Project::start();
    let service = Service::echo();
    let home = Home::new();
    let ticket = project.ticket(&["--attribute", "role=service", "--relay", "bank"]);
    let text = format!(
        "tcp-outlet: {{ to: '{}', allow: '(= subject.role \"client\")' }}\nrelay: bank\n",
        service.address
    );
    // As a container's supervisor starts it: the ticket again with each start, though it is used up by the first.
    let start = || {
        let mut command = home.command(["node", "create", "bank", "--foreground", "--node-config", &text]);
        command
            .env("ENROLLMENT_TICKET", &ticket)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().expect("the binary can be started")
    };
    let analysis = project.member("analysis", &["--attribute", "role=client"]);
    let inlet = analysis.inlet("inlet", &["--via", "bank", "--no-connection-wait"]);
    for round in 0..2 {
        let mut node = start();
        eventually(
            &format!("start {round}: the portal carries"),
            Duration::from_secs(20),
            || echoes(inlet),
        );
        process::terminate(node.id());
        let ended = until(Duration::from_secs(2), || node.try_wait().ok().flatten());
        let _ = node.kill();
        assert_eq!(ended.and_then(|status| status.code()), Some(0), "start {round}");
    }
}

#[test]
fn a_configuration_that_fails_leaves_a_running_and_a_stopped_node_of_that_name_as_they_were() {
    let service = Service::echo();
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    home.ok([
        "tcp-outlet",
        "create",
        "db",
        "--to",
        &service.address.to_string(),
        "--allow",
        "web",
    ]);
    let pid = home.node_process("n1");
    let outlet = home.json(["tcp-outlet", "show", "db"]);
    let wrong = "{ name: n1, tcp-outlet: { to: 1 }, relay: { name: r, at: /ip4/127.0.0.1/tcp/1 }, \
                 tcp-inlet: { from: 0, to: /node/missing/secure/api/service/o } }";
    let refused = home.fails(["node", "create", wrong]);
    refused.says(&["already running"]);
    assert_eq!(home.node_process("n1"), pid, "the running node was touched");
    assert_eq!(home.json(["tcp-outlet", "show", "db"]), outlet);

    home.ok(["node", "stop", "n1"]);
    // Fails while it is made: the authority of the ticket says no.
    let project = Project::start();
    let ticket = project.ticket(&[]);
    Home::new().ok(["project", "enroll", &ticket]);
    let spent = format!("{{ name: n1, ticket: {ticket}, tcp-outlet: {{ to: 1 }} }}");
    home.fails(["node", "create", &spent]).says(&["used"]);
    // And later: the outlet's address is that of a worker of every node.
    home.fails([
        "node",
        "create",
        "{ name: n1, tcp-outlets: { other: { to: 1 }, echo: { to: 1 } } }",
    ])
    .says(&["echo", "in use"]);
    home.ok(["node", "start", "n1"]);
    let after = home.json(["tcp-outlet", "list"]);
    assert_eq!(after.as_array().map(Vec::len), Some(1), "{after}");
    assert_eq!(
        home.json(["tcp-outlet", "show", "db"])["policy"],
        outlet["policy"]
    );
}

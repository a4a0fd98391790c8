//! `portolan node create CONFIGURATION` as users run it: real processes, a home of its own for each company.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("PORTOLAN_HOME", self.folder.path().join("home"))
            .stdin(Stdio::null());
        for name in [
            "QUIET",
            "NO_COLOR",
            "NO_INPUT",
            "ENROLLMENT_TICKET",
            "PORTOLAN_PASSPHRASE",
        ] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// A line without quotes.
    fn text(&self, line: &str) -> String {
        success(self.run(&line.split_whitespace().collect::<Vec<_>>()))
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.text(&format!("{line} --output json"))).unwrap()
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// What is in the home: names of nodes, identities and projects.
    fn state(&self) -> Value {
        let status = self.json("status");
        let names = |key: &str| -> Vec<Value> {
            status[key]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| {
                    one.get("name")
                        .or(one.get("node_name"))
                        .cloned()
                        .unwrap_or_default()
                })
                .collect()
        };
        serde_json::json!([names("nodes"), names("identities"), names("projects")])
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.run(&["reset", "--yes"]);
    }
}

fn success(output: Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The exit code and what was said.
fn failure(output: &Output) -> (i32, String) {
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "a failure prints no result");
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr.clone()).unwrap(),
    )
}

const OUTLET: &str = "tcp-outlet:\n  to: $POSTGRES_ADDRESS\n  allow: '(= subject.postgres-inlet \"true\")'\n  relay: postgres\n";
const INLET: &str =
    "tcp-inlet:\n  from: 127.0.0.1:0\n  via: postgres\n  allow: '(= subject.postgres-outlet \"true\")'\n";

#[test]
fn the_aurora_walkthrough_works_with_its_files() {
    use std::io::{Read, Write};
    let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = service.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in service.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut bytes = [0; 4];
            if stream.read_exact(&mut bytes).is_ok() {
                let _ = stream.write_all(&bytes);
            }
        }
    });
    let (admin, bank, analysis) = (Home::new(), Home::new(), Home::new());
    admin.text("enroll --tcp-listener-address 127.0.0.1:0");
    let outlet_ticket = admin.text("project ticket --attribute postgres-outlet=true --relay postgres");
    let inlet_ticket = admin.text("project ticket --attribute postgres-inlet=true");

    bank.text(&format!("project enroll {outlet_ticket}"));
    let file = bank.file("outlet.yaml", OUTLET);
    let name = success(
        bank.command(&["node", "create", "outlet.yaml"])
            .env("POSTGRES_ADDRESS", &address)
            .output()
            .unwrap(),
    );
    std::fs::remove_file(file).unwrap();
    assert_eq!(bank.json("node list")[0]["node_name"], name.as_str());
    assert_eq!(bank.json("relay list")[0]["connection_status"], "Up");

    // The other side as in a container: the ticket in the environment, the configuration inline, in the foreground.
    let mut child = analysis
        .command(&["node", "create", "--foreground", "--node-config", INLET])
        .env("ENROLLMENT_TICKET", &inlet_ticket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let inlets = analysis.json("tcp-inlet list");
    assert_eq!(inlets[0]["status"], "Up", "{inlets}");
    let mut stream = std::net::TcpStream::connect(inlets[0]["bind_addr"].as_str().unwrap()).unwrap();
    stream.write_all(b"ping").unwrap();
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ping");

    // A restart of the node brings all of it back without the file.
    bank.text("node stop");
    bank.text("node start");
    assert_eq!(bank.json("tcp-outlet list").as_array().unwrap().len(), 1);
    assert_eq!(bank.json("relay list").as_array().unwrap().len(), 1);

    let asked = Instant::now();
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(2));

    // A container that starts again has only its home and the used-up ticket.
    let again = analysis
        .command(&["node", "create", "--node-config", INLET])
        .env("ENROLLMENT_TICKET", &inlet_ticket)
        .output()
        .unwrap();
    success(again);
}

#[test]
fn a_check_says_what_would_be_done_and_changes_nothing() {
    let home = Home::new();
    let before = home.state();
    let text =
        "name: n1\nidentity: bank\ntcp-outlet: { to: 5432, allow: reader }\ntcp-inlet: { to: /service/x }\n";
    home.file("node.yaml", text);
    let plan = home.json("node create node.yaml --check");
    assert_eq!(plan["name"], "n1");
    assert_eq!(plan["new_identity"], true);
    assert_eq!(plan["resources"][0]["to"], "127.0.0.1:5432");
    assert_eq!(home.state(), before);
    let plain = home.text("node create node.yaml --check --output plain");
    assert!(
        plain.contains("the outlet to 127.0.0.1:5432, allowed if reader"),
        "{plain}"
    );
    let (code, said) = failure(&home.run(&["node", "create", "n1", "--check"]));
    assert_eq!(code, 2);
    assert!(said.contains("--check"), "{said}");
}

#[test]
fn nothing_is_done_when_anything_is_wrong() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let before = home.state();
    for (text, code, said) in [
        ("name: n1\ntcp-outlt: { to: 1 }", 2, "did you mean `tcp-outlet`"),
        (
            "name: n1\nidentity: i\ntcp-outlet: { to: $WRONG }",
            2,
            "`WRONG` is not defined",
        ),
        (
            "name: n1\nidentity: i\nticket: /no/such/ticket",
            3,
            "/no/such/ticket",
        ),
        ("name: n1\nidentity: i\nticket: abc", 2, "ticket"),
        ("name: n1\nidentity: i\nproject: nowhere", 3, "nowhere"),
        ("name: n1\nidentity: i\nrelay: r", 3, "no project"),
        ("name: n1\ntcp-outlet: { to: 1, at: n2 }", 2, "for the node `n2`"),
        (
            "name: n1\ntcp-inlet: { to: /service/x, identity: nobody }",
            3,
            "nobody",
        ),
        (
            &format!("name: n1\nidentity: i\ntcp-inlet: {{ from: {port}, to: /service/x }}"),
            4,
            "in use",
        ),
    ] {
        for extra in [&["--check"][..], &[]] {
            let mut arguments = vec!["node", "create", text];
            arguments.extend(extra);
            let (found, message) = failure(&home.run(&arguments));
            assert_eq!(found, code, "{text}\n{message}");
            assert!(message.contains(said), "{text}\n{message}");
            assert_eq!(home.state(), before, "{text}");
        }
    }
    // Nobody listens at port 1.
    let (_, message) = failure(&home.run(&["node", "create", "http://127.0.0.1:1/c.yaml"]));
    assert!(
        message.contains("cannot be fetched from http://127.0.0.1:1/c.yaml"),
        "{message}"
    );
    assert_eq!(home.state(), before);
}

#[test]
fn policies_are_for_the_node_that_is_made() {
    let home = Home::new();
    home.text("node create first");
    let text = "name: second\npolicies:\n  - { resource-type: tcp-outlet, allow: reader }\ntcp-outlets:\n  db: { to: 5432 }";
    assert_eq!(success(home.run(&["node", "create", text])), "second");
    assert_eq!(
        home.json("policy show tcp-outlet --at second")["expression"],
        "(= subject.reader \"true\")"
    );
    assert_eq!(
        home.json("tcp-outlet show db --at second")["policy"],
        "(= subject.reader \"true\")"
    );
    let first = home.json("policy list --at first").to_string();
    assert!(!first.contains("reader"), "{first}");
    assert_eq!(home.text("node default"), "first");
}

/// A configuration that gets as far as a running node and then fails: two inlets for one port, by two names of the host.
const FAILS_LATE: &str = "name: n1\nidentity: late\ntcp-outlet: { to: 1 }\ntcp-inlets:\n  - { from: 127.0.0.1:PORT, to: /service/x, no-connection-wait: true }\n  - { from: localhost:PORT, to: /service/x, no-connection-wait: true }\n";

fn fails_late() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    FAILS_LATE.replace("PORT", &free.local_addr().unwrap().port().to_string())
}

#[test]
fn what_fails_half_way_is_undone() {
    let home = Home::new();
    home.text("node create other");
    let before = home.state();
    for extra in [&[][..], &["--foreground"]] {
        let text = fails_late();
        let mut arguments = vec!["node", "create", &text];
        arguments.extend(extra);
        let (code, message) = failure(&home.run(&arguments));
        assert_eq!(code, 4, "{message}");
        assert!(message.contains("taken back"), "{message}");
        assert_eq!(home.state(), before);
        assert_eq!(home.text("node default"), "other");
    }
}

#[test]
fn a_failed_configuration_never_damages_a_node_that_was_there() {
    let home = Home::new();
    home.text("node create n1");
    home.text("tcp-outlet create db --to 5432 --allow reader");
    // It runs: refused before anything is done.
    let text = fails_late();
    let (code, message) = failure(&home.run(&["node", "create", &text]));
    assert_eq!(code, 4);
    assert!(message.contains("already running"), "{message}");
    assert_eq!(home.json("tcp-outlet show db")["to"], "127.0.0.1:5432");
    // It is stopped: set aside, and brought back.
    home.text("node stop n1");
    for extra in [&[][..], &["--foreground"]] {
        let mut arguments = vec!["node", "create", &text];
        arguments.extend(extra);
        let (code, message) = failure(&home.run(&arguments));
        assert_eq!(code, 4, "{message}");
    }
    home.text("node start n1");
    assert_eq!(home.json("tcp-outlet show db")["to"], "127.0.0.1:5432");
    // A good one takes its place.
    home.text("node stop n1");
    success(home.run(&["node", "create", "{name: n1, tcp-outlet: {web: {to: 80}}}"]));
    let outlets = home.json("tcp-outlet list");
    assert_eq!(outlets.as_array().unwrap().len(), 1, "{outlets}");
    assert_eq!(
        std::fs::read_dir(home.folder.path().join("home/nodes"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn a_refused_relay_fails_the_configuration_and_the_membership_stays() {
    let (admin, bank) = (Home::new(), Home::new());
    admin.text("enroll --tcp-listener-address 127.0.0.1:0");
    let ticket = admin.text("project ticket --relay mine");
    bank.file("ticket", &format!("{ticket}\n"));
    let run = |relay: &str| {
        let variable = format!("RELAY={relay}");
        bank.run(&[
            "node",
            "create",
            "{ticket: ./ticket, identity: bank, name: b, relay: $RELAY}",
            "--variable",
            &variable,
        ])
    };
    let (code, message) = failure(&run("other"));
    assert_eq!(code, 5, "{message}");
    assert!(!message.contains(&ticket[..64]), "a ticket is never printed");
    assert_eq!(bank.text("node list"), "[]");
    assert_eq!(success(run("mine")), "b");
    assert_eq!(bank.json("relay show mine")["connection_status"], "Up");
}

#[test]
fn of_two_commands_with_one_configuration_exactly_one_wins() {
    let home = Home::new();
    let children: Vec<_> = (0..3)
        .map(|_| {
            home.command(&["node", "create", "{name: same, tcp-outlet: {to: 1}}"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut codes: Vec<_> = children
        .into_iter()
        .map(|mut child| child.wait().unwrap().code().unwrap())
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 4, 4]);
    assert_eq!(home.json("node show same")["status"], "running");
    assert_eq!(home.json("tcp-outlet list").as_array().unwrap().len(), 1);
}

#[test]
fn an_interrupted_command_leaves_nothing_behind() {
    let home = Home::new();
    // Nobody listens there: the command waits for a connection.
    let text =
        "{name: n1, identity: i, tcp-inlet: {to: /ip4/127.0.0.1/tcp/1/service/x, connection-wait: 60s}}";
    let before = home.state();
    let mut child = home
        .command(&["node", "create", text])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !home.run(&["worker", "list", "--at", "n1"]).status.success() {
        assert!(Instant::now() < deadline, "the node did not become ready");
    }
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::INT,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(home.state(), before);
}

#[test]
fn a_node_that_is_stopped_while_it_is_made_ends_cleanly() {
    let home = Home::new();
    let output = home.run(&[
        "node",
        "create",
        "{name: fg, foreground: true, exit-on-eof: true, tcp-inlet: {to: /ip4/127.0.0.1/tcp/1/service/x}}",
    ]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Whether it was complete by then is a matter of luck; half of one is never left.
    let nodes = home.json("node list");
    assert!(
        nodes
            .as_array()
            .unwrap()
            .iter()
            .all(|node| node["status"]["status"] != "running")
    );
    let left = std::fs::read_dir(home.folder.path().join("home/nodes")).unwrap();
    assert_eq!(left.count(), nodes.as_array().unwrap().len());
}

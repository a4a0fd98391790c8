//! The programs in `node/examples/`, run as their doc comments say, but on ports that the system chooses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a program may take to say the next thing that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where cargo puts the programs: beside the folder of the running test. They are built first, unless `tests/run` has
/// done so for all tests.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let own = std::env::current_exe().expect("a running program has a path");
        let profile = own
            .ancestors()
            .skip(1)
            .find(|folder| !folder.ends_with("deps"))
            .expect("an executable is in a folder");
        if std::env::var_os("PORTOLAN_BIN").is_none()
            && let Some(cargo) = std::env::var_os("CARGO")
        {
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "-p", "portolan", "--examples"]);
            if profile.ends_with("release") {
                build.arg("--release");
            }
            let built = build
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .expect("cargo can be started");
            assert!(built.success(), "the examples do not build");
        }
        profile.join("examples")
    })
}

/// A running example. Ended when dropped.
struct Example {
    name: String,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let path = folder().join(name);
        let mut child = Command::new(&path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let output = child.stdout.take().expect("standard output is a pipe");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            name: name.to_owned(),
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// The rest of the next line that begins like this.
    fn says(&mut self, beginning: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if let Some(rest) = line.strip_prefix(beginning) {
                        return rest.to_owned();
                    }
                }
                Err(why) => {
                    let (name, seen) = (&self.name, self.seen.join("\n  "));
                    panic!("{name} does not say `{beginning}…` ({why}). It has said:\n  {seen}")
                }
            }
        }
    }

    /// Starts a program that listens, and gives the address.
    fn listening(name: &str, arguments: &[&str]) -> (Self, String) {
        let mut example = Self::start(name, arguments);
        let rest = example.says("listening on ");
        let address = rest.split(';').next().unwrap_or_default().to_owned();
        (example, address)
    }

    /// All that a program says until it ends by itself, successfully.
    fn run(name: &str, arguments: &[&str]) -> String {
        Self::start(name, arguments).finish()
    }

    fn finish(mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!(
                        "{} does not end. It has said:\n  {}",
                        self.name,
                        self.seen.join("\n  ")
                    )
                }
            }
        }
        let said = self.seen.join("\n");
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "{}: {status}, after:\n{said}", self.name);
        said
    }

    /// As Ctrl-C does; the program must end soon, and successfully.
    fn interrupt(self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it still runs");
        self.finish()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
}

const ANY: &str = "127.0.0.1:0";

#[test]
fn a_node_a_worker_and_hops() {
    assert_says(
        &Example::run("01-node", &[]),
        &["workers of this node: [0#uppercase]", "HELLO, NODE", "stopped"],
    );
    assert_says(
        &Example::run("02-worker", &[]),
        &[
            "0#echoer is ready",
            "\"3: three\"",
            "refused, as it should be",
            "0#echoer ends after 3 messages",
        ],
    );
    assert_says(
        &Example::run("03-hop", &[]),
        &[
            "hop: onward [0#hop => 0#echo]",
            "the answer came back along [0#hop => 0#echo]: hello",
        ],
    );
    assert_says(
        &Example::run("04-many-hops", &[]),
        &[
            "back along [0#h1 => 0#h2 => 0#h3 => 0#echo]",
            "over 9 hops and back in",
        ],
    );
}

#[test]
fn two_nodes_over_tcp_and_three_over_a_bridge() {
    let (responder, address) = Example::listening("05-tcp-responder", &[ANY]);
    assert_says(
        &Example::run("05-tcp-initiator", &[&address]),
        &["echo answered: hello over TCP", "diary does not answer"],
    );
    let (bridge, bridged) = Example::listening("06-bridge", &[ANY, &address]);
    assert_says(
        &Example::run("06-bridge-initiator", &[&bridged]),
        &["echo answered: hello over two connections"],
    );
    assert_says(&bridge.interrupt(), &["a message goes on along"]);
    let said = responder.interrupt();
    assert!(!said.contains("dear diary"), "the diary was reached:\n{said}");
}

#[test]
fn a_node_without_listener_is_reached_through_a_relay() {
    let (relay, address) = Example::listening("07-relay", &[ANY]);
    let mut target = Example::start("07-relay-target", &[&address]);
    target.says("reachable as forward_to_blue");
    assert_says(
        &Example::run("07-relay-sender", &[&address]),
        &["echo answered: hello through a relay"],
    );
    relay.interrupt();
    target.says("the relay is gone");
    target.finish();
}

#[test]
fn the_node_between_the_ends_of_a_secure_channel_reads_nothing() {
    let mut responder = Example::start("08-secure-channel-responder", &[ANY]);
    let identifier = responder.says("I am ");
    let rest = responder.says("listening on ");
    let address = rest.split(';').next().unwrap_or_default();
    let (middle, between) = Example::listening("08-secure-channel-middle", &[ANY, address]);
    let said = Example::run("08-secure-channel-initiator", &[&between, &identifier]);
    assert_says(
        &said,
        &[
            &format!("a channel with {identifier}"),
            "greeter answered: hello, I",
        ],
    );
    let said = middle.interrupt();
    assert_says(&said, &["\"secret\" can be read: false"]);
    assert!(!said.contains("true"), "{said}");
    assert_says(&responder.interrupt(), &["says: a secret"]);
}

#[test]
fn an_identity_is_verified_and_rotated() {
    assert_says(
        &Example::run("09-identity", &[]),
        &[
            "verified  I",
            "has 2 keys now",
            "refused   the old attestation",
            "refused   the old chain",
        ],
    );
}

#[test]
fn holders_of_an_attribute_are_admitted_and_nobody_else() {
    let (issuer, issuer_address) = Example::listening("10-credential-issuer", &[ANY]);
    let (server, server_address) = Example::listening("10-credential-server", &[ANY]);
    assert_says(
        &Example::run("10-credential-client", &[&issuer_address, &server_address]),
        &[
            "without a credential: no answer",
            "the issuer says: cluster = production",
            "with the credential: hello, production",
        ],
    );
    assert_says(&server.interrupt(), &["denied    I", "admitted  I"]);
    issuer.interrupt();
}

#[test]
fn an_ordinary_client_reaches_a_service_through_a_portal() {
    let mut outlet = Example::start("11-portal-outlet", &[ANY]);
    let identifier = outlet.says("I am ");
    let rest = outlet.says("listening on ");
    let address = rest.split(';').next().unwrap_or_default();
    let (inlet, local) = Example::listening("11-portal-inlet", &[ANY, address, &identifier]);
    let mut client = TcpStream::connect(&local).expect("the inlet listens");
    client
        .set_read_timeout(Some(PATIENCE))
        .expect("a time-out above zero");
    client
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .expect("the inlet takes it");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer and its end");
    assert_says(&answer, &["200 OK", "hello from far, far away"]);
    assert_says(&inlet.interrupt(), &["1 connections"]);
    outlet.interrupt();
}

#[test]
fn a_program_with_a_worker_type_of_its_own_has_the_whole_command_line() {
    // Its scenarios, with nodes, are in `scenarios/workers.rs`.
    let home = portolan_tests::Home::new().of_program(folder().join("custom_node"));
    let types = home.json(["worker", "types"]).to_string();
    assert_says(&types, &["greeter", "Greets whoever writes to it."]);
    // The documentation shows this very program.
    let source = include_str!("../../node/examples/custom_node.rs");
    let code = source.split("\n\n").skip(1).collect::<Vec<_>>().join("\n\n");
    assert_says(include_str!("../../docs/workers.md"), &[code.trim()]);
}

#[test]
fn a_program_with_interceptors_of_its_own_names_them() {
    // Its scenarios, with nodes, are in `scenarios/interceptors.rs`.
    let home = portolan_tests::Home::new().of_program(folder().join("intercepting_node"));
    let help = home.ok(["tcp-inlet", "create", "--help"]);
    assert_says(&help, &["--intercept <NAME>", "--intercept-config <JSON>"]);
    // The documentation shows a part of this very program.
    let page = include_str!("../../docs/interceptors.md");
    let shown = page
        .split("```rust\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let source = include_str!("../../node/examples/intercepting_node.rs");
    assert_says(source, &[shown.expect("the page shows code")]);
}

#[test]
fn every_example_says_how_it_is_run_and_is_run_here() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/examples");
    let here = include_str!("examples.rs");
    for entry in std::fs::read_dir(&examples).expect("the examples are there") {
        let path = entry.expect("a folder can be read").path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let text = std::fs::read_to_string(&path).expect("sources are text");
        assert!(
            text.contains(&format!("//! cargo run --example {name}\n")),
            "{name}"
        );
        assert!(
            here.contains(&format!("\"{name}\"")),
            "{name} is not run by any test"
        );
    }
}

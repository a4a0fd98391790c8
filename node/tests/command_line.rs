//! The command as users run it: real processes, a home of its own for each test.

// A test that is skipped says so.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A home whose nodes are stopped when the test ends, however it ends.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn command(&self, line: &str) -> Command {
        let mut command = portolan(&self.path());
        command.args(line.split_whitespace());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// What the command prints; it must succeed.
    fn text(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(
            output.status.success(),
            "{line}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.text(&format!("{line} --output json"))).unwrap()
    }

    /// The exit code of a command that must fail, and what it says.
    fn failure(&self, line: &str) -> (i32, String) {
        let output = self.run(line);
        assert!(!output.status.success(), "{line}");
        assert!(output.stdout.is_empty(), "{line}: a failure prints no result");
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.run("reset --yes");
    }
}

fn portolan(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command.env("PORTOLAN_HOME", home).stdin(Stdio::null());
    for name in [
        "QUIET",
        "NO_COLOR",
        "NO_INPUT",
        "ENROLLMENT_TICKET",
        "PORTOLAN_PASSPHRASE",
        "PORTOLAN_KEY_FILE",
    ] {
        command.env_remove(name);
    }
    command
}

fn codes(children: Vec<std::process::Child>) -> Vec<i32> {
    let mut codes: Vec<i32> = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap().status.code().unwrap())
        .collect();
    codes.sort_unstable();
    codes
}

fn start(home: &Home, line: &str) -> std::process::Child {
    home.command(line)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_pipe_gets_the_result_alone_without_a_line_end() {
    let home = Home::new();
    let made = home.text("identity create bank");
    assert_eq!(made.len(), 65);
    assert!(made.starts_with('I'));
    assert_eq!(home.text("identity show bank"), made);
    assert_eq!(home.json("identity show bank")["identifier"], made.as_str());
    assert_eq!(home.text("node list"), "[]");
}

#[test]
fn a_failure_has_its_exit_code_and_says_what_to_do() {
    let home = Home::new();
    home.text("identity create bank");
    let (code, text) = home.failure("identity show bnak");
    assert_eq!(code, 3);
    assert!(text.contains("did you mean `bank`?"), "{text}");
    let (code, text) = home.failure("identity show bnak --output json");
    assert_eq!(code, 3);
    let error: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(error["error"]["code"], "not-found");
    assert_eq!(home.failure("identity create bank").0, 4);
    assert_eq!(home.failure("node create n!").0, 2);
    assert_eq!(home.failure("node show").0, 3);
    assert_eq!(home.failure("reset").0, 2);
    let (code, text) = home.failure("project ticket");
    assert_eq!(code, 3);
    assert!(text.contains("portolan enroll"), "{text}");
}

#[test]
fn commands_at_once_against_one_home_all_work() {
    let home = Home::new();
    let children = (0..8)
        .map(|number| start(&home, &format!("identity create i{number}")))
        .collect();
    assert_eq!(codes(children), [0; 8]);
    let identities = home.json("identity list");
    assert_eq!(identities.as_array().unwrap().len(), 8);
    let defaults = identities
        .as_array()
        .unwrap()
        .iter()
        .filter(|identity| identity["is_default"] == true);
    assert_eq!(defaults.count(), 1);
}

#[test]
fn several_enrolls_at_once_make_one_project() {
    let home = Home::new();
    let children = (0..3)
        .map(|_| start(&home, "enroll --tcp-listener-address 127.0.0.1:0"))
        .collect();
    assert_eq!(codes(children), [0; 3]);
    assert_eq!(home.json("project list").as_array().unwrap().len(), 1);
    assert_eq!(home.json("credential list").as_array().unwrap().len(), 1);
}

#[test]
fn of_two_commands_that_create_one_node_exactly_one_wins() {
    let home = Home::new();
    let children = (0..3).map(|_| start(&home, "node create same")).collect();
    assert_eq!(codes(children), [0, 4, 4]);
    assert_eq!(home.json("node show same")["status"], "running");
    let (code, text) = home.failure("node create same");
    assert_eq!(code, 4);
    assert!(text.contains("already running"), "{text}");
}

#[test]
fn a_killed_node_comes_back_with_what_it_had() {
    let home = Home::new();
    home.text("node create n1");
    home.text("tcp-outlet create db --to 5432 --allow reader");
    home.text("policy create --resource-type tcp-inlet --allow a");
    let before = home.json("node show n1");
    let pid = rustix::process::Pid::from_raw(before["pid"].as_i64().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while home.json("node show n1")["status"] == "running" {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(home.failure("tcp-outlet list").0, 6);
    home.text("node start n1");
    let after = home.json("node show n1");
    assert_eq!(after["tcp_listener_address"], before["tcp_listener_address"]);
    assert_eq!(after["identifier"], before["identifier"]);
    assert_eq!(home.json("tcp-outlet show db")["to"], "127.0.0.1:5432");
    assert_eq!(
        home.json("tcp-outlet show db")["policy"],
        "(= subject.reader \"true\")"
    );
    assert_eq!(
        home.json("policy show tcp-inlet")["expression"],
        "(= subject.a \"true\")"
    );
}

#[test]
fn a_node_whose_port_is_taken_is_not_left_behind() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, text) = home.failure(&format!("node create n1 --tcp-listener-address {address}"));
    assert_eq!(code, 4);
    assert!(text.contains("in use"), "{text}");
    assert_eq!(home.failure("node show n1").0, 3);
    let (code, _) = home.failure(&format!("project create --tcp-listener-address {address}"));
    assert_eq!(code, 4);
    assert_eq!(home.text("project list"), "[]");
    assert_eq!(home.json("identity list").as_array().unwrap().len(), 1);
}

#[test]
fn a_node_in_the_foreground_ends_cleanly_on_sigterm() {
    let home = Home::new();
    let mut child = start(&home, "node create fg --foreground");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !home.run("worker list --at fg").status.success() {
        assert!(Instant::now() < deadline, "the node did not become ready");
        assert!(child.try_wait().unwrap().is_none(), "the node died");
    }
    let asked = Instant::now();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_node_ends_when_stdin_is_closed_if_it_was_told_so() {
    let home = Home::new();
    let mut child = home
        .command("node create fg --foreground --exit-on-eof")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_address_of_a_channel_can_be_piped_into_a_route() {
    let home = Home::new();
    home.text("node create n1");
    home.text("node create n2");
    let mut create = home
        .command("secure-channel create --from n1 --to /node/n2/service/api")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let send = home
        .command("message send hello --from n1 --to -/service/uppercase")
        .stdin(create.stdout.take().unwrap())
        .output()
        .unwrap();
    create.wait().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&send.stdout),
        "HELLO",
        "{}",
        String::from_utf8_lossy(&send.stderr)
    );
    assert_eq!(
        home.text("message send hello --to /node/n2/service/uppercase"),
        "HELLO"
    );
}

#[test]
fn one_ticket_makes_one_member_and_enrolling_again_is_no_error() {
    let (admin, bank, other) = (Home::new(), Home::new(), Home::new());
    let identifier = admin.text("enroll --tcp-listener-address 127.0.0.1:0");
    assert_eq!(admin.text("enroll"), identifier, "a second run changes nothing");
    let ticket = admin.text("project ticket --attribute role=bank --relay bank");
    assert!(
        ticket.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "it survives sed and quoting"
    );

    let file = bank.folder.path().join("ticket");
    std::fs::write(&file, format!("{ticket}\n")).unwrap();
    let joined = bank.json(&format!("project enroll {}", file.display()));
    assert_eq!(joined["credential"]["attributes"]["role"], "bank");
    assert_eq!(joined["project_name"], "default");
    bank.text(&format!("project enroll {ticket}"));

    let (code, text) = other.failure(&format!("project enroll {ticket}"));
    assert_eq!(code, 5, "{text}");
    assert!(!text.contains(&ticket[..100]), "a ticket is never printed");
    assert_eq!(
        other.text("project list"),
        "[]",
        "a project that could not be joined is not kept"
    );

    assert_eq!(bank.failure("project ticket").0, 5);
    let (code, text) = bank.failure("relay create other");
    assert_eq!(code, 5, "{text}");
    assert_eq!(bank.text("relay list"), "[]");
    assert_eq!(bank.text("relay create bank"), "/service/forward_to_bank");
}

#[test]
fn a_sealed_home_needs_its_passphrase() {
    let home = Home::new();
    home.text("identity create plain");
    let sealed = home
        .command("identity create sealed")
        .env("PORTOLAN_PASSPHRASE", "correct horse")
        .output()
        .unwrap();
    assert!(sealed.status.success());
    let (code, text) = home.failure("identity create third");
    assert_eq!(code, 8);
    assert!(text.contains("PORTOLAN_PASSPHRASE"), "{text}");
    let wrong = home
        .command("identity create third")
        .env("PORTOLAN_PASSPHRASE", "wrong")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(8));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("wrong passphrase"));
}

#[test]
fn a_full_disk_is_named_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(folder.path())
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: a small file system can be mounted only by root");
        return;
    }
    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0).status();
        }
    }
    let _mounted = Mounted(folder.path());
    let home = folder.path().join("home");
    let run = |line: &str| portolan(&home).args(line.split_whitespace()).output().unwrap();
    assert!(run("identity create before").status.success());
    let fill = folder.path().join("fill");
    assert!(std::fs::write(&fill, vec![0; 1024 * 1024]).is_err());
    for line in ["identity create during", "node create", "project create"] {
        let output = run(line);
        assert_eq!(output.status.code(), Some(8), "{line}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("full"), "{line}: {text}");
    }
    std::fs::remove_file(&fill).unwrap();
    assert!(run("identity create after").status.success());
    let list: Value = serde_json::from_slice(&run("identity list --output json").stdout).unwrap();
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|identity| identity["name"].as_str())
        .collect();
    assert_eq!(names, ["after", "before"]);
}

#[test]
fn reset_stops_everything_and_can_be_repeated() {
    let home = Home::new();
    home.text("node create n1");
    home.text("project create --tcp-listener-address 127.0.0.1:0");
    std::fs::create_dir(home.path().join("bin")).unwrap();
    home.text("reset --yes");
    home.text("reset --yes");
    let left: Vec<_> = std::fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["bin"]);
}

//! State on disk: shared by several commands at once, killed, full.

use std::process::Command;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use portolan_tests::service::echoes;
use portolan_tests::{Home, Outcome, Project, Service, eventually, process, skip};

use crate::exit;

/// Runs `command(n)` for each n at the same instant.
fn at_once(
    home: &Arc<Home>,
    count: usize,
    command: impl Fn(usize) -> Vec<String> + Send + Sync + 'static,
) -> Vec<Outcome> {
    let (barrier, command) = (Arc::new(Barrier::new(count)), Arc::new(command));
    let threads: Vec<_> = (0..count)
        .map(|n| {
            let (home, barrier, command) = (home.clone(), barrier.clone(), command.clone());
            std::thread::spawn(move || {
                barrier.wait();
                home.run(command(n))
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

#[test]
fn commands_at_once_against_one_fresh_home_all_succeed() {
    let home = Arc::new(Home::new());
    let outcomes = at_once(&home, 8, |n| words(&format!("identity create name{n}")));
    for outcome in &outcomes {
        assert!(outcome.succeeded(), "{outcome}");
    }
    let listed = home.json(["identity", "list"]);
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 8, "{listed:?}");
    let defaults = listed
        .iter()
        .filter(|identity| identity["is_default"] == true)
        .count();
    assert_eq!(defaults, 1, "{listed:?}");
}

#[test]
fn of_many_commands_that_create_the_same_node_exactly_one_wins() {
    let home = Arc::new(Home::new());
    let outcomes = at_once(&home, 4, |_| words("node create n1"));
    let report = outcomes
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.succeeded()).count(),
        1,
        "{report}"
    );
    for loser in outcomes.iter().filter(|outcome| !outcome.succeeded()) {
        assert_eq!(loser.code, exit::ALREADY_EXISTS, "{loser}");
    }
    assert_eq!(home.processes().len(), 1, "{report}");
}

#[test]
fn different_nodes_created_at_once_in_one_home_all_run() {
    let home = Arc::new(Home::new());
    for outcome in at_once(&home, 4, |n| words(&format!("node create n{n}"))) {
        assert!(outcome.succeeded(), "{outcome}");
    }
    assert_eq!(home.processes().len(), 4);
}

#[test]
fn two_nodes_of_one_home_lose_no_channel_under_handshake_load() {
    let home = Arc::new(Home::new());
    home.ok(["node", "create", "n1"]);
    home.ok(["node", "create", "n2"]);
    for _ in 0..4 {
        let outcomes = at_once(&home, 8, |n| {
            let (from, to) = if n % 2 == 0 { ("n1", "n2") } else { ("n2", "n1") };
            words(&format!(
                "message send hello --from {from} --to /node/{to}/secure/api/service/uppercase"
            ))
        });
        for outcome in outcomes {
            assert!(outcome.succeeded() && outcome.stdout == "HELLO", "{outcome}");
        }
    }
    assert!(!home.logs().contains("database is locked"));
}

#[test]
fn what_a_command_has_confirmed_survives_kill_9() {
    let project = Project::start();
    let bank = project.member("bank", &["--attribute", "role=service", "--relay", "bank"]);
    bank.home
        .ok(["tcp-outlet", "create", "--from", "o1", "--to", "127.0.0.1:9"]);
    bank.home.ok(["relay", "create", "bank"]);
    bank.home.ok([
        "policy",
        "create",
        "--resource-type",
        "tcp-outlet",
        "--allow",
        "auditor",
    ]);
    bank.home.kill_processes();
    bank.home.ok(["node", "start", "bank"]);
    assert!(bank.home.json(["tcp-outlet", "list"]).to_string().contains("o1"));
    assert!(bank.home.ok(["policy", "show", "tcp-outlet"]).contains("auditor"));
    bank.relay_is_up("bank");
}

#[test]
fn secrets_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    let mut folders = vec![home.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                let mode = metadata.permissions().mode() & 0o777;
                assert_eq!(mode & 0o077, 0, "{}: mode {mode:o}", entry.path().display());
            }
        }
    }
}

#[test]
fn a_damaged_database_is_reported_in_a_sentence_and_not_overwritten() {
    let home = Home::new();
    home.ok(["identity", "create", "a"]);
    let mut damaged = Vec::new();
    for entry in std::fs::read_dir(home.path()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains("sqlite") || name.ends_with(".db") {
            std::fs::write(entry.path(), vec![b'x'; 64 * 1024]).unwrap();
            damaged.push(entry.path());
        }
    }
    assert!(!damaged.is_empty(), "no database in the home");
    let refused = home.fails(["identity", "create", "b"]);
    assert_eq!(refused.code, exit::STATE, "{refused}");
    let main = damaged
        .iter()
        .find(|path| !path.to_string_lossy().ends_with("-wal") && !path.to_string_lossy().ends_with("-shm"));
    assert!(
        std::fs::read(main.unwrap()).unwrap().starts_with(b"xxxx"),
        "the damaged file was overwritten"
    );
}

/// A small file system of its own, gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::Builder::new()
            .prefix("portolan-test-disk-")
            .tempdir()
            .unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "portolan-test"])
            .arg(folder.path())
            .stderr(std::process::Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(folder))
    }

    /// Fills it to the last byte; the file that does it.
    fn fill(&self) -> std::path::PathBuf {
        use std::io::Write;
        let path = self.0.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        for size in [64 * 1024, 512, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn on_a_full_disk_commands_fail_in_a_sentence_nodes_go_on_and_all_is_well_when_there_is_room() {
    if !skip::unless_root("mount a small file system") {
        return;
    }
    let Some(disk) = SmallDisk::mount("32m") else {
        skip::because("a file system cannot be mounted here");
        return;
    };
    let service = Service::echo();
    let project = Project::start();
    let _bank = project.bank(service.address);
    let home = Home::below(disk.0.path());
    home.ok([
        "project",
        "enroll",
        &project.ticket(&["--attribute", "role=client"]),
    ]);
    home.ok(["node", "create", "n1"]);
    let from = portolan_tests::project::free_address();
    home.ok([
        "tcp-inlet",
        "create",
        "i1",
        "--from",
        &from.to_string(),
        "--via",
        "bank",
    ]);
    eventually("the inlet works", Duration::from_secs(15), || echoes(from));
    let filler = disk.fill();
    let second = portolan_tests::project::free_address().to_string();
    for command in [
        &["identity", "create", "b"][..],
        &["node", "create", "n2"],
        &["tcp-inlet", "create", "i2", "--from", &second, "--via", "bank"],
        &[
            "policy",
            "create",
            "--resource-type",
            "tcp-inlet",
            "--allow",
            "someone",
        ],
    ] {
        let outcome = home.fails(command);
        assert_eq!(outcome.code, exit::STATE, "{outcome}");
    }
    for look in [
        &["node", "list"][..],
        &["identity", "list"],
        &["project", "show"],
        &["tcp-inlet", "show", "i1"],
        &["status"],
    ] {
        let shown = home.json(look).to_string();
        let known = ["n1", "default", "i1"].iter().any(|name| shown.contains(name));
        assert!(known, "{look:?} on a full disk: {shown}");
    }
    for _ in 0..20 {
        assert!(echoes(from), "an open inlet stops when the disk is full");
    }
    std::fs::remove_file(filler).unwrap();
    home.ok(["identity", "create", "b"]);
    home.ok(["node", "create", "n2"]);
    home.ok(["tcp-inlet", "create", "i2", "--from", &second, "--via", "bank"]);
    assert!(echoes(from));
}

#[test]
fn a_home_sealed_with_a_passphrase_is_of_no_use_without_it() {
    let home = Home::new();
    let with = |passphrase: Option<&str>, line: &str| {
        let mut command = home.command(words(line));
        if let Some(passphrase) = passphrase {
            command.env("PORTOLAN_PASSPHRASE", passphrase);
        }
        portolan_tests::home::run(command, portolan_tests::home::COMMAND_LIMIT)
    };
    let right = Some("correct horse battery staple");
    let created = with(right, "identity create alice");
    assert!(created.succeeded(), "{created}");
    let issue = format!(
        "credential issue --as alice --for {} --attribute a=b",
        created.stdout
    );
    assert!(with(right, &issue).succeeded());
    for wrong in [None, Some("wrong")] {
        let refused = with(wrong, &issue);
        assert_eq!(refused.code, exit::STATE, "{refused}");
        refused.says(&["PORTOLAN_PASSPHRASE"]);
    }
    assert!(with(right, "node create n1").succeeded());
}

#[test]
fn a_node_whose_killed_process_still_holds_its_lock_is_started_all_the_same() {
    let home = Arc::new(Home::new());
    home.ok(["node", "create", "n1"]);
    let pid = home.node_process("n1");
    // It holds the lock and says nothing, like a process that the kernel takes apart.
    process::pause(pid);
    let starting = std::thread::spawn({
        let home = home.clone();
        move || home.run(["node", "start", "n1"])
    });
    eventually("the command asks the node", Duration::from_secs(10), || {
        home.processes().len() > 1 || starting.is_finished()
    });
    process::kill(pid);
    let outcome = starting.join().unwrap();
    assert!(outcome.succeeded(), "{outcome}");
    assert_ne!(home.node_process("n1"), pid, "{outcome}");
}

//! Relays: who may have which name, and what happens when the path is lost.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portolan_tests::project::UP_LIMIT;
use portolan_tests::service::{connect, echoes, end_of, pattern_bytes};
use portolan_tests::{Project, Service, eventually, process, until};

use crate::story::Story;

/// `relay create` for a name that the member has no right to: whatever the exit code, the refusal is reported.
fn refused(member: &portolan_tests::Member, name: &str) {
    let outcome = member.home.run(["relay", "create", name]);
    let shown = member.home.run(["relay", "show", name, "--output", "json"]);
    assert!(
        !shown.stdout.contains(r#""Up""#),
        "up without the right to the name: {shown}"
    );
    let told = format!("{}{}", outcome.stderr, shown.stdout).to_lowercase();
    assert!(
        told.contains("refused") || told.contains("not allowed") || told.contains("permission"),
        "{outcome}\n{shown}"
    );
}

#[test]
fn a_member_gets_the_relay_of_its_ticket_and_no_other() {
    let project = Project::start();
    let bank = project.member("bank", &["--relay", "bank"]);
    bank.home.ok(["relay", "create", "bank"]);
    bank.relay_is_up("bank");
    refused(&bank, "treasury");
}

#[test]
fn a_member_without_the_right_to_a_relay_gets_none() {
    let project = Project::start();
    let member = project.member("n1", &["--attribute", "role=client"]);
    refused(&member, "bank");
}

#[test]
fn a_member_that_was_refused_a_relay_gets_it_by_the_steps_that_the_refusal_names() {
    let project = Project::start();
    let member = project.member("n1", &["--attribute", "role=service"]);
    let identifier = member.home.ok(["identity", "show"]);
    member
        .home
        .fails(["relay", "create", "bank"])
        .says(&["project-member add", "project enroll"]);
    let right = ["--attribute", "role=service", "--relay", "bank"];
    let add = ["project-member", "add", &identifier];
    project
        .home
        .run(add.iter().chain(&right))
        .says(&["replaces", "role=service"]);
    member.home.ok(["project", "enroll"]);
    portolan_tests::eventually("the node has its right", UP_LIMIT, || {
        member.home.run(["relay", "create", "bank"]).succeeded()
    });
    member.relay_is_up("bank");
}

#[test]
fn a_relay_at_a_project_that_is_not_known_is_an_error_and_none_is_kept() {
    let project = Project::start();
    let member = project.member("n1", &["--relay", "bank"]);
    let outcome = member
        .home
        .fails(["relay", "create", "bank", "--at", "/project/nowhere"]);
    assert_eq!(outcome.code, crate::exit::NOT_FOUND, "{outcome}");
    outcome.says(&["nowhere"]);
    assert_eq!(member.home.json(["relay", "list"]), serde_json::json!([]));
}

#[test]
fn a_relay_is_taken_over_only_by_its_owner() {
    let story = Story::told();
    let rival = story
        .project
        .member("rival", &["--attribute", "role=service", "--relay", "bank"]);
    let trap = Service::echo();
    rival.home.ok([
        "policy",
        "create",
        "--resource-type",
        "tcp-outlet",
        "--allow",
        r#"(= subject.role "client")"#,
    ]);
    rival
        .home
        .ok(["tcp-outlet", "create", "--to", &trap.address.to_string()]);
    rival.home.run(["relay", "create", "bank"]);
    for _ in 0..5 {
        assert!(echoes(story.inlet));
    }
    assert_eq!(
        trap.accepted(),
        0,
        "the rival got the traffic of the owner's relay"
    );
    assert!(!rival.relay_up("bank"));
    // The owner comes back under its name.
    story.bank.home.kill_processes();
    story.bank.home.ok(["node", "start", "bank"]);
    story.bank.relay_is_up("bank");
    eventually("the owner's relay carries again", UP_LIMIT, || {
        echoes(story.inlet)
    });
    assert_eq!(trap.accepted(), 0);
}

#[test]
fn a_relay_name_with_a_hash_is_refused_and_the_hub_goes_on() {
    let project = Project::start();
    let anyone = project.member("n1", &["--relay", "*"]);
    let hub = project.processes();
    for name in [
        "a#b",
        "1#127.0.0.1:9",
        "#",
        "a#b#c",
        "",
        " ",
        "a/b",
        &"x".repeat(70_000),
    ] {
        let outcome = anyone.home.run(["relay", "create", "--", name]);
        assert!(
            outcome.code.is_some() && !outcome.stderr.contains("panicked"),
            "{outcome}"
        );
    }
    assert_eq!(project.processes(), hub, "the hub's process has changed");
    anyone.home.ok(["relay", "create", "good"]);
    anyone.relay_is_up("good");
}

#[test]
fn an_inlet_to_a_relay_that_does_not_exist_is_created_shown_as_down_and_closes_clients_at_once() {
    let project = Project::start();
    let analysis = project.member("analysis", &["--attribute", "role=client"]);
    let address = analysis.inlet("inlet", &["--via", "missing", "--connection-wait", "1s"]);
    assert_eq!(analysis.show_inlet("inlet")["status"], "Down");
    let reason = until(UP_LIMIT, || {
        analysis.show_inlet("inlet")["last_failure"]
            .as_str()
            .map(str::to_owned)
    });
    // The route as it was asked for, not the addresses that it was resolved to.
    assert!(
        reason.is_some_and(|reason| reason.contains("/project/default/service/forward_to_missing")),
        "{}",
        analysis.show_inlet("inlet")
    );
    let start = std::time::Instant::now();
    let mut client = portolan_tests::service::connect(address);
    let end = portolan_tests::service::end_of(&mut client, Duration::from_secs(3));
    assert!(
        end.is_closed() && start.elapsed() < Duration::from_secs(1),
        "{end:?} after {:?}",
        start.elapsed()
    );
}

#[test]
fn an_inlet_that_was_there_first_works_when_its_relay_comes() {
    let project = Project::start();
    let service = Service::echo();
    let analysis = project.member("analysis", &["--attribute", "role=client"]);
    let inlet = analysis.inlet("inlet", &["--via", "bank", "--no-connection-wait"]);
    assert!(!echoes(inlet));
    let _bank = project.bank(service.address);
    eventually("the inlet works", UP_LIMIT, || echoes(inlet));
}

#[test]
fn after_a_restart_of_the_hub_relay_and_inlet_come_back_by_themselves() {
    let story = Story::told();
    let name = story.project.node_name();
    story.project.home.kill_processes();
    eventually("the relay is shown as down", Duration::from_secs(40), || {
        !story.bank.relay_up("bank")
    });
    let shown = story.bank.show_relay("bank");
    assert!(
        shown["last_failure"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty()),
        "down without a reason: {shown}"
    );
    story.project.home.ok(["node", "start", &name]);
    eventually("the relay is up", UP_LIMIT, || story.bank.relay_up("bank"));
    eventually("the portal carries", UP_LIMIT, || echoes(story.inlet));
}

#[test]
fn a_link_that_is_cut_and_mended_is_used_again() {
    let (project, link) = Project::start_behind_an_interposer();
    let story = Story::told_at(project, Service::echo());
    assert!(echoes(story.inlet));
    link.cut();
    assert!(!echoes(story.inlet));
    link.mend();
    eventually("the portal carries again", Duration::from_secs(30), || {
        echoes(story.inlet)
    });
}

#[test]
fn an_inlet_recovers_when_the_outlets_node_is_killed_and_started() {
    let story = Story::told();
    assert!(echoes(story.inlet));
    let pid = story.bank.process();
    process::kill(pid);
    eventually("the process is gone", Duration::from_secs(5), || {
        !process::is_alive(pid)
    });
    story.bank.home.ok(["node", "start", "bank"]);
    eventually("the portal carries again", Duration::from_secs(30), || {
        echoes(story.inlet)
    });
}

/// Nobody says goodbye, and the session's own pings would notice half a minute later: it is the first client's wait that makes the inlet
/// look.
#[test]
fn when_the_outlets_node_is_killed_the_first_client_is_closed_with_the_path_and_the_next_at_once() {
    let story = Story::told();
    assert!(echoes(story.inlet));
    process::kill(story.bank.process());
    let mut first = connect(story.inlet);
    let begun = Instant::now();
    assert!(end_of(&mut first, Duration::from_secs(20)).is_closed());
    println!("closed after {:?}", begun.elapsed());
    eventually("the inlet is down", Duration::from_secs(8), || {
        !story.analysis.inlet_up("inlet")
    });
    let mut next = connect(story.inlet);
    assert!(end_of(&mut next, Duration::from_secs(1)).is_closed());
}

/// The limits are below the 30 s after which unanswered pings end a path, and no client asks before: only a goodbye is that early.
#[test]
fn an_idle_inlet_is_told_when_the_outlets_node_stops_and_closes_clients_until_it_is_back() {
    let story = Story::told();
    assert!(echoes(story.inlet));
    story.bank.home.ok(["node", "stop", "bank"]);
    let down = eventually("the inlet is down", Duration::from_secs(8), || {
        !story.analysis.inlet_up("inlet")
    });
    println!("down after {down:?}");
    let mut client = connect(story.inlet);
    assert!(end_of(&mut client, Duration::from_secs(1)).is_closed());
    story.bank.home.ok(["node", "start", "bank"]);
    eventually("the portal carries again", UP_LIMIT, || echoes(story.inlet));
}

#[test]
fn the_hub_sees_no_plaintext() {
    let (project, wire) = Project::start_behind_an_interposer();
    let story = Story::told_at(project, Service::echo());
    let canary = b"canary 8f3a1c in the rows of the bank";
    let mut client = portolan_tests::service::connect(story.inlet);
    for _ in 0..20 {
        assert_eq!(portolan_tests::service::ask(&mut client, canary).unwrap(), canary);
    }
    assert!(
        wire.seen() > 20 * canary.len(),
        "the traffic did not go through the wire that was watched"
    );
    assert!(!wire.has_seen(canary), "plaintext on the wire");
    assert!(!wire.has_seen(&canary[..16]));
}

/// What each stream to the stopped node has carried before, so that its window is as large as it becomes; and what it carries then.
const GROWN: usize = 16 * 1024 * 1024;
const HELD_BACK: usize = 8 * 1024 * 1024;
/// With up to 4 MiB each they have more on their way than a relay and all sockets hold.
const STREAMS: usize = 24;
/// Of the pattern, at a time.
const PIECE: usize = 251 * 1024;

/// Sends the pattern without end, if the first byte is `P`; echoes else.
fn pattern_or_echo() -> Service {
    Service::start(|mut stream| {
        let mut first = [0];
        stream.read_exact(&mut first)?;
        if first != *b"P" {
            stream.write_all(&first)?;
            return io::copy(&mut stream.try_clone()?, &mut stream).map(drop);
        }
        let pattern = pattern_bytes(0, PIECE);
        loop {
            stream.write_all(&pattern)?;
        }
    })
}

/// Reads the pattern until that is enough, and counts it.
fn read_pattern(mut stream: TcpStream, count: &AtomicUsize, is_enough: &AtomicBool) {
    let pattern = pattern_bytes(0, 2 * PIECE);
    let (mut buffer, mut at) = (vec![0; PIECE], 0);
    while !is_enough.load(Ordering::SeqCst) {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "a stream ends after {at} bytes");
        assert!(
            pattern[at % 251..][..read] == buffer[..read],
            "other bytes arrive"
        );
        at += read;
        count.fetch_add(read, Ordering::SeqCst);
    }
}

/// The bank's node has one connection to the relay's, for all who use its service. Together the windows of the streams to one of them
/// are many times what the relay's node queues for it.
#[test]
fn a_node_that_is_stopped_delays_nobody_who_uses_the_same_service_and_goes_on_where_it_was() {
    let story = Story::told_with(pattern_or_echo());
    let second = story.project.member("second", &["--attribute", "role=client"]);
    let policy = ["policy", "create", "--resource-type", "tcp-inlet"];
    let services = ["--allow", r#"(= subject.role "service")"#];
    second.home.ok(policy.iter().chain(&services));
    let inlet = second.inlet("inlet", &["--via", "bank"]);
    second.inlet_is_up("inlet");
    let (count, is_enough) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| {
            let mut stream = connect(inlet);
            stream.write_all(b"P").unwrap();
            let (count, is_enough) = (Arc::clone(&count), Arc::clone(&is_enough));
            thread::spawn(move || read_pattern(stream, &count, &is_enough))
        })
        .collect();
    let has_carried = |bytes: usize| {
        eventually("the streams carry", Duration::from_secs(120), || {
            count.load(Ordering::SeqCst) >= bytes
        })
    };
    has_carried(STREAMS * GROWN);

    let pid = second.process();
    process::pause(pid);
    // Longer than the relay's node would wait for one that keeps others waiting.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        assert!(echoes(story.inlet), "{:?} after the stop", began.elapsed());
    }
    let before = count.load(Ordering::SeqCst);
    process::resume(pid);
    has_carried(before + STREAMS * HELD_BACK);
    is_enough.store(true, Ordering::SeqCst);
    for stream in streams {
        stream.join().unwrap();
    }
}

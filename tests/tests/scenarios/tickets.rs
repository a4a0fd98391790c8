//! Tickets: what they carry, who may redeem them, how often, until when.

use std::sync::{Arc, Barrier};
use std::time::{Duration, SystemTime};

use portolan_tests::{Home, Project, eventually};

use crate::exit;

#[test]
fn standard_output_of_project_ticket_is_the_ticket_alone() {
    let project = Project::start();
    let outcome = project.home.run([
        "project",
        "ticket",
        "--attribute",
        "role=service",
        "--usage-count",
        "1",
    ]);
    assert!(outcome.succeeded(), "{outcome}");
    assert!(
        !outcome.stdout.is_empty() && outcome.stdout.lines().count() == 1,
        "{outcome}"
    );
    assert!(
        !outcome.stderr.contains(&outcome.stdout),
        "the ticket is a secret, and not for the notes: {outcome}"
    );
}

#[test]
fn a_ticket_survives_shell_quoting_and_sed() {
    let project = Project::start();
    for _ in 0..5 {
        let ticket = project.ticket(&["--relay", "postgres"]);
        assert!(
            ticket
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'),
            "characters that sed, the shell or a URL would change: {ticket}"
        );
    }
}

#[test]
fn a_ticket_is_redeemed_as_text_and_from_a_file_with_or_without_a_newline() {
    let project = Project::start();
    Home::new().ok(["project", "enroll", &project.ticket(&[])]);
    for ending in ["", "\n", "\r\n"] {
        let home = Home::new();
        let file = home.path().join("ticket");
        std::fs::write(&file, project.ticket(&[]) + ending).unwrap();
        home.ok(["project".as_ref(), "enroll".as_ref(), file.as_os_str()]);
    }
}

#[test]
fn a_ticket_gives_the_attributes_that_it_was_made_with() {
    let project = Project::start();
    let home = Home::new();
    let ticket = project.ticket(&[
        "--attribute",
        "role=service",
        "--attribute",
        "trusted",
        "--relay",
        "postgres",
    ]);
    let enrolled = home.json(["project", "enroll", &ticket]);
    let attributes = &enrolled["credential"]["attributes"];
    let attributes = if attributes.is_null() {
        &enrolled["attributes"]
    } else {
        attributes
    };
    assert_eq!(attributes["role"], "service", "{enrolled}");
    assert_eq!(
        attributes["trusted"], "true",
        "a bare name is an attribute with the value true: {enrolled}"
    );
    assert_eq!(attributes["ockam-relay"], "postgres", "{enrolled}");
}

#[test]
fn a_ticket_is_redeemed_only_once() {
    let project = Project::start();
    let ticket = project.ticket(&["--usage-count", "1"]);
    Home::new().ok(["project", "enroll", &ticket]);
    let refused = Home::new().fails(["project", "enroll", &ticket]);
    assert_eq!(refused.code, exit::REFUSED, "{refused}");
    refused.says(&["used"]);
}

#[test]
fn a_ticket_for_two_is_redeemed_by_two_and_not_by_a_third() {
    let project = Project::start();
    let ticket = project.ticket(&["--usage-count", "2"]);
    Home::new().ok(["project", "enroll", &ticket]);
    Home::new().ok(["project", "enroll", &ticket]);
    Home::new().fails(["project", "enroll", &ticket]).says(&["used"]);
}

#[test]
fn of_many_who_redeem_a_ticket_at_the_same_instant_exactly_one_wins() {
    let project = Project::start();
    let ticket = project.ticket(&["--usage-count", "1"]);
    let barrier = Arc::new(Barrier::new(6));
    let threads: Vec<_> = (0..6)
        .map(|_| {
            let (ticket, barrier) = (ticket.clone(), barrier.clone());
            std::thread::spawn(move || {
                let home = Home::new();
                barrier.wait();
                home.run(["project", "enroll", &ticket])
            })
        })
        .collect();
    let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let winners = outcomes.iter().filter(|outcome| outcome.succeeded()).count();
    assert_eq!(
        winners,
        1,
        "{}",
        outcomes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    );
    for loser in outcomes.iter().filter(|outcome| !outcome.succeeded()) {
        assert_eq!(loser.code, exit::REFUSED, "{loser}");
        loser.says(&["used"]);
    }
}

#[test]
fn the_same_machine_may_redeem_its_ticket_again() {
    let project = Project::start();
    let ticket = project.ticket(&["--usage-count", "1"]);
    let home = Home::new();
    home.ok(["project", "enroll", &ticket]);
    home.ok(["project", "enroll", &ticket]);
}

#[test]
fn a_member_is_told_that_another_ticket_adds_nothing_and_the_ticket_stays_good() {
    let project = Project::start();
    let home = Home::new();
    home.ok([
        "project",
        "enroll",
        &project.ticket(&["--attribute", "role=client"]),
    ]);
    let other = project.ticket(&["--attribute", "role=service", "--usage-count", "1"]);
    let again = home.run(["project", "enroll", &other]);
    assert!(again.succeeded(), "{again}");
    again.says(&["changed nothing", "(role=client)", "project-member add"]);
    Home::new().ok(["project", "enroll", &other]);
}

#[test]
fn a_used_ticket_stays_used_and_a_new_one_stays_good_when_the_hub_is_killed_and_started() {
    let project = Project::start();
    let (used, new) = (project.ticket(&[]), project.ticket(&[]));
    Home::new().ok(["project", "enroll", &used]);
    let name = project.node_name();
    project.home.kill_processes();
    project.home.ok(["node", "start", &name]);
    Home::new().fails(["project", "enroll", &used]).says(&["used"]);
    Home::new().ok(["project", "enroll", &new]);
}

#[test]
fn an_expired_ticket_is_refused_with_that_reason() {
    let project = Project::start();
    let made = SystemTime::now();
    let ticket = project.ticket(&["--expires-in", "1s"]);
    // The event waited for is the clock's.
    eventually("two seconds are over", Duration::from_secs(5), || {
        made.elapsed().is_ok_and(|age| age > Duration::from_millis(2200))
    });
    let refused = Home::new().fails(["project", "enroll", &ticket]);
    assert_eq!(refused.code, exit::REFUSED, "{refused}");
    refused.says(&["expired"]);
}

#[test]
fn a_truncated_ticket_is_refused_and_never_shown_in_full() {
    let project = Project::start();
    let ticket = project.ticket(&[]);
    for length in [
        0,
        1,
        7,
        ticket.len() / 4,
        ticket.len() / 2,
        ticket.len() - 2,
        ticket.len() - 1,
    ] {
        let home = Home::new();
        let cut = &ticket[..length];
        let outcome = home.fails(["project", "enroll", cut]);
        assert!(
            length < 40 || !outcome.stderr.contains(cut),
            "the message shows the secret: {outcome}"
        );
        assert!(
            length < 40 || !home.logs().contains(cut),
            "a log shows the secret"
        );
    }
    // What was tried with parts of it did not use it up.
    Home::new().ok(["project", "enroll", &ticket]);
}

#[test]
fn a_ticket_with_a_changed_character_is_refused() {
    let project = Project::start();
    let ticket = project.ticket(&[]);
    for at in [3, ticket.len() / 3, ticket.len() / 2, ticket.len() - 3] {
        let mut changed: Vec<u8> = ticket.clone().into_bytes();
        changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
        let changed = String::from_utf8(changed).unwrap();
        Home::new().fails(["project", "enroll", &changed]);
    }
    Home::new().ok(["project", "enroll", &ticket]);
}

#[test]
fn a_ticket_of_another_project_is_refused_by_the_hub_at_the_same_address() {
    let first = Project::start();
    let foreign = first.ticket(&[]);
    let address = first.address.to_string();
    first.home.kill_processes();
    let home = Home::new();
    home.ok(["project", "create", "default", "--tcp-listener-address", &address]);
    Home::new().fails(["project", "enroll", &foreign, "--timeout", "15s"]);
}

#[test]
fn a_ticket_for_a_hub_that_is_away_fails_soon_and_says_where_it_looked() {
    let project = Project::start();
    let ticket = project.ticket(&[]);
    project.home.kill_processes();
    let outcome = Home::new().fails(["project", "enroll", &ticket]);
    outcome.says(&[&project.address.port().to_string()]);
    assert!(outcome.took < Duration::from_secs(20), "{outcome}");
}

#[test]
fn a_member_that_is_no_enroller_can_make_no_ticket() {
    let project = Project::start();
    let home = Home::new();
    home.ok([
        "project",
        "enroll",
        &project.ticket(&["--attribute", "role=service"]),
    ]);
    assert_eq!(home.fails(["project", "ticket"]).code, exit::REFUSED);
    assert_eq!(home.fails(["project-member", "list"]).code, exit::REFUSED);
}

#[test]
fn members_are_listed_with_their_attributes_and_a_deleted_one_cannot_come_back_with_its_ticket() {
    let project = Project::start();
    let home = Home::new();
    let ticket = project.ticket(&["--attribute", "role=service"]);
    home.ok(["project", "enroll", &ticket]);
    let identifier = home.ok(["identity", "show"]);
    let identifier = identifier
        .split_ascii_whitespace()
        .find(|word| word.starts_with('I'))
        .unwrap()
        .to_owned();
    let members = project.home.json(["project-member", "list"]).to_string();
    assert!(
        members.contains(&identifier) && members.contains("service"),
        "{members}"
    );
    project.home.ok(["project-member", "delete", &identifier]);
    let members = project.home.json(["project-member", "list"]).to_string();
    assert!(!members.contains(&identifier), "{members}");
    home.fails(["project", "enroll", &ticket]);
}

/// A pod: its entrypoint is the same command at every start.
fn start_pod(home: &Home, ticket: &std::path::Path) -> portolan_tests::Outcome {
    let ticket = ticket.to_str().unwrap();
    home.run(["node", "create", "pod", "--enrollment-ticket", ticket])
}

#[test]
fn a_pod_that_restarts_with_its_home_is_the_same_member_although_its_ticket_is_spent() {
    let project = Project::start();
    let (home, folder) = (Home::new(), tempfile::tempdir().unwrap());
    let file = folder.path().join("ticket");
    std::fs::write(&file, project.ticket(&["--expires-in", "5s"])).unwrap();
    let first = start_pod(&home, &file);
    assert!(first.succeeded(), "{first}");
    let identifier = home.ok(["identity", "show"]);
    home.kill_processes();
    let again = start_pod(&home, &file);
    assert!(again.succeeded(), "{again}");
    assert_eq!(home.ok(["identity", "show"]), identifier);
    // Nor does the ticket's end matter, or that nobody can be asked.
    home.kill_processes();
    project.home.kill_processes();
    let alone = start_pod(&home, &file);
    assert!(alone.succeeded(), "{alone}");
    alone.says(&["is a member", "cannot be"]);
    assert_eq!(home.json(["node", "show", "pod"])["project"], "default");
}

#[test]
fn a_pod_that_lost_its_home_is_told_why_its_ticket_does_not_help_and_what_does() {
    let project = Project::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ticket");
    std::fs::write(&file, project.ticket(&[])).unwrap();
    let first = Home::new();
    assert!(start_pod(&first, &file).succeeded());
    drop(first);
    let lost = Home::new();
    let refused = start_pod(&lost, &file);
    assert_eq!(refused.code, exit::REFUSED, "{refused}");
    refused.says(&["redeemed", "PORTOLAN_HOME", "volume", "project ticket"]);
    assert!(
        lost.processes().is_empty(),
        "a node without membership was left behind"
    );
    std::fs::write(&file, project.ticket(&[])).unwrap();
    let helped = start_pod(&lost, &file);
    assert!(helped.succeeded(), "{helped}");
}

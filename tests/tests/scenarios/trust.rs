//! Trust: who is let in at all.

use std::time::Duration;

use portolan_tests::service::{ask, connect, echoes, end_of, pattern_bytes};
use portolan_tests::{Home, Project, Service, eventually};

use crate::story::Story;

#[test]
fn a_node_without_a_credential_is_refused_by_an_outlet() {
    let service = Service::echo();
    let project = Project::start();
    let address = portolan_tests::project::free_address();
    let bank = project.home_of_a_bank_at(address, service.address);
    let outsider = Home::new();
    outsider.ok(["node", "create", "outsider"]);
    let route = format!("/ip4/127.0.0.1/tcp/{}/secure/api/service/outlet", address.port());
    let from = portolan_tests::project::free_address();
    outsider.run([
        "tcp-inlet",
        "create",
        "i",
        "--from",
        &from.to_string(),
        "--to",
        &route,
        "--connection-wait",
        "2s",
    ]);
    if let Ok(mut client) = std::net::TcpStream::connect(from) {
        assert!(end_of(&mut client, Duration::from_secs(5)).is_closed());
    }
    assert_eq!(service.accepted(), 0, "an outsider reached the service");
    drop(bank);
}

#[test]
fn a_member_of_another_project_is_refused_by_an_outlet() {
    let service = Service::echo();
    let (ours, theirs) = (Project::start(), Project::start());
    let address = portolan_tests::project::free_address();
    let bank = ours.home_of_a_bank_at(address, service.address);
    let foreigner = theirs.member("foreigner", &["--attribute", "role=client"]);
    let route = format!("/ip4/127.0.0.1/tcp/{}/secure/api/service/outlet", address.port());
    let inlet = foreigner.inlet("i", &["--to", &route, "--connection-wait", "2s"]);
    let mut client = connect(inlet);
    assert!(end_of(&mut client, Duration::from_secs(5)).is_closed());
    assert_eq!(
        service.accepted(),
        0,
        "a credential of another authority was believed"
    );
    drop(bank);
}

#[test]
fn a_member_reaches_the_service_that_it_may_use_and_nothing_else_of_that_node() {
    let story = Story::told();
    let secret = Service::echo();
    story.bank.home.ok([
        "tcp-outlet",
        "create",
        "--from",
        "secret",
        "--to",
        &secret.address.to_string(),
        "--allow",
        r#"(= subject.role "auditor")"#,
    ]);
    for service in [
        "secret",
        "node_manager",
        "_internal.nodemanager",
        "rpc",
        "forwarding_service",
    ] {
        let route = format!("/project/default/service/forward_to_bank/secure/api/service/{service}");
        let outcome =
            story
                .analysis
                .home
                .run(["message", "send", "hello", "--to", &route, "--timeout", "2s"]);
        // The relay service of every node says no by itself.
        let refused = !outcome.succeeded() || outcome.stdout.starts_with("refused:");
        assert!(refused, "{service} served a member: {outcome}");
    }
    assert_eq!(secret.accepted(), 0);
}

#[test]
fn the_bank_cannot_open_a_connection_into_analysis() {
    let story = Story::told();
    let outcome = story.bank.home.run([
        "message",
        "send",
        "hello",
        "--to",
        "/project/default/service/forward_to_analysis/secure/api/service/echo",
        "--timeout",
        "2s",
    ]);
    assert!(!outcome.succeeded(), "{outcome}");
}

#[test]
fn a_deleted_member_is_cut_off_and_others_are_not() {
    let story = Story::told();
    let other = story.project.member("other", &["--attribute", "role=client"]);
    let others = other.inlet("inlet", &["--via", "bank"]);
    other.inlet_is_up("inlet");
    let identifier = story.analysis.home.json(["node", "show", "analysis"])["identifier"]
        .as_str()
        .unwrap()
        .to_owned();
    story.project.home.ok(["project-member", "delete", &identifier]);
    // Without a credential nothing can be renewed: the authority's word is final for whatever needs a new one.
    story.analysis.home.kill_processes();
    story.analysis.home.run(["node", "start", "analysis"]);
    eventually("the others go on", Duration::from_secs(15), || echoes(others));
    let outcome = story.analysis.home.run(["project", "enroll"]);
    assert!(
        !outcome.succeeded(),
        "a deleted member enrolled again without a ticket: {outcome}"
    );
}

#[test]
fn credentials_are_renewed_before_they_expire_without_cutting_a_stream_until_the_member_is_deleted() {
    let life = Duration::from_secs(6);
    let project = Project::start_with_credentials_for("6s");
    let story = Story::told_at(project, Service::echo());
    let mut client = connect(story.inlet);
    let start = std::time::Instant::now();
    let mut sent = 0;
    while start.elapsed() < 2 * life + life / 2 {
        let piece = pattern_bytes(sent, 5_000);
        assert_eq!(
            ask(&mut client, &piece).unwrap(),
            piece,
            "after {:?} and {sent} bytes",
            start.elapsed()
        );
        sent += piece.len() as u64;
    }
    let identifier = story.analysis.home.json(["node", "show", "analysis"])["identifier"]
        .as_str()
        .unwrap()
        .to_owned();
    story.project.home.ok(["project-member", "delete", &identifier]);
    eventually(
        "a deleted member is cut off when its credential ends",
        3 * life,
        || ask(&mut client, b"still there").is_err() && !echoes(story.inlet),
    );
}

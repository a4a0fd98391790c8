//! Policies: what is refused when they are made, and what they refuse when they are in force.

use std::time::Duration;

use portolan_tests::service::{self, End, ask, connect, echoes, end_of};
use portolan_tests::{Home, Project, Service, eventually};

use crate::exit;
use crate::story::Story;

/// A change of a policy is in force within this time, on open portals too.
const SOON: Duration = Duration::from_secs(5);

fn set(home: &Home, resource_type: &str, expression: &str) {
    home.ok([
        "policy",
        "create",
        "--resource-type",
        resource_type,
        "--allow",
        expression,
    ]);
}

#[test]
fn a_syntax_error_is_shown_with_its_position_and_a_caret() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    for expression in [
        r#"(= subject.role "client""#,
        "a.b or",
        "(= subject.role",
        "(nonsense 1 2)",
        ")",
    ] {
        let refused = home.fails([
            "policy",
            "create",
            "--resource-type",
            "tcp-outlet",
            "--allow",
            expression,
        ]);
        assert_eq!(refused.code, exit::INVALID_ARGUMENT, "{refused}");
        refused.says(&["^", expression]);
    }
    let expression = r#"(= subject.a "x") ~"#;
    home.fails([
        "policy",
        "create",
        "--resource-type",
        "tcp-outlet",
        "--allow",
        expression,
    ]);
}

#[test]
fn both_grammars_are_taken_and_shown_in_the_same_form() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    set(&home, "tcp-outlet", "web and not guest");
    let shown = home.ok(["policy", "show", "tcp-outlet"]);
    assert!(shown.contains("subject.web") && shown.contains("(and"), "{shown}");
    home.ok([
        "policy",
        "create",
        "--resource",
        "my_outlet",
        "--expression",
        r#"(= subject.web "true")"#,
    ]);
    assert!(home.ok(["policy", "list"]).contains("my_outlet"));
    home.ok(["policy", "delete", "my_outlet", "-y"]);
    assert!(!home.ok(["policy", "list"]).contains("my_outlet"));
}

#[test]
fn only_the_right_attributes_on_both_sides_carry_bytes() {
    let story = Story::told();
    assert!(echoes(story.inlet));
    let client = r#"(= subject.role "client")"#;
    let service = r#"(= subject.role "service")"#;
    let other = r#"(= subject.role "other")"#;
    for (outlet, inlet, flows) in [
        (other, service, false),
        (client, other, false),
        (other, other, false),
        (client, service, true),
    ] {
        set(&story.bank.home, "tcp-outlet", outlet);
        set(&story.analysis.home, "tcp-inlet", inlet);
        eventually(
            &format!("outlet {outlet}, inlet {inlet}: flows {flows}"),
            Duration::from_secs(15),
            || echoes(story.inlet) == flows,
        );
    }
}

#[test]
fn a_member_without_the_attribute_is_refused_and_its_client_is_closed_not_left_hanging() {
    let story = Story::told();
    let stranger = story
        .project
        .member("stranger", &["--attribute", "role=stranger"]);
    let before = story.service.accepted();
    let inlet = stranger.inlet("inlet", &["--via", "bank"]);
    let mut client = connect(inlet);
    let end = end_of(&mut client, SOON);
    assert_eq!(end, End::Closed(0), "the client of a stranger");
    assert_eq!(
        story.service.accepted(),
        before,
        "the service was reached by a stranger"
    );
    let shown = stranger.show_inlet("inlet");
    assert!(
        shown["last_failure"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty()),
        "no reason is shown: {shown}"
    );
    assert!(echoes(story.inlet), "others are not disturbed");
}

#[test]
fn a_change_of_policy_closes_open_portals_and_never_leaves_a_hole() {
    let story = Story::told();
    let mut client = connect(story.inlet);
    assert_eq!(ask(&mut client, b"before").unwrap(), b"before");
    set(&story.bank.home, "tcp-outlet", r#"(= subject.role "nobody")"#);
    // Whatever still comes back is a prefix of what was sent.
    let sent = service::pattern_bytes(0, 10_000);
    let start = std::time::Instant::now();
    let mut back = 0;
    while start.elapsed() < SOON {
        match ask(&mut client, &sent) {
            Ok(answer) => {
                assert_eq!(answer, sent);
                back += 1;
            }
            Err(_) => break,
        }
    }
    assert!(
        start.elapsed() < SOON,
        "an open portal goes on under a policy that forbids it ({back} answers)"
    );
    eventually("the service's connection is closed too", SOON, || {
        story.service.open() == 0
    });
    set(&story.bank.home, "tcp-outlet", r#"(= subject.role "client")"#);
    eventually(
        "it works again when it is allowed again",
        Duration::from_secs(15),
        || echoes(story.inlet),
    );
}

#[test]
fn a_policy_bound_to_one_outlet_wins_over_that_of_the_type() {
    let story = Story::told();
    let second = Service::echo();
    story.bank.home.ok([
        "tcp-outlet",
        "create",
        "--from",
        "second",
        "--to",
        &second.address.to_string(),
        "--allow",
        r#"(= subject.role "auditor")"#,
    ]);
    let inlet = story
        .analysis
        .inlet("to-second", &["--via", "bank", "--to", "second"]);
    let mut client = connect(inlet);
    assert!(end_of(&mut client, SOON).is_closed());
    assert_eq!(
        second.accepted(),
        0,
        "the type's policy let in whom the outlet's own refuses"
    );
    assert!(echoes(story.inlet));
}

#[test]
fn policies_survive_a_crash_of_the_node() {
    let story = Story::told();
    set(&story.bank.home, "tcp-outlet", r#"(= subject.role "nobody")"#);
    story.bank.home.kill_processes();
    story.bank.home.ok(["node", "start", "bank"]);
    story.bank.relay_is_up("bank");
    story.analysis.inlet_is_up("inlet");
    assert!(!echoes(story.inlet), "after a restart the policy is forgotten");
    assert_eq!(story.service.accepted(), 0);
}

#[test]
fn a_policy_that_names_an_attribute_nobody_has_is_made_with_a_warning_that_says_so() {
    let project = Project::start();
    let member = project.member("bank", &["--attribute", "role=service"]);
    let target = Service::echo().address.to_string();
    let misspelt = r#"(= subject.roll "client")"#;
    let create = |allow: &str| {
        let made = member.home.run([
            "policy",
            "create",
            "--resource-type",
            "tcp-outlet",
            "--allow",
            allow,
        ]);
        assert!(made.succeeded(), "a warning is no error: {made}");
        made
    };
    create(misspelt).says(&["nobody", "`roll`", "project ticket"]);
    let outlet = member
        .home
        .run(["tcp-outlet", "create", "--to", &target, "--allow", misspelt]);
    assert!(outlet.succeeded(), "{outlet}");
    outlet.says(&["nobody", "`roll`"]);
    let quiet = |outcome: portolan_tests::Outcome| {
        assert!(!outcome.stderr.contains("nobody"), "{outcome}");
    };
    quiet(create(r#"(= subject.role "client")"#));
    quiet(create("(= subject.has_credential true)"));
    // Somebody is invited who will have it.
    project.ticket(&["--attribute", "roll=client"]);
    quiet(create(misspelt));
    // And where the authority is away, nothing is known, and nothing is said.
    project.home.kill_processes();
    quiet(create(r#"(= subject.raul "client")"#));
}

//! What is said of the whole: nothing listens, only the service can be reached, and only in one direction.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use portolan_tests::home::{COMMAND_LIMIT, run};
use portolan_tests::project::free_address;
use portolan_tests::service::{ask, connect, echoes};
use portolan_tests::sockets::{self, Open};
use portolan_tests::{Home, Project, Service, eventually};

use crate::story::Story;

/// What a home's processes listen on beyond loopback.
fn exposed(home: &Home) -> Vec<Open> {
    let processes = home.processes();
    assert!(!processes.is_empty(), "nothing runs");
    let open: Vec<Open> = processes.into_iter().flat_map(sockets::of).collect();
    assert!(!open.is_empty(), "no socket was found, which cannot be");
    let datagrams: Vec<_> = open
        .iter()
        .filter(|open| !open.protocol.starts_with("tcp"))
        .collect();
    assert!(datagrams.is_empty(), "sockets for datagrams: {datagrams:?}");
    open.into_iter()
        .filter(|open| !open.address.ip().is_loopback())
        .collect()
}

#[test]
fn no_process_of_either_company_listens_beyond_loopback_except_the_inlet_that_was_asked_for() {
    let story = Story::told();
    let port = free_address().port();
    let asked: SocketAddr = ([0, 0, 0, 0], port).into();
    let from = asked.to_string();
    story
        .analysis
        .home
        .ok(["tcp-inlet", "create", "public", "--from", &from, "--via", "bank"]);
    // While it is used, too.
    let mut client = connect(([127, 0, 0, 1], port).into());
    assert_eq!(ask(&mut client, b"hello").unwrap(), b"hello");
    assert_eq!(exposed(&story.bank.home), []);
    let of_analysis = exposed(&story.analysis.home);
    let addresses: Vec<SocketAddr> = of_analysis.iter().map(|open| open.address).collect();
    assert_eq!(addresses, [asked]);
    // The inlet's port is the only one of analysis that answers bytes of an application; the hub's and the nodes' own do not.
    story.analysis.home.ok(["tcp-inlet", "delete", "public", "--yes"]);
    assert_eq!(exposed(&story.analysis.home), []);
}

#[test]
fn a_member_reaches_no_address_of_the_services_machine_but_the_service() {
    let story = Story::told();
    // Beside the database: another service of that machine, another outlet that is for others, and the node's own port.
    let beside = Service::echo();
    let for_others = Service::echo();
    story.bank.home.ok([
        "tcp-outlet",
        "create",
        "for-others",
        "--to",
        &for_others.address.to_string(),
        "--allow",
        r#"(= subject.role "auditor")"#,
    ]);
    let base = "/project/default/service/forward_to_bank";
    let node = story.bank.home.json(["node", "show", "bank"]);
    let control = node["name"].as_str().unwrap_or_default().to_owned();
    let services = [
        "outlet",
        "for-others",
        "hop",
        "authority",
        "api_control",
        &control,
    ];
    let mut routes: Vec<String> = services
        .iter()
        .map(|service| format!("{base}/secure/api/service/{service}"))
        .collect();
    // Past the channel, as the hub could.
    routes.extend(["outlet", "for-others"].map(|service| format!("{base}/service/{service}")));
    let beside_port = beside.address.port();
    for port in [beside_port, story.service.address.port()] {
        for middle in ["/secure/api", ""] {
            routes.push(format!("{base}{middle}/ip4/127.0.0.1/tcp/{port}/service/echo"));
        }
    }
    let home = &story.analysis.home;
    std::thread::scope(|scope| {
        for route in &routes {
            scope.spawn(move || {
                let outcome = home.run(["message", "send", "hello", "--to", route, "--timeout", "1s"]);
                let no = !outcome.succeeded() || outcome.stdout.starts_with("refused:");
                assert!(no, "{route} served a member: {outcome}");
            });
        }
    });
    // An inlet cannot say where its outlet shall lead.
    for to in ["for-others", "beside", &format!("127.0.0.1:{beside_port}")] {
        let from = free_address();
        let inlet = story.analysis.home.run([
            "tcp-inlet",
            "create",
            "--from",
            &from.to_string(),
            "--via",
            "bank",
            "--to",
            to,
            "--connection-wait",
            "1s",
        ]);
        assert!(!inlet.succeeded() || !echoes(from), "{to} was reached: {inlet}");
    }
    assert_eq!(beside.accepted(), 0, "another service of the machine was reached");
    assert_eq!(for_others.accepted(), 0, "an outlet for others was used");
    assert!(echoes(story.inlet), "what is allowed goes on");
}

#[test]
fn the_services_side_can_open_nothing_towards_the_client() {
    let story = Story::told();
    // Analysis has a service of its own, and even an outlet to it that would let the bank in.
    let private = Service::echo();
    story.analysis.home.ok([
        "tcp-outlet",
        "create",
        "--to",
        &private.address.to_string(),
        "--allow",
        r#"(= subject.role "service")"#,
    ]);
    let mut client = connect(story.inlet);
    assert_eq!(ask(&mut client, b"a portal is open meanwhile").unwrap().len(), 26);
    // No relay leads there: analysis has none, and has not the right to one.
    for relay in ["analysis", "default", "inlet"] {
        let from = free_address();
        let to = format!("/project/default/service/forward_to_{relay}/secure/api/service/outlet");
        let from_text = from.to_string();
        story.bank.home.run([
            "tcp-inlet",
            "create",
            relay,
            "--from",
            &from_text,
            "--to",
            &to,
            "--connection-wait",
            "1s",
        ]);
        assert!(!echoes(from), "the bank reached analysis through {relay}");
    }
    // Nor can it be made for analysis by somebody else.
    let outcome = story.bank.home.run(["relay", "create", "analysis"]);
    assert!(
        !story.bank.relay_up("analysis"),
        "the bank has a relay in analysis's name: {outcome}"
    );
    // Back along what analysis has opened: the workers of the bank's node that lead there, each with what lies behind it.
    let workers = story.bank.home.json(["worker", "list"]);
    let behind: Vec<String> = workers["list"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|worker| worker["addr"].as_str().or(worker.as_str()))
        .map(str::to_owned)
        .collect();
    assert!(!behind.is_empty(), "{workers}");
    let behind: Vec<&String> = behind.iter().filter(|name| name.len() >= 32).collect();
    assert!(!behind.is_empty(), "{workers}");
    let home = &story.bank.home;
    std::thread::scope(|scope| {
        for worker in behind {
            scope.spawn(move || {
                let route = format!("/service/{worker}/service/outlet");
                let line = ["message", "send", "hello", "--from", "bank", "--to", &route];
                let outcome = home.run(line.into_iter().chain(["--timeout", "500ms"]));
                assert!(
                    !outcome.succeeded(),
                    "the bank reached analysis along {route}: {outcome}"
                );
            });
        }
    });
    assert_eq!(private.accepted(), 0, "the bank reached analysis's service");
}

#[test]
fn a_node_with_an_identity_and_no_membership_is_refused_like_a_member_whose_credential_has_ended() {
    let project = Project::start_with_credentials_for("5s");
    let story = Story::told_at(project, Service::echo());
    assert!(echoes(story.inlet));
    // The authority is away, and so nothing is renewed.
    story.project.home.kill_processes();
    let address = story.project.address.to_string();
    eventually("the portal has ended", Duration::from_secs(20), || {
        !echoes(story.inlet)
    });
    // A hub that is back, with an authority that knows nobody any more.
    story.project.home.ok(["reset", "--yes"]);
    story
        .project
        .home
        .ok(["project", "create", "default", "--tcp-listener-address", &address]);
    let before = story.service.accepted();
    let from = free_address();
    story.analysis.home.run([
        "tcp-inlet",
        "create",
        "again",
        "--from",
        &from.to_string(),
        "--via",
        "bank",
        "--connection-wait",
        "1s",
    ]);
    assert!(!echoes(from) && !echoes(story.inlet));
    assert_eq!(story.service.accepted(), before);
}

/// Runs a script as the walkthroughs' are run: by `sh`, without a terminal, standard input closed.
fn script(home: &Home, text: &str, variables: &[(&str, &str)]) -> portolan_tests::Outcome {
    let folder = portolan_tests::binary::portolan()
        .parent()
        .expect("a binary is in a folder")
        .to_owned();
    let path = std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    )))
    .expect("folders without colons");
    let mut command = Command::new("sh");
    // `exec 0<&-` closes it, which is more than an empty one.
    command.arg("-c").arg(format!("exec 0<&-; set -e\n{text}"));
    home.furnish(&mut command);
    command.env("PATH", path).stdin(Stdio::null());
    for (name, value) in variables {
        command.env(name, value);
    }
    run(command, COMMAND_LIMIT)
}

#[test]
fn the_scripts_of_the_walkthroughs_run_without_terminal_and_input_in_any_order_and_can_be_cleaned_up() {
    let project = Project::start();
    let service = Service::echo();
    let (bank, analysis) = (Home::new(), Home::new());
    let from = free_address();
    // The client's side first.
    let client = script(
        &analysis,
        r#"portolan project enroll "$TICKET"
           portolan node create
           portolan policy create --resource-type tcp-inlet --expression '(= subject.role "service")'
           portolan tcp-inlet create --from "$FROM" --via bank --connection-wait 1s"#,
        &[
            ("TICKET", &project.ticket(&["--attribute", "role=client"])),
            ("FROM", &from.to_string()),
        ],
    );
    assert!(client.succeeded(), "{client}");
    assert!(!echoes(from));
    let target = service.address.to_string();
    let ticket = project.ticket(&["--attribute", "role=service", "--relay", "bank"]);
    let server = script(
        &bank,
        r#"portolan project enroll "$TICKET"
           portolan node create
           portolan relay create bank
           portolan policy create --resource-type tcp-outlet --expression '(= subject.role "client")'
           portolan tcp-outlet create --to "$TARGET""#,
        &[("TICKET", &ticket), ("TARGET", &target)],
    );
    assert!(server.succeeded(), "{server}");
    eventually("the portal carries", Duration::from_secs(15), || echoes(from));
    // A step that fails ends a script that says `set -e`, with the step's code.
    let failing = script(
        &bank,
        "portolan node show missing\nportolan node create after",
        &[],
    );
    assert_eq!(failing.code, crate::exit::NOT_FOUND, "{failing}");
    assert!(!bank.json(["node", "list"]).to_string().contains("after"));
    // Cleaning up works at any time, also twice at once and with nothing there.
    let both = script(
        &bank,
        "portolan reset -y & portolan reset -y; wait; portolan reset -y",
        &[],
    );
    assert!(both.succeeded(), "{both}");
    assert!(bank.processes().is_empty());
    assert!(!echoes(from));
}

#[test]
fn ten_thousand_tickets_go_unchanged_through_the_sed_line_of_the_walkthroughs() {
    let project = Project::start();
    // One that was made by the authority decides the form; the random part is what differs, so it is put in here.
    let ticket = project.ticket(&["--attribute", "role=a b&c/d", "--relay", "postgres"]);
    let home = Home::new();
    let mut lines = String::new();
    let digits: Vec<char> = ticket
        .chars()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    for seed in 0..10_000_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let tail: String = (0..64)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                digits[(state >> 33) as usize % digits.len()]
            })
            .collect();
        lines.push_str(&ticket[..ticket.len() - 64]);
        lines.push_str(&tail);
        lines.push('\n');
    }
    let tickets = home.path().join("tickets");
    std::fs::write(&tickets, &lines).unwrap();
    let made = home.path().join("made");
    // The command of the page's line, `sed "s/\$ENROLLMENT_TICKET/${ticket}/g" script`: each on a line of its own of a sed,
    // and a few as the page has them, one process each.
    let text = r#"sed 's/.*/export T="$ENROLLMENT_TICKET"/' tickets >script
        n=0
        while read -r ticket; do n=$((n % 200 + 1)); echo "${n}s/\$ENROLLMENT_TICKET/${ticket}/g"; done <tickets >commands
        split -l 200 -a 3 script script. && split -l 200 -a 3 commands commands.
        for part in script.*; do sed -f "commands.${part#script.}" "$part"; done | cut -d '"' -f 2 >made
        head -n 1 script >one
        head -n 20 tickets | while read -r ticket; do
            [ "$(sed "s/\$ENROLLMENT_TICKET/${ticket}/g" one)" = "export T=\"$ticket\"" ]
        done"#;
    let mut command = Command::new("bash");
    command.arg("-ec").arg(text).current_dir(home.path());
    home.furnish(&mut command);
    let outcome = run(command, Duration::from_secs(110));
    assert!(outcome.succeeded(), "{outcome}");
    assert!(
        std::fs::read_to_string(made).unwrap() == lines,
        "sed has changed a ticket"
    );
}

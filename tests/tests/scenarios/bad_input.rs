//! What bad input gets: a sentence that says what is wrong and where, and advice; and nothing is changed by it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use portolan_tests::home::{COMMAND_LIMIT, run};
use portolan_tests::project::free_address;
use portolan_tests::service::{connect, end_of, pattern_bytes, reset};
use portolan_tests::{Home, Project, Service, eventually, skip};

use crate::exit;
use crate::story::Story;

/// A file in the home's folder.
fn file(home: &Home, name: &str, text: &str) -> PathBuf {
    let path = home.path().join(name);
    std::fs::write(&path, text).expect("the home can be written");
    path
}

/// The nodes of a home, by name.
fn nodes(home: &Home) -> Vec<String> {
    let listed = home.json(["node", "list"]);
    let names = listed.as_array().into_iter().flatten();
    names
        .filter_map(|node| node["node_name"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn a_ticket_that_is_not_there_is_told_apart_from_one_that_is_wrong() {
    let home = Home::new();
    let empty = file(&home, "empty", "\n");
    let wrong = file(&home, "wrong", "not a ticket\n");
    let (empty, wrong) = (empty.to_str().unwrap(), wrong.to_str().unwrap());
    let folder = home.path().to_str().unwrap();
    for (given, code, words) in [
        (
            "/no/such/ticket",
            exit::NOT_FOUND,
            &["no ticket file", "/no/such/ticket"][..],
        ),
        ("./ticket", exit::NOT_FOUND, &["no ticket file", "./ticket"]),
        (
            "ticket.txt",
            exit::INVALID_ARGUMENT,
            &["`ticket.txt`", "neither a file here nor a ticket"],
        ),
        (folder, exit::INVALID_ARGUMENT, &["is a folder"]),
        (empty, exit::INVALID_ARGUMENT, &["empty"]),
        (
            wrong,
            exit::INVALID_ARGUMENT,
            &["wrong", "has no ticket", "portolan project ticket"],
        ),
        ("", exit::INVALID_ARGUMENT, &["empty"]),
    ] {
        let refused = home.fails(["project", "enroll", given]);
        assert_eq!(refused.says(words).code, code, "{refused}");
        if !given.is_empty() {
            let refused = home.fails(["node", "create", "n1", "--enrollment-ticket", given]);
            assert_eq!(refused.says(words).code, code, "{refused}");
            let text = format!("{{ name: n1, ticket: '{given}' }}");
            let refused = home.fails(["node", "create", &text]);
            assert_eq!(refused.says(words).code, code, "{refused}");
        }
    }
    assert!(nodes(&home).is_empty(), "a node was made without its project");
}

#[test]
fn a_ticket_file_that_this_user_may_not_read_is_called_so() {
    use std::os::unix::fs::PermissionsExt;
    if !skip::unless_installed("setpriv") {
        return;
    }
    let home = Home::new();
    let ticket = file(&home, "ticket", "secret");
    std::fs::set_permissions(&ticket, std::fs::Permissions::from_mode(0o000)).unwrap();
    // Root without the capability to read everything is as anybody else.
    let mut command = Command::new("setpriv");
    if rustix_is_root() {
        command.args(["--bounding-set=-all", "--inh-caps=-all"]);
    }
    command
        .arg(portolan_tests::binary::portolan())
        .args(["project", "enroll"])
        .arg(&ticket);
    home.furnish(&mut command);
    let refused = run(command, COMMAND_LIMIT);
    assert_eq!(refused.code, exit::INVALID_ARGUMENT, "{refused}");
    refused.says(&[
        "cannot be read",
        ticket.to_str().unwrap(),
        "let this user read it",
    ]);
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

#[test]
fn a_ticket_of_another_project_is_refused_and_the_membership_that_was_there_stays() {
    let (ours, theirs) = (Project::start(), Project::start());
    let member = ours.member("n1", &["--attribute", "role=client"]);
    let before = member.home.json(["project", "show"]);
    let foreign = theirs.ticket(&[]);
    let port = |project: &Project| format!("/tcp/{}/", project.address.port());
    let refused = member.home.fails(["project", "enroll", &foreign]);
    assert_eq!(refused.code, exit::ALREADY_EXISTS, "{refused}");
    refused.says(&[
        "the ticket is for another project",
        &port(&ours),
        &port(&theirs),
        "project delete default",
    ]);
    assert_eq!(member.home.json(["project", "show"]), before);
    member.home.ok(["project", "enroll"]);
    // It was not used up by that.
    Home::new().ok(["project", "enroll", &foreign]);
}

#[test]
fn a_ticket_whose_project_is_gone_and_whose_address_another_one_has_fails_soon_and_says_so() {
    let gone = Project::start();
    let ticket = gone.ticket(&[]);
    let address = gone.address.to_string();
    gone.home.kill_processes();
    let other = Home::new();
    other.ok(["project", "create", "default", "--tcp-listener-address", &address]);
    let home = Home::new();
    let refused = home.fails(["project", "enroll", &ticket, "--timeout", "4s"]);
    refused.says(&[
        "authority of the project",
        &format!("/tcp/{}", gone.address.port()),
        "this very project",
    ]);
    assert_eq!(home.json(["project", "list"]), serde_json::json!([]));
}

#[test]
fn a_misspelt_key_is_named_with_its_place_and_the_key_that_was_meant() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    let pid = home.node_process("n1");
    for (text, place, key, meant) in [
        (
            "name: n2\ntcp_outlett:\n  to: 1\n",
            "line 2, column 1",
            "tcp_outlett",
            "tcp-outlets",
        ),
        (
            "name: n2\ntcp-outlet:\n  to: 1\n  alow: web\n",
            "line 4, column 3",
            "alow",
            "allow",
        ),
        (
            "name: n1\ntcp-inlets:\n  db: { form: 7000, via: blue }\n",
            "line 3, column 9",
            "form",
            "from",
        ),
        (
            "name: n2\npolicy: { resource_typ: tcp-inlet, allow: web }\n",
            "line 2, column 11",
            "resource_typ",
            "resource-type",
        ),
        ("nmae: n2\n", "line 1, column 1", "nmae", "name"),
    ] {
        let path = file(&home, "node.yaml", text);
        let path = path.to_str().unwrap();
        for check in [&[][..], &["--check"]] {
            let refused = home.fails(["node", "create", path].iter().chain(check));
            assert_eq!(refused.code, exit::INVALID_ARGUMENT, "{refused}");
            refused.says(&[
                path,
                place,
                &format!("`{key}`"),
                &format!("did you mean `{meant}`?"),
            ]);
        }
    }
    assert_eq!(nodes(&home), ["n1"]);
    assert_eq!(home.node_process("n1"), pid, "the running node was touched");
}

#[test]
fn an_undefined_variable_is_named_with_its_place_and_the_ways_to_define_it() {
    let home = Home::new();
    let path = file(&home, "node.yaml", "name: n1\ntcp-outlet:\n  to: $DATABASE\n");
    let path = path.to_str().unwrap();
    let refused = home.fails(["node", "create", path]);
    assert_eq!(refused.code, exit::INVALID_ARGUMENT, "{refused}");
    refused.says(&[
        path,
        "line 3, column 7",
        "`DATABASE` is not defined",
        "--variable DATABASE=",
    ]);
    assert!(nodes(&home).is_empty());
    home.ok(["node", "create", path, "--variable", "DATABASE=5432"]);
    assert_eq!(home.json(["tcp-outlet", "show"])["to"], "127.0.0.1:5432");
    // A misspelt `--variable` is no silent one.
    for wrong in ["DATABASE", "DATABASE=", "=1", "1A=1"] {
        home.fails(["node", "create", path, "--variable", wrong]);
    }
}

#[test]
fn two_outlets_of_one_name_are_refused_and_the_first_one_stays_as_it_was() {
    let home = Home::new();
    let text = "name: n1\ntcp-outlets:\n  - { name: db, to: 1 }\n  - { from: db, to: 2 }\n";
    let path = file(&home, "node.yaml", text);
    home.fails(["node", "create", path.to_str().unwrap()]).says(&[
        "two tcp-outlets named `db`",
        "line 4",
        "line 3",
    ]);
    assert!(nodes(&home).is_empty());

    home.ok(["node", "create", "n1"]);
    home.ok([
        "tcp-outlet",
        "create",
        "db",
        "--to",
        "127.0.0.1:1",
        "--allow",
        "web",
    ]);
    let before = home.json(["tcp-outlet", "show", "db"]);
    let refused = home.fails([
        "tcp-outlet",
        "create",
        "db",
        "--to",
        "127.0.0.1:2",
        "--allow",
        "other",
    ]);
    assert_eq!(refused.code, exit::ALREADY_EXISTS, "{refused}");
    refused.says(&[
        "already has an outlet at `db`",
        "127.0.0.1:1",
        "tcp-outlet delete db",
    ]);
    assert_eq!(home.json(["tcp-outlet", "show", "db"]), before);
    // Not an outlet, but taken all the same.
    let refused = home.fails(["tcp-outlet", "create", "echo", "--to", "127.0.0.1:2"]);
    assert_eq!(refused.code, exit::ALREADY_EXISTS, "{refused}");
}

#[test]
fn an_inlet_port_in_use_is_found_before_a_ticket_is_spent() {
    let project = Project::start();
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let ticket = project.ticket(&["--attribute", "role=client"]);
    let ticket = file(&home, "ticket", &ticket);
    let text = format!(
        "ticket: {}\nname: n1\ntcp-inlet:\n  from: {address}\n  via: bank\n  connection-wait: 0s\n",
        ticket.display()
    );
    let path = file(&home, "inlet.yaml", &text);
    let path = path.to_str().unwrap();
    let refused = home.fails(["node", "create", path]);
    assert_eq!(refused.code, exit::ALREADY_EXISTS, "{refused}");
    refused.says(&[path, "line 4", &address.to_string(), "in use", "another port"]);
    assert!(nodes(&home).is_empty());
    drop(taken);
    home.ok(["node", "create", path]);
    assert_eq!(
        home.json(["tcp-inlet", "list"])[0]["bind_addr"],
        address.to_string()
    );
}

#[test]
fn a_failed_create_with_a_policy_leaves_the_policy_that_was_there() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    home.ok(["policy", "create", "--resource", "db", "--allow", "before"]);
    let before = home.ok(["policy", "show", "db"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let route = "/node/n1/secure/api/service/outlet";
    home.fails([
        "tcp-inlet",
        "create",
        "db",
        "--from",
        &address,
        "--to",
        route,
        "--allow",
        "after",
    ]);
    home.fails([
        "tcp-outlet",
        "create",
        "db",
        "--to",
        "1",
        "--tls-ca",
        "/no/such",
        "--tls",
        "--allow",
        "after",
    ]);
    assert_eq!(home.ok(["policy", "show", "db"]), before);
}

#[test]
fn a_node_without_project_whose_owner_asks_for_credentials_lets_nobody_in() {
    let service = Service::echo();
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    home.ok(["tcp-outlet", "create", "--to", &service.address.to_string()]);
    let from = free_address().to_string();
    let route = "/node/n1/secure/api/service/outlet";
    home.ok(["tcp-inlet", "create", "--from", &from, "--to", route]);
    let inlet: SocketAddr = from.parse().unwrap();
    assert!(
        portolan_tests::service::echoes(inlet),
        "open as long as nobody said otherwise"
    );
    home.ok([
        "policy",
        "create",
        "--resource-type",
        "tcp-outlet",
        "--allow",
        "(= subject.has_credential true)",
    ]);
    eventually("what the owner says counts", Duration::from_secs(5), || {
        !portolan_tests::service::echoes(inlet)
    });
    home.ok(["node", "stop", "n1"]);
    home.ok(["node", "start", "n1"]);
    let mut client = connect(inlet);
    assert!(end_of(&mut client, Duration::from_secs(10)).is_closed());
}

#[test]
fn when_the_database_is_down_both_ends_say_where_it_should_be() {
    let project = Project::start();
    let nobody = free_address();
    let bank = project.bank(nobody);
    let (analysis, inlet) = project.analysis();
    let start = Instant::now();
    let mut client = connect(inlet);
    assert!(end_of(&mut client, Duration::from_secs(5)).is_closed());
    assert!(start.elapsed() < Duration::from_secs(5));
    for shown in [
        analysis
            .home
            .ok(["tcp-inlet", "show", "inlet", "--output", "plain"]),
        bank.home.ok(["tcp-outlet", "show", "--output", "plain"]),
    ] {
        assert!(
            shown.contains(&nobody.to_string()) && shown.to_lowercase().contains("refused"),
            "{shown}"
        );
    }
}

#[test]
fn when_the_database_dies_in_the_middle_of_an_answer_the_client_sees_an_error_and_the_next_query_works() {
    // The first query gets half of its answer.
    let broken = std::sync::atomic::AtomicBool::new(false);
    let service = Service::start(move |mut stream| {
        let mut query = [0; 6];
        stream.read_exact(&mut query)?;
        stream.write_all(&pattern_bytes(0, 10_000))?;
        if !broken.swap(true, std::sync::atomic::Ordering::SeqCst) {
            // What was sent has to be on its way before the reset.
            stream.read_exact(&mut [0])?;
            reset(stream);
            return Ok(());
        }
        stream.write_all(&pattern_bytes(10_000, 10_000))
    });
    let story = Story::told_with(service);
    let mut client = connect(story.inlet);
    client.write_all(b"select").unwrap();
    let mut half = vec![0; 10_000];
    client.read_exact(&mut half).unwrap();
    assert_eq!(half, pattern_bytes(0, 10_000));
    client.write_all(b"!").unwrap();
    let error = client
        .read(&mut [0; 10])
        .expect_err("a clean end looks like a complete answer");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    for shown in [
        story
            .analysis
            .home
            .ok(["tcp-inlet", "show", "inlet", "--output", "plain"]),
        story.bank.home.ok(["tcp-outlet", "show", "--output", "plain"]),
    ] {
        assert!(shown.to_lowercase().contains("reset"), "{shown}");
    }
    let mut client = connect(story.inlet);
    client.write_all(b"select").unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, pattern_bytes(0, 20_000));
}

/// One try of a client whose time-out is 1 s and that handles errors of the connection only: a time-out would end it.
fn impatient(inlet: SocketAddr) -> Option<String> {
    let limit = Duration::from_secs(1);
    let attempt = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&inlet, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.is_empty() {
            return Err(ErrorKind::ConnectionReset.into());
        }
        Ok(answer)
    };
    match attempt() {
        Ok(answer) => Some(answer),
        Err(error) => {
            let is_timeout = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
            assert!(!is_timeout, "the client was left waiting: {error}");
            None
        }
    }
}

#[test]
fn a_client_with_a_time_out_of_1_s_is_refused_at_once_until_the_service_is_there_and_then_served() {
    let project = Project::start();
    let analysis = project.member("analysis", &["--attribute", "role=client"]);
    let inlet = analysis.inlet("inlet", &["--via", "bank", "--no-connection-wait"]);
    for _ in 0..20 {
        assert_eq!(impatient(inlet), None);
    }
    let service = Service::start(|mut stream| {
        let mut request = [0; 18];
        stream.read_exact(&mut request)?;
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhealthy")
    });
    // Also while the other side is being built up: its relay is there before its outlet.
    let bank = project.member("bank", &["--attribute", "role=service", "--relay", "bank"]);
    bank.home.ok(["relay", "create", "bank"]);
    assert_eq!(impatient(inlet), None);
    bank.home
        .ok(["tcp-outlet", "create", "--to", &service.address.to_string()]);
    eventually("the client is served", Duration::from_secs(15), || {
        impatient(inlet).is_some_and(|answer| answer.ends_with("healthy"))
    });
    // And while it goes away.
    bank.home.kill_processes();
    eventually("the inlet has noticed", Duration::from_secs(15), || {
        analysis.show_inlet("inlet")["status"] != "Up" || {
            let _ = TcpStream::connect(inlet);
            false
        }
    });
    for _ in 0..5 {
        assert_eq!(impatient(inlet), None);
    }
}

//! Interceptors at inlets and outlets of real nodes, of a program that has some of its own (`node/examples/intercepting_node.rs`).

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use portolan_tests::home::{COMMAND_LIMIT, run};
use portolan_tests::service::{STREAM_LIMIT, ask, check_pattern, connect, end_of, pattern_bytes};
use portolan_tests::{Home, Member, Project, Service, binary, eventually, skip, web};

use crate::exit;

fn custom() -> Home {
    Home::new().of_program(binary::example("intercepting_node"))
}

/// A member whose node is of the program with interceptors.
fn member(project: &Project, name: &str, attribute: &str, further: &[&str]) -> Member {
    let home = custom();
    let arguments = [&["--attribute", attribute], further].concat();
    home.ok(["project", "enroll", &project.ticket(&arguments)]);
    home.ok(["node", "create", name]);
    Member {
        home,
        name: name.to_owned(),
    }
}

/// A bank whose outlets have these interceptors, and an inlet of a client to each.
struct Cast {
    _project: Project,
    bank: Member,
    client: Member,
}

impl Cast {
    fn new() -> Self {
        let project = Project::start();
        let bank = member(&project, "bank", "role=service", &["--relay", "bank"]);
        bank.home.ok(["relay", "create", "bank"]);
        bank.relay_is_up("bank");
        let client = member(&project, "client", "role=client", &["--attribute", "team=blue"]);
        Self {
            _project: project,
            bank,
            client,
        }
    }

    fn outlet(&self, name: &str, to: SocketAddr, arguments: &[&str]) {
        self.bank
            .home
            .ok(["tcp-outlet", "create", name, "--to", &to.to_string()]
                .iter()
                .chain(arguments));
    }

    fn inlet(&self, name: &str, arguments: &[&str]) -> SocketAddr {
        let arguments = [&["--via", "bank", "--to", name], arguments].concat();
        let inlet = self.client.inlet(name, &arguments);
        self.client.inlet_is_up(name);
        inlet
    }
}

#[test]
fn a_service_is_told_who_comes_by_an_interceptor_that_knows_the_authenticated_peer() {
    let cast = Cast::new();
    let service = Service::echo();
    let config = r#"{"attributes": ["role", "other"]}"#;
    cast.outlet(
        "db",
        service.address,
        &["--intercept", "introduce", "--intercept-config", config],
    );
    let inlet = cast.inlet("db", &[]);
    let peer = cast.client.home.ok(["identity", "show"]);
    let mut stream = connect(inlet);
    stream.write_all(b"hello").unwrap();
    let expected = format!("peer={} role=client\nhello", peer.trim());
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), expected);
    assert_eq!(
        ask(&mut stream, b"and nothing more is added").unwrap(),
        b"and nothing more is added"
    );

    let shown = cast.bank.home.json(["tcp-outlet", "show", "db"]);
    assert_eq!(shown["intercept"]["name"], "introduce", "{shown}");
    assert_eq!(shown["intercept"]["config"]["attributes"][0], "role", "{shown}");

    // It comes back with its node.
    cast.bank.home.kill_processes();
    cast.bank.home.ok(["node", "start", "bank"]);
    cast.bank.relay_is_up("bank");
    eventually("the service is told again", Duration::from_secs(20), || {
        let mut stream = connect(inlet);
        let mut answer = vec![0; expected.len()];
        stream.write_all(b"hello").is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && answer == expected.as_bytes()
    });

    // Without the interceptor nobody is let through: a program that does not have it.
    cast.bank.home.ok(["node", "stop", "bank"]);
    let Member { home, name } = cast.bank;
    let home = home.of_program(binary::portolan());
    home.ok(["node", "start", &name]);
    let bank = Member { home, name };
    bank.relay_is_up("bank");
    let words = "no interceptor `introduce`";
    eventually(
        "a client is refused with the reason",
        Duration::from_secs(20),
        || {
            let mut stream = connect(inlet);
            let _ = stream.write_all(b"hello");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(answer.is_empty(), "{answer:?}");
            cast.client.show_inlet("db")["last_failure"]
                .to_string()
                .contains(words)
        },
    );
    let shown = bank.home.json(["tcp-outlet", "show", "db"]);
    assert!(shown["last_failure"].to_string().contains(words), "{shown}");
    assert!(bank.home.logs().contains(words));
}

#[test]
fn curl_gets_every_byte_through_interceptors_at_both_ends() {
    if !skip::unless_installed("curl") {
        return;
    }
    let cast = Cast::new();
    let large = pattern_bytes(0, 20_000_000);
    let files = HashMap::from([
        ("/large".to_owned(), large),
        ("/small".to_owned(), b"small".to_vec()),
    ]);
    let web = web::files(files);
    cast.outlet("web", web.address, &["--intercept", "pass"]);
    let inlet = cast.inlet("web", &["--intercept", "pass"]);
    for parallel in [1, 8] {
        let curls: Vec<_> = (0..parallel)
            .map(|_| {
                std::thread::spawn(move || {
                    let mut curl = Command::new("curl");
                    curl.args(["-fsS", &format!("http://{inlet}/large")]);
                    let output = curl.output().unwrap();
                    assert!(
                        output.status.success(),
                        "{}",
                        String::from_utf8_lossy(&output.stderr)
                    );
                    assert_eq!(output.stdout.len(), 20_000_000);
                    assert_eq!(check_pattern(0, &output.stdout), Ok(()));
                })
            })
            .collect();
        curls.into_iter().for_each(|curl| curl.join().unwrap());
    }
    let mut curl = Command::new("curl");
    curl.args(["-fsS", &format!("http://{inlet}/small")]);
    assert_eq!(run(curl, COMMAND_LIMIT).stdout, "small");
    let shown = cast.client.show_inlet("web");
    assert_eq!(shown["intercept"]["name"], "pass", "{shown}");
    assert!(shown["last_failure"].is_null(), "{shown}");
    eventually("the interceptors have seen it", Duration::from_secs(10), || {
        cast.bank.home.logs().contains("a connection has passed")
    });
}

#[test]
fn what_cannot_be_an_interceptor_is_refused_with_what_to_do() {
    let home = custom();
    home.ok(["node", "create", "n1"]);
    let create = |arguments: &[&str]| {
        let all = [&["tcp-outlet", "create", "--to", "1"], arguments].concat();
        home.fails(all)
    };
    let unknown = create(&["--intercept", "introduction"]);
    assert_eq!(unknown.code, exit::NOT_FOUND);
    unknown.says(&["no interceptor `introduction`", "did you mean `introduce`"]);
    create(&["--intercept", "x"]).says(&["no interceptor `x`", "it has introduce, pass"]);
    let rejected = create(&["--intercept", "introduce"]);
    assert_eq!(rejected.code, exit::INVALID_ARGUMENT);
    rejected.says(&["configuration of `introduce`", "attributes"]);
    create(&[
        "--intercept",
        "pass",
        "--intercept-config",
        r#"{"colour": "blue"}"#,
    ])
    .says(&["configuration of `pass`", "no field `colour`"]);
    create(&["--intercept-config", "{}"]).says(&["--intercept"]);
    assert_eq!(
        home.json(["tcp-outlet", "list"]),
        serde_json::json!([]),
        "nothing is left behind"
    );

    let inlet = home.fails([
        "tcp-inlet",
        "create",
        "--to",
        "/service/outlet",
        "--intercept",
        "x",
    ]);
    inlet.says(&["no interceptor `x`"]);
    assert_eq!(home.json(["tcp-inlet", "list"]), serde_json::json!([]));

    // A program without any.
    let plain = Home::new();
    plain.ok(["node", "create", "n1"]);
    plain
        .fails(["tcp-outlet", "create", "--to", "1", "--intercept", "pass"])
        .says(&["no interceptor `pass`", "plugin add"]);
}

#[test]
fn a_configuration_file_says_what_intercepts_and_a_connection_without_identity_is_refused_by_it() {
    let home = custom();
    let service = Service::echo();
    let configuration = format!(
        "name: n1\n\
         tcp-outlets:\n  \
           db:\n    to: {}\n    intercept: introduce\n    intercept-config: {{ attributes: [role] }}\n\
         tcp-inlets:\n  \
           in: {{ to: /service/db, intercept: pass }}\n",
        service.address
    );
    home.ok(["node", "create", "--configuration", &configuration]);
    let outlet = home.json(["tcp-outlet", "show", "db"]);
    assert_eq!(outlet["intercept"]["config"]["attributes"][0], "role", "{outlet}");
    let inlet = home.json(["tcp-inlet", "show", "in"]);
    assert_eq!(inlet["intercept"]["name"], "pass", "{inlet}");
    // Within one node there is no channel, and so nobody who could be introduced.
    let mut stream = connect(inlet["bind_addr"].as_str().unwrap().parse().unwrap());
    let _ = stream.write_all(b"hello");
    assert!(end_of(&mut stream, STREAM_LIMIT).is_closed());
    let words = "the interceptor `introduce` ended the connection: whoever comes must have an identity";
    eventually("both ends say why", Duration::from_secs(10), || {
        [["tcp-outlet", "show", "db"], ["tcp-inlet", "show", "in"]]
            .into_iter()
            .all(|show| home.json(show)["last_failure"].to_string().contains(words))
    });
    assert_eq!(service.accepted(), 0, "the service was not asked");
}

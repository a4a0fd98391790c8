//! Plugins as interceptors at inlets and outlets of real nodes, and everything that can be wrong with them.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_tests::home::{COMMAND_LIMIT, run};
use portolan_tests::service::{STREAM_LIMIT, ask, check_pattern, connect, end_of, pattern_bytes};
use portolan_tests::web::Http;
use portolan_tests::{Home, Member, Outcome, Project, Service, eventually, process, skip};
use serde_json::Value;

use crate::{exit, support};

const STREAM: &str = include_str!("../../../workers/plugin/tests/guests/stream.wat");

/// More than what a plugin lets through before it breaks down.
const LARGE: usize = 5_000_000;

/// Does one thing with all bytes, as the letter of its configuration says.
fn stream_plugin() -> Vec<u8> {
    support::guest(STREAM, "interceptor", &[])
}

/// A bank with a relay, and a client; plain nodes, which have interceptors only as plugins.
struct Cast {
    _project: Project,
    bank: Member,
    client: Member,
}

impl Cast {
    fn new() -> Self {
        Self::with_environment(&[])
    }

    /// With these variables in the environment of the bank's node.
    fn with_environment(variables: &[(&str, &str)]) -> Self {
        let project = Project::start();
        let home = Home::new();
        let ticket = project.ticket(&["--attribute", "role=service", "--relay", "bank"]);
        home.ok(["project", "enroll", &ticket]);
        let mut create = home.command(["node", "create", "bank"]);
        create.envs(variables.iter().copied());
        let created = run(create, COMMAND_LIMIT);
        assert!(created.succeeded(), "{created}");
        let name = "bank".to_owned();
        let bank = Member { home, name };
        bank.home.ok(["relay", "create", "bank"]);
        bank.relay_is_up("bank");
        let client = project.member("client", &["--attribute", "role=client"]);
        Self {
            _project: project,
            bank,
            client,
        }
    }

    /// With the plugin `stream` at both nodes.
    fn with_plugins() -> Self {
        let cast = Self::new();
        add(&cast.bank, "stream", &stream_plugin(), &[]);
        add(&cast.client, "stream", &stream_plugin(), &[]);
        cast
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

    fn show_outlet(&self, name: &str) -> Value {
        self.bank.home.json(["tcp-outlet", "show", name])
    }

    /// Waits until both ends of a portal have said these words.
    #[track_caller]
    fn both_say(&self, name: &str, words: &str) {
        eventually(
            &format!("both ends say {words:?}"),
            Duration::from_secs(20),
            || {
                [self.show_outlet(name), self.client.show_inlet(name)]
                    .iter()
                    .all(|shown| shown["last_failure"].to_string().contains(words))
            },
        );
    }
}

#[track_caller]
fn add(member: &Member, name: &str, bytes: &[u8], arguments: &[&str]) -> Outcome {
    let file = member.home.path().join("added.wasm");
    std::fs::write(&file, bytes).unwrap();
    let line = ["plugin", "add", file.to_str().unwrap(), "--name", name];
    let outcome = member.home.run(line.into_iter().chain(arguments.iter().copied()));
    assert!(outcome.succeeded(), "{outcome}");
    outcome
}

fn can_be_run_here() -> bool {
    skip::unless_installed("curl") && skip::unless_installed("python3")
}

fn curl(arguments: &[&str]) -> std::process::Output {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "60"]).args(arguments);
    curl.output().unwrap()
}

#[track_caller]
fn curl_gets(arguments: &[&str]) -> Vec<u8> {
    let output = curl(&[&["-f"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {arguments:?}: {said}");
    output.stdout
}

#[track_caller]
fn is_whole(bytes: &[u8], length: usize) {
    assert_eq!(bytes.len(), length);
    assert_eq!(check_pattern(0, bytes), Ok(()));
}

#[test]
fn curl_and_a_web_server_get_every_byte_through_plugins_at_both_ends() {
    if !can_be_run_here() {
        return;
    }
    let cast = Cast::with_plugins();
    let web = Http::start();
    let turn = ["--intercept", "stream", "--intercept-config", "x"];
    cast.outlet("web", web.address, &turn);
    let inlet = cast.inlet("web", &turn);
    let url = |path: &str| format!("http://{inlet}/{path}");

    // A length, chunks, and both on one connection.
    let (whole, chunks) = (
        url(&format!("bytes/{}", 4 * LARGE)),
        url(&format!("chunks/{LARGE}")),
    );
    is_whole(&curl_gets(&[&whole]), 4 * LARGE);
    is_whole(&curl_gets(&[&chunks]), LARGE);
    let kept = curl_gets(&[
        "-w",
        "%{num_connects} ",
        "-o",
        "/dev/null",
        &url("bytes/3"),
        "-o",
        "/dev/null",
        &chunks,
        "-o",
        "/dev/null",
        &url("bytes/0"),
    ]);
    assert_eq!(String::from_utf8_lossy(&kept), "1 0 0 ", "one connection for all");

    // What the client sends.
    let body = cast.client.home.path().join("body");
    std::fs::write(&body, pattern_bytes(0, LARGE)).unwrap();
    let body = format!("@{}", body.display());
    is_whole(&curl_gets(&["--data-binary", &body, &url("echo")]), LARGE);
    let chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", &body];
    is_whole(&curl_gets(&[&chunked[..], &[&url("echo")]].concat()), LARGE);

    // Many at once, each with an instance at both ends.
    let many: Vec<_> = (0..32)
        .map(|number| {
            let length = 100_000 + number;
            let url = url(&format!("bytes/{length}"));
            std::thread::spawn(move || is_whole(&curl_gets(&[&url]), length))
        })
        .collect();
    many.into_iter().for_each(|one| one.join().unwrap());

    for shown in [cast.show_outlet("web"), cast.client.show_inlet("web")] {
        assert_eq!(shown["intercept"]["name"], "stream", "{shown}");
        assert!(shown["last_failure"].is_null(), "{shown}");
    }
}

#[test]
fn what_a_plugin_writes_in_place_of_the_bytes_is_what_arrives() {
    let cast = Cast::with_plugins();
    let service = Service::start(|mut stream| {
        stream.write_all(b"hello")?;
        let mut got = Vec::new();
        stream.read_to_end(&mut got)?;
        stream.write_all(&got)
    });
    let turn = ["--intercept", "stream", "--intercept-config", "x"];
    cast.outlet("db", service.address, &turn);
    let mut stream = connect(cast.inlet("db", &[]));
    let mut first = [0; 5];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(first.map(|byte| byte ^ 0x55), *b"hello");
    // Both directions, and the end of one of them.
    stream.write_all(b"there and back").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"there and back");
}

#[test]
fn a_plugin_that_breaks_down_in_the_middle_ends_its_connection_with_the_reason_and_no_other() {
    if !can_be_run_here() {
        return;
    }
    let cast = Cast::with_plugins();
    let (web, echo) = (Http::start(), Service::echo());
    cast.outlet("beside", echo.address, &["--intercept", "stream"]);
    let beside = cast.inlet("beside", &["--intercept", "stream"]);
    let mut bystander = connect(beside);
    assert_eq!(ask(&mut bystander, b"before").unwrap(), b"before");

    for (mode, words) in [
        (
            "t",
            "the interceptor `stream` failed: the plugin failed in `data`",
        ),
        ("l", "it computed for longer than 100 ms"),
        ("m", "bytes of memory"),
        ("e", "the interceptor `stream` ended the connection: it is over"),
    ] {
        cast.outlet(
            mode,
            web.address,
            &["--intercept", "stream", "--intercept-config", mode],
        );
        let inlet = cast.inlet(mode, &[]);
        // Little goes through it.
        is_whole(&curl_gets(&[&format!("http://{inlet}/bytes/1000")]), 1000);
        // Several of them at once, and the one beside them is answered meanwhile.
        let broken: Vec<_> = (0..4)
            .map(|_| {
                let url = format!("http://{inlet}/bytes/{LARGE}");
                std::thread::spawn(move || curl(&[&url]))
            })
            .collect();
        assert_eq!(ask(&mut bystander, b"meanwhile").unwrap(), b"meanwhile");
        for curl in broken {
            let output = curl.join().unwrap();
            assert_ne!(output.status.code(), Some(28), "{mode}: it was not ended in time");
            assert!(!output.status.success(), "{mode}: what was cut looks complete");
            assert!(output.stdout.len() < LARGE);
        }
        cast.both_say(mode, words);
        // The next connection has an instance of its own.
        is_whole(&curl_gets(&[&format!("http://{inlet}/bytes/1000")]), 1000);
        assert_eq!(ask(&mut bystander, b"after").unwrap(), b"after");
    }
    eventually("nothing is left of them", Duration::from_secs(20), || {
        ["t", "l", "m", "e"]
            .iter()
            .all(|name| cast.show_outlet(name)["connections"] == 0)
    });
}

#[test]
fn connections_of_which_a_plugin_holds_everything_cannot_grow_a_node_without_limit() {
    const CONNECTIONS: usize = 16;
    // More than all of them may hold together.
    const EACH: usize = 40 << 20;
    let cast = Cast::with_environment(&[("PORTOLAN_PLUGIN_MEMORY", "32"), ("PORTOLAN_PORTAL_MEMORY", "32")]);
    add(&cast.bank, "stream", &stream_plugin(), &[]);
    let echo = Service::echo();
    let hold = ["--intercept", "stream", "--intercept-config", "h"];
    cast.outlet("held", echo.address, &hold);
    cast.outlet("passed", echo.address, &["--intercept", "stream"]);
    let (held, passed) = (cast.inlet("held", &[]), cast.inlet("passed", &[]));
    let mut bystander = connect(passed);
    assert_eq!(ask(&mut bystander, b"before").unwrap(), b"before");

    let before = process::peak_resident_kib(cast.bank.process());
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            std::thread::spawn(move || {
                let mut stream = connect(held);
                let piece = [0; 1 << 16];
                let sent: Result<Vec<()>, _> = (0..EACH / piece.len())
                    .map(|_| stream.write_all(&piece))
                    .collect();
                sent.is_err() || end_of(&mut stream, STREAM_LIMIT).is_closed()
            })
        })
        .collect();
    let ended: Vec<bool> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(!ended.contains(&false), "a connection was not ended");
    let grown = process::peak_resident_kib(cast.bank.process()) - before;
    assert!(
        grown < 128 * 1024,
        "{grown} KiB of {} sent",
        CONNECTIONS * EACH / 1024
    );
    cast.both_say("held", "PORTOLAN_PLUGIN_MEMORY");

    // It goes back, and there is room for others again.
    assert_eq!(ask(&mut bystander, b"after").unwrap(), b"after");
    eventually(
        "new connections have their instance",
        Duration::from_secs(20),
        || ask(&mut connect(passed), b"hello").is_ok_and(|answer| answer == b"hello"),
    );
}

#[test]
fn at_an_inlet_too_a_plugin_that_ends_a_connection_is_heard_at_both_ends() {
    let cast = Cast::with_plugins();
    let source = Service::start(|mut stream| stream.write_all(&pattern_bytes(0, LARGE)));
    cast.outlet("db", source.address, &[]);
    let inlet = cast.inlet("db", &["--intercept", "stream", "--intercept-config", "e"]);
    let mut stream = connect(inlet);
    let mut bytes = Vec::new();
    // A reset, never a clean end: what was cut must not look complete.
    assert!(stream.read_to_end(&mut bytes).is_err());
    assert_eq!(check_pattern(0, &bytes), Ok(()));
    cast.both_say("db", "it is over");
}

#[test]
fn a_configuration_that_a_plugin_rejects_lets_nobody_through_and_its_words_are_shown() {
    let cast = Cast::with_plugins();
    let told = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&told);
    let service = Service::start(move |mut stream| {
        let mut got = Vec::new();
        let read = stream.read_to_end(&mut got);
        counted.fetch_add(got.len(), Ordering::SeqCst);
        read.map(|_| ())
    });
    let wrong = ["--intercept", "stream", "--intercept-config", "wrong"];
    cast.outlet("db", service.address, &wrong);
    let inlet = cast.inlet("db", &[]);
    let mut stream = connect(inlet);
    let _ = stream.write_all(b"hello");
    assert!(end_of(&mut stream, STREAM_LIMIT).is_closed());
    cast.both_say("db", "the configuration is one of p x h t l m e");
    eventually("the service is left", Duration::from_secs(10), || {
        service.open() == 0
    });
    assert_eq!(told.load(Ordering::SeqCst), 0, "the service was told nothing");
}

#[test]
fn a_plugin_in_the_wrong_place_or_in_use_is_refused_with_what_to_do() {
    let project = Project::start();
    let member = project.member("n1", &[]);
    add(&member, "stream", &stream_plugin(), &[]);
    add(&member, "puppet", &support::puppet(), &[]);
    let home = &member.home;

    let create = |name: &str| home.fails(["tcp-outlet", "create", "--to", "1", "--intercept", name]);
    create("puppet").says(&[
        "the plugin is a worker, and an interceptor is needed",
        "worker start --plugin puppet",
    ]);
    let unknown = create("strean");
    assert_eq!(unknown.code, exit::NOT_FOUND);
    unknown.says(&["no interceptor `strean`", "did you mean `stream`"]);
    create("x").says(&["no interceptor `x`", "it has stream"]);
    assert_eq!(home.json(["tcp-outlet", "list"]), serde_json::json!([]));
    home.fails(["tcp-inlet", "create", "--via", "x", "--intercept", "puppet"])
        .says(&["interceptor is needed"]);
    assert_eq!(home.json(["tcp-inlet", "list"]), serde_json::json!([]));

    let worker = home.fails(["worker", "start", "--plugin", "stream", "--address", "w"]);
    worker.says(&[
        "the plugin is an interceptor, and a worker is needed",
        "tcp-outlet create",
        "--intercept stream",
    ]);
    home.fails(["worker", "show", "w"]).says(&["no worker `w`"]);

    home.ok(["tcp-outlet", "create", "db", "--to", "1", "--intercept", "stream"]);
    let used = home.fails(["plugin", "remove", "stream"]);
    assert_eq!(used.code, exit::ALREADY_EXISTS);
    used.says(&["intercepts the outlet `db`", "tcp-outlet delete db"]);
    // Nor does a worker come in its place.
    let file = home.path().join("puppet.wasm");
    std::fs::write(&file, support::puppet()).unwrap();
    let line = [
        "plugin",
        "add",
        file.to_str().unwrap(),
        "--name",
        "stream",
        "--replace",
    ];
    home.fails(line).says(&["intercepts the outlet `db`"]);
    home.ok(["tcp-outlet", "delete", "db", "--yes"]);
    home.ok(["plugin", "remove", "stream"]);
}

#[test]
fn after_a_restart_a_plugin_still_stands_there_and_without_it_nobody_is_let_through() {
    let cast = Cast::with_plugins();
    let service = Service::echo();
    let turn = ["--intercept", "stream", "--intercept-config", "x"];
    cast.outlet("db", service.address, &turn);
    let inlet = cast.inlet("db", &[]);
    let words_back = || -> Option<Vec<u8>> {
        let mut stream = connect(inlet);
        ask(&mut stream, b"hello").ok()
    };
    assert_eq!(words_back().unwrap(), b"hello");

    // Which the service sees, as it was told other bytes.
    let restart = || {
        cast.bank.home.kill_processes();
        cast.bank.home.ok(["node", "start", "bank"]);
        cast.bank.relay_is_up("bank");
    };
    restart();
    eventually("it works again", Duration::from_secs(30), || {
        words_back() == Some(b"hello".to_vec())
    });
    assert_eq!(cast.show_outlet("db")["intercept"]["name"], "stream");

    let digest = cast.bank.home.json(["plugin", "show", "stream"])["digest"].clone();
    let copy = format!("nodes/bank/plugins/{}.wasm", digest.as_str().unwrap());
    std::fs::remove_file(cast.bank.home.path().join(copy)).unwrap();
    restart();
    let accepted = service.accepted();
    eventually("a client is told why", Duration::from_secs(30), || {
        assert_eq!(words_back(), None, "nothing passes without its interceptor");
        let shown = cast.show_outlet("db")["last_failure"].to_string();
        shown.contains("the interceptor `stream` failed") && shown.contains("--replace")
    });
    assert!(cast.bank.home.logs().contains("nobody is let through"));
    assert_eq!(service.accepted(), accepted, "the service was not asked");

    // What it says helps, without another start.
    add(&cast.bank, "stream", &stream_plugin(), &["--replace"]);
    eventually("it works again", Duration::from_secs(30), || {
        words_back() == Some(b"hello".to_vec())
    });
}

#[test]
fn another_version_of_a_plugin_counts_for_connections_that_begin_then() {
    let cast = Cast::with_plugins();
    let service = Service::echo();
    cast.outlet("db", service.address, &["--intercept", "stream"]);
    let inlet = cast.inlet("db", &[]);
    let mut old = connect(inlet);
    assert_eq!(ask(&mut old, b"i am passed").unwrap(), b"i am passed");
    // The filter of the tests puts the identifier of the peer in the place of what begins with an `i`.
    let filter = include_str!("../../../workers/plugin/tests/guests/filter.wat");
    let filter = support::guest(filter, "interceptor", &[]);
    add(&cast.bank, "stream", &filter, &["--replace"]);
    let peer = cast.client.home.ok(["identity", "show"]);
    let mut new = connect(inlet);
    new.write_all(b"i").unwrap();
    let mut answer = vec![0; peer.trim().len()];
    new.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), peer.trim());
    assert_eq!(ask(&mut old, b"i am passed").unwrap(), b"i am passed");
}

/// The header injector, as its tool makes it.
fn injector() -> Vec<u8> {
    let folder = std::env::var_os("PORTOLAN_PLUGINS").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/plugins"),
        std::path::PathBuf::from,
    );
    std::fs::read(folder.join("http-headers.wasm")).unwrap()
}

/// What a web server was told, by curl with these arguments.
#[track_caller]
fn told(arguments: &[&str]) -> Vec<(String, String)> {
    serde_json::from_slice(&curl_gets(arguments)).unwrap()
}

fn values<'a>(headers: &'a [(String, String)], wanted: &str) -> Vec<&'a str> {
    let found = headers.iter().filter(|(name, _)| name == wanted);
    found.map(|(_, value)| value.as_str()).collect()
}

#[test]
#[ignore = "tests/plugins builds the samples and runs it"]
fn the_header_injector_tells_a_web_server_who_comes_and_removes_what_a_client_forges() {
    if !can_be_run_here() {
        return;
    }
    let cast = Cast::new();
    let web = Http::start();
    add(&cast.bank, "headers", &injector(), &[]);
    add(&cast.client, "stream", &stream_plugin(), &[]);
    cast.outlet("web", web.address, &["--intercept", "headers"]);
    let inlet = cast.inlet("web", &["--intercept", "stream"]);
    let url = |path: &str| format!("http://{inlet}/{path}");
    let peer = cast.client.home.ok(["identity", "show"]);

    let forged = [
        "-H",
        "X-Portolan-Peer: Iforged",
        "-H",
        "x_portolan_attribute_role: admin",
        "-H",
        "X-Other: stays",
    ];
    let headers = told(&[&forged[..], &[&url("headers")]].concat());
    assert_eq!(values(&headers, "x-portolan-peer"), [peer.trim()], "{headers:?}");
    assert_eq!(
        values(&headers, "x-portolan-attribute-role"),
        ["client"],
        "{headers:?}"
    );
    assert_eq!(
        values(&headers, "x_portolan_attribute_role"),
        [""; 0],
        "{headers:?}"
    );
    assert_eq!(values(&headers, "x-other"), ["stays"], "{headers:?}");

    // Each request of a connection that is kept, behind bodies of both kinds.
    let body = cast.client.home.path().join("body");
    std::fs::write(&body, pattern_bytes(0, LARGE)).unwrap();
    let body = format!("@{}", body.display());
    let (echo, ask) = (url("echo"), url("headers"));
    let (post, head) = (
        cast.client.home.path().join("post"),
        cast.client.home.path().join("head"),
    );
    let (post, head) = (post.to_str().unwrap(), head.to_str().unwrap());
    for encoding in ["X-Nothing: 1", "Transfer-Encoding: chunked"] {
        let line = [
            "-o",
            post,
            "-w",
            "%{num_connects} ",
            "-H",
            encoding,
            "--data-binary",
            &body,
            &echo,
            "--next",
            "-sS",
            "-f",
            "-w",
            "%{num_connects} ",
            "-H",
            "X-Portolan-Peer: Iforged",
            "-o",
            head,
            &ask,
        ];
        assert_eq!(
            String::from_utf8_lossy(&curl_gets(&line)),
            "1 0 ",
            "one connection for both"
        );
        is_whole(&std::fs::read(post).unwrap(), LARGE);
        let headers: Vec<(String, String)> = serde_json::from_slice(&std::fs::read(head).unwrap()).unwrap();
        assert_eq!(values(&headers, "x-portolan-peer"), [peer.trim()], "{headers:?}");
    }
    is_whole(&curl_gets(&[&url(&format!("chunks/{LARGE}"))]), LARGE);

    let many: Vec<_> = (0..16)
        .map(|_| {
            let (url, peer) = (url("headers"), peer.trim().to_owned());
            std::thread::spawn(move || assert_eq!(values(&told(&[&url]), "x-portolan-peer"), [peer]))
        })
        .collect();
    many.into_iter().for_each(|one| one.join().unwrap());

    // What servers may read in different ways ends the connection, with the reason.
    let smuggling = [
        "-H",
        "Content-Length: 3",
        "-H",
        "Transfer-Encoding: chunked",
        "-d",
        "abc",
    ];
    let output = curl(&[&["-f"], &smuggling[..], &[&url("echo")]].concat());
    assert!(!output.status.success());
    cast.both_say("web", "the interceptor `headers` ended the connection");
}

#[test]
fn a_configuration_file_has_plugins_and_the_portals_that_they_intercept() {
    let home = Home::new();
    std::fs::write(home.path().join("stream.wasm"), stream_plugin()).unwrap();
    let service = Service::echo();
    let file = home.path().join("node.yaml");
    let text = format!(
        "name: n1\n\
         plugins:\n  stream: {{ file: stream.wasm, max-time: 50ms }}\n\
         tcp-outlets:\n  db:\n    to: {}\n    intercept: stream\n    intercept-config: x\n\
         tcp-inlets:\n  in: {{ to: /service/db, intercept: stream, intercept-config: x }}\n",
        service.address
    );
    std::fs::write(&file, text).unwrap();
    home.ok(["node", "create", file.to_str().unwrap()]);
    let inlet = home.json(["tcp-inlet", "show", "in"]);
    let address: SocketAddr = inlet["bind_addr"].as_str().unwrap().parse().unwrap();
    let mut stream = connect(address);
    assert_eq!(ask(&mut stream, b"hello").unwrap(), b"hello");
    // The time that a plugin has for one call is a setting for interceptors too.
    let source = Service::start(|mut stream| stream.write_all(&pattern_bytes(0, LARGE)));
    let to = source.address.to_string();
    home.ok([
        "tcp-outlet",
        "create",
        "loops",
        "--to",
        &to,
        "--intercept",
        "stream",
        "--intercept-config",
        "l",
    ]);
    let inlet = home.ok(["tcp-inlet", "create", "loops", "--to", "/service/loops"]);
    let mut stream = connect(inlet.trim().parse().unwrap());
    assert!(end_of(&mut stream, STREAM_LIMIT).is_closed());
    eventually("it says how long it may compute", Duration::from_secs(10), || {
        let shown = home.json(["tcp-outlet", "show", "loops"]);
        shown["last_failure"].to_string().contains("longer than 50 ms")
    });
}

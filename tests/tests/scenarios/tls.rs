//! TLS where Portolan is the client: outlets to services that want it, and configurations and tickets from a URL.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use portolan_tests::home::{COMMAND_LIMIT, run};
use portolan_tests::service::{End, ask, check_pattern, connect, echoes, end_of, pattern_bytes};
use portolan_tests::web::{self, TlsFront};
use portolan_tests::{Home, Member, Outcome, Project, Service, eventually, skip};

use crate::exit;
use crate::story::Story;

fn unless_there() -> bool {
    skip::unless_installed("stunnel") && skip::unless_installed("openssl")
}

/// A further outlet of the bank with these arguments, and an inlet to it.
fn to(story: &Story, outlet: &str, arguments: &[&str]) -> std::net::SocketAddr {
    story.bank.home.ok(["tcp-outlet", "create", outlet]
        .into_iter()
        .chain(arguments.iter().copied()));
    let inlet = story.analysis.inlet(outlet, &["--via", "bank", "--to", outlet]);
    story.analysis.inlet_is_up(outlet);
    inlet
}

#[test]
fn an_outlet_speaks_tls_to_its_service_and_every_byte_arrives_in_both_directions() {
    if !unless_there() {
        return;
    }
    let story = Story::told();
    let front = TlsFront::start(story.service.address);
    let ca = front.certificate.to_str().unwrap();
    let target = format!("localhost:{}", front.address.port());
    let inlet = to(&story, "secure", &["--to", &target, "--tls", "--tls-ca", ca]);
    let shown = story.bank.home.json(["tcp-outlet", "show", "secure"]);
    assert_eq!(shown["tls"], true, "{shown}");
    const TOTAL: usize = 4_000_000;
    let mut writer = connect(inlet);
    let mut reader = writer.try_clone().unwrap();
    let sender = thread::spawn(move || {
        let (mut offset, mut size) = (0, 1);
        while offset < TOTAL {
            let piece = pattern_bytes(offset as u64, size.min(TOTAL - offset));
            writer.write_all(&piece).unwrap();
            offset += piece.len();
            size = size * 3 % 300_007 + 1;
        }
        writer
    });
    let mut buffer = vec![0; 100_000];
    let mut offset = 0;
    while offset < TOTAL {
        let n = reader.read(&mut buffer).unwrap();
        assert!(n > 0, "closed after {offset} bytes");
        assert_eq!(check_pattern(offset as u64, &buffer[..n]), Ok(()));
        offset += n;
    }
    // The client's end reaches the service, through TLS.
    sender
        .join()
        .unwrap()
        .shutdown(std::net::Shutdown::Write)
        .unwrap();
    assert!(end_of(&mut reader, Duration::from_secs(10)).is_closed());
    eventually(
        "the service's connection is closed",
        Duration::from_secs(10),
        || story.service.open() == 0,
    );

    // The certificate was read when the outlet was made: the file is not needed for a restart.
    std::fs::remove_file(ca).unwrap();
    story.bank.home.kill_processes();
    story.bank.home.ok(["node", "start", "bank"]);
    eventually("the outlet is restored with TLS", Duration::from_secs(20), || {
        echoes(inlet)
    });

    // Cut off without TLS's goodbye, a stream has no clean end.
    let mut cut = connect(inlet);
    assert_eq!(ask(&mut cut, b"hello").unwrap(), b"hello");
    drop(front);
    let end = end_of(&mut cut, Duration::from_secs(10));
    assert!(
        matches!(end, End::Reset(_)),
        "a broken connection looks like a complete answer: {end:?}"
    );
}

#[test]
fn an_outlet_believes_only_certificates_of_whom_it_was_told_to_believe() {
    if !unless_there() {
        return;
    }
    let story = Story::told();
    let (front, other) = (
        TlsFront::start(story.service.address),
        TlsFront::start(story.service.address),
    );
    let (own, others) = (
        front.certificate.to_str().unwrap(),
        other.certificate.to_str().unwrap(),
    );
    let named = format!("localhost:{}", front.address.port());
    let plain = story.service.address.to_string();
    for (outlet, arguments, says) in [
        (
            "stranger",
            &["--to", &named, "--tls", "--tls-ca", others][..],
            "no authority that is trusted here",
        ),
        ("system", &["--to", &named, "--tls"], "--tls-ca names one"),
        ("plain", &["--to", &plain, "--tls", "--tls-ca", own], "not TLS"),
    ] {
        let before = story.service.accepted();
        let inlet = to(&story, outlet, arguments);
        let mut client = connect(inlet);
        // The echo of plain bytes is no answer to a TLS greeting.
        let _ = client.write_all(b"is anybody there");
        assert!(
            end_of(&mut client, Duration::from_secs(10)).is_closed(),
            "{outlet}: the client is left hanging"
        );
        for shown in [
            story
                .bank
                .home
                .ok(["tcp-outlet", "show", outlet, "--output", "plain"]),
            story
                .analysis
                .home
                .ok(["tcp-inlet", "show", outlet, "--output", "plain"]),
        ] {
            assert!(shown.contains(says), "{outlet}: {shown}");
        }
        assert!(outlet == "plain" || story.service.accepted() == before);
    }
    // The very certificate that was named is enough, whatever name leads there.
    let pinned = format!("127.0.0.1:{}", front.address.port());
    let inlet = to(&story, "pinned", &["--to", &pinned, "--tls", "--tls-ca", own]);
    assert!(echoes(inlet));
    assert!(ask(&mut connect(inlet), b"hello").is_ok());
}

#[test]
fn what_makes_no_sense_with_tls_is_refused_before_anything_is_made() {
    let home = Home::new();
    home.ok(["node", "create", "n1"]);
    let wrong = home.path().join("wrong.pem");
    std::fs::write(&wrong, "hello").unwrap();
    let wrong = wrong.to_str().unwrap();
    for (arguments, says) in [
        (&["--tls-ca", wrong][..], "only with --tls"),
        (&["--tls", "--tls-ca", wrong], "no certificate in it"),
        (&["--tls", "--tls-ca", "/no/such/file"], "/no/such/file"),
    ] {
        let line = ["tcp-outlet", "create", "o", "--to", "localhost:1"];
        let refused = home.fails(line.iter().chain(arguments));
        assert_eq!(refused.says(&[says]).code, exit::INVALID_ARGUMENT, "{refused}");
    }
    let text = format!("{{ name: n2, tcp-outlet: {{ to: 'tls://localhost:1', tls-ca: {wrong} }} }}");
    home.fails(["node", "create", &text, "--check"])
        .says(&["line 1", "no certificate in it"]);
    assert_eq!(home.json(["tcp-outlet", "list"]), serde_json::json!([]));
}

fn served(files: &[(&str, String)]) -> Service {
    let files: HashMap<String, Vec<u8>> = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), text.clone().into_bytes()))
        .collect();
    web::files(files)
}

#[test]
fn a_node_is_made_from_a_url_with_its_ticket_from_another() {
    let project = Project::start();
    let ticket = served(&[("/bank.ticket", project.ticket(&["--relay", "bank"]))]);
    let text = format!(
        "ticket: http://{}/bank.ticket\nname: n1\ntcp-outlet: {{ to: $TARGET, relay: bank }}\n",
        ticket.address
    );
    let server = served(&[("/outlet.yaml", text)]);
    let url = format!("http://{}/outlet.yaml?token=secret", server.address);
    let home = Home::new();
    let checked = home.run(["node", "create", &url, "--variable", "TARGET=1", "--check"]);
    assert!(checked.succeeded(), "{checked}");
    // A URL in plain http works, and is warned of.
    checked.says(&["plain http"]);
    assert_eq!(home.json(["node", "list"]), serde_json::json!([]));
    let made = home.run(["node", "create", &url, "--variable", "TARGET=1"]);
    assert!(made.succeeded(), "{made}");
    Member {
        home,
        name: "n1".to_owned(),
    }
    .relay_is_up("bank");
    let home = Home::new();
    let again = format!("http://{}/bank.ticket", ticket.address);
    // Fetched, and refused by the authority.
    home.fails(["project", "enroll", &again]).says(&["used"]);
}

#[test]
fn what_a_url_does_not_give_is_told_and_nothing_is_made() {
    let home = Home::new();
    let server = served(&[
        ("/page", "<html>hello</html>".to_owned()),
        ("/long", "x".repeat(300_000)),
        ("/typo.yaml", "nmae: n1\n".to_owned()),
        ("/empty", String::new()),
    ]);
    let at = |path: &str| format!("http://{}{path}", server.address);
    let gone = portolan_tests::project::free_address();
    for (url, says) in [
        (at("/none"), "404"),
        (at("/long"), "longer than 262144 bytes"),
        (at("/typo.yaml"), "did you mean `name`?"),
        (format!("http://{gone}/c.yaml"), "Connection refused"),
        (
            format!("https://{gone}/c.yaml?token=secret"),
            "Connection refused",
        ),
    ] {
        let refused = home.fails(["node", "create", &url]);
        refused.says(&[says]);
        assert!(!refused.stderr.contains("secret"), "{refused}");
    }
    for (path, says) in [
        ("/none", "404"),
        ("/page", "has no ticket"),
        ("/empty", "empty"),
        ("/long", "longer than 65536 bytes"),
    ] {
        let refused = home.fails(["project", "enroll", &at(path)]);
        refused.says(&[says]);
        home.fails(["node", "create", "n1", "--enrollment-ticket", &at(path)])
            .says(&[says]);
    }
    assert_eq!(home.json(["node", "list"]), serde_json::json!([]));
}

#[test]
fn over_https_the_server_has_to_prove_its_name() {
    if !unless_there() {
        return;
    }
    let server = served(&[("/n.yaml", "name: n1\n".to_owned())]);
    let front = TlsFront::start(server.address);
    let home = Home::new();
    let create = |url: &str, trusted: bool| -> Outcome {
        let mut command = home.command(["node", "create", url]);
        if trusted {
            command.env("SSL_CERT_FILE", &front.certificate);
        }
        run(command, COMMAND_LIMIT)
    };
    let url = format!("https://localhost:{}/n.yaml", front.address.port());
    create(&url, false).says(&["certificate of localhost"]);
    let other = format!("https://127.0.0.1:{}/n.yaml", front.address.port());
    create(&other, true).says(&["not for the name `127.0.0.1`"]);
    assert_eq!(home.json(["node", "list"]), serde_json::json!([]));
    let made = create(&url, true);
    assert!(made.succeeded() && made.stdout == "n1", "{made}");
    assert!(!made.stderr.contains("plain http"), "{made}");
}

//! Plugin workers that members reach over their channels, plugins that are replaced while they work, and the same by the functions of the
//! library.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use portolan::api::{AddPlugin, CreateInlet, CreateOutlet, InterceptedBy, PluginVerdict, StartWorker};
use portolan::{ErrorCode, Node};
use portolan_tests::service::{ask, connect};
use portolan_tests::{Member, Outcome, Project, Service};

use crate::support;

/// The puppet does what the length of a text says: an echo, and who the peer is.
const ECHO: usize = 0x65;
const PEER: usize = 0x50;

const TO_PUPPET: &str = "/project/default/service/forward_to_bank/secure/api/service/p";

fn puppet(version: &str) -> Vec<u8> {
    // Another version is another file.
    let wat = support::PUPPET.replacen(
        "(module",
        &format!("(module (@custom \"version\" \"{version}\")"),
        1,
    );
    support::guest(&wat, "worker", &["reply", "from:local", "from:peers"])
}

/// A member whose node is behind a relay.
fn bank(project: &Project) -> Member {
    let bank = project.member("bank", &["--attribute", "role=service", "--relay", "bank"]);
    bank.home.ok(["relay", "create", "bank"]);
    bank.relay_is_up("bank");
    bank
}

fn add(member: &Member, version: &str, arguments: &[&str]) {
    let file = member.home.path().join("puppet.wasm");
    std::fs::write(&file, puppet(version)).unwrap();
    let line = ["plugin", "add", file.to_str().unwrap(), "--name", "puppet"];
    member.home.ok(line.iter().chain(arguments));
}

fn tell(member: &Member, length: usize, to: &str) -> Outcome {
    let text = "x".repeat(length);
    member
        .home
        .run(["message", "send", &text, "--to", to, "--timeout", "4s"])
}

#[test]
fn a_member_reaches_a_plugin_over_its_channel_if_right_and_policy_say_so_and_nobody_else_does() {
    let project = Project::start();
    let bank = bank(&project);
    let client = project.member("client", &["--attribute", "role=client"]);
    let other = project.member("other", &["--attribute", "role=other"]);
    add(&bank, "1", &[]);
    let start = ["worker", "start", "--plugin", "puppet", "--address", "p"];
    let policy = ["--allow", r#"(= subject.role "client")"#];
    bank.home.ok(start.iter().chain(&policy));
    let shown = || bank.home.json(["worker", "show", "p"]);

    // The policy alone is not enough: what comes from peers is a right of its own.
    let refused = tell(&client, ECHO, TO_PUPPET);
    assert!(!refused.succeeded(), "{refused}");
    assert!(shown()["refused"].as_u64() > Some(0), "{}", shown());
    assert_eq!(shown()["handled"], 0, "{}", shown());

    add(&bank, "2", &["--replace", "--allow-from", "peers"]);
    let peer = client.home.ok(["identity", "show"]);
    let answer = tell(&client, PEER, TO_PUPPET);
    assert_eq!(answer.stdout, peer.trim(), "{answer}");
    assert_eq!(tell(&client, ECHO, TO_PUPPET).stdout, "x".repeat(ECHO));
    assert_eq!(shown()["handled"], 2, "{}", shown());

    // A member whom the policy does not let in, and somebody who is no member.
    let before = shown()["refused"].as_u64();
    let refused = tell(&other, ECHO, TO_PUPPET);
    assert!(!refused.succeeded(), "{refused}");
    let outsider = Project::start().member("outsider", &["--attribute", "role=client"]);
    let listener = bank.home.json(["tcp-listener", "list"]);
    let address: SocketAddr = listener[0]["address"]
        .as_str()
        .unwrap_or_else(|| panic!("{listener}"))
        .parse()
        .unwrap();
    let direct = format!("/ip4/127.0.0.1/tcp/{}/secure/api/service/p", address.port());
    let refused = tell(&outsider, ECHO, &direct);
    assert!(!refused.succeeded(), "{refused}");
    let plain = format!("/ip4/127.0.0.1/tcp/{}/service/p", address.port());
    let refused = tell(&outsider, ECHO, &plain);
    assert!(!refused.succeeded(), "{refused}");
    assert!(shown()["refused"].as_u64() > before, "{}", shown());
    assert_eq!(shown()["handled"], 2, "nothing of it came to the plugin");
    // Whom the policy names reaches it on the same way.
    assert_eq!(tell(&client, ECHO, &direct).stdout, "x".repeat(ECHO));
}

#[tokio::test]
async fn replacing_a_plugin_under_load_loses_no_message_and_doubles_none() {
    let project = Project::start();
    let bank = bank(&project);
    add(&bank, "0", &["--allow-from", "peers"]);
    let start = [
        "worker",
        "start",
        "--plugin",
        "puppet",
        "--address",
        "p",
        "--allow",
        "(and true)",
    ];
    bank.home.ok(start);
    let ticket = project.ticket(&[]);
    let client = Node::builder().ticket(ticket).start().await.unwrap();
    let route = Arc::new(client.connect(TO_PUPPET).await.unwrap());

    let (asked, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let over = Arc::new(AtomicBool::new(false));
    let news = Arc::new(tokio::sync::Notify::new());
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (route, over, news) = (Arc::clone(&route), Arc::clone(&over), Arc::clone(&news));
            let (asked, answered) = (Arc::clone(&asked), Arc::clone(&answered));
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    let text = format!("{:0>ECHO$}", asked.fetch_add(1, Ordering::SeqCst));
                    // A message that is lost has no answer.
                    let answer: String = route.ask(text.clone()).await.unwrap();
                    assert_eq!(answer, text);
                    answered.fetch_add(1, Ordering::SeqCst);
                    news.notify_one();
                }
            })
        })
        .collect();
    let more_are_answered = |than: u64| {
        let (answered, news) = (Arc::clone(&answered), Arc::clone(&news));
        async move {
            while answered.load(Ordering::SeqCst) < than + 50 {
                news.notified().await;
            }
        }
    };
    let mut digests = Vec::new();
    let bank = Arc::new(bank);
    for version in 1..=8 {
        tokio::time::timeout(
            Duration::from_secs(60),
            more_are_answered(answered.load(Ordering::SeqCst)),
        )
        .await
        .expect("the load goes on");
        let replaced = Arc::clone(&bank);
        let digest = tokio::task::spawn_blocking(move || {
            add(&replaced, &version.to_string(), &["--replace"]);
            replaced.home.json(["plugin", "show", "puppet"])["digest"].to_string()
        });
        digests.push(digest.await.unwrap());
    }
    over.store(true, Ordering::SeqCst);
    for one in load {
        one.await.unwrap();
    }
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 8, "each was another file");
    let asked = asked.load(Ordering::SeqCst);
    let shown = bank.home.json(["worker", "show", "p"]);
    assert_eq!(shown["handled"], asked, "each once: {shown}");
    assert_eq!(
        (&shown["failed"], &shown["restarts"]),
        (&0.into(), &0.into()),
        "{shown}"
    );
    client.stop().await.unwrap();
}

#[tokio::test]
async fn what_the_commands_do_with_plugins_is_done_by_functions() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: Vec<u8>| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let puppet_file = file("puppet.wasm", puppet("1"));
    let wat = include_str!("../../../workers/plugin/tests/guests/stream.wat");
    let stream_file = file("stream.wasm", support::guest(wat, "interceptor", &[]));
    let service = Service::echo();
    let home = folder.path().join("home");

    let node = Node::builder()
        .folder(&home)
        .plugin(AddPlugin::new("puppet", &puppet_file).also("send:other"))
        .plugin(AddPlugin::new("stream", &stream_file))
        .start_worker(StartWorker::of_plugin("puppet").at("p").grant("from:peers"))
        .outlet(
            CreateOutlet::to(service.address.to_string())
                .at("db")
                .intercept(InterceptedBy::name("stream").config("x")),
        )
        .start()
        .await
        .unwrap();
    let names: Vec<String> = node
        .plugins()
        .into_iter()
        .map(|known| known.plugin.name)
        .collect();
    assert_eq!(names, ["puppet", "stream"]);
    let known = node.plugin("puppet").unwrap();
    assert_eq!(known.plugin.rights, ["reply", "send:other", "from:local"]);
    assert_eq!(known.verdict, PluginVerdict::Intact);
    assert_eq!(node.outlet("db").unwrap().intercept.unwrap().name, "stream");

    let code = |result: portolan::Result<portolan::api::PluginStatus>| result.unwrap_err().code;
    let again = AddPlugin::new("puppet", &puppet_file);
    assert_eq!(
        code(node.add_plugin(again.clone()).await),
        ErrorCode::AlreadyExists
    );
    let pinned = again.clone().replace().digest("0".repeat(64));
    assert_eq!(code(node.add_plugin(pinned).await), ErrorCode::NotVerified);
    let absent = AddPlugin::new("absent", folder.path().join("absent.wasm"));
    assert!(node.add_plugin(absent).await.is_err());
    assert_eq!(code(node.plugin("absent")), ErrorCode::NotFound);
    let wrong = CreateOutlet::to("127.0.0.1:1").intercept(InterceptedBy::name("puppet"));
    assert_eq!(
        node.create_outlet(wrong).await.unwrap_err().code,
        ErrorCode::InvalidArgument
    );
    let wrong = StartWorker::of_plugin("stream");
    assert_eq!(
        node.start_worker(wrong).await.unwrap_err().code,
        ErrorCode::InvalidArgument
    );
    for used in ["puppet", "stream"] {
        let error = node.remove_plugin(used).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::AlreadyExists, "{error}");
    }
    let granted = again.replace().grant("reply").grant("from:local");
    let replaced = node.add_plugin(granted).await.unwrap();
    assert_eq!(replaced.plugin.rights, ["reply", "from:local"]);
    assert_eq!(replaced.not_granted, ["from:peers"]);
    node.stop().await.unwrap();

    // All of it is there again.
    let node = Node::builder().folder(&home).restore().start().await.unwrap();
    let text = "x".repeat(ECHO);
    let answer: String = node.ask("/service/p", text.clone()).await.unwrap();
    assert_eq!(answer, text);
    let inlet =
        CreateInlet::new("127.0.0.1:0", "/service/db").intercept(InterceptedBy::name("stream").config("x"));
    let inlet: SocketAddr = node.create_inlet(inlet).await.unwrap().bind_addr.parse().unwrap();
    let said = tokio::task::spawn_blocking(move || ask(&mut connect(inlet), b"hello").unwrap());
    assert_eq!(said.await.unwrap(), b"hello");
    node.stop_worker("p").await.unwrap();
    node.remove_plugin("puppet").await.unwrap();
    assert_eq!(node.plugins().len(), 1);
    node.stop().await.unwrap();
}

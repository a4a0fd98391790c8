//! Nodes as values: several in one process, in async and in synchronous programs, without the command line.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use portolan_runtime::{Context, Result as RuntimeResult, Routed, Worker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Node, Reach, RouteOptions};
use crate::control::api::{
    ConnectionStatus, CreateInlet, CreateOutlet, CreateRelay, CreateSecureChannel, NodeStatus, PolicyTarget,
    StartWorker, path,
};
use crate::control::client::NodeClient;
use crate::engine::remote::TicketRequest;
use crate::project::{HowJoined, ProjectOptions};
use crate::state::Home;
use crate::{ErrorCode, Result};

struct Greeter;

impl Worker for Greeter {
    type Message = String;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<String>) -> RuntimeResult<()> {
        let greeting = format!("hello, {}", message.body()?);
        ctx.send(message.return_route().clone(), greeting).await
    }
}

fn at(node: &Node, rest: &str) -> String {
    let address = node.address();
    let (host, port) = address.rsplit_once(':').unwrap();
    format!("/ip4/{host}/tcp/{port}{rest}")
}

/// A service that says everything back.
async fn parrot() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = client.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn says_back(address: &str) -> bool {
    let Ok(mut client) = TcpStream::connect(address).await else {
        return false;
    };
    let mut answer = [0; 5];
    client.write_all(b"hello").await.is_ok()
        && client.read_exact(&mut answer).await.is_ok()
        && &answer == b"hello"
}

#[tokio::test]
async fn a_node_in_memory_answers_and_leaves_nothing_behind() -> Result<()> {
    let node = Node::builder().worker("greeter", Greeter).start().await?;
    let folder = node.home().path().to_owned();
    assert_eq!(
        node.ask::<String, String>("/service/greeter", "you".into())
            .await?,
        "hello, you"
    );
    assert!(!folder.join("home.sqlite3").exists());
    assert!(!folder.join("nodes/node/control.sock").exists());
    node.stop().await?;
    let error = node
        .create_outlet(CreateOutlet::to("127.0.0.1:1"))
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::Unreachable, "{error}");
    drop(node);
    // The threads that its workers ran on let go of it one after the other.
    let gone = async {
        while folder.exists() {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(10), gone).await.is_ok(),
        "{} is still there",
        folder.display()
    );
    Ok(())
}

#[test]
fn a_synchronous_program_needs_no_runtime() -> Result<()> {
    let node = Node::builder().worker("greeter", Greeter).start_blocking()?;
    let asker = node.clone();
    let answer = node.block_on(async move {
        asker
            .ask::<String, String>("/service/greeter", "you".into())
            .await
    })??;
    assert_eq!(answer, "hello, you");
    node.stop_blocking()?;
    assert_eq!(node.block_on(async {}).unwrap_err().code, ErrorCode::Unreachable);
    Ok(())
}

#[test]
fn a_node_is_awaited_without_a_tokio_runtime() -> Result<()> {
    // The simplest executor there is: it polls again when it is woken.
    fn run<F: Future>(future: F) -> F::Output {
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
        let mut context = std::task::Context::from_waker(&waker);
        let mut future = std::pin::pin!(future);
        loop {
            match future.as_mut().poll(&mut context) {
                std::task::Poll::Ready(output) => return output,
                std::task::Poll::Pending => std::thread::park(),
            }
        }
    }
    run(async {
        let node = Node::builder().start().await?;
        let other = Node::builder().start().await?;
        let route = at(&other, "/secure/api/service/uppercase");
        assert_eq!(node.ask::<String, String>(&route, "hello".into()).await?, "HELLO");
        node.stop().await?;
        other.stop().await
    })
}

#[tokio::test]
async fn a_worker_is_reached_from_outside_only_when_that_was_said() -> Result<()> {
    let server = Node::builder().worker("greeter", Greeter).start().await?;
    let client = Node::builder().start().await?;
    let route = at(&server, "/secure/api/service/greeter");
    let limit = Duration::from_millis(500);
    let error = client
        .ask_within::<String, String>(limit, &route, "you".into())
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::Timeout, "{error}");
    server.make_reachable("greeter", Reach::Channels);
    assert_eq!(
        client.ask::<String, String>(&route, "you".into()).await?,
        "hello, you"
    );
    let open = client
        .connect_with(
            &at(&server, "/secure/api"),
            RouteOptions {
                authorized: vec![server.identifier().to_string()],
                ..RouteOptions::default()
            },
        )
        .await?;
    assert_eq!(open.peer(), Some(server.identifier()));
    let lost = open.lost();
    server.stop().await?;
    lost.await;
    client.stop().await
}

#[tokio::test]
async fn whoever_is_somebody_else_gets_no_channel() -> Result<()> {
    let server = Node::builder().start().await?;
    let client = Node::builder().start().await?;
    let wanted = CreateSecureChannel::to(at(&server, "/service/api"));
    let channel = client
        .create_secure_channel(wanted.clone().authorized(server.identifier()))
        .await?;
    assert_eq!(channel.peer, server.identifier().to_string());
    let error = client
        .create_secure_channel(wanted.authorized(client.identifier()))
        .await
        .unwrap_err();
    assert!(
        matches!(error.code, ErrorCode::Refused | ErrorCode::NotVerified),
        "{error:?}"
    );
    client.stop().await?;
    server.stop().await
}

#[tokio::test]
async fn a_project_its_members_a_relay_and_a_portal_live_in_one_process() -> Result<()> {
    let hub = Node::builder()
        .serve_project(ProjectOptions::listen("127.0.0.1:0"))
        .start()
        .await?;
    let bank_ticket = hub
        .issue_ticket(TicketRequest::new().attribute("bank", "true").relay("db"))
        .await?;
    let analyst_ticket = hub
        .issue_ticket(TicketRequest::new().attribute("analyst", "true"))
        .await?;
    let service = parrot().await;
    let bank = Node::builder()
        .ticket(&bank_ticket.text)
        .policy(PolicyTarget::outlets(), "analyst")
        .outlet(CreateOutlet::to(&service))
        .service("greeter", "analyst", Greeter)
        .relay(CreateRelay::named("db"))
        .start()
        .await?;
    assert_eq!(bank.relay("db")?.connection_status, ConnectionStatus::Up);

    let analysis = Node::builder().start().await?;
    let joined = analysis.enroll(&analyst_ticket.text).await?;
    assert_eq!(joined.how, HowJoined::Enrolled);
    let inlet = analysis
        .create_inlet(CreateInlet::via("127.0.0.1:0", "db", "outlet").allow("bank"))
        .await?;
    assert_eq!(inlet.status, ConnectionStatus::Up, "{inlet:?}");
    assert!(says_back(&inlet.bind_addr).await);
    let route = "/project/default/service/forward_to_db/secure/api/service/greeter";
    assert_eq!(
        analysis.ask::<String, String>(route, "you".into()).await?,
        "hello, you"
    );
    assert!(
        bank.explain_policy("outlet", [("analyst", "true")])?
            .decision()
            .is_allowed()
    );

    let members = hub.members().await?;
    assert_eq!(members.len(), 3);
    hub.remove_member(&analysis.identifier().to_string()).await?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while says_back(&inlet.bind_addr).await {
        assert!(Instant::now() < deadline, "a removed member still gets through");
    }
    for node in [analysis, bank, hub] {
        node.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_authority_and_a_credential_do_without_a_project() -> Result<()> {
    let issuer = Node::builder().start().await?;
    let home = Home::in_memory()?;
    let client_id = home.acting_identity(None)?.record.identifier;
    let credential = issuer
        .issue_credential(
            &client_id,
            BTreeMap::from([("cluster".into(), "production".into())]),
            Duration::from_secs(600),
        )
        .await?;
    let server = Node::builder()
        .authority(issuer.identity_history()?)
        .service("greeter", "cluster=production", Greeter)
        .start()
        .await?;
    let route = at(&server, "/secure/api/service/greeter");
    let member = Node::builder()
        .home(home)
        .authority(issuer.identity_history()?)
        .credential(credential)
        .start()
        .await?;
    assert_eq!(
        member.ask::<String, String>(&route, "member".into()).await?,
        "hello, member"
    );
    let stranger = Node::builder().start().await?;
    let limit = Duration::from_millis(500);
    let error = stranger
        .ask_within::<String, String>(limit, &route, "stranger".into())
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::Timeout, "{error}");
    for node in [stranger, member, server, issuer] {
        node.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_node_in_a_folder_is_managed_by_others_and_comes_back_as_it_was() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let build = || Node::builder().folder(folder.path()).name("n1").restore();
    let node = build()
        .outlet(CreateOutlet::to("127.0.0.1:1").at("first"))
        .start()
        .await?;
    let (identifier, address) = (node.identifier(), node.address());
    node.create_outlet(CreateOutlet::to("127.0.0.1:2").at("second"))
        .await?;

    let seen = Home::at(folder.path())?.node("n1")?;
    assert!(seen.is_running());
    let client = NodeClient::new(seen.clone());
    let status: NodeStatus = client.get(path::NODE).await?;
    assert_eq!(status.outlets.len(), 2);
    let second = Node::builder().folder(folder.path()).name("n1").start().await;
    assert_eq!(second.unwrap_err().code, ErrorCode::AlreadyExists);
    node.stop().await?;
    assert!(
        !seen.is_running(),
        "whoever has stopped a node can start it again"
    );

    let again = build()
        .outlet(CreateOutlet::to("127.0.0.1:3").at("first"))
        .start()
        .await?;
    assert_eq!((again.identifier(), again.address()), (identifier, address));
    assert_eq!(again.outlet("first")?.to, "127.0.0.1:1");
    assert_eq!(again.outlets().len(), 2);
    again.stop().await?;

    let anew = Node::builder().folder(folder.path()).name("n1").start().await?;
    assert_eq!(anew.identifier(), identifier);
    assert!(anew.outlets().is_empty());
    anew.stop().await
}

/// The lock belongs to the handle; it ends with it.
fn drop_and_wait(node: Node, folder: &crate::state::NodeFolder) -> bool {
    drop(node);
    let deadline = Instant::now() + Duration::from_secs(30);
    while folder.is_running() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    !folder.is_running()
}

#[tokio::test]
async fn a_node_whose_last_handle_is_dropped_stops() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::builder().folder(folder.path()).start().await?;
    let seen = node.home().node("node")?;
    assert!(drop_and_wait(node, &seen));
    Ok(())
}

#[tokio::test]
async fn a_node_of_which_a_part_cannot_be_there_does_not_start() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let cases = [
        (Node::builder().listen(&port), ErrorCode::AlreadyExists),
        (
            Node::builder().inlet(CreateInlet::new(&port, "/service/outlet")),
            ErrorCode::AlreadyExists,
        ),
        (
            Node::builder().policy(PolicyTarget::outlets(), "(= subject.a"),
            ErrorCode::InvalidArgument,
        ),
        (Node::builder().ticket("no ticket"), ErrorCode::InvalidArgument),
        (Node::builder().arbiters(0), ErrorCode::InvalidArgument),
        (Node::builder().credential("00"), ErrorCode::InvalidArgument),
        (Node::builder().project("unknown"), ErrorCode::NotFound),
        (Node::builder().folder("/dev/null/x"), ErrorCode::State),
        (
            Node::builder().worker("w", Greeter).worker("w", Greeter),
            ErrorCode::AlreadyExists,
        ),
    ];
    for (builder, code) in cases {
        let said = format!("{builder:?}");
        let error = builder.start().await.unwrap_err();
        assert_eq!(error.code, code, "{said}: {error}");
    }
    Ok(())
}

#[derive(serde::Deserialize)]
struct Salutation {
    greeting: String,
}

impl Worker for Salutation {
    type Message = String;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<String>) -> RuntimeResult<()> {
        let greeting = format!("{}, {}", self.greeting, message.body()?);
        ctx.send(message.return_route().clone(), greeting).await
    }
}

#[tokio::test]
async fn a_worker_type_of_the_programs_own_is_started_by_name() -> Result<()> {
    let node = Node::builder()
        .worker_type("salutation", "Greets.", |config: Salutation, place| {
            place.start(config)
        })
        .start_worker(StartWorker::of_type("salutation").set("greeting", "good day"))
        .start()
        .await?;
    let ask = |address: &str| {
        let (node, route) = (node.clone(), format!("/service/{address}"));
        async move { node.ask::<String, String>(&route, "you".into()).await }
    };
    assert_eq!(ask("salutation").await?, "good day, you");
    let wrong = StartWorker::of_type("salutation")
        .at("s2")
        .set("greting", "good day");
    assert_eq!(
        node.start_worker(wrong).await.unwrap_err().code,
        ErrorCode::InvalidArgument
    );
    assert_eq!(node.started_worker("salutation")?.handled, 1);
    node.stop_worker("salutation").await?;
    assert_eq!(ask("salutation").await.unwrap_err().code, ErrorCode::Unreachable);
    node.stop().await
}

#[tokio::test]
async fn keys_are_rotated_and_the_identifier_stays() -> Result<()> {
    let server = Node::builder().start().await?;
    let client = Node::builder().start().await?;
    let before = server.identity_history()?;
    server.rotate_identity().await?;
    assert_ne!(server.identity_history()?, before);
    let open = client.connect(&at(&server, "/secure/api")).await?;
    assert_eq!(open.peer(), Some(server.identifier()));
    client.stop().await?;
    server.stop().await
}

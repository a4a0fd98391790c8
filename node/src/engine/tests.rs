//! Whole nodes in one process, spoken to over their control sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use portolan_identity::KeyType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::remote::{self, Caller, Redeemed, TicketRequest};
use super::{project_routes, run_node};
use crate::ErrorCode;
use crate::control::api::{
    self, ConnectionStatus, CreateInlet, CreateOutlet, CreateRelay, InletStatus, MessageReply, NodeStatus,
    OutletStatus, PolicyStatus, PolicyTarget, RelayStatus, SendMessage, SetPolicy, path,
};
use crate::control::client::NodeClient;
use crate::error::Result;
use crate::state::{Home, NodeFolder, NodeRole, NodeSpec, Project, ProjectNodeSpec, now};

/// Nothing here takes this long; what is slower than expected on a busy machine still passes.
const PATIENCE: Duration = Duration::from_secs(30);

struct Machine {
    folder: tempfile::TempDir,
    home: Home,
}

struct RunningNode {
    client: NodeClient,
    status: NodeStatus,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<()>>,
}

impl Machine {
    fn new() -> Self {
        // Shown for tests that fail.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home")).unwrap();
        home.acting_identity(None).unwrap();
        Self { folder, home }
    }

    fn spec(&self, name: &str, role: NodeRole) -> NodeSpec {
        NodeSpec {
            name: name.into(),
            identity: "default".into(),
            project: None,
            tcp_listener_address: "127.0.0.1:0".into(),
            role,
            created_at: now(),
        }
    }

    async fn create(&self, name: &str) -> RunningNode {
        let folder = self.home.node_folder(name).unwrap();
        drop(folder.create(&self.spec(name, NodeRole::Node)).unwrap());
        Self::start(folder).await
    }

    async fn start(folder: NodeFolder) -> RunningNode {
        let node = folder.open().unwrap();
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(run_node(
            node,
            move |status: &NodeStatus| {
                let _ = ready.send(status.clone());
            },
            async {
                let _ = stopped.await;
            },
        ));
        let status = tokio::time::timeout(PATIENCE, is_ready).await.unwrap().unwrap();
        RunningNode {
            client: NodeClient::new(folder).with_timeout(PATIENCE),
            status,
            stop: Some(stop),
            task,
        }
    }

    fn caller(&self, project: &Project) -> Caller {
        Caller {
            home: self.home.clone(),
            identity: "default".into(),
            project: project.clone(),
            timeout: PATIENCE,
        }
    }

    /// A member of the project, with these attributes.
    async fn enrolled(hub: &Hub, attributes: &[(&str, &str)]) -> Self {
        let machine = Self::new();
        let request = TicketRequest {
            attributes: attributes
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..TicketRequest::default()
        };
        let ticket = remote::create_ticket(&hub.machine.caller(&hub.project), &request)
            .await
            .unwrap();
        let read = remote::read_ticket(&ticket.text).unwrap();
        let redeemed = remote::redeem_ticket(&machine.caller(&read.project), &read)
            .await
            .unwrap();
        assert_eq!(redeemed, Redeemed::Enrolled);
        machine
            .home
            .database()
            .unwrap()
            .put_project(&read.project, true)
            .unwrap();
        machine
    }

    fn identifier(&self) -> String {
        self.home.identity("default").unwrap().identifier
    }
}

impl RunningNode {
    async fn stop(mut self) {
        let before = std::time::Instant::now();
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap().unwrap();
        assert!(
            before.elapsed() < Duration::from_secs(2),
            "a node stops within 2 s"
        );
    }

    async fn outlet(&self, to: SocketAddr, allow: Option<&str>) -> OutletStatus {
        let request = CreateOutlet {
            address: None,
            to: to.to_string(),
            tls: false,
            tls_ca: None,
            allow: allow.map(str::to_owned),
            skip_handshake: false,
            enable_nagle: false,
            intercept: None,
        };
        self.client.post(path::TCP_OUTLETS, &request).await.unwrap()
    }

    async fn inlet(&self, alias: &str, to: &str, wait_ms: u64) -> InletStatus {
        let request = CreateInlet {
            alias: Some(alias.into()),
            from: "127.0.0.1:0".into(),
            to: to.into(),
            identity: None,
            authorized: None,
            allow: None,
            wait_ms,
            retry_wait_ms: 0,
            skip_handshake: false,
            enable_nagle: false,
            stripes: 1,
            intercept: None,
        };
        self.client.post(path::TCP_INLETS, &request).await.unwrap()
    }

    async fn relay(&self, name: &str) -> RelayStatus {
        let request = CreateRelay {
            name: name.into(),
            relay_address: None,
            at: "/project/test".into(),
            authorized: None,
            wait_ms: 10_000,
        };
        self.client.post(path::RELAYS, &request).await.unwrap()
    }

    async fn policy(&self, target: PolicyTarget, expression: &str) -> PolicyStatus {
        let request = SetPolicy {
            target,
            expression: expression.into(),
        };
        self.client.put(path::POLICIES, &request).await.unwrap()
    }
}

/// A project node, its administrator, and the project as members know it.
struct Hub {
    machine: Machine,
    node: RunningNode,
    project: Project,
}

impl Hub {
    async fn start() -> Self {
        let machine = Machine::new();
        let home = &machine.home;
        let admin = machine.identifier();
        let own = home
            .create_identity(Some("project"), None, KeyType::default())
            .unwrap();
        let authority = home
            .create_identity(Some("authority"), None, KeyType::default())
            .unwrap();
        let enroller = BTreeMap::from([("ockam-role".to_owned(), "enroller".to_owned())]);
        let role = ProjectNodeSpec {
            project_id: "p1".into(),
            project_name: "test".into(),
            authority_identity: "authority".into(),
            administrators: BTreeMap::from([(admin, enroller)]),
            credential_ttl: 3600,
        };
        let mut spec = machine.spec("hub", NodeRole::Project(role));
        spec.identity = "project".into();
        let folder = home.node_folder("hub").unwrap();
        drop(folder.create(&spec).unwrap());
        let node = Machine::start(folder).await;
        let (access_route, authority_route) =
            project_routes(&node.status.tcp_listener_address, "p1").unwrap();
        let project: Project = serde_json::from_value(serde_json::json!({
            "id": "p1",
            "name": "test",
            "access_route": access_route,
            "identity": own.record.identifier,
            "project_change_history": hex::encode(&own.record.history),
            "authority_access_route": authority_route,
            "authority_identity": hex::encode(&authority.record.history),
        }))
        .unwrap();
        home.database().unwrap().put_project(&project, true).unwrap();
        Self {
            machine,
            node,
            project,
        }
    }
}

/// Answers each line in capitals.
async fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                while let Ok(count) = socket.read(&mut buffer).await {
                    if count == 0
                        || socket
                            .write_all(&buffer[..count].to_ascii_uppercase())
                            .await
                            .is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// One request through a portal: what the service answers; `None` when the connection is closed without.
async fn ask(inlet: &str) -> Option<String> {
    let mut socket = TcpStream::connect(inlet).await.ok()?;
    socket.write_all(b"hello").await.ok()?;
    let mut buffer = [0; 16];
    let count = tokio::time::timeout(PATIENCE, socket.read(&mut buffer))
        .await
        .expect("a client never hangs")
        .ok()?;
    (count > 0).then(|| String::from_utf8_lossy(&buffer[..count]).into_owned())
}

async fn ask_until_answered(inlet: &str) {
    let answered = async {
        while ask(inlet).await.as_deref() != Some("HELLO") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answered)
        .await
        .expect("the portal works at last");
}

async fn is_closed(socket: &mut TcpStream) {
    let mut buffer = [0; 64];
    let closed = async { while !matches!(socket.read(&mut buffer).await, Ok(0) | Err(_)) {} };
    tokio::time::timeout(Duration::from_secs(5), closed)
        .await
        .expect("the connection is closed");
}

#[tokio::test]
async fn a_portal_without_project_survives_a_restart_of_either_node() {
    let machine = Machine::new();
    let (one, two) = (machine.create("n1").await, machine.create("n2").await);
    one.outlet(service().await, None).await;
    let plain = two.inlet("plain", "/node/n1/service/outlet", 5000).await;
    let secure = two
        .inlet("secure", "/node/n1/secure/api/service/outlet", 5000)
        .await;
    assert_eq!(plain.status, ConnectionStatus::Up);
    assert_eq!(ask(&plain.bind_addr).await.as_deref(), Some("HELLO"));
    assert_eq!(ask(&secure.bind_addr).await.as_deref(), Some("HELLO"));

    one.stop().await;
    assert_eq!(ask(&secure.bind_addr).await, None);
    let down: InletStatus = two
        .client
        .get(&api::item(path::TCP_INLETS, "secure"))
        .await
        .unwrap();
    assert!(down.last_failure.is_some());
    let one = Machine::start(machine.home.node_folder("n1").unwrap()).await;
    ask_until_answered(&secure.bind_addr).await;
    ask_until_answered(&plain.bind_addr).await;

    let again = machine.home.node_folder("n2").unwrap();
    two.stop().await;
    let two = Machine::start(again).await;
    ask_until_answered(&secure.bind_addr).await;
    let all: Vec<InletStatus> = two.client.get(path::TCP_INLETS).await.unwrap();
    assert_eq!(all.len(), 2);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_name_or_a_port_is_taken_only_once_and_unknown_things_are_not_found() {
    let machine = Machine::new();
    let node = machine.create("n1").await;
    let target = service().await;
    let outlet = node.outlet(target, None).await;
    assert_eq!(outlet.address, "outlet");
    assert_ne!(node.outlet(target, None).await.address, "outlet");
    let same: CreateOutlet =
        serde_json::from_value(serde_json::json!({"address": "outlet", "to": "1"})).unwrap();
    let refused = node
        .client
        .post::<_, OutletStatus>(path::TCP_OUTLETS, &same)
        .await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::AlreadyExists);

    let inlet = node.inlet("a", "/service/outlet", 0).await;
    for (alias, from, code) in [
        ("a", "127.0.0.1:0", ErrorCode::AlreadyExists),
        ("b", inlet.bind_addr.as_str(), ErrorCode::AlreadyExists),
        ("c#", "127.0.0.1:0", ErrorCode::InvalidArgument),
    ] {
        let request: CreateInlet = serde_json::from_value(
            serde_json::json!({"alias": alias, "from": from, "to": "/service/outlet"}),
        )
        .unwrap();
        let refused = node
            .client
            .post::<_, InletStatus>(path::TCP_INLETS, &request)
            .await;
        assert_eq!(refused.unwrap_err().code, code, "{alias} {from}");
    }
    node.client
        .delete(&api::item(path::TCP_INLETS, "a"))
        .await
        .unwrap();
    let port_is_free = TcpListener::bind(&inlet.bind_addr).await;
    assert!(port_is_free.is_ok());
    for missing in [
        api::item(path::TCP_INLETS, "a"),
        api::item(path::TCP_OUTLETS, "x"),
        api::item(path::RELAYS, "x"),
        api::item(path::SECURE_CHANNELS, "x"),
        "/v1/nothing".to_owned(),
    ] {
        let error = node.client.delete(&missing).await.unwrap_err();
        assert!(matches!(error.code, ErrorCode::NotFound), "{missing}: {error}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_policy_stays_as_long_as_an_inlet_or_an_outlet_has_its_name() {
    let machine = Machine::new();
    let node = machine.create("n1").await;
    let outlet = node.outlet(service().await, Some("admin")).await;
    node.inlet(&outlet.address, "/service/outlet", 0).await;
    let target = PolicyTarget::Resource(outlet.address.clone());
    for (resource, remains) in [(path::TCP_INLETS, true), (path::TCP_OUTLETS, false)] {
        let item = api::item(resource, &outlet.address);
        node.client.delete(&item).await.unwrap();
        let policies: Vec<PolicyStatus> = node.client.get(path::POLICIES).await.unwrap();
        assert_eq!(policies.iter().any(|policy| policy.target == target), remains);
    }
    node.stop().await;
}

#[tokio::test]
async fn messages_travel_over_connections_and_channels() {
    let machine = Machine::new();
    let (one, two) = (machine.create("n1").await, machine.create("n2").await);
    for route in [
        "/service/uppercase",
        "/node/n2/service/uppercase",
        "/node/n2/secure/api/service/uppercase",
        "/node/n2/secure/api/secure/api/service/uppercase",
    ] {
        let request = SendMessage {
            route: route.into(),
            payload: hex::encode("hello"),
            timeout_ms: 10_000,
            identity: None,
        };
        let reply: MessageReply = one.client.post(path::MESSAGES, &request).await.unwrap();
        assert_eq!(hex::decode(reply.payload).unwrap(), b"HELLO", "{route}");
    }
    let request = SendMessage {
        route: "/node/n2/service/nobody".into(),
        payload: String::new(),
        timeout_ms: 300,
        identity: None,
    };
    let silence = one.client.post::<_, MessageReply>(path::MESSAGES, &request).await;
    assert_eq!(silence.unwrap_err().code, ErrorCode::Timeout);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_portal_through_a_relay_obeys_policies_at_once_and_ends_with_the_membership() {
    let hub = Hub::start().await;
    let bank = Machine::enrolled(&hub, &[("role", "server"), ("ockam-relay", "db")]).await;
    let analysis = Machine::enrolled(&hub, &[("role", "client")]).await;
    let (server, client) = (bank.create("bank").await, analysis.create("analysis").await);
    assert_eq!(server.status.project.as_deref(), Some("test"));

    // The inlet first: it is there, it is down, it closes clients, and it recovers by itself.
    let route = "/project/test/service/forward_to_db/secure/api/service/outlet";
    let inlet = client.inlet("db", route, 0).await;
    assert_eq!(inlet.status, ConnectionStatus::Down);
    assert_eq!(ask(&inlet.bind_addr).await, None);
    client
        .policy(PolicyTarget::Type("tcp-inlet".into()), "role=server")
        .await;
    server
        .policy(PolicyTarget::Type("tcp-outlet".into()), "role=client")
        .await;
    server.outlet(service().await, None).await;
    let relay = server.relay("db").await;
    assert_eq!(relay.connection_status, ConnectionStatus::Up, "{relay:?}");
    assert_eq!(relay.remote_address.as_deref(), Some("/service/forward_to_db"));
    ask_until_answered(&inlet.bind_addr).await;

    let refused = server.relay("other").await;
    assert!(refused.refused, "{refused:?}");
    assert!(refused.last_failure.unwrap().contains("ockam-relay"));

    // A policy that changes ends what is open, and what it allows again is possible again.
    for (node, kind, denied, allowed) in [
        (&server, "tcp-outlet", "role=other", "role=client"),
        (&client, "tcp-inlet", "role=other", "role=server"),
    ] {
        let mut open = TcpStream::connect(&inlet.bind_addr).await.unwrap();
        open.write_all(b"hello").await.unwrap();
        open.read_exact(&mut [0; 5]).await.unwrap();
        node.policy(PolicyTarget::Type(kind.into()), denied).await;
        let _ = open.write_all(b"more").await;
        is_closed(&mut open).await;
        assert_eq!(ask(&inlet.bind_addr).await, None);
        node.policy(PolicyTarget::Type(kind.into()), allowed).await;
        ask_until_answered(&inlet.bind_addr).await;
    }
    let outlet: OutletStatus = server
        .client
        .get(&api::item(path::TCP_OUTLETS, "outlet"))
        .await
        .unwrap();
    assert!(outlet.last_failure.unwrap().contains("is false"));

    // Whoever is removed loses what is open, and gets nothing new.
    let mut open = TcpStream::connect(&inlet.bind_addr).await.unwrap();
    open.write_all(b"hello").await.unwrap();
    open.read_exact(&mut [0; 5]).await.unwrap();
    let admin = hub.machine.caller(&hub.project);
    remote::delete_member(&admin, &analysis.identifier())
        .await
        .unwrap();
    is_closed(&mut open).await;
    assert_eq!(ask(&inlet.bind_addr).await, None);

    client.stop().await;
    server.stop().await;
    hub.node.stop().await;
    drop((bank.folder, analysis.folder));
}

#[tokio::test]
async fn a_node_joins_the_project_that_its_home_joins_later_and_is_closed_to_strangers_from_then_on() {
    let hub = Hub::start().await;
    let machine = Machine::new();
    let (node, stranger) = (machine.create("n1").await, Machine::new());
    node.outlet(service().await, None).await;
    let other = stranger.create("n2").await;
    let (transport, _) = project_routes(&node.status.tcp_listener_address, "x").unwrap();
    let route = transport.replace("/service/x/service/api", "/secure/api/service/outlet");
    let inlet = other.inlet("i", &route, 5000).await;
    assert_eq!(ask(&inlet.bind_addr).await.as_deref(), Some("HELLO"));

    machine
        .home
        .database()
        .unwrap()
        .put_project(&hub.project, true)
        .unwrap();
    let closed = async { while ask(&inlet.bind_addr).await.is_some() {} };
    tokio::time::timeout(PATIENCE, closed).await.unwrap();
    let status: NodeStatus = node.client.get(path::NODE).await.unwrap();
    assert_eq!(status.project.as_deref(), Some("test"));
    node.stop().await;
    // Nor is it opened again by forgetting the project.
    machine.home.database().unwrap().delete_project("test").unwrap();
    let node = Machine::start(machine.home.node_folder("n1").unwrap()).await;
    let status: NodeStatus = node.client.get(path::NODE).await.unwrap();
    assert_eq!(status.project, None);
    let outlet: Vec<OutletStatus> = node.client.get(path::TCP_OUTLETS).await.unwrap();
    let policy = outlet[0].policy.as_deref();
    assert_eq!(policy, Some("(= subject.has_credential true)"));
    node.stop().await;
    other.stop().await;
    hub.node.stop().await;
}

impl RunningNode {
    async fn until(&self, what: &str, holds: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let waiting = async {
            loop {
                let status: NodeStatus = self.client.get(path::NODE).await.unwrap();
                if holds(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect(what)
    }
}

#[tokio::test]
async fn a_start_needs_no_authority_while_the_credential_of_the_last_time_is_valid() {
    let hub = Hub::start().await;
    let machine = Machine::enrolled(&hub, &[]).await;
    let node = machine.create("n1").await;
    node.until("it gets a credential", |status| {
        status.credential_expires_at.is_some()
    })
    .await;
    node.stop().await;
    hub.node.stop().await;
    let node = Machine::start(machine.home.node_folder("n1").unwrap()).await;
    node.until("it has the credential of the last time", |status| {
        status.credential_expires_at.is_some() && status.credential_failure.is_none()
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn a_credential_that_the_home_cannot_keep_is_presented_all_the_same() {
    let hub = Hub::start().await;
    let machine = Machine::enrolled(&hub, &[]).await;
    // Neither to be read nor to be written, as on a disk that is full.
    let home = machine.folder.path().join("home/home.sqlite3");
    let home = rusqlite::Connection::open(home).unwrap();
    home.execute_batch("DROP TABLE credential").unwrap();
    let node = machine.create("n1").await;
    node.until("it gets a credential", |status| {
        status.credential_expires_at.is_some() && status.credential_failure.is_none()
    })
    .await;
    node.stop().await;
    hub.node.stop().await;
}

#[tokio::test]
async fn whoever_is_no_member_is_told_so_and_gets_a_credential_once_it_is_one() {
    let hub = Hub::start().await;
    let machine = Machine::new();
    machine
        .home
        .database()
        .unwrap()
        .put_project(&hub.project, true)
        .unwrap();
    let node = machine.create("n1").await;
    let refused = node
        .until("it is refused", |status| status.credential_failure.is_some())
        .await;
    assert!(
        refused
            .credential_failure
            .unwrap()
            .contains("unauthorized member")
    );
    let route = "/project/test/service/forward_to_db/secure/api/service/outlet";
    let inlet = node.inlet("i", route, 1000).await;
    assert_eq!(inlet.status, ConnectionStatus::Down);
    assert!(inlet.last_failure.unwrap().contains("no credential"));
    let admin = hub.machine.caller(&hub.project);
    remote::add_member(&admin, &machine.identifier(), &BTreeMap::new())
        .await
        .unwrap();
    node.until("it gets a credential", |status| {
        status.credential_expires_at.is_some()
    })
    .await;
    node.stop().await;
    hub.node.stop().await;
}

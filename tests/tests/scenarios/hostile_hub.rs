//! A hub that is hostile: it relays as it should, reads along, drops, repeats, changes and swaps messages, and presents
//! itself as somebody else. What it gets is a closed channel.
//!
//! It is built of the product's own libraries, so that everything up to the attack is as a member expects it. It has not the
//! authority's key: who has that decides who is a member (see `docs/security.md`).

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use portolan::identity::{
    Identity, KeyType, MemoryAttributeRepository, MemoryIdentityRepository, MemoryPurposeKeyRepository,
    SoftwareVault,
};
use portolan::portal::{Inlet, InletOptions, Outlet, OutletOptions};
use portolan::relay::protocol::{RelayRequest, SERVICE, STATIC_SERVICE};
use portolan::runtime::services::Echo;
use portolan::runtime::{
    AccessControl, Address, Body, Context, MailboxOptions, Message, Node, Payload, Result, Route, Routed,
    Worker, WorkerOptions, route,
};
use portolan::secure_channel::{
    ChannelOptions, ListenerOptions, LocalIdentity, SecureChannelListener, SecureChannels,
};
use portolan::tcp::{TcpListener, TcpOptions, TcpTransport};
use portolan_tests::service::{ask, check_pattern, connect, echoes, end_of, pattern_bytes};
use portolan_tests::{Member, Project, Service, eventually};
use tokio::sync::oneshot;

/// What the hub does to the next message towards a target that is large enough to be data, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    Drop,
    Repeat,
    Flip,
    /// Sends it to the other target.
    Divert,
}

/// Messages with this many bytes carry data.
const DATA: usize = 8_000;

#[derive(Default)]
struct State {
    attack: Mutex<Option<Attack>>,
    attacks: AtomicU64,
    /// All payloads that went by.
    seen: Mutex<Vec<u8>>,
    /// The routes to the targets, by the names that they registered.
    targets: Mutex<HashMap<String, Route>>,
    /// Who asks for one target gets the other.
    swapped: AtomicBool,
    /// Who asks for a target gets the hub itself.
    impersonating: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn target(&self, name: &str) -> Option<Route> {
        let targets = lock(&self.targets);
        if !self.swapped.load(Ordering::SeqCst) {
            return targets.get(name).cloned();
        }
        let other = targets.iter().find(|(other, _)| *other != name);
        other.map(|(_, route)| route.clone())
    }

    /// Does to a message what was asked for; how often it is then sent.
    fn attack(&self, message: &mut Message) -> u32 {
        lock(&self.seen).extend_from_slice(message.payload.as_slice());
        if message.payload.len() < DATA {
            return 1;
        }
        let Some(next) = message.onward.next().cloned() else {
            return 1;
        };
        let (mut to_a_target, mut other) = (false, None);
        for route in lock(&self.targets).values() {
            match route.next() {
                Some(first) if *first == next => to_a_target = true,
                first => other = first.cloned(),
            }
        }
        if !to_a_target {
            return 1;
        }
        let Some(attack) = lock(&self.attack).take() else {
            return 1;
        };
        self.attacks.fetch_add(1, Ordering::SeqCst);
        match attack {
            Attack::Drop => return 0,
            Attack::Repeat => return 2,
            Attack::Flip => {
                let mut bytes = message.payload.as_slice().to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
                message.payload = Payload::from(bytes);
            }
            Attack::Divert => {
                message.onward.step();
                message.onward.prepend(other.expect("there is another target"));
            }
        }
        1
    }
}

/// A worker that also gets the records of channels between others.
fn looking_into(address: &Address) -> WorkerOptions {
    WorkerOptions::with_mailbox(
        MailboxOptions::new(address)
            .incoming(AccessControl::AllowAll)
            .outgoing(AccessControl::AllowAll)
            .opens_records(),
    )
}

/// The address through which everything behind a relay goes, in both directions.
const MIDDLE: &str = "middle";

/// Makes relays.
struct Registrar {
    state: Arc<State>,
    reachable: Reachable,
}

/// From where the hub's workers can be reached.
#[derive(Clone)]
struct Reachable {
    tcp: TcpListener,
    channels: SecureChannelListener,
}

impl Reachable {
    fn add(&self, node: &Node, address: &Address) {
        node.add_consumer(self.tcp.flow(), address);
        self.channels.add_consumer(address);
    }
}

impl Worker for Registrar {
    type Message = Payload;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<Payload>) -> Result<()> {
        let Ok(RelayRequest::Named(name)) = RelayRequest::decode(message.payload()) else {
            return Ok(());
        };
        let answers = message.return_route().clone();
        let mut forward = answers.clone();
        if forward.len() > 1 {
            forward.pop();
        }
        lock(&self.state.targets).insert(name.as_str().to_owned(), forward);
        let address = name.address();
        if !ctx.node().has_worker(&address) {
            let relay = Relay {
                name: name.as_str().to_owned(),
                state: Arc::clone(&self.state),
            };
            ctx.node().start_worker(looking_into(&address), relay)?;
            self.reachable.add(ctx.node(), &address);
        }
        let acceptance = name.remote_address().encode();
        ctx.send_message(Message::new(&answers, &address, acceptance))
            .await
    }
}

/// Sends the first message to a target, and all others through the middle.
struct Relay {
    name: String,
    state: Arc<State>,
}

impl Worker for Relay {
    type Message = Payload;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<Payload>) -> Result<()> {
        let mut message = message.into_message();
        message.onward.step();
        if !self.state.impersonating.load(Ordering::SeqCst) {
            let Some(target) = self.state.target(&self.name) else {
                return Ok(());
            };
            message.onward.prepend_route(&target);
        }
        message.back.prepend(Address::local(MIDDLE));
        self.state.attack(&mut message);
        ctx.send_message(message).await
    }
}

/// Everything after the first message goes through here.
struct Middle {
    state: Arc<State>,
}

impl Worker for Middle {
    type Message = Payload;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<Payload>) -> Result<()> {
        let mut message = message.into_message();
        if let Some(own) = message.onward.step() {
            message.back.prepend(own);
        }
        for _ in 0..self.state.attack(&mut message) {
            ctx.send_message(message.clone()).await?;
        }
        Ok(())
    }
}

/// A running hub.
struct Hub {
    address: SocketAddr,
    state: Arc<State>,
    /// Where it hopes that those end up who take it for the target.
    trap: Service,
    /// Through which it tries to use the outlet of a target itself: name of the target, where its inlet listens then.
    tries: tokio::sync::mpsc::Sender<(String, mpsc::SyncSender<SocketAddr>)>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Hub {
    fn start() -> Self {
        let state: Arc<State> = Arc::default();
        let trap = Service::echo();
        let (stop, stopped) = oneshot::channel();
        let (started, address) = mpsc::sync_channel(1);
        let (tries, wanted) = tokio::sync::mpsc::channel(4);
        let (shared, target) = (Arc::clone(&state), trap.address.to_string());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made");
            runtime.block_on(serve(shared, target, started, wanted, stopped));
        });
        Self {
            address: address
                .recv_timeout(Duration::from_secs(20))
                .expect("the hub starts"),
            state,
            trap,
            tries,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Uses the outlet of a target as if the hub were a client: where to connect.
    fn inlet_of_its_own(&self, target: &str) -> SocketAddr {
        let (answer, address) = mpsc::sync_channel(1);
        self.tries
            .blocking_send((target.to_owned(), answer))
            .expect("the hub runs");
        address
            .recv_timeout(Duration::from_secs(20))
            .expect("the hub has a channel to the target")
    }

    fn attacks_once(&self, attack: Attack) {
        *lock(&self.state.attack) = Some(attack);
    }

    fn has_seen(&self, bytes: &[u8]) -> bool {
        lock(&self.state.seen)
            .windows(bytes.len())
            .any(|window| window == bytes)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn somebody() -> LocalIdentity {
    let vault = Arc::new(SoftwareVault::in_memory());
    let identity = Identity::create(vault.as_ref(), portolan::state::now(), KeyType::Ed25519)
        .expect("an identity can be made");
    LocalIdentity::new(identity, vault, Arc::new(MemoryPurposeKeyRepository::default()))
}

async fn serve(
    state: Arc<State>,
    trap: String,
    started: mpsc::SyncSender<SocketAddr>,
    mut wanted: tokio::sync::mpsc::Receiver<(String, mpsc::SyncSender<SocketAddr>)>,
    stopped: oneshot::Receiver<()>,
) {
    let node = Node::new().expect("a node can be made");
    let me = somebody();
    let channels = SecureChannels::new(
        &node,
        Arc::new(MemoryIdentityRepository::default()),
        Arc::new(MemoryAttributeRepository::default()),
    );
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let listener = tcp.listen("127.0.0.1:0").await.expect("a port is free");
    let api = channels
        .listen("api", ListenerOptions::new(ChannelOptions::new(me.clone())))
        .expect("the address is free");
    api.accept_from(listener.flow());
    let reachable = Reachable {
        tcp: listener.clone(),
        channels: api,
    };
    let outlet = Outlet::start(&node, "outlet", &trap, OutletOptions::default()).expect("an outlet");
    for service in [SERVICE, STATIC_SERVICE] {
        let registrar = Registrar {
            state: Arc::clone(&state),
            reachable: reachable.clone(),
        };
        node.start_worker(service, registrar)
            .expect("the address is free");
        reachable.add(&node, &service.into());
    }
    let middle = Middle {
        state: Arc::clone(&state),
    };
    node.start_worker(looking_into(&MIDDLE.into()), middle)
        .expect("the address is free");
    if !node.has_worker(&"echo".into()) {
        node.start_sync_worker("echo", Echo).expect("the address is free");
    }
    for address in [&MIDDLE.into(), &"echo".into(), &"api".into(), outlet.address()] {
        reachable.add(&node, address);
    }
    started.send(listener.local()).expect("the test waits");
    let attempts = async {
        let mut kept = Vec::new();
        while let Some((target, answer)) = wanted.recv().await {
            let route = lock(&state.targets)
                .get(&target)
                .cloned()
                .expect("it has registered");
            let mut api = route.clone();
            api.push("api".into());
            let channel = channels
                .create(api, ChannelOptions::new(me.clone()))
                .await
                .expect("anybody may open a channel");
            let inlet = Inlet::start(&node, "127.0.0.1:0", InletOptions::default())
                .await
                .expect("a port is free");
            inlet.connect(route![channel.address(), "outlet"]);
            answer.send(inlet.local()).expect("the test waits");
            kept.push((channel, inlet));
        }
    };
    tokio::select! {
        () = attempts => {}
        _ = stopped => {}
    }
    node.stop().await;
}

/// Bank and another company behind the hub, and analysis, which wants the bank. All are members of an honest project.
struct Stage {
    hub: Hub,
    bank: Member,
    other: Member,
    analysis: Member,
    service: Service,
    others_service: Service,
    /// How analysis reaches what is behind the hub.
    way: String,
    _project: Project,
}

impl Stage {
    /// `by`: what stands between the hub's address and its services, `/secure/api` or nothing.
    fn set(by: &str) -> Self {
        let project = Project::start();
        let hub = Hub::start();
        let way = format!("/ip4/127.0.0.1/tcp/{}{by}", hub.address.port());
        let (service, others_service) = (Service::echo(), Service::echo());
        let company = |name: &str, role: &str, service: &Service| {
            let member = project.member(name, &["--attribute", role]);
            member.home.ok([
                "tcp-outlet",
                "create",
                "--to",
                &service.address.to_string(),
                "--allow",
                r#"(= subject.role "client")"#,
            ]);
            member.home.ok(["relay", "create", name, "--at", &way]);
            member.relay_is_up(name);
            member
        };
        let bank = company("bank", "role=service", &service);
        let other = company("other", "role=other", &others_service);
        let analysis = project.member("analysis", &["--attribute", "role=client"]);
        Self {
            hub,
            bank,
            other,
            analysis,
            service,
            others_service,
            way,
            _project: project,
        }
    }

    /// An inlet of analysis that asks the hub for the bank's outlet, with these arguments.
    fn inlet(&self, name: &str, arguments: &[&str]) -> SocketAddr {
        let to = format!("{}/service/forward_to_bank/secure/api/service/outlet", self.way);
        let line = ["--to", &to, "--allow", r#"(= subject.role "service")"#];
        let line: Vec<&str> = line.into_iter().chain(arguments.iter().copied()).collect();
        self.analysis.inlet(name, &line)
    }

    fn inlet_that_is_up(&self) -> SocketAddr {
        let inlet = self.inlet("inlet", &[]);
        self.analysis.inlet_is_up("inlet");
        assert!(echoes(inlet));
        inlet
    }
}

const CANARY: &[u8] = b"canary 2d77 in the rows of the bank";

/// Nobody gets an answer through this inlet, and nothing that a client says reaches the hub's trap or the other company.
fn leads_nowhere(stage: &Stage, inlet: SocketAddr, what: &str) {
    let mut client = connect(inlet);
    let _ = client.write_all(CANARY);
    let mut byte = [0];
    client
        .set_read_timeout(Some(Duration::from_secs(15)))
        .expect("a limit can be set");
    match client.read(&mut byte) {
        Ok(0) => {}
        Ok(_) => panic!("{what}: somebody answered"),
        Err(error) => assert!(
            error.kind() == std::io::ErrorKind::ConnectionReset,
            "{what}: the client is left hanging: {error}"
        ),
    }
    assert_eq!(stage.hub.trap.accepted(), 0, "{what}: the hub's trap was reached");
    assert_eq!(
        stage.others_service.accepted(),
        0,
        "{what}: the other company was reached"
    );
    assert!(!stage.hub.has_seen(CANARY), "{what}: plaintext at the hub");
}

#[test]
fn a_hub_that_looks_at_every_message_reads_nothing() {
    for by in ["", "/secure/api"] {
        let stage = Stage::set(by);
        let mut client = connect(stage.inlet_that_is_up());
        for _ in 0..20 {
            assert_eq!(ask(&mut client, CANARY).unwrap(), CANARY);
        }
        let large = pattern_bytes(0, 200_000);
        assert_eq!(ask(&mut client, &large).unwrap(), large);
        let seen = lock(&stage.hub.state.seen).len();
        assert!(
            seen > 400_000,
            "the traffic did not go through the hub: {seen} bytes"
        );
        for what in [CANARY, &CANARY[..16], &large[..251]] {
            assert!(!stage.hub.has_seen(what), "plaintext at the hub");
        }
    }
}

#[test]
fn a_hub_that_drops_repeats_changes_or_diverts_a_message_makes_no_wrong_byte() {
    let stage = Stage::set("/secure/api");
    let inlet = stage.inlet_that_is_up();
    for (done, attack) in (1..).zip([Attack::Drop, Attack::Repeat, Attack::Flip, Attack::Divert]) {
        eventually("the portal carries", Duration::from_secs(45), || echoes(inlet));
        const TOTAL: usize = 2_000_000;
        let mut client = connect(inlet);
        let mut writer = client.try_clone().unwrap();
        stage.hub.attacks_once(attack);
        let sender = thread::spawn(move || {
            for offset in (0..TOTAL).step_by(20_000) {
                if writer.write_all(&pattern_bytes(offset as u64, 20_000)).is_err() {
                    return false;
                }
            }
            true
        });
        let (mut offset, mut buffer) = (0, vec![0; 64 * 1024]);
        let ended = loop {
            match client.read(&mut buffer) {
                Ok(0) => break "a clean end",
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break "a reset",
                Err(error) => panic!("{attack:?}: after {offset} bytes: {error}"),
                Ok(n) => {
                    let wrong = check_pattern(offset as u64, &buffer[..n]);
                    assert_eq!(wrong, Ok(()), "{attack:?}: a wrong byte was delivered");
                    offset += n;
                }
            }
            if offset == TOTAL {
                break "all";
            }
        };
        assert_eq!(
            stage.hub.state.attacks.load(Ordering::SeqCst),
            done,
            "{attack:?} did not take place"
        );
        drop(client);
        // The system tells of a reset once, to whoever asks first.
        let reset = !sender.join().unwrap() || ended == "a reset";
        // A repetition does no harm; every other attack must be seen as an error by the application.
        let right = reset || (attack == Attack::Repeat && ended == "all");
        assert!(right, "{attack:?}: {ended} after {offset} bytes");
    }
    assert_eq!(stage.others_service.accepted(), 0);
    eventually("the portal carries again", Duration::from_secs(45), || {
        echoes(inlet)
    });
}

#[test]
fn a_hub_that_swaps_two_relays_or_answers_itself_leads_clients_nowhere() {
    let stage = Stage::set("/secure/api");
    let bank = stage.bank.home.json(["node", "show", "bank"])["identifier"]
        .as_str()
        .expect("a node has an identifier")
        .to_owned();
    let attributes = ["--connection-wait", "1s"];
    let identity = ["--connection-wait", "1s", "--authorized", &bank];
    stage.hub.state.swapped.store(true, Ordering::SeqCst);
    leads_nowhere(&stage, stage.inlet("swapped", &attributes), "swapped relays");
    leads_nowhere(
        &stage,
        stage.inlet("swapped-named", &identity),
        "swapped relays, identity named",
    );
    stage.hub.state.swapped.store(false, Ordering::SeqCst);

    stage.hub.state.impersonating.store(true, Ordering::SeqCst);
    leads_nowhere(&stage, stage.inlet("hub", &attributes), "the hub itself");
    leads_nowhere(
        &stage,
        stage.inlet("hub-named", &identity),
        "the hub itself, identity named",
    );
    stage.hub.state.impersonating.store(false, Ordering::SeqCst);
    for (inlet, why) in [
        ("swapped", "denies"),
        ("swapped-named", "not accepted"),
        ("hub", "denies"),
        ("hub-named", "not accepted"),
    ] {
        let shown = stage.analysis.show_inlet(inlet);
        let reason = shown["last_failure"].as_str().unwrap_or_default();
        assert!(reason.contains(why), "no reason is shown: {shown}");
    }
    // The honest way still works, and nobody took part in the others.
    let honest = stage.inlet("honest", &identity);
    eventually("the honest way carries", Duration::from_secs(20), || {
        echoes(honest)
    });
    assert_eq!(stage.other.home.json(["tcp-outlet", "show"])["connections"], 0);
}

#[test]
fn a_hub_that_plays_the_client_is_refused_by_the_targets_outlet() {
    let stage = Stage::set("/secure/api");
    for _ in 0..2 {
        let mut client = connect(stage.hub.inlet_of_its_own("bank"));
        let _ = client.write_all(b"select * from accounts");
        assert!(end_of(&mut client, Duration::from_secs(10)).is_closed());
    }
    assert_eq!(stage.service.accepted(), 0, "the hub reached the bank's service");
    let shown = stage.bank.home.ok(["tcp-outlet", "show", "--output", "plain"]);
    assert!(
        shown.contains("denies") && shown.contains("no valid credential"),
        "{shown}"
    );
}

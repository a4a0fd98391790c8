//! Two parties that want a channel, and what stands between them.
#![allow(dead_code)] // Each test binary uses its part.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portolan_identity::{
    Attributes, CredentialAndPurposeKey, Identifier, Identity, KeyType, MemoryAttributeRepository,
    MemoryIdentityRepository, MemoryPurposeKeyRepository, MemorySecretStore, SoftwareVault,
};
use portolan_runtime::services::{Echo, Hop};
use portolan_runtime::{Address, Context, Envelope, Message, Node, Payload, Route, Routed, SyncWorker};
use portolan_secure_channel::{
    ChannelOptions, ListenerOptions, LocalIdentity, SecureChannelListener, SecureChannels,
};
use portolan_tcp::{TcpConnection, TcpListener, TcpOptions, TcpTransport};

pub(crate) fn now() -> u64 {
    portolan_runtime::environment::system_time()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// An identity with a vault of its own.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) vault: Arc<SoftwareVault>,
    pub(crate) purpose_keys: Arc<MemoryPurposeKeyRepository>,
    pub(crate) identity: Identity,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let vault = Arc::new(SoftwareVault::new(MemorySecretStore::default()));
        let identity = Identity::create(vault.as_ref(), now() - 10, KeyType::Ed25519).unwrap();
        Self {
            vault,
            purpose_keys: Arc::default(),
            identity,
        }
    }

    pub(crate) fn local(&self) -> LocalIdentity {
        LocalIdentity::new(
            self.identity.clone(),
            self.vault.clone(),
            self.purpose_keys.clone(),
        )
    }

    /// A credential about somebody, with one attribute.
    pub(crate) fn issue(&self, subject: &Identifier, name: &str, value: &str) -> CredentialAndPurposeKey {
        CredentialAndPurposeKey::issue(
            self.vault.as_ref(),
            self.purpose_keys.as_ref(),
            &self.identity,
            subject,
            None,
            Attributes::new().with(name, value).unwrap(),
            now(),
            3600,
        )
        .unwrap()
    }
}

/// A node with an identity.
pub(crate) struct Party {
    pub(crate) node: Node,
    pub(crate) keys: Keys,
    pub(crate) identities: Arc<MemoryIdentityRepository>,
    pub(crate) attributes: Arc<MemoryAttributeRepository>,
    pub(crate) channels: SecureChannels,
}

impl Party {
    pub(crate) fn new() -> Self {
        let node = Node::builder().arbiters(2).build().unwrap();
        Self::on(&node)
    }

    pub(crate) fn on(node: &Node) -> Self {
        let identities = Arc::new(MemoryIdentityRepository::default());
        let attributes = Arc::new(MemoryAttributeRepository::default());
        let channels = SecureChannels::new(node, identities.clone(), attributes.clone());
        Self {
            node: node.clone(),
            keys: Keys::new(),
            identities,
            attributes,
            channels,
        }
    }

    pub(crate) fn id(&self) -> &Identifier {
        self.keys.identity.identifier()
    }

    pub(crate) fn options(&self) -> ChannelOptions {
        ChannelOptions::new(self.keys.local()).timeout(Duration::from_secs(10))
    }

    pub(crate) fn listen(&self) -> SecureChannelListener {
        self.listen_with(ListenerOptions::new(self.options()))
    }

    /// A listener at `api` whose channels reach `echo`.
    pub(crate) fn listen_with(&self, options: ListenerOptions) -> SecureChannelListener {
        let listener = self.channels.listen("api", options).unwrap();
        if !self.node.has_worker(&"echo".into()) {
            self.node.start_sync_worker("echo", Echo).unwrap();
        }
        listener.add_consumer(&"echo".into());
        listener
    }
}

/// Two nodes and a TCP connection between them: `a` connected to `b`, which listens for channels at `api`.
pub(crate) struct Pair {
    pub(crate) a: Party,
    pub(crate) b: Party,
    pub(crate) tcp_a: TcpTransport,
    pub(crate) tcp_b: TcpTransport,
    pub(crate) listening: TcpListener,
    pub(crate) connection: TcpConnection,
    pub(crate) listener: SecureChannelListener,
}

impl Pair {
    pub(crate) async fn new() -> Self {
        let b = Party::new();
        let options = ListenerOptions::new(b.options());
        Self::with(Party::new(), b, options).await
    }

    pub(crate) async fn with(a: Party, b: Party, options: ListenerOptions) -> Self {
        let tcp_a = TcpTransport::new(&a.node, TcpOptions::default());
        let tcp_b = TcpTransport::new(&b.node, TcpOptions::default());
        let listening = tcp_b.listen("127.0.0.1:0").await.unwrap();
        let listener = b.listen_with(options);
        listener.accept_from(listening.flow());
        let connection = tcp_a.connect(&listening.local().to_string()).await.unwrap();
        Self {
            a,
            b,
            tcp_a,
            tcp_b,
            listening,
            connection,
            listener,
        }
    }

    pub(crate) fn route(&self) -> Route {
        [self.connection.sender().clone(), "api".into()].into()
    }

    pub(crate) async fn stop(self) {
        self.a.node.stop().await;
        self.b.node.stop().await;
    }
}

/// Asks the echo service along a route.
pub(crate) async fn echo(node: &Node, route: impl Into<Route>, text: &str) -> Option<String> {
    let answer: Result<Routed<String>, _> = node
        .send_and_receive_within(Duration::from_secs(2), route, text.to_owned())
        .await;
    answer.ok().map(|answer| answer.into_body().unwrap())
}

pub(crate) fn through(channel: &Address, rest: &[&str]) -> Route {
    std::iter::once(channel.clone())
        .chain(rest.iter().map(|hop| Address::from(*hop)))
        .collect()
}

/// Waits for what must happen soon.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not within 5 s: {what}");
}

type Tamper = Box<dyn FnMut(Message) -> Vec<Message> + Send>;

/// A hop that does to messages what an attacker on the path can do.
#[derive(Clone, Default)]
pub(crate) struct Meddler {
    /// What passed, as it arrived.
    pub(crate) seen: Arc<Mutex<Vec<Message>>>,
    tamper: Arc<Mutex<Option<Tamper>>>,
}

impl Meddler {
    pub(crate) fn start(node: &Node, address: &str) -> Self {
        let meddler = Self::default();
        node.start_sync_worker(address, meddler.clone()).unwrap();
        meddler
    }

    /// From now on each message is replaced by these.
    pub(crate) fn tamper(&self, tamper: impl FnMut(Message) -> Vec<Message> + Send + 'static) {
        *self.tamper.lock() = Some(Box::new(tamper));
    }

    pub(crate) fn behave(&self) {
        *self.tamper.lock() = None;
    }

    pub(crate) fn seen(&self) -> usize {
        self.seen.lock().len()
    }
}

impl SyncWorker for Meddler {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> portolan_runtime::Result<()> {
        let mut message = envelope.message;
        self.seen.lock().push(message.clone());
        message.onward.step();
        message.back.prepend(ctx.address().clone());
        let messages = match self.tamper.lock().as_mut() {
            Some(tamper) => tamper(message),
            None => vec![message],
        };
        for message in messages {
            let _ = ctx.forward(message);
        }
        Ok(())
    }
}

pub(crate) fn start_hop(node: &Node, address: &str) {
    node.start_sync_worker(address, Hop).unwrap();
}

/// Collects what it is sent, with the peer that it came from.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    pub(crate) received: Arc<Mutex<Vec<Message>>>,
}

impl Collector {
    pub(crate) fn start(node: &Node, address: &str) -> Self {
        let collector = Self::default();
        node.start_sync_worker(address, collector.clone()).unwrap();
        collector
    }

    pub(crate) fn len(&self) -> usize {
        self.received.lock().len()
    }
}

impl SyncWorker for Collector {
    fn handle(&mut self, _: &mut Context, envelope: Envelope) -> portolan_runtime::Result<()> {
        self.received.lock().push(envelope.message);
        Ok(())
    }
}

pub(crate) fn message(onward: impl Into<Route>, payload: &[u8]) -> Message {
    Message::new(onward, Route::new(), Payload::copy_from(payload))
}

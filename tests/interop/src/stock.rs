//! Nodes of the reference, in this process.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ockam::identity::models::{CredentialAndPurposeKey, CredentialSchemaIdentifier};
use ockam::identity::utils::AttributesBuilder;
use ockam::identity::{Identifier, SecureChannel, SecureChannelListenerOptions, SecureChannelOptions};
use ockam::remote::{RemoteRelayInfo, RemoteRelayOptions};
use ockam::tcp::{TcpConnection, TcpConnectionOptions, TcpListener, TcpListenerOptions, TcpTransport};
use ockam::{
    Any, Context, Executor, LocalMessage, MessageSendReceiveOptions, Node, NodeBuilder, Result, Route,
    Routed, Worker, route,
};
use ockam::{RelayService, RelayServiceOptions};
use ockam_core::flow_control::FlowControlId;
use ockam_core::{Address, AllowAll, NeutralMessage, SecureChannelLocalInfo};
use tokio::time::timeout;

use crate::runtime;

/// What a plain peer or a channel may reach.
pub const SERVICES: [&str; 4] = ["echo", "uppercase", "hop", "inbox"];

/// One stock node, with its services started and nothing reachable yet.
pub struct Stock {
    /// The node.
    pub node: Node,
    /// Its TCP.
    pub tcp: Arc<TcpTransport>,
    /// Its identity.
    pub identifier: Identifier,
    /// What reached its `inbox`.
    pub inbox: Inbox,
    /// The flow controls of its TCP listeners.
    pub flows: Mutex<Vec<FlowControlId>>,
    _executor: Executor,
}

/// One message that reached an inbox: its payload, and the identifier of the peer at the other end of the channel.
pub type Received = (Vec<u8>, Option<String>);

/// A worker that remembers what reached it.
#[derive(Clone, Default)]
pub struct Inbox(Arc<Mutex<Vec<Received>>>);

impl Inbox {
    /// What it has so far.
    pub fn received(&self) -> Vec<Received> {
        self.0.lock().expect("nobody panics with it").clone()
    }
}

struct Echo;
struct Uppercase;
struct Hop;

#[ockam::worker]
impl Worker for Echo {
    type Context = Context;
    type Message = Any;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<Any>) -> Result<()> {
        let message = message.into_local_message();
        ctx.send(message.return_route, NeutralMessage::from(message.payload))
            .await
    }
}

#[ockam::worker]
impl Worker for Uppercase {
    type Context = Context;
    type Message = String;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<String>) -> Result<()> {
        let back = message.return_route().clone();
        ctx.send(back, message.into_body()?.to_uppercase()).await
    }
}

#[ockam::worker]
impl Worker for Hop {
    type Context = Context;
    type Message = Any;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<Any>) -> Result<()> {
        let own = ctx.primary_address().clone();
        ctx.forward(message.into_local_message().step_forward(own)?).await
    }
}

#[ockam::worker]
impl Worker for Inbox {
    type Context = Context;
    type Message = Any;

    async fn handle_message(&mut self, _ctx: &mut Context, message: Routed<Any>) -> Result<()> {
        let message = message.into_local_message();
        let peer = SecureChannelLocalInfo::find_info(&message)
            .ok()
            .map(|info| Identifier::from(info.their_identifier()).to_string());
        self.0
            .lock()
            .expect("nobody panics with it")
            .push((message.payload, peer));
        Ok(())
    }
}

impl Stock {
    /// Starts one.
    pub async fn start() -> Self {
        let (ctx, executor) = NodeBuilder::new()
            .no_logging()
            .no_exit_on_panic()
            .with_runtime(runtime())
            .build();
        let tcp = TcpTransport::get_or_create(&ctx).expect("a node has TCP");
        let node = ockam::node(ctx).await.expect("a node can be made");
        let inbox = Inbox::default();
        node.start_worker("echo", Echo).expect("the address is free");
        node.start_worker("uppercase", Uppercase)
            .expect("the address is free");
        node.start_worker("hop", Hop).expect("the address is free");
        node.start_worker("inbox", inbox.clone())
            .expect("the address is free");
        let identifier = node.create_identity().await.expect("an identity can be made");
        Self {
            node,
            tcp,
            identifier,
            inbox,
            flows: Mutex::default(),
            _executor: executor,
        }
    }

    /// Listens on a free port; the services are reachable there.
    pub async fn listen(&self) -> TcpListener {
        self.listen_at("127.0.0.1:0").await
    }

    /// As [`Stock::listen`], at an address.
    pub async fn listen_at(&self, at: &str) -> TcpListener {
        let listener = self
            .tcp
            .listen(at, TcpListenerOptions::new())
            .await
            .expect("a port is free");
        self.admit(listener.flow_control_id());
        self.flows
            .lock()
            .expect("nobody panics with it")
            .push(listener.flow_control_id().clone());
        listener
    }

    /// A further listener, whose connections reach the channel listener at `api` too.
    pub async fn listen_more(&self) -> String {
        let listener = self.listen().await;
        self.reachable("api");
        listener.socket_string()
    }

    /// Connects; the services are reachable from there.
    pub async fn connect(&self, to: &str) -> TcpConnection {
        let connection = self
            .tcp
            .connect(to, TcpConnectionOptions::new())
            .await
            .expect("somebody listens there");
        self.admit(connection.flow_control_id());
        connection
    }

    /// Makes the services reachable for what this flow control is about.
    pub fn admit(&self, flow: &FlowControlId) {
        for service in SERVICES {
            self.node.flow_controls().add_consumer(&service.into(), flow);
        }
    }

    /// Makes one worker reachable over the TCP listeners.
    pub fn reachable(&self, address: &str) {
        for flow in self.flows.lock().expect("nobody panics with it").iter() {
            self.node.flow_controls().add_consumer(&address.into(), flow);
        }
    }

    /// Accepts secure channels at `api`, over every TCP listener that there is; the services are reachable through them.
    pub fn accept(&self, options: SecureChannelListenerOptions) {
        self.accept_as(&self.identifier, options);
    }

    /// As [`Stock::accept`], as another of the node's identities.
    pub fn accept_as(&self, identifier: &Identifier, options: SecureChannelListenerOptions) {
        let flows = self.flows.lock().expect("nobody panics with it").clone();
        let options = flows
            .iter()
            .fold(options, |options, flow| options.as_consumer(flow));
        self.admit(&options.spawner_flow_control_id());
        self.node
            .create_secure_channel_listener(identifier, "api", options)
            .expect("the address is free");
    }

    /// Starts a relay service: reachable, like its relays, over every TCP listener that there is and for `more`.
    pub fn serve_relays(&self, more: &[FlowControlId]) {
        let mut flows = self.flows.lock().expect("nobody panics with it").clone();
        flows.extend_from_slice(more);
        let options = flows.iter().fold(RelayServiceOptions::new(), |options, flow| {
            options.service_as_consumer(flow).relay_as_consumer(flow)
        });
        let options = options.prefix("forward_to_").alias("static_forwarding_service");
        RelayService::create(self.node.context(), "forwarding_service", options)
            .expect("the addresses are free");
    }

    /// Registers as a relay target; `route` leads to the relay node.
    pub async fn register(&self, route: Route, name: &str) -> Result<RemoteRelayInfo> {
        self.node
            .create_static_relay(route, name, RemoteRelayOptions::new())
            .await
    }

    /// Opens a secure channel; the services are reachable through it.
    pub async fn channel(&self, route: Route, options: SecureChannelOptions) -> Result<SecureChannel> {
        let channel = self
            .node
            .create_secure_channel(&self.identifier, route, options)
            .await?;
        self.admit(channel.flow_control_id());
        Ok(channel)
    }

    /// Sends a payload as it is and gives the payload of the answer.
    pub async fn ask(&self, route: Route, payload: &[u8]) -> Result<Vec<u8>> {
        self.ask_within(route, payload, Duration::from_secs(10)).await
    }

    /// As [`Stock::ask`], with a limit.
    pub async fn ask_within(&self, route: Route, payload: &[u8], limit: Duration) -> Result<Vec<u8>> {
        let message = NeutralMessage::from(payload.to_vec());
        let options = MessageSendReceiveOptions::new().with_timeout(limit);
        let answer = self
            .node
            .send_and_receive_extended::<NeutralMessage>(route, message, options)
            .await?;
        Ok(answer.into_payload())
    }

    /// Whether nothing comes back within a second and a half.
    pub async fn hears_nothing(&self, route: Route, payload: &[u8]) -> bool {
        self.ask_within(route, payload, Duration::from_millis(1500))
            .await
            .is_err()
    }

    /// Sends `count` numbered messages of `size` bytes and takes their echoes: how many came, how many of them were not the
    /// next one expected, byte for byte.
    pub async fn storm(&self, route: Route, flow: &FlowControlId, count: u64, size: usize) -> (u64, u64) {
        let address = Address::random_local();
        let sender = self.detached(Address::random_local());
        let mut receiver = self.detached(address.clone());
        self.node.flow_controls().add_consumer(&address, flow);
        let sending = async {
            for number in 0..count {
                let message = LocalMessage::new()
                    .with_onward_route(route.clone())
                    .with_return_route(route![address.clone()])
                    .with_payload(numbered(number, size));
                if sender.forward(message).await.is_err() {
                    break;
                }
            }
        };
        let receiving = async {
            let (mut received, mut wrong) = (0, 0);
            while received < count {
                let Ok(Ok(answer)) =
                    timeout(Duration::from_secs(10), receiver.receive::<NeutralMessage>()).await
                else {
                    break;
                };
                wrong += u64::from(answer.into_payload() != numbered(received, size));
                received += 1;
            }
            (received, wrong)
        };
        tokio::join!(sending, receiving).1
    }

    /// A context of its own.
    pub fn detached(&self, address: Address) -> Context {
        self.node
            .context()
            .new_detached(address, AllowAll, AllowAll)
            .expect("the address is free")
    }

    /// The change history of one of its identities, in hexadecimal.
    pub async fn history_of(&self, identifier: &Identifier) -> String {
        hex::encode(
            self.node
                .identities()
                .export_identity(identifier)
                .await
                .expect("it is its own"),
        )
    }

    /// The change history of its identity, in hexadecimal.
    pub async fn history(&self) -> String {
        self.history_of(&self.identifier).await
    }

    /// Takes over an identity that it shall know, for instance of an authority.
    pub async fn import(&self, history: &str) -> Identifier {
        self.node
            .import_identity_hex(None, history)
            .await
            .expect("the history verifies")
    }

    /// A credential by its identity, in hexadecimal. The subject's history must be known to it.
    pub async fn issue(
        &self,
        subject: &Identifier,
        name: &str,
        value: &str,
        ttl: Duration,
    ) -> CredentialAndPurposeKey {
        let attributes = AttributesBuilder::with_schema(CredentialSchemaIdentifier(1))
            .with_attribute(name.as_bytes().to_vec(), value.as_bytes().to_vec())
            .build();
        self.node
            .credentials()
            .credentials_creation()
            .issue_credential(&self.identifier, subject, attributes, ttl)
            .await
            .expect("it knows the subject")
    }

    /// What `authority` said of `peer`, as this node learned it.
    pub async fn attribute(&self, peer: &Identifier, authority: &Identifier, name: &str) -> Option<String> {
        let known = self
            .node
            .identities_attributes()
            .get_attributes(peer, authority)
            .await
            .ok()??;
        let value = known.attrs().get(name.as_bytes())?;
        Some(String::from_utf8_lossy(value).into_owned())
    }
}

/// What the `number`-th message of a storm carries.
fn numbered(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(size.max(8), number as u8);
    bytes
}

/// A local address, as a peer of ours prints it (`0#…`), for a route of a stock node.
pub fn local(address: &str) -> Address {
    address.strip_prefix("0#").unwrap_or(address).into()
}

/// A stock node in a process of its own.
pub struct StockProcess {
    child: std::process::Child,
    /// Where it listens.
    pub address: String,
    /// Its identifier.
    pub identifier: String,
}

impl StockProcess {
    /// Starts one: the binary `stock-node` of this package, listening at an address whose port is not 0.
    pub fn start(binary: &str, address: &str) -> Self {
        use std::io::BufRead;
        let mut child = std::process::Command::new(binary)
            .arg(address)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("it can be started");
        let mut line = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().expect("it has an output"));
        output.read_line(&mut line).expect("it says who it is");
        Self {
            child,
            address: address.to_owned(),
            identifier: line.trim().to_owned(),
        }
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for StockProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

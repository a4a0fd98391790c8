//! The running node: its life, its workers, its messages.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portolan_identity::Identifier;
use portolan_policy::ResourceType;
use portolan_runtime::{AccessControl, Body, Node as Runtime, Route, Routed, WorkerOptions};
use tokio::sync::watch;

use super::{AUTHORITY_TIMEOUT, NodeBuilder, Step, local, take_steps};
use crate::control::api::{
    NodeStatus, RelayStatus, StartWorker, StartedWorker, WorkerStatus, WorkerTypeStatus,
};
use crate::engine::{self, Guard, Issuer, OpenPath, Running, remote, runtime_error};
use crate::error::{Error, Result};
use crate::multiaddr::MultiAddr;
use crate::state::Home;
use crate::worker_types::{Tally, WorkerTypes};

/// How long [`Node::ask`] waits for everything that stands in a route, and for the answer.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(30);

/// A running node. Cheap to clone, usable from any thread; it stops when the last clone is dropped, or by [`stop`](Self::stop).
///
/// The functions are grouped as the commands of the command line are; `docs/library/commands.md` says which is which.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    running: Arc<Running>,
    /// The node's own thread: what waits, waits there, whatever runtime the caller has.
    handle: tokio::runtime::Handle,
    ended: watch::Receiver<Option<Result<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.running.ask_to_stop();
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.name())
    }
}

/// Who waits for a node. Told once, by whoever knows first.
type Waiting = Arc<Mutex<Option<Box<dyn FnOnce(Result<Node>) + Send>>>>;

/// Assemble a node on a thread of its own. `tell` gets it, or why there is none.
pub(super) fn start(builder: NodeBuilder, tell: impl FnOnce(Result<Node>) + Send + 'static) -> Result<()> {
    let waiting: Waiting = Arc::new(Mutex::new(Some(Box::new(tell))));
    std::thread::Builder::new()
        .name("portolan-owner".into())
        .spawn(move || own(builder, &waiting))
        .map_err(|error| Error::failed(format!("the node's thread cannot be started: {error}")))?;
    Ok(())
}

fn tell(waiting: &Waiting, started: Result<Node>) {
    let tell = waiting.lock().take();
    if let Some(tell) = tell {
        tell(started);
    }
}

/// The life of a node, on its own thread.
fn own(builder: NodeBuilder, waiting: &Waiting) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(
                waiting,
                Err(Error::failed(format!("the node cannot start: {error}"))),
            );
            return;
        }
    };
    let (ending, ended) = watch::channel(None);
    let result = runtime.block_on(live(builder, waiting, runtime.handle().clone(), ended));
    // Threads that still look up a name do not hold up the end.
    runtime.shutdown_background();
    if let Err(error) = &result {
        tell(waiting, Err(error.clone()));
    }
    ending.send_replace(Some(result));
}

async fn live(
    mut builder: NodeBuilder,
    waiting: &Waiting,
    handle: tokio::runtime::Handle,
    ended: watch::Receiver<Option<Result<()>>>,
) -> Result<()> {
    let home = builder.open_home()?;
    let opened = builder.open(&home).await?;
    let steps = std::mem::take(&mut builder.steps).into_iter();
    let steps = steps.filter(|step| !opened.restored || matches!(step, Step::Worker(_)));
    let steps: Vec<Step> = steps.collect();
    let (settings, project) = (builder.settings.clone(), opened.project);
    let types = std::mem::replace(&mut builder.types, WorkerTypes::built_in());
    let result = async {
        let control = match builder.control_socket {
            Some(false) => None,
            _ => Some(opened.node.control_listener()?),
        };
        let running = Running::start(opened.node, types, &settings).await?;
        let administrator = project.as_ref().map(|project| project.caller(AUTHORITY_TIMEOUT));
        let ready = |running: &Arc<Running>| {
            let running = Arc::clone(running);
            async move {
                if let Some(administrator) = administrator {
                    remote::fetch_credential(&administrator).await?;
                }
                take_steps(&running, steps).await?;
                let node = Node {
                    inner: Arc::new(Inner {
                        running,
                        handle,
                        ended,
                    }),
                };
                tell(waiting, Ok(node));
                Ok(())
            }
        };
        let node = Arc::clone(&running);
        let result = engine::run_assembled(running, control, ready, std::future::pending()).await;
        node.node.release();
        result
    }
    .await;
    if result.is_err()
        && waiting.lock().is_some()
        && let Some(project) = &project
    {
        project.undo();
    }
    result
}

/// Who may reach a worker from outside of the node, apart from what its own rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Whoever has a secure channel to this node: the sender is known by its identifier.
    Channels,
    /// Whoever can connect, also without a secure channel.
    Everybody,
}

/// The rules of a worker that a policy protects. What it sends is its own affair: it may need other workers of the node.
pub(super) fn protected(running: &Running, address: &str) -> WorkerOptions {
    let core = &running.core;
    let guard = Guard::policy(&core.policies, ResourceType::Worker, address, Issuer::OfNode);
    WorkerOptions::new(local(address))
        .incoming(guard.against_outside(core.node(), Arc::new(Tally::default())))
        .outgoing(AccessControl::AllowAll)
}

/// A relay that was asked for in a builder and that will never be.
pub(super) fn relay_up(status: RelayStatus) -> Result<()> {
    if status.refused {
        let why = status
            .last_failure
            .unwrap_or_else(|| "no reason was given".into());
        return Err(Error::refused(format!(
            "the relay `{}` was refused: {why}",
            status.name
        )));
    }
    Ok(())
}

/// How a route is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteOptions {
    /// The local name of the identity for channels on the way. Default: the node's.
    pub identity: Option<String>,
    /// Identifiers, `I…`, of which the last channel's other end must be one. Default: any, or what the project says.
    pub authorized: Vec<String>,
    /// Limit for all of it. Default: 30 s.
    pub timeout: Duration,
}

impl Default for RouteOptions {
    fn default() -> Self {
        Self {
            identity: None,
            authorized: Vec::new(),
            timeout: ASK_TIMEOUT,
        }
    }
}

/// A route to another node, and the connection and channels that were opened for it. When it is dropped, they are closed.
pub struct OpenRoute {
    path: OpenPath,
    node: Node,
}

impl std::fmt::Debug for OpenRoute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenRoute({})", self.path.route())
    }
}

impl OpenRoute {
    /// The route, for messages: what is sent along it begins at the opened connection or channel.
    pub fn route(&self) -> &Route {
        self.path.route()
    }

    /// Who is at the other end, if the route ends in a secure channel.
    pub fn peer(&self) -> Option<Identifier> {
        self.path.channel().map(|channel| *channel.peer())
    }

    /// Send a body along the route and wait for the answer, 30 s at most.
    ///
    /// # Errors
    ///
    /// When a part of the route is gone, a rule refuses the message, there is no answer, or the answer is no `A`.
    pub async fn ask<Q: Body, A: Body>(&self, body: Q) -> Result<A> {
        let route = self.route().clone();
        let node = self.node.runtime().clone();
        self.node
            .on(move |_| async move { receive(&node, ASK_TIMEOUT, route, body).await })
            .await
    }

    /// Resolves when a part of the route has ended, and says which.
    pub fn lost(&self) -> impl Future<Output = String> + Send + 'static {
        self.path.lost()
    }
}

async fn receive<Q: Body, A: Body>(node: &Runtime, limit: Duration, route: Route, body: Q) -> Result<A> {
    let answer: Routed<A> = node
        .send_and_receive_within(limit, route, body)
        .await
        .map_err(|error| match &error {
            portolan_runtime::Error::Timeout { .. } => Error::timeout(error.to_string())
                .hint("check the route; a worker that refuses a message does not answer"),
            _ => runtime_error(error),
        })?;
    answer
        .into_body()
        .map_err(|error| Error::failed(format!("the answer cannot be read: {error}")))
}

/// What a node is made of is said to a [`NodeBuilder`].
impl Node {
    /// How to make a node.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    pub(super) fn running(&self) -> &Arc<Running> {
        &self.inner.running
    }

    /// Do something on the node's own thread, and wait for it, on whatever runtime the caller has.
    pub(super) async fn on<T, F>(&self, work: impl FnOnce(Arc<Running>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let work = work(Arc::clone(&self.inner.running));
        match self.inner.handle.spawn(work).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => Err(Error::failed(format!(
                "a fault in the node `{}` has ended what was asked for: {error}",
                self.name()
            ))),
            Err(_) => Err(self.has_stopped()),
        }
    }

    fn has_stopped(&self) -> Error {
        Error::unreachable(format!("the node `{}` has stopped", self.name()))
    }
}

/// Its life.
impl Node {
    /// Its name in its home.
    pub fn name(&self) -> &str {
        self.running().node.name()
    }

    /// The home that it keeps its state in.
    pub fn home(&self) -> &Home {
        self.running().node.home()
    }

    /// What it is and what it has, all at once.
    pub fn status(&self) -> NodeStatus {
        self.running().status()
    }

    /// Who it is: its identity's identifier, the same for as long as the identity lives.
    pub fn identifier(&self) -> Identifier {
        *self.running().core.own().identity.identifier()
    }

    /// The change history of its identity in hex: what others need in order to verify what it has signed.
    ///
    /// # Errors
    ///
    /// When the home cannot be read.
    pub fn identity_history(&self) -> Result<String> {
        let own = &self.running().core.own().record.name;
        Ok(hex::encode(self.home().identity(own)?.history))
    }

    /// Where it listens for other nodes, `ip:port` as bound.
    pub fn address(&self) -> String {
        self.running().status().tcp_listener_address
    }

    /// Stop it: portals, then channels, then connections, within two seconds. When this returns all of it has ended.
    ///
    /// # Errors
    ///
    /// What went wrong while it ran, if it ended by itself.
    pub async fn stop(&self) -> Result<()> {
        self.running().ask_to_stop();
        self.stopped().await
    }

    /// As [`stop`](Self::stop), for synchronous programs.
    ///
    /// # Errors
    ///
    /// As [`stop`](Self::stop).
    pub fn stop_blocking(&self) -> Result<()> {
        self.running().ask_to_stop();
        let node = self.clone();
        let (send, stopped) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("portolan-stop".into())
            .spawn(move || {
                if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() {
                    let _ = send.send(runtime.block_on(node.stopped()));
                }
            })
            .map_err(|error| Error::failed(format!("a thread cannot be started: {error}")))?;
        stopped
            .recv()
            .unwrap_or_else(|_| Err(Error::failed("the end of the node cannot be waited for")))
    }

    /// Resolves when the node has ended: stopped by [`stop`](Self::stop), over its control socket, or by a failure.
    ///
    /// # Errors
    ///
    /// What ended it, if it was not asked to.
    pub async fn stopped(&self) -> Result<()> {
        let mut ended = self.inner.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(_) => Ok(()),
        }
    }

    /// Run a future on the node's own thread and wait for it: for synchronous programs.
    ///
    /// ```
    /// # use portolan::{Node, Result};
    /// fn main() -> Result<()> {
    ///     let node = Node::builder().start_blocking()?;
    ///     let asker = node.clone();
    ///     let answer = node.block_on(async move {
    ///         asker.ask::<String, String>("/service/uppercase", "hello".into()).await
    ///     })??;
    ///     assert_eq!(answer, "HELLO");
    ///     node.stop_blocking()
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// When the node stops before the future is done, or the future panics.
    pub fn block_on<F>(&self, future: F) -> Result<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        self.inner.handle.spawn(async move {
            let _ = send.send(future.await);
        });
        receive.recv().map_err(|_| self.has_stopped())
    }
}

/// Its workers and their messages.
impl Node {
    /// The runtime underneath: workers are started with it, and messages sent along routes of addresses.
    pub fn runtime(&self) -> &Runtime {
        self.running().core.node()
    }

    /// All workers, and what they are, where known.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        self.running().workers()
    }

    /// The worker types that the node knows by name.
    pub fn worker_types(&self) -> Vec<WorkerTypeStatus> {
        self.running().worker_types()
    }

    /// Start a worker of a type that the node knows by name, or of a plugin. It is written down, and is there again when the node is
    /// restored.
    ///
    /// # Errors
    ///
    /// When there is no such type or plugin, its configuration is wrong, its address is taken, or it cannot be initialized.
    pub async fn start_worker(&self, worker: StartWorker) -> Result<StartedWorker> {
        self.on(move |running| async move { running.start_worker(worker).await })
            .await
    }

    /// The workers that were started by name, and what they did.
    pub fn started_workers(&self) -> Vec<StartedWorker> {
        self.running().started_workers()
    }

    /// One worker that was started by name.
    ///
    /// # Errors
    ///
    /// When there is none at that address.
    pub fn started_worker(&self, address: &str) -> Result<StartedWorker> {
        self.running().started_worker(address)
    }

    /// Stop a worker that was started by name, and forget it; its own policy goes with it.
    ///
    /// # Errors
    ///
    /// When there is none at that address, or the state cannot be written.
    pub async fn stop_worker(&self, address: &str) -> Result<()> {
        let address = address.to_owned();
        self.on(move |running| async move { running.stop_worker(&address).await })
            .await
    }

    /// Let others reach a worker. Without this, nothing that comes from outside reaches it. The worker's own rules count as well.
    pub fn make_reachable(&self, address: &str, reach: Reach) {
        self.running().make_reachable(address, reach == Reach::Everybody);
    }

    /// Options for a worker that a policy protects: of those who come from outside, only peers get to it that the policy of the
    /// resource `address` lets in, or else that of the type `worker`; without either, nobody. The node's own workers reach it anyway.
    pub fn protected(&self, address: &str) -> WorkerOptions {
        protected(self.running(), address)
    }

    /// Send a body along a route, open what stands in it, and wait for the answer; 30 s at most. For several messages
    /// [`connect`](Self::connect) is cheaper: it opens the route once.
    ///
    /// Routes are written as for the command line: `/service/echo` is here, `/node/n2/service/echo` at another node of the same home,
    /// `/ip4/192.0.2.1/tcp/4000/secure/api/service/echo` through a secure channel to the node at that address, and
    /// `/project/default/service/forward_to_db/secure/api/service/echo` behind a relay of the project.
    ///
    /// # Errors
    ///
    /// When the route makes no sense or leads nowhere, a rule refuses the message, there is no answer, or the answer is no `A`.
    pub async fn ask<Q: Body, A: Body>(&self, route: &str, body: Q) -> Result<A> {
        self.ask_within(ASK_TIMEOUT, route, body).await
    }

    /// As [`ask`](Self::ask), with a limit of the caller's.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub async fn ask_within<Q: Body, A: Body>(&self, limit: Duration, route: &str, body: Q) -> Result<A> {
        let route = MultiAddr::from_argument(route)?;
        let options = RouteOptions {
            timeout: limit,
            ..RouteOptions::default()
        };
        let said = route.to_string();
        let asking = async move |running: &Running| {
            let path = open(running, &route, &options).await?;
            if path.route().is_empty() {
                return Err(Error::invalid("the route leads nowhere"));
            }
            receive(running.core.node(), limit, path.route().clone(), body).await
        };
        self.on(move |running| async move {
            tokio::time::timeout(limit, asking(&running))
                .await
                .unwrap_or_else(|_| {
                    Err(
                        Error::timeout(format!("no answer from {said} within {} s", limit.as_secs_f32()))
                            .hint("check the route; a worker that refuses a message does not answer"),
                    )
                })
        })
        .await
    }

    /// Open a route to another node: the connection and the channels that stand in it.
    ///
    /// # Errors
    ///
    /// When something does not answer, answers as somebody else, or the route makes no sense. What was opened by then is closed.
    pub async fn connect(&self, route: &str) -> Result<OpenRoute> {
        self.connect_with(route, RouteOptions::default()).await
    }

    /// As [`connect`](Self::connect), with options.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_with(&self, route: &str, options: RouteOptions) -> Result<OpenRoute> {
        let route = MultiAddr::from_argument(route)?;
        let path = self
            .on(move |running| async move { open(&running, &route, &options).await })
            .await?;
        Ok(OpenRoute {
            path,
            node: self.clone(),
        })
    }
}

async fn open(running: &Running, route: &MultiAddr, options: &RouteOptions) -> Result<OpenPath> {
    running.adopt_project();
    let authorized = engine::identifiers(&options.authorized)?;
    let core = &running.core;
    let appearance = core
        .appearance(route, options.identity.as_deref(), &authorized, options.timeout)
        .await?;
    core.connector.connect(route, &appearance).await
}

//! A whole node as a value: assembled from parts, run in this process, and asked with functions.
//!
//! [`NodeBuilder`] says what a node is made of: where its keys are kept, what it is called, where it listens, which project it
//! belongs to, which workers, policies, relays and portals it has. [`NodeBuilder::start`] gives a [`Node`], which can do whatever
//! the command line can do, and more: your own workers live in it.
//!
//! ```
//! use portolan::{Node, Result};
//! use portolan::runtime::services::Echo;
//!
//! #[tokio::main]
//! async fn main() -> Result<()> {
//!     let node = Node::builder().start().await?;
//!     node.runtime().start_sync_worker("parrot", Echo)?;
//!     let answer: String = node.ask("/service/parrot", "hello".to_owned()).await?;
//!     assert_eq!(answer, "hello");
//!     node.stop().await
//! }
//! ```
//!
//! # What is kept where
//!
//! | built with | secret keys | what the node should be | members of a project that it serves |
//! |---|---|---|---|
//! | nothing said | in memory | in a folder of its own in the system's temporary folder, mode 0700, removed with the node | there too |
//! | [`folder`](NodeBuilder::folder) | in the folder's database, sealed if a [key](crate::state::HomeKey) is given | in the folder | in the folder |
//!
//! A node that is built anew forgets the relays, policies and portals that a stopped node of its name had;
//! [`restore`](NodeBuilder::restore) brings them back instead. Identities, projects and credentials belong to the folder and stay.
//!
//! # Threads
//!
//! A node brings its own: one that runs the node itself, and the arbiters, on which workers run. Its functions are `async` and can
//! be awaited on any runtime; a synchronous program uses [`NodeBuilder::start_blocking`] and [`Node::block_on`]. Nothing is shared
//! between two nodes of one process, nothing is printed, and nothing ends the process. What a node has to say, it says with
//! `tracing`. No environment variable is read, with one exception: where a folder is used, and no key was given for it,
//! `PORTOLAN_PASSPHRASE` and `PORTOLAN_KEY_FILE` open it as they do for the command line.
//!
//! | module | idea |
//! |---|---|
//! | `node` | the running node: its life, its workers, its messages |
//! | `operations` | relays, portals, policies, channels, connections |
//! | `membership` | projects, tickets, members, credentials, keys |
//! | `requests` | what operations are asked for, in short |

mod membership;
mod node;
mod operations;
mod requests;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portolan_identity::{CredentialAndPurposeKey, Identity};
use portolan_portal::Intercept;
use portolan_runtime::{Address, SyncWorker, Worker, WorkerOptions};
use serde::de::DeserializeOwned;

pub use node::{ASK_TIMEOUT, Node, OpenRoute, Reach, RouteOptions};

use crate::control::api::{
    AddPlugin, CreateInlet, CreateOutlet, CreateRelay, PolicyTarget, SetPolicy, StartWorker,
};
use crate::engine::{MAX_ARBITERS, Running, Settings, Trust, remote, runtime_error};
use crate::error::{Error, Result};
use crate::interceptors::InterceptorType;
use crate::project::{self, NewProject, ProjectOptions};
use crate::state::{Home, HomeKey, NodeFolder, NodeRole, NodeSpec, OpenNode, now};
use crate::worker_types::{Place as WorkerPlace, WorkerType, WorkerTypes};

/// Where a node listens for other nodes unless told otherwise: on the loopback interface, at a port that the system chooses.
pub const DEFAULT_LISTENER: &str = "127.0.0.1:0";
/// What a node is called unless told otherwise.
pub const DEFAULT_NAME: &str = "node";
/// How long joining a project may take.
pub const ENROLL_TIMEOUT: Duration = Duration::from_secs(240);
/// How long a conversation with an authority may take.
pub const AUTHORITY_TIMEOUT: Duration = Duration::from_secs(30);

/// Where keys and records are kept.
#[derive(Debug)]
enum Place {
    Memory,
    Folder(PathBuf),
    Home(Home),
}

type Begin = Box<dyn FnOnce(&Running) -> Result<()> + Send>;

/// What is done once the node runs, in the order in which it was said.
enum Step {
    Worker(Begin),
    Policy(SetPolicy),
    Outlet(CreateOutlet),
    Relay(CreateRelay),
    Inlet(CreateInlet),
    Start(StartWorker),
    Plugin(AddPlugin),
}

/// What a node is made of. Nothing happens before [`start`](Self::start).
///
/// ```
/// # use portolan::{Node, Result, api::{CreateOutlet, PolicyTarget}};
/// # #[tokio::main]
/// # async fn main() -> Result<()> {
/// let node = Node::builder()
///     .name("bank")
///     .policy(PolicyTarget::outlets(), "analyst")
///     .outlet(CreateOutlet::to("127.0.0.1:5432").at("postgres"))
///     .start()
///     .await?;
/// assert_eq!(node.outlet("postgres")?.to, "127.0.0.1:5432");
/// # node.stop().await
/// # }
/// ```
pub struct NodeBuilder {
    place: Place,
    key: Option<HomeKey>,
    name: Option<String>,
    identity: Option<String>,
    project: Option<String>,
    listen: Option<String>,
    ticket: Option<String>,
    serve: Option<ProjectOptions>,
    trust: Option<(String, Option<String>)>,
    settings: Settings,
    control_socket: Option<bool>,
    restore: bool,
    types: WorkerTypes,
    /// The first thing that was wrong.
    mistake: Option<Error>,
    steps: Vec<Step>,
}

impl Default for NodeBuilder {
    fn default() -> Self {
        Self {
            place: Place::Memory,
            key: None,
            name: None,
            identity: None,
            project: None,
            listen: None,
            ticket: None,
            serve: None,
            trust: None,
            settings: Settings::default(),
            control_socket: None,
            restore: false,
            types: WorkerTypes::built_in(),
            mistake: None,
            steps: Vec::new(),
        }
    }
}

impl std::fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("place", &self.place)
            .field("name", &self.name)
            .field("steps", &self.steps.len())
            .finish_non_exhaustive()
    }
}

/// Where keys and records are kept, and what the node is called.
impl NodeBuilder {
    /// Keep everything in this folder, made if it is not there. It is what `PORTOLAN_HOME` names for the command line, so commands
    /// see the node. Default: in memory, gone with the node.
    #[must_use]
    pub fn folder(mut self, path: impl Into<PathBuf>) -> Self {
        self.place = Place::Folder(path.into());
        self
    }

    /// As [`folder`](Self::folder), for a home that is there already. Several nodes of one process can share one.
    #[must_use]
    pub fn home(mut self, home: Home) -> Self {
        self.place = Place::Home(home);
        self
    }

    /// What opens the secret keys in the folder; if they are not sealed yet, this seals them.
    #[must_use]
    pub fn key(mut self, key: HomeKey) -> Self {
        self.key = Some(key);
        self
    }

    /// What the node is called in its folder. Default: [`DEFAULT_NAME`].
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The local name of the node's identity, made if it does not exist. Default: the home's default identity, made too.
    #[must_use]
    pub fn identity(mut self, name: impl Into<String>) -> Self {
        self.identity = Some(name.into());
        self
    }

    /// If there is a stopped node of this name, bring it back as it was, with its relays, policies and portals, instead of making
    /// it anew. Of what is said here only its workers count then, which are never kept.
    #[must_use]
    pub fn restore(mut self) -> Self {
        self.restore = true;
        self
    }

    /// Whether programs of the same user can manage the node over a Unix socket in its folder, as the command line does. Default:
    /// yes where a folder was given, no in memory.
    #[must_use]
    pub fn control_socket(mut self, wanted: bool) -> Self {
        self.control_socket = Some(wanted);
        self
    }
}

/// How others reach it, and how much it may take.
impl NodeBuilder {
    /// Where it listens for other nodes, `host:port`; port 0 lets the system choose. Default: [`DEFAULT_LISTENER`]. More listeners can be
    /// added with [`Node::create_tcp_listener`].
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// Threads that carry messages, 1 to 64. Default: one for every two cores.
    #[must_use]
    pub fn arbiters(mut self, count: usize) -> Self {
        self.settings.arbiters = Some(count);
        self
    }

    /// Bytes that all portal connections together may have on their way. Default: 256 MiB.
    #[must_use]
    pub fn portal_memory(mut self, bytes: u64) -> Self {
        self.settings.portal_memory = Some(bytes);
        self
    }

    /// Bytes that the plugins in all portal connections together may have. Default: 2 GiB.
    #[must_use]
    pub fn plugin_memory(mut self, bytes: u64) -> Self {
        self.settings.plugin_memory = Some(bytes);
        self
    }
}

/// Whom it belongs to.
impl NodeBuilder {
    /// Join the project of this ticket first. It can be used again by the same identity.
    #[must_use]
    pub fn ticket(mut self, ticket: impl Into<String>) -> Self {
        self.ticket = Some(ticket.into());
        self
    }

    /// The local name of the project that it belongs to. Default: the home's default project, also when that is joined later.
    #[must_use]
    pub fn project(mut self, name: impl Into<String>) -> Self {
        self.project = Some(name.into());
        self
    }

    /// Serve a project: be its authority and its relay service. The project is made if the home has none of that name; else its node
    /// is brought back. The node is called `project-NAME`.
    #[must_use]
    pub fn serve_project(mut self, options: ProjectOptions) -> Self {
        self.serve = Some(options);
        self
    }

    /// Believe the credentials of this authority, given by its change history in hex ([`Node::identity_history`]), without a project
    /// and without asking it for anything.
    #[must_use]
    pub fn authority(mut self, history: impl Into<String>) -> Self {
        let credential = self.trust.take().and_then(|(_, credential)| credential);
        self.trust = Some((history.into(), credential));
        self
    }

    /// Present this credential, in hex ([`Node::issue_credential`]), in every channel. It is about the node's identity, goes with an
    /// [`authority`](Self::authority), and is not renewed.
    #[must_use]
    pub fn credential(mut self, credential: impl Into<String>) -> Self {
        let authority = self.trust.take().map(|(authority, _)| authority);
        self.trust = Some((authority.unwrap_or_default(), Some(credential.into())));
        self
    }
}

/// What is in it. The order counts: policies before what they protect.
impl NodeBuilder {
    /// A worker. Only the node's other workers reach it, until [`Node::make_reachable`] or [`service`](Self::service) says otherwise.
    #[must_use]
    pub fn worker<W: Worker>(mut self, options: impl Into<WorkerOptions>, worker: W) -> Self {
        let options = options.into();
        self.steps.push(Step::Worker(Box::new(move |running| {
            running
                .core
                .node()
                .start_worker(options, worker)
                .map_err(runtime_error)?;
            Ok(())
        })));
        self
    }

    /// As [`worker`](Self::worker), for one that never waits.
    #[must_use]
    pub fn sync_worker<W: SyncWorker>(mut self, options: impl Into<WorkerOptions>, worker: W) -> Self {
        let options = options.into();
        self.steps.push(Step::Worker(Box::new(move |running| {
            running
                .core
                .node()
                .start_sync_worker(options, worker)
                .map_err(runtime_error)?;
            Ok(())
        })));
        self
    }

    /// A worker for others: reached through secure channels to this node, by peers that the policy lets in.
    #[must_use]
    pub fn service<W: Worker>(mut self, address: &str, policy: impl Into<String>, worker: W) -> Self {
        let address = address.to_owned();
        // First, so that there is no moment at which the worker is under another one.
        self = self.policy(PolicyTarget::resource(&address), policy);
        self.steps.push(Step::Worker(Box::new(move |running| {
            let options = node::protected(running, &address);
            running
                .core
                .node()
                .start_worker(options, worker)
                .map_err(runtime_error)?;
            running.make_reachable(&address, false);
            Ok(())
        })));
        self
    }

    /// A worker type with a name, beside those that every node has: [`start_worker`](Self::start_worker) and
    /// [`Node::start_worker`] start workers of it, and so does the command line where the node has a control socket. See
    /// [`WorkerType::new`] for what `start` does.
    #[must_use]
    pub fn worker_type<C, F>(mut self, name: &str, about: &str, start: F) -> Self
    where
        C: DeserializeOwned + 'static,
        F: Fn(C, WorkerPlace) -> Result<()> + Send + Sync + 'static,
    {
        let added = WorkerType::new(name, about, start).and_then(|new| self.types.add(new));
        if let Err(error) = added {
            self.mistake.get_or_insert(error);
        }
        self
    }

    /// An interceptor type with a name, for inlets and outlets of the node. See [`InterceptorType::new`] for what `make` does.
    #[must_use]
    pub fn interceptor<C, I, F>(mut self, name: &str, about: &str, make: F) -> Self
    where
        C: DeserializeOwned + 'static,
        I: Intercept + 'static,
        F: Fn(C) -> Result<I> + Send + Sync + 'static,
    {
        let added =
            InterceptorType::new(name, about, make).and_then(|new| self.types.interceptors_mut().add(new));
        if let Err(error) = added {
            self.mistake.get_or_insert(error);
        }
        self
    }

    /// A plugin: a WebAssembly component, for workers ([`StartWorker::of_plugin`]) or as an interceptor of the inlets and outlets that are
    /// said after it.
    #[must_use]
    pub fn plugin(mut self, plugin: AddPlugin) -> Self {
        self.steps.push(Step::Plugin(plugin));
        self
    }

    /// A worker of a type that the node knows by name, or of a plugin that was said before.
    #[must_use]
    pub fn start_worker(mut self, worker: StartWorker) -> Self {
        self.steps.push(Step::Start(worker));
        self
    }

    /// A policy.
    #[must_use]
    pub fn policy(mut self, target: PolicyTarget, expression: impl Into<String>) -> Self {
        self.steps.push(Step::Policy(SetPolicy {
            target,
            expression: expression.into(),
        }));
        self
    }

    /// An outlet: where a portal leads to.
    #[must_use]
    pub fn outlet(mut self, outlet: CreateOutlet) -> Self {
        self.steps.push(Step::Outlet(outlet));
        self
    }

    /// A relay that leads to this node.
    #[must_use]
    pub fn relay(mut self, relay: CreateRelay) -> Self {
        self.steps.push(Step::Relay(relay));
        self
    }

    /// An inlet: where applications enter a portal.
    #[must_use]
    pub fn inlet(mut self, inlet: CreateInlet) -> Self {
        self.steps.push(Step::Inlet(inlet));
        self
    }
}

impl NodeBuilder {
    /// Assemble the node and let it run. When this returns it listens, and everything that was asked for is there; relays and inlets
    /// may still be connecting, unless their requests say to wait. Can be awaited on any runtime.
    ///
    /// # Errors
    ///
    /// Whatever keeps a part from being there: a port in use, a ticket that is refused, a policy that cannot be read, a folder that
    /// cannot be written. The node is stopped then.
    pub async fn start(self) -> Result<Node> {
        let (send, started) = tokio::sync::oneshot::channel();
        node::start(self, move |started| {
            // Whoever does not wait any more drops the node with this, and so stops it.
            let _ = send.send(started);
        })?;
        started
            .await
            .unwrap_or_else(|_| Err(Error::failed("the node's thread ended before the node was ready")))
    }

    /// As [`start`](Self::start), for synchronous programs. It waits; do not call it from async code.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_blocking(self) -> Result<Node> {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        node::start(self, move |started| {
            let _ = send.send(started);
        })?;
        receive
            .recv()
            .unwrap_or_else(|_| Err(Error::failed("the node's thread ended before the node was ready")))
    }

    /// The home, with the key that was given.
    fn open_home(&mut self) -> Result<Home> {
        let home = match std::mem::replace(&mut self.place, Place::Memory) {
            Place::Memory => {
                self.control_socket.get_or_insert(false);
                Home::in_memory()?
            }
            Place::Folder(path) => Home::at(path)?,
            Place::Home(home) => home,
        };
        Ok(match self.key.take() {
            Some(key) => home.with_key(key),
            None => home,
        })
    }

    /// Write down what the node should be, join what it should join, and take its lock.
    async fn open(&mut self, home: &Home) -> Result<Opened> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        if let Some(count) = self.settings.arbiters
            && !(1..=MAX_ARBITERS).contains(&count)
        {
            return Err(Error::invalid(format!(
                "a node has 1 to {MAX_ARBITERS} arbiters, not {count}"
            )));
        }
        self.settings.trust = self.trust(home)?;
        if let Some(ticket) = self.ticket.take() {
            let ticket = remote::read_ticket(&ticket)?;
            project::join(home, &ticket, self.identity.as_deref(), ENROLL_TIMEOUT).await?;
        }
        if let Some(mut options) = self.serve.take() {
            if let Some(listen) = self.listen.take() {
                options.listen = listen;
            }
            let folder = home.node_folder(&project::node_name(&options.name))?;
            if folder.exists() {
                return Opened::again(&folder);
            }
            let (project, node) = project::create(home, &options)?;
            return Ok(Opened {
                node,
                project: Some(project),
                restored: false,
            });
        }
        let name = self.name.take().unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let folder = home.node_folder(&name)?;
        if self.restore && folder.exists() {
            return Opened::again(&folder);
        }
        let identity = match &self.identity {
            Some(name) => home.identity_or_new(name)?,
            None => home.acting_identity(None)?,
        };
        let project = match self.project.take() {
            Some(name) => Some(home.project(&name)?.name),
            None => None,
        };
        let node = folder.create(&NodeSpec {
            name,
            identity: identity.record.name,
            project,
            tcp_listener_address: self.listen.take().unwrap_or_else(|| DEFAULT_LISTENER.to_owned()),
            role: NodeRole::Node,
            created_at: now(),
        })?;
        Ok(Opened {
            node,
            project: None,
            restored: false,
        })
    }

    fn trust(&mut self, home: &Home) -> Result<Option<Trust>> {
        let Some((authority, credential)) = self.trust.take() else {
            return Ok(None);
        };
        if self.ticket.is_some() || self.project.is_some() || home.default_project()?.is_some() {
            return Err(Error::invalid(
                "an authority of its own is for a node without a project, and this one has one",
            )
            .hint("leave the authority out: the project's is believed"));
        }
        if authority.is_empty() {
            return Err(
                Error::invalid("a credential was given, and no authority to believe")
                    .hint("add NodeBuilder::authority with the authority's change history"),
            );
        }
        let authority = Identity::from_hex(authority.trim(), None)
            .map_err(|error| Error::invalid(format!("the authority's change history: {error}")))?;
        let credential = credential
            .map(|text| CredentialAndPurposeKey::from_hex(text.trim()))
            .transpose()
            .map_err(|error| Error::invalid(format!("the credential cannot be read: {error}")))?;
        Ok(Some(Trust {
            authority,
            credential,
        }))
    }
}

/// A node whose lock is held.
struct Opened {
    node: OpenNode,
    /// The project that was made for it.
    project: Option<NewProject>,
    /// It was there before, and has what it had.
    restored: bool,
}

impl Opened {
    fn again(folder: &NodeFolder) -> Result<Self> {
        Ok(Self {
            node: folder.open()?,
            project: None,
            restored: true,
        })
    }
}

/// Do what was asked for, in order.
async fn take_steps(running: &Arc<Running>, steps: Vec<Step>) -> Result<()> {
    for step in steps {
        match step {
            Step::Worker(start) => start(running)?,
            Step::Policy(policy) => drop(running.set_policy(&policy)?),
            Step::Outlet(outlet) => drop(running.create_outlet(outlet).await?),
            Step::Relay(relay) => node::relay_up(running.create_relay(relay).await?)?,
            Step::Inlet(inlet) => drop(running.create_inlet(inlet).await?),
            Step::Start(worker) => drop(running.start_worker(worker).await?),
            Step::Plugin(plugin) => drop(running.add_plugin(plugin).await?),
        }
    }
    Ok(())
}

/// A local address from a name, for those who have no runtime at hand.
fn local(name: &str) -> Address {
    Address::local(name)
}

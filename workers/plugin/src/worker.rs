//! A worker whose code is a plugin: started, watched, replaced.

use std::sync::Arc;

use portolan_runtime::{AccessControl, Address, MailboxOptions, Node, Placement, WorkerOptions};
use tokio::sync::{mpsc, oneshot};

use crate::component::Kind;
use crate::host::PeerAttributes;
use crate::log::Log;
use crate::rights::Reach;
use crate::status::Shared;
use crate::{Limits, MemoryStorage, Plugin, PluginError, Rights, Status, Storage, turn};

/// Commands that wait for a worker.
const COMMANDS: usize = 8;

/// Where and how a plugin is started.
#[derive(Clone)]
pub struct WorkerSettings {
    /// The address.
    pub address: Address,
    /// The configuration, as the plugin wants it: usually JSON. Default: empty.
    pub config: String,
    /// The rights that the owner grants. Default: none.
    pub rights: Rights,
    /// What it may use.
    pub limits: Limits,
    /// Where its keys and values are kept. Default: in memory.
    pub storage: Arc<dyn Storage>,
    /// Where the attributes of peers come from. Default: nobody has any.
    pub attributes: Option<Arc<dyn PeerAttributes>>,
    /// Who may send to it, beside what its rights say. Default: whoever flow control lets through.
    pub incoming: AccessControl,
    /// To whom it may send, beside what its rights say. Default: anybody.
    pub outgoing: AccessControl,
}

impl WorkerSettings {
    /// Settings for a plugin at this address, with no configuration and no right.
    pub fn new(address: impl Into<Address>) -> Self {
        Self {
            address: address.into(),
            config: String::new(),
            rights: Rights::none(),
            limits: Limits::default(),
            storage: Arc::new(MemoryStorage::default()),
            attributes: None,
            incoming: AccessControl::AllowAll,
            outgoing: AccessControl::AllowAll,
        }
    }

    /// The configuration.
    pub fn config(mut self, config: impl Into<String>) -> Self {
        self.config = config.into();
        self
    }

    /// The rights that the owner grants.
    pub fn rights(mut self, rights: Rights) -> Self {
        self.rights = rights;
        self
    }

    /// What it may use.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where its keys and values are kept.
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// Where the attributes of peers come from.
    pub fn attributes(mut self, attributes: Arc<dyn PeerAttributes>) -> Self {
        self.attributes = Some(attributes);
        self
    }

    /// Who may send to it, beside what its rights say.
    pub fn incoming(mut self, control: AccessControl) -> Self {
        self.incoming = control;
        self
    }

    /// To whom it may send, beside what its rights say.
    pub fn outgoing(mut self, control: AccessControl) -> Self {
        self.outgoing = control;
        self
    }
}

impl std::fmt::Debug for WorkerSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the configuration, in which there may be secrets.
        f.debug_struct("WorkerSettings")
            .field("address", &self.address)
            .field("rights", &self.rights)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What takes the place of a plugin.
#[derive(Debug)]
pub(crate) struct Replacement {
    pub(crate) plugin: Plugin,
    pub(crate) config: Option<String>,
    pub(crate) rights: Option<Rights>,
    pub(crate) done: oneshot::Sender<Result<(), PluginError>>,
}

/// A running worker whose code is a plugin: a handle, cheap to clone. The worker runs until it is stopped, by this handle or as every
/// worker of the node; dropping handles does nothing.
#[derive(Clone)]
pub struct PluginWorker {
    node: Node,
    address: Address,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Replacement>,
}

impl std::fmt::Debug for PluginWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginWorker")
            .field("address", &self.address)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl PluginWorker {
    /// Starts a plugin at an address of the node, and waits until its `start` has returned. It runs on one of the arbiters that
    /// [stand aside](Placement::Aside).
    ///
    /// # Errors
    /// If the plugin is no worker, rejects its configuration or fails in `start`, the address is taken, or the storage cannot be read.
    /// Then nothing is left at the address.
    pub async fn start(node: &Node, plugin: &Plugin, settings: WorkerSettings) -> Result<Self, PluginError> {
        plugin.require(Kind::Worker)?;
        let address = settings.address.clone();
        let log = Log::new(plugin.label(), address.to_string(), settings.limits.log_lines);
        let shared = Arc::new(Shared::new(plugin.clone(), settings.rights.clone(), log));
        let reach = AccessControl::rule(Reach(Arc::clone(&shared)));
        let mailbox = MailboxOptions::new(address.clone())
            .incoming(AccessControl::All([reach, settings.incoming.clone()].into()))
            .outgoing(settings.outgoing.clone());
        let options = WorkerOptions::with_mailbox(mailbox)
            .capacity(settings.limits.queue)
            .placement(Placement::Aside);
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (started, result) = oneshot::channel();
        let task = {
            let shared = Arc::clone(&shared);
            move |ctx| turn::run(ctx, shared, settings, receiver, started)
        };
        node.start_task(options, task)
            .map_err(|error| PluginError::Node(error.to_string()))?;
        result.await.map_err(|_| PluginError::Stopped)??;
        Ok(Self {
            node: node.clone(),
            address,
            shared,
            commands,
        })
    }

    /// The address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The plugin that it runs now.
    pub fn plugin(&self) -> Plugin {
        self.shared.plugin.read().clone()
    }

    /// The rights that it has now.
    pub fn rights(&self) -> Arc<Rights> {
        Arc::clone(&self.shared.rights.read())
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        self.shared.status(self.node.waiting_at(&self.address))
    }

    /// Waits until the status is as wanted. It is looked at whenever the state or the last error has changed.
    pub async fn until(&self, mut wanted: impl FnMut(&Status) -> bool) {
        self.shared.until(|| wanted(&self.status())).await;
    }

    /// Puts another plugin, or a new version, in its place; `None` keeps configuration or rights.
    ///
    /// The message in work is finished by the old instance. Then the new one is started, while messages wait; if it starts, it gets
    /// all that wait and that come, and the old one is stopped. No message is lost or handled twice. Timers end with the old
    /// instance; storage and status go on.
    ///
    /// # Errors
    /// If the plugin is no worker, rejects its configuration or fails in `start`. Then the old one goes on as if nothing had happened,
    /// except for what the new one wrote into the storage before it failed.
    pub async fn replace(
        &self,
        plugin: &Plugin,
        config: Option<String>,
        rights: Option<Rights>,
    ) -> Result<(), PluginError> {
        plugin.require(Kind::Worker)?;
        let (done, result) = oneshot::channel();
        let replacement = Replacement {
            plugin: plugin.clone(),
            config,
            rights,
            done,
        };
        self.commands
            .send(replacement)
            .await
            .map_err(|_| PluginError::Stopped)?;
        result.await.map_err(|_| PluginError::Stopped)?
    }

    /// Stops the worker: the message in work is finished if that takes no longer than a tenth of a second of computing, what waits is
    /// dropped, and the plugin's `stop` is called.
    pub async fn stop(&self) {
        // It may have been stopped already, and somebody else may be at the address by now.
        if self.shared.state() != crate::State::Stopped {
            let _ = self.node.stop_worker(&self.address);
        }
        self.shared
            .until(|| self.shared.state() == crate::State::Stopped)
            .await;
    }
}

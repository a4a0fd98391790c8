//! Workers that the owner started by name: started, restored, counted, stopped.
//!
//! What is stored is the type's name and the configuration as it was given. A worker that cannot be restored, because this program
//! does not know its type or the type refuses the configuration, is shown with the reason and tried again at the next start of the
//! node; the rest of the node does not mind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use portolan_policy::ResourceType;
use portolan_runtime::{AccessControl, Address, Delivery, Denial};

use super::guard::Guard;
use super::plugins::RunningPlugin;
use super::policies::{Issuer, checked};
use super::running::Running;
use crate::control::api::{PolicyTarget, StartWorker, StartedWorker, WorkerState, WorkerTypeStatus};
use crate::error::{Error, ErrorCode, Result};
use crate::state::{WorkerSpec, check_alias};
use crate::worker_types::{Phase, Place, Tally, WorkerTypes};

/// How long a command waits for a worker to be initialized. One that takes longer goes on by itself.
const INITIALIZE_LIMIT: Duration = Duration::from_secs(5);
/// How long a command waits for a worker to finish the message that it is handling.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long a node that starts waits for its plugins.
const RESTORE_LIMIT: Duration = Duration::from_secs(10);
/// The most workers that a node starts by name.
const MAX_STARTED: usize = 10_000;

/// A worker that the owner wants.
pub(super) struct Started {
    spec: WorkerSpec,
    /// What runs, or why it could not be started.
    running: Result<Handle>,
}

/// What runs.
#[derive(Clone)]
enum Handle {
    /// A plugin that is being loaded, which may take long where it has to be compiled anew.
    Loading,
    /// A worker of a type; what it did.
    Typed(Arc<Tally>),
    Plugin(Arc<RunningPlugin>),
}

/// All that the owner wants, and what can be had.
pub(super) struct StartedWorkers {
    types: WorkerTypes,
    workers: Mutex<BTreeMap<String, Started>>,
    /// One change at a time.
    pub(super) changing: tokio::sync::Mutex<()>,
    /// Addresses to which no hop leads.
    closed: Arc<RwLock<BTreeSet<Address>>>,
}

impl StartedWorkers {
    pub(super) fn new(types: WorkerTypes) -> Self {
        Self {
            types,
            workers: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            closed: Arc::default(),
        }
    }

    /// The types of this program.
    pub(super) fn types(&self) -> &WorkerTypes {
        &self.types
    }

    /// For whatever sends messages on for everybody: not to these workers.
    pub(super) fn closed_to_hops(&self) -> AccessControl {
        let closed = Arc::clone(&self.closed);
        AccessControl::rule(move |delivery: &Delivery<'_>| {
            if closed.read().contains(delivery.destination) {
                return Err(Denial(
                    "a hop does not lead to a worker that was started by name".into(),
                ));
            }
            Ok(())
        })
    }

    /// The workers that run plugins.
    #[cfg(feature = "plugins")]
    pub(super) fn plugin_workers(&self) -> Vec<Arc<RunningPlugin>> {
        let workers = self.workers.lock();
        let plugins = workers.values().filter_map(|started| match &started.running {
            Ok(Handle::Plugin(plugin)) => Some(Arc::clone(plugin)),
            _ => None,
        });
        plugins.collect()
    }
}

impl Running {
    /// The addresses of workers that are to run a plugin, whether they can or not.
    #[cfg(feature = "plugins")]
    pub(super) fn users_of_plugin(&self, name: &str) -> Vec<String> {
        let workers = self.started_workers.workers.lock();
        let users = workers
            .values()
            .filter(|started| started.spec.is_plugin && started.spec.kind == name);
        users.map(|started| started.spec.address.clone()).collect()
    }

    /// What can be started.
    pub(crate) fn worker_types(&self) -> Vec<WorkerTypeStatus> {
        let types = self.started_workers.types.iter();
        types
            .map(|known| WorkerTypeStatus {
                name: known.name().to_owned(),
                about: known.about().to_owned(),
            })
            .collect()
    }

    /// Put a worker or a plugin at its address.
    async fn open(self: &Arc<Self>, spec: &WorkerSpec) -> Result<Handle> {
        if !spec.is_plugin {
            return self.open_worker(spec).map(Handle::Typed);
        }
        let address = Address::local(&spec.address);
        self.started_workers.closed.write().insert(address.clone());
        match self.open_plugin_worker(spec).await {
            Ok(plugin) => {
                self.make_reachable(&spec.address, false);
                Ok(Handle::Plugin(Arc::new(plugin)))
            }
            Err(error) => {
                self.started_workers.closed.write().remove(&address);
                Err(error)
            }
        }
    }

    /// Put a worker at its address.
    fn open_worker(&self, spec: &WorkerSpec) -> Result<Arc<Tally>> {
        let worker_type = self.started_workers.types.known(&spec.kind).map_err(|error| {
            error.hint(format!(
                "start the node with the program that has it, or forget the worker: portolan worker stop {}",
                spec.address
            ))
        })?;
        let address = Address::local(&spec.address);
        let guard = Guard::policy(
            &self.core.policies,
            ResourceType::Worker,
            &spec.address,
            Issuer::OfNode,
        );
        let place = Place::new(
            self.core.node().clone(),
            address.clone(),
            self.node.folder().path().to_owned(),
        );
        let tally = Arc::clone(place.tally());
        let place = place.incoming(guard.against_outside(self.core.node(), Arc::clone(&tally)));
        self.started_workers.closed.write().insert(address.clone());
        let started = worker_type.start(&spec.config, place);
        if started.is_ok() && self.core.node().has_worker(&address) {
            // Through channels only, and there its policy decides.
            self.make_reachable(&spec.address, false);
            return Ok(tally);
        }
        self.started_workers.closed.write().remove(&address);
        match started {
            Err(error) => Err(error),
            // A type that starts nothing, or a worker that could not be initialized and is gone already.
            Ok(()) => Err(Error::failed(match tally.phase() {
                Phase::Failed(reason) => format!("the worker `{}` cannot start: {reason}", spec.address),
                _ => format!("the worker type `{}` started nothing", spec.kind),
            })),
        }
    }

    /// Take a worker away from its address, if it is there.
    async fn close_worker(&self, address: &str) {
        let local = Address::local(address);
        self.make_unreachable(address);
        let stopping = self.core.node().stop_worker_and_wait(&local);
        if tokio::time::timeout(STOP_LIMIT, stopping).await.is_err() {
            tracing::warn!(
                worker = address,
                "a worker does not finish its message; it was left to itself"
            );
        }
        self.started_workers.closed.write().remove(&local);
    }

    /// Bring back a stored worker.
    async fn restore_worker(self: &Arc<Self>, spec: WorkerSpec) {
        let spec_address = spec.address.clone();
        let running = self.open(&spec).await;
        if let Err(error) = &running {
            tracing::error!(
                worker = spec.address,
                r#type = spec.kind,
                "a stored worker cannot be started: {error}"
            );
        }
        let late = {
            let mut workers = self.started_workers.workers.lock();
            let was_stopped = spec.is_plugin && !workers.contains_key(&spec.address);
            if !was_stopped {
                workers.insert(spec.address.clone(), Started { spec, running });
                return;
            }
            running
        };
        // Its owner has stopped it while it was being loaded.
        if let Ok(Handle::Plugin(plugin)) = late {
            self.make_unreachable(&spec_address);
            plugin.stop().await;
        }
    }

    /// Start those workers of a plugin that could not be started before.
    #[cfg(feature = "plugins")]
    pub(super) async fn start_failed_workers_of(self: &Arc<Self>, plugin: &str) {
        let failed: Vec<WorkerSpec> = {
            let workers = self.started_workers.workers.lock();
            let failed = workers.values().filter(|started| {
                started.spec.is_plugin && started.spec.kind == plugin && started.running.is_err()
            });
            failed.map(|started| started.spec.clone()).collect()
        };
        for spec in failed {
            self.restore_worker(spec).await;
        }
    }

    /// Bring back stored workers. Plugins that have to be compiled anew do not keep the node from starting: they come when they are
    /// ready.
    pub(super) async fn restore_workers(self: &Arc<Self>, stored: Vec<WorkerSpec>) {
        let (plugins, typed): (Vec<_>, Vec<_>) = stored.into_iter().partition(|spec| spec.is_plugin);
        for spec in typed {
            self.restore_worker(spec).await;
        }
        if plugins.is_empty() {
            return;
        }
        {
            let mut workers = self.started_workers.workers.lock();
            for spec in &plugins {
                let loading = Started {
                    spec: spec.clone(),
                    running: Ok(Handle::Loading),
                };
                workers.insert(spec.address.clone(), loading);
            }
        }
        let node = Arc::clone(self);
        let all = tokio::spawn(async move {
            for spec in plugins {
                node.restore_worker(spec).await;
            }
        });
        let _ = tokio::time::timeout(RESTORE_LIMIT, all).await;
    }

    /// Have a worker from now on. Waits until it takes messages, or cannot.
    pub(crate) async fn start_worker(self: &Arc<Self>, request: StartWorker) -> Result<StartedWorker> {
        let _changing = self.started_workers.changing.lock().await;
        if request.is_plugin {
            self.known_plugin(&request.kind)?;
        } else if !request.grant.is_empty() {
            return Err(Error::invalid("rights are granted to plugins only"));
        } else {
            let kind = &request.kind;
            let known = self.started_workers.types.known(kind);
            known
                .map_err(|error| match self.known_plugin(kind) {
                    Ok(_) => error.hint(format!(
                        "a plugin is called so: portolan worker start --plugin {kind}"
                    )),
                    Err(_) => error,
                })?
                .check(&request.config)?;
        }
        let address = request.address.unwrap_or_else(|| request.kind.clone());
        check_alias("workers", &address)?;
        self.adopt_project();
        {
            let workers = self.started_workers.workers.lock();
            if let Some(other) = workers.get(&address) {
                return Err(Error::exists(format!(
                    "this node already has a worker at `{address}`, of type `{}`",
                    other.spec.kind
                ))
                .hint(format!(
                    "stop it first: portolan worker stop {address}, or give another --address"
                )));
            }
            if workers.len() >= MAX_STARTED {
                return Err(Error::failed(format!(
                    "this node has {MAX_STARTED} workers already"
                )));
            }
        }
        if self.core.node().has_worker(&Address::local(&address)) {
            return Err(Error::exists(format!(
                "the address `{address}` is in use by another worker of this node"
            ))
            .hint("give another --address"));
        }
        let target = PolicyTarget::Resource(address.clone());
        if let Some(expression) = &request.allow {
            checked(&target, expression)?;
        }
        let spec = WorkerSpec {
            address: address.clone(),
            kind: request.kind,
            config: request.config,
            is_plugin: request.is_plugin,
            rights: request.grant,
        };
        let database = self.node.database();
        let before = self.core.policies.get(&target);
        // The policy first: there must be no moment at which the worker is open under another one.
        if let Some(expression) = &request.allow {
            self.core.policies.set(database, &target, expression)?;
        }
        let started = async {
            database.put_worker(&spec)?;
            match self.open(&spec).await? {
                Handle::Typed(tally) => self.wait_for_worker(&address, tally).await.map(Handle::Typed),
                plugin => Ok(plugin),
            }
        };
        let running = started.await.inspect_err(|_| {
            let _ = database.delete_worker(&address);
            if request.allow.is_some() {
                let _ = self.core.policies.put_back(database, &target, before);
            }
        })?;
        tracing::info!(worker = address, r#type = spec.kind, "worker started");
        let started = Started {
            spec,
            running: Ok(running),
        };
        let status = self.started_status(&started);
        self.started_workers.workers.lock().insert(address, started);
        Ok(status)
    }

    /// Wait until a new worker takes messages. One that cannot is taken away again.
    async fn wait_for_worker(&self, address: &str, tally: Arc<Tally>) -> Result<Arc<Tally>> {
        let reason = match tokio::time::timeout(INITIALIZE_LIMIT, tally.settled()).await {
            Ok(Phase::Failed(reason)) => reason,
            Ok(Phase::Ended) => tally
                .last_failure()
                .unwrap_or_else(|| "it has ended at once".to_owned()),
            _ => return Ok(tally),
        };
        self.close_worker(address).await;
        Err(Error::failed(format!(
            "the worker `{address}` cannot start: {reason}"
        )))
    }

    fn started_status(&self, started: &Started) -> StartedWorker {
        let spec = &started.spec;
        let mut status = StartedWorker {
            address: spec.address.clone(),
            kind: spec.kind.clone(),
            is_plugin: spec.is_plugin,
            rights: spec.rights.clone(),
            config: spec.config.clone(),
            policy: self
                .core
                .policies
                .in_force(ResourceType::Worker, &spec.address, Issuer::OfNode),
            state: WorkerState::Running,
            problem: None,
            hint: None,
            handled: 0,
            failed: 0,
            refused: 0,
            waiting: 0,
            restarts: 0,
            memory: None,
            last_failure: None,
        };
        match &started.running {
            Err(error) => {
                status.state = WorkerState::Failed;
                status.problem = Some(error.message.clone());
                status.hint = error.hint.clone();
            }
            Ok(Handle::Loading) => status.state = WorkerState::Starting,
            Ok(Handle::Typed(tally)) => self.add_tally(&mut status, tally),
            Ok(Handle::Plugin(plugin)) => {
                let did = plugin.did();
                status.state = did.state;
                status.problem = did.problem;
                status.rights = plugin.rights();
                status.handled = did.handled;
                status.failed = did.failed;
                status.refused = did.refused;
                status.waiting = did.waiting;
                status.restarts = did.restarts;
                status.memory = Some(did.memory);
                status.last_failure = did.last_failure;
            }
        }
        if status.problem.is_some() && status.hint.is_none() {
            status.hint = Some(match status.state {
                WorkerState::Restarting => {
                    "the node starts it again by itself; portolan node logs says more".to_owned()
                }
                _ => format!(
                    "portolan worker stop {0}, then start it again; or start the node again",
                    spec.address
                ),
            });
        }
        status
    }

    fn add_tally(&self, status: &mut StartedWorker, tally: &Tally) {
        (status.state, status.problem) = match tally.phase() {
            Phase::Starting => (WorkerState::Starting, None),
            Phase::Running => (WorkerState::Running, None),
            Phase::Failed(reason) => (WorkerState::Failed, Some(reason)),
            Phase::Ended => (WorkerState::Ended, Some("it has ended by itself".to_owned())),
        };
        status.handled = tally.handled();
        status.failed = tally.failed();
        status.refused = tally.refused();
        status.memory = tally.memory();
        status.last_failure = tally.last_failure();
        if matches!(status.state, WorkerState::Running | WorkerState::Starting) {
            status.waiting = self.core.node().waiting_at(&Address::local(&status.address)) as u64;
        }
    }

    /// All workers that the owner started by name, sorted by address.
    pub(crate) fn started_workers(&self) -> Vec<StartedWorker> {
        let workers = self.started_workers.workers.lock();
        workers
            .values()
            .map(|started| self.started_status(started))
            .collect()
    }

    /// One of them.
    pub(crate) fn started_worker(&self, address: &str) -> Result<StartedWorker> {
        let workers = self.started_workers.workers.lock();
        workers
            .get(address)
            .map(|started| self.started_status(started))
            .ok_or_else(|| self.unknown_worker(address))
    }

    /// Have a worker no longer. It finishes the message that it is handling; its policy goes with it, unless an inlet or outlet of
    /// the same name has it too.
    pub(crate) async fn stop_worker(&self, address: &str) -> Result<()> {
        let _changing = self.started_workers.changing.lock().await;
        let running = match self.started_workers.workers.lock().get(address) {
            None => return Err(self.unknown_worker(address)),
            Some(started) => started.running.as_ref().ok().cloned(),
        };
        match running {
            Some(Handle::Plugin(plugin)) => {
                self.make_unreachable(address);
                let stopping = plugin.stop();
                if tokio::time::timeout(STOP_LIMIT, stopping).await.is_err() {
                    tracing::warn!(worker = address, "a plugin does not stop; it was left to itself");
                }
                self.started_workers
                    .closed
                    .write()
                    .remove(&Address::local(address));
            }
            Some(Handle::Typed(tally)) if matches!(tally.phase(), Phase::Starting | Phase::Running) => {
                self.close_worker(address).await;
            }
            _ if self.core.node().has_worker(&Address::local(address)) => {}
            _ => self.make_unreachable(address),
        }
        // After it has stopped: until then it may write what it keeps.
        let database = self.node.database();
        database.delete_worker(address)?;
        self.started_workers.workers.lock().remove(address);
        if !self.inlets.lock().contains_key(address) && !self.outlets.lock().contains_key(address) {
            let target = PolicyTarget::Resource(address.to_owned());
            self.core.policies.delete(database, &target)?;
        }
        tracing::info!(worker = address, "worker stopped");
        Ok(())
    }

    fn unknown_worker(&self, address: &str) -> Error {
        let error = Error::new(
            ErrorCode::NotFound,
            format!("this node has no worker `{address}` that was started by name"),
        );
        if self.core.node().has_worker(&Address::local(address)) {
            return error.hint("that address belongs to the node itself; portolan worker list shows all");
        }
        error
    }
}

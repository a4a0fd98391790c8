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
/// The most workers that a node starts by name.
const MAX_STARTED: usize = 10_000;

/// A worker that the owner wants.
pub(super) struct Started {
    spec: WorkerSpec,
    /// What it did, or why it could not be started.
    tally: Result<Arc<Tally>>,
}

/// All that the owner wants, and what can be had.
pub(super) struct StartedWorkers {
    types: WorkerTypes,
    workers: Mutex<BTreeMap<String, Started>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
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
}

impl Running {
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
    pub(super) async fn restore_worker(&self, spec: WorkerSpec) {
        let tally = self.open_worker(&spec);
        if let Err(error) = &tally {
            tracing::error!(
                worker = spec.address,
                r#type = spec.kind,
                "a stored worker cannot be started: {error}"
            );
        }
        let mut workers = self.started_workers.workers.lock();
        workers.insert(spec.address.clone(), Started { spec, tally });
    }

    /// Have a worker from now on. Waits until it takes messages, or cannot.
    pub(crate) async fn start_worker(&self, request: StartWorker) -> Result<StartedWorker> {
        let _changing = self.started_workers.changing.lock().await;
        self.started_workers
            .types
            .known(&request.kind)?
            .check(&request.config)?;
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
        };
        let database = self.node.database();
        let before = self.core.policies.get(&target);
        // The policy first: there must be no moment at which the worker is open under another one.
        if let Some(expression) = &request.allow {
            self.core.policies.set(database, &target, expression)?;
        }
        let started = match database.put_worker(&spec).and_then(|()| self.open_worker(&spec)) {
            Ok(tally) => self.wait_for_worker(&address, tally).await,
            Err(error) => Err(error),
        };
        let tally = started.inspect_err(|_| {
            let _ = database.delete_worker(&address);
            if request.allow.is_some() {
                let _ = self.core.policies.put_back(database, &target, before);
            }
        })?;
        tracing::info!(worker = address, r#type = spec.kind, "worker started");
        let started = Started {
            spec,
            tally: Ok(tally),
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
        let (state, problem, hint) = match started.tally.as_ref().map(|tally| tally.phase()) {
            Ok(Phase::Starting) => (WorkerState::Starting, None, None),
            Ok(Phase::Running) => (WorkerState::Running, None, None),
            Ok(Phase::Failed(reason)) => (WorkerState::Failed, Some(reason), None),
            Ok(Phase::Ended) => (
                WorkerState::Ended,
                Some("it has ended by itself".to_owned()),
                None,
            ),
            Err(error) => (
                WorkerState::Failed,
                Some(error.message.clone()),
                error.hint.clone(),
            ),
        };
        let again = || {
            format!(
                "portolan worker stop {0}, then start it again; or start the node again",
                spec.address
            )
        };
        let tally = started.tally.as_ref().ok();
        let count = |of: fn(&Tally) -> u64| tally.map_or(0, |tally| of(tally));
        StartedWorker {
            address: spec.address.clone(),
            kind: spec.kind.clone(),
            config: spec.config.clone(),
            policy: self
                .core
                .policies
                .in_force(ResourceType::Worker, &spec.address, Issuer::OfNode),
            hint: hint.or_else(|| problem.as_ref().map(|_| again())),
            handled: count(Tally::handled),
            failed: count(Tally::failed),
            refused: count(Tally::refused),
            waiting: match state {
                WorkerState::Running | WorkerState::Starting => {
                    self.core.node().waiting_at(&Address::local(&spec.address)) as u64
                }
                _ => 0,
            },
            memory: tally.and_then(|tally| tally.memory()),
            last_failure: tally.and_then(|tally| tally.last_failure()),
            state,
            problem,
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
        let runs = match self.started_workers.workers.lock().get(address) {
            None => return Err(self.unknown_worker(address)),
            Some(started) => started
                .tally
                .as_ref()
                .is_ok_and(|tally| matches!(tally.phase(), Phase::Starting | Phase::Running)),
        };
        let database = self.node.database();
        database.delete_worker(address)?;
        if runs {
            self.close_worker(address).await;
        } else if !self.core.node().has_worker(&Address::local(address)) {
            self.make_unreachable(address);
        }
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

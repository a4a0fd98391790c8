//! Plugins as workers of a node.

use std::sync::Arc;

use portolan_plugin::{
    Kind, PeerAttributes, Plugin, PluginError, PluginWorker, Rights, State, WorkerSettings,
};
use portolan_policy::ResourceType;
use portolan_runtime::{Address, PeerIdentifier};

use super::storage::Kept;
use super::{limits, plugin_error, rights};
use crate::control::api::WorkerState;
use crate::engine::guard::Guard;
use crate::engine::policies::{Issuer, Policies};
use crate::engine::running::Running;
use crate::error::{Error, Result};
use crate::state::{WorkerSpec, now};
use crate::worker_types::Tally;

/// A worker that runs a plugin.
#[derive(Debug)]
pub(in crate::engine) struct RunningPlugin {
    plugin: String,
    worker: PluginWorker,
    /// Granted to this worker beside what the plugin has.
    own_rights: Vec<String>,
    /// What its policy refused.
    tally: Arc<Tally>,
}

/// What a plugin worker did, in the terms of all workers.
#[derive(Debug)]
pub(in crate::engine) struct Did {
    pub(in crate::engine) state: WorkerState,
    pub(in crate::engine) problem: Option<String>,
    pub(in crate::engine) handled: u64,
    pub(in crate::engine) failed: u64,
    pub(in crate::engine) refused: u64,
    pub(in crate::engine) waiting: u64,
    pub(in crate::engine) memory: u64,
    pub(in crate::engine) restarts: u64,
    pub(in crate::engine) last_failure: Option<String>,
}

struct Known(Arc<Policies>);

impl PeerAttributes for Known {
    fn attributes_of(&self, peer: &PeerIdentifier) -> Vec<(String, String)> {
        self.0.attributes_of(Issuer::OfNode, peer, now())
    }
}

fn all_rights(of_plugin: &[String], own: &[String]) -> Result<Rights> {
    let all: Vec<String> = of_plugin.iter().chain(own).cloned().collect();
    rights(&all)
}

impl RunningPlugin {
    pub(super) fn address(&self) -> String {
        crate::engine::services::local_name(self.worker.address())
    }

    /// Go over to another plugin without losing a message.
    pub(super) async fn replace(&self, plugin: &Plugin, of_plugin: &[String]) -> Result<()> {
        let rights = all_rights(of_plugin, &self.own_rights)?;
        self.worker
            .replace(plugin, None, Some(rights))
            .await
            .map_err(plugin_error)
    }

    pub(in crate::engine) async fn stop(&self) {
        self.worker.stop().await;
    }

    pub(in crate::engine) fn rights(&self) -> Vec<String> {
        super::texts(&self.worker.rights())
    }

    pub(in crate::engine) fn did(&self) -> Did {
        let status = self.worker.status();
        let (state, problem) = match status.state {
            State::Starting => (WorkerState::Starting, None),
            State::Running => (WorkerState::Running, None),
            State::Restarting => (WorkerState::Restarting, status.last_error.clone()),
            State::Stopped => (WorkerState::Ended, Some("it has ended".to_owned())),
        };
        Did {
            state,
            problem,
            handled: status.handled,
            failed: status.failed + status.dropped,
            refused: status.refused_to_reach + self.tally.refused(),
            waiting: status.waiting as u64,
            memory: status.memory,
            restarts: status.restarts,
            last_failure: status.last_error,
        }
    }
}

impl Running {
    /// Put a plugin at an address, and wait until it takes messages.
    pub(in crate::engine) async fn open_plugin_worker(
        self: &Arc<Self>,
        spec: &WorkerSpec,
    ) -> Result<RunningPlugin> {
        let (known, plugin) = self.loaded_plugin(&spec.kind).await?;
        if plugin.kind() != Kind::Worker {
            return Err(plugin_error(PluginError::Kind {
                found: plugin.kind(),
                wanted: Kind::Worker,
            })
            .hint(format!(
                "it is put before a portal: portolan tcp-outlet create … --intercept {0}, or tcp-inlet create … --intercept {0}",
                spec.kind
            )));
        }
        let rights = all_rights(&known.rights, &spec.rights)?;
        let guard = Guard::policy(
            &self.core.policies,
            ResourceType::Worker,
            &spec.address,
            Issuer::OfNode,
        );
        let tally = Arc::new(Tally::default());
        let config = match &spec.config {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let settings = WorkerSettings::new(Address::local(&spec.address))
            .config(config)
            .rights(rights)
            .limits(limits(&known.limits))
            .storage(Arc::new(Kept {
                node: Arc::downgrade(self),
                worker: spec.address.clone(),
            }))
            .attributes(Arc::new(Known(Arc::clone(&self.core.policies))))
            .incoming(guard.against_outside(self.core.node(), Arc::clone(&tally)));
        let worker = PluginWorker::start(self.core.node(), &plugin, settings)
            .await
            .map_err(|error| {
                let error = plugin_error(error);
                Error {
                    message: format!("the worker `{}` cannot start: {}", spec.address, error.message),
                    ..error
                }
            })?;
        Ok(RunningPlugin {
            plugin: spec.kind.clone(),
            worker,
            own_rights: spec.rights.clone(),
            tally,
        })
    }

    /// The workers that run a plugin.
    pub(super) fn workers_of_plugin(&self, name: &str) -> Vec<Arc<RunningPlugin>> {
        let mut workers = self.started_workers.plugin_workers();
        workers.retain(|worker| worker.plugin == name);
        workers
    }
}

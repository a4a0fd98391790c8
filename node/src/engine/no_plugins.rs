//! A node that was built without plugins says so.

use std::sync::Arc;

use portolan_portal::Intercept;

use super::running::Running;
use crate::control::api::{AddPlugin, InterceptedBy, PluginStatus, WorkerState};
use crate::error::{Error, Result};
use crate::interceptors::Missing;
use crate::state::{PluginSpec, WorkerSpec};

/// None.
pub(super) struct Plugins {}

impl Plugins {
    pub(super) fn new(_: Option<u64>) -> Self {
        Self {}
    }
}

/// There is none.
pub(super) enum RunningPlugin {}

/// None was found.
pub(super) enum Found {}

/// What none of them did.
pub(super) struct Did {
    pub(super) state: WorkerState,
    pub(super) problem: Option<String>,
    pub(super) handled: u64,
    pub(super) failed: u64,
    pub(super) refused: u64,
    pub(super) waiting: u64,
    pub(super) memory: u64,
    pub(super) restarts: u64,
    pub(super) last_failure: Option<String>,
}

impl RunningPlugin {
    pub(super) async fn stop(&self) {
        match *self {}
    }

    pub(super) fn rights(&self) -> Vec<String> {
        match *self {}
    }

    pub(super) fn did(&self) -> Did {
        match *self {}
    }
}

fn absent<T>() -> Result<T> {
    Err(Error::invalid("this program was built without plugins")
        .hint("build it with the feature `plugins`, which is on by default"))
}

impl Running {
    pub(super) async fn intercepting_plugin(&self, by: &InterceptedBy) -> Result<Found> {
        Err(Error::not_found(format!(
            "this program has no plugins, and so no `{}`",
            by.name
        )))
    }

    pub(super) fn intercept_with(&self, found: Found, _: &str) -> Result<Arc<dyn Intercept>> {
        match found {}
    }

    pub(super) fn intercept_without(
        &self,
        by: &InterceptedBy,
        _: &str,
        reason: String,
    ) -> Arc<dyn Intercept> {
        Arc::new(Missing {
            name: by.name.clone(),
            reason,
        })
    }

    pub(super) fn intercepting_plugins(&self) -> Vec<String> {
        Vec::new()
    }

    pub(super) fn restore_plugins(&self) -> Result<()> {
        Ok(())
    }

    pub(super) fn known_plugin(&self, _: &str) -> Result<PluginSpec> {
        absent()
    }

    pub(super) async fn open_plugin_worker(self: &Arc<Self>, _: &WorkerSpec) -> Result<RunningPlugin> {
        absent()
    }

    pub(crate) async fn add_plugin(self: &Arc<Self>, _: AddPlugin) -> Result<PluginStatus> {
        absent()
    }

    pub(crate) fn plugins(&self) -> Vec<PluginStatus> {
        Vec::new()
    }

    pub(crate) fn plugin(&self, _: &str) -> Result<PluginStatus> {
        absent()
    }

    pub(crate) async fn remove_plugin(&self, _: &str) -> Result<()> {
        absent()
    }
}

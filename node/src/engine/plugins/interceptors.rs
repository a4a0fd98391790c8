//! Plugins as interceptors of the inlets and outlets of a node: found by name, replaced, and missed.

use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use portolan_plugin::{Interceptors, Kind, Limits, Plugin, PluginError, SharedMemory};
use portolan_portal::Intercept;
use portolan_portal::intercept::{ConnectionInfo, Ended, Interceptor};
use portolan_runtime::Node;

use super::{limits, plugin_error};
use crate::control::api::InterceptedBy;
use crate::engine::running::Running;
use crate::error::{Error, Result};
use crate::interceptors::plugin;
use crate::state::PluginSpec;

/// The plugin before one inlet or outlet.
pub(in crate::engine) struct Intercepting {
    plugin: String,
    portal: String,
    config: String,
    node: Node,
    memory: SharedMemory,
    /// The plugin; or why it cannot be had, until it is added again. Nobody is let through meanwhile.
    interceptors: RwLock<std::result::Result<Interceptors, String>>,
}

impl Intercepting {
    /// Puts this plugin in the place of the one that was there, or was missing.
    fn replace(&self, plugin: &Plugin, limits: Limits) -> std::result::Result<(), PluginError> {
        let mut interceptors = self.interceptors.write();
        if let Ok(interceptors) = &*interceptors {
            return interceptors.replace(plugin, None);
        }
        let memory = self.memory.clone();
        *interceptors = Ok(Interceptors::within(
            plugin,
            &self.portal,
            &self.config,
            limits,
            memory,
        )?);
        Ok(())
    }
}

impl Intercept for Intercepting {
    fn name(&self) -> &str {
        &self.plugin
    }

    fn open(&self, connection: &ConnectionInfo) -> std::result::Result<Box<dyn Interceptor>, Ended> {
        let interceptors = self.interceptors.read().clone().map_err(Ended::failed)?;
        plugin::open(&self.node, interceptors, connection)
    }
}

/// A plugin that was found, for a portal whose name is not known yet.
pub(in crate::engine) struct Found {
    name: String,
    plugin: Plugin,
    digest: String,
    config: String,
    limits: Limits,
}

/// The configuration as the plugin gets it.
fn config_text(config: &serde_json::Value) -> String {
    match config {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Running {
    /// The plugin for an inlet or outlet.
    pub(in crate::engine) async fn intercepting_plugin(&self, by: &InterceptedBy) -> Result<Found> {
        let (spec, plugin) = self.loaded_plugin(&by.name).await?;
        if plugin.kind() != Kind::Interceptor {
            return Err(plugin_error(PluginError::Kind {
                found: plugin.kind(),
                wanted: Kind::Interceptor,
            })
            .hint(format!(
                "it is started as a worker: portolan worker start --plugin {}",
                by.name
            )));
        }
        Ok(Found {
            name: by.name.clone(),
            plugin,
            digest: spec.digest,
            config: config_text(&by.config),
            limits: limits(&spec.limits),
        })
    }

    /// Puts a plugin that was found before a portal.
    pub(in crate::engine) fn intercept_with(&self, found: Found, portal: &str) -> Result<Arc<dyn Intercept>> {
        let interceptors = Interceptors::within(
            &found.plugin,
            portal,
            &found.config,
            found.limits,
            self.plugins.memory.clone(),
        )
        .map_err(plugin_error)?;
        let is_current = |known: &PluginSpec| known.digest == found.digest;
        let mut all = self.plugins.intercepting.lock();
        // Who is known from here on is told of the next version.
        if !self.plugins.known.lock().get(&found.name).is_some_and(is_current) {
            return Err(Error::failed(format!(
                "the plugin `{}` was replaced or removed meanwhile",
                found.name
            ))
            .hint("try it again"));
        }
        Ok(self.before(&mut all, found.name, portal, found.config, Ok(interceptors)))
    }

    /// Lets nobody through a portal, for this reason, until the plugin is added again.
    pub(in crate::engine) fn intercept_without(
        &self,
        by: &InterceptedBy,
        portal: &str,
        reason: String,
    ) -> Arc<dyn Intercept> {
        let mut all = self.plugins.intercepting.lock();
        self.before(
            &mut all,
            by.name.clone(),
            portal,
            config_text(&by.config),
            Err(reason),
        )
    }

    fn before(
        &self,
        all: &mut Vec<Weak<Intercepting>>,
        plugin: String,
        portal: &str,
        config: String,
        interceptors: std::result::Result<Interceptors, String>,
    ) -> Arc<dyn Intercept> {
        let intercepting = Arc::new(Intercepting {
            plugin,
            portal: portal.to_owned(),
            config,
            node: self.core.node().clone(),
            memory: self.plugins.memory.clone(),
            interceptors: RwLock::new(interceptors),
        });
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&intercepting));
        intercepting
    }

    /// The names of plugins that can be interceptors.
    pub(in crate::engine) fn intercepting_plugins(&self) -> Vec<String> {
        let known = self.plugins.known.lock();
        let fit = known.values().filter(|plugin| plugin.kind == "interceptor");
        fit.map(|plugin| plugin.name.clone()).collect()
    }

    /// An error if a plugin stands before a portal: it cannot be removed, or become another kind of plugin.
    pub(super) fn is_before_no_portal(&self, name: &str) -> Result<()> {
        match self.portals_of(name).next() {
            Some((kind, portal)) => Err(Error::exists(format!(
                "the plugin `{name}` intercepts the {kind} `{portal}`"
            ))
            .hint(format!("delete it first: portolan tcp-{kind} delete {portal}"))),
            None => Ok(()),
        }
    }

    /// The portals that a plugin intercepts, for people.
    pub(super) fn intercepted_by(&self, name: &str) -> Vec<String> {
        let portals = self.portals_of(name);
        portals.map(|(kind, portal)| format!("{kind} {portal}")).collect()
    }

    /// Of which kind, and by which name.
    fn portals_of(&self, name: &str) -> impl Iterator<Item = (&'static str, String)> {
        let uses = move |by: &Option<InterceptedBy>| by.as_ref().is_some_and(|by| by.name == name);
        let inlets = self
            .inlets()
            .into_iter()
            .filter(move |inlet| uses(&inlet.intercept));
        let outlets = self
            .outlets()
            .into_iter()
            .filter(move |outlet| uses(&outlet.intercept));
        inlets
            .map(|inlet| ("inlet", inlet.alias))
            .chain(outlets.map(|outlet| ("outlet", outlet.address)))
    }

    /// New connections get the new version of a plugin; open ones keep theirs.
    pub(super) fn replace_interceptors(&self, name: &str, plugin: &Plugin, limits: Limits) {
        let all: Vec<Arc<Intercepting>> = {
            let known = self.plugins.intercepting.lock();
            known.iter().filter_map(Weak::upgrade).collect()
        };
        for intercepting in all.iter().filter(|intercepting| intercepting.plugin == name) {
            if let Err(error) = intercepting.replace(plugin, limits) {
                tracing::error!(plugin = name, "an interceptor keeps its old plugin: {error}");
            }
        }
    }
}

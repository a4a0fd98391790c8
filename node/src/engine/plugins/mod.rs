//! Plugins of a node: added, kept, shown, replaced, removed, and started as workers.
//!
//! What is added is a copy: it lies in the node's folder under its digest, which is looked at each time it is loaded. So a plugin runs on
//! when the file that it came from changes or goes, and what was tampered with is not run.
//!
//! | module | idea |
//! |---|---|
//! | `files` | the copies in the node's folder |
//! | `interceptors` | plugins as interceptors of portals |
//! | `storage` | the keys and values of a plugin worker, in the node's database |
//! | `workers` | plugins as workers |

mod files;
mod interceptors;
mod storage;
mod workers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portolan_plugin::{
    Digest, Engine, EngineOptions, Kind, Limits, Plugin, PluginError, Rights, SharedMemory,
};
use portolan_runtime::Capacity;

use super::connect::blocking;
use super::running::Running;
use crate::control::api::{AddPlugin, PluginLimits, PluginStatus, PluginVerdict};
use crate::error::{Error, ErrorCode, Result};
use crate::state::{PluginSpec, check_plain_name, now};

pub(super) use interceptors::Found;
pub(super) use workers::RunningPlugin;

/// The most plugins of a node.
const MAX_PLUGINS: usize = 1000;

/// What a plugin gets without a word, if it asks for it: nothing that leads out of the node, and nothing that lets others in.
const HARMLESS: [&str; 3] = ["reply", "from:local", "storage"];

/// The plugins of a node.
#[derive(Default)]
pub(super) struct Plugins {
    known: Mutex<BTreeMap<String, PluginSpec>>,
    /// Those that are compiled, by digest.
    loaded: Mutex<BTreeMap<String, Plugin>>,
    /// Set up when it is needed first: most nodes have no plugins.
    engine: tokio::sync::OnceCell<Engine>,
    /// What those that stand before portals have together.
    memory: SharedMemory,
    /// Those that stand before portals.
    intercepting: Mutex<Vec<std::sync::Weak<interceptors::Intercepting>>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

impl Plugins {
    /// With so many bytes for all that stand before portals.
    pub(super) fn new(memory: Option<u64>) -> Self {
        Self {
            memory: memory.map_or_else(SharedMemory::default, SharedMemory::new),
            ..Self::default()
        }
    }
}

fn plugin_error(error: PluginError) -> Error {
    let code = match &error {
        PluginError::Unreadable { .. } | PluginError::Storage(_) | PluginError::Engine(_) => ErrorCode::State,
        PluginError::Digest { .. } => ErrorCode::NotVerified,
        PluginError::Failed { .. } | PluginError::Node(_) | PluginError::Stopped | PluginError::Ended(_) => {
            ErrorCode::Failed
        }
        _ => ErrorCode::InvalidArgument,
    };
    Error::new(code, error.to_string())
}

fn rights(texts: &[String]) -> Result<Rights> {
    Rights::parse(texts).map_err(plugin_error)
}

fn texts(rights: &Rights) -> Vec<String> {
    rights.iter().map(ToString::to_string).collect()
}

/// The limits, where something was said about them.
fn limits(said: &PluginLimits) -> Limits {
    let usual = Limits::default();
    let mib = |mib: u32| mib as usize * 1024 * 1024;
    let time = |usual| said.time_ms.map_or(usual, |ms| Duration::from_millis(ms.into()));
    Limits {
        memory: said.memory_mib.map_or(usual.memory, mib),
        time: time(usual.time),
        interceptor_time: time(usual.interceptor_time),
        queue: Capacity {
            messages: said.waiting.map_or(usual.queue.messages, |count| count as usize),
            ..usual.queue
        },
        log_lines: said.log_lines.unwrap_or(usual.log_lines),
        storage_bytes: said
            .storage_kib
            .map_or(usual.storage_bytes, |kib| kib as usize * 1024),
        ..usual
    }
}

fn check_limits(said: &PluginLimits) -> Result<()> {
    for (value, name, least, most) in [
        (said.memory_mib, "max-memory", 1, 4096),
        (said.time_ms, "max-time", 1, 600_000),
        (said.waiting, "max-waiting", 1, 1_000_000),
        (said.log_lines, "max-log-lines", 0, 10_000),
        (said.storage_kib, "max-storage", 0, 1_048_576),
    ] {
        if let Some(value) = value
            && !(least..=most).contains(&value)
        {
            return Err(Error::invalid(format!(
                "{name} is {least} to {most}, not {value}"
            )));
        }
    }
    Ok(())
}

impl Running {
    /// Read what is stored. Nothing is loaded before it is needed.
    pub(super) fn restore_plugins(&self) -> Result<()> {
        let stored = self.node.database().plugins()?;
        let mut known = self.plugins.known.lock();
        known.extend(stored.into_iter().map(|plugin| (plugin.name.clone(), plugin)));
        Ok(())
    }

    async fn plugin_engine(&self) -> Result<Engine> {
        let cache = self.node.home().path().join("cache").join("plugins");
        let engine = self.plugins.engine.get_or_try_init(|| {
            blocking(move || Engine::new(EngineOptions { cache: Some(cache) }).map_err(plugin_error))
        });
        engine.await.cloned()
    }

    /// The plugin of this name, compiled. Its copy is checked against its digest, also if it is loaded already.
    pub(super) async fn loaded_plugin(&self, name: &str) -> Result<(PluginSpec, Plugin)> {
        let spec = self.known_plugin(name)?;
        let path = self.plugin_file(&spec.digest);
        let again = format!("add it again: portolan plugin add FILE --name {name} --replace");
        let wanted: Digest = spec.digest.parse().map_err(|error| {
            Error::state(format!(
                "the digest of the plugin `{name}` cannot be read: {error}"
            ))
        })?;
        let engine = self.plugin_engine().await?;
        let loaded = self.plugins.loaded.lock().get(&spec.digest).cloned();
        let plugin = blocking(move || match loaded {
            Some(plugin) => {
                files::verify(&path, &wanted)?;
                Ok(plugin)
            }
            None => Plugin::load_file(&engine, &path, Some(&wanted)).map_err(plugin_error),
        });
        let plugin = plugin.await.map_err(|error| {
            Error {
                message: format!("the plugin `{name}` cannot be loaded: {}", error.message),
                ..error
            }
            .hint(again)
        })?;
        let mut loaded = self.plugins.loaded.lock();
        loaded.insert(spec.digest.clone(), plugin.clone());
        drop(loaded);
        Ok((spec, plugin))
    }

    pub(super) fn known_plugin(&self, name: &str) -> Result<PluginSpec> {
        let known = self.plugins.known.lock();
        known.get(name).cloned().ok_or_else(|| {
            let shown: String = name.escape_debug().take(100).collect();
            let error = Error::not_found(format!("this node has no plugin `{shown}`"));
            match crate::state::closest(name, known.keys().map(String::as_str)) {
                Some(meant) => error.hint(format!("did you mean `{meant}`?")),
                None => error.hint("add it: portolan plugin add FILE --name NAME"),
            }
        })
    }

    fn plugin_file(&self, digest: &str) -> PathBuf {
        files::folder(self.node.folder().path()).join(format!("{digest}.wasm"))
    }

    /// Have a plugin from now on, or another version of it.
    pub(crate) async fn add_plugin(self: &Arc<Self>, request: AddPlugin) -> Result<PluginStatus> {
        let _changing = self.plugins.changing.lock().await;
        let name = request.name.clone();
        check_plain_name("plugins", &name)?;
        check_limits(&request.limits)?;
        let before = self.plugins.known.lock().get(&name).cloned();
        if before.is_some() && !request.replace {
            return Err(Error::exists(format!("this node already has a plugin `{name}`"))
                .hint("put another in its place with --replace, or choose another --name"));
        }
        if self.plugins.known.lock().len() >= MAX_PLUGINS && before.is_none() {
            return Err(Error::failed(format!(
                "this node has {MAX_PLUGINS} plugins already"
            )));
        }
        let pinned: Option<Digest> = match &request.digest {
            Some(text) => Some(
                text.parse()
                    .map_err(|error| Error::invalid(format!("`{text}`: {error}")))?,
            ),
            None => None,
        };
        let granted = request.grant.as_deref().map(rights).transpose()?;
        rights(&request.also)?;
        let engine = self.plugin_engine().await?;
        let source = PathBuf::from(&request.file);
        let (plugin, bytes) = blocking(move || {
            let bytes = files::read(&source)?;
            let found = Digest::of(&bytes);
            if let Some(pinned) = pinned.filter(|pinned| *pinned != found) {
                return Err(plugin_error(PluginError::Digest { pinned, found }));
            }
            Ok((Plugin::load(&engine, &bytes).map_err(plugin_error)?, bytes))
        })
        .await?;
        if plugin.kind() != Kind::Interceptor {
            self.is_before_no_portal(&name)?;
        }
        let info = plugin.info();
        let mut grant = match (&granted, request.grant_all, &before) {
            (Some(granted), _, _) => texts(granted),
            (None, true, _) => texts(&info.wants),
            (None, false, Some(before)) => before.rights.clone(),
            (None, false, None) => texts(&info.wants)
                .into_iter()
                .filter(|right| HARMLESS.contains(&right.as_str()))
                .collect(),
        };
        grant.extend(request.also);
        let grant = texts(&rights(&grant)?);
        let spec = PluginSpec {
            name: name.clone(),
            digest: plugin.digest().to_string(),
            file: request.file,
            kind: match plugin.kind() {
                Kind::Worker => "worker",
                Kind::Interceptor => "interceptor",
            }
            .to_owned(),
            interface: plugin.interface_version().to_owned(),
            title: info.name.clone(),
            version: info.version.clone(),
            description: info.description.clone(),
            wants: texts(&info.wants),
            rights: grant,
            limits: match &before {
                Some(before) => request.limits.over(&before.limits),
                None => request.limits,
            },
            added_at: now(),
        };
        let path = self.plugin_file(&spec.digest);
        blocking(move || files::keep(&path, &bytes)).await?;
        self.plugins
            .loaded
            .lock()
            .insert(spec.digest.clone(), plugin.clone());
        // No worker is started meanwhile: it would have the older one.
        let _starting = self.started_workers.changing.lock().await;
        if let Err(error) = self.take_over(&spec, &plugin, before.as_ref()).await {
            self.forget_file(&spec.digest);
            return Err(error);
        }
        tracing::info!(plugin = name, digest = spec.digest, "plugin added");
        let limits = limits(&spec.limits);
        self.plugins.known.lock().insert(name.clone(), spec);
        if plugin.kind() == Kind::Interceptor {
            self.replace_interceptors(&name, &plugin, limits);
        }
        if let Some(before) = before {
            self.forget_file(&before.digest);
            self.start_failed_workers_of(&name).await;
        }
        self.plugin(&name)
    }

    /// Let the workers of a plugin go over to its new version, and write it down. All of them do, or none.
    async fn take_over(&self, spec: &PluginSpec, plugin: &Plugin, before: Option<&PluginSpec>) -> Result<()> {
        let Some(before) = before else {
            return self.node.database().put_plugin(spec);
        };
        let running = self.workers_of_plugin(&spec.name);
        let mut done: Vec<Arc<RunningPlugin>> = Vec::new();
        let mut failure = None;
        for worker in running {
            match worker.replace(plugin, &spec.rights).await {
                Ok(()) => done.push(worker),
                Err(error) => {
                    failure = Some(Error {
                        message: format!(
                            "the worker `{}` cannot go over to it: {}",
                            worker.address(),
                            error.message
                        ),
                        ..error
                    });
                    break;
                }
            }
        }
        let result = match failure {
            Some(error) => Err(error),
            None => self.node.database().put_plugin(spec),
        };
        let Err(error) = result else { return Ok(()) };
        // The others go back; all of them run the old one then.
        let (_, old) = self.loaded_plugin(&spec.name).await?;
        for worker in done {
            if let Err(error) = worker.replace(&old, &before.rights).await {
                tracing::error!(
                    worker = worker.address(),
                    "a worker cannot go back to its plugin: {error}"
                );
            }
        }
        Err(error.hint(format!(
            "all workers of the plugin `{}` go on with the one that they had",
            spec.name
        )))
    }

    /// Remove a copy that no plugin needs any more.
    fn forget_file(&self, digest: &str) {
        let is_used = self
            .plugins
            .known
            .lock()
            .values()
            .any(|plugin| plugin.digest == digest);
        if !is_used {
            self.plugins.loaded.lock().remove(digest);
            let _ = std::fs::remove_file(self.plugin_file(digest));
        }
    }

    fn plugin_status(&self, spec: &PluginSpec) -> PluginStatus {
        let granted = rights(&spec.rights).unwrap_or_default();
        let wanted = rights(&spec.wants).unwrap_or_default();
        let file = match spec.digest.parse() {
            Ok(digest) => match files::verify(&self.plugin_file(&spec.digest), &digest) {
                Ok(()) => PluginVerdict::Intact,
                Err(error) if error.code == ErrorCode::NotVerified => PluginVerdict::Changed,
                Err(_) => PluginVerdict::Missing,
            },
            Err(_) => PluginVerdict::Missing,
        };
        PluginStatus {
            not_granted: texts(&wanted.without(&granted)),
            verdict: file,
            workers: self.users_of_plugin(&spec.name),
            intercepts: self.intercepted_by(&spec.name),
            plugin: spec.clone(),
        }
    }

    /// All plugins, sorted by name.
    pub(crate) fn plugins(&self) -> Vec<PluginStatus> {
        let known: Vec<PluginSpec> = self.plugins.known.lock().values().cloned().collect();
        known.iter().map(|spec| self.plugin_status(spec)).collect()
    }

    /// One plugin.
    pub(crate) fn plugin(&self, name: &str) -> Result<PluginStatus> {
        let spec = self.known_plugin(name)?;
        Ok(self.plugin_status(&spec))
    }

    /// Have a plugin no longer.
    pub(crate) async fn remove_plugin(&self, name: &str) -> Result<()> {
        let _changing = self.plugins.changing.lock().await;
        let _starting = self.started_workers.changing.lock().await;
        let spec = self.known_plugin(name)?;
        self.is_before_no_portal(name)?;
        let users = self.users_of_plugin(name);
        if !users.is_empty() {
            return Err(Error::exists(format!(
                "the plugin `{name}` is in use by the worker{} {}",
                if users.len() == 1 { "" } else { "s" },
                users.join(", ")
            ))
            .hint(format!("stop it first: portolan worker stop {}", users[0])));
        }
        self.node.database().delete_plugin(name)?;
        self.plugins.known.lock().remove(name);
        self.forget_file(&spec.digest);
        tracing::info!(plugin = name, "plugin removed");
        Ok(())
    }
}

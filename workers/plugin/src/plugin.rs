//! A plugin that is compiled and has said what it is.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::{Component, ComponentExportIndex, ComponentType, InstancePre, Lift};

use crate::component::{self, Kind, MAX_FILE};
use crate::digest::Digest;
use crate::engine::{Engine, Room};
use crate::error::{one_line, reason_of};
use crate::host::{Host, said};
use crate::limits::{Limits, Meter};
use crate::log::Log;
use crate::rights::{MAX_RIGHTS, Rights};
use crate::{PluginError, instance, shape};

/// How long a plugin may take to say what it is.
const DESCRIBE_TIME: Duration = Duration::from_secs(5);

/// Longest name, version and description that are kept, in bytes.
const MAX_TEXT: usize = 1024;

/// What a plugin says of itself. Nobody has checked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One sentence.
    pub description: String,
    /// The rights that it asks for.
    pub wants: Rights,
}

/// `info` of the interface.
#[derive(Debug, Clone, ComponentType, Lift)]
#[component(record)]
pub(crate) struct RawInfo {
    name: String,
    version: String,
    description: String,
    wants: Vec<String>,
}

/// A plugin that is compiled and has said what it is: what workers and interceptors are started from. Cheap to clone. It does not need
/// its file any more.
#[derive(Clone)]
pub struct Plugin {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    kind: Kind,
    version: String,
    info: Info,
    digest: Digest,
    pre: InstancePre<Host>,
    exports: Exports,
    memories: u64,
}

/// The four functions of a plugin beside `describe`: `start`, `handle`, `on-timer` and `stop`, or `open`, `data`, `end` and `close`.
#[derive(Clone)]
pub(crate) struct Exports {
    describe: ComponentExportIndex,
    pub(crate) begin: ComponentExportIndex,
    pub(crate) take: ComponentExportIndex,
    pub(crate) third: ComponentExportIndex,
    pub(crate) finish: ComponentExportIndex,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("kind", &self.kind())
            .field("info", self.info())
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}

impl Plugin {
    /// Compiles a plugin, or finds it in the cache, and asks it what it is. This may take seconds the first time, and blocks: call it
    /// where that is no harm.
    ///
    /// `bytes` is a component, or a core module that carries the type of one (see [`componentize`](crate::componentize)).
    ///
    /// # Errors
    /// If it is no plugin for this node, or fails when it is asked.
    pub fn load(engine: &Engine, bytes: &[u8]) -> Result<Self, PluginError> {
        let digest = Digest::of(bytes);
        let (component, memories) = compile(engine, bytes)?;
        let (kind, version) = component::classify(&component)?;
        let exports = Exports::find(&component, kind, &version)?;
        let pre = engine
            .linker(kind)
            .instantiate_pre(&component)
            .map_err(|error| PluginError::Interface(one_line(&format!("{error:#}"), 512)))?;
        let info = describe(engine, kind, &pre, &exports, memories)?;
        Ok(Self {
            inner: Arc::new(Inner {
                engine: engine.clone(),
                kind,
                version,
                info,
                digest,
                pre,
                exports,
                memories,
            }),
        })
    }

    /// As [`Plugin::load`], from a file, which must have this digest if one is given.
    ///
    /// # Errors
    /// As [`Plugin::load`]; [`PluginError::Unreadable`]; [`PluginError::Digest`], before anything of the file is looked at.
    pub fn load_file(engine: &Engine, path: &Path, pinned: Option<&Digest>) -> Result<Self, PluginError> {
        use std::io::Read as _;
        let unreadable = |error: std::io::Error| PluginError::Unreadable {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .map_err(unreadable)?
            .take(MAX_FILE as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let found = Digest::of(&bytes);
        match pinned {
            Some(&pinned) if pinned != found => Err(PluginError::Digest { pinned, found }),
            _ => Self::load(engine, &bytes),
        }
    }

    /// Whether it is a worker or an interceptor.
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// What it says of itself.
    pub fn info(&self) -> &Info {
        &self.inner.info
    }

    /// The version of the interface that it was built for.
    pub fn interface_version(&self) -> &str {
        &self.inner.version
    }

    /// The digest of the file that it was made from.
    pub fn digest(&self) -> Digest {
        self.inner.digest
    }

    pub(crate) fn require(&self, wanted: Kind) -> Result<(), PluginError> {
        match self.kind() {
            found if found == wanted => Ok(()),
            found => Err(PluginError::Kind { found, wanted }),
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(crate) fn pre(&self) -> &InstancePre<Host> {
        &self.inner.pre
    }

    /// Room for one instance of it.
    pub(crate) fn room(&self) -> Result<Room, PluginError> {
        self.inner.engine.room(self.inner.memories)
    }

    pub(crate) fn exports(&self) -> &Exports {
        &self.inner.exports
    }

    /// Name and version, for the log.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.info().name, self.info().version)
    }
}

impl Exports {
    fn find(component: &Component, kind: Kind, version: &str) -> Result<Self, PluginError> {
        let interface = format!("portolan:worker/{}@{version}", kind.interface());
        let missing = |name: &str| PluginError::Interface(format!("`{interface}` has no function `{name}`"));
        let parent = component
            .get_export_index(None, &interface)
            .ok_or_else(|| missing("describe"))?;
        let find = |name: &str| {
            component
                .get_export_index(Some(&parent), name)
                .ok_or_else(|| missing(name))
        };
        let [begin, take, third, finish] = match kind {
            Kind::Worker => ["start", "handle", "on-timer", "stop"],
            Kind::Interceptor => ["open", "data", "end", "close"],
        };
        Ok(Self {
            describe: find("describe")?,
            begin: find(begin)?,
            take: find(take)?,
            third: find(third)?,
            finish: find(finish)?,
        })
    }
}

/// Makes a component of what a file holds, and compiles it: gives it and the number of its memories.
fn compile(engine: &Engine, bytes: &[u8]) -> Result<(Component, u64), PluginError> {
    // What takes files apart here was made for files of friends: if it gives up on one, that is the file's fault.
    let attempt = || {
        let binary = component::componentize(bytes)?;
        let shape = shape::look(&binary)?;
        Ok((engine.compile(&binary)?, shape.memories))
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt))
        .unwrap_or_else(|_| Err(PluginError::Invalid("the compiler gave up on it".into())))
}

/// Asks a plugin what it is, in an instance made for the question.
fn describe(
    engine: &Engine,
    kind: Kind,
    pre: &InstancePre<Host>,
    exports: &Exports,
    memories: u64,
) -> Result<Info, PluginError> {
    let _room = engine.room(memories)?;
    let limits = Limits::default();
    let log = Arc::new(Log::new("(new)".into(), "describe".into(), limits.log_lines));
    let host = Host::new(Meter::new(&limits), log, None);
    let mut store = Store::new(engine.wasmtime(), host);
    store.limiter(|host| &mut host.meter);
    store.set_hostcall_fuel(crate::engine::MAX_HANDED_OVER);
    let _ticking = engine.clock().ticking();
    let begin = Instant::now();
    store.epoch_deadline_callback(move |_| {
        Ok(if begin.elapsed() > DESCRIBE_TIME {
            wasmtime::UpdateDeadline::Interrupt
        } else {
            wasmtime::UpdateDeadline::Continue(1)
        })
    });
    store.set_epoch_deadline(1);
    let failed = |store: &mut Store<Host>, error: wasmtime::Error| {
        let reason = match store.data_mut().meter.refused.take() {
            Some(refused) => format!("{}; {refused}", reason_of(&error)),
            None if begin.elapsed() > DESCRIBE_TIME => {
                format!("it computed for longer than {}", instance::seconds(DESCRIBE_TIME))
            }
            None => reason_of(&error),
        };
        PluginError::Failed {
            function: "describe",
            reason,
        }
    };
    let instance = match pre.instantiate(&mut store) {
        Ok(instance) => instance,
        Err(error) => return Err(failed(&mut store, error)),
    };
    let misfit = |error: wasmtime::Error| PluginError::Interface(one_line(&format!("{error:#}"), 512));
    let function = instance
        .get_typed_func::<(), (RawInfo,)>(&mut store, exports.describe)
        .map_err(misfit)?;
    // The others are only looked at here, so that what does not fit is found when a plugin is added.
    instance::check(kind, &instance, &mut store, exports).map_err(misfit)?;
    let raw = match function.call(&mut store, ()) {
        Ok((raw,)) => raw,
        Err(error) => return Err(failed(&mut store, error)),
    };
    if raw.wants.len() > MAX_RIGHTS {
        return Err(PluginError::Interface(format!(
            "it asks for {} rights, and {MAX_RIGHTS} is the limit",
            raw.wants.len()
        )));
    }
    Ok(Info {
        name: one_line(&raw.name, MAX_TEXT),
        version: one_line(&raw.version, MAX_TEXT),
        description: one_line(&raw.description, MAX_TEXT),
        wants: Rights::parse(&raw.wants).map_err(|error| PluginError::Interface(said(&error.to_string())))?,
    })
}

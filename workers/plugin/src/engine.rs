//! The compiler and runtime of WebAssembly that all plugins of a process share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Cache, CacheConfig, Config};

use crate::PluginError;
use crate::component::Kind;
use crate::host::{self, Host};

/// How long a plugin computes before others on its thread have a turn.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// Ticks without any plugin computing after which the clock stands still.
const IDLE_TICKS: u32 = 50;

/// Stack of the WebAssembly code of one call. Deeper recursion is a trap.
pub(crate) const WASM_STACK: usize = 512 * 1024;

/// Stack of a call with what the host needs beside.
const FIBER_STACK: usize = 1024 * 1024;

/// Bytes that a plugin can hand over in one call of the host: the largest message.
pub const MAX_HANDED_OVER: usize = 16 * 1024 * 1024;

/// How an [`Engine`] is made.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// The folder in which compiled code is kept; without one, each plugin is compiled anew in each process. Whoever can write there
    /// can run code in this process: it belongs into the state of the node, and is created for its owner only.
    pub cache: Option<PathBuf>,
}

/// The compiler and runtime of WebAssembly. Cheap to clone; one for a process is enough.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    engine: wasmtime::Engine,
    workers: Linker<Host>,
    interceptors: Linker<Host>,
    clock: Arc<Clock>,
    cache: Option<Cache>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Sets the compiler up.
    ///
    /// # Errors
    /// [`PluginError::Engine`] if the cache's folder cannot be used, or there is no compiler for this processor.
    pub fn new(options: EngineOptions) -> Result<Self, PluginError> {
        let refuse = |error: wasmtime::Error| PluginError::Engine(format!("{error:#}"));
        let cache = options.cache.map(open_cache).transpose()?;
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .max_wasm_stack(WASM_STACK)
            .async_stack_size(FIBER_STACK)
            .wasm_memory64(false)
            .cache(cache.clone());
        let engine = wasmtime::Engine::new(&config).map_err(refuse)?;
        let mut workers = Linker::new(&engine);
        host::for_workers(&mut workers).map_err(refuse)?;
        let mut interceptors = Linker::new(&engine);
        host::for_interceptors(&mut interceptors).map_err(refuse)?;
        let clock = Arc::new(Clock::default());
        clock.start(&engine)?;
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                workers,
                interceptors,
                clock,
                cache,
            }),
        })
    }

    /// How many plugins were found compiled in the cache so far, and how many were not.
    pub fn cache_hits_and_misses(&self) -> (usize, usize) {
        self.inner
            .cache
            .as_ref()
            .map_or((0, 0), |cache| (cache.cache_hits(), cache.cache_misses()))
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner.engine
    }

    pub(crate) fn linker(&self, kind: Kind) -> &Linker<Host> {
        match kind {
            Kind::Worker => &self.inner.workers,
            Kind::Interceptor => &self.inner.interceptors,
        }
    }

    pub(crate) fn clock(&self) -> &Arc<Clock> {
        &self.inner.clock
    }
}

fn open_cache(folder: PathBuf) -> Result<Cache, PluginError> {
    let refuse = |reason: String| {
        PluginError::Engine(format!(
            "the folder for compiled code, {}, cannot be used: {reason}",
            folder.display()
        ))
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(&folder)
        .map_err(|error| refuse(error.to_string()))?;
    let folder = folder.canonicalize().map_err(|error| refuse(error.to_string()))?;
    let mut config = CacheConfig::new();
    config.with_directory(&folder);
    Cache::new(config).map_err(|error| refuse(format!("{error:#}")))
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.clock.end();
    }
}

/// Advances the epoch of the engine while plugins compute, which makes each give way at the next tick. Stands still otherwise: an idle
/// node wakes for nothing.
#[derive(Default)]
pub(crate) struct Clock {
    computing: AtomicUsize,
    parked: AtomicBool,
    ended: AtomicBool,
    thread: std::sync::OnceLock<std::thread::Thread>,
}

impl Clock {
    fn start(self: &Arc<Self>, engine: &wasmtime::Engine) -> Result<(), PluginError> {
        let (clock, engine) = (Arc::clone(self), engine.weak());
        let thread = std::thread::Builder::new()
            .name("portolan-epoch".into())
            .spawn(move || clock.run(&engine))
            .map_err(|error| PluginError::Engine(format!("a thread cannot be started: {error}")))?;
        let _ = self.thread.set(thread.thread().clone());
        Ok(())
    }

    fn run(&self, engine: &wasmtime::EngineWeak) {
        let mut idle = 0;
        while !self.ended.load(Ordering::Acquire) {
            if self.computing.load(Ordering::SeqCst) > 0 {
                idle = 0;
            } else {
                idle += 1;
            }
            if idle > IDLE_TICKS {
                self.parked.store(true, Ordering::SeqCst);
                // Somebody may have begun before that could be seen.
                if self.computing.load(Ordering::SeqCst) == 0 && !self.ended.load(Ordering::Acquire) {
                    std::thread::park();
                }
                self.parked.store(false, Ordering::SeqCst);
                idle = 0;
                continue;
            }
            std::thread::sleep(TICK);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// The clock ticks as long as the guard lives.
    pub(crate) fn ticking(self: &Arc<Self>) -> Ticking {
        self.computing.fetch_add(1, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
        Ticking(Arc::clone(self))
    }
}

/// While this lives, whoever computes is interrupted at each tick.
pub(crate) struct Ticking(Arc<Clock>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.computing.fetch_sub(1, Ordering::SeqCst);
    }
}

//! The compiler and runtime of WebAssembly that all plugins of a process share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use wasmtime::component::{Component, Linker};
use wasmtime::{Cache, CacheConfig, Config};

use crate::PluginError;
use crate::component::Kind;
use crate::error::one_line;
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

/// Instances with one memory that an engine has at a time, whatever the system has room for: each takes 4 GiB of the addresses of the
/// process, of which there are 128 TiB.
const MAX_MEMORIES: u64 = 16_384;

/// Mappings of the process that an instance takes for each of its memories, and for its stack.
const MAPPINGS: u64 = 6;

/// Mappings that a process has where the system does not say: what Linux does by default.
const USUAL_MAPPINGS: u64 = 65_530;

/// How much further back than everything else compilers stand in the queue for a processor.
#[cfg(target_os = "linux")]
const COMPILER_NICENESS: i32 = 15;

/// Stack of a thread that compiles.
const COMPILER_STACK: usize = 8 * 1024 * 1024;

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
    rooms: Arc<Rooms>,
    /// One compilation at a time: each takes memory, and all processors that nobody else wants.
    compiling: Mutex<()>,
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
                rooms: Arc::new(Rooms::of_this_system()),
                compiling: Mutex::default(),
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

    /// Compiles a component, or finds it in the cache. This blocks, for as long as it takes and as long as others are being compiled;
    /// whatever else the process does goes before it.
    pub(crate) fn compile(&self, binary: &[u8]) -> Result<Component, PluginError> {
        let invalid = |text: String| PluginError::Invalid(one_line(&text, 512));
        let _alone = self.inner.compiling.lock();
        let threads = rayon::ThreadPoolBuilder::new()
            .thread_name(|_| "portolan-compile".into())
            .stack_size(COMPILER_STACK)
            .start_handler(|_| give_way())
            .build()
            .map_err(|error| PluginError::Engine(format!("a thread cannot be started: {error}")))?;
        threads
            .install(|| Component::from_binary(&self.inner.engine, binary))
            .map_err(|error| invalid(format!("{error:#}")))
    }

    /// Room for an instance with so many memories, until it is dropped.
    ///
    /// # Errors
    /// [`PluginError::Engine`] if there are as many as the system has room for: one more could not be had, and with it no memory for
    /// anything else of the process.
    pub(crate) fn room(&self, memories: u64) -> Result<Room, PluginError> {
        self.inner.rooms.take(memories)
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

/// Lets all other threads go before this one.
fn give_way() {
    // Where that cannot be had, it is no harm.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(COMPILER_NICENESS);
}

/// How many instances there are, and how many there may be.
struct Rooms {
    taken: AtomicU64,
    most: u64,
}

impl Rooms {
    fn of_this_system() -> Self {
        let mappings = std::fs::read_to_string("/proc/sys/vm/max_map_count")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(USUAL_MAPPINGS);
        Self {
            taken: AtomicU64::new(0),
            // The other half is for all else that a process does.
            most: (mappings / MAPPINGS / 2).min(MAX_MEMORIES),
        }
    }

    fn take(self: &Arc<Self>, memories: u64) -> Result<Room, PluginError> {
        let memories = memories.max(1);
        let room = |taken: u64| Some(taken + memories).filter(|taken| *taken <= self.most);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .map_err(|taken| {
                PluginError::Engine(format!(
                    "{taken} memories of plugins are in use, and {} is the most that this system has room for; raise \
                     vm.max_map_count, or have fewer of them at a time",
                    self.most
                ))
            })?;
        Ok(Room {
            rooms: Arc::clone(self),
            memories,
        })
    }
}

/// Room for an instance.
pub(crate) struct Room {
    rooms: Arc<Rooms>,
    memories: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.rooms.taken.fetch_sub(self.memories, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_given_back_and_no_more_are_taken_than_there_are() {
        let rooms = Arc::new(Rooms {
            taken: AtomicU64::new(0),
            most: 10,
        });
        let seven = rooms.take(7).unwrap_or_else(|error| panic!("{error}"));
        let error = rooms.take(4).err().unwrap().to_string();
        assert!(
            error.contains("7 memories") && error.contains("10 is the most"),
            "{error}"
        );
        // One without a memory takes its stack.
        let others: Vec<_> = (0..3).map(|_| rooms.take(0)).collect();
        assert!(others.iter().all(Result::is_ok));
        assert!(rooms.take(1).is_err());
        drop(seven);
        assert!(rooms.take(7).is_ok());
    }

    #[test]
    fn half_of_the_mappings_of_the_process_are_left() {
        let rooms = Rooms::of_this_system();
        assert!(rooms.most > 0 && rooms.most <= MAX_MEMORIES);
    }
}

//! What one instance of a plugin may use.

use std::time::Duration;

use portolan_runtime::Capacity;
use wasmtime::ResourceLimiter;

use crate::memory::SharedMemory;

/// What one instance of a plugin may use, and what happens when it wants more. The defaults suit a small worker; each is a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, all linear memories together. More is refused, as `memory.grow` says it; most programs end with a trap
    /// then. Default 64 MiB.
    pub memory: usize,
    /// Elements of all tables together. Default 100 000: 800 KB.
    pub table_elements: usize,
    /// How long one call (a message, a timer, `start`, `stop`) may compute, waiting for its turn not counted. After that the
    /// instance is ended and started again. Default 1 s.
    pub time: Duration,
    /// How long one call of an interceptor may compute. After that the connection is ended. Default 100 ms.
    pub interceptor_time: Duration,
    /// What may wait for the plugin: twice that, as for every worker, and once more while it is not ready for the next message. Whoever
    /// sends more waits for [`patience`](Self::patience); then messages are dropped and counted, so that a plugin that hangs holds
    /// up nobody. Default 256 messages, 1 MiB.
    pub queue: Capacity,
    /// How long senders wait for a plugin that is not ready. Default 50 ms.
    pub patience: Duration,
    /// Log lines for each second. More are dropped, and one line says how many. Default 10.
    pub log_lines: u32,
    /// Timers that are set at a time. More are refused. Default 64.
    pub timers: usize,
    /// Keys in the storage. Default 1024.
    pub storage_keys: usize,
    /// Bytes in the storage, keys and values together. Default 1 MiB.
    pub storage_bytes: usize,
    /// How long after a failure the plugin is started again. Each further failure doubles it. Default 100 ms.
    pub restart_first: Duration,
    /// The longest time between a failure and the next start. Default 30 s. A plugin that has run for so long, and at least for ten
    /// seconds, begins anew.
    pub restart_most: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 * 1024 * 1024,
            table_elements: 100_000,
            time: Duration::from_secs(1),
            interceptor_time: Duration::from_millis(100),
            queue: Capacity::default(),
            patience: Duration::from_millis(50),
            log_lines: 10,
            timers: 64,
            storage_keys: 1024,
            storage_bytes: 1024 * 1024,
            restart_first: Duration::from_millis(100),
            restart_most: Duration::from_secs(30),
        }
    }
}

/// Longest key of the storage, in bytes.
pub const MAX_KEY: usize = 256;

/// Longest value of the storage, in bytes.
pub const MAX_VALUE: usize = 64 * 1024;

/// Longest text of a log line, in bytes.
pub const MAX_LOG_TEXT: usize = 4096;

/// Most random bytes of one call.
pub const MAX_RANDOM: u32 = 64 * 1024;

/// Core instances and tables of one instance: a plugin with an engine and its libraries has some 40.
const MAX_INSTANCES: usize = 64;

/// Counts what an instance holds, and refuses what is too much.
pub(crate) struct Meter {
    memory_limit: usize,
    table_limit: usize,
    memory: usize,
    tables: usize,
    /// What it was refused last: told with the trap that usually follows.
    pub(crate) refused: Option<String>,
    /// Where all of it comes from, and how much was taken there.
    shared: Option<(SharedMemory, u64)>,
}

/// What an element of a table takes.
const TABLE_ELEMENT: u64 = 8;

impl Meter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory_limit: limits.memory,
            table_limit: limits.table_elements,
            memory: 0,
            tables: 0,
            refused: None,
            shared: None,
        }
    }

    /// What the instance gets comes out of `shared`, its stack first; `None` if there is not even that.
    pub(crate) fn sharing(limits: &Limits, shared: &SharedMemory) -> Option<Self> {
        let stack = crate::engine::WASM_STACK as u64;
        shared.take(stack).then(|| {
            let mut meter = Self::new(limits);
            meter.shared = Some((shared.clone(), stack));
            meter
        })
    }

    /// Takes bytes from what is shared.
    fn take_shared(&mut self, bytes: u64) -> bool {
        let Some((shared, taken)) = &mut self.shared else {
            return true;
        };
        if !shared.take(bytes) {
            self.refused = Some(format!(
                "it wanted {bytes} bytes more, and {}",
                shared.exhausted()
            ));
            return false;
        }
        *taken += bytes;
        true
    }

    /// Bytes of memory that the instance has.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some((shared, taken)) = &self.shared {
            shared.give_back(*taken);
        }
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        most: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // It will not be: what its module allows itself is less.
        if most.is_some_and(|most| desired > most) {
            return Ok(false);
        }
        let wanted = self.memory.saturating_add(desired.saturating_sub(current));
        if wanted > self.memory_limit {
            self.refused = Some(format!(
                "it wanted {wanted} bytes of memory, and {} is its limit",
                self.memory_limit
            ));
            return Ok(false);
        }
        if !self.take_shared((wanted - self.memory) as u64) {
            return Ok(false);
        }
        self.memory = wanted;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        most: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if most.is_some_and(|most| desired > most) {
            return Ok(false);
        }
        let wanted = self.tables.saturating_add(desired.saturating_sub(current));
        if wanted > self.table_limit {
            self.refused = Some(format!(
                "it wanted {wanted} elements in tables, and {} is its limit",
                self.table_limit
            ));
            return Ok(false);
        }
        if !self.take_shared((wanted - self.tables) as u64 * TABLE_ELEMENT) {
            return Ok(false);
        }
        self.tables = wanted;
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_INSTANCES
    }

    fn memories(&self) -> usize {
        crate::shape::MAX_MEMORIES as usize
    }
}

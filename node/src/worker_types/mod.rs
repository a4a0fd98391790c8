//! Worker types: workers that the owner of a node starts by name.
//!
//! A **worker type** is a name, a configuration of its own, and a way to start a worker at an address. A program registers its
//! types with [`App`](crate::App) and has the whole command line for them, and the `workers:` section of the configuration file:
//!
//! ```text
//! portolan worker types
//! portolan worker start rate-limiter --address slow --config '{"to": "backend", "messages-per-second": 100}'
//! portolan worker show slow
//! portolan worker stop slow
//! ```
//!
//! What was started comes back when the node starts again, also after it was killed. A worker is reached by the workers of its
//! own node, and by others only if a policy lets them through (`--allow`).
//!
//! The configuration is any type that serde can read. A field that it does not have is refused, and every error names the field.
//! What the types cannot say is said with `#[serde(try_from = "…")]`, so that a value that cannot work is never made.
//!
//! | module | idea |
//! |---|---|
//! | `built_in` | the types that every node has: `rate-limiter`, `audit` |
//! | `config` | a configuration is read, and what is wrong with it is said |
//! | `place` | where a worker is started, and with what |
//! | `tally` | what a worker did: handled, failed, refused |

mod built_in;
mod config;
mod place;
mod tally;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::interceptors::InterceptorTypes;
use crate::state::check_alias;

pub(crate) use config::read as read_config;
pub use place::Place;
pub use tally::{Phase, Tally};

/// The most types that one program registers.
pub const MAX_TYPES: usize = 256;
/// The longest configuration of a worker, in bytes of JSON.
pub const MAX_CONFIG: usize = 64 * 1024;

type Check = dyn Fn(&Value) -> Result<()> + Send + Sync;
type Start = dyn Fn(&Value, Place) -> Result<()> + Send + Sync;

/// One worker type.
#[derive(Clone)]
pub struct WorkerType {
    name: Arc<str>,
    about: Arc<str>,
    check: Arc<Check>,
    start: Arc<Start>,
}

impl WorkerType {
    /// A type with this name. `about` is one sentence for `worker types`; `start` gets a configuration that was read and
    /// checked, and starts the worker at the [`Place`] that it is given.
    ///
    /// An error of `start` is told to whoever asked for the worker, and nothing is left behind.
    ///
    /// # Errors
    ///
    /// When the name is empty, longer than 100 bytes, or has white space, `/`, `:` or `#` in it.
    pub fn new<C, F>(name: &str, about: &str, start: F) -> Result<Self>
    where
        C: DeserializeOwned + 'static,
        F: Fn(C, Place) -> Result<()> + Send + Sync + 'static,
    {
        check_alias("worker types", name)?;
        let name: Arc<str> = name.into();
        let (of_check, of_start) = (Arc::clone(&name), Arc::clone(&name));
        Ok(Self {
            name,
            about: about.into(),
            check: Arc::new(move |value| config::read::<C>(&of_check, value).map(|_| ())),
            start: Arc::new(move |value, place| start(config::read(&of_start, value)?, place)),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does, in one sentence.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// Whether this is a configuration for it. Changes nothing.
    ///
    /// # Errors
    ///
    /// What is wrong, with the name of the field.
    pub fn check(&self, config: &Value) -> Result<()> {
        (self.check)(config)
    }

    /// Start a worker.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check), and what the type itself refuses.
    pub fn start(&self, config: &Value, place: Place) -> Result<()> {
        (self.start)(config, place)
    }
}

impl fmt::Debug for WorkerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerType")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The worker types of a program, by name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct WorkerTypes {
    types: BTreeMap<Arc<str>, WorkerType>,
    interceptors: InterceptorTypes,
}

impl WorkerTypes {
    /// Those that every node has.
    pub fn built_in() -> Self {
        built_in::types()
    }

    /// One more.
    ///
    /// # Errors
    ///
    /// When there is one of that name, or there are [`MAX_TYPES`].
    pub fn add(&mut self, worker_type: WorkerType) -> Result<()> {
        if self.types.contains_key(&worker_type.name) {
            return Err(Error::exists(format!(
                "there is already a worker type named `{}`",
                worker_type.name
            )));
        }
        if self.types.len() >= MAX_TYPES {
            return Err(Error::invalid(format!(
                "a program can have {MAX_TYPES} worker types"
            )));
        }
        self.types.insert(Arc::clone(&worker_type.name), worker_type);
        Ok(())
    }

    /// The interceptor types of the same program.
    pub fn interceptors(&self) -> &InterceptorTypes {
        &self.interceptors
    }

    /// To add interceptor types.
    pub fn interceptors_mut(&mut self) -> &mut InterceptorTypes {
        &mut self.interceptors
    }

    /// The type of this name.
    pub fn get(&self, name: &str) -> Option<&WorkerType> {
        self.types.get(name)
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &WorkerType> {
        self.types.values()
    }

    /// The type of this name, or what to say of it.
    pub(crate) fn known(&self, name: &str) -> Result<&WorkerType> {
        self.get(name).ok_or_else(|| {
            let shown: String = name.escape_debug().take(100).collect();
            let error = Error::not_found(format!("this program has no worker type `{shown}`"));
            let names: Vec<&str> = self.iter().map(WorkerType::name).collect();
            match crate::state::closest(name, names.iter().copied()) {
                Some(meant) => error.hint(format!("did you mean `{meant}`?")),
                None if names.is_empty() => error.hint("portolan worker types shows what there is"),
                None => error.hint(format!("it has {}", names.join(", "))),
            }
        })
    }
}

#[cfg(test)]
mod tests;

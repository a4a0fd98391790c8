//! Interceptor types: what the owner of a node can put between an application and its end of a portal, by name.
//!
//! A type is a name, a configuration of its own, and a way to make an [`Intercept`] of it. A program registers its types with
//! [`App::interceptor`](crate::App::interceptor), and the whole command line has them:
//!
//! ```text
//! portolan tcp-inlet create --to /node/n2/service/db --intercept NAME --intercept-config '{"field": "value"}'
//! ```
//!
//! Configurations are read as those of [worker types](crate::worker_types) are: a field that the type does not have is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use portolan_portal::Intercept;
use portolan_portal::intercept::{ConnectionInfo, Ended, Interceptor};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::state::check_alias;
use crate::worker_types::{MAX_TYPES, read_config};

#[cfg(feature = "plugins")]
pub(crate) mod plugin;

#[cfg(feature = "plugins")]
pub use plugin::of_plugin;

type Make = dyn Fn(&Value) -> Result<Arc<dyn Intercept>> + Send + Sync;

/// One interceptor type.
#[derive(Clone)]
pub struct InterceptorType {
    name: Arc<str>,
    about: Arc<str>,
    make: Arc<Make>,
}

impl InterceptorType {
    /// A type with this name; `about` is one sentence. `make` gets a configuration that was read and checked, and is called once for
    /// each inlet and outlet that uses it.
    ///
    /// # Errors
    ///
    /// When the name is empty, longer than 100 bytes, or has white space, `/`, `:` or `#` in it.
    pub fn new<C, I, F>(name: &str, about: &str, make: F) -> Result<Self>
    where
        C: DeserializeOwned + 'static,
        I: Intercept + 'static,
        F: Fn(C) -> Result<I> + Send + Sync + 'static,
    {
        check_alias("interceptors", name)?;
        let name: Arc<str> = name.into();
        let of = Arc::clone(&name);
        Ok(Self {
            name,
            about: about.into(),
            make: Arc::new(move |config| {
                let intercept = make(read_config(&of, config)?)?;
                Ok(Arc::new(intercept) as Arc<dyn Intercept>)
            }),
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

    /// For one inlet or outlet.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration.
    pub fn make(&self, config: &Value) -> Result<Arc<dyn Intercept>> {
        (self.make)(config)
    }
}

impl fmt::Debug for InterceptorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InterceptorType")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The interceptor types of a program, by name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct InterceptorTypes {
    types: BTreeMap<Arc<str>, InterceptorType>,
}

impl InterceptorTypes {
    /// One more.
    ///
    /// # Errors
    ///
    /// When there is one of that name, or there are [`MAX_TYPES`].
    pub fn add(&mut self, interceptor: InterceptorType) -> Result<()> {
        if self.types.contains_key(&interceptor.name) {
            return Err(Error::exists(format!(
                "there is already an interceptor named `{}`",
                interceptor.name
            )));
        }
        if self.types.len() >= MAX_TYPES {
            return Err(Error::invalid(format!(
                "a program can have {MAX_TYPES} interceptor types"
            )));
        }
        self.types.insert(Arc::clone(&interceptor.name), interceptor);
        Ok(())
    }

    /// The type of this name.
    pub fn get(&self, name: &str) -> Option<&InterceptorType> {
        self.types.get(name)
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &InterceptorType> {
        self.types.values()
    }

    /// What to say of a name that nobody knows. `plugins`: names of further ones.
    pub(crate) fn unknown(&self, name: &str, plugins: &[String]) -> Error {
        let shown: String = name.escape_debug().take(100).collect();
        let error = Error::not_found(format!("this node has no interceptor `{shown}`"));
        let names: Vec<&str> = self
            .iter()
            .map(InterceptorType::name)
            .chain(plugins.iter().map(String::as_str))
            .collect();
        match crate::state::closest(name, names.iter().copied()) {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None if names.is_empty() => error.hint("add a plugin: portolan plugin add FILE --name NAME; or start the node with the program that has it"),
            None => error.hint(format!("it has {}", names.join(", "))),
        }
    }
}

/// Stands where an interceptor should be that cannot be had: refuses each connection and says why, so that nothing passes without
/// having been seen.
pub(crate) struct Missing {
    pub(crate) name: String,
    pub(crate) reason: String,
}

impl Intercept for Missing {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self, _: &ConnectionInfo) -> std::result::Result<Box<dyn Interceptor>, Ended> {
        Err(Ended::failed(&self.reason))
    }
}

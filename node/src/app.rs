//! A program that is a node with worker types of its own.

use std::process::ExitCode;

use portolan_portal::Intercept;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::interceptors::InterceptorType;
use crate::worker_types::{Place, WorkerType, WorkerTypes};

/// The command line `portolan`, with worker types of this program's own beside those that every node has.
///
/// The program that calls [`run`](Self::run) does all that `portolan` does: its nodes, also those in the background, are this
/// very program, so that they know its types.
///
/// ```no_run
/// use portolan::runtime::{Context, Result, Routed, Worker};
///
/// /// What `--config` says. `deny_unknown_fields` is not needed: unknown fields are refused anyway.
/// #[derive(serde::Deserialize)]
/// struct Greeter {
///     greeting: String,
/// }
///
/// impl Worker for Greeter {
///     type Message = String;
///
///     async fn handle_message(&mut self, ctx: &mut Context, message: Routed<String>) -> Result<()> {
///         let answer = format!("{}, {}!", self.greeting, message.body()?);
///         ctx.send(message.return_route().clone(), answer).await
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     portolan::App::new()
///         .worker_type("greeter", "Greets whoever writes to it.", |greeter: Greeter, place| {
///             place.start(greeter)
///         })
///         .run()
/// }
/// ```
#[derive(Debug)]
#[must_use = "an App does nothing until it is run"]
pub struct App {
    types: WorkerTypes,
    /// The first thing that was wrong.
    mistake: Option<Error>,
}

impl Default for App {
    fn default() -> Self {
        Self::new()
    }
}

impl App {
    /// `portolan` as it is.
    pub fn new() -> Self {
        Self {
            types: WorkerTypes::built_in(),
            mistake: None,
        }
    }

    /// Add a worker type; see [`WorkerType::new`]. A name that is taken or no name ends [`run`](Self::run) with an error.
    pub fn worker_type<C, F>(mut self, name: &str, about: &str, start: F) -> Self
    where
        C: DeserializeOwned + 'static,
        F: Fn(C, Place) -> Result<()> + Send + Sync + 'static,
    {
        let added = WorkerType::new(name, about, start).and_then(|new| self.types.add(new));
        if let Err(error) = added {
            self.mistake.get_or_insert(error);
        }
        self
    }

    /// Add an interceptor type for portals; see [`InterceptorType::new`]. A name that is taken or no name ends
    /// [`run`](Self::run) with an error.
    ///
    /// ```no_run
    /// use portolan::portal::intercept::{ConnectionInfo, Direction, Ended, Filter, Inline, Intercept, Interceptor, Output};
    /// use portolan::runtime::Payload;
    ///
    /// #[derive(Clone, serde::Deserialize)]
    /// struct Limit {
    ///     bytes: usize,
    /// }
    ///
    /// impl Intercept for Limit {
    ///     fn name(&self) -> &str {
    ///         "limit"
    ///     }
    ///
    ///     fn open(&self, _: &ConnectionInfo) -> Result<Box<dyn Interceptor>, Ended> {
    ///         Ok(Inline::boxed(self.clone()))
    ///     }
    /// }
    ///
    /// impl Filter for Limit {
    ///     fn data(&mut self, _: Direction, bytes: Payload, output: &mut Output) -> Result<(), Ended> {
    ///         self.bytes = self.bytes.checked_sub(bytes.len()).ok_or(Ended::because("that was too much"))?;
    ///         output.push(bytes);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// fn main() -> std::process::ExitCode {
    ///     portolan::App::new()
    ///         .interceptor("limit", "Ends connections that carry too much.", |limit: Limit| Ok(limit))
    ///         .run()
    /// }
    /// ```
    pub fn interceptor<C, I, F>(mut self, name: &str, about: &str, make: F) -> Self
    where
        C: DeserializeOwned + 'static,
        I: Intercept + 'static,
        F: Fn(C) -> Result<I> + Send + Sync + 'static,
    {
        let added =
            InterceptorType::new(name, about, make).and_then(|new| self.types.interceptors_mut().add(new));
        if let Err(error) = added {
            self.mistake.get_or_insert(error);
        }
        self
    }

    /// Run the command line of this process and say how it ended.
    pub fn run(self) -> ExitCode {
        crate::cli::run_with(match self.mistake {
            Some(error) => Err(error),
            None => Ok(self.types),
        })
    }
}

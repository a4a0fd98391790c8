//! Interceptors: plugins that stand in portal connections.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use portolan_runtime::PeerIdentifier;

use crate::component::Kind;
use crate::error::one_line;
use crate::host::{Host, said};
use crate::instance::{self, Direction, InterceptorFunctions, Running, Side, Verdict};
use crate::limits::{Limits, Meter};
use crate::log::Log;
use crate::memory::SharedMemory;
use crate::status::Counter;
use crate::{Plugin, PluginError};

/// One TCP connection through a portal, as its interceptor is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Which end of the portal this is.
    pub side: Side,
    /// The peer at the other end of the secure channel, if there is one.
    pub peer: Option<PeerIdentifier>,
    /// What an authority has signed for that peer.
    pub attributes: Vec<(String, String)>,
    /// At an inlet the address of the client, at an outlet that of the service.
    pub endpoint: Option<String>,
}

/// What is known of the interceptors of one portal. Numbers count from when they were set up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterceptorStatus {
    /// Connections that were opened.
    pub opened: u64,
    /// Connections that the plugin did not let begin.
    pub refused: u64,
    /// Connections that the plugin ended.
    pub ended: u64,
    /// Connections that ended because the plugin broke down.
    pub failed: u64,
    /// Instances that there are now.
    pub instances: u64,
    /// Log lines that were written.
    pub log_lines: u64,
    /// Log lines that were too many.
    pub log_lines_dropped: u64,
    /// Why a connection was last refused or ended.
    pub last_error: Option<String>,
}

/// The interceptors of one inlet or outlet: a plugin, its configuration, and what its instances share. Cheap to clone.
///
/// Each connection gets an instance of its own, so that no peer can learn anything of another one through a plugin, and a plugin that
/// breaks down ends one connection.
#[derive(Clone)]
pub struct Interceptors {
    inner: Arc<Inner>,
}

struct Inner {
    portal: String,
    config: RwLock<(Plugin, Arc<str>)>,
    limits: Limits,
    memory: SharedMemory,
    log: Arc<Log>,
    opened: Counter,
    refused: Counter,
    ended: Counter,
    failed: Counter,
    instances: Arc<()>,
    last_error: Mutex<Option<String>>,
}

impl std::fmt::Debug for Interceptors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interceptors")
            .field("portal", &self.inner.portal)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Interceptors {
    /// Interceptors for the inlet or outlet with the name `portal`. The configuration is given to the plugin with each connection. All
    /// connections together have [`INTERCEPTOR_MEMORY`](crate::INTERCEPTOR_MEMORY).
    ///
    /// # Errors
    /// If the plugin is no interceptor.
    pub fn new(
        plugin: &Plugin,
        portal: impl Into<String>,
        config: impl Into<String>,
        limits: Limits,
    ) -> Result<Self, PluginError> {
        Self::within(plugin, portal, config, limits, SharedMemory::default())
    }

    /// As [`Interceptors::new`], with this memory, which others may share.
    ///
    /// # Errors
    /// If the plugin is no interceptor.
    pub fn within(
        plugin: &Plugin,
        portal: impl Into<String>,
        config: impl Into<String>,
        limits: Limits,
        memory: SharedMemory,
    ) -> Result<Self, PluginError> {
        plugin.require(Kind::Interceptor)?;
        let portal = portal.into();
        Ok(Self {
            inner: Arc::new(Inner {
                log: Arc::new(Log::new(plugin.label(), portal.clone(), limits.log_lines)),
                portal,
                config: RwLock::new((plugin.clone(), config.into().into())),
                limits,
                memory,
                opened: Counter::default(),
                refused: Counter::default(),
                ended: Counter::default(),
                failed: Counter::default(),
                instances: Arc::default(),
                last_error: Mutex::default(),
            }),
        })
    }

    /// The plugin of connections that begin now.
    pub fn plugin(&self) -> Plugin {
        self.inner.config.read().0.clone()
    }

    /// Puts another plugin, or a new version, in its place, for connections that begin from now on. Open ones keep theirs. `None` keeps
    /// the configuration.
    ///
    /// # Errors
    /// If the plugin is no interceptor.
    pub fn replace(&self, plugin: &Plugin, config: Option<String>) -> Result<(), PluginError> {
        plugin.require(Kind::Interceptor)?;
        let mut current = self.inner.config.write();
        current.0 = plugin.clone();
        if let Some(config) = config {
            current.1 = config.into();
        }
        Ok(())
    }

    /// How they are doing.
    pub fn status(&self) -> InterceptorStatus {
        let inner = &self.inner;
        // For an interceptor nobody waits in a loop that could say so: whoever looks writes the line that is due.
        let _ = inner.log.settle();
        InterceptorStatus {
            opened: inner.opened.get(),
            refused: inner.refused.get(),
            ended: inner.ended.get(),
            failed: inner.failed.get(),
            instances: Arc::strong_count(&inner.instances) as u64 - 1,
            log_lines: inner.log.written.get(),
            log_lines_dropped: inner.log.dropped.get(),
            last_error: inner.last_error.lock().clone(),
        }
    }

    /// Makes the instance of one connection, and asks it whether the connection may begin.
    ///
    /// # Errors
    /// If the plugin refuses the connection ([`PluginError::Rejected`], with its reason) or breaks down.
    pub async fn open(&self, connection: &Connection) -> Result<Interceptor, PluginError> {
        let inner = &self.inner;
        let (plugin, config) = inner.config.read().clone();
        let result = self.begin(&plugin, &config, connection).await;
        match &result {
            Ok(_) => inner.opened.add(1),
            Err(error) => {
                inner.note(error);
                match error {
                    PluginError::Rejected(_) => inner.refused.add(1),
                    _ => inner.failed.add(1),
                }
            }
        }
        result
    }

    async fn begin(
        &self,
        plugin: &Plugin,
        config: &str,
        connection: &Connection,
    ) -> Result<Interceptor, PluginError> {
        let inner = &self.inner;
        let limits = &inner.limits;
        let meter = Meter::sharing(limits, &inner.memory)
            .ok_or_else(|| PluginError::Memory(inner.memory.exhausted()))?;
        let host = Host::new(meter, Arc::clone(&inner.log), None);
        let mut running = Running::new(
            plugin,
            host,
            InterceptorFunctions::find,
            limits.interceptor_time,
            |_, _| true,
        )
        .await?;
        let peer = connection.peer.map(|peer| peer.to_string());
        let told = instance::Connection {
            side: connection.side,
            portal: &inner.portal,
            peer: peer.as_deref(),
            attributes: &connection.attributes,
            endpoint: connection.endpoint.as_deref(),
        };
        let open = running.functions.open;
        let (answer,) = running
            .call("open", open, (config, told), limits.interceptor_time, |_, _| true)
            .await?;
        answer.map_err(|text| PluginError::Rejected(said(&text)))?;
        running.rest();
        Ok(Interceptor {
            running: Some(running),
            ended: None,
            inner: Arc::clone(inner),
            _counted: Arc::clone(&inner.instances),
        })
    }
}

impl Inner {
    fn note(&self, error: &PluginError) {
        self.log.about(format_args!("{error}"));
        *self.last_error.lock() = Some(error.to_string());
    }
}

/// The interceptor of one portal connection: bytes in, verdict out.
///
/// # Where it runs
///
/// A call computes on the thread on which it is awaited. It gives way at least every 2 ms, so that a plugin that loops takes turns with
/// everything else on that thread until [`Limits::interceptor_time`] is used up; yet that is a delay for whatever else moves there. A
/// node should therefore run the tasks of intercepted connections on arbiters that
/// [stand aside](portolan_runtime::Placement::Aside), and leave those of other connections where they are.
///
/// # What is left after an error
///
/// Nothing: a call that fails, or whose future is dropped in the middle, ends the interceptor, and every later call says so. The
/// connection must be ended then, with the error as its reason, since nobody knows what the plugin would have done with the bytes.
pub struct Interceptor {
    running: Option<Running<InterceptorFunctions>>,
    ended: Option<String>,
    inner: Arc<Inner>,
    _counted: Arc<()>,
}

impl std::fmt::Debug for Interceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interceptor")
            .field("portal", &self.inner.portal)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Interceptor {
    /// Bytes have come, in this direction. After [`Verdict::End`] no further call is possible.
    ///
    /// # Errors
    /// If the plugin breaks down or takes too long, now or before.
    pub async fn data(&mut self, direction: Direction, bytes: &[u8]) -> Result<Verdict, PluginError> {
        let mut running = self.take()?;
        let data = running.functions.data;
        let time = self.inner.limits.interceptor_time;
        let verdict = running
            .call("data", data, (direction, bytes), time, |_, _| true)
            .await;
        match verdict {
            Ok((Verdict::End(reason),)) => {
                let reason = one_line(&reason, 512);
                self.inner.ended.add(1);
                *self.inner.last_error.lock() = Some(format!("ended by the plugin: {reason}"));
                self.ended = Some(reason.clone());
                // It may still say goodbye.
                self.give_back(running);
                Ok(Verdict::End(reason))
            }
            Ok((verdict,)) => {
                self.give_back(running);
                Ok(verdict)
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// No more bytes come in this direction. Gives what the plugin wants to be sent before the end.
    ///
    /// # Errors
    /// If the plugin breaks down or takes too long, now or before.
    pub async fn end(&mut self, direction: Direction) -> Result<Vec<u8>, PluginError> {
        let mut running = self.take()?;
        let end = running.functions.end;
        let time = self.inner.limits.interceptor_time;
        match running.call("end", end, (direction,), time, |_, _| true).await {
            Ok((bytes,)) => {
                self.give_back(running);
                Ok(bytes)
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// The connection has ended: lets the plugin say goodbye. What goes wrong is only logged.
    pub async fn close(mut self) {
        self.ended = None;
        let Ok(mut running) = self.take() else {
            return;
        };
        let close = running.functions.close;
        let time = self.inner.limits.interceptor_time;
        if let Err(error) = running.call("close", close, (), time, |_, _| true).await {
            self.inner.note(&error);
        }
    }

    /// Bytes of memory that the instance has.
    pub fn memory(&self) -> usize {
        self.running
            .as_ref()
            .map_or(0, |running| running.store.data().meter.memory())
    }

    /// Taken out, so that it is gone if the call does not return.
    fn take(&mut self) -> Result<Running<InterceptorFunctions>, PluginError> {
        let over = |reason: &Option<String>| {
            let reason = reason.as_deref().unwrap_or("a call was given up in the middle");
            PluginError::Ended(reason.to_owned())
        };
        if self.ended.is_some() {
            return Err(over(&self.ended));
        }
        self.running.take().ok_or_else(|| over(&None))
    }

    fn give_back(&mut self, mut running: Running<InterceptorFunctions>) {
        running.rest();
        self.running = Some(running);
    }

    fn fail(&mut self, error: PluginError) -> PluginError {
        self.inner.failed.add(1);
        self.inner.note(&error);
        self.ended = Some(error.to_string());
        error
    }
}

//! Inlets: where applications enter a portal.
//!
//! An inlet listens from the moment it is created, whether or not its outlet can be reached. A session builds the path to the
//! outlet and builds it again when it is lost; as long as there is none, clients are closed at once.
//!
//! A path is one transport connection with its channels, and runs on one arbiter. An inlet can have several side by side, its
//! *stripes*, each with a session of its own on an arbiter of its own: they share nothing, so that one that breaks is built
//! again while the others go on. A new client gets the one with the fewest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use portolan_identity::Identifier;
use portolan_policy::ResourceType;
use portolan_portal::{DelayHook, FailureHook, FailureKind, Inlet, InletOptions, Interception, MAX_STRIPES};
use portolan_relay::{Connection, SessionMonitor, SessionSettings, SessionStatus};
use portolan_runtime::{Address, Node, Placement, Route};
use tokio::sync::{Notify, watch};

use super::connect::Path;
use super::core::{Core, identifiers};
use super::guard::Guard;
use super::membership::FIRST_CREDENTIAL;
use super::outlets::{last_failure, unsupported};
use super::policies::{Issuer, checked};
use super::running::Running;
use super::services::local_name;
use crate::control::api::{ConnectionStatus, CreateInlet, InletStatus, PolicyTarget, StripeStatus, Traffic};
use crate::error::{Error, Result};
use crate::host_port::HostPort;
use crate::multiaddr::MultiAddr;
use crate::state::{InletSpec, check_alias, random_name};

/// Limit for connection and channels to the outlet. As long as the outlet's node or its relay is not there, the path is open up
/// to the relay node and waits for the rest, which is cheaper for both than to begin from the start.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// When an outlet lets a client wait: how long the node that it is on may take to answer a ping, until the path is
/// given up. Without it, a dead path would be noticed by the session's own pings only, half a minute later.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest pause between attempts to connect, unless the owner wants another one. Applications wait for it.
const LONGEST_DELAY: Duration = Duration::from_secs(4);
/// Pause between attempts to listen, for a stored inlet whose port is taken when the node starts.
const BIND_RETRY: Duration = Duration::from_secs(2);

/// One inlet that this node wants to have.
pub(super) struct OpenInlet {
    spec: InletSpec,
    issuer: Issuer,
    intercept: Option<Interception>,
    failed: Arc<AtomicU64>,
    shared: Arc<Shared>,
    stripes: Vec<Arc<Stripe>>,
    /// `None` while its port is taken.
    listening: Mutex<Option<Listening>>,
}

struct Listening {
    inlet: Inlet,
    /// One for each stripe; none where the outlet is on this very node: there is no path that could be lost.
    sessions: Vec<SessionMonitor>,
}

/// What the sessions' closures and the status share.
struct Shared {
    core: Arc<Core>,
    to: MultiAddr,
    identity: Option<String>,
    authorized: Vec<Identifier>,
    /// Why it does not listen.
    not_listening: Mutex<Option<String>>,
}

/// One of the paths side by side.
struct Stripe {
    shared: Arc<Shared>,
    index: usize,
    placement: Placement,
    /// A client got no answer.
    suspicion: Arc<Notify>,
    route: Mutex<Option<Route>>,
    /// Why the path that is being built is not there yet.
    waiting_for: Mutex<Option<String>>,
}

/// A path in use. When the session drops it, no new client gets it.
struct InUse {
    stripe: Arc<Stripe>,
    inlet: Inlet,
    _path: Path,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.inlet.pause_stripe(
            self.stripe.index,
            "the path to the outlet was lost and is being built again",
        );
        *self.stripe.route.lock() = None;
    }
}

impl Stripe {
    async fn connect(self: Arc<Self>, inlet: Inlet) -> Result<Connection> {
        let opened = self.open(&inlet).await;
        *self.waiting_for.lock() = None;
        let path = opened.inspect_err(|error| {
            inlet.pause_stripe(self.index, format!("the outlet cannot be reached: {error}"));
        })?;
        let transport_route = path.transport_route();
        let lost = lost(
            self.shared.core.node().clone(),
            &path,
            transport_route.clone(),
            Arc::clone(&self.suspicion),
        );
        *self.route.lock() = Some(path.route().clone());
        inlet.connect_stripe(self.index, path.route().clone());
        let used = InUse {
            stripe: Arc::clone(&self),
            inlet,
            _path: path,
        };
        Ok(Connection::new(transport_route, lost).keep(used))
    }

    async fn open(self: &Arc<Self>, inlet: &Inlet) -> Result<Path> {
        let shared = &self.shared;
        let mut appearance = shared
            .core
            .appearance(
                &shared.to,
                shared.identity.as_deref(),
                &shared.authorized,
                CONNECT_TIMEOUT,
            )
            .await?;
        let (stripe, inlet) = (Arc::clone(self), inlet.clone());
        // The route as it was asked for: people do not know the addresses that it was resolved to.
        let to = shared.to.to_string();
        appearance.waiting = Some(Arc::new(move || {
            let reason = format!(
                "nobody answers at {to} yet: its relay or the node behind it is not there, or does not let this node through"
            );
            inlet.pause_stripe(stripe.index, format!("the outlet cannot be reached: {reason}"));
            *stripe.waiting_for.lock() = Some(reason);
        }));
        shared
            .core
            .connector
            .connect_on(&shared.to, &appearance, self.placement)
            .await
    }

    fn status(&self, session: Option<&SessionStatus>, connections: u64) -> StripeStatus {
        let is_up = session.is_none_or(SessionStatus::is_up);
        let down = || {
            let waiting = self.waiting_for.lock().clone();
            waiting.or_else(|| Some(session?.reason.as_ref()?.to_string()))
        };
        StripeStatus {
            status: if is_up {
                ConnectionStatus::Up
            } else {
                ConnectionStatus::Down
            },
            outlet_route: self.route.lock().as_ref().map(ToString::to_string),
            connections,
            last_failure: if is_up { None } else { down() },
        }
    }
}

/// Resolves when the path is lost: a part of it has ended, or a client got no answer and the node at its end does not answer
/// a ping either.
fn lost(
    node: Node,
    path: &Path,
    transport_route: Route,
    suspicion: Arc<Notify>,
) -> impl Future<Output = String> + Send + 'static {
    let ended = path.lost();
    let channel = path.channel().cloned();
    // A ping waits behind what is on its way already: where that goes on arriving, nobody is gone.
    let heard = move || channel.as_ref().map(|channel| channel.info().received_messages);
    async move {
        let silent = async {
            loop {
                suspicion.notified().await;
                let mut echo = transport_route.clone();
                echo.push(Address::local("echo"));
                let before = heard();
                let ping = node.send_and_receive_within::<Vec<u8>, Vec<u8>>(PROBE_TIMEOUT, echo, vec![0]);
                if ping.await.is_err() && heard() == before {
                    return "the node at the other end does not answer".to_owned();
                }
            }
        };
        tokio::select! {
            reason = ended => reason,
            reason = silent => reason,
        }
    }
}

impl OpenInlet {
    fn new(
        core: &Arc<Core>,
        spec: InletSpec,
        to: MultiAddr,
        issuer: Issuer,
        intercept: Option<Interception>,
    ) -> Result<Self> {
        let count = usize::from(spec.stripes);
        if !(1..=MAX_STRIPES).contains(&count) {
            return Err(Error::invalid(format!(
                "an inlet has 1 to {MAX_STRIPES} paths, not {count}"
            )));
        }
        let shared = Arc::new(Shared {
            core: Arc::clone(core),
            to,
            identity: spec.identity.clone(),
            authorized: identifiers(&spec.authorized)?,
            not_listening: Mutex::default(),
        });
        let first = core.node().next_arbiter();
        let stripes = (0..count).map(|index| {
            Arc::new(Stripe {
                shared: Arc::clone(&shared),
                index,
                placement: Placement::Index(first + index),
                suspicion: Arc::default(),
                route: Mutex::default(),
                waiting_for: Mutex::default(),
            })
        });
        Ok(Self {
            spec,
            issuer,
            intercept,
            failed: Arc::default(),
            stripes: stripes.collect(),
            shared,
            listening: Mutex::default(),
        })
    }

    fn options(&self) -> InletOptions {
        let guard = Guard::policy(
            &self.shared.core.policies,
            ResourceType::TcpInlet,
            &self.spec.alias,
            self.issuer,
        );
        let failed = Arc::clone(&self.failed);
        let suspicions: Vec<_> = self
            .stripes
            .iter()
            .map(|stripe| Arc::clone(&stripe.suspicion))
            .collect();
        // Those that are well answer the ping.
        let on_delay: DelayHook =
            Arc::new(move || suspicions.iter().for_each(|suspicion| suspicion.notify_one()));
        let suspect = Arc::clone(&on_delay);
        let on_failure: FailureHook = Arc::new(move |failure| {
            failed.fetch_add(1, Ordering::Relaxed);
            if failure.kind == FailureKind::NoAnswer {
                suspect();
            }
        });
        InletOptions {
            incoming: guard.incoming(),
            outgoing: guard.outgoing(),
            enable_nagle: self.spec.enable_nagle,
            stripes: self.stripes.len(),
            on_failure: Some(on_failure),
            on_delay: Some(on_delay),
            memory: self.shared.core.windows.clone(),
            intercept: self.intercept.clone(),
            ..InletOptions::default()
        }
    }

    /// Bind the socket. The bind is the test whether the port is free.
    async fn bind(&self) -> Result<Inlet> {
        let from = &self.spec.from;
        let node = self.shared.core.node();
        Inlet::start(node, from, self.options()).await.map_err(|error| {
            let portolan_runtime::Error::Io { source, .. } = &error else {
                return Error::failed(error.to_string());
            };
            match source.kind() {
                std::io::ErrorKind::AddrInUse => {
                    Error::exists(format!("{from} is in use already"))
                        .hint("choose another port, or 0 for a free one; `portolan tcp-inlet list` shows this node's inlets")
                }
                std::io::ErrorKind::AddrNotAvailable => {
                    Error::invalid(format!("{from} is not an address of this machine"))
                }
                std::io::ErrorKind::PermissionDenied => {
                    Error::invalid(format!("this user may not listen on {from}"))
                        .hint("choose a port above 1023")
                }
                _ => Error::failed(error.to_string()),
            }
        })
    }

    /// Begin to look for paths.
    fn listen(&self, inlet: Inlet) -> Result<()> {
        *self.shared.not_listening.lock() = None;
        let local = self.shared.to.components().iter().all(|component| {
            matches!(
                component,
                crate::multiaddr::Component::Service(_) | crate::multiaddr::Component::Worker(_)
            )
        });
        let mut sessions = Vec::new();
        if local {
            let mut route = Route::new();
            for component in self.shared.to.components() {
                if let crate::multiaddr::Component::Service(name)
                | crate::multiaddr::Component::Worker(name) = component
                {
                    route.push(Address::local(name));
                }
            }
            for stripe in &self.stripes {
                *stripe.route.lock() = Some(route.clone());
                inlet.connect_stripe(stripe.index, route.clone());
            }
        } else {
            let mut settings = SessionSettings {
                connect_timeout: CONNECT_TIMEOUT + FIRST_CREDENTIAL,
                longest_delay: LONGEST_DELAY,
                ..SessionSettings::default()
            };
            if self.spec.retry_wait_ms > 0 {
                settings.longest_delay = Duration::from_millis(self.spec.retry_wait_ms);
                settings.first_delay = settings.first_delay.min(settings.longest_delay);
            }
            for stripe in &self.stripes {
                let (stripe, listening) = (Arc::clone(stripe), inlet.clone());
                let session = SessionMonitor::start(self.shared.core.node(), settings, move || {
                    Arc::clone(&stripe).connect(listening.clone())
                });
                sessions.push(session.map_err(|error| Error::failed(error.to_string()))?);
            }
        }
        *self.listening.lock() = Some(Listening { inlet, sessions });
        Ok(())
    }

    fn sessions(&self) -> Vec<watch::Receiver<SessionStatus>> {
        self.listening.lock().as_ref().map_or_else(Vec::new, |listening| {
            listening.sessions.iter().map(SessionMonitor::status).collect()
        })
    }

    /// Open connections look whether they may still be.
    pub(super) fn ask_rules_again(&self) {
        if let Some(listening) = &*self.listening.lock() {
            listening.inlet.status().ask_rules_again();
        }
    }

    fn status(&self) -> InletStatus {
        let listening = self.listening.lock();
        let stripes: Vec<StripeStatus> = match &*listening {
            None => Vec::new(),
            Some(listening) => self
                .stripes
                .iter()
                .map(|stripe| {
                    let session = listening.sessions.get(stripe.index).map(SessionMonitor::current);
                    stripe.status(session.as_ref(), listening.inlet.connections_on(stripe.index))
                })
                .collect(),
        };
        let first_up = stripes
            .iter()
            .find(|stripe| stripe.status == ConnectionStatus::Up);
        let is_up = first_up.is_some();
        let portal = listening.as_ref().map(|listening| listening.inlet.status());
        let not_listening = self.shared.not_listening.lock().clone();
        let down = not_listening.or_else(|| stripes.iter().find_map(|stripe| stripe.last_failure.clone()));
        let client = portal.and_then(|status| last_failure(status));
        InletStatus {
            alias: self.spec.alias.clone(),
            bind_addr: listening.as_ref().map_or_else(
                || self.spec.from.clone(),
                |listening| listening.inlet.local().to_string(),
            ),
            outlet_addr: self.spec.to.clone(),
            intercept: self.spec.intercept.clone(),
            outlet_route: first_up.and_then(|stripe| stripe.outlet_route.clone()),
            worker_addr: listening
                .as_ref()
                .map(|listening| local_name(listening.inlet.address())),
            status: if is_up {
                ConnectionStatus::Up
            } else {
                ConnectionStatus::Down
            },
            // While it is down, why it is; else what happened to a client last.
            last_failure: if is_up { client.or(down) } else { down.or(client) },
            policy: self
                .shared
                .core
                .policies
                .in_force(ResourceType::TcpInlet, &self.spec.alias, self.issuer),
            connections: portal.map_or(0, |status| status.open()),
            stripes,
            traffic: portal.map_or_else(Traffic::default, |status| Traffic {
                connections: status.total(),
                failed: self.failed.load(Ordering::Relaxed),
                bytes_up: status.from_application(),
                bytes_down: status.to_application(),
            }),
        }
    }
}

impl Running {
    /// Bring back a stored inlet. If its port is taken at this moment, it is tried again until it is free.
    pub(super) async fn restore_inlet(self: &Arc<Self>, spec: InletSpec) {
        let alias = spec.alias.clone();
        let made = async {
            let to = MultiAddr::from_argument(&spec.to)?;
            let issuer = self.core.issuer(&to).await?;
            let intercept = self
                .restored_interception(&spec.alias, spec.intercept.as_ref(), issuer)
                .await;
            OpenInlet::new(&self.core, spec, to, issuer, intercept)
        };
        let inlet = match made.await {
            Ok(inlet) => Arc::new(inlet),
            Err(error) => {
                tracing::error!(inlet = alias, "a stored inlet cannot be restored: {error}");
                return;
            }
        };
        self.inlets.lock().insert(alias.clone(), Arc::clone(&inlet));
        if let Err(error) = Self::try_listen(&inlet).await {
            tracing::error!(
                inlet = alias,
                "a stored inlet cannot listen, and will be tried again: {error}"
            );
            let inlet = Arc::downgrade(&inlet);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(BIND_RETRY).await;
                    let Some(inlet) = inlet.upgrade() else { return };
                    if inlet.shared.core.node().is_stopping() || Self::try_listen(&inlet).await.is_ok() {
                        return;
                    }
                }
            });
        }
    }

    async fn try_listen(inlet: &Arc<OpenInlet>) -> Result<()> {
        let listening = match inlet.bind().await {
            Ok(listening) => inlet.listen(listening),
            Err(error) => Err(error),
        };
        listening.inspect_err(|error| *inlet.shared.not_listening.lock() = Some(error.to_string()))
    }

    /// Have an inlet from now on.
    pub(crate) async fn create_inlet(self: &Arc<Self>, request: CreateInlet) -> Result<InletStatus> {
        unsupported(request.skip_handshake)?;
        let from: HostPort = request
            .from
            .parse()
            .map_err(|error| Error::invalid(format!("`{}`: {error}", request.from)))?;
        let to = MultiAddr::from_argument(&request.to)?;
        if to.is_empty() {
            return Err(Error::invalid("the route to the outlet is empty"));
        }
        self.adopt_project();
        // One at a time, so that of two requests for one alias the second sees the first.
        let _turn = self.creating_inlets.lock().await;
        let is_taken = |alias: &str| self.inlets.lock().contains_key(alias);
        let alias = match request.alias {
            Some(alias) => {
                check_alias("inlets", &alias)?;
                if let Some(other) = self.inlets.lock().get(&alias) {
                    return Err(Error::exists(format!(
                        "this node already has an inlet named `{alias}`, at {}",
                        other.spec.from
                    ))
                    .hint(format!("delete it first: portolan tcp-inlet delete {alias}")));
                }
                alias
            }
            None => random_name(is_taken)?,
        };
        let target = PolicyTarget::Resource(alias.clone());
        if let Some(expression) = &request.allow {
            checked(&target, expression)?;
        }
        if let Some(name) = &request.identity {
            self.core.identity(Some(name)).await?;
        }
        let issuer = self.core.issuer(&to).await?;
        let spec = InletSpec {
            alias: alias.clone(),
            from: from.to_string(),
            to: to.to_string(),
            identity: request.identity,
            authorized: request.authorized,
            retry_wait_ms: request.retry_wait_ms,
            skip_handshake: request.skip_handshake,
            enable_nagle: request.enable_nagle,
            stripes: request.stripes,
            intercept: request.intercept,
        };
        let found = self.interceptor(spec.intercept.as_ref()).await?;
        let intercept = self.interception(&alias, found, issuer)?;
        let mut inlet = OpenInlet::new(&self.core, spec, to, issuer, intercept)?;
        let listening = inlet.bind().await?;
        // What the system chose is kept, so that the inlet is at the same place after a restart.
        inlet.spec.from = listening.local().to_string();
        let database = self.node.database();
        let before = self.core.policies.get(&target);
        let written = request
            .allow
            .as_ref()
            .map_or(Ok(()), |expression| {
                self.core.policies.set(database, &target, expression).map(|_| ())
            })
            .and_then(|()| database.put_inlet(&inlet.spec));
        if let Err(error) = written {
            listening.stop_and_wait().await;
            if request.allow.is_some() {
                let _ = self.core.policies.put_back(database, &target, before);
            }
            return Err(error);
        }
        inlet.listen(listening)?;
        let inlet = Arc::new(inlet);
        self.inlets.lock().insert(alias, Arc::clone(&inlet));
        drop(_turn);
        let limit = Duration::from_millis(request.wait_ms);
        if !limit.is_zero() {
            let up = inlet.sessions().into_iter().map(|mut session| async move {
                let _ = session.wait_for(SessionStatus::is_up).await;
            });
            let _ = tokio::time::timeout(limit, join_all(up)).await;
        }
        Ok(inlet.status())
    }

    /// All inlets, sorted by alias.
    pub(crate) fn inlets(&self) -> Vec<InletStatus> {
        self.inlets.lock().values().map(|inlet| inlet.status()).collect()
    }

    /// One inlet.
    pub(crate) fn inlet(&self, alias: &str) -> Result<InletStatus> {
        self.inlets
            .lock()
            .get(alias)
            .map(|inlet| inlet.status())
            .ok_or_else(|| unknown(alias))
    }

    /// Close an inlet and its connections; its policy goes with it, unless an outlet of the same name has it too. Its port is
    /// free when this returns.
    pub(crate) async fn delete_inlet(&self, alias: &str) -> Result<()> {
        let inlet = {
            let mut inlets = self.inlets.lock();
            if !inlets.contains_key(alias) {
                return Err(unknown(alias));
            }
            self.node.database().delete_inlet(alias)?;
            inlets.remove(alias)
        };
        let listening = inlet.and_then(|inlet| inlet.listening.lock().take());
        if let Some(Listening { inlet, sessions }) = listening {
            inlet.stop_and_wait().await;
            join_all(sessions.into_iter().map(SessionMonitor::stop)).await;
        }
        // After the inlet, so that its connections never are under another policy; and not if an outlet has it too.
        if !self.outlets.lock().contains_key(alias) {
            let target = PolicyTarget::Resource(alias.to_owned());
            self.core.policies.delete(self.node.database(), &target)?;
        }
        Ok(())
    }
}

fn unknown(alias: &str) -> Error {
    Error::not_found(format!("this node has no inlet named `{alias}`"))
}

//! Relays that lead to this node: registered elsewhere, and kept registered.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portolan_identity::Identifier;
use portolan_relay::{
    Connection, RegisterOptions, RegisteredRelay, RegistrationError, RelayName, RelayRequest, SessionMonitor,
    SessionSettings, register,
};
use portolan_runtime::{Address, Flow};
use portolan_secure_channel::CredentialSource;

use super::core::{Core, identifiers};
use super::running::Running;
use crate::control::api::{ConnectionStatus, CreateRelay, RelayStatus};
use crate::error::{Error, ErrorCode, Result};
use crate::multiaddr::MultiAddr;
use crate::state::{RelaySpec, check_alias};

/// What the relay node may reach here: what it forwards is for the channel listener and its small companions, nothing else.
const REACHABLE: &[&str] = &["api", "echo", "uppercase"];
/// How long the relay service may take to answer.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(15);
/// Limit for connection and channel.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A registration that was refused is tried again after this time, or when our credential changes: somebody may have granted
/// the right meanwhile.
const REFUSED_PAUSE: Duration = Duration::from_secs(20);

/// One relay that this node wants to have.
pub(super) struct Relay {
    spec: RelaySpec,
    shared: Arc<Shared>,
    session: SessionMonitor,
}

/// What the session's closure and the status share.
struct Shared {
    core: Arc<Core>,
    at: MultiAddr,
    name: RelayName,
    authorized: Vec<Identifier>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    registered: Option<Registered>,
    /// The last attempt was refused by somebody who understood it.
    refused: bool,
}

#[derive(Clone)]
struct Registered {
    remote_address: String,
    /// What comes through the relay.
    flow: Arc<Flow>,
}

impl Relay {
    fn start(core: &Arc<Core>, spec: RelaySpec) -> Result<Self> {
        let at = MultiAddr::from_argument(&spec.at)?;
        let name = RelayName::new(&spec.relay_address)
            .map_err(|error| Error::invalid(format!("`{}`: {error}", spec.relay_address)))?;
        let shared = Arc::new(Shared {
            core: Arc::clone(core),
            at,
            name,
            authorized: identifiers(&spec.authorized)?,
            state: Mutex::default(),
        });
        let connecting = Arc::clone(&shared);
        let settings = SessionSettings {
            connect_timeout: REFUSED_PAUSE + CONNECT_TIMEOUT + REGISTRATION_TIMEOUT,
            ..SessionSettings::default()
        };
        let session = SessionMonitor::start(core.node(), settings, move || {
            let shared = Arc::clone(&connecting);
            async move { shared.connect().await }
        })
        .map_err(|error| Error::failed(error.to_string()))?;
        Ok(Self {
            spec,
            shared,
            session,
        })
    }

    fn status(&self) -> RelayStatus {
        let session = self.session.current();
        let state = self.shared.state.lock();
        let registered = state.registered.clone().filter(|_| session.is_up());
        RelayStatus {
            name: self.spec.name.clone(),
            at: self.spec.at.clone(),
            remote_address: registered
                .as_ref()
                .map(|relay| format!("/service/{}", relay.remote_address)),
            worker_address: registered.as_ref().map(|relay| relay.remote_address.clone()),
            flow_control_id: registered.as_ref().map(|relay| relay.flow.id().to_string()),
            connection_status: if session.is_up() {
                ConnectionStatus::Up
            } else {
                ConnectionStatus::Down
            },
            last_failure: session.reason.map(|reason| reason.to_string()),
            refused: state.refused,
        }
    }
}

impl Shared {
    async fn connect(self: Arc<Self>) -> Result<Connection> {
        if self.state.lock().refused {
            self.wait_for_a_change().await;
        }
        let result = self.register().await;
        self.state.lock().refused = matches!(&result, Err(error) if error.code == ErrorCode::Refused);
        result
    }

    /// After a refusal: until our credential changes, and not for ever.
    async fn wait_for_a_change(&self) {
        let change = async {
            match self.core.membership() {
                Some(membership) => {
                    let mut credential = membership.subscribe();
                    let _ = credential.changed().await;
                }
                None => std::future::pending().await,
            }
        };
        let _ = tokio::time::timeout(REFUSED_PAUSE, change).await;
    }

    async fn register(&self) -> Result<Connection> {
        let mut appearance = self
            .core
            .appearance(&self.at, None, &self.authorized, CONNECT_TIMEOUT)
            .await?;
        appearance.reachable = REACHABLE;
        let path = self.core.connector.connect(&self.at, &appearance).await?;
        let options = RegisterOptions {
            timeout: REGISTRATION_TIMEOUT,
            ..RegisterOptions::default()
        };
        let request = RelayRequest::Named(self.name.clone());
        let relay: RegisteredRelay = register(self.core.node(), path.route(), request, options)
            .await
            .map_err(|error| refusal(&self.name, &error))?;
        // Further listeners that the owner has made; `api` and its companions were said when the path was opened.
        for listener in self.core.listeners() {
            self.core.node().add_consumer(relay.flow(), &listener);
        }
        tracing::info!(relay = relay.remote_address(), at = %self.at, "relay registered");
        self.state.lock().registered = Some(Registered {
            remote_address: relay.remote_address().to_owned(),
            flow: Arc::clone(relay.flow()),
        });
        let (path_lost, relay_lost) = (path.lost(), relay.lost());
        let lost = async move {
            tokio::select! {
                reason = relay_lost => reason,
                reason = path_lost => reason,
            }
        };
        Ok(Connection::new(path.transport_route(), lost).keep((relay, path)))
    }
}

fn refusal(name: &RelayName, error: &RegistrationError) -> Error {
    match error {
        RegistrationError::Refused(_) => Error::refused(error.to_string()).hint(format!(
            "ask for a ticket that allows it: portolan project ticket --relay {}",
            name.as_str()
        )),
        RegistrationError::TimedOut(_) => Error::timeout(error.to_string()),
        _ => Error::unreachable(error.to_string()),
    }
}

impl Running {
    /// Let what comes through the relays reach a listener that was made after them.
    pub(super) fn reachable_through_relays(&self, listener: &Address) {
        for relay in self.relays.lock().values() {
            if let Some(registered) = &relay.shared.state.lock().registered {
                self.core.node().add_consumer(&registered.flow, listener);
            }
        }
    }

    /// Bring back a stored relay. One that cannot be read any more is logged and left out.
    pub(super) fn restore_relay(&self, spec: RelaySpec) {
        let name = spec.name.clone();
        match Relay::start(&self.core, spec) {
            Ok(relay) => {
                self.relays.lock().insert(name, relay);
            }
            Err(error) => tracing::error!(relay = name, "a stored relay cannot be restored: {error}"),
        }
    }

    /// Have a relay from now on.
    pub(crate) async fn create_relay(&self, request: CreateRelay) -> Result<RelayStatus> {
        check_alias("relays", &request.name)?;
        let name = request.name.clone();
        let spec = RelaySpec {
            relay_address: request.relay_address.unwrap_or_else(|| name.clone()),
            name: request.name,
            at: request.at,
            authorized: request.authorized,
        };
        self.adopt_project();
        let (mut session, shared) = {
            let mut relays = self.relays.lock();
            if relays.contains_key(&name) {
                return Err(
                    Error::exists(format!("this node already has a relay named `{name}`"))
                        .hint(format!("delete it first: portolan relay delete {name}")),
                );
            }
            let relay = Relay::start(&self.core, spec)?;
            // Written before it is answered, and before it is known here: a failure leaves nothing behind.
            self.node.database().put_relay(&relay.spec)?;
            let watched = (relay.session.status(), Arc::clone(&relay.shared));
            relays.insert(name.clone(), relay);
            watched
        };
        let limit = Duration::from_millis(request.wait_ms);
        if !limit.is_zero() {
            let settled = session.wait_for(|session| session.is_up() || shared.state.lock().refused);
            let _ = tokio::time::timeout(limit, settled).await;
        }
        self.relay(&name)
    }

    /// All relays, sorted by name.
    pub(crate) fn relays(&self) -> Vec<RelayStatus> {
        self.relays.lock().values().map(Relay::status).collect()
    }

    /// One relay.
    pub(crate) fn relay(&self, name: &str) -> Result<RelayStatus> {
        self.relays
            .lock()
            .get(name)
            .map(Relay::status)
            .ok_or_else(|| unknown(name))
    }

    /// Have a relay no longer.
    pub(crate) fn delete_relay(&self, name: &str) -> Result<()> {
        let mut relays = self.relays.lock();
        if !relays.contains_key(name) {
            return Err(unknown(name));
        }
        self.node.database().delete_relay(name)?;
        relays.remove(name);
        Ok(())
    }
}

fn unknown(name: &str) -> Error {
    Error::not_found(format!("this node has no relay named `{name}`"))
}

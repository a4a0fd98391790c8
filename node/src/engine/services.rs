//! Services, workers, single messages, credentials: what a node shows and does on request.

use std::time::Duration;

use portolan_identity::{CredentialAndPurposeKey, Identifier, Identity};
use portolan_runtime::{Address, Payload, WorkerOptions, bare, services::Hop};

use super::channels::limit;
use super::core::Core;
use super::membership::{credential_status, record};
use super::running::{Running, runtime_error};
use crate::control::api::{
    CredentialStatus, MessageReply, SendMessage, ServiceStatus, StartService, StoreCredential, WorkerState,
    WorkerStatus,
};
use crate::error::{Error, ErrorCode, Result};
use crate::multiaddr::MultiAddr;
use crate::state::{check_alias, now};

impl Running {
    /// All services.
    pub(crate) fn services(&self) -> Vec<ServiceStatus> {
        let mut services = self.services.lock().clone();
        let listeners = self.secure_channel_listeners();
        services.extend(listeners.into_iter().map(|listener| ServiceStatus {
            addr: listener.address,
            kind: "secure_channel_listener".to_owned(),
        }));
        services.sort_by(|a, b| a.addr.cmp(&b.addr));
        services
    }

    /// Start a service.
    pub(crate) fn start_service_on_request(&self, request: StartService) -> Result<ServiceStatus> {
        if request.kind != "hop" {
            return Err(
                Error::invalid(format!("`{}` is not a service that can be started", request.kind))
                    .hint("`hop` is"),
            );
        }
        check_alias("services", &request.address)?;
        let node = self.core.node();
        let address = Address::local(&request.address);
        // A hop speaks for whoever writes to it: what only this node's workers may reach, it may not.
        let options = WorkerOptions::new(address.clone()).outgoing(self.started_workers.closed_to_hops());
        node.start_sync_worker(options, Hop).map_err(runtime_error)?;
        // Over plain connections only (01 §4.2): inside a channel nobody needs it.
        for listener in self.core.connector.tcp.listeners() {
            node.add_consumer(listener.flow(), &address);
        }
        let status = ServiceStatus {
            addr: request.address,
            kind: request.kind,
        };
        self.services.lock().push(status.clone());
        Ok(status)
    }

    /// All workers.
    pub(crate) fn workers(&self) -> Vec<WorkerStatus> {
        let services = self.services();
        let outlets = self.outlets();
        let node = self.core.node();
        let mut started = self.started_workers();
        let mut workers: Vec<_> = node
            .workers()
            .into_iter()
            .map(|worker| {
                let address = local_name(&worker);
                let own = started
                    .iter()
                    .position(|own| own.address == address && own.state == WorkerState::Running);
                let started = own.map(|position| Box::new(started.swap_remove(position)));
                let kind = services
                    .iter()
                    .find(|service| service.addr == address)
                    .map(|service| service.kind.clone())
                    .or_else(|| started.as_ref().map(|own| own.kind.clone()))
                    .or_else(|| {
                        let is_outlet = outlets.iter().any(|outlet| outlet.address == address);
                        is_outlet.then(|| "tcp_outlet".to_owned())
                    })
                    .or_else(|| node.peer_of(&worker).map(|_| "secure_channel".to_owned()))
                    .or_else(|| node.is_terminal(&worker).then(|| "transport".to_owned()));
                WorkerStatus {
                    address,
                    kind,
                    started,
                }
            })
            .collect();
        // Those that the owner wants and that are not there.
        workers.extend(started.into_iter().map(|own| WorkerStatus {
            address: own.address.clone(),
            kind: Some(own.kind.clone()),
            started: Some(Box::new(own)),
        }));
        workers
    }

    /// Send one message and wait for the answer.
    pub(crate) async fn send_message(&self, request: SendMessage) -> Result<MessageReply> {
        self.adopt_project();
        send_message(&self.core, &request).await
    }

    /// The credentials about this node's identity that the home holds.
    pub(crate) fn credentials(&self) -> Result<Vec<CredentialStatus>> {
        let own = &self.core.own().record.identifier;
        let all = self.core.home().database()?.credentials()?;
        Ok(all
            .into_iter()
            .filter(|credential| credential.subject == *own)
            .map(credential_status)
            .collect())
    }

    /// Keep a credential about this node's identity. If it is for the node's project, the node presents it from now on.
    pub(crate) fn store_credential(&self, request: &StoreCredential) -> Result<CredentialStatus> {
        let not_verified = |error: &dyn std::fmt::Display| {
            Error::new(
                ErrorCode::NotVerified,
                format!("the credential does not verify: {error}"),
            )
        };
        let credential = CredentialAndPurposeKey::from_hex(request.credential.trim())
            .map_err(|error| Error::invalid(format!("the credential cannot be read: {error}")))?;
        let issuer: Identifier =
            request.issuer.trim().parse().map_err(|error| {
                Error::invalid(format!("`{}` is not an identifier: {error}", request.issuer))
            })?;
        let issuer = self.known_identity(&issuer)?;
        let own = &self.core.own().identity;
        let verified = credential
            .verify(Some(own.identifier()), &[issuer], now())
            .map_err(|error| not_verified(&error))?;
        let record = record(&credential, &verified, &request.scope);
        self.core.home().database()?.put_credential(&record)?;
        if let Some(membership) = self.core.membership() {
            membership.look_again();
        }
        Ok(credential_status(record))
    }

    /// An identity whose history this home has: one of its own, or a project's authority.
    fn known_identity(&self, identifier: &Identifier) -> Result<Identity> {
        let home = self.core.home();
        let database = home.database()?;
        let text = identifier.to_string();
        let decode = |history: &[u8]| {
            Identity::decode(history, Some(identifier))
                .map_err(|error| Error::new(ErrorCode::NotVerified, format!("the identity {text}: {error}")))
        };
        if let Some(record) = database
            .identities()?
            .into_iter()
            .find(|record| record.identifier == text)
        {
            return decode(&record.history);
        }
        for (project, _) in database.projects()? {
            let Ok(authority) = super::membership::authority_of(&project) else {
                continue;
            };
            if authority.identifier() == identifier {
                return Ok(authority);
            }
        }
        Err(Error::not_found(format!("this home knows no identity {text}")))
    }
}

/// An address as people write it: without the transport type where it is local.
pub(super) fn local_name(address: &Address) -> String {
    match address.as_str() {
        Some(text) if address.is_local() => text.to_owned(),
        _ => address.to_string(),
    }
}

/// Send one message from a node and wait for the answer. The body travels as one byte string (01 §1.1).
pub(crate) async fn send_message(core: &Core, request: &SendMessage) -> Result<MessageReply> {
    let route = MultiAddr::from_argument(&request.route)?;
    let body = hex::decode(&request.payload)
        .map_err(|error| Error::invalid(format!("the payload is not hexadecimal: {error}")))?;
    let timeout = limit(request.timeout_ms, Duration::from_secs(10));
    let exchange = async {
        let appearance = core
            .appearance(&route, request.identity.as_deref(), &[], timeout)
            .await?;
        let path = core.connector.connect(&route, &appearance).await?;
        if path.route().is_empty() {
            return Err(Error::invalid("the route leads nowhere"));
        }
        let mut payload = Vec::with_capacity(body.len() + 10);
        bare::put_uint(&mut payload, body.len() as u64);
        payload.extend_from_slice(&body);
        let answer = core
            .node()
            .send_and_receive_within::<Payload, Payload>(
                timeout,
                path.route().clone(),
                Payload::from(payload),
            )
            .await
            .map_err(runtime_error)?;
        let bytes = answer.payload();
        let body = bare::Reader::new(bytes).data().unwrap_or(bytes);
        Ok(MessageReply {
            payload: hex::encode(body),
        })
    };
    tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| {
        Err(Error::timeout(format!(
            "no answer from {route} within {} s",
            timeout.as_secs_f32()
        ))
        .hint("check the route; a service that refuses a message does not answer"))
    })
}

//! Outlets: where portals of other nodes come out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portolan_policy::ResourceType;
use portolan_portal::{FailureHook, Interception, Outlet, OutletOptions, PortalStatus, Wrap};
use portolan_runtime::Address;

use super::guard::Guard;
use super::policies::{Issuer, checked};
use super::running::Running;
use crate::control::api::{CreateOutlet, OutletStatus, PolicyTarget, Traffic};
use crate::error::{Error, Result};
use crate::host_port::HostPort;
use crate::state::{OutletSpec, check_alias, random_name};
use crate::tls::Tls;

/// The address of the first outlet without a name.
const DEFAULT_ADDRESS: &str = "outlet";

/// One outlet.
pub(super) struct OpenOutlet {
    spec: OutletSpec,
    outlet: Outlet,
    failed: Arc<AtomicU64>,
}

impl OpenOutlet {
    /// Open connections look whether they may still be.
    pub(super) fn ask_rules_again(&self) {
        self.outlet.status().ask_rules_again();
    }
}

/// Counts failures, for the status.
pub(super) fn counting() -> (Arc<AtomicU64>, FailureHook) {
    let failed = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&failed);
    let hook: FailureHook = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    (failed, hook)
}

/// The last failure of a portal end, if there was one.
pub(super) fn last_failure(status: &PortalStatus) -> Option<String> {
    status.last_failure().map(|failure| failure.text)
}

/// What this version does not do is refused, instead of being done differently.
pub(super) fn unsupported(skip_handshake: bool) -> Result<()> {
    if skip_handshake {
        return Err(
            Error::invalid("portals without handshake are not supported yet").hint("leave the option out")
        );
    }
    Ok(())
}

/// What makes TLS of the connections to the target, where that was asked for.
fn wrap(spec: &OutletSpec) -> Result<Option<Wrap>> {
    if !spec.tls {
        return Ok(None);
    }
    let target: HostPort = spec
        .to
        .parse()
        .map_err(|error| Error::invalid(format!("the target `{}`: {error}", spec.to)))?;
    Ok(Some(Tls::new(spec.tls_ca.as_deref())?.wrap(target.host())))
}

impl Running {
    fn open_outlet(&self, spec: OutletSpec, intercept: Option<Interception>) -> Result<OpenOutlet> {
        let address = Address::local(&spec.address);
        let guard = Guard::policy(
            &self.core.policies,
            ResourceType::TcpOutlet,
            &spec.address,
            Issuer::OfNode,
        );
        let (failed, hook) = counting();
        let options = OutletOptions {
            incoming: guard.incoming(),
            outgoing: guard.outgoing(),
            enable_nagle: spec.enable_nagle,
            wrap: wrap(&spec)?,
            intercept,
            on_failure: Some(hook),
            memory: self.core.windows.clone(),
            ..OutletOptions::default()
        };
        let outlet =
            Outlet::start(self.core.node(), address, &spec.to, options).map_err(|error| match error {
                portolan_runtime::Error::AddressInUse(_) => taken(&spec.address),
                other => Error::failed(other.to_string()),
            })?;
        self.make_reachable(&spec.address, self.core.policies.authority().is_none());
        Ok(OpenOutlet { spec, outlet, failed })
    }

    /// Bring back a stored outlet. One that cannot be read any more is logged and left out.
    pub(super) async fn restore_outlet(&self, spec: OutletSpec) {
        let address = spec.address.clone();
        let intercept = self
            .restored_interception(&address, spec.intercept.as_ref(), Issuer::OfNode)
            .await;
        match self.open_outlet(spec, intercept) {
            Ok(outlet) => {
                self.outlets.lock().insert(address, outlet);
            }
            Err(error) => tracing::error!(outlet = address, "a stored outlet cannot be restored: {error}"),
        }
    }

    /// Have an outlet from now on.
    pub(crate) async fn create_outlet(&self, request: CreateOutlet) -> Result<OutletStatus> {
        unsupported(request.skip_handshake)?;
        if request.tls_ca.is_some() && !request.tls {
            return Err(Error::invalid(
                "certificates for TLS go only with TLS to the target",
            ));
        }
        let to: HostPort = request
            .to
            .parse()
            .map_err(|error| Error::invalid(format!("the target `{}`: {error}", request.to)))?;
        let intercept = self.interceptor(request.intercept.as_ref()).await?;
        self.adopt_project();
        let mut outlets = self.outlets.lock();
        let is_taken = |address: &str| self.core.node().has_worker(&Address::local(address));
        let address = match request.address {
            Some(address) => {
                check_alias("outlets", &address)?;
                if let Some(other) = outlets.get(&address) {
                    return Err(Error::exists(format!(
                        "this node already has an outlet at `{address}`, to {}",
                        other.spec.to
                    ))
                    .hint(format!("delete it first: portolan tcp-outlet delete {address}")));
                }
                if is_taken(&address) {
                    return Err(taken(&address));
                }
                address
            }
            None if !is_taken(DEFAULT_ADDRESS) => DEFAULT_ADDRESS.to_owned(),
            None => random_name(is_taken)?,
        };
        let target = PolicyTarget::Resource(address.clone());
        if let Some(expression) = &request.allow {
            checked(&target, expression)?;
        }
        let spec = OutletSpec {
            address: address.clone(),
            to: to.to_string(),
            tls: request.tls,
            tls_ca: request.tls_ca,
            skip_handshake: request.skip_handshake,
            enable_nagle: request.enable_nagle,
            intercept: request.intercept,
        };
        let intercept = self.interception(&address, intercept, Issuer::OfNode)?;
        // A certificate that cannot be read is an error before anything is changed.
        wrap(&spec)?;
        let database = self.node.database();
        let before = self.core.policies.get(&target);
        // The policy first: there must be no moment at which the outlet is open under another one.
        if let Some(expression) = &request.allow {
            self.core.policies.set(database, &target, expression)?;
        }
        let opened = database
            .put_outlet(&spec)
            .and_then(|()| self.open_outlet(spec, intercept));
        let outlet = opened.inspect_err(|_| {
            let _ = database.delete_outlet(&address);
            if request.allow.is_some() {
                let _ = self.core.policies.put_back(database, &target, before);
            }
        })?;
        let status = self.outlet_status(&outlet);
        outlets.insert(address, outlet);
        Ok(status)
    }

    fn outlet_status(&self, outlet: &OpenOutlet) -> OutletStatus {
        let status = outlet.outlet.status();
        OutletStatus {
            address: outlet.spec.address.clone(),
            to: outlet.spec.to.clone(),
            tls: outlet.spec.tls,
            intercept: outlet.spec.intercept.clone(),
            policy: self.core.policies.in_force(
                ResourceType::TcpOutlet,
                &outlet.spec.address,
                Issuer::OfNode,
            ),
            connections: status.open(),
            last_failure: last_failure(status),
            traffic: Traffic {
                connections: status.total(),
                failed: outlet.failed.load(Ordering::Relaxed),
                bytes_up: status.to_application(),
                bytes_down: status.from_application(),
            },
        }
    }

    /// All outlets, sorted by address.
    pub(crate) fn outlets(&self) -> Vec<OutletStatus> {
        self.outlets
            .lock()
            .values()
            .map(|outlet| self.outlet_status(outlet))
            .collect()
    }

    /// One outlet.
    pub(crate) fn outlet(&self, address: &str) -> Result<OutletStatus> {
        self.outlets
            .lock()
            .get(address)
            .map(|outlet| self.outlet_status(outlet))
            .ok_or_else(|| unknown(address))
    }

    /// Close an outlet and its connections; its policy goes with it, unless an inlet of the same name has it too.
    pub(crate) fn delete_outlet(&self, address: &str) -> Result<()> {
        let mut outlets = self.outlets.lock();
        if !outlets.contains_key(address) {
            return Err(unknown(address));
        }
        let database = self.node.database();
        database.delete_outlet(address)?;
        if let Some(outlet) = outlets.remove(address) {
            outlet.outlet.stop();
        }
        drop(outlets);
        self.make_unreachable(address);
        if !self.inlets.lock().contains_key(address) {
            let target = PolicyTarget::Resource(address.to_owned());
            self.core.policies.delete(database, &target)?;
        }
        Ok(())
    }
}

fn taken(address: &str) -> Error {
    Error::exists(format!(
        "the address `{address}` is in use by another worker of this node"
    ))
    .hint("choose another address, or none")
}

fn unknown(address: &str) -> Error {
    Error::not_found(format!("this node has no outlet at `{address}`"))
}

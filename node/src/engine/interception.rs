//! Interceptors of inlets and outlets: found by name, and told what is known of the peer.

use std::sync::Arc;

use portolan_portal::Interception;
use portolan_portal::intercept::PeerAttributes;

use super::core::Core;
use super::policies::Issuer;
use super::running::Running;
use crate::control::api::InterceptedBy;
use crate::error::Result;
use crate::interceptors::Missing;
use crate::state::now;

impl Running {
    /// What shall intercept the connections of the inlet or outlet called `portal`. Each call makes another one.
    ///
    /// # Errors
    /// If there is no interceptor of this name, or it does not take the configuration.
    pub(super) fn interception(
        &self,
        portal: &str,
        by: Option<&InterceptedBy>,
        issuer: Issuer,
    ) -> Result<Option<Interception>> {
        let Some(by) = by else {
            return Ok(None);
        };
        let types = self.started_workers.types().interceptors();
        let intercept = match types.get(&by.name) {
            Some(known) => known.make(&by.config)?,
            None => return Err(types.unknown(&by.name, &[])),
        };
        Ok(Some(
            Interception::new(portal, intercept).attributes(attributes(&self.core, issuer)),
        ))
    }

    /// The same for what is brought back from the state. Without its interceptor an inlet or outlet lets nobody through.
    pub(super) fn restored_interception(
        &self,
        portal: &str,
        by: Option<&InterceptedBy>,
        issuer: Issuer,
    ) -> Option<Interception> {
        self.interception(portal, by, issuer).unwrap_or_else(|error| {
            let name = by.map(|by| by.name.clone()).unwrap_or_default();
            tracing::error!(
                portal,
                interceptor = name,
                "an interceptor cannot be had, and nobody is let through: {error}"
            );
            let reason = error.message;
            Some(Interception::new(portal, Arc::new(Missing { name, reason })))
        })
    }
}

/// What an authority says of a peer when a connection begins.
fn attributes(core: &Arc<Core>, issuer: Issuer) -> PeerAttributes {
    let policies = Arc::clone(&core.policies);
    Arc::new(move |peer| policies.attributes_of(issuer, peer, now()))
}

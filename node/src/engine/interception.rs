//! Interceptors of inlets and outlets: found by name, and told what is known of the peer.
//!
//! An interceptor that the program has comes before a plugin of the same name.

use std::sync::Arc;

use portolan_portal::intercept::PeerAttributes;
use portolan_portal::{Intercept, Interception};

use super::core::Core;
use super::plugins;
use super::policies::Issuer;
use super::running::Running;
use crate::control::api::InterceptedBy;
use crate::error::{ErrorCode, Result};
use crate::interceptors::Missing;
use crate::state::now;

/// What was found for a portal whose name may not be known yet.
pub(super) enum Found {
    Nothing,
    Own(Arc<dyn Intercept>),
    Plugin(plugins::Found),
}

impl Running {
    /// Looks for what shall intercept. Each inlet or outlet needs another one.
    ///
    /// # Errors
    /// If there is no interceptor of this name, or it does not take the configuration.
    pub(super) async fn interceptor(&self, by: Option<&InterceptedBy>) -> Result<Found> {
        let Some(by) = by else {
            return Ok(Found::Nothing);
        };
        let types = self.started_workers.types().interceptors();
        if let Some(known) = types.get(&by.name) {
            return known.make(&by.config).map(Found::Own);
        }
        match self.intercepting_plugin(by).await {
            Ok(found) => Ok(Found::Plugin(found)),
            Err(error) if error.code == ErrorCode::NotFound => {
                Err(types.unknown(&by.name, &self.intercepting_plugins()))
            }
            Err(error) => Err(error),
        }
    }

    /// Puts it before the inlet or outlet called `portal`.
    pub(super) fn interception(
        &self,
        portal: &str,
        found: Found,
        issuer: Issuer,
    ) -> Result<Option<Interception>> {
        let intercept = match found {
            Found::Nothing => return Ok(None),
            Found::Own(intercept) => intercept,
            Found::Plugin(found) => self.intercept_with(found, portal)?,
        };
        Ok(Some(
            Interception::new(portal, intercept).attributes(attributes(&self.core, issuer)),
        ))
    }

    /// The same for what is brought back from the state. Without its interceptor an inlet or outlet lets nobody through.
    pub(super) async fn restored_interception(
        &self,
        portal: &str,
        by: Option<&InterceptedBy>,
        issuer: Issuer,
    ) -> Option<Interception> {
        let by = by?;
        let found = self.interceptor(Some(by)).await;
        let made = found.and_then(|found| self.interception(portal, found, issuer));
        made.unwrap_or_else(|error| {
            tracing::error!(
                portal,
                interceptor = by.name,
                "an interceptor cannot be had, and nobody is let through: {error}"
            );
            let reason = match error.hint {
                Some(hint) => format!("{}; {hint}", error.message),
                None => error.message,
            };
            let types = self.started_workers.types().interceptors();
            let found = match types.get(&by.name) {
                Some(_) => Found::Own(Arc::new(Missing {
                    name: by.name.clone(),
                    reason,
                })),
                None => Found::Own(self.intercept_without(by, portal, reason)),
            };
            self.interception(portal, found, issuer).ok().flatten()
        })
    }
}

/// What an authority says of a peer when a connection begins.
fn attributes(core: &Arc<Core>, issuer: Issuer) -> PeerAttributes {
    let policies = Arc::clone(&core.policies);
    Arc::new(move |peer| policies.attributes_of(issuer, peer, now()))
}

//! What whoever runs a node may say about it that is not written down with it.

use std::sync::Arc;

use portolan_identity::{CredentialAndPurposeKey, Identity};
use portolan_portal::WindowMemory;
use portolan_secure_channel::{CredentialSource, FixedCredential};

use crate::error::{Error, Result};

/// Most arbiters that can be asked for.
pub(crate) const MAX_ARBITERS: usize = 64;

/// Settings of one run of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Threads that carry messages; `None` is one for every two cores.
    pub(crate) arbiters: Option<usize>,
    /// Bytes that the windows of all portal connections may have together; `None` is the usual limit.
    pub(crate) portal_memory: Option<u64>,
    /// Bytes that the plugins in all portal connections may have together; `None` is the usual limit.
    pub(crate) plugin_memory: Option<u64>,
    /// Whom the node believes, and what it presents, without being a member of a project.
    pub(crate) trust: Option<Trust>,
}

/// An authority that is believed, and a credential by it or another.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    pub(crate) authority: Identity,
    pub(crate) credential: Option<CredentialAndPurposeKey>,
}

impl Trust {
    /// The credential, for channels.
    pub(crate) fn source(&self) -> Option<Arc<dyn CredentialSource>> {
        let credential = self.credential.clone()?;
        Some(Arc::new(FixedCredential::new(credential)))
    }
}

impl Settings {
    /// What the environment of the process says: `PORTOLAN_ARBITERS`, `PORTOLAN_PORTAL_MEMORY`, `PORTOLAN_PLUGIN_MEMORY`.
    ///
    /// # Errors
    ///
    /// When the number of arbiters is none.
    pub(crate) fn of_environment() -> Result<Self> {
        Ok(Self {
            arbiters: arbiters()?,
            portal_memory: memory("PORTOLAN_PORTAL_MEMORY"),
            plugin_memory: memory("PORTOLAN_PLUGIN_MEMORY"),
            trust: None,
        })
    }

    pub(super) fn window_memory(&self) -> WindowMemory {
        self.portal_memory
            .map_or_else(WindowMemory::default, WindowMemory::new)
    }
}

/// How many arbiters the owner wants, if that was said.
fn arbiters() -> Result<Option<usize>> {
    let Some(text) = std::env::var_os("PORTOLAN_ARBITERS").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.to_str().and_then(|text| text.trim().parse().ok()) {
        Some(count @ 1..=MAX_ARBITERS) => Ok(Some(count)),
        _ => Err(Error::invalid(format!(
            "PORTOLAN_ARBITERS must be a number from 1 to {MAX_ARBITERS}, not `{}`",
            text.to_string_lossy()
        ))),
    }
}

/// As the environment has it, in MiB.
fn memory(variable: &str) -> Option<u64> {
    let given = std::env::var(variable).ok()?;
    match given.parse::<std::num::NonZeroU32>() {
        Ok(mebibytes) => Some(u64::from(mebibytes.get()) * 1024 * 1024),
        Err(_) => {
            tracing::warn!("{variable} is `{given}`, which is no number of MiB from 1 on: it is ignored");
            None
        }
    }
}

//! The credential that we present, and its renewal.

use std::sync::Arc;

use portolan_identity::CredentialAndPurposeKey;
use tokio::sync::watch;

/// The credential of the moment, if there is one.
pub type CurrentCredential = Option<Arc<CredentialAndPurposeKey>>;

/// Where our own credential comes from (spec 02 §4.6).
///
/// A channel presents the current one in its handshake. When the source announces another, every open channel sends it
/// to its peer in a RefreshCredentials message (§6.5), so that access does not end with the old one's expiry.
pub trait CredentialSource: Send + Sync {
    /// The current credential, and word of every later one.
    fn subscribe(&self) -> watch::Receiver<CurrentCredential>;

    /// The credential to present now.
    fn current(&self) -> CurrentCredential {
        self.subscribe().borrow().clone()
    }
}

impl CredentialSource for watch::Receiver<CurrentCredential> {
    fn subscribe(&self) -> watch::Receiver<CurrentCredential> {
        self.clone()
    }
}

impl CredentialSource for watch::Sender<CurrentCredential> {
    fn subscribe(&self) -> watch::Receiver<CurrentCredential> {
        watch::Sender::subscribe(self)
    }
}

/// A credential that never changes.
#[derive(Debug, Clone)]
pub struct FixedCredential(watch::Receiver<CurrentCredential>);

impl FixedCredential {
    /// Presents this one.
    #[must_use]
    pub fn new(credential: CredentialAndPurposeKey) -> Self {
        Self(watch::channel(Some(Arc::new(credential))).1)
    }
}

impl CredentialSource for FixedCredential {
    fn subscribe(&self) -> watch::Receiver<CurrentCredential> {
        self.0.clone()
    }
}

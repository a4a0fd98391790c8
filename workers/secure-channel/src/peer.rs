//! Who is at the other end: from the payload of a handshake to an identity that we accept (spec 02 §5.5).
//!
//! The order is that of the specification but for one thing: nothing is stored before the peer is trusted, so that
//! whoever is turned away leaves no trace (§9.2, S2).

use std::sync::Arc;

use portolan_identity::repository::verify_received;
use portolan_identity::{
    AttributeRepository, ChangeHistory, CredentialAndPurposeKey, HistoryOrder, Identifier, Identity,
    IdentityRepository, PurposeKeyAttestation, PurposePublicKey, VerifiedCredential,
};

use crate::error::PeerError;
use crate::handshake::PublicKeyBytes;
use crate::log_limit::may_log;
use crate::trust::TrustPolicy;
use crate::wire::identity::IdentityPayload;

/// What is needed to judge a peer. Judging may block on the stores.
#[derive(Clone)]
pub(crate) struct Judge {
    pub(crate) identities: Arc<dyn IdentityRepository>,
    pub(crate) attributes: Arc<dyn AttributeRepository>,
    pub(crate) authorities: Arc<[Identity]>,
    pub(crate) trust: TrustPolicy,
}

impl Judge {
    /// Judges the payload of a handshake message; `remote_static` is the key that the handshake has authenticated.
    pub(crate) fn admit(
        &self,
        payload: &[u8],
        remote_static: &PublicKeyBytes,
        now: u64,
    ) -> Result<Identity, PeerError> {
        let payload = IdentityPayload::decode(payload)?;
        let peer = self.verify_history(payload.change_history, None)?;
        let identifier = *peer.identifier();
        let attestation = PurposeKeyAttestation::decode(payload.attestation)?;
        let attested = attestation
            .verify(&peer, now)
            .map_err(|error| PeerError::Attestation(identifier, error))?;
        match attested.public_key {
            PurposePublicKey::SecureChannelStatic(key) if key == *remote_static => {}
            _ => return Err(PeerError::WrongKey(identifier)),
        }
        let credentials = self.verify_credentials(&identifier, &payload.credentials, now);
        let trusted = |presented: &[VerifiedCredential]| {
            self.trust.accepts(&identifier, &|name, value| {
                self.has(&identifier, presented, name, value, now)
            })
        };
        if !trusted(&credentials) {
            return Err(PeerError::Untrusted(identifier));
        }
        self.store(&peer, &credentials, now)?;
        // The store knows what a credential cannot: that its authority has revoked it since, or said something else.
        if !trusted(&[]) {
            return Err(PeerError::Untrusted(identifier));
        }
        Ok(peer)
    }

    /// Judges a RefreshCredentials message of a peer that is known already (§6.5).
    pub(crate) fn refresh(
        &self,
        peer: &Identifier,
        change_history: &[u8],
        credentials: &[&[u8]],
        now: u64,
    ) -> Result<usize, PeerError> {
        let identity = self.verify_history(change_history, Some(peer))?;
        let credentials = self.verify_credentials(peer, credentials, now);
        self.store(&identity, &credentials, now)?;
        Ok(credentials.len())
    }

    fn verify_history(&self, bytes: &[u8], expected: Option<&Identifier>) -> Result<Identity, PeerError> {
        let history = ChangeHistory::decode(bytes)?;
        let (identity, order) = verify_received(self.identities.as_ref(), history, expected)?;
        accept_order(&identity, order)?;
        Ok(identity)
    }

    /// The credentials that one of our authorities has issued to the peer. Others are logged and left: a bad credential
    /// never ends a handshake, it only gives no access.
    fn verify_credentials(
        &self,
        peer: &Identifier,
        credentials: &[&[u8]],
        now: u64,
    ) -> Vec<VerifiedCredential> {
        if credentials.is_empty() {
            return Vec::new();
        }
        if self.authorities.is_empty() {
            tracing::debug!(%peer, "credentials are ignored: no authority is configured here");
            return Vec::new();
        }
        let authorities: Vec<Identity> = self
            .authorities
            .iter()
            .map(|authority| self.latest(authority))
            .collect();
        let verify = |bytes: &&[u8]| {
            let credential = CredentialAndPurposeKey::decode(bytes).map_err(|error| error.to_string())?;
            credential
                .verify(Some(peer), &authorities, now)
                .map_err(|error| error.to_string())
        };
        let verified = credentials.iter().filter_map(|bytes| match verify(bytes) {
            Ok(credential) => Some(credential),
            Err(error) => {
                if may_log() {
                    tracing::info!(%peer, "a credential is ignored: {error}");
                }
                None
            }
        });
        verified.collect()
    }

    /// An authority may have been rotated since it was configured, and we may have learnt of it.
    fn latest(&self, authority: &Identity) -> Identity {
        match self.identities.get(authority.identifier()) {
            Ok(Some(known)) if known.compare(authority) == HistoryOrder::Newer => known,
            _ => authority.clone(),
        }
    }

    fn has(
        &self,
        peer: &Identifier,
        presented: &[VerifiedCredential],
        name: &str,
        value: &[u8],
        now: u64,
    ) -> bool {
        presented
            .iter()
            .any(|credential| credential.attributes.has(name, value))
            || self.authorities.iter().any(|authority| {
                self.attributes
                    .get(peer, authority.identifier(), now)
                    .is_some_and(|known| known.attributes.has(name, value))
            })
    }

    fn store(&self, peer: &Identity, credentials: &[VerifiedCredential], now: u64) -> Result<(), PeerError> {
        // The store compares again: another channel of the peer may have shown a rotation meanwhile.
        let order = self.identities.update(peer.clone())?;
        accept_order(peer, order)?;
        for credential in credentials {
            if let Err(error) = self.attributes.put_credential(credential, now) {
                tracing::warn!(peer = %peer.identifier(), "its attributes could not be stored: {error}");
            }
        }
        Ok(())
    }
}

fn accept_order(identity: &Identity, order: HistoryOrder) -> Result<(), PeerError> {
    match order {
        HistoryOrder::Equal | HistoryOrder::Newer => Ok(()),
        HistoryOrder::Older => Err(PeerError::OutdatedHistory(*identity.identifier())),
        HistoryOrder::Conflict => Err(PeerError::ConflictingHistory(*identity.identifier())),
    }
}

#[cfg(test)]
mod tests;

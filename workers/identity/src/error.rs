//! Errors that belong to no single artefact, and the sum of all.

use crate::{AttestationError, CredentialError, HistoryError, SignatureError, VaultError};

/// Bytes that are not what they should be, or exceed a limit. Whoever produced them is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode {what}: {reason}")]
pub struct DecodeError {
    what: &'static str,
    reason: String,
}

impl DecodeError {
    /// An error about the artefact `what`, for the reason given.
    pub fn new(what: &'static str, reason: impl ToString) -> Self {
        DecodeError {
            what,
            reason: reason.to_string(),
        }
    }
}

/// A store (of secrets, identities, attributes) failed or is full. Neither the peer nor the caller is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("storage failed: {0}")]
pub struct StorageError(pub String);

impl StorageError {
    /// An error with this explanation.
    pub fn new(reason: impl ToString) -> Self {
        StorageError(reason.to_string())
    }
}

/// Anything that can go wrong when artefacts are created, where several of the causes below can meet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes or text could not be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The vault could not do what it was asked.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A change history was refused.
    #[error("change history refused: {0}")]
    History(#[from] HistoryError),
    /// An attestation was refused.
    #[error("purpose key attestation refused: {0}")]
    Attestation(#[from] AttestationError),
    /// A credential was refused.
    #[error("credential refused: {0}")]
    Credential(#[from] CredentialError),
    /// A signature was refused.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The identity's current key is past its `valid_until`: it can attest nothing more. Rotate the identity.
    #[error(
        "the current key of {identifier} was valid until {valid_until} and it is {now}: rotate the identity"
    )]
    IdentityExpired {
        /// The identity.
        identifier: crate::Identifier,
        /// When its current key ended, UTC seconds.
        valid_until: u64,
        /// The time given by the caller, UTC seconds.
        now: u64,
    },
    /// The history already has [`MAX_CHANGES`](crate::limits::MAX_CHANGES) changes.
    #[error("the identity was rotated too often: a history holds at most {max} changes", max = crate::limits::MAX_CHANGES)]
    TooManyChanges,
    /// The repository knows a newer or different history of the identity that was to be rotated.
    #[error(
        "the identity is not the latest that the repository knows ({0:?}): load it again before rotating"
    )]
    NotLatest(crate::HistoryOrder),
}

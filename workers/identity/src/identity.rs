//! The chain of keys of an identity, verified; its creation and rotation (§2.4 to §2.6).

use crate::history::{Change, ChangeData};
use crate::limits::MAX_CHANGES;
use crate::{
    ChangeHash, ChangeHistory, DecodeError, Error, Identifier, IdentityRepository, KeyHandle, KeyType,
    SignatureError, Vault, VerifyingKey, sha256,
};
use std::fmt;
use std::sync::Arc;

/// How long a new key of an identity may attest: ten years of 365 days, in seconds (§2.4).
pub const IDENTITY_LIFETIME: u64 = 10 * 365 * 24 * 60 * 60;

/// A change history that was verified. Clones are cheap.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    identifier: Identifier,
    history: ChangeHistory,
    earlier: Vec<VerifiedChange>,
    latest: VerifiedChange,
}

/// A change of a verified history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedChange {
    /// The hash of the change.
    pub hash: ChangeHash,
    /// The key that it introduced.
    pub public_key: VerifyingKey,
    /// Attestations by this key are made at or after this time, UTC seconds.
    pub valid_from: u64,
    /// Attestations by this key end at or before this time, UTC seconds.
    pub valid_until: u64,
}

/// How one history of an identity stands to another (§2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an older or conflicting history must not be trusted"]
pub enum HistoryOrder {
    /// The same changes.
    Equal,
    /// The same changes, and more. The identity was rotated.
    Newer,
    /// Only the first of the changes: its latest key has been given up. Whoever presents it was restored from an old
    /// backup, or stole an old key.
    Older,
    /// Different changes: two chains of one identity, or two identities.
    Conflict,
}

/// Why a change history was refused. Whoever made the history is at fault. `index` counts changes from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// A change cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The first change names a change before it.
    #[error("the first change names a change before it")]
    FirstHasPrevious,
    /// A change does not name the change before it.
    #[error("change {index} does not follow the change before it")]
    WrongPrevious {
        /// Of the change.
        index: usize,
    },
    /// A change is valid earlier than the change before it.
    #[error("change {index} is valid from an earlier time than the change before it")]
    ValidFromDecreases {
        /// Of the change.
        index: usize,
    },
    /// A change lacks the signature of the key before it.
    #[error("change {index} is not signed by the key before it")]
    MissingPreviousSignature {
        /// Of the change.
        index: usize,
    },
    /// The signature of the key before it is wrong.
    #[error("change {index}, signature of the key before it: {cause}")]
    PreviousSignature {
        /// Of the change.
        index: usize,
        /// What is wrong.
        cause: SignatureError,
    },
    /// The signature of a change by its own key is wrong.
    #[error("change {index}, signature of its own key: {cause}")]
    OwnSignature {
        /// Of the change.
        index: usize,
        /// What is wrong.
        cause: SignatureError,
    },
    /// It is a good history, but of somebody else.
    #[error("the history is of {found}, not of {expected}")]
    UnexpectedIdentifier {
        /// Whose history was expected.
        expected: Identifier,
        /// Whose it is.
        found: Identifier,
    },
}

impl Identity {
    /// Verifies a history (§2.5), and that it is of `expected` if one is given.
    pub fn verify(history: ChangeHistory, expected: Option<&Identifier>) -> Result<Self, HistoryError> {
        Self::verify_changes(history, expected, None)
    }

    /// As [`verify`](Identity::verify), for a history of which `known` may be an earlier state: changes that are, byte for
    /// byte, in `known` are not checked again. A peer that comes back with the history we know costs no signature check.
    ///
    /// The result is not yet compared with `known`: use [`compare`](Identity::compare).
    pub fn verify_with_known(
        history: ChangeHistory,
        expected: Option<&Identifier>,
        known: Option<&Identity>,
    ) -> Result<Self, HistoryError> {
        if let Some(known) = known.filter(|k| *k.history() == history) {
            known.check_expected(expected)?;
            return Ok(known.clone());
        }
        Self::verify_changes(history, expected, known)
    }

    fn verify_changes(
        history: ChangeHistory,
        expected: Option<&Identifier>,
        known: Option<&Identity>,
    ) -> Result<Self, HistoryError> {
        let mut known_changes = known
            .into_iter()
            .flat_map(|k| k.history().changes().zip(k.changes()));
        let mut verified: Vec<VerifiedChange> = Vec::with_capacity(history.len());
        // A change may be taken over from `known` only if all before it were.
        let mut same_so_far = true;
        for (index, change) in history.changes().enumerate() {
            let taken_over = match known_changes.next() {
                Some((known_bytes, known_change)) if same_so_far && known_bytes == change => {
                    Some(known_change.clone())
                }
                _ => None,
            };
            same_so_far = taken_over.is_some();
            verified.push(match taken_over {
                Some(change) => change,
                None => verify_change(index, &change, verified.last())?,
            });
            if index == 0 {
                let found = Identifier::from(*verified[0].hash.as_bytes());
                if let Some(expected) = expected.filter(|e| **e != found) {
                    // Found out before any more signatures are checked for a stranger.
                    return Err(HistoryError::UnexpectedIdentifier {
                        expected: *expected,
                        found,
                    });
                }
            }
        }
        let identifier = verified.first().map(|c| Identifier::from(*c.hash.as_bytes()));
        match (identifier, verified.pop()) {
            (Some(identifier), Some(latest)) => Ok(Identity {
                inner: Arc::new(Inner {
                    identifier,
                    history,
                    earlier: verified,
                    latest,
                }),
            }),
            _ => Err(DecodeError::new("change history", "a history has at least one change").into()),
        }
    }

    fn check_expected(&self, expected: Option<&Identifier>) -> Result<(), HistoryError> {
        match expected {
            Some(expected) if *expected != *self.identifier() => Err(HistoryError::UnexpectedIdentifier {
                expected: *expected,
                found: *self.identifier(),
            }),
            _ => Ok(()),
        }
    }

    /// Decodes and verifies in one step.
    pub fn decode(bytes: &[u8], expected: Option<&Identifier>) -> Result<Self, HistoryError> {
        Self::verify(ChangeHistory::decode(bytes)?, expected)
    }

    /// Reads and verifies the text form (§2.7) in one step.
    pub fn from_hex(text: &str, expected: Option<&Identifier>) -> Result<Self, HistoryError> {
        Self::verify(ChangeHistory::from_hex(text)?, expected)
    }

    /// The name of the identity.
    pub fn identifier(&self) -> &Identifier {
        &self.inner.identifier
    }

    /// The history, as it was received.
    pub fn history(&self) -> &ChangeHistory {
        &self.inner.history
    }

    /// The change that holds now.
    pub fn latest_change(&self) -> &VerifiedChange {
        &self.inner.latest
    }

    /// The hash of the change that holds now.
    pub fn latest_change_hash(&self) -> ChangeHash {
        self.inner.latest.hash
    }

    /// The key that holds now.
    pub fn latest_public_key(&self) -> &VerifyingKey {
        &self.inner.latest.public_key
    }

    /// All changes, oldest first.
    pub fn changes(&self) -> impl Iterator<Item = &VerifiedChange> {
        self.inner.earlier.iter().chain([&self.inner.latest])
    }

    /// How this history stands to `stored`: [`HistoryOrder::Newer`] if this one has more changes.
    pub fn compare(&self, stored: &Identity) -> HistoryOrder {
        if self
            .changes()
            .zip(stored.changes())
            .any(|(a, b)| a.hash != b.hash)
        {
            return HistoryOrder::Conflict;
        }
        match self.history().len().cmp(&stored.history().len()) {
            std::cmp::Ordering::Equal => HistoryOrder::Equal,
            std::cmp::Ordering::Greater => HistoryOrder::Newer,
            std::cmp::Ordering::Less => HistoryOrder::Older,
        }
    }

    /// Makes a new identity with a new key, which may attest for [`IDENTITY_LIFETIME`] from `now`.
    pub fn create(vault: &dyn Vault, now: u64, key_type: KeyType) -> Result<Self, Error> {
        let handle = vault.generate_signing_key(key_type)?;
        Self::create_with_key(vault, &handle, now).inspect_err(|_| {
            // The first failure is the one to report; an unused key that stays behind harms nobody.
            let _ = vault.delete_key(&handle);
        })
    }

    /// Makes a new identity with a key that is already in the vault.
    pub fn create_with_key(vault: &dyn Vault, key: &KeyHandle, now: u64) -> Result<Self, Error> {
        Self::add_change(vault, None, key, now)
    }

    /// Rotates the identity to a new key and stores the new history in `repository`. Then, and only then, the old key
    /// is deleted, so that no failure in between loses the identity. If only that last step fails, the error is of the
    /// vault, and the rotated identity is in the repository.
    ///
    /// Attestations by the old key end here: a node asks for new ones with
    /// [`current_purpose_key`](crate::current_purpose_key) before its next handshake. So do the credentials that the
    /// identity has issued as an authority, for every verifier that learns of the rotation.
    pub fn rotate(
        &self,
        vault: &dyn Vault,
        repository: &dyn IdentityRepository,
        now: u64,
        key_type: KeyType,
    ) -> Result<Self, Error> {
        let new_key = vault.generate_signing_key(key_type)?;
        let stored = self.rotate_to_key(vault, &new_key, now).and_then(|rotated| {
            match repository.update(rotated.clone())? {
                HistoryOrder::Newer => Ok(rotated),
                order => Err(Error::NotLatest(order)),
            }
        });
        match stored {
            Ok(rotated) => {
                vault.delete_key(&vault.signing_handle(self.latest_public_key())?)?;
                Ok(rotated)
            }
            Err(e) => {
                // The first failure is the one to report; an unused key that stays behind harms nobody.
                let _ = vault.delete_key(&new_key);
                Err(e)
            }
        }
    }

    /// Rotates the identity to a key that is already in the vault. Nothing is stored and no key is deleted: the caller
    /// must store the result before the old key goes.
    pub fn rotate_to_key(&self, vault: &dyn Vault, key: &KeyHandle, now: u64) -> Result<Self, Error> {
        if self.history().len() >= MAX_CHANGES {
            return Err(Error::TooManyChanges);
        }
        Self::add_change(vault, Some(self), key, now)
    }

    fn add_change(
        vault: &dyn Vault,
        earlier: Option<&Identity>,
        key: &KeyHandle,
        now: u64,
    ) -> Result<Self, Error> {
        // A clock that was set back must not make a history that nobody accepts.
        let valid_from = earlier.map_or(now, |e| now.max(e.latest_change().valid_from));
        let data = ChangeData {
            previous_change: earlier.map(Identity::latest_change_hash),
            public_key: vault.verifying_key(key)?,
            revoke_all_purpose_keys: false,
            valid_from,
            valid_until: valid_from.saturating_add(IDENTITY_LIFETIME),
        }
        .wrap();
        let digest = sha256(&data);
        let signature = vault.sign(key, &digest)?;
        let previous_signature = match earlier {
            Some(earlier) => {
                let previous_key = vault.signing_handle(earlier.latest_public_key())?;
                Some(vault.sign(&previous_key, &digest)?)
            }
            None => None,
        };
        let history = ChangeHistory::append(
            earlier.map(Identity::history),
            &data,
            &signature,
            previous_signature.as_ref(),
        )?;
        // Also a check on the vault: whatever it returned, we do not hand out a history that others refuse.
        Ok(Identity::verify_with_known(history, None, earlier)?)
    }
}

/// The rules of §2.5 for one change.
fn verify_change(
    index: usize,
    change: &Change<'_>,
    previous: Option<&VerifiedChange>,
) -> Result<VerifiedChange, HistoryError> {
    let data = change.read()?;
    let hash = change.hash();
    match previous {
        None if data.previous_change.is_some() => return Err(HistoryError::FirstHasPrevious),
        None => {}
        Some(previous) => {
            if data.previous_change != Some(previous.hash) {
                return Err(HistoryError::WrongPrevious { index });
            }
            if data.valid_from < previous.valid_from {
                return Err(HistoryError::ValidFromDecreases { index });
            }
            let signature = change
                .previous_signature
                .ok_or(HistoryError::MissingPreviousSignature { index })?;
            previous
                .public_key
                .verify(hash.as_bytes(), signature)
                .map_err(|cause| HistoryError::PreviousSignature { index, cause })?;
        }
    }
    data.public_key
        .verify(hash.as_bytes(), change.signature)
        .map_err(|cause| HistoryError::OwnSignature { index, cause })?;
    Ok(VerifiedChange {
        hash,
        public_key: data.public_key,
        valid_from: data.valid_from,
        valid_until: data.valid_until,
    })
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.compare(other) == HistoryOrder::Equal
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Identity({}, {} changes)",
            self.identifier(),
            self.history().len()
        )
    }
}

//! Rotation of the keys of this home's identities: by command, and when they are due (spec 02 §2.4, §3.2).
//!
//! An identity has one signing key, named by the last change of its history, and purpose keys that this one attests. Rotating the
//! identity appends a change with a new key, deletes the old one, and replaces the purpose keys, since attestations by the old key
//! end with it. Rotating the purpose keys leaves the identity as it is.
//!
//! Any process may rotate; nodes that use the identity look into the home before each handshake, and every few seconds.

use std::fmt;

use portolan_identity::purpose_key::{PURPOSE_KEY_LIFETIME, PURPOSE_KEY_RENEWAL, create_purpose_key};
use portolan_identity::{
    Error as IdentityError, HistoryOrder, Identifier, Identity, IdentityRepository, Purpose,
    PurposeKeyRepository, SoftwareVault, StorageError, Vault,
};

use super::home::Home;
use super::spec::NodeRole;
use super::vaults::{OwnIdentity, now};
use crate::error::{Error, Result};

/// Age at which a node replaces the signing key of its identity, unless another one is set: a year of 365 days.
pub const IDENTITY_KEY_ROTATION: u64 = 365 * 24 * 3600;
/// Age at which a node replaces the purpose keys of its identity, unless another one is set: 90 days.
pub const PURPOSE_KEY_ROTATION: u64 = PURPOSE_KEY_RENEWAL;
/// Shortest interval for signing keys: every rotation makes the history longer, and a history ends after 128 changes.
pub const SHORTEST_IDENTITY_KEY_ROTATION: u64 = 24 * 3600;
/// Shortest interval for purpose keys.
pub const SHORTEST_PURPOSE_KEY_ROTATION: u64 = 60;
/// How long the secret of a replaced purpose key is kept, in seconds: longer than any handshake that may still need it.
pub const RETIRED_KEY_GRACE: u64 = 600;

/// When the keys of an identity are rotated by the nodes that use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationSchedule {
    /// Age of the signing key, in seconds; `None`: by command only.
    pub identity_key: Option<u64>,
    /// Age of purpose keys, in seconds.
    pub purpose_keys: u64,
}

/// What was rotated because it was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rotated {
    /// The identity, and with it its purpose keys.
    pub identity: bool,
    /// The purpose keys alone.
    pub purpose_keys: bool,
}

/// The identities of a home as their rotation sees them: replaced in one step, or not at all.
struct Kept<'a>(&'a Home);

impl IdentityRepository for Kept<'_> {
    fn get(&self, identifier: &Identifier) -> Result<Option<Identity>, StorageError> {
        let history = self.0.latest_history(identifier)?;
        history
            .map(|history| Identity::verify(history, Some(identifier)).map_err(StorageError::new))
            .transpose()
    }

    fn update(&self, identity: Identity) -> Result<HistoryOrder, StorageError> {
        let Some(stored) = self.get(identity.identifier())? else {
            return Err(StorageError::new("the identity was deleted meanwhile"));
        };
        let order = identity.compare(&stored);
        if order != HistoryOrder::Newer {
            return Ok(order);
        }
        let replaced = self
            .0
            .database()
            .and_then(|mut database| {
                database.replace_history(
                    &identity.identifier().to_string(),
                    stored.history().encode(),
                    identity.history().encode(),
                )
            })
            .map_err(StorageError::new)?;
        Ok(if replaced { order } else { HistoryOrder::Conflict })
    }

    fn remove(&self, _: &Identifier) -> Result<bool, StorageError> {
        Ok(false)
    }
}

fn failed(name: &str, error: &dyn fmt::Display) -> Error {
    Error::state(format!(
        "the keys of the identity `{name}` cannot be rotated: {error}"
    ))
}

impl Home {
    /// Replace the signing key of an identity, and its purpose keys. The identifier stays.
    ///
    /// # Errors
    ///
    /// When the vault or the state cannot be used, another command was faster, or the history has no room for a further
    /// change. Nothing is lost then: the old key goes last.
    pub fn rotate_identity(&self, name: &str) -> Result<OwnIdentity> {
        self.rotate_identity_at(name, now())
    }

    fn rotate_identity_at(&self, name: &str, now: u64) -> Result<OwnIdentity> {
        let own = self.own_identity(name)?;
        let key_type = own.identity.latest_public_key().key_type();
        own.identity
            .rotate(&*own.vault, &Kept(self), now, key_type)
            .map_err(|error| match error {
                IdentityError::NotLatest(_) => failed(name, &"another command has just done so"),
                error => failed(name, &error),
            })?;
        let own = self.own_identity(name)?;
        self.new_purpose_keys(&own, now)?;
        Ok(own)
    }

    /// Replace the purpose keys of an identity. Channels that are open go on.
    ///
    /// # Errors
    ///
    /// When the vault or the state cannot be used.
    pub fn rotate_purpose_keys(&self, name: &str) -> Result<OwnIdentity> {
        let own = self.own_identity(name)?;
        self.new_purpose_keys(&own, now())?;
        Ok(own)
    }

    fn new_purpose_keys(&self, own: &OwnIdentity, now: u64) -> Result<()> {
        let identifier = own.identity.identifier();
        for purpose in [Purpose::SecureChannel, Purpose::Credentials] {
            let made = self.get(identifier, purpose).and_then(|current| {
                // Who never signed a credential needs no key for it.
                if current.is_none() && purpose == Purpose::Credentials {
                    return Ok(());
                }
                let key = create_purpose_key(&*own.vault, &own.identity, purpose, now, PURPOSE_KEY_LIFETIME)
                    .map_err(StorageError::new)?;
                self.put(identifier, purpose, &key.attestation)
            });
            made.map_err(|error| failed(&own.record.name, &error))?;
        }
        Ok(())
    }

    /// When the keys of an identity are rotated.
    ///
    /// # Errors
    ///
    /// When there is no such identity, or the state cannot be read.
    pub fn rotation_schedule(&self, name: &str) -> Result<RotationSchedule> {
        let database = self.database()?;
        let identifier = database.identity(name)?.identifier;
        let seconds = |what| -> Result<Option<Option<u64>>> {
            let Some(text) = database.setting(&setting(&identifier, what))? else {
                return Ok(None);
            };
            // "never" is no number.
            Ok(Some(text.parse().ok()))
        };
        let identity_key = match seconds("identity-key")? {
            Some(set) => set,
            None if self.is_authority(name)? => None,
            None => Some(IDENTITY_KEY_ROTATION),
        };
        Ok(RotationSchedule {
            identity_key,
            purpose_keys: seconds("purpose-keys")?.flatten().unwrap_or(PURPOSE_KEY_ROTATION),
        })
    }

    /// Set when the keys of an identity are rotated.
    ///
    /// # Errors
    ///
    /// When an interval is too short, there is no such identity, or the state cannot be written.
    pub fn set_rotation_schedule(&self, name: &str, schedule: RotationSchedule) -> Result<()> {
        let too_short = |what: &str, given: u64, least: u64| {
            Error::invalid(format!(
                "{what} can be rotated every {least} s at most, not every {given} s"
            ))
        };
        if let Some(seconds) = schedule.identity_key
            && seconds < SHORTEST_IDENTITY_KEY_ROTATION
        {
            return Err(
                too_short("identity keys", seconds, SHORTEST_IDENTITY_KEY_ROTATION)
                    .hint("every rotation makes the history longer, and a history ends after 128 changes"),
            );
        }
        if schedule.purpose_keys < SHORTEST_PURPOSE_KEY_ROTATION {
            return Err(too_short(
                "purpose keys",
                schedule.purpose_keys,
                SHORTEST_PURPOSE_KEY_ROTATION,
            ));
        }
        let mut database = self.database()?;
        let identifier = database.identity(name)?.identifier;
        let identity_key = schedule
            .identity_key
            .map_or("never".to_owned(), |seconds| seconds.to_string());
        database.set_setting(&setting(&identifier, "identity-key"), &identity_key)?;
        database.set_setting(
            &setting(&identifier, "purpose-keys"),
            &schedule.purpose_keys.to_string(),
        )
    }

    /// Rotate what is due at `now`.
    ///
    /// # Errors
    ///
    /// As [`rotate_identity`](Self::rotate_identity).
    pub fn rotate_what_is_due(&self, name: &str, now: u64) -> Result<Rotated> {
        let schedule = self.rotation_schedule(name)?;
        let record = self.identity(name)?;
        let identity = Identity::decode(&record.history, None).map_err(|error| failed(name, &error))?;
        let age = now.saturating_sub(identity.latest_change().valid_from);
        let mut rotated = Rotated::default();
        if schedule.identity_key.is_some_and(|every| age >= every) {
            self.rotate_identity_at(name, now)?;
            rotated.identity = true;
            return Ok(rotated);
        }
        for purpose in [Purpose::SecureChannel, Purpose::Credentials] {
            let attestation = self
                .get(identity.identifier(), purpose)
                .map_err(|error| failed(name, &error))?;
            let created = attestation.and_then(|attestation| Some(attestation.read().ok()?.created_at));
            if created.is_some_and(|created| now.saturating_sub(created) >= schedule.purpose_keys) {
                rotated.purpose_keys = true;
            }
        }
        if rotated.purpose_keys {
            let own = self.own_identity(name)?;
            self.new_purpose_keys(&own, now)?;
        }
        Ok(rotated)
    }

    /// Delete the secrets of purpose keys that were replaced long enough ago. `loaded` is a vault of this process, which forgets
    /// them too. Says how many.
    ///
    /// # Errors
    ///
    /// When the vault or the state cannot be used.
    pub fn delete_retired_keys(&self, loaded: Option<(&str, &SoftwareVault)>, now: u64) -> Result<usize> {
        let due = self
            .database()?
            .retired_keys(now.saturating_sub(RETIRED_KEY_GRACE))?;
        for (name, handle) in &due {
            let deleted = match loaded {
                Some((loaded, vault)) if loaded == name => vault.delete_key(handle),
                _ => self.vault(name)?.delete_key(handle),
            };
            deleted.map_err(|error| Error::state(format!("an old key cannot be deleted: {error}")))?;
        }
        Ok(due.len())
    }

    /// Whether a project's node of this home is an authority under this identity.
    fn is_authority(&self, identity: &str) -> Result<bool> {
        Ok(self.node_names()?.iter().any(|name| {
            // A node that cannot be read is none.
            let spec = self.node_folder(name).and_then(|folder| folder.spec());
            spec.is_ok_and(
                |spec| matches!(&spec.role, NodeRole::Project(role) if role.authority_identity == identity),
            )
        }))
    }
}

fn setting(identifier: &str, what: &str) -> String {
    format!("rotation/{identifier}/{what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_identity::purpose_key::{PurposeKey, PurposePublicKey};
    use portolan_identity::{KeyType, current_purpose_key};

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path()).unwrap();
        (folder, home)
    }

    fn channel_key(home: &Home, own: &OwnIdentity, now: u64) -> PurposeKey {
        current_purpose_key(&*own.vault, home, &own.identity, Purpose::SecureChannel, now).unwrap()
    }

    #[test]
    fn a_rotation_keeps_the_identifier_and_leaves_one_signing_key() {
        let (_folder, home) = home();
        let first = home.create_identity(Some("a"), None, KeyType::Ed25519).unwrap();
        let old = first
            .vault
            .signing_handle(first.identity.latest_public_key())
            .unwrap();
        let second = home.rotate_identity("a").unwrap();
        assert_eq!(second.identity.identifier(), first.identity.identifier());
        assert_eq!(second.identity.compare(&first.identity), HistoryOrder::Newer);
        assert!(!home.vault("default").unwrap().contains(&old).unwrap());
        let new = second
            .vault
            .signing_handle(second.identity.latest_public_key())
            .unwrap();
        assert!(second.vault.contains(&new).unwrap());
        // The attestations are by the new key.
        let key = channel_key(&home, &second, now());
        assert_eq!(
            key.data.subject_latest_change_hash,
            second.identity.latest_change_hash()
        );
    }

    #[test]
    fn secrets_of_replaced_purpose_keys_are_deleted_when_no_handshake_can_need_them() {
        let (_folder, home) = home();
        let own = home.create_identity(Some("a"), None, KeyType::Ed25519).unwrap();
        let now = now();
        let old = channel_key(&home, &own, now);
        home.rotate_purpose_keys("a").unwrap();
        let new = channel_key(&home, &own, now);
        assert_ne!(old.handle, new.handle);
        assert!(
            own.vault.contains(&old.handle).unwrap(),
            "a handshake may be under way"
        );
        assert_eq!(
            home.delete_retired_keys(None, now + RETIRED_KEY_GRACE - 60)
                .unwrap(),
            0
        );
        let vault = own.record.vault.clone();
        let deleted = home.delete_retired_keys(Some((&vault, &own.vault)), now + RETIRED_KEY_GRACE + 60);
        assert_eq!(deleted.unwrap(), 1);
        assert!(!own.vault.contains(&old.handle).unwrap());
        assert!(own.vault.contains(&new.handle).unwrap());
        assert!(matches!(
            new.data.public_key,
            PurposePublicKey::SecureChannelStatic(_)
        ));
    }

    #[test]
    fn keys_are_rotated_when_they_are_due_and_not_before() {
        let (_folder, home) = home();
        let own = home.create_identity(Some("a"), None, KeyType::Ed25519).unwrap();
        let start = own.identity.latest_change().valid_from;
        channel_key(&home, &own, start);
        let nothing = Rotated::default();
        let at = |after| home.rotate_what_is_due("a", start + after).unwrap();
        assert_eq!(at(PURPOSE_KEY_ROTATION - 60), nothing);
        assert!(at(PURPOSE_KEY_ROTATION).purpose_keys);
        assert_eq!(at(PURPOSE_KEY_ROTATION + 60), nothing);
        assert!(at(IDENTITY_KEY_ROTATION).identity);
        assert_eq!(at(IDENTITY_KEY_ROTATION + 60), nothing);
        assert_eq!(home.own_identity("a").unwrap().identity.history().len(), 2);
        let never = RotationSchedule {
            identity_key: None,
            purpose_keys: 3600,
        };
        home.set_rotation_schedule("a", never).unwrap();
        assert_eq!(home.rotation_schedule("a").unwrap(), never);
        let rotated = at(5 * IDENTITY_KEY_ROTATION);
        assert!(!rotated.identity && rotated.purpose_keys);
        for (identity_key, purpose_keys) in [(Some(60), 3600), (None, 59)] {
            let schedule = RotationSchedule {
                identity_key,
                purpose_keys,
            };
            assert!(home.set_rotation_schedule("a", schedule).is_err());
        }
    }

    #[test]
    fn of_two_rotations_at_once_one_is_refused_and_nothing_is_lost() {
        let (_folder, home) = home();
        let own = home.create_identity(Some("a"), None, KeyType::Ed25519).unwrap();
        let rotated = home.rotate_identity("a").unwrap();
        // Somebody who read the identity before.
        let late = own
            .identity
            .rotate(&*own.vault, &Kept(&home), now(), KeyType::Ed25519);
        assert!(late.is_err());
        assert_eq!(home.own_identity("a").unwrap().identity, rotated.identity);
        home.rotate_identity("a").unwrap();
    }
}

//! Secret keys in the home's database, sealed when the owner gives a passphrase or a key file.
//!
//! `PORTOLAN_PASSPHRASE` holds the passphrase, or `PORTOLAN_KEY_FILE` names a file of 32 bytes (or 64 hexadecimal digits).
//! The first command that runs with one of them seals every key of the home; from then on every command and node of the
//! home needs the same. Without either, keys are protected by the mode of the files alone.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use portolan_identity::sealed::{Cost, SealError, Sealer, Unlock, parse_key_file};
use portolan_identity::{
    ChangeHistory, Identifier, Identity, KeyHandle, KeyType, Purpose, PurposeKeyAttestation,
    PurposeKeyRepository, PurposePublicKey, Secret, SecretKind, SecretStore, SoftwareVault, StorageError,
    Vault,
};
use zeroize::Zeroizing;

use super::home::{Home, HomeKey};
use super::names::random_name;
use super::records::{IdentityRecord, StoredSecret};
use super::spec::NodeRole;
use crate::error::{Error, ErrorCode, Result};

/// The setting that holds the key slot, hex.
const KEY_SLOT: &str = "key-slot";
/// The largest key file that is read.
const MAX_KEY_FILE: u64 = 4096;

const SEALED_MEANWHILE: &str =
    "the secret keys of this home were sealed while this process ran: start it again with the key";

/// UTC seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// An identity of this home: what others may know of it, and the vault that holds its keys.
#[derive(Clone)]
pub struct OwnIdentity {
    /// The row.
    pub record: IdentityRecord,
    /// The verified change history.
    pub identity: Identity,
    /// The vault that holds its keys.
    pub vault: Arc<SoftwareVault>,
}

impl fmt::Debug for OwnIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnIdentity({} {})", self.record.name, self.record.identifier)
    }
}

/// What an identity is taken over from.
#[derive(Debug, Clone, Copy)]
pub enum IdentitySource<'a> {
    /// The handle of its key; its history begins with it.
    Key(&'a KeyHandle),
    /// Its change history, hex.
    History(&'a str),
}

/// What opens the key slot of a home.
pub(super) enum Key {
    Passphrase(Zeroizing<Vec<u8>>),
    File(Zeroizing<[u8; 32]>),
}

impl Key {
    /// What the environment gives, if anything.
    fn of_environment() -> Result<Option<Self>> {
        let given = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        match (given("PORTOLAN_PASSPHRASE"), given("PORTOLAN_KEY_FILE")) {
            (Some(_), Some(_)) => Err(Error::invalid(
                "PORTOLAN_PASSPHRASE and PORTOLAN_KEY_FILE are both set",
            )
            .hint("unset the one that this home was not sealed with")),
            (Some(passphrase), None) => Ok(Some(Key::Passphrase(Zeroizing::new(
                passphrase.into_encoded_bytes(),
            )))),
            (None, Some(path)) => {
                use std::io::Read;
                let shown = path.to_string_lossy().into_owned();
                let mut content = Zeroizing::new(Vec::new());
                std::fs::File::open(&path)
                    .and_then(|file| file.take(MAX_KEY_FILE).read_to_end(&mut content))
                    .map_err(|error| Error::state(format!("the key file {shown} cannot be read: {error}")))?;
                let key = parse_key_file(&content)
                    .map_err(|error| Error::state(format!("{shown} is not a key file: {error}")))?;
                Ok(Some(Key::File(key)))
            }
            (None, None) => Ok(None),
        }
    }

    fn unlock(&self) -> Unlock<'_> {
        match self {
            Key::Passphrase(passphrase) => Unlock::Passphrase(passphrase),
            Key::File(key) => Unlock::KeyFile(key),
        }
    }
}

fn seal_failure(error: SealError) -> Error {
    let hint = match &error {
        SealError::WrongPassphrase | SealError::NeedsPassphrase => {
            Some("set PORTOLAN_PASSPHRASE to the passphrase that this home was sealed with")
        }
        SealError::WrongKeyFile | SealError::NeedsKeyFile => {
            Some("set PORTOLAN_KEY_FILE to the key file that this home was sealed with")
        }
        _ => None,
    };
    let out = Error::state(format!("the secret keys of this home cannot be opened: {error}"));
    match hint {
        Some(hint) => out.hint(hint),
        None => out,
    }
}

/// The sealer of a home: `None` when its keys are not sealed and no key is given. Seals what is there when a key is given
/// for the first time.
pub(super) fn sealer(home: &Home, key: Option<&Key>) -> Result<Option<Arc<Sealer>>> {
    let mut database = home.database()?;
    let read = |text: String| {
        hex::decode(text)
            .map_err(|_| Error::state("the key slot of this home is damaged: restore it from a back-up"))
    };
    let Some(key) = key else {
        return match database.setting(KEY_SLOT)? {
            None => Ok(None),
            Some(_) => Err(
                Error::state("the secret keys of this home are sealed, and no key was given").hint(
                    "set PORTOLAN_PASSPHRASE or PORTOLAN_KEY_FILE, whichever this home was sealed with",
                ),
            ),
        };
    };
    if let Some(slot) = database.setting(KEY_SLOT)? {
        return Ok(Some(Arc::new(
            Sealer::unlock(&read(slot)?, key.unlock()).map_err(seal_failure)?,
        )));
    }
    let (sealer, slot) = Sealer::create(key.unlock(), Cost::DEFAULT).map_err(seal_failure)?;
    let won = database.seal_all(KEY_SLOT, &hex::encode(slot), |stored| {
        let handle = KeyHandle::from(
            <[u8; 32]>::try_from(stored.handle.as_slice())
                .map_err(|_| damaged("a handle of the wrong length"))?,
        );
        let secret = plain(&stored.kind, &stored.value).map_err(damaged)?;
        sealer.seal_secret(&handle, &secret).map_err(seal_failure)
    })?;
    if won {
        return Ok(Some(Arc::new(sealer)));
    }
    // Another command was faster; its slot counts.
    let slot = database
        .setting(KEY_SLOT)?
        .ok_or_else(|| damaged("the key slot has vanished"))?;
    Ok(Some(Arc::new(
        Sealer::unlock(&read(slot)?, key.unlock()).map_err(seal_failure)?,
    )))
}

fn damaged(what: impl fmt::Display) -> Error {
    Error::state(format!("a secret key of this home cannot be read: {what}"))
}

fn plain(kind: &str, value: &[u8]) -> Result<Secret, String> {
    let kind = SecretKind::from_str(kind).map_err(|error| error.to_string())?;
    let bytes = <[u8; 32]>::try_from(value).map_err(|_| "it has the wrong length".to_owned())?;
    Ok(Secret::new(kind, Zeroizing::new(bytes)))
}

/// The secrets of one vault.
struct Store {
    home: Home,
    vault: String,
    sealer: Option<Arc<Sealer>>,
}

impl SecretStore for Store {
    fn put(&self, handle: &KeyHandle, secret: &Secret) -> Result<(), StorageError> {
        let value = match &self.sealer {
            Some(sealer) => Zeroizing::new(sealer.seal_secret(handle, secret).map_err(StorageError::new)?),
            None => Zeroizing::new(secret.expose().to_vec()),
        };
        let stored = StoredSecret {
            handle: handle.as_bytes().to_vec(),
            kind: secret.kind().as_str().to_owned(),
            sealed: self.sealer.is_some(),
            value,
        };
        let mut database = self.home.database().map_err(StorageError::new)?;
        if !stored.sealed && database.setting(KEY_SLOT).map_err(StorageError::new)?.is_some() {
            return Err(StorageError::new(SEALED_MEANWHILE));
        }
        database
            .put_secret(&self.vault, &stored)
            .map_err(StorageError::new)
    }

    fn get(&self, handle: &KeyHandle) -> Result<Option<Secret>, StorageError> {
        let stored = self
            .home
            .database()
            .and_then(|database| database.secret(&self.vault, handle.as_bytes()))
            .map_err(StorageError::new)?;
        let Some(stored) = stored else { return Ok(None) };
        if !stored.sealed {
            return plain(&stored.kind, &stored.value)
                .map(Some)
                .map_err(StorageError::new);
        }
        let kind = SecretKind::from_str(&stored.kind).map_err(StorageError::new)?;
        match &self.sealer {
            Some(sealer) => sealer
                .open_secret(handle, kind, &stored.value)
                .map(Some)
                .map_err(StorageError::new),
            None => Err(StorageError::new(SEALED_MEANWHILE)),
        }
    }

    fn delete(&self, handle: &KeyHandle) -> Result<bool, StorageError> {
        self.home
            .database()
            .and_then(|mut database| database.delete_secret(&self.vault, handle.as_bytes()))
            .map_err(StorageError::new)
    }
}

impl PurposeKeyRepository for Home {
    fn get(
        &self,
        identifier: &Identifier,
        purpose: Purpose,
    ) -> Result<Option<PurposeKeyAttestation>, StorageError> {
        let bytes = self
            .database()
            .and_then(|database| database.attestation(&identifier.to_string(), purpose.as_str()))
            .map_err(StorageError::new)?;
        // One that cannot be read is replaced by a new one.
        Ok(bytes.and_then(|bytes| PurposeKeyAttestation::decode(&bytes).ok()))
    }

    fn put(
        &self,
        identifier: &Identifier,
        purpose: Purpose,
        attestation: &PurposeKeyAttestation,
    ) -> Result<(), StorageError> {
        let key = |attestation: &PurposeKeyAttestation| {
            attestation.read().ok().map(|data| match data.public_key {
                PurposePublicKey::SecureChannelStatic(key) => KeyHandle::of_x25519_key(&key),
                PurposePublicKey::CredentialSigning(key) => KeyHandle::of_verifying_key(&key),
            })
        };
        let before = self.get(identifier, purpose)?.and_then(|before| key(&before));
        let retired = before.filter(|before| Some(*before) != key(attestation));
        self.database()
            .and_then(|mut database| {
                database.put_attestation(
                    &identifier.to_string(),
                    purpose.as_str(),
                    &attestation.encode(),
                    retired.as_ref().map(|handle| &handle.as_bytes()[..]),
                    now(),
                )
            })
            .map_err(StorageError::new)
    }

    fn latest_history(&self, identifier: &Identifier) -> Result<Option<ChangeHistory>, StorageError> {
        let history = self
            .database()
            .and_then(|database| database.history(&identifier.to_string()))
            .map_err(StorageError::new)?;
        history
            .map(|history| ChangeHistory::decode(&history).map_err(StorageError::new))
            .transpose()
    }
}

impl Home {
    /// The vault of this name.
    ///
    /// # Errors
    ///
    /// When there is none, or its keys are sealed and the key in the environment is missing or wrong.
    pub fn vault(&self, name: &str) -> Result<Arc<SoftwareVault>> {
        self.database()?.vault(name)?;
        let sealer = self.sealer(|| {
            let key = match self.key() {
                HomeKey::Environment => Key::of_environment()?,
                HomeKey::Unsealed => None,
                HomeKey::Passphrase(passphrase) => Some(Key::Passphrase(passphrase.clone())),
                HomeKey::Key(key) => Some(Key::File(key.clone())),
            };
            sealer(self, key.as_ref())
        })?;
        Ok(Arc::new(SoftwareVault::new(Store {
            home: self.clone(),
            vault: name.to_owned(),
            sealer,
        })))
    }

    /// An identity of this home and the vault that holds its keys.
    ///
    /// # Errors
    ///
    /// When there is none of that name, its history does not verify, or the vault cannot be opened.
    pub fn own_identity(&self, name: &str) -> Result<OwnIdentity> {
        self.own(self.identity(name)?)
    }

    fn own(&self, record: IdentityRecord) -> Result<OwnIdentity> {
        let broken = |error: &dyn fmt::Display| {
            Error::state(format!(
                "the identity `{}` of this home is damaged: {error}",
                record.name
            ))
        };
        let identifier = record
            .identifier
            .parse::<Identifier>()
            .map_err(|error| broken(&error))?;
        let identity =
            Identity::decode(&record.history, Some(&identifier)).map_err(|error| broken(&error))?;
        let vault = self.vault(&record.vault)?;
        Ok(OwnIdentity {
            record,
            identity,
            vault,
        })
    }

    /// Make an identity: a new key in `vault` (the default vault if `None`) and a history that begins with it. Without a
    /// name, it gets a random one.
    ///
    /// # Errors
    ///
    /// When the name is taken, or the state cannot be written.
    pub fn create_identity(
        &self,
        name: Option<&str>,
        vault: Option<&str>,
        key_type: KeyType,
    ) -> Result<OwnIdentity> {
        let now = now();
        let mut database = self.database()?;
        let vault_record = match vault {
            Some(name) => database.vault(name)?,
            None => database.default_vault(now)?,
        };
        let known = database.identities()?;
        let name = match name {
            Some(name) if known.iter().any(|identity| identity.name == name) => {
                return Err(Error::exists(format!(
                    "there is already an identity named `{name}`"
                )));
            }
            Some(name) => {
                super::names::check_plain_name("identities", name)?;
                name.to_owned()
            }
            None => random_name(|name| known.iter().any(|identity| identity.name == name))?,
        };
        drop(database);
        let vault = self.vault(&vault_record.name)?;
        let identity = Identity::create(&*vault, now, key_type)
            .map_err(|error| Error::state(format!("the identity cannot be made: {error}")))?;
        self.keep_identity(&name, &vault_record.name, &identity)
    }

    /// Take over an identity whose key is in `vault` (the default vault if `None`): from the handle of that key, which begins a new
    /// history, or from its change history in hex. Without a name, it gets a random one.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorCode::NotFound) when the vault does not hold the key; when the name is taken or the state cannot be written.
    pub fn take_over_identity(
        &self,
        name: Option<&str>,
        vault: Option<&str>,
        from: IdentitySource<'_>,
    ) -> Result<OwnIdentity> {
        let mut database = self.database()?;
        let vault_name = match vault {
            Some(name) => database.vault(name)?.name,
            None => database.default_vault(now())?.name,
        };
        let known = database.identities()?;
        drop(database);
        let vault = self.vault(&vault_name)?;
        let identity = match from {
            IdentitySource::Key(handle) => Identity::create_with_key(&*vault, handle, now())
                .map_err(|error| Error::failed(format!("the identity cannot be made: {error}")))?,
            IdentitySource::History(history) => Identity::from_hex(history.trim(), None)
                .map_err(|error| Error::invalid(format!("it is not a change history: {error}")))?,
        };
        let handle = vault
            .signing_handle(identity.latest_public_key())
            .map_err(|error| Error::failed(format!("the vault failed: {error}")))?;
        if !vault
            .contains(&handle)
            .map_err(|error| Error::state(error.to_string()))?
        {
            return Err(Error::not_found(format!(
                "the vault `{vault_name}` does not hold the key of this identity"
            ))
            .hint("name the vault that holds it"));
        }
        let name = match name {
            Some(name) => name.to_owned(),
            None => random_name(|name| known.iter().any(|identity| identity.name == name))?,
        };
        self.keep_identity(&name, &vault_name, &identity)
    }

    /// Delete an identity; its key stays in the vault.
    ///
    /// # Errors
    ///
    /// When there is none of that name, or a node of this home uses it.
    pub fn delete_identity(&self, name: &str) -> Result<()> {
        self.identity(name)?;
        if let Some(node) = self.user_of_identity(name)? {
            return Err(
                Error::exists(format!("the identity `{name}` is used by the node `{node}`"))
                    .hint(format!("delete the node first: portolan node delete {node}")),
            );
        }
        self.database()?.delete_identity(name)
    }

    /// The node of this home that uses an identity.
    pub(crate) fn user_of_identity(&self, identity: &str) -> Result<Option<String>> {
        for name in self.node_names()? {
            // A node that cannot be read is not a reason to refuse.
            let Ok(spec) = self.node_folder(&name)?.spec() else {
                continue;
            };
            let uses = spec.identity == identity
                || matches!(&spec.role, NodeRole::Project(role) if role.authority_identity == identity);
            if uses {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Write an identity whose keys are in `vault` (or of which only the history is known).
    ///
    /// # Errors
    ///
    /// When the name or the identifier is taken.
    pub fn keep_identity(&self, name: &str, vault: &str, identity: &Identity) -> Result<OwnIdentity> {
        let record = IdentityRecord {
            name: name.to_owned(),
            identifier: identity.identifier().to_string(),
            vault: vault.to_owned(),
            history: identity.history().encode().to_vec(),
            is_default: false,
        };
        let record = self.database()?.create_identity(&record, now())?;
        self.own(record)
    }

    /// The identity to act as: the named one, which must exist; or the default one, made (with the name `default`) if
    /// there is none.
    ///
    /// # Errors
    ///
    /// When the named one does not exist, or the state cannot be used.
    pub fn acting_identity(&self, name: Option<&str>) -> Result<OwnIdentity> {
        if let Some(name) = name {
            return self.own_identity(name);
        }
        if let Some(record) = self.database()?.default_identity()? {
            return self.own(record);
        }
        match self.create_identity(Some("default"), None, KeyType::default()) {
            // Another command was faster.
            Err(error) if error.code == ErrorCode::AlreadyExists => self.own_identity("default"),
            result => result,
        }
    }

    /// The identity of this name, made if it does not exist.
    ///
    /// # Errors
    ///
    /// When the state cannot be used.
    pub fn identity_or_new(&self, name: &str) -> Result<OwnIdentity> {
        match self.own_identity(name) {
            Err(error) if error.code == ErrorCode::NotFound => {
                match self.create_identity(Some(name), None, KeyType::default()) {
                    Err(error) if error.code == ErrorCode::AlreadyExists => self.own_identity(name),
                    result => result,
                }
            }
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path()).unwrap();
        (folder, home)
    }

    fn file_key(byte: u8) -> Key {
        Key::File(Zeroizing::new([byte; 32]))
    }

    /// Every byte of the database and its side files.
    fn bytes(folder: &tempfile::TempDir) -> Vec<u8> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                all.extend(std::fs::read(path).unwrap());
            }
        }
        all
    }

    #[test]
    fn an_identity_signs_after_the_home_is_opened_again() {
        let (folder, home) = home();
        let made = home
            .create_identity(Some("bank"), None, KeyType::default())
            .unwrap();
        let again = Home::at(folder.path()).unwrap().own_identity("bank").unwrap();
        assert_eq!(again.identity.identifier(), made.identity.identifier());
        let handle = again
            .vault
            .signing_handle(again.identity.latest_public_key())
            .unwrap();
        let signature = again.vault.sign(&handle, &[7; 32]).unwrap();
        again
            .identity
            .latest_public_key()
            .verify(&[7; 32], &signature)
            .unwrap();
        let error = home
            .create_identity(Some("bank"), None, KeyType::default())
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::AlreadyExists);
    }

    #[test]
    fn many_commands_that_need_a_default_identity_at_once_get_the_same() {
        let (_folder, home) = home();
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6)
                .map(|_| {
                    let home = Home::at(home.path()).unwrap();
                    scope.spawn(move || home.acting_identity(None).unwrap().record.identifier)
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(made.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_key_seals_what_was_there_before_and_what_comes_after() {
        let (folder, home) = home();
        let open = Home::at(folder.path()).unwrap();
        let before = open
            .create_identity(Some("before"), None, KeyType::default())
            .unwrap();
        let handle = before
            .vault
            .signing_handle(before.identity.latest_public_key())
            .unwrap();
        let stored = home
            .database()
            .unwrap()
            .secret("default", handle.as_bytes())
            .unwrap()
            .unwrap();
        assert!(!stored.sealed);

        let key = file_key(1);
        let sealed = sealer(&home, Some(&key)).unwrap().unwrap();
        let after = home
            .database()
            .unwrap()
            .secret("default", handle.as_bytes())
            .unwrap()
            .unwrap();
        assert!(after.sealed);
        let raw = bytes(&folder);
        assert!(
            !raw.windows(32).any(|window| window == &stored.value[..]),
            "the plain key is still on the disk"
        );

        let store = Store {
            home: home.clone(),
            vault: "default".into(),
            sealer: Some(sealed),
        };
        let vault = SoftwareVault::new(store);
        vault.sign(&handle, &[7; 32]).unwrap();
    }

    #[test]
    fn a_sealed_home_opens_only_with_its_key() {
        let (_folder, home) = home();
        sealer(&home, Some(&file_key(1))).unwrap();
        sealer(&home, Some(&file_key(1))).unwrap();
        for key in [
            None,
            Some(file_key(2)),
            Some(Key::Passphrase(Zeroizing::new(b"x".to_vec()))),
        ] {
            let error = sealer(&home, key.as_ref()).unwrap_err();
            assert_eq!(error.code, ErrorCode::State);
            assert!(error.hint.is_some(), "{error}");
        }
    }

    #[test]
    fn purpose_keys_are_found_again() {
        let (_folder, home) = home();
        let own = home.acting_identity(None).unwrap();
        let key = |purpose| {
            portolan_identity::current_purpose_key(&*own.vault, &home, &own.identity, purpose, now()).unwrap()
        };
        assert_eq!(key(Purpose::SecureChannel), key(Purpose::SecureChannel));
        assert_ne!(
            key(Purpose::SecureChannel).handle,
            key(Purpose::Credentials).handle
        );
    }
}

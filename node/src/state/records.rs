//! Rows of the home's database: vaults, identities, projects, credentials, defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use zeroize::Zeroizing;

use super::database::{self, StateError};
use super::names::{check_plain_name, check_project_name, closest};
use super::spec::Project;
use crate::error::{Error, Result};

/// One entry leads from one version of the schema to the next. Never change an entry that was released: add one.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE setting (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;
    CREATE TABLE vault (
        name TEXT PRIMARY KEY,
        created_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE secret (
        vault TEXT NOT NULL REFERENCES vault (name),
        handle BLOB NOT NULL,
        kind TEXT NOT NULL,
        sealed INTEGER NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (vault, handle)
    ) STRICT;
    CREATE TABLE purpose_key (
        identifier TEXT NOT NULL,
        purpose TEXT NOT NULL,
        attestation BLOB NOT NULL,
        PRIMARY KEY (identifier, purpose)
    ) STRICT;
    CREATE TABLE identity (
        name TEXT PRIMARY KEY,
        identifier TEXT NOT NULL UNIQUE,
        vault TEXT NOT NULL REFERENCES vault (name),
        history BLOB NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE project (
        name TEXT PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        record TEXT NOT NULL
    ) STRICT;
    CREATE TABLE credential (
        subject TEXT NOT NULL,
        issuer TEXT NOT NULL,
        scope TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        attributes TEXT NOT NULL,
        credential BLOB NOT NULL,
        PRIMARY KEY (subject, issuer, scope)
    ) STRICT;
"];

const DEFAULT_VAULT: &str = "default-vault";
const DEFAULT_IDENTITY: &str = "default-identity";
const DEFAULT_PROJECT: &str = "default-project";

/// A vault: a set of secret keys under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultRecord {
    /// Local name.
    pub name: String,
    /// Whether commands use it when none is named.
    pub is_default: bool,
}

/// An identity whose keys are in a vault of this home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRecord {
    /// Local name.
    pub name: String,
    /// `I…`
    pub identifier: String,
    /// The vault that holds its keys.
    pub vault: String,
    /// The change history, encoded.
    pub history: Vec<u8>,
    /// Whether commands use it when none is named.
    pub is_default: bool,
}

/// A credential about an identity of this home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRecord {
    /// Whom it is about, `I…`.
    pub subject: String,
    /// Who signed it, `I…`.
    pub issuer: String,
    /// What it is for, [`Project::credential_scope`] or a word of the user's.
    pub scope: String,
    /// UTC seconds.
    pub created_at: u64,
    /// UTC seconds.
    pub expires_at: u64,
    /// What it says.
    pub attributes: BTreeMap<String, String>,
    /// The credential with its purpose key, encoded.
    pub credential: Vec<u8>,
}

/// A secret key as it is stored.
pub(super) struct StoredSecret {
    /// The handle's bytes.
    pub(super) handle: Vec<u8>,
    /// The kind's text.
    pub(super) kind: String,
    /// Whether `value` is sealed.
    pub(super) sealed: bool,
    /// The key, or what the sealer made of it.
    pub(super) value: Zeroizing<Vec<u8>>,
}

/// The home's database, open. For one or a few short transactions; do not keep it.
#[derive(Debug)]
pub struct HomeDatabase {
    connection: Connection,
    path: PathBuf,
}

impl HomeDatabase {
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        Ok(Self {
            connection: database::open(path, MIGRATIONS)?,
            path: path.to_path_buf(),
        })
    }

    fn fail(&self) -> impl Fn(rusqlite::Error) -> Error + '_ {
        |source| StateError::sqlite(&self.path, source).into()
    }

    /// Run `body` in a transaction that nobody else's writes come between.
    fn write<T>(&mut self, body: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let path = self.path.clone();
        let fail = |source| Error::from(StateError::sqlite(&path, source));
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(fail)?;
        let value = body(&transaction).map_err(fail)?;
        transaction.commit().map_err(fail)?;
        Ok(value)
    }

    // ------------------------------------------------------------------------------------------------------ settings

    /// A setting.
    pub fn setting(&self, key: &str) -> Result<Option<String>> {
        get_setting(&self.connection, key).map_err(self.fail())
    }

    /// Write a setting.
    pub fn set_setting(&mut self, key: &str, value: &str) -> Result<()> {
        self.write(|transaction| put_setting(transaction, key, value))
    }

    // -------------------------------------------------------------------------------------------------------- vaults

    /// Every vault, sorted by name.
    pub fn vaults(&self) -> Result<Vec<VaultRecord>> {
        let default = self.setting(DEFAULT_VAULT)?;
        let mut statement = self
            .connection
            .prepare("SELECT name FROM vault ORDER BY name")
            .map_err(self.fail())?;
        let names = statement
            .query_map([], |row| row.get::<_, String>(0))
            .map_err(self.fail())?;
        names
            .map(|name| {
                let name = name.map_err(self.fail())?;
                Ok(VaultRecord {
                    is_default: default.as_deref() == Some(&name),
                    name,
                })
            })
            .collect()
    }

    /// A vault by name.
    pub fn vault(&self, name: &str) -> Result<VaultRecord> {
        let vaults = self.vaults()?;
        vaults
            .iter()
            .find(|vault| vault.name == name)
            .cloned()
            .ok_or_else(|| unknown("vault", name, vaults.iter().map(|vault| vault.name.as_str())))
    }

    /// Add a vault; the first one becomes the default.
    pub fn create_vault(&mut self, name: &str, now: u64) -> Result<VaultRecord> {
        check_plain_name("vaults", name)?;
        let added = self.write(|transaction| {
            let added = transaction.execute(
                "INSERT OR IGNORE INTO vault (name, created_at) VALUES (?1, ?2)",
                params![name, seconds(now)],
            )?;
            default_to(
                transaction,
                DEFAULT_VAULT,
                name,
                "SELECT EXISTS (SELECT 1 FROM vault WHERE name = ?1)",
            )?;
            Ok(added)
        })?;
        if added == 0 {
            return Err(Error::exists(format!("there is already a vault named `{name}`")));
        }
        self.vault(name)
    }

    /// The vault to use when none is named: the default one, made if there is none.
    pub fn default_vault(&mut self, now: u64) -> Result<VaultRecord> {
        let name = self.write(|transaction| {
            let current = get_setting(transaction, DEFAULT_VAULT)?;
            let name = match current {
                Some(name) => name,
                None => "default".to_owned(),
            };
            transaction.execute(
                "INSERT OR IGNORE INTO vault (name, created_at) VALUES (?1, ?2)",
                params![name, seconds(now)],
            )?;
            put_setting(transaction, DEFAULT_VAULT, &name)?;
            Ok(name)
        })?;
        self.vault(&name)
    }

    /// Delete a vault and every key in it.
    ///
    /// # Errors
    ///
    /// Refused while an identity uses it.
    pub fn delete_vault(&mut self, name: &str) -> Result<()> {
        self.vault(name)?;
        let user = self.write(|transaction| {
            let user: Option<String> = transaction
                .query_row(
                    "SELECT name FROM identity WHERE vault = ?1 LIMIT 1",
                    [name],
                    |row| row.get(0),
                )
                .optional()?;
            if user.is_none() {
                transaction.execute("DELETE FROM secret WHERE vault = ?1", [name])?;
                transaction.execute("DELETE FROM vault WHERE name = ?1", [name])?;
                pass_default_on(
                    transaction,
                    DEFAULT_VAULT,
                    name,
                    "SELECT name FROM vault ORDER BY created_at, name",
                )?;
            }
            Ok(user)
        })?;
        match user {
            Some(identity) => Err(Error::exists(format!(
                "the vault `{name}` is used by the identity `{identity}`"
            ))
            .hint(format!(
                "delete the identity first: portolan identity delete {identity}"
            ))),
            None => Ok(()),
        }
    }

    // ------------------------------------------------------------------------------------------------------- secrets

    /// Write a secret, replacing an older one under the same handle. It is stored as given: seal it before.
    pub(super) fn put_secret(&mut self, vault: &str, secret: &StoredSecret) -> Result<()> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO secret (vault, handle, kind, sealed, value) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![vault, secret.handle, secret.kind, secret.sealed, secret.value.as_slice()],
            )?;
            Ok(())
        })
    }

    /// A secret as stored.
    pub(super) fn secret(&self, vault: &str, handle: &[u8]) -> Result<Option<StoredSecret>> {
        self.connection
            .query_row(
                "SELECT handle, kind, sealed, value FROM secret WHERE vault = ?1 AND handle = ?2",
                params![vault, handle],
                |row| {
                    Ok(StoredSecret {
                        handle: row.get(0)?,
                        kind: row.get(1)?,
                        sealed: row.get(2)?,
                        value: Zeroizing::new(row.get(3)?),
                    })
                },
            )
            .optional()
            .map_err(self.fail())
    }

    /// Store `slot` under `key` and replace every plain secret by what `seal` makes of it, unless there is a slot already;
    /// whether it was stored. The plain bytes are overwritten on the disk.
    pub(super) fn seal_all(
        &mut self,
        key: &str,
        slot: &str,
        seal: impl Fn(&StoredSecret) -> Result<Vec<u8>>,
    ) -> Result<bool> {
        // Freed pages keep what was in them, unless SQLite is told to overwrite them.
        self.connection
            .execute_batch("PRAGMA secure_delete = ON")
            .map_err(self.fail())?;
        let path = self.path.clone();
        let fail = |source| Error::from(StateError::sqlite(&path, source));
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(fail)?;
        if get_setting(&transaction, key).map_err(fail)?.is_some() {
            return Ok(false);
        }
        let plain: Vec<(String, StoredSecret)> = {
            let mut statement = transaction
                .prepare("SELECT vault, handle, kind, value FROM secret WHERE sealed = 0")
                .map_err(fail)?;
            let rows = statement
                .query_map([], |row| {
                    let (handle, kind, value) = (row.get(1)?, row.get(2)?, Zeroizing::new(row.get(3)?));
                    Ok((
                        row.get(0)?,
                        StoredSecret {
                            handle,
                            kind,
                            sealed: false,
                            value,
                        },
                    ))
                })
                .map_err(fail)?;
            rows.collect::<rusqlite::Result<_>>().map_err(fail)?
        };
        for (vault, secret) in &plain {
            transaction
                .execute(
                    "UPDATE secret SET sealed = 1, value = ?3 WHERE vault = ?1 AND handle = ?2",
                    params![vault, secret.handle, seal(secret)?],
                )
                .map_err(fail)?;
        }
        put_setting(&transaction, key, slot).map_err(fail)?;
        transaction.commit().map_err(fail)?;
        // The write-ahead log still has the plain pages: bring it into the database and cut it off.
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(self.fail())?;
        Ok(true)
    }

    /// The current attestation of an identity's key for a purpose, encoded.
    pub(super) fn attestation(&self, identifier: &str, purpose: &str) -> Result<Option<Vec<u8>>> {
        self.connection
            .query_row(
                "SELECT attestation FROM purpose_key WHERE identifier = ?1 AND purpose = ?2",
                [identifier, purpose],
                |row| row.get(0),
            )
            .optional()
            .map_err(self.fail())
    }

    /// Replace the current attestation of an identity's key for a purpose.
    pub(super) fn put_attestation(
        &mut self,
        identifier: &str,
        purpose: &str,
        attestation: &[u8],
    ) -> Result<()> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO purpose_key (identifier, purpose, attestation) VALUES (?1, ?2, ?3)",
                params![identifier, purpose, attestation],
            )?;
            Ok(())
        })
    }

    /// Forget a secret; whether there was one.
    pub(super) fn delete_secret(&mut self, vault: &str, handle: &[u8]) -> Result<bool> {
        self.write(|transaction| {
            Ok(transaction.execute(
                "DELETE FROM secret WHERE vault = ?1 AND handle = ?2",
                params![vault, handle],
            )? > 0)
        })
    }

    // ---------------------------------------------------------------------------------------------------- identities

    /// Every identity, sorted by name.
    pub fn identities(&self) -> Result<Vec<IdentityRecord>> {
        let default = self.setting(DEFAULT_IDENTITY)?;
        let mut statement = self
            .connection
            .prepare("SELECT name, identifier, vault, history FROM identity ORDER BY name")
            .map_err(self.fail())?;
        let rows = statement
            .query_map([], |row| {
                Ok(IdentityRecord {
                    name: row.get(0)?,
                    identifier: row.get(1)?,
                    vault: row.get(2)?,
                    history: row.get(3)?,
                    is_default: false,
                })
            })
            .map_err(self.fail())?;
        rows.map(|row| {
            let mut record = row.map_err(self.fail())?;
            record.is_default = default.as_deref() == Some(&record.name);
            Ok(record)
        })
        .collect()
    }

    /// An identity by local name.
    pub fn identity(&self, name: &str) -> Result<IdentityRecord> {
        let identities = self.identities()?;
        identities
            .iter()
            .find(|identity| identity.name == name)
            .cloned()
            .ok_or_else(|| {
                unknown(
                    "identity",
                    name,
                    identities.iter().map(|identity| identity.name.as_str()),
                )
            })
    }

    /// The default identity, if there is one.
    pub fn default_identity(&self) -> Result<Option<IdentityRecord>> {
        Ok(self
            .identities()?
            .into_iter()
            .find(|identity| identity.is_default))
    }

    /// Add an identity; the first one becomes the default. `is_default` of the argument is ignored.
    ///
    /// # Errors
    ///
    /// When the name or the identifier is there already.
    pub fn create_identity(&mut self, identity: &IdentityRecord, now: u64) -> Result<IdentityRecord> {
        check_plain_name("identities", &identity.name)?;
        let clash = self.write(|transaction| {
            let clash: Option<String> = transaction
                .query_row(
                    "SELECT name FROM identity WHERE name = ?1 OR identifier = ?2",
                    params![identity.name, identity.identifier],
                    |row| row.get(0),
                )
                .optional()?;
            if clash.is_none() {
                transaction.execute(
                    "INSERT INTO identity (name, identifier, vault, history, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![identity.name, identity.identifier, identity.vault, identity.history, seconds(now)],
                )?;
                default_to(
                    transaction,
                    DEFAULT_IDENTITY,
                    &identity.name,
                    "SELECT EXISTS (SELECT 1 FROM identity WHERE name = ?1)",
                )?;
            }
            Ok(clash)
        })?;
        match clash {
            Some(name) if name == identity.name => Err(Error::exists(format!(
                "there is already an identity named `{name}`"
            ))),
            Some(name) => Err(Error::exists(format!(
                "the identity {} is already here under the name `{name}`",
                identity.identifier
            ))),
            None => self.identity(&identity.name),
        }
    }

    /// Replace the change history of an identity (after a rotation of its key).
    pub fn update_identity_history(&mut self, name: &str, history: &[u8]) -> Result<()> {
        self.write(|transaction| {
            transaction.execute(
                "UPDATE identity SET history = ?2 WHERE name = ?1",
                params![name, history],
            )?;
            Ok(())
        })
    }

    /// Make an identity the default.
    pub fn set_default_identity(&mut self, name: &str) -> Result<()> {
        self.identity(name)?;
        self.set_setting(DEFAULT_IDENTITY, name)
    }

    /// Delete an identity and its credentials. Its keys stay in the vault. Whether a node uses it is for the caller to
    /// find out.
    pub fn delete_identity(&mut self, name: &str) -> Result<()> {
        let identity = self.identity(name)?;
        self.write(|transaction| {
            transaction.execute("DELETE FROM identity WHERE name = ?1", [name])?;
            transaction.execute(
                "DELETE FROM credential WHERE subject = ?1",
                [&identity.identifier],
            )?;
            pass_default_on(
                transaction,
                DEFAULT_IDENTITY,
                name,
                "SELECT name FROM identity ORDER BY created_at, name",
            )
        })
    }

    // ------------------------------------------------------------------------------------------------------ projects

    /// Every project, sorted by name, and whether it is the default.
    pub fn projects(&self) -> Result<Vec<(Project, bool)>> {
        let default = self.setting(DEFAULT_PROJECT)?;
        let mut statement = self
            .connection
            .prepare("SELECT name, record FROM project ORDER BY name")
            .map_err(self.fail())?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
            .map_err(self.fail())?;
        rows.map(|row| {
            let (name, record) = row.map_err(self.fail())?;
            let project: Project = serde_json::from_str(&record).map_err(|error| {
                Error::from(StateError::Row {
                    path: self.path.clone(),
                    what: format!("project `{name}`: {error}"),
                })
            })?;
            let is_default = default.as_deref() == Some(name.as_str());
            Ok((project, is_default))
        })
        .collect()
    }

    /// A project by local name.
    pub fn project(&self, name: &str) -> Result<Project> {
        let projects = self.projects()?;
        projects
            .iter()
            .find(|(project, _)| project.name == name)
            .map(|(project, _)| project.clone())
            .ok_or_else(|| {
                let error = unknown(
                    "project",
                    name,
                    projects.iter().map(|(project, _)| project.name.as_str()),
                );
                if projects.is_empty() {
                    error.hint(
                        "run `portolan project enroll TICKET`, or `portolan enroll` to make a project here",
                    )
                } else {
                    error
                }
            })
    }

    /// The default project, if there is one.
    pub fn default_project(&self) -> Result<Option<Project>> {
        Ok(self
            .projects()?
            .into_iter()
            .find(|(_, is_default)| *is_default)
            .map(|(project, _)| project))
    }

    /// Write a project, replacing the one with the same id. It becomes the default if there is none, or if
    /// `make_default` says so.
    ///
    /// # Errors
    ///
    /// When another project has the name.
    pub fn put_project(&mut self, project: &Project, make_default: bool) -> Result<()> {
        check_project_name(&project.name)?;
        let record = serde_json::to_string(project)
            .map_err(|error| Error::failed(format!("the project cannot be written: {error}")))?;
        let clash = self.write(|transaction| {
            let clash: Option<String> = transaction
                .query_row(
                    "SELECT id FROM project WHERE name = ?1 AND id <> ?2",
                    params![project.name, project.id],
                    |row| row.get(0),
                )
                .optional()?;
            if clash.is_none() {
                let renamed: Option<String> = transaction
                    .query_row("SELECT name FROM project WHERE id = ?1", [&project.id], |row| {
                        row.get(0)
                    })
                    .optional()?;
                transaction.execute("DELETE FROM project WHERE id = ?1", [&project.id])?;
                transaction.execute(
                    "INSERT INTO project (name, id, record) VALUES (?1, ?2, ?3)",
                    params![project.name, project.id, record],
                )?;
                let default = get_setting(transaction, DEFAULT_PROJECT)?;
                if make_default || default.is_none() || default == renamed {
                    put_setting(transaction, DEFAULT_PROJECT, &project.name)?;
                }
            }
            Ok(clash)
        })?;
        match clash {
            Some(_) => Err(Error::exists(format!(
                "another project is already named `{}` here",
                project.name
            ))
            .hint(format!(
                "remove it first: portolan project delete {}",
                project.name
            ))),
            None => Ok(()),
        }
    }

    /// Forget a project.
    pub fn delete_project(&mut self, name: &str) -> Result<()> {
        let project = self.project(name)?;
        let scope = project.credential_scope();
        self.write(|transaction| {
            transaction.execute("DELETE FROM project WHERE name = ?1", [name])?;
            transaction.execute("DELETE FROM credential WHERE scope = ?1", [&scope])?;
            pass_default_on(
                transaction,
                DEFAULT_PROJECT,
                name,
                "SELECT name FROM project ORDER BY name",
            )
        })
    }

    // --------------------------------------------------------------------------------------------------- credentials

    /// Every credential, sorted by subject.
    pub fn credentials(&self) -> Result<Vec<CredentialRecord>> {
        let mut statement = self
            .connection
            .prepare(
                "SELECT subject, issuer, scope, created_at, expires_at, attributes, credential
                 FROM credential ORDER BY subject, scope, issuer",
            )
            .map_err(self.fail())?;
        let rows = statement
            .query_map([], |row| {
                Ok(CredentialRecord {
                    subject: row.get(0)?,
                    issuer: row.get(1)?,
                    scope: row.get(2)?,
                    created_at: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
                    expires_at: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0),
                    attributes: serde_json::from_str(&row.get::<_, String>(5)?).unwrap_or_default(),
                    credential: row.get(6)?,
                })
            })
            .map_err(self.fail())?;
        rows.map(|row| row.map_err(self.fail())).collect()
    }

    /// The credential of a subject for a scope, whoever issued it.
    pub fn credential(&self, subject: &str, scope: &str) -> Result<Option<CredentialRecord>> {
        let all = self.credentials()?;
        Ok(all
            .into_iter()
            .filter(|credential| credential.subject == subject && credential.scope == scope)
            .max_by_key(|credential| credential.expires_at))
    }

    /// Write a credential, replacing an older one of the same subject, issuer and scope.
    pub fn put_credential(&mut self, credential: &CredentialRecord) -> Result<()> {
        let attributes = serde_json::to_string(&credential.attributes)
            .map_err(|error| Error::failed(format!("the attributes cannot be written: {error}")))?;
        self.write(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO credential
                 (subject, issuer, scope, created_at, expires_at, attributes, credential)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    credential.subject,
                    credential.issuer,
                    credential.scope,
                    seconds(credential.created_at),
                    seconds(credential.expires_at),
                    attributes,
                    credential.credential
                ],
            )?;
            Ok(())
        })
    }
}

/// SQLite has no unsigned integers; times beyond its range mean "never ends".
fn seconds(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

fn unknown<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
    let error = Error::not_found(format!("there is no {kind} named `{name}`"));
    match closest(name, known) {
        Some(meant) => error.hint(format!("did you mean `{meant}`?")),
        None => error.hint(format!("`portolan {kind} list` shows what there is")),
    }
}

fn get_setting(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    connection
        .query_row("SELECT value FROM setting WHERE key = ?1", [key], |row| {
            row.get(0)
        })
        .optional()
}

fn put_setting(transaction: &Transaction<'_>, key: &str, value: &str) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT OR REPLACE INTO setting (key, value) VALUES (?1, ?2)",
        [key, value],
    )?;
    Ok(())
}

/// Make `name` the default if there is none, or if the present one is gone (`exists` asks).
fn default_to(transaction: &Transaction<'_>, key: &str, name: &str, exists: &str) -> rusqlite::Result<()> {
    let keep = match get_setting(transaction, key)? {
        Some(current) => transaction.query_row(exists, [current], |row| row.get(0))?,
        None => false,
    };
    if keep {
        Ok(())
    } else {
        put_setting(transaction, key, name)
    }
}

/// When the default is deleted, the oldest of the rest follows; deleting another one leaves the default alone.
fn pass_default_on(
    transaction: &Transaction<'_>,
    key: &str,
    deleted: &str,
    rest: &str,
) -> rusqlite::Result<()> {
    if get_setting(transaction, key)?.as_deref() != Some(deleted) {
        return Ok(());
    }
    let next: Option<String> = transaction
        .query_row(&format!("{rest} LIMIT 1"), [], |row| row.get(0))
        .optional()?;
    match next {
        Some(next) => put_setting(transaction, key, &next),
        None => transaction
            .execute("DELETE FROM setting WHERE key = ?1", [key])
            .map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    fn database() -> (tempfile::TempDir, HomeDatabase) {
        let folder = tempfile::tempdir().unwrap();
        let database = HomeDatabase::open(&folder.path().join("home.sqlite3")).unwrap();
        (folder, database)
    }

    fn identity(name: &str, identifier: &str) -> IdentityRecord {
        IdentityRecord {
            name: name.into(),
            identifier: identifier.into(),
            vault: "default".into(),
            history: vec![1, 2],
            is_default: false,
        }
    }

    fn project(id: &str, name: &str) -> Project {
        serde_json::from_value(serde_json::json!({"id": id, "name": name, "access_route": ""})).unwrap()
    }

    #[test]
    fn the_first_identity_becomes_the_default_and_hands_over_when_deleted() {
        let (_folder, mut database) = database();
        database.default_vault(1).unwrap();
        assert!(
            database
                .create_identity(&identity("a", "Ia"), 1)
                .unwrap()
                .is_default
        );
        assert!(
            !database
                .create_identity(&identity("b", "Ib"), 2)
                .unwrap()
                .is_default
        );
        database.delete_identity("b").unwrap();
        assert_eq!(database.default_identity().unwrap().unwrap().name, "a");
        database.create_identity(&identity("c", "Ic"), 3).unwrap();
        database.delete_identity("a").unwrap();
        assert_eq!(database.default_identity().unwrap().unwrap().name, "c");
        assert_eq!(
            database.delete_identity("a").unwrap_err().code,
            ErrorCode::NotFound
        );
    }

    #[test]
    fn a_name_or_identifier_is_taken_only_once() {
        let (_folder, mut database) = database();
        database.default_vault(1).unwrap();
        database.create_identity(&identity("a", "Ia"), 1).unwrap();
        assert_eq!(
            database
                .create_identity(&identity("a", "Ix"), 1)
                .unwrap_err()
                .code,
            ErrorCode::AlreadyExists
        );
        let error = database.create_identity(&identity("x", "Ia"), 1).unwrap_err();
        assert!(error.message.contains("under the name `a`"), "{error}");
    }

    #[test]
    fn a_vault_in_use_is_not_deleted() {
        let (_folder, mut database) = database();
        database.default_vault(1).unwrap();
        database.create_identity(&identity("a", "Ia"), 1).unwrap();
        let value = Zeroizing::new(vec![1; 32]);
        let secret = StoredSecret {
            handle: b"h".to_vec(),
            kind: "x".into(),
            sealed: false,
            value,
        };
        database.put_secret("default", &secret).unwrap();
        assert_eq!(
            database.delete_vault("default").unwrap_err().code,
            ErrorCode::AlreadyExists
        );
        database.delete_identity("a").unwrap();
        database.delete_vault("default").unwrap();
        assert!(database.secret("default", b"h").unwrap().is_none());
        assert!(database.vaults().unwrap().is_empty());
    }

    #[test]
    fn a_project_is_replaced_by_id_and_its_name_is_unique() {
        let (_folder, mut database) = database();
        database.put_project(&project("1", "default"), false).unwrap();
        database.put_project(&project("1", "default"), false).unwrap();
        assert_eq!(
            database
                .put_project(&project("2", "default"), true)
                .unwrap_err()
                .code,
            ErrorCode::AlreadyExists
        );
        database.put_project(&project("2", "other"), false).unwrap();
        assert_eq!(database.default_project().unwrap().unwrap().id, "1");
        database.put_project(&project("2", "other"), true).unwrap();
        assert_eq!(database.default_project().unwrap().unwrap().id, "2");
        database.delete_project("other").unwrap();
        assert_eq!(database.default_project().unwrap().unwrap().id, "1");
    }

    #[test]
    fn two_commands_at_once_both_work_and_agree_on_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home.sqlite3");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    let mut database = HomeDatabase::open(path).unwrap();
                    database.default_vault(1).unwrap();
                    database
                        .create_identity(&identity(&format!("i{number}"), &format!("I{number}")), 1)
                        .unwrap();
                });
            }
        });
        let database = HomeDatabase::open(&path).unwrap();
        let identities = database.identities().unwrap();
        assert_eq!(identities.len(), 8);
        assert_eq!(
            identities.iter().filter(|identity| identity.is_default).count(),
            1
        );
        assert_eq!(database.vaults().unwrap().len(), 1);
    }
}

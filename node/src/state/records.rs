//! Rows of the home's database: vaults, identities, projects, credentials, defaults.

mod credentials;
mod identities;
mod projects;
mod removals;
mod secrets;
mod vaults;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use zeroize::Zeroizing;

use super::database::{self, StateError};
use super::names::{check_plain_name, check_project_name, closest};
use super::spec::Project;
use crate::error::{Error, Result};

/// One entry leads from one version of the schema to the next. Never change an entry that was released: add one.
const MIGRATIONS: &[&str] = &[
    "
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
",
    "
    CREATE TABLE removal (
        authority TEXT NOT NULL,
        member TEXT NOT NULL,
        removed_at INTEGER NOT NULL,
        PRIMARY KEY (authority, member)
    ) STRICT;
    CREATE TABLE removals_told (
        authority TEXT PRIMARY KEY,
        last INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE retired_key (
        vault TEXT NOT NULL,
        handle BLOB NOT NULL,
        retired_at INTEGER NOT NULL,
        PRIMARY KEY (vault, handle)
    ) STRICT;
",
];

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

    /// The database of a home that is kept in memory, under the name that it was given.
    pub(crate) fn open_in_memory(name: &str) -> Result<Self, StateError> {
        Ok(Self {
            connection: database::open_in_memory(name, MIGRATIONS)?,
            path: PathBuf::from("(memory)"),
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

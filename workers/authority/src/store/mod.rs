//! What an authority remembers, in SQLite: members, one-time codes (hashed) and removed members.
//!
//! # Promises
//!
//! - **One writer at a time.** Every change runs inside `BEGIN IMMEDIATE`: what a rule has read is still true
//!   when it writes, from whichever thread, connection or process the others come. Of any number of
//!   simultaneous redemptions of a code that has one use left exactly one succeeds.
//! - **What was answered is on disk.** `synchronous = FULL` in WAL mode: a transaction is flushed before its
//!   answer leaves, so kill -9 or a power cut never brings a used code back.
//! - **Nothing grows without bound**: see the constants.
//! - Rows belong to one authority: several authorities can share a file (in the reference they overwrite each
//!   other's members).
//! - The file is created with mode 0600. A code is kept as its SHA-256 only; who reads the file cannot
//!   enroll.
//!
//! A transaction takes well under a millisecond plus one flush of the disk. The store is synchronous; the
//! services of this crate call it from a thread for blocking work.

mod members;
mod revocations;
mod schema;
mod tokens;

use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use portolan_identity::Identifier;
use rusqlite::{Connection, Transaction, TransactionBehavior};

pub use members::Member;
pub use revocations::Revocation;
pub use tokens::{Token, TokenState};

/// Members of one authority.
pub const MAX_MEMBERS: u64 = 100_000;

/// Codes of one authority that can still be redeemed.
pub const MAX_OPEN_TOKENS: u64 = 10_000;

/// Codes of one authority that are remembered after their end, so that a refusal can say why. The oldest are
/// forgotten first and are then answered as unknown.
pub const MAX_CLOSED_TOKENS: u64 = 20_000;

/// Seconds for which a code is remembered after its end.
pub const REMEMBER_TOKEN: u64 = 30 * 24 * 3600;

/// Removed members that are remembered. The oldest are forgotten first.
pub const MAX_REVOCATIONS: u64 = 100_000;

/// How long one connection waits for another's transaction before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The database cannot be used, or holds something that this version does not understand.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused: disk full, file not writable, locked for too long, damaged.
    #[error("the authority's database cannot be used: {0}")]
    Sqlite(Box<dyn std::error::Error + Send + Sync>),
    /// The file could not be created.
    #[error("the authority's database cannot be created: {0}")]
    Io(#[from] std::io::Error),
    /// Written by a newer version.
    #[error("the authority's database has version {found}, this program knows {known}")]
    Version {
        /// Version in the file.
        found: i64,
        /// Newest version that this program knows.
        known: i64,
    },
    /// A row that cannot be what was written.
    #[error("the authority's database has a damaged {0}")]
    Damaged(&'static str),
}

// What kind of database it is, is this crate's own affair.
#[doc(hidden)]
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error.into())
    }
}

/// The store of one authority.
pub struct Store {
    connection: Mutex<Connection>,
    authority: Identifier,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

/// A transaction: reads see one state, writes are applied together or not at all.
pub struct Tx<'a> {
    sql: &'a Transaction<'a>,
    authority: &'a Identifier,
}

impl Store {
    /// Opens or creates the database file at `path` for this authority.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path, authority: Identifier) -> Result<Self, StoreError> {
        create_private(path)?;
        Self::with_connection(Connection::open(path)?, authority)
    }

    /// A store that ends with the process.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_in_memory(authority: Identifier) -> Result<Self, StoreError> {
        Self::with_connection(Connection::open_in_memory()?, authority)
    }

    fn with_connection(mut connection: Connection, authority: Identifier) -> Result<Self, StoreError> {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // Answers the mode that is now in force; an in-memory database stays with "memory".
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        schema::migrate(&mut connection)?;
        Ok(Self {
            connection: Mutex::new(connection),
            authority,
        })
    }

    /// The authority whose rows these are.
    pub fn authority(&self) -> &Identifier {
        &self.authority
    }

    /// Runs `work` in a transaction that may write. Its writes are kept if it returns `Ok`.
    ///
    /// # Errors
    /// The error of `work`, or that of the database.
    pub fn write<T, E: From<StoreError>>(&self, work: impl FnOnce(&Tx<'_>) -> Result<T, E>) -> Result<T, E> {
        self.run(TransactionBehavior::Immediate, work)
    }

    /// Runs `work` in a transaction that only reads.
    ///
    /// # Errors
    /// The error of `work`, or that of the database.
    pub fn read<T, E: From<StoreError>>(&self, work: impl FnOnce(&Tx<'_>) -> Result<T, E>) -> Result<T, E> {
        self.run(TransactionBehavior::Deferred, work)
    }

    fn run<T, E: From<StoreError>>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.connection.lock();
        let sql = connection
            .transaction_with_behavior(behavior)
            .map_err(StoreError::from)?;
        // Dropped without commit, it rolls back.
        let value = work(&Tx {
            sql: &sql,
            authority: &self.authority,
        })?;
        sql.commit().map_err(StoreError::from)?;
        Ok(value)
    }
}

impl Tx<'_> {
    fn authority(&self) -> &[u8] {
        self.authority.as_bytes()
    }

    /// The next number of this authority's sequence. Tokens and removals share it, so that which came first
    /// is known even within one second.
    fn next_serial(&self) -> Result<i64, StoreError> {
        Ok(self.sql.query_row(
            "INSERT INTO authority_serial (authority, last) VALUES (?1, 1)
             ON CONFLICT (authority) DO UPDATE SET last = last + 1 RETURNING last",
            [self.authority()],
            |row| row.get(0),
        )?)
    }
}

fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// SQLite's integers are signed. A time or count that does not fit is as good as the largest that does.
fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn from_sql(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn read_identifier(bytes: &[u8]) -> Result<Identifier, StoreError> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| StoreError::Damaged("identifier"))?;
    Ok(Identifier::from(bytes))
}

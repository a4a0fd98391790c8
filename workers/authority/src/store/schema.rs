//! Tables and their versions.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::StoreError;

/// Version that this program writes.
pub(super) const VERSION: i64 = 1;

const VERSION_1: &str = "
    CREATE TABLE authority_schema (version INTEGER NOT NULL) STRICT;
    INSERT INTO authority_schema VALUES (1);

    CREATE TABLE authority_serial (
        authority BLOB NOT NULL PRIMARY KEY,
        last INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE authority_member (
        authority BLOB NOT NULL,
        member BLOB NOT NULL,
        added_by BLOB NOT NULL,
        added_at INTEGER NOT NULL,
        pre_trusted INTEGER NOT NULL,
        attributes BLOB NOT NULL,
        PRIMARY KEY (authority, member)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE authority_token (
        authority BLOB NOT NULL,
        code_hash BLOB NOT NULL,
        serial INTEGER NOT NULL,
        issued_by BLOB NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        uses INTEGER NOT NULL,
        uses_left INTEGER NOT NULL,
        -- 0 can be redeemed, 1 used up, 2 cancelled
        state INTEGER NOT NULL,
        attributes BLOB NOT NULL,
        PRIMARY KEY (authority, code_hash)
    ) STRICT;
    CREATE INDEX authority_token_end ON authority_token (authority, expires_at);
    CREATE INDEX authority_token_issuer ON authority_token (authority, issued_by);

    CREATE TABLE authority_revocation (
        authority BLOB NOT NULL,
        member BLOB NOT NULL,
        serial INTEGER NOT NULL,
        revoked_at INTEGER NOT NULL,
        revoked_by BLOB NOT NULL,
        PRIMARY KEY (authority, member)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX authority_revocation_serial ON authority_revocation (authority, serial);
";

/// Came later. Programs that do not know it can still use the database.
const ISSUED: &str = "
    CREATE TABLE IF NOT EXISTS authority_issued (
        authority BLOB NOT NULL,
        member BLOB NOT NULL,
        last INTEGER NOT NULL,
        PRIMARY KEY (authority, member)
    ) STRICT, WITHOUT ROWID;
";

/// Creates the tables, or brings older ones up to date. Two processes may do it at the same time.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let exists: Option<i64> = tx
        .query_row(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'authority_schema'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    if exists.is_none() {
        tx.execute_batch(VERSION_1)?;
    }
    let found: i64 = tx.query_row("SELECT max(version) FROM authority_schema", [], |row| row.get(0))?;
    if found != VERSION {
        return Err(StoreError::Version {
            found,
            known: VERSION,
        });
    }
    tx.execute_batch(ISSUED)?;
    tx.commit()?;
    Ok(())
}

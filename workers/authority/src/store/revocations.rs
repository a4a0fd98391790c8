//! Members that were removed: kept so that their old credentials and tickets can be told from those of a
//! later membership, and so that a node can be told.

use portolan_identity::Identifier;
use rusqlite::{OptionalExtension, params};

use super::{MAX_REVOCATIONS, StoreError, Tx, from_sql, read_identifier, to_sql};

/// The last removal of an identity from the project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Who was removed.
    pub member: Identifier,
    /// Place in the authority's sequence of tokens and removals: ask for what came after the last one seen.
    pub serial: i64,
    /// When, UTC seconds. Credentials created then or earlier are void.
    pub revoked_at: u64,
    /// By whom.
    pub revoked_by: Identifier,
}

impl Tx<'_> {
    /// Records that `member` was removed. Somebody who was removed before and has joined again may hold a credential that was
    /// dated after that removal, which then counts as later than `now`: it is void too.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_revocation(&self, member: &Identifier, by: &Identifier, now: u64) -> Result<(), StoreError> {
        let removed_before = match self.revocation(member)? {
            Some(before) => now.max(before.revoked_at.saturating_add(1)),
            None => now,
        };
        // The clock may have been set back since a credential was issued.
        let revoked_at = removed_before.max(self.last_issued(member)?.unwrap_or(0));
        self.sql
            .prepare_cached("DELETE FROM authority_issued WHERE authority = ?1 AND member = ?2")?
            .execute(params![self.authority(), member.as_bytes()])?;
        self.sql
            .prepare_cached(
                "INSERT OR REPLACE INTO authority_revocation (authority, member, serial, revoked_at, revoked_by)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                self.authority(),
                member.as_bytes(),
                self.next_serial()?,
                to_sql(revoked_at),
                by.as_bytes()
            ])?;
        self.sql
            .prepare_cached(
                "DELETE FROM authority_revocation WHERE authority = ?1 AND serial <= (
                     SELECT serial FROM authority_revocation WHERE authority = ?1
                     ORDER BY serial DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![self.authority(), to_sql(MAX_REVOCATIONS)])?;
        Ok(())
    }

    /// Keeps that `member` gets a credential that is dated `created_at`, so that a removal voids it whatever the clock says then.
    /// Forgotten with the removal: there are no more of these than members.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn note_issued(&self, member: &Identifier, created_at: u64) -> Result<(), StoreError> {
        self.sql
            .prepare_cached(
                "INSERT INTO authority_issued (authority, member, last) VALUES (?1, ?2, ?3)
                 ON CONFLICT (authority, member) DO UPDATE SET last = max(last, excluded.last)",
            )?
            .execute(params![self.authority(), member.as_bytes(), to_sql(created_at)])?;
        Ok(())
    }

    /// The latest date of a credential that `member` got since it was last removed.
    fn last_issued(&self, member: &Identifier) -> Result<Option<u64>, StoreError> {
        let last: Option<i64> = self
            .sql
            .prepare_cached("SELECT last FROM authority_issued WHERE authority = ?1 AND member = ?2")?
            .query_row(params![self.authority(), member.as_bytes()], |row| row.get(0))
            .optional()?;
        Ok(last.map(from_sql))
    }

    /// The last removal of `member`, whether or not it is a member again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn revocation(&self, member: &Identifier) -> Result<Option<Revocation>, StoreError> {
        self.sql
            .prepare_cached(
                "SELECT serial, revoked_at, revoked_by FROM authority_revocation WHERE authority = ?1 AND member = ?2",
            )?
            .query_row(params![self.authority(), member.as_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?))
            })
            .optional()?
            .map(|(serial, revoked_at, by)| {
                Ok(Revocation { member: *member, serial, revoked_at: from_sql(revoked_at), revoked_by: read_identifier(&by)? })
            })
            .transpose()
    }

    /// The number of the newest removal, 0 if there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last_revocation(&self) -> Result<i64, StoreError> {
        Ok(self
            .sql
            .prepare_cached("SELECT coalesce(max(serial), 0) FROM authority_revocation WHERE authority = ?1")?
            .query_row([self.authority()], |row| row.get(0))?)
    }

    /// Removals after the one with number `serial`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn revocations_after(&self, serial: i64, limit: u32) -> Result<Vec<Revocation>, StoreError> {
        let mut statement = self.sql.prepare_cached(
            "SELECT member, serial, revoked_at, revoked_by FROM authority_revocation
             WHERE authority = ?1 AND serial > ?2 ORDER BY serial LIMIT ?3",
        )?;
        let rows = statement.query_map(params![self.authority(), serial, limit], |row| {
            Ok((
                row.get::<_, Vec<u8>>(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get::<_, Vec<u8>>(3)?,
            ))
        })?;
        rows.map(|row| {
            let (member, serial, revoked_at, by) = row?;
            Ok(Revocation {
                member: read_identifier(&member)?,
                serial,
                revoked_at: from_sql(revoked_at),
                revoked_by: read_identifier(&by)?,
            })
        })
        .collect()
    }
}

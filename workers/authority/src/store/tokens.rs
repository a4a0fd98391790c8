//! One-time codes, known by their hash.

use minicbor::Decoder;
use portolan_identity::Identifier;
use rusqlite::{OptionalExtension, Row, params};

use super::{MAX_CLOSED_TOKENS, REMEMBER_TOKEN, StoreError, Tx, from_sql, read_identifier, to_sql};
use crate::attributes::MemberAttributes;
use crate::code::CodeHash;

/// What can still be done with a code, apart from its expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// It has uses left.
    Open,
    /// All uses are gone.
    UsedUp,
    /// Its issuer lost the right to it, or somebody cancelled it.
    Cancelled,
}

/// A one-time code as the authority knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Hash of the code.
    pub hash: CodeHash,
    /// Place in the authority's sequence of tokens and removals.
    pub serial: i64,
    /// Who asked for it.
    pub issued_by: Identifier,
    /// When, UTC seconds.
    pub created_at: u64,
    /// First second at which it cannot be redeemed any more.
    pub expires_at: u64,
    /// How many identities could redeem it at first.
    pub uses: u64,
    /// How many still can.
    pub uses_left: u64,
    /// State, apart from expiry.
    pub state: TokenState,
    /// Attributes of those who redeem it.
    pub attributes: MemberAttributes,
}

struct RawToken {
    hash: Vec<u8>,
    serial: i64,
    issued_by: Vec<u8>,
    created_at: i64,
    expires_at: i64,
    uses: i64,
    uses_left: i64,
    state: i64,
    attributes: Vec<u8>,
}

const COLUMNS: &str =
    "code_hash, serial, issued_by, created_at, expires_at, uses, uses_left, state, attributes";

fn raw(row: &Row<'_>) -> rusqlite::Result<RawToken> {
    Ok(RawToken {
        hash: row.get(0)?,
        serial: row.get(1)?,
        issued_by: row.get(2)?,
        created_at: row.get(3)?,
        expires_at: row.get(4)?,
        uses: row.get(5)?,
        uses_left: row.get(6)?,
        state: row.get(7)?,
        attributes: row.get(8)?,
    })
}

fn read(raw: RawToken) -> Result<Token, StoreError> {
    let hash: [u8; 32] = raw
        .hash
        .try_into()
        .map_err(|_| StoreError::Damaged("code hash"))?;
    Ok(Token {
        hash: CodeHash::from(hash),
        serial: raw.serial,
        issued_by: read_identifier(&raw.issued_by)?,
        created_at: from_sql(raw.created_at),
        expires_at: from_sql(raw.expires_at),
        uses: from_sql(raw.uses),
        uses_left: from_sql(raw.uses_left),
        state: match raw.state {
            0 => TokenState::Open,
            1 => TokenState::UsedUp,
            2 => TokenState::Cancelled,
            _ => return Err(StoreError::Damaged("token state")),
        },
        attributes: MemberAttributes::decode(&mut Decoder::new(&raw.attributes))
            .map_err(|_| StoreError::Damaged("set of attributes"))?,
    })
}

impl Tx<'_> {
    /// Adds a code, with all its uses and the next serial number, which is returned.
    ///
    /// # Errors
    /// [`StoreError`], also if the code exists.
    pub fn insert_token(&self, token: &Token) -> Result<u64, StoreError> {
        let serial = self.next_serial()?;
        let mut attributes = Vec::new();
        token.attributes.encode(&mut attributes);
        self.sql
            .prepare_cached(
                "INSERT INTO authority_token
                 (authority, code_hash, serial, issued_by, created_at, expires_at, uses, uses_left, state, attributes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, 0, ?8)",
            )?
            .execute(params![
                self.authority(),
                token.hash.as_bytes(),
                serial,
                token.issued_by.as_bytes(),
                to_sql(token.created_at),
                to_sql(token.expires_at),
                to_sql(token.uses),
                attributes,
            ])?;
        Ok(from_sql(serial))
    }

    /// The code with this hash, whatever its state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn token(&self, hash: &CodeHash) -> Result<Option<Token>, StoreError> {
        self.sql
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM authority_token WHERE authority = ?1 AND code_hash = ?2"
            ))?
            .query_row(params![self.authority(), hash.as_bytes()], raw)
            .optional()?
            .map(read)
            .transpose()
    }

    /// Codes that can be redeemed at `now`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_tokens(&self, now: u64) -> Result<Vec<Token>, StoreError> {
        let mut statement = self.sql.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM authority_token
             WHERE authority = ?1 AND state = 0 AND expires_at > ?2 ORDER BY serial"
        ))?;
        let rows = statement.query_map(params![self.authority(), to_sql(now)], raw)?;
        rows.map(|row| read(row?)).collect()
    }

    /// Number of codes that can be redeemed at `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_open_tokens(&self, now: u64) -> Result<u64, StoreError> {
        let count: i64 = self
            .sql
            .prepare_cached(
                "SELECT count(*) FROM authority_token WHERE authority = ?1 AND state = 0 AND expires_at > ?2",
            )?
            .query_row(params![self.authority(), to_sql(now)], |row| row.get(0))?;
        Ok(from_sql(count))
    }

    /// Takes one use away. Says whether there was one: an expired, used-up or cancelled code has none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn use_token(&self, hash: &CodeHash, now: u64) -> Result<bool, StoreError> {
        let used = self
            .sql
            .prepare_cached(
                "UPDATE authority_token
                 SET uses_left = uses_left - 1, state = CASE WHEN uses_left <= 1 THEN 1 ELSE 0 END
                 WHERE authority = ?1 AND code_hash = ?2 AND state = 0 AND uses_left > 0 AND expires_at > ?3",
            )?
            .execute(params![self.authority(), hash.as_bytes(), to_sql(now)])?;
        Ok(used > 0)
    }

    /// Ends all open codes that `issuer` created; returns how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn cancel_tokens_of(&self, issuer: &Identifier) -> Result<usize, StoreError> {
        Ok(self
            .sql
            .prepare_cached(
                "UPDATE authority_token SET state = 2 WHERE authority = ?1 AND issued_by = ?2 AND state = 0",
            )?
            .execute(params![self.authority(), issuer.as_bytes()])?)
    }

    /// Ends one open code; says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn cancel_token(&self, hash: &CodeHash) -> Result<bool, StoreError> {
        let cancelled = self
            .sql
            .prepare_cached(
                "UPDATE authority_token SET state = 2 WHERE authority = ?1 AND code_hash = ?2 AND state = 0",
            )?
            .execute(params![self.authority(), hash.as_bytes()])?;
        Ok(cancelled > 0)
    }

    /// Forgets codes that ended long ago, and the oldest ended ones beyond [`MAX_CLOSED_TOKENS`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget_old_tokens(&self, now: u64) -> Result<(), StoreError> {
        self.sql
            .prepare_cached("DELETE FROM authority_token WHERE authority = ?1 AND expires_at <= ?2")?
            .execute(params![
                self.authority(),
                to_sql(now.saturating_sub(REMEMBER_TOKEN))
            ])?;
        self.sql
            .prepare_cached(
                "DELETE FROM authority_token WHERE rowid IN (
                     SELECT rowid FROM authority_token
                     WHERE authority = ?1 AND (state <> 0 OR expires_at <= ?2)
                     ORDER BY expires_at DESC LIMIT -1 OFFSET ?3)",
            )?
            .execute(params![self.authority(), to_sql(now), to_sql(MAX_CLOSED_TOKENS)])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn token(n: u8, expires_at: u64) -> Token {
        Token {
            hash: CodeHash::from([n; 32]),
            serial: 0,
            issued_by: Identifier::from([9; 32]),
            created_at: 0,
            expires_at,
            uses: 1,
            uses_left: 1,
            state: TokenState::Open,
            attributes: MemberAttributes::default(),
        }
    }

    #[test]
    fn an_ended_code_is_remembered_for_a_while_and_then_forgotten() -> Result<(), StoreError> {
        let store = Store::open_in_memory(Identifier::from([1; 32]))?;
        store.write(|tx| {
            assert_eq!(tx.insert_token(&token(1, 100))?, 1);
            assert_eq!(tx.insert_token(&token(2, 200))?, 2);
            tx.forget_old_tokens(100 + REMEMBER_TOKEN - 1)?;
            assert!(tx.token(&CodeHash::from([1; 32]))?.is_some());
            tx.forget_old_tokens(100 + REMEMBER_TOKEN)?;
            assert!(tx.token(&CodeHash::from([1; 32]))?.is_none());
            assert!(tx.token(&CodeHash::from([2; 32]))?.is_some());
            Ok(())
        })
    }

    #[test]
    fn of_too_many_ended_codes_the_oldest_are_forgotten_and_open_ones_stay() -> Result<(), StoreError> {
        let store = Store::open_in_memory(Identifier::from([1; 32]))?;
        store.write(|tx| {
            for n in 0..MAX_CLOSED_TOKENS + 5 {
                let mut hash = [0; 32];
                hash[..8].copy_from_slice(&n.to_be_bytes());
                tx.insert_token(&Token {
                    hash: CodeHash::from(hash),
                    ..token(0, 1 + n)
                })?;
            }
            let now = MAX_CLOSED_TOKENS + 5;
            tx.insert_token(&token(0xee, now + 1))?;
            tx.forget_old_tokens(now)?;
            assert_eq!(tx.count_open_tokens(0)?, MAX_CLOSED_TOKENS + 1);
            assert_eq!(tx.open_tokens(now)?.len(), 1);
            assert!(
                tx.token(&CodeHash::from([0; 32]))?.is_none(),
                "the one that ended first"
            );
            Ok(())
        })
    }

    #[test]
    fn a_code_is_not_used_after_its_end_or_its_cancellation() -> Result<(), StoreError> {
        let store = Store::open_in_memory(Identifier::from([1; 32]))?;
        store.write(|tx| {
            tx.insert_token(&token(1, 100))?;
            let hash = CodeHash::from([1; 32]);
            assert!(!tx.use_token(&hash, 100)?);
            assert!(tx.use_token(&hash, 99)?);
            assert!(!tx.use_token(&hash, 99)?);
            tx.insert_token(&token(2, 100))?;
            assert_eq!(tx.cancel_tokens_of(&Identifier::from([9; 32]))?, 1);
            assert!(!tx.use_token(&CodeHash::from([2; 32]), 0)?);
            Ok(())
        })
    }
}

//! Members.

use minicbor::Decoder;
use portolan_identity::Identifier;
use rusqlite::{OptionalExtension, Row, params};

use super::{StoreError, Tx, from_sql, read_identifier, to_sql};
use crate::attributes::MemberAttributes;

/// A member of the project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub identifier: Identifier,
    /// What the authority attests.
    pub attributes: MemberAttributes,
    /// Who added the member: an enroller, the creator of the redeemed code, or the authority for pre-trusted
    /// ones.
    pub added_by: Identifier,
    /// When, UTC seconds.
    pub added_at: u64,
    /// From the authority's own configuration: cannot be changed or removed by enrollers.
    pub pre_trusted: bool,
}

type RawMember = (Vec<u8>, Vec<u8>, i64, bool, Vec<u8>);

const COLUMNS: &str = "member, added_by, added_at, pre_trusted, attributes";

fn raw(row: &Row<'_>) -> rusqlite::Result<RawMember> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

fn read((member, added_by, added_at, pre_trusted, attributes): RawMember) -> Result<Member, StoreError> {
    Ok(Member {
        identifier: read_identifier(&member)?,
        attributes: MemberAttributes::decode(&mut Decoder::new(&attributes))
            .map_err(|_| StoreError::Damaged("set of attributes"))?,
        added_by: read_identifier(&added_by)?,
        added_at: from_sql(added_at),
        pre_trusted,
    })
}

impl Tx<'_> {
    /// The member with this identifier.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn member(&self, member: &Identifier) -> Result<Option<Member>, StoreError> {
        self.sql
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM authority_member WHERE authority = ?1 AND member = ?2"
            ))?
            .query_row(params![self.authority(), member.as_bytes()], raw)
            .optional()?
            .map(read)
            .transpose()
    }

    /// Calls `visit` for every member in the order of identifiers, until it returns an error.
    ///
    /// # Errors
    /// [`StoreError`], or that of `visit`.
    pub fn each_member<E: From<StoreError>>(
        &self,
        mut visit: impl FnMut(Member) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = format!("SELECT {COLUMNS} FROM authority_member WHERE authority = ?1 ORDER BY member");
        let mut statement = self.sql.prepare_cached(&sql).map_err(StoreError::from)?;
        let rows = statement
            .query_map([self.authority()], raw)
            .map_err(StoreError::from)?;
        for row in rows {
            visit(read(row.map_err(StoreError::from)?)?)?;
        }
        Ok(())
    }

    /// Identifiers of all members.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn member_ids(&self) -> Result<Vec<Identifier>, StoreError> {
        let mut statement = self
            .sql
            .prepare_cached("SELECT member FROM authority_member WHERE authority = ?1 ORDER BY member")?;
        let rows = statement.query_map([self.authority()], |row| row.get::<_, Vec<u8>>(0))?;
        rows.map(|row| read_identifier(&row?)).collect()
    }

    /// Number of members.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_members(&self) -> Result<u64, StoreError> {
        let count: i64 = self
            .sql
            .prepare_cached("SELECT count(*) FROM authority_member WHERE authority = ?1")?
            .query_row([self.authority()], |row| row.get(0))?;
        Ok(from_sql(count))
    }

    /// Adds or replaces a member. The rules about who may do that are elsewhere.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_member(&self, member: &Member) -> Result<(), StoreError> {
        let mut attributes = Vec::new();
        member.attributes.encode(&mut attributes);
        self.sql
            .prepare_cached(
                "INSERT OR REPLACE INTO authority_member
                 (authority, member, added_by, added_at, pre_trusted, attributes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                self.authority(),
                member.identifier.as_bytes(),
                member.added_by.as_bytes(),
                to_sql(member.added_at),
                member.pre_trusted,
                attributes,
            ])?;
        Ok(())
    }

    /// Removes a member; says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove_member(&self, member: &Identifier) -> Result<bool, StoreError> {
        let removed = self
            .sql
            .prepare_cached("DELETE FROM authority_member WHERE authority = ?1 AND member = ?2")?
            .execute(params![self.authority(), member.as_bytes()])?;
        Ok(removed > 0)
    }
}

//! Rows of removed members: what authorities have told this home, so that a node that starts knows it before it hears anybody.

use portolan_authority::protocol::Removal;
use portolan_identity::Identifier;

use super::*;

/// Removals that are kept of each authority. Beyond it the oldest go: the credentials that they were against have most likely
/// expired.
const MAX_KEPT_REMOVALS: u32 = 16 * 1024;

/// How long a removal is kept, in seconds: as long as a credential can live at most.
const KEEP_REMOVALS: u64 = portolan_authority::issuer::MAX_CREDENTIAL_TTL;

impl HomeDatabase {
    /// What an authority (`I…`) has told: the number to ask with the next time, and who was removed.
    pub fn removals(&self, authority: &str) -> Result<(u64, Vec<Removal>)> {
        let last: Option<i64> = self
            .connection
            .query_row(
                "SELECT last FROM removals_told WHERE authority = ?1",
                [authority],
                |row| row.get(0),
            )
            .optional()
            .map_err(self.fail())?;
        let mut statement = self
            .connection
            .prepare("SELECT member, removed_at FROM removal WHERE authority = ?1 ORDER BY removed_at")
            .map_err(self.fail())?;
        let rows = statement
            .query_map([authority], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
            })
            .map_err(self.fail())?;
        let removals = rows
            .map(|row| {
                let (member, removed_at) = row.map_err(self.fail())?;
                let member: Identifier = member.parse().map_err(|error| {
                    Error::from(StateError::Row {
                        path: self.path.clone(),
                        what: format!("removed member `{member}`: {error}"),
                    })
                })?;
                Ok(Removal {
                    member,
                    removed_at: u64::try_from(removed_at).unwrap_or(0),
                })
            })
            .collect::<Result<_>>()?;
        Ok((u64::try_from(last.unwrap_or(0)).unwrap_or(0), removals))
    }

    /// Keep what an authority (`I…`) has told, and forget what is of no use any more at `now`.
    pub fn put_removals(&mut self, authority: &str, last: u64, removals: &[Removal], now: u64) -> Result<()> {
        self.write(|transaction| {
            for removal in removals {
                transaction.execute(
                    "INSERT INTO removal (authority, member, removed_at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (authority, member) DO UPDATE SET removed_at = max(removed_at, excluded.removed_at)",
                    params![authority, removal.member.to_string(), seconds(removal.removed_at)],
                )?;
            }
            transaction.execute(
                "DELETE FROM removal WHERE removed_at < ?1",
                [seconds(now.saturating_sub(KEEP_REMOVALS))],
            )?;
            transaction.execute(
                "DELETE FROM removal WHERE authority = ?1 AND member IN (
                     SELECT member FROM removal WHERE authority = ?1 ORDER BY removed_at DESC LIMIT -1 OFFSET ?2)",
                params![authority, MAX_KEPT_REMOVALS],
            )?;
            transaction.execute(
                "INSERT OR REPLACE INTO removals_told (authority, last) VALUES (?1, ?2)",
                params![authority, seconds(last)],
            )?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removal(n: u8, removed_at: u64) -> Removal {
        Removal {
            member: Identifier::from([n; 32]),
            removed_at,
        }
    }

    #[test]
    fn the_latest_removal_of_a_member_counts_and_old_ones_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = HomeDatabase::open(&folder.path().join("home.sqlite3")).unwrap();
        let now = 2 * KEEP_REMOVALS;
        assert_eq!(database.removals("a").unwrap(), (0, Vec::new()));
        database
            .put_removals("a", 7, &[removal(1, now), removal(2, now - 5)], now)
            .unwrap();
        database
            .put_removals("a", 8, &[removal(1, now - 9), removal(3, KEEP_REMOVALS - 1)], now)
            .unwrap();
        database.put_removals("b", 1, &[removal(4, now)], now).unwrap();
        assert_eq!(
            database.removals("a").unwrap(),
            (8, vec![removal(2, now - 5), removal(1, now)])
        );
        assert_eq!(database.removals("b").unwrap(), (1, vec![removal(4, now)]));
    }
}

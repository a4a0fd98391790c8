//! Rows of secrets.

use portolan_identity::KeyHandle;

use super::*;

impl HomeDatabase {
    /// Write a secret, replacing an older one under the same handle. It is stored as given: seal it before.
    pub(in crate::state) fn put_secret(&mut self, vault: &str, secret: &StoredSecret) -> Result<()> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO secret (vault, handle, kind, sealed, value) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![vault, secret.handle, secret.kind, secret.sealed, secret.value.as_slice()],
            )?;
            Ok(())
        })
    }

    /// A secret as stored.
    pub(in crate::state) fn secret(&self, vault: &str, handle: &[u8]) -> Result<Option<StoredSecret>> {
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
    pub(in crate::state) fn seal_all(
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
    pub(in crate::state) fn attestation(&self, identifier: &str, purpose: &str) -> Result<Option<Vec<u8>>> {
        self.connection
            .query_row(
                "SELECT attestation FROM purpose_key WHERE identifier = ?1 AND purpose = ?2",
                [identifier, purpose],
                |row| row.get(0),
            )
            .optional()
            .map_err(self.fail())
    }

    /// Replace the current attestation of an identity's key for a purpose. The key of the one before, if it is given, is due to be
    /// deleted some time after `now`.
    pub(in crate::state) fn put_attestation(
        &mut self,
        identifier: &str,
        purpose: &str,
        attestation: &[u8],
        retired: Option<&[u8]>,
        now: u64,
    ) -> Result<()> {
        self.write(|transaction| {
            if let Some(handle) = retired {
                transaction.execute(
                    "INSERT OR IGNORE INTO retired_key (vault, handle, retired_at)
                     SELECT vault, ?2, ?3 FROM identity WHERE identifier = ?1",
                    params![identifier, handle, seconds(now)],
                )?;
            }
            transaction.execute(
                "INSERT OR REPLACE INTO purpose_key (identifier, purpose, attestation) VALUES (?1, ?2, ?3)",
                params![identifier, purpose, attestation],
            )?;
            Ok(())
        })
    }

    /// The vaults and handles of keys that were replaced at this time or before.
    pub(in crate::state) fn retired_keys(&self, until: u64) -> Result<Vec<(String, KeyHandle)>> {
        let mut statement = self
            .connection
            .prepare("SELECT vault, handle FROM retired_key WHERE retired_at <= ?1")
            .map_err(self.fail())?;
        let rows = statement
            .query_map([seconds(until)], |row| {
                Ok((row.get(0)?, KeyHandle::from(row.get::<_, [u8; 32]>(1)?)))
            })
            .map_err(self.fail())?;
        rows.map(|row| row.map_err(self.fail())).collect()
    }

    /// Forget a secret; whether there was one.
    pub(in crate::state) fn delete_secret(&mut self, vault: &str, handle: &[u8]) -> Result<bool> {
        self.write(|transaction| {
            transaction.execute(
                "DELETE FROM retired_key WHERE vault = ?1 AND handle = ?2",
                params![vault, handle],
            )?;
            Ok(transaction.execute(
                "DELETE FROM secret WHERE vault = ?1 AND handle = ?2",
                params![vault, handle],
            )? > 0)
        })
    }
}

//! Rows of identities.

use super::*;

impl HomeDatabase {
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

    /// The change history of the identity with this identifier (`I…`), encoded.
    pub fn history(&self, identifier: &str) -> Result<Option<Vec<u8>>> {
        self.connection
            .query_row(
                "SELECT history FROM identity WHERE identifier = ?1",
                [identifier],
                |row| row.get(0),
            )
            .optional()
            .map_err(self.fail())
    }

    /// Replace the change history of an identity, if it is still `before`; whether it was.
    pub fn replace_history(&mut self, identifier: &str, before: &[u8], after: &[u8]) -> Result<bool> {
        self.write(|transaction| {
            Ok(transaction.execute(
                "UPDATE identity SET history = ?3 WHERE identifier = ?1 AND history = ?2",
                params![identifier, before, after],
            )? > 0)
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
}

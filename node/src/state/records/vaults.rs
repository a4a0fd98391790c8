//! Rows of vaults.

use super::*;

impl HomeDatabase {
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
}

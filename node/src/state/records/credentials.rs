//! Rows of credentials.

use super::*;

impl HomeDatabase {
    /// Every credential, sorted by subject.
    pub fn credentials(&self) -> Result<Vec<CredentialRecord>> {
        let mut statement = self
            .connection
            .prepare(
                "SELECT subject, issuer, scope, created_at, expires_at, attributes, credential
                 FROM credential ORDER BY subject, scope, issuer",
            )
            .map_err(self.fail())?;
        let rows = statement
            .query_map([], |row| {
                Ok(CredentialRecord {
                    subject: row.get(0)?,
                    issuer: row.get(1)?,
                    scope: row.get(2)?,
                    created_at: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
                    expires_at: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0),
                    attributes: serde_json::from_str(&row.get::<_, String>(5)?).unwrap_or_default(),
                    credential: row.get(6)?,
                })
            })
            .map_err(self.fail())?;
        rows.map(|row| row.map_err(self.fail())).collect()
    }

    /// The credential of a subject for a scope, whoever issued it.
    pub fn credential(&self, subject: &str, scope: &str) -> Result<Option<CredentialRecord>> {
        let all = self.credentials()?;
        Ok(all
            .into_iter()
            .filter(|credential| credential.subject == subject && credential.scope == scope)
            .max_by_key(|credential| credential.expires_at))
    }

    /// Write a credential, replacing an older one of the same subject, issuer and scope.
    pub fn put_credential(&mut self, credential: &CredentialRecord) -> Result<()> {
        let attributes = serde_json::to_string(&credential.attributes)
            .map_err(|error| Error::failed(format!("the attributes cannot be written: {error}")))?;
        self.write(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO credential
                 (subject, issuer, scope, created_at, expires_at, attributes, credential)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    credential.subject,
                    credential.issuer,
                    credential.scope,
                    seconds(credential.created_at),
                    seconds(credential.expires_at),
                    attributes,
                    credential.credential
                ],
            )?;
            Ok(())
        })
    }
}

//! Rows of projects.

use super::*;

impl HomeDatabase {
    /// Every project, sorted by name, and whether it is the default.
    pub fn projects(&self) -> Result<Vec<(Project, bool)>> {
        let default = self.setting(DEFAULT_PROJECT)?;
        let mut statement = self
            .connection
            .prepare("SELECT name, record FROM project ORDER BY name")
            .map_err(self.fail())?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
            .map_err(self.fail())?;
        rows.map(|row| {
            let (name, record) = row.map_err(self.fail())?;
            let project: Project = serde_json::from_str(&record).map_err(|error| {
                Error::from(StateError::Row {
                    path: self.path.clone(),
                    what: format!("project `{name}`: {error}"),
                })
            })?;
            let is_default = default.as_deref() == Some(name.as_str());
            Ok((project, is_default))
        })
        .collect()
    }

    /// A project by local name.
    pub fn project(&self, name: &str) -> Result<Project> {
        let projects = self.projects()?;
        projects
            .iter()
            .find(|(project, _)| project.name == name)
            .map(|(project, _)| project.clone())
            .ok_or_else(|| {
                let error = unknown(
                    "project",
                    name,
                    projects.iter().map(|(project, _)| project.name.as_str()),
                );
                if projects.is_empty() {
                    error.hint(
                        "run `portolan project enroll TICKET`, or `portolan enroll` to make a project here",
                    )
                } else {
                    error
                }
            })
    }

    /// The default project, if there is one.
    pub fn default_project(&self) -> Result<Option<Project>> {
        Ok(self
            .projects()?
            .into_iter()
            .find(|(_, is_default)| *is_default)
            .map(|(project, _)| project))
    }

    /// Write a project, replacing the one with the same id. It becomes the default if there is none, or if
    /// `make_default` says so.
    ///
    /// # Errors
    ///
    /// When another project has the name.
    pub fn put_project(&mut self, project: &Project, make_default: bool) -> Result<()> {
        check_project_name(&project.name)?;
        let record = serde_json::to_string(project)
            .map_err(|error| Error::failed(format!("the project cannot be written: {error}")))?;
        let clash = self.write(|transaction| {
            let clash: Option<String> = transaction
                .query_row(
                    "SELECT id FROM project WHERE name = ?1 AND id <> ?2",
                    params![project.name, project.id],
                    |row| row.get(0),
                )
                .optional()?;
            if clash.is_none() {
                let renamed: Option<String> = transaction
                    .query_row("SELECT name FROM project WHERE id = ?1", [&project.id], |row| {
                        row.get(0)
                    })
                    .optional()?;
                transaction.execute("DELETE FROM project WHERE id = ?1", [&project.id])?;
                transaction.execute(
                    "INSERT INTO project (name, id, record) VALUES (?1, ?2, ?3)",
                    params![project.name, project.id, record],
                )?;
                let default = get_setting(transaction, DEFAULT_PROJECT)?;
                if make_default || default.is_none() || default == renamed {
                    put_setting(transaction, DEFAULT_PROJECT, &project.name)?;
                }
            }
            Ok(clash)
        })?;
        match clash {
            Some(_) => Err(Error::exists(format!(
                "another project is already named `{}` here",
                project.name
            ))
            .hint(format!(
                "remove it first: portolan project delete {}",
                project.name
            ))),
            None => Ok(()),
        }
    }

    /// Forget a project.
    pub fn delete_project(&mut self, name: &str) -> Result<()> {
        let project = self.project(name)?;
        let scope = project.credential_scope();
        self.write(|transaction| {
            transaction.execute("DELETE FROM project WHERE name = ?1", [name])?;
            transaction.execute("DELETE FROM credential WHERE scope = ?1", [&scope])?;
            pass_default_on(
                transaction,
                DEFAULT_PROJECT,
                name,
                "SELECT name FROM project ORDER BY name",
            )
        })
    }
}

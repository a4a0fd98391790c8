//! `portolan enroll`: make a project on this machine if none is known.

use std::time::{Duration, Instant};

use super::AUTHORITY_TIMEOUT;
use super::create::{Place, created_text, launch};
use super::join::enrolled;
use crate::cli::context::Context;
use crate::engine::remote::{self};
use crate::error::{Error, ErrorCode, Result};
use crate::state::{NodeRole, OwnIdentity, Project, now};

/// How long one `enroll` waits for another that is making the project at the same moment. It takes less than a second.
const ANOTHER_ENROLL: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct EnrollHere {
    #[command(flatten)]
    place: Place,
    /// The identity that becomes the administrator. Default: the default identity.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Fetch a new credential even if there is a valid one.
    #[arg(long)]
    force: bool,
}

impl EnrollHere {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let home = context.home();
        let identity = home.acting_identity(self.identity.as_deref())?;
        if let Some(project) = home.default_project()? {
            return match self.as_member(context, &identity, &project).await {
                // Another `enroll` may have written the project a moment ago, and its node may not listen yet.
                Err(error) if error.code == ErrorCode::Unreachable && has_project_node(context) => {
                    self.after_another(context, &identity, error).await
                }
                result => result,
            };
        }
        let options = self.place.options("default", Some(&identity.record.name));
        let (written, node) = match crate::project::create(home, &options) {
            // Another `enroll` is at it at this moment: its project is ours.
            Err(error) if error.code == ErrorCode::AlreadyExists => {
                return self.after_another(context, &identity, error).await;
            }
            result => result?,
        };
        let credential = launch(&written, node).await?;
        context.terminal.done(created_text(&written));
        context
            .terminal
            .note("Invite a machine: portolan project ticket --attribute KEY=VALUE");
        context
            .terminal
            .answer(&enrolled(&identity, &written.project, &credential, true))
    }

    async fn as_member(&self, context: &Context, identity: &OwnIdentity, project: &Project) -> Result<()> {
        let project = context.project(Some(&project.name))?;
        let held = context
            .home()
            .database()?
            .credential(&identity.record.identifier, &project.credential_scope())?;
        let credential = match held.filter(|held| !self.force && held.expires_at > now()) {
            Some(held) => crate::cli::credential::status(&held),
            None => {
                let caller =
                    context.caller(Some(&identity.record.name), project.clone(), AUTHORITY_TIMEOUT)?;
                remote::fetch_credential(&caller).await?
            }
        };
        context.terminal.note(format!(
            "`{}` is already a member of the project `{}`.",
            identity.record.name, project.name
        ));
        context
            .terminal
            .answer(&enrolled(identity, &project, &credential, true))
    }

    /// Wait until the project that another command is making can be used. If it fails, so does this one, as `error` says.
    async fn after_another(&self, context: &Context, identity: &OwnIdentity, error: Error) -> Result<()> {
        let deadline = Instant::now() + ANOTHER_ENROLL;
        loop {
            let failure = match context.home().default_project()? {
                Some(project) => match self.as_member(context, identity, &project).await {
                    Err(error) if error.code == ErrorCode::Unreachable => error,
                    result => return result,
                },
                None => error.clone(),
            };
            if Instant::now() > deadline {
                return Err(failure);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Whether the node of a project lives in this home.
fn has_project_node(context: &Context) -> bool {
    let home = context.home();
    let is_project_node = |name: &String| {
        home.node(name)
            .and_then(|folder| folder.spec())
            .is_ok_and(|spec| matches!(spec.role, NodeRole::Project(_)))
    };
    home.node_names()
        .is_ok_and(|names| names.iter().any(is_project_node))
}

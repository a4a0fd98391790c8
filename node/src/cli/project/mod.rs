//! `portolan project …` and `portolan enroll`.
//!
//! - `create`: a project on this machine.
//! - `here`: `enroll`: the same, if none is known yet.
//! - `ticket`: inviting a machine.
//! - `join`: accepting an invitation.
//! - `records`: what is known of projects.

mod create;
mod here;
mod join;
mod records;
mod ticket;

use std::path::PathBuf;
use std::time::Duration;

pub(crate) use here::EnrollHere;
pub(crate) use join::{join, ticket};
pub(crate) use records::record;

use super::Confirmation;
use super::context::Context;
use crate::error::Result;

/// Limit for a whole enrollment (05 §1.4).
pub(crate) const ENROLL_TIMEOUT: Duration = Duration::from_secs(240);
/// Limit for one conversation with the authority.
pub(crate) const AUTHORITY_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a project: an authority and a relay service in one node on this machine, with you as its administrator.
    Create(create::Create),
    /// Invite a machine: print a one-time ticket.
    ///
    /// The ticket alone goes to stdout, so that `t=$(portolan project ticket …)` works. It is a secret until it is used.
    Ticket(ticket::Ticket),
    /// Join a project with a ticket, or fetch a credential as a member that was added by `project-member add`.
    Enroll(join::Enroll),
    /// What is known about a project; the JSON can be given to `project import` elsewhere.
    Show {
        /// Default: the default project.
        name: Option<String>,
    },
    /// All projects that are known here.
    List,
    /// Take over a project from a file (JSON, as `project show --output json` prints it).
    Import {
        #[arg(long, value_name = "PATH")]
        project_file: PathBuf,
    },
    /// Forget a project; if its node runs in this home, stop and remove that too, with all members and tickets.
    Delete {
        name: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

/// Who asks, at which project's authority.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Trust {
    /// The identity that asks. Default: the default identity.
    #[arg(long, value_name = "NAME")]
    pub(crate) identity: Option<String>,
    /// The project. Default: the default project.
    #[arg(long, visible_alias = "project-name", short = 'p', value_name = "NAME")]
    pub(crate) project: Option<String>,
}

impl Command {
    /// Whether this process becomes a node.
    pub(crate) fn runs_here(&self) -> bool {
        matches!(self, Command::Create(create) if create.foreground)
    }

    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Create(create) => create.run(context).await,
            Command::Ticket(ticket) => ticket.run(context).await,
            Command::Enroll(enroll) => enroll.run(context).await,
            Command::Show { name } => records::show(context, name.as_deref()),
            Command::List => records::list(context),
            Command::Import { project_file } => records::import(context, &project_file),
            Command::Delete { name, confirmation } => records::delete(context, &name, confirmation.yes).await,
        }
    }
}

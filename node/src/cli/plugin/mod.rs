//! `portolan plugin …`.

mod add;
mod manage;
mod new;

pub(super) use add::Add;

use super::context::Context;
use super::values;
use crate::error::Result;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write a project for a plugin of your own, with a README that says how it is built and run.
    New(new::New),
    /// Add a plugin to a node, or put another version in its place.
    Add(Box<Add>),
    /// The plugins of a node.
    List {
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// One plugin: its digest, its rights, its limits, who runs it.
    Show {
        /// Its name.
        #[arg(value_parser = values::plain)]
        name: String,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// Remove a plugin that no worker runs.
    Remove {
        /// Its name.
        #[arg(value_parser = values::plain)]
        name: String,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::New(new) => new.run(context),
            Command::Add(add) => add.run(context).await,
            Command::List { at } => manage::list(context, at.as_deref()).await,
            Command::Show { name, at } => manage::show(context, &name, at.as_deref()).await,
            Command::Remove { name, at } => manage::remove(context, &name, at.as_deref()).await,
        }
    }
}

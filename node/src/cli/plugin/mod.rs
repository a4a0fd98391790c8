//! `portolan plugin …`.

mod new;

use super::context::Context;
use crate::error::Result;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write a project for a plugin of your own, with a README that says how it is built and run.
    New(new::New),
}

impl Command {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::New(new) => new.run(context),
        }
    }
}

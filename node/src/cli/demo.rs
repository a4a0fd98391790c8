//! `portolan demo`.

use super::output::Terminal;
use crate::demo::{DemoOptions, stdout_takes_color};
use crate::error::Result;

/// Starts a project, a service side and a client side as separate processes in a temporary home on loopback, carries
/// real requests through a portal, shows what is refused, measures, and cleans up.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Keep the temporary home and its logs.
    #[arg(long)]
    keep: bool,
}

impl Args {
    pub(super) async fn run(self, terminal: &Terminal) -> Result<()> {
        crate::demo::run(DemoOptions {
            keep: self.keep,
            color: terminal.color && stdout_takes_color(),
        })
        .await
    }
}

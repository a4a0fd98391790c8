//! `portolan demo`.

use super::output::Terminal;
use crate::error::{Error, Result};

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
        let _ = (self.keep, terminal);
        Err(Error::failed("this build has no demo yet"))
    }
}

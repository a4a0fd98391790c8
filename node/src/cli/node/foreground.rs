//! A node in this process, until it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::show::shown;
use crate::cli::context::Context;
use crate::cli::process::{self, StopSignals};
use crate::error::Result;
use crate::state::OpenNode;

/// What becomes of the node's folder if the node cannot start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfItNeverRan {
    /// It was made for this: leave no trace.
    Remove,
    /// It was there before.
    Keep,
}

/// Run the node until a signal, the end of stdin (`exit_on_eof`) or a request stops it.
pub(super) async fn run(
    context: &Context,
    signals: StopSignals,
    node: OpenNode,
    exit_on_eof: bool,
    if_it_never_ran: IfItNeverRan,
) -> Result<()> {
    let folder = node.folder().clone();
    if if_it_never_ran == IfItNeverRan::Remove {
        context.adopt_as_default(&folder)?;
    }
    let (context, folder_of) = (context.clone(), folder.clone());
    let ran = Arc::new(AtomicBool::new(false));
    let runs = ran.clone();
    let result = process::run_here(
        node,
        context.types().clone(),
        signals,
        exit_on_eof,
        move |status| {
            runs.store(true, Ordering::Relaxed);
            context.terminal.done(format!(
                "The node `{}` is running. Stop it with Ctrl-C.",
                status.name
            ));
            if let Ok(answer) = shown(&context, &folder_of, status) {
                let _ = context.terminal.answer(&answer);
                if !context.terminal.stdout_is_terminal {
                    let _ = context.terminal.raw(b"\n");
                }
            }
        },
    )
    .await;
    if result.is_err() && !ran.load(Ordering::Relaxed) && if_it_never_ran == IfItNeverRan::Remove {
        let _ = folder.remove();
    }
    result
}

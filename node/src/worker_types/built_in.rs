//! The types that every node has.

use std::sync::Arc;

use portolan_samples::audit::{Audit, AuditSettings};
use portolan_samples::rate_limiter::{Delaying, Dropping, Over, RateLimit};

use super::{Place, Tally, WorkerType, WorkerTypes};
use crate::error::{Error, Result};

/// All of them.
pub(super) fn types() -> WorkerTypes {
    let mut types = WorkerTypes::default();
    let all = [
        WorkerType::new(
            "rate-limiter",
            "Passes a limited number of messages or bytes a second on to another worker; drops or delays the rest.",
            rate_limiter,
        ),
        WorkerType::new(
            "audit",
            "Writes a line of JSON for each message between two addresses, before it passes.",
            audit,
        ),
    ];
    for built_in in all.into_iter().flatten() {
        // Their names are different.
        let _ = types.add(built_in);
    }
    types
}

/// What a task says of its messages, counted.
fn report(tally: &Arc<Tally>) -> portolan_samples::Report {
    let tally = Arc::clone(tally);
    Box::new(move |result| match result {
        Ok(()) => tally.count_handled(),
        Err(reason) => tally.count_failed(reason),
    })
}

fn rate_limiter(limit: RateLimit, place: Place) -> Result<()> {
    if limit.over == Over::Drop {
        return place.start_passage(Arc::new(Dropping::new(&limit)));
    }
    let limiter = Delaying::new(limit, report(place.tally()));
    let tally = Arc::clone(place.tally());
    place.start_task(move |ctx| {
        tally.set_running();
        limiter.run(ctx)
    })
}

fn audit(settings: AuditSettings, place: Place) -> Result<()> {
    let audit = Audit::new(settings, place.folder(), report(place.tally())).map_err(|reason| {
        Error::failed(reason).hint("make room, or the folder writable for this user, or name another `file`")
    })?;
    let tally = Arc::clone(place.tally());
    place.mailbox(audit.mailbox()).start_task(move |ctx| {
        tally.set_running();
        audit.run(ctx)
    })
}

//! The audit as a task: it takes all that waits, writes it at once, and then lets it pass. Writing is done on a thread that may wait for
//! the disk; those of the node never do.

use std::path::Path;

use portolan_runtime::{AccessControl, Address, Context, Envelope, MailboxOptions};

use super::file::Rotated;
use super::{AuditSettings, WhenUnwritable, line};
use crate::Report;

/// Messages that are written at once.
const BATCH: usize = 64;

/// Where lines go.
enum Sink {
    Log,
    File(Rotated),
}

impl Sink {
    fn write(&mut self, lines: &str) -> Result<(), String> {
        match self {
            Sink::Log => {
                for line in lines.lines() {
                    tracing::info!(target: "audit", "{line}");
                }
                Ok(())
            }
            Sink::File(file) => file.write(lines.as_bytes()).map_err(|error| {
                format!(
                    "the audit cannot be written to {}: {error}",
                    file.path().display()
                )
            }),
        }
    }
}

/// An audit that is about to be started.
pub struct Audit {
    settings: AuditSettings,
    answers: Address,
    report: Report,
    sink: Option<Sink>,
    missing: u64,
}

impl Audit {
    /// An audit with these settings; relative paths are relative to `folder`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn new(settings: AuditSettings, folder: &Path, report: Report) -> Result<Self, String> {
        let mut sink = match &settings.file {
            None => Sink::Log,
            Some(path) => Sink::File(Rotated::new(folder.join(path), settings.max_bytes, settings.keep)),
        };
        sink.write("")?;
        Ok(Self {
            settings,
            answers: Address::random(),
            report,
            sink: Some(sink),
            missing: 0,
        })
    }

    /// The address that answers come back to: the worker needs it beside its own. Only workers of the node reach it.
    pub fn mailbox(&self) -> MailboxOptions {
        MailboxOptions::new(self.answers.clone())
            .incoming(AccessControl::AllowAll)
            .outgoing(AccessControl::AllowAll)
    }

    /// Runs until the worker is stopped.
    pub async fn run(mut self, mut ctx: Context) {
        while let Some(first) = ctx.next().await {
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Some(envelope) = ctx.try_next()
            {
                batch.push(envelope);
            }
            let mut lines = String::new();
            if self.missing > 0 {
                lines = line::missing(self.missing);
            }
            for envelope in &mut batch {
                self.lead(envelope, &mut lines);
            }
            match self.write(lines).await {
                Ok(()) => self.missing = 0,
                Err(reason) => {
                    self.missing += batch.len() as u64;
                    tracing::debug!("{reason}");
                    if self.settings.when_unwritable == WhenUnwritable::Refuse {
                        batch.iter().for_each(|_| (self.report)(Err(&reason)));
                        continue;
                    }
                }
            }
            for envelope in batch {
                match ctx.forward(envelope.message) {
                    Ok(()) => (self.report)(Ok(())),
                    Err(error) => (self.report)(Err(&error)),
                }
            }
            ctx.flush().await;
        }
    }

    /// Puts a message onto its way, and writes its line.
    fn lead(&self, envelope: &mut Envelope, lines: &mut String) {
        let message = &mut envelope.message;
        if message.onward.next() == Some(&self.answers) {
            message.onward.step();
            line::write(lines, "answer", envelope, self.settings.digest);
            return;
        }
        message.onward.step();
        message.onward.prepend_route(self.settings.to.route());
        line::write(lines, "request", envelope, self.settings.digest);
        if self.settings.answers {
            envelope.message.back.prepend(self.answers.clone());
        }
    }

    async fn write(&mut self, lines: String) -> Result<(), String> {
        let Some(mut sink) = self.sink.take() else {
            return Err("the audit has lost its file".to_owned());
        };
        let written = tokio::task::spawn_blocking(move || {
            let result = sink.write(&lines);
            (sink, result)
        });
        match written.await {
            Ok((sink, result)) => {
                self.sink = Some(sink);
                result
            }
            Err(error) => Err(format!("the audit cannot be written: {error}")),
        }
    }
}

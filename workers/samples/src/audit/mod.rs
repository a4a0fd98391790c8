//! An audit: writes one line of JSON for each message that passes between two addresses, before it passes.
//!
//! It stands in front of another worker. A message to the audit goes on to that worker, and answers come back through it, so that both
//! directions are written:
//!
//! ```json
//! {"time":"2026-11-23T22:31:34.123456Z","what":"request","from":"0#shop","to":"0#backend","peer":"I0a…","size":12}
//! {"time":"2026-11-23T22:31:34.125001Z","what":"answer","from":"0#backend","to":"0#shop","size":4}
//! ```
//!
//! `from` is the local address that the message was sent from, which cannot be forged: for a message out of a secure channel the
//! channel's, and `peer` says who is at its other end. `size` is the payload's, in bytes. With `digest: true`, `sha256` is its hash.
//!
//! ```yaml
//! workers:
//!   watched:
//!     type: audit
//!     config:
//!       to: backend
//!       file: /var/log/portolan/backend.jsonl
//!       max-bytes: 10000000
//!       keep: 5
//!       digest: true
//! ```
//!
//! Without `file`, lines go into the log of the node.
//!
//! # When a line cannot be written
//!
//! A full disk, a file that may not be written: then the message does not pass either, unless `when-unwritable: pass` says otherwise. It
//! counts as failed, with the reason. The next message tries again, and the first line that can be written says how many are missing. No
//! line is ever half written: what got into the file of a line is cut off again. Lines are handed to the system before a message passes;
//! they survive a kill of the node, but not a power cut.
//!
//! # What is bounded
//!
//! The file at `max-bytes`, then it is renamed to `.1`, that to `.2` and so on, up to `keep`: together they have at most `(keep + 1) ×
//! max-bytes`, and the 64 lines that are written at once. Messages that wait for the disk: the worker's mailbox, then senders wait.
//!
//! | module | idea |
//! |---|---|
//! | `line` | a message as a line |
//! | `file` | a file that is rotated, and never has half a line |
//! | `worker` | many messages, one write, then they pass |

mod file;
mod line;
mod worker;

use std::path::PathBuf;

use serde::Deserialize;

use crate::Target;

pub use worker::Audit;

/// The smallest file before it is rotated: room for a few lines.
pub const MIN_BYTES: u64 = 4096;
/// The most files that are kept beside the present one.
pub const MAX_KEPT: u32 = 100;

/// What happens to a message whose line cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenUnwritable {
    /// It does not pass.
    #[default]
    Refuse,
    /// It passes, and the missing line is counted.
    Pass,
}

/// The configuration of an audit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct AuditSettings {
    /// Where messages go.
    pub to: Target,
    /// Where lines are written; `None` is the log. A relative path is relative to the folder of the node.
    pub file: Option<PathBuf>,
    /// When the file is rotated. Default 10 MB.
    pub max_bytes: u64,
    /// Older files that are kept. Default 5.
    pub keep: u32,
    /// Write the SHA-256 of payloads. Default: no.
    pub digest: bool,
    /// Let answers come through the audit, too. Default: yes.
    pub answers: bool,
    /// What happens to a message whose line cannot be written. Default: it does not pass.
    pub when_unwritable: WhenUnwritable,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Written {
    to: Target,
    file: Option<PathBuf>,
    max_bytes: Option<u64>,
    keep: Option<u32>,
    #[serde(default)]
    digest: bool,
    #[serde(default = "yes")]
    answers: bool,
    #[serde(default)]
    when_unwritable: WhenUnwritable,
}

fn yes() -> bool {
    true
}

impl TryFrom<Written> for AuditSettings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        if written.file.is_none() && (written.max_bytes.is_some() || written.keep.is_some()) {
            return Err("`max-bytes` and `keep` go only with `file`".to_owned());
        }
        if written
            .file
            .as_ref()
            .is_some_and(|file| file.file_name().is_none())
        {
            return Err("`file` is not the name of a file".to_owned());
        }
        let max_bytes = written.max_bytes.unwrap_or(10_000_000);
        if max_bytes < MIN_BYTES {
            return Err(format!("`max-bytes` is at least {MIN_BYTES}"));
        }
        let keep = written.keep.unwrap_or(5);
        if keep > MAX_KEPT {
            return Err(format!("`keep` is at most {MAX_KEPT}"));
        }
        Ok(Self {
            to: written.to,
            file: written.file,
            max_bytes,
            keep,
            digest: written.digest,
            answers: written.answers,
            when_unwritable: written.when_unwritable,
        })
    }
}

#[cfg(test)]
mod tests;

//! The error that leaves this crate: one sentence, a code that scripts can test, and what to do about it.
//!
//! Inside, each module has its own error enum. At the edge (command line, control API) everything becomes an
//! [`Error`]: what failed and why in [`Error::message`], what to do in [`Error::hint`], and an [`ErrorCode`] that is
//! both the exit code of the command and the `code` field of the control API.

use serde::{Deserialize, Serialize};

/// What went wrong, for programs. The text form (`not-found`) appears in JSON; the number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// Something failed that has no code of its own. Exit code 1.
    Failed,
    /// The arguments are wrong: unknown flag, malformed value, combination that makes no sense. Exit code 2.
    InvalidArgument,
    /// The named thing does not exist here. Exit code 3.
    NotFound,
    /// The name or address is taken, or the thing is in use by another. Exit code 4.
    AlreadyExists,
    /// The other side understood and said no: ticket used or expired, not a member, policy. Exit code 5.
    Refused,
    /// The other side cannot be reached, or the node is not running. Exit code 6.
    Unreachable,
    /// No answer in time. Exit code 7.
    Timeout,
    /// The state under `PORTOLAN_HOME` cannot be used: disk full, read-only, damaged, written by a newer version,
    /// or sealed with a passphrase that was not given. Exit code 8.
    State,
    /// A signature or a credential did not verify. Exit code 9.
    NotVerified,
    /// Stopped by the user (Ctrl-C). Exit code 130.
    Interrupted,
}

impl ErrorCode {
    /// Every code, in the order of the documentation.
    pub const ALL: [ErrorCode; 10] = [
        ErrorCode::Failed,
        ErrorCode::InvalidArgument,
        ErrorCode::NotFound,
        ErrorCode::AlreadyExists,
        ErrorCode::Refused,
        ErrorCode::Unreachable,
        ErrorCode::Timeout,
        ErrorCode::State,
        ErrorCode::NotVerified,
        ErrorCode::Interrupted,
    ];

    /// The exit code of a command that ends with this error.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorCode::Failed => 1,
            ErrorCode::InvalidArgument => 2,
            ErrorCode::NotFound => 3,
            ErrorCode::AlreadyExists => 4,
            ErrorCode::Refused => 5,
            ErrorCode::Unreachable => 6,
            ErrorCode::Timeout => 7,
            ErrorCode::State => 8,
            ErrorCode::NotVerified => 9,
            ErrorCode::Interrupted => 130,
        }
    }

    /// The code whose [`exit_code`](Self::exit_code) is `code`, if there is one.
    pub fn from_exit_code(code: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|candidate| candidate.exit_code() == code)
    }

    /// The HTTP status with which the control API reports this error.
    pub fn http_status(self) -> u16 {
        match self {
            ErrorCode::InvalidArgument => 400,
            ErrorCode::Refused => 403,
            ErrorCode::NotFound => 404,
            ErrorCode::AlreadyExists => 409,
            ErrorCode::NotVerified => 422,
            ErrorCode::Unreachable => 502,
            ErrorCode::Interrupted => 503,
            ErrorCode::Timeout => 504,
            ErrorCode::State => 507,
            ErrorCode::Failed => 500,
        }
    }

    /// One line for the documentation and for `portolan help exit-codes`.
    pub fn meaning(self) -> &'static str {
        match self {
            ErrorCode::Failed => "something failed that has no code of its own",
            ErrorCode::InvalidArgument => "the arguments are wrong",
            ErrorCode::NotFound => "the named thing does not exist here",
            ErrorCode::AlreadyExists => "the name or address is taken, or the thing is in use",
            ErrorCode::Refused => "the other side said no (ticket used or expired, not a member, policy)",
            ErrorCode::Unreachable => "the other side cannot be reached, or the node is not running",
            ErrorCode::Timeout => "no answer in time",
            ErrorCode::State => {
                "the state under PORTOLAN_HOME cannot be used (full, read-only, damaged, newer, sealed)"
            }
            ErrorCode::NotVerified => "a signature or credential did not verify",
            ErrorCode::Interrupted => "interrupted by the user",
        }
    }

    /// The text form, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::Failed => "failed",
            ErrorCode::InvalidArgument => "invalid-argument",
            ErrorCode::NotFound => "not-found",
            ErrorCode::AlreadyExists => "already-exists",
            ErrorCode::Refused => "refused",
            ErrorCode::Unreachable => "unreachable",
            ErrorCode::Timeout => "timeout",
            ErrorCode::State => "state",
            ErrorCode::NotVerified => "not-verified",
            ErrorCode::Interrupted => "interrupted",
        }
    }
}

/// What failed and why, in one sentence, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// For programs.
    pub code: ErrorCode,
    /// What failed and why: one sentence, lower-case start, no full stop at the end.
    pub message: String,
    /// What the user can do, as an imperative: "run `portolan node start n1`".
    pub hint: Option<String>,
}

/// The result of everything at the edge of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `code` with a message and no advice.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// The same error with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Something failed that has no code of its own.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Failed, message)
    }

    /// The arguments are wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    /// The named thing does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// The name or address is taken.
    pub fn exists(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::AlreadyExists, message)
    }

    /// The other side said no.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Refused, message)
    }

    /// The other side cannot be reached.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unreachable, message)
    }

    /// No answer in time.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Timeout, message)
    }

    /// The state on disk cannot be used.
    pub fn state(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::State, message)
    }
}

impl From<portolan_runtime::Error> for Error {
    fn from(error: portolan_runtime::Error) -> Self {
        crate::engine::runtime_error(error)
    }
}

impl From<portolan_runtime::DecodeError> for Error {
    fn from(error: portolan_runtime::DecodeError) -> Self {
        Self::failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_exit_code_and_text() {
        let mut numbers: Vec<u8> = ErrorCode::ALL.iter().map(|code| code.exit_code()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(
                serde_json::to_string(&code).unwrap(),
                format!("{:?}", code.as_str())
            );
            assert_eq!(ErrorCode::from_exit_code(code.exit_code()), Some(code));
        }
    }
}

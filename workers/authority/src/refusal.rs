//! Why an authority does not do what it was asked: statuses and sentences, the same on both ends.
//!
//! A stock client tells refusals apart by status and text only, and knows one text: a 403 that contains
//! `already a member` is a success for `project enroll`. The reference gives one and the same answer to
//! expired, used-up and unknown codes; we give each its own sentence, and our client recognises them
//! ([`CodeRefusal::of_failure`]).

use portolan_identity::Identifier;

use crate::api::{Failure, Status};
use crate::protocol::BodyError;
use crate::store::StoreError;

/// A refusal. `Display` is the message on the wire; no variant shows a code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The caller is not an enroller.
    #[error("only an enroller of this project may {0}")]
    NotEnroller(&'static str),
    /// The caller is not an administrator.
    #[error("only an administrator of this project may {0}")]
    NotAdmin(&'static str),
    /// The caller presents a code and is a member; the code is untouched.
    #[error("Already a member")]
    AlreadyMember,
    /// No such code, or one that ended too long ago to be remembered.
    #[error("Unknown enrollment token: this ticket was not issued by this authority, or it ended long ago")]
    UnknownCode,
    /// The code's life is over.
    #[error("Expired enrollment token: this ticket expired; ask for a new one")]
    ExpiredCode,
    /// As many identities as allowed have redeemed the code.
    #[error("Used enrollment token: this ticket was redeemed as often as allowed; ask for a new one")]
    UsedCode,
    /// The code was cancelled, or its issuer lost the right to issue.
    #[error("Cancelled enrollment token: this ticket was withdrawn; ask for a new one")]
    CancelledCode,
    /// The code was issued before the caller was removed from the project.
    #[error(
        "Removed member: this identity was removed from the project after this ticket was issued; ask for a new one"
    )]
    RemovedMember,
    /// The caller has presented too many wrong codes.
    #[error("Too many attempts: wait {wait} s before trying another ticket")]
    TooManyAttempts {
        /// Seconds to wait.
        wait: u64,
    },
    /// The member comes from the authority's own configuration.
    #[error("member {0} is set in the authority's configuration and can be changed only there")]
    PreTrusted(Identifier),
    /// No such member.
    #[error("Member {0} not found")]
    MemberNotFound(Identifier),
    /// The caller asks for a credential and is not a member.
    #[error("unauthorized member")]
    UnauthorizedMember,
    /// A limit of the request.
    #[error("{0}")]
    BadRequest(String),
    /// A limit of the authority.
    #[error("{0}")]
    Full(&'static str),
    /// The authority failed. The cause is in its log.
    #[error("the authority failed to {0}; its log has the reason")]
    Internal(&'static str),
    /// The store failed.
    #[error("the authority cannot use its database; its log has the reason")]
    Store(#[from] StoreError),
}

impl Refusal {
    /// The status on the wire.
    pub fn status(&self) -> Status {
        match self {
            Self::BadRequest(_) => Status::BadRequest,
            Self::Internal(_) | Self::Store(_) => Status::InternalServerError,
            // A stock authority answers 403 here where one would expect 404, 409 or 429, and stock clients
            // know no other.
            _ => Status::Forbidden,
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::BadRequest(error.to_string())
    }
}

/// What became of a code that was presented, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeRefusal {
    /// [`Refusal::UnknownCode`].
    Unknown,
    /// [`Refusal::ExpiredCode`].
    Expired,
    /// [`Refusal::UsedCode`].
    Used,
    /// [`Refusal::CancelledCode`].
    Cancelled,
    /// [`Refusal::RemovedMember`].
    Removed,
    /// [`Refusal::TooManyAttempts`].
    TooManyAttempts,
}

/// Whether a failed redemption means that the caller is a member: 403 and the text that stock clients look for.
pub fn is_already_member(failure: &Failure) -> bool {
    failure.status == Some(Status::Forbidden)
        && failure
            .message
            .as_deref()
            .is_some_and(|m| m.to_lowercase().contains("already a member"))
}

impl CodeRefusal {
    /// Recognises our sentences, also when a stock authority says one of them.
    pub fn of_failure(failure: &Failure) -> Option<Self> {
        let message = failure.message.as_deref()?;
        [
            ("Unknown enrollment token", Self::Unknown),
            ("Expired enrollment token", Self::Expired),
            ("Used enrollment token", Self::Used),
            ("Cancelled enrollment token", Self::Cancelled),
            ("Removed member", Self::Removed),
            ("Too many attempts", Self::TooManyAttempts),
        ]
        .into_iter()
        .find_map(|(start, refusal)| message.starts_with(start).then_some(refusal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(refusal: &Refusal) -> Failure {
        Failure {
            status: Some(refusal.status()),
            message: Some(refusal.to_string()),
        }
    }

    #[test]
    fn the_client_recognises_every_sentence_about_codes() {
        let pairs = [
            (Refusal::UnknownCode, Some(CodeRefusal::Unknown)),
            (Refusal::ExpiredCode, Some(CodeRefusal::Expired)),
            (Refusal::UsedCode, Some(CodeRefusal::Used)),
            (Refusal::CancelledCode, Some(CodeRefusal::Cancelled)),
            (Refusal::RemovedMember, Some(CodeRefusal::Removed)),
            (
                Refusal::TooManyAttempts { wait: 3 },
                Some(CodeRefusal::TooManyAttempts),
            ),
            (Refusal::UnauthorizedMember, None),
        ];
        for (refusal, seen) in pairs {
            assert_eq!(CodeRefusal::of_failure(&failure(&refusal)), seen);
            assert!(
                !is_already_member(&failure(&refusal)),
                "a stock client would take this for a success: {refusal}"
            );
        }
    }

    #[test]
    fn only_a_403_can_say_already_a_member() {
        assert!(is_already_member(&failure(&Refusal::AlreadyMember)));
        let conflict = Failure {
            status: Some(Status::Conflict),
            message: Some("Already a member".into()),
        };
        assert!(!is_already_member(&conflict));
    }
}

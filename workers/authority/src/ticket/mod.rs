//! Enrollment tickets: one text that holds all a machine needs to become a member of a project (specification
//! 03 §3).
//!
//! A ticket names the project and its authority, with both identities in full so that they can be verified
//! offline, and has a one-time code in it: **whoever holds the ticket can become a member**. Nothing in this
//! module shows the code, not in `Debug` and not in an error.
//!
//! # Text
//!
//! What we write is [`Ticket::to_text`]: lower-case hex of a comma-separated line. Hex survives every shell,
//! `sed`, YAML and environment variable unquoted, and a stock 0.150 `project enroll` reads it. The line is
//!
//! ```text
//! route , I… , name , code , project history , authority history , authority route , P1.<expiry>.<checksum>
//! ```
//!
//! The first seven fields are those of the reference. A stock reader ignores further ones, so the eighth is
//! ours: a hint when the ticket ends (UTC seconds, may be empty) and the first 8 bytes of the SHA-256 of
//! everything before the last `.`, so that a ticket which lost its end or a character on the way is
//! recognised here instead of failing as a dead network.
//!
//! What we read is every form of the reference (§3.2), with white space around it or, in hex, inside it: hex
//! of either case, comma line, JSON object, and the older JSON object with a whole project record.

mod parse;
mod write;

use portolan_identity::Identifier;

use crate::code::OneTimeCode;
use crate::project::{InvalidPart, Part, Project, project_id_of_route};

/// Longest ticket that is read, in bytes. Two histories at their limit, twice in hex, fit.
pub const MAX_TICKET_LEN: usize = 1024 * 1024;

/// Fields of the comma-separated line that every reader wants.
pub const FIELDS: usize = 7;

/// A ticket: a project and the code that makes its holder a member.
#[derive(Clone, Debug)]
pub struct Ticket {
    project: Project,
    code: OneTimeCode,
    expires_at: Option<u64>,
}

/// Why a text is not a usable ticket. No variant repeats any of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Nothing but white space.
    #[error("the ticket is empty")]
    Empty,
    /// Longer than [`MAX_TICKET_LEN`].
    #[error("this is not a ticket: it has more than {MAX_TICKET_LEN} bytes")]
    TooLong,
    /// None of the forms of a ticket.
    #[error(
        "this is not an enrollment ticket: it is neither hexadecimal nor a ticket line nor a JSON ticket"
    )]
    NotATicket,
    /// The start of a ticket.
    #[error("the ticket is cut off: {0}; copy all of it")]
    Truncated(&'static str),
    /// The checksum does not fit.
    #[error("the ticket was changed on the way: its checksum is wrong; copy it again")]
    Damaged,
    /// A part cannot be used.
    #[error("the ticket cannot be used: {0}")]
    Invalid(#[from] InvalidPart),
    /// The ticket is for another project.
    #[error("the ticket is for another project: its authority is {found}, not {expected}")]
    Foreign {
        /// The authority that was expected.
        expected: Identifier,
        /// The authority in the ticket.
        found: Identifier,
    },
}

impl Ticket {
    /// A ticket for `project`. `expires_at` (UTC seconds) is a hint for readers; the authority's own clock
    /// decides.
    pub fn new(project: Project, code: OneTimeCode, expires_at: Option<u64>) -> Self {
        Self {
            project,
            code,
            expires_at,
        }
    }

    /// The project.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// The secret code.
    pub fn code(&self) -> &OneTimeCode {
        &self.code
    }

    /// When the ticket ends, UTC seconds, if it says so. Only for messages: the holder's clock may be wrong.
    pub fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }

    /// Checks that the ticket belongs to the project whose authority is `expected`.
    ///
    /// # Errors
    /// [`TicketError::Foreign`].
    pub fn ensure_authority(&self, expected: &Identifier) -> Result<(), TicketError> {
        let found = *self.project.authority().identifier();
        if found == *expected {
            Ok(())
        } else {
            Err(TicketError::Foreign {
                expected: *expected,
                found,
            })
        }
    }
}

impl std::str::FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        parse::parse(text)
    }
}

/// The id under which a reader of the comma line knows the project.
fn id_in_line(route: &str) -> Result<&str, InvalidPart> {
    project_id_of_route(route).ok_or_else(|| {
        InvalidPart::new(
            Part::ProjectRoute,
            "has no `/service/` component, which names the project",
        )
    })
}

#[cfg(test)]
mod tests;

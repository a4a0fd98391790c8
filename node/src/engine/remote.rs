//! Short conversations with a project's authority, and single messages, without a running node.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::api::{CredentialStatus, MessageReply, SendMessage};
use crate::error::{Error, Result};
use crate::state::{Home, Project};

/// Who speaks, and to which project's authority.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The home that holds the identity's keys.
    pub home: Home,
    /// The local name of the identity.
    pub identity: String,
    /// The project; it is complete ([`Project::is_ready`]).
    pub project: Project,
    /// Limit for the whole conversation.
    pub timeout: Duration,
}

/// What a ticket shall give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TicketRequest {
    /// Attributes that the authority will attest.
    pub attributes: BTreeMap<String, String>,
    /// Life of the ticket; `None` is the authority's default.
    pub expires_in: Option<Duration>,
    /// How many identities can redeem it; `None` is the authority's default, 1.
    pub usage_count: Option<u64>,
}

/// A ticket that was just made. Both texts are secrets until redeemed: never log them.
#[derive(Clone)]
pub struct IssuedTicket {
    /// The text to hand over: hex of the line of seven fields (03 §3.1), digits and a–f only.
    pub text: String,
    /// The JSON object form (03 §3.1).
    pub object: serde_json::Value,
}

/// A ticket that was read. Nothing in it has been checked against the authority.
#[derive(Clone)]
pub struct ReadTicket {
    /// The project as the ticket describes it; both change histories are verified.
    pub project: Project,
    /// The one-time code, 64 hex digits. A secret: never log it.
    pub code: String,
}

/// What became of a redemption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redeemed {
    /// The identity is a member now.
    Enrolled,
    /// It was one before; the ticket is untouched.
    AlreadyMember,
}

/// A member of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `I…`
    pub identifier: String,
    /// What the authority attests.
    pub attributes: MemberAttributes,
}

/// What an authority says about a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAttributes {
    /// Name and value.
    pub attributes: BTreeMap<String, String>,
    /// UTC seconds.
    pub added_at: u64,
    /// UTC seconds, where it ends.
    pub expires_at: Option<u64>,
    /// Who added the member, `I…`.
    pub attested_by: Option<String>,
}

fn missing<T>() -> Result<T> {
    Err(Error::failed("this build cannot speak to an authority yet"))
}

/// Ask the authority for a one-time code and wrap it with everything a new machine needs.
pub async fn create_ticket(caller: &Caller, request: &TicketRequest) -> Result<IssuedTicket> {
    let _ = (caller, request);
    missing()
}

/// Read a ticket in any of its forms (03 §3.2), white space around it ignored. Says which forms were tried and why each
/// failed; never repeats the text.
pub fn read_ticket(text: &str) -> Result<ReadTicket> {
    let _ = text;
    missing()
}

/// Present the one-time code at the authority.
///
/// # Errors
///
/// [`Refused`](crate::ErrorCode::Refused) with distinct messages for expired, used up, unknown; also when the authority
/// is not the one that the ticket names.
pub async fn redeem_ticket(caller: &Caller, ticket: &ReadTicket) -> Result<Redeemed> {
    let _ = (caller, ticket);
    missing()
}

/// Get a credential for the caller from the authority and keep it in the home database.
pub async fn fetch_credential(caller: &Caller) -> Result<CredentialStatus> {
    let _ = caller;
    missing()
}

/// All members.
pub async fn list_members(caller: &Caller) -> Result<Vec<Member>> {
    let _ = caller;
    missing()
}

/// The identifiers of all members.
pub async fn list_member_ids(caller: &Caller) -> Result<Vec<String>> {
    let _ = caller;
    missing()
}

/// One member.
pub async fn show_member(caller: &Caller, identifier: &str) -> Result<Member> {
    let _ = (caller, identifier);
    missing()
}

/// Add or change a member.
pub async fn add_member(
    caller: &Caller,
    identifier: &str,
    attributes: &BTreeMap<String, String>,
) -> Result<()> {
    let _ = (caller, identifier, attributes);
    missing()
}

/// Remove a member.
pub async fn delete_member(caller: &Caller, identifier: &str) -> Result<()> {
    let _ = (caller, identifier);
    missing()
}

/// Send one message from a temporary node in this process. The caller's project credential is presented where the route
/// goes through `/project/…`; without a project (`project` is `None`) no credential is presented.
pub async fn send_message(
    home: &Home,
    identity: &str,
    project: Option<&Project>,
    message: &SendMessage,
) -> Result<MessageReply> {
    let _ = (home, identity, project, message);
    missing()
}

//! The authority of a project: tickets, enrollment, members and credential issuing.
//!
//! # Who may use the project?
//!
//! A project is a group of identities that trust one more identity, the **authority**, to say what each of
//! them is. What it says are *attributes*, names and values such as `role = client`; it says them in a signed
//! *credential* that a **member** shows to the peers of its channels, and policies are written over them. So
//! whoever controls the authority's list of members controls who may use what.
//!
//! The list is kept by **enrollers**, members with the attribute `ockam-role = enroller`. They add an
//! identity by its identifier, or, since a machine that is yet to be set up has no identifier, they make a
//! **ticket**:
//!
//! ```text
//!   enroller                       authority                                   new machine
//!      │ attributes, life, uses        │                                            │
//!      │ ── enrollment_token_issuer ─▶ │ keeps SHA-256(code)                        │
//!      │ ◀──────────── one-time code ─ │                                            │
//!      │                                                                            │
//!      │ ═════ ticket = code + project + both identities + routes, out of band ═══▶ │
//!      │                               │                                            │
//!      │                               │ ◀─ enrollment_token_acceptor: code ─────── │ over a secure channel in which
//!      │                               │    member(peer) := attributes of the code  │ the authority has proven itself
//!      │                               │                                            │
//!      │                               │ ◀─ credential_issuer ───────────────────── │ again before each credential ends
//!      │                               │ ── credential ───────────────────────────▶ │
//! ```
//!
//! The ticket is a bearer secret, so it has a life (10 minutes by default) and a number of uses (one by
//! default), and "one" holds under simultaneous redemption, across restarts and after kill -9.
//!
//! Everybody is known by the identity that the secure channel has authenticated. No request says who is asking.
//!
//! # Modules
//!
//! | module | idea |
//! |---|---|
//! | [`api`] | the request/response protocol of all services |
//! | [`protocol`] | bodies of requests and responses |
//! | [`ticket`] | a ticket and its texts |
//! | [`project`] | what a member must know of a project; the project record |
//! | [`code`] | the one-time code: the secret in a ticket |
//! | [`attributes`] | what is attested of a member, and its limits |
//! | [`rules`] | who may do what |
//! | [`store`] | members, hashed codes and removals in SQLite |
//! | [`authority`] | every operation with its rules, one transaction each |
//! | [`issuer`] | making credentials |
//! | [`refusal`] | why not, in words that both ends know |
//! | [`services`] | the four services as workers |
//! | [`client`] | asking an authority over a secure channel |
//!
//! Everything above [`services`] is synchronous, takes the time as an argument and knows nothing of messages.
//! The protocol is that of the specification, part 03; `docs/protocol/authority.md` says what is built and
//! where it differs from the reference.

pub mod api;
pub mod attributes;
pub mod authority;
pub mod client;
pub mod code;
mod guesses;
pub mod issuer;
pub mod project;
pub mod protocol;
pub mod refusal;
pub mod rules;
pub mod services;
pub mod store;
pub mod ticket;

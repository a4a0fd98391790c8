//! Tickets, enrollment, members and credential issuing.
pub mod api;
pub mod attributes;
pub mod authority;
pub mod code;
mod guesses;
pub mod project;
pub mod protocol;
pub mod refusal;
pub mod rules;
pub mod store;
pub mod ticket;

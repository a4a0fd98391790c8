//! Tickets, enrollment, members and credential issuing.
pub mod api;

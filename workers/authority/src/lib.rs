//! Tickets, enrollment, members and credential issuing.

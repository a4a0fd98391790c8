//! Scenarios over real processes.

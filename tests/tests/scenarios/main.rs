//! Scenarios over real processes. Each test's name is the claim that it checks.

mod bad_input;
mod claims;
mod commands;
mod hostile_hub;
mod hostile_peers;
mod installing;
mod interceptors;
mod nodes;
mod plugin_interceptors;
mod plugin_workers;
mod plugins;
mod policies;
mod portals;
mod relays;
mod revocation;
mod rotation;
mod state;
mod story;
mod stripes;
mod tickets;
mod tls;
mod trust;
mod workers;

/// Plugins made of text, as the tests of `portolan-plugin` have them.
#[path = "../../../workers/plugin/tests/support/mod.rs"]
mod support;

/// Exit codes of the command line, as its documentation has them.
mod exit {
    pub(crate) const INVALID_ARGUMENT: Option<i32> = Some(2);
    pub(crate) const NOT_FOUND: Option<i32> = Some(3);
    pub(crate) const ALREADY_EXISTS: Option<i32> = Some(4);
    pub(crate) const REFUSED: Option<i32> = Some(5);
    pub(crate) const UNREACHABLE: Option<i32> = Some(6);
    pub(crate) const STATE: Option<i32> = Some(8);
}

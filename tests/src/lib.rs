//! Scenarios over real processes, and what they share.
//!
//! A scenario is a test in `tests/tests/` whose name reads as a claim: `a_ticket_is_redeemed_only_once`. It plays the people
//! of the story with one [`Home`] each (a folder of its own as `PORTOLAN_HOME`, as two machines would have), runs the real
//! binary there as a script would (no terminal, standard input closed), and looks from outside at what the processes do:
//! exit codes, standard output, sockets, memory, CPU time.
//!
//! | module | what it has |
//! |---|---|
//! | [`binary`] | where the binary under test is |
//! | [`home`] | one participant: commands, their outcomes, the processes left behind |
//! | [`project`] | the cast of the main story: hub, bank, analysis |
//! | [`process`] | CPU time, memory and environment of a process, from `/proc` |
//! | [`sockets`] | which sockets of a process others could send to |
//! | [`service`] | the private services behind outlets: echo, sink, source, and targets that misbehave |
//! | [`interposer`] | a TCP proxy in the middle that cuts, replays, flips and stalls |
//! | [`raw`] | a hostile peer: frames of the TCP transport written byte by byte |
//! | [`web`] | files over HTTP, and a TLS server |
//! | [`wait`] | waiting for an event of another process, with a limit |
//! | [`skip`] | tests that cannot be run here, said aloud |
//!
//! Nothing here sleeps and hopes: what a scenario waits for is an answer, an end of file, an exit or a state that it asks
//! for until it holds, each with a limit that makes the test fail with what was seen last.

// A harness speaks to the person who reads the test's output, and a test that cannot be set up has to stop.
#![allow(clippy::print_stderr)]

pub mod binary;
pub mod home;
pub mod interposer;
pub mod process;
pub mod project;
pub mod raw;
pub mod service;
pub mod skip;
pub mod sockets;
pub mod wait;
pub mod web;

pub use home::{Home, Outcome};
pub use project::{Member, Project};
pub use service::Service;
pub use wait::{eventually, until};

//! Portals: a TCP stream over a route of workers (spec 01 §10).
//!
//! An **inlet** listens on a local socket. An **outlet** is an address; for each connection it connects to its target.
//! Between them lies a route, usually through a secure channel that leads through a relay: an application connects to
//! the inlet and talks to the service behind the outlet, as if that were on its own machine.
//!
//! ```text
//! client      inlet                                   outlet        service
//!   |--connect-->|-- Ping --------------------------->|--connect------->|
//!   |            |<------------------------- Pong ----|                 |
//!   |--bytes---->|== Payload =======================>|==bytes=========>|
//!   |<--bytes----|<======================= Payload ===|<=bytes==========|
//! ```
//!
//! Every byte arrives once and in order, or the connection is closed; if bytes may be missing, it is closed with a
//! reset, so that the application sees an error and not a clean end.
//!
//! Between two Portolan ends (extension X3 of spec 06, agreed in Ping and Pong) each connection has a window, so that
//! an application that does not read delays nobody else; one direction may end before the other; and an end says why it
//! closes. Once an inlet has learnt that its outlet takes them, the client's first bytes go right behind the Ping. A stock
//! peer notices nothing of it.
//!
//! # What is bounded
//!
//! | what | bound | then |
//! |---|---|---|
//! | bytes that wait for an application | its window: [`stream::LEAST_WINDOW`] to [`stream::MAX_WINDOW`], with its messages' overhead | the sender gets no credit |
//! | the same, with a stock peer | [`stream::STOCK_BUFFER`], then its mailbox | its channel waits; without progress the connection is closed after 5 s then, and after 30 s if nobody waits |
//! | the same, of all connections of a node, mailboxes aside | [`WindowMemory`] | windows do not grow, large ones shrink, streams begin with less, and at last new ones are refused |
//! | credit that was asked back and is not given back | 3 beats of 10 s in which the other end is heard | the connection is closed |
//! | answers that nobody takes: refusals of an outlet | 64, 4 for each peer, 5 s | dropped |
//! | the same, with an interceptor | [`intercept`] has what it may hold | it is given no more |
//! | bytes sent behind a Ping | [`stream::EARLY`] | the rest waits for the Pong |
//! | connections of an inlet or outlet | settings | further ones are refused, with the reason |
//! | time to connect to the target, and for the Pong | settings | the client is closed, with the reason |
//!
//! # Modules
//!
//! * [`protocol`]: the messages and their bytes.
//! * [`stream`]: one end of a connection as a state machine without sockets; [`memory`]: what all windows share.
//! * [`inlet`], [`outlet`]: the two ends as workers; `connection` is what they share, `application` its socket.
//! * `early`: how what comes right behind a Ping finds the connection.
//! * [`status`]: counters and failures.
//! * [`socket`]: the application's side, plain or wrapped (TLS).
//! * [`intercept`]: what may stand between an application and its end.
//! * `ways`: the ways from an inlet to its outlet, side by side.
//! * `gate`: rules that close a connection when they refuse one of its messages.

mod application;
mod connection;
mod early;
mod gate;
pub mod inlet;
pub mod intercept;
pub mod memory;
pub mod outlet;
pub mod protocol;
pub mod socket;
pub mod status;
pub mod stream;
mod ways;

pub use inlet::{Inlet, InletOptions, USUAL_ANSWER};
pub use intercept::{Intercept, Interception, Interceptor};
pub use memory::WindowMemory;
pub use outlet::{Outlet, OutletOptions};
pub use socket::{ByteStream, Dial, Wrap, Wrapping};
pub use status::{DelayHook, Failure, FailureHook, FailureKind, PortalStatus};
pub use ways::MAX_STRIPES;

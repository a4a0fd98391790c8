//! Sessions: what rests on a connection stays, though the connection does not (spec 03 §2.5, 01 §12).
//!
//! A relay and a portal's inlet both need a path to another node: a transport connection, a secure channel over it,
//! for a relay its registration. Such a path ends when the network changes, when the other node restarts, and
//! sometimes without anybody noticing. A session builds the path, watches it, and builds it again.
//!
//! * [`core`] is the state machine, without actor, clock or randomness: [`core::Session`].
//! * [`monitor`] runs it: [`SessionMonitor`].
//!
//! # How the end of a path is noticed
//!
//! 1. The runtime reports that the connection's or the channel's worker has ended. That takes no time, and the
//!    reference does not use it.
//! 2. Otherwise pings remain unanswered. A ping is sent along the path to the `echo` of the node at its end every
//!    10 s; when the fourth is due and three are unanswered, the path is given up (the reference's numbers, which its
//!    relay nodes are used to).
//!
//! # How a path is built again
//!
//! At once, if the lost one had been good for a while: the usual case is a connection that was cut, and the other node
//! is there. After that, with delays that double from 0.5 s to 10 s, each shortened by chance by up to a half, so that
//! the clients of a node that was restarted do not come all in the same moment. The old path is closed before the new
//! one is begun; the reference leaves it open.

pub mod core;
pub mod monitor;

pub use self::core::{Action, Session, SessionSettings, SessionState};
pub use self::monitor::{Connection, SessionMonitor, SessionStatus};

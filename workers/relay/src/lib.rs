//! Relays: how a node that nobody can connect to is reached all the same.
//!
//! A node behind a firewall (the *target*) opens a connection to a node that everybody can reach (the *relay node*)
//! and registers a name there. From then on there is a worker `forward_to_<name>` on the relay node. Whoever routes a
//! message to it has it carried down the connection that the target opened:
//!
//! ```text
//!   sender                  relay node                        target
//!   [conn, forward_to_a, api, …] ──► forward_to_a
//!                                    takes itself off,
//!                                    puts the route to the target in front
//!                                    [conn', api, …] ───────► api
//! ```
//!
//! The relay puts nothing on the way back: the answer goes along the return route, through the same two connections,
//! past the relay worker. What is sent this way is normally the handshake and the records of a secure channel, so the
//! relay node can delay or drop, but neither read nor forge.
//!
//! # The three parts
//!
//! * The [`service`] runs on the relay node. It decides who may take which name, and keeps the [`table`] of relays.
//!   A name belongs to whoever holds it: only the same authenticated identity may replace a living relay. When the
//!   connection or channel of the target ends, its relays end with it, and a message to them fails at once.
//! * The [`client`] runs on the target: it [registers](client::register), and serves what arrives at the address it
//!   registered with. Its protocol core is [`registration`].
//! * A [`session`] keeps something that rests on a connection alive (a relay, and a portal's inlet too): it builds the
//!   connection, notices its end, at once if the runtime reports it and by unanswered pings if not, and builds it
//!   again with growing, jittered delays.
//!
//! # What happens to a registration that is refused
//!
//! The reference says nothing and lets the target wait for half a minute. Here the target is told the reason, in an
//! answer that an implementation which does not know it cannot take for an acceptance (see [`protocol`]).
//!
//! # What is bounded
//!
//! Names ([`MAX_NAME_LENGTH`](name::MAX_NAME_LENGTH)), the route to a target
//! ([`MAX_FORWARD_HOPS`](service::MAX_FORWARD_HOPS), [`MAX_FORWARD_BYTES`](service::MAX_FORWARD_BYTES)), relays for
//! each peer and altogether ([`RelayServiceOptions`]), refusals on their way
//! ([`MAX_PENDING_ANSWERS`](service::MAX_PENDING_ANSWERS)), log lines about refusals, and what one relay may add to a
//! message ([`relay`]).
//!
//! # Modules
//!
//! * [`name`]: what may be the name of a relay.
//! * [`protocol`]: the registration messages in bytes.
//! * [`table`]: which relays there are, and who owns them.
//! * [`service`], [`relay`]: the workers of the relay node.
//! * [`registration`], [`client`]: the core and the worker of the target.
//! * [`session`]: liveness and reconnection.

pub mod client;
pub mod name;
pub mod protocol;
pub mod registration;
pub mod relay;
pub mod service;
pub mod session;
pub mod table;

pub use client::{RegisterOptions, RegisteredRelay, RegistrationError, register};
pub use name::{NameError, RelayName};
pub use protocol::RelayRequest;
pub use service::{AllowEverybody, RelayAuthority, RelayService, RelayServiceOptions};
pub use session::{Connection, SessionMonitor, SessionSettings, SessionState, SessionStatus};
pub use table::{RelayInfo, RelayTable, Unregistered};

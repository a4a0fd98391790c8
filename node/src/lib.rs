//! Portolan: nodes that reach each other through private networks, end-to-end encrypted, as a library and as a command line.
//!
//! A **node** is a place full of small actors with addresses, **workers**. A message carries the route that it still has to travel and
//! the route back, and each worker on the way takes itself off the first and puts itself in front of the second. A connection to
//! another node is a worker; so are a relay, the two ends of a secure channel, and the two ends of a portal, which carries the TCP
//! connections of ordinary programs. So one list of addresses leads through firewalls, past relays and into encrypted channels.
//!
//! ```
//! use portolan::{Node, Result};
//!
//! #[tokio::main]
//! async fn main() -> Result<()> {
//!     let server = Node::builder().start().await?;
//!     let (_, port) = server.address().rsplit_once(':').map(|(ip, port)| (ip.to_owned(), port.to_owned())).unwrap();
//!
//!     let client = Node::builder().start().await?;
//!     let route = format!("/ip4/127.0.0.1/tcp/{port}/secure/api/service/uppercase");
//!     let answer: String = client.ask(&route, "hello".to_owned()).await?;
//!     assert_eq!(answer, "HELLO");
//!
//!     client.stop().await?;
//!     server.stop().await
//! }
//! ```
//!
//! The **guide** in `docs/library/` of the repository teaches all of this, a page an idea, with programs that run. Read it first; what is
//! here is for looking up.
//!
//! # Two levels
//!
//! * [`Node`] is the product: an identity, a place for its state, listeners, policies, relays, portals, a project. [`Node::builder`]
//!   assembles it, and whatever the command line can do is a function of it. The request and answer types are in [`api`].
//! * The parts that it is made of are crates, re-exported below as [`runtime`], [`tcp`], [`identity`], [`secure_channel`], [`policy`],
//!   [`relay`], [`authority`] and [`portal`]. Each has a first page that teaches its idea. Begin with [`runtime`].
//!
//! [`App`] is the third way in: the whole command line `portolan`, with worker types of your own.
//!
//! # Modules
//!
//! | module | idea |
//! |---|---|
//! | [`builder`] | a node as a value: what it is made of, what it can do, what is kept where |
//! | [`api`] | what operations are asked for, and what they answer; also the JSON of the control interface |
//! | [`error`] | one sentence, one code, one advice: what leaves this crate when something fails |
//! | [`worker_types`] | workers that the owner starts by name |
//! | [`interceptors`] | what the owner puts between an application and its end of a portal, by name |
//! | [`project`] | projects: made, joined, taken over, forgotten |
//! | [`credential`] | credentials by hand: signed, verified |
//! | [`state`] | the home: vaults, identities, projects, defaults, and a folder for each node |
//! | [`multiaddr`] | routes as people write them: `/project/default/service/forward_to_db/secure/api` |
//! | [`host_port`] | `host:port` as people write it |
//! | [`control`] | how the command line, or a program of yours, speaks to a node in another process |
//! | [`engine`] | a node run to its end, and the short conversations with an authority that need none |
//! | `cli`, `demo`, `tls` | the commands; the whole story on one machine; TLS as a client |
//!
//! # Foreign types
//!
//! Signatures hold types of this house and of `std`. What else they hold, they hold on purpose:
//!
//! | type | where |
//! |---|---|
//! | `serde`'s traits, `serde_json::Value` | what travels as JSON; a configuration that is any JSON |
//! | `zeroize::Zeroizing` | around secrets, so that they are wiped |
//! | `bytes::Bytes`, `BytesMut` | what a [`runtime::Payload`] is made of and gives away without a copy |
//! | `minicbor`'s traits, coders and errors | [`runtime::Cbor`], and the encodings of identities and credentials |
//! | `tokio`'s `AsyncRead`, `AsyncWrite`, `TcpStream` | what a portal's socket is wrapped in |
//! | `tokio::sync::watch::Receiver` | what can be followed: a session, a credential |
//!
//! Actors, maps, databases, HTTP, TLS and WebAssembly are inside, and can be replaced without your noticing.

mod app;
pub mod builder;
mod cli;
pub mod control;
pub mod credential;
mod demo;
pub mod engine;
pub mod error;
pub mod host_port;
pub mod interceptors;
pub mod multiaddr;
pub mod project;
pub mod state;
mod tls;
pub mod worker_types;

pub use app::App;
pub use builder::{Node, NodeBuilder, OpenRoute, Reach, RouteOptions};
pub use control::api;
pub use error::{Error, ErrorCode, Result};
pub use project::ProjectOptions;

// For programs that are nodes themselves: everything a node is made of, under one name. `examples/` shows how.

/// Members, tickets and the credentials that an authority issues.
pub use portolan_authority as authority;
/// Keys, vaults, identities and credentials.
pub use portolan_identity as identity;
/// WebAssembly components as workers and interceptors.
#[cfg(feature = "plugins")]
pub use portolan_plugin as plugin;
/// Policies over attributes.
pub use portolan_policy as policy;
/// Inlets and outlets.
pub use portolan_portal as portal;
/// Relays and the sessions that keep them alive.
pub use portolan_relay as relay;
/// Workers, messages, routes.
pub use portolan_runtime as runtime;
/// Small workers that are useful as they are: a rate limiter, an audit.
pub use portolan_samples as samples;
/// Encrypted, authenticated channels over any route.
pub use portolan_secure_channel as secure_channel;
/// Connections between nodes.
pub use portolan_tcp as tcp;

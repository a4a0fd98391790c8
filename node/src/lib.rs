//! A Portolan node: the library that assembles it, its state on disk, its control interface, and the command line.
//!
//! A **node** is a process full of small addressed actors (see `portolan-runtime`). This crate decides which of them
//! run: it reads what a node should be from the **home** folder, starts transports, the secure channel listener, relays,
//! policies and portals, and answers the owner's commands over a Unix socket. What the owner configures is written down,
//! so that a node that was killed comes back as it was.
//!
//! | module | idea |
//! |---|---|
//! | [`error`] | one sentence, one code, one advice: what leaves this crate when something fails |
//! | [`host_port`] | `host:port` as people write it |
//! | [`multiaddr`] | routes as people write them: `/project/default/service/forward_to_db/secure/api` |
//! | [`state`] | the home folder: identities, projects, defaults, and a folder for each node |
//! | [`control`] | how the command line speaks to a running node |
//! | [`demo`] | the whole story on one machine |
//! | [`engine`] | the running node, and the short conversations with an authority that need none |
//! | `tls` | TLS as a client: what is trusted |
//! | [`worker_types`] | workers that the owner starts by name, and [`App`]: a program with types of its own |
//! | [`cli`] | the commands, their arguments and what they print |

mod app;
pub mod builder;
pub mod cli;
pub mod control;
pub mod credential;
pub mod demo;
pub mod engine;
pub mod error;
pub mod host_port;
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
/// Policies over attributes.
pub use portolan_policy as policy;
/// Inlets and outlets.
pub use portolan_portal as portal;
/// Relays and the sessions that keep them alive.
pub use portolan_relay as relay;
/// Workers, messages, routes.
pub use portolan_runtime as runtime;
/// Encrypted, authenticated channels over any route.
pub use portolan_secure_channel as secure_channel;
/// Connections between nodes.
pub use portolan_tcp as tcp;

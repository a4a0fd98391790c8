//! How the command line speaks to a running node: HTTP and JSON over a Unix socket in the node's folder.
//!
//! - [`api`]: the documented interface: paths, requests, responses, errors. No behaviour.
//! - [`client`]: the caller's half, used by the command line.
//! - [`socket`]: the socket itself.
//! - `server`: the node's half.
//!
//! The socket has mode 0600 inside a folder of mode 0700, so that whoever can open it is the owner of the node (or
//! root). There is no control interface on any TCP port.

pub mod api;
pub mod client;
pub(crate) mod server;
pub mod socket;

//! A portal interceptor for HTTP/1.1: adds to each request who the authenticated peer is, so that a service behind an outlet
//! can decide by it without speaking anything but HTTP.
//!
//! [`headers`] makes the lines out of what the node knows of the peer, [`requests`] finds the requests in the stream of bytes,
//! and [`fields`] says what is a well-formed header. They know nothing of WebAssembly, and `cargo test` runs them as they are.
//! The module `plugin` joins them to the node.

pub mod fields;
pub mod headers;
#[cfg(target_arch = "wasm32")]
mod plugin;
pub mod requests;

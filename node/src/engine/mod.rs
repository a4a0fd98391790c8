//! The running node, and the short conversations with an authority that need none.
//!
//! - [`run_node`]: run a node in this process until it is told to stop.
//! - [`remote`]: tickets, enrollment, members, single messages.

mod connect;
mod core;
mod guard;
mod membership;
mod policies;
pub mod remote;

use std::future::Future;

use crate::control::api::NodeStatus;
use crate::error::{Error, Result};
use crate::state::OpenNode;

/// Run `node` in this process until `stop` resolves or `POST /v1/node/stop` arrives, then stop it cleanly.
///
/// `ready` is called once, when the node listens, its stored relays, policies, outlets and inlets are restored (relays
/// and inlets may still be connecting) and the control socket answers.
///
/// # Errors
///
/// When it cannot start: a port in use, an unreadable database, a missing identity.
pub async fn run_node(
    node: OpenNode,
    ready: impl FnOnce(&NodeStatus) + Send + 'static,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let _ = (node, ready, stop);
    Err(Error::failed("this build has no engine yet"))
}

/// The routes of a self-hosted project whose node is reached at `address` (`host:port`): the project node's secure
/// channel listener and the authority's.
pub fn project_routes(address: &str, project_id: &str) -> Result<(String, String)> {
    let transport = crate::multiaddr::transport_route(address)?;
    Ok((
        format!("{transport}/service/{project_id}/service/api"),
        format!("{transport}/service/{project_id}/service/authority/service/api"),
    ))
}

//! The running node, and the short conversations with an authority that need none.
//!
//! - [`run_node`]: run a node in this process until it is told to stop.
//! - [`remote`]: tickets, enrollment, members, single messages.
//!
//! A running node is put together from the crates of this repository by `running`; what it is made of and why is told in
//! `docs/architecture.md`.
//!
//! | module | idea |
//! |---|---|
//! | `running` | the node: assembled, restored, watched, stopped |
//! | `core` | what its parts share: how to reach others, who we are, whom we believe |
//! | `connect` | from a multi-address to a route |
//! | `membership` | our credential in a project: fetched, kept, renewed |
//! | `policies`, `guard` | policies compiled once; the rules that ask them for each message |
//! | `relays`, `inlets`, `outlets` | what the node keeps up |
//! | `interception` | what stands between applications and portals, found by name |
//! | `channels`, `services` | what the owner asks for by hand |
//! | `started` | workers that the owner started by name |
//! | `plugins` | plugins: added, kept, replaced, started as workers |
//! | `project_node` | the authority of a project node |
//! | `settings` | what is said for one run and not written down |

mod channels;
mod connect;
mod core;
mod guard;
mod inlets;
mod interception;
mod membership;
mod outlets;
#[cfg(feature = "plugins")]
mod plugins;
#[cfg(not(feature = "plugins"))]
#[path = "no_plugins.rs"]
mod plugins;
mod policies;
mod project_node;
mod relays;
pub mod remote;
mod removals;
mod running;
mod services;
mod settings;
mod started;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use crate::control::api::NodeStatus;
use crate::control::server;
use crate::error::Result;
use crate::state::OpenNode;
use crate::worker_types::WorkerTypes;

pub(crate) use self::connect::{Path as OpenPath, blocking};
pub(crate) use self::core::identifiers;
pub(crate) use self::guard::Guard;
pub(crate) use self::policies::Issuer;
pub(crate) use self::running::{Running, runtime_error};
pub(crate) use self::settings::{MAX_ARBITERS, Settings, Trust};
pub(crate) use portolan_portal::MAX_STRIPES;

/// Run `node` in this process until `stop` resolves or `POST /v1/node/stop` arrives, then stop it cleanly. It has the worker types
/// that every node has; [`run_node_with`] takes others.
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
    run_node_with(node, WorkerTypes::built_in(), ready, stop).await
}

/// As [`run_node`], with these worker types.
///
/// # Errors
///
/// As [`run_node`].
pub async fn run_node_with(
    node: OpenNode,
    types: WorkerTypes,
    ready: impl FnOnce(&NodeStatus) + Send + 'static,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let control = node.control_listener()?;
    let running = Running::start(node, types, &Settings::of_environment()?).await?;
    let ready = |running: &Arc<Running>| {
        ready(&running.status());
        std::future::ready(Ok(()))
    };
    run_assembled(running, Some(control), ready, stop).await
}

/// Let an assembled node run until `stop` resolves, somebody asks it to stop, or `ready` fails; then stop it cleanly. Its
/// owner can manage it over `control`, if that is given. Its lock is held on: where a node is a process, who finds the lock free
/// finds the process gone.
pub(crate) async fn run_assembled<R: Future<Output = Result<()>>>(
    running: Arc<Running>,
    control: Option<UnixListener>,
    ready: impl FnOnce(&Arc<Running>) -> R,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let result = serve(&running, control, ready, stop).await;
    running.stop().await;
    tracing::info!("stopped");
    result
}

async fn serve<R: Future<Output = Result<()>>>(
    running: &Arc<Running>,
    control: Option<UnixListener>,
    ready: impl FnOnce(&Arc<Running>) -> R,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    running.restore().await?;
    let (hang_up, hung_up) = tokio::sync::oneshot::channel::<()>();
    let served = Arc::clone(running);
    let mut server = tokio::spawn(async move {
        match control {
            Some(control) => {
                server::serve(control, served, async {
                    let _ = hung_up.await;
                })
                .await
            }
            None => {
                let _ = hung_up.await;
                Ok(())
            }
        }
    });
    let status = running.status();
    tracing::info!(
        name = status.name,
        identifier = status.identifier,
        tcp = status.tcp_listener_address,
        "ready"
    );
    ready(running).await?;
    let removals = async {
        match running.project_node() {
            Some(project) => project.enforce_removals(&running.core).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stop => {}
        () = running.asked_to_stop() => {}
        () = running.watch() => {}
        () = removals => {}
        _ = &mut server => tracing::error!("the control socket has failed; the node stops"),
    }
    // Answers that are on their way arrive; nobody is waited for.
    let _ = hang_up.send(());
    let _ = tokio::time::timeout(Duration::from_millis(200), server).await;
    Ok(())
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

//! Plugins as interceptors of portals: each connection has an instance of its own, in a task beside the data path.

use std::sync::Arc;

use portolan_plugin::{Connection, Direction, Interceptors, PluginError, Side, Verdict};
use portolan_portal::Intercept;
use portolan_portal::intercept::{self, ConnectionInfo, Ended, Interceptor, MAX_OUTPUT, Task, Work};
use portolan_runtime::{AccessControl, Address, Node, Payload, Placement, WorkerOptions};

/// A plugin before the inlets and outlets of a program that makes them of parts. A [`Node`](crate::Node) does this by itself.
struct OfPlugin {
    name: String,
    node: Node,
    interceptors: Interceptors,
}

/// The plugin as what an [`Interception`](portolan_portal::Interception) takes. Each connection has an instance of its own, which computes
/// on the threads of `node` that [stand aside](Placement::Aside). `name` is for people.
pub fn of_plugin(name: impl Into<String>, node: &Node, interceptors: Interceptors) -> Arc<dyn Intercept> {
    Arc::new(OfPlugin {
        name: name.into(),
        node: node.clone(),
        interceptors,
    })
}

impl Intercept for OfPlugin {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self, connection: &ConnectionInfo) -> Result<Box<dyn Interceptor>, Ended> {
        open(&self.node, self.interceptors.clone(), connection)
    }
}

/// Begins one connection. The plugin is asked in its task.
pub(crate) fn open(
    node: &Node,
    interceptors: Interceptors,
    connection: &ConnectionInfo,
) -> Result<Box<dyn Interceptor>, Ended> {
    let (interceptor, work) = intercept::remote();
    let connection = Connection {
        side: match connection.side {
            intercept::Side::Inlet => Side::Inlet,
            intercept::Side::Outlet => Side::Outlet,
        },
        peer: connection.peer,
        attributes: connection.attributes.clone(),
        endpoint: connection.endpoint.clone(),
    };
    let options = WorkerOptions::new(Address::random())
        .incoming(AccessControl::DenyAll)
        .placement(Placement::Aside);
    let started = node.start_task(options, move |_| run(interceptors, connection, work));
    started.map_err(|error| Ended::failed(format!("its task cannot be started: {error}")))?;
    Ok(interceptor)
}

/// What a plugin says, or what went wrong with it.
fn ended(error: PluginError) -> Ended {
    match error {
        PluginError::Rejected(text) => Ended::because(text),
        other => Ended::failed(other.to_string()),
    }
}

async fn run(interceptors: Interceptors, connection: Connection, mut work: Work) {
    let mut interceptor = match interceptors.open(&connection).await {
        Ok(interceptor) => interceptor,
        Err(error) => return work.end(ended(error)),
    };
    while let Some(Task { direction, bytes }) = work.next().await {
        let direction = match direction {
            intercept::Direction::ToService => Direction::ToService,
            intercept::Direction::ToClient => Direction::ToClient,
        };
        let room = MAX_OUTPUT + bytes.as_ref().map_or(0, Payload::len);
        let verdict = match &bytes {
            Some(bytes) => interceptor.data(direction, bytes.as_slice()).await,
            None => interceptor.end(direction).await.map(Verdict::Replace),
        };
        match verdict {
            Ok(Verdict::Pass) => work.done(bytes),
            Ok(Verdict::Replace(other)) if other.len() <= room => work.done(Some(Payload::copy_from(&other))),
            Ok(Verdict::Replace(other)) => {
                let text = format!("it gave {} bytes at once, and {room} is the most", other.len());
                return work.end(Ended::failed(text));
            }
            Ok(Verdict::End(reason)) => {
                work.end(Ended::because(reason));
                return interceptor.close().await;
            }
            Err(error) => return work.end(ended(error)),
        }
    }
    interceptor.close().await;
}

//! The end of a portal that connects to the service.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use portolan_runtime::{
    AccessControl, Address, Context, Envelope, Message, Node, PeerIdentifier, Placement, Result, Route,
    SyncWorker, WorkerOptions,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connection::{Blueprint, Connection, FarEnd, Rules};
use crate::protocol::{Offer, PortalMessage, Reason};
use crate::socket::{Socket, Wrap};
use crate::status::{FailureHook, FailureKind, Open, PortalStatus};
use crate::stream::Stream;

/// How long connecting to the target may take by default. Shorter than an inlet waits for its Pong.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Connections of one outlet at a time, by default.
pub const MAX_CONNECTIONS: u64 = 16 * 1024;

/// How an outlet is made.
#[derive(Clone)]
pub struct OutletOptions {
    /// Who may use it. Checked for the first message and for each later one; whoever is refused is closed.
    pub incoming: AccessControl,
    /// To whom answers may be sent.
    pub outgoing: AccessControl,
    /// How long connecting to the target may take.
    pub connect_timeout: Duration,
    /// Connections at a time.
    pub max_connections: u64,
    /// Leave Nagle's algorithm on towards the target.
    pub enable_nagle: bool,
    /// Wraps each connection to the target, as TLS does; within the time that connecting may take.
    pub wrap: Option<Wrap>,
    /// Told of each failure.
    pub on_failure: Option<FailureHook>,
}

impl Default for OutletOptions {
    fn default() -> Self {
        Self {
            incoming: AccessControl::AllowAll,
            outgoing: AccessControl::AllowAll,
            connect_timeout: CONNECT_TIMEOUT,
            max_connections: MAX_CONNECTIONS,
            enable_nagle: false,
            wrap: None,
            on_failure: None,
        }
    }
}

/// A running outlet.
#[derive(Debug, Clone)]
pub struct Outlet {
    node: Node,
    address: Address,
    target: Arc<str>,
    status: Arc<PortalStatus>,
}

impl Outlet {
    /// Starts an outlet at `address` that connects to `target`, `host:port`, for each portal connection. The name is
    /// resolved each time. Make the address a consumer of what shall reach it.
    ///
    /// # Errors
    /// If the address is in use.
    pub fn start(
        node: &Node,
        address: impl Into<Address>,
        target: &str,
        options: OutletOptions,
    ) -> Result<Self> {
        let status = PortalStatus::new(options.on_failure.clone());
        let target: Arc<str> = target.into();
        let rules = Rules {
            incoming: options.incoming.clone(),
            outgoing: options.outgoing.clone(),
        };
        let worker = Listener {
            target: Arc::clone(&target),
            options: Arc::new(options),
            rules,
            status: Arc::clone(&status),
        };
        let address = node.start_sync_worker(WorkerOptions::new(address), worker)?;
        Ok(Self {
            node: node.clone(),
            address,
            target,
            status,
        })
    }

    /// Its worker address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What it connects to.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Its counters and last failure.
    pub fn status(&self) -> &Arc<PortalStatus> {
        &self.status
    }

    /// Stops it and closes its connections.
    pub fn stop(&self) {
        let _ = self.node.stop_worker(&self.address);
    }
}

struct Listener {
    target: Arc<str>,
    options: Arc<OutletOptions>,
    rules: Rules,
    status: Arc<PortalStatus>,
}

impl SyncWorker for Listener {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let PortalMessage::Ping(offer) = PortalMessage::decode(envelope.message.payload.as_slice())? else {
            // No connection is made for anything but a Ping (spec 01 W26).
            return Ok(());
        };
        // The rule is asked here and not by the runtime, so that the refusal can be told.
        if let Err(denial) = ctx.check_incoming(&self.rules.incoming, &envelope) {
            let who = envelope
                .message
                .peer()
                .map_or("somebody unknown".to_owned(), |peer| peer.identifier.to_string());
            self.status
                .fail(FailureKind::Denied, format!("{who} was refused: {denial}"));
            return refuse(
                ctx,
                &envelope.message.back,
                offer,
                Reason::Denied,
                "the policy of the outlet denies it",
            );
        }
        if self.status.open() >= self.options.max_connections {
            let text = format!(
                "the outlet has {} connections, which is its limit",
                self.options.max_connections
            );
            self.status.fail(FailureKind::Limit, text.clone());
            return refuse(ctx, &envelope.message.back, offer, Reason::Limit, &text);
        }
        let blueprint = Blueprint::new(&self.rules);
        let node = ctx.node().clone();
        // The connection lives where its channel lives, and can be reached from that channel alone.
        let placement = node
            .arbiter_of(&envelope.source)
            .map_or(Placement::Owner, Placement::Index);
        let flow = node.produced_by(&envelope.source);
        let options = blueprint.options(placement);
        let own = blueprint.address().clone();
        let peer = envelope.message.peer().map(|peer| peer.identifier);
        let back = envelope.message.back;
        let (target, outlet, open) = (
            Arc::clone(&self.target),
            Arc::clone(&self.options),
            self.status.begin(),
        );
        // Before it starts: the inlet's first payload must not come before the right to deliver it.
        if let Some(flow) = flow {
            node.add_consumer(&flow, &own);
        }
        ctx.start_task(options, move |ctx| {
            connect(
                ctx,
                blueprint,
                Request {
                    target,
                    options: outlet,
                    offer,
                    back,
                    peer,
                },
                open,
            )
        })?;
        Ok(())
    }
}

/// Answers a Ping with a Pong, which a stock inlet needs to see first, and the refusal.
fn refuse(ctx: &mut Context, back: &Route, offer: Offer, reason: Reason, text: &str) -> Result<()> {
    let (mut stream, pong) = Stream::outlet(offer);
    let own = ctx.address().clone();
    for message in [Some(pong), stream.close(reason, text)].into_iter().flatten() {
        if !back.is_empty() {
            ctx.forward(Message::new(back, &own, message.encode()))?;
        }
    }
    Ok(())
}

/// Applies the options to the target's socket (spec 01 W28).
fn set_up(socket: &TcpStream, options: &OutletOptions) {
    // A socket without it works all the same.
    let _ = socket.set_nodelay(!options.enable_nagle);
}

/// What an inlet has asked for.
struct Request {
    target: Arc<str>,
    options: Arc<OutletOptions>,
    offer: Offer,
    back: Route,
    peer: Option<PeerIdentifier>,
}

async fn connect(mut ctx: Context, blueprint: Blueprint, request: Request, open: Open) {
    let Request {
        target,
        options,
        offer,
        back,
        peer,
    } = request;
    let first_hop = back.next().cloned();
    let path_lost = first_hop.as_ref().map(|hop| ctx.node().ended(hop));
    let path_lost = async {
        match path_lost {
            Some(lost) => lost.await,
            None => std::future::pending().await,
        }
    };
    let stopping = ctx.stopping();
    let connecting = async {
        let socket = TcpStream::connect(&*target).await?;
        set_up(&socket, &options);
        match &options.wrap {
            None => Ok(Socket::Plain(socket)),
            Some(wrap) => wrap(socket).await.map(Socket::Wrapped),
        }
    };
    let connected = tokio::select! {
        connected = timeout(options.connect_timeout, connecting) => connected,
        () = path_lost => return,
        () = stopping => return,
    };
    let limit = options.connect_timeout;
    let socket = match connected.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {limit:?}"),
        ))
    }) {
        Ok(socket) => socket,
        Err(error) => {
            let text = format!("the target {target} cannot be reached: {error}");
            let _ = refuse(&mut ctx, &back, offer, Reason::Unreachable, &text);
            ctx.flush().await;
            open.0.fail(FailureKind::Unreachable, text);
            return;
        }
    };
    let (stream, pong) = Stream::outlet(offer);
    // The Pong goes out before the reader starts, so that it precedes every payload.
    let own = ctx.address().clone();
    if let Err(error) = ctx.send_message(Message::new(&back, &own, pong.encode())).await {
        open.0.fail(
            FailureKind::PathLost,
            format!("the answer could not be sent: {error}"),
        );
        return;
    }
    match Connection::start(
        ctx,
        blueprint,
        socket,
        stream,
        FarEnd {
            remote: Some(back),
            peer,
            first_hop,
        },
        open,
    ) {
        Ok(connection) => connection.run(None).await,
        Err(error) => tracing::debug!("a portal connection could not be started: {error}"),
    }
}

impl std::fmt::Debug for OutletOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutletOptions")
            .field("connect_timeout", &self.connect_timeout)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nagles_algorithm_towards_the_target_is_on_only_where_it_was_asked_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for enable_nagle in [false, true] {
            let socket = TcpStream::connect(address).await.unwrap();
            set_up(
                &socket,
                &OutletOptions {
                    enable_nagle,
                    ..OutletOptions::default()
                },
            );
            assert_eq!(socket.nodelay().unwrap(), !enable_nagle);
        }
    }
}

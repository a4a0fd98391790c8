//! The end of a portal that connects to the service.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portolan_runtime::{
    AccessControl, Address, Context, MailboxOptions, Message, Node, Passage, PeerIdentifier, Placement,
    Result, WorkerOptions,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::connection::{ANSWER_TIMEOUT, Connecting, Connection, Parts};
use crate::early::Early;
use crate::gate::{self, Detour};
use crate::intercept::{Interception, Side};
use crate::memory::WindowMemory;
use crate::protocol::{Offer, PortalMessage, Reason};
use crate::socket::{Dial, Socket, Wrap};
use crate::status::{FailureHook, FailureKind, PortalStatus};
use crate::stream::Stream;

/// How long connecting to the target may take by default. Shorter than an inlet waits for its Pong.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Connections of one outlet at a time, by default.
pub const MAX_CONNECTIONS: u64 = 16 * 1024;
/// Refusals that may wait for paths that take nothing, together; further Pings are not answered.
const MAX_REFUSALS: usize = 64;
/// The same of one peer: so that one that takes no answers does not keep others from theirs.
const MAX_REFUSALS_EACH: usize = 4;

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
    /// Connects to the target in another way than by TCP; then nothing is [wrapped](Self::wrap), and the target is whatever this
    /// makes of its text.
    pub dial: Option<Dial>,
    /// What waits for targets and may still come, of all connections together; to be shared by all portals of a node.
    /// Inlets for which there is none left are refused.
    pub memory: WindowMemory,
    /// What stands between the portal and the target, outside of what [`wrap`](Self::wrap) does.
    pub intercept: Option<Interception>,
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
            dial: None,
            intercept: None,
            memory: WindowMemory::default(),
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
        let status = PortalStatus::new(options.on_failure.clone(), None);
        let target: Arc<str> = target.into();
        let address = address.into();
        let listener = Listener {
            address: address.clone(),
            target: Arc::clone(&target),
            options,
            status: Arc::clone(&status),
            early: Arc::default(),
            refusing: Arc::default(),
        };
        let options = WorkerOptions::with_mailbox(
            MailboxOptions::new(address)
                .incoming(AccessControl::AllowAll)
                .outgoing(AccessControl::AllowAll),
        );
        let address = node.start_passage(options, Arc::new(listener))?;
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
    address: Address,
    target: Arc<str>,
    options: OutletOptions,
    status: Arc<PortalStatus>,
    /// Connections whose inlets may not know their address yet.
    early: Arc<Early>,
    /// Refusals on their way.
    refusing: Arc<Refusals>,
}

impl Passage for Listener {
    /// Takes a Ping in the turn of whoever brings it, so that what follows it finds the connection, in the same order.
    fn pass(&self, node: &Node, source: &Address, message: &mut Message) -> Result<bool> {
        let PortalMessage::Ping(offer) = PortalMessage::decode(message.payload.as_slice())? else {
            // No connection is made for anything but a Ping (spec 01 W26).
            let connection = message
                .back
                .recipient()
                .and_then(|inlet| self.early.find(source, inlet));
            return Ok(match connection {
                Some(connection) if message.onward.len() == 1 => {
                    message.onward = connection.into();
                    true
                }
                _ => false,
            });
        };
        // The rule is asked here and not by the runtime, so that the refusal can be told.
        if let Err(denial) = node.check_incoming(&self.options.incoming, source, &self.address, message) {
            let who = message
                .peer()
                .map_or("somebody unknown".to_owned(), |peer| peer.identifier.to_string());
            self.status
                .fail(FailureKind::Denied, format!("{who} was refused: {denial}"));
            let text = "the policy of the outlet denies it".to_owned();
            return self
                .refuse(node, source, message, offer, Reason::Denied, text)
                .map(|()| false);
        }
        if self.status.open() >= self.options.max_connections {
            let text = format!(
                "the outlet has {} connections, which is its limit",
                self.options.max_connections
            );
            self.status.fail(FailureKind::Limit, text.clone());
            return self
                .refuse(node, source, message, offer, Reason::Limit, text)
                .map(|()| false);
        }
        let Some(opened) = Stream::outlet(self.options.memory.clone(), offer) else {
            let text = self.options.memory.exhausted();
            self.status.fail(FailureKind::Limit, text.clone());
            return self
                .refuse(node, source, message, offer, Reason::Limit, text)
                .map(|()| false);
        };
        self.connect(node, source, message, offer, opened).map(|()| false)
    }
}

impl Listener {
    /// Starts a connection.
    fn connect(
        &self,
        node: &Node,
        source: &Address,
        message: &mut Message,
        offer: Offer,
        (stream, pong): (Stream, PortalMessage),
    ) -> Result<()> {
        let back = std::mem::take(&mut message.back);
        let own = Address::random();
        let early = match back.recipient() {
            Some(inlet) if offer.early => {
                let entry = self.early.enter(source.clone(), inlet.clone(), own.clone());
                Some(Box::new(entry))
            }
            _ => None,
        };
        let detour = early.is_some().then(|| Detour {
            outlet: self.address.clone(),
            channel: source.clone(),
        });
        let (incoming, refused) = gate::incoming(&self.options.incoming, detour);
        // The connection lives where its channel lives, and can be reached from that channel alone.
        let placement = node.arbiter_of(source).map_or(Placement::Owner, Placement::Index);
        let options = WorkerOptions::with_mailbox(
            MailboxOptions::new(&own)
                .incoming(incoming)
                .outgoing(self.options.outgoing.clone()),
        )
        .placement(placement);
        let (target, enable_nagle) = (Arc::clone(&self.target), self.options.enable_nagle);
        let peer = message.peer().map(|peer| peer.identifier);
        let socket = Box::pin({
            let (target, wrap) = (Arc::clone(&target), self.options.wrap.clone());
            let dial = self.options.dial.clone();
            let memory = &self.options.memory;
            let intercept = self.options.intercept.clone().map(|it| it.counted_in(memory));
            async move {
                // It may refuse the connection: then there is none to the target.
                let interceptor = match intercept {
                    Some(intercept) => Some(intercept.open(Side::Outlet, peer, Some(target.to_string()))?),
                    None => None,
                };
                let socket = if let Some(dial) = dial {
                    Socket::Wrapped(dial(&target).await?)
                } else {
                    let socket = TcpStream::connect(&*target).await?;
                    set_up(&socket, enable_nagle);
                    match wrap {
                        None => Socket::Plain(socket),
                        Some(wrap) => Socket::Wrapped(wrap(socket).await?),
                    }
                };
                Ok(match interceptor {
                    None => socket,
                    Some(interceptor) => interceptor.around(socket),
                })
            }
        });
        let limit = self.options.connect_timeout;
        let request = Box::new((
            Parts {
                stream,
                first_hop: back.next().cloned(),
                remote: Some(back),
                peer,
                refused,
                outgoing: self.options.outgoing.clone(),
                early,
                deadline: Instant::now() + limit,
                open: self.status.begin(),
            },
            Connecting {
                target,
                socket,
                pong,
                limit,
            },
        ));
        // Before it starts: the inlet's first payload must not come before the right to deliver it.
        if let Some(flow) = node.produced_by(source) {
            node.add_consumer(&flow, &own);
        }
        node.start_task_of(&self.address, options, move |ctx| serve(ctx, request))?;
        Ok(())
    }

    /// Answers a Ping with a Pong, which a stock inlet needs to see first, and the refusal. Both wait where the path takes
    /// nothing, for a while, and nothing else does.
    fn refuse(
        &self,
        node: &Node,
        source: &Address,
        message: &mut Message,
        offer: Offer,
        reason: Reason,
        text: String,
    ) -> Result<()> {
        let back = std::mem::take(&mut message.back);
        let who = message
            .peer()
            .map_or_else(|| Who::Path(source.clone()), |peer| Who::Peer(peer.identifier));
        let Some(place) = self.refusing.enter(who).filter(|_| !back.is_empty()) else {
            return Ok(());
        };
        let own = self.address.clone();
        let options = WorkerOptions::with_mailbox(
            MailboxOptions::new(Address::random()).outgoing(AccessControl::AllowAll),
        );
        node.start_task_of(&self.address, options, move |mut ctx| async move {
            let _place = place;
            for answer in Stream::refusal(offer, reason, &text) {
                // The router has counted and logged what it refused.
                let _ = ctx.forward(Message::new(&back, &own, answer.encode()));
            }
            let _ = timeout(ANSWER_TIMEOUT, ctx.flush()).await;
        })?;
        Ok(())
    }
}

/// Who is refused: the peer that a channel has authenticated, or whatever the message came out of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Peer(PeerIdentifier),
    Path(Address),
}

/// Refusals on their way.
#[derive(Debug, Default)]
struct Refusals(Mutex<HashMap<Who, usize>>);

impl Refusals {
    /// A place for one, as long as the result lives; if there is one for this peer.
    fn enter(self: &Arc<Self>, who: Who) -> Option<Place> {
        {
            let mut places = self.0.lock();
            if places.values().sum::<usize>() >= MAX_REFUSALS {
                return None;
            }
            let own = places.entry(who.clone()).or_default();
            if *own >= MAX_REFUSALS_EACH {
                return None;
            }
            *own += 1;
        }
        Some(Place {
            refusals: Arc::clone(self),
            who,
        })
    }
}

/// One of them.
#[derive(Debug)]
struct Place {
    refusals: Arc<Refusals>,
    who: Who,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.refusals.0.lock();
        if let Some(own) = places.get_mut(&self.who) {
            *own -= 1;
            if *own == 0 {
                places.remove(&self.who);
            }
        }
    }
}

/// Applies the options to the target's socket (spec 01 W28).
fn set_up(socket: &TcpStream, enable_nagle: bool) {
    // A socket without it works all the same.
    let _ = socket.set_nodelay(!enable_nagle);
}

async fn serve(ctx: Context, request: Box<(Parts, Connecting)>) {
    let mut connection = begin(ctx, request);
    let end = poll_fn(|cx| connection.poll(cx)).await;
    Box::pin(connection.end(end)).await;
}

/// Apart from [`serve`], whose future would hold the request as long as the connection lives.
fn begin(ctx: Context, request: Box<(Parts, Connecting)>) -> Box<Connection> {
    let (parts, connecting) = *request;
    Box::new(Connection::outlet(ctx, parts, connecting))
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
            set_up(&socket, enable_nagle);
            assert_eq!(socket.nodelay().unwrap(), !enable_nagle);
        }
    }
}

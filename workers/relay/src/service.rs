//! The relay service: who may have which relay (spec 03 §2.1).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portolan_runtime::{
    AccessControl, Address, Context, Denial, Envelope, Flow, MailboxOptions, Message, Node, Payload, Peer,
    Placement, Result, Route, SyncWorker, WorkerOptions, environment,
};

use crate::name::RelayName;
use crate::protocol::{self, RelayRequest, STATIC_SERVICE};
use crate::relay::Relay;
use crate::table::{Entry, Quota, RelayOwner, RelayTable, Unregistered};

/// Longest route to a target, in hops. Real ones have one to four.
pub const MAX_FORWARD_HOPS: usize = 16;
/// Longest route to a target, in bytes of addresses: it is kept for each relay and added to each message.
pub const MAX_FORWARD_BYTES: usize = 1024;
/// Refusals that may wait for room in the connection that they go to. Further ones are counted and not sent.
pub const MAX_PENDING_ANSWERS: usize = 64;
/// How long a refusal waits for that room.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Refusals logged per second; further ones are counted only, so that a peer cannot fill a disk.
const LOGGED_PER_SECOND: u32 = 10;

/// Decides who may register a relay.
///
/// Called for each registration, on the service's thread: it must not take longer than a look-up does.
pub trait RelayAuthority: Send + 'static {
    /// Decides whether `peer` may have the relay `name`. `peer` is `None` when the registration came through no secure
    /// channel. For a registration without name, `name` is the one that was made by chance, which usual attributes do
    /// not contain: it then needs [`ANY_NAME`](crate::protocol::ANY_NAME).
    ///
    /// # Errors
    /// The reason, if not. It is told to the peer, and logged.
    fn may_register(&self, peer: Option<&Peer>, name: &RelayName) -> Result<(), Denial>;
}

impl<F> RelayAuthority for F
where
    F: Fn(Option<&Peer>, &RelayName) -> Result<(), Denial> + Send + 'static,
{
    fn may_register(&self, peer: Option<&Peer>, name: &RelayName) -> Result<(), Denial> {
        self(peer, name)
    }
}

/// Lets everybody register every name that is free: for a node without authority.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowEverybody;

impl RelayAuthority for AllowEverybody {
    fn may_register(&self, _: Option<&Peer>, _: &RelayName) -> Result<(), Denial> {
        Ok(())
    }
}

/// How a relay service is started.
#[derive(Debug, Clone)]
pub struct RelayServiceOptions {
    /// The flows that may reach the service and its relays: of the TCP listener, and of the channel listener.
    pub reachable_from: Vec<Arc<Flow>>,
    /// Who may send to the service. Default: whoever flow control lets through. What is refused here is not told to
    /// the target; what a [`RelayAuthority`] refuses is.
    pub service_access: AccessControl,
    /// Who may send to a relay. Default: whoever flow control lets through, as the reference does. A node with an
    /// authority should say [`AccessControl::AnyPeer`] or stricter.
    pub relay_access: AccessControl,
    /// Relays for each owner: an authenticated peer, or a connection without one. Default: 64.
    pub relays_per_peer: usize,
    /// Relays altogether. Default: 10 000, about 20 MB.
    pub relays: usize,
}

impl Default for RelayServiceOptions {
    fn default() -> Self {
        Self {
            reachable_from: Vec::new(),
            service_access: AccessControl::AllowAll,
            relay_access: AccessControl::AllowAll,
            relays_per_peer: 64,
            relays: 10_000,
        }
    }
}

/// The worker at `forwarding_service` and `static_forwarding_service`. It owns the relays: they end with it.
pub struct RelayService<A> {
    authority: A,
    options: RelayServiceOptions,
    table: RelayTable,
    pending: Arc<AtomicUsize>,
    logged: (Instant, u32),
}

impl<A: RelayAuthority> RelayService<A> {
    /// Starts the service on a node and gives the table of its relays.
    ///
    /// # Errors
    /// If one of the two addresses is in use or the node is stopping.
    pub fn start(node: &Node, authority: A, options: RelayServiceOptions) -> Result<RelayTable> {
        let table = RelayTable::default();
        let mailbox = |address: &str| {
            MailboxOptions::new(address)
                .incoming(options.service_access.clone())
                .outgoing(AccessControl::AllowAll)
        };
        let worker = WorkerOptions::with_mailbox(mailbox(protocol::SERVICE)).mailbox(mailbox(STATIC_SERVICE));
        let flows = options.reachable_from.clone();
        node.start_sync_worker(
            worker,
            Self {
                authority,
                options,
                table: table.clone(),
                pending: Arc::default(),
                logged: (environment::now(), 0),
            },
        )?;
        for flow in &flows {
            node.add_consumer(flow, &protocol::SERVICE.into());
            node.add_consumer(flow, &STATIC_SERVICE.into());
        }
        Ok(table)
    }

    fn register(&self, ctx: &Context, message: &Message) -> Result<(), Unregistered> {
        let node = ctx.node();
        let answers = &message.back;
        let forward = forward_route(node, answers)?;
        let name = match RelayRequest::decode(message.payload.as_slice())? {
            RelayRequest::Named(name) => name,
            RelayRequest::Ephemeral => RelayName::random(),
        };
        self.authority
            .may_register(message.peer().map(|peer| &**peer), &name)?;
        let via = connection_of(node, &forward)?;
        let owner = match message.peer() {
            Some(peer) => RelayOwner::Peer(peer.identifier),
            None => RelayOwner::Connection(via.clone()),
        };
        let quota = Quota {
            per_peer: self.options.relays_per_peer,
            total: self.options.relays,
        };

        let mut entries = self.table.entries.lock();
        let replaced = entries.claim(&name, &owner, quota, |via| node.has_worker(via))?;
        let replaced = replaced.cloned();
        let address = name.address();
        if replaced.is_some() {
            let _ = node.stop_worker(&address);
        }
        let entry = Entry {
            number: 0,
            owner,
            via: via.clone(),
            answers: answers.clone(),
            forward: forward.clone(),
            since: environment::system_time(),
            traffic: Arc::default(),
        };
        let acceptance = Relay::acceptance(name.remote_address());
        let relay = Relay {
            traffic: Arc::clone(&entry.traffic),
            connected: Default::default(),
            forward,
        };
        let next = answers.next().ok_or(Unregistered::NoReturnAddress)?;
        let options = WorkerOptions::new(&address)
            .incoming(self.options.relay_access.clone())
            .outgoing(AccessControl::only(next))
            // On the thread of the connection, so that messages cross none on their way into it.
            .placement(node.arbiter_of(&via).map_or(Placement::Owner, Placement::Index));
        let started = ctx.start_passage(options, Arc::new(relay));
        if started.is_err() {
            if let Some(replaced) = replaced {
                entries.remove(&name, replaced.number);
            }
            return Err(Unregistered::NotStarted);
        }
        for flow in &self.options.reachable_from {
            node.add_consumer(flow, &address);
        }
        self.send(ctx, Message::new(answers, &address, acceptance));
        tracing::info!(relay = %name, owner = %entry.owner, replaces = replaced.is_some(), "relay registered");
        let number = entries.insert(name.clone(), entry);
        drop(entries);

        self.end_with_connection(node, name, address, via, number);
        if let Some(replaced) = replaced
            && replaced.answers != *answers
        {
            // Its owner registered again elsewhere. Whoever still listens there would wait in vain.
            let reason = "replaced by a later registration of the same owner";
            self.answer(ctx, &replaced.answers, protocol::refusal(&[], reason));
        }
        Ok(())
    }

    /// Ends the relay when the connection does, so that a message to it fails at once.
    fn end_with_connection(&self, node: &Node, name: RelayName, address: Address, via: Address, number: u64) {
        let (connection, relay) = (node.ended(&via), node.ended(&address));
        let (node, table) = (node.clone(), self.table.clone());
        tokio::task::spawn_local(async move {
            let connection_ended = tokio::select! {
                biased;
                () = relay => false,
                () = connection => true,
            };
            // Under the lock, so that the relay at the address cannot be a successor.
            let mut entries = table.entries.lock();
            if entries.remove(&name, number).is_some() && connection_ended {
                let _ = node.stop_worker(&address);
                tracing::info!(relay = %name, "relay ended with its connection");
            }
        });
    }

    fn refuse(&mut self, ctx: &Context, message: &Message, reason: &Unregistered) {
        self.table.entries.lock().count_refusal();
        self.log(message, reason);
        if !matches!(reason, Unregistered::NoReturnAddress | Unregistered::RouteTooLong) {
            let refusal = protocol::refusal(message.payload.as_slice(), &reason.to_string());
            self.answer(ctx, &message.back, refusal);
        }
    }

    fn log(&mut self, message: &Message, reason: &Unregistered) {
        let now = environment::now();
        if now.duration_since(self.logged.0) >= Duration::from_secs(1) {
            self.logged = (now, 0);
        }
        self.logged.1 += 1;
        if self.logged.1 <= LOGGED_PER_SECOND {
            let peer = message.peer().map(|peer| peer.identifier);
            let from = message.back.next();
            tracing::warn!(?peer, ?from, "a relay registration was refused: {reason}");
        }
    }

    /// Sends a refusal.
    fn answer(&self, ctx: &Context, route: &Route, payload: Payload) {
        self.send(ctx, Message::new(route, protocol::refusal_origin(), payload));
    }

    /// Sends an answer that nobody has to wait for: the connection that it goes to may be full, and its peer may have
    /// filled it on purpose.
    fn send(&self, ctx: &Context, message: Message) {
        let Some(next) = message.onward.next() else { return };
        if self.pending.fetch_add(1, Ordering::Relaxed) >= MAX_PENDING_ANSWERS {
            self.pending.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let pending = Pending(Arc::clone(&self.pending));
        let options = WorkerOptions::new(Address::random())
            .incoming(AccessControl::DenyAll)
            .outgoing(AccessControl::only(next));
        let started = ctx.start_task(options, move |mut ctx| async move {
            let _pending = pending;
            if let Ok(Err(error)) = tokio::time::timeout(ANSWER_TIMEOUT, ctx.send_message(message)).await {
                tracing::debug!("a refused relay registration could not be answered: {error}");
            }
        });
        if let Err(error) = started {
            tracing::debug!("a refused relay registration could not be answered: {error}");
        }
    }
}

impl<A: RelayAuthority> SyncWorker for RelayService<A> {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        if let Err(reason) = self.register(ctx, &envelope.message) {
            self.refuse(ctx, &envelope.message, &reason);
        }
        Ok(())
    }
}

impl RelayTable {
    /// Ends a relay. Its owner is not told. `false` if there is none with this name.
    pub fn end(&self, node: &Node, name: &RelayName) -> bool {
        let mut entries = self.entries.lock();
        if !entries.contains(name) {
            return false;
        }
        let _ = node.stop_worker(&name.address());
        entries.forget(name).is_some()
    }
}

/// Counts one pending answer less when dropped.
struct Pending(Arc<AtomicUsize>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The route that messages are put on: the return route of the registration without its last hop, the target's
/// registration worker.
///
/// If that worker is on this very node, its hop stays. Without it a relay would send messages from outside to whatever
/// local address their sender names, past flow control; the worker forwards them under its own flow control.
fn forward_route(node: &Node, answers: &Route) -> Result<Route, Unregistered> {
    let (Some(first), Some(last)) = (answers.next(), answers.recipient()) else {
        return Err(Unregistered::NoReturnAddress);
    };
    // A message that came in with an empty return route has one hop now, the connection that it came through.
    if !last.is_local() || (answers.len() == 1 && node.is_terminal(first)) {
        return Err(Unregistered::NoReturnAddress);
    }
    let bytes: usize = answers.iter().map(|hop| hop.as_bytes().len()).sum();
    if answers.len() > MAX_FORWARD_HOPS || bytes > MAX_FORWARD_BYTES {
        return Err(Unregistered::RouteTooLong);
    }
    let mut forward = answers.clone();
    if forward.len() > 1 {
        forward.pop();
    }
    Ok(forward)
}

/// The worker whose end is the end of the path to the target: the first hop that leaves the node, or else the first.
fn connection_of(node: &Node, forward: &Route) -> Result<Address, Unregistered> {
    let via = forward
        .iter()
        .find(|hop| node.is_terminal(hop))
        .or(forward.next())
        .filter(|via| node.has_worker(via));
    via.cloned().ok_or(Unregistered::NoReturnAddress)
}

//! What all channels of a node share, and the handle that makes them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use parking_lot::Mutex;
use portolan_identity::{AttributeRepository, IdentityRepository};
use portolan_runtime::{Address, Context, Node, Route, environment};
use tokio::sync::{Semaphore, oneshot};

use super::listener::{self, SecureChannelListener};
use super::{ChannelInfo, SecureChannel, State, initiator};
use crate::error::Error;
use crate::options::{ChannelOptions, ListenerOptions};
use crate::peer::Judge;

/// UTC seconds since 1970.
pub type Clock = fn() -> u64;

fn system_clock() -> u64 {
    // Before 1970 nothing holds, which is the safe side.
    environment::system_time()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The secure channels of a node: makes them, listens for them, lists them. Clones are cheap and share everything.
#[derive(Clone)]
pub struct SecureChannels {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(super) node: Node,
    pub(super) identities: Arc<dyn IdentityRepository>,
    pub(super) attributes: Arc<dyn AttributeRepository>,
    pub(super) counts: Counts,
    clock: Clock,
    open: Mutex<HashMap<Address, Arc<State>>>,
    /// One permit for each core: handshakes compute, and look into stores, beside the arbiters, but no more of them at a
    /// time than there are cores.
    computing: Arc<Semaphore>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) opened: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) untrusted: AtomicU64,
}

/// What became of handshakes, since the node started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Channels opened, at either end.
    pub opened: u64,
    /// Handshakes in which a message or an identity was wrong.
    pub failed: u64,
    /// Handshakes that the peer did not finish in time.
    pub expired: u64,
    /// Unfinished handshakes that gave their place to newer ones.
    pub evicted: u64,
    /// Handshakes and channels that found no free place.
    pub refused: u64,
    /// Peers that the trust policy turned away.
    pub untrusted: u64,
}

impl SecureChannels {
    /// The channels of `node`. Peers' histories and attributes are kept in these repositories.
    #[must_use]
    pub fn new(
        node: &Node,
        identities: Arc<dyn IdentityRepository>,
        attributes: Arc<dyn AttributeRepository>,
    ) -> Self {
        Self::with_clock(node, identities, attributes, system_clock)
    }

    /// As [`Self::new`], with another clock.
    #[must_use]
    pub fn with_clock(
        node: &Node,
        identities: Arc<dyn IdentityRepository>,
        attributes: Arc<dyn AttributeRepository>,
        clock: Clock,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let shared = Shared {
            node: node.clone(),
            identities,
            attributes,
            counts: Counts::default(),
            clock,
            open: Mutex::default(),
            computing: Arc::new(Semaphore::new(cores)),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Opens a channel to the listener at the end of `route`, for instance `[connection, "api"]`.
    ///
    /// The channel is open when this returns, as far as this end can know: whether the other end accepts *us* shows in
    /// what it answers later (spec 02 §5.6). It lives until it is stopped, closed by the peer, or its transport ends.
    /// If the returned future is dropped, no channel remains.
    ///
    /// # Errors
    /// [`Error`]: no answer in time, a peer that is not accepted, or a route that leads nowhere.
    pub async fn create(
        &self,
        route: impl Into<Route>,
        options: ChannelOptions,
    ) -> Result<SecureChannel, Error> {
        self.create_with(None, route.into(), options).await
    }

    /// As [`Self::create`]; the channel ends with the worker whose context is given.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_owned(
        &self,
        owner: &Context,
        route: impl Into<Route>,
        options: ChannelOptions,
    ) -> Result<SecureChannel, Error> {
        self.create_with(Some(owner), route.into(), options).await
    }

    async fn create_with(
        &self,
        owner: Option<&Context>,
        route: Route,
        options: ChannelOptions,
    ) -> Result<SecureChannel, Error> {
        let (reply, answer) = oneshot::channel();
        initiator::start(&self.shared, owner, route, options, reply)?;
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(portolan_runtime::Error::Stopped.into()),
        }
    }

    /// Accepts channels at `address`, conventionally `api`.
    ///
    /// # Errors
    /// If the address is in use or the node is stopping.
    pub fn listen(
        &self,
        address: impl Into<Address>,
        options: ListenerOptions,
    ) -> Result<SecureChannelListener, Error> {
        listener::start(&self.shared, address.into(), options)
    }

    /// All open channels, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<ChannelInfo> {
        let open: Vec<_> = self.shared.open.lock().values().cloned().collect();
        let mut channels: Vec<_> = open
            .into_iter()
            .map(|state| self.shared.channel(state).info())
            .collect();
        channels.sort_by(|a, b| (a.opened_at, &a.encryptor).cmp(&(b.opened_at, &b.encryptor)));
        channels
    }

    /// The open channel whose encryptor has this address; the `channel` of a message's peer is such an address.
    #[must_use]
    pub fn get(&self, encryptor: &Address) -> Option<SecureChannel> {
        let state = self.shared.open.lock().get(encryptor).cloned()?;
        Some(self.shared.channel(state))
    }

    /// Where the histories of peers are kept.
    #[must_use]
    pub fn identities(&self) -> &Arc<dyn IdentityRepository> {
        &self.shared.identities
    }

    /// What became of handshakes.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let counts = &self.shared.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            opened: read(&counts.opened),
            failed: read(&counts.failed),
            expired: read(&counts.expired),
            evicted: read(&counts.evicted),
            refused: read(&counts.refused),
            untrusted: read(&counts.untrusted),
        }
    }
}

impl std::fmt::Debug for SecureChannels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecureChannels")
            .field("open", &self.shared.open.lock().len())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn now(&self) -> u64 {
        (self.clock)()
    }

    pub(super) fn judge(&self, options: &ChannelOptions) -> Judge {
        Judge {
            identities: Arc::clone(&self.identities),
            attributes: Arc::clone(&self.attributes),
            authorities: Arc::clone(&options.authorities),
            trust: options.trust.clone(),
        }
    }

    /// Runs what computes or blocks for long beside the arbiter. Nothing if the node is going down.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let permit = Arc::clone(&self.computing).acquire_owned().await.ok()?;
        let work = move || {
            let result = work();
            drop(permit);
            result
        };
        self.node.run_blocking(work).await
    }

    pub(super) fn channel(&self, state: Arc<State>) -> SecureChannel {
        SecureChannel {
            node: self.node.clone(),
            state,
        }
    }

    pub(super) fn register(self: &Arc<Self>, state: &Arc<State>) -> Registration {
        let encryptor = state.peer.channel.clone();
        self.open.lock().insert(encryptor.clone(), Arc::clone(state));
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        Registration {
            shared: Arc::clone(self),
            encryptor,
        }
    }
}

/// A channel's place in the list of open ones, given up when dropped.
pub(super) struct Registration {
    shared: Arc<Shared>,
    encryptor: Address,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.open.lock().remove(&self.encryptor);
    }
}

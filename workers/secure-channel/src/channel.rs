//! Channels as the rest of a node sees them.
//!
//! | module | idea |
//! |---|---|
//! | `initiator`, `responder` | a handshake, from its first message to an open channel |
//! | `listener`, `slots` | who may begin one, how many at a time, and who waits |
//! | `encryptor`, `decryptor` | the two workers of an open channel |
//! | `windows` | what these two know of what is on its way |

mod decryptor;
mod encryptor;
mod handshake;
mod initiator;
mod listener;
mod responder;
mod service;
mod slots;
mod windows;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use portolan_identity::Identifier;
use portolan_runtime::{Address, Flow, Node, Peer, Route};
use tokio::sync::watch;

use crate::aead::Suite;
use crate::extensions::Agreement;
use crate::record::REKEY_INTERVAL;

pub(crate) use windows::Windows;

pub use listener::SecureChannelListener;
pub use service::{Clock, Counters, SecureChannels};

/// At which end of the handshake we were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// We asked for the channel.
    Initiator,
    /// The peer did.
    Responder,
}

/// Why a channel is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed it.
    ByPeer,
    /// We stopped it.
    Stopped,
    /// The connection under it ended.
    TransportLost,
    /// A record is missing or late: it was dropped or reordered on the way.
    Gap,
    /// A message could not be handed to the transport.
    SendFailed,
    /// The peer says that more has arrived than was sent.
    FalseReceipt,
    /// All nonces are used.
    Exhausted,
    /// The peer was removed from the project.
    Removed,
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ByPeer => "the peer closed the channel",
            Self::Stopped => "the channel was stopped",
            Self::TransportLost => "the connection under the channel ended",
            Self::Gap => "a message of the channel was lost or reordered on the way",
            Self::SendFailed => "a message could not be handed to the transport",
            Self::FalseReceipt => "the peer says that something has arrived that was not sent",
            Self::Exhausted => "all nonces of the channel are used",
            Self::Removed => "the peer was removed from the project",
        })
    }
}

/// What an open channel has done so far.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent_messages: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received_messages: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    /// Of these, the ones under a sealed header.
    pub(crate) sent_carried: AtomicU64,
    pub(crate) received_carried: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) gaps: AtomicU64,
}

impl Traffic {
    pub(crate) fn count(counter: &AtomicU64, by: usize) {
        counter.fetch_add(by as u64, Ordering::Relaxed);
    }
}

/// What the two workers of a channel and its handles share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) role: Role,
    pub(crate) local: Identifier,
    pub(crate) remote: Identifier,
    pub(crate) agreement: Agreement,
    pub(crate) peer: Arc<Peer>,
    pub(crate) decryptor: Address,
    pub(crate) flow: Arc<Flow>,
    /// UTC seconds.
    pub(crate) opened_at: u64,
    /// Where records go: hops, and the peer's decryptor last.
    pub(crate) route: Mutex<Route>,
    pub(crate) closed: watch::Sender<Option<CloseReason>>,
    pub(crate) traffic: Traffic,
    /// If windows were agreed on.
    pub(crate) windows: Option<Box<Windows>>,
}

impl State {
    /// Says why the channel ends. The first reason stays.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.closed.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(reason);
            first
        });
    }

    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        *self.closed.borrow()
    }
}

/// An open channel. A handle: dropping it changes nothing.
///
/// Messages go into the channel through [`Self::address`]: `[address, further hops at the peer's node…]`.
#[derive(Clone, Debug)]
pub struct SecureChannel {
    node: Node,
    state: Arc<State>,
}

impl SecureChannel {
    /// The address of the encryptor: the first hop of routes through the channel, and the channel's name in this node.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.state.peer.channel
    }

    /// The address that the peer sends records to.
    #[must_use]
    pub fn decryptor(&self) -> &Address {
        &self.state.decryptor
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Identifier {
        &self.state.remote
    }

    /// Who we are in this channel.
    #[must_use]
    pub fn local(&self) -> &Identifier {
        &self.state.local
    }

    /// The flow of what comes out of the channel: its consumers can be reached by the peer.
    #[must_use]
    pub fn flow(&self) -> &Arc<Flow> {
        &self.state.flow
    }

    /// Lets the peer reach `address` through this channel.
    pub fn add_consumer(&self, address: &Address) {
        self.node.add_consumer(&self.state.flow, address);
    }

    /// Whether messages can be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.close_reason().is_none()
    }

    /// Why it is closed, if it is.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.state.close_reason()
    }

    /// Waits until the channel is closed and says why. Ready at once if it is.
    pub fn closed(&self) -> impl Future<Output = CloseReason> + Send + 'static {
        let mut closed = self.state.closed.subscribe();
        async move {
            // The sender lives as long as the state does, and a channel's end always says why.
            match closed.wait_for(Option::is_some).await {
                Ok(reason) => reason.unwrap_or(CloseReason::Stopped),
                Err(_) => CloseReason::Stopped,
            }
        }
    }

    /// Closes the channel and tells the peer. What was sent before is still delivered to the transport.
    pub fn stop(&self) {
        let _ = self.node.stop_worker(self.address());
    }

    /// As [`Self::stop`], with a reason for those at this end who wait for the channel's end. The peer is not told it.
    pub fn stop_because(&self, reason: CloseReason) {
        self.state.close(reason);
        self.stop();
    }

    /// What `secure-channel list` and `show` tell.
    #[must_use]
    pub fn info(&self) -> ChannelInfo {
        let state = &self.state;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ChannelInfo {
            role: state.role,
            local: state.local,
            peer: state.remote,
            suite: state.agreement.suite,
            sealed_headers: state.agreement.sealed_headers,
            window: state
                .windows
                .as_ref()
                .map(|windows| windows.sending.lock().limit()),
            encryptor: state.peer.channel.clone(),
            decryptor: state.decryptor.clone(),
            route: state.route.lock().clone(),
            opened_at: state.opened_at,
            sent_messages: read(&state.traffic.sent_messages),
            sent_bytes: read(&state.traffic.sent_bytes),
            received_messages: read(&state.traffic.received_messages),
            received_bytes: read(&state.traffic.received_bytes),
            sent_carried: read(&state.traffic.sent_carried),
            received_carried: read(&state.traffic.received_carried),
            rejected: read(&state.traffic.rejected),
            gaps: read(&state.traffic.gaps),
        }
    }
}

/// A channel at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelInfo {
    /// At which end of the handshake we were.
    pub role: Role,
    /// Who we are.
    pub local: Identifier,
    /// Who the peer is.
    pub peer: Identifier,
    /// The suite that protects the records.
    pub suite: Suite,
    /// Whether both ends carry records of inner channels under sealed headers.
    pub sealed_headers: bool,
    /// How many bytes may be on their way to the peer, if there is a window ([`crate::window`]).
    pub window: Option<u64>,
    /// The address that messages go in by.
    pub encryptor: Address,
    /// The address that the peer sends records to.
    pub decryptor: Address,
    /// Where records go.
    pub route: Route,
    /// Since when, UTC seconds.
    pub opened_at: u64,
    /// Records sent.
    pub sent_messages: u64,
    /// Bytes of payload sent, without what the channel adds.
    pub sent_bytes: u64,
    /// Records received and opened.
    pub received_messages: u64,
    /// Bytes of payload received.
    pub received_bytes: u64,
    /// Of the records sent, those that carry a record of another channel under a sealed header.
    pub sent_carried: u64,
    /// The same of those received.
    pub received_carried: u64,
    /// Records that did not open: forged, altered, repeated, too old.
    pub rejected: u64,
    /// How often records were missing or late.
    pub gaps: u64,
}

impl ChannelInfo {
    /// How often the key that we seal with was replaced: before every 32nd record ([`REKEY_INTERVAL`]).
    #[must_use]
    pub fn sent_rekeys(&self) -> u64 {
        self.sent_messages.saturating_sub(1) / REKEY_INTERVAL
    }

    /// The same for the key that we open with; on paths that lose records, at least so often.
    #[must_use]
    pub fn received_rekeys(&self) -> u64 {
        self.received_messages.saturating_sub(1) / REKEY_INTERVAL
    }
}

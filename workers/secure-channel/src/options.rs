//! Settings of channels and listeners.

use std::sync::Arc;
use std::time::Duration;

use portolan_identity::Identity;
use portolan_runtime::Route;

use crate::aead::Suites;
use crate::credentials::CredentialSource;
use crate::extensions::Abilities;
use crate::local::LocalIdentity;
use crate::trust::TrustPolicy;

/// How long an initiator waits for a channel. A trip around the world through a few relays takes a second; an outdated
/// route is known to be dead within what a user is ready to wait.
pub const INITIATOR_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a responder keeps an unfinished handshake. Longer than any path takes, shorter than an attacker wants.
pub const RESPONDER_TIMEOUT: Duration = Duration::from_secs(10);
/// Unfinished handshakes of one listener. Each costs some 8 KiB.
pub const MAX_PENDING: usize = 512;
/// Unfinished handshakes of one listener that came over the same connection. As many may come at once through a relay.
pub const MAX_PENDING_PER_HOP: usize = 64;
/// First messages of handshakes that wait for a place. Each costs some 1.5 KiB. Thousands of members come back at the same moment
/// when a project's node has been restarted; they are answered one after the other instead of trying again after
/// [`INITIATOR_TIMEOUT`]. What is beyond that is refused, counted and logged.
pub const MAX_WAITING: usize = 4_096;
/// The same of one connection. The connections take turns, so that one with many delays no other.
pub const MAX_WAITING_PER_HOP: usize = 1_024;
/// A message that has waited so long is not answered any more: it comes again when [`INITIATOR_TIMEOUT`] is over.
pub const WAITING_TIME: Duration = Duration::from_secs(20);
/// An unfinished handshake whose peer has had our answer for so long gives its place to a new one. So a stranger who fills all places
/// delays others by a second, not by [`RESPONDER_TIMEOUT`], and costs us [`MAX_PENDING_PER_HOP`] handshakes a second at most.
pub const PENDING_PROTECTED: Duration = Duration::from_secs(1);
/// Open channels of one listener. Each costs some 15 KiB.
pub const MAX_OPEN: usize = 8_192;
/// Open channels of one listener that came over the same connection.
pub const MAX_OPEN_PER_HOP: usize = 2_048;

/// What to do when a record is missing or late, which no transport of ours causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GapPolicy {
    /// Close the channel: whoever carries streams over it learns of it at once, and no stream gets a hole. For transports
    /// that keep order.
    #[default]
    Close,
    /// Go on, and count it. For datagrams, under protocols that can lose messages.
    Continue,
}

/// How we appear in a channel, and with whom we want one.
#[derive(Clone)]
pub struct ChannelOptions {
    pub(crate) identity: LocalIdentity,
    pub(crate) trust: TrustPolicy,
    pub(crate) authorities: Arc<[Identity]>,
    pub(crate) credentials: Option<Arc<dyn CredentialSource>>,
    pub(crate) gaps: GapPolicy,
    pub(crate) abilities: Abilities,
    pub(crate) timeout: Duration,
}

impl ChannelOptions {
    /// As this identity, with everyone, without credentials.
    #[must_use]
    pub fn new(identity: LocalIdentity) -> Self {
        Self {
            identity,
            trust: TrustPolicy::Everyone,
            authorities: Arc::new([]),
            credentials: None,
            gaps: GapPolicy::default(),
            abilities: Abilities {
                suites: Suites::preferred(),
                sealed_headers: true,
                windows: true,
            },
            timeout: INITIATOR_TIMEOUT,
        }
    }

    /// With whom we want a channel.
    #[must_use]
    pub fn trust(mut self, trust: TrustPolicy) -> Self {
        self.trust = trust;
        self
    }

    /// Whose credentials about the peer we believe. Without any, credentials are ignored.
    #[must_use]
    pub fn authorities(mut self, authorities: impl IntoIterator<Item = Identity>) -> Self {
        self.authorities = authorities.into_iter().collect();
        self
    }

    /// Where the credential that we present comes from.
    #[must_use]
    pub fn credentials(mut self, source: impl CredentialSource + 'static) -> Self {
        self.credentials = Some(Arc::new(source));
        self
    }

    /// As [`Self::credentials`], for a source that is shared.
    #[must_use]
    pub fn shared_credentials(mut self, source: Option<Arc<dyn CredentialSource>>) -> Self {
        self.credentials = source;
        self
    }

    /// What to do about missing records.
    #[must_use]
    pub fn gaps(mut self, gaps: GapPolicy) -> Self {
        self.gaps = gaps;
        self
    }

    /// The only suites that may protect the channel, the preferred first. Default: all, in the order that suits this machine
    /// ([`Suites::preferred`]).
    ///
    /// Reference peers have AES-256-GCM only; without it in the list there is no channel with them.
    #[must_use]
    pub fn suites(mut self, suites: Suites) -> Self {
        self.abilities.suites = suites;
        self
    }

    /// Whether records of channels that run inside this one may be carried under a sealed header, without being sealed a
    /// second time, if the peer can do that too ([`crate::record`]). Default: yes.
    #[must_use]
    pub fn sealed_headers(mut self, wanted: bool) -> Self {
        self.abilities.sealed_headers = wanted;
        self
    }

    /// Whether no more may be on its way to the peer than a window ([`crate::window`]), if the peer can do that too. An initiator wants
    /// it only where others may lie between, that is if the route to the peer's listener has more than two hops. Default: yes.
    #[must_use]
    pub fn windows(mut self, wanted: bool) -> Self {
        self.abilities.windows = wanted;
        self
    }

    /// What to offer for a channel along this route, or to accept without one.
    pub(crate) fn abilities(&self, route: Option<&Route>) -> Abilities {
        // A connection between the two alone has its own flow control. And what is lost would be missing in the receipts for ever.
        let useful = route.is_none_or(|route| route.len() > 2) && self.gaps == GapPolicy::Close;
        Abilities {
            windows: self.abilities.windows && useful,
            ..self.abilities
        }
    }

    /// How long an initiator waits for the channel. Default: [`INITIATOR_TIMEOUT`].
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// How a listener accepts channels.
#[derive(Clone)]
pub struct ListenerOptions {
    pub(crate) channel: ChannelOptions,
    pub(crate) limits: Limits,
    pub(crate) timeout: Duration,
}

/// How many handshakes and channels a listener has, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Unfinished handshakes.
    pub pending: usize,
    /// Unfinished handshakes with the same previous hop, that is over the same connection.
    pub pending_per_hop: usize,
    /// Open channels.
    pub open: usize,
    /// Open channels with the same previous hop.
    pub open_per_hop: usize,
    /// How long an unfinished handshake keeps its place although another wants it, from when the peer was answered.
    pub pending_protected: Duration,
    /// Handshakes that wait for a place.
    pub waiting: usize,
    /// Handshakes with the same previous hop that wait for a place.
    pub waiting_per_hop: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending: MAX_PENDING,
            pending_per_hop: MAX_PENDING_PER_HOP,
            open: MAX_OPEN,
            open_per_hop: MAX_OPEN_PER_HOP,
            pending_protected: PENDING_PROTECTED,
            waiting: MAX_WAITING,
            waiting_per_hop: MAX_WAITING_PER_HOP,
        }
    }
}

impl ListenerOptions {
    /// Channels with these options, within the default limits.
    #[must_use]
    pub fn new(channel: ChannelOptions) -> Self {
        Self {
            channel,
            limits: Limits::default(),
            timeout: RESPONDER_TIMEOUT,
        }
    }

    /// Other limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long an unfinished handshake is kept. Default: [`RESPONDER_TIMEOUT`].
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

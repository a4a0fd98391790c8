//! The core of one portal connection, the same at both ends: no socket, no clock, no actor.
//!
//! There are four kinds of methods, to be called in any order unless said otherwise:
//!
//! * **getters**: [`is_open`](Stream::is_open), [`is_finished`](Stream::is_finished), [`has_window`](Stream::has_window).
//! * **`handle_*`**, for what happens: [`handle_message`](Stream::handle_message) for each message of the other end, in
//!   order; [`handle_local_end`](Stream::handle_local_end) when the application has sent its last byte;
//!   [`handle_beat`](Stream::handle_beat) every now and then.
//! * **for the application's bytes**: [`sendable`](Stream::sendable) says how many may be read from it and sent,
//!   [`sent`](Stream::sent) that they were, [`delivered`](Stream::delivered) that received bytes were written to it.
//! * **what to send** is returned by the `handle_*` methods as [`PortalMessage`]s, and by
//!   [`poll_credit`](Stream::poll_credit), which is to be asked after bytes were delivered and messages handled.
//!
//! # The window
//!
//! What the other end may send is at most the window: what it has credit for and what waits here for the application. The
//! window begins with [`MIN_WINDOW`], or with less, down to [`LEAST_WINDOW`], where memory is scarce. It doubles, up to
//! [`MAX_WINDOW`], when credit is due and nothing waits, that is when the application takes all there is and could take more;
//! it is halved when the application is behind by more than half of it. All of it is taken from a [`WindowMemory`] that all
//! streams of a node share. When that has nothing left, windows stay as they are, and those that are much larger than one that
//! wants to grow become smaller. A window that has hardly been used for a while is taken back, so that idle streams hold little.
//! The other end must give it back: one that does not, or keeps more than it can have, breaks the protocol.
//!
//! With a stock peer there is no window, and the end of one direction ends both (spec 01 §10.5). What waits is taken from
//! the same memory then, up to [`STOCK_BUFFER`]; how much may still come is decided before each message, by
//! [`has_room`](Stream::has_room).

use self::window::Reclaimed;
use crate::memory::WindowMemory;
use crate::protocol::{Offer, PortalMessage, Reason};

#[cfg(test)]
mod tests;
mod window;

/// What each message costs of a window beside its bytes: more than the memory that a waiting message takes, so that a
/// window bounds memory also when the messages are tiny.
pub const MESSAGE_COST: usize = 512;

/// The window that a stream begins with, in bytes, unless memory is scarce: what the other end may have in flight towards an
/// application that does not read.
pub const MIN_WINDOW: u32 = 64 * 1024;

/// The smallest window, in bytes: of streams that begin or do nothing while memory is scarce.
pub const LEAST_WINDOW: u32 = 8 * 1024;

/// Less credit than this is not worth a message of its own, in bytes. The receiver keeps back less than a quarter of its
/// window, so that the rest of the smallest one is always worth it.
pub const WORTHWHILE: usize = 4 * 1024;

/// What is taken from a stock peer for an application that does not read, in bytes and [`MESSAGE_COST`]s; what comes then
/// waits in the connection's mailbox, which holds 1 MiB.
pub const STOCK_BUFFER: u64 = 1024 * 1024;

/// Beats in which the other end gives signs of life and no answer to a Reclaim, until it is taken for one that will not.
pub const RECLAIM_BEATS: u8 = 3;

/// The largest window, in bytes: enough for 10 Gbit/s with a round trip of 3 ms, or 600 Mbit/s with 50 ms.
pub const MAX_WINDOW: u32 = 4 * 1024 * 1024;

/// What may be sent behind a Ping, before the Pong has come, at most: bytes and [`MESSAGE_COST`]s. The sender keeps it until
/// the Pong says that it was taken.
pub const EARLY: usize = 32 * 1024;

/// Which end a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end that listens for applications.
    Inlet,
    /// The end that connects to the service.
    Outlet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The inlet waits for the Pong.
    Opening,
    Open,
    /// Nothing more is sent or expected.
    Ended,
}

/// What a received message means for the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The outlet has answered: bytes can be sent, to the return route of this message.
    Opened {
        /// Whether bytes were sent behind the Ping and taken. If not, what was read so far is to be sent now, again or
        /// for the first time.
        early: bool,
    },
    /// Bytes for the application, by where they stand in the message.
    Data {
        /// Where they begin.
        start: usize,
        /// Where they end.
        end: usize,
    },
    /// More may be sent than before.
    Credit,
    /// The other application has sent its last byte. Ours may go on.
    RemoteEnd,
    /// The stream is over. `None`: the peer gave no reason.
    Closed(Option<(Reason, String)>),
    /// This is to be sent.
    Answer(PortalMessage),
    /// The other end has sent more than the window allows: the stream is to be closed.
    Overrun,
    /// The other end has given back less credit than it must have: the stream is to be closed.
    Withheld,
    /// There is no memory for what a stock peer has sent: the stream is to be closed.
    NoMemory,
    /// Nothing to do.
    Ignored,
}

/// What a beat asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beat {
    /// Nothing but a sign of life.
    Nothing,
    /// This is to be sent, and is a sign of life.
    Tell(PortalMessage),
    /// The other end does not give credit back: the stream is to be closed.
    Unanswered,
}

/// Credit that was asked back.
/// One end of a portal connection.
#[derive(Debug)]
pub struct Stream {
    role: Role,
    phase: Phase,
    agreed: Offer,
    /// What we may still send.
    credit: i64,
    /// What was sent behind the Ping.
    early: i64,
    early_allowed: bool,
    /// What the other end may have sent or may still send, and was not delivered.
    window: u32,
    /// What the other end may still send.
    granted: u64,
    /// What was received and not yet delivered.
    waiting: u64,
    memory: WindowMemory,
    /// What we have taken from the memory: the window, or what the other end may still use of a larger one.
    taken: u64,
    /// What was received since the last beat.
    received: u32,
    reclaimed: Option<Reclaimed>,
    local_end: bool,
    remote_end: bool,
    carried: bool,
}

/// What we can do.
const OURS: Offer = Offer {
    window: Some(MIN_WINDOW),
    half_close: true,
    reasons: true,
    early: true,
    reclaim: true,
};

fn cost(bytes: usize) -> u64 {
    (bytes + MESSAGE_COST) as u64
}

impl Stream {
    /// The inlet's end, and the Ping to send to the outlet. `early`: the outlet is known to take bytes before its Pong.
    /// `None` if there is no memory for it.
    pub fn inlet(memory: WindowMemory, early: bool) -> Option<(Self, PortalMessage)> {
        let mut stream = Self::new(Role::Inlet, Phase::Opening, memory)?;
        stream.early_allowed = early;
        let offer = Offer {
            window: Some(stream.window),
            ..OURS
        };
        Some((stream, PortalMessage::Ping(offer)))
    }

    /// The outlet's end, after a Ping with this offer, and the Pong to send when the target is connected. `None` if there
    /// is no memory for it.
    pub fn outlet(memory: WindowMemory, offer: Offer) -> Option<(Self, PortalMessage)> {
        let mut stream = Self::new(Role::Outlet, Phase::Open, memory)?;
        let window = offer.window.map(|_| stream.window);
        stream.agree(offer);
        // What may come behind a Ping must fit into the window: else it is not taken, and comes again.
        stream.agreed.early &= stream.window as usize >= EARLY;
        let answer = Offer {
            window,
            ..stream.agreed
        };
        Some((stream, PortalMessage::Pong(answer)))
    }

    /// What an outlet answers that refuses: the Pong, which a stock inlet must have seen first, and the end.
    pub fn refusal(offer: Offer, reason: Reason, text: &str) -> Vec<PortalMessage> {
        // Nothing will be received, so that nothing is counted on the node's account.
        let memory = WindowMemory::new(2 * u64::from(MIN_WINDOW));
        Self::outlet(memory, offer)
            .into_iter()
            .flat_map(|(mut stream, pong)| [Some(pong), stream.close(reason, text)])
            .flatten()
            .collect()
    }

    fn new(role: Role, phase: Phase, memory: WindowMemory) -> Option<Self> {
        let window = memory.take_first()?;
        Some(Self {
            role,
            phase,
            agreed: Offer::default(),
            credit: 0,
            early: 0,
            early_allowed: false,
            window,
            granted: window.into(),
            waiting: 0,
            memory,
            taken: window.into(),
            received: 0,
            reclaimed: None,
            local_end: false,
            remote_end: false,
            carried: false,
        })
    }

    fn agree(&mut self, theirs: Offer) {
        let window = theirs.window.is_some();
        self.agreed = Offer {
            window: theirs.window,
            half_close: theirs.half_close && OURS.half_close,
            reasons: theirs.reasons && OURS.reasons,
            early: theirs.early && window && OURS.early,
            reclaim: theirs.reclaim && window && OURS.reclaim,
        };
        self.credit = theirs.window.map_or(0, i64::from);
        if !window {
            // Nothing is granted to one that counts no credit; what waits is charged when it has come.
            (self.window, self.granted) = (LEAST_WINDOW, 0);
            self.settle();
        }
    }

    /// Whether bytes can flow.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether both directions have ended.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Whether bytes have gone through, in either direction.
    pub fn has_carried_data(&self) -> bool {
        self.carried
    }

    /// Whether the other end respects a window.
    pub fn has_window(&self) -> bool {
        self.agreed.window.is_some()
    }

    /// Whether the outlet takes bytes behind a Ping, as its Pong has said.
    pub fn takes_early(&self) -> bool {
        self.agreed.early
    }

    /// Whether bytes may be sent although the Pong has not come.
    pub fn may_send_early(&self) -> bool {
        self.phase == Phase::Opening && self.early_allowed
    }

    /// The window that the other end has now, in bytes.
    pub fn window(&self) -> u32 {
        self.window
    }

    /// How many bytes may be sent in one message now; 0 means that credit must come first. Before the Pong this is what
    /// may be sent behind the Ping.
    pub fn sendable(&self) -> usize {
        let credit = match self.phase {
            _ if self.local_end => 0,
            Phase::Ended => 0,
            Phase::Opening if self.early_allowed => EARLY as i64 - self.early,
            Phase::Opening => 0,
            Phase::Open if self.agreed.window.is_some() => self.credit,
            Phase::Open => return usize::MAX,
        };
        usize::try_from(credit - MESSAGE_COST as i64).unwrap_or(0)
    }

    /// Bytes were sent in one message.
    pub fn sent(&mut self, bytes: usize) {
        self.carried = true;
        if self.phase == Phase::Opening {
            self.early += cost(bytes) as i64;
        } else if self.agreed.window.is_some() {
            self.credit -= cost(bytes) as i64;
        }
    }

    /// The application has sent its last byte. Returns what tells the other end; a stock peer ends both directions
    /// then. Not before the stream is open.
    pub fn handle_local_end(&mut self) -> Option<PortalMessage> {
        if self.phase != Phase::Open || self.local_end {
            return None;
        }
        self.local_end = true;
        if self.agreed.half_close {
            if self.remote_end {
                self.phase = Phase::Ended;
            }
            Some(PortalMessage::End)
        } else {
            Some(PortalMessage::Disconnect)
        }
    }

    /// Whether the stream only waits for what the other end may still have sent before it learnt of our end.
    pub fn is_lingering(&self) -> bool {
        self.phase == Phase::Open && self.local_end && !self.agreed.half_close
    }

    /// A message of the other end.
    ///
    /// # Errors
    /// If it is malformed: it is to be ignored then, as the reference does (spec 01 §10.2).
    pub fn handle_message(&mut self, bytes: &[u8]) -> Result<Event, portolan_runtime::DecodeError> {
        let message = PortalMessage::decode(bytes)?;
        Ok(match (self.phase, message) {
            (Phase::Ended, _) => Event::Ignored,
            (Phase::Opening, PortalMessage::Pong(offer)) => {
                self.agree(offer);
                self.phase = Phase::Open;
                if self.agreed.early {
                    self.credit -= self.early;
                }
                Event::Opened {
                    early: self.agreed.early && self.early_allowed,
                }
            }
            (_, PortalMessage::Disconnect) => self.closed(None),
            (_, PortalMessage::Close(reason, text)) => self.closed(Some((reason, text))),
            (Phase::Open, PortalMessage::Payload { start, end }) if !self.remote_end => {
                self.handle_payload(start, end)
            }
            (Phase::Open, PortalMessage::Credit(bytes)) if self.agreed.window.is_some() => {
                // More than anybody could have in flight is a fault; taking no more than that keeps the sum in range.
                let most = i64::from(u32::MAX);
                self.credit = self
                    .credit
                    .saturating_add(i64::try_from(bytes).unwrap_or(most))
                    .min(most);
                Event::Credit
            }
            (Phase::Open, PortalMessage::Reclaim(bytes)) if self.agreed.reclaim => {
                let unused = i64::try_from(bytes).unwrap_or(i64::MAX).min(self.credit).max(0);
                self.credit -= unused;
                Event::Answer(PortalMessage::Returned(unused as u64))
            }
            (Phase::Open, PortalMessage::Returned(bytes)) if self.agreed.reclaim => {
                self.handle_returned(bytes)
            }
            (Phase::Open, PortalMessage::End) if self.agreed.half_close && !self.remote_end => {
                self.remote_end = true;
                if self.local_end {
                    self.phase = Phase::Ended;
                }
                self.settle();
                Event::RemoteEnd
            }
            _ => Event::Ignored,
        })
    }

    fn closed(&mut self, reason: Option<(Reason, String)>) -> Event {
        self.phase = Phase::Ended;
        self.settle();
        Event::Closed(reason)
    }

    /// Ends the stream from our side. Returns what to tell the other end.
    ///
    /// An outlet that refuses a stock inlet must send a Pong first (spec 01 §10.4): [`Stream::outlet`] made it.
    pub fn close(&mut self, reason: Reason, text: &str) -> Option<PortalMessage> {
        let tell = match self.phase {
            // It knows us, and may be connecting for us.
            Phase::Opening if self.early_allowed => Some(PortalMessage::Close(reason, text.to_owned())),
            Phase::Ended | Phase::Opening => None,
            Phase::Open if self.agreed.reasons => Some(PortalMessage::Close(reason, text.to_owned())),
            Phase::Open if self.local_end => None, // The Disconnect has been sent.
            Phase::Open => Some(PortalMessage::Disconnect),
        };
        self.phase = Phase::Ended;
        tell
    }

    /// Whether the other end would be told of an end now: an outlet may have to answer first.
    pub(crate) fn can_be_closed(&self) -> bool {
        self.phase != Phase::Opening || self.early_allowed
    }

    /// What it takes its window from.
    pub(crate) fn memory(&self) -> &WindowMemory {
        &self.memory
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.role
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.memory.give_back(self.taken);
    }
}

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

use crate::memory::WindowMemory;
use crate::protocol::{Offer, PortalMessage, Reason};

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

/// What a stock peer's stream takes of the memory at a time, in bytes: more than a stock message has.
const STOCK_STEP: u64 = 64 * 1024;

/// A window of which less than one part in so many was used between two beats is taken back.
const HARDLY_USED: u32 = 16;

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
#[derive(Debug)]
struct Reclaimed {
    asked: u32,
    /// What was granted since.
    since: u32,
    /// Beats since, in which the other end was heard.
    beats: u8,
}

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

    /// Bytes of one message were given to the application.
    pub fn delivered(&mut self, bytes: usize) {
        self.waiting = self.waiting.saturating_sub(cost(bytes));
        // A stock peer's stream keeps its room as long as something comes.
        if self.expects_nothing() || self.agreed.window.is_none() && self.waiting == 0 {
            self.settle();
        }
    }

    /// Whether the next message may be taken. With a window always; of a stock peer, if there is room for it.
    pub fn has_room(&mut self) -> bool {
        if self.agreed.window.is_some() || self.waiting == 0 {
            return true;
        }
        if self.waiting >= STOCK_BUFFER {
            return false;
        }
        if self.waiting + STOCK_STEP <= self.taken {
            return true;
        }
        let more = self.memory.take(STOCK_STEP, self.taken);
        self.taken += if more { STOCK_STEP } else { 0 };
        more && self.waiting + STOCK_STEP <= self.taken
    }

    /// Credit to send, once enough has come together.
    pub fn poll_credit(&mut self) -> Option<PortalMessage> {
        self.agreed.window?;
        if self.phase != Phase::Open || self.remote_end || self.free() < u64::from(self.window / 4) {
            return None;
        }
        if self.window > MIN_WINDOW && self.memory.is_owed_by(self.window.into())
            || self.waiting > u64::from(self.window / 2)
        {
            self.window = (self.window / 2).max(MIN_WINDOW.min(self.window));
        } else if self.waiting == 0 {
            self.grow();
        }
        self.settle();
        let free = self.free();
        self.granted += free;
        if let Some(reclaimed) = &mut self.reclaimed {
            reclaimed.since = reclaimed
                .since
                .saturating_add(u32::try_from(free).unwrap_or(u32::MAX));
        }
        (free > 0).then_some(PortalMessage::Credit(free))
    }

    /// What of the window is neither granted nor waits.
    fn free(&self) -> u64 {
        u64::from(self.window).saturating_sub(self.granted + self.waiting)
    }

    fn grow(&mut self) {
        let more = self.window.min(MAX_WINDOW - self.window);
        if more > 0 && self.memory.take(more.into(), self.window.into()) {
            self.window += more;
            self.taken += u64::from(more);
        }
    }

    /// Whether the other end has no more bytes to send.
    fn expects_nothing(&self) -> bool {
        self.remote_end || self.phase == Phase::Ended
    }

    /// Gives back to the memory what is no longer promised.
    fn settle(&mut self) {
        let promised = if self.expects_nothing() {
            self.waiting
        } else {
            u64::from(self.window).max(self.granted + self.waiting)
        };
        let spare = self.taken.saturating_sub(promised);
        self.taken -= spare;
        self.memory.give_back(spare);
    }

    /// To be called every now and then, such as with each sign of life: a window that was hardly used since the last time is
    /// taken back. `heard`: something came from the other end since then, and all that was sent to it is on its way.
    pub fn handle_beat(&mut self, heard: bool) -> Beat {
        let used = std::mem::take(&mut self.received);
        if !self.agreed.reclaim || self.phase != Phase::Open || self.remote_end {
            return Beat::Nothing;
        }
        if let Some(reclaimed) = &mut self.reclaimed {
            reclaimed.beats += u8::from(heard);
            return if reclaimed.beats >= RECLAIM_BEATS {
                Beat::Unanswered
            } else {
                Beat::Nothing
            };
        }
        let least = if self.memory.is_scarce() {
            LEAST_WINDOW
        } else {
            MIN_WINDOW
        };
        if self.window <= least || used > self.window / HARDLY_USED {
            return Beat::Nothing;
        }
        self.window = least;
        self.settle();
        let excess = (self.granted + self.waiting).saturating_sub(least.into());
        let asked = u32::try_from(excess.min(self.granted)).unwrap_or(u32::MAX);
        if asked == 0 {
            return Beat::Nothing;
        }
        self.reclaimed = Some(Reclaimed {
            asked,
            since: 0,
            beats: 0,
        });
        Beat::Tell(PortalMessage::Reclaim(asked.into()))
    }

    /// Credit was given back. All that was sent before that has arrived, so what the other end may still send is known.
    fn handle_returned(&mut self, bytes: u64) -> Event {
        let Some(reclaimed) = self.reclaimed.take() else {
            return Event::Ignored;
        };
        self.granted = self.granted.saturating_sub(bytes);
        if bytes < reclaimed.asked.into() && self.granted > reclaimed.since.into() {
            return Event::Withheld;
        }
        self.settle();
        Event::Ignored
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

    fn handle_payload(&mut self, start: usize, end: usize) -> Event {
        let cost = cost(end - start);
        // What has no bytes waits for nobody.
        let waits = if end > start { cost } else { 0 };
        if self.agreed.window.is_some() {
            let Some(granted) = self.granted.checked_sub(cost) else {
                return Event::Overrun;
            };
            self.granted = granted;
            self.waiting += waits;
            self.received = self
                .received
                .saturating_add(u32::try_from(cost).unwrap_or(u32::MAX));
        } else {
            let lacking = (self.waiting + waits).saturating_sub(self.taken);
            if lacking > 0 && !self.memory.take_for_arrived(lacking) {
                return Event::NoMemory;
            }
            self.taken += lacking;
            self.waiting += waits;
        }
        if start == end {
            return Event::Ignored;
        }
        self.carried = true;
        Event::Data { start, end }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(stream: &mut Stream, message: &PortalMessage) -> Event {
        stream.handle_message(&message.encode()).unwrap()
    }

    fn pair_with(memory: &WindowMemory) -> (Stream, Stream) {
        let (mut inlet, ping) = Stream::inlet(memory.clone(), false).unwrap();
        let PortalMessage::Ping(offer) = PortalMessage::decode(&ping.encode()).unwrap() else {
            panic!("{ping:?}")
        };
        let (outlet, pong) = Stream::outlet(memory.clone(), offer).unwrap();
        assert_eq!(feed(&mut inlet, &pong), Event::Opened { early: false });
        assert_eq!(inlet.takes_early(), outlet.window() as usize >= EARLY);
        (inlet, outlet)
    }

    fn pair() -> (Stream, Stream) {
        pair_with(&WindowMemory::default())
    }

    fn asking() -> Stream {
        Stream::inlet(WindowMemory::default(), false).unwrap().0
    }

    /// A payload of so many bytes.
    fn payload(bytes: usize) -> Vec<u8> {
        let (header, used) = crate::protocol::payload_header(bytes);
        let mut message = header[..used].to_vec();
        message.resize(used + bytes, 7);
        message
    }

    /// Sends a message of so many bytes; the other end does not deliver it yet.
    fn send(from: &mut Stream, to: &mut Stream, bytes: usize) {
        from.sent(bytes);
        assert!(matches!(
            to.handle_message(&payload(bytes)).unwrap(),
            Event::Data { .. }
        ));
    }

    /// The application at `to` takes a message of so many bytes.
    fn deliver(from: &mut Stream, to: &mut Stream, bytes: usize) {
        to.delivered(bytes);
        if let Some(credit) = to.poll_credit() {
            assert_eq!(feed(from, &credit), Event::Credit);
        }
    }

    /// An inlet whose outlet knows no extension.
    fn with_stock_outlet() -> Stream {
        let mut inlet = asking();
        assert_eq!(
            feed(&mut inlet, &PortalMessage::Pong(Offer::default())),
            Event::Opened { early: false }
        );
        inlet
    }

    #[test]
    fn nothing_is_sent_beyond_the_window_and_credit_opens_it_again() {
        let (mut inlet, mut outlet) = pair();
        let mut sent = Vec::new();
        while inlet.sendable() > 0 {
            let bytes = inlet.sendable().min(10_000);
            send(&mut inlet, &mut outlet, bytes);
            sent.push(bytes);
        }
        let in_flight: usize = sent.iter().map(|bytes| bytes + MESSAGE_COST).sum();
        assert!(in_flight <= MIN_WINDOW as usize);
        assert_eq!(
            outlet.handle_message(&payload(1)).unwrap(),
            Event::Overrun,
            "one more is too much"
        );
        for bytes in sent {
            deliver(&mut inlet, &mut outlet, bytes);
        }
        assert!(inlet.sendable() >= MIN_WINDOW as usize / 2);
    }

    #[test]
    fn a_window_grows_with_an_application_that_takes_all_and_shrinks_with_one_that_is_behind() {
        let memory = WindowMemory::default();
        let (mut inlet, mut outlet) = pair_with(&memory);
        for _ in 0..10_000 {
            send(&mut inlet, &mut outlet, 10_000);
            deliver(&mut inlet, &mut outlet, 10_000);
        }
        assert_eq!(outlet.window(), MAX_WINDOW);
        assert_eq!(memory.used(), u64::from(MAX_WINDOW + MIN_WINDOW));
        let mut waiting = 0;
        for round in 0..200_000 {
            while inlet.sendable() >= 10_000 {
                send(&mut inlet, &mut outlet, 10_000);
                waiting += 1;
            }
            if waiting > 0 && round % 2 == 0 {
                deliver(&mut inlet, &mut outlet, 10_000);
                waiting -= 1;
            }
        }
        assert_eq!(outlet.window(), MIN_WINDOW);
        assert_eq!(
            memory.used(),
            2 * u64::from(MIN_WINDOW),
            "what was promised was used up"
        );
    }

    #[test]
    fn all_windows_together_promise_no_more_than_the_memory_of_the_node() {
        let memory = WindowMemory::new(4 * 1024 * 1024);
        let mut pairs: Vec<_> = (0..20).map(|_| pair_with(&memory)).collect();
        for _ in 0..2000 {
            for (inlet, outlet) in &mut pairs {
                send(inlet, outlet, 10_000);
                deliver(inlet, outlet, 10_000);
                assert!(memory.used() <= memory.limit());
            }
        }
        let windows = pairs.iter().map(|(_, outlet)| outlet.window());
        let inlets = pairs.iter().map(|(inlet, _)| inlet.window());
        let total: u64 = windows.clone().chain(inlets).map(u64::from).sum();
        assert!(total <= memory.used());
        assert!(total >= memory.limit() / 2, "it is used");
        assert!(
            windows.clone().filter(|window| *window > MIN_WINDOW).count() >= 3,
            "it is shared: {:?}",
            windows.collect::<Vec<_>>()
        );
        drop(pairs);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_window_that_is_not_used_is_taken_back_and_can_be_used_again() {
        let memory = WindowMemory::default();
        let (mut inlet, mut outlet) = pair_with(&memory);
        for _ in 0..10_000 {
            send(&mut inlet, &mut outlet, 10_000);
            deliver(&mut inlet, &mut outlet, 10_000);
        }
        assert_eq!(
            outlet.handle_beat(true),
            Beat::Nothing,
            "it was used since the last beat"
        );
        let Beat::Tell(reclaim) = outlet.handle_beat(true) else {
            panic!("it is taken back")
        };
        // Meanwhile the other end sends.
        for _ in 0..6 {
            send(&mut inlet, &mut outlet, 10_000);
        }
        let Event::Answer(returned) = feed(&mut inlet, &reclaim) else {
            panic!("credit is returned")
        };
        assert_eq!(feed(&mut outlet, &returned), Event::Ignored);
        for _ in 0..6 {
            deliver(&mut inlet, &mut outlet, 10_000);
        }
        assert!(memory.used() < u64::from(MIN_WINDOW) * 4);
        for _ in 0..10_000 {
            assert!(inlet.sendable() >= 10_000);
            send(&mut inlet, &mut outlet, 10_000);
            deliver(&mut inlet, &mut outlet, 10_000);
        }
        assert_eq!(outlet.window(), MAX_WINDOW);
    }

    /// An outlet's end with the largest window, of which nothing waits, and its inlet.
    fn grown(memory: &WindowMemory) -> (Stream, Stream) {
        let (mut inlet, mut outlet) = pair_with(memory);
        for _ in 0..10_000 {
            send(&mut inlet, &mut outlet, 10_000);
            deliver(&mut inlet, &mut outlet, 10_000);
        }
        assert_eq!(outlet.window(), MAX_WINDOW);
        assert_eq!(outlet.handle_beat(true), Beat::Nothing);
        (inlet, outlet)
    }

    #[test]
    fn a_peer_that_is_alive_and_does_not_answer_a_reclaim_is_found_out() {
        let (_inlet, mut outlet) = grown(&WindowMemory::default());
        assert!(matches!(outlet.handle_beat(true), Beat::Tell(_)));
        assert_eq!(outlet.handle_beat(true), Beat::Nothing);
        for _ in 0..10 {
            assert_eq!(
                outlet.handle_beat(false),
                Beat::Nothing,
                "nothing is heard: it may not have come to it"
            );
        }
        assert_eq!(outlet.handle_beat(true), Beat::Nothing);
        assert_eq!(outlet.handle_beat(true), Beat::Unanswered);
    }

    #[test]
    fn a_peer_that_keeps_credit_which_it_cannot_have_used_is_found_out() {
        let memory = WindowMemory::default();
        for kept in [1, u64::from(MAX_WINDOW)] {
            let (mut inlet, mut outlet) = grown(&memory);
            let Beat::Tell(PortalMessage::Reclaim(asked)) = outlet.handle_beat(true) else {
                panic!("it is taken back")
            };
            // What it may send of credit that it got meanwhile is its own.
            send(&mut inlet, &mut outlet, 10_000);
            deliver(&mut inlet, &mut outlet, 10_000);
            let returned = PortalMessage::Returned(asked.saturating_sub(kept));
            assert_eq!(feed(&mut outlet, &returned), Event::Withheld, "{kept}");
        }
    }

    #[test]
    fn an_idle_window_becomes_smaller_still_when_memory_is_scarce() {
        let memory = WindowMemory::new(1 << 20);
        let (mut inlet, mut outlet) = pair_with(&memory);
        assert_eq!(outlet.handle_beat(true), Beat::Nothing, "there is enough");
        let others: Vec<_> = (0..5).map(|_| pair_with(&memory)).collect();
        let before = memory.used();
        let Beat::Tell(reclaim) = outlet.handle_beat(true) else {
            panic!("it is taken back")
        };
        let Event::Answer(returned) = feed(&mut inlet, &reclaim) else {
            panic!("credit is returned")
        };
        assert_eq!(feed(&mut outlet, &returned), Event::Ignored);
        assert_eq!(outlet.window(), LEAST_WINDOW);
        assert_eq!(memory.used(), before - u64::from(MIN_WINDOW - LEAST_WINDOW));
        drop(others);
        for _ in 0..1000 {
            assert!(inlet.sendable() >= WORTHWHILE);
            let bytes = inlet.sendable().min(10_000);
            send(&mut inlet, &mut outlet, bytes);
            deliver(&mut inlet, &mut outlet, bytes);
        }
        assert!(outlet.window() > MIN_WINDOW, "it can be used again");
    }

    #[test]
    fn a_direction_that_is_over_holds_what_waits_and_no_more() {
        let memory = WindowMemory::default();
        let (mut inlet, mut outlet) = grown(&memory);
        send(&mut inlet, &mut outlet, 10_000);
        let end = inlet.handle_local_end().unwrap();
        assert_eq!(feed(&mut outlet, &end), Event::RemoteEnd);
        assert_eq!(memory.used(), u64::from(MIN_WINDOW) + cost(10_000));
        outlet.delivered(10_000);
        assert_eq!(memory.used(), u64::from(MIN_WINDOW));
    }

    #[test]
    fn without_memory_there_is_no_stream_and_with_little_a_small_one_that_works() {
        let memory = WindowMemory::new(2 * u64::from(LEAST_WINDOW));
        let (mut inlet, mut outlet) = pair_with(&memory);
        assert!(Stream::inlet(memory.clone(), false).is_none());
        assert!(Stream::outlet(memory.clone(), OURS).is_none());
        for _ in 0..1000 {
            assert!(inlet.sendable() >= WORTHWHILE);
            let bytes = inlet.sendable();
            send(&mut inlet, &mut outlet, bytes);
            assert_eq!(outlet.handle_message(&payload(5000)).unwrap(), Event::Overrun);
            deliver(&mut inlet, &mut outlet, bytes);
        }
        drop((inlet, outlet));
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn bytes_behind_the_ping_are_not_taken_into_a_window_that_is_too_small_for_them() {
        let memory = WindowMemory::new(2 * u64::from(LEAST_WINDOW));
        let (mut inlet, _) = Stream::inlet(WindowMemory::default(), true).unwrap();
        inlet.sent(20_000);
        let (outlet, pong) = Stream::outlet(memory, OURS).unwrap();
        assert!(!outlet.takes_early());
        assert_eq!(feed(&mut inlet, &pong), Event::Opened { early: false });
        assert_eq!(inlet.sendable(), outlet.window() as usize - MESSAGE_COST);
    }

    #[test]
    fn what_waits_of_a_stock_peer_is_counted_and_bounded() {
        let memory = WindowMemory::default();
        let (mut outlet, _) = Stream::outlet(memory.clone(), Offer::default()).unwrap();
        assert_eq!(memory.used(), u64::from(LEAST_WINDOW));
        let mut messages = 0;
        while outlet.has_room() {
            assert!(matches!(
                outlet.handle_message(&payload(48 * 1024)).unwrap(),
                Event::Data { .. }
            ));
            messages += 1;
            assert!(memory.used() >= messages * cost(48 * 1024));
        }
        assert!(memory.used() >= STOCK_BUFFER && memory.used() <= STOCK_BUFFER + 2 * STOCK_STEP);
        for _ in 0..messages {
            outlet.delivered(48 * 1024);
        }
        assert_eq!(memory.used(), u64::from(LEAST_WINDOW));
        // Where there is no more, what waits in the mailbox stays there.
        let memory = WindowMemory::new(u64::from(LEAST_WINDOW) + 60_000);
        let (mut outlet, _) = Stream::outlet(memory.clone(), Offer::default()).unwrap();
        assert!(outlet.has_room());
        outlet.handle_message(&payload(48 * 1024)).unwrap();
        assert!(!outlet.has_room());
        outlet.delivered(48 * 1024);
        assert!(outlet.has_room());
        assert_eq!(outlet.handle_message(&payload(100_000)).unwrap(), Event::NoMemory);
        drop(outlet);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn what_is_sent_behind_the_ping_is_bounded_and_counts_once() {
        let memory = WindowMemory::default();
        let (mut inlet, ping) = Stream::inlet(memory.clone(), true).unwrap();
        let PortalMessage::Ping(offer) = ping else {
            panic!()
        };
        let (mut outlet, pong) = Stream::outlet(memory, offer).unwrap();
        let mut early = 0;
        while inlet.sendable() > 0 {
            let bytes = inlet.sendable().min(4096);
            send(&mut inlet, &mut outlet, bytes);
            early += bytes + MESSAGE_COST;
        }
        assert!(early > EARLY / 2 && early <= EARLY);
        assert_eq!(feed(&mut inlet, &pong), Event::Opened { early: true });
        assert_eq!(
            inlet.sendable(),
            MIN_WINDOW as usize - early - MESSAGE_COST,
            "it is part of the window"
        );
        // An outlet that has forgotten.
        let (mut inlet, _) = Stream::inlet(WindowMemory::default(), true).unwrap();
        inlet.sent(1000);
        let answer = PortalMessage::Pong(Offer {
            window: Some(MIN_WINDOW),
            ..Offer::default()
        });
        assert_eq!(feed(&mut inlet, &answer), Event::Opened { early: false });
        assert_eq!(inlet.sendable(), MIN_WINDOW as usize - MESSAGE_COST);
    }

    proptest::proptest! {
        /// Whatever the two applications do, what waits never exceeds the window, and the stream never comes to a halt.
        #[test]
        fn a_stream_goes_on_within_its_window(
            steps in proptest::collection::vec((0usize..3, 1usize..50_000, 0usize..40), 1..400),
            memory in 2 * u64::from(LEAST_WINDOW)..8_000_000,
        ) {
            let memory = WindowMemory::new(memory);
            let (mut inlet, mut outlet) = pair_with(&memory);
            let mut waiting = std::collections::VecDeque::new();
            for (what, bytes, count) in steps {
                match what {
                    0 => for _ in 0..count {
                        let bytes = bytes.min(inlet.sendable());
                        if bytes > 0 {
                            send(&mut inlet, &mut outlet, bytes);
                            waiting.push_back(bytes);
                        }
                    },
                    1 => for _ in 0..count {
                        if let Some(bytes) = waiting.pop_front() {
                            deliver(&mut inlet, &mut outlet, bytes);
                        }
                    },
                    _ => if let Beat::Tell(reclaim) = outlet.handle_beat(true) {
                        let Event::Answer(returned) = feed(&mut inlet, &reclaim) else { panic!() };
                        proptest::prop_assert_eq!(feed(&mut outlet, &returned), Event::Ignored);
                        if let Some(credit) = outlet.poll_credit() {
                            feed(&mut inlet, &credit);
                        }
                    },
                }
                let waits: usize = waiting.iter().map(|bytes| bytes + MESSAGE_COST).sum();
                proptest::prop_assert!(waits <= MAX_WINDOW as usize);
                proptest::prop_assert!(memory.used() <= memory.limit());
            }
            for bytes in waiting {
                deliver(&mut inlet, &mut outlet, bytes);
            }
            proptest::prop_assert!(inlet.sendable() >= WORTHWHILE, "{inlet:?} {outlet:?}");
            drop((inlet, outlet));
            proptest::prop_assert_eq!(memory.used(), 0);
        }
    }

    #[test]
    fn one_direction_ends_before_the_other() {
        let (mut inlet, mut outlet) = pair();
        let end = inlet.handle_local_end().unwrap();
        assert_eq!(feed(&mut outlet, &end), Event::RemoteEnd);
        assert_eq!(inlet.sendable(), 0);
        assert!(outlet.sendable() > 0 && !outlet.is_finished());
        assert!(matches!(
            inlet.handle_message(&[3, 1, 7]).unwrap(),
            Event::Data { start: 2, end: 3 }
        ));
        let end = outlet.handle_local_end().unwrap();
        assert_eq!(feed(&mut inlet, &end), Event::RemoteEnd);
        assert!(inlet.is_finished() && outlet.is_finished());
    }

    #[test]
    fn with_a_stock_peer_the_end_of_one_direction_ends_both() {
        let mut inlet = with_stock_outlet();
        assert!(!inlet.has_window());
        assert_eq!(inlet.sendable(), usize::MAX);
        inlet.delivered(1_000_000_000);
        assert_eq!(inlet.poll_credit(), None);
        assert_eq!(inlet.handle_local_end(), Some(PortalMessage::Disconnect));
        assert!(inlet.is_lingering());
        assert!(
            matches!(inlet.handle_message(&[3, 1, 7]).unwrap(), Event::Data { .. }),
            "in flight, not lost"
        );
        assert_eq!(inlet.close(Reason::Finished, ""), None);
        let mut inlet = with_stock_outlet();
        assert_eq!(inlet.close(Reason::Reset, "x"), Some(PortalMessage::Disconnect));
    }

    #[test]
    fn a_reason_reaches_the_other_end() {
        let (mut inlet, mut outlet) = pair();
        let close = outlet.close(Reason::Denied, "no such attribute").unwrap();
        assert_eq!(
            feed(&mut inlet, &close),
            Event::Closed(Some((Reason::Denied, "no such attribute".into())))
        );
        assert!(inlet.is_finished());
        assert_eq!(inlet.close(Reason::Finished, ""), None);
    }

    #[test]
    fn a_disconnect_before_the_pong_closes_too() {
        let mut inlet = asking();
        assert_eq!(
            inlet.handle_message(&[3, 1, 7]).unwrap(),
            Event::Ignored,
            "data before the Pong"
        );
        assert_eq!(feed(&mut inlet, &PortalMessage::Disconnect), Event::Closed(None));
    }

    #[test]
    fn pings_pongs_and_extensions_that_were_not_agreed_are_ignored() {
        let mut inlet = with_stock_outlet();
        for message in [
            PortalMessage::Ping(OURS),
            PortalMessage::Pong(OURS),
            PortalMessage::Credit(u64::MAX),
            PortalMessage::End,
        ] {
            assert_eq!(feed(&mut inlet, &message), Event::Ignored);
        }
        assert!(inlet.handle_message(&[9]).is_err());
        let (mut inlet, _) = pair();
        for _ in 0..10 {
            assert_eq!(feed(&mut inlet, &PortalMessage::Credit(u64::MAX)), Event::Credit);
        }
        assert!(inlet.sendable() <= u32::MAX as usize);
    }
}

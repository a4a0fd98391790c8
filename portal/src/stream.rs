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
//! window begins with [`MIN_WINDOW`]. It doubles, up to [`MAX_WINDOW`], when credit is due and nothing waits, that is when the
//! application takes all there is and could take more; it is halved when the application is behind by more than half of
//! it. What a window has beyond the smallest is taken from a [`WindowMemory`] that all streams of a node share. When that
//! has nothing left, windows stay as they are, and those that are much larger than one that wants to grow become smaller.
//! A window that has not been used for a while is taken back, so that idle streams hold nothing.
//!
//! With a stock peer there is no window, and the end of one direction ends both (spec 01 §10.5).

use crate::memory::WindowMemory;
use crate::protocol::{Offer, PortalMessage, Reason};

/// What each message costs of a window beside its bytes: more than the memory that a waiting message takes, so that a
/// window bounds memory also when the messages are tiny.
pub const MESSAGE_COST: usize = 512;

/// The window that every stream has, in bytes: what the other end may have in flight towards an application that does not
/// read.
pub const MIN_WINDOW: u32 = 64 * 1024;

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
    /// Nothing to do.
    Ignored,
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
    /// What we have taken from the memory.
    taken: u64,
    received: bool,
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
    pub fn inlet(memory: WindowMemory, early: bool) -> (Self, PortalMessage) {
        let mut stream = Self::new(Role::Inlet, Phase::Opening, memory);
        stream.early_allowed = early;
        (stream, PortalMessage::Ping(OURS))
    }

    /// The outlet's end, after a Ping with this offer, and the Pong to send when the target is connected.
    pub fn outlet(memory: WindowMemory, offer: Offer) -> (Self, PortalMessage) {
        let mut stream = Self::new(Role::Outlet, Phase::Open, memory);
        stream.agree(offer);
        let answer = Offer {
            window: offer.window.map(|_| MIN_WINDOW),
            ..stream.agreed
        };
        (stream, PortalMessage::Pong(answer))
    }

    fn new(role: Role, phase: Phase, memory: WindowMemory) -> Self {
        Self {
            role,
            phase,
            agreed: Offer::default(),
            credit: 0,
            early: 0,
            early_allowed: false,
            window: MIN_WINDOW,
            granted: u64::from(MIN_WINDOW),
            waiting: 0,
            memory,
            taken: 0,
            received: false,
            local_end: false,
            remote_end: false,
            carried: false,
        }
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
            self.window = (self.window / 2).max(MIN_WINDOW);
        } else if self.waiting == 0 {
            self.grow();
        }
        self.settle();
        let free = self.free();
        self.granted += free;
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

    /// Gives back to the memory what is no longer promised.
    fn settle(&mut self) {
        let promised = u64::from(self.window).max(self.granted + self.waiting);
        let spare = (self.taken + u64::from(MIN_WINDOW)).saturating_sub(promised);
        self.taken -= spare;
        self.memory.give_back(spare);
    }

    /// To be called every now and then, such as with each sign of life: a window that was not used since the last time is
    /// taken back. Returns what tells the other end.
    pub fn handle_beat(&mut self) -> Option<PortalMessage> {
        let used = std::mem::take(&mut self.received);
        if used || !self.agreed.reclaim || self.phase != Phase::Open || self.window == MIN_WINDOW {
            return None;
        }
        self.window = MIN_WINDOW;
        self.settle();
        let excess = (self.granted + self.waiting).saturating_sub(u64::from(MIN_WINDOW));
        let excess = excess.min(self.granted);
        (excess > 0).then_some(PortalMessage::Reclaim(excess))
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
                self.granted = self.granted.saturating_sub(bytes);
                self.settle();
                Event::Ignored
            }
            (Phase::Open, PortalMessage::End) if self.agreed.half_close && !self.remote_end => {
                self.remote_end = true;
                if self.local_end {
                    self.phase = Phase::Ended;
                }
                Event::RemoteEnd
            }
            _ => Event::Ignored,
        })
    }

    fn handle_payload(&mut self, start: usize, end: usize) -> Event {
        if self.agreed.window.is_some() {
            let cost = cost(end - start);
            let Some(granted) = self.granted.checked_sub(cost) else {
                return Event::Overrun;
            };
            self.granted = granted;
            // What has no bytes waits for nobody.
            self.waiting += if end > start { cost } else { 0 };
            self.received = true;
        }
        if start == end {
            return Event::Ignored;
        }
        self.carried = true;
        Event::Data { start, end }
    }

    fn closed(&mut self, reason: Option<(Reason, String)>) -> Event {
        self.phase = Phase::Ended;
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
        let (mut inlet, ping) = Stream::inlet(memory.clone(), false);
        let PortalMessage::Ping(offer) = PortalMessage::decode(&ping.encode()).unwrap() else {
            panic!("{ping:?}")
        };
        let (outlet, pong) = Stream::outlet(memory.clone(), offer);
        assert_eq!(feed(&mut inlet, &pong), Event::Opened { early: false });
        assert!(inlet.takes_early());
        (inlet, outlet)
    }

    fn pair() -> (Stream, Stream) {
        pair_with(&WindowMemory::default())
    }

    fn asking() -> Stream {
        Stream::inlet(WindowMemory::default(), false).0
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
        assert_eq!(memory.used(), u64::from(MAX_WINDOW - MIN_WINDOW));
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
        assert_eq!(memory.used(), 0, "what was promised was used up");
    }

    #[test]
    fn all_windows_together_promise_no_more_than_the_memory_of_the_node() {
        let memory = WindowMemory::new(1024 * 1024);
        let mut pairs: Vec<_> = (0..20).map(|_| pair_with(&memory)).collect();
        for _ in 0..2000 {
            for (inlet, outlet) in &mut pairs {
                send(inlet, outlet, 10_000);
                deliver(inlet, outlet, 10_000);
                assert!(memory.used() <= memory.limit());
            }
        }
        let windows = pairs.iter().map(|(_, outlet)| outlet.window());
        let total: u64 = windows.clone().map(|window| u64::from(window - MIN_WINDOW)).sum();
        assert!(total <= memory.limit());
        assert!(total >= memory.limit() / 4, "it is used");
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
        assert_eq!(outlet.handle_beat(), None, "it was used since the last beat");
        let reclaim = outlet.handle_beat().unwrap();
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

    #[test]
    fn what_is_sent_behind_the_ping_is_bounded_and_counts_once() {
        let memory = WindowMemory::default();
        let (mut inlet, ping) = Stream::inlet(memory.clone(), true);
        let PortalMessage::Ping(offer) = ping else {
            panic!()
        };
        let (mut outlet, pong) = Stream::outlet(memory, offer);
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
        let (mut inlet, _) = Stream::inlet(WindowMemory::default(), true);
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
            memory in 0u64..8_000_000,
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
                    _ => if let Some(reclaim) = outlet.handle_beat() {
                        let Event::Answer(returned) = feed(&mut inlet, &reclaim) else { panic!() };
                        feed(&mut outlet, &returned);
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
            proptest::prop_assert!(inlet.sendable() >= 16 * 1024, "{inlet:?} {outlet:?}");
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

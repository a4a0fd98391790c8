//! The core of one portal connection, the same at both ends: no socket, no clock, no actor.
//!
//! There are four kinds of methods, to be called in any order unless said otherwise:
//!
//! * **getters**: [`is_open`](Stream::is_open), [`is_finished`](Stream::is_finished), [`has_window`](Stream::has_window).
//! * **`handle_*`**, for what arrives: [`handle_message`](Stream::handle_message) for each message of the other end, in
//!   order; [`handle_local_end`](Stream::handle_local_end) when the application has sent its last byte.
//! * **for the application's bytes**: [`sendable`](Stream::sendable) says how many may be read from it and sent,
//!   [`sent`](Stream::sent) that they were, [`delivered`](Stream::delivered) that received bytes were written to it.
//! * **what to send** is returned by all of these as [`PortalMessage`]s.
//!
//! With a stock peer there is no window, and the end of one direction ends both (spec 01 §10.5).

use crate::protocol::{Offer, PortalMessage, Reason};

/// What each message costs of a window beside its bytes: the memory that a waiting message takes, so that a window
/// bounds memory also when the messages are tiny.
pub const MESSAGE_COST: usize = 512;

/// The window that we offer, in bytes: what the other end may have in flight towards an application that does not
/// read. Two mebibytes keep a path busy at 10 Gbit/s with a round trip of 1.6 ms.
pub const WINDOW: u32 = 2 * 1024 * 1024;

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
    Opened,
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
    /// Nothing to do.
    Ignored,
}

/// One end of a portal connection.
#[derive(Debug)]
pub struct Stream {
    role: Role,
    phase: Phase,
    agreed: Offer,
    /// What we may still send; may go below zero by one message.
    credit: i64,
    /// What was delivered and is not yet credited to the other end.
    delivered: u64,
    local_end: bool,
    remote_end: bool,
    carried: bool,
}

/// What we can do.
const OURS: Offer = Offer {
    window: Some(WINDOW),
    half_close: true,
    reasons: true,
};

impl Stream {
    /// The inlet's end, and the Ping to send to the outlet.
    pub fn inlet() -> (Self, PortalMessage) {
        (Self::new(Role::Inlet, Phase::Opening), PortalMessage::Ping(OURS))
    }

    /// The outlet's end, after a Ping with this offer, and the Pong to send when the target is connected.
    pub fn outlet(offer: Offer) -> (Self, PortalMessage) {
        let mut stream = Self::new(Role::Outlet, Phase::Open);
        stream.agree(offer);
        let answer = Offer {
            window: offer.window.map(|_| WINDOW),
            half_close: stream.agreed.half_close,
            reasons: stream.agreed.reasons,
        };
        (stream, PortalMessage::Pong(answer))
    }

    fn new(role: Role, phase: Phase) -> Self {
        Self {
            role,
            phase,
            agreed: Offer::default(),
            credit: 0,
            delivered: 0,
            local_end: false,
            remote_end: false,
            carried: false,
        }
    }

    fn agree(&mut self, theirs: Offer) {
        self.agreed = Offer {
            window: theirs.window,
            half_close: theirs.half_close && OURS.half_close,
            reasons: theirs.reasons && OURS.reasons,
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

    /// How many bytes may be sent in one message now; 0 means that credit must come first.
    pub fn sendable(&self) -> usize {
        if self.phase != Phase::Open || self.local_end {
            0
        } else if self.agreed.window.is_some() {
            usize::try_from(self.credit - MESSAGE_COST as i64).unwrap_or(0)
        } else {
            usize::MAX
        }
    }

    /// Bytes were sent in one message.
    pub fn sent(&mut self, bytes: usize) {
        self.carried = true;
        if self.agreed.window.is_some() {
            self.credit -= (bytes + MESSAGE_COST) as i64;
        }
    }

    /// Bytes of one message were given to the application. Returns credit to send, once enough has come together.
    pub fn delivered(&mut self, bytes: usize) -> Option<PortalMessage> {
        self.agreed.window?;
        self.delivered += (bytes + MESSAGE_COST) as u64;
        if self.phase == Phase::Open && !self.remote_end && self.delivered >= u64::from(WINDOW / 4) {
            return Some(PortalMessage::Credit(std::mem::take(&mut self.delivered)));
        }
        None
    }

    /// The application has sent its last byte. Returns what tells the other end; a stock peer ends both directions
    /// then.
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
                Event::Opened
            }
            (_, PortalMessage::Disconnect) => self.closed(None),
            (_, PortalMessage::Close(reason, text)) => self.closed(Some((reason, text))),
            (Phase::Open, PortalMessage::Payload { start, end }) if !self.remote_end => {
                self.carried = true;
                Event::Data { start, end }
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

    fn closed(&mut self, reason: Option<(Reason, String)>) -> Event {
        self.phase = Phase::Ended;
        Event::Closed(reason)
    }

    /// Ends the stream from our side. Returns what to tell the other end.
    ///
    /// An outlet that refuses a stock inlet must send a Pong first (spec 01 §10.4): [`Stream::outlet`] made it.
    pub fn close(&mut self, reason: Reason, text: &str) -> Option<PortalMessage> {
        let tell = match self.phase {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(stream: &mut Stream, message: &PortalMessage) -> Event {
        stream.handle_message(&message.encode()).unwrap()
    }

    fn pair() -> (Stream, Stream) {
        let (mut inlet, ping) = Stream::inlet();
        let PortalMessage::Ping(offer) = PortalMessage::decode(&ping.encode()).unwrap() else {
            panic!("{ping:?}")
        };
        let (outlet, pong) = Stream::outlet(offer);
        assert_eq!(feed(&mut inlet, &pong), Event::Opened);
        (inlet, outlet)
    }

    /// An inlet whose outlet knows no extension.
    fn with_stock_outlet() -> Stream {
        let (mut inlet, _) = Stream::inlet();
        assert_eq!(
            feed(&mut inlet, &PortalMessage::Pong(Offer::default())),
            Event::Opened
        );
        inlet
    }

    #[test]
    fn nothing_is_sent_beyond_the_window_and_credit_opens_it_again() {
        let (mut inlet, mut outlet) = pair();
        let mut in_flight = 0;
        while inlet.sendable() > 0 {
            let bytes = inlet.sendable().min(100_000);
            inlet.sent(bytes);
            in_flight += bytes + MESSAGE_COST;
        }
        assert!(in_flight <= WINDOW as usize);
        let mut credited = 0;
        while inlet.sendable() < 100_000 {
            if let Some(credit) = outlet.delivered(100_000) {
                assert_eq!(feed(&mut inlet, &credit), Event::Credit);
                credited += 1;
            }
        }
        assert!(credited > 0);
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
        assert_eq!(inlet.delivered(1_000_000_000), None);
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
        let (mut inlet, _) = Stream::inlet();
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

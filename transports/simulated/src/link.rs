//! What lies between two nodes, and what is on its way there. No tasks, and time as a parameter.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Messages and bytes that may be on their way in one direction of a connection; further ones wait at their sender, as they do
/// in front of a full socket.
pub const WINDOW: (usize, usize) = (256, 2 * 1024 * 1024);

/// The first pause of a sender after which it repeats what was lost; each further one is twice as long. That of TCP in Linux.
const REPEAT: Duration = Duration::from_millis(200);
/// So often the same message is lost at most, so that a link that loses everything is slow and not dead.
const MOST_REPEATS: u32 = 8;

/// How a connection carries messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// All messages, in order, each once, or the end of the connection: as over TCP. What is lost is repeated, which shows as a
    /// delay; what comes into a partition waits there until that heals or the connection is given up.
    #[default]
    Stream,
    /// Each message by itself, as over UDP: what is lost is gone, and what is faster comes first.
    Datagram,
}

/// What lies between two nodes. The same in both directions.
///
/// The timers below know milliseconds; what is shorter is rounded up.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// How long a message takes at least. Default: 10 ms.
    pub latency: Duration,
    /// How much longer it may take: each message something between nothing and this. Default: nothing.
    pub jitter: Duration,
    /// How likely it is that a message is lost, from 0 to 1. Default: 0.
    pub loss: f64,
    /// Bytes per second in each direction, of all connections between the two nodes together. Default: no limit.
    pub bandwidth: Option<u64>,
    /// What connections are like. A connection keeps what it began with. Default: [`Mode::Stream`].
    pub mode: Mode,
    /// After this long in a partition, or without progress of what it has sent, an end gives a stream up. Default: 60 s: so long
    /// our TCP connections ask in vain whether the peer is still there.
    pub give_up_after: Duration,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: 0.0,
            bandwidth: None,
            mode: Mode::Stream,
            give_up_after: Duration::from_secs(60),
        }
    }
}

impl Link {
    /// How long a message takes on its way, with this chance.
    pub(crate) fn delay(&self, chance: &mut impl FnMut() -> f64) -> Duration {
        self.latency + self.jitter.mul_f64(chance())
    }

    pub(crate) fn loses(&self, chance: &mut impl FnMut() -> f64) -> bool {
        self.loss > 0.0 && chance() < self.loss
    }

    /// How long it takes to say something that is repeated until it is heard.
    pub(crate) fn repeated_delay(&self, chance: &mut impl FnMut() -> f64) -> Duration {
        let mut delay = self.delay(chance);
        for repeat in 0..MOST_REPEATS {
            if !self.loses(chance) {
                break;
            }
            delay += REPEAT * 2u32.pow(repeat);
        }
        delay
    }
}

/// How a direction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// After all that was sent.
    Closed,
    /// At once: what was on its way is gone.
    Reset,
}

/// What is on its way in one direction of a connection.
#[derive(Debug)]
pub(crate) struct Flight {
    mode: Mode,
    /// In the order of arrival.
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Nothing arrives before this.
    not_before: Option<Instant>,
    /// When the last frame that was sent arrives.
    last: Option<Instant>,
    /// When something was sent into an empty flight, or arrived.
    progress: Option<Instant>,
    end: Option<(Instant, End)>,
    /// Nobody listens any more.
    pub(crate) unheard: bool,
}

#[derive(Debug)]
struct Frame {
    at: Instant,
    bytes: Vec<u8>,
}

/// What there is to do for a receiver.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Frame(Vec<u8>),
    End(End),
    /// Nothing before this.
    At(Instant),
    Nothing,
}

impl Flight {
    pub(crate) fn new(mode: Mode) -> Self {
        Self {
            mode,
            frames: VecDeque::new(),
            bytes: 0,
            not_before: None,
            last: None,
            progress: None,
            end: None,
            unheard: false,
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    pub(crate) fn has_room(&self) -> bool {
        self.is_over() || (self.frames.len() < WINDOW.0 && self.bytes < WINDOW.1)
    }

    /// Whether nothing that is sent arrives any more.
    pub(crate) fn is_over(&self) -> bool {
        self.unheard || self.end.is_some()
    }

    /// Sends a frame that has left at `departure` and takes `delay`.
    pub(crate) fn send(&mut self, now: Instant, departure: Instant, delay: Duration, bytes: Vec<u8>) {
        if self.is_over() {
            return;
        }
        let mut at = departure + delay;
        if self.mode == Mode::Stream {
            at = self.last.map_or(at, |last| last.max(at));
            self.last = Some(at);
        }
        if self.frames.is_empty() {
            self.progress = Some(now);
        }
        self.bytes += bytes.len();
        let place = self.frames.partition_point(|frame| frame.at <= at);
        self.frames.insert(place, Frame { at, bytes });
    }

    /// Ends the direction; what is told last takes `delay`.
    pub(crate) fn end(&mut self, now: Instant, delay: Duration, end: End) {
        if self.end.is_some_and(|(_, end)| end == End::Reset) {
            return;
        }
        let mut at = now + delay;
        match end {
            End::Closed if self.end.is_some() => return,
            End::Closed => at = self.last.map_or(at, |last| last.max(at)),
            End::Reset => {
                self.drop_frames();
            }
        }
        self.end = Some((at, end));
    }

    /// Loses all that is on its way, and says how many messages that were.
    pub(crate) fn drop_frames(&mut self) -> usize {
        self.bytes = 0;
        std::mem::take(&mut self.frames).len()
    }

    /// Nothing arrives before this, except what is later anyway.
    pub(crate) fn hold(&mut self, until: Instant) {
        self.not_before = self.not_before.max(Some(until));
    }

    pub(crate) fn arrive(&mut self, now: Instant) -> Arrival {
        let held = |at: Instant| self.not_before.map_or(at, |until| until.max(at));
        if let Some(frame) = self.frames.front() {
            let at = held(frame.at);
            if at > now {
                return Arrival::At(at);
            }
            self.progress = Some(now);
            let bytes = self
                .frames
                .pop_front()
                .map(|frame| frame.bytes)
                .unwrap_or_default();
            self.bytes -= bytes.len();
            return Arrival::Frame(bytes);
        }
        match self.end {
            Some((at, _)) if held(at) > now => Arrival::At(held(at)),
            Some((_, end)) => Arrival::End(end),
            None => Arrival::Nothing,
        }
    }

    /// When what was sent is given up, if nothing arrives until then.
    pub(crate) fn gives_up(&self, after: Duration) -> Option<Instant> {
        let waits = self.mode == Mode::Stream && !self.frames.is_empty();
        self.progress.filter(|_| waits).map(|progress| progress + after)
    }
}

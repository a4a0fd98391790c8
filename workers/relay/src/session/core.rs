//! The state machine of a session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Timing of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    /// Time between pings. Default: 10 s (spec 03 §2.5).
    pub ping_interval: Duration,
    /// Unanswered pings after which a path is given up, when the next ping is due. Default: 3 (spec 03 §2.5), that is
    /// 30 s after the first of them.
    pub unanswered_pings: usize,
    /// Longest time that building a path may take. Default: 45 s: what a registration may take, 30 s, and a handshake.
    pub connect_timeout: Duration,
    /// Delay before the second attempt; the first follows at once. Default: 0.5 s.
    pub first_delay: Duration,
    /// The delay doubles with each failure up to this. Default: 10 s, shortened by chance to 5 s at least, the fixed
    /// delay of the reference.
    pub longest_delay: Duration,
    /// A path that lasted that long was a good one: when it ends, the count of failures starts anew. Default: 10 s.
    pub stable_after: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(10),
            unanswered_pings: 3,
            connect_timeout: Duration::from_secs(45),
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(10),
            stable_after: Duration::from_secs(10),
        }
    }
}

impl SessionSettings {
    /// The delay after this many failures in a row, shortened by chance.
    fn delay(&self, failures: u32, random: u64) -> Duration {
        let Some(doublings) = failures.checked_sub(2) else {
            return Duration::ZERO;
        };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let longest = self.first_delay.saturating_mul(factor).min(self.longest_delay);
        let fraction = (random >> 32) as f64 / f64::from(u32::MAX);
        longest.mul_f64(0.5 + fraction / 2.0)
    }
}

/// Whether there is a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// It is being built.
    Connecting,
    /// It is there.
    Up,
    /// There is none, and it will be tried again later.
    Down,
}

/// What the session wants done. Actions are done in the order in which they are polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Begin to build a path, and tell the outcome by [`Session::handle_connected`] or [`Session::handle_failed`].
    Connect,
    /// Send a ping with this content along the path.
    Ping(u64),
    /// Close the path, or stop building it.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Connecting { deadline: Instant },
    Up { since: Instant, next_ping: Instant },
    Down { retry: Instant },
}

/// One session.
///
/// Its methods are of four kinds: getters; `handle_*` for what happened, with the time and, where chance is needed,
/// random bits; [`poll_action`](Self::poll_action) for what is to be done; [`poll_timeout`](Self::poll_timeout) for
/// when to call [`handle_timeout`](Self::handle_timeout). After each `handle_*`, poll actions until there are none.
#[derive(Debug)]
pub struct Session {
    settings: SessionSettings,
    phase: Phase,
    actions: VecDeque<Action>,
    /// Pings that were sent and not answered, with their time. At most `unanswered_pings`.
    outstanding: Vec<(u64, Instant)>,
    /// Failures since the last path that was a good one; a good path that ended counts as the first.
    failures: u32,
    connected: u64,
    reason: Option<Arc<str>>,
    round_trip: Option<Duration>,
}

impl Session {
    /// A session that has not been started.
    pub fn new(settings: SessionSettings) -> Self {
        Self {
            settings,
            phase: Phase::Idle,
            actions: VecDeque::new(),
            outstanding: Vec::new(),
            failures: 0,
            connected: 0,
            reason: None,
            round_trip: None,
        }
    }

    /// Whether there is a path.
    pub fn state(&self) -> SessionState {
        match self.phase {
            Phase::Connecting { .. } => SessionState::Connecting,
            Phase::Up { .. } => SessionState::Up,
            Phase::Idle | Phase::Down { .. } => SessionState::Down,
        }
    }

    /// Why the last path ended, or the last attempt failed. Stays when the session is up again.
    pub fn reason(&self) -> Option<&Arc<str>> {
        self.reason.as_ref()
    }

    /// How often a path was built, after the first time.
    pub fn reconnects(&self) -> u64 {
        self.connected.saturating_sub(1)
    }

    /// The time that the last answered ping took, on the present path.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// When the next attempt begins, if there is no path and none is being built.
    pub fn retry_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Down { retry } => Some(retry),
            _ => None,
        }
    }

    /// Begins.
    pub fn handle_start(&mut self, now: Instant) {
        if self.phase == Phase::Idle {
            self.connect(now);
        }
    }

    /// The path is there.
    pub fn handle_connected(&mut self, now: Instant, random: u64) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        self.connected += 1;
        self.round_trip = None;
        self.outstanding.clear();
        self.phase = Phase::Up {
            since: now,
            next_ping: now,
        };
        self.ping(now, random);
    }

    /// The path could not be built.
    pub fn handle_failed(&mut self, now: Instant, reason: &str, random: u64) {
        if matches!(self.phase, Phase::Connecting { .. }) {
            self.fail(now, reason, random);
        }
    }

    /// The path has ended, as the runtime reports.
    pub fn handle_lost(&mut self, now: Instant, reason: &str, random: u64) {
        let Phase::Up { since, .. } = self.phase else {
            return;
        };
        if now.saturating_duration_since(since) >= self.settings.stable_after {
            self.failures = 0;
        }
        self.outstanding.clear();
        self.round_trip = None;
        self.fail(now, reason, random);
    }

    /// A ping came back. The content of any unanswered ping shows that the path is good; anything else means nothing.
    pub fn handle_pong(&mut self, now: Instant, content: u64) {
        if !matches!(self.phase, Phase::Up { .. }) {
            return;
        }
        if let Some((_, sent)) = self.outstanding.iter().find(|(ping, _)| *ping == content) {
            self.round_trip = Some(now.saturating_duration_since(*sent));
            self.outstanding.clear();
        }
    }

    /// When to call [`Session::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle => None,
            Phase::Connecting { deadline } => Some(deadline),
            Phase::Up { next_ping, .. } => Some(next_ping),
            Phase::Down { retry } => Some(retry),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant, random: u64) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        match self.phase {
            Phase::Idle => {}
            Phase::Down { .. } => self.connect(now),
            Phase::Connecting { .. } => {
                let reason = format!(
                    "there was no connection within {:?}",
                    self.settings.connect_timeout
                );
                self.fail(now, &reason, random);
            }
            Phase::Up { .. } if self.outstanding.len() >= self.settings.unanswered_pings => {
                let reason = format!("{} pings remained unanswered", self.outstanding.len());
                self.handle_lost(now, &reason, random);
            }
            Phase::Up { .. } => self.ping(now, random),
        }
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn connect(&mut self, now: Instant) {
        self.phase = Phase::Connecting {
            deadline: now + self.settings.connect_timeout,
        };
        self.actions.push_back(Action::Connect);
    }

    fn ping(&mut self, now: Instant, random: u64) {
        if let Phase::Up { next_ping, .. } = &mut self.phase {
            *next_ping = now + self.settings.ping_interval;
            self.outstanding.push((random, now));
            self.actions.push_back(Action::Ping(random));
        }
    }

    fn fail(&mut self, now: Instant, reason: &str, random: u64) {
        self.failures = self.failures.saturating_add(1);
        self.reason = Some(reason.into());
        // Nothing is left behind, and a ping that was not sent yet is not sent any more.
        self.actions.clear();
        self.actions.push_back(Action::Close);
        let was_up = matches!(self.phase, Phase::Up { .. });
        // The first attempt ever is a failure without a path before it: only a lost path is built again at once.
        if !was_up && self.failures == 1 {
            self.failures = 2;
        }
        let delay = self.settings.delay(self.failures, random);
        if delay.is_zero() {
            self.connect(now);
        } else {
            self.phase = Phase::Down { retry: now + delay };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A session and a clock that is moved by hand.
    struct World {
        session: Session,
        now: Instant,
        begin: Instant,
        random: u64,
        actions: Vec<Action>,
    }

    impl World {
        fn new() -> Self {
            let now = Instant::now();
            let mut world = Self {
                session: Session::new(SessionSettings::default()),
                now,
                begin: now,
                random: 0,
                actions: Vec::new(),
            };
            world.session.handle_start(now);
            world.collect();
            world
        }

        fn up() -> Self {
            let mut world = Self::new();
            world.connected();
            world.actions.clear();
            world
        }

        fn random(&mut self) -> u64 {
            self.random += 1;
            self.random
        }

        fn collect(&mut self) {
            while let Some(action) = self.session.poll_action() {
                self.actions.push(action);
            }
        }

        fn taken(&mut self) -> Vec<Action> {
            std::mem::take(&mut self.actions)
        }

        fn connected(&mut self) {
            let random = self.random();
            self.session.handle_connected(self.now, random);
            self.collect();
        }

        fn failed(&mut self) {
            let random = self.random();
            self.session.handle_failed(self.now, "refused", random);
            self.collect();
        }

        fn lost(&mut self) {
            let random = self.random();
            self.session.handle_lost(self.now, "cut", random);
            self.collect();
        }

        /// Moves the clock to the next timeout and says how long that took.
        fn step(&mut self) -> Duration {
            let due = self.session.poll_timeout().unwrap();
            let waited = due.saturating_duration_since(self.now);
            self.now = self.now.max(due);
            let random = self.random();
            self.session.handle_timeout(self.now, random);
            self.collect();
            waited
        }

        fn seconds(&self) -> u64 {
            self.now.duration_since(self.begin).as_secs()
        }
    }

    #[test]
    fn a_session_connects_at_once_and_pings_at_once_when_connected() {
        let mut world = World::new();
        assert_eq!(world.taken(), [Action::Connect]);
        assert_eq!(world.session.state(), SessionState::Connecting);
        world.connected();
        assert_eq!(world.taken(), [Action::Ping(1)]);
        assert_eq!(world.session.state(), SessionState::Up);
        assert_eq!(world.session.reconnects(), 0);
    }

    #[test]
    fn three_unanswered_pings_end_a_path_when_the_fourth_is_due() {
        let mut world = World::up();
        world.step();
        world.step();
        assert_eq!(world.taken().len(), 2);
        assert_eq!(world.session.state(), SessionState::Up);
        world.step();
        assert_eq!(world.seconds(), 30);
        assert_eq!(world.taken(), [Action::Close, Action::Connect]);
        assert_eq!(
            world.session.reason().unwrap().as_ref(),
            "3 pings remained unanswered"
        );
    }

    #[test]
    fn any_answer_clears_all_unanswered_pings_and_measures_the_way() {
        let mut world = World::up();
        world.step();
        world.now += Duration::from_millis(40);
        world.session.handle_pong(world.now, 99);
        assert_eq!(world.session.round_trip(), None);
        // The first of the two.
        world.session.handle_pong(world.now, 1);
        assert_eq!(world.session.round_trip(), Some(Duration::from_millis(10_040)));
        for _ in 0..100 {
            world.step();
            let Some(Action::Ping(content)) = world.taken().pop() else {
                panic!("a ping is due");
            };
            world.now += Duration::from_millis(3);
            world.session.handle_pong(world.now, content);
        }
        assert_eq!(world.session.state(), SessionState::Up);
        assert_eq!(world.session.round_trip(), Some(Duration::from_millis(3)));
    }

    #[test]
    fn a_good_path_that_is_cut_is_built_again_at_once() {
        let mut world = World::up();
        world.now += Duration::from_secs(60);
        world.lost();
        assert_eq!(world.taken(), [Action::Close, Action::Connect]);
        assert_eq!(world.session.state(), SessionState::Connecting);
        assert_eq!(world.session.reason().unwrap().as_ref(), "cut");
        world.connected();
        assert_eq!(world.session.reconnects(), 1);
        assert_eq!(world.session.reason().unwrap().as_ref(), "cut");
    }

    #[test]
    fn delays_grow_and_are_never_longer_than_the_longest() {
        let mut world = World::new();
        let mut longest = Duration::from_millis(500);
        for _ in 0..40 {
            world.failed();
            assert_eq!(world.session.state(), SessionState::Down);
            let waited = world.step();
            assert!(
                waited >= longest / 2 && waited <= longest,
                "{waited:?} of {longest:?}"
            );
            longest = (longest * 2).min(Duration::from_secs(10));
        }
    }

    #[test]
    fn a_path_that_ends_again_and_again_is_not_built_in_a_hot_loop() {
        let mut world = World::up();
        let mut attempts = 0;
        while world.seconds() < 60 {
            world.lost();
            if world.session.state() == SessionState::Down {
                world.step();
            }
            attempts += 1;
            world.connected();
        }
        assert!(attempts < 25, "{attempts} attempts in a minute");
    }

    #[test]
    fn delays_differ_by_chance() {
        let settings = SessionSettings::default();
        assert_eq!(settings.delay(10, 0), Duration::from_secs(5));
        assert_eq!(settings.delay(10, u64::MAX), Duration::from_secs(10));
        assert_eq!(settings.delay(u32::MAX, u64::MAX), Duration::from_secs(10));
    }

    #[test]
    fn an_attempt_that_takes_too_long_is_given_up() {
        let mut world = World::new();
        world.actions.clear();
        assert_eq!(world.step(), Duration::from_secs(45));
        assert_eq!(world.taken(), [Action::Close]);
        assert_eq!(world.session.state(), SessionState::Down);
        world.connected();
        assert_eq!(
            world.session.state(),
            SessionState::Down,
            "its outcome comes too late"
        );
    }

    #[test]
    fn an_answer_to_a_ping_of_an_earlier_path_means_nothing() {
        let mut world = World::up();
        world.lost();
        world.connected();
        world.session.handle_pong(world.now, 1);
        assert_eq!(world.session.round_trip(), None);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Connected,
        Failed,
        Lost,
        Pong(u64),
        Later(u16),
        Due,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Connected),
            Just(Event::Failed),
            Just(Event::Lost),
            (0..20u64).prop_map(Event::Pong),
            (0..20_000u16).prop_map(Event::Later),
            Just(Event::Due),
        ]
    }

    proptest! {
        /// In any order of events: paths are closed before they are built anew, what is kept is bounded, and a
        /// session that was started always waits for something.
        #[test]
        fn actions_make_sense_whatever_happens(events in proptest::collection::vec(event(), 0..200)) {
            let mut world = World::new();
            let mut building = true;
            let mut open = false;
            world.actions.clear();
            for event in events {
                match event {
                    Event::Connected => {
                        open |= building;
                        building = false;
                        world.connected();
                    }
                    Event::Failed => world.failed(),
                    Event::Lost => world.lost(),
                    Event::Pong(content) => world.session.handle_pong(world.now, content),
                    Event::Later(milliseconds) => world.now += Duration::from_millis(milliseconds.into()),
                    Event::Due => {
                        world.step();
                    }
                }
                for action in world.taken() {
                    match action {
                        Action::Connect => {
                            prop_assert!(!open && !building);
                            building = true;
                        }
                        Action::Close => (open, building) = (false, false),
                        Action::Ping(_) => prop_assert!(open),
                    }
                }
                prop_assert_eq!(open, world.session.state() == SessionState::Up);
                prop_assert_eq!(building, world.session.state() == SessionState::Connecting);
                prop_assert!(world.session.outstanding.len() <= 3);
                prop_assert!(world.session.poll_timeout().is_some());
            }
        }
    }
}

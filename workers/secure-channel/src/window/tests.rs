//! The window on paths of every length, without a path: time is a number.

use proptest::prelude::*;

use super::*;

/// A path with one narrow place, and a sender that always has something to send.
struct Path {
    window: SendWindow,
    arrivals: Arrivals,
    start: Instant,
    now: Duration,
    /// From end to end and back.
    round_trip: Duration,
    /// Bytes per second.
    rate: f64,
    /// When the narrow place has done all that it was given.
    busy_until: Duration,
    /// Receipts on their way back, by when they are there.
    receipts: VecDeque<(Duration, u64)>,
    delivered: u64,
}

const MESSAGE: usize = 64 * 1024;

impl Path {
    fn new(round_trip: Duration, rate: f64) -> Self {
        Self {
            window: SendWindow::new(),
            arrivals: Arrivals::default(),
            start: Instant::now(),
            now: Duration::ZERO,
            round_trip,
            rate,
            busy_until: Duration::ZERO,
            receipts: VecDeque::new(),
            delivered: 0,
        }
    }

    /// Sends all that may be sent, then lets time go to the next receipt. The bytes delivered per second.
    fn run(&mut self, time: Duration) -> f64 {
        let (began, before) = (self.now, self.delivered);
        while self.now < began + time {
            while self.window.is_open() {
                let (start, now) = (self.start, self.now);
                self.window.handle_sent(MESSAGE, || start + now);
                let takes = Duration::from_secs_f64(MESSAGE as f64 / self.rate);
                self.busy_until = self.busy_until.max(self.now) + takes;
                self.delivered += MESSAGE as u64;
                if let Some(total) = self.arrivals.handle_arrived(MESSAGE) {
                    self.receipts
                        .push_back((self.busy_until + self.round_trip, total));
                }
            }
            let (at, total) = self
                .receipts
                .pop_front()
                .expect("a closed window has caused a receipt");
            self.now = at;
            assert!(self.window.handle_receipt(total, self.start + at));
        }
        (self.delivered - before) as f64 / (self.now - began).as_secs_f64()
    }
}

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn whoever_takes_nothing_gets_no_more_than_the_least_window() {
    let mut window = SendWindow::new();
    let mut sent = 0;
    while window.is_open() {
        window.handle_sent(MESSAGE, Instant::now);
        sent += MESSAGE as u64;
    }
    assert!(sent <= LEAST);
    let mut window = SendWindow::new();
    let messages = std::iter::repeat_with(|| window.handle_sent(0, Instant::now)).take(2000);
    assert_eq!(messages.count(), 2000);
    assert!(!window.is_open(), "messages without bytes count too");
}

#[test]
fn a_long_path_is_filled_whatever_its_length_and_little_waits_in_front_of_its_narrow_place() {
    for (round_trip, rate) in [
        (MS(5), 400e6),
        (MS(20), 250e6),
        (MS(50), 100e6),
        (MS(50), 200e6),
        (MS(150), 50e6),
        (MS(300), 10e6),
    ] {
        let mut path = Path::new(round_trip, rate);
        path.run(20 * round_trip);
        let reached = path.run(Duration::from_secs(20)) / rate;
        assert!(reached > 0.97, "{reached} of {rate} over {round_trip:?}");
        let fills = rate * round_trip.as_secs_f64();
        let limit = path.window.limit() as f64;
        assert!(
            limit < 2.6 * fills.max(LEAST as f64),
            "{limit} where {fills} fill it"
        );
    }
}

#[test]
fn a_short_path_needs_no_more_than_the_least_window() {
    let mut path = Path::new(Duration::from_micros(200), 1e9);
    let reached = path.run(Duration::from_secs(2)) / 1e9;
    assert!(reached > 0.97, "{reached}");
    assert_eq!(path.window.limit(), LEAST);
}

#[test]
fn the_window_becomes_small_again_when_the_other_end_becomes_slow() {
    let mut path = Path::new(MS(50), 200e6);
    path.run(Duration::from_secs(5));
    assert!(path.window.limit() > 8 * LEAST);
    path.rate = 1e6;
    path.run(Duration::from_secs(60));
    assert_eq!(path.window.limit(), LEAST);
    path.rate = 200e6;
    path.run(Duration::from_secs(5));
    assert!(path.window.limit() > 8 * LEAST, "and large again");
}

#[test]
fn a_path_that_has_become_longer_is_filled_again_after_the_next_probe() {
    let mut path = Path::new(MS(2), 200e6);
    path.run(Duration::from_secs(5));
    assert!(path.window.limit() <= 2 * LEAST);
    path.round_trip = MS(50);
    path.run(PROBE_AFTER + Duration::from_secs(2));
    let reached = path.run(Duration::from_secs(20)) / 200e6;
    assert!(reached > 0.97, "{reached}");
}

#[test]
fn probing_a_full_path_for_hours_leaves_the_window_as_it_is_and_costs_next_to_nothing() {
    let mut path = Path::new(MS(40), 50e6);
    path.run(Duration::from_secs(5));
    let before = path.window.limit();
    let reached = path.run(Duration::from_secs(3600)) / 50e6;
    assert!(reached > 0.98, "{reached}");
    let after = path.window.limit();
    assert!(
        after.abs_diff(before) <= before / 4,
        "from {before} to {after}: what waits is not taken for a longer path"
    );
}

#[test]
fn a_receipt_of_what_was_not_sent_or_is_known_already_is_refused() {
    let now = Instant::now();
    let sent = || {
        let mut window = SendWindow::new();
        for _ in 0..8 {
            window.handle_sent(MESSAGE, || now);
        }
        window
    };
    let first = 4 * cost(MESSAGE);
    assert!(sent().handle_receipt(first, now));
    for wrong in [0, 1, first - 1, first + 1, 2 * first + 1, u64::MAX] {
        assert!(!sent().handle_receipt(wrong, now), "{wrong}");
    }
    let mut window = sent();
    assert!(
        window.handle_receipt(2 * first, now),
        "one receipt can stand for two"
    );
    assert!(!window.handle_receipt(2 * first, now));
    assert!(!window.handle_receipt(first, now));
}

proptest! {
    /// No timer asks for a receipt: so the window must never be closed while none is due.
    #[test]
    fn what_has_arrived_opens_the_window_whatever_the_sizes_of_messages(
        sizes in prop::collection::vec(0..400_000_usize, 1..400),
        late in 0..8_usize,
        pause in 0..100_000_u64,
    ) {
        let (mut window, mut arrivals) = (SendWindow::new(), Arrivals::default());
        let (mut now, mut on_their_way) = (Instant::now(), VecDeque::new());
        for size in sizes {
            if !window.is_open() {
                while let Some(total) = on_their_way.pop_front() {
                    now += Duration::from_millis(pause);
                    prop_assert!(window.handle_receipt(total, now));
                }
                prop_assert!(window.is_open());
            }
            window.handle_sent(size, || now);
            on_their_way.extend(arrivals.handle_arrived(size));
            if on_their_way.len() > late {
                now += Duration::from_millis(pause);
                let total = on_their_way.pop_front().unwrap_or_default();
                prop_assert!(window.handle_receipt(total, now));
            }
            prop_assert!((LEAST..=MOST).contains(&window.limit()));
            prop_assert!(window.marks.len() as u64 <= MOST / RECEIPT_EVERY + 2);
        }
    }
}

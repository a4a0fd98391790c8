//! One end, or a pair in memory, without sockets or clocks.

use super::window::STOCK_STEP;
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

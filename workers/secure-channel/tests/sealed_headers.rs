//! Channels inside channels, as through a relay: records of the inner one travel under sealed headers of the outer ones.
//! What crosses the wires, and what somebody on a wire, or a peer that lies, can do about it.

mod common;

use common::*;
use parking_lot::Mutex;
use portolan_runtime::services::Strip;
use portolan_runtime::{Address, Message, Node, Payload, Route, Sealing, route};
use portolan_secure_channel::aead::{Suite, Suites};
use portolan_secure_channel::record::{HEADER_FRONT, HEADER_ONLY_FROM, OVERHEAD, PREFIX_LEN};
use portolan_secure_channel::{ChannelInfo, ChannelOptions, CloseReason, ListenerOptions, SecureChannel};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// `a` and `b` each have a channel to `relay`, over a wire that somebody watches, and a channel to each other through it.
struct Path {
    node: Node,
    a: Party,
    b: Party,
    relay: Party,
    wire_a: Meddler,
    wire_b: Meddler,
    /// Between the inner channel's encryptor and the outer one's, in the node of `a`.
    inside: Meddler,
    outer_a: SecureChannel,
    outer_b: SecureChannel,
    inner: SecureChannel,
    at_b: Collector,
}

type Adjust = fn(ChannelOptions) -> ChannelOptions;

impl Path {
    async fn new() -> Self {
        Self::with(|options| options, |options| options).await
    }

    /// The options of the outer channel of `a`, and of that of `b`, at their ends.
    async fn with(of_a: Adjust, of_b: Adjust) -> Self {
        let node = Node::builder().arbiters(1).build().unwrap();
        let [a, b, relay] = std::array::from_fn(|_| Party::on(&node));
        let [wire_a, wire_b, inside] =
            ["wire_a", "wire_b", "inside"].map(|address| Meddler::start(&node, address));
        let accepting = relay
            .channels
            .listen("relay", ListenerOptions::new(relay.options()))
            .unwrap();
        let outer = async |party: &Party, wire: &str, adjust: Adjust| {
            let route = route![wire, "relay"];
            party
                .channels
                .create(route, adjust(party.options()))
                .await
                .unwrap()
        };
        let outer_a = outer(&a, "wire_a", of_a).await;
        let outer_b = outer(&b, "wire_b", of_b).await;
        eventually("the relay has both channels", || relay.channels.list().len() == 2).await;
        let at_relay = |peer: &Party| {
            let list = relay.channels.list();
            let info = list.iter().find(|info| info.peer == *peer.id()).unwrap();
            relay.channels.get(&info.encryptor).unwrap()
        };
        let (to_a, to_b) = (at_relay(&a), at_relay(&b));
        let forward = Strip {
            replacement: to_b.address().into(),
        };
        node.start_sync_worker("to_b", forward).unwrap();
        accepting.add_consumer(&"to_b".into());
        // As a relay does, once it has seen the first message.
        to_b.add_consumer(to_a.address());
        to_a.add_consumer(to_b.address());
        let listener = b.listen();
        let at_b = Collector::start(&node, "collector");
        listener.add_consumer(&"collector".into());
        outer_b.add_consumer(&"api".into());
        outer_a.add_consumer(&"inside".into());
        let inner_route = route!["inside", outer_a.address().clone(), "to_b", "api"];
        let inner = a.channels.create(inner_route, a.options()).await.unwrap();
        let path = Self {
            node,
            a,
            b,
            relay,
            wire_a,
            wire_b,
            inside,
            outer_a,
            outer_b,
            inner,
            at_b,
        };
        assert!(path.echo().await);
        path
    }

    async fn echo(&self) -> bool {
        let route = through(self.inner.address(), &["echo"]);
        echo(&self.node, route, "x").await.is_some()
    }

    async fn send(&self, payload: &[u8]) {
        let message = message(through(self.inner.address(), &["collector"]), payload);
        self.node.send_message(message).await.unwrap();
    }

    fn relay_end(&self, peer: &Party) -> ChannelInfo {
        let list = self.relay.channels.list();
        list.into_iter().find(|info| info.peer == *peer.id()).unwrap()
    }

    /// The only difference that the form of a record makes is counted at both ends of each outer channel.
    fn carried(&self) -> [u64; 4] {
        [
            self.outer_a.info().sent_carried,
            self.relay_end(&self.a).received_carried,
            self.relay_end(&self.b).sent_carried,
            self.outer_b.info().received_carried,
        ]
    }

    fn refused_records(&self) -> u64 {
        self.node.refusals().records.load(Ordering::Relaxed)
    }

    /// From now on, this happens once, to the first record on the wire of `a` whose header alone is sealed.
    fn on_first_carried(&self, mut change: impl FnMut(Message) -> Vec<Message> + Send + 'static) {
        let mut done = false;
        self.wire_a.tamper(move |message| {
            if done || !is_header_only(&message) {
                return vec![message];
            }
            done = true;
            change(message)
        });
    }
}

fn is_header_only(message: &Message) -> bool {
    message
        .payload
        .as_slice()
        .first()
        .is_some_and(|first| first & 0x80 != 0)
}

fn with_bytes(message: &Message, change: impl FnOnce(&mut Vec<u8>)) -> Message {
    let mut bytes = message.payload.to_vec();
    change(&mut bytes);
    Message {
        payload: Payload::copy_from(&bytes),
        ..message.clone()
    }
}

/// Where the part that is not sealed begins.
fn rest_of(record: &[u8]) -> usize {
    HEADER_FRONT + usize::from(u16::from_be_bytes([record[8], record[9]]))
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| b"attack at dawn; "[i % 16]).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn on_both_wires_the_bytes_are_those_of_the_inner_record_and_not_the_plaintext() {
    let path = Path::new().await;
    assert_eq!(path.carried(), [0; 4], "small messages are sealed as a whole");
    let plaintext = text(20_000);
    path.send(&plaintext).await;
    eventually("it arrives", || path.at_b.len() == 1).await;
    assert_eq!(path.at_b.received.lock()[0].payload.as_slice(), plaintext);
    assert_eq!(path.carried(), [1; 4]);
    let last = |meddler: &Meddler| meddler.seen.lock().last().unwrap().payload.to_vec();
    let inner = last(&path.inside);
    assert!(inner.len() > plaintext.len() && !contains(&inner, &plaintext[..16]));
    for wire in [last(&path.wire_a), last(&path.wire_b)] {
        let rest = rest_of(&wire);
        assert_eq!(wire[rest..], inner[PREFIX_LEN..]);
        assert!(!contains(&wire, &plaintext[..16]));
        // Neither the inner record's number nor anything else of its beginning shows.
        assert!(!contains(&wire[..rest], &inner[..8]));
        assert!(!contains(&wire[..rest], &inner[8..24]));
        // Routes do not show either.
        assert!(!contains(&wire, b"to_b") && !contains(&wire, b"collector"));
    }
    // One that is just too small is sealed as a whole, so that nothing of the inner record shows.
    path.send(&text(HEADER_ONLY_FROM - 200)).await;
    eventually("it arrives", || path.at_b.len() == 2).await;
    assert_eq!(path.carried(), [1; 4]);
    assert!(!contains(&last(&path.wire_a), &last(&path.inside)[40..60]));
    path.node.stop().await;
}

#[tokio::test]
async fn small_and_large_messages_take_turns_over_many_rekeys_in_both_suites() {
    let chacha: Adjust = |options| options.suites(Suites::only(Suite::ChaCha20Poly1305));
    let aes: Adjust = |options| options.suites(Suites::only(Suite::Aes256Gcm));
    for (of_a, of_b) in [(aes, aes), (chacha, chacha), (aes, chacha)] {
        let path = Path::with(of_a, of_b).await;
        const COUNT: usize = 300;
        let size = |i: usize| [10, 5_000, 100_000, 900, 1_024][i % 5] + i;
        for i in 0..COUNT {
            path.send(&vec![i as u8; size(i)]).await;
        }
        eventually("all arrive", || path.at_b.len() == COUNT).await;
        for (i, message) in path.at_b.received.lock().iter().enumerate() {
            assert_eq!(message.payload.len(), size(i));
            assert!(message.payload.as_slice().iter().all(|byte| *byte == i as u8));
            assert_eq!(message.payload.sealing(), Sealing::Unknown);
            assert_eq!(message.peer().unwrap().identifier.0, *path.a.id().as_bytes());
        }
        let carried = path.carried();
        assert!(carried[0] >= 180 && carried[0] < 300, "{carried:?}");
        assert!(carried.iter().all(|count| *count == carried[0]), "{carried:?}");
        assert!(path.echo().await);
        for info in [path.outer_a.info(), path.outer_b.info(), path.inner.info()] {
            assert_eq!((info.rejected, info.gaps), (0, 0));
        }
        path.node.stop().await;
    }
}

#[tokio::test]
async fn a_bit_that_is_flipped_in_the_rest_closes_the_inner_channel_and_no_wrong_byte_arrives() {
    for at in [0, 1, 4_000, usize::MAX] {
        let path = Path::new().await;
        path.on_first_carried(move |message| {
            vec![with_bytes(&message, |bytes| {
                let (rest, last) = (rest_of(bytes), bytes.len() - 1);
                bytes[rest.saturating_add(at).min(last)] ^= 1;
            })]
        });
        path.send(&text(10_000)).await;
        path.send(&text(10_000)).await;
        // The record behind it shows the gap, as with one that was lost.
        assert_eq!(path.inner.closed().await, CloseReason::ByPeer);
        assert_eq!(path.at_b.len(), 0);
        // It does no harm to others: the outer channels are as they were.
        assert!(path.outer_a.is_open() && path.outer_b.is_open());
        assert_eq!(path.relay_end(&path.a).rejected, 0);
        path.node.stop().await;
    }
}

#[tokio::test]
async fn rests_that_are_exchanged_between_two_records_arrive_nowhere() {
    let path = Path::new().await;
    let held: Arc<Mutex<Option<Message>>> = Arc::default();
    path.wire_a.tamper(move |message| {
        if !is_header_only(&message) {
            return vec![message];
        }
        let mut held = held.lock();
        let Some(first) = held.take() else {
            *held = Some(message);
            return vec![];
        };
        let (mut one, mut other) = (first.payload.to_vec(), message.payload.to_vec());
        let (rest, rest_of_other) = (rest_of(&one), rest_of(&other));
        one[rest..].swap_with_slice(&mut other[rest_of_other..]);
        let carrying = |bytes: Vec<u8>, like: Message| Message {
            payload: Payload::from(bytes),
            ..like
        };
        vec![carrying(one, first), carrying(other, message)]
    });
    path.send(&[1; 10_000]).await;
    path.send(&[2; 10_000]).await;
    eventually("both pass the relay", || path.carried() == [2; 4]).await;
    path.wire_a.behave();
    path.send(&[3; 10]).await;
    assert_eq!(path.inner.closed().await, CloseReason::ByPeer);
    assert_eq!(path.at_b.len(), 0);
    path.node.stop().await;
}

#[tokio::test]
async fn whatever_is_done_to_the_sealed_part_or_to_the_lengths_is_noticed_by_the_outer_channel() {
    type Change = fn(&mut Vec<u8>);
    let changes: [Change; 13] = [
        |bytes| bytes[7] ^= 1,    // the number
        |bytes| bytes[0] ^= 0x80, // the form
        |bytes| bytes[9] ^= 1,    // the length of the sealed part
        |bytes| bytes[8] = 0xff,
        |bytes| bytes[8..10].fill(0),
        |bytes| bytes[10] ^= 1,           // the tag
        |bytes| bytes[HEADER_FRONT] ^= 1, // routes
        |bytes| {
            let last_of_prefix = rest_of(bytes) - 1;
            bytes[last_of_prefix] ^= 1;
        },
        |bytes| {
            bytes.pop();
        },
        |bytes| bytes.push(0),
        |bytes| bytes.truncate(rest_of(bytes)),
        |bytes| bytes.truncate(HEADER_FRONT),
        |bytes| bytes.truncate(9),
    ];
    for change in changes {
        let path = Path::new().await;
        // The altered one is refused and changes nothing; the genuine one behind it is accepted.
        path.on_first_carried(move |message| vec![with_bytes(&message, change), message]);
        path.send(&text(10_000)).await;
        eventually("it arrives", || path.at_b.len() == 1).await;
        assert_eq!(path.at_b.received.lock()[0].payload.as_slice(), text(10_000));
        assert_eq!(path.relay_end(&path.a).rejected, 1);
        // Instead of the genuine one, it is a gap.
        path.on_first_carried(move |message| vec![with_bytes(&message, change)]);
        path.send(&text(10_000)).await;
        path.send(&text(10_000)).await;
        assert_eq!(path.outer_a.closed().await, CloseReason::ByPeer);
        assert_eq!(path.at_b.len(), 1);
        path.node.stop().await;
    }
}

#[tokio::test]
async fn a_record_that_is_repeated_is_refused_in_either_form() {
    let path = Path::new().await;
    path.wire_a
        .tamper(|message| vec![message.clone(), message.clone(), message]);
    for i in 0..50 {
        path.send(&text(if i % 2 == 0 { 5_000 } else { 50 })).await;
    }
    eventually("all arrive", || path.at_b.len() == 50).await;
    assert!(path.echo().await);
    assert_eq!(path.at_b.len(), 50);
    assert!(path.relay_end(&path.a).rejected >= 100);
    path.node.stop().await;
}

#[tokio::test]
async fn what_a_peer_only_says_is_a_record_reaches_no_worker_that_would_believe_it() {
    let path = Path::new().await;
    let at_relay = Collector::start(&path.node, "at_relay");
    for address in ["at_relay", "echo"] {
        let relay = path.relay_end(&path.a).encryptor;
        let channel = path.relay.channels.get(&relay).unwrap();
        channel.add_consumer(&address.into());
        path.outer_b.add_consumer(&address.into());
    }
    let lie = |onward: Route, len: usize| {
        let mut message = message(onward, &text(len));
        message.back = route!["inside"];
        message.payload.set_sealing(Sealing::Record);
        message
    };
    let outer = path.outer_a.address();
    // To a worker at the relay, and through the relay to one behind it.
    let routes: [Route; 4] = [
        through(outer, &["at_relay"]),
        through(outer, &["echo"]),
        through(outer, &["to_b", "at_relay"]),
        through(outer, &["to_b", "echo"]),
    ];
    for (i, onward) in routes.into_iter().enumerate() {
        path.node.send_message(lie(onward, 5_000)).await.unwrap();
        eventually("it is refused", || path.refused_records() == i as u64 + 1).await;
    }
    assert_eq!(at_relay.len(), 0);
    // Where all of it was sealed, all of it is authenticated, and it is an ordinary message.
    path.node
        .send_message(lie(through(outer, &["at_relay"]), 100))
        .await
        .unwrap();
    eventually("it arrives", || at_relay.len() == 1).await;
    // To a channel, it is no record.
    let inner_at_b = || {
        let list = path.b.channels.list();
        list.into_iter().find(|info| info.peer == *path.a.id()).unwrap()
    };
    let onward: Route = [outer.clone(), "to_b".into(), inner_at_b().decryptor].into();
    path.node.send_message(lie(onward, 5_000)).await.unwrap();
    eventually("it is rejected", || inner_at_b().rejected == 1).await;
    assert!(path.echo().await);
    path.node.stop().await;
}

#[tokio::test]
async fn what_was_changed_on_its_way_to_the_outer_channel_is_sealed_as_a_whole() {
    let path = Path::new().await;
    // A worker of a user's, in the node of `a`, that puts something else in place of the record.
    path.inside
        .tamper(|message| vec![with_bytes(&message, |bytes| *bytes = text(8_000))]);
    let before = path.wire_a.seen();
    path.send(&text(5_000)).await;
    eventually("it is on the wire", || path.wire_a.seen() > before).await;
    assert_eq!(path.outer_a.info().sent_carried, 0);
    let wire = path.wire_a.seen.lock()[before].payload.to_vec();
    assert!(!contains(&wire, &text(16)));
    path.node.stop().await;
}

#[tokio::test]
async fn with_a_peer_that_does_not_want_it_everything_is_sealed_as_a_whole() {
    let without: Adjust = |options| options.sealed_headers(false);
    let with: Adjust = |options| options;
    for (of_a, of_b, expected) in [
        (without, without, [0, 0, 0, 0]),
        // Each outer channel for itself; what one has opened as a whole, another may not take for a record.
        (with, without, [1, 1, 0, 0]),
        (without, with, [0, 0, 0, 0]),
    ] {
        let path = Path::with(of_a, of_b).await;
        path.send(&text(10_000)).await;
        eventually("it arrives", || path.at_b.len() == 1).await;
        assert_eq!(path.at_b.received.lock()[0].payload.as_slice(), text(10_000));
        assert_eq!(path.carried(), expected);
        let inner = path.inside.seen.lock().last().unwrap().payload.to_vec();
        let wire = path.wire_b.seen.lock().last().unwrap().payload.to_vec();
        assert_eq!(contains(&wire, &inner[100..200]), expected[2] == 1);
        assert!(wire.len() > inner.len() + OVERHEAD);
        path.node.stop().await;
    }
}

#[tokio::test]
async fn answers_travel_the_same_way_back() {
    let path = Path::new().await;
    // Without the meddler in the node of `a`, which is no worker that sends records on.
    let direct: Route = [path.outer_a.address().clone(), "to_b".into(), "api".into()].into();
    let inner = path.a.channels.create(direct, path.a.options()).await.unwrap();
    let mut asker = path.node.context(Address::random()).unwrap();
    inner.add_consumer(asker.address());
    for _ in 0..40 {
        let mut question = message(through(inner.address(), &["echo"]), &text(30_000));
        question.back = asker.address().into();
        asker.send_message(question).await.unwrap();
        let answer = asker.next().await.unwrap().message;
        assert_eq!(answer.payload.as_slice(), text(30_000));
    }
    assert_eq!(path.outer_b.info().sent_carried, 40);
    assert_eq!(path.outer_a.info().received_carried, 40);
    assert_eq!(path.refused_records(), 0);
    drop(asker);
    path.node.stop().await;
}

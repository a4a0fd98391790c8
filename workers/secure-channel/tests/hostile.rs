//! What an attacker on the path, or a stranger, can do: nothing but get in the way.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use parking_lot::Mutex;
use portolan_runtime::{Message, Node, Payload, Route, route};
use portolan_secure_channel::{CloseReason, GapPolicy, Limits, ListenerOptions, SecureChannel};
use portolan_simulated::{Network, run};

/// Two parties in one node, and a meddler between them. Records are told apart from handshake messages by order.
struct Path {
    node: Node,
    a: Party,
    b: Party,
    meddler: Meddler,
}

impl Path {
    fn new(network: &Network) -> Self {
        let node = network.node("node").runtime().clone();
        let (a, b) = (Party::on(&node), Party::on(&node));
        let meddler = Meddler::start(&node, "meddler");
        Self { node, a, b, meddler }
    }

    async fn channel(&self, gaps: GapPolicy) -> SecureChannel {
        self.b
            .listen_with(ListenerOptions::new(self.b.options().gaps(gaps)));
        let options = self.a.options().gaps(gaps);
        let channel = self
            .a
            .channels
            .create(route!["meddler", "api"], options)
            .await
            .unwrap();
        assert!(self.echo(&channel).await);
        channel
    }

    async fn echo(&self, channel: &SecureChannel) -> bool {
        echo(&self.node, through(channel.address(), &["echo"]), "x")
            .await
            .is_some()
    }
}

fn altered(message: &Message, change: impl FnOnce(&mut Vec<u8>)) -> Message {
    let mut bytes = message.payload.to_vec();
    change(&mut bytes);
    Message {
        payload: Payload::copy_from(&bytes),
        ..message.clone()
    }
}

#[test]
fn forged_altered_truncated_and_repeated_records_are_dropped_and_the_channel_goes_on() {
    run(1, async |network| {
        let path = Path::new(&network);
        let channel = path.channel(GapPolicy::Close).await;
        path.meddler.tamper(|message| {
            let mut messages = vec![
                altered(&message, |bytes| bytes.fill(0)),
                altered(&message, |bytes| bytes.clear()),
                altered(&message, |bytes| bytes.truncate(23)),
                altered(&message, |bytes| bytes.truncate(30)),
                altered(&message, |bytes| bytes[8] ^= 1),
                altered(&message, |bytes| *bytes.last_mut().unwrap() ^= 0x80),
                altered(&message, |bytes| bytes[7] ^= 0x20),
                altered(&message, |bytes| bytes[0] = 0xff),
            ];
            messages.push(message.clone());
            messages.push(message);
            messages
        });
        for _ in 0..100 {
            assert!(path.echo(&channel).await);
        }
        let infos = || [channel.info(), path.b.channels.list()[0].clone()];
        eventually("nine of ten are rejected", || {
            infos().iter().all(|info| info.rejected == 900)
        })
        .await;
        assert!(infos().iter().all(|info| info.gaps == 0));
        path.node.stop().await;
    });
}

#[test]
fn a_lost_record_closes_the_channel_instead_of_leaving_a_hole() {
    run(1, async |network| {
        let path = Path::new(&network);
        let channel = path.channel(GapPolicy::Close).await;
        let mut dropped = false;
        path.meddler.tamper(move |message| {
            if std::mem::replace(&mut dropped, true) {
                vec![message]
            } else {
                vec![]
            }
        });
        assert!(!path.echo(&channel).await);
        assert!(!path.echo(&channel).await);
        assert_eq!(channel.closed().await, CloseReason::ByPeer);
        path.node.stop().await;
    });
}

#[test]
fn a_channel_for_datagrams_survives_loss_of_thousands_of_records() {
    run(1, async |network| {
        let path = Path::new(&network);
        let channel = path.channel(GapPolicy::Continue).await;
        path.meddler.tamper(|_| vec![]);
        for _ in 0..3000 {
            path.node
                .send_message(message(through(channel.address(), &["echo"]), b"lost"))
                .await
                .unwrap();
        }
        eventually("all are lost", || channel.info().sent_messages == 3001).await;
        path.meddler.behave();
        // What still waits at the meddler passes or not; the direction works either way.
        assert!(path.echo(&channel).await);
        assert!(path.b.channels.list()[0].gaps >= 1);
        path.node.stop().await;
    });
}

#[test]
fn forged_handshake_messages_do_not_stop_the_genuine_ones() {
    run(1, async |network| {
        let path = Path::new(&network);
        path.b.listen();
        path.meddler.tamper(|message| {
            // Message 1 is shorter than any message 2 can be.
            if message.payload.len() < 96 {
                return vec![message];
            }
            let mut messages: Vec<_> = [0, 31, 32, 63, 64, 95, 96, 200, 419, 70_000]
                .into_iter()
                .map(|len| altered(&message, |bytes| *bytes = vec![0x5a; len]))
                .collect();
            messages.push(altered(&message, |bytes| bytes[40] ^= 1));
            messages.push(altered(&message, |bytes| bytes[..32].fill(0)));
            messages.push(message);
            messages
        });
        let channel = path
            .a
            .channels
            .create(route!["meddler", "api"], path.a.options())
            .await
            .unwrap();
        assert!(path.echo(&channel).await);
        path.node.stop().await;
    });
}

#[test]
fn garbage_at_a_listener_starts_nothing() {
    run(1, async |network| {
        let path = Path::new(&network);
        let listener = path.b.listen();
        let before = path.node.workers().len();
        for len in [0, 1, 31, 65_536, 1_000_000] {
            path.node
                .send_message(Message::new("api", "meddler", vec![1; len]))
                .await
                .unwrap();
        }
        // No return route: nobody to answer.
        path.node.send_message(message("api", &[1; 32])).await.unwrap();
        eventually("all are counted", || path.b.channels.counters().failed == 6).await;
        // A key of small order begins a handshake, and ends it.
        path.node
            .send_message(Message::new("api", "meddler", vec![0; 32]))
            .await
            .unwrap();
        eventually("it is counted", || path.b.channels.counters().failed == 7).await;
        eventually("nothing is left", || {
            listener.pending() == 0 && path.node.workers().len() == before
        })
        .await;
        path.node.stop().await;
    });
}

#[test]
fn two_thousand_abandoned_handshakes_leave_nothing_behind() {
    run(1, async |network| {
        let path = Path::new(&network);
        let options = ListenerOptions::new(path.b.options())
            .limits(Limits {
                pending: 40,
                pending_per_hop: 10,
                waiting: 100,
                ..Limits::default()
            })
            .handshake_timeout(Duration::from_millis(500));
        let listener = path.b.listen_with(options);
        let before = path.node.workers().len();
        let most = Arc::new(Mutex::new(0));
        for i in 0..2000_usize {
            let hop = format!("hop{}", i % 8);
            let mut key = vec![9; 32];
            key[..8].copy_from_slice(&i.to_le_bytes());
            // The return route leads through a hop that drops everything.
            if i < 8 {
                let sink = Meddler::start(&path.node, &hop);
                sink.tamper(|_| vec![]);
            }
            path.node
                .send_message(Message::new("api", route![hop, "nowhere"], key))
                .await
                .unwrap();
            let pending = listener.pending();
            assert!(listener.waiting() <= 100);
            let mut most = most.lock();
            *most = pending.max(*most);
        }
        assert!(*most.lock() <= 40);
        let counters = || path.b.channels.counters();
        eventually("each is accounted for", || {
            let counters = counters();
            counters.refused + counters.expired + counters.evicted == 2000
        })
        .await;
        eventually("nothing is left", || {
            listener.pending() == 0 && path.node.workers().len() == before + 8
        })
        .await;
        assert!(path.b.identities.is_empty());
        // And an honest peer gets its channel.
        let channel = path.a.channels.create("api", path.a.options()).await.unwrap();
        assert!(path.echo(&channel).await);
        path.node.stop().await;
    });
}

#[test]
fn a_flood_over_one_connection_does_not_keep_out_another() {
    run(1, async |network| {
        let path = Path::new(&network);
        let options = ListenerOptions::new(path.b.options()).limits(Limits {
            pending_per_hop: 10,
            waiting_per_hop: 20,
            ..Limits::default()
        });
        let listener = path.b.listen_with(options);
        let sink = Meddler::start(&path.node, "flood");
        sink.tamper(|_| vec![]);
        for _ in 0..100 {
            path.node
                .send_message(Message::new("api", route!["flood", "nowhere"], vec![9; 32]))
                .await
                .unwrap();
        }
        eventually("the flood is limited", || {
            path.b.channels.counters().refused == 70
        })
        .await;
        assert_eq!(listener.pending(), 10);
        let channel = path
            .a
            .channels
            .create(route!["meddler", "api"], path.a.options())
            .await
            .unwrap();
        assert!(path.echo(&channel).await);
        path.node.stop().await;
    });
}

#[test]
fn handshakes_for_which_there_is_no_place_wait_for_one_and_none_is_lost() {
    run(1, async |network| {
        let path = Path::new(&network);
        let options = ListenerOptions::new(path.b.options()).limits(Limits {
            pending: 3,
            pending_per_hop: 2,
            ..Limits::default()
        });
        let listener = path.b.listen_with(options);
        let opening: Vec<_> = (0..40)
            .map(|_| {
                let (channels, options) = (path.a.channels.clone(), path.a.options());
                tokio::task::spawn_local(
                    async move { channels.create(route!["meddler", "api"], options).await },
                )
            })
            .collect();
        for channel in opening {
            assert!(path.echo(&channel.await.unwrap().unwrap()).await);
        }
        let counters = path.b.channels.counters();
        assert_eq!((counters.refused, counters.evicted, counters.expired), (0, 0, 0));
        assert_eq!((listener.pending(), listener.waiting()), (0, 0));
        path.node.stop().await;
    });
}

#[test]
fn open_channels_are_limited() {
    run(1, async |network| {
        let path = Path::new(&network);
        let options = ListenerOptions::new(path.b.options()).limits(Limits {
            open_per_hop: 2,
            ..Limits::default()
        });
        path.b.listen_with(options);
        let mut channels = Vec::new();
        for _ in 0..3 {
            channels.push(
                path.a
                    .channels
                    .create(route!["meddler", "api"], path.a.options())
                    .await
                    .unwrap(),
            );
        }
        eventually("the third is refused", || path.b.channels.counters().refused == 1).await;
        assert_eq!(path.b.channels.list().len(), 2);
        channels[0].stop();
        eventually("its place is free", || path.b.channels.list().len() == 1).await;
        let channel = path
            .a
            .channels
            .create(route!["meddler", "api"], path.a.options())
            .await
            .unwrap();
        assert!(path.echo(&channel).await);
        path.node.stop().await;
    });
}

#[test]
fn routes_that_no_decoder_would_read_are_not_sent() {
    run(1, async |network| {
        let path = Path::new(&network);
        let channel = path.channel(GapPolicy::Close).await;
        let sent = channel.info().sent_messages;
        let far = ["hop"; 65];
        path.node
            .send_message(message(through(channel.address(), &far), b"x"))
            .await
            .unwrap();
        let mut back = message(through(channel.address(), &["echo"]), b"x");
        back.back = far.into();
        path.node.send_message(back).await.unwrap();
        assert!(path.echo(&channel).await);
        assert_eq!(channel.info().sent_messages, sent + 1);
        path.node.stop().await;
    });
}

#[test]
fn what_was_said_in_one_channel_means_nothing_in_another() {
    run(1, async |network| {
        let path = Path::new(&network);
        let channel = path.channel(GapPolicy::Close).await;
        assert!(path.echo(&channel).await);
        let recorded: Vec<Message> = path.meddler.seen.lock().clone();
        let second = path
            .a
            .channels
            .create(route!["meddler", "api"], path.a.options())
            .await
            .unwrap();
        let target = second.info().route;
        for message in recorded {
            let replayed = Message {
                onward: target.clone(),
                back: Route::new(),
                ..message
            };
            path.node.send_message(replayed).await.unwrap();
        }
        assert!(path.echo(&second).await);
        path.node.stop().await;
    });
}

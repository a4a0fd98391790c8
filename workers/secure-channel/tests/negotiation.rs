//! What two ends agree on inside their handshake, and what somebody in between can do about it: nothing but prevent it.

mod common;

use std::time::Duration;

use Suite::{Aes256Gcm, ChaCha20Poly1305};
use common::*;
use portolan_runtime::{Message, Node, Payload, route};
use portolan_secure_channel::aead::{Suite, Suites};
use portolan_secure_channel::{ChannelOptions, Error, ListenerOptions, PeerError, SecureChannel};
use portolan_simulated::{Network, run};

/// Messages of a handshake are told apart by their order.
const MESSAGE_1: usize = 1;
const MESSAGE_2: usize = 2;
const MESSAGE_3: usize = 3;

struct Path {
    node: Node,
    a: Party,
    b: Party,
    meddler: Meddler,
}

impl Path {
    fn new(network: &Network, listening: impl FnOnce(ChannelOptions) -> ChannelOptions) -> Self {
        let node = network.node("node").runtime().clone();
        let (a, b) = (Party::on(&node), Party::on(&node));
        let meddler = Meddler::start(&node, "meddler");
        b.listen_with(ListenerOptions::new(listening(b.options())));
        Self { node, a, b, meddler }
    }

    async fn create(&self, options: ChannelOptions) -> Result<SecureChannel, Error> {
        let options = options.timeout(Duration::from_millis(700));
        self.a.channels.create(route!["meddler", "api"], options).await
    }

    /// From now on, the bytes of the handshake message with this number are changed on their way.
    fn change(&self, number: usize, mut change: impl FnMut(&mut Vec<u8>) + Send + 'static) {
        let mut seen = 0;
        self.meddler.tamper(move |message| {
            seen += 1;
            if seen != number {
                return vec![message];
            }
            let mut bytes = message.payload.to_vec();
            change(&mut bytes);
            vec![Message {
                payload: Payload::copy_from(&bytes),
                ..message
            }]
        });
    }
}

fn ours(options: ChannelOptions, suites: &[Suite]) -> ChannelOptions {
    options.suites(Suites::new(suites.iter().copied()).unwrap())
}

#[test]
fn both_suites_carry_messages_and_both_ends_say_which() {
    run(1, async |network| {
        for (initiator, responder, chosen) in [
            (
                &[Aes256Gcm, ChaCha20Poly1305][..],
                &[Aes256Gcm, ChaCha20Poly1305][..],
                Aes256Gcm,
            ),
            (
                &[ChaCha20Poly1305, Aes256Gcm],
                &[Aes256Gcm, ChaCha20Poly1305],
                ChaCha20Poly1305,
            ),
            (
                &[ChaCha20Poly1305],
                &[Aes256Gcm, ChaCha20Poly1305],
                ChaCha20Poly1305,
            ),
            (&[Aes256Gcm, ChaCha20Poly1305], &[Aes256Gcm], Aes256Gcm),
        ] {
            let path = Path::new(&network, |options| ours(options, responder));
            let channel = path.create(ours(path.a.options(), initiator)).await.unwrap();
            // Over several rekeys in both directions.
            for i in 0..100 {
                let text = format!("message {i}");
                let answer = echo(&path.node, through(channel.address(), &["echo"]), &text).await;
                assert_eq!(answer, Some(text));
            }
            assert_eq!(
                (channel.info().suite, path.b.channels.list()[0].suite),
                (chosen, chosen)
            );
            path.node.stop().await;
        }
    });
}

#[test]
fn without_instructions_of_ours_the_suite_is_the_one_that_this_machine_prefers() {
    run(1, async |network| {
        let path = Path::new(&network, |options| options.sealed_headers(true));
        let channel = path.create(path.a.options().sealed_headers(true)).await.unwrap();
        let info = channel.info();
        assert_eq!(info.suite, Suites::preferred().first());
        assert!(info.sealed_headers);
        path.node.stop().await;
    });
}

#[test]
fn ends_that_keep_to_the_reference_send_what_the_reference_sends() {
    run(1, async |network| {
        let path = Path::new(&network, |options| options);
        let reference = path
            .a
            .options()
            .suites(Suites::only(Aes256Gcm))
            .sealed_headers(false);
        let channel = path.create(reference).await.unwrap();
        assert!(
            echo(&path.node, through(channel.address(), &["echo"]), "x")
                .await
                .is_some()
        );
        for info in [channel.info(), path.b.channels.list()[0].clone()] {
            assert_eq!((info.suite, info.sealed_headers), (Aes256Gcm, false));
        }
        assert_eq!(path.meddler.seen.lock()[0].payload.len(), 32);
        path.node.stop().await;
    });
}

#[test]
fn an_offer_that_is_stripped_altered_or_reordered_in_flight_ends_the_handshake() {
    run(1, async |network| {
        let changes: [fn(&mut Vec<u8>); 5] = [
            |bytes| bytes.truncate(32),
            // From [1, 0] to [0, 1]: the order decides which is chosen.
            |bytes| bytes.swap(35, 36),
            // To a list of the reference's suite alone.
            |bytes| {
                bytes.truncate(32);
                bytes.extend_from_slice(&[0xa1, 0x01, 0x81, 0x00]);
            },
            // Sealed headers of another version, which nobody speaks.
            |bytes| *bytes.last_mut().unwrap() = 2,
            |bytes| bytes.push(0),
        ];
        for change in changes {
            let path = Path::new(&network, |options| ours(options, &[Aes256Gcm, ChaCha20Poly1305]));
            path.change(MESSAGE_1, change);
            let offering = ours(path.a.options(), &[ChaCha20Poly1305, Aes256Gcm]).sealed_headers(true);
            let failed = path.create(offering.clone()).await.unwrap_err();
            assert!(matches!(failed, Error::Timeout { .. }), "{failed}");
            assert!(path.b.channels.list().is_empty());
            // Nothing was tried again without the offer: one message 1, one message 2.
            assert_eq!(path.meddler.seen(), 2);
            // Undisturbed, the same ends have a channel.
            path.meddler.behave();
            let channel = path.create(offering).await.unwrap();
            assert_eq!(channel.info().suite, ChaCha20Poly1305);
            path.node.stop().await;
        }
    });
}

#[test]
fn an_answer_that_is_altered_or_cut_off_in_flight_ends_the_handshake() {
    run(1, async |network| {
        // The answer is the last element of the sealed identity, in front of the tag of 16 bytes.
        let changes: [fn(&mut Vec<u8>); 4] = [
            |bytes| {
                let at = bytes.len() - 17;
                bytes[at] ^= 1;
            },
            |bytes| bytes.truncate(bytes.len() - 5),
            |bytes| {
                let tag = bytes.split_off(bytes.len() - 16);
                bytes.truncate(bytes.len() - 5);
                bytes.extend_from_slice(&tag);
            },
            |bytes| {
                let at = bytes.len() - 20;
                bytes[at] ^= 2;
            },
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let path = Path::new(&network, |options| options);
            path.change(MESSAGE_2, change);
            let failed = path.create(path.a.options()).await;
            assert!(matches!(failed, Err(Error::Timeout { .. })), "{i}");
            assert!(path.b.channels.list().is_empty());
            path.node.stop().await;
        }
    });
}

#[test]
fn a_confirmation_that_is_altered_or_cut_off_in_flight_ends_in_no_channel_at_the_responder() {
    run(1, async |network| {
        let changes: [fn(&mut Vec<u8>); 3] = [
            |bytes| {
                let at = bytes.len() - 17;
                bytes[at] ^= 1;
            },
            |bytes| bytes.truncate(bytes.len() - 5),
            |bytes| {
                let tag = bytes.split_off(bytes.len() - 16);
                bytes.truncate(bytes.len() - 5);
                bytes.extend_from_slice(&tag);
            },
        ];
        for change in changes {
            let path = Path::new(&network, |options| options);
            path.change(MESSAGE_3, change);
            // The initiator cannot know (spec 02 §5.6), but nothing answers it.
            let channel = path.create(path.a.options()).await.unwrap();
            path.node
                .send_message(message(through(channel.address(), &["echo"]), b"x"))
                .await
                .unwrap();
            eventually("the record arrives", || path.meddler.seen() >= 4).await;
            assert!(path.b.channels.list().is_empty());
            assert_eq!(path.b.channels.counters().opened, 0);
            path.node.stop().await;
        }
    });
}

#[test]
fn a_suite_that_the_peer_lacks_is_no_reason_to_take_another() {
    run(1, async |network| {
        // A listener that allows AES-256-GCM only, and an initiator that allows ChaCha20-Poly1305 only.
        let path = Path::new(&network, |options| ours(options, &[Aes256Gcm]));
        let failed = path
            .create(ours(path.a.options(), &[ChaCha20Poly1305]))
            .await
            .unwrap_err();
        assert!(matches!(failed, Error::Timeout { .. }), "{failed}");
        eventually("it is counted", || path.b.channels.counters().failed == 1).await;
        path.node.stop().await;

        // A peer like the reference, that knows nothing of suites: here a listener behind somebody who is asked for the
        // reference's handshake.
        let path = Path::new(&network, |options| ours(options, &[ChaCha20Poly1305]));
        let reference = ours(path.a.options(), &[Aes256Gcm]).sealed_headers(false);
        assert!(path.create(reference).await.is_err());
        eventually("it is counted", || path.b.channels.counters().failed == 1).await;
        path.node.stop().await;
    });
}

#[test]
fn an_initiator_that_insists_on_a_suite_says_why_a_reference_peer_will_not_do() {
    run(1, async |network| {
        // The reference answers without a fourth element, and so does an end that was told to keep to it.
        let path = Path::new(&network, |options| {
            ours(options, &[Aes256Gcm]).sealed_headers(false)
        });
        // Its answer to an offer is one all the same; what it chose was offered.
        let channel = path
            .create(ours(path.a.options(), &[ChaCha20Poly1305, Aes256Gcm]))
            .await
            .unwrap();
        assert_eq!(channel.info().suite, Aes256Gcm);
        assert!(!channel.info().sealed_headers);
        let error = Error::from(PeerError::from(
            portolan_secure_channel::extensions::NegotiationError::NoCommonSuite,
        ));
        assert!(error.to_string().contains("cipher suites"));
        path.node.stop().await;
    });
}

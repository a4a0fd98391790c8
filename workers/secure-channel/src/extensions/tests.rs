//! Two ends that negotiate, inside a real handshake; and peers that cheat.

use std::sync::Arc;

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::handshake::{HandshakeError, Initiator, Responder, SessionKeys, StaticKey, X25519Secret};
use crate::record::{Opener, Sealer};
use Suite::{Aes256Gcm, ChaCha20Poly1305};

fn abilities(suites: &[Suite], sealed_headers: bool) -> Abilities {
    Abilities {
        suites: Suites::new(suites.iter().copied()).unwrap(),
        sealed_headers,
        windows: false,
    }
}

fn with_windows(abilities: Abilities) -> Abilities {
    Abilities {
        windows: true,
        ..abilities
    }
}

fn full() -> Abilities {
    abilities(&[Aes256Gcm, ChaCha20Poly1305], true)
}

fn key(seed: u8) -> Arc<dyn StaticKey> {
    Arc::new(X25519Secret::from_bytes(&[seed; 32]))
}

#[derive(Debug, PartialEq, Eq)]
enum Failed {
    Negotiation(NegotiationError),
    Handshake(HandshakeError),
}

impl From<NegotiationError> for Failed {
    fn from(error: NegotiationError) -> Self {
        Self::Negotiation(error)
    }
}

impl From<HandshakeError> for Failed {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

/// What somebody in between, or a peer that cheats, puts in place of something. `None` leaves it as it is.
#[derive(Default)]
struct Changes {
    /// In flight, of message 1.
    payload_1: Option<Vec<u8>>,
    /// By the responder.
    answer: Option<Option<Vec<u8>>>,
    /// By the initiator.
    confirmation: Option<Option<Vec<u8>>>,
}

type Ended = (Agreement, SessionKeys);

/// A handshake of which the payloads are the extensions alone.
fn handshake(initiator: Abilities, responder: Abilities, changes: Changes) -> Result<[Ended; 2], Failed> {
    let element = |bytes: &[u8]| (!bytes.is_empty()).then(|| bytes.to_vec());
    let begin = Initiator::new(key(1), &Zeroizing::new([2; 32]));
    let (waiting, mut message_1) = begin.write_message_1(&initiator.offer())?;
    if let Some(payload_1) = changes.payload_1 {
        message_1.truncate(32);
        message_1.extend_from_slice(&payload_1);
    }
    let (answering, offer) = Responder::new(key(3), &Zeroizing::new([4; 32])).read_message_1(&message_1)?;
    let answer = responder.answer(offer)?;
    let payload_2 = changes.answer.unwrap_or(answer.encode()).unwrap_or_default();
    let (awaiting, mut message_2) = answering.write_message_2(&payload_2)?;
    let (writing, payload_2) = waiting
        .read_message_2(&mut message_2)
        .map_err(|rejected| rejected.error)?;
    let answered = element(payload_2);
    let agreed = initiator.read_answer(answered.as_deref())?;
    let confirmation = initiator.confirmation(answered.as_deref(), agreed);
    let payload_3 = changes.confirmation.unwrap_or(confirmation).unwrap_or_default();
    let (ours, mut message_3) = writing.write_message_3(&payload_3)?;
    let (theirs, payload_3) = awaiting
        .read_message_3(&mut message_3)
        .map_err(|rejected| rejected.error)?;
    let confirmed = answer.check_confirmation(element(payload_3).as_deref())?;
    Ok([(agreed, ours), (confirmed, theirs)])
}

#[test]
fn maps_match_the_vectors() {
    for (abilities, offer, answer) in [
        (full(), "a20182000105 01", "a201000501"),
        (
            abilities(&[ChaCha20Poly1305, Aes256Gcm], true),
            "a20182010005 01",
            "a201010501",
        ),
        (
            abilities(&[Aes256Gcm, ChaCha20Poly1305], false),
            "a101820001",
            "a10100",
        ),
        (abilities(&[ChaCha20Poly1305], false), "a1018101", "a10101"),
        (with_windows(full()), "a301820001 0501 0601", "a3010005010601"),
        (
            with_windows(abilities(&[Aes256Gcm], false)),
            "a2018100 0601",
            "a201000601",
        ),
    ] {
        let offer = offer.replace(' ', "");
        assert_eq!(hex::encode(abilities.offer()), offer);
        let answered = abilities.answer(&abilities.offer()).unwrap();
        assert_eq!(hex::encode(answered.encode().unwrap()), answer);
    }
    assert!(Abilities::reference().offer().is_empty());
}

#[test]
fn the_suite_is_the_one_that_both_prefer_and_else_the_one_for_slow_machines() {
    let (fast, slow) = ([Aes256Gcm, ChaCha20Poly1305], [ChaCha20Poly1305, Aes256Gcm]);
    let (aes, chacha) = ([Aes256Gcm], [ChaCha20Poly1305]);
    for (initiator, responder, chosen) in [
        (&fast[..], &fast[..], Aes256Gcm),
        (&fast, &slow, ChaCha20Poly1305),
        (&slow, &fast, ChaCha20Poly1305),
        (&slow, &slow, ChaCha20Poly1305),
        (&fast, &aes, Aes256Gcm),
        (&aes, &slow, Aes256Gcm),
        (&slow, &aes, Aes256Gcm),
        (&fast, &chacha, ChaCha20Poly1305),
        (&chacha, &fast, ChaCha20Poly1305),
    ] {
        let ends = handshake(
            abilities(initiator, true),
            abilities(responder, true),
            Changes::default(),
        )
        .unwrap();
        for (agreement, _) in &ends {
            assert_eq!(agreement.suite, chosen, "{initiator:?} {responder:?}");
        }
        let [(_, ours), (_, theirs)] = ends;
        let mut sealer = Sealer::new(chosen, ours.send);
        let mut opener = Opener::new(chosen, theirs.receive);
        let mut record = [7; 100];
        sealer.seal(&mut record).unwrap();
        assert_eq!(opener.open(&mut record).unwrap().plaintext, [7; 76]);
    }
}

#[test]
fn sealed_headers_are_on_when_both_ends_want_them() {
    for (initiator, responder) in [(true, true), (true, false), (false, true), (false, false)] {
        let suites = [Aes256Gcm, ChaCha20Poly1305];
        let ends = handshake(
            abilities(&suites, initiator),
            abilities(&suites, responder),
            Changes::default(),
        );
        for (agreement, _) in ends.unwrap() {
            assert_eq!(agreement.sealed_headers, initiator && responder);
        }
    }
}

#[test]
fn windows_are_on_when_both_ends_want_them() {
    for (initiator, responder) in [(true, true), (true, false), (false, true), (false, false)] {
        let able = |windows| Abilities { windows, ..full() };
        let ends = handshake(able(initiator), able(responder), Changes::default());
        for (agreement, _) in ends.unwrap() {
            assert_eq!(agreement.windows, initiator && responder);
        }
    }
    let chosen = Some(&[0xa2, 0x01, 0x00, 0x06, 0x01][..]);
    assert_eq!(full().read_answer(chosen), Err(NegotiationError::NotOffered));
    let of_another_version = Some(&[0xa2, 0x01, 0x00, 0x06, 0x02][..]);
    assert_eq!(
        with_windows(full()).read_answer(of_another_version),
        Err(NegotiationError::NotOffered)
    );
}

#[test]
fn with_a_peer_that_knows_no_extension_the_channel_is_the_references() {
    // At either end; such a peer answers nothing, and confirms nothing.
    let silent = || Changes {
        answer: Some(None),
        ..Changes::default()
    };
    for (agreement, _) in handshake(Abilities::reference(), full(), Changes::default()).unwrap() {
        assert_eq!(agreement, Agreement::default());
    }
    assert_eq!(full().read_answer(None), Ok(Agreement::default()));
    assert_eq!(full().confirmation(None, Agreement::default()), None);
    // Also a Portolan end that was told to keep to the reference, whatever the peer says.
    let element = Some(&[0xa1, 0x01, 0x01][..]);
    assert_eq!(
        Abilities::reference().read_answer(element),
        Ok(Agreement::default())
    );
    assert_eq!(
        Abilities::reference().confirmation(element, Agreement::default()),
        None
    );
    // An end that is not content with the reference's suite has no channel then.
    let chacha = abilities(&[ChaCha20Poly1305], true);
    let refused = Some(Failed::Negotiation(NegotiationError::NoCommonSuite));
    assert_eq!(handshake(chacha, full(), silent()).err(), refused);
    assert_eq!(
        handshake(Abilities::reference(), chacha, Changes::default()).err(),
        refused
    );
}

#[test]
fn ends_without_a_common_suite_have_no_channel() {
    let refused = Some(Failed::Negotiation(NegotiationError::NoCommonSuite));
    for (initiator, responder) in [(Aes256Gcm, ChaCha20Poly1305), (ChaCha20Poly1305, Aes256Gcm)] {
        let ends = handshake(
            abilities(&[initiator], true),
            abilities(&[responder], true),
            Changes::default(),
        );
        assert_eq!(ends.err(), refused);
    }
    // Numbers that we do not know are skipped; if there is no other, that is no consent to the reference's suite.
    assert_eq!(
        full()
            .answer(&[0xa1, 0x01, 0x82, 0x05, 0x01])
            .unwrap()
            .agreement()
            .suite,
        ChaCha20Poly1305
    );
    for offer in [&[0xa1, 0x01, 0x81, 0x05][..], &[0xa1, 0x01, 0x80]] {
        assert_eq!(full().answer(offer), Err(NegotiationError::NoCommonSuite));
    }
}

#[test]
fn an_offer_that_is_stripped_altered_or_reordered_in_flight_ends_the_handshake() {
    let initiator = with_windows(abilities(&[ChaCha20Poly1305, Aes256Gcm], true));
    let genuine = initiator.offer();
    let mut changed = vec![
        Vec::new(),
        abilities(&[Aes256Gcm, ChaCha20Poly1305], true).offer(),
        abilities(&[Aes256Gcm], true).offer(),
        abilities(&[ChaCha20Poly1305], true).offer(),
        abilities(&[ChaCha20Poly1305, Aes256Gcm], false).offer(),
        abilities(&[ChaCha20Poly1305, Aes256Gcm], true).offer(),
        [&genuine[..], &[0]].concat(),
        // The same meaning in other bytes.
        vec![0xbf, 0x01, 0x82, 0x01, 0x00, 0x05, 0x01, 0xff],
        vec![0xa2, 0x05, 0x01, 0x01, 0x82, 0x01, 0x00],
        vec![0xa3, 0x01, 0x82, 0x01, 0x00, 0x05, 0x01, 0x18, 0x63, 0x00],
        vec![0xff; 2000],
    ];
    changed.extend((0..genuine.len() * 8).map(|bit| {
        let mut altered = genuine.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        altered
    }));
    for payload_1 in changed {
        assert_ne!(payload_1, genuine);
        let failed = handshake(
            initiator,
            with_windows(full()),
            Changes {
                payload_1: Some(payload_1.clone()),
                ..Changes::default()
            },
        );
        match failed.err() {
            // Message 2 is sealed under what the initiator did not say.
            Some(Failed::Handshake(HandshakeError::NotAuthentic { message: 2 })) => {}
            // Or the responder is left without a suite, and does not even answer.
            Some(Failed::Negotiation(NegotiationError::NoCommonSuite)) => {}
            other => panic!("{payload_1:02x?}: {other:?}"),
        }
    }
}

#[test]
fn an_answer_that_was_not_offered_ends_the_handshake() {
    use NegotiationError::{Malformed, NotOffered};
    let chacha = abilities(&[ChaCha20Poly1305], false);
    for (initiator, answer, expected) in [
        (chacha, &[0xa1, 0x01, 0x00][..], NotOffered),
        (chacha, &[0xa0], NotOffered),
        (chacha, &[0xa2, 0x01, 0x01, 0x05, 0x01], NotOffered),
        (full(), &[0xa1, 0x01, 0x02], NotOffered),
        (full(), &[0xa2, 0x01, 0x00, 0x05, 0x02], NotOffered),
        (full(), &[0xa1, 0x01, 0x82, 0x00, 0x01], Malformed),
        (full(), &[0xa2, 0x01, 0x00, 0x01, 0x01], Malformed),
        (full(), &[0xa1, 0x01], Malformed),
        (full(), &[0xf6], Malformed),
        (full(), &[0xa1, 0x01, 0x20], Malformed),
    ] {
        let failed = handshake(
            initiator,
            full(),
            Changes {
                answer: Some(Some(answer.to_vec())),
                ..Changes::default()
            },
        );
        assert_eq!(failed.err(), Some(Failed::Negotiation(expected)), "{answer:02x?}");
    }
}

#[test]
fn an_answer_that_is_not_confirmed_ends_the_handshake() {
    use NegotiationError::{Malformed, NotConfirmed};
    for (confirmation, expected) in [
        (None, NotConfirmed),
        (Some(&[0xa1, 0x01, 0x00][..]), NotConfirmed),
        (Some(&[0xa2, 0x01, 0x01, 0x05, 0x01]), NotConfirmed),
        (Some(&[0xa0]), NotConfirmed),
        (Some(&[0x80]), Malformed),
    ] {
        let failed = handshake(
            full(),
            full(),
            Changes {
                confirmation: Some(confirmation.map(<[u8]>::to_vec)),
                ..Changes::default()
            },
        );
        assert_eq!(
            failed.err(),
            Some(Failed::Negotiation(expected)),
            "{confirmation:02x?}"
        );
    }
}

#[test]
fn a_responder_that_keeps_silent_gets_the_references_channel_and_no_other() {
    // It has seen the offer and answers as the reference would: an end of the channel, not somebody in between.
    let failed = handshake(
        full(),
        full(),
        Changes {
            answer: Some(None),
            ..Changes::default()
        },
    );
    assert_eq!(
        failed.err(),
        Some(Failed::Negotiation(NegotiationError::NotConfirmed))
    );
}

#[test]
fn unknown_keys_are_skipped_and_what_is_no_offer_is_ignored() {
    let future = [
        0xa4, 0x01, 0x82, 0x00, 0x01, 0x02, 0x42, 1, 2, 0x61, b'x', 0xa0, 0x05, 0x01,
    ];
    let answer = full().answer(&future).unwrap();
    assert_eq!(
        answer.agreement(),
        Agreement {
            suite: Aes256Gcm,
            sealed_headers: true,
            windows: false,
        }
    );
    let mut large = vec![0xa1, 0x02, 0x59, 0x07, 0xfb];
    large.resize(MAX_MAP_LEN, 0);
    assert!(full().answer(&large).unwrap().encode().is_some());
    let mut too_large = vec![0xa1, 0x02, 0x59, 0x07, 0xfc];
    too_large.resize(MAX_MAP_LEN + 1, 0);
    for no_offer in [
        &[][..],
        &[0],
        b"offer",
        &[0xa1, 0x01, 0x01],
        &[0xa1, 0x01, 0x9f, 0x00, 0xff],
        &too_large,
    ] {
        let answer = full().answer(no_offer).unwrap();
        assert_eq!(
            (answer.agreement(), answer.encode()),
            (Agreement::default(), None)
        );
        // Nothing is to be confirmed then.
        assert!(answer.check_confirmation(Some(&[0xff])).is_ok());
    }
}

fn any_abilities() -> impl Strategy<Value = Abilities> {
    let suites = prop::sample::subsequence(Suite::ALL.to_vec(), 1..=2).prop_shuffle();
    (suites, any::<bool>()).prop_map(|(suites, sealed_headers)| abilities(&suites, sealed_headers))
}

proptest! {
    #[test]
    fn both_ends_agree_or_there_is_no_channel(initiator in any_abilities(), responder in any_abilities()) {
        match handshake(initiator, responder, Changes::default()) {
            Ok([(ours, _), (theirs, _)]) => {
                prop_assert_eq!(ours, theirs);
                prop_assert!(initiator.suites.contains(ours.suite) && responder.suites.contains(ours.suite));
            }
            Err(failed) => prop_assert_eq!(failed, Failed::Negotiation(NegotiationError::NoCommonSuite)),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), ours in any_abilities()) {
        let _ = ours.answer(&bytes);
        let _ = ours.read_answer(Some(&bytes));
        if let Ok(answer) = ours.answer(&ours.offer()) {
            let _ = answer.check_confirmation(Some(&bytes));
        }
    }
}

//! The handshake as an in-memory pair, against the published vectors and against forgers.

use std::sync::Arc;

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;

/// The name under which the reference's own vectors were made (spec 02 §8.3).
const TEXTBOOK_NAME: &[u8; 32] = b"Noise_XX_25519_AESGCM_SHA256\0\0\0\0";

fn counting_from(first: u8) -> [u8; 32] {
    std::array::from_fn(|i| first + i as u8)
}

fn key(first: u8) -> Arc<dyn StaticKey> {
    Arc::new(X25519Secret::from_bytes(&counting_from(first)))
}

fn initiator(name: &[u8; 32]) -> Initiator {
    Initiator::with_protocol_name(name, key(0x00), &Zeroizing::new(counting_from(0x20)))
}

fn responder(name: &[u8; 32]) -> Responder {
    Responder::with_protocol_name(name, key(0x01), &Zeroizing::new(counting_from(0x41)))
}

struct Transcript {
    messages: [String; 3],
    payloads: [Vec<u8>; 3],
    initiator: SessionKeys,
    responder: SessionKeys,
}

fn run(name: &[u8; 32], payloads: [&[u8]; 3]) -> Transcript {
    let (initiator, m1) = initiator(name).write_message_1(payloads[0]).unwrap();
    let (responder, p1) = responder(name).read_message_1(&m1).unwrap();
    let p1 = p1.to_vec();
    let (responder, mut m2) = responder.write_message_2(payloads[1]).unwrap();
    let m2_hex = hex::encode(&m2);
    let (initiator, p2) = initiator.read_message_2(&mut m2).unwrap();
    let p2 = p2.to_vec();
    let (initiator, mut m3) = initiator.write_message_3(payloads[2]).unwrap();
    let m3_hex = hex::encode(&m3);
    let (responder, p3) = responder.read_message_3(&mut m3).unwrap();
    Transcript {
        messages: [hex::encode(m1), m2_hex, m3_hex],
        payloads: [p1, p2, p3.to_vec()],
        initiator,
        responder,
    }
}

#[test]
fn the_initial_hash_is_the_published_one() {
    let h = |name| hex::encode(SymmetricState::initialize_symmetric(name).handshake_hash());
    assert_eq!(
        h(TEXTBOOK_NAME),
        "5df72b67b965add1168f0a6c756df21c204f7e64fc682be6a3ab4b682c8db64b"
    );
    assert_eq!(
        h(PROTOCOL_NAME),
        "c6096331ab8d033b2ab45efed418e9511b63d51e0b5a9a584086ea8b5905e752"
    );
}

#[test]
fn messages_match_the_published_vectors_with_empty_payloads() {
    let run = run(TEXTBOOK_NAME, [b"", b"", b""]);
    assert_eq!(
        run.messages,
        [
            "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254",
            "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d484665393019dbd6f438795da206db0886610b26108e\
             424142c2e9b5fd1f7ea70cde8767ce62d7e3c0e9bcefe4ab872c0505b9e824df091b74ffe10a2b32809cab21f",
            "e610eadc4b00c17708bf223f29a66f02342fbedf6c0044736544b9271821ae40e70144cecd9d265dffdc5bb8e051c3f83db32a4\
             25e04d8f510c58a43325fbc56",
        ]
    );
}

#[test]
fn messages_match_the_published_vectors_with_payloads() {
    let run = run(TEXTBOOK_NAME, [b"test_msg_0", b"test_msg_1", b"test_msg_2"]);
    assert_eq!(
        run.messages,
        [
            "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254746573745f6d73675f30",
            "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d484665393019dbd6f438795da206db0886610b26108e\
             424142c2e9b5fd1f7ea70cde8c9f29dcec8d3ab554f4a5330657867fe4917917195c8cf360e08d6dc5f71baf875ec6e3bfc7afd\
             a4c9c2",
            "e610eadc4b00c17708bf223f29a66f02342fbedf6c0044736544b9271821ae40232c55cd96d1350af861f6a04978f7d5e070c07\
             602c6b84d25a331242a71c50ae31dd4c164267fd48bd2",
        ]
    );
    assert_eq!(run.payloads, [b"test_msg_0", b"test_msg_1", b"test_msg_2"]);
}

#[test]
fn messages_and_keys_match_the_vectors_of_the_protocol() {
    let run = run(PROTOCOL_NAME, [b"", b"test_msg_1", b"test_msg_2"]);
    assert_eq!(
        run.messages,
        [
            "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254",
            "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d484666496c3648a1e088504a02025498d1045ae1e30f\
             803f5bda8daac842e4291fe003ec09712baa61f30e8b9b83d55f64560776f82cd4f049dcd866972c4e79786df0a943b723d4f31\
             067e62",
            "8f021075c218d4ca06d334b5af04de7ce3d19e12adb47dbf749f595010f6fd374387eacf15d3b16ac049d8600ab55f9dcf61de8\
             ce9d60ce0b18d9819faba00d1d28469b9e9b213317602",
        ]
    );
    let h = "575095ca2149ac5cb18a6123893913c44c0a7cb5202ed6dabc6bf7d70634d300";
    let k1 = "4349aa5f460aca550b37ce55d3f7ad8f2d4747084b6c62e15c523568ebafe860";
    let k2 = "831124fa3e1606b97f5cda4d81c3aa04c7c0151666f05f49a09cd0faf63a05d8";
    for (keys, send, receive) in [(&run.initiator, k2, k1), (&run.responder, k1, k2)] {
        assert_eq!(hex::encode(keys.handshake_hash), h);
        assert_eq!(hex::encode(*keys.send), send);
        assert_eq!(hex::encode(*keys.receive), receive);
    }
    assert_eq!(run.initiator.remote_static, key(0x01).public_key());
    assert_eq!(run.responder.remote_static, key(0x00).public_key());
}

#[test]
fn a_responder_takes_a_payload_in_message_1() {
    let run = run(PROTOCOL_NAME, [&[7; 2048], b"2", b"3"]);
    assert_eq!(run.payloads[0], [7; 2048]);
    assert_eq!(run.initiator.send, run.responder.receive);
}

#[test]
fn a_payload_that_was_altered_in_message_1_ends_in_no_channel() {
    let (initiator, mut m1) = initiator(PROTOCOL_NAME).write_message_1(b"offer").unwrap();
    m1[32] ^= 1;
    let (responder, _) = responder(PROTOCOL_NAME).read_message_1(&m1).unwrap();
    let (_, mut m2) = responder.write_message_2(b"").unwrap();
    let rejected = initiator.read_message_2(&mut m2).unwrap_err();
    assert_eq!(rejected.error, HandshakeError::NotAuthentic { message: 2 });
}

#[test]
fn a_forged_message_2_does_not_stop_the_genuine_one() {
    let (mut initiator, m1) = initiator(PROTOCOL_NAME).write_message_1(b"").unwrap();
    for len in [0, 31, 32, 50, 95, 96, 200, 65535, 65536, 100_000] {
        let mut forged: Vec<u8> = (0..len).map(|i| (i * 7 + 9) as u8).collect();
        initiator = initiator.read_message_2(&mut forged).unwrap_err().state;
    }
    // The key of small order: all zero.
    let rejected = initiator.read_message_2(&mut [0; 200]).unwrap_err();
    assert_eq!(rejected.error, HandshakeError::WeakKey);
    let (responder, _) = responder(PROTOCOL_NAME).read_message_1(&m1).unwrap();
    let (_, mut m2) = responder.write_message_2(b"genuine").unwrap();
    let (_, payload) = rejected.state.read_message_2(&mut m2).unwrap();
    assert_eq!(payload, b"genuine");
}

#[test]
fn a_forged_message_3_does_not_stop_the_genuine_one() {
    let (initiator, m1) = initiator(PROTOCOL_NAME).write_message_1(b"").unwrap();
    let (responder, _) = responder(PROTOCOL_NAME).read_message_1(&m1).unwrap();
    let (mut responder, mut m2) = responder.write_message_2(b"").unwrap();
    for len in [0, 32, 63, 64, 200, 65535, 65536] {
        responder = responder.read_message_3(&mut vec![0x55; len]).unwrap_err().state;
    }
    let (initiator, _) = initiator.read_message_2(&mut m2).unwrap();
    let (_, mut m3) = initiator.write_message_3(b"genuine").unwrap();
    let (_, payload) = responder.read_message_3(&mut m3).unwrap();
    assert_eq!(payload, b"genuine");
}

#[test]
fn a_rejected_responder_leaves_room_for_another() {
    // Somebody in between answers first, with a correct message 2 under a key of his own.
    let (initiator, m1) = initiator(PROTOCOL_NAME).write_message_1(b"").unwrap();
    let stranger = Responder::new(key(0x80), &Zeroizing::new(counting_from(0x90)));
    let (_, mut m2) = stranger
        .read_message_1(&m1)
        .unwrap()
        .0
        .write_message_2(b"I am the responder")
        .unwrap();
    let (initiator, _) = initiator.read_message_2(&mut m2).unwrap();
    assert_eq!(*initiator.remote_static(), key(0x80).public_key());
    let initiator = initiator.reject();
    let (responder, _) = responder(PROTOCOL_NAME).read_message_1(&m1).unwrap();
    let (responder, mut m2) = responder.write_message_2(b"").unwrap();
    let (initiator, _) = initiator.read_message_2(&mut m2).unwrap();
    let (ours, mut m3) = initiator.write_message_3(b"").unwrap();
    let (theirs, _) = responder.read_message_3(&mut m3).unwrap();
    assert_eq!(ours.send, theirs.receive);
}

#[test]
fn a_message_1_of_fewer_than_32_bytes_or_with_a_weak_key_starts_nothing() {
    for len in 0..32 {
        let error = responder(PROTOCOL_NAME)
            .read_message_1(&vec![9; len])
            .err()
            .unwrap();
        assert_eq!(
            error,
            HandshakeError::Truncated {
                message: 1,
                len,
                min: 32
            }
        );
    }
    let (responder, _) = responder(PROTOCOL_NAME).read_message_1(&[0; 32]).unwrap();
    assert_eq!(
        responder.write_message_2(b"").err().unwrap(),
        HandshakeError::WeakKey
    );
}

#[test]
fn a_payload_that_does_not_fit_is_refused() {
    let too_long = vec![0; MAX_MESSAGE_LEN];
    assert!(matches!(
        initiator(PROTOCOL_NAME).write_message_1(&too_long),
        Err(HandshakeError::TooLong { message: 1, .. })
    ));
    let run = run(
        PROTOCOL_NAME,
        [
            b"",
            &too_long[MIN_MESSAGE_2_LEN..],
            &too_long[MIN_MESSAGE_3_LEN..],
        ],
    );
    assert_eq!(run.messages[1].len(), 2 * MAX_MESSAGE_LEN);
    assert_eq!(run.payloads[2].len(), MAX_MESSAGE_LEN - MIN_MESSAGE_3_LEN);
}

#[test]
fn an_unfinished_handshake_is_small() {
    assert!(size_of::<ResponderAwaitingMessage3>() <= 256);
}

proptest! {
    #[test]
    fn any_flipped_bit_in_messages_2_and_3_is_noticed(bit in 0..8 * 106usize, in_message_3: bool) {
        let (initiator, m1) = initiator(PROTOCOL_NAME).write_message_1(b"").unwrap();
        let (responder, _) = responder(PROTOCOL_NAME).read_message_1(&m1).unwrap();
        let (responder, m2) = responder.write_message_2(b"0123456789").unwrap();
        let flip = |message: &[u8]| {
            let mut message = message.to_vec();
            let bit = bit % (message.len() * 8);
            message[bit / 8] ^= 1 << (bit % 8);
            message
        };
        // The last bit of an X25519 key is not part of it (RFC 7748 §5), but it is part of the hash.
        if !in_message_3 {
            let rejected = initiator.read_message_2(&mut flip(&m2)).unwrap_err();
            prop_assert!(rejected.state.read_message_2(&mut m2.clone()).is_ok());
            return Ok(());
        }
        let mut m2 = m2;
        let (initiator, _) = initiator.read_message_2(&mut m2).unwrap();
        let (_, mut m3) = initiator.write_message_3(b"0123456789").unwrap();
        let rejected = responder.read_message_3(&mut flip(&m3)).unwrap_err();
        prop_assert!(rejected.state.read_message_3(&mut m3).is_ok());
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (initiator, _) = initiator(PROTOCOL_NAME).write_message_1(b"").unwrap();
        prop_assert!(initiator.read_message_2(&mut bytes.clone()).is_err());
        if let Ok((responder, _)) = responder(PROTOCOL_NAME).read_message_1(&bytes.clone())
            && let Ok((responder, _)) = responder.write_message_2(b"") {
            prop_assert!(responder.read_message_3(&mut bytes).is_err());
        }
    }
}

//! Messages against the published vectors, the reference's tolerance, and our limits.

use portolan_runtime::route;
use proptest::prelude::*;

use super::*;

/// RefreshCredentials of spec 02 §8.2.
const REFRESH: &str = "828201818281825837830101583285f682008158208bd01513a019c95d96553015b1b0a3014e7bd67c7f3c8e6223e839111041f8d6f41a659c99fd1a78689cfd820081584067118992d037593809f8b217641aed54dc983f2847f95b2068207c3647beb73a60b0e14012c14bfee487c880f0f74d9f8a7d7abd3ef333f2f90f097ef366900c81828258e183010358dc855820904192e6e480915e0d1256d3abf9c3c9c67bc2b4c41ffca77550d8a3f12fbb1e5820904192e6e480915e0d1256d3abf9c3c9c67bc2b4c41ffca77550d8a3f12fbb1e8201a44b6f636b616d2d72656c6179412a4a6f636b616d2d726f6c6548656e726f6c6c65724a70726f6a6563745f6964582437363764343631632d393835312d346330622d626663362d3664333333346235626363325074727573745f636f6e746578745f6964582437363764343631632d393835312d346330622d626663362d3664333333346235626363321a659ca3cf1a659ca3ed8200815840cf27a0a3052c53b1f27bf7776ca95c7dcdd7a0f493cc5b1e30f9d35712bb8fde16f69065aa9f70b3689a8f1b7b05fc13e6e807efa719031d1a415d25b61c360b82587c8301025877855820b1fea1775d75079abdb1e78b96921fa9ec340bc2b5aa70f37e65342d859cf5505820b1fea1775d75079abdb1e78b96921fa9ec340bc2b5aa70f37e65342d859cf5508201818200815820389852b0f4fee7b6b962442a924d1672c56b8813fb846a50da80db7e1bbe41591a659c9a2f1a6f029baf8200815840adf4a66e097de839d3539694a6c6a82a978ff009205df8bf7eb03b9990958b7c4e7037fd9d365cf220a2757ed60f0542f47965d8b9f354fd950841ce6630460640";
const PAYLOAD: &str = "8282008183818200466563686f6572818200436170704568656c6c6f40";

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).unwrap()
}

#[test]
fn a_payload_matches_the_vector() {
    let mut out = Vec::new();
    put_payload_head(&mut out, route!["echoer"].as_slice(), route!["app"].as_slice(), 5);
    out.extend_from_slice(b"hello");
    out.extend_from_slice(&PAYLOAD_TAIL);
    assert_eq!(hex::encode(&out), PAYLOAD);
    let expected = ChannelMessage::Payload {
        onward: route!["echoer"],
        back: route!["app"],
        payload: out.len() - 6..out.len() - 1,
    };
    assert_eq!(ChannelMessage::decode(&out), Ok(expected));
}

#[test]
fn close_matches_the_vector() {
    assert_eq!(hex::encode(CLOSE), "8282028040");
    assert_eq!(ChannelMessage::decode(&CLOSE), Ok(ChannelMessage::Close));
}

#[test]
fn a_receipt_matches_the_vector() {
    let mut out = vec![7];
    for (total, expected) in [(262_144, "828203811a0004000040"), (0, "828203810040")] {
        put_receipt(&mut out, total);
        assert_eq!(hex::encode(&out), expected);
        assert_eq!(ChannelMessage::decode(&out), Ok(ChannelMessage::Receipt(total)));
    }
    for malformed in [
        "82820340",
        "8282038040",
        "828203816140",
        "828203812040",
        "8282038100",
    ] {
        assert!(ChannelMessage::decode(&unhex(malformed)).is_err(), "{malformed}");
    }
}

#[test]
fn refresh_credentials_matches_the_vector() {
    let bytes = unhex(REFRESH);
    assert_eq!(bytes.len(), 629);
    let Ok(ChannelMessage::RefreshCredentials {
        change_history,
        credentials,
    }) = ChannelMessage::decode(&bytes)
    else {
        panic!("not a RefreshCredentials");
    };
    assert_eq!(change_history.len(), 128);
    assert_eq!(credentials.len(), 1);
    assert_eq!(refresh_credentials_message(change_history, &credentials), bytes);
}

#[test]
fn what_the_reference_tolerates_is_tolerated() {
    for text in [
        "82 820081 83 80 80 40 43010203",    // padding
        "83 820081 83 80 80 40 40 f6",       // a third element of PaddedMessage
        "82 820081 84 80 80 40 01 40",       // a fourth field of Payload
        "9f 82009f 9f 80 80 40 ff ff 40 ff", // indefinite records
        "82 820081 9f 9fff 9fff 40 ff 40",   // indefinite routes
        "82 82180081 83 80 80 40 40",        // non-minimal index
        "82 820081 83 80 80 40 40 ffff",     // bytes behind
        "82 8202f6 40",                      // whatever body of Close
    ] {
        let bytes = unhex(text);
        let result = ChannelMessage::decode(&bytes);
        assert!(result.is_ok(), "{text}: {result:?}");
    }
}

#[test]
fn what_is_malformed_is_refused() {
    for text in [
        "",
        "80",
        "81 820280",                                // no padding
        "82 820280 f6",                             // padding that is no byte string
        "82 9f0280ff 40",                           // indefinite variant
        "82 83028080 40",                           // variant of three
        "82 820380 40",                             // unknown variant
        "82 820081 82 80 80 40",                    // no payload
        "82 820081 83 80 80 6161 40",               // payload as text
        "82 820081 83 80 80 5f4161ff 40",           // indefinite payload
        "82 820081 83 9a000f4240 80 40 40",         // a route of a million hops
        "82 820081 83 80 80 5bffffffffffffffff 40", // a payload longer than the message
        "82 820181 81 80 40",                       // no list of credentials
    ] {
        assert!(ChannelMessage::decode(&unhex(text)).is_err(), "{text}");
    }
}

#[test]
fn credentials_longer_than_the_limit_are_refused_before_they_are_read() {
    let history = [&[0x5a, 0, 1, 0, 0][..], &[0; 65536]].concat();
    assert_eq!(
        ChannelMessage::decode(&refresh_credentials_message(&history, &[])),
        Err(WireError::Limit("credentials longer than 65535 bytes"))
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ChannelMessage::decode(&bytes);
    }

    #[test]
    fn what_is_written_is_read_back(
        onward in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..6),
        payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let hops: Vec<Address> = onward.iter().map(|(t, b)| Address::new(*t, b)).collect();
        let mut out = Vec::new();
        put_payload_head(&mut out, &hops, &[], payload.len());
        out.extend_from_slice(&payload);
        out.extend_from_slice(&PAYLOAD_TAIL);
        match ChannelMessage::decode(&out) {
            Ok(ChannelMessage::Payload { onward, payload: range, .. }) => {
                prop_assert_eq!(onward.as_slice(), &hops[..]);
                prop_assert_eq!(&out[range], &payload[..]);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn a_sealed_header_says_how_long_the_payload_is() {
    let payload = [7; 300];
    let mut plaintext = Vec::new();
    put_payload_head(
        &mut plaintext,
        route!["b", "c"].as_slice(),
        route!["d"].as_slice(),
        payload.len(),
    );
    let head = plaintext.len();
    plaintext.extend_from_slice(&payload[..PREFIX_LEN]);
    let rest = payload.len() - PREFIX_LEN;
    let expected = PayloadHeader {
        onward: route!["b", "c"],
        back: route!["d"],
        payload: head,
    };
    assert_eq!(PayloadHeader::decode(&plaintext, rest), Ok(expected));
    for wrong in [0, rest - 1, rest + 1, usize::MAX] {
        assert!(PayloadHeader::decode(&plaintext, wrong).is_err());
    }
    // More or less of the payload than its first bytes, and what is no payload.
    assert!(PayloadHeader::decode(&plaintext[..plaintext.len() - 1], rest + 1).is_err());
    plaintext.push(7);
    assert!(PayloadHeader::decode(&plaintext, rest - 1).is_err());
    assert!(PayloadHeader::decode(&CLOSE, 0).is_err());
    for head in [
        "",
        "40",
        "5820",
        "590100",
        "5f",
        "7820",
        "1820",
        "5bffffffffffffffff",
    ] {
        let head = [
            &[0x82, 0x82, 0x00, 0x81, 0x83, 0x80, 0x80],
            &hex::decode(head).unwrap()[..],
        ]
        .concat();
        let plaintext = [&head[..], &[0; PREFIX_LEN]].concat();
        let is_whole_payload = hex::encode(&head).ends_with("5820");
        assert_eq!(PayloadHeader::decode(&plaintext, 0).is_ok(), is_whole_payload);
    }
}

proptest! {
    #[test]
    fn no_bytes_of_a_sealed_header_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), rest: usize) {
        let _ = PayloadHeader::decode(&bytes, rest);
        let _ = PayloadHeader::decode(&[&[0x82, 0x82, 0x00, 0x81, 0x83], &bytes[..]].concat(), rest);
    }
}

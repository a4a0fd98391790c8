//! The record layer as an in-memory pair, over a path that loses, repeats, reorders and alters.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn key(hex: &str) -> KeyBytes {
    KeyBytes::new(hex::decode(hex).unwrap().try_into().unwrap())
}

const K1: &str = "4349aa5f460aca550b37ce55d3f7ad8f2d4747084b6c62e15c523568ebafe860";
const K2: &str = "831124fa3e1606b97f5cda4d81c3aa04c7c0151666f05f49a09cd0faf63a05d8";
const PAYLOAD: &str = "8282008183818200466563686f6572818200436170704568656c6c6f40";
const CLOSE: &str = "8282028040";

fn pair(suite: Suite) -> (Sealer, Opener) {
    (Sealer::new(suite, key(K2)), Opener::new(suite, key(K2)))
}

/// One set of tests for all of them.
fn in_every_suite(test: impl Fn(Suite)) {
    Suite::ALL.into_iter().for_each(test);
}

fn reference_pair(suite: Suite) -> (Sealer, Opener) {
    (
        Sealer::new(suite, key(K2)),
        Opener::with_max_ahead(suite, key(K2), REFERENCE_MAX_AHEAD),
    )
}

fn seal(sealer: &mut Sealer, plaintext: &[u8]) -> Vec<u8> {
    let mut buffer = [&[0; NONCE_LEN], plaintext, &[0; TAG_LEN]].concat();
    sealer.seal(&mut buffer).unwrap();
    buffer
}

fn seal_number(sealer: &mut Sealer, n: u64) -> Vec<u8> {
    sealer.skip_to(n);
    seal(sealer, &n.to_le_bytes())
}

/// A hundred intervals of records, sealed in order.
fn records(suite: Suite, count: u64) -> Vec<Vec<u8>> {
    let mut sealer = Sealer::new(suite, key(K2));
    (0..count).map(|n| seal(&mut sealer, &n.to_le_bytes())).collect()
}

fn open(opener: &mut Opener, record: &[u8]) -> Result<(u64, Order), RecordError> {
    let mut record = record.to_vec();
    opener.open(&mut record).map(|opened| {
        assert!(opened.plaintext.len() != 8 || opened.plaintext == opened.nonce.to_le_bytes());
        (opened.nonce, opened.order)
    })
}

#[test]
fn records_match_the_vectors_of_the_protocol() {
    let plain = hex::decode(PAYLOAD).unwrap();
    let close = hex::decode(CLOSE).unwrap();
    let mut from_initiator = Sealer::new(Suite::Aes256Gcm, key(K2));
    let mut from_responder = Sealer::new(Suite::Aes256Gcm, key(K1));
    let n0 = seal(&mut from_initiator, &plain);
    assert_eq!(
        hex::encode(&n0),
        "0000000000000000730a7fb64a78d67042e6e239c46e13d84c96427982db86810add57a69e2d719d01041edbea45394ae6a020a752"
    );
    assert_eq!(
        hex::encode(seal(&mut from_responder, &plain)),
        "00000000000000005defa50e8bed5dce798fd690c8dd4862c13b1604507a27a55677e962d07a2a3443a975cb3d15ba414cfde799a7"
    );
    from_initiator.skip_to(31);
    let n31 = seal(&mut from_initiator, &close);
    assert_eq!(
        hex::encode(&n31),
        "000000000000001ff2680d5a8185118fb5c871db0a3597a8c8763acec9"
    );
    let n32 = seal(&mut from_initiator, &close);
    assert_eq!(
        hex::encode(&n32),
        "00000000000000202dcf70b199aa5df8145dadbf7287dc84ace9b38d33"
    );
    let mut opener = Opener::new(Suite::Aes256Gcm, key(K2));
    let mut record = n0.clone();
    assert_eq!(opener.open(&mut record).unwrap().plaintext, plain);
    assert_eq!(open(&mut opener, &n31), Ok((31, Order::Ahead(30))));
    assert_eq!(open(&mut opener, &n32), Ok((32, Order::InOrder)));
}

#[test]
fn rekeying_yields_the_published_keys() {
    let mut generation = Generation::new(Suite::Aes256Gcm, key(K2));
    for expected in [
        "4699ba00b29842a236c781ce67c044de2bc43eaaaf35f6bfa4353581ada3d044",
        "b9aa3e02c32dce978ce7ab97d51f360f7902cdaaedd6c0ae237219616d45e77c",
    ] {
        generation = generation.next(Suite::Aes256Gcm);
        assert_eq!(hex::encode(*generation.key), expected);
    }
}

#[test]
fn records_meet_the_expectations_of_the_reference() {
    in_every_suite(|suite| {
        const N: u64 = 32;
        let records = records(suite, 6 * N);
        let (_, mut opener) = reference_pair(suite);
        let mut accepts = |n: u64| open(&mut opener, &records[n as usize]).is_ok();
        assert!(accepts(0) && accepts(1) && !accepts(0) && !accepts(N + 2) && accepts(N + 1) && !accepts(1));
        assert!(accepts(N + 2) && accepts(N + 3) && !accepts(N + 1) && !accepts(N + 2));
        assert!(accepts(2 * N) && !accepts(N - 1) && accepts(3 * N) && accepts(4 * N));
        assert!((3 * N + 1..4 * N).all(&mut accepts));
        assert!((4 * N + 1..=5 * N).all(&mut accepts));
    });
}

#[test]
fn a_long_stream_arrives_in_order_in_every_suite() {
    in_every_suite(|suite| {
        let (mut sealer, mut opener) = pair(suite);
        for n in 0..1000 {
            let record = seal(&mut sealer, &[n as u8; 100]);
            assert_eq!(open(&mut opener, &record), Ok((n, Order::InOrder)));
        }
    });
}

#[test]
fn a_gap_and_a_late_record_are_reported() {
    in_every_suite(|suite| {
        let records = records(suite, 10);
        let (_, mut opener) = pair(suite);
        assert_eq!(open(&mut opener, &records[2]), Ok((2, Order::Ahead(2))));
        assert_eq!(open(&mut opener, &records[3]), Ok((3, Order::InOrder)));
        assert_eq!(open(&mut opener, &records[0]), Ok((0, Order::Late)));
        assert_eq!(open(&mut opener, &records[5]), Ok((5, Order::Ahead(1))));
        let mut record = records[4].clone();
        assert!(opener.open(&mut record).unwrap().gap());
    });
}

#[test]
fn the_direction_survives_a_gap_that_ends_the_references() {
    in_every_suite(|suite| {
        let (mut sealer, mut opener) = pair(suite);
        open(&mut opener, &seal_number(&mut sealer, 0)).unwrap();
        for n in [33, 200, 200 + MAX_AHEAD, 201 + MAX_AHEAD] {
            assert!(open(&mut opener, &seal_number(&mut sealer, n)).is_ok(), "{n}");
        }
        let beyond = 202 + 2 * MAX_AHEAD;
        assert_eq!(
            open(&mut opener, &seal_number(&mut sealer, beyond)),
            Err(RecordError::TooFarAhead(beyond))
        );
    });
}

#[test]
fn late_records_open_after_a_gap_over_several_intervals() {
    in_every_suite(|suite| {
        let records = records(suite, 400);
        let (_, mut opener) = pair(suite);
        assert_eq!(open(&mut opener, &records[330]), Ok((330, Order::Ahead(330))));
        for (record, n) in records[298..330].iter().zip(298..) {
            assert_eq!(open(&mut opener, record), Ok((n, Order::Late)));
            assert_eq!(open(&mut opener, record), Err(RecordError::Replayed(n)));
        }
        assert_eq!(open(&mut opener, &records[297]), Err(RecordError::TooOld(297)));
    });
}

#[test]
fn a_forged_record_of_a_later_interval_leaves_no_trace() {
    in_every_suite(|suite| {
        let records = records(suite, 100);
        let (_, mut opener) = pair(suite);
        open(&mut opener, &records[0]).unwrap();
        for n in [32_u64, 64, 4000, 4096] {
            let mut forged = records[33].clone();
            forged[..8].copy_from_slice(&n.to_be_bytes());
            assert_eq!(open(&mut opener, &forged), Err(RecordError::NotAuthentic(n)));
            assert_eq!(opener.interval, 0);
            assert!(opener.previous.is_none());
        }
        for (n, record) in records.iter().enumerate().skip(1) {
            assert_eq!(open(&mut opener, record), Ok((n as u64, Order::InOrder)));
        }
    });
}

#[test]
fn what_is_too_short_is_neither_sealed_nor_opened() {
    in_every_suite(|suite| {
        let (mut sealer, mut opener) = pair(suite);
        for len in 0..OVERHEAD {
            assert_eq!(sealer.seal(&mut vec![0; len]), Err(RecordError::NoRoom));
            assert_eq!(open(&mut opener, &vec![0; len]), Err(RecordError::Truncated(len)));
        }
        assert_eq!(sealer.next_nonce(), 0);
        let empty = seal(&mut sealer, b"");
        assert_eq!(open(&mut opener, &empty), Ok((0, Order::InOrder)));
    });
}

#[test]
fn the_last_nonce_is_never_used() {
    in_every_suite(|suite| {
        let (mut sealer, _) = pair(suite);
        for n in [MAX_RECORDS, u64::MAX] {
            sealer.next_nonce = n;
            assert_eq!(sealer.seal(&mut [0; OVERHEAD]), Err(RecordError::Exhausted));
            assert_eq!(
                sealer.seal_header(&mut [0; HEADER_FRONT + 1], 1),
                Err(RecordError::Exhausted)
            );
        }
        sealer.next_nonce = MAX_RECORDS - 1;
        // With the bit of its form, the last number is one less than the nonce of the rekey operation.
        let mut last = [0; HEADER_FRONT + 1];
        assert_eq!(sealer.seal_header(&mut last, 1), Ok(MAX_RECORDS - 1));
        assert_eq!(last[..NONCE_LEN], (u64::MAX - 1).to_be_bytes());
    });
}

mod sealed_headers;

#[derive(Debug, Clone)]
enum Fault {
    None,
    Lose,
    Repeat,
    Delay(usize),
    Flip(usize),
    Truncate(usize),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        2 => Just(Fault::Lose),
        2 => Just(Fault::Repeat),
        2 => (1usize..50).prop_map(Fault::Delay),
        1 => any::<usize>().prop_map(Fault::Flip),
        1 => any::<usize>().prop_map(Fault::Truncate),
    ]
}

proptest! {
    /// Whatever the path does: nothing is accepted twice, nothing altered is accepted, and what the window allows is.
    #[test]
    fn a_bad_path_can_only_lose(
        faults in proptest::collection::vec(fault(), 1..400),
        reference: bool,
        chacha: bool,
    ) {
        let suite = if chacha { Suite::ChaCha20Poly1305 } else { Suite::Aes256Gcm };
        let max_ahead = if reference { REFERENCE_MAX_AHEAD } else { MAX_AHEAD };
        let records = records(suite, faults.len() as u64);
        let mut path: Vec<(usize, Vec<u8>, bool)> = Vec::new();
        for (n, fault) in faults.iter().enumerate() {
            let record = records[n].clone();
            match fault {
                Fault::None => path.push((2 * n, record, true)),
                Fault::Lose => {}
                Fault::Repeat => {
                    path.push((2 * n, record.clone(), true));
                    path.push((2 * n + 1, record, true));
                }
                Fault::Delay(by) => path.push((2 * (n + by) + 1, record, true)),
                Fault::Flip(bit) => {
                    let mut altered = record;
                    let bit = bit % (altered.len() * 8);
                    altered[bit / 8] ^= 1 << (bit % 8);
                    path.push((2 * n, altered, false));
                }
                Fault::Truncate(len) => path.push((2 * n, record[..len % record.len()].to_vec(), false)),
            }
        }
        path.sort_by_key(|(at, ..)| *at);
        let mut opener = Opener::with_max_ahead(suite, key(K2), max_ahead);
        let mut seen = HashSet::new();
        let mut newest = 0u64;
        for (_, record, genuine) in path {
            let result = open(&mut opener, &record);
            if !genuine {
                prop_assert!(result.is_err());
                continue;
            }
            let n = u64::from_be_bytes(record[..8].try_into().unwrap());
            let in_window = if n > newest { n - newest <= max_ahead } else { newest - n <= MAX_BEHIND };
            prop_assert_eq!(result.is_ok(), in_window && !seen.contains(&n), "{} {}: {:?}", n, newest, result);
            if let Ok((_, order)) = result {
                let expected = if seen.is_empty() { 0 } else { newest + 1 };
                prop_assert_eq!(order == Order::InOrder, n == expected);
                seen.insert(n);
                newest = newest.max(n);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        for suite in Suite::ALL {
            let (_, opener) = pair(suite);
            prop_assert!(opener.accept_sealed_headers(true).open(&mut bytes.clone()).is_err());
            let (_, mut opener) = pair(suite);
            prop_assert!(opener.open(&mut bytes).is_err());
        }
    }
}

//! Records of which only the header is sealed.

use super::*;

const HEADER: &[u8] = b"the way, and the length";
const REST: &[u8] = b"a record of another channel";

fn seal_header(sealer: &mut Sealer, header: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut buffer = [&[0; HEADER_FRONT], header, rest].concat();
    sealer.seal_header(&mut buffer, header.len()).unwrap();
    buffer
}

fn agreed(suite: Suite) -> (Sealer, Opener) {
    let (sealer, opener) = pair(suite);
    (sealer, opener.accept_sealed_headers(true))
}

#[test]
fn a_record_matches_its_vector() {
    for (suite, expected) in [
        (
            Suite::Aes256Gcm,
            "80000000000000000017a78a2d086d6934e45b05c4cfa6c1d1918c32ba99ea82483edc454a9cd07e9f927da9f54265949761207265636f7264206f6620616e6f74686572206368616e6e656c",
        ),
        (
            Suite::ChaCha20Poly1305,
            "80000000000000000017ffb1ef32f14d0123f786e21947ce9172fc6461f5b8aa05189171e3c2c2637aacf96a96d8e6beca61207265636f7264206f6620616e6f74686572206368616e6e656c",
        ),
    ] {
        let (mut sealer, mut opener) = agreed(suite);
        let record = seal_header(&mut sealer, HEADER, REST);
        assert_eq!(hex::encode(&record), expected, "{suite}");
        let mut record = record;
        let opened = opener.open(&mut record).unwrap();
        assert_eq!((opened.nonce, opened.order), (0, Order::InOrder));
        assert_eq!((&*opened.plaintext, opened.rest.as_deref()), (HEADER, Some(REST)));
    }
}

#[test]
fn both_forms_share_one_counter_one_window_and_the_keys() {
    in_every_suite(|suite| {
        let (mut sealer, mut opener) = agreed(suite);
        let mut records = Vec::new();
        for n in 0..200_u64 {
            records.push(if n % 3 == 0 {
                seal_header(&mut sealer, &n.to_le_bytes(), REST)
            } else {
                seal(&mut sealer, &n.to_le_bytes())
            });
        }
        for (n, record) in records.iter().enumerate() {
            assert_eq!(open(&mut opener, record), Ok((n as u64, Order::InOrder)));
            assert_eq!(open(&mut opener, record), Err(RecordError::Replayed(n as u64)));
        }
        // Out of order, and over intervals of keys.
        let (_, mut opener) = agreed(suite);
        assert_eq!(open(&mut opener, &records[99]), Ok((99, Order::Ahead(99))));
        assert_eq!(open(&mut opener, &records[90]), Ok((90, Order::Late)));
        assert_eq!(open(&mut opener, &records[97]), Ok((97, Order::Late)));
        assert_eq!(open(&mut opener, &records[33]), Err(RecordError::TooOld(33)));
    });
}

#[test]
fn without_an_agreement_it_is_refused_and_changes_nothing() {
    in_every_suite(|suite| {
        let (mut sealer, mut opener) = pair(suite);
        let record = seal_header(&mut sealer, HEADER, REST);
        assert_eq!(
            open(&mut opener, &record),
            Err(RecordError::TooFarAhead(HEADER_ONLY))
        );
        let next = seal(&mut sealer, b"whole");
        assert_eq!(open(&mut opener, &next), Ok((1, Order::Ahead(1))));
    });
}

#[test]
fn a_record_cannot_be_taken_for_one_of_the_other_form() {
    in_every_suite(|suite| {
        let (mut sealer, mut opener) = agreed(suite);
        // Long enough to be read either way.
        let mut whole = seal(&mut sealer, &[0; 100]);
        let mut header = seal_header(&mut sealer, &[0; 50], &[0; 50]);
        for record in [&mut whole, &mut header] {
            record[0] ^= 0x80;
        }
        whole[NONCE_LEN..][..SEALED_LEN].copy_from_slice(&[0, 50]);
        for (n, record) in [&whole, &header].into_iter().enumerate() {
            assert_eq!(
                open(&mut opener, record),
                Err(RecordError::NotAuthentic(n as u64))
            );
        }
    });
}

#[test]
fn what_does_not_fit_is_not_sealed_and_takes_no_number() {
    let (mut sealer, _) = agreed(Suite::Aes256Gcm);
    for (len, sealed) in [
        (0, 0),
        (HEADER_FRONT - 1, 1),
        (HEADER_FRONT, 1),
        (HEADER_FRONT + 9, 0),
        (100_000, 65_536),
    ] {
        assert_eq!(
            sealer.seal_header(&mut vec![0; len], sealed),
            Err(RecordError::NoRoom)
        );
    }
    assert_eq!(sealer.next_nonce(), 0);
    assert_eq!(sealer.seal_header(&mut vec![0; 100_000], 65_535), Ok(0));
}

proptest! {
    #[test]
    fn no_bit_and_no_length_can_be_changed_but_in_the_rest(
        header in 1..200_usize,
        rest in 0..200_usize,
        bit: prop::sample::Index,
        len: prop::sample::Index,
        chacha: bool,
    ) {
        let suite = if chacha { Suite::ChaCha20Poly1305 } else { Suite::Aes256Gcm };
        let (mut sealer, mut opener) = agreed(suite);
        let record = seal_header(&mut sealer, &vec![1; header], &vec![2; rest]);
        let bit = bit.index(record.len() * 8);
        let mut altered = record.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        if bit / 8 < HEADER_FRONT + header {
            prop_assert!(opener.open(&mut altered).is_err());
        } else {
            // The opener says so, by giving it apart.
            let opened = opener.open(&mut altered).unwrap();
            prop_assert_eq!(opened.plaintext, vec![1; header]);
            prop_assert_ne!(opened.rest.unwrap(), vec![2; rest]);
            return Ok(());
        }
        let mut cut = record[..len.index(record.len())].to_vec();
        prop_assert!(opener.open(&mut cut).is_err());
        let mut longer = [&record[..], &[0]].concat();
        prop_assert!(opener.open(&mut longer).is_err());
        prop_assert!(opener.open(&mut record.clone()).is_ok());
    }
}

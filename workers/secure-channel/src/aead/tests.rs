//! One suite of tests, run over every suite of every provider.

use super::*;

fn every_provider(test: impl Fn(&str, &dyn Fn(&[u8; KEY_LEN]) -> AeadKey)) {
    for provider in [Provider::AwsLc, Provider::RustCrypto] {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            if AeadKey::with_provider(provider, suite, &[0; 32]).is_some() {
                let make = |key: &[u8; KEY_LEN]| AeadKey::with_provider(provider, suite, key).unwrap();
                test(&format!("{provider:?} {suite:?}"), &make);
            }
        }
    }
}

#[test]
fn what_was_sealed_opens_whatever_its_length() {
    every_provider(|name, make| {
        let key = make(&[7; 32]);
        for len in [0, 1, 15, 16, 17, 63, 64, 65, 1000, 65536, 262_144] {
            let plain: Vec<u8> = (0..len).map(|i| (i * 31) as u8).collect();
            let mut data = plain.clone();
            let tag = key.seal(&nonce(9), b"aad", &mut data).unwrap();
            assert!(len < 16 || data != plain, "{name} {len}");
            key.open(&nonce(9), b"aad", &mut data, &tag).unwrap();
            assert_eq!(data, plain, "{name} {len}");
        }
    });
}

#[test]
fn a_change_of_any_input_is_refused_and_the_plaintext_is_not_shown() {
    every_provider(|name, make| {
        let key = make(&[7; 32]);
        let plain = [0x5a; 64];
        let mut sealed = plain;
        let tag = key.seal(&nonce(9), b"aad", &mut sealed).unwrap();
        let refuses = |key: &AeadKey, n: u64, aad: &[u8], mut data: Vec<u8>, tag: &Tag| {
            assert_eq!(
                key.open(&nonce(n), aad, &mut data, tag),
                Err(AeadError::NotAuthentic),
                "{name}"
            );
            assert!(!data.windows(8).any(|window| window == [0x5a; 8]), "{name}");
        };
        refuses(&make(&[8; 32]), 9, b"aad", sealed.to_vec(), &tag);
        refuses(&key, 10, b"aad", sealed.to_vec(), &tag);
        refuses(&key, 9, b"add", sealed.to_vec(), &tag);
        refuses(&key, 9, b"aad", sealed[..63].to_vec(), &tag);
        for bit in 0..sealed.len() * 8 {
            let mut data = sealed.to_vec();
            data[bit / 8] ^= 1 << (bit % 8);
            refuses(&key, 9, b"aad", data, &tag);
        }
        for bit in 0..TAG_LEN * 8 {
            let mut tag = tag;
            tag[bit / 8] ^= 1 << (bit % 8);
            refuses(&key, 9, b"aad", sealed.to_vec(), &tag);
        }
    });
}

#[test]
fn providers_of_one_suite_agree() {
    let key = [3; 32];
    let mut sealed = Vec::new();
    for provider in [Provider::AwsLc, Provider::RustCrypto] {
        let key = AeadKey::with_provider(provider, Suite::ChaCha20Poly1305, &key).unwrap();
        let mut data = b"the same bytes, whoever seals them".to_vec();
        let tag = key.seal(&nonce(77), b"x", &mut data).unwrap();
        sealed.push((data, tag));
    }
    assert_eq!(sealed[0], sealed[1]);
}

#[test]
fn chacha20_poly1305_matches_rfc_8439() {
    let key: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
    let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
    let aad = [
        0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7,
    ];
    let plain =
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
                  sunscreen would be it.";
    for provider in [Provider::AwsLc, Provider::RustCrypto] {
        let key = AeadKey::with_provider(provider, Suite::ChaCha20Poly1305, &key).unwrap();
        let mut data = plain.to_vec();
        let tag = key.seal(&nonce, &aad, &mut data).unwrap();
        assert_eq!(hex::encode(&data[..16]), "d31a8d34648e60db7b86afbc53ef7ec2");
        assert_eq!(hex::encode(tag), "1ae10b594f09e26a7e902ecbd0600691");
    }
}

#[test]
fn aes_256_gcm_matches_the_vector_of_its_authors() {
    // Test case 14 of the GCM specification: zero key, zero nonce, sixteen zero bytes.
    let key = AeadKey::new(Suite::Aes256Gcm, &[0; 32]);
    let mut data = [0; 16];
    let tag = key.seal(&[0; 12], b"", &mut data).unwrap();
    assert_eq!(hex::encode(data), "cea7403d4d606b6e074ec5d3baf39d18");
    assert_eq!(hex::encode(tag), "d0d1c8a799996bf0265b98b5d48ab919");
}

#[test]
fn a_nonce_counts_big_endian_behind_four_zero_bytes() {
    assert_eq!(nonce(0x0102_0304), [0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
}

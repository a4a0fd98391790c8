//! What holds for every input.

use crate::forge::*;
use portolan_identity::*;
use proptest::prelude::*;
use std::sync::LazyLock;

const NOW: u64 = T + 1000;

/// One good artefact of each kind; both kinds of keys, and a rotation.
struct Samples {
    histories: Vec<Vec<u8>>,
    authority: Identity,
    attestation: Vec<u8>,
    credential: Vec<u8>,
}

static SAMPLES: LazyLock<Samples> = LazyLock::new(|| {
    let mut histories = Vec::new();
    for kinds in [
        [KeyType::Ed25519, KeyType::Ed25519],
        [KeyType::Ed25519, KeyType::EcdsaP256],
        [KeyType::EcdsaP256, KeyType::Ed25519],
    ] {
        let (vault, first) = identity(kinds[0]);
        let key = vault.generate_signing_key(kinds[1]).unwrap();
        histories.push(first.history().encode().to_vec());
        histories.push(
            first
                .rotate_to_key(&vault, &key, T + 1)
                .unwrap()
                .history()
                .encode()
                .to_vec(),
        );
    }
    let (vault, authority) = identity(KeyType::Ed25519);
    let keys = MemoryPurposeKeyRepository::default();
    let channel = current_purpose_key(&vault, &keys, &authority, Purpose::SecureChannel, NOW).unwrap();
    let attributes = Attributes::from_pairs([("role", "member"), ("team", "red")]).unwrap();
    let subject = Identifier::from([3; 32]);
    let credential =
        CredentialAndPurposeKey::issue(&vault, &keys, &authority, &subject, None, attributes, NOW, 3600)
            .unwrap();
    Samples {
        histories,
        authority,
        attestation: channel.attestation.encode(),
        credential: credential.encode(),
    }
});

fn decode_everything(bytes: &[u8]) {
    if let Ok(history) = ChangeHistory::decode(bytes) {
        assert!(history.encode().len() <= bytes.len());
        assert!(bytes.starts_with(history.encode()));
        assert_eq!(ChangeHistory::decode(history.encode()).unwrap(), history);
        let _ = format!("{history:?} {:?}", Identity::verify(history.clone(), None));
        history.changes().for_each(|change| drop(change.read()));
    }
    if let Ok(attestation) = PurposeKeyAttestation::decode(bytes) {
        let _ = format!("{attestation:?}");
        let _ = attestation.verify(&SAMPLES.authority, NOW);
        assert_eq!(
            PurposeKeyAttestation::decode(&attestation.encode()).unwrap(),
            attestation
        );
    }
    if let Ok(credential) = CredentialAndPurposeKey::decode(bytes) {
        let _ = format!("{credential:?}");
        let _ = credential.verify(None, std::slice::from_ref(&SAMPLES.authority), NOW);
        assert_eq!(
            CredentialAndPurposeKey::decode(&credential.encode()).unwrap(),
            credential
        );
    }
    let _ = decode_credentials(&mut minicbor::Decoder::new(bytes));
    if let Ok(attributes) = minicbor::decode::<Attributes>(bytes) {
        let written = minicbor::to_vec(&attributes).unwrap();
        assert_eq!(minicbor::decode::<Attributes>(&written).unwrap(), attributes);
    }
    let _ = sealed::Sealer::unlock(bytes, sealed::Unlock::KeyFile(&[0; 32]));
    let _ = sealed::parse_key_file(bytes);
}

/// A good artefact whose bytes were changed in a few places, cut short or repeated.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let samples = &*SAMPLES;
    let originals: Vec<Vec<u8>> = samples
        .histories
        .iter()
        .chain([&samples.attestation, &samples.credential])
        .cloned()
        .collect();
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..6);
    (prop::sample::select(originals), edits).prop_map(|(mut bytes, edits)| {
        for (at, value, kind) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = value,
                1 => bytes.truncate(at),
                _ => bytes.insert(at, value),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        decode_everything(&bytes);
    }

    #[test]
    fn no_damaged_artefact_makes_a_decoder_panic(bytes in mutated()) {
        decode_everything(&bytes);
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in ".{0,80}") {
        let _ = text.parse::<Identifier>();
        let _ = text.parse::<KeyType>();
        let _ = text.parse::<SecretKind>();
        let _ = ChangeHistory::from_hex(&text);
        let _ = CredentialAndPurposeKey::from_hex(&text);
    }

    #[test]
    fn every_identifier_survives_its_text(bytes in any::<[u8; 32]>()) {
        let identifier = Identifier::from(bytes);
        prop_assert_eq!(identifier.to_string().parse::<Identifier>().unwrap(), identifier);
    }

    #[test]
    fn all_attributes_survive_their_encoding(
        map in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 0..20),
            prop::collection::vec(any::<u8>(), 0..60),
            0..20,
        ),
    ) {
        let attributes = Attributes::from_pairs(map.clone()).unwrap();
        let bytes = minicbor::to_vec(&attributes).unwrap();
        let read: Attributes = minicbor::decode(&bytes).unwrap();
        prop_assert_eq!(&read, &attributes);
        prop_assert_eq!(read.map(), &map);
    }

    #[test]
    fn whatever_is_issued_verifies_within_its_time_and_not_outside(
        age in 0..TEN_YEARS,
        lifetime in 1..20 * 365 * 86400u64,
    ) {
        let samples = issuer();
        let now = T + age;
        let issued = CredentialAndPurposeKey::issue(
            &samples.0, &samples.1, &samples.2, &Identifier::from([3; 32]), None, Attributes::new(), now, lifetime,
        ).unwrap();
        let authorities = [samples.2];
        let verified = issued.verify(None, &authorities, now).unwrap();
        prop_assert_eq!(verified.created_at, now);
        prop_assert!(verified.expires_at <= T + TEN_YEARS);
        prop_assert!(issued.verify(None, &authorities, verified.expires_at).is_ok());
        prop_assert!(issued.verify(None, &authorities, verified.expires_at + 1).is_err());
        prop_assert!(issued.verify(None, &authorities, now - MAX_CLOCK_SKEW - 1).is_err());
    }
}

fn issuer() -> (SoftwareVault, MemoryPurposeKeyRepository, Identity) {
    let (vault, identity) = identity(KeyType::Ed25519);
    (vault, MemoryPurposeKeyRepository::default(), identity)
}

/// All artefacts that differ from `bytes` in one bit.
fn flips(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        (bit, flipped)
    })
}

#[test]
fn no_history_verifies_with_one_bit_flipped() {
    for history in &SAMPLES.histories {
        let original = Identity::decode(history, None).unwrap();
        for (bit, flipped) in flips(history) {
            let verified = Identity::decode(&flipped, None);
            assert!(
                verified.is_err(),
                "bit {bit} of {}: {original:?}",
                hex::encode(history)
            );
        }
    }
}

#[test]
fn no_attestation_verifies_with_one_bit_flipped() {
    for (bit, flipped) in flips(&SAMPLES.attestation) {
        let verified = PurposeKeyAttestation::decode(&flipped)
            .ok()
            .and_then(|attestation| attestation.verify(&SAMPLES.authority, NOW).ok());
        assert!(verified.is_none(), "bit {bit}");
    }
}

#[test]
fn no_credential_verifies_with_one_bit_flipped() {
    let authorities = std::slice::from_ref(&SAMPLES.authority);
    for (bit, flipped) in flips(&SAMPLES.credential) {
        let verified = CredentialAndPurposeKey::decode(&flipped)
            .ok()
            .and_then(|credential| credential.verify(None, authorities, NOW).ok());
        assert!(verified.is_none(), "bit {bit}");
    }
}

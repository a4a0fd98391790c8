//! Credentials: §4.

use crate::forge::*;
use portolan_identity::limits::*;
use portolan_identity::*;

const NOW: u64 = T + 1000;

/// An authority that has a key for credentials, attested at T + 200.
struct Authority {
    vault: SoftwareVault,
    identity: Identity,
    key: KeyHandle,
    attestation: ForgedAttestation,
}

fn authority() -> Authority {
    let (vault, identity) = identity(KeyType::Ed25519);
    let key = vault.generate_signing_key(KeyType::Ed25519).unwrap();
    let public = PurposePublicKey::CredentialSigning(vault.verifying_key(&key).unwrap());
    let attestation = ForgedAttestation::of(&identity, public);
    Authority {
        vault,
        identity,
        key,
        attestation,
    }
}

fn subject() -> Identifier {
    Identifier::from([3; 32])
}

/// Verifies, at [`NOW`], a credential that is correct but for what `change` changes.
fn verify(
    change: impl FnOnce(&mut Authority, &mut ForgedCredential),
) -> Result<VerifiedCredential, CredentialError> {
    let mut authority = authority();
    let mut forged = ForgedCredential::about(subject(), authority.key);
    change(&mut authority, &mut forged);
    let credential = CredentialAndPurposeKey {
        credential: forged.make(&authority.vault),
        attestation: authority.attestation.make(&authority.vault),
    };
    // Over the wire and back.
    let credential = CredentialAndPurposeKey::decode(&credential.encode()).unwrap();
    credential.verify(Some(&subject()), &[stranger(), authority.identity], NOW)
}

fn stranger() -> Identity {
    identity(KeyType::Ed25519).1
}

#[test]
fn a_correct_credential_verifies() {
    let mut issuer = None;
    let verified = verify(|a, _| issuer = Some(*a.identity.identifier())).unwrap();
    assert_eq!(Some(verified.issuer), issuer);
    assert_eq!(verified.subject, subject());
    assert!(verified.attributes.has("role", "member"));
    assert_eq!((verified.created_at, verified.expires_at), (T + 300, T + 3900));
}

#[test]
fn the_issuer_must_be_a_trusted_authority() {
    let authority = authority();
    let credential = CredentialAndPurposeKey {
        credential: ForgedCredential::about(subject(), authority.key).make(&authority.vault),
        attestation: authority.attestation.make(&authority.vault),
    };
    for authorities in [vec![], vec![stranger()]] {
        let refused = credential.verify(None, &authorities, NOW).unwrap_err();
        assert_eq!(
            refused,
            CredentialError::UntrustedIssuer(*authority.identity.identifier())
        );
    }
    assert!(credential.verify(None, &[authority.identity], NOW).is_ok());
}

#[test]
fn the_attestation_of_the_issuer_must_hold() {
    let refused = verify(|a, _| a.attestation.expires_at = NOW - 1).unwrap_err();
    assert!(matches!(
        refused,
        CredentialError::Attestation(AttestationError::Expired { .. })
    ));
    let refused = verify(|a, _| a.attestation.signer = a.key).unwrap_err();
    assert!(matches!(
        refused,
        CredentialError::Attestation(AttestationError::Signature(_))
    ));
}

#[test]
fn a_rotation_of_the_issuer_ends_its_credentials_where_it_is_known() {
    let refused = verify(|a, _| {
        let key = a.vault.generate_signing_key(KeyType::Ed25519).unwrap();
        a.identity = a.identity.rotate_to_key(&a.vault, &key, T + 400).unwrap();
    })
    .unwrap_err();
    assert!(matches!(
        refused,
        CredentialError::Attestation(AttestationError::NotByLatestChange { .. })
    ));
}

#[test]
fn a_key_for_channels_does_not_sign_credentials() {
    let refused = verify(|a, _| a.attestation.key = PurposePublicKey::SecureChannelStatic([1; 32]));
    assert_eq!(refused, Err(CredentialError::WrongPurpose));
}

#[test]
fn the_identity_key_itself_does_not_sign_credentials() {
    let refused = verify(|a, c| c.signer = KeyHandle::of_verifying_key(a.identity.latest_public_key()));
    assert_eq!(refused, Err(CredentialError::Signature(SignatureError::Mismatch)));
}

#[test]
fn another_version_or_type_is_refused() {
    assert!(matches!(
        verify(|_, c| c.version = 2),
        Err(CredentialError::Decode(_))
    ));
    assert!(matches!(
        verify(|_, c| c.data_type = 2),
        Err(CredentialError::Decode(_))
    ));
}

#[test]
fn a_credential_needs_a_subject_and_the_expected_one() {
    assert_eq!(verify(|_, c| c.subject = None), Err(CredentialError::NoSubject));
    let refused = verify(|_, c| c.subject = Some([4; 32].into())).unwrap_err();
    assert!(matches!(refused, CredentialError::WrongSubject { .. }));
}

#[test]
fn a_credential_lies_within_the_lifetime_of_the_key_that_signed_it() {
    assert!(verify(|a, c| c.created_at = a.attestation.created_at).is_ok());
    let refused = verify(|a, c| c.created_at = a.attestation.created_at - 1).unwrap_err();
    assert!(matches!(refused, CredentialError::OutsideOfKeyLifetime { .. }));
    assert!(verify(|a, c| c.expires_at = a.attestation.expires_at).is_ok());
    let refused = verify(|a, c| c.expires_at = a.attestation.expires_at + 1).unwrap_err();
    assert!(matches!(refused, CredentialError::OutsideOfKeyLifetime { .. }));
}

#[test]
fn a_creation_time_may_be_ahead_by_the_skew_and_no_more() {
    assert!(verify(|_, c| c.created_at = NOW + MAX_CLOCK_SKEW).is_ok());
    let refused = verify(|_, c| c.created_at = NOW + MAX_CLOCK_SKEW + 1).unwrap_err();
    assert!(matches!(refused, CredentialError::FromTheFuture { .. }));
}

#[test]
fn an_expiry_has_no_tolerance() {
    assert!(verify(|_, c| c.expires_at = NOW).is_ok());
    let refused = verify(|_, c| c.expires_at = NOW - 1).unwrap_err();
    assert!(matches!(refused, CredentialError::Expired { .. }));
}

#[test]
fn schema_and_change_hash_of_the_subject_are_not_checked() {
    assert!(verify(|_, c| c.attributes = Attributes::with_schema(77)).is_ok());
    assert!(verify(|_, c| c.change = Some([5; 32].into())).is_ok());
}

#[test]
fn a_p256_key_signs_credentials_too() {
    let verified = verify(|a, c| {
        c.signer = a.vault.generate_signing_key(KeyType::EcdsaP256).unwrap();
        a.attestation.key = PurposePublicKey::CredentialSigning(a.vault.verifying_key(&c.signer).unwrap());
    });
    assert!(verified.is_ok());
}

#[test]
fn what_is_issued_verifies_from_the_first_to_the_last_second() {
    let (vault, issuer) = identity(KeyType::Ed25519);
    let keys = MemoryPurposeKeyRepository::default();
    let attributes = Attributes::new().with("role", "member").unwrap();
    let issued = CredentialAndPurposeKey::issue(
        &vault,
        &keys,
        &issuer,
        &subject(),
        None,
        attributes.clone(),
        NOW,
        60,
    )
    .unwrap();
    let read = CredentialAndPurposeKey::from_hex(&issued.to_hex()).unwrap();
    assert_eq!(read, issued);
    let authorities = [issuer];
    for now in [NOW, NOW + 60] {
        let verified = read.verify(Some(&subject()), &authorities, now).unwrap();
        assert_eq!(verified.attributes, attributes);
    }
    assert!(read.verify(Some(&subject()), &authorities, NOW + 61).is_err());
}

#[test]
fn an_issuer_renews_its_key_before_it_would_cut_a_credential_short() {
    let (vault, issuer) = identity(KeyType::Ed25519);
    let keys = MemoryPurposeKeyRepository::default();
    let short = purpose_key::create_purpose_key(&vault, &issuer, Purpose::Credentials, NOW, 100).unwrap();
    keys.put(issuer.identifier(), Purpose::Credentials, &short.attestation)
        .unwrap();
    let issue = |lifetime| {
        let none = Attributes::new();
        CredentialAndPurposeKey::issue(&vault, &keys, &issuer, &subject(), None, none, NOW, lifetime).unwrap()
    };
    assert_eq!(issue(100).attestation, short.attestation);
    let long = issue(101);
    assert_ne!(long.attestation, short.attestation);
    assert_eq!(long.credential.read().unwrap().expires_at, NOW + 101);
}

#[test]
fn credentials_of_any_lifetime_share_a_key() {
    const DAY: u64 = 86_400;
    for lifetime in [DAY, 30 * DAY, 180 * DAY, 365 * DAY, 20 * 365 * DAY] {
        let (vault, issuer) = identity(KeyType::Ed25519);
        let keys = MemoryPurposeKeyRepository::default();
        let issue = |now| {
            let none = Attributes::new();
            CredentialAndPurposeKey::issue(&vault, &keys, &issuer, &subject(), None, none, now, lifetime)
                .unwrap()
        };
        let first = issue(NOW);
        for day in 1..90 {
            assert_eq!(
                issue(NOW + day * DAY).attestation,
                first.attestation,
                "{lifetime} s, day {day}"
            );
        }
        assert_ne!(issue(NOW + 90 * DAY).attestation, first.attestation);
    }
}

#[test]
fn a_credential_ends_with_the_identity_of_its_issuer_at_the_latest() {
    let (vault, issuer) = identity(KeyType::Ed25519);
    let keys = MemoryPurposeKeyRepository::default();
    let now = T + TEN_YEARS - 10;
    let issued = CredentialAndPurposeKey::issue(
        &vault,
        &keys,
        &issuer,
        &subject(),
        None,
        Attributes::new(),
        now,
        credential::CREDENTIAL_LIFETIME,
    )
    .unwrap();
    let verified = issued.verify(None, &[issuer], now).unwrap();
    assert_eq!(verified.expires_at, T + TEN_YEARS);
}

#[test]
fn names_that_policies_keep_for_themselves_are_not_issued() {
    let (vault, issuer) = identity(KeyType::Ed25519);
    let keys = MemoryPurposeKeyRepository::default();
    let attributes = Attributes::from_pairs([("identifier", "I00")]).unwrap();
    let refused =
        CredentialAndPurposeKey::issue(&vault, &keys, &issuer, &subject(), None, attributes, NOW, 60)
            .unwrap_err();
    assert!(
        matches!(refused, Error::Credential(CredentialError::ReservedAttribute(name)) if name == "identifier")
    );
}

#[test]
fn attributes_are_written_in_the_order_of_their_bytes_and_read_in_any() {
    // "b" is shorter, but "aa" comes first: not the canonical order of CBOR.
    let attributes = Attributes::from_pairs([("b", "2"), ("aa", "1"), ("B", "3")]).unwrap();
    let bytes = minicbor::to_vec(&attributes).unwrap();
    assert_eq!(
        hex::encode(&bytes),
        "8201a3414241334261614131".to_owned() + "41624132"
    );
    let shuffled = hex::decode("8201a3".to_owned() + "41624132" + "41424133" + "4261614131").unwrap();
    assert_eq!(minicbor::decode::<Attributes>(&shuffled).unwrap(), attributes);
    let indefinite =
        hex::decode("9f01bf".to_owned() + "41624132" + "41424133" + "4261614131" + "ffff").unwrap();
    assert_eq!(minicbor::decode::<Attributes>(&indefinite).unwrap(), attributes);
}

#[test]
fn an_attribute_that_comes_twice_is_refused() {
    let twice = hex::decode("8201a2".to_owned() + "41614131" + "41614132").unwrap();
    assert!(minicbor::decode::<Attributes>(&twice).is_err());
}

#[test]
fn attributes_are_bounded_in_number_and_size() {
    let mut attributes = Attributes::new();
    assert!(
        attributes
            .insert(vec![0; MAX_ATTRIBUTE_NAME_BYTES + 1], "v")
            .is_err()
    );
    assert!(
        attributes
            .insert("n", vec![0; MAX_ATTRIBUTE_VALUE_BYTES + 1])
            .is_err()
    );
    for i in 0..MAX_ATTRIBUTES {
        attributes.insert(i.to_string(), "v").unwrap();
    }
    assert!(attributes.insert("one more", "v").is_err());
    attributes.insert("0", "another value").unwrap();
    assert_eq!(attributes.len(), MAX_ATTRIBUTES);

    let mut large = Attributes::new();
    let fits = MAX_ATTRIBUTES_BYTES / (MAX_ATTRIBUTE_VALUE_BYTES + 1);
    for i in 0..fits {
        large
            .insert(i.to_string(), vec![0; MAX_ATTRIBUTE_VALUE_BYTES])
            .unwrap();
    }
    assert!(
        large
            .insert("one more", vec![0; MAX_ATTRIBUTE_VALUE_BYTES])
            .is_err()
    );
    // To replace a value frees its room.
    large.insert("0", "").unwrap();
    large
        .insert("one more", vec![0; MAX_ATTRIBUTE_VALUE_BYTES])
        .unwrap();

    let too_many = cbor(|e| {
        e.array(2)
            .unwrap()
            .u8(1)
            .unwrap()
            .map(MAX_ATTRIBUTES as u64 + 1)
            .unwrap();
        for i in 0..=MAX_ATTRIBUTES {
            e.bytes(&[i as u8]).unwrap().bytes(b"v").unwrap();
        }
    });
    assert!(minicbor::decode::<Attributes>(&too_many).is_err());
}

#[test]
fn attributes_at_their_limits_fit_in_a_credential() {
    let authority = authority();
    let mut attributes = Attributes::with_schema(u64::MAX);
    for i in 0..MAX_ATTRIBUTES {
        let size = MAX_ATTRIBUTES_BYTES / MAX_ATTRIBUTES - 3;
        attributes.insert(format!("{i:03}"), vec![b'v'; size]).unwrap();
    }
    let mut forged = ForgedCredential::about(subject(), authority.key);
    (forged.attributes, forged.change) = (attributes, Some([1; 32].into()));
    let bytes = minicbor::to_vec(forged.make(&authority.vault)).unwrap();
    assert!(minicbor::decode::<Credential>(&bytes).is_ok());
}

#[test]
fn a_list_of_credentials_is_bounded() {
    let authority = authority();
    let one = CredentialAndPurposeKey {
        credential: ForgedCredential::about(subject(), authority.key).make(&authority.vault),
        attestation: authority.attestation.make(&authority.vault),
    };
    for (count, accepted) in [
        (0, true),
        (1, true),
        (MAX_CREDENTIALS, true),
        (MAX_CREDENTIALS + 1, false),
    ] {
        let bytes = cbor(|e| encode_credentials(&vec![one.clone(); count], e).unwrap());
        let read = decode_credentials(&mut minicbor::Decoder::new(&bytes));
        assert_eq!(read.is_ok_and(|list| list.len() == count), accepted, "{count}");
    }
    let endless = [&[0x9f], &one.encode()[..], &[0xff]].concat();
    assert_eq!(
        decode_credentials(&mut minicbor::Decoder::new(&endless)).unwrap(),
        [one]
    );
}

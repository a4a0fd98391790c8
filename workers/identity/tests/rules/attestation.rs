//! Purpose keys and their attestations: §3.

use crate::forge::*;
use portolan_identity::limits::MAX_ATTESTATION_BYTES;
use portolan_identity::purpose_key::{PURPOSE_KEY_LIFETIME, PURPOSE_KEY_RENEWAL, create_purpose_key};
use portolan_identity::*;

const NOW: u64 = T + 1000;
const KEY: PurposePublicKey = PurposePublicKey::SecureChannelStatic([7; 32]);

/// Verifies, at [`NOW`], an attestation that is correct but for what `change` changes.
fn verify(change: impl FnOnce(&mut ForgedAttestation)) -> Result<AttestationData, AttestationError> {
    let (vault, identity) = identity(KeyType::Ed25519);
    let mut forged = ForgedAttestation::of(&identity, KEY);
    change(&mut forged);
    forged.make(&vault).verify(&identity, NOW)
}

#[test]
fn a_correct_attestation_verifies() {
    let data = verify(|_| {}).unwrap();
    assert_eq!(data.public_key, KEY);
}

#[test]
fn sizes_are_the_documented_ones() {
    let (vault, identity) = identity(KeyType::Ed25519);
    for (purpose, size) in [(Purpose::SecureChannel, 193), (Purpose::Credentials, 196)] {
        let key = create_purpose_key(&vault, &identity, purpose, NOW, FIVE_YEARS).unwrap();
        assert_eq!(key.attestation.encode().len(), size);
    }
}

#[test]
fn another_version_or_type_is_refused() {
    assert!(matches!(
        verify(|a| a.version = 2),
        Err(AttestationError::Decode(_))
    ));
    assert!(matches!(
        verify(|a| a.data_type = 1),
        Err(AttestationError::Decode(_))
    ));
    assert!(matches!(
        verify(|a| a.data_type = 3),
        Err(AttestationError::Decode(_))
    ));
}

#[test]
fn an_attestation_of_another_identity_is_refused() {
    let refused = verify(|a| a.subject = [9; 32].into());
    assert!(matches!(refused, Err(AttestationError::WrongSubject { .. })));
}

#[test]
fn an_attestation_that_names_another_change_is_refused() {
    let refused = verify(|a| a.change = [9; 32].into());
    assert!(matches!(refused, Err(AttestationError::NotByLatestChange { .. })));
}

#[test]
fn an_attestation_from_before_a_rotation_is_refused_after_it() {
    let (vault, identity) = identity(KeyType::Ed25519);
    let attestation = ForgedAttestation::of(&identity, KEY).make(&vault);
    let key = vault.generate_signing_key(KeyType::Ed25519).unwrap();
    let rotated = identity.rotate_to_key(&vault, &key, T + 500).unwrap();
    assert!(attestation.verify(&identity, NOW).is_ok());
    let refused = attestation.verify(&rotated, NOW);
    assert!(matches!(refused, Err(AttestationError::NotByLatestChange { .. })));
}

#[test]
fn an_attestation_lies_within_the_validity_of_the_identity() {
    assert!(verify(|a| a.expires_at = T + TEN_YEARS).is_ok());
    let refused = verify(|a| a.expires_at = T + TEN_YEARS + 1);
    assert!(matches!(refused, Err(AttestationError::OutlivesIdentity { .. })));
    assert!(verify(|a| a.created_at = T).is_ok());
    let refused = verify(|a| a.created_at = T - 1);
    assert!(matches!(refused, Err(AttestationError::PredatesIdentity { .. })));
}

#[test]
fn a_creation_time_may_be_ahead_by_the_skew_and_no_more() {
    assert!(verify(|a| a.created_at = NOW + MAX_CLOCK_SKEW).is_ok());
    let refused = verify(|a| a.created_at = NOW + MAX_CLOCK_SKEW + 1);
    assert!(matches!(refused, Err(AttestationError::FromTheFuture { .. })));
}

#[test]
fn an_expiry_has_no_tolerance() {
    assert!(verify(|a| a.expires_at = NOW).is_ok());
    let refused = verify(|a| a.expires_at = NOW - 1);
    assert!(matches!(refused, Err(AttestationError::Expired { .. })));
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let (vault, identity) = identity(KeyType::Ed25519);
    let mut forged = ForgedAttestation::of(&identity, KEY);
    forged.signer = vault.generate_signing_key(KeyType::Ed25519).unwrap();
    let refused = forged.make(&vault).verify(&identity, NOW);
    assert_eq!(
        refused,
        Err(AttestationError::Signature(SignatureError::Mismatch))
    );
    forged.signer = vault.generate_signing_key(KeyType::EcdsaP256).unwrap();
    let refused = forged.make(&vault).verify(&identity, NOW);
    assert_eq!(
        refused,
        Err(AttestationError::Signature(SignatureError::KindMismatch))
    );
}

#[test]
fn a_p256_identity_attests_too() {
    let (vault, identity) = identity(KeyType::EcdsaP256);
    let attestation = ForgedAttestation::of(&identity, KEY).make(&vault);
    assert!(attestation.verify(&identity, NOW).is_ok());
}

#[test]
fn an_attestation_is_bounded() {
    let data = vec![0; MAX_ATTESTATION_BYTES + 1];
    let bytes = cbor(|e| {
        e.array(2)
            .unwrap()
            .bytes(&data)
            .unwrap()
            .encode(Signature::Ed25519([0; 64]))
            .unwrap();
    });
    assert!(PurposeKeyAttestation::decode(&bytes).is_err());
}

#[test]
fn the_signed_bytes_are_kept_as_they_came() {
    let (vault, identity) = identity(KeyType::Ed25519);
    // The record has an element more, and the timestamps are longer than necessary.
    let record = cbor(|e| {
        e.array(6).unwrap().encode(identity.identifier()).unwrap();
        e.encode(identity.latest_change_hash())
            .unwrap()
            .encode(KEY)
            .unwrap();
        for time in [T + 200, T + 300] {
            e.writer_mut().push(0x1b);
            e.writer_mut().extend_from_slice(&time.to_be_bytes());
        }
        e.str("later").unwrap();
    });
    let signer = KeyHandle::of_verifying_key(identity.latest_public_key());
    let bytes = signed(&vault, &signer, &versioned(1, 2, &record));
    let attestation = PurposeKeyAttestation::decode(&bytes).unwrap();
    assert_eq!(attestation.encode(), bytes);
    assert!(attestation.verify(&identity, T + 250).is_ok());
}

struct OnDemand {
    vault: SoftwareVault,
    keys: MemoryPurposeKeyRepository,
}

impl OnDemand {
    fn new() -> (Self, Identity) {
        let (vault, identity) = identity(KeyType::Ed25519);
        (
            OnDemand {
                vault,
                keys: MemoryPurposeKeyRepository::default(),
            },
            identity,
        )
    }

    fn get(&self, identity: &Identity, purpose: Purpose, now: u64) -> Result<PurposeKey, Error> {
        current_purpose_key(&self.vault, &self.keys, identity, purpose, now)
    }
}

#[test]
fn a_purpose_key_is_made_when_it_is_needed_and_kept() {
    let (node, identity) = OnDemand::new();
    let channel = node.get(&identity, Purpose::SecureChannel, NOW).unwrap();
    let credentials = node.get(&identity, Purpose::Credentials, NOW).unwrap();
    assert_ne!(channel.handle, credentials.handle);
    assert_eq!(channel.data.expires_at, NOW + PURPOSE_KEY_LIFETIME);
    assert_eq!(
        node.get(&identity, Purpose::SecureChannel, NOW + 100).unwrap(),
        channel
    );
    assert_eq!(
        node.get(&identity, Purpose::Credentials, NOW + 100).unwrap(),
        credentials
    );
    assert!(
        matches!(channel.data.public_key, PurposePublicKey::SecureChannelStatic(key)
        if node.vault.x25519_public_key(&channel.handle).unwrap() == key)
    );
}

#[test]
fn a_purpose_key_is_replaced_after_a_rotation_when_it_is_old_and_when_its_secret_is_lost() {
    let (node, identity) = OnDemand::new();
    let first = node.get(&identity, Purpose::SecureChannel, NOW).unwrap();

    let key = node.vault.generate_signing_key(KeyType::Ed25519).unwrap();
    let rotated = identity.rotate_to_key(&node.vault, &key, NOW + 1).unwrap();
    let second = node.get(&rotated, Purpose::SecureChannel, NOW + 1).unwrap();
    assert_ne!(second.handle, first.handle);
    assert!(second.attestation.verify(&rotated, NOW + 1).is_ok());

    let later = NOW + 1 + PURPOSE_KEY_RENEWAL;
    assert_eq!(
        node.get(&rotated, Purpose::SecureChannel, later - 1).unwrap(),
        second
    );
    let third = node.get(&rotated, Purpose::SecureChannel, later).unwrap();
    assert_ne!(third.handle, second.handle);

    node.vault.delete_key(&third.handle).unwrap();
    assert_ne!(
        node.get(&rotated, Purpose::SecureChannel, later).unwrap().handle,
        third.handle
    );
}

#[test]
fn an_attestation_never_outlives_its_identity() {
    let (node, identity) = OnDemand::new();
    // More than five years old, and asked for five years more.
    let now = T + FIVE_YEARS + FIVE_YEARS / 2;
    let key = create_purpose_key(&node.vault, &identity, Purpose::SecureChannel, now, FIVE_YEARS).unwrap();
    assert_eq!(key.data.expires_at, T + TEN_YEARS);
    assert!(key.attestation.verify(&identity, now).is_ok());

    let now = T + TEN_YEARS - 1000;
    let key = node.get(&identity, Purpose::SecureChannel, now).unwrap();
    assert_eq!(key.data.expires_at, T + TEN_YEARS);
    assert!(key.attestation.verify(&identity, now).is_ok());
    // And there is no new one at every attempt.
    assert_eq!(node.get(&identity, Purpose::SecureChannel, now + 1).unwrap(), key);
}

#[test]
fn an_identity_attests_until_its_last_second_and_then_asks_for_a_rotation() {
    let (node, identity) = OnDemand::new();
    assert!(node.get(&identity, Purpose::SecureChannel, T + TEN_YEARS).is_ok());
    let refused = node
        .get(&identity, Purpose::SecureChannel, T + TEN_YEARS + 1)
        .unwrap_err();
    assert!(matches!(refused, Error::IdentityExpired { .. }), "{refused}");
}

#[test]
fn a_clock_that_was_set_back_does_not_make_an_attestation_that_predates_the_identity() {
    let (node, identity) = OnDemand::new();
    let key = node.get(&identity, Purpose::SecureChannel, T - 30).unwrap();
    assert_eq!(key.data.created_at, T);
    assert!(key.attestation.verify(&identity, T - 30).is_ok());
}

#[test]
fn a_purpose_key_in_the_place_of_the_other_purpose_is_not_used() {
    let (node, identity) = OnDemand::new();
    let channel = node.get(&identity, Purpose::SecureChannel, NOW).unwrap();
    node.keys
        .put(identity.identifier(), Purpose::Credentials, &channel.attestation)
        .unwrap();
    let credentials = node.get(&identity, Purpose::Credentials, NOW).unwrap();
    assert_eq!(credentials.data.public_key.purpose(), Purpose::Credentials);
}

#[test]
fn a_key_at_hand_knows_when_it_is_not_current_any_more() {
    let (node, identity) = OnDemand::new();
    let key = node.get(&identity, Purpose::SecureChannel, NOW).unwrap();
    assert!(key.is_current(&identity, NOW));
    assert!(key.is_current(&identity, NOW + PURPOSE_KEY_RENEWAL - 1));
    assert!(!key.is_current(&identity, NOW + PURPOSE_KEY_RENEWAL));
    assert!(!key.is_current(&identity, NOW - MAX_CLOCK_SKEW - 1));
    let next = node.vault.generate_signing_key(KeyType::Ed25519).unwrap();
    let rotated = identity.rotate_to_key(&node.vault, &next, NOW + 1).unwrap();
    assert!(!key.is_current(&rotated, NOW + 1));

    let short = create_purpose_key(&node.vault, &identity, Purpose::SecureChannel, NOW, 10).unwrap();
    assert!(short.is_current(&identity, NOW + 10));
    assert!(!short.is_current(&identity, NOW + 11));
}

#[test]
fn attempts_that_fail_leave_no_keys_behind() {
    let store = std::sync::Arc::new(MemorySecretStore::default());
    let vault = SoftwareVault::new(store.clone());
    let identity = Identity::create(&vault, T, KeyType::Ed25519).unwrap();
    let before = format!("{store:?}");
    for purpose in [Purpose::SecureChannel, Purpose::Credentials] {
        assert!(create_purpose_key(&vault, &identity, purpose, T + TEN_YEARS + 1, 10).is_err());
    }
    assert_eq!(format!("{store:?}"), before);
}

//! What a peer can claim, and what becomes of it.

use portolan_identity::{
    Attributes, KeyType, MemoryAttributeRepository, MemoryIdentityRepository, MemoryPurposeKeyRepository,
    MemorySecretStore, Purpose, SoftwareVault, current_purpose_key,
};

use super::*;
use crate::local::LocalIdentity;

const NOW: u64 = 1_700_000_000;

struct Claimant {
    vault: Arc<SoftwareVault>,
    keys: Arc<MemoryPurposeKeyRepository>,
    identity: Identity,
}

impl Claimant {
    fn new() -> Self {
        let vault = Arc::new(SoftwareVault::new(MemorySecretStore::default()));
        let identity = Identity::create(vault.as_ref(), NOW, KeyType::Ed25519).unwrap();
        Self {
            vault,
            keys: Arc::default(),
            identity,
        }
    }

    fn id(&self) -> &Identifier {
        self.identity.identifier()
    }

    /// The payload and the static key that it is for.
    fn payload(&self, credential: Option<&CredentialAndPurposeKey>) -> (Vec<u8>, PublicKeyBytes) {
        let local = LocalIdentity::new(self.identity.clone(), self.vault.clone(), self.keys.clone());
        let key = local.static_key(NOW).unwrap();
        (local.payload(&key, credential, None), key.key.public_key())
    }

    fn issue(&self, subject: &Identifier, value: &str, at: u64) -> CredentialAndPurposeKey {
        let attributes = Attributes::new().with("role", value).unwrap();
        let (vault, keys) = (self.vault.as_ref(), self.keys.as_ref());
        CredentialAndPurposeKey::issue(vault, keys, &self.identity, subject, None, attributes, at, 600)
            .unwrap()
    }
}

struct Bench {
    identities: Arc<MemoryIdentityRepository>,
    attributes: Arc<MemoryAttributeRepository>,
    judge: Judge,
}

fn bench(trust: TrustPolicy, authorities: &[&Claimant]) -> Bench {
    let identities = Arc::new(MemoryIdentityRepository::default());
    let attributes = Arc::new(MemoryAttributeRepository::default());
    let judge = Judge {
        identities: identities.clone(),
        attributes: attributes.clone(),
        authorities: authorities
            .iter()
            .map(|authority| authority.identity.clone())
            .collect(),
        trust,
    };
    Bench {
        identities,
        attributes,
        judge,
    }
}

#[test]
fn a_peer_is_accepted_for_what_it_can_prove() {
    let (peer, bench) = (Claimant::new(), bench(TrustPolicy::Everyone, &[]));
    let (payload, key) = peer.payload(None);
    let accepted = bench.judge.admit(&payload, &key, NOW).unwrap();
    assert_eq!(accepted.identifier(), peer.id());
    assert!(bench.identities.get(peer.id()).unwrap().is_some());
}

#[test]
fn nobody_can_present_the_identity_of_another() {
    let (peer, thief, bench) = (
        Claimant::new(),
        Claimant::new(),
        bench(TrustPolicy::Everyone, &[]),
    );
    let (stolen, _) = peer.payload(None);
    let (own, own_key) = thief.payload(None);
    // The whole payload of another, under a key of one's own.
    let error = bench.judge.admit(&stolen, &own_key, NOW).unwrap_err();
    assert!(
        matches!(error, PeerError::WrongKey(id) if id == *peer.id()),
        "{error}"
    );
    // The history of another, with an attestation of one's own.
    let (stolen, own) = (
        IdentityPayload::decode(&stolen).unwrap(),
        IdentityPayload::decode(&own).unwrap(),
    );
    let mixed = IdentityPayload {
        attestation: own.attestation,
        ..stolen
    };
    let error = bench.judge.admit(&mixed.encode(), &own_key, NOW).unwrap_err();
    assert!(
        matches!(error, PeerError::Attestation(id, _) if id == *peer.id()),
        "{error}"
    );
    assert!(bench.identities.is_empty());
}

#[test]
fn a_key_for_another_purpose_is_refused() {
    let (peer, bench) = (Claimant::new(), bench(TrustPolicy::Everyone, &[]));
    let credentials_key = current_purpose_key(
        peer.vault.as_ref(),
        peer.keys.as_ref(),
        &peer.identity,
        Purpose::Credentials,
        NOW,
    )
    .unwrap();
    let payload = IdentityPayload {
        change_history: peer.identity.history().encode(),
        attestation: &credentials_key.attestation.encode(),
        extensions: None,
        credentials: Vec::new(),
    };
    let error = bench.judge.admit(&payload.encode(), &[7; 32], NOW).unwrap_err();
    assert!(matches!(error, PeerError::WrongKey(_)), "{error}");
}

#[test]
fn an_attestation_out_of_its_time_is_refused() {
    let (peer, bench) = (Claimant::new(), bench(TrustPolicy::Everyone, &[]));
    let (payload, key) = peer.payload(None);
    for (now, fine) in [
        (NOW - 61, false),
        (NOW - 60, true),
        (NOW + 6 * 365 * 86_400, false),
    ] {
        assert_eq!(bench.judge.admit(&payload, &key, now).is_ok(), fine, "{now}");
    }
}

#[test]
fn any_flipped_bit_is_noticed_and_leaves_no_trace() {
    let (peer, bench) = (Claimant::new(), bench(TrustPolicy::Everyone, &[]));
    let (payload, key) = peer.payload(None);
    for bit in 0..payload.len() * 8 {
        let mut altered = payload.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(bench.judge.admit(&altered, &key, NOW).is_err(), "bit {bit}");
    }
    assert!(bench.identities.is_empty());
}

#[test]
fn who_is_not_trusted_leaves_no_trace_even_with_a_good_credential() {
    let (peer, authority) = (Claimant::new(), Claimant::new());
    let bench = bench(TrustPolicy::Identifier(*authority.id()), &[&authority]);
    let (payload, key) = peer.payload(Some(&authority.issue(peer.id(), "member", NOW)));
    let error = bench.judge.admit(&payload, &key, NOW).unwrap_err();
    assert!(matches!(error, PeerError::Untrusted(_)), "{error}");
    assert!(bench.identities.is_empty());
    assert!(bench.attributes.get(peer.id(), authority.id(), NOW).is_none());
}

#[test]
fn only_the_credentials_of_an_authority_about_the_peer_count() {
    let (peer, authority, other) = (Claimant::new(), Claimant::new(), Claimant::new());
    let bench = bench(TrustPolicy::Everyone, &[&authority]);
    let bad = [
        other.issue(peer.id(), "member", NOW),
        authority.issue(other.id(), "member", NOW),
        authority.issue(peer.id(), "member", NOW + 100), // from the future
    ];
    for credential in &bad {
        let (payload, key) = peer.payload(Some(credential));
        bench.judge.admit(&payload, &key, NOW).unwrap();
        assert!(bench.attributes.get(peer.id(), authority.id(), NOW).is_none());
    }
    let (payload, key) = peer.payload(Some(&authority.issue(peer.id(), "member", NOW)));
    bench.judge.admit(&payload, &key, NOW).unwrap();
    assert!(
        bench
            .attributes
            .get(peer.id(), authority.id(), NOW)
            .unwrap()
            .attributes
            .has("role", "member")
    );
    assert!(
        bench
            .attributes
            .get(peer.id(), authority.id(), NOW + 601)
            .is_none()
    );
}

#[test]
fn a_refresh_is_for_the_peer_of_the_channel_only() {
    let (peer, other, authority) = (Claimant::new(), Claimant::new(), Claimant::new());
    let bench = bench(TrustPolicy::Everyone, &[&authority]);
    let credential = authority.issue(peer.id(), "member", NOW).encode();
    let refresh = |history: &Identity| {
        bench
            .judge
            .refresh(peer.id(), history.history().encode(), &[&credential], NOW)
    };
    assert!(refresh(&other.identity).is_err());
    assert_eq!(refresh(&peer.identity).unwrap(), 1);
    assert!(bench.attributes.get(peer.id(), authority.id(), NOW).is_some());
    assert!(bench.judge.refresh(peer.id(), b"garbage", &[], NOW).is_err());
}

#[test]
fn a_history_from_before_a_known_rotation_is_refused() {
    let (mut peer, bench) = (Claimant::new(), bench(TrustPolicy::Everyone, &[]));
    let old = peer.payload(None);
    let key = portolan_identity::Vault::generate_signing_key(peer.vault.as_ref(), KeyType::Ed25519).unwrap();
    peer.identity = peer
        .identity
        .rotate_to_key(peer.vault.as_ref(), &key, NOW)
        .unwrap();
    let new = peer.payload(None);
    for (payload, key) in [&old, &new, &new] {
        assert!(bench.judge.admit(payload, key, NOW).is_ok());
    }
    let error = bench.judge.admit(&old.0, &old.1, NOW).unwrap_err();
    assert!(matches!(error, PeerError::OutdatedHistory(_)), "{error}");
}

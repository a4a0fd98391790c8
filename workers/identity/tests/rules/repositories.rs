//! What a node remembers of others.

use crate::forge::*;
use portolan_identity::*;

const NOW: u64 = T + 1000;

fn peer(n: u8) -> Identifier {
    [n; 32].into()
}

fn entry(n: u8, authority: u8, issued_at: u64, expires_at: u64) -> PeerAttributes {
    PeerAttributes {
        peer: peer(n),
        authority: peer(authority),
        attributes: Attributes::from_pairs([("issued", issued_at.to_string())]).unwrap(),
        issued_at,
        added_at: NOW,
        expires_at: Some(expires_at),
    }
}

#[test]
fn a_repository_keeps_the_latest_history_and_nothing_else() {
    let (vault, first) = identity(KeyType::Ed25519);
    let [a, b] = [0, 1].map(|_| vault.generate_signing_key(KeyType::Ed25519).unwrap());
    let second = first.rotate_to_key(&vault, &a, NOW).unwrap();
    let fork = first.rotate_to_key(&vault, &b, NOW).unwrap();
    let repository = MemoryIdentityRepository::default();

    assert_eq!(repository.get(first.identifier()).unwrap(), None);
    assert_eq!(repository.update(first.clone()).unwrap(), HistoryOrder::Newer);
    assert_eq!(repository.update(first.clone()).unwrap(), HistoryOrder::Equal);
    assert_eq!(repository.update(second.clone()).unwrap(), HistoryOrder::Newer);
    assert_eq!(repository.update(first.clone()).unwrap(), HistoryOrder::Older);
    assert_eq!(repository.update(fork).unwrap(), HistoryOrder::Conflict);
    assert_eq!(
        repository.get(first.identifier()).unwrap().unwrap().history(),
        second.history()
    );
    assert!(repository.remove(first.identifier()).unwrap());
    assert!(!repository.remove(first.identifier()).unwrap());
}

#[test]
fn a_received_history_is_compared_but_not_stored() {
    let (vault, first) = identity(KeyType::Ed25519);
    let key = vault.generate_signing_key(KeyType::Ed25519).unwrap();
    let second = first.rotate_to_key(&vault, &key, NOW).unwrap();
    let repository = MemoryIdentityRepository::default();
    let receive = |identity: &Identity| {
        let history = ChangeHistory::decode(identity.history().encode()).unwrap();
        verify_received(&repository, history, None).unwrap().1
    };
    assert_eq!(receive(&first), HistoryOrder::Newer);
    assert!(repository.is_empty());
    let _ = repository.update(second.clone()).unwrap();
    assert_eq!(receive(&second), HistoryOrder::Equal);
    assert_eq!(receive(&first), HistoryOrder::Older);
}

#[test]
fn a_full_repository_forgets_what_was_not_used_for_the_longest_time_but_never_what_is_pinned() {
    let repository = MemoryIdentityRepository::new(2);
    let ids: Vec<Identity> = (0..4).map(|_| identity(KeyType::Ed25519).1).collect();
    let _ = repository.pin(ids[0].clone());
    let _ = repository.update(ids[1].clone()).unwrap();
    let _ = repository.update(ids[2].clone()).unwrap();
    assert!(repository.get(ids[1].identifier()).unwrap().is_some());
    let _ = repository.update(ids[3].clone()).unwrap();
    let known: Vec<bool> = ids
        .iter()
        .map(|i| repository.get(i.identifier()).unwrap().is_some())
        .collect();
    assert_eq!(known, [true, true, false, true]);
}

#[test]
fn attributes_of_two_authorities_stand_beside_each_other() {
    let repository = MemoryAttributeRepository::default();
    repository.insert(entry(1, 8, NOW, NOW + 10)).unwrap();
    repository.insert(entry(1, 9, NOW + 1, NOW + 10)).unwrap();
    let issued = |authority| repository.get(&peer(1), &peer(authority), NOW).unwrap().issued_at;
    assert_eq!((issued(8), issued(9)), (NOW, NOW + 1));
    assert_eq!(repository.get(&peer(2), &peer(8), NOW), None);
    assert_eq!(repository.get(&peer(1), &peer(7), NOW), None);
}

#[test]
fn attributes_end_when_they_expire() {
    let repository = MemoryAttributeRepository::default();
    repository.insert(entry(1, 8, NOW, NOW + 10)).unwrap();
    assert!(repository.get(&peer(1), &peer(8), NOW + 9).is_some());
    assert!(repository.get(&peer(1), &peer(8), NOW + 10).is_none());
    repository
        .put(&peer(2), Attributes::new(), &peer(8), NOW, None)
        .unwrap();
    assert!(repository.get(&peer(2), &peer(8), u64::MAX).is_some());
}

#[test]
fn what_an_authority_says_later_replaces_what_it_said_and_not_the_other_way() {
    let repository = MemoryAttributeRepository::default();
    assert_eq!(
        repository.insert(entry(1, 8, NOW, NOW + 10)).unwrap(),
        PutOutcome::Stored
    );
    assert_eq!(
        repository.insert(entry(1, 8, NOW + 5, NOW + 20)).unwrap(),
        PutOutcome::Stored
    );
    assert_eq!(
        repository.insert(entry(1, 8, NOW, NOW + 10)).unwrap(),
        PutOutcome::Superseded
    );
    assert_eq!(
        repository.get(&peer(1), &peer(8), NOW).unwrap().issued_at,
        NOW + 5
    );
    // Unless what it said later is over.
    let late = PeerAttributes {
        added_at: NOW + 30,
        ..entry(1, 8, NOW, NOW + 40)
    };
    assert_eq!(repository.insert(late).unwrap(), PutOutcome::Stored);
}

#[test]
fn a_removed_peer_has_no_attributes_until_it_presents_a_credential_again() {
    let repository = MemoryAttributeRepository::default();
    repository.insert(entry(1, 8, NOW, NOW + 10)).unwrap();
    repository.insert(entry(1, 9, NOW, NOW + 10)).unwrap();
    repository.insert(entry(2, 9, NOW, NOW + 10)).unwrap();
    assert_eq!(repository.remove(&peer(1)).unwrap(), 2);
    assert_eq!(repository.get(&peer(1), &peer(8), NOW), None);
    assert_eq!(repository.len(), 1);
    assert_eq!(
        repository.insert(entry(1, 8, NOW, NOW + 10)).unwrap(),
        PutOutcome::Stored
    );
}

#[test]
fn a_revoked_peer_needs_a_credential_from_after_the_revocation() {
    let repository = MemoryAttributeRepository::default();
    repository.insert(entry(1, 8, NOW, NOW + 100)).unwrap();
    repository.insert(entry(1, 9, NOW, NOW + 100)).unwrap();
    assert!(repository.revoke(&peer(1), &peer(8), NOW + 5).unwrap());
    assert!(!repository.revoke(&peer(1), &peer(8), NOW + 4).unwrap());
    assert_eq!(repository.get(&peer(1), &peer(8), NOW), None);
    assert!(repository.get(&peer(1), &peer(9), NOW).is_some());
    assert_eq!(
        repository.insert(entry(1, 8, NOW + 5, NOW + 100)).unwrap(),
        PutOutcome::Revoked
    );
    assert_eq!(
        repository.insert(entry(1, 8, NOW + 6, NOW + 100)).unwrap(),
        PutOutcome::Stored
    );
}

#[test]
fn every_change_gives_another_generation_and_a_read_does_not() {
    let repository = MemoryAttributeRepository::default();
    let mut last = repository.generation();
    let mut changed = || {
        let now = repository.generation();
        std::mem::replace(&mut last, now) != now
    };
    repository.insert(entry(1, 8, NOW, NOW + 10)).unwrap();
    assert!(changed());
    repository.get(&peer(1), &peer(8), NOW);
    assert!(!changed());
    repository.revoke(&peer(1), &peer(8), NOW).unwrap();
    assert!(changed());
    repository.remove(&peer(1)).unwrap();
    assert!(changed());
}

#[test]
fn a_full_attribute_repository_drops_what_is_over_and_then_what_ends_first() {
    let repository = MemoryAttributeRepository::new(2);
    repository.insert(entry(1, 8, NOW, NOW + 30)).unwrap();
    repository.insert(entry(2, 8, NOW, NOW + 20)).unwrap();
    repository.insert(entry(3, 8, NOW, NOW + 40)).unwrap();
    let known = |n| repository.get(&peer(n), &peer(8), NOW).is_some();
    assert_eq!([1, 2, 3].map(known), [true, false, true]);
    // At NOW + 35 the first is over and makes room.
    repository
        .insert(PeerAttributes {
            added_at: NOW + 35,
            ..entry(4, 8, NOW, NOW + 36)
        })
        .unwrap();
    assert_eq!([1, 2, 3, 4].map(known), [false, false, true, true]);
    assert_eq!(repository.len(), 2);
}

#[test]
fn revocations_are_bounded_and_the_oldest_goes_first() {
    let repository = MemoryAttributeRepository::new(2);
    for n in 1..=3 {
        repository.revoke(&peer(n), &peer(8), NOW + u64::from(n)).unwrap();
    }
    let outcome = |n| repository.insert(entry(n, 8, NOW, NOW + 10)).unwrap();
    assert_eq!([2, 3].map(outcome), [PutOutcome::Revoked; 2]);
    assert_eq!(outcome(1), PutOutcome::Stored);
}

//! Change histories: §2.3 to §2.7.

use crate::forge::*;
use portolan_identity::limits::{MAX_CHANGES, MAX_HISTORY_BYTES};
use portolan_identity::*;

fn keys() -> (SoftwareVault, [KeyHandle; 3]) {
    let vault = SoftwareVault::in_memory();
    let key = || vault.generate_signing_key(KeyType::Ed25519).unwrap();
    let keys = [key(), key(), key()];
    (vault, keys)
}

fn verify(vault: &SoftwareVault, changes: &[ForgedChange]) -> Result<Identity, HistoryError> {
    Identity::decode(&history(vault, changes), None)
}

#[test]
fn the_layout_of_a_fresh_identity_is_the_documented_one() {
    let (_, identity) = identity(KeyType::Ed25519);
    let bytes = identity.history().encode();
    assert_eq!(bytes.len(), 128);
    assert_eq!(
        hex::encode(&bytes[..17]),
        "81825837830101583285f68200815820".to_owned() + &hex::encode(&bytes[16..17])
    );
    let change = identity.history().changes().next().unwrap();
    assert_eq!(change.data.len(), 55);
    assert_eq!(identity.identifier().as_bytes(), &sha256(change.data));
    let said = change.read().unwrap();
    assert_eq!((said.valid_from, said.valid_until), (T, T + TEN_YEARS));
    assert!(!said.revoke_all_purpose_keys);
}

#[test]
fn a_fresh_p256_identity_has_88_signed_bytes() {
    let (_, identity) = identity(KeyType::EcdsaP256);
    assert_eq!(identity.history().changes().next().unwrap().data.len(), 88);
    assert_eq!(
        Identity::decode(identity.history().encode(), Some(identity.identifier())).unwrap(),
        identity
    );
}

#[test]
fn identities_rotate_between_kinds_of_keys() {
    let vault = SoftwareVault::in_memory();
    let repository = MemoryIdentityRepository::default();
    let mut current = Identity::create(&vault, T, KeyType::Ed25519).unwrap();
    let _ = repository.update(current.clone()).unwrap();
    for (step, key_type) in [KeyType::EcdsaP256, KeyType::EcdsaP256, KeyType::Ed25519]
        .into_iter()
        .enumerate()
    {
        let rotated = current
            .rotate(&vault, &repository, T + step as u64, key_type)
            .unwrap();
        assert_eq!(rotated.identifier(), current.identifier());
        assert_eq!(rotated.compare(&current), HistoryOrder::Newer);
        assert_eq!(current.compare(&rotated), HistoryOrder::Older);
        assert_eq!(repository.get(rotated.identifier()).unwrap().unwrap(), rotated);
        assert_eq!(
            Identity::decode(rotated.history().encode(), None).unwrap(),
            rotated
        );
        current = rotated;
    }
    assert_eq!(current.history().len(), 4);
}

#[test]
fn a_rotation_deletes_the_old_key_only_after_the_new_history_is_stored() {
    let vault = SoftwareVault::in_memory();
    let repository = MemoryIdentityRepository::default();
    let first = Identity::create(&vault, T, KeyType::Ed25519).unwrap();
    let old_key = KeyHandle::of_verifying_key(first.latest_public_key());
    let _ = repository.update(first.clone()).unwrap();
    let second = first
        .rotate(&vault, &repository, T + 1, KeyType::Ed25519)
        .unwrap();
    assert!(!vault.contains(&old_key).unwrap());

    // From the old state again: the old key is gone, and the new one must survive.
    assert!(
        first
            .rotate(&vault, &repository, T + 2, KeyType::Ed25519)
            .is_err()
    );
    assert!(
        vault
            .contains(&KeyHandle::of_verifying_key(second.latest_public_key()))
            .unwrap()
    );
}

#[test]
fn a_rotation_from_a_state_that_is_not_the_latest_is_refused_and_deletes_nothing() {
    let vault = SoftwareVault::in_memory();
    let repository = MemoryIdentityRepository::default();
    let first = Identity::create(&vault, T, KeyType::Ed25519).unwrap();
    let other_key = vault.generate_signing_key(KeyType::Ed25519).unwrap();
    let _ = repository
        .update(first.rotate_to_key(&vault, &other_key, T + 1).unwrap())
        .unwrap();
    let refused = first
        .rotate(&vault, &repository, T + 2, KeyType::Ed25519)
        .unwrap_err();
    assert_eq!(refused, Error::NotLatest(HistoryOrder::Conflict));
    assert!(
        vault
            .contains(&KeyHandle::of_verifying_key(first.latest_public_key()))
            .unwrap()
    );
}

#[test]
fn a_clock_that_was_set_back_does_not_make_a_history_that_is_refused() {
    let (vault, first) = identity(KeyType::Ed25519);
    let key = vault.generate_signing_key(KeyType::Ed25519).unwrap();
    let rotated = first.rotate_to_key(&vault, &key, T - 5000).unwrap();
    assert_eq!(rotated.latest_change().valid_from, T);
}

#[test]
fn an_identity_is_not_rotated_beyond_the_limit() {
    let vault = SoftwareVault::in_memory();
    let keys = [0, 1].map(|_| vault.generate_signing_key(KeyType::Ed25519).unwrap());
    let mut identity = Identity::create_with_key(&vault, &keys[0], T).unwrap();
    for i in 1..MAX_CHANGES {
        identity = identity.rotate_to_key(&vault, &keys[i % 2], T).unwrap();
    }
    assert_eq!(identity.history().len(), MAX_CHANGES);
    assert!(ChangeHistory::decode(identity.history().encode()).is_ok());
    assert_eq!(
        identity.rotate_to_key(&vault, &keys[0], T),
        Err(Error::TooManyChanges)
    );
}

#[test]
fn a_forged_but_correct_history_verifies() {
    let (vault, [a, b, c]) = keys();
    let first = ForgedChange::first(a);
    let second = ForgedChange {
        revoke: true,
        ..ForgedChange::next(b, &first, &vault)
    };
    let third = ForgedChange::next(c, &second, &vault);
    let identity = verify(&vault, &[first, second, third]).unwrap();
    assert_eq!(identity.changes().count(), 3);
    assert_eq!(*identity.latest_public_key(), vault.verifying_key(&c).unwrap());
}

#[test]
fn an_empty_history_is_refused() {
    assert!(Identity::decode(&[0x80], None).is_err());
    assert!(Identity::decode(&[0x9f, 0xff], None).is_err());
    assert!(Identity::decode(&[], None).is_err());
}

#[test]
fn a_change_of_another_version_or_type_is_refused() {
    let (vault, [a, ..]) = keys();
    for (version, data_type) in [(0, 1), (2, 1), (1, 0), (1, 2), (1, 3)] {
        let change = ForgedChange {
            version,
            data_type,
            ..ForgedChange::first(a)
        };
        assert!(matches!(verify(&vault, &[change]), Err(HistoryError::Decode(_))));
    }
}

#[test]
fn a_first_change_with_a_predecessor_is_refused() {
    let (vault, [a, ..]) = keys();
    let change = ForgedChange {
        previous: Some([7; 32]),
        ..ForgedChange::first(a)
    };
    assert_eq!(
        verify(&vault, &[change]).unwrap_err(),
        HistoryError::FirstHasPrevious
    );
}

#[test]
fn a_previous_signature_on_the_first_change_is_ignored() {
    let (vault, [a, b, _]) = keys();
    let change = ForgedChange {
        previous_signer: Some(b),
        ..ForgedChange::first(a)
    };
    assert!(verify(&vault, &[change]).is_ok());
}

#[test]
fn a_change_that_does_not_follow_the_one_before_is_refused() {
    let (vault, [a, b, _]) = keys();
    let first = ForgedChange::first(a);
    for previous in [None, Some([7; 32])] {
        let second = ForgedChange {
            previous,
            ..ForgedChange::next(b, &first, &vault)
        };
        let refused = verify(&vault, &[first.clone(), second]).unwrap_err();
        assert_eq!(refused, HistoryError::WrongPrevious { index: 1 });
    }
}

#[test]
fn a_change_that_is_valid_earlier_than_the_one_before_is_refused() {
    let (vault, [a, b, _]) = keys();
    let first = ForgedChange::first(a);
    let next = ForgedChange::next(b, &first, &vault);
    let same = ForgedChange {
        from: T,
        ..next.clone()
    };
    assert!(verify(&vault, &[first.clone(), same]).is_ok());
    let earlier = ForgedChange { from: T - 1, ..next };
    let refused = verify(&vault, &[first, earlier]).unwrap_err();
    assert_eq!(refused, HistoryError::ValidFromDecreases { index: 1 });
}

#[test]
fn what_the_rules_do_not_ask_is_not_checked() {
    let (vault, [a, ..]) = keys();
    // The end of validity before its begin, the same key again.
    let first = ForgedChange {
        until: 0,
        ..ForgedChange::first(a)
    };
    let second = ForgedChange {
        until: 1,
        ..ForgedChange::next(a, &first, &vault)
    };
    assert!(verify(&vault, &[first, second]).is_ok());
}

#[test]
fn a_rotation_without_the_signature_of_the_key_before_is_refused() {
    let (vault, [a, b, c]) = keys();
    let first = ForgedChange::first(a);
    let next = ForgedChange::next(b, &first, &vault);
    let missing = ForgedChange {
        previous_signer: None,
        ..next.clone()
    };
    assert_eq!(
        verify(&vault, &[first.clone(), missing]).unwrap_err(),
        HistoryError::MissingPreviousSignature { index: 1 }
    );
    let wrong = ForgedChange {
        previous_signer: Some(c),
        ..next
    };
    assert_eq!(
        verify(&vault, &[first, wrong]).unwrap_err(),
        HistoryError::PreviousSignature {
            index: 1,
            cause: SignatureError::Mismatch
        }
    );
}

#[test]
fn a_change_that_its_own_key_did_not_sign_is_refused() {
    let (vault, [a, b, c]) = keys();
    let first = ForgedChange::first(a);
    let forged = ForgedChange {
        signer: c,
        ..first.clone()
    };
    assert_eq!(
        verify(&vault, &[forged]).unwrap_err(),
        HistoryError::OwnSignature {
            index: 0,
            cause: SignatureError::Mismatch
        }
    );
    let second = ForgedChange {
        signer: c,
        ..ForgedChange::next(b, &first, &vault)
    };
    assert_eq!(
        verify(&vault, &[first, second]).unwrap_err(),
        HistoryError::OwnSignature {
            index: 1,
            cause: SignatureError::Mismatch
        }
    );
}

#[test]
fn a_signature_of_another_kind_than_the_key_is_refused() {
    let (vault, [a, ..]) = keys();
    let p256 = vault.generate_signing_key(KeyType::EcdsaP256).unwrap();
    for (key, signer) in [(a, p256), (p256, a)] {
        let change = ForgedChange {
            signer,
            ..ForgedChange::first(key)
        };
        assert_eq!(
            verify(&vault, &[change]).unwrap_err(),
            HistoryError::OwnSignature {
                index: 0,
                cause: SignatureError::KindMismatch
            }
        );
    }
}

#[test]
fn an_unknown_kind_of_previous_signature_counts_as_none() {
    let (vault, [a, ..]) = keys();
    let bytes = history(&vault, &[ForgedChange::first(a)]);
    // 82 (two elements) becomes 83, and the third is a variant that nobody knows.
    let mut extended = bytes.clone();
    extended[1] = 0x83;
    extended.extend_from_slice(&[0x82, 0x07, 0x81, 0x41, 0x00]);
    assert!(Identity::decode(&extended, None).is_ok());
}

#[test]
fn bytes_after_a_history_are_ignored_and_not_kept() {
    let (_, identity) = identity(KeyType::Ed25519);
    let bytes = identity.history().encode();
    let read = ChangeHistory::decode(&[bytes, &[1, 2, 3]].concat()).unwrap();
    assert_eq!(read.encode(), bytes);
}

#[test]
fn a_history_in_an_unusual_encoding_keeps_its_bytes_and_its_identifier() {
    let (vault, first) = identity(KeyType::Ed25519);
    let change = &first.history().encode()[1..];
    // An indefinite list of indefinite records, the second of which also has an element more.
    let mut unusual = vec![0x9f, 0x9f];
    unusual.extend_from_slice(&change[1..]);
    unusual.extend_from_slice(&[0xf6, 0x63, b'n', b'e', b'w', 0xff, 0xff]);
    let read = Identity::decode(&unusual, Some(first.identifier())).unwrap();
    assert_eq!(read.history().encode(), unusual);
    assert_eq!(read.compare(&first), HistoryOrder::Equal);

    let key = vault.generate_signing_key(KeyType::Ed25519).unwrap();
    let rotated = read.rotate_to_key(&vault, &key, T + 1).unwrap();
    assert_eq!(rotated.compare(&first), HistoryOrder::Newer);
}

#[test]
fn a_history_beyond_the_limits_is_refused_before_any_signature_is_checked() {
    let (vault, [a, ..]) = keys();
    let change = &history(&vault, &[ForgedChange::first(a)])[1..];
    let many = |n: usize| [&[0x98, n as u8], &change.repeat(n)[..]].concat();
    assert_eq!(
        ChangeHistory::decode(&many(MAX_CHANGES)).unwrap().len(),
        MAX_CHANGES
    );
    assert!(ChangeHistory::decode(&many(MAX_CHANGES + 1)).is_err());
    let endless = [&[0x9f], &change.repeat(MAX_CHANGES + 1)[..], &[0xff]].concat();
    assert!(ChangeHistory::decode(&endless).is_err());

    let long = cbor(|e| {
        e.array(1)
            .unwrap()
            .array(2)
            .unwrap()
            .bytes(&vec![0; MAX_HISTORY_BYTES])
            .unwrap();
        e.encode(Signature::Ed25519([0; 64])).unwrap();
    });
    assert!(ChangeHistory::decode(&long).is_err());
    assert!(ChangeHistory::from_hex(&hex::encode(&long)).is_err());
}

#[test]
fn what_trails_inside_the_list_counts_against_the_limit_too() {
    let (_, identity) = identity(KeyType::Ed25519);
    let mut bytes = identity.history().encode().to_vec();
    bytes[1] = 0x83;
    bytes.extend_from_slice(&cbor(|e| {
        e.array(2)
            .unwrap()
            .u8(9)
            .unwrap()
            .bytes(&vec![0; MAX_HISTORY_BYTES])
            .unwrap();
    }));
    assert!(ChangeHistory::decode(&bytes).is_err());
}

#[test]
fn histories_compare_as_the_table_says() {
    let (vault, first) = identity(KeyType::Ed25519);
    let key = |_| vault.generate_signing_key(KeyType::Ed25519).unwrap();
    let [a, b] = [0, 1].map(key);
    let second = first.rotate_to_key(&vault, &a, T + 1).unwrap();
    let fork = first.rotate_to_key(&vault, &b, T + 1).unwrap();
    let third = second.rotate_to_key(&vault, &b, T + 2).unwrap();
    assert_eq!(second.compare(&second), HistoryOrder::Equal);
    assert_eq!(third.compare(&first), HistoryOrder::Newer);
    assert_eq!(first.compare(&third), HistoryOrder::Older);
    assert_eq!(fork.compare(&second), HistoryOrder::Conflict);
    assert_eq!(fork.compare(&third), HistoryOrder::Conflict);
    assert_eq!(
        identity(KeyType::Ed25519).1.compare(&first),
        HistoryOrder::Conflict
    );

    fn identity(key_type: KeyType) -> (SoftwareVault, Identity) {
        crate::forge::identity(key_type)
    }
}

#[test]
fn a_known_history_spares_no_check_on_what_is_new() {
    let (vault, [a, b, c]) = keys();
    let first = ForgedChange::first(a);
    let second = ForgedChange::next(b, &first, &vault);
    let known = verify(&vault, std::slice::from_ref(&first)).unwrap();

    let good = ChangeHistory::decode(&history(&vault, &[first.clone(), second.clone()])).unwrap();
    let rotated = Identity::verify_with_known(good, None, Some(&known)).unwrap();
    assert_eq!(rotated.compare(&known), HistoryOrder::Newer);

    for forged in [
        ForgedChange {
            previous_signer: Some(c),
            ..second.clone()
        },
        ForgedChange {
            signer: c,
            ..second.clone()
        },
    ] {
        let bad = ChangeHistory::decode(&history(&vault, &[first.clone(), forged])).unwrap();
        assert!(Identity::verify_with_known(bad, None, Some(&known)).is_err());
    }

    // A known change at a place where it does not belong is not taken over.
    let moved = ChangeHistory::decode(&history(&vault, &[second])).unwrap();
    assert!(Identity::verify_with_known(moved, None, Some(&rotated)).is_err());

    // The identifier that is expected is checked for a known history too.
    let same = known.history().clone();
    let stranger = Identifier::from([9; 32]);
    assert!(Identity::verify_with_known(same, Some(&stranger), Some(&known)).is_err());
}

#[test]
fn a_known_change_with_another_signature_is_verified_again() {
    let (vault, [a, b, _]) = keys();
    let first = ForgedChange::first(a);
    let known = verify(&vault, std::slice::from_ref(&first)).unwrap();
    let forged = ForgedChange { signer: b, ..first };
    let bad = ChangeHistory::decode(&history(&vault, &[forged])).unwrap();
    assert!(Identity::verify_with_known(bad, None, Some(&known)).is_err());
}

#[test]
fn text_is_read_in_either_case_and_with_white_space() {
    let (_, identity) = identity(KeyType::Ed25519);
    let text = identity.history().to_hex();
    assert_eq!(text, text.to_lowercase());
    assert_eq!(
        ChangeHistory::from_hex(&format!(" {}\n", text.to_uppercase())).unwrap(),
        *identity.history()
    );
    assert!(ChangeHistory::from_hex("zz").is_err());
    assert!(ChangeHistory::from_hex(&text[1..]).is_err());
}

#[test]
fn hostile_nesting_costs_neither_stack_nor_time() {
    let (_, identity) = identity(KeyType::Ed25519);
    let started = std::time::Instant::now();
    for nest in [
        &[0x9f][..],
        &[0x81],
        &[0x82, 0x9f],
        &[0xa1, 0xbf],
        &[0xc1],
        &[0x9b, 0xff, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let mut bytes = identity.history().encode().to_vec();
        bytes[1] = 0x83;
        bytes.extend(nest.iter().cycle().take(4 << 20));
        assert!(ChangeHistory::decode(&bytes).is_err());
        assert!(PurposeKeyAttestation::decode(&bytes[1..]).is_err());
        assert!(CredentialAndPurposeKey::decode(&bytes).is_err());
    }
    // Milliseconds; the bound is for a busy machine.
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

#[test]
fn a_history_within_a_message_leaves_what_follows() {
    let (_, identity) = identity(KeyType::Ed25519);
    let message = cbor(|e| {
        e.array(2)
            .unwrap()
            .encode(identity.history())
            .unwrap()
            .str("next")
            .unwrap();
    });
    let mut d = minicbor::Decoder::new(&message);
    assert_eq!(d.array().unwrap(), Some(2));
    assert_eq!(d.decode::<ChangeHistory>().unwrap(), *identity.history());
    assert_eq!(d.str().unwrap(), "next");
}

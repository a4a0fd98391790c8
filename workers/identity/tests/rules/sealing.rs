//! Secrets at rest.

use crate::forge::seed;
use portolan_identity::sealed::*;
use portolan_identity::*;
use zeroize::Zeroizing;

/// Enough work for a test.
const COST: Cost = Cost {
    memory_kib: 64,
    passes: 1,
    lanes: 1,
};

const PASSPHRASE: Unlock<'_> = Unlock::Passphrase(b"correct horse");

fn refused(slot: &[u8], unlock: Unlock<'_>) -> SealError {
    Sealer::unlock(slot, unlock).unwrap_err()
}

#[test]
fn a_secret_comes_back_after_a_restart_with_the_passphrase() {
    let (sealer, slot) = Sealer::create(PASSPHRASE, COST).unwrap();
    assert_eq!(slot.len(), SLOT_BYTES);
    let handle = KeyHandle::from([5; 32]);
    let secret = Secret::new(SecretKind::Ed25519, Zeroizing::new(seed(1)));
    let sealed = sealer.seal_secret(&handle, &secret).unwrap();
    assert!(!sealed.windows(8).any(|w| w == &seed(1)[..8]));
    drop(sealer);

    let sealer = Sealer::unlock(&slot, PASSPHRASE).unwrap();
    let opened = sealer.open_secret(&handle, SecretKind::Ed25519, &sealed).unwrap();
    assert_eq!((opened.kind(), opened.expose()), (SecretKind::Ed25519, &seed(1)));
}

#[test]
fn a_wrong_passphrase_or_key_file_says_so() {
    let (_, slot) = Sealer::create(PASSPHRASE, COST).unwrap();
    assert_eq!(
        refused(&slot, Unlock::Passphrase(b"wrong horse")),
        SealError::WrongPassphrase
    );
    assert_eq!(
        refused(&slot, Unlock::Passphrase(b"")),
        SealError::EmptyPassphrase
    );
    assert_eq!(
        refused(&slot, Unlock::KeyFile(&[1; 32])),
        SealError::NeedsPassphrase
    );

    let (_, slot) = Sealer::create(Unlock::KeyFile(&[1; 32]), COST).unwrap();
    assert!(Sealer::unlock(&slot, Unlock::KeyFile(&[1; 32])).is_ok());
    assert_eq!(refused(&slot, Unlock::KeyFile(&[2; 32])), SealError::WrongKeyFile);
    assert_eq!(refused(&slot, PASSPHRASE), SealError::NeedsKeyFile);
    assert_eq!(SealError::WrongPassphrase.to_string(), "wrong passphrase");
}

#[test]
fn an_empty_passphrase_is_not_accepted_to_begin_with() {
    assert_eq!(
        Sealer::create(Unlock::Passphrase(b""), COST).unwrap_err(),
        SealError::EmptyPassphrase
    );
}

#[test]
fn every_damaged_byte_of_a_slot_is_noticed_and_is_not_taken_for_a_wrong_passphrase() {
    let (_, slot) = Sealer::create(PASSPHRASE, COST).unwrap();
    for at in 0..slot.len() {
        let mut damaged = slot.clone();
        damaged[at] ^= 0x10;
        let expected = match at {
            0..8 => SealError::NotASlot,
            8 => SealError::UnknownVersion(0x11),
            _ => SealError::DamagedSlot,
        };
        assert_eq!(refused(&damaged, PASSPHRASE), expected, "byte {at}");
    }
    for length in 0..slot.len() {
        assert!(Sealer::unlock(&slot[..length], PASSPHRASE).is_err());
    }
    assert_eq!(refused(b"", PASSPHRASE), SealError::NotASlot);
    assert_eq!(
        refused(&[&slot[..], &[0]].concat(), PASSPHRASE),
        SealError::DamagedSlot
    );
}

#[test]
fn a_slot_that_asks_for_too_much_work_is_refused_at_once() {
    let (_, mut slot) = Sealer::create(PASSPHRASE, COST).unwrap();
    slot[10..14].copy_from_slice(&u32::MAX.to_be_bytes());
    let check = crate::forge::sha256(&slot[..SLOT_BYTES - 8]);
    slot[SLOT_BYTES - 8..].copy_from_slice(&check[..8]);
    assert!(matches!(
        refused(&slot, PASSPHRASE),
        SealError::UnreasonableCost(_)
    ));
    let none = Cost {
        memory_kib: 0,
        passes: 0,
        lanes: 0,
    };
    assert!(matches!(
        Sealer::create(PASSPHRASE, none),
        Err(SealError::UnreasonableCost(_))
    ));
}

#[test]
fn the_passphrase_changes_and_the_secrets_stay() {
    let (sealer, old_slot) = Sealer::create(PASSPHRASE, COST).unwrap();
    let sealed = sealer.seal(b"name", b"secret").unwrap();
    let new_slot = sealer.slot(Unlock::KeyFile(&[3; 32]), COST).unwrap();
    assert_ne!(old_slot, new_slot);
    let sealer = Sealer::unlock(&new_slot, Unlock::KeyFile(&[3; 32])).unwrap();
    assert_eq!(**sealer.open(b"name", &sealed).unwrap(), *b"secret");
}

#[test]
fn a_sealed_secret_opens_only_whole_in_its_place_and_with_its_data_key() {
    let (sealer, _) = Sealer::create(PASSPHRASE, COST).unwrap();
    let sealed = sealer.seal(b"name", b"secret").unwrap();
    assert_eq!(
        sealer.open(b"other", &sealed).unwrap_err(),
        SealError::DamagedSecret
    );
    for at in 0..sealed.len() {
        let mut damaged = sealed.clone();
        damaged[at] ^= 1;
        assert!(sealer.open(b"name", &damaged).is_err(), "byte {at}");
    }
    for length in 0..sealed.len() {
        assert!(sealer.open(b"name", &sealed[..length]).is_err());
    }
    let (other, _) = Sealer::create(PASSPHRASE, COST).unwrap();
    assert_eq!(
        other.open(b"name", &sealed).unwrap_err(),
        SealError::DamagedSecret
    );
}

#[test]
fn a_secret_of_one_kind_does_not_open_as_another() {
    let (sealer, _) = Sealer::create(PASSPHRASE, COST).unwrap();
    let handle = KeyHandle::from([5; 32]);
    let secret = Secret::new(SecretKind::Ed25519, Zeroizing::new([1; 32]));
    let sealed = sealer.seal_secret(&handle, &secret).unwrap();
    assert!(sealer.open_secret(&handle, SecretKind::X25519, &sealed).is_err());
    assert!(
        sealer
            .open_secret(&KeyHandle::from([6; 32]), SecretKind::Ed25519, &sealed)
            .is_err()
    );
}

#[test]
fn the_same_secret_is_never_sealed_the_same_way() {
    let (sealer, _) = Sealer::create(PASSPHRASE, COST).unwrap();
    assert_ne!(sealer.seal(b"n", b"s").unwrap(), sealer.seal(b"n", b"s").unwrap());
}

#[test]
fn a_key_file_holds_32_bytes_or_their_digits() {
    let text = generate_key_file().unwrap();
    assert_eq!(text.len(), 65);
    let key = parse_key_file(text.as_bytes()).unwrap();
    assert_eq!(hex::encode(*key), text.trim());
    assert_eq!(*parse_key_file(&*key).unwrap(), *key);
    for bad in [&b""[..], &[1; 31], &[b'g'; 64], &[1; 64]] {
        assert_eq!(parse_key_file(bad).unwrap_err(), SealError::BadKeyFile);
    }
}

#[test]
fn the_default_cost_is_affordable() {
    let (_, slot) = Sealer::create(PASSPHRASE, Cost::DEFAULT).unwrap();
    assert!(Sealer::unlock(&slot, PASSPHRASE).is_ok());
}

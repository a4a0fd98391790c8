//! Vaults, keys and signatures: §1.

use crate::forge::*;
use portolan_identity::*;
use std::sync::Arc;
use zeroize::Zeroizing;

#[test]
fn signatures_of_both_kinds_verify_and_bind_the_digest() {
    let vault = SoftwareVault::in_memory();
    for key_type in [KeyType::Ed25519, KeyType::EcdsaP256] {
        let handle = vault.generate_signing_key(key_type).unwrap();
        let key = vault.verifying_key(&handle).unwrap();
        assert_eq!(key.key_type(), key_type);
        assert_eq!(handle, KeyHandle::of_verifying_key(&key));
        let signature = vault.sign(&handle, &[1; 32]).unwrap();
        assert_eq!(key.verify(&[1; 32], &signature), Ok(()));
        assert_eq!(key.verify(&[2; 32], &signature), Err(SignatureError::Mismatch));
        // RFC 8032 and RFC 6979: the same again.
        assert_eq!(vault.sign(&handle, &[1; 32]).unwrap(), signature);
    }
}

#[test]
fn ecdsa_hashes_the_digest_once_more() {
    use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
    let secret = p256::ecdsa::SigningKey::from_slice(&seed(1)).unwrap();
    let vault = SoftwareVault::in_memory();
    let handle = import(&vault, SecretKind::EcdsaP256, 1);
    let key = vault.verifying_key(&handle).unwrap();
    let digest = sha256(b"data");

    let signature = vault.sign(&handle, &digest).unwrap();
    let raw = p256::ecdsa::Signature::from_slice(signature.as_bytes()).unwrap();
    assert!(
        secret
            .verifying_key()
            .verify_prehash(&sha256(&digest), &raw)
            .is_ok()
    );
    assert!(secret.verifying_key().verify_prehash(&digest, &raw).is_err());

    let direct: p256::ecdsa::Signature = secret.sign_prehash(&digest).unwrap();
    let direct = Signature::EcdsaP256(direct.to_bytes().into());
    assert_eq!(key.verify(&digest, &direct), Err(SignatureError::Mismatch));
}

#[test]
fn ecdsa_signatures_need_no_low_s() {
    let vault = SoftwareVault::in_memory();
    let handle = import(&vault, SecretKind::EcdsaP256, 1);
    let key = vault.verifying_key(&handle).unwrap();
    let signature = vault.sign(&handle, &[1; 32]).unwrap();
    let raw = p256::ecdsa::Signature::from_slice(signature.as_bytes()).unwrap();
    let (r, s) = raw.split_scalars();
    let other = p256::ecdsa::Signature::from_scalars(r, -s).unwrap();
    let other = Signature::EcdsaP256(other.to_bytes().into());
    assert_ne!(other, signature);
    assert_eq!(key.verify(&[1; 32], &other), Ok(()));
}

#[test]
fn encodings_of_keys_and_signatures_are_the_documented_ones() {
    let cases = [
        (minicbor::to_vec(VerifyingKey::Ed25519([7; 32])), "8200815820"),
        (minicbor::to_vec(VerifyingKey::EcdsaP256([7; 65])), "8201815841"),
        (minicbor::to_vec(Signature::Ed25519([7; 64])), "8200815840"),
        (minicbor::to_vec(Signature::EcdsaP256([7; 64])), "8201815840"),
        (
            minicbor::to_vec(PurposePublicKey::SecureChannelStatic([7; 32])),
            "8200815820",
        ),
        (
            minicbor::to_vec(PurposePublicKey::CredentialSigning(VerifyingKey::Ed25519(
                [7; 32],
            ))),
            "8201818200815820",
        ),
    ];
    for (bytes, expected) in cases {
        assert!(hex::encode(bytes.unwrap()).starts_with(&format!("{expected}0707")));
    }
}

#[test]
fn a_key_of_another_length_or_kind_is_refused() {
    let read = |text: &str| minicbor::decode::<VerifyingKey>(&hex::decode(text).unwrap()).map(|_| ());
    assert!(read(&format!("8200815820{}", "07".repeat(32))).is_ok());
    assert!(read(&format!("820081581f{}", "07".repeat(31))).is_err());
    assert!(read(&format!("8200815821{}", "07".repeat(33))).is_err());
    assert!(read(&format!("8202815820{}", "07".repeat(32))).is_err());
    // Not the 33 bytes of a compressed point.
    assert!(read(&format!("8201815821{}", "02".repeat(33))).is_err());
    assert!(read(&format!("9f00815820{}ff", "07".repeat(32))).is_err());
}

#[test]
fn bytes_that_are_no_point_are_an_invalid_key() {
    let vault = SoftwareVault::in_memory();
    for (key_type, key) in [
        (KeyType::Ed25519, VerifyingKey::Ed25519([0xff; 32])),
        (KeyType::EcdsaP256, VerifyingKey::EcdsaP256([4; 65])),
        (KeyType::EcdsaP256, VerifyingKey::EcdsaP256([0; 65])),
    ] {
        let handle = vault.generate_signing_key(key_type).unwrap();
        let signature = vault.sign(&handle, &[0; 32]).unwrap();
        assert!(key.verify(&[0; 32], &signature).is_err(), "{key:?}");
    }
}

#[test]
fn an_ed25519_key_of_small_order_signs_for_nobody() {
    // With the neutral element as key and as commitment and a zero scalar, lenient verification accepts any message.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let key = VerifyingKey::Ed25519(neutral);
    assert_eq!(
        key.verify(&[1; 32], &Signature::Ed25519(signature)),
        Err(SignatureError::InvalidKey)
    );
}

#[test]
fn both_sides_of_an_exchange_get_the_same_secret() {
    let vault = SoftwareVault::in_memory();
    let [a, b] = [0, 1].map(|_| vault.generate_x25519_key().unwrap());
    let [public_a, public_b] = [a, b].map(|k| vault.x25519_public_key(&k).unwrap());
    assert_eq!(a, KeyHandle::of_x25519_key(&public_a));
    let ab = vault.x25519(&a, &public_b).unwrap();
    let ba = vault.x25519(&b, &public_a).unwrap();
    assert_eq!(ab.as_bytes(), ba.as_bytes());
}

#[test]
fn a_public_key_of_small_order_is_refused() {
    let vault = SoftwareVault::in_memory();
    let handle = vault.generate_x25519_key().unwrap();
    let one: [u8; 32] = std::array::from_fn(|i| u8::from(i == 0));
    for public in [[0; 32], one] {
        assert_eq!(
            vault.x25519(&handle, &public).unwrap_err(),
            VaultError::NonContributory
        );
    }
}

#[test]
fn a_key_does_only_what_its_kind_can() {
    let vault = SoftwareVault::in_memory();
    let signing = vault.generate_signing_key(KeyType::Ed25519).unwrap();
    let exchange = vault.generate_x25519_key().unwrap();
    assert!(matches!(
        vault.sign(&exchange, &[0; 32]),
        Err(VaultError::WrongKind { .. })
    ));
    assert!(matches!(
        vault.verifying_key(&exchange),
        Err(VaultError::WrongKind { .. })
    ));
    assert!(matches!(
        vault.x25519(&signing, &[9; 32]),
        Err(VaultError::WrongKind { .. })
    ));
    assert!(matches!(
        vault.x25519_public_key(&signing),
        Err(VaultError::WrongKind { .. })
    ));
}

#[test]
fn a_deleted_key_is_gone() {
    let vault = SoftwareVault::in_memory();
    let handle = vault.generate_signing_key(KeyType::Ed25519).unwrap();
    assert!(vault.contains(&handle).unwrap());
    assert!(vault.delete_key(&handle).unwrap());
    assert!(!vault.delete_key(&handle).unwrap());
    assert!(!vault.contains(&handle).unwrap());
    assert_eq!(vault.sign(&handle, &[0; 32]), Err(VaultError::UnknownKey(handle)));
}

#[test]
fn keys_survive_in_their_store() {
    let store = Arc::new(MemorySecretStore::default());
    let first = SoftwareVault::new(store.clone());
    // More than the vault keeps loaded.
    let handles: Vec<_> = (0..100)
        .map(|_| first.generate_signing_key(KeyType::Ed25519).unwrap())
        .collect();
    let second = SoftwareVault::new(store);
    for handle in &handles {
        assert_eq!(first.sign(handle, &[1; 32]), second.sign(handle, &[1; 32]));
    }
}

#[test]
fn a_scalar_that_is_no_p256_key_is_refused() {
    let vault = SoftwareVault::in_memory();
    for bytes in [[0; 32], [0xff; 32]] {
        let secret = Secret::new(SecretKind::EcdsaP256, Zeroizing::new(bytes));
        assert_eq!(
            vault.import(&secret),
            Err(VaultError::InvalidSecret(SecretKind::EcdsaP256))
        );
    }
}

#[test]
fn nothing_prints_a_secret() {
    let store = Arc::new(MemorySecretStore::default());
    let secret = Secret::new(SecretKind::X25519, Zeroizing::new([0xab; 32]));
    let vault = SoftwareVault::new(store.clone());
    let handle = vault.import(&secret).unwrap();
    let shared = vault.x25519(&handle, &[9; 32]).unwrap();
    let (sealer, _) =
        sealed::Sealer::create(sealed::Unlock::KeyFile(&[0xab; 32]), sealed::Cost::DEFAULT).unwrap();
    let printed = format!(
        "{secret:?} {store:?} {vault:?} {shared:?} {sealer:?} {:?} {:?}",
        sealed::Unlock::KeyFile(&[0xab; 32]),
        sealed::Unlock::Passphrase(&[0xab; 32]),
    );
    assert!(
        !printed.contains("171") && !printed.to_lowercase().contains("abab"),
        "{printed}"
    );
    let shared = hex::encode(shared.as_bytes());
    assert!(!printed.contains(&shared));
}

//! Vaults and identities: create, export, verify, rotate.
//!
//! An identity is a chain of public keys, each signed by the one before. Its name is the hash of the first link, so
//! that whoever knows the name can check the chain without asking anybody. The secret keys stay in a vault.
//!
//! ```text
//! cargo run --example 09-identity
//! ```
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;

use portolan::identity::{
    HistoryOrder, Identity, IdentityRepository, KeyType, MemoryIdentityRepository,
    MemoryPurposeKeyRepository, Purpose, SoftwareVault, current_purpose_key,
};

fn main() -> Result<(), Box<dyn Error>> {
    // Nothing in this crate has a clock; whoever asks says what time it is.
    let now = portolan::state::now();
    let vault = SoftwareVault::in_memory();

    let alice = Identity::create(&vault, now, KeyType::Ed25519)?;
    println!("created   {}", alice.identifier());

    // The chain is public: this text is all that others need in order to recognise Alice.
    let exported = alice.history().to_hex();
    println!("exported  {} hex digits", exported.len());

    // Somebody else imports it, and verifies it against the name that they were told.
    let imported = Identity::from_hex(&exported, Some(alice.identifier()))?;
    println!("verified  {}", imported.identifier());

    // What runs every day, channels and credentials, has keys of its own. The identity attests that they speak for it,
    // each for one purpose and for some time.
    let purpose_keys = MemoryPurposeKeyRepository::default();
    let key = current_purpose_key(&vault, &purpose_keys, &alice, Purpose::SecureChannel, now)?;
    let attested = key.attestation.verify(&imported, now)?;
    println!(
        "attested  a key for secure channels, for {} days",
        (attested.expires_at - now) / 86_400
    );

    // Rotation adds a link. The name stays; the old key is deleted, and what it had attested is worth nothing any more.
    let known = MemoryIdentityRepository::default();
    let order = known.update(alice.clone())?;
    println!("stored    a chain that is {order:?} here");
    let rotated = alice.rotate(&vault, &known, now, KeyType::Ed25519)?;
    println!(
        "rotated   {} has {} keys now",
        rotated.identifier(),
        rotated.history().len()
    );
    if let Err(error) = key.attestation.verify(&rotated, now) {
        println!("refused   the old attestation: {error}");
    }

    // Whoever has seen the new chain does not accept the old one again.
    let order = known.update(imported)?;
    println!("refused   the old chain: it is {order:?}");
    assert_eq!(order, HistoryOrder::Older);
    Ok(())
}

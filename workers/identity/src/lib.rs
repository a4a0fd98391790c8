//! Keys, vaults, identifiers, change histories, purpose keys and credentials.
//!
//! # Who is the peer?
//!
//! A node is known by an **identity**: a chain of signing keys that anybody can check without asking anyone.
//! The chain is the [`ChangeHistory`]. Its first *change* names a public key and is signed by that key; every
//! later change names the next key and is signed by both the new key and the one before it. The SHA-256 of the
//! first change is the [`Identifier`]: whoever holds it can recognise every later state of the same identity, and
//! nobody can produce one without the keys.
//!
//! The signing key of an identity signs only two things: the next change, and [`PurposeKeyAttestation`]s. An
//! attestation says "until this time, this other key speaks for me, for this one purpose": an X25519 key that
//! proves who is at the end of a secure channel, or a signing key that issues credentials. The long-lived key thus
//! stays out of the daily work, and rotation of the identity ends every earlier attestation.
//!
//! A [`Credential`] is a statement of one identity, the *authority*, about another, the *subject*: "these
//! [`Attributes`] hold from now until then". It travels with the attestation of the key that signed it
//! ([`CredentialAndPurposeKey`]). Verifiers keep what a credential said in an [`AttributeRepository`], filed under the
//! subject *and* the authority, so that two authorities never speak over each other.
//!
//! Secret keys live in a [`Vault`] and are used through [`KeyHandle`]s; they never come out. [`SoftwareVault`] keeps
//! them in a [`SecretStore`]; [`sealed`] encrypts them for the disk.
//!
//! # An authority vouches for a peer
//!
//! ```
//! use portolan_identity::*;
//!
//! # fn main() -> Result<(), Error> {
//! let now = 1_700_000_000;
//!
//! // In the process of the authority.
//! let vault = SoftwareVault::in_memory();
//! let purpose_keys = MemoryPurposeKeyRepository::default();
//! let authority = Identity::create(&vault, now, KeyType::Ed25519)?;
//! let history = authority.history().to_hex(); // goes into the configuration of those who trust it
//!
//! let peer: Identifier = "I923829d0397a06fa862be5a87b7966959b8ef99ab6455b843ca9131a747b4819".parse().unwrap();
//! let attributes = Attributes::from_pairs([("role", "member")])?;
//! let lifetime = credential::CREDENTIAL_LIFETIME;
//! let issued = CredentialAndPurposeKey::issue(
//!     &vault, &purpose_keys, &authority, &peer, None, attributes, now, lifetime,
//! )?;
//!
//! // In the process of a node that trusts the authority, when a channel from the peer presents the credential.
//! let trusted = [Identity::from_hex(&history, None)?];
//! let known = MemoryAttributeRepository::default();
//! let verified = CredentialAndPurposeKey::decode(&issued.encode())?.verify(Some(&peer), &trusted, now)?;
//! known.put_credential(&verified, now)?;
//!
//! let said = known.get(&peer, trusted[0].identifier(), now).unwrap();
//! assert!(said.attributes.has("role", "member"));
//! # Ok(())
//! # }
//! ```
//!
//! # Rules of the house
//!
//! - This crate has no clock: whatever depends on time takes `now`, UTC seconds since 1970.
//! - Digests and signatures cover *received bytes*. Every `data` field is kept as it came and is never re-encoded.
//! - A value of type [`Identity`] has been verified; so has a [`VerifiedCredential`]. Types that merely were decoded
//!   ([`ChangeHistory`], [`PurposeKeyAttestation`], [`Credential`]) prove nothing yet.
//! - What a peer sends is bounded at decode: see [`limits`].
//!
//! Formats and rules are those of the specification, part 02, sections 0 to 4; section numbers in this crate mean
//! that part.
//!
//! # Modules
//!
//! | module | idea |
//! |---|---|
//! | [`identifier`] | the name of an identity, and the hash of a change |
//! | [`keys`] | public keys and signatures, and how to check one with the other |
//! | [`vault`] | secret keys behind handles; the software vault and its store |
//! | [`history`] | the chain of keys as bytes |
//! | [`identity`] | the chain of keys, verified; creation and rotation |
//! | [`purpose_key`] | keys that speak for an identity, for one purpose |
//! | [`credential`] | attributes of a subject, signed by an authority |
//! | [`repository`] | what a node remembers: peers' identities and peers' attributes |
//! | [`sealed`] | secrets encrypted at rest |
//! | [`limits`] | what a peer can make us hold or compute |

mod cbor;
mod error;
mod versioned;

pub mod attributes;
pub mod credential;
pub mod history;
pub mod identifier;
pub mod identity;
pub mod keys;
pub mod limits;
pub mod purpose_key;
pub mod repository;
pub mod sealed;
pub mod vault;

pub use attributes::Attributes;
pub use credential::{
    Credential, CredentialAndPurposeKey, CredentialData, CredentialError, VerifiedCredential,
    decode_credentials, encode_credentials,
};
pub use error::{DecodeError, Error, StorageError};
pub use history::ChangeHistory;
pub use identifier::{ChangeHash, Identifier, ParseIdentifierError};
pub use identity::{HistoryError, HistoryOrder, Identity};
pub use keys::{KeyType, Signature, SignatureError, VerifyingKey};
pub use purpose_key::{
    AttestationData, AttestationError, MemoryPurposeKeyRepository, Purpose, PurposeKey,
    PurposeKeyAttestation, PurposeKeyRepository, PurposePublicKey, current_purpose_key,
};
pub use repository::{
    AttributeRepository, IdentityRepository, MemoryAttributeRepository, MemoryIdentityRepository,
    PeerAttributes, PutOutcome, verify_received,
};
pub use vault::{
    KeyHandle, MemorySecretStore, Secret, SecretKind, SecretStore, SharedSecret, SoftwareVault, Vault,
    VaultError,
};

/// How far a peer's clock may run ahead of ours, in seconds: a `created_at` that is further in the future than this
/// is refused (§3.3, §4.4). There is no tolerance for `expires_at`.
pub const MAX_CLOCK_SKEW: u64 = 60;

/// SHA-256, the only hash of the protocol, never truncated.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

//! Keys that speak for an identity, each for one purpose (§3).

mod current;

pub(crate) use current::purpose_key_that_lasts;
pub use current::{
    MemoryPurposeKeyRepository, PURPOSE_KEY_LIFETIME, PURPOSE_KEY_RENEWAL, PurposeKey, PurposeKeyRepository,
    create_purpose_key, current_purpose_key,
};

use crate::cbor::{Elements, bounded, fixed, to_vec, variant, variant_field};
use crate::limits::MAX_ATTESTATION_BYTES;
use crate::versioned::{self, DataType};
use crate::{
    ChangeHash, DecodeError, Error, Identifier, Identity, MAX_CLOCK_SKEW, Signature, SignatureError, Vault,
    VerifyingKey, sha256,
};
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::fmt;
use std::sync::Arc;

/// What a purpose key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The X25519 static key of secure channels.
    SecureChannel,
    /// The key that signs credentials.
    Credentials,
}

impl Purpose {
    /// The name that the reference's databases use.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::SecureChannel => "SC_PK",
            Purpose::Credentials => "C_PK",
        }
    }
}

/// The public half of a purpose key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PurposePublicKey {
    /// The X25519 static key of secure channels.
    SecureChannelStatic([u8; 32]),
    /// The key that checks credentials.
    CredentialSigning(VerifyingKey),
}

impl PurposePublicKey {
    /// What the key is for.
    pub fn purpose(&self) -> Purpose {
        match self {
            PurposePublicKey::SecureChannelStatic(_) => Purpose::SecureChannel,
            PurposePublicKey::CredentialSigning(_) => Purpose::Credentials,
        }
    }
}

impl fmt::Debug for PurposePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PurposePublicKey::SecureChannelStatic(key) => {
                write!(f, "SecureChannelStatic({})", hex::encode(key))
            }
            PurposePublicKey::CredentialSigning(key) => write!(f, "CredentialSigning({key:?})"),
        }
    }
}

/// "Until then, this key speaks for me": signed by the latest key of an identity. Proves nothing until
/// [`verify`](PurposeKeyAttestation::verify)'d. Clones are cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct PurposeKeyAttestation {
    data: Arc<[u8]>,
    signature: Signature,
}

/// What an attestation says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationData {
    /// The identity that the key speaks for.
    pub subject: Identifier,
    /// The change of the subject whose key signed.
    pub subject_latest_change_hash: ChangeHash,
    /// The key.
    pub public_key: PurposePublicKey,
    /// UTC seconds.
    pub created_at: u64,
    /// UTC seconds; the last second at which it holds.
    pub expires_at: u64,
}

/// Why an attestation was refused. Its maker is at fault, or has not told us of a rotation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttestationError {
    /// It cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It is of another identity.
    #[error("the attestation is of {found}, not of {expected}")]
    WrongSubject {
        /// Whose attestation was expected.
        expected: Identifier,
        /// Whose it is.
        found: Identifier,
    },
    /// It was not made by the latest key of the identity that we know: one side has not seen a rotation.
    #[error("the attestation is not by the latest key of {subject}")]
    NotByLatestChange {
        /// The identity.
        subject: Identifier,
    },
    /// It ends after the key that signed it.
    #[error(
        "the attestation expires at {expires_at}, after its signing key, which is valid until {valid_until}"
    )]
    OutlivesIdentity {
        /// Of the attestation.
        expires_at: u64,
        /// Of the identity's latest key.
        valid_until: u64,
    },
    /// It begins before the key that signed it.
    #[error(
        "the attestation was created at {created_at}, before its signing key, which is valid from {valid_from}"
    )]
    PredatesIdentity {
        /// Of the attestation.
        created_at: u64,
        /// Of the identity's latest key.
        valid_from: u64,
    },
    /// It was made in the future. Check the clocks.
    #[error(
        "the attestation was created at {created_at}, and it is only {now}: check the clocks of both sides"
    )]
    FromTheFuture {
        /// Of the attestation.
        created_at: u64,
        /// Our time.
        now: u64,
    },
    /// It is over.
    #[error("the attestation expired at {expires_at}, and it is {now}")]
    Expired {
        /// Of the attestation.
        expires_at: u64,
        /// Our time.
        now: u64,
    },
    /// Its signature is wrong.
    #[error("signature: {0}")]
    Signature(#[from] SignatureError),
}

impl PurposeKeyAttestation {
    /// Makes an attestation that `key` speaks for `identity` for `lifetime` seconds from `now`, signed by the identity's
    /// latest key. Where the identity ends earlier, so does the attestation: an identity older than five years would
    /// otherwise produce attestations that everybody refuses (§9.2, S14).
    pub fn create(
        vault: &dyn Vault,
        identity: &Identity,
        key: PurposePublicKey,
        now: u64,
        lifetime: u64,
    ) -> Result<Self, Error> {
        let change = identity.latest_change();
        // A clock that was set back since the last rotation must not make an attestation that predates it.
        let created_at = now.max(change.valid_from);
        if change.valid_until < created_at {
            return Err(Error::IdentityExpired {
                identifier: *identity.identifier(),
                valid_until: change.valid_until,
                now,
            });
        }
        let data = AttestationData {
            subject: *identity.identifier(),
            subject_latest_change_hash: change.hash,
            public_key: key,
            created_at,
            expires_at: created_at.saturating_add(lifetime).min(change.valid_until),
        }
        .wrap();
        let signing_key = vault.signing_handle(&change.public_key)?;
        let signature = vault.sign(&signing_key, &sha256(&data))?;
        Ok(PurposeKeyAttestation {
            data: data.into(),
            signature,
        })
    }

    /// What it says, *unverified*.
    pub fn read(&self) -> Result<AttestationData, DecodeError> {
        versioned::unwrap(&self.data, DataType::PurposeKeyAttestation, AttestationData::read)
    }

    /// Checks that `subject` made this attestation with its latest key and that it holds at `now` (§3.3).
    pub fn verify(&self, subject: &Identity, now: u64) -> Result<AttestationData, AttestationError> {
        let data = self.read()?;
        let change = subject.latest_change();
        if data.subject != *subject.identifier() {
            return Err(AttestationError::WrongSubject {
                expected: *subject.identifier(),
                found: data.subject,
            });
        }
        if data.subject_latest_change_hash != change.hash {
            return Err(AttestationError::NotByLatestChange {
                subject: data.subject,
            });
        }
        if data.expires_at > change.valid_until {
            return Err(AttestationError::OutlivesIdentity {
                expires_at: data.expires_at,
                valid_until: change.valid_until,
            });
        }
        if data.created_at < change.valid_from {
            return Err(AttestationError::PredatesIdentity {
                created_at: data.created_at,
                valid_from: change.valid_from,
            });
        }
        if data.created_at > now.saturating_add(MAX_CLOCK_SKEW) {
            return Err(AttestationError::FromTheFuture {
                created_at: data.created_at,
                now,
            });
        }
        if data.expires_at < now {
            return Err(AttestationError::Expired {
                expires_at: data.expires_at,
                now,
            });
        }
        change.public_key.verify(&sha256(&self.data), &self.signature)?;
        Ok(data)
    }

    /// Takes an attestation apart. Bytes after it are ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Decoder::new(bytes)
            .decode()
            .map_err(|e| DecodeError::new("purpose key attestation", e))
    }

    /// The bytes, with the signed part as it was received.
    pub fn encode(&self) -> Vec<u8> {
        to_vec(|e| e.encode(self)?.ok())
    }
}

impl AttestationData {
    fn wrap(&self) -> Vec<u8> {
        let record = to_vec(|e| {
            e.array(5)?
                .encode(self.subject)?
                .encode(self.subject_latest_change_hash)?
                .encode(self.public_key)?
                .u64(self.created_at)?
                .u64(self.expires_at)?
                .ok()
        });
        versioned::wrap(DataType::PurposeKeyAttestation, &record)
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        let mut fields = Elements::open(d)?;
        let data = AttestationData {
            subject: fields.required(0, |d| d.decode())?,
            subject_latest_change_hash: fields.required(1, |d| d.decode())?,
            public_key: fields.required(2, |d| d.decode())?,
            created_at: fields.required(3, |d| d.u64())?,
            expires_at: fields.required(4, |d| d.u64())?,
        };
        fields.close()?;
        Ok(data)
    }
}

impl fmt::Debug for PurposeKeyAttestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.read() {
            Ok(data) => write!(f, "PurposeKeyAttestation(unverified: {data:?})"),
            Err(e) => write!(f, "PurposeKeyAttestation({e})"),
        }
    }
}

impl<C> Encode<C> for PurposePublicKey {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            PurposePublicKey::SecureChannelStatic(key) => e.array(2)?.u8(0)?.array(1)?.bytes(key)?.ok(),
            PurposePublicKey::CredentialSigning(key) => e.array(2)?.u8(1)?.array(1)?.encode(key)?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for PurposePublicKey {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        match variant(d)? {
            0 => variant_field(d, fixed).map(PurposePublicKey::SecureChannelStatic),
            1 => variant_field(d, |d| d.decode()).map(PurposePublicKey::CredentialSigning),
            n => Err(minicbor::decode::Error::unknown_variant(n.into())),
        }
    }
}

impl<C> Encode<C> for PurposeKeyAttestation {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2)?.bytes(&self.data)?.encode(self.signature)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for PurposeKeyAttestation {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let mut fields = Elements::open(d)?;
        let data = fields.required(0, |d| bounded(d, MAX_ATTESTATION_BYTES))?;
        let signature = fields.required(1, |d| d.decode())?;
        fields.close()?;
        Ok(PurposeKeyAttestation {
            data: data.into(),
            signature,
        })
    }
}

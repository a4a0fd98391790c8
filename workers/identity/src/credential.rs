//! Attributes of a subject, signed by an authority (§4).

use crate::cbor::{Elements, bounded, to_vec};
use crate::limits::{MAX_CREDENTIAL_BYTES, MAX_CREDENTIALS};
use crate::purpose_key::purpose_key_that_lasts;
use crate::versioned::{self, DataType};
use crate::{
    AttestationError, Attributes, ChangeHash, DecodeError, Error, Identifier, Identity, KeyHandle,
    MAX_CLOCK_SKEW, Purpose, PurposeKey, PurposeKeyAttestation, PurposeKeyRepository, PurposePublicKey,
    Signature, SignatureError, Vault, sha256,
};
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::fmt;
use std::sync::Arc;

/// How long a credential of an authority holds unless it says otherwise: 30 days, in seconds (§4.3).
pub const CREDENTIAL_LIFETIME: u64 = 30 * 24 * 60 * 60;

/// A signed statement about a subject. Proves nothing without its attestation; see [`CredentialAndPurposeKey`].
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    data: Arc<[u8]>,
    signature: Signature,
}

/// What a credential says, *unverified*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialData {
    /// Of whom it speaks. The format allows none; verification does not.
    pub subject: Option<Identifier>,
    /// The subject's latest change that the authority knew. Not checked by verifiers.
    pub subject_latest_change_hash: Option<ChangeHash>,
    /// What it says of the subject.
    pub attributes: Attributes,
    /// UTC seconds.
    pub created_at: u64,
    /// UTC seconds; the last second at which it holds.
    pub expires_at: u64,
}

/// A credential and the attestation of the key that signed it: the unit that is exchanged, kept and printed. Clones are
/// cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialAndPurposeKey {
    /// The statement.
    pub credential: Credential,
    /// "This key signs credentials for me", by the authority.
    pub attestation: PurposeKeyAttestation,
}

/// What a credential says, after it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCredential {
    /// The authority that issued it.
    pub issuer: Identifier,
    /// Of whom it speaks.
    pub subject: Identifier,
    /// The subject's latest change that the authority knew.
    pub subject_latest_change_hash: Option<ChangeHash>,
    /// What it says of the subject.
    pub attributes: Attributes,
    /// UTC seconds.
    pub created_at: u64,
    /// UTC seconds; the last second at which it holds.
    pub expires_at: u64,
}

/// Why a credential was refused, or could not be issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// It cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It was not issued by an authority that we trust.
    #[error("{0} is not an authority that this node trusts")]
    UntrustedIssuer(Identifier),
    /// The attestation of the issuer's key was refused.
    #[error("the issuer's purpose key was refused: {0}")]
    Attestation(#[from] AttestationError),
    /// The issuer's key is not one that signs credentials.
    #[error("the issuer's purpose key is not for signing credentials")]
    WrongPurpose,
    /// Its signature is wrong.
    #[error("signature: {0}")]
    Signature(#[from] SignatureError),
    /// It names no subject.
    #[error("the credential names no subject")]
    NoSubject,
    /// It speaks of somebody else.
    #[error("the credential is of {found}, not of {expected}")]
    WrongSubject {
        /// Of whom it should speak.
        expected: Identifier,
        /// Of whom it speaks.
        found: Identifier,
    },
    /// It does not lie within the time of the key that signed it.
    #[error(
        "the credential holds from {created_at} to {expires_at}, and its signing key only from {key_from} to {key_until}"
    )]
    OutsideOfKeyLifetime {
        /// Of the credential.
        created_at: u64,
        /// Of the credential.
        expires_at: u64,
        /// Of the attestation.
        key_from: u64,
        /// Of the attestation.
        key_until: u64,
    },
    /// It was made in the future. Check the clocks.
    #[error(
        "the credential was created at {created_at}, and it is only {now}: check the clocks of both sides"
    )]
    FromTheFuture {
        /// Of the credential.
        created_at: u64,
        /// Our time.
        now: u64,
    },
    /// It is over.
    #[error("the credential expired at {expires_at}, and it is {now}")]
    Expired {
        /// Of the credential.
        expires_at: u64,
        /// Our time.
        now: u64,
    },
    /// It cannot be issued with an attribute of a name that policies keep for themselves.
    #[error("the attribute name {0:?} is reserved")]
    ReservedAttribute(String),
}

impl Credential {
    /// Signs a statement with a key for credentials. The caller sees to it that a verifier will accept it; see
    /// [`issue`](CredentialAndPurposeKey::issue).
    pub fn sign(vault: &dyn Vault, key: &KeyHandle, statement: &CredentialData) -> Result<Self, Error> {
        let data = statement.wrap();
        let signature = vault.sign(key, &sha256(&data))?;
        Ok(Credential {
            data: data.into(),
            signature,
        })
    }

    /// What it says, *unverified*.
    pub fn read(&self) -> Result<CredentialData, DecodeError> {
        versioned::unwrap(&self.data, DataType::Credential, CredentialData::read)
    }
}

impl CredentialAndPurposeKey {
    /// Issues a credential of `issuer` about `subject`, for `lifetime` seconds from `now` (§4.3). The issuer's key for
    /// credentials is made when needed, and anew where the present one would end before the credential; at the latest the
    /// credential ends with the issuer's identity.
    #[allow(clippy::too_many_arguments)]
    pub fn issue(
        vault: &dyn Vault,
        purpose_keys: &dyn PurposeKeyRepository,
        issuer: &Identity,
        subject: &Identifier,
        subject_latest_change_hash: Option<ChangeHash>,
        attributes: Attributes,
        now: u64,
        lifetime: u64,
    ) -> Result<Self, Error> {
        if let Some(name) = attributes.reserved_name() {
            return Err(CredentialError::ReservedAttribute(name.escape_ascii().to_string()).into());
        }
        let until = now.saturating_add(lifetime);
        let key = purpose_key_that_lasts(vault, purpose_keys, issuer, Purpose::Credentials, now, until)?;
        Self::issue_with_key(
            vault,
            &key,
            subject,
            subject_latest_change_hash,
            attributes,
            now,
            lifetime,
        )
    }

    fn issue_with_key(
        vault: &dyn Vault,
        key: &PurposeKey,
        subject: &Identifier,
        subject_latest_change_hash: Option<ChangeHash>,
        attributes: Attributes,
        now: u64,
        lifetime: u64,
    ) -> Result<Self, Error> {
        let created_at = now.max(key.data.created_at);
        let statement = CredentialData {
            subject: Some(*subject),
            subject_latest_change_hash,
            attributes,
            created_at,
            expires_at: created_at.saturating_add(lifetime).min(key.data.expires_at),
        };
        let credential = Credential::sign(vault, &key.handle, &statement)?;
        Ok(CredentialAndPurposeKey {
            credential,
            attestation: key.attestation.clone(),
        })
    }

    /// Checks that one of `authorities` issued this credential, about `expected_subject` if one is given, and that it holds
    /// at `now` (§4.4). `authorities` are the latest states of those identities that this node knows.
    pub fn verify(
        &self,
        expected_subject: Option<&Identifier>,
        authorities: &[Identity],
        now: u64,
    ) -> Result<VerifiedCredential, CredentialError> {
        let issuer = self.attestation.read()?.subject;
        let authority = authorities
            .iter()
            .find(|a| *a.identifier() == issuer)
            .ok_or(CredentialError::UntrustedIssuer(issuer))?;
        let key = self.attestation.verify(authority, now)?;
        let PurposePublicKey::CredentialSigning(public_key) = &key.public_key else {
            return Err(CredentialError::WrongPurpose);
        };
        public_key.verify(&sha256(&self.credential.data), &self.credential.signature)?;

        let said = self.credential.read()?;
        let subject = said.subject.ok_or(CredentialError::NoSubject)?;
        if let Some(expected) = expected_subject.filter(|e| **e != subject) {
            return Err(CredentialError::WrongSubject {
                expected: *expected,
                found: subject,
            });
        }
        if said.created_at < key.created_at || said.expires_at > key.expires_at {
            return Err(CredentialError::OutsideOfKeyLifetime {
                created_at: said.created_at,
                expires_at: said.expires_at,
                key_from: key.created_at,
                key_until: key.expires_at,
            });
        }
        if said.created_at > now.saturating_add(MAX_CLOCK_SKEW) {
            return Err(CredentialError::FromTheFuture {
                created_at: said.created_at,
                now,
            });
        }
        if said.expires_at < now {
            return Err(CredentialError::Expired {
                expires_at: said.expires_at,
                now,
            });
        }
        Ok(VerifiedCredential {
            issuer,
            subject,
            subject_latest_change_hash: said.subject_latest_change_hash,
            attributes: said.attributes,
            created_at: said.created_at,
            expires_at: said.expires_at,
        })
    }

    /// Takes one apart. Bytes after it are ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Decoder::new(bytes)
            .decode()
            .map_err(|e| DecodeError::new("credential", e))
    }

    /// The bytes, with the signed parts as they were received.
    pub fn encode(&self) -> Vec<u8> {
        to_vec(|e| e.encode(self)?.ok())
    }

    /// The text form: lower-case hexadecimal.
    pub fn to_hex(&self) -> String {
        hex::encode(self.encode())
    }

    /// Reads the text form; surrounding white space is ignored.
    pub fn from_hex(text: &str) -> Result<Self, DecodeError> {
        let text = text.trim();
        if text.len() > 4 * (MAX_CREDENTIAL_BYTES + crate::limits::MAX_ATTESTATION_BYTES) {
            return Err(DecodeError::new("credential", "the text is too long"));
        }
        let bytes = hex::decode(text).map_err(|e| DecodeError::new("credential", e))?;
        Self::decode(&bytes)
    }
}

/// Reads a list of credentials as an element of another message (§5.5). At most [`MAX_CREDENTIALS`].
pub fn decode_credentials(
    d: &mut Decoder<'_>,
) -> Result<Vec<CredentialAndPurposeKey>, minicbor::decode::Error> {
    let mut list = Elements::open(d)?;
    let mut credentials = Vec::new();
    while let Some(credential) = list.next(|d| d.decode())? {
        if credentials.len() == MAX_CREDENTIALS {
            return Err(minicbor::decode::Error::message(format!(
                "more than {MAX_CREDENTIALS} credentials"
            )));
        }
        credentials.push(credential);
    }
    list.close()?;
    Ok(credentials)
}

/// Writes a list of credentials as an element of another message (§5.5).
pub fn encode_credentials<W: minicbor::encode::Write>(
    credentials: &[CredentialAndPurposeKey],
    e: &mut Encoder<W>,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    e.array(credentials.len() as u64)?;
    for credential in credentials {
        e.encode(credential)?;
    }
    Ok(())
}

impl CredentialData {
    fn wrap(&self) -> Vec<u8> {
        let record = to_vec(|e| {
            e.array(5)?
                .encode(self.subject)?
                .encode(self.subject_latest_change_hash)?
                .encode(&self.attributes)?
                .u64(self.created_at)?
                .u64(self.expires_at)?
                .ok()
        });
        versioned::wrap(DataType::Credential, &record)
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        let mut fields = Elements::open(d)?;
        let data = CredentialData {
            subject: fields.optional(|d| d.decode())?,
            subject_latest_change_hash: fields.optional(|d| d.decode())?,
            attributes: fields.required(2, |d| d.decode())?,
            created_at: fields.required(3, |d| d.u64())?,
            expires_at: fields.required(4, |d| d.u64())?,
        };
        fields.close()?;
        Ok(data)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.read() {
            Ok(data) => write!(f, "Credential(unverified: {data:?})"),
            Err(e) => write!(f, "Credential({e})"),
        }
    }
}

impl fmt::Debug for CredentialAndPurposeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with {:?}", self.credential, self.attestation)
    }
}

impl<C> Encode<C> for Credential {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2)?.bytes(&self.data)?.encode(self.signature)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Credential {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let mut fields = Elements::open(d)?;
        let data = fields.required(0, |d| bounded(d, MAX_CREDENTIAL_BYTES))?;
        let signature = fields.required(1, |d| d.decode())?;
        fields.close()?;
        Ok(Credential {
            data: data.into(),
            signature,
        })
    }
}

impl<C> Encode<C> for CredentialAndPurposeKey {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2)?
            .encode(&self.credential)?
            .encode(&self.attestation)?
            .ok()
    }
}

impl<'b, C> Decode<'b, C> for CredentialAndPurposeKey {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let mut fields = Elements::open(d)?;
        let credential = fields.required(0, |d| d.decode())?;
        let attestation = fields.required(1, |d| d.decode())?;
        fields.close()?;
        Ok(CredentialAndPurposeKey {
            credential,
            attestation,
        })
    }
}

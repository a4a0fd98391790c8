//! Public keys and signatures, and how to check one with the other.

use crate::cbor::{fixed, variant, variant_field};
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::fmt;
use std::str::FromStr;

/// The two kinds of signing key (§1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyType {
    /// Ed25519 (RFC 8032); the default.
    #[default]
    Ed25519,
    /// ECDSA with SHA-256 on P-256: what hardware and cloud key stores offer.
    EcdsaP256,
}

impl KeyType {
    /// The name that the reference's databases and command line use.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyType::Ed25519 => "EdDSACurve25519",
            KeyType::EcdsaP256 => "ECDSASHA256CurveP256",
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyType {
    type Err = crate::DecodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [KeyType::Ed25519, KeyType::EcdsaP256]
            .into_iter()
            .find(|t| t.as_str() == text)
            .ok_or_else(|| crate::DecodeError::new("key type", format!("unknown type {text:?}")))
    }
}

/// A public key that checks signatures.
///
/// Any bytes of the right length make one: that they are a point on the curve is found out when a signature is checked.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerifyingKey {
    /// An Ed25519 public key.
    Ed25519([u8; 32]),
    /// A P-256 public key: SEC1, uncompressed, the first byte is 4.
    EcdsaP256([u8; 65]),
}

/// A signature over a 32-byte digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// RFC 8032, without pre-hash and context.
    Ed25519([u8; 64]),
    /// `r` and `s`, each 32 bytes, big-endian.
    EcdsaP256([u8; 64]),
}

/// Why a signature was refused. The signer, or whoever changed the bytes, is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The public key is not a usable point of its curve.
    #[error("the public key is not a valid point of its curve")]
    InvalidKey,
    /// The signature is of another kind than the key.
    #[error("the signature is of another kind than the key")]
    KindMismatch,
    /// The key did not make this signature over this digest.
    #[error("the signature is not of this key over these bytes")]
    Mismatch,
}

impl VerifyingKey {
    /// Which kind of key it is.
    pub fn key_type(&self) -> KeyType {
        match self {
            VerifyingKey::Ed25519(_) => KeyType::Ed25519,
            VerifyingKey::EcdsaP256(_) => KeyType::EcdsaP256,
        }
    }

    /// The bytes of the key: 32 or 65.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            VerifyingKey::Ed25519(bytes) => bytes,
            VerifyingKey::EcdsaP256(bytes) => bytes,
        }
    }

    /// Checks that `signature` is of this key over `digest` (§1.3).
    ///
    /// Ed25519 is checked strictly: keys and commitments of small order, which no honest signer has, are refused.
    /// ECDSA hashes the digest once more, as the signer did.
    pub fn verify(&self, digest: &[u8; 32], signature: &Signature) -> Result<(), SignatureError> {
        match (self, signature) {
            (VerifyingKey::Ed25519(key), Signature::Ed25519(signature)) => {
                let key =
                    ed25519_dalek::VerifyingKey::from_bytes(key).map_err(|_| SignatureError::InvalidKey)?;
                if key.is_weak() {
                    return Err(SignatureError::InvalidKey);
                }
                let signature = ed25519_dalek::Signature::from_bytes(signature);
                key.verify_strict(digest, &signature)
                    .map_err(|_| SignatureError::Mismatch)
            }
            (VerifyingKey::EcdsaP256(key), Signature::EcdsaP256(signature)) => {
                use p256::ecdsa::signature::Verifier;
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key)
                    .map_err(|_| SignatureError::InvalidKey)?;
                let signature =
                    p256::ecdsa::Signature::from_slice(signature).map_err(|_| SignatureError::Mismatch)?;
                key.verify(digest, &signature)
                    .map_err(|_| SignatureError::Mismatch)
            }
            _ => Err(SignatureError::KindMismatch),
        }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.key_type(), hex::encode(self.as_bytes()))
    }
}

impl Signature {
    /// The 64 bytes.
    pub fn as_bytes(&self) -> &[u8; 64] {
        match self {
            Signature::Ed25519(bytes) | Signature::EcdsaP256(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Signature::Ed25519(_) => KeyType::Ed25519,
            Signature::EcdsaP256(_) => KeyType::EcdsaP256,
        };
        write!(f, "{kind}({})", hex::encode(self.as_bytes()))
    }
}

impl<C> Encode<C> for VerifyingKey {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2)?
            .u8(self.key_type() as u8)?
            .array(1)?
            .bytes(self.as_bytes())?
            .ok()
    }
}

impl<'b, C> Decode<'b, C> for VerifyingKey {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        match variant(d)? {
            0 => variant_field(d, fixed).map(VerifyingKey::Ed25519),
            1 => variant_field(d, fixed).map(VerifyingKey::EcdsaP256),
            n => Err(minicbor::decode::Error::unknown_variant(n.into())),
        }
    }
}

impl<C> Encode<C> for Signature {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let index = match self {
            Signature::Ed25519(_) => 0,
            Signature::EcdsaP256(_) => 1,
        };
        e.array(2)?.u8(index)?.array(1)?.bytes(self.as_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Signature {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        match variant(d)? {
            0 => variant_field(d, fixed).map(Signature::Ed25519),
            1 => variant_field(d, fixed).map(Signature::EcdsaP256),
            n => Err(minicbor::decode::Error::unknown_variant(n.into())),
        }
    }
}

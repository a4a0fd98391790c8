//! The name of an identity, and the hash of a change.

use crate::cbor::fixed;
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::fmt;
use std::str::FromStr;

/// The name of an identity: the SHA-256 of its first change (§2.1).
///
/// As text it is `I` and 64 hexadecimal digits, written in lower case and read in either.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier([u8; 32]);

/// The SHA-256 of a change (of its complete `data` bytes). That of change 0 is the identifier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeHash([u8; 32]);

/// Text that is not an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an identifier is the letter I and 64 hexadecimal digits")]
pub struct ParseIdentifierError;

impl Identifier {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of the first change, which is the same 32 bytes.
    pub fn change_hash(&self) -> ChangeHash {
        ChangeHash(self.0)
    }
}

impl ChangeHash {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Identifier {
    fn from(bytes: [u8; 32]) -> Self {
        Identifier(bytes)
    }
}

impl From<[u8; 32]> for ChangeHash {
    fn from(bytes: [u8; 32]) -> Self {
        ChangeHash(bytes)
    }
}

impl TryFrom<&[u8]> for Identifier {
    type Error = ParseIdentifierError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Identifier).map_err(|_| ParseIdentifierError)
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("I")?;
        lower_hex(&self.0, f)
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lower_hex(&self.0, f)
    }
}

impl fmt::Debug for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn lower_hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

impl FromStr for Identifier {
    type Err = ParseIdentifierError;

    /// Surrounding white space is ignored.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.trim().strip_prefix('I').ok_or(ParseIdentifierError)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| ParseIdentifierError)?;
        Ok(Identifier(bytes))
    }
}

impl serde::Serialize for Identifier {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Identifier {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl<C> Encode<C> for Identifier {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Identifier {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        fixed(d).map(Identifier)
    }
}

impl<C> Encode<C> for ChangeHash {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for ChangeHash {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        fixed(d).map(ChangeHash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "I923829d0397a06fa862be5a87b7966959b8ef99ab6455b843ca9131a747b4819";

    #[test]
    fn text_is_the_letter_and_lower_case_digits() {
        let identifier: Identifier = TEXT.parse().unwrap();
        assert_eq!(identifier.to_string(), TEXT);
        assert_eq!(format!("  {}\n", TEXT).parse(), Ok(identifier));
        assert_eq!(format!("I{}", TEXT[1..].to_uppercase()).parse(), Ok(identifier));
    }

    #[test]
    fn text_without_prefix_or_of_another_length_is_refused() {
        for text in [
            "",
            "I",
            &TEXT[1..],
            &TEXT[..64],
            &format!("{TEXT}00"),
            &format!("i{}", &TEXT[1..]),
        ] {
            assert_eq!(text.parse::<Identifier>(), Err(ParseIdentifierError), "{text}");
        }
        assert!(format!("I{}", "é".repeat(32)).parse::<Identifier>().is_err());
    }

    #[test]
    fn json_is_the_text() {
        let identifier: Identifier = TEXT.parse().unwrap();
        let json = serde_json::to_string(&identifier).unwrap();
        assert_eq!(json, format!("\"{TEXT}\""));
        assert_eq!(serde_json::from_str::<Identifier>(&json).unwrap(), identifier);
    }

    #[test]
    fn cbor_is_a_byte_string_of_exactly_32() {
        let identifier: Identifier = TEXT.parse().unwrap();
        let bytes = minicbor::to_vec(identifier).unwrap();
        assert_eq!(bytes[..2], [0x58, 0x20]);
        assert_eq!(minicbor::decode::<Identifier>(&bytes).unwrap(), identifier);
        assert!(minicbor::decode::<Identifier>(&[0x41, 0]).is_err());
    }
}

//! Attributes that an authority attests of a member: names and values of text, with limits.
//!
//! They end up in a credential, which has to fit a handshake message of 65 535 bytes on every channel that
//! the member opens. The reference has no limits and lets such a credential fail later, elsewhere, without a
//! reason; here a set that is too large does not come into being.

use std::collections::BTreeMap;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use crate::api::infallible;

/// Attributes of one member.
pub const MAX_ATTRIBUTES: usize = 64;
/// Bytes of a name.
pub const MAX_NAME_LEN: usize = 255;
/// Bytes of a value.
pub const MAX_VALUE_LEN: usize = 4096;
/// Bytes of all names and values together: a quarter of a handshake message, and with the project id that the
/// authority adds still inside what [`portolan_identity::limits`] lets a credential carry.
pub const MAX_TOTAL_LEN: usize = 15 * 1024;

/// Grants the right to manage members and tickets when its value is [`ENROLLER`].
pub const ROLE: &str = "ockam-role";
/// Value of [`ROLE`] that grants the right.
pub const ENROLLER: &str = "enroller";
/// Grants the right to register the relay that the value names, or any for `*`.
pub const RELAY: &str = "ockam-relay";
/// Grants the right to fetch the project's TLS certificate when its value is `true`.
pub const TLS_CERTIFICATE: &str = "ockam-tls-certificate";
/// The project id, which the authority itself adds to every credential.
pub const TRUST_CONTEXT_ID: &str = "trust_context_id";

/// Names that no enroller may hand out.
///
/// `identifier` and `has_credential` would override what a policy engine of the reference derives from the
/// channel (specification 04, D12), `trust_context_id` would replace the project id in the credential, and
/// `project` is how an account authority marks project administrators.
pub const RESERVED_NAMES: [&str; 4] = ["identifier", "has_credential", TRUST_CONTEXT_ID, "project"];

/// A set of attributes inside all limits, without reserved names. Sorted by the bytes of the name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberAttributes(BTreeMap<String, String>);

/// Why a set of attributes was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributesError {
    /// More than [`MAX_ATTRIBUTES`].
    #[error("more than {MAX_ATTRIBUTES} attributes")]
    TooMany,
    /// A name is empty or longer than [`MAX_NAME_LEN`].
    #[error("an attribute name must have 1 to {MAX_NAME_LEN} bytes")]
    NameLength,
    /// A name has a control character.
    #[error("an attribute name has a control character")]
    NameCharacter,
    /// A value is longer than [`MAX_VALUE_LEN`].
    #[error("the value of attribute `{name}` is longer than {MAX_VALUE_LEN} bytes")]
    ValueTooLong {
        /// The attribute.
        name: String,
    },
    /// More than [`MAX_TOTAL_LEN`] bytes together.
    #[error(
        "the attributes have more than {MAX_TOTAL_LEN} bytes together; the credential would not fit a handshake"
    )]
    TooLarge,
    /// One of [`RESERVED_NAMES`].
    #[error("the attribute name `{name}` is reserved")]
    Reserved {
        /// The attribute.
        name: String,
    },
    /// The same name twice.
    #[error("attribute `{name}` is given twice")]
    Duplicate {
        /// The attribute.
        name: String,
    },
    /// A relay name that no relay service can register.
    #[error("a relay name must not contain `#`")]
    RelayName,
    /// Not a CBOR map from text to text.
    #[error("the attributes are not a map from text to text")]
    Malformed,
}

impl MemberAttributes {
    /// Checks every rule of this module.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn new<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, AttributesError>
    where
        K: Into<String>,
        V: Into<String>,
    {
        let mut set = Self::default();
        let mut total = 0usize;
        for (name, value) in pairs {
            let (name, value) = (name.into(), value.into());
            check_pair(&name, &value)?;
            total = total.saturating_add(name.len() + value.len());
            if total > MAX_TOTAL_LEN {
                return Err(AttributesError::TooLarge);
            }
            if set.0.len() == MAX_ATTRIBUTES {
                return Err(AttributesError::TooMany);
            }
            if set.0.insert(name.clone(), value).is_some() {
                return Err(AttributesError::Duplicate { name });
            }
        }
        Ok(set)
    }

    /// Whether the holder may manage members and tickets.
    pub fn is_enroller(&self) -> bool {
        self.get(ROLE) == Some(ENROLLER)
    }

    /// The value of an attribute.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All pairs, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Number of attributes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends the CBOR map `{text: text}`: the form of requests and of the database.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        infallible(e.map(self.0.len() as u64));
        for (name, value) in &self.0 {
            infallible(e.str(name).and_then(|e| e.str(value)));
        }
    }

    /// Reads `{text: text}`, of definite or indefinite length, and checks every rule.
    ///
    /// # Errors
    /// [`AttributesError::Malformed`] or the first rule that is broken.
    pub fn decode(d: &mut Decoder<'_>) -> Result<Self, AttributesError> {
        let malformed = |_| AttributesError::Malformed;
        let mut left = d.map().map_err(malformed)?;
        if left.is_some_and(|n| n > MAX_ATTRIBUTES as u64) {
            return Err(AttributesError::TooMany);
        }
        let mut pairs = Vec::new();
        loop {
            match &mut left {
                Some(0) => break,
                Some(n) => *n -= 1,
                None if matches!(d.datatype(), Ok(Type::Break)) => {
                    d.skip().map_err(malformed)?;
                    break;
                }
                None if pairs.len() == MAX_ATTRIBUTES => return Err(AttributesError::TooMany),
                None => {}
            }
            pairs.push((d.str().map_err(malformed)?, d.str().map_err(malformed)?));
        }
        Self::new(pairs)
    }
}

fn check_pair(name: &str, value: &str) -> Result<(), AttributesError> {
    if name.is_empty() || name.len() > MAX_NAME_LEN {
        return Err(AttributesError::NameLength);
    }
    if name.chars().any(char::is_control) {
        return Err(AttributesError::NameCharacter);
    }
    if RESERVED_NAMES.contains(&name) {
        return Err(AttributesError::Reserved {
            name: name.to_owned(),
        });
    }
    if value.len() > MAX_VALUE_LEN {
        return Err(AttributesError::ValueTooLong {
            name: name.to_owned(),
        });
    }
    // Such a name is an address of another transport, and ends the process of a stock relay node
    // (specification 03 §2.4).
    if name == RELAY && value.contains('#') {
        return Err(AttributesError::RelayName);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<MemberAttributes, AttributesError> {
        MemberAttributes::new([(name, value)])
    }

    #[test]
    fn reserved_names_are_refused() {
        for name in RESERVED_NAMES {
            assert_eq!(
                one(name, "x"),
                Err(AttributesError::Reserved { name: name.into() })
            );
        }
        assert!(one("identifiers", "x").is_ok());
    }

    #[test]
    fn every_limit_holds_exactly() {
        assert!(one(&"n".repeat(MAX_NAME_LEN), "").is_ok());
        assert_eq!(
            one(&"n".repeat(MAX_NAME_LEN + 1), ""),
            Err(AttributesError::NameLength)
        );
        assert_eq!(one("", "x"), Err(AttributesError::NameLength));
        assert_eq!(one("a\nb", "x"), Err(AttributesError::NameCharacter));
        assert!(one("n", &"v".repeat(MAX_VALUE_LEN)).is_ok());
        assert!(matches!(
            one("n", &"v".repeat(MAX_VALUE_LEN + 1)),
            Err(AttributesError::ValueTooLong { .. })
        ));
        let many = |n: usize| MemberAttributes::new((0..n).map(|i| (format!("{i}"), "")));
        assert!(many(MAX_ATTRIBUTES).is_ok());
        assert_eq!(many(MAX_ATTRIBUTES + 1), Err(AttributesError::TooMany));
        let large = |n: usize| MemberAttributes::new((0..n).map(|i| (format!("{i:04}"), "v".repeat(1020))));
        assert!(large(15).is_ok());
        assert_eq!(large(16), Err(AttributesError::TooLarge));
    }

    #[test]
    fn a_relay_name_that_would_end_a_stock_node_is_refused() {
        assert_eq!(one(RELAY, "a#b"), Err(AttributesError::RelayName));
        assert!(one(RELAY, "*").is_ok());
        assert!(one("other", "a#b").is_ok());
    }

    #[test]
    fn a_name_given_twice_is_refused() {
        let twice = MemberAttributes::new([("a", "1"), ("a", "2")]);
        assert_eq!(twice, Err(AttributesError::Duplicate { name: "a".into() }));
    }

    #[test]
    fn sets_come_back_from_definite_and_indefinite_maps() {
        let set = MemberAttributes::new([("b", "2"), ("a", "1")]).expect("inside all limits");
        let mut encoded = Vec::new();
        set.encode(&mut encoded);
        assert_eq!(encoded, *b"\xa2\x61a\x611\x61b\x612");
        assert_eq!(
            MemberAttributes::decode(&mut Decoder::new(&encoded)),
            Ok(set.clone())
        );
        assert_eq!(
            MemberAttributes::decode(&mut Decoder::new(b"\xbf\x61b\x612\x61a\x611\xff")),
            Ok(set)
        );
    }

    #[test]
    fn names_that_are_not_text_and_cut_off_maps_are_refused() {
        for bad in [
            &b"\xa1\x41a\x611"[..],
            b"\xa1\x81\x18\x61\x611",
            b"\xa2\x61a\x611",
            b"\xbf\x61a\x611",
            b"\x80",
            b"",
        ] {
            assert_eq!(
                MemberAttributes::decode(&mut Decoder::new(bad)),
                Err(AttributesError::Malformed)
            );
        }
        let endless = [&b"\xbf"[..], &b"\x61a\x611".repeat(100)].concat();
        assert!(MemberAttributes::decode(&mut Decoder::new(&endless)).is_err());
        assert_eq!(
            MemberAttributes::decode(&mut Decoder::new(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff")),
            Err(AttributesError::TooMany)
        );
    }
}

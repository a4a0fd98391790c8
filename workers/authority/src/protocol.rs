//! Bodies of the authority's requests and responses (specification 03 §4.3–§4.6).
//!
//! One kind of data has two encodings here, and stock peers reject the wrong one: attributes in requests are
//! `text → text`, attributes in an [`AttributesEntry`] have names and values as CBOR **arrays of small
//! integers**. (In a credential they are byte strings; that is `portolan-identity`'s matter.)

use std::collections::BTreeMap;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use portolan_identity::Identifier;

use crate::api::infallible;
use crate::attributes::{AttributesError, MAX_NAME_LEN, MAX_TOTAL_LEN, MAX_VALUE_LEN, MemberAttributes};
use crate::code::{CODE_LEN, OneTimeCode};

/// Address of the service that creates one-time codes.
pub const TOKEN_ISSUER: &str = "enrollment_token_issuer";
/// Address of the service that redeems one-time codes.
pub const TOKEN_ACCEPTOR: &str = "enrollment_token_acceptor";
/// Address of the service that issues credentials.
pub const CREDENTIAL_ISSUER: &str = "credential_issuer";
/// Address of the service that manages members.
pub const DIRECT_AUTHENTICATOR: &str = "direct_authenticator";
/// Address of the service that tells members what concerns them all. Ours: a stock authority has none, and a stock node
/// never asks.
pub const MEMBER_SERVICE: &str = "member_service";

/// Removals in one answer, at most.
pub const MAX_REMOVALS: usize = 256;
/// Longest that the authority waits for a removal before it answers that there is none, in seconds.
pub const MAX_WAIT: u64 = 30;
/// Names in one question about attributes.
pub const MAX_ASKED_NAMES: usize = 64;

/// A body that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not the CBOR that the request needs. The text says what was expected.
    #[error("the body is not {0}")]
    Malformed(&'static str),
    /// Attributes against a rule.
    #[error(transparent)]
    Attributes(#[from] AttributesError),
}

/// Body of a request for a one-time code: `{1: {text: text}, ?2: seconds, ?3: count}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateToken {
    /// Attributes of those who redeem the code.
    pub attributes: MemberAttributes,
    /// Seconds for which the code can be redeemed. `None` leaves it to the authority.
    pub ttl: Option<u64>,
    /// How many identities can redeem it. `None` leaves it to the authority, 0 counts as 1.
    pub uses: Option<u64>,
}

impl CreateToken {
    /// The CBOR body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let fields = 1 + u64::from(self.ttl.is_some()) + u64::from(self.uses.is_some());
        infallible(Encoder::new(&mut out).map(fields).and_then(|e| e.u8(1)));
        self.attributes.encode(&mut out);
        let mut e = Encoder::new(&mut out);
        for (key, value) in [(2, self.ttl), (3, self.uses)] {
            if let Some(value) = value {
                infallible(e.u8(key).and_then(|e| e.u64(value)));
            }
        }
        out
    }

    /// Reads the CBOR body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        const WHAT: &str = "a map of attributes, life and count";
        let mut attributes = None;
        let mut token = Self::default();
        read_map(body, WHAT, |key, d| {
            match key {
                1 => attributes = Some(MemberAttributes::decode(d)?),
                2 => token.ttl = optional_u64(d, WHAT)?,
                3 => token.uses = optional_u64(d, WHAT)?,
                _ => d.skip().map_err(|_| BodyError::Malformed(WHAT))?,
            }
            Ok(())
        })?;
        token.attributes = attributes.ok_or(BodyError::Malformed(WHAT))?;
        Ok(token)
    }
}

/// Writes a one-time code as request and response bodies have it: `{1: bytes(32)}`.
pub fn encode_code(code: &OneTimeCode) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + CODE_LEN);
    infallible(
        Encoder::new(&mut out)
            .map(1)
            .and_then(|e| e.u8(1))
            .and_then(|e| e.bytes(code.expose())),
    );
    out
}

/// Reads `{1: bytes(32)}`.
///
/// # Errors
/// [`BodyError::Malformed`].
pub fn decode_code(body: &[u8]) -> Result<OneTimeCode, BodyError> {
    const WHAT: &str = "a map with a one-time code of 32 bytes";
    let mut code = None;
    read_map(body, WHAT, |key, d| {
        match key {
            1 => {
                let bytes = d.bytes().map_err(|_| BodyError::Malformed(WHAT))?;
                let bytes: [u8; CODE_LEN] = bytes.try_into().map_err(|_| BodyError::Malformed(WHAT))?;
                code = Some(OneTimeCode::from(bytes));
            }
            _ => d.skip().map_err(|_| BodyError::Malformed(WHAT))?,
        }
        Ok(())
    })?;
    code.ok_or(BodyError::Malformed(WHAT))
}

/// Body of a request that adds a member: `{1: bytes(32), 2: {text: text}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddMember {
    /// Who becomes a member. The authority need not have seen this identity before.
    pub member: Identifier,
    /// Its attributes, which replace earlier ones.
    pub attributes: MemberAttributes,
}

impl AddMember {
    /// The CBOR body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut e = Encoder::new(&mut out);
        infallible(
            e.map(2)
                .and_then(|e| e.u8(1))
                .and_then(|e| e.bytes(self.member.as_bytes()))
                .and_then(|e| e.u8(2)),
        );
        self.attributes.encode(&mut out);
        out
    }

    /// Reads the CBOR body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        const WHAT: &str = "a map of identifier and attributes";
        let (mut member, mut attributes) = (None, None);
        read_map(body, WHAT, |key, d| {
            match key {
                1 => member = Some(d.decode::<Identifier>().map_err(|_| BodyError::Malformed(WHAT))?),
                2 => attributes = Some(MemberAttributes::decode(d)?),
                _ => d.skip().map_err(|_| BodyError::Malformed(WHAT))?,
            }
            Ok(())
        })?;
        match (member, attributes) {
            (Some(member), Some(attributes)) => Ok(Self { member, attributes }),
            _ => Err(BodyError::Malformed(WHAT)),
        }
    }
}

/// What an authority tells about a member: `{1: {[u8…]: [u8…]}, 2: added_at, ?3: expires_at, ?4: bytes(32)}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributesEntry {
    /// Names and values; text by convention.
    pub attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// When the member was added, UTC seconds.
    pub added_at: u64,
    /// When the attributes end, UTC seconds. Absent for members.
    pub expires_at: Option<u64>,
    /// Who added the member.
    pub attested_by: Option<Identifier>,
}

impl AttributesEntry {
    /// Appends the CBOR map to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        infallible(e.map(2 + u64::from(self.expires_at.is_some()) + u64::from(self.attested_by.is_some())));
        infallible(e.u8(1).and_then(|e| e.map(self.attributes.len() as u64)));
        for (name, value) in &self.attributes {
            for bytes in [name, value] {
                infallible(e.array(bytes.len() as u64));
                for byte in bytes {
                    infallible(e.u8(*byte));
                }
            }
        }
        infallible(e.u8(2).and_then(|e| e.u64(self.added_at)));
        if let Some(expires_at) = self.expires_at {
            infallible(e.u8(3).and_then(|e| e.u64(expires_at)));
        }
        if let Some(attested_by) = &self.attested_by {
            infallible(e.u8(4).and_then(|e| e.bytes(attested_by.as_bytes())));
        }
    }

    /// Reads a CBOR map from `d`. Names and values are taken as integer arrays, byte strings or text.
    ///
    /// # Errors
    /// [`BodyError::Malformed`].
    pub fn decode(d: &mut Decoder<'_>) -> Result<Self, BodyError> {
        const WHAT: &str = "a map of attributes and times";
        let malformed = |_| BodyError::Malformed(WHAT);
        let mut entry = Self {
            attributes: BTreeMap::new(),
            added_at: 0,
            expires_at: None,
            attested_by: None,
        };
        let (mut has_attributes, mut has_added_at) = (false, false);
        walk_map(d, WHAT, |key, d| {
            match key {
                1 => {
                    entry.attributes = read_byte_map(d).ok_or(BodyError::Malformed(WHAT))?;
                    has_attributes = true;
                }
                2 => {
                    entry.added_at = d.u64().map_err(malformed)?;
                    has_added_at = true;
                }
                3 => entry.expires_at = optional_u64(d, WHAT)?,
                4 if matches!(d.datatype(), Ok(Type::Null)) => d.skip().map_err(malformed)?,
                4 => entry.attested_by = Some(d.decode().map_err(malformed)?),
                _ => d.skip().map_err(malformed)?,
            }
            Ok(())
        })?;
        if has_attributes && has_added_at {
            Ok(entry)
        } else {
            Err(BodyError::Malformed(WHAT))
        }
    }

    /// The attributes as text; bytes that are no UTF-8 are replaced.
    pub fn text_attributes(&self) -> impl Iterator<Item = (String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.attributes
            .iter()
            .map(move |(name, value)| (text(name), text(value)))
    }
}

/// Writes the list of members: `{bytes(32): AttributesEntry}`.
pub fn encode_members<'a>(
    members: impl ExactSizeIterator<Item = (&'a Identifier, &'a AttributesEntry)>,
) -> Vec<u8> {
    let mut out = Vec::new();
    infallible(Encoder::new(&mut out).map(members.len() as u64));
    for (member, entry) in members {
        infallible(Encoder::new(&mut out).bytes(member.as_bytes()));
        entry.encode(&mut out);
    }
    out
}

/// Reads the list of members.
///
/// # Errors
/// [`BodyError`].
pub fn decode_members(body: &[u8]) -> Result<BTreeMap<Identifier, AttributesEntry>, BodyError> {
    const WHAT: &str = "a map of members";
    let mut d = Decoder::new(body);
    let mut members = BTreeMap::new();
    let mut left = d.map().map_err(|_| BodyError::Malformed(WHAT))?;
    while !at_end(&mut d, &mut left, WHAT)? {
        let member = d.decode().map_err(|_| BodyError::Malformed(WHAT))?;
        members.insert(member, AttributesEntry::decode(&mut d)?);
    }
    Ok(members)
}

/// Writes the list of member identifiers: `[bytes(32)…]`.
pub fn encode_member_ids<'a>(members: impl ExactSizeIterator<Item = &'a Identifier>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut e = Encoder::new(&mut out);
    infallible(e.array(members.len() as u64));
    for member in members {
        infallible(e.bytes(member.as_bytes()));
    }
    out
}

/// Reads the list of member identifiers.
///
/// # Errors
/// [`BodyError`].
pub fn decode_member_ids(body: &[u8]) -> Result<Vec<Identifier>, BodyError> {
    const WHAT: &str = "a list of identifiers";
    let mut d = Decoder::new(body);
    let mut members = Vec::new();
    let mut left = d.array().map_err(|_| BodyError::Malformed(WHAT))?;
    while !at_end(&mut d, &mut left, WHAT)? {
        members.push(d.decode().map_err(|_| BodyError::Malformed(WHAT))?);
    }
    Ok(members)
}

/// Body of the question which members were removed: `{1: after, ?2: seconds}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovalsQuestion {
    /// The number of the last removal that the caller knows, 0 for none.
    pub after: u64,
    /// How long to wait for one if there is none yet, at most [`MAX_WAIT`].
    pub wait: u64,
}

impl RemovalsQuestion {
    /// The CBOR body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        infallible(
            Encoder::new(&mut out)
                .map(2)
                .and_then(|e| e.u8(1))
                .and_then(|e| e.u64(self.after))
                .and_then(|e| e.u8(2))
                .and_then(|e| e.u64(self.wait)),
        );
        out
    }

    /// Reads the CBOR body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        const WHAT: &str = "a map of a number and seconds to wait";
        let mut after = None;
        let mut wait = None;
        read_map(body, WHAT, |key, d| {
            match key {
                1 => after = Some(d.u64().map_err(|_| BodyError::Malformed(WHAT))?),
                2 => wait = optional_u64(d, WHAT)?,
                _ => d.skip().map_err(|_| BodyError::Malformed(WHAT))?,
            }
            Ok(())
        })?;
        Ok(Self {
            after: after.ok_or(BodyError::Malformed(WHAT))?,
            wait: wait.unwrap_or(0).min(MAX_WAIT),
        })
    }
}

/// A member that was removed, as the authority tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Who.
    pub member: Identifier,
    /// When, UTC seconds: credentials created in that second or before are void.
    pub removed_at: u64,
}

/// The answer: `{1: last, 2: [[bytes(32), seconds]…], 3: more}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removals {
    /// What to ask with the next time.
    pub last: u64,
    /// Oldest first, at most [`MAX_REMOVALS`].
    pub removals: Vec<Removal>,
    /// There are further ones already.
    pub more: bool,
}

impl Removals {
    /// The CBOR body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut e = Encoder::new(&mut out);
        infallible(
            e.map(3)
                .and_then(|e| e.u8(1))
                .and_then(|e| e.u64(self.last))
                .and_then(|e| e.u8(2))
                .and_then(|e| e.array(self.removals.len() as u64)),
        );
        for removal in &self.removals {
            infallible(
                e.array(2)
                    .and_then(|e| e.bytes(removal.member.as_bytes()))
                    .and_then(|e| e.u64(removal.removed_at)),
            );
        }
        infallible(e.u8(3).and_then(|e| e.bool(self.more)));
        out
    }

    /// Reads the CBOR body.
    ///
    /// # Errors
    /// [`BodyError`]; also more than [`MAX_REMOVALS`].
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        const WHAT: &str = "a list of removals";
        let malformed = || BodyError::Malformed(WHAT);
        let mut answer = Self::default();
        let mut last = None;
        read_map(body, WHAT, |key, d| {
            match key {
                1 => last = Some(d.u64().map_err(|_| malformed())?),
                2 => {
                    let mut left = d.array().map_err(|_| malformed())?;
                    while !at_end(d, &mut left, WHAT)? {
                        if answer.removals.len() >= MAX_REMOVALS {
                            return Err(malformed());
                        }
                        if d.array().map_err(|_| malformed())? != Some(2) {
                            return Err(malformed());
                        }
                        answer.removals.push(Removal {
                            member: d.decode().map_err(|_| malformed())?,
                            removed_at: d.u64().map_err(|_| malformed())?,
                        });
                    }
                }
                3 => answer.more = d.bool().map_err(|_| malformed())?,
                _ => d.skip().map_err(|_| malformed())?,
            }
            Ok(())
        })?;
        answer.last = last.ok_or_else(malformed)?;
        Ok(answer)
    }
}

/// Writes names of attributes, as question and answer have them: `[text…]`.
pub fn encode_names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut e = Encoder::new(&mut out);
    infallible(e.array(names.len() as u64));
    for name in names {
        infallible(e.str(name));
    }
    out
}

/// Reads names of attributes.
///
/// # Errors
/// [`BodyError`]; also more than [`MAX_ASKED_NAMES`], or a name longer than an attribute's can be.
pub fn decode_names(body: &[u8]) -> Result<Vec<String>, BodyError> {
    const WHAT: &str = "a list of at most 64 names of attributes";
    let mut d = Decoder::new(body);
    let mut names = Vec::new();
    let mut left = d.array().map_err(|_| BodyError::Malformed(WHAT))?;
    while !at_end(&mut d, &mut left, WHAT)? {
        let name = d.str().map_err(|_| BodyError::Malformed(WHAT))?;
        if names.len() >= MAX_ASKED_NAMES || name.len() > MAX_NAME_LEN {
            return Err(BodyError::Malformed(WHAT));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn read_byte_map(d: &mut Decoder<'_>) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut attributes = BTreeMap::new();
    let mut total = 0;
    let mut left = d.map().ok()?;
    while !at_end(d, &mut left, "").ok()? {
        let name = read_bytes(d, MAX_NAME_LEN)?;
        let value = read_bytes(d, MAX_VALUE_LEN)?;
        total += name.len() + value.len() + 1;
        if total > 2 * MAX_TOTAL_LEN {
            return None;
        }
        attributes.insert(name, value);
    }
    Some(attributes)
}

fn read_bytes(d: &mut Decoder<'_>, max: usize) -> Option<Vec<u8>> {
    let bytes = match d.datatype().ok()? {
        Type::Bytes => d.bytes().ok()?.to_vec(),
        Type::String => d.str().ok()?.as_bytes().to_vec(),
        _ => {
            let mut bytes = Vec::new();
            let mut left = d.array().ok()?;
            while !at_end(d, &mut left, "").ok()? {
                if bytes.len() == max {
                    return None;
                }
                bytes.push(d.u8().ok()?);
            }
            bytes
        }
    };
    (bytes.len() <= max).then_some(bytes)
}

fn optional_u64(d: &mut Decoder<'_>, what: &'static str) -> Result<Option<u64>, BodyError> {
    if matches!(d.datatype(), Ok(Type::Null | Type::Undefined)) {
        d.skip().map_err(|_| BodyError::Malformed(what))?;
        return Ok(None);
    }
    d.u64().map(Some).map_err(|_| BodyError::Malformed(what))
}

fn read_map<'a>(
    body: &'a [u8],
    what: &'static str,
    field: impl FnMut(u64, &mut Decoder<'a>) -> Result<(), BodyError>,
) -> Result<(), BodyError> {
    walk_map(&mut Decoder::new(body), what, field)
}

fn walk_map<'a>(
    d: &mut Decoder<'a>,
    what: &'static str,
    mut field: impl FnMut(u64, &mut Decoder<'a>) -> Result<(), BodyError>,
) -> Result<(), BodyError> {
    let mut left = d.map().map_err(|_| BodyError::Malformed(what))?;
    while !at_end(d, &mut left, what)? {
        let key = d.u64().map_err(|_| BodyError::Malformed(what))?;
        field(key, d)?;
    }
    Ok(())
}

/// Counts one element of a definite container, or looks for the break of an indefinite one.
fn at_end(d: &mut Decoder<'_>, left: &mut Option<u64>, what: &'static str) -> Result<bool, BodyError> {
    match left {
        Some(0) => Ok(true),
        Some(n) => {
            *n -= 1;
            Ok(false)
        }
        None if matches!(d.datatype(), Ok(Type::Break)) => {
            d.skip().map_err(|_| BodyError::Malformed(what))?;
            Ok(true)
        }
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> Identifier {
        Identifier::from([byte; 32])
    }

    fn attributes(pairs: &[(&str, &str)]) -> MemberAttributes {
        MemberAttributes::new(pairs.iter().copied()).expect("inside all limits")
    }

    /// Specification 03 §1.7.
    #[test]
    fn a_token_request_has_the_published_bytes() {
        assert_eq!(CreateToken::default().encode(), [0xa1, 0x01, 0xa0]);
        let token = CreateToken {
            attributes: attributes(&[("ockam-relay", "blue")]),
            ttl: Some(3600),
            uses: Some(5),
        };
        assert_eq!(
            hex::encode(token.encode()),
            "a301a16b6f636b616d2d72656c617964626c756502190e100305"
        );
        assert_eq!(CreateToken::decode(&token.encode()), Ok(token));
    }

    #[test]
    fn what_stock_decoders_tolerate_is_tolerated() {
        let cases: [&[u8]; 5] = [
            b"\xbf\x01\xa0\xff",                                 // indefinite length
            b"\xa2\x01\xa0\x18\x63\x81\x01",                     // unknown key
            b"\xa2\x01\xa0\x02\xf6",                             // null life
            b"\xa1\x1b\x00\x00\x00\x00\x00\x00\x00\x01\xbf\xff", // wide integer, indefinite attributes
            b"\xa1\x01\xa0tail",                                 // bytes after the item
        ];
        for case in cases {
            assert_eq!(
                CreateToken::decode(case),
                Ok(CreateToken::default()),
                "{}",
                hex::encode(case)
            );
        }
    }

    #[test]
    fn what_stock_decoders_refuse_is_refused() {
        let mut code = encode_code(&OneTimeCode::from([7; 32]));
        assert!(decode_code(&code).is_ok());
        code.pop();
        assert!(decode_code(&code).is_err());
        assert!(decode_code(&[&b"\xa1\x01\x58\x21"[..], &[0; 33]].concat()).is_err());
        assert!(decode_code(&[&b"\xa1\x01\x78\x20"[..], &[b'a'; 32]].concat()).is_err());
        assert!(decode_code(b"").is_err() && decode_code(b"\xa0").is_err());
        assert!(CreateToken::decode(b"").is_err() && CreateToken::decode(b"\xa1\x02\x05").is_err());
        assert!(AddMember::decode(b"\xa2\x01\x61I\x02\xa0").is_err());
        assert!(matches!(
            CreateToken::decode(b"\xa1\x01\xa1\x41a\x41b"),
            Err(BodyError::Attributes(_))
        ));
    }

    #[test]
    fn an_added_member_survives_the_wire() {
        let add = AddMember {
            member: id(3),
            attributes: attributes(&[("a", "b"), ("ockam-role", "enroller")]),
        };
        assert_eq!(AddMember::decode(&add.encode()), Ok(add));
    }

    /// Specification 03 §4.6: names and values are arrays of integers.
    #[test]
    fn an_entry_has_the_published_bytes() {
        let entry = AttributesEntry {
            attributes: [(b"a".to_vec(), b"b".to_vec())].into(),
            added_at: 100,
            expires_at: None,
            attested_by: Some(id(9)),
        };
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert_eq!(
            hex::encode(&bytes),
            format!("a301a1811861811862021864045820{}", "09".repeat(32))
        );
        assert_eq!(
            AttributesEntry::decode(&mut Decoder::new(&bytes)),
            Ok(entry.clone())
        );
        let as_strings = [b"\xa2\x01\xa1\x41a\x41b\x02\x18\x64".to_vec()].concat();
        let lenient = AttributesEntry::decode(&mut Decoder::new(&as_strings)).expect("byte strings");
        assert_eq!(lenient.attributes, entry.attributes);
        assert_eq!(
            lenient.text_attributes().collect::<Vec<_>>(),
            [("a".to_owned(), "b".to_owned())]
        );
    }

    #[test]
    fn lists_survive_the_wire_and_cut_off_ones_are_refused() {
        let entry = |n: u8| AttributesEntry {
            attributes: [(vec![n], vec![n, 255])].into(),
            added_at: u64::from(n),
            expires_at: Some(7),
            attested_by: None,
        };
        let members: BTreeMap<_, _> = (0..50).map(|n| (id(n), entry(n))).collect();
        let bytes = encode_members(members.iter());
        assert_eq!(decode_members(&bytes), Ok(members.clone()));
        assert!(decode_members(&bytes[..bytes.len() - 1]).is_err());
        let ids = encode_member_ids(members.keys());
        assert_eq!(
            decode_member_ids(&ids).expect("well-formed"),
            members.keys().copied().collect::<Vec<_>>()
        );
        assert!(decode_member_ids(&ids[..40]).is_err());
        assert!(decode_member_ids(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_upset_a_decoder(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120)) {
            let _ = (CreateToken::decode(&bytes), decode_code(&bytes), AddMember::decode(&bytes));
            let _ = (decode_members(&bytes), decode_member_ids(&bytes), AttributesEntry::decode(&mut Decoder::new(&bytes)));
        }
    }
}

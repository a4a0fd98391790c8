//! What a credential says about its subject: names and values, both byte strings (§4.1).

use crate::DecodeError;
use crate::cbor::Elements;
use crate::limits::{
    MAX_ATTRIBUTE_NAME_BYTES, MAX_ATTRIBUTE_VALUE_BYTES, MAX_ATTRIBUTES, MAX_ATTRIBUTES_BYTES,
};
use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::collections::BTreeMap;
use std::fmt;

/// The schema of a project member's credential, the only one in use (§4.2). Verifiers do not look at it.
pub const PROJECT_MEMBER_SCHEMA: u64 = 1;

/// Names that policies bind themselves, under `subject.`. An attribute of such a name could pass for what the channel has
/// authenticated (§9.2, S17), so no credential is issued with one; and policies ignore it in a credential from elsewhere.
pub const RESERVED_NAMES: [&[u8]; 2] = [b"identifier", b"has_credential"];

/// Names and values, within the bounds of [`crate::limits`], in the order of the names' bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Attributes {
    schema: u64,
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of all names and values together.
    bytes: usize,
}

impl Attributes {
    /// No attributes yet, with the schema of a project member.
    pub fn new() -> Self {
        Attributes::with_schema(PROJECT_MEMBER_SCHEMA)
    }

    /// No attributes yet.
    pub fn with_schema(schema: u64) -> Self {
        Attributes {
            schema,
            map: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// These attributes, with the schema of a project member. Fails where they exceed the limits.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, DecodeError>
    where
        N: Into<Vec<u8>>,
        V: Into<Vec<u8>>,
    {
        let mut attributes = Attributes::new();
        for (name, value) in pairs {
            attributes.insert(name, value)?;
        }
        Ok(attributes)
    }

    /// Adds an attribute, or replaces the value of one. Fails, and changes nothing, where that exceeds the limits.
    pub fn insert(&mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Result<(), DecodeError> {
        let (name, value) = (name.into(), value.into());
        let replaced = self.map.get(&name).map(|old| name.len() + old.len());
        let bytes = self.bytes - replaced.unwrap_or(0) + name.len() + value.len();
        let problem = if name.len() > MAX_ATTRIBUTE_NAME_BYTES {
            Some(format!("a name is longer than {MAX_ATTRIBUTE_NAME_BYTES} bytes"))
        } else if value.len() > MAX_ATTRIBUTE_VALUE_BYTES {
            Some(format!(
                "a value is longer than {MAX_ATTRIBUTE_VALUE_BYTES} bytes"
            ))
        } else if bytes > MAX_ATTRIBUTES_BYTES {
            Some(format!("more than {MAX_ATTRIBUTES_BYTES} bytes together"))
        } else if replaced.is_none() && self.map.len() >= MAX_ATTRIBUTES {
            Some(format!("more than {MAX_ATTRIBUTES} attributes"))
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(DecodeError::new("attributes", problem));
        }
        self.bytes = bytes;
        self.map.insert(name, value);
        Ok(())
    }

    /// Adds an attribute, as [`insert`](Attributes::insert), while building.
    pub fn with(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Result<Self, DecodeError> {
        self.insert(name, value)?;
        Ok(self)
    }

    /// The number that says what the names mean. See [`PROJECT_MEMBER_SCHEMA`].
    pub fn schema(&self) -> u64 {
        self.schema
    }

    /// The value of an attribute.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        self.map.get(name.as_ref()).map(Vec::as_slice)
    }

    /// Whether there is an attribute of this name with exactly this value.
    pub fn has(&self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> bool {
        self.get(name) == Some(value.as_ref())
    }

    /// All names and values, in the order of the names' bytes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.map.iter().map(|(n, v)| (n.as_slice(), v.as_slice()))
    }

    /// The map itself.
    pub fn map(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.map
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The first name that is one of [`RESERVED_NAMES`].
    pub(crate) fn reserved_name(&self) -> Option<&'static [u8]> {
        RESERVED_NAMES
            .into_iter()
            .find(|name| self.map.contains_key(*name))
    }
}

impl Default for Attributes {
    fn default() -> Self {
        Attributes::new()
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.map
                    .iter()
                    .map(|(n, v)| (n.escape_ascii().to_string(), v.escape_ascii().to_string())),
            )
            .finish()
    }
}

impl<C> Encode<C> for Attributes {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2)?.u64(self.schema)?.map(self.map.len() as u64)?;
        for (name, value) in &self.map {
            e.bytes(name)?.bytes(value)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Attributes {
    /// Any order of names is accepted (§0.2). A name that comes twice is refused: which value holds is anybody's guess.
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let mut fields = Elements::open(d)?;
        let schema = fields.required(0, |d| d.u64())?;
        let attributes = fields.required(1, |d| read_map(d, schema))?;
        fields.close()?;
        Ok(attributes)
    }
}

fn read_map(d: &mut Decoder<'_>, schema: u64) -> Result<Attributes, minicbor::decode::Error> {
    let mut attributes = Attributes::with_schema(schema);
    let mut left = d.map()?;
    loop {
        match &mut left {
            Some(0) => return Ok(attributes),
            Some(n) => *n -= 1,
            None if d.datatype()? == Type::Break => {
                d.set_position(d.position() + 1);
                return Ok(attributes);
            }
            None => {}
        }
        let (name, value) = (d.bytes()?, d.bytes()?);
        if attributes.get(name).is_some() {
            return Err(minicbor::decode::Error::message("an attribute comes twice"));
        }
        attributes
            .insert(name, value)
            .map_err(minicbor::decode::Error::message)?;
    }
}

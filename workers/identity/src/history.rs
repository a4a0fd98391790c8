//! The chain of keys of an identity, as bytes (§2.3).
//!
//! Here a history is only taken apart; [`Identity`](crate::Identity) is one that was verified.

use crate::cbor::{Elements, to_vec};
use crate::limits::{MAX_CHANGES, MAX_HISTORY_BYTES};
use crate::versioned::{self, DataType};
use crate::{ChangeHash, DecodeError, Identifier, Signature, VerifyingKey, sha256};
use minicbor::decode::Error as ReadError;
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The changes of an identity, oldest first, exactly as they were received. Not verified; clones are cheap.
///
/// At most [`MAX_HISTORY_BYTES`] long, with 1 to [`MAX_CHANGES`] changes.
#[derive(Clone)]
pub struct ChangeHistory {
    bytes: Arc<[u8]>,
    changes: Arc<[Slot]>,
}

/// Where a change is in the bytes.
#[derive(Clone)]
struct Slot {
    data: Range<usize>,
    signature: Signature,
    previous_signature: Option<Signature>,
}

/// One change: a view into a [`ChangeHistory`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// The signed bytes: a wrapped [`ChangeData`].
    pub data: &'a [u8],
    /// Made with the key that this change introduces.
    pub signature: &'a Signature,
    /// Made with the key of the change before.
    pub previous_signature: Option<&'a Signature>,
}

/// What a change says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeData {
    /// The hash of the change before; none for the first.
    pub previous_change: Option<ChangeHash>,
    /// The key that holds from this change on.
    pub public_key: VerifyingKey,
    /// A wish of the identity to end earlier attestations. Every rotation does that anyway (§3.3), so verifiers ignore it.
    pub revoke_all_purpose_keys: bool,
    /// Attestations by this key are made at or after this time, UTC seconds.
    pub valid_from: u64,
    /// Attestations by this key end at or before this time, UTC seconds.
    pub valid_until: u64,
}

impl ChangeHistory {
    /// Takes a history apart. Bytes after it are ignored and not kept.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Decoder::new(bytes)).map_err(|e| DecodeError::new("change history", e))
    }

    /// The bytes, as they were received.
    pub fn encode(&self) -> &[u8] {
        &self.bytes
    }

    /// The text form in which histories are exchanged by people and configuration (§2.7): lower-case hexadecimal.
    pub fn to_hex(&self) -> String {
        hex::encode(&self.bytes)
    }

    /// Reads the text form; surrounding white space is ignored.
    pub fn from_hex(text: &str) -> Result<Self, DecodeError> {
        let text = text.trim();
        if text.len() > 2 * MAX_HISTORY_BYTES {
            return Err(DecodeError::new(
                "change history",
                format!("more than {MAX_HISTORY_BYTES} bytes"),
            ));
        }
        let bytes = hex::decode(text).map_err(|e| DecodeError::new("change history", e))?;
        Self::decode(&bytes)
    }

    /// The number of changes, at least 1.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whose history it claims to be: the hash of the first change. Nothing is verified by that.
    pub fn claimed_identifier(&self) -> Identifier {
        // There always is a first change.
        let data = self
            .changes
            .first()
            .map_or(&[][..], |slot| &self.bytes[slot.data.clone()]);
        sha256(data).into()
    }

    /// The changes, oldest first.
    pub fn changes(&self) -> impl ExactSizeIterator<Item = Change<'_>> {
        self.changes.iter().map(|slot| Change {
            data: &self.bytes[slot.data.clone()],
            signature: &slot.signature,
            previous_signature: slot.previous_signature.as_ref(),
        })
    }

    /// This history with one change more. The bytes of the earlier changes stay as they are.
    pub(crate) fn append(
        earlier: Option<&ChangeHistory>,
        data: &[u8],
        signature: &Signature,
        previous_signature: Option<&Signature>,
    ) -> Result<Self, DecodeError> {
        let count = earlier.map_or(0, ChangeHistory::len) as u64 + 1;
        let bytes = to_vec(|e| {
            e.array(count)?;
            for change in earlier.into_iter().flat_map(|h| h.changes()) {
                write_change(e, change.data, change.signature, change.previous_signature)?;
            }
            write_change(e, data, signature, previous_signature)
        });
        Self::decode(&bytes)
    }

    /// Reads a history that other things may follow. No more than [`MAX_HISTORY_BYTES`] are looked at, however many there are.
    fn read(d: &mut Decoder<'_>) -> Result<Self, ReadError> {
        let start = d.position();
        let rest = &d.input()[start..];
        let window = &rest[..rest.len().min(MAX_HISTORY_BYTES)];
        let mut within = Decoder::new(window);
        let changes = read_changes(&mut within).map_err(|e| {
            if e.is_end_of_input() && window.len() < rest.len() {
                ReadError::message(format!("more than {MAX_HISTORY_BYTES} bytes"))
            } else {
                e
            }
        })?;
        let bytes = &window[..within.position()];
        d.set_position(start + bytes.len());
        Ok(ChangeHistory {
            bytes: bytes.into(),
            changes: changes.into(),
        })
    }
}

fn read_changes(d: &mut Decoder<'_>) -> Result<Vec<Slot>, ReadError> {
    let mut changes = Vec::new();
    let mut list = Elements::open(d)?;
    let too_many = || ReadError::message(format!("more than {MAX_CHANGES} changes"));
    if list.announced().is_some_and(|n| n > MAX_CHANGES as u64) {
        return Err(too_many());
    }
    while let Some(change) = list.next(read_change)? {
        if changes.len() == MAX_CHANGES {
            return Err(too_many());
        }
        changes.push(change);
    }
    list.close()?;
    if changes.is_empty() {
        return Err(ReadError::message("a history has at least one change"));
    }
    Ok(changes)
}

fn read_change(d: &mut Decoder<'_>) -> Result<Slot, ReadError> {
    let mut fields = Elements::open(d)?;
    let data = fields.required(0, |d| {
        let length = d.bytes()?.len();
        Ok(d.position() - length..d.position())
    })?;
    let signature = fields.required(1, |d| d.decode())?;
    let previous_signature = fields.optional(|d| d.decode())?;
    fields.close()?;
    Ok(Slot {
        data,
        signature,
        previous_signature,
    })
}

fn write_change<W: minicbor::encode::Write>(
    e: &mut Encoder<W>,
    data: &[u8],
    signature: &Signature,
    previous_signature: Option<&Signature>,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    e.array(2 + u64::from(previous_signature.is_some()))?
        .bytes(data)?
        .encode(signature)?;
    if let Some(signature) = previous_signature {
        e.encode(signature)?;
    }
    Ok(())
}

impl Change<'_> {
    /// The hash of this change.
    pub fn hash(&self) -> ChangeHash {
        sha256(self.data).into()
    }

    /// What the change says.
    pub fn read(&self) -> Result<ChangeData, DecodeError> {
        versioned::unwrap(self.data, DataType::Change, |d| {
            let mut fields = Elements::open(d)?;
            let data = ChangeData {
                previous_change: fields.optional(|d| d.decode())?,
                public_key: fields.required(1, |d| d.decode())?,
                revoke_all_purpose_keys: fields.required(2, |d| d.bool())?,
                valid_from: fields.required(3, |d| d.u64())?,
                valid_until: fields.required(4, |d| d.u64())?,
            };
            fields.close()?;
            Ok(data)
        })
    }
}

impl ChangeData {
    /// The bytes to sign.
    pub(crate) fn wrap(&self) -> Vec<u8> {
        let record = to_vec(|e| {
            e.array(5)?
                .encode(self.previous_change)?
                .encode(self.public_key)?
                .bool(self.revoke_all_purpose_keys)?
                .u64(self.valid_from)?
                .u64(self.valid_until)?
                .ok()
        });
        versioned::wrap(DataType::Change, &record)
    }
}

impl PartialEq for ChangeHistory {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for ChangeHistory {}

impl fmt::Debug for ChangeHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ChangeHistory({} changes, {} bytes)",
            self.len(),
            self.bytes.len()
        )
    }
}

/// As an element of another message.
impl<C> Encode<C> for ChangeHistory {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.writer_mut()
            .write_all(&self.bytes)
            .map_err(minicbor::encode::Error::write)
    }
}

/// As an element of another message.
impl<'b, C> Decode<'b, C> for ChangeHistory {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, ReadError> {
        Self::read(d)
    }
}

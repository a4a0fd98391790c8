//! `VersionedData`, the wrapper of everything that is signed (§2.2).
//!
//! The digest that a signature covers is that of the wrapper, so the type byte in it is what keeps a signature on one
//! kind of artefact from being used for another.

use crate::DecodeError;
use crate::cbor::{Elements, to_vec};
use minicbor::Decoder;

/// The only version there is.
const VERSION: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataType {
    Change = 1,
    PurposeKeyAttestation = 2,
    Credential = 3,
}

impl DataType {
    fn name(self) -> &'static str {
        match self {
            DataType::Change => "change",
            DataType::PurposeKeyAttestation => "purpose key attestation",
            DataType::Credential => "credential",
        }
    }
}

/// Wraps an encoded record.
pub(crate) fn wrap(data_type: DataType, record: &[u8]) -> Vec<u8> {
    to_vec(|e| e.array(3)?.u8(VERSION)?.u8(data_type as u8)?.bytes(record)?.ok())
}

/// Unwraps, and reads the record with `read`. Bytes after either are ignored (§0.2).
pub(crate) fn unwrap<'b, T>(
    data: &'b [u8],
    data_type: DataType,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, minicbor::decode::Error>,
) -> Result<T, DecodeError> {
    let what = data_type.name();
    let (version, found, record) = outer(data).map_err(|e| DecodeError::new(what, e))?;
    if version != VERSION {
        return Err(DecodeError::new(
            what,
            format!("version {version} where {VERSION} is expected"),
        ));
    }
    if found != data_type as u8 {
        return Err(DecodeError::new(
            what,
            format!("data type {found} where {} is expected", data_type as u8),
        ));
    }
    read(&mut Decoder::new(record)).map_err(|e| DecodeError::new(what, e))
}

fn outer(data: &[u8]) -> Result<(u8, u8, &[u8]), minicbor::decode::Error> {
    let mut d = Decoder::new(data);
    let mut fields = Elements::open(&mut d)?;
    let version = fields.required(0, |d| d.u8())?;
    let data_type = fields.required(1, |d| d.u8())?;
    let record = fields.required(2, |d| d.bytes())?;
    fields.close()?;
    Ok((version, data_type, record))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8]) -> Result<u8, DecodeError> {
        unwrap(data, DataType::Change, |d| d.u8())
    }

    #[test]
    fn what_is_wrapped_unwraps() {
        assert_eq!(wrap(DataType::Change, &[7]), [0x83, 1, 1, 0x41, 7]);
        assert_eq!(read(&wrap(DataType::Change, &[7])), Ok(7));
    }

    #[test]
    fn another_version_or_type_is_refused() {
        assert!(read(&[0x83, 2, 1, 0x41, 7]).is_err());
        assert!(read(&[0x83, 0, 1, 0x41, 7]).is_err());
        assert!(read(&wrap(DataType::Credential, &[7])).is_err());
        assert!(read(&wrap(DataType::PurposeKeyAttestation, &[7])).is_err());
    }

    #[test]
    fn bytes_after_the_wrapper_or_the_record_are_ignored() {
        assert_eq!(read(&[0x83, 1, 1, 0x42, 7, 9, 9, 9]), Ok(7));
    }
}

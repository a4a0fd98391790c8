//! The CBOR profile of the protocol (§0.1) and the tolerance that its decoders must have (§0.2).
//!
//! Records are arrays whose trailing null optionals are dropped; readers skip elements that they do not know, and accept
//! indefinite lengths and integers that are longer than necessary. Variants are arrays of exactly two.

use minicbor::data::Type;
use minicbor::decode::Error as ReadError;
use minicbor::encode::Error as WriteError;
use minicbor::{Decoder, Encoder};
use std::convert::Infallible;

/// Reads the elements of an array one after the other, whether its length is given at the start or by a break.
pub(crate) struct Elements<'d, 'b> {
    decoder: &'d mut Decoder<'b>,
    /// Elements not yet read; `None` if a break will end the array.
    left: Option<u64>,
}

impl<'d, 'b> Elements<'d, 'b> {
    pub(crate) fn open(decoder: &'d mut Decoder<'b>) -> Result<Self, ReadError> {
        let left = decoder.array()?;
        Ok(Elements { decoder, left })
    }

    /// The number of elements, where the array says it.
    pub(crate) fn announced(&self) -> Option<u64> {
        self.left
    }

    /// The next element, or `None` after the last.
    pub(crate) fn next<T>(
        &mut self,
        read: impl FnOnce(&mut Decoder<'b>) -> Result<T, ReadError>,
    ) -> Result<Option<T>, ReadError> {
        if !self.step()? {
            return Ok(None);
        }
        read(self.decoder).map(Some)
    }

    /// The next element, which must exist and must not be null; `index` is for the error only.
    pub(crate) fn required<T>(
        &mut self,
        index: u32,
        read: impl FnOnce(&mut Decoder<'b>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        self.next(read)?
            .ok_or_else(|| ReadError::missing_value(index.into()))
    }

    /// The next element; absent, null and a variant that we do not know all count as `None`.
    pub(crate) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Decoder<'b>) -> Result<T, ReadError>,
    ) -> Result<Option<T>, ReadError> {
        if !self.step()? {
            return Ok(None);
        }
        if self.decoder.datatype()? == Type::Null {
            self.decoder.null()?;
            return Ok(None);
        }
        let start = self.decoder.position();
        match read(self.decoder) {
            Ok(value) => Ok(Some(value)),
            Err(e) if e.is_unknown_variant() => {
                self.decoder.set_position(start);
                self.decoder.skip()?;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Skips what is left and the break, if there is one.
    pub(crate) fn close(mut self) -> Result<(), ReadError> {
        while self.step()? {
            self.decoder.skip()?;
        }
        if self.left.is_none() {
            // `step` has just seen the break, which is one byte.
            self.decoder.set_position(self.decoder.position() + 1);
        }
        Ok(())
    }

    fn step(&mut self) -> Result<bool, ReadError> {
        match &mut self.left {
            Some(0) => Ok(false),
            Some(n) => {
                *n -= 1;
                Ok(true)
            }
            None => Ok(self.decoder.datatype()? != Type::Break),
        }
    }
}

/// Opens a variant and returns its index. Its fields, a record, follow.
pub(crate) fn variant(d: &mut Decoder<'_>) -> Result<u32, ReadError> {
    let start = d.position();
    if d.array()? != Some(2) {
        return Err(ReadError::message("a variant is an array of two").at(start));
    }
    d.u32()
}

/// A variant that has one field, which is what all variants here have.
pub(crate) fn variant_field<'b, T>(
    d: &mut Decoder<'b>,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    let mut fields = Elements::open(d)?;
    let value = fields.required(0, read)?;
    fields.close()?;
    Ok(value)
}

/// A byte string of exactly `N` bytes.
pub(crate) fn fixed<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], ReadError> {
    let start = d.position();
    let bytes = d.bytes()?;
    bytes
        .try_into()
        .map_err(|_| ReadError::message(format!("expected {N} bytes, found {}", bytes.len())).at(start))
}

/// A byte string of at most `max` bytes.
pub(crate) fn bounded<'b>(d: &mut Decoder<'b>, max: usize) -> Result<&'b [u8], ReadError> {
    let start = d.position();
    let bytes = d.bytes()?;
    if bytes.len() > max {
        return Err(ReadError::message(format!("{} bytes where {max} are allowed", bytes.len())).at(start));
    }
    Ok(bytes)
}

/// What `write` writes.
pub(crate) fn to_vec(
    write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Result<(), WriteError<Infallible>>,
) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Encoder::new(&mut out)).expect("writing to a Vec cannot fail");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: &[u8]) -> Result<(u64, Option<u64>, usize), ReadError> {
        let mut d = Decoder::new(bytes);
        let mut fields = Elements::open(&mut d)?;
        let a = fields.required(0, |d| d.u64())?;
        let b = fields.optional(|d| d.u64())?;
        fields.close()?;
        Ok((a, b, d.position()))
    }

    #[test]
    fn a_record_may_omit_its_trailing_optionals_or_write_null() {
        assert_eq!(record(&[0x81, 0x07]).unwrap(), (7, None, 2));
        assert_eq!(record(&[0x82, 0x07, 0xf6]).unwrap(), (7, None, 3));
        assert_eq!(record(&[0x82, 0x07, 0x08]).unwrap(), (7, Some(8), 3));
    }

    #[test]
    fn a_record_of_a_later_version_may_have_more_elements() {
        assert_eq!(
            record(&[0x84, 0x07, 0x08, 0x82, 0x01, 0xa0, 0x61, 0x61]).unwrap(),
            (7, Some(8), 8)
        );
    }

    #[test]
    fn a_record_may_be_of_indefinite_length() {
        assert_eq!(record(&[0x9f, 0x07, 0xff]).unwrap(), (7, None, 3));
        assert_eq!(
            record(&[0x9f, 0x07, 0x08, 0x9f, 0x01, 0xff, 0xff, 0x00]).unwrap(),
            (7, Some(8), 7)
        );
        assert!(record(&[0x9f, 0x07]).is_err());
        assert!(record(&[0x9f, 0xff]).is_err());
    }

    #[test]
    fn integers_may_be_longer_than_necessary() {
        assert_eq!(record(&[0x81, 0x19, 0x00, 0x07]).unwrap().0, 7);
        assert_eq!(record(&[0x98, 0x01, 0x1b, 0, 0, 0, 0, 0, 0, 0, 7]).unwrap().0, 7);
    }

    #[test]
    fn a_required_element_must_be_there() {
        assert!(record(&[0x80]).is_err());
        assert!(record(&[0x81, 0xf6]).is_err());
    }

    #[test]
    fn an_announced_length_that_cannot_be_true_ends_at_the_end_of_input() {
        assert!(record(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x07, 0x08]).is_err());
    }

    #[test]
    fn a_variant_is_not_of_indefinite_length() {
        assert_eq!(variant(&mut Decoder::new(&[0x82, 0x01, 0x80])).unwrap(), 1);
        assert!(variant(&mut Decoder::new(&[0x9f, 0x01, 0x80, 0xff])).is_err());
        assert!(variant(&mut Decoder::new(&[0x83, 0x01, 0x80, 0x00])).is_err());
    }

    #[test]
    fn byte_strings_of_indefinite_length_are_refused() {
        assert!(bounded(&mut Decoder::new(&[0x5f, 0x41, 0x00, 0xff]), 10).is_err());
        assert!(fixed::<1>(&mut Decoder::new(&[0x42, 0, 0])).is_err());
    }
}

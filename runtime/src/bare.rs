//! The BARE subset that the protocol uses (spec 01 §1.1): variable-length integers, data and strings.
//!
//! Decoders are as lenient as the reference's: varints need not be minimal, and bytes behind the last field are
//! ignored. Nothing is allocated before the bytes that it is for are known to be there.

use crate::body::DecodeError;

/// Longest varint, in bytes.
pub const MAX_VARINT: usize = 10;

/// Reads fields from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// One byte.
    ///
    /// # Errors
    /// If none is left.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    /// A variable-length unsigned integer: ULEB128, ten bytes at most.
    ///
    /// # Errors
    /// If it is cut short or does not fit 64 bits.
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for i in 0..MAX_VARINT {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if i == MAX_VARINT - 1 && byte > 1 {
                return Err(DecodeError::Invalid(
                    "a variable-length integer does not fit 64 bits",
                ));
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid(
            "a variable-length integer is longer than ten bytes",
        ))
    }

    /// Length-prefixed bytes, as a view.
    ///
    /// # Errors
    /// If the length exceeds what is there.
    pub fn data(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.uint()?).map_err(|_| DecodeError::Truncated)?;
        if length > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        let (data, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(data)
    }

    /// Length-prefixed UTF-8 text, as a view.
    ///
    /// # Errors
    /// If the length exceeds what is there, or the bytes are not UTF-8.
    pub fn string(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.data()?).map_err(|_| DecodeError::Invalid("text is not UTF-8"))
    }
}

/// Appends a variable-length unsigned integer.
pub fn put_uint(out: &mut Vec<u8>, value: u64) {
    let (bytes, length) = uint(value);
    out.extend_from_slice(&bytes[..length]);
}

/// A variable-length unsigned integer and the number of bytes that it takes.
pub fn uint(mut value: u64) -> ([u8; MAX_VARINT], usize) {
    let mut bytes = [0; MAX_VARINT];
    let mut length = 0;
    loop {
        let more = value > 0x7f;
        bytes[length] = (value & 0x7f) as u8 | u8::from(more) << 7;
        length += 1;
        value >>= 7;
        if !more {
            return (bytes, length);
        }
    }
}

/// Appends length-prefixed bytes.
pub fn put_data(out: &mut Vec<u8>, data: &[u8]) {
    put_uint(out, data.len() as u64);
    out.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_match_the_vectors() {
        for (value, hex) in [
            (127, "7f"),
            (128, "8001"),
            (200, "c801"),
            (49_152, "808003"),
            (131_072, "808008"),
            (u64::MAX, "ffffffffffffffffff01"),
        ] {
            let mut out = Vec::new();
            put_uint(&mut out, value);
            assert_eq!(hex::encode(&out), hex);
            assert_eq!(Reader::new(&out).uint().unwrap(), value);
        }
    }

    #[test]
    fn varints_need_not_be_minimal_but_must_end_and_fit() {
        assert_eq!(Reader::new(&[0x83, 0x00]).uint().unwrap(), 3);
        assert_eq!(
            Reader::new(&hex::decode("80808080808080808000").unwrap())
                .uint()
                .unwrap(),
            0
        );
        assert!(Reader::new(&[0x80]).uint().is_err());
        assert!(Reader::new(&[0xff; 11]).uint().is_err());
        assert!(
            Reader::new(&hex::decode("ffffffffffffffffff02").unwrap())
                .uint()
                .is_err()
        );
    }

    #[test]
    fn a_length_beyond_the_input_fails_before_any_allocation() {
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x7f, 1, 2]);
        assert_eq!(reader.data(), Err(DecodeError::Truncated));
    }
}

//! Message bodies: what a payload means.

use crate::{Payload, bare};

/// Why bytes are not what they should be. The sender of the bytes is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the message is cut short")]
    Truncated,
    /// The bytes cannot be read as what is expected.
    #[error("the message is malformed: {0}")]
    Invalid(&'static str),
    /// Something exceeds a documented limit.
    #[error("the message exceeds a limit: {0}")]
    Limit(&'static str),
    /// CBOR that cannot be read.
    #[error("the message is not valid CBOR: {0}")]
    Cbor(String),
}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(error: minicbor::decode::Error) -> Self {
        if error.is_end_of_input() {
            Self::Truncated
        } else {
            Self::Cbor(error.to_string())
        }
    }
}

/// A type that can be the body of a message.
///
/// `String` is a BARE string, `Vec<u8>` and [`Payload`] are the payload verbatim, [`Cbor`] wraps any type with a CBOR
/// encoding (spec 01 §1).
pub trait Body: Sized + Send + 'static {
    /// Writes the body.
    fn encode(self) -> Payload;

    /// Reads the body.
    ///
    /// # Errors
    /// If the bytes are not a valid encoding.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

impl Body for Payload {
    fn encode(self) -> Payload {
        self
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self::copy_from(bytes))
    }
}

impl Body for Vec<u8> {
    fn encode(self) -> Payload {
        Payload::copy_from(&self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(bytes.to_vec())
    }
}

impl Body for () {
    fn encode(self) -> Payload {
        Payload::new()
    }

    fn decode(_: &[u8]) -> Result<Self, DecodeError> {
        Ok(())
    }
}

impl Body for String {
    fn encode(self) -> Payload {
        let mut payload = Payload::copy_from(self.as_bytes());
        let (prefix, length) = bare::uint(self.len() as u64);
        payload.prepend(&prefix[..length]);
        payload
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        bare::Reader::new(bytes).string().map(str::to_owned)
    }
}

/// A body in CBOR, without any wrapper around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cbor<T>(pub T);

impl<T> Body for Cbor<T>
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()> + Send + 'static,
{
    fn encode(self) -> Payload {
        let mut bytes = Vec::new();
        match minicbor::encode(&self.0, &mut bytes) {
            Ok(()) => Payload::from(bytes),
            Err(error) => {
                // Writing into a vector cannot fail; only a hand-written encoder that gives up comes here.
                tracing::error!("a message body could not be encoded: {error}");
                Payload::new()
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self(minicbor::decode(bytes)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_bare_strings() {
        assert_eq!(
            hex::encode("hello".to_owned().encode().as_slice()),
            "0568656c6c6f"
        );
        assert_eq!(String::decode(b"\x05hello and more").unwrap(), "hello");
        assert!(String::decode(b"\x06hello").is_err());
        assert!(String::decode(b"\x01\xff").is_err());
    }

    #[test]
    fn bytes_are_verbatim() {
        assert_eq!(vec![1, 2, 3].encode().as_slice(), [1, 2, 3]);
        assert_eq!(Vec::<u8>::decode(&[1, 2]).unwrap(), [1, 2]);
    }
}

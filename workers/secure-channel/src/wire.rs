//! What the two ends say to each other: the payloads of the handshake and the messages inside records, in CBOR.
//!
//! | module | message | when |
//! |---|---|---|
//! | [`identity`] | who we are: history, attestation, credentials | payloads 2 and 3 of the handshake |
//! | [`message`] | a routed message, new credentials, or the end | inside each record |
//!
//! Identities and credentials appear here as the raw CBOR that they are: digests and signatures cover received bytes, so
//! nothing that was decoded is ever encoded again (spec 02 §0.2). Decoders are as tolerant as the reference's
//! (unknown further elements, indefinite arrays, bytes behind the item), but bounded.

pub mod identity;
pub mod message;

use minicbor::Decoder;
use minicbor::data::Type;

/// Credentials in one message. The reference sends one at most.
pub const MAX_CREDENTIALS: usize = 8;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The peer's CBOR is not well formed, or not of the right shape.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// The peer's message exceeds a limit of ours.
    #[error("the message exceeds a limit: {0}")]
    Limit(&'static str),
}

impl From<minicbor::decode::Error> for WireError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

fn malformed(what: &'static str) -> WireError {
    WireError::Malformed(what.to_owned())
}

/// Reads the elements of one array, definite or not, and skips those that it does not know.
struct Elements {
    left: Option<u64>,
}

impl Elements {
    fn of(decoder: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Self {
            left: decoder.array()?,
        })
    }

    /// Whether another element follows; the caller then reads it.
    fn next(&mut self, decoder: &mut Decoder<'_>) -> Result<bool, WireError> {
        match &mut self.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if decoder.datatype()? == Type::Break => {
                decoder.skip()?;
                self.left = Some(0);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    /// As [`Self::next`], for an element that must be there.
    fn expect(&mut self, decoder: &mut Decoder<'_>, what: &'static str) -> Result<(), WireError> {
        if self.next(decoder)? {
            Ok(())
        } else {
            Err(malformed(what))
        }
    }

    fn skip_rest(mut self, decoder: &mut Decoder<'_>) -> Result<(), WireError> {
        while self.next(decoder)? {
            decoder.skip()?;
        }
        Ok(())
    }
}

/// One item as it stands.
fn raw<'a>(decoder: &mut Decoder<'a>) -> Result<&'a [u8], WireError> {
    let start = decoder.position();
    decoder.skip()?;
    Ok(&decoder.input()[start..decoder.position()])
}

/// A list of raw credentials.
fn credentials<'a>(decoder: &mut Decoder<'a>) -> Result<Vec<&'a [u8]>, WireError> {
    let mut elements = Elements::of(decoder)?;
    let mut credentials = Vec::new();
    while elements.next(decoder)? {
        if credentials.len() == MAX_CREDENTIALS {
            return Err(WireError::Limit("more than 8 credentials"));
        }
        credentials.push(raw(decoder)?);
    }
    Ok(credentials)
}

fn put_credentials(out: &mut Vec<u8>, credentials: &[&[u8]]) {
    portolan_runtime::wire::put_head(out, portolan_runtime::wire::MAJOR_ARRAY, credentials.len() as u64);
    credentials
        .iter()
        .for_each(|credential| out.extend_from_slice(credential));
}

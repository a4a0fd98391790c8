//! What is inside a record: PaddedMessage of spec 02 §6.2.
//!
//! ```text
//! 82 | 82 00 81 83 onward return payload | 40        a routed message
//! 82 | 82 01 81 82 history credentials   | 40        new credentials
//! 82 | 82 02 80                          | 40        the sender closes the channel
//! 82 | 82 03 81 total                    | 40        so much has arrived (extension X6)
//! ```
//!
//! A payload stays where it is: it is written as a head in front of the bytes and one byte behind them, and read as a
//! range of the plaintext.

use std::ops::Range;

use minicbor::Decoder;
use portolan_runtime::wire::{MAJOR_BYTES, put_head, put_route, route};
use portolan_runtime::{Address, Route};

use crate::record::PREFIX_LEN;

use super::{Elements, WireError, credentials, malformed, put_credentials, raw};

/// The longest RefreshCredentials that we read, in bytes: as much as a handshake may carry for the same purpose.
pub const MAX_REFRESH_LEN: usize = crate::handshake::MAX_MESSAGE_LEN;
/// What every message with a payload begins with.
const PAYLOAD_START: [u8; 5] = [0x82, 0x82, 0x00, 0x81, 0x83];
/// What stands behind the payload: empty padding.
pub const PAYLOAD_TAIL: [u8; 1] = [0x40];
/// A whole Close message.
pub const CLOSE: [u8; 5] = [0x82, 0x82, 0x02, 0x80, 0x40];

/// A message as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelMessage<'a> {
    /// A routed message for a worker at this end.
    Payload {
        /// The hops that it still has to travel.
        onward: Route,
        /// The hops that an answer travels, at the other end.
        back: Route,
        /// Where the payload stands in the plaintext.
        payload: Range<usize>,
    },
    /// The peer's new credentials.
    RefreshCredentials {
        /// The peer's change history, raw.
        change_history: &'a [u8],
        /// The credentials, raw.
        credentials: Vec<&'a [u8]>,
    },
    /// The peer closes the channel.
    Close,
    /// What has arrived at the peer since the channel was opened, as [`crate::window`] counts. Only where windows were agreed on.
    Receipt(u64),
}

impl<'a> ChannelMessage<'a> {
    /// Reads a message; padding of any content is accepted and ignored.
    ///
    /// # Errors
    /// [`WireError`]: the peer is authenticated, but wrong.
    pub fn decode(plaintext: &'a [u8]) -> Result<Self, WireError> {
        let mut decoder = Decoder::new(plaintext);
        let mut padded = Elements::of(&mut decoder)?;
        padded.expect(&mut decoder, "the message is missing")?;
        if decoder.array()? != Some(2) {
            return Err(malformed("a variant is an array of two elements"));
        }
        let message = match decoder.u32()? {
            0 => payload(&mut decoder)?,
            1 if plaintext.len() > MAX_REFRESH_LEN => {
                return Err(WireError::Limit("credentials longer than 65535 bytes"));
            }
            1 => refresh_credentials(&mut decoder)?,
            2 => {
                decoder.skip()?;
                Self::Close
            }
            3 => {
                let mut fields = Elements::of(&mut decoder)?;
                fields.expect(&mut decoder, "the receipt says nothing")?;
                let total = decoder.u64()?;
                fields.skip_rest(&mut decoder)?;
                Self::Receipt(total)
            }
            _ => return Err(malformed("an unknown kind of message")),
        };
        padded.expect(&mut decoder, "the padding is missing")?;
        decoder.bytes()?;
        padded.skip_rest(&mut decoder)?;
        Ok(message)
    }
}

fn payload(decoder: &mut Decoder<'_>) -> Result<ChannelMessage<'static>, WireError> {
    let not_a_route = |error: portolan_runtime::DecodeError| WireError::Malformed(error.to_string());
    let mut fields = Elements::of(decoder)?;
    fields.expect(decoder, "the payload record is missing")?;
    let mut record = Elements::of(decoder)?;
    record.expect(decoder, "the onward route is missing")?;
    let onward = route(decoder).map_err(not_a_route)?;
    record.expect(decoder, "the return route is missing")?;
    let back = route(decoder).map_err(not_a_route)?;
    record.expect(decoder, "the payload is missing")?;
    let len = decoder.bytes()?.len();
    let end = decoder.position();
    record.skip_rest(decoder)?;
    fields.skip_rest(decoder)?;
    Ok(ChannelMessage::Payload {
        onward,
        back,
        payload: end - len..end,
    })
}

/// A header as it was read, of a payload that was not sealed but for its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadHeader {
    /// The hops that the message still has to travel.
    pub onward: Route,
    /// The hops that an answer travels, at the other end.
    pub back: Route,
    /// Where the payload begins in the plaintext; it goes on behind it.
    pub payload: usize,
}

impl PayloadHeader {
    /// Reads what [`put_payload_head`] has written, and the first [`PREFIX_LEN`] bytes of the payload, of which `rest` more
    /// bytes follow elsewhere.
    ///
    /// # Errors
    /// [`WireError`], also if the payload is not as long as the header says.
    pub fn decode(plaintext: &[u8], rest: usize) -> Result<Self, WireError> {
        let not_a_route = |error: portolan_runtime::DecodeError| WireError::Malformed(error.to_string());
        let start = plaintext
            .strip_prefix(&PAYLOAD_START)
            .ok_or_else(|| malformed("a sealed header is not that of a payload"))?;
        let mut decoder = Decoder::new(start);
        let onward = route(&mut decoder).map_err(not_a_route)?;
        let back = route(&mut decoder).map_err(not_a_route)?;
        let (length, head) = bytes_head(&start[decoder.position()..])?;
        let payload = PAYLOAD_START.len() + decoder.position() + head;
        let here = plaintext.len() - payload;
        if here != PREFIX_LEN || length.checked_sub(here as u64) != Some(rest as u64) {
            return Err(malformed("a payload is not as long as its sealed header says"));
        }
        Ok(Self {
            onward,
            back,
            payload,
        })
    }
}

/// The length of a byte string of definite length, and the bytes that its head takes.
fn bytes_head(bytes: &[u8]) -> Result<(u64, usize), WireError> {
    let no_head = || malformed("a sealed header does not say how long the payload is");
    let (first, argument) = bytes.split_first().ok_or_else(no_head)?;
    if first >> 5 != MAJOR_BYTES {
        return Err(no_head());
    }
    let size = match first & 0x1f {
        short @ 0..=23 => return Ok((short.into(), 1)),
        long @ 24..=27 => 1 << (long - 24),
        _ => return Err(no_head()),
    };
    let argument = argument.get(..size).ok_or_else(no_head)?;
    let length = argument
        .iter()
        .fold(0, |length, byte| length << 8 | u64::from(*byte));
    Ok((length, 1 + size))
}

fn refresh_credentials<'a>(decoder: &mut Decoder<'a>) -> Result<ChannelMessage<'a>, WireError> {
    let mut fields = Elements::of(decoder)?;
    fields.expect(decoder, "the credentials record is missing")?;
    let mut record = Elements::of(decoder)?;
    record.expect(decoder, "the change history is missing")?;
    let change_history = raw(decoder)?;
    record.expect(decoder, "the list of credentials is missing")?;
    let credentials = credentials(decoder)?;
    record.skip_rest(decoder)?;
    fields.skip_rest(decoder)?;
    Ok(ChannelMessage::RefreshCredentials {
        change_history,
        credentials,
    })
}

/// Appends what stands in front of a payload of `payload_len` bytes; [`PAYLOAD_TAIL`] goes behind it.
pub fn put_payload_head(out: &mut Vec<u8>, onward: &[Address], back: &[Address], payload_len: usize) {
    out.extend_from_slice(&PAYLOAD_START);
    put_route(out, onward);
    put_route(out, back);
    put_head(out, MAJOR_BYTES, payload_len as u64);
}

/// A whole RefreshCredentials message, of raw parts.
#[must_use]
pub fn refresh_credentials_message(change_history: &[u8], credentials: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![0x82, 0x82, 0x01, 0x81, 0x82];
    out.extend_from_slice(change_history);
    put_credentials(&mut out, credentials);
    out.extend_from_slice(&PAYLOAD_TAIL);
    out
}

/// A whole Receipt message. Into the buffer of another, so that none is allocated each time.
pub fn put_receipt(out: &mut Vec<u8>, total: u64) {
    out.clear();
    out.extend_from_slice(&[0x82, 0x82, 0x03, 0x81]);
    put_head(out, 0, total);
    out.extend_from_slice(&PAYLOAD_TAIL);
}

#[cfg(test)]
mod tests;

//! How addresses, routes and whole messages look in CBOR (spec 01 §1.2, §2, §6.3).
//!
//! Encoders write headers: what stands in front of the payload bytes, into a scratch buffer that the caller then puts
//! into the payload's head room. Decoders give positions, so that the payload stays where it was received.

use minicbor::Decoder;
use minicbor::data::Type;

use crate::address::MAX_ADDRESS_LENGTH;
use crate::body::DecodeError;
use crate::route::MAX_HOPS;
use crate::{Address, Message, Payload, Route};

/// Appends the head of a CBOR item: major type and argument, in the shortest form (RFC 8949 §3).
pub fn put_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..=23 => out.push(major | argument as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&(argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&(argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}

/// Major type of unsigned integers.
pub const MAJOR_UINT: u8 = 0;
/// Major type of byte strings.
pub const MAJOR_BYTES: u8 = 2;
/// Major type of arrays.
pub const MAJOR_ARRAY: u8 = 4;

/// Appends an address: `[type, bytes]`.
pub fn put_address(out: &mut Vec<u8>, address: &Address) {
    out.push(0x82);
    put_head(out, MAJOR_UINT, u64::from(address.transport()));
    put_head(out, MAJOR_BYTES, address.as_bytes().len() as u64);
    out.extend_from_slice(address.as_bytes());
}

/// Appends a route: an array of addresses.
pub fn put_route(out: &mut Vec<u8>, hops: &[Address]) {
    put_head(out, MAJOR_ARRAY, hops.len() as u64);
    for hop in hops {
        put_address(out, hop);
    }
}

/// Reads the head of an array and returns its length, `None` if it is indefinite.
fn array(decoder: &mut Decoder<'_>) -> Result<Option<u64>, DecodeError> {
    Ok(decoder.array()?)
}

/// Whether another element follows in an array of which `read` elements were read.
fn more(decoder: &mut Decoder<'_>, length: Option<u64>, read: u64) -> Result<bool, DecodeError> {
    match length {
        Some(length) => Ok(read < length),
        None if decoder.datatype()? == Type::Break => {
            decoder.skip()?;
            Ok(false)
        }
        None => Ok(true),
    }
}

/// Skips what is left of an array of which `read` elements were read.
fn skip_rest(decoder: &mut Decoder<'_>, length: Option<u64>, mut read: u64) -> Result<(), DecodeError> {
    while more(decoder, length, read)? {
        decoder.skip()?;
        read += 1;
    }
    Ok(())
}

/// Reads an address.
///
/// # Errors
/// If it is malformed, or longer than [`MAX_ADDRESS_LENGTH`].
pub fn address(decoder: &mut Decoder<'_>) -> Result<Address, DecodeError> {
    let length = array(decoder)?;
    let mut read = 0;
    let mut next = |decoder: &mut Decoder<'_>| {
        let there = more(decoder, length, read)?;
        read += 1;
        if there {
            Ok(())
        } else {
            Err(DecodeError::Invalid("an address has two elements"))
        }
    };
    next(decoder)?;
    let transport = decoder.u8()?;
    next(decoder)?;
    let body = decoder.bytes()?;
    if body.len() > MAX_ADDRESS_LENGTH {
        return Err(DecodeError::Limit("an address is longer than 8 KiB"));
    }
    let address = Address::new(transport, body);
    skip_rest(decoder, length, 2)?;
    Ok(address)
}

/// Reads a route.
///
/// # Errors
/// If it is malformed, or has more than [`MAX_HOPS`] hops.
pub fn route(decoder: &mut Decoder<'_>) -> Result<Route, DecodeError> {
    let length = array(decoder)?;
    if length.is_some_and(|length| length > MAX_HOPS as u64) {
        return Err(DecodeError::Limit("a route has more than 64 hops"));
    }
    let mut route = Route::new();
    while more(decoder, length, route.len() as u64)? {
        if route.len() == MAX_HOPS {
            return Err(DecodeError::Limit("a route has more than 64 hops"));
        }
        route.push(address(decoder)?);
    }
    Ok(route)
}

/// A decoded message; the payload is given by its place in the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportMessage {
    /// The hops that the message still has to travel.
    pub onward: Route,
    /// The hops that an answer travels.
    pub back: Route,
    /// Where the payload stands.
    pub payload: std::ops::Range<usize>,
}

/// Reads the message of one frame: `[onward, return, payload, ?tracing, …]` (spec 01 §6.3).
///
/// # Errors
/// Everything that closes the connection in the reference does so here, and so does what exceeds our limits.
pub fn decode(bytes: &[u8]) -> Result<TransportMessage, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let length = array(&mut decoder)?;
    let missing = DecodeError::Invalid("a message has three elements at least");
    if !more(&mut decoder, length, 0)? {
        return Err(missing);
    }
    let onward = route(&mut decoder)?;
    if !more(&mut decoder, length, 1)? {
        return Err(missing);
    }
    let back = route(&mut decoder)?;
    if !more(&mut decoder, length, 2)? {
        return Err(missing);
    }
    let payload_length = decoder.bytes()?.len();
    let end = decoder.position();
    if more(&mut decoder, length, 3)? {
        match decoder.datatype()? {
            Type::Null => decoder.null()?,
            _ => {
                decoder.str()?;
            }
        }
        skip_rest(&mut decoder, length, 4)?;
    }
    Ok(TransportMessage {
        onward,
        back,
        payload: end - payload_length..end,
    })
}

/// Appends what stands in front of the payload in a message of three elements.
pub fn put_message_head(out: &mut Vec<u8>, onward: &[Address], back: &[Address], payload_length: usize) {
    out.push(0x83);
    put_route(out, onward);
    put_route(out, back);
    put_head(out, MAJOR_BYTES, payload_length as u64);
}

/// A message as one frame carries it: for transports that can afford a copy of the payload.
pub fn encode_message(message: &Message) -> Vec<u8> {
    let payload = message.payload.as_slice();
    let mut out = Vec::with_capacity(payload.len() + 64);
    put_message_head(
        &mut out,
        message.onward.as_slice(),
        message.back.as_slice(),
        payload.len(),
    );
    out.extend_from_slice(payload);
    out
}

/// The message of one frame, with a copy of its payload. Nobody is known to have sent it yet.
///
/// # Errors
/// As [`decode`].
pub fn decode_message(bytes: &[u8]) -> Result<Message, DecodeError> {
    let decoded = decode(bytes)?;
    let payload = Payload::copy_from(&bytes[decoded.payload]);
    Ok(Message::new(decoded.onward, decoded.back, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route;
    use proptest::prelude::*;

    fn unhex(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    #[test]
    fn addresses_and_routes_match_the_vectors() {
        for (address, expected) in [
            ("0#echo", "8200446563686f"),
            ("1#127.0.0.1:4000", "82014e3132372e302e302e313a34303030"),
            ("2#127.0.0.1:4000", "82024e3132372e302e302e313a34303030"),
        ] {
            let mut out = Vec::new();
            put_address(&mut out, &address.parse().unwrap());
            assert_eq!(hex::encode(out), expected);
        }
        let mut out = Vec::new();
        put_route(&mut out, &["0#a".parse().unwrap(), "1#b".parse().unwrap()]);
        assert_eq!(hex::encode(out), "828200416182014162");
    }

    #[test]
    fn a_message_is_the_same_after_a_frame() {
        let message = Message::new(route!["a", "b"], route!["c"], Payload::copy_from(b"text"));
        let back = decode_message(&encode_message(&message)).unwrap();
        assert_eq!((&back.onward, &back.back), (&message.onward, &message.back));
        assert_eq!(back.payload.as_slice(), b"text");
        assert!(decode_message(&[0x83, 0x80]).is_err());
    }

    #[test]
    fn messages_match_the_vectors() {
        let mut out = Vec::new();
        put_message_head(&mut out, route!["echo"].as_slice(), route!["app"].as_slice(), 6);
        out.extend_from_slice(b"\x05hello");
        assert_eq!(
            hex::encode(&out),
            "83818200446563686f81820043617070460568656c6c6f"
        );
        for text in [
            "83818200446563686f81820043617070460568656c6c6f",
            "84818200446563686f81820043617070460568656c6c6f627b7d",
        ] {
            let bytes = unhex(text);
            let message = decode(&bytes).unwrap();
            assert_eq!(message.onward, route!["echo"]);
            assert_eq!(message.back, route!["app"]);
            assert_eq!(&bytes[message.payload], b"\x05hello");
        }
    }

    #[test]
    fn what_the_reference_accepts_is_accepted() {
        for text in [
            "83808040",                         // heartbeat
            "9f818200446563686f8080ff",         // not a byte string: see below
            "9f80804161ff",                     // indefinite message
            "839f8200446563686fff804161",       // indefinite route
            "83819f00446563686fff804161",       // indefinite address
            "8381831800446563686f018041614100", // extra element and non-minimal type in an address, bytes behind
            "84808041 61f6",                    // null tracing
            "858080416162 7b7d0a",              // a fifth element
            "84808041616161",                   // tracing that is no JSON
        ] {
            let bytes = unhex(&text.replace(' ', ""));
            if text == "9f818200446563686f8080ff" {
                assert!(decode(&bytes).is_err());
            } else {
                assert!(decode(&bytes).is_ok(), "{text}");
            }
        }
    }

    #[test]
    fn what_the_reference_refuses_is_refused() {
        for text in [
            "",
            "80",
            "8180",
            "828080",
            "83f68040",
            "8380f640",
            "838080f6",
            "a0",
            "c083808040",
            "8380805f4161ff",         // indefinite payload
            "8380806161",             // payload as text
            "8380808101",             // payload as array
            "848080416101",           // tracing is a number
            "8480804161 62ffff",      // tracing is not UTF-8
            "83818100804161",         // address with one element
            "8381820061 61804161",    // address body as text
            "838182008101804161",     // address body as integers
            "8381821901004161804161", // type above 255
        ] {
            assert!(decode(&unhex(&text.replace(' ', ""))).is_err(), "{text}");
        }
    }

    #[test]
    fn a_route_with_a_million_hops_is_refused_on_its_head() {
        assert!(matches!(
            decode(&unhex("839a000f4240")),
            Err(DecodeError::Limit(_))
        ));
        let mut indefinite = unhex("839f");
        for _ in 0..65 {
            indefinite.extend_from_slice(&unhex("82004161"));
        }
        assert!(matches!(decode(&indefinite), Err(DecodeError::Limit(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn what_is_written_is_read_back(
            onward in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..6),
            payload in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let hops: Vec<Address> = onward.iter().map(|(t, b)| Address::new(*t, b)).collect();
            let mut out = Vec::new();
            put_message_head(&mut out, &hops, &[], payload.len());
            out.extend_from_slice(&payload);
            let message = decode(&out).unwrap();
            prop_assert_eq!(message.onward.as_slice(), &hops[..]);
            prop_assert_eq!(&out[message.payload], &payload[..]);
        }
    }
}

//! The outer wrapper of every payload: BARE `data`, an unsigned LEB128 length and that many bytes (specification 01 §1.1).

use super::MalformedPayload;

/// A length takes at most ten groups of seven bits.
const MAX_VARINT_LEN: usize = 10;

/// Returns the bytes inside the wrapper. Whatever follows them is ignored, as every peer does.
///
/// # Errors
/// [`MalformedPayload::NoLength`] when there is no complete length, [`MalformedPayload::TooShort`] when it promises more
/// bytes than there are.
pub fn unwrap_data(payload: &[u8]) -> Result<&[u8], MalformedPayload> {
    let (len, rest) = read_length(payload)?;
    let have = rest.len();
    usize::try_from(len)
        .ok()
        .and_then(|len| rest.get(..len))
        .ok_or(MalformedPayload::TooShort { promised: len, have })
}

/// Puts the wrapper around `header` and `body`, which are not separated by anything.
pub fn wrap_data(header: &[u8], body: &[u8]) -> Vec<u8> {
    let len = header.len() + body.len();
    let mut payload = Vec::with_capacity(len + 4);
    let mut rest = len;
    while rest >= 0x80 {
        payload.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    payload.push(rest as u8);
    payload.extend_from_slice(header);
    payload.extend_from_slice(body);
    payload
}

fn read_length(payload: &[u8]) -> Result<(u64, &[u8]), MalformedPayload> {
    let mut value = 0u64;
    for (index, byte) in payload.iter().take(MAX_VARINT_LEN).enumerate() {
        let group = u64::from(byte & 0x7f);
        // The tenth group has room for one bit only. A padded zero there is what the serde codec of stock nodes accepts.
        if index == MAX_VARINT_LEN - 1 && *byte > 1 {
            return Err(MalformedPayload::NoLength);
        }
        value |= group << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &payload[index + 1..]));
        }
    }
    Err(MalformedPayload::NoLength)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_payload_comes_back_and_what_follows_is_ignored() {
        for len in [0usize, 1, 127, 128, 300, 20_000] {
            let body = vec![7u8; len];
            let mut wrapped = wrap_data(&[], &body);
            wrapped.extend_from_slice(b"tail");
            assert_eq!(unwrap_data(&wrapped), Ok(&body[..]));
        }
    }

    #[test]
    fn a_length_that_is_not_minimal_is_accepted() {
        assert_eq!(unwrap_data(&[0x82, 0x00, 1, 2]), Ok(&[1u8, 2][..]));
        assert_eq!(
            unwrap_data(&[0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00, 9]),
            Ok(&[9u8][..])
        );
    }

    #[test]
    fn a_missing_unfinished_or_overlong_length_is_refused() {
        assert_eq!(unwrap_data(&[]), Err(MalformedPayload::NoLength));
        assert_eq!(unwrap_data(&[0x80]), Err(MalformedPayload::NoLength));
        assert_eq!(unwrap_data(&[0xff; 11]), Err(MalformedPayload::NoLength));
        assert_eq!(
            unwrap_data(&[5, 1]),
            Err(MalformedPayload::TooShort { promised: 5, have: 1 })
        );
    }
}

//! Body of a response that is not a success (specification 03 §1.4).

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use super::header::{Method, infallible};
use super::{MAX_MESSAGE_LEN, MAX_PATH_LEN};

/// Causes nested deeper than this are not read.
const MAX_CAUSES: usize = 8;

/// What a service says about a request that it did not carry out. All fields are optional on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// Path of the request.
    pub path: Option<String>,
    /// Method of the request.
    pub method: Option<Method>,
    /// What went wrong, for people. A received one is cut at [`MAX_MESSAGE_LEN`] bytes; the messages of
    /// nested causes are appended after `: `.
    pub message: Option<String>,
}

impl ErrorBody {
    /// Appends the body to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        let fields = [self.path.is_some(), self.method.is_some(), self.message.is_some()];
        infallible(e.map(fields.into_iter().filter(|present| *present).count() as u64));
        if let Some(path) = &self.path {
            infallible(e.u8(1).and_then(|e| e.str(path)));
        }
        if let Some(method) = self.method {
            infallible(e.u8(2).and_then(|e| e.u8(method.code())));
        }
        if let Some(message) = &self.message {
            infallible(e.u8(3).and_then(|e| e.str(message)));
        }
    }

    /// Reads what follows the header of a failure, in any of the forms that stock clients accept: text, a
    /// byte string of UTF-8, or the map. Anything else, or nothing, gives an empty body: the failure itself
    /// is already known.
    pub fn decode_lenient(data: &[u8]) -> Self {
        let mut d = Decoder::new(data);
        let message = match d.datatype() {
            Ok(Type::String) => d.str().ok().map(cut),
            Ok(Type::Bytes) => d.bytes().ok().and_then(|b| std::str::from_utf8(b).ok()).map(cut),
            _ => return Self::decode_map(&mut d, 0).unwrap_or_default(),
        };
        Self {
            message,
            ..Self::default()
        }
    }

    fn decode_map(d: &mut Decoder<'_>, depth: usize) -> Option<Self> {
        let mut body = Self::default();
        let mut cause = None;
        let mut left = d.map().ok()?;
        loop {
            match &mut left {
                Some(0) => break,
                Some(n) => *n -= 1,
                None if matches!(d.datatype(), Ok(Type::Break)) => {
                    d.skip().ok()?;
                    break;
                }
                None => {}
            }
            let key = d.u64().ok()?;
            match (key, d.datatype().ok()?) {
                (1, Type::String) => {
                    body.path = Some(d.str().ok()?)
                        .filter(|p| p.len() <= MAX_PATH_LEN)
                        .map(str::to_owned)
                }
                (2, Type::U8) => body.method = Method::from_code(d.u64().ok()?),
                (3, Type::String) => body.message = Some(cut(d.str().ok()?)),
                (4, Type::Map | Type::MapIndef) if depth < MAX_CAUSES => {
                    cause = Self::decode_map(d, depth + 1)?.message
                }
                _ => d.skip().ok()?,
            }
        }
        if let Some(cause) = cause {
            body.message = Some(match body.message {
                Some(message) => cut(&format!("{message}: {cause}")),
                None => cause,
            });
        }
        Some(body)
    }
}

/// Shown to people, and written to logs: one line, no control characters, not endless.
fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_MESSAGE_LEN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_from_text_bytes_and_map() {
        let text = [0x63, b'a', b'b', b'c'];
        let bytes = [0x43, b'a', b'b', b'c'];
        let map = [0xa1, 0x03, 0x63, b'a', b'b', b'c'];
        let open_map = [0xbf, 0x03, 0x63, b'a', b'b', b'c', 0x18, 99, 0x80, 0xff];
        for form in [&text[..], &bytes, &map, &open_map] {
            assert_eq!(ErrorBody::decode_lenient(form).message.as_deref(), Some("abc"));
        }
    }

    #[test]
    fn a_cause_is_appended_to_the_message() {
        let mut data = vec![0xa2, 0x03, 0x61, b'a', 0x04, 0xa1, 0x03, 0x61, b'b'];
        assert_eq!(ErrorBody::decode_lenient(&data).message.as_deref(), Some("a: b"));
        data.truncate(5);
        assert_eq!(ErrorBody::decode_lenient(&data), ErrorBody::default());
    }

    #[test]
    fn garbage_and_endless_nesting_give_an_empty_body() {
        assert_eq!(ErrorBody::decode_lenient(&[]), ErrorBody::default());
        assert_eq!(ErrorBody::decode_lenient(&[0xff, 0xff]), ErrorBody::default());
        let nested: Vec<u8> = [0xa1, 0x04].repeat(100_000);
        assert_eq!(ErrorBody::decode_lenient(&nested), ErrorBody::default());
    }

    #[test]
    fn a_message_cannot_speak_to_the_terminal() {
        let message = Some("no\x1b[2J\nyes".to_owned());
        let mut data = Vec::new();
        ErrorBody {
            message,
            ..ErrorBody::default()
        }
        .encode(&mut data);
        let shown = ErrorBody::decode_lenient(&data).message;
        assert_eq!(shown.as_deref(), Some("no [2J yes"));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = "ä".repeat(MAX_MESSAGE_LEN);
        let mut data = Vec::new();
        ErrorBody {
            message: Some(long),
            ..ErrorBody::default()
        }
        .encode(&mut data);
        let message = ErrorBody::decode_lenient(&data).message.unwrap_or_default();
        assert!(message.len() <= MAX_MESSAGE_LEN && message.len() + 2 > MAX_MESSAGE_LEN);
    }
}

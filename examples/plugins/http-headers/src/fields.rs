//! Header fields: what is well-formed, and which are a client's to send.
//!
//! Whoever stands between a client and a service has to read a request exactly as the service does, or a request can be hidden
//! in the body of another one. So whatever servers are known to read in different ways is refused (RFC 9112, sections 2.2, 5 and
//! 6.3).

/// One header line, without its line end.
#[derive(Debug, PartialEq)]
pub struct Field<'a> {
    /// As it was sent.
    pub name: &'a str,
    /// Without white space at its ends.
    pub value: &'a str,
}

impl<'a> Field<'a> {
    /// Reads a line.
    pub fn parse(line: &'a [u8]) -> Result<Self, String> {
        if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            return Err("a header line is folded over two lines".to_owned());
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or("a header line has no colon")?);
        if name.is_empty() || !name.iter().copied().all(token) {
            return Err("a header's name has something in it that no name may have".to_owned());
        }
        let value = value[1..].trim_ascii();
        if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err("a header's value has a control character in it".to_owned());
        }
        // Beyond ASCII the bytes mean nothing that a service could agree on, and a name has none.
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| "a header is not valid UTF-8".to_owned());
        Ok(Self {
            name: text(name)?,
            value: text(value)?,
        })
    }
}

/// A byte of a method or of a header's name.
pub fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The name as servers compare names. Many hand headers on as variables, in which `-` and `_` are the same.
pub fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_a_value_does_not_count() {
        let field = Field::parse(b"Host: \t example.com ").unwrap();
        assert_eq!((field.name, field.value), ("Host", "example.com"));
    }

    #[test]
    fn what_servers_read_in_different_ways_is_refused() {
        for line in [
            &b" folded"[..],
            b"\tfolded",
            b"no colon",
            b": no name",
            b"Content-Length : 5",
            b"Con tent: 5",
            b"A: b\rC: d",
            b"A: b\0",
            b"\xc3\xa9: 1",
            b"A: \xff",
        ] {
            assert!(Field::parse(line).is_err(), "{:?}", String::from_utf8_lossy(line));
        }
    }
}

//! The header lines, out of the configuration and of what the node knows of the peer.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::fields;

/// What the owner may set; all of it optional.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the names of the headers begin with. A client's own headers that begin so are removed.
    #[serde(default = "default_prefix")]
    prefix: String,
    /// The attributes that the service is told. Without it: all.
    attributes: Option<Vec<String>>,
}

fn default_prefix() -> String {
    "X-Portolan-".to_owned()
}

impl Config {
    /// Reads the configuration; empty text is one with nothing set.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = if text.trim().is_empty() { "{}" } else { text };
        let config: Self = serde_json::from_str(text).map_err(|error| {
            format!(
                "the configuration of http-headers is wrong: {error}; expected is for example \
                 {{\"prefix\": \"X-Portolan-\", \"attributes\": [\"role\"]}}"
            )
        })?;
        if config.prefix.len() < 3 || !config.prefix.ends_with('-') || !config.prefix.bytes().all(plain) {
            return Err(format!(
                "the prefix {:?} is wrong: it takes letters and digits, with `-` between them and at its end, such as \"X-Portolan-\"",
                config.prefix
            ));
        }
        Ok(config)
    }

    /// What reserved names begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The lines that are added to each request, each with its line end. None if the peer is not known.
    pub fn lines(&self, peer: Option<&str>, attributes: &[(String, String)]) -> Result<Vec<u8>, String> {
        let mut lines = String::new();
        let Some(peer) = peer else {
            return Ok(lines.into_bytes());
        };
        lines += &format!("{}Peer: {}\r\n", self.prefix, value(peer));
        let mut names = BTreeMap::new();
        for (key, content) in attributes {
            if self.attributes.as_ref().is_some_and(|told| !told.contains(key)) {
                continue;
            }
            let name = format!("{}Attribute-{}", self.prefix, name(key));
            if let Some(other) = names.insert(fields::normal(&name), key) {
                return Err(format!(
                    "the attributes {other:?} and {key:?} of the peer would both be the header {name}; \
                     name in the configuration the attributes that the service is told"
                ));
            }
            lines += &format!("{name}: {}\r\n", value(content));
        }
        Ok(lines.into_bytes())
    }
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// `postgres_reader` is `Postgres-Reader`: what cannot be in a header name, or is not told apart by all servers, is `-`.
fn name(key: &str) -> String {
    let mut begins = true;
    key.bytes()
        .map(|byte| {
            let byte = if plain(byte) { byte } else { b'-' };
            let letter = if begins { byte.to_ascii_uppercase() } else { byte };
            begins = byte == b'-';
            char::from(letter)
        })
        .collect()
}

/// Printable ASCII as it is; other bytes, `%` and spaces at either end as `%` and two hex digits.
fn value(text: &str) -> String {
    let last = text.len().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'%' => out += "%25",
            b' ' if at == 0 || at == last => out += "%20",
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(config: &str, attributes: &[(&str, &str)]) -> Result<String, String> {
        let attributes: Vec<_> = attributes
            .iter()
            .map(|(key, content)| ((*key).to_owned(), (*content).to_owned()))
            .collect();
        let lines = Config::parse(config)?.lines(Some("Iabc"), &attributes)?;
        Ok(String::from_utf8(lines).unwrap())
    }

    #[test]
    fn a_peer_and_its_attributes_are_one_line_each() {
        assert_eq!(
            lines("", &[("role", "reader"), ("cost_center", "a b")]).unwrap(),
            "X-Portolan-Peer: Iabc\r\nX-Portolan-Attribute-Role: reader\r\nX-Portolan-Attribute-Cost-Center: a b\r\n"
        );
    }

    #[test]
    fn an_unknown_peer_adds_nothing() {
        let config = Config::parse("{}").unwrap();
        assert_eq!(
            config.lines(None, &[("role".to_owned(), "x".to_owned())]),
            Ok(Vec::new())
        );
    }

    #[test]
    fn only_the_attributes_that_are_named_are_told() {
        let config = r#"{"prefix": "X-Who-", "attributes": ["team"]}"#;
        assert_eq!(
            lines(config, &[("role", "reader"), ("team", "blue")]).unwrap(),
            "X-Who-Peer: Iabc\r\nX-Who-Attribute-Team: blue\r\n"
        );
    }

    #[test]
    fn no_attribute_can_end_its_line() {
        assert_eq!(
            lines("", &[("a\r\nB: c", "x\r\nX-Evil: 1"), ("é", " 100% ü ")]).unwrap(),
            "X-Portolan-Peer: Iabc\r\nX-Portolan-Attribute-A--B--C: x%0D%0AX-Evil: 1\r\n\
             X-Portolan-Attribute---: %20100%25 %C3%BC%20\r\n"
        );
    }

    #[test]
    fn two_attributes_never_share_a_header() {
        let refusal = lines("", &[("a_b", "1"), ("a-b", "2")]).unwrap_err();
        assert!(refusal.contains("a_b") && refusal.contains("a-b"), "{refusal}");
    }

    #[test]
    fn a_wrong_configuration_says_what_is_expected() {
        for wrong in [
            r#"{"prefix": ""}"#,
            r#"{"prefix": "X Y-"}"#,
            r#"{"prefix": "X-Who"}"#,
            r#"{"header": 1}"#,
            "x",
        ] {
            let refusal = Config::parse(wrong).unwrap_err();
            assert!(refusal.contains("X-Portolan-"), "{refusal}");
        }
    }
}

//! A YAML document as a tree in which every value knows its place, so that every complaint can name it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// The deepest nesting; the deepest that means something is a list of named maps with a relay inside: five.
const MAX_DEPTH: usize = 16;
/// The most values in one document.
const MAX_NODES: usize = 10_000;

/// A place in the text, both counted from 1. Orders as the text does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl Place {
    /// Where a document begins.
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A key of a map and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) name: String,
}

/// What a configuration is made of. Numbers keep their text: they are ports, durations and names here, and numbers only in what
/// others define, such as the configuration of a worker.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Text(String),
    Number(String),
    List(Vec<Node>),
    /// In the order of the text; no key twice.
    Map(Vec<(Key, Node)>),
}

impl Value {
    /// A text, or a number as one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::Number(text) => Some(text),
            _ => None,
        }
    }

    /// For complaints.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Text(_) | Value::Number(_) => "a text or a number",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

fn place(location: serde_saphyr::Location) -> Place {
    Place {
        line: location.line().max(1),
        column: location.column().max(1),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self {
            place: place(spanned.referenced),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true or false, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(Tree)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let key = Key {
                place: place(key.referenced),
                name: key.value,
            };
            if entries.iter().any(|(other, _)| other.name == key.name) {
                return Err(A::Error::custom("a key stands twice in one map"));
            }
            entries.push((key, map.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}

/// What cannot be read, where, and why. Never quotes the text: a ticket may stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) place: Option<Place>,
    pub(super) reason: String,
}

/// Read one document. A text that holds nothing is an empty map.
pub(super) fn read(text: &str) -> Result<Node, Unreadable> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_documents: 1,
        },
        // `yes` and `on` are texts: a policy or a name may be called so.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Option<Node>>(text, options) {
        Ok(Some(node)) if node.value != Value::Null => Ok(node),
        Ok(_) => Ok(Node {
            place: Place::START,
            value: Value::Map(Vec::new()),
        }),
        Err(error) => {
            let error = error.without_snippet();
            let mut reason = error.to_string();
            // Our own sentence says the place.
            if let Some(at) = reason.find(" at line ") {
                reason.truncate(at);
            }
            let reason = reason.lines().next().unwrap_or_default().trim();
            Err(Unreadable {
                place: error.location().map(place),
                reason: reason.to_owned(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(node: &Node) -> &[(Key, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let node = read("# first\na: 1\nlist:\n  - x\n  - b: true\n").unwrap();
        let entries = map(&node);
        assert_eq!((entries[0].0.place.line, entries[0].0.place.column), (2, 1));
        assert_eq!((entries[0].1.place.line, entries[0].1.place.column), (2, 4));
        assert_eq!(entries[0].1.value, Value::Number("1".into()));
        let Value::List(list) = &entries[1].1.value else {
            panic!()
        };
        assert_eq!((list[0].place.line, list[0].place.column), (4, 5));
        let inner = map(&list[1]);
        assert_eq!((inner[0].0.place.line, inner[0].0.place.column), (5, 5));
        assert_eq!(inner[0].1.value, Value::Bool(true));
    }

    #[test]
    fn numbers_keep_their_spelling_and_yes_is_a_text() {
        let node = read("{a: 5432, b: 0755, c: yes, d: 127.0.0.1:80, e: null, f: '7', g: 1_0,}").unwrap();
        let values: Vec<_> = map(&node)
            .iter()
            .map(|(_, node)| node.value.text().unwrap_or(node.value.kind()))
            .collect();
        assert_eq!(
            values,
            ["5432", "0755", "yes", "127.0.0.1:80", "nothing", "7", "1_0"]
        );
    }

    #[test]
    fn nothing_is_an_empty_map() {
        for text in ["", "\n", "# only words\n", "---\n", "{}"] {
            assert!(map(&read(text).unwrap()).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_where_and_does_not_quote_the_text() {
        for text in [
            "ticket: 5ec4e7\na: [",
            "a: 1\na: 5ec4e7",
            "a: !wrong 5ec4e7",
            "a: 1\n---\nb: 5ec4e7",
            "\"5ec4e7",
        ] {
            let error = read(text).unwrap_err();
            assert!(!error.reason.contains("5ec4e7"), "{text}: {}", error.reason);
            assert!(!error.reason.is_empty());
        }
        assert_eq!(read("a: 1\na: 2").unwrap_err().place.unwrap().line, 2);
        assert!(read(&"[".repeat(1000)).is_err());
        assert!(read(&"- 1\n".repeat(MAX_NODES + 1)).is_err());
    }
}

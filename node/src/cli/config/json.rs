//! A part of a configuration as JSON: for workers, whose types define their own configuration.

use std::io::Read;
use std::path::Path;

use serde_json::Value as Json;

use super::yaml::{self, Node, Value};
use super::{MAX_CONFIGURATION, Origin};
use crate::error::{Error, Result};

/// A node of the tree as JSON; numbers are numbers again.
pub(super) fn of(node: &Node, origin: &Origin) -> Result<Json> {
    Ok(match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Text(text) => Json::String(text.clone()),
        Value::Number(text) => match serde_json::from_str::<serde_json::Number>(text) {
            Ok(number) => Json::Number(number),
            Err(_) => return Err(origin.wrong(node.place, format!("`{text}` is not a number that JSON has"))),
        },
        Value::List(nodes) => Json::Array(nodes.iter().map(|node| of(node, origin)).collect::<Result<_>>()?),
        Value::Map(entries) => Json::Object(
            entries
                .iter()
                .map(|(key, node)| Ok((key.name.clone(), of(node, origin)?)))
                .collect::<Result<_>>()?,
        ),
    })
}

/// A text, JSON or YAML, as JSON. `name` is what it is called in messages.
pub(in crate::cli) fn document(text: &str, name: &str) -> Result<Json> {
    let origin = Origin(Some(name.to_owned()));
    if text.len() > MAX_CONFIGURATION {
        return Err(Error::invalid(format!(
            "{name} is longer than {MAX_CONFIGURATION} bytes"
        )));
    }
    let tree = yaml::read(text).map_err(|error| match error.place {
        Some(place) => origin.wrong(place, error.reason),
        None => Error::invalid(format!("{name} cannot be read: {}", error.reason)),
    })?;
    of(&tree, &origin)
}

/// As [`document`], from a file.
pub(in crate::cli) fn file(path: &Path) -> Result<Json> {
    let name = path.display().to_string();
    let fail = |error: std::io::Error| Error::invalid(format!("{name} cannot be read: {error}"));
    let mut text = String::new();
    std::fs::File::open(path)
        .map_err(fail)?
        .take(MAX_CONFIGURATION as u64 + 1)
        .read_to_string(&mut text)
        .map_err(fail)?;
    document(&text, &name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_and_yaml_give_the_same_and_numbers_are_numbers() {
        let expected = json!({ "a": 1, "b": "1", "c": [1.5, true, null], "d": { "e": "x" } });
        for text in [
            r#"{"a": 1, "b": "1", "c": [1.5, true, null], "d": {"e": "x"}}"#,
            "a: 1\nb: '1'\nc: [1.5, true, null]\nd:\n  e: x\n",
            "{a: 1, b: '1', c: [1.5, true, null], d: {e: x}}",
        ] {
            assert_eq!(document(text, "text").unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        let error = document("a: 1\na: 2", "--config").unwrap_err();
        assert!(error.message.starts_with("--config, line 2"), "{error}");
        let error = document("a: .inf", "--config").unwrap_err();
        assert!(error.message.contains("non-finite"), "{error}");
        assert!(document("a: [", "--config").is_err());
        assert!(document(&"a".repeat(MAX_CONFIGURATION + 1), "--config").is_err());
        assert!(
            file(Path::new("/nowhere/at/all"))
                .unwrap_err()
                .message
                .contains("/nowhere/at/all")
        );
    }
}

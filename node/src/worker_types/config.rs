//! A worker's configuration: read into the type's own Rust type, and what is wrong with it said with the field's name.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::MAX_CONFIG;
use crate::error::{Error, Result};

/// Read a configuration. Nothing (`null`) is an empty map, so that a type whose fields all have defaults needs none.
pub(crate) fn read<C: DeserializeOwned>(worker_type: &str, value: &Value) -> Result<C> {
    let wrong = |text: String| Error::invalid(format!("the configuration of `{worker_type}`: {text}"));
    let empty = Value::Object(serde_json::Map::new());
    let value = if value.is_null() { &empty } else { value };
    // serde would also read a list, field by field, and nobody could say what its third value means.
    if !value.is_object() {
        return Err(
            wrong("it must be a map of fields and values".to_owned()).hint("for example {\"to\": \"echo\"}")
        );
    }
    if value.to_string().len() > MAX_CONFIG {
        return Err(wrong(format!("it is longer than {MAX_CONFIG} bytes")));
    }
    let mut unknown: Vec<String> = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let mut ignored = |path: serde_ignored::Path<'_>| {
        if unknown.len() < 8 {
            unknown.push(shown(&path.to_string()));
        }
    };
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    let read = C::deserialize(serde_ignored::Deserializer::new(deserializer, &mut ignored));
    match read {
        // A field that nobody reads is a typing error of somebody who believes that it counts.
        Ok(_) if !unknown.is_empty() => Err(wrong(match unknown.as_slice() {
            [one] => format!("there is no field `{one}`"),
            several => format!("there are no fields `{}`", several.join("`, `")),
        })),
        Ok(config) => Ok(config),
        Err(error) => {
            let path = track.path().to_string();
            let text = shown(&error.to_string());
            Err(wrong(if path == "." {
                text
            } else {
                format!("`{}`: {text}", shown(&path))
            }))
        }
    }
}

/// What somebody typed, safe to print.
fn shown(text: &str) -> String {
    text.chars()
        .take(300)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

//! `$NAME` and `${NAME}` in the text of a configuration (05 §2.5).
//!
//! Expansion works on the whole text, before it is read as YAML, so that a variable may stand anywhere. The values come
//! from `--variable`, then from the environment, then from the configuration's own `variables:`; to find the last, the
//! text is read once with marks in the place of what is not known yet.

use std::collections::BTreeMap;

use super::yaml::{self, Place, Value};
use crate::error::{Error, Result};

/// Around the name of a variable that is not known yet. Private characters of Unicode, that YAML takes as text.
const OPEN: char = '\u{E000}';
const CLOSE: char = '\u{E001}';

/// Where values come from, apart from the text itself.
pub(super) struct Outside<'a> {
    /// `--variable`.
    pub(super) given: &'a BTreeMap<String, String>,
    /// The environment of the process.
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Outside<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.given.get(name).cloned().or_else(|| (self.environment)(name))
    }
}

/// A text whose variables are replaced, and what the user should know about it.
#[derive(Debug)]
pub(super) struct Expanded {
    pub(super) text: String,
    pub(super) notes: Vec<String>,
}

/// Replace every variable of the text.
///
/// # Errors
///
/// When one is not defined, is written wrongly, or when `variables:` is no map of names to values.
pub(super) fn expand(text: &str, outside: &Outside<'_>, at: &dyn Fn(Place) -> String) -> Result<Expanded> {
    let marked = replace(text, at, &mut |name, _| {
        Ok(outside
            .get(name)
            .unwrap_or_else(|| format!("{OPEN}{name}{CLOSE}")))
    })?;
    let (own, notes) = match yaml::read(&marked) {
        Ok(node) => own(&node, outside, at)?,
        // What is wrong is said when the expanded text is read.
        Err(_) => (BTreeMap::new(), Vec::new()),
    };
    let text = replace(text, at, &mut |name, place| {
        outside
            .get(name)
            .or_else(|| own.get(name).cloned())
            .ok_or_else(|| undefined(name, place, at))
    })?;
    Ok(Expanded { text, notes })
}

fn undefined(name: &str, place: Place, at: &dyn Fn(Place) -> String) -> Error {
    Error::invalid(format!("{}: the variable `{name}` is not defined", at(place))).hint(format!(
        "give it with `--variable {name}=VALUE`, in the environment, or under `variables:`; a dollar sign that means \
         itself is written `$$`"
    ))
}

/// The configuration's own variables. One may use those above it.
fn own(
    node: &yaml::Node,
    outside: &Outside<'_>,
    at: &dyn Fn(Place) -> String,
) -> Result<(BTreeMap<String, String>, Vec<String>)> {
    let (mut own, mut notes) = (BTreeMap::new(), Vec::new());
    let Value::Map(sections) = &node.value else {
        return Ok((own, notes));
    };
    let Some((_, section)) = sections.iter().find(|(key, _)| key.name == "variables") else {
        return Ok((own, notes));
    };
    let wrong = || {
        Error::invalid(format!(
            "{}: `variables` must map names to values",
            at(section.place)
        ))
        .hint("for example: variables: { SERVICE: 127.0.0.1:5432 }")
    };
    let Value::Map(entries) = &section.value else {
        return Err(wrong());
    };
    if entries.is_empty() {
        return Err(wrong());
    }
    for (key, value) in entries {
        if !is_name(&key.name) {
            return Err(Error::invalid(format!(
                "{}: `{}` is not a name for a variable",
                at(key.place),
                key.name.escape_debug()
            ))
            .hint("use letters, digits and `_`, and do not begin with a digit"));
        }
        let text = match &value.value {
            Value::Text(text) | Value::Number(text) => text.clone(),
            Value::Bool(value) => value.to_string(),
            other => {
                return Err(Error::invalid(format!(
                    "{}: the variable `{}` must be a text, a number, true or false, and is {}",
                    at(value.place),
                    key.name,
                    other.kind()
                )));
            }
        };
        let mut rest = text.as_str();
        let mut done = String::new();
        while let Some((before, (name, after))) = rest
            .split_once(OPEN)
            .and_then(|(before, marked)| Some((before, marked.split_once(CLOSE)?)))
        {
            done.push_str(before);
            done.push_str(own.get(name).ok_or_else(|| undefined(name, value.place, at))?);
            rest = after;
        }
        done.push_str(rest);
        if outside.given.contains_key(&key.name) {
            // `--variable` is there to replace what the file says.
        } else if (outside.environment)(&key.name).is_some() {
            notes.push(format!(
                "the variable `{}` is set in the environment, which counts more than the configuration's own value",
                key.name
            ));
        }
        own.insert(key.name.clone(), done);
    }
    Ok((own, notes))
}

/// Whether a variable can be called so.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(is_part)
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Walk over the text and put values in the place of variables. Lines that are only a comment are left alone.
fn replace(
    text: &str,
    at: &dyn Fn(Place) -> String,
    value: &mut dyn FnMut(&str, Place) -> Result<String>,
) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if line.trim_start().starts_with('#') {
            out.push_str(line);
            continue;
        }
        let mut rest = line;
        while let Some(start) = rest.find('$') {
            let column = line[..line.len() - rest.len() + start].chars().count() as u64 + 1;
            let place = Place { line: number, column };
            let (before, after) = (&rest[..start], &rest[start + 1..]);
            out.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(braced) = after.strip_prefix('{') {
                let wrong = || {
                    Error::invalid(format!("{}: `${{` does not begin a variable", at(place)))
                        .hint("write `${NAME}` or `${NAME:-default}`; a dollar sign that means itself is written `$$`")
                };
                let (inside, after) = braced.split_once('}').ok_or_else(wrong)?;
                let (name, default) = match inside.split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (inside, None),
                };
                if !is_name(name) {
                    return Err(wrong());
                }
                let found = value(name, place);
                match default {
                    Some(default) => {
                        let known = found
                            .ok()
                            .filter(|found| !found.is_empty() && !found.contains(OPEN));
                        out.push_str(known.as_deref().unwrap_or(default));
                    }
                    None => out.push_str(&found?),
                }
                rest = after;
            } else {
                let end = after.find(|c| !is_part(c)).unwrap_or(after.len());
                let (name, after) = after.split_at(end);
                if is_name(name) {
                    out.push_str(&value(name, place)?);
                } else {
                    out.push('$');
                    out.push_str(name);
                }
                rest = after;
            }
        }
        out.push_str(rest);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str, given: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Expanded> {
        let given = given
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let environment = |wanted: &str| {
            environment
                .iter()
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| (*value).to_owned())
        };
        let outside = Outside {
            given: &given,
            environment: &environment,
        };
        expand(text, &outside, &|place| place.to_string())
    }

    fn text(text: &str, given: &[(&str, &str)], environment: &[(&str, &str)]) -> String {
        expanded(text, given, environment).unwrap().text
    }

    #[test]
    fn both_spellings_are_replaced_anywhere() {
        let values = [("A", "1"), ("B_2", "two")];
        assert_eq!(
            text("a: $A\nb: x${B_2}y\n$A: $B_2", &values, &[]),
            "a: 1\nb: xtwoy\n1: two"
        );
        assert_eq!(text("a: {to: ${A}}", &values, &[]), "a: {to: 1}");
    }

    #[test]
    fn a_dollar_sign_that_means_itself() {
        assert_eq!(text("a: $$A 5$ $1 '$'", &[("A", "1")], &[]), "a: $A 5$ $1 '$'");
    }

    #[test]
    fn given_counts_more_than_the_environment_and_that_more_than_the_text() {
        let own = "variables:\n  A: own\na: $A";
        assert_eq!(
            text(own, &[("A", "given")], &[("A", "env")]).lines().last(),
            Some("a: given")
        );
        let found = expanded(own, &[], &[("A", "env")]).unwrap();
        assert_eq!(found.text.lines().last(), Some("a: env"));
        assert_eq!(found.notes.len(), 1);
        assert_eq!(text(own, &[], &[]).lines().last(), Some("a: own"));
        assert!(expanded(own, &[], &[]).unwrap().notes.is_empty());
    }

    #[test]
    fn a_variable_may_use_those_above_it() {
        let last = |source: &str| {
            text(source, &[], &[("E", "e")])
                .lines()
                .last()
                .unwrap()
                .to_owned()
        };
        assert_eq!(last("variables:\n  A: 1$E\n  B: ${A}2\nb: $B"), "b: 1e2");
        assert!(expanded("variables:\n  B: $A\n  A: 1\nb: $B", &[], &[]).is_err());
    }

    #[test]
    fn an_undefined_variable_is_an_error_with_its_place() {
        let error = expanded("a: 1\nb: é $WRONG", &[], &[]).unwrap_err();
        assert!(error.message.contains("line 2, column 6"), "{error}");
        assert!(error.message.contains("`WRONG`"), "{error}");
        assert!(error.hint.unwrap().contains("--variable WRONG="));
        assert!(expanded("a: ${A", &[("A", "1")], &[]).is_err());
        assert!(expanded("a: ${}", &[], &[]).is_err());
    }

    #[test]
    fn a_default_stands_in_for_what_is_not_defined() {
        assert_eq!(text("a: ${A:-5}", &[], &[]), "a: 5");
        assert_eq!(text("a: ${A:-5}", &[("A", "6")], &[]), "a: 6");
        assert_eq!(
            text("variables: {A: 7}\na: ${A:-5}", &[], &[]).lines().last(),
            Some("a: 7")
        );
    }

    #[test]
    fn comments_are_left_alone() {
        assert_eq!(text("  # costs $FIVE\na: 1", &[], &[]), "  # costs $FIVE\na: 1");
    }

    #[test]
    fn the_section_maps_names_to_single_values() {
        for wrong in [
            "variables: x",
            "variables: {}",
            "variables: {A: [1]}",
            "variables: {A: }",
            "variables: {a-b: 1}",
        ] {
            assert!(expanded(wrong, &[], &[]).is_err(), "{wrong}");
        }
        assert_eq!(
            text("variables: {A: true, B: 80}\na: $A $B", &[], &[])
                .lines()
                .last(),
            Some("a: true 80")
        );
    }
}

//! Which names are allowed, how to make one up, and which one was probably meant.

use crate::error::{Error, Result};

/// The longest name of a node, identity, vault, project, relay or portal, in bytes.
pub(super) const MAX_NAME: usize = 100;

fn too_long(kind: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(format!("the {kind} name is empty")));
    }
    if name.len() > MAX_NAME {
        return Err(Error::invalid(format!(
            "the {kind} name is longer than {MAX_NAME} bytes"
        )));
    }
    Ok(())
}

fn shown(name: &str) -> String {
    name.escape_debug().take(MAX_NAME).collect()
}

/// Letters and digits (Unicode included), `-` and `_` (05 §1.1). Names become folders, so nothing else.
pub fn check_node_name(name: &str) -> Result<()> {
    too_long("node", name)?;
    if !name.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_') || name.starts_with('-') {
        return Err(Error::invalid(format!("`{}` is not a node name", shown(name)))
            .hint("use letters, digits, `-` and `_`"));
    }
    Ok(())
}

/// Names of identities and vaults: as node names, and also `.`, which cannot come first.
pub fn check_plain_name(kind: &str, name: &str) -> Result<()> {
    too_long(kind, name)?;
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.chars().all(fits) || name.starts_with(['-', '.']) {
        return Err(
            Error::invalid(format!("`{}` is not a name for {kind}", shown(name)))
                .hint("use letters, digits, `-`, `_` and `.`"),
        );
    }
    Ok(())
}

/// Runs of letters and digits separated by single spaces, `-`, `_` or `.` (05 §1.1).
pub fn check_project_name(name: &str) -> Result<()> {
    too_long("project", name)?;
    let mut separated = true;
    for c in name.chars() {
        let separator = matches!(c, ' ' | '-' | '_' | '.');
        if (separator && separated) || !(separator || c.is_alphanumeric()) {
            separated = true;
            break;
        }
        separated = separator;
    }
    if separated {
        return Err(Error::invalid(format!("`{}` is not a project name", shown(name)))
            .hint("use letters and digits, with single spaces, `-`, `_` or `.` between them"));
    }
    Ok(())
}

/// Names of relays, inlets and outlets: no white space, no control characters, no `/`, `:` or `#`, which mean something
/// in routes and addresses (03 §2.4).
pub fn check_alias(kind: &str, name: &str) -> Result<()> {
    too_long(kind, name)?;
    if let Some(bad) = name
        .chars()
        .find(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '#'))
    {
        return Err(Error::invalid(format!(
            "`{}` is not a name for {kind}: it contains `{}`",
            shown(name),
            bad.escape_debug()
        )));
    }
    Ok(())
}

const FIRST: [&str; 32] = [
    "amber", "brave", "calm", "clear", "coral", "deep", "early", "fair", "fresh", "gentle", "golden",
    "grand", "green", "high", "keen", "light", "lively", "long", "low", "merry", "north", "open", "pale",
    "quick", "quiet", "rapid", "silver", "steady", "still", "tidal", "warm", "wide",
];
const SECOND: [&str; 32] = [
    "anchor", "bay", "beacon", "bight", "bluff", "buoy", "cape", "channel", "chart", "cliff", "coast",
    "cove", "current", "delta", "dune", "estuary", "fjord", "harbor", "island", "jetty", "lagoon", "mast",
    "pier", "reef", "ridge", "sail", "shoal", "sound", "spit", "strait", "tide", "wharf",
];

/// A name of two words and a number, unlike the ones for which `taken` is true.
pub fn random_name(taken: impl Fn(&str) -> bool) -> Result<String> {
    for _ in 0..1000 {
        let mut bytes = [0u8; 4];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::failed(format!("the system gives no random numbers: {error}")))?;
        let name = format!(
            "{}-{}-{}",
            FIRST[usize::from(bytes[0]) % FIRST.len()],
            SECOND[usize::from(bytes[1]) % SECOND.len()],
            u16::from_le_bytes([bytes[2], bytes[3]]) % 1000
        );
        if !taken(&name) {
            return Ok(name);
        }
    }
    Err(Error::failed("no free random name was found").hint("give a name"))
}

/// Of `known`, the name that `wanted` was probably meant to be.
pub fn closest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (distance(wanted, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.chars().count().max(wanted.chars().count()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edits (insert, delete, replace) between two names; both are at most [`MAX_NAME`] long here.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(MAX_NAME).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().take(MAX_NAME).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_letters_digits_dash_and_underscore() {
        for name in ["n1", "blue-node_2", "größe", "節点"] {
            check_node_name(name).unwrap();
        }
        for name in [
            "",
            "n!",
            "n.1",
            "./config.yaml",
            "node.yaml",
            "a b",
            "a/b",
            "..",
            "-x",
            "a#b",
            "x\n",
        ] {
            assert!(check_node_name(name).is_err(), "{name:?}");
        }
        assert!(check_node_name(&"a".repeat(MAX_NAME + 1)).is_err());
    }

    #[test]
    fn project_names_have_single_separators_inside() {
        for name in ["default", "my project", "a.b-c_d"] {
            check_project_name(name).unwrap();
        }
        for name in ["", " a", "a ", "a  b", "a--b", "-a", "a/b", "a,b"] {
            assert!(check_project_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_relay_name_with_a_number_sign_is_refused() {
        check_alias("relays", "monitoring-api").unwrap();
        check_alias("relays", "*").unwrap();
        for name in ["a#b", "a/b", "a:b", "a b", "a\n", ""] {
            assert!(check_alias("relays", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_typing_error_finds_the_name_that_was_meant() {
        assert_eq!(
            closest("moniotring", ["monitoring", "postgres"]),
            Some("monitoring")
        );
        assert_eq!(closest("n2", ["n1"]), Some("n1"));
        assert_eq!(closest("completely-different", ["n1", "postgres"]), None);
    }

    #[test]
    fn random_names_are_allowed_names_and_not_taken() {
        for _ in 0..100 {
            check_node_name(&random_name(|_| false).unwrap()).unwrap();
        }
        assert!(random_name(|_| true).is_err());
    }
}

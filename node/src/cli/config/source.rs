//! Where a configuration comes from (05 §1.6, §2.1).

use std::io::Read;

use super::{Configuration, MAX_CONFIGURATION, variables, yaml};
use crate::cli::context::Context;
use crate::cli::{fetch, values};
use crate::error::{Error, Result};

/// What the positional of `node create` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    /// As typed.
    pub(crate) text: String,
    kind: GivenKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GivenKind {
    Name,
    File,
    Url,
    Inline,
}

impl Given {
    /// The name of a node, if it is one.
    pub(crate) fn name(&self) -> Option<&str> {
        (self.kind == GivenKind::Name).then_some(self.text.as_str())
    }

    /// Whether it is a configuration.
    pub(crate) fn is_configuration(&self) -> bool {
        self.kind != GivenKind::Name
    }

    /// Read the configuration that it is.
    pub(crate) fn read(&self, given: &[(String, String)]) -> Result<Configuration> {
        match self.kind {
            GivenKind::File => Configuration::read(&file(&self.text)?, Some(&self.text), given, &environment),
            GivenKind::Url => {
                let text = fetch::text(&self.text, "the configuration", MAX_CONFIGURATION)?;
                // The URL may hold a token in its query.
                let origin = self.text.split(['?', '#']).next();
                Configuration::read(&text, origin, given, &environment)
            }
            _ => Configuration::read(&self.text, None, given, &environment),
        }
    }

    /// The text of `--configuration`, which is a file's path if there is such a file, or a URL.
    pub(crate) fn flag(text: &str) -> Self {
        let of = |kind, text: &str| Self {
            text: text.to_owned(),
            kind,
        };
        match url(text) {
            _ if is_file(text) || !may_be_a_map(text) => of(GivenKind::File, text),
            Some(url) => of(GivenKind::Url, &url),
            None => of(GivenKind::Inline, text),
        }
    }

    /// Say so when the configuration comes over a way on which it can be changed.
    pub(crate) fn warn(&self, context: &Context) {
        if self.kind == GivenKind::Url {
            fetch::warn_if_open(context, &self.text, "the configuration");
        }
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A file, or something else that can be read like one, as `<(…)` of a shell.
fn is_file(text: &str) -> bool {
    text.len() < 4096 && !text.contains('\n') && std::fs::metadata(text).is_ok_and(|found| !found.is_dir())
}

/// What has no key cannot be a configuration: then it is a path, of a file that is not there or not a file.
fn may_be_a_map(text: &str) -> bool {
    text.contains([':', '{', '\n'])
}

fn file(path: &str) -> Result<String> {
    let fail =
        |error: std::io::Error| Error::invalid(format!("the configuration {path} cannot be read: {error}"));
    let mut text = String::new();
    std::fs::File::open(path)
        .map_err(fail)?
        .take(MAX_CONFIGURATION as u64 + 1)
        .read_to_string(&mut text)
        .map_err(fail)?;
    Ok(text)
}

/// `https://…`, `http://…`, or `host:port/path` without a scheme, which is https.
fn url(text: &str) -> Option<String> {
    if fetch::is_url(text) {
        return Some(text.to_owned());
    }
    if text.contains(char::is_whitespace) || text.contains("://") {
        return None;
    }
    let (authority, _) = text.split_once('/')?;
    let (host, port) = authority.rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| format!("https://{text}"))
}

/// The positional of `node create`: a file, a URL, a configuration as text, or the name of a node.
pub(crate) fn given(text: &str) -> Result<Given, String> {
    let of = |kind| Given {
        text: text.to_owned(),
        kind,
    };
    if is_file(text) {
        return Ok(of(GivenKind::File));
    }
    if let Some(url) = url(text) {
        return Ok(Given {
            text: url,
            kind: GivenKind::Url,
        });
    }
    if let Some((scheme, _)) = text
        .split_once("://")
        .filter(|_| !text.contains(char::is_whitespace))
    {
        return Err(format!(
            "configurations are fetched over https and http, not over `{}`",
            scheme.escape_debug()
        ));
    }
    // No name holds any of these; what else it may be, a mistake in it is then told with its place.
    if text.contains(['{', '\n']) || text.contains(": ") {
        return Ok(of(GivenKind::Inline));
    }
    match values::node(text) {
        Ok(name) => Ok(Given {
            text: name,
            kind: GivenKind::Name,
        }),
        Err(_)
            if yaml::read(text)
                .is_ok_and(|node| matches!(node.value, yaml::Value::Map(ref all) if !all.is_empty())) =>
        {
            Ok(of(GivenKind::Inline))
        }
        Err(_) if text.contains(['/', '.']) => Err(format!(
            "there is no file `{0}`, and it is no node name either (letters, digits, `-` and `_`)",
            text.escape_debug()
        )),
        Err(error) => Err(error),
    }
}

/// `--variable NAME=VALUE`.
pub(crate) fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if variables::is_name(name) && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        Some((name, "")) if variables::is_name(name) => Err(format!("the variable `{name}` has no value")),
        _ => Err("a variable is written NAME=VALUE; the name has letters, digits and `_`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_positional_is_a_file_a_text_or_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outlet.yaml");
        std::fs::write(&path, "name: a").unwrap();
        assert!(given(path.to_str().unwrap()).unwrap().is_configuration());
        for text in [
            "name: a",
            "{\"name\": \"a\"}",
            "{",
            "name: a\nrelay: b",
            "name:\n  a",
        ] {
            assert!(given(text).unwrap().is_configuration(), "{text}");
        }
        assert_eq!(given("n1").unwrap().name(), Some("n1"));
        assert_eq!(given("/node/n1").unwrap().name(), Some("n1"));
        assert!(given("./no.yaml").unwrap_err().contains("no file `./no.yaml`"));
        for path in ["no.yaml", folder.path().to_str().unwrap()] {
            assert_eq!(Given::flag(path).kind, GivenKind::File, "{path}");
        }
        assert_eq!(Given::flag("name: a").kind, GivenKind::Inline);
        for (text, url) in [
            ("https://a.example/c.yaml", "https://a.example/c.yaml"),
            ("http://a.example/c.yaml", "http://a.example/c.yaml"),
            ("localhost:8080/c.yaml", "https://localhost:8080/c.yaml"),
        ] {
            let given = given(text).unwrap();
            assert_eq!((given.kind, given.text.as_str()), (GivenKind::Url, url));
            assert_eq!(Given::flag(text), given);
        }
        assert!(given("ftp://a.example/c.yaml").unwrap_err().contains("`ftp`"));
    }

    #[test]
    fn a_variable_has_a_name_and_a_value() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), "b=c".into())));
        for wrong in ["A", "A=", "=b", "1=b", "a-b=c"] {
            assert!(variable(wrong).is_err(), "{wrong}");
        }
    }
}

//! The configuration file of a node (05 §2): what `node create CONFIGURATION` reads.
//!
//! One text says what a node should be: who it is, which project it joins, and its relays, policies, workers, outlets and
//! inlets. Nothing is done before all of it was read and checked, and what fails half-way is undone.
//!
//! - `source`: where the text comes from, and how the positional of `node create` is understood.
//! - `variables`: `$NAME` in the text.
//! - `yaml`: the text as a tree whose values know their places.
//! - `sections`: the keys at the top.
//! - `resources`: the shapes of relays, policies, workers, outlets and inlets.
//! - `json`: a part of the tree as JSON, for a worker's own configuration.
//! - `plan`: what would be done; doing it; undoing it.

mod json;
mod plan;
mod resources;
mod sections;
mod source;
mod variables;
mod yaml;

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::host_port::HostPort;
use crate::state::closest;

pub(super) use json::{document, file};
pub(super) use plan::{CommandLine, Plan};
pub(super) use source::{Given, given, variable};

use resources::Item;
use yaml::{Key, Place};

/// The longest configuration that is read, in bytes.
const MAX_CONFIGURATION: usize = 256 * 1024;

/// What a configuration is called in messages.
#[derive(Debug, Clone)]
struct Origin(Option<String>);

impl Origin {
    fn at(&self, place: Place) -> String {
        match &self.0 {
            Some(name) => format!("{name}, {place}"),
            None => format!("configuration, {place}"),
        }
    }

    /// The folder of the file, which paths in it are relative to. None for a text or a URL.
    fn folder(&self) -> Option<&std::path::Path> {
        let name = self.0.as_deref().filter(|name| !name.contains("://"))?;
        std::path::Path::new(name).parent()
    }

    /// Something is wrong at a place.
    fn wrong(&self, place: Place, reason: impl AsRef<str>) -> Error {
        Error::invalid(format!("{}: {}", self.at(place), reason.as_ref()))
    }

    /// A key that nobody knows; the one that was probably meant, and all that are known.
    fn unknown(&self, key: &Key, of: &str, known: &[&str]) -> Error {
        let shown: String = key.name.escape_debug().take(100).collect();
        let error = self.wrong(key.place, format!("{of} has no key `{shown}`"));
        match closest(&key.name.replace('_', "-"), known.iter().copied()) {
            Some(meant) => error.hint(format!("did you mean `{meant}`? (known: {})", known.join(", "))),
            None => error.hint(format!("known: {}", known.join(", "))),
        }
    }
}

/// What a configuration says, read and checked as far as that goes without looking at the home.
#[derive(Debug)]
pub(super) struct Configuration {
    origin: Origin,
    notes: Vec<String>,
    name: Option<String>,
    ticket: Option<String>,
    identity: Option<String>,
    project: Option<String>,
    tcp_listener_address: Option<HostPort>,
    foreground: bool,
    exit_on_eof: bool,
    /// In the order in which they are made.
    items: Vec<Item>,
}

impl Configuration {
    /// Read a text. `given` are the variables of the command line.
    pub(super) fn read(
        text: &str,
        origin: Option<&str>,
        given: &[(String, String)],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let origin = Origin(origin.map(str::to_owned));
        if text.len() > MAX_CONFIGURATION {
            return Err(Error::invalid(format!(
                "the configuration is longer than {MAX_CONFIGURATION} bytes"
            )));
        }
        let mut values = BTreeMap::new();
        for (name, value) in given {
            if values.insert(name.clone(), value.clone()).is_some() {
                return Err(Error::invalid(format!("--variable {name}=… is given twice")));
            }
        }
        let outside = variables::Outside {
            given: &values,
            environment,
        };
        let expanded = variables::expand(text, &outside, &|place| origin.at(place))?;
        let tree = yaml::read(&expanded.text).map_err(|error| match error.place {
            Some(place) => origin.wrong(place, error.reason),
            None => Error::invalid(format!("the configuration cannot be read: {}", error.reason)),
        })?;
        let mut configuration = sections::read(&tree, origin)?;
        configuration.notes.splice(0..0, expanded.notes);
        Ok(configuration)
    }

    /// Whether it asks for the node to run in this process.
    pub(super) fn foreground(&self) -> bool {
        self.foreground
    }
}

#[cfg(test)]
mod tests;

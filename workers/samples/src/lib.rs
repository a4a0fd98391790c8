//! Small workers that are useful as they are, and show how others are written.
//!
//! Each node has them as worker types, so that they can be started by name; a program that is a node itself starts them like any
//! worker.
//!
//! * [`rate_limiter`]: passes on a limited number of messages or bytes in each second, and drops or delays the rest.
//! * [`audit`]: writes a line of JSON for each message that passes between two addresses.
//!
//! Both stand in front of another worker, and pass messages to that one only: whoever may reach them reaches nothing else by them.
//! The authenticated peer of a message stays with it.

pub mod audit;
pub mod rate_limiter;

use std::fmt::Display;

use portolan_runtime::{Address, Route};

/// Told for each message that a task has handled: `Ok`, or why it failed.
pub type Report = Box<dyn Fn(Result<(), &dyn Display>) + Send + Sync>;

/// Where a worker passes messages on to, as its configuration says it: an address, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "Written")]
pub struct Target(Route);

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    Several(Vec<String>),
}

/// Hops that a target may have.
const MAX_TARGET: usize = 8;

impl TryFrom<Written> for Target {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let hops = match written {
            Written::One(hop) => vec![hop],
            Written::Several(hops) => hops,
        };
        if hops.is_empty() || hops.len() > MAX_TARGET {
            return Err(format!("a target has 1 to {MAX_TARGET} addresses"));
        }
        if let Some(wrong) = hops
            .iter()
            .map(|hop| hop.strip_prefix("/service/").unwrap_or(hop))
            .find(|hop| {
                hop.is_empty() || hop.len() > 255 || hop.contains(|c: char| c.is_whitespace() || c == '/')
            })
        {
            return Err(format!("`{}` is no address of a worker", wrong.escape_debug()));
        }
        Ok(Self(
            hops.iter()
                .map(|hop| Address::from(hop.strip_prefix("/service/").unwrap_or(hop)))
                .collect(),
        ))
    }
}

impl Target {
    /// The way there.
    pub fn route(&self) -> &Route {
        &self.0
    }
}

impl<R: Into<Route>> From<R> for Target {
    fn from(route: R) -> Self {
        Self(route.into())
    }
}

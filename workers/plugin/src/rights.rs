//! What a plugin may do: asked for by the plugin, granted by the owner.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use portolan_runtime::Denial;
use portolan_runtime::{AccessRule, Address, Delivery};

use crate::PluginError;
use crate::address;
use crate::error::is_unseen;

/// Rights that one plugin may ask for.
pub(crate) const MAX_RIGHTS: usize = 64;

/// Longest address in a right, in bytes.
const MAX_RIGHT: usize = 256;

/// One right. The text form is the same everywhere: in what a plugin says of itself, on the command line, in the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// `reply`: to send along the return routes of messages that it got.
    Reply,
    /// `send:ADDRESS`: to send to this address.
    Send(Pattern),
    /// `from:local`: messages of the node's own workers may reach it.
    FromLocal,
    /// `from:peers`: messages that came through a secure channel may reach it.
    FromPeers,
    /// `from:anyone`: whatever the owner lets in may reach it, also over plain connections.
    FromAnyone,
    /// `storage`: to keep keys and values in the state of the node.
    Storage,
}

/// An address, or the beginning of addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    address: Address,
    is_prefix: bool,
}

impl Pattern {
    /// Whether the address is meant.
    pub fn matches(&self, address: &Address) -> bool {
        if self.is_prefix {
            self.address.transport() == address.transport()
                && address.as_bytes().starts_with(self.address.as_bytes())
        } else {
            self.address == *address
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A local address by its name alone, as people write it.
        match (self.address.is_local(), self.address.as_str()) {
            (true, Some(name)) if !name.contains('#') => f.write_str(name)?,
            _ => write!(f, "{}", self.address)?,
        }
        f.write_str(if self.is_prefix { "*" } else { "" })
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply => f.write_str("reply"),
            Self::Send(pattern) => write!(f, "send:{pattern}"),
            Self::FromLocal => f.write_str("from:local"),
            Self::FromPeers => f.write_str("from:peers"),
            Self::FromAnyone => f.write_str("from:anyone"),
            Self::Storage => f.write_str("storage"),
        }
    }
}

impl FromStr for Right {
    type Err = PluginError;

    fn from_str(text: &str) -> Result<Self, PluginError> {
        let wrong = || PluginError::Right(crate::error::one_line(text, 256));
        Ok(match text.trim() {
            "reply" => Self::Reply,
            "storage" => Self::Storage,
            "from:local" => Self::FromLocal,
            "from:peers" => Self::FromPeers,
            "from:anyone" => Self::FromAnyone,
            other => {
                let target = other.strip_prefix("send:").ok_or_else(wrong)?;
                let (name, is_prefix) = match target.strip_suffix('*') {
                    Some(name) => (name, true),
                    None => (target, false),
                };
                // The owner decides by what he reads.
                let is_plain = name.len() <= MAX_RIGHT && !name.chars().any(is_unseen);
                if target.is_empty() || name.contains('*') || !is_plain {
                    return Err(wrong());
                }
                let address = address::parse(name).map_err(|_| wrong())?;
                Self::Send(Pattern { address, is_prefix })
            }
        })
    }
}

/// A set of rights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights(BTreeSet<Right>);

impl Rights {
    /// No right at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads rights from their text forms.
    ///
    /// # Errors
    /// [`PluginError::Right`] for the first text that is no right.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, PluginError> {
        texts.into_iter().map(|text| text.as_ref().parse()).collect()
    }

    /// The rights, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Right> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this very right is among them.
    pub fn contains(&self, right: &Right) -> bool {
        self.0.contains(right)
    }

    /// What is in these and not in `granted`: what a plugin asked for and does not get.
    pub fn without(&self, granted: &Rights) -> Rights {
        Rights(self.0.difference(&granted.0).cloned().collect())
    }

    /// Whether a right to send to this address is among them.
    pub fn may_send(&self, address: &Address) -> bool {
        self.0
            .iter()
            .any(|right| matches!(right, Right::Send(pattern) if pattern.matches(address)))
    }

    fn check(&self, delivery: &Delivery<'_>) -> Result<(), Right> {
        if self.0.contains(&Right::FromAnyone) {
            return Ok(());
        }
        let needed = if delivery.incoming_peer().is_some() {
            Right::FromPeers
        } else if delivery.comes_from_outside() {
            Right::FromAnyone
        } else {
            Right::FromLocal
        };
        if self.0.contains(&needed) {
            Ok(())
        } else {
            Err(needed)
        }
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        Self(rights.into_iter().collect())
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, right) in self.0.iter().enumerate() {
            write!(f, "{}{right}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The rule in front of a plugin's address: from whom it may be reached.
pub(crate) struct Reach(pub(crate) std::sync::Arc<crate::status::Shared>);

impl AccessRule for Reach {
    fn check(&self, delivery: &Delivery<'_>) -> Result<(), Denial> {
        let rights = self.0.rights.read();
        rights.check(delivery).map_err(|missing| {
            self.0.counters.refused_to_reach.add(1);
            Denial(format!("the plugin there was not granted `{missing}`").into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_print_as_they_are_written() {
        for text in [
            "reply",
            "storage",
            "from:local",
            "from:peers",
            "from:anyone",
            "send:db",
            "send:db-*",
            "send:*",
            "send:1#10.0.0.1:4000",
        ] {
            assert_eq!(text.parse::<Right>().unwrap().to_string(), text);
        }
        assert_eq!("send:0#db".parse::<Right>().unwrap().to_string(), "send:db");
        for wrong in [
            "",
            "send",
            "send:",
            "send:a*b",
            "from:",
            "from:everybody",
            "send:x#y",
            "Reply",
            "send:a\nb",
            "send:a\u{1b}[1A\u{1b}[2Kb",
            "send:\u{202e}tidua",
            &format!("send:{}", "a".repeat(257)),
        ] {
            assert!(wrong.parse::<Right>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pattern_means_an_address_or_all_that_begin_so() {
        let rights = Rights::parse(["send:db", "send:audit-*"]).unwrap();
        assert!(rights.may_send(&"db".into()));
        assert!(rights.may_send(&"audit-1".into()));
        assert!(!rights.may_send(&"db2".into()));
        assert!(!rights.may_send(&"audit".into()));
        assert!(!rights.may_send(&Address::new(1, b"db")));
    }
}

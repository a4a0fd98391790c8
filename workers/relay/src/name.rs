//! The name of a relay.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use portolan_runtime::Address;

use crate::protocol::{PREFIX, REFUSAL, REGISTER};

/// Longest name, in bytes. The reference has no limit; 255 is what file names and DNS names get by with, and keeps the
/// address of a relay far below what transports carry.
pub const MAX_NAME_LENGTH: usize = 255;

/// A name that a relay can have: 1 to 255 bytes of UTF-8 without `#` and control characters, and not one of the words
/// that mean something else in the protocol.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayName(Arc<str>);

/// Why a text is not the name of a relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No text at all.
    #[error("the relay's name is empty")]
    Empty,
    /// Longer than [`MAX_NAME_LENGTH`].
    #[error("the relay's name has {length} bytes; {MAX_NAME_LENGTH} are allowed")]
    TooLong {
        /// How long it is, in bytes.
        length: usize,
    },
    /// `#` separates the transport type from the rest of an address; other implementations end when they meet it
    /// (spec 03 §2.4).
    #[error("the relay's name contains `#`, which is a separator in addresses")]
    Separator,
    /// A line break, an escape, or the like.
    #[error("the relay's name contains a control character")]
    ControlCharacter,
    /// `register` asks for a random name; `refused:` begins a refusal.
    #[error("the relay's name has a meaning of its own in the protocol")]
    Reserved,
}

impl RelayName {
    /// Takes a text as a name.
    ///
    /// # Errors
    /// If it cannot be one.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            Err(NameError::Empty)
        } else if text.len() > MAX_NAME_LENGTH {
            Err(NameError::TooLong { length: text.len() })
        } else if text.contains('#') {
            Err(NameError::Separator)
        } else if text.chars().any(char::is_control) {
            Err(NameError::ControlCharacter)
        } else if text == REGISTER || text.starts_with(REFUSAL.trim_end()) {
            Err(NameError::Reserved)
        } else {
            Ok(Self(text.into()))
        }
    }

    /// A name made by chance, for a relay that was registered without one: 32 lower-case hex digits.
    pub fn random() -> Self {
        Self(Address::random().as_str().unwrap_or_default().into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text of the relay's address on the relay node: `forward_to_<name>`.
    pub fn remote_address(&self) -> String {
        format!("{PREFIX}{self}")
    }

    /// The relay's address on the relay node.
    pub fn address(&self) -> Address {
        Address::local(self.remote_address())
    }
}

impl fmt::Display for RelayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl FromStr for RelayName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn usual_names_are_names() {
        for name in [
            "default",
            "blue",
            "a b",
            "a/b,c",
            "ünï",
            "*",
            "registers",
            &"x".repeat(255),
        ] {
            assert_eq!(RelayName::new(name).unwrap().as_str(), name);
        }
        assert_eq!(RelayName::random().as_str().len(), 32);
        assert_ne!(RelayName::random(), RelayName::random());
    }

    #[test]
    fn what_cannot_be_a_name_is_told_apart() {
        assert_eq!(RelayName::new(""), Err(NameError::Empty));
        assert_eq!(
            RelayName::new(&"x".repeat(5000)),
            Err(NameError::TooLong { length: 5000 })
        );
        for separator in ["a#b", "#", "0#a", "a#b#c"] {
            assert_eq!(RelayName::new(separator), Err(NameError::Separator));
        }
        for control in ["a\nb", "\0", "\u{1b}[31m", "\u{85}"] {
            assert_eq!(RelayName::new(control), Err(NameError::ControlCharacter));
        }
        for reserved in ["register", "refused:", "refused: no"] {
            assert_eq!(RelayName::new(reserved), Err(NameError::Reserved));
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_makes_an_address_that_every_implementation_can_parse(text in "\\PC{0,300}|.{0,20}") {
            if let Ok(name) = RelayName::new(&text) {
                prop_assert_eq!(name.remote_address().parse::<Address>().unwrap(), name.address());
                prop_assert!(!text.contains('#') && !text.is_empty() && text.len() <= MAX_NAME_LENGTH);
            }
        }
    }
}

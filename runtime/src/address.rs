//! The name of one mailbox.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use crate::environment;

/// Transport type of addresses inside a node (spec 01 §2.1).
pub const LOCAL: u8 = 0;
/// Transport type of `host:port` addresses over TCP.
pub const TCP: u8 = 1;
/// Transport type of `host:port` addresses over UDP.
pub const UDP: u8 = 2;

/// Longest address body that a decoder of ours accepts, in bytes. The protocol has no limit of its own; names longer
/// than this serve nobody but an attacker.
pub const MAX_ADDRESS_LENGTH: usize = 8 * 1024;

/// Bodies up to this length live inside the address itself. Random addresses have 32 bytes, `forward_to_` plus a
/// usual name stays below it too, so that copying a route allocates nothing. With this length an address has 40 bytes:
/// a message carries several, and is moved at each hop.
const INLINE: usize = 37;

/// The name of one mailbox: a transport type and opaque bytes, conventionally UTF-8 (spec 01 §2.1).
///
/// Cloning is a small copy for usual lengths and a reference count for long ones; it never allocates.
#[derive(Clone)]
pub struct Address(Form);

#[derive(Clone)]
enum Form {
    Inline {
        transport: u8,
        length: u8,
        bytes: [u8; INLINE],
    },
    Shared {
        transport: u8,
        body: Arc<[u8]>,
    },
}

impl Address {
    /// An address of the given transport type.
    pub fn new(transport: u8, body: &[u8]) -> Self {
        Self(if body.len() <= INLINE {
            let mut bytes = [0; INLINE];
            bytes[..body.len()].copy_from_slice(body);
            Form::Inline {
                transport,
                length: body.len() as u8,
                bytes,
            }
        } else {
            Form::Shared {
                transport,
                body: Arc::from(body),
            }
        })
    }

    /// A local address with this body, taken literally: `#` has no meaning here.
    pub fn local(name: impl AsRef<[u8]>) -> Self {
        Self::new(LOCAL, name.as_ref())
    }

    /// A fresh local address: 16 random bytes as 32 lower-case hex digits (spec 01 T15).
    ///
    /// # Panics
    /// If the operating system has no randomness to give, which leaves nothing safe to do.
    pub fn random() -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut raw = [0u8; 16];
        environment::fill(&mut raw).expect("the operating system provides randomness");
        let mut text = [0u8; 32];
        for (i, byte) in raw.iter().enumerate() {
            text[2 * i] = DIGITS[usize::from(byte >> 4)];
            text[2 * i + 1] = DIGITS[usize::from(byte & 15)];
        }
        Self::new(LOCAL, &text)
    }

    /// The transport type: 0 inside the node, 1 TCP, 2 UDP.
    pub fn transport(&self) -> u8 {
        match &self.0 {
            Form::Inline { transport, .. } | Form::Shared { transport, .. } => *transport,
        }
    }

    /// Whether the address names a mailbox of this node.
    pub fn is_local(&self) -> bool {
        self.transport() == LOCAL
    }

    /// The body as it goes over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            // Never longer than the array; without the `min` each look would have a way to panic.
            Form::Inline { length, bytes, .. } => &bytes[..usize::from(*length).min(INLINE)],
            Form::Shared { body, .. } => body,
        }
    }

    /// The body as text, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()).ok()
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            // What is not used of an array is zero, so that the whole of it can be compared, which needs no loop.
            (
                Form::Inline {
                    transport,
                    length,
                    bytes,
                },
                Form::Inline {
                    transport: other_transport,
                    length: other_length,
                    bytes: other_bytes,
                },
            ) => transport == other_transport && length == other_length && bytes == other_bytes,
            _ => self.transport() == other.transport() && self.as_bytes() == other.as_bytes(),
        }
    }
}

impl Eq for Address {}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(self.transport());
        state.write(self.as_bytes());
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Address {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.transport(), self.as_bytes()).cmp(&(other.transport(), other.as_bytes()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}#{}",
            self.transport(),
            String::from_utf8_lossy(self.as_bytes()).escape_debug()
        )
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// More than one `#`.
    #[error("`{0}` is not an address: it may contain one `#` at most, between transport type and name")]
    Separator(String),
    /// What stands before `#` is not a number from 0 to 255.
    #[error("`{0}` is not an address: what stands before `#` must be a number from 0 to 255")]
    Transport(String),
}

impl FromStr for Address {
    type Err = AddressError;

    /// Parses `name` (local) or `type#name` (spec 01 §2.1).
    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.split_once('#') {
            None => Ok(Self::local(text)),
            Some((_, rest)) if rest.contains('#') => Err(AddressError::Separator(text.to_owned())),
            Some((transport, rest)) => match transport.parse::<u8>() {
                Ok(transport) => Ok(Self::new(transport, rest.as_bytes())),
                _ => Err(AddressError::Transport(text.to_owned())),
            },
        }
    }
}

/// A local address with this name, taken literally. Use [`FromStr`] for the text form with a transport type.
impl From<&str> for Address {
    fn from(name: &str) -> Self {
        Self::local(name)
    }
}

impl From<String> for Address {
    fn from(name: String) -> Self {
        Self::local(name)
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_parse_as_the_specification_says() {
        assert_eq!("echo".parse::<Address>().unwrap(), Address::local("echo"));
        assert_eq!("0#echo".parse::<Address>().unwrap(), Address::local("echo"));
        assert_eq!("1#".parse::<Address>().unwrap(), Address::new(TCP, b""));
        assert_eq!("1#127.0.0.1:4000".parse::<Address>().unwrap().transport(), TCP);
        assert!(matches!(
            "a#b".parse::<Address>(),
            Err(AddressError::Transport(_))
        ));
        assert!(matches!(
            "256#b".parse::<Address>(),
            Err(AddressError::Transport(_))
        ));
        assert!(matches!(
            "0#a#b".parse::<Address>(),
            Err(AddressError::Separator(_))
        ));
    }

    #[test]
    fn a_name_with_a_separator_is_a_name_and_no_panic() {
        assert_eq!(Address::from("a#b#c").as_bytes(), b"a#b#c");
        assert_eq!(Address::from("a#b").to_string(), "0#a#b");
    }

    #[test]
    fn random_addresses_are_32_lower_case_hex_digits() {
        let address = Address::random();
        assert_eq!(address.as_bytes().len(), 32);
        assert!(
            address
                .as_bytes()
                .iter()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        );
        assert_ne!(address, Address::random());
    }

    #[test]
    fn long_and_short_bodies_compare_by_content() {
        let long = "x".repeat(100);
        assert_eq!(Address::from(long.as_str()), Address::local(&long));
        assert!(Address::from("a") < Address::from("b"));
    }
}

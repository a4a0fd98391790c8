//! The registration messages in bytes (spec 03 §2.1, §2.2), and how a refusal is told.
//!
//! A target sends one BARE string: a name, or `register` for a name made by chance. It is answered by another one, the
//! address of the relay, with that relay as the only hop of the return route.
//!
//! # Refusals
//!
//! The reference does not answer at all when it refuses. We answer with a BARE string that begins with `refused: `.
//! An implementation that does not know this must not take it for an acceptance. It takes an answer for one if the
//! text ends with the name that it asked for, or, if it asked for a name made by chance, whatever the text is; in both
//! cases the last hop of the return route must be a local address. So a refusal
//!
//! * never ends with the name that was asked for, and
//! * has a return route whose only hop is not local ([`refusal_origin`]). Nobody can answer it, either: two services
//!   that were made to talk to each other fall silent.

use portolan_runtime::address::TCP;
use portolan_runtime::{Address, Body, DecodeError, Payload, bare};

use crate::name::{NameError, RelayName};

/// Address of the relay service; by convention asked for names made by chance.
pub const SERVICE: &str = "forwarding_service";
/// The other address of the same service; by convention asked for names that the target chooses.
pub const STATIC_SERVICE: &str = "static_forwarding_service";
/// What stands before the name in the address of a relay.
pub const PREFIX: &str = "forward_to_";
/// Asks for a relay with a name made by chance.
pub const REGISTER: &str = "register";
/// The credential attribute that names the relay which its holder may register.
pub const ATTRIBUTE: &str = "ockam-relay";
/// The value of [`ATTRIBUTE`] that stands for all names.
pub const ANY_NAME: &str = "*";
/// How the text of a refusal begins.
pub const REFUSAL: &str = "refused: ";

/// Longest reason in a refusal, in bytes, sent or shown.
pub const MAX_REASON_LENGTH: usize = 512;

/// What a target asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayRequest {
    /// A relay whose name the service makes by chance.
    Ephemeral,
    /// A relay with this name.
    Named(RelayName),
}

/// Why a registration message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is not a BARE string.
    #[error("the registration cannot be read: {0}")]
    Malformed(#[from] DecodeError),
    /// The text cannot be the name of a relay.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl RelayRequest {
    /// Which of the two service addresses a target uses for this request.
    pub fn service(&self) -> &'static str {
        match self {
            Self::Ephemeral => SERVICE,
            Self::Named(_) => STATIC_SERVICE,
        }
    }

    /// The text that is sent.
    pub fn text(&self) -> &str {
        match self {
            Self::Ephemeral => REGISTER,
            Self::Named(name) => name.as_str(),
        }
    }

    /// The registration message's payload.
    pub fn encode(&self) -> Payload {
        self.text().to_owned().encode()
    }

    /// Reads a registration message's payload. Bytes after the string are ignored.
    ///
    /// # Errors
    /// If it is not a BARE string, or the text cannot be a name.
    pub fn decode(payload: &[u8]) -> Result<Self, RequestError> {
        match bare::Reader::new(payload).string()? {
            REGISTER => Ok(Self::Ephemeral),
            name => Ok(Self::Named(RelayName::new(name)?)),
        }
    }
}

/// The payload of a refusal of the registration with this payload.
pub fn refusal(request: &[u8], reason: &str) -> Payload {
    let mut text = format!("{REFUSAL}{}", shown(reason));
    if let Ok(name) = bare::Reader::new(request).string()
        && text.ends_with(name)
    {
        text.push(if name.ends_with('.') { '!' } else { '.' });
    }
    text.encode()
}

/// The only hop of a refusal's return route.
pub fn refusal_origin() -> Address {
    Address::new(TCP, b"refused")
}

/// A reason that came from a peer, fit to be logged and shown: one line, not longer than [`MAX_REASON_LENGTH`].
pub fn shown(reason: &str) -> String {
    let mut text = String::new();
    for c in reason.trim().chars() {
        let c = if c.is_control() { ' ' } else { c };
        if text.len() + c.len_utf8() > MAX_REASON_LENGTH {
            break;
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_match_the_vectors() {
        assert_eq!(
            hex::encode(RelayRequest::Ephemeral.encode().as_slice()),
            "087265676973746572"
        );
        let named = |name: &str| RelayRequest::Named(RelayName::new(name).unwrap());
        assert_eq!(hex::encode(named("r1").encode().as_slice()), "027231");
        assert_eq!(hex::encode(named("blue").encode().as_slice()), "04626c7565");
        assert_eq!(RelayRequest::decode(b"\x04blue and more").unwrap(), named("blue"));
        assert_eq!(
            RelayRequest::decode(b"\x08register").unwrap(),
            RelayRequest::Ephemeral
        );
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        assert!(matches!(
            RelayRequest::decode(b""),
            Err(RequestError::Malformed(_))
        ));
        assert!(matches!(
            RelayRequest::decode(b"\x05blue"),
            Err(RequestError::Malformed(_))
        ));
        assert!(matches!(
            RelayRequest::decode(b"\x01\xff"),
            Err(RequestError::Malformed(_))
        ));
        assert!(matches!(
            RelayRequest::decode(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            Err(RequestError::Malformed(_))
        ));
        assert_eq!(RelayRequest::decode(b"\x00"), Err(NameError::Empty.into()));
        assert_eq!(RelayRequest::decode(b"\x03a#b"), Err(NameError::Separator.into()));
    }

    proptest! {
        #[test]
        fn a_refusal_never_ends_with_the_name_that_was_asked_for(
            name in "[a-z.!]{1,6}|\\PC{1,5}",
            reason in "\\PC{0,40}",
            ends_so in any::<bool>(),
        ) {
            let reason = if ends_so { format!("{reason}{name}") } else { reason };
            let text = String::decode(refusal(name.clone().encode().as_slice(), &reason).as_slice()).unwrap();
            prop_assert!(text.starts_with(REFUSAL));
            prop_assert!(!text.ends_with(&name));
        }

        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(request) = RelayRequest::decode(&bytes) {
                let (text, encoded) = (request.text().as_bytes(), request.encode());
                prop_assert!(encoded.as_slice().ends_with(text));
                prop_assert_eq!(RelayRequest::decode(encoded.as_slice()).unwrap(), request);
            }
        }

        #[test]
        fn what_is_shown_is_one_short_line(text in ".{0,1000}") {
            let shown = shown(&text);
            prop_assert!(shown.len() <= MAX_REASON_LENGTH);
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}

//! What two ends agree on beyond the reference protocol, inside their handshake (spec 06).
//!
//! ```text
//! -> message 1   payload                      {1: [suite, suite…], 5: 1, 6: 1}   offer
//! <- message 2   4th element of the identity  {1: suite, 5: 1, 6: 1}             answer
//! -> message 3   4th element of the identity  {1: suite, 5: 1, 6: 1}             confirmation
//! ```
//!
//! | key | extension | offer | answer and confirmation |
//! |---|---|---|---|
//! | 1 | X1, cipher suites | the numbers of suites, the preferred first | the chosen one |
//! | 5 | X5, sealed headers | `1` | `1`, or left out |
//! | 6 | X6, windows of channels | `1` | `1`, or left out |
//!
//! A peer that knows nothing of this ignores the offer and answers nothing; then the channel is that of the reference.
//! Nobody in between can bring that about: the offer is in the clear, but a part of the hash that message 2 is sealed under,
//! so that the answer to another offer, or to none, does not open; answer and confirmation are sealed. So an offer that
//! is stripped or altered ends the handshake, and what is agreed on is what both ends want.
//!
//! Pure, as the handshake is: [`Abilities::offer`], then [`Abilities::read_answer`] at the initiator;
//! [`Abilities::answer`], then [`Answer::check_confirmation`] at the responder. Both yield the same [`Agreement`].

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use crate::aead::{Suite, Suites};
use crate::wire::WireError;

/// The longest map, in bytes.
pub const MAX_MAP_LEN: usize = 2048;
/// Entries of a list of suites that are read.
const MAX_SUITES: u64 = 64;

const KEY_SUITES: u64 = 1;
const KEY_SEALED_HEADERS: u64 = 5;
/// The version of sealed headers that we speak, and the value of their key.
const SEALED_HEADERS: u64 = 1;
const KEY_WINDOWS: u64 = 6;
/// The same of windows.
const WINDOWS: u64 = 1;

/// Why two ends that follow the extensions cannot have a channel. Never a reason to try again without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// The peer has none of the suites that we allow.
    #[error("the peer has none of the cipher suites that are allowed here")]
    NoCommonSuite,
    /// The peer's answer or confirmation cannot be read.
    #[error("its answer to our offer of extensions cannot be read")]
    Malformed,
    /// The peer chose what was not offered.
    #[error("it chose an extension or a cipher suite that was not offered")]
    NotOffered,
    /// The initiator does not confirm what we chose.
    #[error("it does not confirm the extensions that were chosen")]
    NotConfirmed,
}

/// What this end can do and wants, beyond the reference protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// The suites that may protect records, the preferred first.
    pub suites: Suites,
    /// Whether records of inner channels may be carried under a sealed header.
    pub sealed_headers: bool,
    /// Whether no more may be on its way than the peer says has arrived, and a window more ([`crate::window`]).
    pub windows: bool,
}

/// What both ends want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Agreement {
    /// The suite of the record layer.
    pub suite: Suite,
    /// Whether records of inner channels may be carried under a sealed header.
    pub sealed_headers: bool,
    /// Whether no more may be on its way than the peer says has arrived, and a window more ([`crate::window`]).
    pub windows: bool,
}

/// What a responder has answered to an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    agreement: Agreement,
    /// There was an offer, so that the answer goes into message 2 and must be confirmed.
    carried: bool,
}

impl Abilities {
    /// What the reference can do, and nothing else.
    #[must_use]
    pub fn reference() -> Self {
        Self {
            suites: Suites::only(Suite::Aes256Gcm),
            sealed_headers: false,
            windows: false,
        }
    }

    /// The payload of message 1. Empty if there is nothing to offer: the message is then the reference's.
    #[must_use]
    pub fn offer(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if *self != Self::reference() {
            let mut encoder = Encoder::new(&mut out);
            let suites = self.suites.as_slice();
            let written = (|| {
                encoder
                    .map(1 + u64::from(self.sealed_headers) + u64::from(self.windows))?
                    .u64(KEY_SUITES)?
                    .array(suites.len() as u64)?;
                for suite in suites {
                    encoder.u64(suite.number())?;
                }
                put_wanted(&mut encoder, self.sealed_headers, self.windows)
            })();
            written.expect("writing into memory does not fail");
        }
        out
    }

    /// At the responder: chooses from the payload of message 1.
    ///
    /// What is no offer is ignored, as the reference does: it could be anybody's, and if it was an offer once, then the
    /// handshake fails anyway.
    ///
    /// # Errors
    /// [`NegotiationError::NoCommonSuite`]
    pub fn answer(&self, payload_1: &[u8]) -> Result<Answer, NegotiationError> {
        // A single suite is what an answer looks like, not an offer.
        let offer = Fields::decode(payload_1)
            .ok()
            .filter(|fields| !matches!(fields.suites, Some(Value::Number(_))));
        let suite = match offer.and_then(|fields| fields.suites) {
            Some(Value::List(offered)) => self.choose(offered),
            _ => Some(Suite::default()),
        };
        let suite = suite
            .filter(|suite| self.suites.contains(*suite))
            .ok_or(NegotiationError::NoCommonSuite)?;
        let sealed_headers =
            self.sealed_headers && offer.is_some_and(|fields| fields.sealed_headers == Some(SEALED_HEADERS));
        let windows = self.windows && offer.is_some_and(|fields| fields.windows == Some(WINDOWS));
        Ok(Answer {
            agreement: Agreement {
                suite,
                sealed_headers,
                windows,
            },
            carried: offer.is_some(),
        })
    }

    /// The suite for an initiator that prefers them in this order. If both ends prefer the same, that one. If not, one of
    /// them is slow with AES-256-GCM, and so the other is taken.
    fn choose(&self, offered: Offered) -> Option<Suite> {
        let mut common = offered
            .into_iter()
            .flatten()
            .filter(|suite| self.suites.contains(*suite));
        let theirs = common.next()?;
        let ours = self
            .suites
            .as_slice()
            .iter()
            .find(|suite| offered.contains(&Some(**suite)));
        if ours == Some(&theirs) {
            return Some(theirs);
        }
        common.chain([theirs]).find(|suite| *suite != Suite::Aes256Gcm)
    }

    /// At the initiator: what the responder has chosen, from the fourth element of its identity in message 2, if there is one.
    ///
    /// # Errors
    /// [`NegotiationError`]
    pub fn read_answer(&self, element: Option<&[u8]>) -> Result<Agreement, NegotiationError> {
        let answered = match element {
            Some(element) if *self != Self::reference() => Agreement::decode(element)?,
            // The peer knows no extensions, or we have offered none and it speaks of something else.
            _ => Agreement::default(),
        };
        if !self.suites.contains(answered.suite) {
            return Err(if element.is_some() {
                NegotiationError::NotOffered
            } else {
                NegotiationError::NoCommonSuite
            });
        }
        if answered.sealed_headers && !self.sealed_headers || answered.windows && !self.windows {
            return Err(NegotiationError::NotOffered);
        }
        Ok(answered)
    }

    /// At the initiator: the fourth element of the identity in message 3, after an answer.
    #[must_use]
    pub fn confirmation(&self, element: Option<&[u8]>, agreement: Agreement) -> Option<Vec<u8>> {
        (element.is_some() && *self != Self::reference()).then(|| agreement.encode())
    }
}

impl Answer {
    /// What was chosen.
    #[must_use]
    pub fn agreement(&self) -> Agreement {
        self.agreement
    }

    /// The fourth element of the identity in message 2; nothing for an initiator that has offered nothing.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        self.carried.then(|| self.agreement.encode())
    }

    /// Whether the initiator has understood what was chosen, by the fourth element of its identity in message 3.
    ///
    /// # Errors
    /// [`NegotiationError::NotConfirmed`], [`NegotiationError::Malformed`]
    pub fn check_confirmation(&self, element: Option<&[u8]>) -> Result<Agreement, NegotiationError> {
        if self.carried {
            let confirmed = Agreement::decode(element.ok_or(NegotiationError::NotConfirmed)?)?;
            if confirmed != self.agreement {
                return Err(NegotiationError::NotConfirmed);
            }
        }
        Ok(self.agreement)
    }
}

impl Agreement {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out);
        let written = (|| {
            encoder
                .map(1 + u64::from(self.sealed_headers) + u64::from(self.windows))?
                .u64(KEY_SUITES)?
                .u64(self.suite.number())?;
            put_wanted(&mut encoder, self.sealed_headers, self.windows)
        })();
        written.expect("writing into memory does not fail");
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, NegotiationError> {
        let fields = Fields::decode(bytes).map_err(|_| NegotiationError::Malformed)?;
        let suite = match fields.suites {
            None => Suite::default(),
            Some(Value::Number(number)) => Suite::from_number(number).ok_or(NegotiationError::NotOffered)?,
            Some(Value::List(_)) => return Err(NegotiationError::Malformed),
        };
        let chosen = |version: Option<u64>, ours| match version {
            None => Ok(false),
            Some(version) if version == ours => Ok(true),
            Some(_) => Err(NegotiationError::NotOffered),
        };
        Ok(Self {
            suite,
            sealed_headers: chosen(fields.sealed_headers, SEALED_HEADERS)?,
            windows: chosen(fields.windows, WINDOWS)?,
        })
    }
}

fn put_wanted(
    encoder: &mut Encoder<&mut Vec<u8>>,
    sealed_headers: bool,
    windows: bool,
) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
    if sealed_headers {
        encoder.u64(KEY_SEALED_HEADERS)?.u64(SEALED_HEADERS)?;
    }
    if windows {
        encoder.u64(KEY_WINDOWS)?.u64(WINDOWS)?;
    }
    Ok(())
}

/// The suites of an offer that we know, in its order.
type Offered = [Option<Suite>; Suite::ALL.len()];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Number(u64),
    List(Offered),
}

/// A map as it was read; keys that we do not know are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Fields {
    suites: Option<Value>,
    sealed_headers: Option<u64>,
    windows: Option<u64>,
}

impl Fields {
    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_MAP_LEN {
            return Err(WireError::Limit("a map of extensions is longer than 2048 bytes"));
        }
        let malformed = |what: &'static str| WireError::Malformed(what.to_owned());
        let mut decoder = Decoder::new(bytes);
        let mut fields = Self::default();
        let mut left = decoder.map()?;
        loop {
            match &mut left {
                Some(0) => break,
                Some(left) => *left -= 1,
                None if decoder.datatype()? == Type::Break => {
                    decoder.skip()?;
                    break;
                }
                None => {}
            }
            let key = match decoder.datatype()? {
                Type::U8 | Type::U16 | Type::U32 | Type::U64 => Some(decoder.u64()?),
                _ => {
                    decoder.skip()?;
                    None
                }
            };
            let twice = match key {
                Some(KEY_SUITES) => fields.suites.replace(suites(&mut decoder)?).is_some(),
                Some(KEY_SEALED_HEADERS) => fields.sealed_headers.replace(decoder.u64()?).is_some(),
                Some(KEY_WINDOWS) => fields.windows.replace(decoder.u64()?).is_some(),
                _ => {
                    decoder.skip()?;
                    false
                }
            };
            if twice {
                return Err(malformed("a key stands twice in a map of extensions"));
            }
        }
        if decoder.position() != bytes.len() {
            return Err(malformed("something stands behind a map of extensions"));
        }
        Ok(fields)
    }
}

/// A suite, or a list of suites; in a list those that we do not know are skipped.
fn suites(decoder: &mut Decoder<'_>) -> Result<Value, WireError> {
    if decoder.datatype()? != Type::Array {
        return Ok(Value::Number(decoder.u64()?));
    }
    let indefinite = || WireError::Malformed("a list of cipher suites has no length".to_owned());
    let count = decoder.array()?.ok_or_else(indefinite)?;
    if count > MAX_SUITES {
        return Err(WireError::Limit("more than 64 cipher suites are offered"));
    }
    let mut list = Offered::default();
    for _ in 0..count {
        let suite = Suite::from_number(decoder.u64()?);
        if suite.is_some()
            && !list.contains(&suite)
            && let Some(free) = list.iter_mut().find(|place| place.is_none())
        {
            *free = suite;
        }
    }
    Ok(Value::List(list))
}

#[cfg(test)]
mod tests;

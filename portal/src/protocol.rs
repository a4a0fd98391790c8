//! The messages of a portal, and their bytes (spec 01 §10.2, spec 06 X3).
//!
//! | tag | message | body | who understands it |
//! |---|---|---|---|
//! | `00` | Ping | nothing, or an [`Offer`] | all; a stock peer ignores the offer |
//! | `01` | Pong | nothing, or the accepted [`Offer`] | all |
//! | `02` | Disconnect | – | all: both directions end |
//! | `03` | Payload | BARE data | all |
//! | `04` | Credit | varint: the reader takes as many bytes more | after X3 part 1 was agreed |
//! | `05` | End | – : the sender's direction ends, the other goes on | after X3 part 2 was agreed |
//! | `06` | Close | varint reason, BARE string text: both directions end | after X3 part 3 was agreed |
//! | `07` | Reclaim | varint: the reader takes back as much credit, if it is unused | after X3 part 7 was agreed |
//! | `08` | Returned | varint: so much was unused, and is given back | after X3 part 7 was agreed |

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use portolan_runtime::{DecodeError, Payload, bare};

/// Longest offer, in bytes (spec 06).
pub const MAX_OFFER: usize = 2048;
/// Longest text of a reason, in bytes; what is longer is cut.
pub const MAX_REASON_TEXT: usize = 256;

const PING: u8 = 0;
const PONG: u8 = 1;
const DISCONNECT: u8 = 2;
const PAYLOAD: u8 = 3;
const CREDIT: u8 = 4;
const END: u8 = 5;
const CLOSE: u8 = 6;
const RECLAIM: u8 = 7;
const RETURNED: u8 = 8;

/// What one end can do beyond the reference (extension X3): a CBOR map with small keys, of which unknown ones are
/// skipped. An extension is used when it stands in the Ping and in the Pong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offer {
    /// Key 1: the bytes that the other end may send before it gets credit. Each message costs its payload and
    /// [`crate::stream::MESSAGE_COST`].
    pub window: Option<u32>,
    /// Key 2: one direction can end before the other.
    pub half_close: bool,
    /// Key 3: an end says why it closes.
    pub reasons: bool,
    /// Key 6. In a Ping: bytes may follow before the Pong, to the address that the Ping went to. In a Pong: they were
    /// taken, and so will those behind further Pings.
    pub early: bool,
    /// Key 7: credit that nobody uses is given back.
    pub reclaim: bool,
}

impl Offer {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        let flags = [
            (2, self.half_close),
            (3, self.reasons),
            (6, self.early),
            (7, self.reclaim),
        ];
        let set = flags.iter().filter(|(_, set)| *set);
        let entries = u64::from(self.window.is_some()) + set.clone().count() as u64;
        let mut encoder = Encoder::new(out);
        // Writing into a vector cannot fail.
        let _ = encoder.map(entries);
        if let Some(window) = self.window {
            let _ = encoder.u8(1).and_then(|encoder| encoder.u32(window));
        }
        for (key, _) in set {
            let _ = encoder.u8(*key).and_then(|encoder| encoder.bool(true));
        }
    }

    /// Reads an offer. Whatever is not one, a stock peer's or a stranger's bytes, counts as none.
    fn decode(bytes: &[u8]) -> Self {
        if bytes.is_empty() || bytes.len() > MAX_OFFER {
            return Self::default();
        }
        Self::decode_map(&mut Decoder::new(bytes)).unwrap_or_default()
    }

    fn decode_map(decoder: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        let mut offer = Self::default();
        let Some(entries) = decoder.map()? else {
            return Ok(offer);
        };
        for _ in 0..entries {
            let flag = |decoder: &mut Decoder<'_>| match decoder.datatype()? {
                Type::Bool => decoder.bool(),
                _ => decoder.skip().map(|()| false),
            };
            match decoder.u64()? {
                1 if matches!(decoder.datatype()?, Type::U8 | Type::U16 | Type::U32) => {
                    offer.window = Some(decoder.u32()?);
                }
                2 => offer.half_close = flag(decoder)?,
                3 => offer.reasons = flag(decoder)?,
                6 => offer.early = flag(decoder)?,
                7 => offer.reclaim = flag(decoder)?,
                _ => decoder.skip()?,
            }
        }
        Ok(offer)
    }
}

/// Why a portal connection ended, as one end tells the other (X3 part 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Both applications are done.
    Finished,
    /// The target cannot be connected to.
    Unreachable,
    /// A policy forbids it.
    Denied,
    /// Too many connections.
    Limit,
    /// The application's connection broke.
    Reset,
    /// The application did not read what it was sent.
    Stalled,
    /// The outlet, the inlet or the node stops.
    Stopped,
    /// The other end broke the protocol.
    Protocol,
    /// An interceptor ended it, or failed.
    Intercepted,
    /// A reason that this version does not know.
    Other(u64),
}

impl Reason {
    fn code(self) -> u64 {
        match self {
            Self::Finished => 0,
            Self::Unreachable => 1,
            Self::Denied => 2,
            Self::Limit => 3,
            Self::Reset => 4,
            Self::Stalled => 5,
            Self::Stopped => 6,
            Self::Protocol => 7,
            Self::Intercepted => 8,
            Self::Other(code) => code,
        }
    }

    fn from_code(code: u64) -> Self {
        match code {
            0 => Self::Finished,
            1 => Self::Unreachable,
            2 => Self::Denied,
            3 => Self::Limit,
            4 => Self::Reset,
            5 => Self::Stalled,
            6 => Self::Stopped,
            7 => Self::Protocol,
            8 => Self::Intercepted,
            other => Self::Other(other),
        }
    }
}

/// A decoded message; the bytes of a payload are given by where they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortalMessage {
    /// An inlet asks an outlet for a connection.
    Ping(Offer),
    /// The outlet has connected.
    Pong(Offer),
    /// Both directions end.
    Disconnect,
    /// Bytes of the stream.
    Payload {
        /// Where they begin.
        start: usize,
        /// Where they end.
        end: usize,
    },
    /// The reader takes more.
    Credit(u64),
    /// The sender's direction ends.
    End,
    /// Both directions end, and why.
    Close(Reason, String),
    /// The reader takes credit back.
    Reclaim(u64),
    /// The sender gives credit back.
    Returned(u64),
}

impl PortalMessage {
    /// Reads a message. The packet counter that may follow a payload (spec 01 T6) is not looked at: no peer sends it.
    ///
    /// # Errors
    /// If the tag is unknown or the message is cut short.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = bare::Reader::new(bytes);
        Ok(match reader.u8()? {
            PING => Self::Ping(Offer::decode(reader.rest())),
            PONG => Self::Pong(Offer::decode(reader.rest())),
            DISCONNECT => Self::Disconnect,
            PAYLOAD => {
                let length = reader.data()?.len();
                let end = bytes.len() - reader.rest().len();
                Self::Payload {
                    start: end - length,
                    end,
                }
            }
            CREDIT => Self::Credit(reader.uint()?),
            END => Self::End,
            CLOSE => {
                let reason = Reason::from_code(reader.uint()?);
                let text = reader.string().unwrap_or_default();
                let cut = text.floor_char_boundary(MAX_REASON_TEXT);
                Self::Close(reason, text[..cut].to_owned())
            }
            RECLAIM => Self::Reclaim(reader.uint()?),
            RETURNED => Self::Returned(reader.uint()?),
            _ => return Err(DecodeError::Invalid("unknown portal message")),
        })
    }

    /// Whether these are the bytes of a payload, well-formed or not.
    pub(crate) fn is_payload(bytes: &[u8]) -> bool {
        bytes.first() == Some(&PAYLOAD)
    }

    /// The bytes of a message other than a payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        match self {
            Self::Ping(offer) => {
                out.push(PING);
                offer.encode(&mut out);
            }
            Self::Pong(offer) => {
                out.push(PONG);
                offer.encode(&mut out);
            }
            Self::Disconnect => out.push(DISCONNECT),
            Self::Payload { .. } => out.push(PAYLOAD),
            Self::Credit(bytes) => {
                out.push(CREDIT);
                bare::put_uint(&mut out, *bytes);
            }
            Self::End => out.push(END),
            Self::Reclaim(bytes) => {
                out.push(RECLAIM);
                bare::put_uint(&mut out, *bytes);
            }
            Self::Returned(bytes) => {
                out.push(RETURNED);
                bare::put_uint(&mut out, *bytes);
            }
            Self::Close(reason, text) => {
                out.push(CLOSE);
                bare::put_uint(&mut out, reason.code());
                bare::put_data(
                    &mut out,
                    &text.as_bytes()[..text.floor_char_boundary(MAX_REASON_TEXT)],
                );
            }
        }
        out
    }
}

impl From<&PortalMessage> for Payload {
    /// The encoding. That of a credit, of which a stream has one for every few chunks, allocates nothing.
    fn from(message: &PortalMessage) -> Self {
        let PortalMessage::Credit(bytes) = message else {
            return message.encode().into();
        };
        let (varint, digits) = bare::uint(*bytes);
        let mut payload = Self::with_capacity(1 + digits);
        payload.append(&[CREDIT]);
        payload.append(&varint[..digits]);
        payload
    }
}

/// What stands in front of the bytes of a payload, and how long that is.
pub fn payload_header(length: usize) -> ([u8; 11], usize) {
    let (varint, digits) = bare::uint(length as u64);
    let mut header = [0; 11];
    header[0] = PAYLOAD;
    header[1..=digits].copy_from_slice(&varint[..digits]);
    (header, digits + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unhex(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    #[test]
    fn messages_match_the_vectors() {
        assert_eq!(PortalMessage::Ping(Offer::default()).encode(), [0]);
        assert_eq!(PortalMessage::Pong(Offer::default()).encode(), [1]);
        assert_eq!(PortalMessage::Disconnect.encode(), [2]);
        for (length, header) in [
            (0, "0300"),
            (5, "0305"),
            (128 * 1024, "03808008"),
            (48 * 1024, "03808003"),
        ] {
            let (bytes, used) = payload_header(length);
            assert_eq!(hex::encode(&bytes[..used]), header);
        }
        assert_eq!(
            PortalMessage::decode(&unhex("030568656c6c6f")).unwrap(),
            PortalMessage::Payload { start: 2, end: 7 }
        );
        assert_eq!(
            PortalMessage::decode(&unhex("030568656c6c6f017b00")).unwrap(),
            PortalMessage::Payload { start: 2, end: 7 },
            "a counter may follow"
        );
    }

    #[test]
    fn extensions_match_our_vectors() {
        let offer = Offer {
            window: Some(262_144),
            half_close: true,
            reasons: true,
            ..Offer::default()
        };
        assert_eq!(
            hex::encode(PortalMessage::Ping(offer).encode()),
            "00a3011a0004000002f503f5"
        );
        assert_eq!(
            PortalMessage::decode(&PortalMessage::Ping(offer).encode()).unwrap(),
            PortalMessage::Ping(offer)
        );
        let all = Offer {
            window: Some(65_536),
            early: true,
            reclaim: true,
            ..offer
        };
        assert_eq!(
            hex::encode(PortalMessage::Ping(all).encode()),
            "00a5011a0001000002f503f506f507f5"
        );
        assert_eq!(
            PortalMessage::decode(&PortalMessage::Pong(all).encode()).unwrap(),
            PortalMessage::Pong(all)
        );
        assert_eq!(hex::encode(PortalMessage::Credit(131_072).encode()), "04808008");
        for bytes in [0, 1, 127, 128, 131_072, u64::MAX] {
            let credit = PortalMessage::Credit(bytes);
            assert_eq!(Payload::from(&credit).as_slice(), credit.encode());
        }
        for (message, bytes) in [
            (PortalMessage::Reclaim(131_072), "07808008"),
            (PortalMessage::Returned(300), "08ac02"),
        ] {
            assert_eq!(hex::encode(message.encode()), bytes);
            assert_eq!(PortalMessage::decode(&unhex(bytes)).unwrap(), message);
        }
        assert_eq!(hex::encode(PortalMessage::End.encode()), "05");
        let close = PortalMessage::Close(Reason::Unreachable, "no".into());
        assert_eq!(hex::encode(close.encode()), "0601026e6f");
        assert_eq!(PortalMessage::decode(&close.encode()).unwrap(), close);
    }

    #[test]
    fn unknown_keys_of_an_offer_are_skipped_and_garbage_is_none() {
        let message = PortalMessage::decode(&unhex("00a3186382010202f50a6161")).unwrap();
        assert_eq!(
            message,
            PortalMessage::Ping(Offer {
                half_close: true,
                ..Offer::default()
            })
        );
        for garbage in ["00ff", "0101", "00a1", "00bf", "00a101f5", "01a1017fffff"] {
            let message = PortalMessage::decode(&unhex(garbage)).unwrap();
            assert!(
                matches!(message, PortalMessage::Ping(offer) | PortalMessage::Pong(offer) if offer.is_empty()),
                "{garbage}"
            );
        }
        let mut long = vec![0];
        long.extend(vec![0xa0; MAX_OFFER + 1]);
        assert_eq!(
            PortalMessage::decode(&long).unwrap(),
            PortalMessage::Ping(Offer::default())
        );
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in ["", "07", "08", "09", "8300", "0306aa", "0380", "04", "06"] {
            assert!(PortalMessage::decode(&unhex(text)).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = PortalMessage::decode(&bytes);
        }
    }
}

//! Cutting a byte stream into frames (spec 01 §6.2).
//!
//! ```text
//! stream = version frame*
//! version = 01
//! frame = length(u32, big-endian) message(length bytes)
//! ```

/// The only protocol version.
pub const VERSION: u8 = 1;

/// Longest message in a frame, in bytes.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;

/// Bytes of the length in front of a frame.
pub const HEADER: usize = 4;

/// What is wrong with a stream. The peer is at fault; the connection is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte is not [`VERSION`].
    #[error(
        "the peer speaks version {0} of the protocol, we speak {VERSION}; it may not be a Portolan or Ockam node"
    )]
    Version(u8),
    /// A header announces more than is allowed.
    #[error("the peer announces a message of {length} bytes, {limit} are allowed")]
    TooLong {
        /// The announced length in bytes.
        length: usize,
        /// The limit that applied.
        limit: usize,
    },
    /// No message has zero bytes.
    #[error("the peer sent an empty frame")]
    Empty,
}

/// What the bytes received so far contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A frame that is complete when there are this many bytes, header included.
    Complete(usize),
    /// The frame that has begun will have this many bytes, header included.
    Partial(usize),
    /// The header itself is not complete.
    Header,
}

/// Looks at the front of what was received after the version byte.
///
/// # Errors
/// If the announced message is empty or longer than `limit`.
pub fn check(received: &[u8], limit: usize) -> Result<Progress, FrameError> {
    let Some(header) = received.first_chunk::<HEADER>() else {
        return Ok(Progress::Header);
    };
    let length = u32::from_be_bytes(*header) as usize;
    if length == 0 {
        return Err(FrameError::Empty);
    }
    let limit = limit.min(MAX_FRAME);
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    let total = HEADER + length;
    Ok(if received.len() < total {
        Progress::Partial(total)
    } else {
        Progress::Complete(total)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_are_found_wherever_the_stream_is_cut() {
        let frame = hex::decode("0000001783818200446563686f81820043617070460568656c6c6f").unwrap();
        // The vector's message has 24 bytes less one: its length says 23.
        let total = HEADER + 0x17;
        for cut in 0..total {
            let progress = check(&frame[..cut], MAX_FRAME).unwrap();
            assert_eq!(
                progress,
                if cut < HEADER {
                    Progress::Header
                } else {
                    Progress::Partial(total)
                }
            );
        }
        assert_eq!(check(&frame, MAX_FRAME), Ok(Progress::Complete(total)));
    }

    #[test]
    fn a_header_beyond_the_limit_is_refused_before_its_message_arrives() {
        assert_eq!(
            check(&[0x01, 0, 0, 1], MAX_FRAME),
            Err(FrameError::TooLong {
                length: 0x0100_0001,
                limit: MAX_FRAME
            })
        );
        assert_eq!(
            check(&[0, 1, 0, 0], 100),
            Err(FrameError::TooLong {
                length: 65536,
                limit: 100
            })
        );
        assert_eq!(check(&[0, 0, 0, 0, 1], 100), Err(FrameError::Empty));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), limit in any::<usize>()) {
            let _ = check(&bytes, limit);
        }
    }
}

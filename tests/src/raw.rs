//! A hostile peer: the TCP transport written byte by byte (spec 01 §6), without any code of the product.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::service::{self, End};

/// The version byte that both sides send first.
pub const VERSION: u8 = 1;

/// A connection to a node's TCP listener.
#[derive(Debug)]
pub struct Peer {
    /// The socket; nothing has been sent unless [`Peer::greet`] was used.
    pub stream: TcpStream,
}

impl Peer {
    /// Connects and sends nothing.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self {
            stream: service::connect(address),
        }
    }

    /// Connects and sends the version byte.
    ///
    /// # Panics
    /// When the connection is refused or ends at once.
    #[track_caller]
    pub fn greet(address: SocketAddr) -> Self {
        let mut peer = Self::connect(address);
        peer.stream
            .write_all(&[VERSION])
            .expect("a new connection takes a byte");
        peer
    }

    /// Sends bytes as they are. A connection that has been closed meanwhile is no error: the scenario looks at its end.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends one frame with this message.
    pub fn send_frame(&mut self, message: &[u8]) {
        let mut frame = u32::try_from(message.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes()
            .to_vec();
        frame.extend_from_slice(message);
        self.send(&frame);
    }

    /// Reads one frame; the version byte of the other side has to be read first, with [`Peer::read_version`].
    ///
    /// # Errors
    /// When the connection ends or nothing comes within `limit`.
    pub fn read_frame(&mut self, limit: Duration) -> io::Result<Vec<u8>> {
        self.stream.set_read_timeout(Some(limit))?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut message)?;
        Ok(message)
    }

    /// Reads the version byte of the other side.
    ///
    /// # Errors
    /// When the connection ends or nothing comes.
    pub fn read_version(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// How the connection ends, waiting at most `limit` for each byte.
    pub fn end(&mut self, limit: Duration) -> End {
        service::end_of(&mut self.stream, limit)
    }
}

/// A message in CBOR: routes of local addresses, payload.
pub fn message(onward: &[&[u8]], back: &[&[u8]], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x83];
    for route in [onward, back] {
        head(&mut out, 4, route.len() as u64);
        for address in route {
            out.extend_from_slice(&[0x82, 0x00]);
            head(&mut out, 2, address.len() as u64);
            out.extend_from_slice(address);
        }
    }
    head(&mut out, 2, payload.len() as u64);
    out.extend_from_slice(payload);
    out
}

/// A BARE string or byte vector: length, bytes. What the echo and uppercase services expect as payload.
pub fn bare_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length as u8 & 0x7f) | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

/// The head of a CBOR item of this major type.
pub fn head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    match value {
        0..24 => out.push(major | value as u8),
        24..0x100 => out.extend_from_slice(&[major | 24, value as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_message_is_the_keep_alive_of_the_specification() {
        assert_eq!(message(&[], &[], b""), [0x83, 0x80, 0x80, 0x40]);
    }

    #[test]
    fn lengths_of_every_size_have_their_cbor_head() {
        let mut out = Vec::new();
        for value in [23, 24, 0xff, 0x100, 0xffff, 0x1_0000, 0x1_0000_0000] {
            out.clear();
            head(&mut out, 2, value);
            let expected: &[usize] = &[1, 2, 2, 3, 3, 5, 9];
            let index = [23, 24, 0xff, 0x100, 0xffff, 0x1_0000, 0x1_0000_0000]
                .iter()
                .position(|v| *v == value)
                .unwrap();
            assert_eq!(out.len(), expected[index]);
        }
    }
}

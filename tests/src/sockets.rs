//! Which sockets a process has that others could send to, as `/proc` tells it.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A socket on which a process takes what others send, unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Open {
    /// `tcp`, `udp`, `raw`…
    pub protocol: &'static str,
    /// Where.
    pub address: SocketAddr,
}

/// TCP sockets that listen, and every UDP and raw socket, of this process.
///
/// # Panics
/// When `/proc` has not the form that it has on Linux.
pub fn of(pid: u32) -> Vec<Open> {
    let own: HashSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            let link = link.to_string_lossy().into_owned();
            Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let mut found = Vec::new();
    for protocol in ["tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{protocol}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (local, state, inode) = (fields[1], fields[3], fields[9]);
            let listens = !protocol.starts_with("tcp") || state == "0A";
            if listens && own.contains(inode) {
                let address = parsed(local).unwrap_or_else(|| panic!("{protocol}: {line}"));
                found.push(Open { protocol, address });
            }
        }
    }
    found.sort();
    found
}

/// `0100007F:1F90`: words of 32 bits in the machine's order, the port in plain hexadecimal.
fn parsed(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<u8>> = (0..address.len())
        .step_by(8)
        .map(|at| u32::from_str_radix(address.get(at..at + 8)?, 16).ok())
        .collect::<Option<Vec<u32>>>()
        .map(|words| words.into_iter().flat_map(u32::to_ne_bytes).collect());
    let ip = match *words? {
        [a, b, c, d] => IpAddr::from(Ipv4Addr::new(a, b, c, d)),
        ref bytes => {
            let bytes: [u8; 16] = bytes.try_into().ok()?;
            IpAddr::from(Ipv6Addr::from(bytes))
        }
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn listeners_and_datagram_sockets_are_found_and_connections_are_not() {
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let six = TcpListener::bind("[::1]:0").ok();
        let stream = TcpStream::connect(four.local_addr().unwrap()).unwrap();
        let found: Vec<SocketAddr> = of(std::process::id())
            .into_iter()
            .map(|open| open.address)
            .collect();
        assert!(found.contains(&four.local_addr().unwrap()), "{found:?}");
        assert!(found.contains(&datagrams.local_addr().unwrap()), "{found:?}");
        if let Some(six) = six {
            assert!(found.contains(&six.local_addr().unwrap()), "{found:?}");
        }
        assert!(!found.contains(&stream.local_addr().unwrap()), "{found:?}");
    }
}

//! What the kernel is told of a connection's socket.

use std::net::{IpAddr, TcpStream};

use socket2::{SockRef, TcpKeepalive};

use crate::options::TcpOptions;

/// Bytes that may wait in the socket of a connection within this host, where no time on a wire has to be filled. Without a bound the
/// kernel lets it grow to several MiB, and what has waited there is in no cache any more when it is read. Chosen by measurement (see
/// `docs/performance.md`): a tenth more throughput through a relay than without a bound, for a tenth less CPU time; 256 KiB and 1 MiB
/// differed from it by less than the noise. The kernel reserves twice as much, for its own structures, and may allow less.
const SEND_BUFFER_WITHIN_HOST: usize = 512 * 1024;

/// Sets the options of a socket. One without them still works, so that nothing is said when they cannot be set.
pub(crate) fn prepare(stream: &TcpStream, options: &TcpOptions) {
    let keepalive = TcpKeepalive::new()
        .with_time(options.keepalive)
        .with_interval(options.keepalive / 3)
        .with_retries(3);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
    if is_within_host(stream) {
        let _ = socket.set_send_buffer_size(SEND_BUFFER_WITHIN_HOST);
    }
}

/// Whether both ends of a connection are on this host. If it cannot be told they are not: a bound would be too small for a long line.
fn is_within_host(stream: &TcpStream) -> bool {
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(own), Ok(peer)) => are_one_host(own.ip(), peer.ip()),
        _ => false,
    }
}

fn are_one_host(own: IpAddr, peer: IpAddr) -> bool {
    let (own, peer) = (own.to_canonical(), peer.to_canonical());
    own == peer || own.is_loopback() && peer.is_loopback()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_waits_in_a_socket_within_the_host_is_bounded_at_both_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        for stream in [&connecting, &accepted] {
            assert!(is_within_host(stream));
            prepare(stream, &TcpOptions::default());
            let socket = SockRef::from(stream);
            assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
            let size = socket.send_buffer_size().unwrap();
            assert!((1..=2 * SEND_BUFFER_WITHIN_HOST).contains(&size), "{size}");
        }
    }

    #[test]
    fn only_a_peer_with_an_address_of_this_host_is_on_it() {
        let are_one = |own: &str, peer: &str| are_one_host(own.parse().unwrap(), peer.parse().unwrap());
        assert!(are_one("127.0.0.1", "127.0.0.1") && are_one("127.0.0.1", "127.0.0.2"));
        assert!(are_one("::1", "::1") && are_one("::ffff:127.0.0.1", "127.0.0.1"));
        assert!(are_one("192.0.2.1", "192.0.2.1") && are_one("2001:db8::1", "2001:db8::1"));
        assert!(!are_one("192.0.2.1", "192.0.2.2") && !are_one("2001:db8::1", "2001:db8::2"));
    }
}

//! The private services behind outlets.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

/// A connection that a scenario waits on has an answer or an end within this time, else the scenario fails.
pub const STREAM_LIMIT: Duration = Duration::from_secs(20);

/// A TCP server on loopback that runs one function for each connection, until the process ends.
#[derive(Debug, Clone)]
pub struct Service {
    /// Where it listens.
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Service {
    /// Serves each connection with `serve`, in a thread of its own.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        Self::start_on(listener, serve)
    }

    /// As [`Service::start`], on this listener.
    ///
    /// # Panics
    /// When the listener is not bound.
    pub fn start_on(
        listener: TcpListener,
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("a bound socket has an address");
        let service = Self {
            address,
            accepted: Arc::default(),
            open: Arc::default(),
        };
        let serve = Arc::new(serve);
        let counters = service.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counters.accepted.fetch_add(1, Ordering::SeqCst);
                counters.open.fetch_add(1, Ordering::SeqCst);
                let (serve, counters) = (serve.clone(), counters.clone());
                std::thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let _ = serve(stream);
                    counters.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        service
    }

    /// Sends back what it gets.
    pub fn echo() -> Self {
        Self::start(|mut stream| {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    n => stream.write_all(&buffer[..n])?,
                }
            }
        })
    }

    /// Accepts, and then neither reads nor writes until the other side ends.
    pub fn deaf() -> Self {
        Self::start(|stream| {
            // Peeking notices the end without taking bytes out of the socket.
            let mut byte = [0];
            while stream.peek(&mut byte)? == 1 {
                std::thread::park_timeout(Duration::from_millis(50));
            }
            Ok(())
        })
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// A target whose queue of connections is full: connecting to it neither succeeds nor fails.
#[derive(Debug)]
pub struct Unanswering {
    /// Where connecting hangs.
    pub address: SocketAddr,
    _listener: Socket,
    _queued: Vec<Socket>,
}

impl Unanswering {
    /// Makes one.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
        listener
            .bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
            .expect("a port is free");
        listener.listen(0).expect("a bound socket can listen");
        let address = listener
            .local_addr()
            .ok()
            .and_then(|a| a.as_socket())
            .expect("a bound socket has an address");
        // Linux queues one more than it was told; the others wait in SYN-SENT and keep it full.
        let queued = (0..4)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
                socket
                    .set_nonblocking(true)
                    .expect("a socket can be non-blocking");
                let _ = socket.connect(&SockAddr::from(address));
                socket
            })
            .collect();
        Self {
            address,
            _listener: listener,
            _queued: queued,
        }
    }
}

/// Connects with [`STREAM_LIMIT`] for every read and write.
///
/// # Panics
/// When nobody listens there.
#[track_caller]
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, STREAM_LIMIT)
        .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
    stream
        .set_read_timeout(Some(STREAM_LIMIT))
        .expect("a limit can be set");
    stream
        .set_write_timeout(Some(STREAM_LIMIT))
        .expect("a limit can be set");
    stream.set_nodelay(true).expect("an option can be set");
    stream
}

/// Sends `text` and reads as many bytes back.
///
/// # Errors
/// When the connection ends, or has no answer within [`STREAM_LIMIT`].
pub fn ask(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(text)?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Whether an echo service answers through `address` on a new connection.
pub fn echoes(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) else {
        return false;
    };
    let limits = stream.set_read_timeout(Some(Duration::from_secs(5)));
    limits.is_ok() && ask(&mut stream, b"is anybody there").is_ok_and(|answer| answer == b"is anybody there")
}

/// How a connection ended, seen by reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// End of file, after this many bytes.
    Closed(usize),
    /// Reset, after this many bytes.
    Reset(usize),
    /// Still open when the limit was over, after this many bytes.
    Open(usize),
}

impl End {
    /// Whether the connection was ended by the other side, in either way.
    pub fn is_closed(self) -> bool {
        !matches!(self, End::Open(_))
    }
}

/// Reads until the connection ends or `limit` is over without a byte.
///
/// # Panics
/// When the limit cannot be set.
pub fn end_of(stream: &mut TcpStream, limit: Duration) -> End {
    stream.set_read_timeout(Some(limit)).expect("a limit can be set");
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return End::Closed(total),
            Ok(n) => total += n,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return End::Open(total);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return End::Reset(total),
        }
    }
}

/// Ends the connection with a reset instead of an end of file.
pub fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

/// Byte `offset` of the test pattern: a hole, a repetition or a swap of any length up to 250 bytes shows.
pub fn pattern(offset: u64) -> u8 {
    // 251 is prime, so that no buffer size is a multiple of the period.
    (offset % 251) as u8
}

/// `length` bytes of the pattern from `offset` on.
pub fn pattern_bytes(offset: u64, length: usize) -> Vec<u8> {
    (offset..).take(length).map(pattern).collect()
}

/// Checks `bytes` against the pattern from `offset` on; the offset of the first wrong byte.
///
/// # Errors
/// The offset of the first byte that is not the pattern's.
pub fn check_pattern(offset: u64, bytes: &[u8]) -> Result<(), u64> {
    match bytes
        .iter()
        .zip(offset..)
        .find(|(byte, at)| **byte != pattern(*at))
    {
        Some((_, at)) => Err(at),
        None => Ok(()),
    }
}

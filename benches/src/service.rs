//! The private service at the end of every path. The first byte of a connection says what it is to do.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Read and count what comes.
pub const SINK: u8 = b'S';
/// Write the pattern until the other side goes away.
pub const SOURCE: u8 = b'G';
/// Send back what comes.
pub const ECHO: u8 = b'E';

/// Read nothing.
pub const DEAF: u8 = b'D';

/// The period of the pattern: a prime, so that no buffer size hides a hole, a repetition or a swap.
const PERIOD: usize = 251;

/// Size of the reads and writes of the load, in bytes: about 256 KiB, and a multiple of the pattern's period, so that one
/// buffer written again and again is the pattern without a seam.
pub const CHUNK: usize = PERIOD * 1044;

/// One chunk of the pattern.
pub fn chunk() -> Vec<u8> {
    (0..PERIOD as u8).cycle().take(CHUNK).collect()
}

/// Looks whether bytes read at `offset` of the stream can be the pattern's. Looks at the first and the last byte only:
/// the benchmark must not be the bottleneck, and with a prime period a shift shows in nearly every read.
pub fn is_pattern(offset: u64, bytes: &[u8]) -> bool {
    let at = |index: usize| ((offset + index as u64) % PERIOD as u64) as u8;
    bytes.is_empty() || (bytes[0] == at(0) && bytes[bytes.len() - 1] == at(bytes.len() - 1))
}

/// How often a service that reads nothing looks whether the connection is still there.
const DEAF_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Sends back what comes, on as many connections as there are files for: one thread with an event loop, and no memory for a
/// connection on which nothing happens. The first byte of a connection is taken and not sent back, as the others do.
///
/// # Errors
/// When there is no free port.
pub fn serve_many(ready: impl FnOnce(SocketAddr)) -> io::Result<()> {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        ready(listener.local_addr()?);
        loop {
            let (mut stream, _) = listener.accept().await?;
            tokio::task::spawn_local(async move {
                stream.set_nodelay(true)?;
                stream.read_u8().await?;
                loop {
                    stream.readable().await?;
                    let mut buffer = [0; 16 * 1024];
                    match stream.try_read(&mut buffer) {
                        Ok(0) => return Ok::<(), io::Error>(()),
                        Ok(n) => stream.write_all(&buffer[..n]).await?,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
            });
        }
    })
}

/// A running service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Where it listens.
    pub address: SocketAddr,
    /// Bytes that sinks have read so far.
    pub received: Arc<AtomicU64>,
    /// Reads that were not the pattern's.
    pub broken: Arc<AtomicU64>,
}

impl Service {
    /// Starts it on a free port of loopback, with one thread for each connection.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let service = Self {
            address: listener.local_addr()?,
            received: Arc::default(),
            broken: Arc::default(),
        };
        let running = service.clone();
        std::thread::Builder::new()
            .name("service".into())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    let running = running.clone();
                    // Small stacks: there are as many threads as connections.
                    let spawned = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
                        let _ = running.serve(stream);
                    });
                    if spawned.is_err() {
                        return;
                    }
                }
            })?;
        Ok(service)
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut mode = [0];
        stream.read_exact(&mut mode)?;
        match mode[0] {
            SINK => {
                let mut buffer = vec![0; CHUNK];
                let mut offset = 0;
                loop {
                    let n = stream.read(&mut buffer)?;
                    if n == 0 {
                        return Ok(());
                    }
                    if !is_pattern(offset, &buffer[..n]) {
                        self.broken.fetch_add(1, Ordering::Relaxed);
                    }
                    offset += n as u64;
                    self.received.fetch_add(n as u64, Ordering::Relaxed);
                }
            }
            SOURCE => {
                let chunk = chunk();
                loop {
                    stream.write_all(&chunk)?;
                }
            }
            DEAF => loop {
                // Until the other side has gone away, which an error of the socket tells.
                if let Some(error) = stream.take_error()? {
                    return Err(error);
                }
                let mut waiting = [0];
                stream.set_nonblocking(true)?;
                if stream.peek(&mut waiting).is_ok_and(|n| n == 0) {
                    return Ok(());
                }
                std::thread::sleep(DEAF_PAUSE);
            },
            _ => {
                let mut buffer = [0; 4096];
                loop {
                    let n = stream.read(&mut buffer)?;
                    if n == 0 {
                        return Ok(());
                    }
                    stream.write_all(&buffer[..n])?;
                }
            }
        }
    }
}

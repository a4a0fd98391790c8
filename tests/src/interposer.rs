//! A TCP proxy in the middle that cuts, replays, flips and stalls.
//!
//! It stands between two nodes and copies. It knows the frames of the TCP transport (spec 01 §6.2) and nothing of what is in
//! them, as anybody on the path does.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the interposer does to the frames from the side that connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// Copies them.
    None,
    /// Flips one bit in the last byte of the next frame that has at least this many bytes, once.
    FlipBit(usize),
    /// Sends the next frame that has at least this many bytes twice, once.
    Replay(usize),
    /// Holds every frame back.
    Stall,
}

/// A proxy that was started.
#[derive(Debug, Clone)]
pub struct Interposer {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    attack: Mutex<Attack>,
    attacks: AtomicU64,
    refusing: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
    seen: Mutex<Vec<u8>>,
}

/// How much of the traffic is kept for [`Interposer::has_seen`], in bytes.
const SEEN_LIMIT: usize = 64 * 1024 * 1024;

impl Interposer {
    /// Starts one on a free port. Nobody needs to listen at `to` yet.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let state = Arc::new(State {
            attack: Mutex::new(Attack::None),
            attacks: AtomicU64::new(0),
            refusing: AtomicBool::new(false),
            streams: Mutex::default(),
            seen: Mutex::default(),
        });
        let interposer = Self {
            address: listener.local_addr().expect("a bound socket has an address"),
            state: state.clone(),
        };
        std::thread::spawn(move || {
            for incoming in listener.incoming().flatten() {
                if !state.refusing.load(Ordering::SeqCst) {
                    let _ = join(incoming, to, &state);
                }
            }
        });
        interposer
    }

    /// Sets what happens to the frames from now on.
    pub fn attack(&self, attack: Attack) {
        *lock(&self.state.attack) = attack;
    }

    /// How many frames were flipped or replayed so far.
    pub fn attacks(&self) -> u64 {
        self.state.attacks.load(Ordering::SeqCst)
    }

    /// Ends all connections and closes new ones at once, until [`Interposer::mend`]: the link is down.
    pub fn cut(&self) {
        self.state.refusing.store(true, Ordering::SeqCst);
        for stream in lock(&self.state.streams).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets new connections through again.
    pub fn mend(&self) {
        self.state.refusing.store(false, Ordering::SeqCst);
    }

    /// Whether these bytes went by, in either direction, within one read of the proxy or in a frame.
    pub fn has_seen(&self, bytes: &[u8]) -> bool {
        lock(&self.state.seen)
            .windows(bytes.len())
            .any(|window| window == bytes)
    }

    /// How many bytes went by and were kept.
    pub fn seen(&self) -> usize {
        lock(&self.state.seen).len()
    }
}

/// A panic of another thread of the same test does not make the state useless.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn join(client: TcpStream, to: SocketAddr, state: &Arc<State>) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        lock(&state.streams).push(stream.try_clone()?);
    }
    let (client_reads, server_reads) = (client.try_clone()?, server.try_clone()?);
    let up = state.clone();
    std::thread::spawn(move || {
        let _ = copy_frames(client_reads, &server, &up);
        let _ = server.shutdown(Shutdown::Write);
    });
    let down = state.clone();
    std::thread::spawn(move || {
        let _ = copy(server_reads, &client, &down);
        let _ = client.shutdown(Shutdown::Write);
    });
    Ok(())
}

fn remember(state: &State, bytes: &[u8]) {
    let mut seen = lock(&state.seen);
    if seen.len() + bytes.len() <= SEEN_LIMIT {
        seen.extend_from_slice(bytes);
    }
}

fn copy(mut from: TcpStream, mut to: &TcpStream, state: &State) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        remember(state, &buffer[..n]);
        to.write_all(&buffer[..n])?;
    }
}

fn copy_frames(mut from: TcpStream, mut to: &TcpStream, state: &State) -> io::Result<()> {
    let mut version = [0];
    from.read_exact(&mut version)?;
    to.write_all(&version)?;
    loop {
        let mut frame = vec![0; 4];
        from.read_exact(&mut frame)?;
        let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
        frame.resize(4 + length, 0);
        from.read_exact(&mut frame[4..])?;
        remember(state, &frame);
        let mut copies = 1;
        loop {
            let mut attack = lock(&state.attack);
            match *attack {
                Attack::FlipBit(least) if length >= least => {
                    frame[3 + length] ^= 0x10;
                    *attack = Attack::None;
                    state.attacks.fetch_add(1, Ordering::SeqCst);
                }
                Attack::Replay(least) if length >= least => {
                    copies = 2;
                    *attack = Attack::None;
                    state.attacks.fetch_add(1, Ordering::SeqCst);
                }
                Attack::Stall => {
                    drop(attack);
                    std::thread::park_timeout(Duration::from_millis(20));
                    continue;
                }
                _ => {}
            }
            break;
        }
        for _ in 0..copies {
            to.write_all(&frame)?;
        }
    }
}

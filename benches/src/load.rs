//! What is measured, and how: throughput, CPU time, round trip, connections, memory of idle connections.
//!
//! The load is made of blocking threads, one for each end of a stream, in the benchmark's own process: measured without a
//! tunnel they carry several times what any path does. Every socket has time-outs, so that a path that stops carrying makes
//! its own figures fail and not the run hang.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portolan_tests::{process, wait};
use serde::Serialize;

use crate::checks::median;
use crate::scheduled::Scheduled;
use crate::service::{self, CHUNK, Service};

/// A socket that does nothing for this long is broken.
pub(crate) const STUCK: Duration = Duration::from_secs(5);
/// Bytes of one request of the round trip; as many come back.
const REQUEST: usize = 64;
/// Connections that are opened and closed at the same time.
const CONNECTORS: usize = 16;
/// How long the processes are left alone before their memory is read.
const SETTLE: Duration = Duration::from_millis(300);

/// How long and how much.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Time that streams run before they are measured.
    pub warm_up: Duration,
    /// Time that streams are measured.
    pub window: Duration,
    /// Time that round trips are measured.
    pub round_trips: Duration,
    /// Time that connections are counted.
    pub connections: Duration,
    /// Number of idle connections.
    pub idle: usize,
    /// How often all of it is done, path after path; the figures are the medians.
    pub rounds: usize,
}

impl Plan {
    /// For numbers: about 6 s for each path and round.
    pub const DEFAULT: Self = Self {
        warm_up: Duration::from_millis(300),
        window: Duration::from_millis(900),
        round_trips: Duration::from_millis(700),
        connections: Duration::from_millis(700),
        idle: 500,
        rounds: 5,
    };
    /// For a look.
    pub const QUICK: Self = Self {
        warm_up: Duration::from_millis(150),
        window: Duration::from_millis(500),
        round_trips: Duration::from_millis(400),
        connections: Duration::from_millis(400),
        idle: 150,
        rounds: 1,
    };
}

/// Streams in one direction.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Throughput {
    /// Payload of all streams together, in Gbit/s.
    pub gbit_per_s: f64,
    /// CPU time of the path's processes for each GiB of payload, in seconds; `None` without processes.
    pub cpu_s_per_gib: Option<f64>,
}

/// Direction of streams: up is from the client to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Client to service.
    Up,
    /// Service to client.
    Down,
}

/// Round trips of one byte string on one open connection, in µs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RoundTrip {
    /// Half were faster.
    pub p50_us: f64,
    /// One in a hundred was slower.
    pub p99_us: f64,
}

/// Memory of idle connections, in KiB.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// For each connection, in each process of the path.
    pub per_process: Vec<f64>,
}

impl Idle {
    /// The mean over the path's processes; what the table shows.
    pub fn mean(&self) -> f64 {
        self.per_process.iter().sum::<f64>() / self.per_process.len().max(1) as f64
    }

    /// The process with the most.
    pub fn worst(&self) -> f64 {
        self.per_process.iter().copied().fold(0.0, f64::max)
    }
}

/// What was measured on one path. Each figure that could not be measured says why.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// One stream up.
    pub up_1: Result<Throughput, Failure>,
    /// Eight streams up.
    pub up_8: Result<Throughput, Failure>,
    /// One stream down.
    pub down_1: Result<Throughput, Failure>,
    /// Eight streams down.
    pub down_8: Result<Throughput, Failure>,
    /// Round trips.
    pub round_trip: Result<RoundTrip, Failure>,
    /// Connections opened, used for one round trip and closed, for each second.
    pub connections_per_s: Result<f64, Failure>,
    /// Idle connections; `None` without processes.
    pub idle: Option<Result<Idle, Failure>>,
}

/// Why a figure could not be measured.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Failure(pub String);

impl Failure {
    /// For an error of another kind.
    pub fn of(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("nothing for {STUCK:?}"),
            _ => error.to_string(),
        })
    }
}

impl Figures {
    /// The figures of several rounds as one: medians, and the first failure of each.
    pub fn middle(rounds: &[Self]) -> Option<Self> {
        let first = rounds.first()?;
        let of = |get: fn(&Self) -> &Result<Throughput, Failure>| {
            middle(rounds, get, |all| Throughput {
                gbit_per_s: median(all.iter().map(|one| one.gbit_per_s)).unwrap_or(0.0),
                cpu_s_per_gib: median(all.iter().filter_map(|one| one.cpu_s_per_gib)),
            })
        };
        Some(Self {
            up_1: of(|figures| &figures.up_1),
            up_8: of(|figures| &figures.up_8),
            down_1: of(|figures| &figures.down_1),
            down_8: of(|figures| &figures.down_8),
            round_trip: middle(
                rounds,
                |figures| &figures.round_trip,
                |all| RoundTrip {
                    p50_us: median(all.iter().map(|one| one.p50_us)).unwrap_or(0.0),
                    p99_us: median(all.iter().map(|one| one.p99_us)).unwrap_or(0.0),
                },
            ),
            connections_per_s: middle(
                rounds,
                |figures| &figures.connections_per_s,
                |all| median(all.iter().map(|&&one| one)).unwrap_or(0.0),
            ),
            // Measured once, in the first round.
            idle: first.idle.clone(),
        })
    }
}

fn middle<T>(
    rounds: &[Figures],
    get: impl Fn(&Figures) -> &Result<T, Failure>,
    of: impl FnOnce(&[&T]) -> T,
) -> Result<T, Failure> {
    let all: Result<Vec<&T>, &Failure> = rounds.iter().map(|round| get(round).as_ref()).collect();
    all.map(|all| of(&all)).map_err(Clone::clone)
}

/// Measures one path: from `entry` to `service` through `processes`. `with_idle`: idle connections too, which has to come before
/// everything else.
pub fn measure(
    entry: SocketAddr,
    service: &Service,
    processes: &[u32],
    plan: &Plan,
    with_idle: bool,
) -> Figures {
    // Idle connections first: later, memory that the load has used would hide what a connection costs.
    let idle = (with_idle && !processes.is_empty()).then(|| idle(entry, processes, plan));
    let stream = |direction, count| throughput(entry, service, processes, direction, count, plan);
    Figures {
        idle,
        round_trip: round_trip(entry, plan),
        up_1: stream(Direction::Up, 1),
        up_8: stream(Direction::Up, 8),
        down_1: stream(Direction::Down, 1),
        down_8: stream(Direction::Down, 8),
        connections_per_s: connections(entry, plan),
    }
}

pub(crate) fn open(entry: SocketAddr, mode: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&entry, STUCK)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STUCK))?;
    stream.set_write_timeout(Some(STUCK))?;
    stream.write_all(&[mode])?;
    Ok(stream)
}

/// Opens an echo connection that has carried one byte each way.
pub fn open_echo(entry: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = open(entry, service::ECHO)?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

fn cpu_of(processes: &[u32]) -> Duration {
    processes.iter().copied().map(process::cpu_time).sum()
}

/// What streams carried in a time, and what the path's processes did for it.
pub(crate) struct Transfer {
    pub(crate) bytes: f64,
    pub(crate) time: Duration,
    /// Of all processes together.
    pub(crate) cpu: Duration,
    pub(crate) scheduled: Vec<Scheduled>,
}

impl Transfer {
    pub(crate) fn gbit_per_s(&self) -> f64 {
        self.bytes * 8.0 / 1e9 / self.time.as_secs_f64()
    }

    pub(crate) fn cpu_s_per_gib(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.bytes / f64::from(1 << 30))
    }
}

pub(crate) fn throughput(
    entry: SocketAddr,
    service: &Service,
    processes: &[u32],
    direction: Direction,
    streams: usize,
    plan: &Plan,
) -> Result<Throughput, Failure> {
    let carried = transfer(entry, service, processes, direction, streams, plan)?;
    Ok(Throughput {
        gbit_per_s: carried.gbit_per_s(),
        cpu_s_per_gib: (!processes.is_empty()).then(|| carried.cpu_s_per_gib()),
    })
}

pub(crate) fn transfer(
    entry: SocketAddr,
    service: &Service,
    processes: &[u32],
    direction: Direction,
    streams: usize,
    plan: &Plan,
) -> Result<Transfer, Failure> {
    let received = match direction {
        Direction::Up => service.received.clone(),
        Direction::Down => Arc::default(),
    };
    let broken_before = service.broken.load(Ordering::Relaxed);
    let broken = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut sockets = Vec::new();
    let mut threads = Vec::new();
    for _ in 0..streams {
        let mode = if direction == Direction::Up {
            service::SINK
        } else {
            service::SOURCE
        };
        let stream = open(entry, mode)?;
        sockets.push(stream.try_clone()?);
        let (stop, received, broken) = (stop.clone(), received.clone(), broken.clone());
        threads.push(thread::spawn(move || match direction {
            Direction::Up => send(stream, &stop),
            Direction::Down => receive(stream, &stop, &received, &broken),
        }));
    }
    let now = || {
        let scheduled: Vec<_> = processes.iter().copied().map(Scheduled::of).collect();
        (
            Instant::now(),
            received.load(Ordering::Relaxed),
            cpu_of(processes),
            scheduled,
        )
    };
    thread::sleep(plan.warm_up);
    let before = now();
    thread::sleep(plan.window);
    let after = now();
    stop.store(true, Ordering::Relaxed);
    for socket in sockets {
        let _ = socket.shutdown(Shutdown::Both);
    }
    let mut failure = None;
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failure = Some(Failure::from(error)),
            Err(_) => failure = Some(Failure("a thread of the load panicked".into())),
        }
    }
    // What is still on its way would be counted for the next measurement.
    let mut last = received.load(Ordering::Relaxed);
    for _ in 0..30 {
        thread::sleep(Duration::from_millis(50));
        let now = received.load(Ordering::Relaxed);
        if now == last {
            break;
        }
        last = now;
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    if broken.load(Ordering::Relaxed) + service.broken.load(Ordering::Relaxed) > broken_before {
        return Err(Failure(
            "the bytes that arrived are not those that were sent".into(),
        ));
    }
    let bytes = (after.1 - before.1) as f64;
    if bytes == 0.0 {
        return Err(Failure("no byte arrived".into()));
    }
    let scheduled = after.3.into_iter().zip(before.3);
    Ok(Transfer {
        bytes,
        time: after.0 - before.0,
        cpu: after.2.saturating_sub(before.2),
        scheduled: scheduled.map(|(after, before)| after.since(before)).collect(),
    })
}

pub(crate) fn send(mut stream: TcpStream, stop: &AtomicBool) -> io::Result<()> {
    let chunk = service::chunk();
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = stream.write_all(&chunk) {
            return if stop.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err(error)
            };
        }
    }
    Ok(())
}

pub(crate) fn receive(
    mut stream: TcpStream,
    stop: &AtomicBool,
    received: &AtomicU64,
    broken: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        match stream.read(&mut buffer) {
            _ if stop.load(Ordering::Relaxed) => return Ok(()),
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the stream was closed",
                ));
            }
            Ok(n) => {
                if !service::is_pattern(offset, &buffer[..n]) {
                    broken.fetch_add(1, Ordering::Relaxed);
                }
                offset += n as u64;
                received.fetch_add(n as u64, Ordering::Relaxed);
            }
            Err(error) => return Err(error),
        }
    }
}

fn round_trip(entry: SocketAddr, plan: &Plan) -> Result<RoundTrip, Failure> {
    let mut stream = open_echo(entry)?;
    let request = [7; REQUEST];
    let mut answer = [0; REQUEST];
    let mut times = Vec::with_capacity(64 * 1024);
    let warm = Instant::now() + plan.warm_up / 2;
    let end = warm + plan.round_trips;
    loop {
        let start = Instant::now();
        stream.write_all(&request)?;
        stream.read_exact(&mut answer)?;
        let now = Instant::now();
        if start >= warm {
            times.push((now - start).as_secs_f64() * 1e6);
        }
        if now >= end {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    if times.is_empty() {
        return Err(Failure("no round trip in time".into()));
    }
    Ok(RoundTrip {
        p50_us: at(0.5),
        p99_us: at(0.99),
    })
}

fn connections(entry: SocketAddr, plan: &Plan) -> Result<f64, Failure> {
    let start = Instant::now();
    let end = start + plan.connections;
    let threads: Vec<_> = (0..CONNECTORS)
        .map(|_| {
            thread::spawn(move || {
                let mut done = 0_u64;
                while Instant::now() < end {
                    open_echo(entry)?;
                    done += 1;
                }
                Ok::<u64, io::Error>(done)
            })
        })
        .collect();
    let mut done = 0;
    for thread in threads {
        done += thread
            .join()
            .map_err(|_| Failure("a thread of the load panicked".into()))??;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

fn idle(entry: SocketAddr, processes: &[u32], plan: &Plan) -> Result<Idle, Failure> {
    // Opens what a first connection opens for all.
    drop(open_echo(entry)?);
    thread::sleep(SETTLE);
    let before: Vec<u64> = processes.iter().copied().map(process::resident_kib).collect();
    let mut open = Vec::with_capacity(plan.idle);
    for _ in 0..plan.idle {
        open.push(open_echo(entry)?);
    }
    thread::sleep(SETTLE);
    let per_process = processes
        .iter()
        .zip(before)
        .map(|(&pid, before)| process::resident_kib(pid).saturating_sub(before) as f64 / plan.idle as f64)
        .collect();
    drop(open);
    // The next measurement begins when these connections are gone everywhere.
    wait::until(STUCK, || {
        processes
            .iter()
            .all(|&pid| process::open_files(pid) < plan.idle / 4)
            .then_some(())
    });
    Ok(Idle { per_process })
}

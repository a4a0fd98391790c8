//! What one connection that stands still costs those beside it.
//!
//! Seven connections work all the time. Beside them an eighth, or several, is opened, stalls, and is closed again, over and over: each round
//! gives a figure with it, between two without it, and their ratio is the round's, so that what else happens on the machine meets both
//! sides alike. What counts is the median of the rounds' ratios, and how far it can be relied upon: the interval that contains the true
//! median with 95 % of certainty, by the ranks of the rounds alone. That the aim is met is proved when it lies within it altogether.
//!
//! A run in which nothing moves for a while ends, and says where everything stood.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use portolan_tests::wait;

use crate::checks::{Check, interval, median};
use crate::load::{self, Direction, Failure, STUCK, open, open_echo};
use crate::paths::Portolan;
use crate::service::{self, Service};
use crate::watchdog::Watchdog;

/// Connections that work.
const BUSY: usize = 7;
/// Connections to the node that is stopped, where there are many.
const MANY: usize = 24;
/// What each of them receives first, in bytes, so that its window is as large as it becomes: the windows of all together are many times what
/// a relay and the sockets' buffers queue for one destination.
const GROWING: u64 = 16 * 1024 * 1024;
/// Part of the throughput that must be left, and of the round trips in a time.
pub const LEAST: f64 = 0.95;
/// A connection that has taken no byte for so long stands still.
const STILL: Duration = Duration::from_millis(200);
/// How long the eighth may take to stand still.
const SOON: Duration = Duration::from_secs(20);
/// How long nothing may move: longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Left alone between the halves of a round.
const PAUSE: Duration = Duration::from_millis(150);

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Rounds of each case.
    pub rounds: usize,
    /// Length of each half of a round.
    pub window: Duration,
    /// The last round of each case stalls for so long.
    pub hold: Duration,
}

impl Plan {
    /// For numbers.
    pub const DEFAULT: Self = Self {
        rounds: 25,
        window: Duration::from_millis(400),
        hold: Duration::from_secs(20),
    };
    /// For a look.
    pub const QUICK: Self = Self {
        rounds: 5,
        window: Duration::from_millis(400),
        hold: Duration::from_secs(2),
    };
}

/// What the seven do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Stream(Direction),
    RoundTrips,
}

/// The seven connections, working until dropped.
struct Busy {
    stop: Arc<AtomicBool>,
    /// Bytes, or round trips.
    done: Arc<AtomicU64>,
    broken: Arc<AtomicU64>,
    times: Arc<Mutex<Vec<f64>>>,
    sockets: Vec<TcpStream>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Busy {
    fn start(entry: SocketAddr, service: &Service, work: Work) -> Result<Self, Failure> {
        let mut busy = Self {
            stop: Arc::default(),
            done: Arc::default(),
            broken: Arc::clone(&service.broken),
            times: Arc::default(),
            sockets: Vec::new(),
            threads: Vec::new(),
        };
        if work == Work::Stream(Direction::Up) {
            busy.done = Arc::clone(&service.received);
        }
        for _ in 0..BUSY {
            let stream = match work {
                Work::Stream(Direction::Up) => open(entry, service::SINK)?,
                Work::Stream(Direction::Down) => open(entry, service::SOURCE)?,
                Work::RoundTrips => open_echo(entry)?,
            };
            busy.sockets.push(stream.try_clone()?);
            let (stop, done) = (Arc::clone(&busy.stop), Arc::clone(&busy.done));
            let (broken, times) = (Arc::clone(&busy.broken), Arc::clone(&busy.times));
            busy.threads.push(thread::spawn(move || match work {
                Work::Stream(Direction::Up) => load::send(stream, &stop),
                Work::Stream(Direction::Down) => load::receive(stream, &stop, &done, &broken),
                Work::RoundTrips => round_trips(stream, &stop, &done, &times),
            }));
        }
        thread::sleep(Duration::from_millis(500));
        Ok(busy)
    }

    /// What was done for each second of the time, and the 99th percentile of the round trips in µs.
    fn measure(&self, window: Duration) -> Result<(f64, f64), Failure> {
        let mut times = Vec::new();
        std::mem::swap(&mut times, &mut *lock(&self.times));
        times.clear();
        let (start, before) = (Instant::now(), self.done.load(Ordering::Relaxed));
        thread::sleep(window);
        let done = self.done.load(Ordering::Relaxed) - before;
        let rate = done as f64 / start.elapsed().as_secs_f64();
        std::mem::swap(&mut times, &mut *lock(&self.times));
        if done == 0 || self.threads.iter().any(JoinHandle::is_finished) {
            return Err(Failure("one of the seven has stopped".into()));
        }
        if self.broken.load(Ordering::Relaxed) > 0 {
            return Err(Failure(
                "the bytes that arrived are not those that were sent".into(),
            ));
        }
        times.sort_by(f64::total_cmp);
        let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or(0.0);
        Ok((rate, p99))
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.end();
        for thread in std::mem::take(&mut self.threads) {
            thread
                .join()
                .map_err(|_| Failure("a thread of the load panicked".into()))??;
        }
        Ok(())
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for socket in self.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(times: &Mutex<Vec<f64>>) -> std::sync::MutexGuard<'_, Vec<f64>> {
    times.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn round_trips(
    mut stream: TcpStream,
    stop: &AtomicBool,
    done: &AtomicU64,
    times: &Mutex<Vec<f64>>,
) -> std::io::Result<()> {
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let mut answer = [0; 64];
        let mut question = [0; 64];
        question[..8].copy_from_slice(&number.to_le_bytes());
        let result = stream
            .write_all(&question)
            .and_then(|()| stream.read_exact(&mut answer));
        if let Err(error) = result {
            return if stop.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err(error)
            };
        }
        if answer != question {
            return Err(std::io::Error::other("another answer came than was sent"));
        }
        number += 1;
        done.fetch_add(1, Ordering::Relaxed);
        lock(times).push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(())
}

/// The eighth: who stalls, and how.
trait Stall {
    /// Opens it and waits until it stands still.
    fn begin(&mut self) -> Result<(), Failure>;
    /// It stands still to the end of the time; then it goes away.
    fn end(&mut self) -> Result<(), Failure>;
}

/// A client that asks for everything and reads nothing.
struct Client {
    entry: SocketAddr,
    stream: Option<TcpStream>,
}

impl Stall for Client {
    fn begin(&mut self) -> Result<(), Failure> {
        let stream = open(self.entry, service::SOURCE)?;
        // It has something to read, and nothing more comes once its windows are full.
        wait::until(STUCK, || stream.peek(&mut [0]).ok().filter(|n| *n > 0))
            .ok_or_else(|| Failure("nothing arrives for the client that is to stall".into()))?;
        thread::sleep(2 * STILL);
        self.stream = Some(stream);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.stream = None;
        Ok(())
    }
}

/// A client that sends to a server that reads nothing.
struct Server {
    entry: SocketAddr,
    stream: Option<TcpStream>,
}

/// Writes until nothing more is taken.
fn fill(stream: &mut TcpStream) -> Result<(), Failure> {
    stream.set_nonblocking(true)?;
    let chunk = service::chunk();
    let (mut last, limit) = (Instant::now(), Instant::now() + SOON);
    while last.elapsed() < STILL {
        if Instant::now() > limit {
            return Err(Failure(format!(
                "what nobody reads was taken for {SOON:?}: it is not bounded"
            )));
        }
        match stream.write(&chunk) {
            Ok(_) => last = Instant::now(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Stall for Server {
    fn begin(&mut self) -> Result<(), Failure> {
        let mut stream = open(self.entry, service::DEAF)?;
        fill(&mut stream)?;
        self.stream = Some(stream);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.stream = None;
        Ok(())
    }
}

/// A process that is stopped.
struct Process(u32);

impl Process {
    fn signal(&self, signal: rustix::process::Signal) -> Result<(), Failure> {
        let pid = i32::try_from(self.0)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure("no process".into()))?;
        rustix::process::kill_process(pid, signal).map_err(Failure::of)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process would not end.
        let _ = self.signal(rustix::process::Signal::CONT);
    }
}

/// A node behind the same relay that is stopped, while a client sends to it.
struct Destination {
    entry: SocketAddr,
    process: Process,
    stream: Option<TcpStream>,
}

impl Stall for Destination {
    fn begin(&mut self) -> Result<(), Failure> {
        let mut stream = open_echo(self.entry)?;
        self.process.signal(rustix::process::Signal::STOP)?;
        fill(&mut stream)?;
        self.stream = Some(stream);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.stream = None;
        self.process.signal(rustix::process::Signal::CONT)
    }
}

/// A node with an inlet for the same outlet that is stopped, while much is sent to it: what the outlet's node sends to all of its
/// clients goes over one connection to the relay.
struct Many {
    entry: SocketAddr,
    process: Process,
    broken: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    sockets: Vec<TcpStream>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Stall for Many {
    fn begin(&mut self) -> Result<(), Failure> {
        self.stop = Arc::default();
        let done = Arc::<AtomicU64>::default();
        for _ in 0..MANY {
            let stream = open(self.entry, service::SOURCE)?;
            self.sockets.push(stream.try_clone()?);
            let (stop, done, broken) = (
                Arc::clone(&self.stop),
                Arc::clone(&done),
                Arc::clone(&self.broken),
            );
            self.threads.push(thread::spawn(move || {
                load::receive(stream, &stop, &done, &broken)
            }));
        }
        // It is stopped in the middle of it: what is on its way then is as much as it ever is.
        wait::until(SOON, || {
            (done.load(Ordering::Relaxed) >= MANY as u64 * GROWING).then_some(())
        })
        .ok_or_else(|| Failure(format!("the windows have not grown within {SOON:?}")))?;
        self.process.signal(rustix::process::Signal::STOP)?;
        thread::sleep(2 * STILL);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.stop.store(true, Ordering::Relaxed);
        for socket in self.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.process.signal(rustix::process::Signal::CONT)?;
        // What was on its way for them is told that they are gone.
        thread::sleep(2 * STILL);
        Ok(())
    }
}

/// Measures all cases, or those whose name contains `only`.
///
/// # Errors
/// When the nodes cannot be set up.
pub fn run(binary: &Path, plan: &Plan, only: Option<&str>) -> Result<Vec<Check>, Failure> {
    let service = Service::start()?;
    let portolan = Portolan::start(binary, service.address)?;
    let entry = portolan.through_relay()?.entry;
    let (other, process) = portolan.second_destination(service.address)?;
    let (second, of_second) = portolan.second_client()?;
    let dog = Watchdog::start(PATIENCE, move || portolan.state());
    let mut checks = Vec::new();
    println!(
        "Seven busy connections beside one that stalls; medians of {} rounds.\n",
        plan.rounds
    );
    println!(
        "| who stalls | what the seven do | without | with | ratio | certain to 95 % | p99 µs without, with | ratio in the last {:?} of a stall |",
        plan.hold
    );
    println!("|---|---|---|---|---|---|---|---|");
    let stream = |direction| Work::Stream(direction);
    let mut client = Client { entry, stream: None };
    let mut server = Server { entry, stream: None };
    let mut destination = Destination {
        entry: other,
        process: Process(process),
        stream: None,
    };
    let mut many = Many {
        entry: second,
        process: Process(of_second),
        broken: Arc::clone(&service.broken),
        stop: Arc::default(),
        sockets: Vec::new(),
        threads: Vec::new(),
    };
    let cases: [(&str, &mut dyn Stall); 4] = [
        ("client, never reads", &mut client),
        ("server, never reads", &mut server),
        ("another node behind the relay, stopped", &mut destination),
        (
            "another client's node, stopped, with 24 streams whose windows have grown",
            &mut many,
        ),
    ];
    for (name, stall) in cases {
        for (what, work) in [
            ("streams down, Gbit/s", stream(Direction::Down)),
            ("streams up, Gbit/s", stream(Direction::Up)),
            ("round trips/s", Work::RoundTrips),
        ] {
            if only.is_some_and(|only| !format!("{name}: {what}").contains(only)) {
                continue;
            }
            dog.watch(format!("{name}: {what}"));
            match case(entry, &service, work, stall, plan, &dog) {
                Ok(figures) => {
                    figures.tell(name, what, work);
                    checks.extend(figures.checks(name, what));
                }
                Err(failure) => {
                    // It may be the eighth that broke.
                    let _ = stall.end();
                    println!("| {name} | {what} | not measured: {failure} | | | | | |");
                    checks.push(Check::missed(format!("{name}: {what}"), failure));
                }
            }
        }
    }
    Ok(checks)
}

/// What a case gave: figures without and with the eighth, round by round.
struct Figures {
    rounds: Vec<[(f64, f64); 2]>,
    held: f64,
}

impl Figures {
    fn ratio(&self) -> f64 {
        median(self.rounds.iter().map(|[without, with]| with.0 / without.0)).unwrap_or(0.0)
    }

    /// The interval that contains the median of the ratios of all rounds that there could be, with 95 % of certainty.
    fn certain(&self) -> (f64, f64) {
        interval(self.rounds.iter().map(|[without, with]| with.0 / without.0)).unwrap_or((0.0, 0.0))
    }

    fn middle(&self, get: impl Fn(&[(f64, f64); 2]) -> f64) -> f64 {
        median(self.rounds.iter().map(get)).unwrap_or(0.0)
    }

    fn tell(&self, name: &str, what: &str, work: Work) {
        let unit = if work == Work::RoundTrips { 1.0 } else { 8.0 / 1e9 };
        let digits = if work == Work::RoundTrips { 0 } else { 2 };
        let (low, high) = self.certain();
        let p99 = if work == Work::RoundTrips {
            format!(
                "{:.0}, {:.0}",
                self.middle(|round| round[0].1),
                self.middle(|round| round[1].1)
            )
        } else {
            "–".to_owned()
        };
        println!(
            "| {name} | {what} | {:.digits$} | {:.digits$} | {:.3} | {low:.3} – {high:.3} | {p99} | {:.3} |",
            self.middle(|round| round[0].0) * unit,
            self.middle(|round| round[1].0) * unit,
            self.ratio(),
            self.held
        );
    }

    fn checks(&self, name: &str, what: &str) -> Vec<Check> {
        let held = format!("{name}, a long time: {what}, with / without");
        let proved = format!("{name}: {what}, with / without, the least that is certain to 95 %");
        vec![
            Check::at_least(format!("{name}: {what}, with / without"), self.ratio(), LEAST),
            Check::at_least(proved, self.certain().0, LEAST),
            Check::at_least(held, self.held, LEAST),
        ]
    }
}

fn case(
    entry: SocketAddr,
    service: &Service,
    work: Work,
    stall: &mut dyn Stall,
    plan: &Plan,
    dog: &Watchdog,
) -> Result<Figures, Failure> {
    let busy = Busy::start(entry, service, work)?;
    let mut rounds = Vec::new();
    let mut before = busy.measure(plan.window)?;
    for _ in 0..plan.rounds {
        stall.begin()?;
        thread::sleep(PAUSE);
        let with = busy.measure(plan.window)?;
        stall.end()?;
        thread::sleep(PAUSE);
        let after = busy.measure(plan.window)?;
        // What the machine does beside changes slowly in relation to a round: the time between two others is like their mean.
        let without = ((before.0 + after.0) / 2.0, (before.1 + after.1) / 2.0);
        rounds.push([without, with]);
        before = after;
        dog.moved();
    }
    let held = hold(&busy, stall, plan, dog)?;
    busy.finish()?;
    Ok(Figures { rounds, held })
}

/// One long stall: its second half, when what needs time to fill up has had it, in relation to the times right before and after it.
fn hold(busy: &Busy, stall: &mut dyn Stall, plan: &Plan, dog: &Watchdog) -> Result<f64, Failure> {
    const PARTS: u32 = 8;
    let window = plan.hold / PARTS;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..PARTS / 2 {
        without.push(busy.measure(window.min(plan.window))?.0);
    }
    stall.begin()?;
    for _ in 0..PARTS {
        with.push(busy.measure(window)?.0);
        dog.moved();
    }
    stall.end()?;
    thread::sleep(2 * PAUSE);
    for _ in 0..PARTS / 2 {
        without.push(busy.measure(window.min(plan.window))?.0);
    }
    let late = with.split_off(with.len() / 2);
    match (median(late), median(without)) {
        (Some(late), Some(without)) => Ok(late / without),
        _ => Err(Failure("no time to measure in".into())),
    }
}

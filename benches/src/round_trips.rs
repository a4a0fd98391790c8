//! Round trips in short turns, one path after the other, and what each process does for one.
//!
//! A round trip is mostly waiting: for the kernel to wake a thread, and for that to find its memory in the caches. Beside the times
//! stand therefore, for each process, its CPU time, how often it was given a core, and how long it waited for one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use crate::checks::{Check, median};
use crate::load::{self, Failure};
use crate::paths::{self, Path, Portolan};
use crate::report;
use crate::scheduled::Scheduled;
use crate::service::Service;

/// Bytes of one request; as many come back.
const REQUEST: usize = 64;

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Turns of each path.
    pub rounds: usize,
    /// Length of one turn.
    pub turn: Duration,
}

impl Plan {
    /// For numbers: half a minute.
    pub const DEFAULT: Self = Self {
        rounds: 30,
        turn: Duration::from_millis(250),
    };
    /// For a look.
    pub const QUICK: Self = Self {
        rounds: 8,
        turn: Duration::from_millis(150),
    };
}

/// One turn of one path.
struct Turn {
    p50: f64,
    p99: f64,
    round_trips: usize,
    scheduled: Vec<Scheduled>,
}

struct Lane {
    name: &'static str,
    path: Path,
    stream: TcpStream,
    _service: Service,
    turns: Vec<Turn>,
}

impl Lane {
    fn open(name: &'static str, service: Service, path: Path) -> Result<Self, Failure> {
        Ok(Self {
            name,
            stream: load::open_echo(path.entry)?,
            path,
            _service: service,
            turns: Vec::new(),
        })
    }

    fn run(&mut self, length: Duration) -> Result<(), Failure> {
        // What has not run for a while is not in the caches.
        self.round_trips(length / 8)?;
        let before: Vec<_> = self.path.processes.iter().map(|&p| Scheduled::of(p)).collect();
        let mut times = self.round_trips(length)?;
        let processes = self.path.processes.iter().zip(before);
        let scheduled = processes
            .map(|(&p, before)| Scheduled::of(p).since(before))
            .collect();
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        self.turns.push(Turn {
            p50: at(0.5),
            p99: at(0.99),
            round_trips: times.len(),
            scheduled,
        });
        Ok(())
    }

    /// Times in µs; at least one.
    fn round_trips(&mut self, length: Duration) -> Result<Vec<f64>, Failure> {
        let mut times = Vec::with_capacity(16 * 1024);
        let end = Instant::now() + length;
        let mut number = 0_u64;
        loop {
            let mut request = [7; REQUEST];
            request[..8].copy_from_slice(&number.to_be_bytes());
            let mut answer = [0; REQUEST];
            let start = Instant::now();
            self.stream.write_all(&request)?;
            self.stream.read_exact(&mut answer)?;
            let now = Instant::now();
            if answer != request {
                return Err(Failure("what came back is not what was sent".into()));
            }
            number += 1;
            times.push((now - start).as_secs_f64() * 1e6);
            if now >= end {
                return Ok(times);
            }
        }
    }

    fn middle(&self, get: impl Fn(&Turn) -> f64) -> f64 {
        median(self.turns.iter().map(get)).unwrap_or(0.0)
    }

    /// The median of the ratios of turns that were one after the other.
    fn ratio(&self, floor: &Self, get: fn(&Turn) -> f64) -> f64 {
        let pairs = self.turns.iter().zip(&floor.turns);
        median(pairs.map(|(own, other)| get(own) / get(other))).unwrap_or(0.0)
    }

    fn line(&self, floor: &Self) {
        let each = |get: fn(&Scheduled) -> f64| {
            let processes = 0..self.path.processes.len();
            let shown = processes.map(|process| {
                let of = self.middle(|turn| get(&turn.scheduled[process]) / turn.round_trips as f64);
                format!("{of:.1}")
            });
            let shown: Vec<_> = shown.collect();
            if shown.is_empty() {
                "–".to_owned()
            } else {
                shown.join(" ")
            }
        };
        println!(
            "| {} | {:.0} | {:.0} | {:.2} | {:.2} | {} | {} | {} |",
            self.name,
            self.middle(|turn| turn.p50),
            self.middle(|turn| turn.p99),
            self.ratio(floor, |turn| turn.p50),
            self.ratio(floor, |turn| turn.p99),
            each(|s| s.running.as_secs_f64() * 1e6),
            each(|s| s.turns as f64),
            each(|s| s.waiting.as_secs_f64() * 1e6),
        );
    }
}

/// Compares the paths; with `against`, also this other build of the binary.
///
/// # Errors
/// When a path cannot be set up, or does not give back what was sent.
pub fn run(
    binary: &FilePath,
    against: Option<&FilePath>,
    only: Option<&str>,
    plan: &Plan,
) -> Result<Vec<Check>, Failure> {
    type SetUp<'a> = &'a dyn Fn(SocketAddr) -> Result<Path, Failure>;
    let through_relay = |binary: &FilePath, service| Portolan::start(binary, service)?.through_relay();
    let ours = |service| through_relay(binary, service);
    let direct = |service| Portolan::start(binary, service)?.without_relay();
    let mut ways: Vec<(&'static str, SetUp<'_>)> = vec![
        (report::OURS, &ours),
        ("portolan without relay", &direct),
        ("the libraries through a relay, one process", &paths::chain),
    ];
    let other = |service| through_relay(against.unwrap_or(binary), service);
    if against.is_some() {
        ways.push(("the other build through a relay", &other));
    }
    ways.retain(|(name, _)| only.is_none_or(|only| name.contains(only)));
    ways.insert(0, (report::FLOOR, &paths::copying_proxies));
    let mut lanes = Vec::new();
    for (name, set_up) in ways {
        let service = Service::start()?;
        let path = set_up(service.address)?;
        lanes.push(Lane::open(name, service, path)?);
    }
    for round in 0..plan.rounds {
        eprint!("\rround {} of {}", round + 1, plan.rounds);
        for lane in &mut lanes {
            lane.run(plan.turn)?;
        }
    }
    eprintln!();
    println!(
        "| path | RTT p50 µs | p99 | p50 to the proxies' | p99 | CPU µs of a round trip in each process | times it ran | µs it waited for a core |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for lane in &lanes {
        lane.line(&lanes[0]);
    }
    let Some(ours) = lanes.iter().find(|lane| lane.name == report::OURS) else {
        return Ok(Vec::new());
    };
    let ratio = |get: fn(&Turn) -> f64| ours.ratio(&lanes[0], get);
    Ok(vec![
        Check::at_most(
            "round trip p50, times the copying proxies'",
            ratio(|turn| turn.p50),
            report::MOST_ROUND_TRIP,
        ),
        Check::at_most(
            "round trip p99, times the copying proxies'",
            ratio(|turn| turn.p99),
            report::MOST_ROUND_TRIP,
        ),
    ])
}

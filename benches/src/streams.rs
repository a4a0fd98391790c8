//! Bulk transfer in short turns, one path after the other, and what each process does for a mebibyte.
//!
//! What a machine does changes from minute to minute, and whoever compares two builds sees that before he sees the builds. So here
//! turns of half a second follow one another, path after path, and what counts is the median of the ratios of neighbours.

use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use crate::checks::{Check, median};
use crate::load::{self, Direction, Failure, Plan as Load};
use crate::paths::{self, Path, Portolan};
use crate::report;
use crate::scheduled::Scheduled;
use crate::service::Service;

/// How often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Turns of each path and case.
    pub rounds: usize,
    /// Length of one turn, and of the time before it in which streams find their pace.
    pub load: Load,
}

impl Plan {
    /// For numbers: a minute and a half.
    pub const DEFAULT: Self = Self {
        rounds: 9,
        load: Load {
            warm_up: Duration::from_millis(150),
            window: Duration::from_millis(500),
            ..Load::DEFAULT
        },
    };
    /// For a look.
    pub const QUICK: Self = Self {
        rounds: 3,
        load: Load::QUICK,
    };
}

const CASES: [(&str, Direction, usize); 4] = [
    ("up, 1 stream", Direction::Up, 1),
    ("up, 8 streams", Direction::Up, 8),
    ("down, 1 stream", Direction::Down, 1),
    ("down, 8 streams", Direction::Down, 8),
];

struct Turn {
    gbit_per_s: f64,
    cpu_s_per_gib: f64,
    /// How often each process was given a core, for each MiB.
    turns_per_mib: Vec<f64>,
    /// CPU time of each process, in µs for each MiB.
    cpu_us_per_mib: Vec<f64>,
}

struct Lane {
    name: String,
    path: Path,
    service: Service,
    /// By case.
    turns: [Vec<Turn>; CASES.len()],
}

impl Lane {
    fn run(&mut self, case: usize, plan: &Load) -> Result<(), Failure> {
        let (_, direction, streams) = CASES[case];
        let processes = &self.path.processes;
        let carried = load::transfer(
            self.path.entry,
            &self.service,
            processes,
            direction,
            streams,
            plan,
        )?;
        let mib = carried.bytes / f64::from(1 << 20);
        let each = |get: fn(&Scheduled) -> f64| carried.scheduled.iter().map(|one| get(one) / mib).collect();
        self.turns[case].push(Turn {
            gbit_per_s: carried.gbit_per_s(),
            cpu_s_per_gib: carried.cpu_s_per_gib(),
            turns_per_mib: each(|s| s.turns as f64),
            cpu_us_per_mib: each(|s| s.running.as_secs_f64() * 1e6),
        });
        Ok(())
    }

    fn middle(&self, case: usize, get: impl Fn(&Turn) -> f64) -> f64 {
        median(self.turns[case].iter().map(get)).unwrap_or(0.0)
    }

    /// The median of the ratios of turns that were one after the other.
    fn ratio(&self, floor: &Self, case: usize, get: fn(&Turn) -> f64) -> f64 {
        let pairs = self.turns[case].iter().zip(&floor.turns[case]);
        median(pairs.map(|(own, other)| get(own) / get(other))).unwrap_or(0.0)
    }

    fn line(&self, floor: &Self, case: usize) {
        let each = |get: fn(&Turn) -> &Vec<f64>, digits: usize| {
            let shown = (0..self.path.processes.len()).map(|process| {
                let middle = self.middle(case, |turn| get(turn)[process]);
                format!("{middle:.digits$}")
            });
            shown.collect::<Vec<_>>().join(" ")
        };
        println!(
            "| {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {} |",
            CASES[case].0,
            self.name,
            self.middle(case, |turn| turn.gbit_per_s),
            self.ratio(floor, case, |turn| turn.gbit_per_s),
            self.middle(case, |turn| turn.cpu_s_per_gib),
            self.ratio(floor, case, |turn| turn.cpu_s_per_gib),
            each(|turn| &turn.cpu_us_per_mib, 0),
            each(|turn| &turn.turns_per_mib, 1),
        );
    }
}

/// Compares the path through a relay with the copying proxies, and with that of other builds of the binary. `only`: cases whose name
/// contains this.
///
/// # Errors
/// When a path cannot be set up, or what arrives is not what was sent.
pub fn run(
    binary: &FilePath,
    against: &[PathBuf],
    only: Option<&str>,
    plan: &Plan,
) -> Result<Vec<Check>, Failure> {
    let open = |name: String, set_up: &dyn Fn(SocketAddr) -> Result<Path, Failure>| {
        let service = Service::start()?;
        Ok::<_, Failure>(Lane {
            name,
            path: set_up(service.address)?,
            service,
            turns: Default::default(),
        })
    };
    let mut lanes = vec![
        open(report::FLOOR.to_owned(), &paths::copying_proxies)?,
        open(report::OURS.to_owned(), &|service| {
            Portolan::start(binary, service)?.through_relay()
        })?,
    ];
    for other in against {
        let name = format!("{} through a relay", other.display());
        lanes.push(open(name, &|service| {
            Portolan::start(other, service)?.through_relay()
        })?);
    }
    let cases = || (0..CASES.len()).filter(|&case| only.is_none_or(|only| CASES[case].0.contains(only)));
    for round in 0..plan.rounds {
        eprint!("\rround {} of {}", round + 1, plan.rounds);
        for case in cases() {
            for lane in &mut lanes {
                lane.run(case, &plan.load)?;
            }
        }
    }
    eprintln!();
    println!(
        "| streams | path | Gbit/s | to the proxies' | CPU s/GiB | to the proxies' | CPU µs of a MiB in each process | times it ran |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut checks = Vec::new();
    for case in cases() {
        lanes.iter().for_each(|lane| lane.line(&lanes[0], case));
        let ratio = |get: fn(&Turn) -> f64| lanes[1].ratio(&lanes[0], case, get);
        let name = CASES[case].0;
        checks.push(Check::at_least(
            format!("{name}, Gbit/s, times the copying proxies'"),
            ratio(|turn| turn.gbit_per_s),
            report::LEAST_THROUGHPUT,
        ));
        checks.push(Check::at_most(
            format!("{name}, CPU s/GiB, times the copying proxies'"),
            ratio(|turn| turn.cpu_s_per_gib),
            report::MOST_CPU,
        ));
    }
    Ok(checks)
}

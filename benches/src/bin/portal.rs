//! Benchmarks of real processes: portals side by side with other ways through, and what they cost when idle, stalled, many, or
//! running for long.

// Its result goes to standard output, its progress to standard error.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use portolan_benches::checks::Check;
use portolan_benches::load::{self, Failure, Figures, Plan};
use portolan_benches::paths::{self, Path, Portolan};
use portolan_benches::report::{self, Row};
use portolan_benches::service::{self, Service};
use portolan_benches::{
    chain, cleanup, cores, idle, interceptors, proxy, relay_scale, round_trips, soak, stalls, streams,
};
use serde::Serialize;

/// Compares a portal with other ways through, side by side in one run: no tunnel, three plain copying proxies, a pair of
/// stunnel, Portolan without and with a relay; in rounds, with medians. Everything is on loopback, in processes and folders of its own
/// that are removed at the end. The commands measure something else of the same binary.
#[derive(Debug, Parser)]
#[command(name = "portal", args_conflicts_with_subcommands = false)]
struct Arguments {
    /// The binary to measure. Default: `portolan` beside this program.
    #[arg(long, value_name = "FILE", global = true)]
    binary: Option<PathBuf>,
    /// A part of the time; for a look, not for numbers.
    #[arg(long, global = true)]
    quick: bool,
    /// End with code 1 when an aim is not met.
    #[arg(long, global = true)]
    check: bool,
    /// Write everything that was compared to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare only paths, or stalls, whose name contains this.
    #[arg(long, value_name = "TEXT", global = true)]
    only: Option<String>,
    /// Rounds; figures are medians over them.
    #[arg(long, value_name = "NUMBER", global = true)]
    rounds: Option<usize>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What idle portal connections cost in each process, and idle workers.
    Idle {
        /// Connections; needs so many open files in each process.
        #[arg(long, value_name = "NUMBER")]
        connections: Option<usize>,
        /// Workers.
        #[arg(long, value_name = "NUMBER")]
        workers: Option<usize>,
    },
    /// What one connection that stalls costs seven beside it: a client, a server, another node behind the relay.
    Stalls {
        /// Length of the long stall of each case, in seconds.
        #[arg(long, value_name = "SECONDS")]
        hold: Option<u64>,
    },
    /// What an interceptor that passes bytes leaves of a portal's throughput, in nodes of this process.
    Interceptors,
    /// Round trips in short turns beside the copying proxies, and what each process does for one.
    RoundTrips {
        /// Another build of the binary, to compare in the same run.
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
    },
    /// Bulk transfer in short turns beside the copying proxies, and what each process does for a mebibyte.
    Streams {
        /// Other builds of the binary, to compare in the same run.
        #[arg(long, value_name = "FILES", value_delimiter = ',')]
        against: Vec<PathBuf>,
    },
    /// What two arbiters do in relation to one, and a portal striped over two connections to one over one.
    Cores,
    /// One project node with many members and their relays.
    RelayScale {
        /// Numbers of members, growing.
        #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
        members: Option<Vec<usize>>,
        /// Draw the curve into this SVG file.
        #[arg(long, value_name = "FILE")]
        draw: Option<PathBuf>,
    },
    /// Connections that are opened, used and closed for long, and the memory of the processes meanwhile.
    Soak {
        /// Length in seconds.
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u64>,
        /// Connections for each second.
        #[arg(long, value_name = "NUMBER", default_value = "200")]
        rate: f64,
    },
    /// Be a plain copying proxy; prints its address when it listens.
    #[command(hide = true)]
    Copy {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
        /// Where to connect.
        #[arg(long)]
        to: SocketAddr,
    },
    /// Be inlet, relay and outlet of the libraries alone, in three nodes of one process; prints its address when it listens.
    #[command(hide = true)]
    Chain {
        /// Where to connect.
        #[arg(long)]
        to: SocketAddr,
    },
    /// Be a service that sends back what comes, for many connections; prints its address when it listens.
    #[command(hide = true)]
    Serve,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Record<'a> {
    quick: bool,
    rows: &'a [Row],
    checks: &'a [Check],
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    raise_file_limit();
    let served = match &arguments.command {
        Some(Command::Copy { listen, to }) => Some(proxy::run(*listen, *to, |address| println!("{address}"))),
        Some(Command::Chain { to }) => Some(chain::run(*to, |address| println!("{address}"))),
        Some(Command::Serve) => Some(service::serve_many(|address| println!("{address}"))),
        _ => None,
    };
    if let Some(result) = served {
        return match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("portal: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let _at_end = cleanup::AtEnd;
    match run(&arguments) {
        Ok(checks) => {
            if !checks.is_empty() {
                println!("\nAims:");
                checks.iter().for_each(|check| println!("- {check}"));
            }
            if arguments.check && checks.iter().any(|check| !check.holds) {
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("portal: {failure}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Vec<Check>, Failure> {
    cleanup::on_signals()?;
    let quick = arguments.quick;
    // The only one that needs no processes.
    if matches!(arguments.command, Some(Command::Interceptors)) {
        let mut plan = if quick {
            interceptors::Plan::QUICK
        } else {
            interceptors::Plan::DEFAULT
        };
        plan.rounds = arguments.rounds.unwrap_or(plan.rounds).max(1);
        return interceptors::run(&plan);
    }
    let binary = arguments.binary.clone().map_or_else(beside_own, Ok)?;
    match &arguments.command {
        None => compare(arguments, &binary),
        Some(Command::Idle { connections, workers }) => {
            let connections = connections.unwrap_or(if quick { 1_000 } else { 9_900 });
            let workers = workers.unwrap_or(if quick { 10_000 } else { 100_000 });
            // Workers first: this process must not have had 10,000 connections before.
            let mut checks = if workers == 0 {
                Vec::new()
            } else {
                idle::workers(workers)?
            };
            println!();
            if connections > 0 {
                checks.extend(idle::connections(&binary, connections)?);
            }
            Ok(checks)
        }
        Some(Command::Stalls { hold }) => {
            let mut plan = if quick {
                stalls::Plan::QUICK
            } else {
                stalls::Plan::DEFAULT
            };
            plan.hold = hold.map_or(plan.hold, Duration::from_secs);
            plan.rounds = arguments.rounds.unwrap_or(plan.rounds).max(1);
            stalls::run(&binary, &plan, arguments.only.as_deref())
        }
        Some(Command::RoundTrips { against }) => {
            let mut plan = if quick {
                round_trips::Plan::QUICK
            } else {
                round_trips::Plan::DEFAULT
            };
            plan.rounds = arguments.rounds.unwrap_or(plan.rounds).max(1);
            round_trips::run(&binary, against.as_deref(), arguments.only.as_deref(), &plan)
        }
        Some(Command::Streams { against }) => {
            let mut plan = if quick {
                streams::Plan::QUICK
            } else {
                streams::Plan::DEFAULT
            };
            plan.rounds = arguments.rounds.unwrap_or(plan.rounds).max(1);
            streams::run(&binary, against, arguments.only.as_deref(), &plan)
        }
        Some(Command::Cores) => {
            let mut plan = if quick {
                cores::Plan::QUICK
            } else {
                cores::Plan::DEFAULT
            };
            plan.rounds = arguments.rounds.unwrap_or(plan.rounds).max(1);
            cores::run(&binary, &plan)
        }
        Some(Command::RelayScale { members, draw }) => {
            let usual: &[usize] = if quick {
                &relay_scale::QUICK_STEPS
            } else {
                &relay_scale::STEPS
            };
            let steps = members.as_deref().unwrap_or(usual);
            if !steps.is_sorted_by(|a, b| a < b) || steps.first().is_none_or(|&first| first < 2) {
                return Err(Failure("--members: at least 2 each, and growing".into()));
            }
            let messages = if quick { 20_000 } else { 200_000 };
            relay_scale::run(&binary, steps, messages, draw.clone())
        }
        Some(Command::Soak { seconds, rate }) => {
            let seconds = seconds.unwrap_or(if quick { 20 } else { 60 });
            let plan = soak::Plan {
                duration: Duration::from_secs(seconds),
                rate: rate.max(1.0),
            };
            soak::run(&binary, &plan)
        }
        Some(Command::Copy { .. } | Command::Chain { .. } | Command::Serve | Command::Interceptors) => {
            Ok(Vec::new())
        }
    }
}

/// A path that is set up, or why it could not be, and what each round gave.
struct Measured {
    name: &'static str,
    service: Service,
    path: Result<Path, Failure>,
    rounds: Vec<Figures>,
}

fn compare(arguments: &Arguments, binary: &std::path::Path) -> Result<Vec<Check>, Failure> {
    let start = Instant::now();
    let mut plan = if arguments.quick {
        Plan::QUICK
    } else {
        Plan::DEFAULT
    };
    plan.rounds = arguments.rounds.unwrap_or(plan.rounds).max(1);
    type SetUp<'a> = &'a dyn Fn(SocketAddr) -> Result<Path, Failure>;
    let ways: [(&'static str, SetUp<'_>); 5] = [
        ("no tunnel", &|service| Ok(paths::no_tunnel(service))),
        (report::FLOOR, &|service| paths::copying_proxies(service)),
        (report::STUNNEL, &|service| paths::stunnel_pair(service)),
        ("portolan without relay", &|service| {
            Portolan::start(binary, service)?.without_relay()
        }),
        (report::OURS, &|service| {
            Portolan::start(binary, service)?.through_relay()
        }),
    ];
    // All are there all the time: what is not being measured does nothing. Each has a service of its own, so that ports of closed
    // connections of one do not slow down the next.
    let mut measured = Vec::new();
    for (name, set_up) in ways {
        let wanted = arguments
            .only
            .as_ref()
            .is_none_or(|only| name.contains(only.as_str()));
        if wanted {
            let service = Service::start()?;
            measured.push(Measured {
                name,
                path: set_up(service.address),
                service,
                rounds: Vec::new(),
            });
        }
    }
    for round in 0..plan.rounds {
        for one in &mut measured {
            let Ok(path) = &one.path else { continue };
            eprintln!(
                "{:4} s  round {} of {}: {}",
                start.elapsed().as_secs(),
                round + 1,
                plan.rounds,
                one.name
            );
            let figures = load::measure(path.entry, &one.service, &path.processes, &plan, round == 0);
            one.rounds.push(figures);
        }
    }
    eprintln!("{:4} s  done\n", start.elapsed().as_secs());
    let rows: Vec<Row> = measured
        .into_iter()
        .map(|one| Row {
            name: one.name,
            figures: one
                .path
                .and_then(|_| Figures::middle(&one.rounds).ok_or_else(|| Failure("no rounds".into()))),
        })
        .collect();

    println!("{}", report::table(&rows));
    let ratios = report::ratios(&rows);
    if !ratios.is_empty() {
        println!("In relation to {}:", report::FLOOR);
        ratios.iter().for_each(|line| println!("- {line}"));
    }
    for line in report::failures(&rows) {
        println!("\nNot measured: {line}");
    }
    let checks = report::checks(&rows);
    if let Some(file) = &arguments.json {
        let record = Record {
            quick: arguments.quick,
            rows: &rows,
            checks: &checks,
        };
        let text = serde_json::to_string_pretty(&record).map_err(Failure::of)?;
        std::fs::write(file, text)?;
    }
    // A part of the comparison has no aims.
    Ok(if arguments.only.is_some() {
        Vec::new()
    } else {
        checks
    })
}

fn beside_own() -> Result<PathBuf, Failure> {
    let path = std::env::current_exe()?.with_file_name("portolan");
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure(format!(
        "{} does not exist: run `cargo build --release` first, or name it with --binary",
        path.display()
    )))
}

/// Idle connections take file descriptors, here and in the processes started from here.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With the lower limit some figures may fail, and then say so.
    let _ = setrlimit(Resource::Nofile, limit);
}

//! Side-by-side benchmark of portals: one run, one table.

// Its result goes to standard output, its progress to standard error.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use portolan_benches::load::{self, Failure, Plan};
use portolan_benches::paths::{self, Path, Portolan};
use portolan_benches::report::{self, Row};
use portolan_benches::service::Service;
use portolan_benches::{cleanup, proxy};
use serde::Serialize;

/// Compares a portal with other ways through, side by side in one run: no tunnel, three plain copying proxies, a pair of
/// stunnel, Portolan without and with a relay. Everything is on loopback, in processes and folders of its own that are
/// removed at the end.
#[derive(Debug, Parser)]
#[command(name = "portal")]
struct Arguments {
    /// The binary to measure. Default: `portolan` beside this program.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Half a minute instead of a minute and a half; for a look, not for numbers.
    #[arg(long)]
    quick: bool,
    /// Write everything that was measured to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// End with code 1 when the path through a relay misses what is required of it.
    #[arg(long)]
    check: bool,
    /// Measure only paths whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Be a plain copying proxy; prints its address when it listens.
    Copy {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
        /// Where to connect.
        #[arg(long)]
        to: SocketAddr,
    },
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Record<'a> {
    quick: bool,
    rows: &'a [Row],
    checks: &'a [report::Check],
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Role::Copy { listen, to }) = arguments.role {
        return match proxy::run(listen, to, |address| println!("{address}")) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("portal copy: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let _at_end = cleanup::AtEnd;
    match compare(&arguments) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("portal: {failure}");
            ExitCode::from(2)
        }
    }
}

fn compare(arguments: &Arguments) -> Result<ExitCode, Failure> {
    cleanup::on_signals()?;
    raise_file_limit();
    let start = Instant::now();
    let plan = if arguments.quick {
        Plan::QUICK
    } else {
        Plan::DEFAULT
    };
    let binary = arguments.binary.clone().map_or_else(beside_own, Ok)?;
    let wanted = |name: &str| {
        arguments
            .only
            .as_ref()
            .is_none_or(|only| name.contains(only.as_str()))
    };
    let mut rows = Vec::new();
    // Each path gets a service of its own, so that ports of closed connections of one do not slow down the next, and its
    // processes are gone before the next is measured.
    let mut measure =
        |name: &'static str, set_up: &dyn Fn(&Service) -> Result<Path, Failure>| -> Result<(), Failure> {
            if !wanted(name) {
                return Ok(());
            }
            eprintln!("{:4} s  {name}", start.elapsed().as_secs());
            let service = Service::start()?;
            let figures =
                set_up(&service).map(|path| load::measure(path.entry, &service, &path.processes, &plan));
            rows.push(Row { name, figures });
            cleanup::everything();
            Ok(())
        };
    measure("no tunnel", &|service| Ok(paths::no_tunnel(service.address)))?;
    measure(report::FLOOR, &|service| paths::copying_proxies(service.address))?;
    measure("stunnel pair, no relay", &|service| {
        paths::stunnel_pair(service.address)
    })?;
    measure("portolan without relay", &|service| {
        Portolan::start(&binary, service.address)?.without_relay()
    })?;
    measure(report::OURS, &|service| {
        Portolan::start(&binary, service.address)?.through_relay()
    })?;
    eprintln!("{:4} s  done\n", start.elapsed().as_secs());

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
    if arguments.check {
        println!("\nRequired of \"{}\":", report::OURS);
        for check in &checks {
            println!("- {}: {}", if check.holds { "ok" } else { "MISSED" }, check.text);
        }
    }
    if let Some(file) = &arguments.json {
        let record = Record {
            quick: arguments.quick,
            rows: &rows,
            checks: &checks,
        };
        let text = serde_json::to_string_pretty(&record).map_err(|error| Failure(error.to_string()))?;
        std::fs::write(file, text)?;
    }
    let missed = arguments.check && checks.iter().any(|check| !check.holds);
    Ok(if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
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

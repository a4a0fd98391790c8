//! A long run of connections that are opened, used and closed, and the memory of the processes meanwhile.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portolan_tests::process;

use crate::checks::Check;
use crate::load::{Failure, open};
use crate::paths::{Portolan, ROLES, own_process};
use crate::service;

/// Threads that open connections.
const USERS: usize = 8;
/// Memory is read this often.
const SAMPLE: Duration = Duration::from_secs(2);
/// The first part of the run is not looked at: the processes have to see all that there will be.
const WARM_UP: f64 = 0.25;
/// What memory may grow by, in KiB, for each thousand connections that were opened and closed. A hundred bytes kept of each would be a
/// hundred.
pub const MOST_KIB_PER_THOUSAND: f64 = 16.0;

/// How long, and how many.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Length of the run.
    pub duration: Duration,
    /// Connections opened for each second.
    pub rate: f64,
}

/// What the threads share.
#[derive(Debug, Default)]
struct Progress {
    stop: AtomicBool,
    done: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
}

/// The kinds of use: bytes of each request, and how many; most connections are small.
const USES: [(usize, usize); 8] = [
    (64, 1),
    (64, 20),
    (1024, 3),
    (100, 1),
    (16 * 1024, 2),
    (300, 4),
    (200_000, 1),
    (1, 1),
];

/// Runs it.
///
/// # Errors
/// When the nodes cannot be set up.
pub fn run(binary: &Path, plan: &Plan) -> Result<Vec<Check>, Failure> {
    let (_, service) = own_process(&["serve"])?;
    let path = Portolan::start(binary, service)?.through_relay()?;
    let progress = Arc::new(Progress::default());
    let start = Instant::now();
    let users: Vec<_> = (0..USERS)
        .map(|user| {
            let (progress, entry, rate) = (Arc::clone(&progress), path.entry, plan.rate);
            thread::spawn(move || use_connections(user, entry, rate, &progress))
        })
        .collect();
    let mut samples: Vec<(f64, f64, Vec<f64>)> = Vec::new();
    let cpu = || -> f64 {
        path.processes
            .iter()
            .map(|&pid| process::cpu_time(pid).as_secs_f64())
            .sum()
    };
    let cpu_before = cpu();
    while start.elapsed() < plan.duration {
        thread::sleep(SAMPLE);
        let resident = path
            .processes
            .iter()
            .map(|&pid| process::resident_kib(pid) as f64);
        samples.push((
            start.elapsed().as_secs_f64(),
            progress.done.load(Ordering::Relaxed) as f64,
            resident.collect(),
        ));
        if let Some((seconds, done, resident)) = samples.last() {
            let shown: Vec<String> = resident
                .iter()
                .map(|kib| format!("{:.1}", kib / 1024.0))
                .collect();
            eprintln!(
                "{seconds:6.0} s {done:9.0} connections, MiB: {}",
                shown.join(", ")
            );
        }
    }
    progress.stop.store(true, Ordering::Relaxed);
    for user in users {
        let _ = user.join();
    }
    let (done, failed) = (
        progress.done.load(Ordering::Relaxed),
        progress.failed.load(Ordering::Relaxed),
    );
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{seconds:.0} s, {done} connections ({:.0}/s), {:.1} MiB each way, {failed} failed, {:.1} % of a core in the three processes\n",
        done as f64 / seconds,
        progress.bytes.load(Ordering::Relaxed) as f64 / f64::from(1 << 20),
        100.0 * (cpu() - cpu_before) / seconds
    );
    samples.drain(..(samples.len() as f64 * WARM_UP) as usize);
    let mut checks = vec![Check::at_most("failed connections", failed as f64, 0.0)];
    println!(
        "| process | MiB after the warm-up | at the end | most | KiB/min | KiB for each 1000 connections |"
    );
    println!("|---|---|---|---|---|---|");
    for (index, role) in ROLES.iter().enumerate() {
        let series = |x: fn(&(f64, f64, Vec<f64>)) -> f64| -> Vec<(f64, f64)> {
            samples
                .iter()
                .map(|sample| (x(sample), sample.2[index]))
                .collect()
        };
        let per_minute = 60.0 * slope(&series(|sample| sample.0));
        let per_thousand = 1000.0 * slope(&series(|sample| sample.1));
        let mib =
            |sample: Option<&(f64, f64, Vec<f64>)>| sample.map_or(0.0, |sample| sample.2[index] / 1024.0);
        let most = samples.iter().map(|sample| sample.2[index]).fold(0.0, f64::max) / 1024.0;
        println!(
            "| {role} | {:.1} | {:.1} | {most:.1} | {per_minute:.1} | {per_thousand:.2} |",
            mib(samples.first()),
            mib(samples.last())
        );
        let what = format!("KiB that the {role}'s process grows by for each 1000 connections");
        checks.push(Check::at_most(what, per_thousand, MOST_KIB_PER_THOUSAND));
    }
    Ok(checks)
}

/// How much `y` grows for each `x`: the median of the slopes between all pairs of points, which single jumps do not move.
fn slope(points: &[(f64, f64)]) -> f64 {
    let slopes = points.iter().enumerate().flat_map(|(index, a)| {
        points[index + 1..]
            .iter()
            .filter(|b| b.0 > a.0)
            .map(|b| (b.1 - a.1) / (b.0 - a.0))
    });
    crate::checks::median(slopes).unwrap_or(0.0)
}

fn use_connections(user: usize, entry: SocketAddr, rate: f64, progress: &Progress) {
    let pause = Duration::from_secs_f64(USERS as f64 / rate);
    let mut next = Instant::now() + pause.mul_f64(user as f64 / USERS as f64);
    let mut number = user;
    while !progress.stop.load(Ordering::Relaxed) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next = (next + pause).max(Instant::now());
        number += USERS;
        match use_once(entry, number) {
            Ok(bytes) => {
                progress.done.fetch_add(1, Ordering::Relaxed);
                progress.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) => {
                if progress.failed.fetch_add(1, Ordering::Relaxed) < 5 {
                    eprintln!("a connection failed: {error}");
                }
            }
        }
    }
}

fn use_once(entry: SocketAddr, number: usize) -> std::io::Result<u64> {
    let (size, times) = USES[number % USES.len()];
    let mut stream = open(entry, service::ECHO)?;
    let question: Vec<u8> = (0..size).map(|index| (index + number) as u8).collect();
    let mut answer = vec![0; size];
    for _ in 0..times {
        let mut writing = stream.try_clone()?;
        // What is large comes back while it is still being sent.
        thread::scope(|scope| {
            let writer = (size > 16 * 1024).then(|| scope.spawn(|| writing.write_all(&question)));
            if writer.is_none() {
                stream.write_all(&question)?;
            }
            stream.read_exact(&mut answer)
        })?;
        if answer != question {
            return Err(std::io::Error::other("another answer came than was sent"));
        }
    }
    match number % 3 {
        // An end in one direction, and the other end's end.
        0 => {
            stream.shutdown(Shutdown::Write)?;
            if stream.read(&mut [0])? != 0 {
                return Err(std::io::Error::other("something came after the end"));
            }
        }
        // A reset: something that was never read.
        1 => stream.write_all(b"x")?,
        _ => {}
    }
    Ok((size * times) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_line_and_not_of_a_jump() {
        let mut points: Vec<(f64, f64)> = (0..100)
            .map(|x| (f64::from(x), 3.0 + 2.0 * f64::from(x)))
            .collect();
        assert!((slope(&points) - 2.0).abs() < 1e-9);
        points[50].1 = 1e6;
        assert!((slope(&points) - 2.0).abs() < 0.1);
        assert_eq!(slope(&[]), 0.0);
    }
}

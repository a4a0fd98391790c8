//! What is paid for what does nothing: idle portal connections, idle workers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use portolan_runtime::services::Echo;
use portolan_runtime::{
    Address, Context, Node, Result as RuntimeResult, Routed, Worker, WorkerOptions, route,
};
use portolan_tests::process;

use crate::checks::Check;
use crate::circle::QueuedHop;
use crate::load::{Failure, open_echo};
use crate::paths::{Portolan, ROLES, own_process};

/// KiB of an idle portal connection in each of the inlet's and the outlet's process.
pub const MOST_KIB_AT_AN_END: f64 = 4.0;
/// KiB of it in the relay's: nothing, but for what happens in the process meanwhile.
pub const MOST_KIB_AT_THE_RELAY: f64 = 0.05;
/// KiB of an idle worker.
pub const MOST_KIB_OF_A_WORKER: f64 = 1.5;
/// Threads that open connections.
const OPENERS: usize = 8;
/// Memory counts as settled when it has not changed by more than this, in KiB, ...
const STEADY_KIB: u64 = 64;
/// ... from one look to the next, so many times.
const STEADY_LOOKS: usize = 4;
/// Time between two looks: what is given back after a pause is given back after less.
const LOOK: Duration = Duration::from_secs(1);
/// Looks at most.
const LOOKS: usize = 40;
/// Of so many workers one is asked whether it is still there.
const ASKED: usize = 100;

/// Waits until the memory of these processes stays as it is, in KiB.
pub fn settled(processes: &[u32]) -> Vec<u64> {
    let look = || -> Vec<u64> { processes.iter().copied().map(process::resident_kib).collect() };
    let (mut last, mut steady) = (look(), 0);
    for _ in 0..LOOKS {
        thread::sleep(LOOK);
        let now = look();
        let same = now
            .iter()
            .zip(&last)
            .all(|(now, last)| now.abs_diff(*last) <= STEADY_KIB);
        steady = if same { steady + 1 } else { 0 };
        last = now;
        if steady >= STEADY_LOOKS {
            break;
        }
    }
    last
}

fn open_many(entry: SocketAddr, count: usize) -> Result<Vec<TcpStream>, Failure> {
    let openers: Vec<_> = (0..OPENERS)
        .map(|opener| {
            thread::spawn(move || {
                (opener..count)
                    .step_by(OPENERS)
                    .map(|_| open_echo(entry))
                    .collect::<Result<Vec<_>, _>>()
            })
        })
        .collect();
    let mut open = Vec::with_capacity(count);
    for opener in openers {
        open.extend(
            opener
                .join()
                .map_err(|_| Failure("a thread of the load panicked".into()))??,
        );
    }
    Ok(open)
}

/// Opens `count` portal connections through a relay, leaves them alone, and tells what they cost each process.
///
/// # Errors
/// When a part cannot be set up, or a connection does not work before or after.
pub fn connections(binary: &Path, count: usize) -> Result<Vec<Check>, Failure> {
    let (_, service) = own_process(&["serve"])?;
    let path = Portolan::start(binary, service)?.through_relay()?;
    // What the first connections open for all, and what a process takes for the first load that it sees.
    drop(open_many(path.entry, 64)?);
    let before = settled(&path.processes);
    let mut open = open_many(path.entry, count)?;
    let after = settled(&path.processes);
    // All of them still work.
    for stream in &mut open {
        stream.write_all(b"?")?;
    }
    for stream in &mut open {
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        if answer != *b"?" {
            return Err(Failure("an idle connection gave something else back".into()));
        }
    }
    let used = settled(&path.processes);
    drop(open);
    let closed = settled(&path.processes);
    let mut checks = Vec::new();
    println!("{count} idle portal connections through a relay, KiB for each connection:\n");
    println!(
        "| process | idle | idle again after one more byte each | after they were closed | resident before, MiB |"
    );
    println!("|---|---|---|---|---|");
    for (index, role) in ROLES.iter().enumerate() {
        let each = |after: &[u64]| (after[index] as f64 - before[index] as f64) / count as f64;
        println!(
            "| {role} | {:.2} | {:.2} | {:.2} | {:.1} |",
            each(&after),
            each(&used),
            each(&closed),
            before[index] as f64 / 1024.0
        );
        let aim = if *role == "relay" {
            MOST_KIB_AT_THE_RELAY
        } else {
            MOST_KIB_AT_AN_END
        };
        let what = format!("KiB of an idle connection, {role}");
        checks.push(Check::at_most(what, each(&after).max(each(&used)), aim));
    }
    Ok(checks)
}

/// A worker as users write one.
struct Quiet;

impl Worker for Quiet {
    type Message = String;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<String>) -> RuntimeResult<()> {
        ctx.send(message.return_route().clone(), message.into_body()?)
            .await
    }
}

/// Starts a worker of one kind.
type Start = fn(&Node, WorkerOptions) -> RuntimeResult<Address>;

/// Starts `count` workers of each kind in this process and tells what one costs.
///
/// # Errors
/// When one cannot be started, or does not work.
pub fn workers(count: usize) -> Result<Vec<Check>, Failure> {
    println!("\n{count} idle workers in one node:\n");
    println!("| worker | KiB of each | µs to start one |");
    println!("|---|---|---|");
    let mut checks = Vec::new();
    let kinds: [(&str, Start); 2] = [
        ("synchronous", |node, options| {
            node.start_sync_worker(options, QueuedHop)
        }),
        ("async", |node, options| node.start_worker(options, Quiet)),
    ];
    for (name, start) in kinds {
        let (each, time) = workers_of(count, start)?;
        println!(
            "| {name} | {each:.2} | {:.2} |",
            time.as_secs_f64() * 1e6 / count as f64
        );
        let what = format!("KiB of an idle {name} worker");
        checks.push(Check::at_most(what, each, MOST_KIB_OF_A_WORKER));
    }
    Ok(checks)
}

fn workers_of(count: usize, start: Start) -> Result<(f64, Duration), Failure> {
    let node = Node::builder().arbiters(1).build().map_err(Failure::of)?;
    node.start_sync_worker("echo", Echo).map_err(Failure::of)?;
    let own = [std::process::id()];
    let before = settled(&own)[0];
    let maker = node.clone();
    let (addresses, time) = node
        .block_on(move || async move {
            let begin = std::time::Instant::now();
            let addresses: RuntimeResult<Vec<Address>> = (0..count)
                .map(|_| start(&maker, WorkerOptions::new(Address::random())))
                .collect();
            (addresses, begin.elapsed())
        })
        .map_err(Failure::of)?;
    let addresses = addresses.map_err(Failure::of)?;
    // The addresses that this measurement keeps are not the workers'.
    let kept = addresses.capacity() * size_of::<Address>() / 1024;
    let after = settled(&own)[0];
    let asker = node.clone();
    let asked: Vec<Address> = addresses.iter().step_by(ASKED).cloned().collect();
    let answers = node
        .block_on(move || async move {
            for address in asked {
                let question = "are you there?".to_owned();
                let answer: Routed<String> = asker
                    .send_and_receive(route![address, "echo"], question.clone())
                    .await?;
                if answer.into_body().ok() != Some(question) {
                    return Err(portolan_runtime::Error::other("a worker answered something else"));
                }
            }
            Ok(())
        })
        .map_err(Failure::of)?;
    answers.map_err(Failure::of)?;
    node.stop_blocking();
    let each = after.saturating_sub(before).saturating_sub(kept as u64) as f64 / count as f64;
    Ok((each, time))
}

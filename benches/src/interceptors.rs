//! What an interceptor that passes all bytes costs: inlets beside each other in one chain of nodes, without an interceptor, with one on
//! the thread of the connection, with one on a thread of its own, and with a plugin.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portolan_plugin::{Engine, EngineOptions, Interceptors, Limits, Plugin};
use portolan_portal::intercept::{
    ConnectionInfo, Direction, Ended, Filter, Inline, Intercept, Interception, Interceptor, Output, remote,
};
use portolan_portal::{Inlet, InletOptions};
use portolan_runtime::{Node, Payload, route};

use crate::chain::{Chain, failed};
use crate::checks::{Check, median};
use crate::guest;
use crate::load::Failure;
use crate::service::{self, CHUNK, Service};

/// What an interceptor that passes bytes leaves of the throughput, at least.
const AIM: f64 = 0.5;
/// Until the windows have grown.
const WARM_UP: Duration = Duration::from_millis(300);

/// How long, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Of one measurement.
    pub duration: Duration,
    /// Of all ways in turn.
    pub rounds: usize,
}

impl Plan {
    /// For numbers.
    pub const DEFAULT: Self = Self {
        duration: Duration::from_millis(1_200),
        rounds: 3,
    };
    /// For a look.
    pub const QUICK: Self = Self {
        duration: Duration::from_millis(300),
        rounds: 1,
    };
}

struct Pass;

impl Filter for Pass {
    fn data(&mut self, _: Direction, bytes: Payload, output: &mut Output) -> Result<(), Ended> {
        output.push(bytes);
        Ok(())
    }
}

/// On the thread of the connection.
struct Here;

impl Intercept for Here {
    fn name(&self) -> &str {
        "here"
    }

    fn open(&self, _: &ConnectionInfo) -> Result<Box<dyn Interceptor>, Ended> {
        Ok(Inline::boxed(Pass))
    }
}

/// On a thread for each connection.
struct Elsewhere;

impl Intercept for Elsewhere {
    fn name(&self) -> &str {
        "elsewhere"
    }

    fn open(&self, _: &ConnectionInfo) -> Result<Box<dyn Interceptor>, Ended> {
        let (interceptor, mut work) = remote();
        let passing = async move {
            while let Some(task) = work.next().await {
                work.done(task.bytes);
            }
        };
        let no_thread = |error| Ended::failed(format!("no thread for it: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(no_thread)?;
        std::thread::Builder::new()
            .spawn(move || runtime.block_on(passing))
            .map_err(no_thread)?;
        Ok(interceptor)
    }
}

/// A plugin that looks at nothing, as a node has it before its inlets.
fn plugin(node: &Node) -> Result<Arc<dyn Intercept>, Failure> {
    let engine = Engine::new(EngineOptions::default()).map_err(failed("the engine of plugins"))?;
    let plugin = Plugin::load(&engine, &guest::stream()?).map_err(failed("the plugin"))?;
    let interceptors =
        Interceptors::new(&plugin, "bench", "", Limits::default()).map_err(failed("the plugin"))?;
    Ok(portolan::interceptors::of_plugin("plugin", node, interceptors))
}

#[derive(Debug, Clone, Copy)]
enum Load {
    Up,
    Down,
}

/// Bytes per second that arrive.
fn measure(
    entry: SocketAddr,
    service: &Service,
    load: Load,
    streams: usize,
    duration: Duration,
) -> Result<f64, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let down = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..streams)
        .map(|_| {
            let (stop, down) = (Arc::clone(&stop), Arc::clone(&down));
            std::thread::spawn(move || client(entry, load, &stop, &down))
        })
        .collect();
    let arrived = || match load {
        Load::Up => service.received.load(Ordering::Relaxed),
        Load::Down => down.load(Ordering::Relaxed),
    };
    std::thread::sleep(WARM_UP);
    let (begin, before) = (Instant::now(), arrived());
    std::thread::sleep(duration);
    let (bytes, time) = (arrived() - before, begin.elapsed());
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client
            .join()
            .map_err(|_| Failure("a client has panicked".into()))??;
    }
    if service.broken.load(Ordering::Relaxed) > 0 {
        return Err(Failure("the service received other bytes than were sent".into()));
    }
    Ok(bytes as f64 / time.as_secs_f64())
}

fn client(entry: SocketAddr, load: Load, stop: &AtomicBool, down: &AtomicU64) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(entry)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    match load {
        Load::Up => {
            stream.write_all(&[service::SINK])?;
            let chunk = service::chunk();
            while !stop.load(Ordering::Relaxed) {
                stream.write_all(&chunk)?;
            }
            // When the service has read the last byte it ends too.
            stream.shutdown(Shutdown::Write)?;
            let _ = stream.read(&mut [0])?;
        }
        Load::Down => {
            stream.write_all(&[service::SOURCE])?;
            let mut buffer = vec![0; CHUNK];
            let mut offset = 0;
            while !stop.load(Ordering::Relaxed) {
                let n = stream.read(&mut buffer)?;
                if n == 0 || !service::is_pattern(offset, &buffer[..n]) {
                    return Err(Failure("a client received other bytes than were sent".into()));
                }
                offset += n as u64;
                down.fetch_add(n as u64, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

/// Measures, and prints a table.
///
/// # Errors
/// When a part cannot be made, or bytes are lost or changed.
pub fn run(plan: &Plan) -> Result<Vec<Check>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let service = Service::start()?;
    let chain = runtime.block_on(Chain::start(service.address, 1))?;
    let here: Option<Arc<dyn Intercept>> = Some(Arc::new(Here));
    let elsewhere: Option<Arc<dyn Intercept>> = Some(Arc::new(Elsewhere));
    let plugin = Some(plugin(&chain.near.party.node)?);
    let mut ways = Vec::new();
    for (name, intercept) in [
        ("no interceptor", None),
        ("on the connection's thread", here),
        ("on another thread", elsewhere),
        ("that is a plugin", plugin),
    ] {
        let options = InletOptions {
            intercept: intercept.map(|intercept| Interception::new("bench", intercept)),
            ..InletOptions::default()
        };
        let inlet = runtime
            .block_on(Inlet::start(&chain.near.party.node, "127.0.0.1:0", options))
            .map_err(failed("an inlet"))?;
        inlet.connect(route![chain.near.channel.address(), "outlet"]);
        ways.push((name, inlet));
    }
    println!(
        "| | streams | no interceptor, Gbit/s | on the connection's thread | on another thread | a plugin |"
    );
    println!("|---|---|---|---|---|---|");
    let mut checks = Vec::new();
    for (what, load) in [("up", Load::Up), ("down", Load::Down)] {
        for streams in [1, 8] {
            let mut figures = vec![Vec::new(); ways.len()];
            for _ in 0..plan.rounds {
                for ((_, inlet), figures) in ways.iter().zip(&mut figures) {
                    figures.push(measure(inlet.local(), &service, load, streams, plan.duration)?);
                }
            }
            let middle: Vec<f64> = figures
                .into_iter()
                .map(|figures| median(figures).unwrap_or_default())
                .collect();
            let ratio = |index: usize| middle[index] / middle[0];
            println!(
                "| {what} | {streams} | {:.2} | {:.2} × | {:.2} × | {:.2} × |",
                middle[0] * 8.0 / 1e9,
                ratio(1),
                ratio(2),
                ratio(3)
            );
            for (index, (name, _)) in ways.iter().enumerate().skip(1) {
                let text = format!("an interceptor {name}, {what}, {streams} streams, to none");
                checks.push(Check::at_least(text, ratio(index), AIM));
            }
        }
    }
    chain.stop();
    Ok(checks)
}

//! What a plugin costs: messages through an echo, beside the same in Rust; starts; memory; a thousand of them in one node.

// Its result goes to standard output.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use portolan_benches::guest;
use portolan_plugin::{Engine, EngineOptions, Limits, Plugin, PluginWorker, Rights, WorkerSettings};
use portolan_runtime::{
    Address, Context, Envelope, Message, Node, Payload, Placement, Result, Route, SyncWorker, WorkerOptions,
};

type Failure = Box<dyn std::error::Error>;

/// Bytes of a message.
const SIZE: usize = 64;

/// Messages on the way at a time: fewer than a mailbox takes.
const WINDOW: u64 = 128;

/// What the plugin does, as a worker of the node.
struct Echo;

impl SyncWorker for Echo {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let message = envelope.message;
        let back = Route::from(ctx.address());
        Ok(ctx.forward(Message::new(message.back, back, message.payload))?)
    }
}

fn main() -> std::result::Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure())
}

async fn measure() -> std::result::Result<(), Failure> {
    let guest = guest::echo()?;
    let folder = tempfile::tempdir()?;
    let options = EngineOptions {
        cache: Some(folder.path().join("compiled")),
    };
    let cold = time(|| Ok(Plugin::load(&Engine::new(options.clone())?, &guest)?))?.0;
    let engine = Engine::new(options)?;
    let (warm, plugin) = time(|| Ok(Plugin::load(&engine, &guest)?))?;
    if engine.cache_hits_and_misses() != (1, 0) {
        return Err("the compiled plugin was not found in the cache".into());
    }
    println!("| what | figure |\n|---|---|");
    println!("| load, compiling | {cold:.2?} |");
    println!("| load, from the cache | {warm:.2?} |");

    let node = Node::builder().arbiters(1).aside_arbiters(1).build()?;
    let plugin_echo = PluginWorker::start(&node, &plugin, settings("plugin")?).await?;
    let aside = WorkerOptions::new("native").placement(Placement::Aside);
    node.start_sync_worker(aside, Echo)?;
    let (mut native, mut through) = (0f64, 0f64);
    // In turns, so that what else the machine does meets both; the best of each.
    for _ in 0..5 {
        native = native.max(messages_per_second(&node, "native").await?);
        through = through.max(messages_per_second(&node, "plugin").await?);
    }
    let status = plugin_echo.status();
    if status.failed + status.dropped + status.restarts > 0 {
        return Err(format!("the plugin did not do its work: {status:?}").into());
    }
    println!("| {SIZE} B through a native echo, one thread | {native:.0} messages/s |");
    println!("| {SIZE} B through a plugin's echo, one thread | {through:.0} messages/s |");
    println!(
        "| a message through the plugin costs | {:.2} × native |",
        native / through
    );

    let mut starts = Vec::new();
    for number in 0..200 {
        let settings = settings(&format!("start{number}"))?;
        let begin = Instant::now();
        let worker = PluginWorker::start(&node, &plugin, settings).await?;
        starts.push(begin.elapsed());
        worker.stop().await;
    }
    starts.sort();
    println!(
        "| start of an instance, median | {:.1?} |",
        starts[starts.len() / 2]
    );
    println!(
        "| start of an instance, 99 of 100 | {:.1?} |",
        starts[starts.len() * 99 / 100]
    );

    const MANY: usize = 1000;
    let before = resident()?;
    let begin = Instant::now();
    let mut workers = Vec::with_capacity(MANY);
    for number in 0..MANY {
        workers.push(PluginWorker::start(&node, &plugin, settings(&format!("many{number}"))?).await?);
    }
    let started = begin.elapsed();
    let idle = resident()?;
    let begin = Instant::now();
    for number in 0..MANY {
        let body = vec![b'x'; SIZE];
        let answer = node
            .send_and_receive::<Vec<u8>, Vec<u8>>(format!("many{number}").as_str(), body.clone())
            .await?
            .into_body()?;
        if answer != body {
            return Err("an answer is not what was sent".into());
        }
    }
    let answered = begin.elapsed();
    let used = resident()?;
    let each = |bytes: u64| (bytes.saturating_sub(before)) as f64 / MANY as f64 / 1024.0;
    println!("| {MANY} workers in one node: started in | {started:.2?} |");
    println!("| … each has answered one message after | {answered:.2?} |");
    println!(
        "| memory for each, before its first message | {:.1} KiB |",
        each(idle)
    );
    println!(
        "| memory for each, idle after its first message | {:.1} KiB |",
        each(used)
    );
    node.stop().await;
    Ok(())
}

fn settings(address: &str) -> std::result::Result<WorkerSettings, Failure> {
    let rights = Rights::parse(["reply", "from:local"])?;
    Ok(WorkerSettings::new(address)
        .rights(rights)
        .limits(Limits::default()))
}

fn time<T>(
    what: impl FnOnce() -> std::result::Result<T, Failure>,
) -> std::result::Result<(Duration, T), Failure> {
    let begin = Instant::now();
    let result = what()?;
    Ok((begin.elapsed(), result))
}

/// Keeps messages on the way for a second, from the thread of the echo, and looks at each that comes back.
async fn messages_per_second(node: &Node, echo: &str) -> std::result::Result<f64, Failure> {
    let (done, result) = tokio::sync::oneshot::channel();
    let options = WorkerOptions::new(Address::random()).placement(Placement::Aside);
    let echo = Address::from(echo);
    node.start_task(options, move |mut ctx| async move {
        let body = [7u8; SIZE];
        let message = |ctx: &Context| Message::new(&echo, ctx.address(), Payload::copy_from(&body));
        let (mut sent, mut received) = (0u64, 0u64);
        let begin = Instant::now();
        let mut is_over = false;
        while !is_over || received < sent {
            while !is_over && sent - received < WINDOW {
                let next = message(&ctx);
                if ctx.forward(next).is_err() {
                    return;
                }
                sent += 1;
            }
            match ctx.next().await {
                Some(envelope) if envelope.message.payload.as_slice() == body => received += 1,
                _ => return,
            }
            if received.is_multiple_of(1024) {
                is_over = begin.elapsed() > Duration::from_secs(1);
            }
        }
        let _ = done.send(received as f64 / begin.elapsed().as_secs_f64());
    })?;
    Ok(result.await?)
}

/// Memory of this process, in bytes.
fn resident() -> std::result::Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("the system does not say how much memory is used")?;
    let number: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(number * 1024)
}

//! Allocations for each message and each chunk, once everything has warmed up.

// Its result goes to standard output, its progress to standard error.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;

use clap::Parser;
use portolan_benches::chain::{Chain, Party};
use portolan_benches::circle::{Circle, Load, QueuedHop, SMALLEST, TURN, Way, with_hops};
use portolan_benches::heap::{self, Counted};
use portolan_benches::load::{self, Failure};
use portolan_benches::service::{self, CHUNK, Service};
use portolan_runtime::services::Hop;
use portolan_runtime::{AccessControl, Address, Context, Node, Route, Routed, Worker, payload, route};
use portolan_secure_channel::aead::Suite;
use portolan_secure_channel::record::{OVERHEAD, Opener, Sealer};
use zeroize::Zeroizing;

/// Counts what is allocated, while a profiler runs; costs a look at a flag otherwise.
#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Less than one in a thousand messages is what timers, queues that grow once, and other programs' schedules cause. Anything
/// that belongs to a message shows as one, or as a tenth where several messages share it.
const NONE: f64 = 0.001;

/// Counts the allocations of the data path, in all threads of the process, once everything has warmed up: none are wanted.
#[derive(Debug, Parser)]
#[command(name = "allocations")]
struct Arguments {
    /// A tenth of the messages.
    #[arg(long)]
    quick: bool,
    /// End with code 1 when something allocates.
    #[arg(long)]
    check: bool,
    /// Show where the allocations are made, for so many places of each case.
    #[arg(long = "where", value_name = "NUMBER", num_args = 0..=1, default_missing_value = "5")]
    places: Option<usize>,
    /// Count instead what idle connections and workers hold; with `--where`, in which places.
    #[arg(long)]
    held: bool,
    /// Measure only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

struct Bench {
    arguments: Arguments,
    missed: usize,
    failed: usize,
}

fn main() -> ExitCode {
    let mut bench = Bench {
        arguments: Arguments::parse(),
        missed: 0,
        failed: 0,
    };
    if bench.arguments.held {
        return match bench.held() {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("allocations: {failure}");
                ExitCode::FAILURE
            }
        };
    }
    println!("| case | one is | allocations of one | bytes of one | aim | |");
    println!("|---|---|---|---|---|---|");
    bench.inside_a_node();
    bench.records();
    bench.channel();
    bench.connection();
    bench.whole_path();
    if bench.failed > 0 || (bench.arguments.check && bench.missed > 0) {
        eprintln!(
            "{} cases allocate, {} could not be measured",
            bench.missed, bench.failed
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.arguments
            .only
            .as_ref()
            .is_none_or(|only| name.contains(only.as_str()))
    }

    /// Runs `work` for so many elements, first to warm up and then to count.
    fn case(
        &mut self,
        name: &str,
        one: &str,
        elements: u64,
        mut work: impl FnMut(u64) -> Result<(), Failure>,
    ) {
        if !self.wants(name) {
            return;
        }
        let elements = if self.arguments.quick {
            elements / 10
        } else {
            elements
        };
        // What a long run allocates beyond a short one: so the start of a run does not count.
        let counted = work(elements / 2).and_then(|()| {
            let short = heap::count(None, || work(elements / 10))?;
            let long = heap::count(self.arguments.places, || work(elements))?;
            Ok(Counted {
                blocks: long.blocks.saturating_sub(short.blocks),
                bytes: long.bytes.saturating_sub(short.bytes),
                places: long.places,
            })
        });
        match counted {
            Ok(counted) => self.tell(name, one, elements - elements / 10, &counted),
            Err(failure) => {
                self.failed += 1;
                println!("| {name} | {one} | not measured: {failure} | | 0 | MISSED |");
            }
        }
    }

    fn tell(&mut self, name: &str, one: &str, elements: u64, counted: &Counted) {
        let (blocks, bytes) = (
            counted.blocks as f64 / elements as f64,
            counted.bytes as f64 / elements as f64,
        );
        let met = blocks < NONE;
        self.missed += usize::from(!met);
        println!(
            "| {name} | {one} | {blocks:.4} | {bytes:.1} | 0 | {} |",
            if met { "ok" } else { "MISSED" }
        );
        show_places(counted, elements);
    }

    /// What the heap holds for each of what is idle. What the allocator and the system add to that, `portal idle` shows.
    fn held(&self) -> Result<(), Failure> {
        let count = if self.arguments.quick { 200 } else { 2_000 };
        println!("| one is | blocks of one | bytes of one |");
        println!("|---|---|---|");
        let places = self.arguments.places.unwrap_or(0);
        let tell = |name: &str, counted: &Counted| {
            let each = |total: u64| total as f64 / count as f64;
            println!(
                "| {name} | {:.1} | {:.0} |",
                each(counted.blocks),
                each(counted.bytes)
            );
            show_places(counted, count);
        };
        type Start = fn(&Node, usize) -> portolan_runtime::Result<Address>;
        let kinds: [(&str, Start); 2] = [
            ("idle synchronous worker", |node, n| {
                node.start_sync_worker(format!("w{n}").as_str(), QueuedHop)
            }),
            ("idle async worker", |node, n| {
                node.start_worker(format!("w{n}").as_str(), Quiet)
            }),
        ];
        for (name, start) in kinds.into_iter().filter(|(name, _)| self.wants(name)) {
            let node = Node::builder().arbiters(1).build().map_err(Failure::of)?;
            let (counted, ()) = heap::held(places, || {
                for n in 0..count as usize {
                    start(&node, n).map_err(Failure::of)?;
                }
                // All of them have begun when this runs.
                node.block_on(|| async {}).map_err(Failure::of)
            })?;
            tell(name, &counted);
            node.stop_blocking();
        }
        let name = "idle portal connection through a relay, all ends and the load";
        if self.wants(name) {
            let (ready, address) = std::sync::mpsc::sync_channel(1);
            std::thread::spawn(move || {
                service::serve_many(|address| ready.send(address).unwrap_or_default())
            });
            let service = address.recv().map_err(Failure::of)?;
            let chain = runtime()?.block_on(Chain::start(service, 1))?;
            let entry = chain.near.inlet.local();
            drop(load::open_echo(entry)?);
            let (counted, open) = heap::held(places, || {
                let open: std::io::Result<Vec<_>> = (0..count).map(|_| load::open_echo(entry)).collect();
                Ok(open?)
            })?;
            tell(name, &counted);
            drop(open);
            chain.stop();
        }
        Ok(())
    }

    fn circle(
        &mut self,
        name: &str,
        one: &str,
        per_turn: u64,
        elements: u64,
        circle: Result<Circle, Failure>,
    ) {
        if !self.wants(name) {
            return;
        }
        match circle {
            Ok(circle) => {
                self.case(name, one, elements, |count| {
                    circle.run(count / per_turn).map(drop)
                });
                circle.stop();
            }
            Err(failure) => self.case(name, one, elements, |_| Err(failure.clone())),
        }
    }

    fn inside_a_node(&mut self) {
        let load = Load {
            in_flight: 128,
            size: 64,
        };
        let node = || Node::builder().arbiters(1).build().map_err(Failure::of);
        let hop = node().and_then(|node| {
            with_hops(&node, 1, load, |node, name| {
                node.start_sync_worker(name, QueuedHop)
            })
            .map_err(Failure::of)
        });
        // One turn is two deliveries: one at the hop, one at the turn.
        self.circle("hop with a mailbox", "delivery", 2, 1_000_000, hop);
        let passage = node().and_then(|node| {
            with_hops(&node, 1, load, |node, options| {
                node.start_sync_worker(options, Hop)
            })
            .map_err(Failure::of)
        });
        self.circle("passage", "delivery", 2, 1_000_000, passage);
    }

    fn records(&mut self) {
        for (suite_name, suite) in [
            ("AES-256-GCM", Suite::Aes256Gcm),
            ("ChaCha20-Poly1305", Suite::ChaCha20Poly1305),
        ] {
            for size in [64, payload::CHUNK] {
                let mut sealer = Sealer::new(suite, Zeroizing::new([7; 32]));
                let mut opener = Opener::new(suite, Zeroizing::new([7; 32]));
                let mut buffer = vec![3; size + OVERHEAD];
                let name = format!("records of {size} bytes, {suite_name}");
                self.case(&name, "record sealed and opened", 20_000, |count| {
                    for _ in 0..count {
                        sealer
                            .seal(&mut buffer)
                            .map_err(|error| Failure(format!("{error:?}")))?;
                        opener
                            .open(&mut buffer)
                            .map_err(|error| Failure(format!("{error:?}")))?;
                    }
                    Ok(())
                });
            }
        }
    }

    /// A channel between two workers of one node.
    fn channel(&mut self) {
        for (name, load) in loads("channel") {
            let made = runtime().and_then(|runtime| {
                runtime.block_on(async {
                    let party = Party::new(1)?;
                    let listener = party.listen()?;
                    listener.add_consumer(&TURN.into());
                    let channel = party.channel("api").await?;
                    let way = way(route![channel.address(), TURN], Route::new());
                    Circle::start(&party.node, way, load).map_err(Failure::of)
                })
            });
            self.circle(&name, "message sealed and opened", 1, messages(load), made);
        }
    }

    /// A TCP connection between two nodes.
    fn connection(&mut self) {
        for (name, load) in loads("TCP connection") {
            let made = runtime().and_then(|runtime| {
                runtime.block_on(async {
                    let (here, there) = (Party::new(1)?, Party::new(1)?);
                    let listening = there.listen_tcp().await?;
                    there.node.add_consumer(listening.flow(), &there.echo()?);
                    let connection = here.connect(listening.local()).await?;
                    here.node.add_consumer(connection.flow(), &TURN.into());
                    let way = way(route![connection.sender(), "echo"], TURN.into());
                    Circle::start(&here.node, way, load).map_err(Failure::of)
                })
            });
            self.circle(&name, "message over TCP", 2, messages(load), made);
        }
    }

    /// Inlet, relay, outlet.
    fn whole_path(&mut self) {
        let names = loads("through a relay, two channels");
        let made = runtime().and_then(|runtime| {
            let service = Service::start()?;
            let chain = runtime.block_on(Chain::start(service.address, 1))?;
            Ok((service, chain))
        });
        let (service, chain) = match made {
            Ok(made) => made,
            Err(failure) => return self.case("portal through a relay", "", 1, |_| Err(failure.clone())),
        };
        let near = &chain.near;
        for (name, load) in names {
            // What stops is no consumer any more.
            near.party.node.add_consumer(near.channel.flow(), &TURN.into());
            let way = way(route![near.channel.address(), "echo"], TURN.into());
            let circle = Circle::start(&near.party.node, way, load).map_err(Failure::of);
            // To the other end and back.
            self.circle(&name, "message from end to end", 2, messages(load), circle);
        }
        let entry = near.inlet.local();
        self.portal(entry, &service);
        chain.stop();
    }

    fn portal(&mut self, entry: SocketAddr, service: &Service) {
        let mut request = [7; 64];
        let mut echo = None;
        self.case(
            "portal through a relay, 64 bytes",
            "round trip",
            20_000,
            |count| {
                let stream = connected(&mut echo, entry, service::ECHO)?;
                for _ in 0..count {
                    stream.write_all(&request)?;
                    stream.read_exact(&mut request)?;
                }
                Ok(())
            },
        );
        let chunks = |count: u64| count * payload::CHUNK as u64;
        let chunk = service::chunk();
        let mut sink = None;
        self.case("portal through a relay, stream up", "128 KiB", 20_000, |count| {
            use std::sync::atomic::Ordering::Relaxed;
            let stream = connected(&mut sink, entry, service::SINK)?;
            let goal = service.received.load(Relaxed) + chunks(count) / CHUNK as u64 * CHUNK as u64;
            for _ in 0..chunks(count) / CHUNK as u64 {
                stream.write_all(&chunk)?;
            }
            while service.received.load(Relaxed) < goal {
                std::thread::yield_now();
            }
            match service.broken.load(Relaxed) {
                0 => Ok(()),
                _ => Err(Failure(
                    "the bytes that arrived are not those that were sent".into(),
                )),
            }
        });
        let mut source = None;
        let (mut buffer, mut offset) = (vec![0; CHUNK], 0);
        self.case(
            "portal through a relay, stream down",
            "128 KiB",
            20_000,
            |count| {
                let stream = connected(&mut source, entry, service::SOURCE)?;
                let mut left = chunks(count);
                while left > 0 {
                    let read = stream.read(&mut buffer)?;
                    if read == 0 || !service::is_pattern(offset, &buffer[..read]) {
                        return Err(Failure(
                            "the bytes that arrived are not those that were sent".into(),
                        ));
                    }
                    offset += read as u64;
                    left = left.saturating_sub(read as u64);
                }
                Ok(())
            },
        );
    }
}

/// Where the allocations of so many elements were made.
fn show_places(counted: &Counted, elements: u64) {
    for place in &counted.places {
        eprintln!(
            "  {:.4} × {:.0} bytes",
            place.blocks as f64 / elements as f64,
            place.bytes as f64 / place.blocks.max(1) as f64
        );
        for frame in &place.frames {
            eprintln!("      {frame}");
        }
    }
}

/// A worker as users write one.
struct Quiet;

impl Worker for Quiet {
    type Message = String;

    async fn handle_message(
        &mut self,
        ctx: &mut Context,
        message: Routed<String>,
    ) -> portolan_runtime::Result<()> {
        ctx.send(message.return_route().clone(), message.into_body()?)
            .await
    }
}

/// The connection of a case, made when it is first wanted.
fn connected(stream: &mut Option<TcpStream>, entry: SocketAddr, mode: u8) -> Result<&mut TcpStream, Failure> {
    if stream.is_none() {
        let mut made = TcpStream::connect(entry)?;
        made.set_nodelay(true)?;
        made.write_all(&[mode])?;
        *stream = Some(made);
    }
    stream.as_mut().ok_or_else(|| Failure("no connection".into()))
}

fn loads(name: &str) -> [(String, Load); 2] {
    let small = Load {
        in_flight: 64,
        size: 64.max(SMALLEST),
    };
    let large = Load {
        in_flight: 4,
        size: payload::CHUNK,
    };
    [small, large].map(|load| (format!("{name}, {} bytes", load.size), load))
}

fn messages(load: Load) -> u64 {
    if load.size > 1024 { 20_000 } else { 200_000 }
}

fn way(onward: Route, back: Route) -> Way {
    Way {
        turn: TURN.into(),
        onward,
        back,
        incoming: AccessControl::AllowAll,
        flow: None,
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

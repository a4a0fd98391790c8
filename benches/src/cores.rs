//! What a second core brings: flows spread over arbiters, and a portal striped over several connections.
//!
//! Between processes on a machine of two cores the load takes as much of them as what is measured does. So the gain is measured
//! inside one process, where the flows themselves are the load and there is nothing else: the same number of flows on one arbiter
//! and on two. CPU time for each message says what the spreading costs.

use std::path::Path;
use std::time::{Duration, Instant};

use portolan_runtime::{AccessControl, Placement, Route, route};
use portolan_tests::process;

use crate::chain::Party;
use crate::checks::{Check, median};
use crate::circle::{Circle, Load, QueuedHop, Way, with_hops_on};
use crate::load::{self, Direction, Failure};
use crate::paths::Portolan;
use crate::service::Service;

/// Flows, on one arbiter or on two.
const FLOWS: usize = 4;
/// Two arbiters must do at least so many times what one does, on two cores.
pub const LEAST_GAIN: f64 = 1.6;

/// How much.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Rounds of each case, one arbiter and two in turn.
    pub rounds: usize,
    /// Messages of each flow in a round, where they are small.
    pub messages: u64,
    /// Time that a portal is measured in a round.
    pub window: Duration,
}

impl Plan {
    /// For numbers.
    pub const DEFAULT: Self = Self {
        rounds: 7,
        messages: 400_000,
        window: Duration::from_millis(1500),
    };
    /// For a look.
    pub const QUICK: Self = Self {
        rounds: 3,
        messages: 100_000,
        window: Duration::from_millis(500),
    };
}

/// Flows of one kind on a node with some arbiters.
struct Flows {
    party: Party,
    circles: Vec<Circle>,
    messages: u64,
}

impl Flows {
    /// Messages inside the node: one hop with a mailbox.
    fn hops(arbiters: usize, messages: u64) -> Result<Self, Failure> {
        let party = Party::new(arbiters)?;
        let load = Load {
            in_flight: 64,
            size: 64,
        };
        let circles: Result<Vec<_>, _> = (0..FLOWS)
            .map(|flow| {
                with_hops_on(&party.node, flow, 1, load, |node, options| {
                    node.start_sync_worker(options, QueuedHop)
                })
            })
            .collect();
        Ok(Self {
            circles: circles.map_err(Failure::of)?,
            party,
            messages,
        })
    }

    /// Messages of 16 KiB that are sealed, go over TCP from the node to itself, and are opened; a connection and a channel for
    /// each flow.
    fn channels(arbiters: usize, messages: u64) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let party = Party::new(arbiters)?;
        let listener = party.listen()?;
        let listening = runtime.block_on(party.listen_tcp())?;
        listener.accept_from(listening.flow());
        let address = listening.local().to_string();
        let load = Load {
            in_flight: 16,
            size: 16 * 1024,
        };
        let mut circles = Vec::new();
        for flow in 0..FLOWS {
            let turn: portolan_runtime::Address = format!("turn{flow}").as_str().into();
            listener.add_consumer(&turn);
            let channel = runtime.block_on(async {
                let connecting = party.tcp.connect_on(&address, Placement::Index(flow));
                let connection = connecting.await.map_err(Failure::of)?;
                party.channel(route![connection.sender(), "api"]).await
            })?;
            let way = Way {
                onward: route![channel.address(), &turn],
                turn,
                back: Route::new(),
                incoming: AccessControl::AllowAll,
                flow: None,
            };
            let placement = party
                .node
                .arbiter_of(channel.address())
                .map_or(Placement::Next, Placement::Index);
            circles.push(Circle::start_on(&party.node, way, load, placement).map_err(Failure::of)?);
        }
        Ok(Self {
            circles,
            party,
            messages: messages / 20,
        })
    }

    /// Messages for each second, and CPU µs for each.
    fn measure(&self) -> Result<(f64, f64), Failure> {
        let own = std::process::id();
        let (start, before) = (Instant::now(), process::cpu_time(own));
        for circle in &self.circles {
            circle.begin(self.messages)?;
        }
        let mut end = start;
        for circle in &self.circles {
            end = end.max(circle.wait()?);
        }
        let done = (self.messages * self.circles.len() as u64) as f64;
        let cpu = process::cpu_time(own).saturating_sub(before);
        Ok((done / (end - start).as_secs_f64(), cpu.as_secs_f64() * 1e6 / done))
    }
}

type Figures = Vec<[(f64, f64); 2]>;

fn middle(figures: &Figures, get: impl Fn(&[(f64, f64); 2]) -> f64) -> f64 {
    median(figures.iter().map(get)).unwrap_or(0.0)
}

/// Measures all cases.
///
/// # Errors
/// When nodes cannot be set up, or what they carry does not arrive.
pub fn run(binary: &Path, plan: &Plan) -> Result<Vec<Check>, Failure> {
    println!("{FLOWS} flows in one node; medians of {} rounds.\n", plan.rounds);
    println!("| flows | messages/s on one arbiter | on two | gain | CPU µs for a message on one | on two |");
    println!("|---|---|---|---|---|---|");
    let mut checks = Vec::new();
    type Make = fn(usize, u64) -> Result<Flows, Failure>;
    let cases: [(&str, Make); 2] = [
        ("a hop with a mailbox, 64 bytes", Flows::hops),
        ("sealed, over TCP, opened, 16 KiB", Flows::channels),
    ];
    for (name, make) in cases {
        let flows = [make(1, plan.messages)?, make(2, plan.messages)?];
        let figures = in_turn(plan.rounds, |which| flows[which].measure())?;
        let gain = middle(&figures, |round| round[1].0 / round[0].0);
        println!(
            "| {name} | {:.0} | {:.0} | {gain:.2} | {:.3} | {:.3} |",
            middle(&figures, |round| round[0].0),
            middle(&figures, |round| round[1].0),
            middle(&figures, |round| round[0].1),
            middle(&figures, |round| round[1].1)
        );
        checks.push(Check::at_least(
            format!("{name}: two arbiters / one"),
            gain,
            LEAST_GAIN,
        ));
        for flows in flows {
            flows.party.node.stop_blocking();
        }
    }
    println!();
    match striped(binary, plan) {
        Ok(()) => {}
        Err(failure) => println!("A striped portal was not measured: {failure}"),
    }
    Ok(checks)
}

/// Both in each round, in turns of order.
fn in_turn(
    rounds: usize,
    mut measure: impl FnMut(usize) -> Result<(f64, f64), Failure>,
) -> Result<Figures, Failure> {
    for which in [0, 1] {
        measure(which)?;
    }
    let mut figures = Vec::new();
    for round in 0..rounds {
        let mut pair = [(0.0, 0.0); 2];
        for which in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            pair[which] = measure(which)?;
        }
        figures.push(pair);
    }
    Ok(figures)
}

/// A portal through a relay over one connection and over two, eight streams up.
fn striped(binary: &Path, plan: &Plan) -> Result<(), Failure> {
    let service = Service::start()?;
    let portolan = Portolan::start(binary, service.address)?;
    let paths = [
        portolan.through_relay()?,
        portolan.through_relay_with("striped", &["--stripes", "2"])?,
    ];
    let load = load::Plan {
        warm_up: plan.window / 5,
        window: plan.window,
        ..load::Plan::DEFAULT
    };
    let figures = in_turn(plan.rounds, |which| {
        let path = &paths[which];
        let figures = load::throughput(path.entry, &service, &path.processes, Direction::Up, 8, &load)?;
        Ok((figures.gbit_per_s, figures.cpu_s_per_gib.unwrap_or(0.0)))
    })?;
    println!(
        "A portal through a relay, 8 streams up, in real processes that share the cores with the load:\n"
    );
    println!("| connections | Gbit/s | CPU s/GiB |");
    println!("|---|---|---|");
    for (which, name) in ["one", "two (`--stripes 2`)"].iter().enumerate() {
        println!(
            "| {name} | {:.2} | {:.2} |",
            middle(&figures, |round| round[which].0),
            middle(&figures, |round| round[which].1)
        );
    }
    Ok(())
}

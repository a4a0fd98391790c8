//! Test kit: a network of nodes in one thread, with virtual time, loss, delay and partitions, deterministic by seed.
//!
//! What breaks distributed programs is seldom in one message. It is the reply that comes after the time-out, the peer that is
//! silent for a minute and then back, the third reconnection. On a real network such a test takes minutes, depends on how busy
//! the machine is, and fails once in a hundred runs with nothing to look at. Here the nodes are real, with the workers that run in
//! production, and the two things around them are not: the clock and the network.
//!
//! * **The clock stands still while there is something to do, and jumps when there is not**, to the next timer of anybody. An hour
//!   of pings every ten seconds takes the time that handling them takes, some milliseconds.
//! * **The network is a list of what is on its way.** Messages are encoded as for TCP, and arrive after the delay that the [`Link`]
//!   between the two nodes has. Links can lose, be cut and healed, and nodes can crash, at any moment that the test chooses.
//! * **All chance comes from one seed**: delays, losses, the addresses of workers, jitter. A run with the same seed is the same run,
//!   to the last message; a panic says its seed. All nodes run in one thread, so there is no other order of events than that one.
//!
//! # A test for a worker of your own
//!
//! ```
//! use std::time::Duration;
//!
//! use portolan_runtime::{Context, Result, Routed, Worker, route};
//! use portolan_simulated::Link;
//!
//! /// Counts what it is told, and answers with the number.
//! struct Counter(u64);
//!
//! impl Worker for Counter {
//!     type Message = String;
//!
//!     async fn handle_message(&mut self, ctx: &mut Context, message: Routed<String>) -> Result<()> {
//!         self.0 += 1;
//!         ctx.send(message.return_route().clone(), self.0.to_string()).await
//!     }
//! }
//!
//! // In a test file: #[test] fn the_counter_counts_over_a_bad_line() {
//! portolan_simulated::run(42, async |network| {
//!     let server = network.node("server");
//!     server.start_worker("counter", Counter(0)).unwrap();
//!     // Nothing is reachable from outside unless it is said.
//!     server.add_consumer(server.listen().flow(), &"counter".into());
//!
//!     network.link("client", "server", Link {
//!         latency: Duration::from_millis(80),
//!         jitter: Duration::from_millis(40),
//!         loss: 0.05,
//!         ..Link::default()
//!     });
//!     let client = network.node("client");
//!     let connection = client.connect("server").await.unwrap();
//!     let counter = route![connection.sender(), "counter"];
//!     for expected in 1..=100 {
//!         let answer: Routed<String> = client.send_and_receive(&counter, "count".to_owned()).await.unwrap();
//!         assert_eq!(answer.into_body().unwrap(), expected.to_string());
//!     }
//!     // A hundred round trips of 160 ms and more, in no time.
//!     assert!(network.now() > Duration::from_secs(16));
//!
//!     // Nobody tells the client that the line is cut: it has to notice by itself.
//!     network.partition("client", "server");
//!     let silence = client.send_and_receive::<String, String>(&counter, "count".to_owned()).await;
//!     assert!(silence.is_err());
//! });
//! ```
//!
//! [`run`] makes the thread's runtime, so the test is a plain `#[test]` and no `#[tokio::test]`. A [`SimulatedNode`] is used like
//! the [`Node`](portolan_runtime::Node) that it dereferences to; `connect` and `listen` stand in the place of a TCP transport, and
//! relays, secure channels and whatever else goes over connections are built on them as on TCP. When the scenario ends, all nodes are
//! stopped, and a worker that does not end fails the test.
//!
//! # Breaking things
//!
//! | what happens | how | what the nodes see |
//! |---|---|---|
//! | a slow, jittery or lossy line | [`Network::link`], [`Network::usual_link`] | delay; in [datagram mode](Mode::Datagram) also loss and another order |
//! | a cut line, in silence | [`Network::partition`], [`Network::heal`] | nothing, until they give up or the line is back |
//! | a node that is cut off | [`Network::isolate`], [`Network::rejoin`] | the same, towards all |
//! | a process that is killed | [`Network::crash`], then [`Network::node`] | the end of its connections |
//! | a machine without power | `isolate`, then `crash` | nothing |
//! | too many connections | [`SimulatedNode::listen_to`] | a refusal |
//! | no listener | [`SimulatedNode::stop_listening`] | a refusal |
//!
//! # Waiting and looking
//!
//! [`Network::sleep`] lets time go by. [`Network::eventually`] waits for what shall happen some time, without your having to know when.
//! [`Network::census`] and [`Network::returns_to`] show that what a scenario has started is gone when it is over. [`Network::trace`] is
//! what has happened; its [hash](Trace::hash) is how a test can say that two runs were the same.
//!
//! Many seeds find what one does not:
//!
//! ```
//! for seed in 0..20 {
//!     portolan_simulated::run(seed, async |network| {
//!         let (a, b) = (network.node("a"), network.node("b"));
//!         b.listen();
//!         network.partition("a", "b");
//!         let healing = std::time::Duration::from_millis(network.random() % 9_000);
//!         network.sleep(healing).await;
//!         network.heal("a", "b");
//!         assert!(a.connect("b").await.is_ok());
//!     });
//! }
//! ```
//!
//! # What keeps a run the same
//!
//! The runtime and the protocol crates do their part: they ask [`portolan_runtime::environment`] for chance and for the time of day,
//! and `tokio::time` for durations. A worker of yours that shall be simulated does the same, and furthermore:
//!
//! * takes `tokio::time::Instant` and `tokio::time::sleep` instead of those of `std`, which know no virtual time;
//! * writes `biased;` into `tokio::select!`, which chooses by real chance otherwise;
//! * goes over a `HashMap` only in an order of its own, sorted for instance, when what it does shows outside;
//! * starts no threads: [`Node::run_blocking`](portolan_runtime::Node::run_blocking) takes what computes for long, and does it in place
//!   in a simulation.
//!
//! Keys are not made from the seed but always by real chance, so that no seed can ever get into production: what is encrypted differs
//! from run to run, and the trace therefore tells lengths and not contents.
//!
//! # Limits
//!
//! * Real sockets have no virtual time: the clock jumps while their bytes are on their way through the kernel.
//! * The timers know milliseconds. What is shorter is rounded up.
//! * Computing takes no time: a handshake is as long as its messages travel.
//! * A scenario that computes for ever hangs; one that waits for ever is ended after [a day](simulation::TIME_LIMIT) of simulated time.
//!
//! # Modules
//!
//! * [`simulation`]: one run: thread, clock, seed.
//! * [`network`]: who is there, what lies between, what is broken.
//! * [`node`]: a node: listening, connecting.
//! * [`connection`]: the two workers of a connection.
//! * [`link`]: what is on its way, and when it arrives.
//! * [`census`]: waiting, and seeing that nothing is left.
//! * [`trace`]: what has happened.
//!
//! The crate stands beside the TCP transport, because that is what it is to a node: another transport. Like that, it builds on the
//! runtime only, and every crate above can use it in its tests.

pub mod census;
pub mod connection;
pub mod link;
pub mod network;
pub mod node;
pub mod simulation;
pub mod trace;

pub use census::Census;
pub use connection::{CloseOnDrop, Connection};
pub use link::{Link, Mode};
pub use network::Network;
pub use node::{ConnectError, Listener, SimulatedNode};
pub use simulation::{EPOCH, Simulation, run};
pub use trace::{Event, Trace};

//! Benchmarks: how fast each part is (`benches/benches/`, criterion), and how the whole compares with other ways through, side
//! by side in one run (the binary `portal`).
//!
//! ```text
//! cargo build --release && cargo run --release -p portolan-benches --bin portal
//! ```
//!
//! A number from one machine says little about another, and one from yesterday little about today; a ratio of two
//! numbers from the same minute says much. So `portal` measures every path with the same load, one after the other, and
//! prints what ours is in relation to three plain copying proxies: the least that inlet, relay and outlet can cost.
//!
//! | module | what it has |
//! |---|---|
//! | [`service`] | the private service at the end of every path: sink, source, echo |
//! | [`load`] | what is measured, and how |
//! | [`proxy`] | the plain copying proxy |
//! | [`paths`] | the paths that are compared, each with its processes |
//! | [`report`] | the table, the ratios, the aims |
//! | [`checks`] | an aim, and whether it is met |
//! | [`round_trips`] | round trips, and what each process does for one |
//! | [`streams`] | bulk transfer in short turns, and what each process does for a mebibyte |
//! | [`scheduled`] | what the kernel's scheduler says of a process |
//! | [`idle`] | what idle connections and workers cost |
//! | [`stalls`] | what a connection that stalls costs those beside it |
//! | [`cores`] | what a second core brings |
//! | [`relay_scale`], [`plot`] | many relays at one project node, and the curve |
//! | [`interceptors`] | what an interceptor leaves of the throughput |
//! | [`soak`] | memory over a long time |
//! | [`circle`] | messages that go round: the load of what is measured message by message |
//! | [`chain`] | inlet, relay and outlet as nodes of this process |
//! | [`guest`] | plugins made of text |
//! | [`heap`] | counting allocations |
//! | [`watchdog`] | ends a run in which nothing moves, and says where everything stood |
//! | [`cleanup`] | processes and folders that go away however the run ends |

// A benchmark speaks to the person who runs it, and one that cannot be set up has to stop.
#![allow(clippy::print_stderr, clippy::print_stdout)]

pub mod chain;
pub mod checks;
pub mod circle;
pub mod cleanup;
pub mod cores;
pub mod guest;
pub mod heap;
pub mod idle;
pub mod interceptors;
pub mod load;
pub mod paths;
pub mod plot;
pub mod proxy;
pub mod relay_scale;
pub mod report;
pub mod round_trips;
pub mod scheduled;
pub mod service;
pub mod soak;
pub mod stalls;
pub mod streams;
pub mod watchdog;

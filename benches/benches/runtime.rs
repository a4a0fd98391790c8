//! What a hop and a worker cost inside a node.
//!
//! `delivery` sends messages from one worker to another on one arbiter, that is on one core, with everything that a message
//! meets on its way: looking up the next address, flow control, both access controls, the mailbox. The sender makes each message, and the
//! receiver looks whether it is the one that must come next, and drops it: one element is all of that.
//!
//! `hop` sends messages in a circle: a hop gets each, changes its routes, and sends it on to the turn, which does the same. One element
//! is one delivery, of which each message makes two, one for the hop and one for the turn.

// The macros of criterion make functions without documentation.
#![allow(missing_docs)]

use std::sync::mpsc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use portolan_benches::circle::{Load, QueuedHop, with_hops};
use portolan_runtime::services::Hop;
use portolan_runtime::{
    AccessControl, Address, Context, Envelope, Message, Node, Payload, Result, Route, SyncWorker,
    WorkerOptions, route,
};

/// Messages that circle at the same time.
const LOAD: Load = Load {
    in_flight: 128,
    size: 64,
};
/// Deliveries of one measurement's element count are counted in pairs: one at the hop, one at the turn.
const PER_TURN: u64 = 2;

/// Hops with mailboxes, and hops that are passages: these run in their sender's turn and must not be mistaken for the others.
fn hop(c: &mut Criterion) {
    around(c, "hop", |node, options| {
        node.start_sync_worker(options, QueuedHop)
    });
    around(c, "passage", |node, options| node.start_sync_worker(options, Hop));
}

fn around(c: &mut Criterion, group: &str, start: impl Fn(&Node, WorkerOptions) -> Result<Address>) {
    let mut group = c.benchmark_group(group);
    for hops in [1_usize, 3] {
        let node = Node::builder().arbiters(1).build().expect("a node starts");
        let circle = with_hops(&node, hops, LOAD, &start).expect("workers start");
        group.throughput(Throughput::Elements(hops as u64 + PER_TURN - 1));
        group.bench_function(format!("{hops}_between"), |b| {
            b.iter_custom(|turns| circle.run(turns).expect("the messages come round"))
        });
        node.stop_blocking();
    }
    group.finish();
}

/// Takes numbered messages in order; tells when the last has come, or that another one came.
struct Receiver {
    expected: u64,
    last: u64,
    done: mpsc::SyncSender<(bool, Instant)>,
}

impl SyncWorker for Receiver {
    fn handle(&mut self, _ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let number = envelope.message.payload.as_slice().first_chunk().copied();
        let is_next = number.map(u64::from_le_bytes) == Some(self.expected);
        self.expected += 1;
        if !is_next || self.expected == self.last {
            let _ = self.done.try_send((is_next, Instant::now()));
        }
        Ok(())
    }
}

/// One flow of messages, from a task to a worker behind it, as a connection sends to a channel.
fn delivery(c: &mut Criterion) {
    let node = Node::builder().arbiters(1).build().expect("a node starts");
    let mut group = c.benchmark_group("delivery");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one_hop", |b| {
        b.iter_custom(|count| {
            let (done, is_done) = mpsc::sync_channel(2);
            let receiver = Receiver {
                expected: 0,
                last: count,
                done,
            };
            // Access control in both directions, and flow control: none of it is skipped for a local message.
            let rules = |address: &str| WorkerOptions::new(address).outgoing(AccessControl::only("receiver"));
            let incoming = AccessControl::only("sender");
            node.start_sync_worker(WorkerOptions::new("receiver").incoming(incoming), receiver)
                .expect("a worker starts");
            let start = Instant::now();
            node.start_task(rules("sender"), move |mut ctx| async move {
                for number in 0..count {
                    let mut payload = Payload::with_capacity(LOAD.size);
                    payload.append(&[7; 64]);
                    payload.as_mut_slice()[..8].copy_from_slice(&number.to_le_bytes());
                    let message = Message::new(Address::from("receiver"), ctx.address(), payload);
                    ctx.forward(message).expect("the receiver is there");
                    if ctx.has_unsent() {
                        ctx.flush().await;
                    }
                }
            })
            .expect("a task starts");
            let (in_order, end) = is_done.recv_timeout(Duration::from_secs(60)).expect("all arrive");
            assert!(in_order, "a message is lost, repeated or overtaken");
            node.stop_worker(&"receiver".into()).expect("it is there");
            while !node.addresses().is_empty() {
                std::thread::yield_now();
            }
            end - start
        });
    });
    group.finish();
    node.stop_blocking();
}

/// Starts workers as a channel or a portal does: from a worker, on its own arbiter.
struct Starter {
    done: mpsc::SyncSender<Duration>,
}

impl SyncWorker for Starter {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let count: [u8; 8] = envelope.message.payload.as_slice().try_into().unwrap_or_default();
        let start = Instant::now();
        for n in 0..u64::from_le_bytes(count) {
            ctx.start_sync_worker(format!("w{n}").as_str(), QueuedHop)?;
        }
        let _ = self.done.try_send(start.elapsed());
        // What it owns stops with it.
        ctx.stop();
        Ok(())
    }
}

fn worker_start(c: &mut Criterion) {
    let node = Node::builder().arbiters(1).build().expect("a node starts");
    let (sender, done) = mpsc::sync_channel(1);
    c.bench_function("worker_start", |b| {
        b.iter_custom(|count| {
            let mut taken = Duration::ZERO;
            // In batches, so that there are not millions of workers at once. Stopping is not measured.
            let mut left = count;
            while left > 0 {
                let batch = left.min(1000);
                left -= batch;
                let starter = node
                    .start_sync_worker("starter", Starter { done: sender.clone() })
                    .expect("a worker starts");
                let asker = node.clone();
                let sent = node.block_on(move || async move {
                    let mut context = asker.context("asker")?;
                    let order = Message::new(route!["starter"], Route::new(), batch.to_le_bytes().as_slice());
                    context.send_message(order).await
                });
                assert!(matches!(sent, Ok(Ok(()))), "{sent:?}");
                taken += done
                    .recv_timeout(Duration::from_secs(60))
                    .expect("the workers are started");
                while node.has_worker(&starter) || !node.addresses().is_empty() {
                    std::thread::yield_now();
                }
            }
            taken
        });
    });
    node.stop_blocking();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = delivery, hop, worker_start
}
criterion_main!(benches);

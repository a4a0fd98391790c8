//! Messages that go round in a circle: the load of everything that is measured message by message.
//!
//! The turn is a worker that sends a number of messages along a way that leads back to it, and sends each on its way again when
//! it comes round, until enough have passed. Each message carries its number, and the turn takes only the one that must come
//! next: a message lost, repeated, overtaken or changed on its way makes the measurement fail.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use portolan_runtime::{
    AccessControl, Address, Context, Envelope, Flow, Message, Node, Payload, Result, Route, SyncWorker,
    WorkerOptions,
};

use crate::load::Failure;

/// Name of the worker at which a circle begins and ends.
pub const TURN: &str = "turn";
/// Name of the mailbox from which the first messages come.
pub const STARTER: &str = "starter";
/// Nothing comes round in so long a time: the circle is broken.
const STUCK: Duration = Duration::from_secs(60);
/// Bytes that the turn writes into each message: how often to go round (in the first), and its number.
pub const SMALLEST: usize = 16;

/// What circles.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Messages at the same time.
    pub in_flight: usize,
    /// Bytes of each, at least [`SMALLEST`].
    pub size: usize,
}

/// Where and under which rules.
#[derive(Debug, Clone)]
pub struct Way {
    /// The hops between, and whatever leads back to the turn.
    pub onward: Route,
    /// The return route of what the turn sends: its own address where the way ends at a service that answers.
    pub back: Route,
    /// Who may send to the turn.
    pub incoming: AccessControl,
    /// The flow from which what the turn sends counts as come, if it does: then it reaches consumers only.
    pub flow: Option<Arc<Flow>>,
}

/// A circle on a node. Ends with the node.
#[derive(Debug)]
pub struct Circle {
    node: Node,
    load: Load,
    done: mpsc::Receiver<Result<Instant, Broken>>,
}

/// What came round was not what had to come next.
#[derive(Debug, Clone, Copy)]
struct Broken {
    expected: u64,
    found: Option<u64>,
}

struct Turn {
    way: Way,
    load: Load,
    left: u64,
    waiting: usize,
    expected: u64,
    done: mpsc::SyncSender<Result<Instant, Broken>>,
}

impl Circle {
    /// Starts the turn of a circle on `node`.
    ///
    /// # Errors
    /// When the node has one already, or is stopping.
    pub fn start(node: &Node, way: Way, load: Load) -> Result<Self> {
        let (sender, done) = mpsc::sync_channel(1);
        let options = WorkerOptions::new(TURN).incoming(way.incoming.clone());
        let turn = Turn {
            way,
            load,
            left: 0,
            waiting: 0,
            expected: 0,
            done: sender,
        };
        node.start_sync_worker(options, turn)?;
        Ok(Self {
            node: node.clone(),
            load,
            done,
        })
    }

    /// Sends `turns` messages round, and how long that took.
    ///
    /// # Errors
    /// When a message does not come round as it was sent.
    pub fn run(&self, turns: u64) -> Result<Duration, Failure> {
        let start = Instant::now();
        let (sender, load) = (self.node.clone(), self.load);
        let sent = self.node.block_on(move || async move {
            let mut context = sender.context(STARTER)?;
            for number in 0..load.in_flight as u64 {
                let mut payload = Payload::with_capacity(load.size);
                let count = if number == 0 { turns } else { 0 };
                payload.append(&count.to_le_bytes());
                payload.append(&number.to_le_bytes());
                for _ in SMALLEST..load.size {
                    payload.append(&[FILLING]);
                }
                context
                    .send_message(Message::new(Address::from(TURN), Route::new(), payload))
                    .await?;
            }
            Ok::<(), portolan_runtime::Error>(())
        });
        sent.and_then(std::convert::identity).map_err(Failure::of)?;
        match self.done.recv_timeout(STUCK) {
            Ok(Ok(end)) => Ok(end - start),
            Ok(Err(broken)) => Err(Failure(format!(
                "message {} had to come round, {} did",
                broken.expected,
                broken
                    .found
                    .map_or("one that was changed".to_owned(), |number| number.to_string())
            ))),
            Err(_) => Err(Failure(format!("nothing came round for {STUCK:?}"))),
        }
    }

    /// Stops the turn, so that another circle can begin on the node.
    pub fn stop(self) {
        let node = self.node.clone();
        // It may have ended.
        let _ = self
            .node
            .block_on(move || async move { node.stop_worker_and_wait(&TURN.into()).await });
    }
}

/// Every byte of a message behind its number.
const FILLING: u8 = 7;

impl Turn {
    fn number(&self, payload: &[u8]) -> Option<u64> {
        let number = payload.get(8..SMALLEST)?;
        // The first and the last byte of the filling: this must not be what is measured.
        let intact = payload.len() == self.load.size
            && payload[SMALLEST..].first().is_none_or(|&byte| byte == FILLING)
            && payload[SMALLEST..].last().is_none_or(|&byte| byte == FILLING);
        intact.then(|| u64::from_le_bytes(number.try_into().unwrap_or_default()))
    }
}

impl SyncWorker for Turn {
    fn initialize(&mut self, ctx: &mut Context) -> Result<()> {
        if let Some(flow) = &self.way.flow {
            ctx.set_producer(0, flow.clone());
        }
        Ok(())
    }

    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let mut message = envelope.message;
        let number = self.number(message.payload.as_slice());
        if number != Some(self.expected) {
            let broken = Broken {
                expected: self.expected,
                found: number,
            };
            let _ = self.done.try_send(Err(broken));
            return Ok(());
        }
        self.expected += 1;
        let bytes = message.payload.as_mut_slice();
        let count = u64::from_le_bytes(bytes[..8].try_into().unwrap_or_default());
        if count > 0 {
            // The first of the first messages.
            self.left = count;
            bytes[..8].fill(0);
        }
        if self.left == 0 {
            self.waiting += 1;
            if self.waiting == self.load.in_flight {
                self.waiting = 0;
                self.expected = 0;
                let _ = self.done.try_send(Ok(Instant::now()));
            }
            return Ok(());
        }
        self.left -= 1;
        let next = self.expected - 1 + self.load.in_flight as u64;
        message.payload.as_mut_slice()[8..SMALLEST].copy_from_slice(&next.to_le_bytes());
        message.onward = self.way.onward.clone();
        message.back = self.way.back.clone();
        message.local = Default::default();
        ctx.forward(message)?;
        Ok(())
    }
}

/// A hop with a mailbox of its own, as users write one. The runtime's own hop is a passage and has none.
#[derive(Debug, Clone, Copy)]
pub struct QueuedHop;

impl SyncWorker for QueuedHop {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let mut message = envelope.message;
        if let Some(own) = message.onward.step() {
            message.back.prepend(own);
        }
        ctx.forward(message)?;
        Ok(())
    }
}

/// A circle with hops between, as `start` makes them, under everything that a message can meet inside a node: what the turn
/// sends counts as come from outside, and each worker accepts messages only from those that it must.
///
/// # Errors
/// When the node cannot start the workers.
pub fn with_hops(
    node: &Node,
    hops: usize,
    load: Load,
    start: impl Fn(&Node, &str) -> Result<Address>,
) -> Result<Circle> {
    let mut onward = Route::new();
    for hop in 0..hops {
        let name = format!("hop{hop}");
        start(node, &name)?;
        onward.push(name.as_str().into());
    }
    onward.push(TURN.into());
    let last = format!("hop{}", hops - 1);
    let flow = node.new_flow(None);
    node.add_consumer(&flow, &"hop0".into());
    let way = Way {
        onward,
        back: Route::new(),
        incoming: AccessControl::Any(
            [AccessControl::only(last.as_str()), AccessControl::only(STARTER)].into(),
        ),
        flow: Some(flow),
    };
    Circle::start(node, way, load)
}

#[cfg(test)]
mod tests {
    use portolan_runtime::services::Hop;

    use super::*;

    /// Swaps every two messages.
    struct Swap(Option<Message>);

    impl SyncWorker for Swap {
        fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
            let mut message = envelope.message;
            message.onward.step();
            match self.0.take() {
                None => self.0 = Some(message),
                Some(first) => {
                    ctx.forward(message)?;
                    ctx.forward(first)?;
                }
            }
            Ok(())
        }
    }

    const LOAD: Load = Load {
        in_flight: 4,
        size: 100,
    };

    #[test]
    fn messages_come_round_again_and_again() {
        let node = Node::builder().arbiters(1).build().unwrap();
        let circle = with_hops(&node, 2, LOAD, |node, name| node.start_sync_worker(name, Hop)).unwrap();
        circle.run(1000).unwrap();
        circle.run(3).unwrap();
        node.stop_blocking();
    }

    #[test]
    fn messages_that_overtake_each_other_are_noticed() {
        let node = Node::builder().arbiters(1).build().unwrap();
        let circle = with_hops(&node, 1, LOAD, |node, name| {
            node.start_sync_worker(WorkerOptions::new(name), Swap(None))
        })
        .unwrap();
        let failure = circle.run(1000).unwrap_err();
        assert!(
            failure.0.contains("message 4 had to come round, 5 did"),
            "{failure}"
        );
        node.stop_blocking();
    }
}

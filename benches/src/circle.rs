//! Messages that go round in a circle: the load of everything that is measured message by message.
//!
//! The turn is a worker that sends a number of messages along a way that leads back to it, and sends each on its way again when
//! it comes round, until enough have passed. Each message carries its number, and the turn takes only the one that must come
//! next: a message lost, repeated, overtaken or changed on its way makes the measurement fail.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use portolan_runtime::{
    AccessControl, Address, Context, Envelope, Flow, Message, Node, Payload, Placement, Result, Route,
    SyncWorker, WorkerOptions,
};

use crate::load::Failure;

/// Name of the worker at which a circle begins and ends, where a node has one.
pub const TURN: &str = "turn";
/// Nothing comes round in so long a time: the circle is broken.
const STUCK: Duration = Duration::from_secs(60);
/// Bytes that the turn writes into each message: its number.
pub const SMALLEST: usize = 8;

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
    /// Name of the turn.
    pub turn: Address,
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
    turn: Address,
    starter: Address,
    done: mpsc::Receiver<Result<Instant, Broken>>,
}

/// The mailbox from which the order to begin comes.
fn starter_of(turn: &Address) -> Address {
    format!("starter of {turn}").as_str().into()
}

/// What came round was not what had to come next.
#[derive(Debug, Clone, Copy)]
struct Broken {
    expected: u64,
    found: Option<u64>,
}

struct Turn {
    way: Way,
    starter: Address,
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
        Self::start_on(node, way, load, Placement::Next)
    }

    /// As [`Self::start`], on a given arbiter.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(node: &Node, way: Way, load: Load, placement: Placement) -> Result<Self> {
        let (sender, done) = mpsc::sync_channel(1);
        let address = way.turn.clone();
        let options = WorkerOptions::new(&address)
            .incoming(way.incoming.clone())
            .placement(placement);
        let starter = starter_of(&address);
        let turn = Turn {
            way,
            starter: starter.clone(),
            load,
            left: 0,
            waiting: 0,
            expected: 0,
            done: sender,
        };
        node.start_sync_worker(options, turn)?;
        Ok(Self {
            node: node.clone(),
            starter,
            turn: address,
            done,
        })
    }

    /// Sends `turns` messages round, and how long that took.
    ///
    /// # Errors
    /// When a message does not come round as it was sent.
    pub fn run(&self, turns: u64) -> Result<Duration, Failure> {
        let start = Instant::now();
        self.begin(turns)?;
        Ok(self.wait()? - start)
    }

    /// Begins to send `turns` messages round.
    ///
    /// # Errors
    /// When the first cannot be sent.
    pub fn begin(&self, turns: u64) -> Result<(), Failure> {
        let node = self.node.clone();
        let (turn, starter) = (self.turn.clone(), self.starter.clone());
        let sent = self.node.block_on(move || async move {
            let mut context = node.context(starter)?;
            let order = Message::new(&turn, Route::new(), turns.to_le_bytes().as_slice());
            context.send_message(order).await
        });
        sent.and_then(std::convert::identity).map_err(Failure::of)
    }

    /// Waits until what has begun is over, and when it was.
    ///
    /// # Errors
    /// When a message does not come round as it was sent.
    pub fn wait(&self) -> Result<Instant, Failure> {
        match self.done.recv_timeout(STUCK) {
            Ok(Ok(end)) => Ok(end),
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
        let (node, turn) = (self.node.clone(), self.turn);
        // It may have ended.
        let _ = self
            .node
            .block_on(move || async move { node.stop_worker_and_wait(&turn).await });
    }
}

/// Every byte of a message behind its number.
const FILLING: u8 = 7;

impl Turn {
    /// The number of a message that is as it was sent.
    fn number(&self, payload: &[u8]) -> Option<u64> {
        let (number, filling) = payload.split_at_checked(SMALLEST)?;
        // The first and the last byte of the filling: this must not be what is measured.
        let intact = payload.len() == self.load.size
            && filling.first().is_none_or(|&byte| byte == FILLING)
            && filling.last().is_none_or(|&byte| byte == FILLING);
        intact.then(|| u64::from_le_bytes(number.try_into().unwrap_or_default()))
    }

    /// Sends the first messages, all in one turn, so that none comes round before the last has begun.
    fn begin(&mut self, ctx: &mut Context, order: &[u8]) -> Result<()> {
        self.left = order.try_into().map(u64::from_le_bytes).unwrap_or_default();
        self.expected = 0;
        for number in 0..self.load.in_flight as u64 {
            let mut payload = Payload::with_capacity(self.load.size);
            payload.append(&number.to_le_bytes());
            while payload.len() < self.load.size {
                let missing = self.load.size - payload.len();
                payload.append(&[FILLING; 1024][..missing.min(1024)]);
            }
            ctx.forward(Message::new(&self.way.onward, &self.way.back, payload))?;
        }
        Ok(())
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
        if envelope.source == self.starter {
            return self.begin(ctx, message.payload.as_slice());
        }
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
        if self.left == 0 {
            self.waiting += 1;
            if self.waiting == self.load.in_flight {
                self.waiting = 0;
                let _ = self.done.try_send(Ok(Instant::now()));
            }
            return Ok(());
        }
        self.left -= 1;
        let next = self.expected - 1 + self.load.in_flight as u64;
        message.payload.as_mut_slice()[..SMALLEST].copy_from_slice(&next.to_le_bytes());
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
    start: impl Fn(&Node, WorkerOptions) -> Result<Address>,
) -> Result<Circle> {
    with_hops_on(node, 0, hops, load, start)
}

/// As [`with_hops`], on the arbiter with this index, which also names the workers.
///
/// # Errors
/// As [`with_hops`].
pub fn with_hops_on(
    node: &Node,
    index: usize,
    hops: usize,
    load: Load,
    start: impl Fn(&Node, WorkerOptions) -> Result<Address>,
) -> Result<Circle> {
    let turn: Address = format!("{TURN}{index}").as_str().into();
    let placement = Placement::Index(index);
    let mut onward = Route::new();
    for hop in 0..hops {
        let name = format!("hop{index}.{hop}");
        onward.push(start(
            node,
            WorkerOptions::new(name.as_str()).placement(placement),
        )?);
    }
    let (Some(first), Some(last)) = (onward.next().cloned(), onward.as_slice().last().cloned()) else {
        return Err(portolan_runtime::Error::other("a circle needs a hop"));
    };
    onward.push(turn.clone());
    let flow = node.new_flow(None);
    node.add_consumer(&flow, &first);
    let incoming = [AccessControl::only(last), AccessControl::only(starter_of(&turn))];
    let way = Way {
        turn,
        onward,
        back: Route::new(),
        incoming: AccessControl::Any(incoming.into()),
        flow: Some(flow),
    };
    Circle::start_on(node, way, load, placement)
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
        let circle = with_hops(&node, 2, LOAD, |node, options| {
            node.start_sync_worker(options, Hop)
        })
        .unwrap();
        circle.run(1000).unwrap();
        circle.run(3).unwrap();
        node.stop_blocking();
    }

    #[test]
    fn messages_that_overtake_each_other_are_noticed() {
        let node = Node::builder().arbiters(1).build().unwrap();
        let circle = with_hops(&node, 1, LOAD, |node, options| {
            node.start_sync_worker(options, Swap(None))
        })
        .unwrap();
        let failure = circle.run(1000).unwrap_err();
        assert!(
            failure.0.contains("message 0 had to come round, 1 did"),
            "{failure}"
        );
        node.stop_blocking();
    }
}

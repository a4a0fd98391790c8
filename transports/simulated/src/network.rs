//! The network: who is in it, what lies between them, what is broken.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use portolan_runtime::{Node, environment};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::connection::Pipe;
use crate::link::{Arrival, End, Link, Mode};
use crate::node::{Listening, SimulatedNode};
use crate::trace::Trace;

/// A network of nodes. Clones are handles to the same one, and can be moved into workers.
#[derive(Clone)]
pub struct Network {
    state: Arc<Mutex<State>>,
}

pub(crate) struct State {
    begun: Instant,
    pub(crate) trace: Trace,
    usual: Link,
    links: BTreeMap<Pair, Link>,
    /// Until when the line in this direction carries what was sent before.
    busy: BTreeMap<(Arc<str>, Arc<str>), Instant>,
    /// Since when.
    partitions: BTreeMap<Pair, Instant>,
    isolated: BTreeMap<Arc<str>, Instant>,
    pub(crate) hosts: BTreeMap<Arc<str>, Host>,
    /// All nodes that there ever were, to see that nothing of them is left.
    nodes: Vec<(Arc<str>, Node)>,
    crashing: Vec<JoinHandle<()>>,
    pipes: Vec<Weak<Pipe>>,
    next_connection: u64,
}

pub(crate) struct Host {
    pub(crate) node: Node,
    /// Tells a node from the one that had its name before it crashed.
    pub(crate) life: usize,
    pub(crate) crashed: bool,
    pub(crate) listening: Option<Listening>,
}

/// Two names in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pair(Arc<str>, Arc<str>);

impl Pair {
    fn of(a: &str, b: &str) -> Self {
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        Self(first.into(), second.into())
    }
}

/// A number from 0 up to, and without, 1.
fn chance() -> f64 {
    (environment::random() >> 11) as f64 / (1u64 << 53) as f64
}

impl State {
    pub(crate) fn record(&mut self, what: impl Into<String>) {
        self.trace.push(self.begun.elapsed(), what.into());
    }

    pub(crate) fn link(&self, a: &str, b: &str) -> &Link {
        self.links.get(&Pair::of(a, b)).unwrap_or(&self.usual)
    }

    pub(crate) fn is_cut(&self, a: &str, b: &str) -> bool {
        self.cut_since(a, b).is_some()
    }

    fn cut_since(&self, a: &str, b: &str) -> Option<Instant> {
        if a == b {
            return None;
        }
        let isolated = [self.isolated.get(a), self.isolated.get(b)];
        let reasons = isolated.into_iter().chain([self.partitions.get(&Pair::of(a, b))]);
        reasons.flatten().min().copied()
    }

    fn pipes(&self) -> Vec<Arc<Pipe>> {
        self.pipes.iter().filter_map(Weak::upgrade).collect()
    }

    /// What is on its way where nothing goes through any more: datagrams are lost, streams wait, for some time.
    fn after_cut(&mut self) {
        for pipe in self.pipes() {
            let mut flight = pipe.flight.lock();
            if flight.mode() == Mode::Datagram && self.is_cut(&pipe.from, &pipe.to) {
                let lost = flight.drop_frames();
                if lost > 0 {
                    self.record(format!("{pipe} loses {lost} on their way"));
                }
            }
            drop(flight);
            pipe.arrival.notify_one();
        }
    }

    /// What waited goes on when its sender repeats it.
    fn after_heal(&mut self, was_cut: impl Fn(&Pipe) -> bool) {
        for pipe in self.pipes() {
            if was_cut(&pipe) && !self.is_cut(&pipe.from, &pipe.to) {
                let delay = self.link(&pipe.from, &pipe.to).repeated_delay(&mut chance);
                pipe.flight.lock().hold(Instant::now() + delay);
                pipe.arrival.notify_one();
            }
        }
    }
}

impl Network {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                begun: Instant::now(),
                trace: Trace::default(),
                usual: Link::default(),
                links: BTreeMap::new(),
                busy: BTreeMap::new(),
                partitions: BTreeMap::new(),
                isolated: BTreeMap::new(),
                hosts: BTreeMap::new(),
                nodes: Vec::new(),
                crashing: Vec::new(),
                pipes: Vec::new(),
                next_connection: 1,
            })),
        }
    }

    pub(crate) fn begin(&self) {
        self.state.lock().begun = Instant::now();
    }

    pub(crate) fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Stops all nodes, and sees that nothing is left.
    pub(crate) async fn end(&self) {
        let (nodes, crashing) = {
            let mut state = self.state.lock();
            (state.nodes.clone(), std::mem::take(&mut state.crashing))
        };
        for (_, node) in &nodes {
            node.stop().await;
        }
        for crash in crashing {
            let _ = crash.await;
        }
        for (name, node) in nodes {
            let left = node.workers();
            assert!(
                left.is_empty(),
                "{name} has stopped, and these workers have not: {left:?}"
            );
        }
    }

    /// The node with this name: a new one, if there is none yet, or it has crashed or was stopped. A node lives until the
    /// simulation ends, if not.
    ///
    /// # Panics
    /// Outside the simulation.
    pub fn node(&self, name: &str) -> SimulatedNode {
        let mut state = self.state.lock();
        let existing = state
            .hosts
            .get(name)
            .filter(|host| !host.crashed && !host.node.is_stopping());
        let (node, life) = match existing {
            Some(host) => (host.node.clone(), host.life),
            None => {
                let node = Node::builder()
                    .on_current_arbiter()
                    .build()
                    .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
                let (name, life): (Arc<str>, _) = (name.into(), state.nodes.len());
                state.nodes.push((Arc::clone(&name), node.clone()));
                let host = Host {
                    node: node.clone(),
                    life,
                    crashed: false,
                    listening: None,
                };
                state.record(format!("{name} starts"));
                state.hosts.insert(name, host);
                (node, life)
            }
        };
        SimulatedNode::new(self.clone(), name.into(), life, node)
    }

    /// Simulated time since the beginning.
    pub fn now(&self) -> Duration {
        self.state.lock().begun.elapsed()
    }

    /// The simulated time of day: [`EPOCH`](crate::EPOCH) and [`now`](Self::now).
    pub fn system_time(&self) -> SystemTime {
        environment::system_time()
    }

    /// Lets the nodes do what they have to do meanwhile. Costs no time of the real world beyond what that takes.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// A number by chance, from the seed: for scenarios that choose what happens.
    pub fn random(&self) -> u64 {
        environment::random()
    }

    /// Sets what lies between two nodes, from now on, also under their open connections.
    pub fn link(&self, a: &str, b: &str, link: Link) {
        self.state.lock().links.insert(Pair::of(a, b), link);
    }

    /// Sets what lies between all nodes for which nothing else was set.
    pub fn usual_link(&self, link: Link) {
        self.state.lock().usual = link;
    }

    /// Lets nothing through between two nodes. Nobody is told: open connections fall silent.
    pub fn partition(&self, a: &str, b: &str) {
        let mut state = self.state.lock();
        state.record(format!("partition between {a} and {b}"));
        state
            .partitions
            .entry(Pair::of(a, b))
            .or_insert_with(Instant::now);
        state.after_cut();
    }

    /// Ends a partition. What waits in streams arrives after some time.
    pub fn heal(&self, a: &str, b: &str) {
        let mut state = self.state.lock();
        state.record(format!("{a} and {b} heal"));
        let pair = Pair::of(a, b);
        if state.partitions.remove(&pair).is_some() {
            state.after_heal(|pipe| Pair::of(&pipe.from, &pipe.to) == pair);
        }
    }

    /// A partition between this node and all others.
    pub fn isolate(&self, name: &str) {
        let mut state = self.state.lock();
        state.record(format!("{name} is isolated"));
        state.isolated.entry(name.into()).or_insert_with(Instant::now);
        state.after_cut();
    }

    /// Ends an [isolation](Self::isolate). [Partitions](Self::partition) stay.
    pub fn rejoin(&self, name: &str) {
        let mut state = self.state.lock();
        state.record(format!("{name} rejoins"));
        if state.isolated.remove(name).is_some() {
            state.after_heal(|pipe| *pipe.from == *name || *pipe.to == *name);
        }
    }

    /// Ends a node as a killed process ends: nothing that it had still to say is said, and its connections are reset, which their
    /// other ends see as soon as there is a way. With [`isolate`](Self::isolate) before it, a machine that loses its power.
    ///
    /// [`node`](Self::node) starts another one with the name.
    ///
    /// # Panics
    /// If there is no such node, or it has crashed already.
    pub fn crash(&self, name: &str) {
        let mut state = self.state.lock();
        state.record(format!("{name} crashes"));
        let Some(host) = state.hosts.get_mut(name).filter(|host| !host.crashed) else {
            panic!("there is no running node {name} that could crash");
        };
        host.crashed = true;
        host.listening = None;
        let node = host.node.clone();
        for pipe in state.pipes() {
            let mut flight = pipe.flight.lock();
            if *pipe.from == *name {
                let delay = state.link(&pipe.from, &pipe.to).delay(&mut chance);
                flight.end(Instant::now(), delay, End::Reset);
            } else if *pipe.to == *name {
                flight.unheard = true;
                flight.drop_frames();
            }
            drop(flight);
            pipe.arrival.notify_one();
            pipe.room.notify_one();
        }
        // What its workers still do, nobody sees.
        state
            .crashing
            .push(tokio::task::spawn_local(async move { node.stop().await }));
    }

    /// Connections that have not ended at both ends.
    pub fn connections(&self) -> usize {
        let mut numbers: Vec<_> = self.state.lock().pipes().iter().map(|pipe| pipe.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.len()
    }

    /// What has happened so far.
    pub fn trace(&self) -> Trace {
        self.state.lock().trace.clone()
    }

    /// Adds a line of the scenario's own to the trace.
    pub fn note(&self, what: impl Into<String>) {
        self.state.lock().record(what);
    }

    /// Two directions of a new connection.
    pub(crate) fn new_connection(
        state: &mut State,
        from: &Arc<str>,
        to: &Arc<str>,
    ) -> (Arc<Pipe>, Arc<Pipe>) {
        let number = state.next_connection;
        state.next_connection += 1;
        let mode = state.link(from, to).mode;
        let there = Arc::new(Pipe::new(number, from, to, mode));
        let back = Arc::new(Pipe::new(number, to, from, mode));
        state.pipes.retain(|pipe| pipe.strong_count() > 0);
        state
            .pipes
            .extend([Arc::downgrade(&there), Arc::downgrade(&back)]);
        (there, back)
    }

    /// Sends one message.
    pub(crate) fn transmit(&self, pipe: &Pipe, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        let mut flight = pipe.flight.lock();
        let (now, length) = (Instant::now(), bytes.len());
        if flight.is_over() {
            return;
        }
        let link = state.link(&pipe.from, &pipe.to).clone();
        let mut departure = now;
        if let Some(bandwidth) = link.bandwidth {
            let line = (Arc::clone(&pipe.from), Arc::clone(&pipe.to));
            let busy = state.busy.entry(line).or_insert(now);
            departure = (*busy).max(now) + Duration::from_secs_f64(length as f64 / bandwidth.max(1) as f64);
            *busy = departure;
        }
        let delay = match flight.mode() {
            Mode::Stream => link.repeated_delay(&mut chance),
            Mode::Datagram => {
                if state.is_cut(&pipe.from, &pipe.to) || link.loses(&mut chance) {
                    state.record(format!("{pipe} loses {length} bytes"));
                    return;
                }
                link.delay(&mut chance)
            }
        };
        state.record(format!("{pipe} sends {length} bytes"));
        flight.send(now, departure, delay, bytes);
        drop(flight);
        pipe.arrival.notify_one();
    }

    /// Ends a direction from its sending end.
    pub(crate) fn finish(&self, pipe: &Pipe, end: End) {
        let mut state = self.state.lock();
        let mut flight = pipe.flight.lock();
        if !flight.is_over() {
            let delay = state.link(&pipe.from, &pipe.to).repeated_delay(&mut chance);
            flight.end(Instant::now(), delay, end);
            state.record(format!("{pipe} ends: {end:?}"));
        }
        drop(flight);
        pipe.arrival.notify_one();
        pipe.room.notify_one();
    }

    /// What has arrived.
    pub(crate) fn arrive(&self, pipe: &Pipe) -> Arrival {
        let mut state = self.state.lock();
        let mut flight = pipe.flight.lock();
        let arrival = match state.cut_since(&pipe.from, &pipe.to) {
            None => flight.arrive(Instant::now()),
            Some(_) if flight.mode() == Mode::Datagram => Arrival::Nothing,
            Some(since) => {
                let end = since + state.link(&pipe.from, &pipe.to).give_up_after;
                if Instant::now() < end {
                    Arrival::At(end)
                } else {
                    Arrival::End(End::Reset)
                }
            }
        };
        drop(flight);
        match &arrival {
            Arrival::Frame(bytes) => {
                state.record(format!("{pipe} brings {} bytes", bytes.len()));
                pipe.room.notify_one();
            }
            Arrival::End(end) => state.record(format!("{pipe} has ended: {end:?}")),
            Arrival::At(_) | Arrival::Nothing => {}
        }
        arrival
    }

    /// When the sender gives up what it has sent.
    pub(crate) fn gives_up(&self, pipe: &Pipe) -> Option<Instant> {
        let after = self.state.lock().link(&pipe.from, &pipe.to).give_up_after;
        pipe.flight.lock().gives_up(after)
    }

    /// Whether a connection request gets through at this moment, and how long until its answer is there.
    pub(crate) fn request(&self, from: &str, to: &str) -> Option<Duration> {
        let state = self.state.lock();
        let link = state.link(from, to);
        if state.is_cut(from, to) || link.loses(&mut chance) {
            return None;
        }
        Some(link.delay(&mut chance) + link.delay(&mut chance))
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}

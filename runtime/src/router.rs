//! From address to mailbox: the one place where every delivery is decided.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;

use crate::access::{AccessControl, Delivery, Direction};
use crate::cell::{ByNumber, Cell};
use crate::error::{Refusal, RefusedDelivery, SendError};
use crate::flow::{Flow, Generation};
use crate::mailbox::Mailbox;
use crate::message::{Message, Peer};
use crate::node::Node;
use crate::payload::Sealing;
use crate::route::MAX_HOPS;
use crate::worker::Passage;
use crate::{Address, Error};

/// One address of one worker.
pub(crate) struct Record {
    pub(crate) address: Address,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) incoming: AccessControl,
    pub(crate) outgoing: AccessControl,
    /// Messages sent here leave the node.
    pub(crate) terminal: bool,
    /// Carried records may be delivered here: it opens them, or sends them on.
    pub(crate) takes_records: bool,
    /// The peer at the other end of the secure channel whose encryptor this is.
    pub(crate) peer: Option<Arc<Peer>>,
    /// Set when this mailbox emits what came from outside.
    pub(crate) producer: OnceLock<Arc<Flow>>,
    /// The flow that is found by this address although another mailbox produces it.
    pub(crate) alias: OnceLock<Arc<Flow>>,
    pub(crate) cell: Weak<Cell>,
    /// Messages to this address are changed and go on at once.
    pub(crate) passage: OnceLock<Box<Through>>,
    /// Set when the address is released: whoever remembers this record must look again.
    pub(crate) released: AtomicBool,
}

/// How messages go through an address.
pub(crate) struct Through {
    pub(crate) passage: Arc<dyn Passage>,
    /// From which of the worker's addresses they go on, if that is another one.
    pub(crate) from: Option<Arc<Record>>,
    /// There is a worker behind it, which does the same with what comes by its mailbox: messages go through only on that worker's
    /// thread, and while none waits there, which they would overtake.
    pub(crate) has_worker: bool,
    /// Where the last one went.
    pub(crate) known: Mutex<Option<Known>>,
}

/// Where a sender's last message went. Most go to the same place as the one before, and need no look-up then.
pub(crate) struct Known {
    record: Arc<Record>,
    /// Which of the sender's addresses it was sent from, and in which generation flow control let it through.
    index: usize,
    generation: Option<Generation>,
}

impl Record {
    /// How a message can go through here now.
    #[inline]
    pub(crate) fn way_through(&self) -> Option<&Through> {
        let through = self.passage.get()?;
        let open = !through.has_worker || (through.passage.is_ready() && self.mailbox.is_idle_here());
        open.then_some(through)
    }

    /// Whether what comes from here has a number in an order that must not be broken.
    #[inline]
    pub(crate) fn is_numbering(&self) -> bool {
        self.passage.get().is_some_and(|through| through.has_worker)
    }

    pub(crate) fn flow(&self) -> Option<&Arc<Flow>> {
        self.producer.get().or_else(|| self.alias.get())
    }
}

impl Known {
    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.record
    }
}

/// How often deliveries were refused, since the node started.
#[derive(Debug, Default)]
pub struct Refusals {
    /// By flow control.
    pub flow_control: AtomicU64,
    /// By an incoming access control.
    pub incoming: AtomicU64,
    /// By an outgoing access control.
    pub outgoing: AtomicU64,
    /// Carried records, at workers that neither open them nor send them on.
    pub records: AtomicU64,
    /// Because nobody was there.
    pub not_found: AtomicU64,
    limit: Mutex<Option<(Instant, u32)>>,
}

/// Log lines about refusals per second; further ones are counted only, so that a peer cannot fill a disk.
const LOGGED_PER_SECOND: u32 = 10;

impl Refusals {
    fn may_log(&self) -> bool {
        let mut limit = self.limit.lock();
        let now = Instant::now();
        match limit.as_mut() {
            Some((since, count)) if now.duration_since(*since) < Duration::from_secs(1) => {
                *count += 1;
                *count <= LOGGED_PER_SECOND
            }
            _ => {
                *limit = Some((now, 1));
                true
            }
        }
    }

    fn count(&self, error: &SendError) {
        let SendError::Refused(refused) = error else {
            self.not_found.fetch_add(1, Ordering::Relaxed);
            tracing::debug!("{error}");
            return;
        };
        let counter = match refused.reason {
            Refusal::FlowControl => &self.flow_control,
            Refusal::Incoming(_) => &self.incoming,
            Refusal::Outgoing(_) => &self.outgoing,
            Refusal::Record => &self.records,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if self.may_log() {
            tracing::warn!("{refused}");
        }
    }
}

type Map<V> = DashMap<Address, V, foldhash::fast::RandomState>;

pub(crate) struct Router {
    records: Map<Arc<Record>>,
    /// Which flows an address consumes, so that it can be taken out of them when it goes.
    consumed: Map<Vec<Weak<Flow>>>,
    pub(crate) refusals: Refusals,
    /// Keeps workers without a task and without an owner alive.
    passive: Mutex<ByNumber<Arc<Cell>>>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router")
            .field("records", &self.records.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Passages that a message goes through at once: the longest route there, and back. More is taken for a circle.
const MAX_PASSAGES: usize = 2 * MAX_HOPS + 2;

/// Where a message goes after it has been through all passages at its front.
pub(crate) enum Next {
    /// To a mailbox.
    Mailbox {
        target: Arc<Record>,
        /// From which address it comes there.
        source: Address,
        /// The passage that it went through last.
        last: Option<Arc<Record>>,
    },
    /// Nowhere: a passage has taken it.
    Taken,
}

impl Router {
    pub(crate) fn keep(&self, cell: Arc<Cell>) {
        self.passive.lock().insert(cell.number, cell);
    }

    pub(crate) fn release(&self, number: u64) {
        let released = self.passive.lock().remove(&number);
        drop(released);
    }

    /// Finds the mailbox that a message goes to, which has been admitted to a passage, and decides at each step whether
    /// it may.
    pub(crate) fn pass(
        &self,
        node: &Node,
        sender: &Record,
        first: Arc<Record>,
        message: &mut Message,
    ) -> Result<Next, SendError> {
        let mut at = first;
        let mut source = sender.address.clone();
        let mut last = None;
        for _ in 0..MAX_PASSAGES {
            let Some(through) = at.way_through() else {
                return Ok(Next::Mailbox {
                    target: at,
                    source,
                    last,
                });
            };
            let bytes = message.payload.len();
            match through.passage.pass(node, &source, message) {
                Ok(true) => {}
                Ok(false) => return Ok(Next::Taken),
                Err(error) => {
                    tracing::debug!(address = %at.address, "a message could not pass: {error}");
                    return Err(SendError::NotPassed(at.address.clone()));
                }
            }
            let from = through.from.as_ref().unwrap_or(&at);
            source = from.address.clone();
            let next = self.admit_on(from, &through.known, message);
            through.passage.passed(bytes, next.is_ok());
            let next = next.inspect_err(|error| through.passage.lost(node, error))?;
            last = Some(std::mem::replace(&mut at, next));
        }
        Err(SendError::NotPassed(at.address.clone()))
    }

    /// As [`Router::admit`], for a passage, where several threads may be at a time.
    fn admit_on(
        &self,
        from: &Record,
        known: &Mutex<Option<Known>>,
        message: &Message,
    ) -> Result<Arc<Record>, SendError> {
        match known.try_lock() {
            Some(mut known) => self.admit_known(from, 0, message, &mut known).map(Arc::clone),
            None => self.admit(from, message),
        }
    }

    pub(crate) fn new() -> Self {
        Self {
            records: Map::default(),
            consumed: Map::default(),
            refusals: Refusals::default(),
            passive: Mutex::default(),
        }
    }

    pub(crate) fn find(&self, address: &Address) -> Option<Arc<Record>> {
        self.records.get(address).map(|record| Arc::clone(&record))
    }

    /// Registers all addresses of a worker, or none.
    pub(crate) fn register(&self, records: &[Arc<Record>]) -> Result<(), Error> {
        for (i, record) in records.iter().enumerate() {
            match self.records.entry(record.address.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(Arc::clone(record));
                }
                Entry::Occupied(_) => {
                    for registered in &records[..i] {
                        self.records.remove(&registered.address);
                    }
                    return Err(Error::AddressInUse(record.address.clone()));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn unregister(&self, records: &[Arc<Record>]) {
        for record in records {
            let removed = self
                .records
                .remove_if(&record.address, |_, found| Arc::ptr_eq(found, record));
            // After the removal, so that who sees this does not find the record again.
            record.released.store(true, Ordering::Release);
            if let Some(through) = record.passage.get()
                // A rule that is being asked about a message from here may be what stops it.
                && let Some(mut known) = through.known.try_lock()
            {
                // Two that have sent to each other would keep each other.
                *known = None;
            }
            if removed.is_some()
                && let Some((_, flows)) = self.consumed.remove(&record.address)
            {
                for flow in flows.iter().filter_map(Weak::upgrade) {
                    flow.remove(&record.address);
                }
            }
        }
    }

    pub(crate) fn add_consumer(&self, flow: &Arc<Flow>, address: &Address) {
        if flow.insert(address.clone()) {
            let mut flows = self.consumed.entry(address.clone()).or_default();
            flows.retain(|known| known.strong_count() > 0);
            flows.push(Arc::downgrade(flow));
        }
    }

    pub(crate) fn consumed_by(&self, address: &Address) -> Vec<Arc<Flow>> {
        self.consumed
            .get(address)
            .map(|flows| flows.iter().filter_map(Weak::upgrade).collect())
            .unwrap_or_default()
    }

    /// Decides whether `sender` may send this message, and finds where it goes: the hop, then flow control, then whether a
    /// carried record may go there, then the sender's outgoing and the destination's incoming access control.
    pub(crate) fn admit(&self, sender: &Record, message: &Message) -> Result<Arc<Record>, SendError> {
        let decide = || {
            let record = self.find_allowed(sender, message)?;
            self.check_access(sender, &record, message)?;
            Ok(record)
        };
        decide().inspect_err(|error| self.refusals.count(error))
    }

    /// As [`Router::admit`], for the address with this index of a sender that remembers where its last message went.
    #[inline]
    pub(crate) fn admit_known<'a>(
        &self,
        sender: &Record,
        index: usize,
        message: &Message,
        known: &'a mut Option<Known>,
    ) -> Result<&'a Arc<Record>, SendError> {
        let generation = sender.producer.get().map(|flow| flow.generation());
        let again = match (&*known, message.onward.next()) {
            (Some(known), Some(destination)) => {
                known.record.address == *destination
                    && known.index == index
                    && known.generation == generation
                    && !known.record.released.load(Ordering::Acquire)
            }
            _ => false,
        };
        if !again {
            *known = None;
        }
        let decide = || {
            let known = match known {
                Some(known) => known,
                none => none.insert(Known {
                    record: self.find_allowed(sender, message)?,
                    index,
                    generation,
                }),
            };
            self.check_access(sender, &known.record, message)?;
            Ok(&known.record)
        };
        decide().inspect_err(|error| self.refusals.count(error))
    }

    /// Finds the destination, if flow control lets the message through.
    fn find_allowed(&self, sender: &Record, message: &Message) -> Result<Arc<Record>, SendError> {
        let destination = message.onward.next().ok_or(SendError::NoRoute)?;
        if let Some(flow) = sender.producer.get()
            && !flow.allows(destination)
        {
            return Err(refused(sender, destination, Refusal::FlowControl));
        }
        self.find(destination).ok_or_else(|| {
            if destination.is_local() {
                SendError::NotFound(destination.clone())
            } else {
                SendError::NotLocal(destination.clone())
            }
        })
    }

    #[inline]
    fn check_access(&self, sender: &Record, record: &Record, message: &Message) -> Result<(), SendError> {
        if message.payload.sealing() == Sealing::Carried && !record.takes_records {
            return Err(refused(sender, &record.address, Refusal::Record));
        }
        let delivery = Delivery {
            source: &sender.address,
            destination: &record.address,
            message,
            router: self,
        };
        if let Err(denial) = sender.outgoing.check(&delivery, Direction::Outgoing) {
            return Err(refused(sender, &record.address, Refusal::Outgoing(denial)));
        }
        if let Err(denial) = record.incoming.check(&delivery, Direction::Incoming) {
            return Err(refused(sender, &record.address, Refusal::Incoming(denial)));
        }
        Ok(())
    }

    pub(crate) fn addresses(&self) -> Vec<Address> {
        let mut addresses: Vec<_> = self.records.iter().map(|record| record.address.clone()).collect();
        addresses.sort();
        addresses
    }
}

#[cold]
fn refused(sender: &Record, to: &Address, reason: Refusal) -> SendError {
    let (from, to) = (sender.address.clone(), to.clone());
    SendError::Refused(Box::new(RefusedDelivery { from, to, reason }))
}

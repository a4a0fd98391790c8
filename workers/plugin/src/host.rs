//! What a plugin can ask of the node: the imports of both worlds.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use portolan_runtime::{
    Address, Context, MAX_HOPS, Message, Payload, PeerIdentifier, Route, SendError as Unsent,
};
use wasmtime::component::{ComponentType, Linker, Lower, WasmList, WasmStr};
use wasmtime::{Error, StoreContextMut, bail};

use crate::address;
use crate::engine::MAX_HANDED_OVER;
use crate::error::one_line;
use crate::limits::{Limits, MAX_RANDOM, Meter};
use crate::log::{Level, Log};
use crate::rights::{Right, Rights};
use crate::status::Shared;
use crate::storage::Bounded;

/// What an authority has signed for peers, as the node knows it.
pub trait PeerAttributes: Send + Sync + 'static {
    /// The attributes of this peer that are valid now; none if nothing is known of it.
    fn attributes_of(&self, peer: &PeerIdentifier) -> Vec<(String, String)>;
}

/// Messages that can be answered: so many different return routes, the last ones.
const ANSWERABLE: usize = 1024;

/// What belongs to one instance on the host's side.
pub(crate) struct Host {
    pub(crate) meter: Meter,
    pub(crate) log: Arc<Log>,
    began: Instant,
    /// Only where there is a worker: not while a plugin is asked what it is, nor in a portal connection.
    pub(crate) duties: Option<Duties>,
}

impl Host {
    pub(crate) fn new(meter: Meter, log: Arc<Log>, duties: Option<Duties>) -> Self {
        Self {
            meter,
            log,
            began: Instant::now(),
            duties,
        }
    }

    fn duties(&mut self) -> Result<&mut Duties, Error> {
        match &mut self.duties {
            Some(duties) => Ok(duties),
            None => bail!("there is no worker yet: `describe` can use `host` only"),
        }
    }
}

/// What the instances of one worker share, one after the other.
#[derive(Clone)]
pub(crate) struct Surroundings {
    /// The worker's view of the node: the worker receives with it, and its instance sends with it.
    pub(crate) ctx: Arc<Mutex<Context>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: String,
    /// The message that is being handled. Behind a lock since it is read while its parts are being given to the instance.
    pub(crate) in_hand: Arc<RwLock<Message>>,
    pub(crate) answerable: Arc<Mutex<Answerable>>,
    pub(crate) storage: Arc<Mutex<Bounded>>,
    pub(crate) attributes: Option<Arc<dyn PeerAttributes>>,
}

/// A worker as its instance sees it.
pub(crate) struct Duties {
    around: Surroundings,
    rights: Arc<Rights>,
    max_timers: usize,
    /// Few: looking through them costs less than keeping them in order.
    timers: Vec<(Instant, u32)>,
    /// Whether the message in hand can still be sent on.
    pub(crate) can_pass_on: bool,
    /// Bytes of messages that were sent since the first one found no room.
    unsent: usize,
}

impl Duties {
    pub(crate) fn new(around: Surroundings, rights: Arc<Rights>, limits: &Limits) -> Self {
        Self {
            around,
            rights,
            max_timers: limits.timers,
            timers: Vec::new(),
            can_pass_on: false,
            unsent: 0,
        }
    }

    /// When the next timer is due.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.iter().map(|(due, _)| *due).min()
    }

    /// Takes a timer that is due.
    pub(crate) fn due_timer(&mut self, now: Instant) -> Option<u32> {
        let (index, (due, token)) = self
            .timers
            .iter()
            .copied()
            .enumerate()
            .min_by_key(|(_, (due, _))| *due)?;
        if due > now {
            return None;
        }
        self.timers.swap_remove(index);
        Some(token)
    }

    fn set_timer(&mut self, token: u32, after: Duration) -> Result<(), String> {
        let due = Instant::now() + after;
        if let Some(timer) = self.timers.iter_mut().find(|(_, set)| *set == token) {
            timer.0 = due;
        } else if self.timers.len() >= self.max_timers {
            return Err(format!(
                "{} timers are set already, which is the limit",
                self.timers.len()
            ));
        } else {
            self.timers.push((due, token));
        }
        Ok(())
    }

    /// Sends a message, if the plugin may.
    fn deliver(&mut self, log: &Log, message: Message) -> Result<(), SendError> {
        let sent = match message.onward.next() {
            None => Err(SendError::InvalidRoute("the route is empty".into())),
            Some(first) => self.check(first, &message.onward),
        }
        .and_then(|()| self.hand_over(message));
        let counters = &self.around.shared.counters;
        match &sent {
            Ok(()) => counters.sent.add(1),
            Err(error) => {
                counters.refused_to_send.add(1);
                match error {
                    SendError::MissingRight(right) => log.about(format_args!(
                        "a message was refused: the plugin has no right `{right}`; grant it if it shall be sent"
                    )),
                    SendError::Refused(reason) => log.about(format_args!("a message was refused: {reason}")),
                    _ => {}
                }
            }
        }
        sent
    }

    /// Gives a message to the node. One call can send many and large ones, faster than anybody takes them: what finds no room
    /// is bounded in bytes too.
    fn hand_over(&mut self, message: Message) -> Result<(), SendError> {
        let mut ctx = self.around.ctx.lock();
        let size = message.payload.len();
        if !ctx.has_unsent() {
            self.unsent = 0;
        } else if self.unsent.saturating_add(size) > MAX_HANDED_OVER {
            return Err(SendError::Overloaded(format!(
                "{} bytes wait to be taken already, and {MAX_HANDED_OVER} is the limit",
                self.unsent
            )));
        }
        ctx.forward(message)?;
        if ctx.has_unsent() {
            self.unsent += size;
        }
        Ok(())
    }

    fn check(&self, first: &Address, route: &Route) -> Result<(), SendError> {
        let is_answer = self.around.answerable.lock().contains(route);
        if is_answer && self.rights.contains(&Right::Reply) || self.rights.may_send(first) {
            return Ok(());
        }
        let mut text = String::new();
        let _ = address::print(first, &mut text);
        Err(SendError::MissingRight(if is_answer {
            Right::Reply.to_string()
        } else {
            let text = text
                .strip_prefix("0#")
                .filter(|name| !name.contains('#'))
                .unwrap_or(&text);
            format!("send:{}", one_line(text, 256))
        }))
    }

    fn storage(&self) -> Result<parking_lot::MutexGuard<'_, Bounded>, String> {
        if self.rights.contains(&Right::Storage) {
            Ok(self.around.storage.lock())
        } else {
            Err("the plugin has no right `storage`".into())
        }
    }
}

/// What can be answered: the return routes, whole, of the last messages. The first hop alone would not do: behind it may be everybody
/// at the other end of a channel, to whom the node's word counts.
#[derive(Default)]
pub(crate) struct Answerable {
    /// Routes as numbers, which nobody outside can choose.
    key: RandomState,
    last: Option<u64>,
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Answerable {
    fn number(&self, route: &Route) -> u64 {
        self.key.hash_one(route)
    }

    pub(crate) fn note(&mut self, route: &Route) {
        let number = self.number(route);
        if self.last == Some(number) {
            return;
        }
        self.last = Some(number);
        if self.known.insert(number) {
            self.order.push_back(number);
            if self.order.len() > ANSWERABLE
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }

    fn contains(&self, route: &Route) -> bool {
        let number = self.number(route);
        self.last == Some(number) || self.known.contains(&number)
    }
}

/// `send-error` of the interface.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lower)]
#[component(variant)]
pub(crate) enum SendError {
    #[component(name = "invalid-route")]
    InvalidRoute(String),
    #[component(name = "unreachable")]
    Unreachable(String),
    #[component(name = "missing-right")]
    MissingRight(String),
    #[component(name = "refused")]
    Refused(String),
    #[component(name = "overloaded")]
    Overloaded(String),
}

impl From<Unsent> for SendError {
    fn from(error: Unsent) -> Self {
        let text = error.to_string();
        match error {
            Unsent::NoRoute => Self::InvalidRoute(text),
            Unsent::NotFound(_) | Unsent::NotLocal(_) => Self::Unreachable(text),
            Unsent::Refused(_) | Unsent::NotPassed(_) => Self::Refused(text),
            Unsent::Overloaded(_) => Self::Overloaded(text),
        }
    }
}

type Store<'a> = StoreContextMut<'a, Host>;
type Strings = WasmList<WasmStr>;

/// Reads a route out of the memory of an instance. The outer error is a trap: texts that are no texts.
fn route_of(store: &mut Store<'_>, hops: &Strings) -> Result<Result<Route, SendError>, Error> {
    if hops.len() > MAX_HOPS {
        return Ok(Err(SendError::InvalidRoute(format!(
            "the route has {} hops, and {MAX_HOPS} is the limit",
            hops.len()
        ))));
    }
    let mut route = Route::new();
    for index in 0..hops.len() {
        let Some(hop) = hops.get(&mut *store, index) else {
            break;
        };
        match address::parse(&hop?.to_str(&*store)?) {
            Ok(hop) => route.push(hop),
            Err(text) => return Ok(Err(SendError::InvalidRoute(text))),
        }
    }
    Ok(Ok(route))
}

type Sent = Result<(Result<(), SendError>,), Error>;

fn send(mut store: Store<'_>, (route, body): (Strings, WasmList<u8>)) -> Sent {
    let onward = match route_of(&mut store, &route)? {
        Ok(route) => route,
        Err(error) => return Ok((Err(error),)),
    };
    let payload = Payload::copy_from(body.as_le_slice(&store));
    let Host { duties, log, .. } = store.data_mut();
    let Some(duties) = duties else {
        bail!("there is no worker yet: `describe` can use `host` only");
    };
    let back = Route::from(duties.around.ctx.lock().address());
    Ok((duties.deliver(log, Message::new(onward, back, payload)),))
}

fn forward(mut store: Store<'_>, (onward, back, body): (Strings, Strings, WasmList<u8>)) -> Sent {
    let onward = match route_of(&mut store, &onward)? {
        Ok(onward) => onward,
        Err(error) => return Ok((Err(error),)),
    };
    let back = match route_of(&mut store, &back)? {
        Ok(back) => back,
        Err(error) => return Ok((Err(error),)),
    };
    let payload = Payload::copy_from(body.as_le_slice(&store));
    let Host { duties, log, .. } = store.data_mut();
    let Some(duties) = duties else {
        bail!("there is no worker yet: `describe` can use `host` only");
    };
    Ok((duties.deliver(log, Message::new(onward, back, payload)),))
}

fn pass_on(mut store: Store<'_>, (onward, back): (Strings, Strings)) -> Sent {
    let onward = match route_of(&mut store, &onward)? {
        Ok(onward) => onward,
        Err(error) => return Ok((Err(error),)),
    };
    let back = match route_of(&mut store, &back)? {
        Ok(back) => back,
        Err(error) => return Ok((Err(error),)),
    };
    let Host { duties, log, .. } = store.data_mut();
    let Some(duties) = duties else {
        bail!("there is no worker yet: `describe` can use `host` only");
    };
    if !std::mem::take(&mut duties.can_pass_on) {
        return Ok((Err(SendError::Refused(
            "there is no message in hand, or it has been sent on already".into(),
        )),));
    }
    let message = {
        let in_hand = duties.around.in_hand.read();
        Message {
            onward,
            back,
            payload: Payload::copy_from(in_hand.payload.as_slice()),
            local: in_hand.local.clone(),
        }
    };
    Ok((duties.deliver(log, message),))
}

fn peer_attributes(mut store: Store<'_>, (): ()) -> Result<(Vec<(String, String)>,), Error> {
    let duties = store.data_mut().duties()?;
    let peer = duties.around.in_hand.read().peer().cloned();
    Ok((match (&duties.around.attributes, peer) {
        (Some(attributes), Some(peer)) => attributes.attributes_of(&peer.identifier),
        _ => Vec::new(),
    },))
}

/// An interface of ours by its name, in the version that this node has.
fn named(interface: &str) -> String {
    format!("portolan:worker/{interface}@{}", crate::component::VERSION)
}

/// What every plugin may use.
fn add_host(linker: &mut Linker<Host>) -> Result<(), Error> {
    let mut host = linker.instance(&named("host"))?;
    host.func_wrap("log", |store: Store<'_>, (level, text): (Level, WasmStr)| {
        let text = text.to_str(&store)?;
        store.data().log.line(level, &text);
        Ok(())
    })?;
    host.func_wrap("wall-clock", |_: Store<'_>, (): ()| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok((u64::try_from(since.as_millis()).unwrap_or(u64::MAX),))
    })?;
    host.func_wrap("monotonic-clock", |store: Store<'_>, (): ()| {
        Ok((u64::try_from(store.data().began.elapsed().as_nanos()).unwrap_or(u64::MAX),))
    })?;
    host.func_wrap("random-bytes", |_: Store<'_>, (length,): (u32,)| {
        if length > MAX_RANDOM {
            bail!("{length} random bytes are more than {MAX_RANDOM}");
        }
        let mut bytes = vec![0; length as usize];
        getrandom::fill(&mut bytes).map_err(|error| Error::msg(error.to_string()))?;
        Ok((bytes,))
    })?;
    Ok(())
}

/// The imports of an interceptor.
pub(crate) fn for_interceptors(linker: &mut Linker<Host>) -> Result<(), Error> {
    add_host(linker)
}

/// The imports of a worker.
pub(crate) fn for_workers(linker: &mut Linker<Host>) -> Result<(), Error> {
    add_host(linker)?;
    let mut node = linker.instance(&named("node"))?;
    node.func_wrap("own-address", |mut store: Store<'_>, (): ()| {
        Ok((store.data_mut().duties()?.around.address.clone(),))
    })?;
    node.func_wrap("send", send)?;
    node.func_wrap("forward", forward)?;
    node.func_wrap("pass-on", pass_on)?;
    node.func_wrap("peer-attributes", peer_attributes)?;

    let mut timers = linker.instance(&named("timers"))?;
    timers.func_wrap("set", |mut store: Store<'_>, (token, after): (u32, u32)| {
        let duties = store.data_mut().duties()?;
        Ok((duties.set_timer(token, Duration::from_millis(u64::from(after))),))
    })?;
    timers.func_wrap("cancel", |mut store: Store<'_>, (token,): (u32,)| {
        store.data_mut().duties()?.timers.retain(|(_, set)| *set != token);
        Ok(())
    })?;

    let mut storage = linker.instance(&named("storage"))?;
    storage.func_wrap("get", |mut store: Store<'_>, (key,): (WasmStr,)| {
        let key = key.to_str(&store)?.into_owned();
        let storage = store.data_mut().duties()?.storage();
        Ok((storage.map(|storage| storage.get(&key)),))
    })?;
    storage.func_wrap(
        "set",
        |mut store: Store<'_>, (key, value): (WasmStr, WasmList<u8>)| {
            let key = key.to_str(&store)?.into_owned();
            // Out of the instance's memory, of which the store cannot give a view while it is being used.
            let value = value.as_le_slice(&store).to_vec();
            let storage = store.data_mut().duties()?.storage();
            Ok((storage.and_then(|mut storage| storage.set(&key, &value)),))
        },
    )?;
    storage.func_wrap("remove", |mut store: Store<'_>, (key,): (WasmStr,)| {
        let key = key.to_str(&store)?.into_owned();
        let storage = store.data_mut().duties()?.storage();
        Ok((storage.and_then(|mut storage| storage.remove(&key)),))
    })?;
    storage.func_wrap("keys", |mut store: Store<'_>, (prefix,): (WasmStr,)| {
        let prefix = prefix.to_str(&store)?.into_owned();
        let storage = store.data_mut().duties()?.storage();
        Ok((storage.map(|storage| storage.keys(&prefix)),))
    })?;
    Ok(())
}

/// A text of a plugin's in an error: on one line, not too long.
pub(crate) fn said(text: &str) -> String {
    one_line(text, 512)
}

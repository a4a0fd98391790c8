//! The loop of a plugin worker: one message, timer or command at a time, and a new instance after a failure.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Waking, Poll};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use portolan_runtime::{Capacity, Context, Envelope, Message, PeerIdentifier, Route};
use tokio::sync::{mpsc, oneshot};

use crate::address;
use crate::error::one_line;
use crate::host::{Answerable, Duties, Host, Surroundings, said};
use crate::instance::{self, Answer, Running, WorkerFunctions};
use crate::limits::{Limits, MAX_LOG_TEXT, Meter};
use crate::rights::Rights;
use crate::status::{Shared, State};
use crate::storage::Bounded;
use crate::worker::{Replacement, WorkerSettings};
use crate::{Plugin, PluginError};

/// Messages that are handled before others on the thread have a turn, timers and commands are looked at.
const TURN: u32 = 64;

/// Messages that are taken out of the mailbox of a plugin that is not ready before others on the thread have a turn.
const RELIEVED: u32 = 1024;

/// How long a call may go on computing when the worker is asked to stop.
const STOP_TIME: Duration = Duration::from_millis(100);

/// A plugin that has run for at least so long without a failure has recovered.
const LEAST_RECOVERY: Duration = Duration::from_secs(10);

/// What comes next.
enum Event {
    Message(Envelope),
    Timer(u32),
    Replace(Replacement),
    Stop,
}

/// What waits for the plugin: in the mailbox, and beside it what was taken out so that nobody has to wait for a plugin that hangs.
struct Inbox {
    ctx: Arc<Mutex<Context>>,
    pending: VecDeque<Envelope>,
    bytes: usize,
    capacity: Capacity,
    patience: Duration,
    shared: Arc<Shared>,
}

impl Inbox {
    fn take(&mut self) -> Option<Envelope> {
        let Some(envelope) = self.pending.pop_front() else {
            return self.ctx.lock().try_next();
        };
        self.bytes -= envelope.message.payload.len();
        self.shared.counters.pending.set(self.pending.len() as u64);
        Some(envelope)
    }

    fn poll_take(&mut self, cx: &mut Waking<'_>) -> Poll<Option<Envelope>> {
        if self.pending.is_empty() {
            return self.ctx.lock().poll_next(cx);
        }
        Poll::Ready(self.take())
    }

    /// Empties the mailbox, as far as there is room beside it; drops the rest. So nobody waits, and what came first is kept.
    fn relieve(&mut self, cx: &mut Waking<'_>) {
        let mut dropped = 0;
        let mut ctx = self.ctx.lock();
        for left in (0..RELIEVED).rev() {
            let Poll::Ready(Some(envelope)) = ctx.poll_next(cx) else {
                break;
            };
            if left == 0 {
                // Others on the thread have a turn before the rest.
                cx.waker().wake_by_ref();
            }
            let size = envelope.message.payload.len();
            let is_full = !self.pending.is_empty()
                && (self.pending.len() >= self.capacity.messages || self.bytes + size > self.capacity.bytes);
            if is_full {
                dropped += 1;
            } else {
                self.bytes += size;
                self.pending.push_back(envelope);
            }
        }
        drop(ctx);
        let counters = &self.shared.counters;
        counters.pending.set(self.pending.len() as u64);
        if dropped > 0 {
            counters.dropped.add(dropped);
            self.shared.log.about(format_args!(
                "{dropped} messages were dropped: the plugin is not ready and its queue is full"
            ));
        }
    }

    /// What is done while a call gives way: says whether the call may go on.
    fn attend(&mut self) -> impl FnMut(&mut Waking<'_>, Duration) -> bool + '_ {
        let mut since = None;
        let mut stop_at = None;
        move |cx, computed| {
            let since = *since.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.patience {
                self.relieve(cx);
            }
            if self.ctx.lock().is_stopping() {
                return computed < *stop_at.get_or_insert(computed + STOP_TIME);
            }
            true
        }
    }
}

struct Turn {
    inbox: Inbox,
    around: Surroundings,
    limits: Limits,
    plugin: Plugin,
    config: String,
    running: Option<Running<WorkerFunctions>>,
    commands: mpsc::Receiver<Replacement>,
    handled_in_turn: u32,
    /// After a timer a message has its turn: a plugin whose timers are always due holds up nobody who sends to it.
    timer_was_last: bool,
    began: Instant,
    failures: u32,
    /// Used again for each message.
    onward: Vec<String>,
    back: Vec<String>,
    peer: Option<(PeerIdentifier, String)>,
}

/// The task of a plugin worker.
pub(crate) async fn run(
    ctx: Context,
    shared: Arc<Shared>,
    settings: WorkerSettings,
    commands: mpsc::Receiver<Replacement>,
    started: oneshot::Sender<Result<(), PluginError>>,
) {
    let storage = match Bounded::load(settings.storage, &settings.limits) {
        Ok(storage) => storage,
        Err(error) => {
            drop(ctx);
            let _ = started.send(Err(PluginError::Storage(error)));
            return;
        }
    };
    let ctx = Arc::new(Mutex::new(ctx));
    let mut turn = Turn {
        inbox: Inbox {
            ctx: Arc::clone(&ctx),
            pending: VecDeque::new(),
            bytes: 0,
            capacity: settings.limits.queue,
            patience: settings.limits.patience,
            shared: Arc::clone(&shared),
        },
        around: Surroundings {
            ctx,
            address: {
                let mut text = String::new();
                let _ = address::print(&settings.address, &mut text);
                text
            },
            in_hand: Arc::new(RwLock::new(Message::default())),
            answerable: Arc::new(Mutex::new(Answerable::default())),
            storage: Arc::new(Mutex::new(storage)),
            attributes: settings.attributes,
            shared: Arc::clone(&shared),
        },
        limits: settings.limits,
        plugin: shared.plugin.read().clone(),
        config: settings.config,
        running: None,
        commands,
        handled_in_turn: 0,
        timer_was_last: false,
        began: Instant::now(),
        failures: 0,
        onward: Vec::new(),
        back: Vec::new(),
        peer: None,
    };
    let rights = Arc::clone(&shared.rights.read());
    let plugin = turn.plugin.clone();
    let config = turn.config.clone();
    let refused = match turn.start(&plugin, &config, rights).await {
        Ok(running) => {
            turn.running = Some(running);
            shared.set_state(State::Running);
            if started.send(Ok(())).is_ok() {
                turn.work().await;
            }
            None
        }
        Err(error) => {
            shared.set_error(&error.to_string());
            Some((started, error))
        }
    };
    // Before anybody hears that it has stopped, or was never started, its address is free.
    drop(turn);
    shared.counters.memory.set(0);
    shared.set_state(State::Stopped);
    if let Some((started, error)) = refused {
        let _ = started.send(Err(error));
    }
}

impl Turn {
    /// Makes an instance and calls its `start`.
    async fn start(
        &mut self,
        plugin: &Plugin,
        config: &str,
        rights: Arc<Rights>,
    ) -> Result<Running<WorkerFunctions>, PluginError> {
        let limits = self.limits;
        let duties = Duties::new(self.around.clone(), rights, &limits);
        let log = Arc::clone(&self.around.shared.log);
        let host = Host::new(Meter::new(&limits), log, Some(duties));
        let mut running = Running::new(
            plugin,
            host,
            WorkerFunctions::find,
            limits.time,
            self.inbox.attend(),
        )
        .await?;
        let start = running.functions.start;
        let (answer,) = running
            .call("start", start, (config,), limits.time, self.inbox.attend())
            .await?;
        answer.map_err(|text| PluginError::Rejected(said(&text)))?;
        self.flush().await;
        self.show_memory(&running);
        self.began = Instant::now();
        Ok(running)
    }

    fn show_memory(&self, running: &Running<WorkerFunctions>) {
        let bytes = running.store.data().meter.memory();
        self.around.shared.counters.memory.set(bytes as u64);
    }

    async fn work(&mut self) {
        loop {
            let failed = match self.next().await {
                Event::Message(envelope) => self.handle(envelope).await,
                Event::Timer(token) => self.on_timer(token).await,
                Event::Replace(replacement) => {
                    self.replace(replacement).await;
                    Ok(())
                }
                Event::Stop => break,
            };
            if let Err(error) = failed {
                self.note(&error.to_string());
                if !self.recover().await {
                    break;
                }
            }
        }
        self.stop_instance().await;
    }

    /// The next thing to do. The plugin is running.
    async fn next(&mut self) -> Event {
        let timer = self
            .running
            .as_ref()
            .and_then(|running| running.store.data().duties.as_ref()?.next_timer());
        let is_due = timer.is_some_and(|timer| timer <= Instant::now());
        let is_over = self.handled_in_turn >= TURN || self.inbox.ctx.lock().is_stopping();
        if !is_over
            && (!is_due || self.timer_was_last)
            && let Some(envelope) = self.inbox.take()
        {
            self.handled_in_turn += 1;
            self.timer_was_last = false;
            return Event::Message(envelope);
        }
        if is_due || is_over {
            tokio::task::yield_now().await;
        }
        self.handled_in_turn = 0;
        let settle = self.around.shared.log.settle();
        let wake = timer.into_iter().chain(settle).min();
        let mut alarm = pin!(wake.map(|wake| tokio::time::sleep_until(wake.into())));
        poll_fn(|cx| {
            if self.inbox.ctx.lock().is_stopping() {
                return Poll::Ready(Event::Stop);
            }
            if let Poll::Ready(Some(replacement)) = self.commands.poll_recv(cx) {
                return Poll::Ready(Event::Replace(replacement));
            }
            if let Some(alarm) = alarm.as_mut().as_pin_mut()
                && alarm.poll(cx).is_ready()
            {
                let duties = self
                    .running
                    .as_mut()
                    .and_then(|running| running.store.data_mut().duties.as_mut());
                if let Some(token) = duties.and_then(|duties| duties.due_timer(Instant::now())) {
                    self.timer_was_last = true;
                    return Poll::Ready(Event::Timer(token));
                }
                // It was for the log: its line is written where the next thing is awaited.
            }
            match self.inbox.poll_take(cx) {
                Poll::Ready(Some(envelope)) => Poll::Ready(Event::Message(envelope)),
                Poll::Ready(None) => Poll::Ready(Event::Stop),
                Poll::Pending => {
                    if let Some(running) = &mut self.running {
                        running.rest();
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Gives one message to the plugin. An error means that the instance is gone.
    // The message in hand is locked for reading while the plugin has it: nobody but this task ever writes it.
    #[allow(clippy::await_holding_lock)]
    async fn handle(&mut self, envelope: Envelope) -> Result<(), PluginError> {
        let counters = &self.around.shared.counters;
        let mut message = envelope.message;
        // The worker itself.
        message.onward.step();
        if !print_route(&message.onward, &mut self.onward) || !print_route(&message.back, &mut self.back) {
            counters.failed.add(1);
            self.note("a message was not given to the plugin: its route has a hop that is not text");
            return Ok(());
        }
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        self.around.answerable.lock().note(&message.back);
        let peer = message.peer().map(|peer| peer.identifier);
        if let Some(peer) = peer
            && self.peer.as_ref().is_none_or(|(known, _)| *known != peer)
        {
            self.peer = Some((peer, peer.to_string()));
        }
        *self.around.in_hand.write() = message;
        if let Some(duties) = &mut running.store.data_mut().duties {
            duties.can_pass_on = true;
        }
        let handle = running.functions.handle;
        let answer = {
            let in_hand = self.around.in_hand.read();
            let message = instance::Message {
                onward: &self.onward,
                back: &self.back,
                body: in_hand.payload.as_slice(),
                peer: peer.and(self.peer.as_ref()).map(|(_, text)| text.as_str()),
            };
            running
                .call(
                    "handle",
                    handle,
                    (message,),
                    self.limits.time,
                    self.inbox.attend(),
                )
                .await
        };
        if let Some(duties) = &mut running.store.data_mut().duties {
            duties.can_pass_on = false;
        }
        // Whose peer it was is over too.
        *self.around.in_hand.write() = Message::default();
        self.settle(answer).await
    }

    async fn on_timer(&mut self, token: u32) -> Result<(), PluginError> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        let on_timer = running.functions.on_timer;
        let (answer,) = running
            .call(
                "on-timer",
                on_timer,
                (token,),
                self.limits.time,
                self.inbox.attend(),
            )
            .await
            .inspect_err(|_| self.running = None)?;
        if let Err(text) = answer {
            self.note(&format!(
                "the plugin answered a timer with an error: {}",
                said(&text)
            ));
        }
        self.flush().await;
        Ok(())
    }

    /// After a message.
    async fn settle(&mut self, answer: Result<Answer, PluginError>) -> Result<(), PluginError> {
        let counters = &self.around.shared.counters;
        match answer {
            Ok((Ok(()),)) => counters.handled.add(1),
            Ok((Err(text),)) => {
                counters.failed.add(1);
                self.note(&format!(
                    "the plugin answered a message with an error: {}",
                    said(&text)
                ));
            }
            Err(error) => {
                counters.failed.add(1);
                self.running = None;
                return Err(error);
            }
        }
        if let Some(running) = &self.running {
            self.show_memory(running);
        }
        self.flush().await;
        Ok(())
    }

    /// Waits until what the plugin has sent is where it is for. Others do not wait for it long.
    async fn flush(&mut self) {
        if !self.inbox.ctx.lock().has_unsent() {
            return;
        }
        let mut patience = pin!(tokio::time::sleep(self.inbox.patience));
        let mut is_over = false;
        poll_fn(|cx| {
            {
                let mut ctx = self.inbox.ctx.lock();
                if ctx.poll_flush(cx).is_ready() || ctx.poll_stopping(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
            is_over = is_over || patience.as_mut().poll(cx).is_ready();
            if is_over {
                self.inbox.relieve(cx);
            }
            Poll::Pending
        })
        .await;
    }

    /// Keeps an error for the owner to see, and logs it.
    fn note(&self, text: &str) {
        let shared = &self.around.shared;
        shared.log.about(format_args!("{text}"));
        shared.set_error(&one_line(text, MAX_LOG_TEXT));
    }

    /// Starts a new instance after a while, again and again. `false` when the worker is to stop.
    async fn recover(&mut self) -> bool {
        let shared = Arc::clone(&self.around.shared);
        shared.counters.memory.set(0);
        if self.began.elapsed() >= self.limits.restart_most.max(LEAST_RECOVERY) {
            self.failures = 0;
        }
        shared.set_state(State::Restarting);
        loop {
            let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
            let delay = self
                .limits
                .restart_first
                .saturating_mul(factor)
                .min(self.limits.restart_most);
            self.failures = self.failures.saturating_add(1);
            match self.wait(delay).await {
                Event::Stop => return false,
                Event::Replace(replacement) => self.replace(replacement).await,
                _ => {
                    let rights = Arc::clone(&shared.rights.read());
                    let (plugin, config) = (self.plugin.clone(), self.config.clone());
                    match self.start(&plugin, &config, rights).await {
                        Ok(running) => self.running = Some(running),
                        Err(error) => self.note(&error.to_string()),
                    }
                    shared.counters.restarts.add(1);
                }
            }
            if self.running.is_some() {
                shared.set_state(State::Running);
                return true;
            }
            // Those who watch look at the number of restarts.
            shared.set_state(State::Restarting);
        }
    }

    /// Waits for so long, and for what cannot wait. A timer's event means that the time is over.
    async fn wait(&mut self, delay: Duration) -> Event {
        let mut alarm = pin!(tokio::time::sleep(delay));
        poll_fn(|cx| {
            if self.inbox.ctx.lock().poll_stopping(cx).is_ready() {
                return Poll::Ready(Event::Stop);
            }
            if let Poll::Ready(Some(replacement)) = self.commands.poll_recv(cx) {
                return Poll::Ready(Event::Replace(replacement));
            }
            if alarm.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Timer(0));
            }
            self.inbox.relieve(cx);
            Poll::Pending
        })
        .await
    }

    /// Puts a new instance in the place of the old one, if it starts.
    async fn replace(&mut self, replacement: Replacement) {
        let shared = Arc::clone(&self.around.shared);
        let rights = match replacement.rights {
            Some(rights) => Arc::new(rights),
            None => Arc::clone(&shared.rights.read()),
        };
        let config = replacement.config.unwrap_or_else(|| self.config.clone());
        let result = match self
            .start(&replacement.plugin, &config, Arc::clone(&rights))
            .await
        {
            Ok(running) => {
                self.stop_instance().await;
                self.show_memory(&running);
                self.running = Some(running);
                self.plugin = replacement.plugin.clone();
                self.config = config;
                self.failures = 0;
                *shared.rights.write() = rights;
                *shared.plugin.write() = replacement.plugin;
                shared.counters.replacements.add(1);
                Ok(())
            }
            Err(error) => Err(error),
        };
        let _ = replacement.done.send(result);
    }

    /// Lets the instance say goodbye.
    async fn stop_instance(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        let stop = running.functions.stop;
        let time = self.limits.time;
        if let Err(error) = running.call("stop", stop, (), time, self.inbox.attend()).await {
            self.note(&error.to_string());
        }
        let mut ctx = self.inbox.ctx.lock();
        // What finds no room now is not waited for.
        let _ = ctx.poll_flush(&mut Waking::from_waker(std::task::Waker::noop()));
    }
}

/// Writes a route into texts that are used again. `false` if an address is not text.
fn print_route(route: &Route, texts: &mut Vec<String>) -> bool {
    texts.resize_with(route.len(), String::new);
    route
        .iter()
        .zip(texts)
        .all(|(hop, text)| address::print(hop, text).is_ok())
}

//! A worker that answers each message with the number of its words, and keeps the sums in the node's state, where they
//! survive restarts. With `report_to` in its configuration it sends a report to that address after each interval.
//!
//! It shows what a plugin can ask of a node: sending, timers, storage, log. [`counts`] is the part that is not about plugins.

use std::cell::RefCell;

use exports::portolan::worker::handler::{Guest, Info, Message};
use portolan::worker::host::{Level, log};
use portolan::worker::{node, storage, timers};

use crate::counts::{Config, Counts};

pub mod counts;

wit_bindgen::generate!({ world: "worker", path: "../../../workers/plugin/wit" });

/// Where the sums are in the worker's storage.
const KEY: &str = "counts";
/// The one timer.
const REPORT: u32 = 1;

/// A worker's memory is its own, and is there from `start` until it stops.
struct State {
    config: Config,
    counts: Counts,
    /// What the report before this said: one without news is not sent.
    reported: Counts,
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

fn with_state<T>(act: impl FnOnce(&mut State) -> Result<T, String>) -> Result<T, String> {
    STATE.with_borrow_mut(|state| act(state.as_mut().ok_or("the worker was not started")?))
}

struct Plugin;

impl Guest for Plugin {
    fn describe() -> Info {
        Info {
            name: "word-count".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            description: "Counts the words of messages, and keeps and reports the sums.".to_owned(),
            // Where reports go is the owner's choice: `worker start` or `plugin add` grants an address or less than all.
            wants: ["reply", "from:local", "from:peers", "storage", "send:*"]
                .map(str::to_owned)
                .to_vec(),
        }
    }

    fn start(config: String) -> Result<(), String> {
        let config = Config::parse(&config)?;
        let counts = match storage::get(KEY)? {
            Some(kept) => {
                Counts::from_bytes(&kept).ok_or("what is kept in the node's state are no counts")?
            }
            None => Counts::default(),
        };
        log(Level::Info, &format!("starts with {counts}"));
        let state = State {
            config,
            counts,
            reported: counts,
        };
        next_report(&state)?;
        STATE.set(Some(state));
        Ok(())
    }

    fn handle(message: Message) -> Result<(), String> {
        let text = String::from_utf8(message.body).map_err(|_| "a message is not text in UTF-8")?;
        let answer = with_state(|state| {
            let words = state.counts.add(&text);
            storage::set(KEY, &state.counts.to_bytes())?;
            Ok(format!("{words} words; {} so far", state.counts))
        })?;
        node::send(&message.return_route, answer.as_bytes())
            .map_err(|error| format!("no answer was sent: {error}"))
    }

    fn on_timer(_token: u32) -> Result<(), String> {
        with_state(|state| {
            // First, so that a report that cannot be sent is not the last one.
            next_report(state)?;
            let Some(to) = state
                .config
                .report_to
                .clone()
                .filter(|_| state.counts != state.reported)
            else {
                return Ok(());
            };
            let report = state.counts.to_string();
            node::send(std::slice::from_ref(&to), report.as_bytes())
                .map_err(|error| format!("the report was not sent to {to}: {error}"))?;
            state.reported = state.counts;
            Ok(())
        })
    }

    fn stop() {
        log(Level::Info, "stops; the sums are kept");
    }
}

export!(Plugin);

fn next_report(state: &State) -> Result<(), String> {
    match state.config.report_to {
        Some(_) => timers::set(
            REPORT,
            u32::try_from(state.config.interval().as_millis()).unwrap_or(u32::MAX),
        ),
        None => Ok(()),
    }
}

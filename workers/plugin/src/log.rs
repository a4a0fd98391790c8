//! The log lines of a plugin: so many for each second, and a number for the rest.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wasmtime::component::{ComponentType, Lift};

use crate::status::Counter;

const WINDOW: Duration = Duration::from_secs(1);

/// `level` of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift)]
#[allow(dead_code)] // They come out of plugins only.
#[component(enum)]
#[repr(u8)]
pub(crate) enum Level {
    #[component(name = "error")]
    Error,
    #[component(name = "warn")]
    Warn,
    #[component(name = "info")]
    Info,
    #[component(name = "debug")]
    Debug,
    #[component(name = "trace")]
    Trace,
}

/// Whose lines these are, and how many they were. Shared by all instances that follow one another, or that stand side by side in the
/// connections of one portal, so that failing buys no new lines.
#[derive(Debug)]
pub(crate) struct Log {
    /// The plugin, and where it runs.
    whose: String,
    at: String,
    each_second: u32,
    window: Mutex<Window>,
    pub(crate) written: Counter,
    pub(crate) dropped: Counter,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    dropped: u64,
}

impl Log {
    pub(crate) fn new(whose: String, at: String, each_second: u32) -> Self {
        Self {
            whose,
            at,
            each_second,
            window: Mutex::new(Window {
                began: Instant::now(),
                lines: 0,
                dropped: 0,
            }),
            written: Counter::default(),
            dropped: Counter::default(),
        }
    }

    /// Whether one more line may be written now.
    fn admit(&self) -> bool {
        let mut window = self.window.lock();
        if window.began.elapsed() >= WINDOW {
            self.next_window(&mut window);
        }
        if window.lines < self.each_second {
            window.lines += 1;
            self.written.add(1);
            true
        } else {
            window.dropped += 1;
            self.dropped.add(1);
            false
        }
    }

    fn next_window(&self, window: &mut Window) {
        if window.dropped > 0 {
            tracing::warn!(
                plugin = %self.whose, at = %self.at,
                "{} log lines of the plugin were dropped: {} each second are allowed", window.dropped, self.each_second
            );
        }
        *window = Window {
            began: Instant::now(),
            lines: 0,
            dropped: 0,
        };
    }

    /// Says how many lines were dropped, if that is still to be said and the second is over. Gives when it will be.
    pub(crate) fn settle(&self) -> Option<Instant> {
        let mut window = self.window.lock();
        if window.dropped == 0 {
            return None;
        }
        let due = window.began + WINDOW;
        if due > Instant::now() {
            return Some(due);
        }
        self.next_window(&mut window);
        None
    }

    /// A line of the plugin's.
    pub(crate) fn line(&self, level: Level, text: &str) {
        if !self.admit() {
            return;
        }
        let text = crate::error::one_line(text, crate::limits::MAX_LOG_TEXT);
        let (plugin, at) = (&self.whose, &self.at);
        match level {
            Level::Error => tracing::error!(%plugin, %at, "{text}"),
            Level::Warn => tracing::warn!(%plugin, %at, "{text}"),
            Level::Info => tracing::info!(%plugin, %at, "{text}"),
            Level::Debug => tracing::debug!(%plugin, %at, "{text}"),
            Level::Trace => tracing::trace!(%plugin, %at, "{text}"),
        }
    }

    /// A line about the plugin, which counts as one of its own: it can cause as many as it likes.
    pub(crate) fn about(&self, text: std::fmt::Arguments<'_>) {
        if self.admit() {
            let text = crate::error::one_line(&text.to_string(), crate::limits::MAX_LOG_TEXT);
            tracing::warn!(plugin = %self.whose, at = %self.at, "{text}");
        }
    }
}

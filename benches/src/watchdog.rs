//! Ends a run in which nothing moves any more, and says where everything stood: so that the cause can be found.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cleanup;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);

/// Looks after a run until it is dropped.
#[derive(Debug)]
pub struct Watchdog(Arc<Mutex<Watched>>);

#[derive(Debug)]
struct Watched {
    step: String,
    since: Instant,
    is_over: bool,
}

impl Watchdog {
    /// Waits for each step so long, and no longer. Then it prints what `state` says and ends the process.
    pub fn start(patience: Duration, state: impl Fn() -> String + Send + 'static) -> Self {
        let watched = Arc::new(Mutex::new(Watched {
            step: "the beginning".to_owned(),
            since: Instant::now(),
            is_over: false,
        }));
        let looked_at = Arc::clone(&watched);
        thread::spawn(move || {
            loop {
                thread::sleep(LOOK);
                let (step, silent) = {
                    let watched = lock(&looked_at);
                    if watched.is_over {
                        return;
                    }
                    (watched.step.clone(), watched.since.elapsed())
                };
                if silent > patience {
                    eprintln!(
                        "nothing has moved for {silent:?} in: {step}\n{}\n{}",
                        state(),
                        sockets()
                    );
                    cleanup::everything();
                    std::process::exit(2);
                }
            }
        });
        Self(watched)
    }

    /// A step begins.
    pub fn watch(&self, step: impl Display) {
        let mut watched = lock(&self.0);
        (watched.step, watched.since) = (step.to_string(), Instant::now());
    }

    /// The step goes on.
    pub fn moved(&self) {
        lock(&self.0).since = Instant::now();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        lock(&self.0).is_over = true;
    }
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

/// TCP sockets of the machine in which bytes wait, as the system lists them.
fn sockets() -> String {
    let listed = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let waits = |line: &&str| {
        let queues = line.split_whitespace().nth(4);
        queues.is_some_and(|queues| queues != "00000000:00000000")
    };
    let lines: Vec<_> = listed
        .lines()
        .take(1)
        .chain(listed.lines().skip(1).filter(waits))
        .collect();
    lines.join("\n")
}

//! Nodes as processes: in the background, in the foreground, stopped.
//!
//! A background node is this binary again, in a session of its own, with its log as stderr. Its stdout is a pipe to the
//! command that started it, through which it says once that it is ready, or why it cannot be ([`Report`]); then the pipe is
//! closed. So the command waits for an event, not for a time, and a child that dies is noticed at once. Its stdin is the node's
//! lock, which goes from the command to it without ever being free.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::control::api::{Done, ErrorBody, NodeStatus, path};
use crate::control::client::NodeClient;
use crate::engine;
use crate::error::{Error, ErrorCode, Result};
use crate::state::{NodeFolder, OpenNode};
use crate::worker_types::WorkerTypes;

/// How long a node may take to become ready. It restores what is local; nothing in it waits for the network.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a node may take to stop after it was asked to.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long a node may take to say that it runs.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long the lock of a process that was killed may be held after that.
const END_LIMIT: Duration = Duration::from_secs(2);
/// How long a node in this process may take to stop after a signal, before the process ends all the same.
const FOREGROUND_STOP_LIMIT: Duration = Duration::from_millis(1_700);
/// How often to look whether a process has given up its lock.
const LOCK_POLL: Duration = Duration::from_millis(5);
/// The longest report of a child.
const MAX_REPORT: u64 = 4 * 1024 * 1024;

/// What a background node tells the command that started it, as one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Report {
    /// It is ready.
    Ready,
    /// It cannot start.
    Failed(ErrorBody),
}

/// Start a node that was just made. If it cannot start, it is removed again.
pub(crate) async fn start_new(node: OpenNode) -> Result<NodeStatus> {
    let folder = node.folder().clone();
    match start(node).await {
        Ok(status) => Ok(status),
        Err(mut error) => {
            // Another command may run a node of this name by now; then this fails, as it should.
            if folder.remove().is_ok()
                && error
                    .hint
                    .as_deref()
                    .is_some_and(|hint| hint.contains("node logs"))
            {
                // The log is gone with the folder; its last words are in the message.
                error.hint = None;
            }
            Err(error)
        }
    }
}

/// Start this node in the background and wait until it is ready.
pub(crate) async fn start(node: OpenNode) -> Result<NodeStatus> {
    let folder = node.folder().clone();
    let name = folder.name();
    let fail = |what: &str, error: std::io::Error| {
        Error::failed(format!("the node `{name}` cannot be started: {what}: {error}"))
    };
    let binary =
        std::env::current_exe().map_err(|error| fail("the path of this binary is unknown", error))?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(folder.log())
        .map_err(|error| fail(&format!("{} cannot be opened", folder.log().display()), error))?;
    let log_before = log.metadata().map_or(0, |metadata| metadata.len());
    let mut child = Command::new(&binary)
        .args(["node", "create", name, "--foreground", "--child-process"])
        .env("PORTOLAN_HOME", folder.home().path())
        // A ticket is a secret, and this one is used up.
        .env_remove("ENROLLMENT_TICKET")
        .stdin(Stdio::from(node.hand_over()))
        .stdout(Stdio::piped())
        .stderr(Stdio::from(log))
        .spawn()
        .map_err(|error| fail(&format!("{} cannot be run", binary.display()), error))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout.take(MAX_REPORT));
        if tokio::time::timeout(START_LIMIT, reader.read_line(&mut line))
            .await
            .is_err()
        {
            let _ = child.start_kill();
            return Err(Error::timeout(format!(
                "the node `{name}` was not ready within {} s and was stopped",
                START_LIMIT.as_secs()
            ))
            .hint(format!("look into its log: portolan node logs {name}")));
        }
    }
    match serde_json::from_str::<Report>(&line) {
        Ok(Report::Ready) => NodeClient::new(folder.clone()).get(path::NODE).await,
        Ok(Report::Failed(error)) => {
            let _ = child.wait().await;
            Err(error.into())
        }
        Err(_) => {
            let ended = match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            let last = last_line(&folder, log_before)
                .map(|line| format!("; its last words: {line}"))
                .unwrap_or_default();
            Err(
                Error::failed(format!("the node `{name}` died while it started ({ended}){last}"))
                    .hint(format!("look into its log: portolan node logs {name}")),
            )
        }
    }
}

/// The last line that was written to the log from `start` on.
fn last_line(folder: &NodeFolder, start: u64) -> Option<String> {
    let mut file = File::open(folder.log()).ok()?;
    let end = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(start.max(end.saturating_sub(4096))))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(4096).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.chars().take(300).collect())
}

/// What the command that started this process has given it as stdin: the lock of the node.
pub(crate) fn handed_over() -> Result<File> {
    std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .map_err(|error| Error::failed(format!("stdin cannot be used: {error}")))
}

/// The child's end of the pipe to the command that started it.
pub(crate) struct Parent;

impl Parent {
    /// Leave the session of the command, so that nothing that ends it ends the node.
    pub(crate) fn detach() -> Self {
        // Fails only if this process leads a session already, which is as good.
        let _ = rustix::process::setsid();
        Self
    }

    /// Say that the node is ready, and let go of the pipe.
    pub(crate) fn ready(self) {
        self.say(&Report::Ready);
    }

    /// Say why it cannot start.
    pub(crate) fn failed(self, error: &Error) {
        self.say(&Report::Failed(error.clone().into()));
    }

    fn say(self, report: &Report) {
        let mut out = std::io::stdout().lock();
        // A parent that has gone meanwhile is none of our concern.
        if let Ok(text) = serde_json::to_string(report) {
            let _ = writeln!(out, "{text}");
            let _ = out.flush();
        }
        // From here on stdout is the log, like stderr; the pipe is closed.
        let _ = rustix::stdio::dup2_stdout(rustix::stdio::stderr());
    }
}

/// The signals that stop a node in this process.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From now on these signals do not kill the process. Before its node is opened, and with that seen as running.
    pub(crate) fn install() -> Result<Self> {
        let fail = |error: std::io::Error| Error::failed(format!("signals cannot be received: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(fail)?,
            interrupt: signal(SignalKind::interrupt()).map_err(fail)?,
        })
    }
}

/// Run a node in this process until a signal, the end of stdin (`exit_on_eof`) or a request stops it.
pub(crate) async fn run_here(
    node: OpenNode,
    types: WorkerTypes,
    signals: StopSignals,
    exit_on_eof: bool,
    ready: impl FnOnce(&NodeStatus) + Send + 'static,
) -> Result<()> {
    let StopSignals {
        mut terminate,
        mut interrupt,
    } = signals;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping: SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping: SIGINT"),
            () = end_of_stdin(exit_on_eof) => tracing::info!("stopping: stdin was closed"),
        }
        let _ = stop.send(true);
    });
    let run = engine::run_node_with(node, types, ready, wait_for(stopped.clone()));
    let give_up = async move {
        wait_for(stopped).await;
        tokio::time::sleep(FOREGROUND_STOP_LIMIT).await;
    };
    tokio::select! {
        result = run => result,
        () = give_up => {
            tracing::warn!("something did not stop in time; the process ends all the same");
            Ok(())
        }
    }
}

async fn wait_for(mut stopped: watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        // The sender lives in a task that ends only after it has sent.
        std::future::pending::<()>().await;
    }
}

async fn end_of_stdin(wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let (ended, waiting) = tokio::sync::oneshot::channel();
    // A thread of its own: a read from a terminal cannot be cancelled, and must not hold up the end of the process.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = waiting.await;
}

/// How a node came to be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It was not running.
    WasNotRunning,
    /// It stopped when asked.
    Asked,
    /// It had to be killed.
    Killed,
}

/// Stop the node in this folder: ask it, then SIGTERM, then SIGKILL. Returns when its lock is free.
pub(crate) async fn stop(folder: &NodeFolder) -> Result<Stopped> {
    if !folder.is_running() {
        return Ok(Stopped::WasNotRunning);
    }
    let client = NodeClient::new(folder.clone()).with_timeout(Duration::from_secs(2));
    let asked = client.post::<_, Done>(path::NODE_STOP, &Done {}).await;
    if asked.is_ok() && stops_within(folder, STOP_LIMIT).await {
        return Ok(Stopped::Asked);
    }
    for (kill, limit, how) in [
        (rustix::process::Signal::TERM, STOP_LIMIT, Stopped::Asked),
        (rustix::process::Signal::KILL, STOP_LIMIT, Stopped::Killed),
    ] {
        // The id was written by the holder of the lock, and the lock is held: it is the node's.
        let process = folder
            .pid()
            .and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(process) = process
            && folder.is_running()
        {
            let _ = rustix::process::kill_process(process, kill);
        }
        if stops_within(folder, limit).await {
            return Ok(how);
        }
    }
    Err(Error::new(
        ErrorCode::Timeout,
        format!("the node `{}` cannot be stopped", folder.name()),
    )
    .hint("it may belong to another user; stop its process by hand"))
}

/// Whether a node that seems to run is only what is left of it: the lock of a process that was killed is held until the
/// kernel has taken the process apart. Returns when the lock is free, if so.
pub(crate) async fn is_ending(folder: &NodeFolder) -> bool {
    let client = NodeClient::new(folder.clone()).with_timeout(ANSWER_LIMIT);
    client.get::<NodeStatus>(path::NODE).await.is_err() && stops_within(folder, END_LIMIT).await
}

async fn stops_within(folder: &NodeFolder, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while folder.is_running() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
    true
}

//! One participant of a scenario: a home folder, commands run in it, and the processes that they leave behind.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::{binary, process, wait};

/// No command of a scenario takes longer, on a machine that is busy with the other scenarios too.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// A folder as `PORTOLAN_HOME`. When it is dropped, its nodes are stopped (hard, if need be) and the folder is removed;
/// when the test is failing, the ends of the nodes' logs are printed first.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
    program: Option<PathBuf>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, without the newline at its end.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// From start to the end of both outputs. Background processes must not hold them open.
    pub took: Duration,
}

impl Home {
    /// A new, empty home in the system's temporary folder.
    ///
    /// # Panics
    /// When no folder can be made.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("portolan-test-")
            .tempdir()
            .expect("a temporary folder can be made");
        Self {
            folder,
            program: None,
        }
    }

    /// The same home, whose commands are those of another program than `portolan`.
    #[must_use]
    pub fn of_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// A new home below `parent`, for scenarios that choose the file system.
    ///
    /// # Panics
    /// When no folder can be made.
    pub fn below(parent: &Path) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("home-")
            .tempdir_in(parent)
            .expect("a folder can be made there");
        Self {
            folder,
            program: None,
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The command as a script would run it: no terminal, standard input closed, only the environment that a service
    /// manager gives.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(self.program.clone().unwrap_or_else(binary::portolan));
        self.furnish(&mut command);
        command.args(arguments);
        command
    }

    /// Gives any command the environment of this home.
    pub fn furnish(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PORTOLAN_HOME", self.path())
            .stdin(Stdio::null());
    }

    /// Runs the command to its end.
    ///
    /// # Panics
    /// When it takes longer than [`COMMAND_LIMIT`], counting the background processes that keep its outputs open.
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        run(self.command(arguments), COMMAND_LIMIT)
    }

    /// Runs a command that has to succeed; its standard output.
    ///
    /// # Panics
    /// When it fails, with what it said.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        let outcome = self.run(arguments);
        assert!(outcome.succeeded(), "{outcome}");
        outcome.stdout
    }

    /// Runs a command that has to fail by itself (with an exit code, not by a signal or a panic).
    ///
    /// # Panics
    /// When it succeeds or crashes.
    #[track_caller]
    pub fn fails<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        let outcome = self.run(arguments);
        assert!(!outcome.succeeded(), "should have failed: {outcome}");
        assert!(outcome.code.is_some(), "ended by a signal: {outcome}");
        assert!(!outcome.stderr.contains("panicked at"), "panicked: {outcome}");
        assert!(
            !outcome.stderr.trim().is_empty(),
            "failed without a word: {outcome}"
        );
        outcome
    }

    /// Runs a command with `--output json` that has to succeed; the parsed result.
    ///
    /// # Panics
    /// When it fails, or does not print one JSON value.
    #[track_caller]
    pub fn json<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Value {
        let mut command = self.command(arguments);
        command.args(["--output", "json"]);
        let outcome = run(command, COMMAND_LIMIT);
        assert!(outcome.succeeded(), "{outcome}");
        match serde_json::from_str(&outcome.stdout) {
            Ok(value) => value,
            Err(error) => panic!("not JSON ({error}): {outcome}"),
        }
    }

    /// Starts a command that goes on; ended with the returned guard.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Running {
        let mut command = self.command(arguments);
        Running(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the binary can be started"),
        )
    }

    /// The processes of this home.
    pub fn processes(&self) -> Vec<u32> {
        process::of_home(self.path())
    }

    /// The process of the node `name`.
    ///
    /// # Panics
    /// When the node has none.
    #[track_caller]
    pub fn node_process(&self, name: &str) -> u32 {
        let shown = self.json(["node", "show", name]);
        let pid = shown["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.unwrap_or_else(|| panic!("node {name} has no process: {shown}"))
    }

    /// Ends the processes of this home at once (SIGKILL), as a power cut would, and waits until they are gone.
    pub fn kill_processes(&self) {
        for pid in self.processes() {
            process::kill(pid);
        }
        wait::until(Duration::from_secs(5), || {
            self.processes().is_empty().then_some(())
        });
    }

    /// What the nodes of this home have logged so far.
    pub fn logs(&self) -> String {
        let mut files = Vec::new();
        collect_logs(self.path(), &mut files, 0);
        files.sort();
        files
            .iter()
            .map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned())
            .collect()
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut files = Vec::new();
            collect_logs(self.path(), &mut files, 0);
            for path in files {
                let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("--- end of {}", path.display());
                eprintln!("{}", lines[lines.len().saturating_sub(30)..].join("\n"));
            }
        }
        self.kill_processes();
    }
}

fn collect_logs(folder: &Path, into: &mut Vec<std::path::PathBuf>, depth: usize) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && depth < 4 {
            collect_logs(&path, into, depth + 1);
        } else if path.is_file() && entry.file_name().to_string_lossy().contains("log") {
            into.push(path);
        }
    }
}

/// Runs `command` to its end and to the end of both its outputs.
///
/// # Panics
/// When it cannot be started or takes longer than `limit`.
#[track_caller]
pub fn run(mut command: Command, limit: Duration) -> Outcome {
    let line = line_of(&command);
    let start = Instant::now();
    let mut child = match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => panic!("{line}: {error}"),
    };
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let texts = (|| {
        let left = |start: Instant| limit.saturating_sub(start.elapsed());
        Some((
            stdout.recv_timeout(left(start)).ok()?,
            stderr.recv_timeout(left(start)).ok()?,
        ))
    })();
    let Some((stdout, stderr)) = texts else {
        let ended = matches!(child.try_wait(), Ok(Some(_)));
        let _ = child.kill();
        let _ = child.wait();
        let why = if ended {
            "it ended, but something that it started keeps its output open"
        } else {
            "it was ended"
        };
        panic!("{line}: not done in {limit:?}; {why}");
    };
    let status = child.wait().expect("a child can be waited for");
    Outcome {
        line,
        code: status.code(),
        stdout: stdout.trim_end_matches('\n').to_owned(),
        stderr,
        took: start.elapsed(),
    }
}

fn line_of(command: &Command) -> String {
    let mut line = String::from("portolan");
    for argument in command.get_args() {
        line.push(' ');
        let argument = argument.to_string_lossy();
        // Tickets are long, and secret.
        match argument.char_indices().nth(60) {
            Some((cut, _)) => {
                line.push_str(&argument[..cut]);
                line.push('…');
            }
            None => line.push_str(&argument),
        }
    }
    line
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

impl Outcome {
    /// Whether the exit code was 0.
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Checks that the error text has each of `words` (in any letter case).
    ///
    /// # Panics
    /// When one is missing.
    #[track_caller]
    pub fn says(&self, words: &[&str]) -> &Self {
        let text = self.stderr.to_lowercase();
        for word in words {
            assert!(
                text.contains(&word.to_lowercase()),
                "does not say {word:?}: {self}"
            );
        }
        self
    }

    /// Checks that the error text has at least one of `words` (in any letter case).
    ///
    /// # Panics
    /// When none is there.
    #[track_caller]
    pub fn says_any(&self, words: &[&str]) -> &Self {
        let text = self.stderr.to_lowercase();
        assert!(
            words.iter().any(|word| text.contains(&word.to_lowercase())),
            "says none of {words:?}: {self}"
        );
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code.map_or("a signal".to_owned(), |code| code.to_string());
        write!(
            f,
            "`{}` ended with {code} after {:?}\nstdout: {}\nstderr: {}",
            self.line, self.took, self.stdout, self.stderr
        )
    }
}

/// A command that goes on until this is dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it ends, at most `limit`; its exit code.
    pub fn ends_within(&mut self, limit: Duration) -> Option<Option<i32>> {
        wait::until(limit, || self.0.try_wait().ok().flatten()).map(|status| status.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

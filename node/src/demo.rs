//! `portolan demo`: the whole story on one machine, with real processes and real commands.
//!
//! Each participant gets a home of its own in a temporary folder, and every step is the command that a user would type,
//! run as a process of its own. Nothing here reaches into a node.

use std::io::{self, IsTerminal, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, ErrorCode, Result};

/// Limit for one command of the story.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);
/// Limit for one answer of the service.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long each direction is measured.
const MEASURED: Duration = Duration::from_millis(1_000);
/// Round trips that are measured.
const ROUND_TRIPS: usize = 1_000;

/// What to show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DemoOptions {
    /// Keep the temporary folder with the homes and logs.
    pub(crate) keep: bool,
    /// Use colour.
    pub(crate) color: bool,
}

/// Tells the story, and cleans up, also when it is interrupted.
///
/// # Errors
///
/// When a step does not do what it should, or [`ErrorCode::Interrupted`].
pub(crate) async fn run(options: DemoOptions) -> Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("portolan-demo-")
        .tempdir()
        .map_err(|error| Error::failed(format!("cannot make a temporary folder: {error}")))?;
    let exe = std::env::current_exe()
        .map_err(|error| Error::failed(format!("cannot find the portolan program itself: {error}")))?;
    let story = Story {
        exe,
        folder: folder.path().to_owned(),
        color: options.color,
    };
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut terminate = on(SignalKind::terminate())?;
    // The terminal was closed: what runs in the background would outlive it.
    let mut hangup = on(SignalKind::hangup())?;
    let result = tokio::select! {
        result = story.tell() => result,
        _ = hangup.recv() => Err(Error::new(ErrorCode::Interrupted, "the demo was interrupted")),
        _ = interrupt.recv() => Err(Error::new(ErrorCode::Interrupted, "the demo was interrupted")),
        _ = terminate.recv() => Err(Error::new(ErrorCode::Interrupted, "the demo was interrupted")),
    };
    let failed = result.is_err();
    story.clean_up().await;
    if options.keep {
        let path = folder.keep();
        story.say(&format!("The homes are kept in {}.", path.display()));
    } else if failed {
        // The folder goes when `folder` is dropped.
        story.say("All nodes are stopped and the temporary folder is removed.");
    }
    result
}

fn on(kind: SignalKind) -> Result<tokio::signal::unix::Signal> {
    signal(kind).map_err(|error| Error::failed(format!("cannot wait for signals: {error}")))
}

struct Story {
    exe: PathBuf,
    folder: PathBuf,
    color: bool,
}

/// Somebody with a home of their own.
#[derive(Clone, Copy)]
struct Party(&'static str);

const HUB: Party = Party("hub");
const BANK: Party = Party("bank");
const ANALYSIS: Party = Party("analysis");
const STRANGER: Party = Party("stranger");
const LATE: Party = Party("late");

/// How a command ended.
struct Outcome {
    stdout: String,
    stderr: String,
    success: bool,
}

impl Story {
    async fn tell(&self) -> Result<()> {
        let begun = Instant::now();
        self.say(
            "Bank Corp has a ledger that listens on its own loopback only. Analysis Corp shall read it.",
        );
        self.say("Neither opens a port to the other. What lies between them can read nothing.\n");
        let service = service()?;
        let ledger = service.to_string();

        self.step("A project: an authority that knows the members, and a relay, in one process");
        let hub = free_port()?;
        self.run(HUB, &["project", "create", "--tcp-listener-address", &hub])
            .await?;

        self.step("Two one-time tickets, each with what its holder may do");
        let bank_ticket = self
            .run(
                HUB,
                &["project", "ticket", "--attribute", "ledger", "--relay", "ledger"],
            )
            .await?;
        let analysis_ticket = self
            .run(HUB, &["project", "ticket", "--attribute", "analyst"])
            .await?;

        self.step("Bank Corp: enroll, and let analysts reach the ledger through a relay");
        self.run(BANK, &["project", "enroll", &bank_ticket]).await?;
        self.run(BANK, &["node", "create", "bank"]).await?;
        self.run(BANK, &["relay", "create", "ledger"]).await?;
        self.run(
            BANK,
            &[
                "policy",
                "create",
                "--resource-type",
                "tcp-outlet",
                "--allow",
                "analyst",
            ],
        )
        .await?;
        self.run(BANK, &["tcp-outlet", "create", "--to", &ledger]).await?;

        self.step("Analysis Corp: enroll, and put the ledger on its own localhost");
        self.run(ANALYSIS, &["project", "enroll", &analysis_ticket])
            .await?;
        self.run(ANALYSIS, &["node", "create", "analysis"]).await?;
        self.run(
            ANALYSIS,
            &[
                "policy",
                "create",
                "--resource-type",
                "tcp-inlet",
                "--allow",
                "ledger",
            ],
        )
        .await?;
        let inlet = self
            .run(
                ANALYSIS,
                &["tcp-inlet", "create", "--from", "127.0.0.1:0", "--via", "ledger"],
            )
            .await?;

        self.step("Analysis Corp reads the ledger at its localhost");
        for account in ["alice", "bob"] {
            let answer = off_thread({
                let inlet = inlet.clone();
                move || ask(&inlet, account)
            })
            .await?;
            self.quote(&format!("$ curl http://{inlet}/balance/{account}\n{answer}"));
            if !answer.contains(account) {
                return Err(Error::failed(format!(
                    "the ledger answered something else: {answer}"
                )));
            }
        }

        self.step("A member without the attribute is refused");
        let ticket = self
            .run(HUB, &["project", "ticket", "--attribute", "visitor"])
            .await?;
        self.run(STRANGER, &["project", "enroll", &ticket]).await?;
        self.run(STRANGER, &["node", "create", "stranger"]).await?;
        let create = [
            "tcp-inlet",
            "create",
            "door",
            "--from",
            "127.0.0.1:0",
            "--via",
            "ledger",
        ];
        let door = self.run(STRANGER, &create).await?;
        match off_thread(move || ask(&door, "alice")).await {
            Ok(answer) => {
                return Err(Error::failed(format!(
                    "a member without the attribute got an answer: {answer}"
                )));
            }
            Err(error) => self.quote(&format!("$ curl http://…/balance/alice\n{}", error.message)),
        }
        let shown = self
            .quietly(STRANGER, &["tcp-inlet", "show", "door", "--output", "json"])
            .await?;
        let reason = serde_json::from_str::<serde_json::Value>(&shown.stdout)
            .ok()
            .and_then(|inlet| inlet["last_failure"].as_str().map(str::to_owned));
        if let Some(reason) = reason {
            self.quote(&format!("$ portolan tcp-inlet show door\nlast failure: {reason}"));
        }

        self.step("A ticket that was used is refused");
        let again = self
            .quietly(LATE, &["project", "enroll", &analysis_ticket])
            .await?;
        self.quote(&format!(
            "$ portolan project enroll {}\n{}",
            shorten(&analysis_ticket),
            again.stderr.trim()
        ));
        if again.success {
            return Err(Error::failed("a used ticket was accepted"));
        }

        self.step(
            "How fast it is here, end to end encrypted through the relay, all processes on this machine",
        );
        let measured = {
            let inlet = inlet.clone();
            off_thread(move || measure(&inlet)).await?
        };
        self.quote(&format!(
            "round trip   {:.0} µs (median of {ROUND_TRIPS}; 99 % below {:.0} µs)\n\
             throughput   {:.2} Gbit/s towards the ledger, {:.2} Gbit/s from it",
            measured.median, measured.p99, measured.up, measured.down
        ));

        self.clean_up().await;
        self.say(&format!(
            "\nAll of it worked, in {:.1} s; the nodes are stopped and their homes are removed.",
            begun.elapsed().as_secs_f32()
        ));
        self.say("README.md shows the same on two machines.");
        Ok(())
    }

    /// Runs a command of the story and shows it; its result is what it prints to stdout.
    async fn run(&self, party: Party, arguments: &[&str]) -> Result<String> {
        let shown: Vec<String> = arguments
            .iter()
            .map(|argument| quote(&shorten(argument)))
            .collect();
        self.prompt(party, &format!("portolan {}", shown.join(" ")));
        let outcome = self.quietly(party, arguments).await?;
        self.quote(outcome.stderr.trim());
        if outcome.success {
            Ok(outcome.stdout.trim().to_owned())
        } else {
            let command = arguments.iter().take(2).copied().collect::<Vec<_>>().join(" ");
            Err(
                Error::failed(format!("`portolan {command}` failed at {}", party.0))
                    .hint("run `portolan demo --keep` and look at the logs in the folder that it names"),
            )
        }
    }

    async fn quietly(&self, party: Party, arguments: &[&str]) -> Result<Outcome> {
        let mut command = Command::new(&self.exe);
        command
            .args(arguments)
            .env("PORTOLAN_HOME", self.home(party))
            .env("NO_COLOR", "true")
            .env_remove("ENROLLMENT_TICKET")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let failed = |error: io::Error| Error::failed(format!("cannot run {}: {error}", self.exe.display()));
        let output = tokio::time::timeout(COMMAND_TIMEOUT, command.output())
            .await
            .map_err(|_| Error::timeout(format!("`portolan {}` took too long", arguments.join(" "))))?
            .map_err(failed)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Outcome {
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            success: output.status.success(),
        })
    }

    fn home(&self, party: Party) -> PathBuf {
        self.folder.join(party.0)
    }

    /// Stops every node, whatever state the story is in.
    async fn clean_up(&self) {
        for party in [STRANGER, ANALYSIS, BANK, LATE, HUB] {
            if self.home(party).exists() {
                let _ = self.quietly(party, &["reset", "--yes"]).await;
                remove(&self.home(party));
            }
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn say(&self, text: &str) {
        // A reader that went away is no reason to leave nodes behind.
        let _ = writeln!(io::stdout().lock(), "{text}");
    }

    fn step(&self, title: &str) {
        self.say(&format!("\n{}", self.paint("1;36", title)));
    }

    fn prompt(&self, party: Party, command: &str) {
        self.say(&format!(
            "  {} {command}",
            self.paint("2", &format!("{:>8} $", party.0))
        ));
    }

    fn quote(&self, text: &str) {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            self.say(&format!("             {line}"));
        }
    }
}

/// Whether stdout takes colour.
pub(crate) fn stdout_takes_color() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn remove(path: &Path) {
    let _ = std::fs::remove_dir_all(path);
}

/// Tickets are long, and secret until they are used.
fn shorten(argument: &str) -> String {
    if argument.len() > 80 {
        format!("{}…", &argument[..12])
    } else {
        argument.to_owned()
    }
}

fn quote(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=…".contains(c);
    if argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{argument}'")
    }
}

fn free_port() -> Result<String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.to_string())
        .map_err(|error| Error::failed(format!("cannot find a free port on loopback: {error}")))
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::failed(format!("a measurement did not finish: {error}"))))
}

/// Bank Corp's ledger: answers `GET /balance/NAME`, and three words for measurements.
fn service() -> Result<std::net::SocketAddr> {
    let failed = |error: io::Error| Error::failed(format!("cannot start the demo's own service: {error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // A client that went away ends its thread.
                let _ = serve(stream);
            });
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Byte by byte: what follows the line belongs to the stream, and must not end in a buffer.
    let mut line = Vec::new();
    while line.len() < 1024 && !line.ends_with(b"\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&line);
    let mut buffer = vec![0; 256 * 1024];
    match line.trim_end() {
        "ECHO" => loop {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            stream.write_all(&buffer[..count])?;
        },
        "SINK" => while stream.read(&mut buffer)? > 0 {},
        "SOURCE" => loop {
            stream.write_all(&buffer)?;
        },
        request => {
            // The rest of the request must be read: closing a socket with unread bytes resets the connection.
            let mut tail = [0; 4];
            while tail != *b"\r\n\r\n" {
                tail.rotate_left(1);
                stream.read_exact(&mut tail[3..])?;
            }
            let account = request
                .strip_prefix("GET /balance/")
                .and_then(|rest| rest.split(' ').next())
                .unwrap_or("?");
            let body = format!(
                "{{\"account\":\"{account}\",\"balance\":{}}}\n",
                1000 + account.len() * 137
            );
            let length = body.len();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            stream.write_all(format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes())?;
        }
    }
    Ok(())
}

fn connect(inlet: &str) -> Result<TcpStream> {
    let refused = |error: io::Error| Error::unreachable(format!("the connection was closed: {error}"));
    let stream = TcpStream::connect(inlet).map_err(refused)?;
    stream.set_nodelay(true).map_err(refused)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(refused)?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(refused)?;
    Ok(stream)
}

fn ask(inlet: &str, account: &str) -> Result<String> {
    let lost = |error: io::Error| Error::unreachable(format!("the connection was closed: {error}"));
    let mut stream = connect(inlet)?;
    stream
        .write_all(format!("GET /balance/{account} HTTP/1.1\r\nhost: ledger\r\n\r\n").as_bytes())
        .map_err(lost)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(lost)?;
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.trim().to_owned()),
        None => Err(Error::unreachable("the connection was closed without an answer")),
    }
}

struct Measured {
    median: f64,
    p99: f64,
    up: f64,
    down: f64,
}

fn measure(inlet: &str) -> Result<Measured> {
    let lost = |error: io::Error| Error::unreachable(format!("the connection was closed: {error}"));
    let begin = |word: &[u8]| -> Result<TcpStream> {
        let mut stream = connect(inlet)?;
        stream.write_all(word).map_err(lost)?;
        Ok(stream)
    };
    let mut echo = begin(b"ECHO\n")?;
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    let mut word = [7; 32];
    // The first ones warm the path up.
    for i in 0..ROUND_TRIPS + 50 {
        let since = Instant::now();
        echo.write_all(&word).map_err(lost)?;
        echo.read_exact(&mut word).map_err(lost)?;
        if i >= 50 {
            times.push(since.elapsed().as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);

    let mut buffer = vec![0; 256 * 1024];
    let rate = |bytes: u64, since: Instant| bytes as f64 * 8.0 / since.elapsed().as_secs_f64() / 1e9;
    let mut sink = begin(b"SINK\n")?;
    let (since, mut bytes) = (Instant::now(), 0);
    while since.elapsed() < MEASURED {
        sink.write_all(&buffer).map_err(lost)?;
        bytes += buffer.len() as u64;
    }
    let up = rate(bytes, since);
    drop(sink);
    let mut source = begin(b"SOURCE\n")?;
    let (since, mut bytes) = (Instant::now(), 0);
    while since.elapsed() < MEASURED {
        bytes += source.read(&mut buffer).map_err(lost)? as u64;
    }
    let down = rate(bytes, since);
    Ok(Measured {
        median: times[ROUND_TRIPS / 2],
        p99: times[ROUND_TRIPS * 99 / 100],
        up,
        down,
    })
}

//! The product's libraries in a process of their own, driven line by line (see `peer/`).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// No command of a test takes longer.
const LIMIT: Duration = Duration::from_secs(120);

/// A running peer; it ends when this is dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Its identifier, as text.
    pub identifier: String,
    /// Its change history, in hexadecimal.
    pub history: String,
}

/// A binary of the product: `variable`, else the one that `run` builds.
pub fn binary(variable: &str, name: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(
        || {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../target/debug")
                .join(name)
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "{} does not exist: use tests/interop/run",
        path.display()
    );
    path
}

impl Peer {
    /// Starts one.
    pub async fn start() -> Self {
        let mut child = Command::new(binary("PORTOLAN_INTEROP_PEER", "portolan-interop-peer"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the peer can be started");
        let commands = child.stdin.take().expect("it has an input");
        let answers = BufReader::new(child.stdout.take().expect("it has an output")).lines();
        let mut peer = Self {
            child,
            commands,
            answers,
            identifier: String::new(),
            history: String::new(),
        };
        let identity = peer.ok(json!({ "do": "identity" })).await;
        peer.remember(&identity);
        peer
    }

    fn remember(&mut self, identity: &Value) {
        self.identifier = string(identity, "identifier");
        self.history = string(identity, "history");
    }

    /// Runs a command; its answer, or the text of its error.
    pub async fn call(&mut self, command: Value) -> Result<Value, String> {
        let line = format!("{command}\n");
        let answer = timeout(LIMIT, async {
            self.commands.write_all(line.as_bytes()).await.ok()?;
            self.answers.next_line().await.ok()?
        });
        let answer = answer.await.unwrap_or_else(|_| panic!("no answer to {command}"));
        let answer = answer.unwrap_or_else(|| panic!("the peer died of {command}"));
        let answer: Value = serde_json::from_str(&answer).expect("answers are JSON");
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer),
        }
    }

    /// Runs a command that has to succeed.
    #[track_caller]
    pub fn ok(&mut self, command: Value) -> impl Future<Output = Value> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            let shown = command.to_string();
            self.call(command)
                .await
                .unwrap_or_else(|error| panic!("{caller}: {shown}: {error}"))
        }
    }

    /// Listens on a free port: `host:port`.
    pub async fn listen(&mut self) -> String {
        string(&self.ok(json!({ "do": "listen" })).await, "address")
    }

    /// Connects: the first hop of routes to there.
    pub async fn connect(&mut self, to: &str) -> String {
        string(&self.ok(json!({ "do": "connect", "to": to })).await, "sender")
    }

    /// A new key for its identity.
    pub async fn rotate(&mut self) {
        let identity = self.ok(json!({ "do": "rotate" })).await;
        self.remember(&identity);
    }

    /// Opens a channel; the encryptor.
    #[track_caller]
    pub fn channel(&mut self, mut options: Value, route: &[&str]) -> impl Future<Output = String> + '_ {
        options["do"] = json!("channel");
        options["route"] = json!(route);
        let opened = self.ok(options);
        async move { string(&opened.await, "encryptor") }
    }

    /// Sends one message and gives the payload of the answer.
    pub async fn ask(&mut self, route: &[&str], payload: &[u8]) -> Result<Vec<u8>, String> {
        let command = json!({ "do": "ask", "route": route, "payload": hex::encode(payload) });
        let answer = self.call(command).await?;
        Ok(hex::decode(string(&answer, "payload")).expect("payloads are hexadecimal"))
    }

    /// As [`Peer::ask`], where no answer is expected within a second and a half.
    pub async fn hears_nothing(&mut self, route: &[&str], payload: &[u8]) -> bool {
        let command = json!({ "do": "ask", "route": route, "payload": hex::encode(payload), "within": 1500 });
        self.call(command).await.is_err()
    }

    /// The payloads that reached its `inbox`, with the peer that sent each.
    pub async fn inbox(&mut self) -> Vec<(Vec<u8>, Option<String>)> {
        let answer = self.ok(json!({ "do": "inbox" })).await;
        let messages = answer["messages"].as_array().cloned().unwrap_or_default();
        messages
            .iter()
            .map(|message| {
                let payload = hex::decode(string(message, "payload")).expect("payloads are hexadecimal");
                (payload, message["peer"].as_str().map(str::to_owned))
            })
            .collect()
    }

    /// Ends the process at once.
    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }
}

/// A text field that has to be there.
#[track_caller]
pub fn string(value: &Value, key: &str) -> String {
    match value[key].as_str() {
        Some(text) => text.to_owned(),
        None => panic!("no {key} in {value}"),
    }
}

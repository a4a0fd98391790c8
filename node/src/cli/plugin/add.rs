//! `portolan plugin add`, also as a part of the configuration file.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::manage::{card_of, described};
use crate::cli::context::Context;
use crate::cli::output::Answer;
use crate::cli::values;
use crate::control::api::{AddPlugin, PluginLimits, PluginStatus, path};
use crate::control::client::NodeClient;
use crate::error::{Error, Result};

/// Compiling a large plugin (one with a JavaScript engine in it) takes its time the first time.
const ADD_LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Add {
    /// A WebAssembly component, or a module that `cargo build --target wasm32-unknown-unknown` wrote. The node keeps a copy.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What it is called here.
    #[arg(long, value_name = "NAME", value_parser = values::plain)]
    name: String,
    /// A right that it gets: reply, send:ADDRESS, from:local, from:peers, from:anyone, storage. Can be repeated. Default: of those
    /// that it asks for reply, from:local and storage; with --replace, those that it had.
    #[arg(long, value_name = "RIGHT")]
    grant: Vec<String>,
    /// Every right that it asks for.
    #[arg(long, conflicts_with = "grant")]
    grant_all: bool,
    /// The right send:ADDRESS beside those; a `*` at the end stands for any rest. Can be repeated.
    #[arg(long, value_name = "ADDRESS")]
    allow_send: Vec<String>,
    /// The right from:WHOM beside those: local, peers or anyone. Can be repeated.
    #[arg(long, value_name = "WHOM")]
    allow_from: Vec<String>,
    /// What the file must be, as `sha256sum FILE` prints it.
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    /// Memory of each instance, in MiB. Default: 64.
    #[arg(long, value_name = "MIB")]
    max_memory: Option<u32>,
    /// How long it may compute for one message; as an interceptor, for one piece of a connection. Default: 1s; 100ms.
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    max_time: Option<Duration>,
    /// Messages that may wait for it. Default: 256.
    #[arg(long, value_name = "COUNT")]
    max_waiting: Option<u32>,
    /// Log lines for each second. Default: 10.
    #[arg(long, value_name = "COUNT")]
    max_log_lines: Option<u32>,
    /// What it may keep in the node's state, in KiB. Default: 1024.
    #[arg(long, value_name = "KIB")]
    max_storage: Option<u32>,
    /// Put it in the place of the plugin of that name: its workers finish their message and go over, and no message is lost.
    #[arg(long)]
    replace: bool,
    /// The node. Default: the default node, made if there is none.
    #[arg(long, value_name = "NODE", value_parser = values::node)]
    at: Option<String>,
}

impl Add {
    /// What it is called here.
    pub(in crate::cli) fn name(&self) -> &str {
        &self.name
    }

    /// The node that holds it; `None` is the default one.
    pub(in crate::cli) fn node(&mut self) -> &mut Option<String> {
        &mut self.at
    }

    /// Relative to this folder instead of the present one.
    pub(in crate::cli) fn relative_to(&mut self, folder: &std::path::Path) {
        self.file = folder.join(&self.file);
    }

    /// Whether there is such a file. What is in it, the node says.
    pub(in crate::cli) fn check(&self) -> Result<()> {
        self.absolute().map(|_| ())
    }

    fn absolute(&self) -> Result<String> {
        let fail = |error: &dyn std::fmt::Display| {
            Error::invalid(format!(
                "the plugin's file {} cannot be read: {error}",
                self.file.display()
            ))
        };
        let path = self.file.canonicalize().map_err(|error| fail(&error))?;
        // Who opens a pipe that nobody writes to waits for ever.
        if !path.is_file() {
            return Err(fail(&"it is no regular file"));
        }
        std::fs::File::open(&path).map_err(|error| fail(&error))?;
        path.into_os_string()
            .into_string()
            .map_err(|_| fail(&"its path is not UTF-8"))
    }

    /// Make it.
    pub(in crate::cli) async fn make(self, context: &Context) -> Result<(PluginStatus, NodeClient)> {
        let file = self.absolute()?;
        let sends = self.allow_send.iter().map(|to| format!("send:{to}"));
        let also = sends.chain(self.allow_from.iter().map(|whom| format!("from:{whom}")));
        let also = also.collect();
        let client = context.node(self.at.as_deref()).await?.with_timeout(ADD_LIMIT);
        let request = AddPlugin {
            name: self.name,
            file,
            digest: self.digest,
            grant: (!self.grant.is_empty()).then_some(self.grant),
            also,
            grant_all: self.grant_all,
            limits: PluginLimits {
                memory_mib: self.max_memory,
                time_ms: self
                    .max_time
                    .map(|time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX)),
                waiting: self.max_waiting,
                log_lines: self.max_log_lines,
                storage_kib: self.max_storage,
            },
            replace: self.replace,
        };
        let status: PluginStatus = client.post(path::PLUGINS, &request).await?;
        context.terminal.done(format!(
            "The node `{}` has the plugin `{}`.",
            client.name(),
            status.plugin.name
        ));
        if !status.not_granted.is_empty() {
            // What is granted in this way is all that it has.
            let all = status.plugin.rights.iter().chain(&status.not_granted);
            let all: String = all.map(|right| format!(" --grant '{right}'")).collect();
            context.terminal.note(format!(
                "It asks for rights that it does not have: {}. To grant them, add it again with --replace and --grant-all, or with those of \
                 these that it shall have:{all}",
                status.not_granted.join(", ")
            ));
        }
        Ok((status, client))
    }

    pub(super) async fn run(self, context: &Context) -> Result<()> {
        let (status, client) = self.make(context).await?;
        let json = json!(described(&status, client.name()));
        context
            .terminal
            .answer(&Answer::new(card_of(&status, client.name()), json).machine(status.plugin.name))
    }
}

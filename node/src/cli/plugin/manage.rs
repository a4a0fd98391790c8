//! `portolan plugin list`, `show` and `remove`.

use serde_json::{Value, json};

use crate::cli::context::Context;
use crate::cli::output::{Answer, card, table};
use crate::control::api::{PluginStatus, PluginVerdict, item, path};
use crate::error::Result;

fn verdict(verdict: PluginVerdict) -> &'static str {
    match verdict {
        PluginVerdict::Intact => "intact",
        PluginVerdict::Changed => "changed: it will not be loaded; add the plugin again",
        PluginVerdict::Missing => "missing: it will not be loaded; add the plugin again",
    }
}

/// A plugin for people.
pub(super) fn card_of(status: &PluginStatus, node: &str) -> String {
    let plugin = &status.plugin;
    let list = |texts: &[String]| {
        if texts.is_empty() {
            "none".to_owned()
        } else {
            texts.join(", ")
        }
    };
    let limits = &plugin.limits;
    let said = [
        limits.memory_mib.map(|mib| format!("memory {mib} MiB")),
        limits.time_ms.map(|ms| format!("time {ms} ms")),
        limits.waiting.map(|count| format!("waiting {count}")),
        limits.log_lines.map(|count| format!("log lines {count}")),
        limits.storage_kib.map(|kib| format!("storage {kib} KiB")),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    card(&[
        ("Plugin", plugin.name.clone()),
        ("Node", node.to_owned()),
        (
            "What it is",
            format!("{} {}: {}", plugin.title, plugin.version, plugin.description),
        ),
        ("Kind", plugin.kind.clone()),
        ("Interface", format!("portolan:worker@{}", plugin.interface)),
        ("Digest", format!("sha256:{}", plugin.digest)),
        ("Came from", plugin.file.clone()),
        ("Copy", verdict(status.verdict).to_owned()),
        ("Asks for", list(&plugin.wants)),
        ("May", list(&plugin.rights)),
        (
            "Limits",
            if said.is_empty() {
                "the usual ones".to_owned()
            } else {
                format!("{}; else the usual ones", said.join(", "))
            },
        ),
        if plugin.kind == "interceptor" {
            ("Intercepts", list(&status.intercepts))
        } else {
            ("Run by", list(&status.workers))
        },
    ])
}

/// A plugin for programs.
pub(super) fn described(status: &PluginStatus, node: &str) -> Value {
    let mut json = json!(status);
    json["node_name"] = json!(node);
    json
}

pub(super) async fn list(context: &Context, at: Option<&str>) -> Result<()> {
    let plugins: Vec<PluginStatus> = match context.existing_node(at)? {
        Some(client) => client.get(path::PLUGINS).await?,
        None => Vec::new(),
    };
    let rows: Vec<Vec<String>> = plugins
        .iter()
        .map(|status| {
            vec![
                status.plugin.name.clone(),
                status.plugin.kind.clone(),
                status.plugin.version.clone(),
                status.plugin.digest.chars().take(12).collect(),
                status.plugin.rights.join(", "),
                status.workers.join(", "),
            ]
        })
        .collect();
    let plain = if rows.is_empty() {
        "There is no plugin. Add one: portolan plugin add FILE --name NAME".to_owned()
    } else {
        table(&["NAME", "KIND", "VERSION", "DIGEST", "MAY", "RUN BY"], &rows)
    };
    context.terminal.answer(&Answer::new(plain, json!(plugins)))
}

pub(super) async fn show(context: &Context, name: &str, at: Option<&str>) -> Result<()> {
    let client = context.some_node(at)?;
    let status: PluginStatus = client.get(&item(path::PLUGINS, name)).await?;
    let json = described(&status, client.name());
    context
        .terminal
        .answer(&Answer::new(card_of(&status, client.name()), json))
}

pub(super) async fn remove(context: &Context, name: &str, at: Option<&str>) -> Result<()> {
    let client = context.some_node(at)?;
    client.delete(&item(path::PLUGINS, name)).await?;
    context.terminal.done(format!("The plugin `{name}` was removed."));
    context.terminal.answer(&Answer::new(
        format!("Removed: {name}"),
        json!({ "name": name, "node": client.name() }),
    ))
}

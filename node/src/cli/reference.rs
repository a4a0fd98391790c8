//! `portolan markdown`: the reference of all commands, made from the parser, so that it cannot disagree with it.

use clap::{Arg, Command, CommandFactory};

use super::Cli;
use super::housekeeping::{ENVIRONMENT, exit_codes_text};
use super::output::Terminal;
use crate::error::Result;

/// Prints `docs/commands.md`.
#[derive(Debug, clap::Args)]
pub(super) struct Markdown {}

impl Markdown {
    pub(super) fn run(self, terminal: &Terminal) -> Result<()> {
        terminal.raw(text().as_bytes())
    }
}

const HEAD: &str = "\
# Commands

Made by `portolan markdown` from the parser; a test compares. Do not edit by hand.

Results go to stdout, everything else to stderr. On a terminal a result is text for people. In a pipe it is the shortest
useful text without a line end (a name, an address, a ticket), so that `x=$(portolan …)` works; where there is no such text,
and with `--output json`, it is JSON. `--output plain` is the text for people in any case.

Value types

| type | what it is |
|---|---|
| `NODE` | `n1` or `/node/n1` |
| `HOST:PORT` | a name or address and a port; a port alone is one of 127.0.0.1; IPv6 in brackets |
| `DURATION` | whole numbers with `d`, `h`, `m`, `s`, `ms`, larger ones first: `1h30m`; a number alone is seconds |
| `ROUTE` | `/project/default/service/forward_to_db/secure/api/service/outlet`; a segment `-` is read from stdin |
| `IDENTIFIER` | `I` and 64 hexadecimal digits |
| `POLICY` | `postgres-inlet`, `role=client and not suspended`, or `(= subject.role \"client\")`; see policies.md |
";

fn text() -> String {
    let mut root = Cli::command();
    root.build();
    let mut out = String::from(HEAD);
    out.push_str("\n## Flags of every command\n\n| flag | meaning |\n|---|---|\n");
    for argument in root
        .get_arguments()
        .filter(|argument| argument.is_global_set() && !argument.is_hide_set())
    {
        row(&mut out, argument);
    }
    for command in root.get_subcommands() {
        section(&mut out, "", command);
    }
    out.push_str("\n## Exit codes\n\n```text\n");
    out.push_str(
        exit_codes_text()
            .split_once("\n\n")
            .map_or("", |(_, table)| table),
    );
    out.push_str("```\n\n## Environment variables\n\n| name | default | meaning |\n|---|---|---|\n");
    for (name, default, meaning) in ENVIRONMENT {
        out.push_str(&format!("| `{name}` | {default} | {meaning} |\n"));
    }
    out
}

fn section(out: &mut String, parents: &str, command: &Command) {
    let name = command.get_name();
    if command.is_hide_set() || name == "help" || name == "exit-codes" {
        return;
    }
    let path = format!("{parents}{name}");
    let about = command
        .get_long_about()
        .or(command.get_about())
        .map(ToString::to_string)
        .unwrap_or_default();
    let level = if parents.is_empty() { "##" } else { "###" };
    out.push_str(&format!("\n{level} {path}\n\n{}\n", about.trim()));
    if command.has_subcommands() {
        for child in command.get_subcommands() {
            section(out, &format!("{path} "), child);
        }
        return;
    }
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| {
            !argument.is_global_set()
                && !argument.is_hide_set()
                && !matches!(argument.get_id().as_str(), "help" | "version")
        })
        .collect();
    if !own.is_empty() {
        out.push_str("\n| argument | meaning |\n|---|---|\n");
        for argument in own {
            row(out, argument);
        }
    }
}

fn row(out: &mut String, argument: &Arg) {
    let values = argument
        .get_value_names()
        .filter(|_| argument.get_action().takes_values())
        .map(|names| {
            names
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        });
    let mut shown = Vec::new();
    if argument.is_positional() {
        let name = values.clone().unwrap_or_default();
        shown.push(if argument.is_required_set() {
            name
        } else {
            format!("[{name}]")
        });
    } else {
        let value = values.map(|value| format!(" {value}")).unwrap_or_default();
        if let Some(short) = argument.get_short() {
            shown.push(format!("-{short}"));
        }
        let long = argument.get_long().map(|long| format!("--{long}{value}"));
        shown.extend(long);
        for alias in argument.get_visible_aliases().unwrap_or_default() {
            shown.push(format!("--{alias}"));
        }
    }
    let mut meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    if !defaults.is_empty() && argument.get_action().takes_values() && !argument.is_hide_default_value_set() {
        meaning.push_str(&format!(" Default: `{}`.", defaults.join(" ")));
    }
    if let Some(variable) = argument.get_env() {
        meaning.push_str(&format!(" Environment: `{}`.", variable.to_string_lossy()));
    }
    let shown = shown
        .iter()
        .map(|name| format!("`{}`", name.replace('|', "\\|")))
        .collect::<Vec<_>>()
        .join(", ");
    out.push_str(&format!(
        "| {shown} | {} |\n",
        meaning.replace('|', "\\|").replace('\n', " ")
    ));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_written_reference_is_the_one_that_the_parser_gives() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/commands.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == super::text(),
            "docs/commands.md is out of date: run `portolan markdown > docs/commands.md`"
        );
    }
}

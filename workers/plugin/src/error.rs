//! What can go wrong with a plugin, in sentences that its owner can act on.

use crate::digest::Digest;

/// What can go wrong with a plugin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// The file cannot be read.
    #[error("the plugin's file {path} cannot be read: {reason}; add the plugin again from where it is now")]
    Unreadable {
        /// Which file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// The bytes are no WebAssembly.
    #[error("this is no WebAssembly component: {0}")]
    NotAComponent(String),
    /// A component, but none that the compiler takes.
    #[error("the component cannot be compiled: {0}")]
    Invalid(String),
    /// It was made for another version of the interface.
    #[error(
        "the plugin was built for version {found} of the interface portolan:worker, and this node takes {}; build it \
         again with the worker.wit of this node (`portolan plugin new` writes it)",
        crate::component::SUPPORTED
    )]
    Version {
        /// The version that it names.
        found: String,
    },
    /// It is not of the kind that is asked for.
    #[error("the plugin is {found}, and {wanted} is needed here")]
    Kind {
        /// What it is.
        found: crate::Kind,
        /// What it should be.
        wanted: crate::Kind,
    },
    /// It imports what a plugin does not get.
    #[error("the plugin asks for {0}, which no plugin gets: a node offers `portolan:worker` and nothing else{1}", .import, hint(.import))]
    Import {
        /// The import.
        import: String,
    },
    /// What it exports is not what the interface says.
    #[error(
        "the plugin does not fit the interface portolan:worker@{version}: {0}",
        version = crate::component::VERSION
    )]
    Interface(String),
    /// The file is not what was pinned.
    #[error(
        "the plugin's digest is {found}, and {pinned} is pinned: the file was changed. If that was you, pin the new digest"
    )]
    Digest {
        /// What was pinned.
        pinned: Digest,
        /// What the file has.
        found: Digest,
    },
    /// A right that is no right.
    #[error(
        "`{0}` is no right of a plugin: say `reply`, `storage`, `from:local`, `from:peers`, `from:anyone` or `send:ADDRESS`, where a `*` may end the address"
    )]
    Right(String),
    /// The plugin does not take its configuration.
    #[error("the plugin rejects its configuration: {0}")]
    Rejected(String),
    /// The plugin broke down.
    #[error("the plugin failed in `{function}`: {reason}")]
    Failed {
        /// The exported function that was called.
        function: &'static str,
        /// Why it did not return.
        reason: String,
    },
    /// The interceptors of the node have all the memory that they may have together.
    #[error("{0}")]
    Memory(String),
    /// The interceptor has failed before.
    #[error("the interceptor has ended: {0}")]
    Ended(String),
    /// The worker is not there any more.
    #[error("the plugin's worker has stopped")]
    Stopped,
    /// What its state was kept in does not work.
    #[error("the plugin's storage cannot be read: {0}")]
    Storage(String),
    /// The node could not start a worker.
    #[error("the plugin's worker could not be started: {0}")]
    Node(String),
    /// The compiler could not be set up.
    #[error("plugins cannot be run here: {0}")]
    Engine(String),
}

fn hint(import: &str) -> &'static str {
    if import.starts_with("wasi:") {
        ". Build it without WASI: Rust for wasm32-unknown-unknown, componentize-js with all features disabled, componentize-py with --stub-wasi"
    } else {
        ""
    }
}

/// The reason that wasmtime gives, on one line, with the first functions of the plugin that were running.
pub(crate) fn reason_of(error: &wasmtime::Error) -> String {
    let mut text = one_line(&error.root_cause().to_string(), 512);
    if let Some(backtrace) = error.downcast_ref::<wasmtime::WasmBacktrace>() {
        let names: Vec<_> = backtrace
            .frames()
            .iter()
            .filter_map(|frame| frame.func_name())
            .take(4)
            .map(|name| one_line(name, 120))
            .collect();
        if !names.is_empty() {
            text.push_str(" (in ");
            text.push_str(&names.join(" < "));
            text.push(')');
        }
    }
    text
}

/// Whether a character does something to a text instead of standing in it: moves the cursor, turns the direction, cannot be seen.
pub(crate) fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

/// A text of a plugin's as it may stand in a log: without characters that do something to it, cut at `limit` bytes.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::with_capacity(text.len().min(limit));
    for c in text.chars() {
        if line.len() + c.len_utf8() > limit {
            line.push('…');
            break;
        }
        if is_unseen(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_one_line_that_reads_as_it_is() {
        assert_eq!(one_line("a\nb\u{1b}[2K", 99), "a\\nb\\u{1b}[2K");
        assert_eq!(
            one_line("send:\u{202e}tidua\u{200b}", 99),
            "send:\\u{202e}tidua\\u{200b}"
        );
        assert_eq!(one_line("ümläut ✓ 日本", 99), "ümläut ✓ 日本");
        assert_eq!(one_line("abcdef", 3), "abc…");
    }
}

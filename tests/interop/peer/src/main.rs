//! The product's libraries as a process that a test drives.
//!
//! The interoperability tests run the reference in their own process. The product's libraries cannot be linked into the
//! same program (both pin versions of the same packages that exclude each other), so they live here: one JSON object per
//! line on standard input is a command, one per line on standard output its answer, in the same order. `{"error": text}` is
//! an answer too. The process ends with its standard input.
//!
//! | command | what it does |
//! |---|---|
//! | `identity`, `rotate`, `issue` | who this peer is; a new key for it; a credential about somebody |
//! | `listen`, `connect`, `disconnect` | TCP |
//! | `accept`, `channel`, `close`, `closed`, `info` | secure channels |
//! | `ask`, `send`, `storm`, `inbox` | messages: one with its answer, one without, many numbered ones with their echoes |
//! | `attributes` | what an authority said of a peer, as this peer learned it |
//! | `relays`, `register`, `lost` | relays: their service, and a registration |
//! | `outlet`, `inlet` | the ends of a portal |
//! | `initiate`, `respond` | a channel with something in the extension carriers of its handshake |

mod carriers;
mod commands;
mod inbox;
mod party;

use std::io::{BufRead, Write};

use party::Party;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut party = Party::new()?;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str::<Value>(&line?) {
            Ok(command) => runtime
                .block_on(commands::run(&mut party, &command))
                .unwrap_or_else(|error| json!({ "error": error.to_string() })),
            Err(error) => json!({ "error": format!("not a command: {error}") }),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    runtime.block_on(party.node.stop());
    Ok(())
}

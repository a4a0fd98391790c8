//! A relay: how a node that nobody can connect to is reached all the same.
//!
//! The relay node runs where everybody can reach it. The target, which accepts no connection, opens one to the relay
//! node and registers a name there. Whoever sends to `forward_to_<name>` has the message carried down that connection.
//!
//! In three terminals:
//!
//! ```text
//! cargo run --example 07-relay
//! cargo run --example 07-relay-target
//! cargo run --example 07-relay-sender
//!
//!   sender ══ TCP ══▶ relay ◀══ TCP ══ target
//! ```
//!
//! Argument: where to listen (127.0.0.1:4007).
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;
use std::sync::Arc;

use portolan::relay::{AllowEverybody, RelayService, RelayServiceOptions};
use portolan::runtime::Node;
use portolan::tcp::{TcpOptions, TcpTransport};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4007".into());

    let node = Node::new()?;
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let listener = tcp.listen(&address).await?;

    // In a project it is the credential of a peer that says which name it may have. Here everybody may have any.
    let options = RelayServiceOptions {
        reachable_from: vec![Arc::clone(listener.flow())],
        ..RelayServiceOptions::default()
    };
    RelayService::start(&node, AllowEverybody, options)?;
    println!("listening on {}; end with Ctrl-C", listener.local());

    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}

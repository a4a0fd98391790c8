//! A node without a listener that registers the relay `blue`.
//!
//! While `07-relay` runs:
//!
//! ```text
//! cargo run --example 07-relay-target
//! ```
//!
//! Argument: where the relay node is (127.0.0.1:4007).
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;

use portolan::relay::{RegisterOptions, RelayName, RelayRequest, register};
use portolan::runtime::{Node, services::Echo};
use portolan::tcp::{TcpOptions, TcpTransport};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let relay_node = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4007".into());

    let node = Node::new()?;
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let connection = tcp.connect(&relay_node).await?;

    let blue = RelayRequest::Named(RelayName::new("blue")?);
    let relay = register(&node, connection.sender(), blue, RegisterOptions::default()).await?;

    // What comes through the relay comes out of our connection to the relay node: it reaches what we say, nothing else.
    node.start_sync_worker("echo", Echo)?;
    node.add_consumer(relay.flow(), &"echo".into());
    println!("reachable as {}; end with Ctrl-C", relay.remote_address());

    tokio::select! {
        reason = relay.lost() => println!("the relay is gone: {reason}"),
        end = tokio::signal::ctrl_c() => end?,
    }
    node.stop().await;
    Ok(())
}

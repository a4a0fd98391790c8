//! Reaches the target of `07-relay-target` through its relay.
//!
//! While `07-relay` and `07-relay-target` run:
//!
//! ```text
//! cargo run --example 07-relay-sender
//! ```
//!
//! Argument: where the relay node is (127.0.0.1:4007).
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;

use portolan::runtime::{Node, route};
use portolan::tcp::{TcpOptions, TcpTransport};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let relay_node = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4007".into());

    let node = Node::new()?;
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let connection = tcp.connect(&relay_node).await?;

    let answer = node
        .send_and_receive::<String, String>(
            route![connection.sender(), "forward_to_blue", "echo"],
            "hello through a relay".into(),
        )
        .await?;
    println!("echo answered: {}", answer.into_body()?);

    // The relay has read every word of this. The next lesson is about that.
    node.stop().await;
    Ok(())
}

//! Reaches a node that it has no connection to, over the bridge of `06-bridge`.
//!
//! While `05-tcp-responder` and `06-bridge` run:
//!
//! ```text
//! cargo run --example 06-bridge-initiator
//! ```
//!
//! Argument: where the bridge is (127.0.0.1:4006).
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;

use portolan::runtime::{Node, route};
use portolan::tcp::{TcpOptions, TcpTransport};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let bridge = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4006".into());

    let node = Node::new()?;
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let connection = tcp.connect(&bridge).await?;

    let answer = node
        .send_and_receive::<String, String>(
            route![connection.sender(), "bridge", "echo"],
            "hello over two connections".into(),
        )
        .await?;
    println!("echo answered: {}", answer.body()?);
    println!("the way back, as this node sees it: {:?}", answer.return_route());

    node.stop().await;
    Ok(())
}

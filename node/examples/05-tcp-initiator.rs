//! TCP, the side that connects.
//!
//! A connection is a worker like others. Its address stands in routes: what is sent to it arrives in the other node,
//! at the hop behind it.
//!
//! While `05-tcp-responder` runs:
//!
//! ```text
//! cargo run --example 05-tcp-initiator
//!
//!   app ──▶ connection ══ TCP ══▶ echo
//! ```
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;
use std::time::Duration;

use portolan::runtime::{Node, route};
use portolan::tcp::{TcpOptions, TcpTransport};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4005".into());

    let node = Node::new()?;
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let connection = tcp.connect(&address).await?;
    println!("connected to {}", connection.peer());

    let answer = node
        .send_and_receive::<String, String>(route![connection.sender(), "echo"], "hello over TCP".into())
        .await?;
    println!("echo answered: {}", answer.into_body()?);

    // The other node has a worker `diary`, too, but no message from a network reaches it.
    let silence = node
        .context("app")?
        .send_and_receive_within::<String, String>(
            Duration::from_secs(1),
            route![connection.sender(), "diary"],
            "let me in".into(),
        )
        .await;
    match silence {
        Err(error) => println!("diary does not answer: {error}"),
        Ok(_) => println!("diary answered, which should not happen"),
    }

    node.stop().await;
    Ok(())
}

//! A hop: a worker that passes messages on.
//!
//! A message carries two lists of addresses. The onward route says where it still has to go, the return route where an
//! answer goes. A hop takes itself off the first and puts itself in front of the second. Everything that follows, wires,
//! relays, encrypted channels, is a hop of some kind.
//!
//! ```text
//! cargo run --example 03-hop
//!
//!   app ──▶ hop ──▶ echo
//!   app ◀── hop ◀── echo
//! ```
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use portolan::runtime::services::Echo;
use portolan::runtime::{Context, Node, Payload, Result, Routed, Worker, route};

struct Hop;

impl Worker for Hop {
    // A hop does not care what it carries.
    type Message = Payload;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<Payload>) -> Result<()> {
        let mut message = message.into_message();
        println!("hop: onward {:?}, back {:?}", message.onward, message.back);
        if let Some(own) = message.onward.step() {
            message.back.prepend(own);
        }
        println!("  -> onward {:?}, back {:?}", message.onward, message.back);
        ctx.send_message(message).await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let node = Node::new()?;
    node.start_sync_worker("echo", Echo)?;
    node.start_worker("hop", Hop)?;

    let answer = node
        .send_and_receive::<String, String>(route!["hop", "echo"], "hello".into())
        .await?;
    println!(
        "the answer came back along {:?}: {}",
        answer.return_route(),
        answer.body()?
    );

    node.stop().await;
    Ok(())
}

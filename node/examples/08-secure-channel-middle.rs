//! The node in the middle: forwards what it cannot read.
//!
//! It has a hop, which shows what it gets to see, and a name for its connection to the responder. It knows nothing of
//! channels.
//!
//! While `08-secure-channel-responder` runs:
//!
//! ```text
//! cargo run --example 08-secure-channel-middle
//! ```
//!
//! Arguments: where to listen (127.0.0.1:4009), and where the responder is (127.0.0.1:4008).
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;

use portolan::runtime::services::Strip;
use portolan::runtime::{Context, Node, Payload, Result, Routed, Worker, route};
use portolan::tcp::{TcpOptions, TcpTransport};

/// A hop that looks into everything that passes.
struct Middle;

impl Worker for Middle {
    type Message = Payload;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<Payload>) -> Result<()> {
        let mut message = message.into_message();
        if let Some(own) = message.onward.step() {
            message.back.prepend(own);
        }
        let seen = String::from_utf8_lossy(message.payload.as_slice()).contains("secret");
        println!(
            "{} bytes pass; \"secret\" can be read: {seen}",
            message.payload.len()
        );
        ctx.send_message(message).await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:4009".into());
    let responder = arguments.next().unwrap_or_else(|| "127.0.0.1:4008".into());

    let node = Node::new()?;
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let onward = tcp.connect(&responder).await?;
    node.start_worker("middle", Middle)?;
    // A connection's address is made by chance. This worker stands for it under a name that others can know, and leaves
    // no trace on the way back.
    let replacement = route![onward.sender()];
    node.start_sync_worker("responder", Strip { replacement })?;

    // Both connections lead to the hop, in either direction, and nowhere else.
    let listener = tcp.listen(&address).await?;
    node.add_consumer(listener.flow(), &"middle".into());
    node.add_consumer(onward.flow(), &"middle".into());
    println!("listening on {}; end with Ctrl-C", listener.local());

    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}

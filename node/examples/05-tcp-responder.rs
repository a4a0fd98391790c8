//! TCP, the side that listens.
//!
//! A listener lets other nodes connect. Nothing of this node can be reached through it until it is said: `echo` is made
//! a *consumer* of what the listener's connections bring, `diary` is not.
//!
//! In one terminal:
//!
//! ```text
//! cargo run --example 05-tcp-responder
//! ```
//!
//! and in another `cargo run --example 05-tcp-initiator`. Another address than 127.0.0.1:4005 can be given to both.
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;

use portolan::runtime::services::Echo;
use portolan::runtime::{Context, Node, Result, Routed, Worker};
use portolan::tcp::{TcpOptions, TcpTransport};

/// Nobody outside can write into it.
struct Diary;

impl Worker for Diary {
    type Message = String;

    async fn handle_message(&mut self, _: &mut Context, message: Routed<String>) -> Result<()> {
        println!("dear diary: {}", message.body()?);
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4005".into());

    let node = Node::new()?;
    node.start_sync_worker("echo", Echo)?;
    node.start_worker("diary", Diary)?;

    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let listener = tcp.listen(&address).await?;
    node.add_consumer(listener.flow(), &"echo".into());
    println!("listening on {}; end with Ctrl-C", listener.local());

    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}

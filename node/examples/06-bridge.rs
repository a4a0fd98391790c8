//! A bridge: two transport hops, and a worker of your own between them.
//!
//! The node in the middle listens, and holds a connection to the responder. Its worker sends on what arrives.
//!
//! In three terminals:
//!
//! ```text
//! cargo run --example 05-tcp-responder
//! cargo run --example 06-bridge
//! cargo run --example 06-bridge-initiator
//!
//!   initiator ══ TCP ══▶ bridge ══ TCP ══▶ responder
//! ```
//!
//! Arguments: where to listen (127.0.0.1:4006), and where the responder is (127.0.0.1:4005).
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;

use portolan::runtime::{Context, Node, Payload, Result, Routed, Worker};
use portolan::tcp::{TcpConnection, TcpOptions, TcpTransport};

struct Bridge {
    onward: TcpConnection,
}

impl Worker for Bridge {
    type Message = Payload;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<Payload>) -> Result<()> {
        let mut message = message.into_message();
        // The connection takes this worker's place in the route.
        message.onward.step();
        message.onward.prepend(self.onward.sender().clone());
        // The answer will come out of the connection to the responder and has to go into the one that the question came
        // through. Flow control forbids that, until it is said.
        if let Some(asker) = message.back.next() {
            ctx.node().add_consumer(self.onward.flow(), asker);
        }
        println!("a message goes on along {:?}", message.onward);
        ctx.send_message(message).await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:4006".into());
    let responder = arguments.next().unwrap_or_else(|| "127.0.0.1:4005".into());

    let node = Node::new()?;
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let onward = tcp.connect(&responder).await?;
    node.start_worker("bridge", Bridge { onward })?;

    let listener = tcp.listen(&address).await?;
    node.add_consumer(listener.flow(), &"bridge".into());
    println!("listening on {}; end with Ctrl-C", listener.local());

    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}

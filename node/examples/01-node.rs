//! A node: the smallest program.
//!
//! A node is a place in a process where workers live, each at an address of its own. This one starts a worker that
//! comes with Portolan, asks it something and stops.
//!
//! ```text
//! cargo run --example 01-node
//! ```
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use portolan::runtime::services::Uppercase;
use portolan::runtime::{Node, Result};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // The node brings its own threads; from here on it runs beside this function.
    let node = Node::new()?;

    node.start_sync_worker("uppercase", Uppercase)?;
    println!("workers of this node: {:?}", node.workers());

    let answer = node
        .send_and_receive::<String, String>("uppercase", "hello, node".into())
        .await?;
    println!("uppercase answered: {}", answer.into_body()?);

    // Every worker ends, then the threads do.
    node.stop().await;
    println!("stopped");
    Ok(())
}

//! Many hops: routes are as long as they need to be.
//!
//! No hop knows more than its next one, and none needs to be told anything: the sender writes the whole way into the
//! message.
//!
//! ```text
//! cargo run --example 04-many-hops
//!
//!   app ──▶ h1 ──▶ h2 ──▶ h3 ──▶ echo
//! ```
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::time::Instant;

use portolan::runtime::services::{Echo, Hop};
use portolan::runtime::{Node, Result, Route, route};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let node = Node::new()?;
    node.start_sync_worker("echo", Echo)?;
    for hop in ["h1", "h2", "h3"] {
        // The hop of the last lesson, as it comes with Portolan. It is a `SyncWorker`: one that never waits.
        node.start_sync_worker(hop, Hop)?;
    }

    let answer = node
        .send_and_receive::<String, String>(route!["h1", "h2", "h3", "echo"], "hello".into())
        .await?;
    println!(
        "over three hops: {}, back along {:?}",
        answer.body()?,
        answer.return_route()
    );

    // A route is a value. This one visits the same three hops three times.
    let mut far = Route::new();
    for _ in 0..3 {
        far.extend(&route!["h1", "h2", "h3"]);
    }
    far.push("echo".into());
    let hops = far.len() - 1;
    let begun = Instant::now();
    let answer = node
        .send_and_receive::<String, String>(far, "hello again".into())
        .await?;
    println!(
        "over {hops} hops and back in {:?}: {}",
        begun.elapsed(),
        answer.body()?
    );

    node.stop().await;
    Ok(())
}

//! A worker of your own.
//!
//! A worker says which type its messages have, and handles one at a time. What it keeps in its fields belongs to it
//! alone: no lock is needed. The answer goes to the return route of the message, wherever the question came from.
//!
//! ```text
//! cargo run --example 02-worker
//! ```
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use portolan::runtime::{
    AccessControl, Context, Error, Node, Result, Routed, SendError, Worker, WorkerOptions,
};

/// Answers each text with the same text, and counts.
struct Echoer {
    count: u32,
}

impl Worker for Echoer {
    type Message = String;

    async fn initialize(&mut self, ctx: &mut Context) -> Result<()> {
        println!("{} is ready", ctx.address());
        Ok(())
    }

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<String>) -> Result<()> {
        self.count += 1;
        let text = format!("{}: {}", self.count, message.body()?);
        ctx.send(message.return_route().clone(), text).await
    }

    async fn shutdown(&mut self, ctx: &mut Context) -> Result<()> {
        println!("{} ends after {} messages", ctx.address(), self.count);
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let node = Node::new()?;
    node.start_worker("echoer", Echoer { count: 0 })?;

    // A context is a mailbox without a worker: this function sends from it and receives with it.
    let mut app = node.context("app")?;
    for word in ["one", "two", "three"] {
        app.send("echoer", word.to_owned()).await?;
        let answer = app.receive::<String>().await?;
        println!(
            "{} received {:?} along {}",
            app.address(),
            answer.body()?,
            answer.return_route()
        );
    }

    // Who may send to a worker can be said where it is started. A refusal is an error, not a silence.
    let shy = WorkerOptions::new("shy").incoming(AccessControl::only("friend"));
    node.start_worker(shy, Echoer { count: 0 })?;
    match app.send("shy", "hello".to_owned()).await {
        Err(Error::Send(SendError::Refused(refusal))) => println!("refused, as it should be: {refusal}"),
        other => println!("this should have been refused: {other:?}"),
    }

    drop(app);
    node.stop().await;
    Ok(())
}

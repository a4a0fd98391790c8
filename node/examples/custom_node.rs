//! A node with a worker type of your own: the whole command line, and `greeter` beside what every node has.
//!
//! ```text
//! cargo run --example custom_node
//! ```
//! shows all commands; among them are these, with `cargo run --example custom_node --` in front:
//!
//! ```text
//! node create n1
//! worker start greeter --address hello --config '{"greeting": "Good morning"}'
//! message send World --from n1 --to /service/hello
//! worker show hello
//! worker stop hello
//! node delete n1 --yes
//! ```

use portolan::runtime::{Context, Result, Routed, Worker};

#[derive(serde::Deserialize)]
struct Greeter {
    greeting: String,
}

impl Worker for Greeter {
    type Message = String;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<String>) -> Result<()> {
        let answer = format!("{}, {}!", self.greeting, message.body()?);
        ctx.send(message.return_route().clone(), answer).await
    }
}

fn main() -> std::process::ExitCode {
    portolan::App::new()
        .worker_type(
            "greeter",
            "Greets whoever writes to it.",
            |greeter: Greeter, place| place.start(greeter),
        )
        .run()
}

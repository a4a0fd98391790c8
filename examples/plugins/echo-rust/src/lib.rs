//! A plugin for Portolan: a worker that answers every message with the message itself.

use exports::portolan::worker::handler::{Guest, Info, Message};
use portolan::worker::host::{Level, log};
use portolan::worker::node;

wit_bindgen::generate!({ world: "worker", path: "wit" });

struct Plugin;

impl Guest for Plugin {
    /// What `portolan plugin add` shows. Whatever else the worker does needs a right in `wants`; wit/worker.wit has the list.
    fn describe() -> Info {
        Info {
            name: "echo-rust".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            description: "Answers every message with the message itself.".to_owned(),
            wants: ["reply", "from:local", "from:peers"].map(str::to_owned).to_vec(),
        }
    }

    /// An error refuses the configuration, and the worker is not started.
    fn start(config: String) -> Result<(), String> {
        check(&config)?;
        // What a panic says would be lost with the instance.
        std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
        log(Level::Info, &format!("ready at {}", node::own_address()));
        Ok(())
    }

    /// An error is logged and counted, and the next message comes. A panic restarts the plugin.
    fn handle(message: Message) -> Result<(), String> {
        node::send(&message.return_route, &message.body).map_err(|error| format!("no answer was sent: {error}"))
    }

    fn on_timer(_token: u32) -> Result<(), String> {
        Ok(())
    }

    fn stop() {}
}

export!(Plugin);

fn check(config: &str) -> Result<(), String> {
    match config.trim() {
        "" | "{}" => Ok(()),
        other => Err(format!("this plugin has nothing to configure, and got {other}")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_an_empty_configuration_is_taken() {
        assert_eq!(super::check(" {} "), Ok(()));
        assert!(super::check("{\"a\": 1}").is_err());
    }
}

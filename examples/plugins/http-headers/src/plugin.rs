//! What the node calls.

use std::cell::RefCell;

use exports::portolan::worker::interceptor_handler::{Connection, Direction, Guest, Info, Verdict};
use portolan::worker::host::{Level, log};

use crate::headers::Config;
use crate::requests::Requests;

wit_bindgen::generate!({ world: "interceptor", path: "../../../workers/plugin/wit" });

struct Plugin;

thread_local! {
    /// The requests of this connection. Each connection has an instance of the plugin of its own.
    static REQUESTS: RefCell<Option<Requests>> = const { RefCell::new(None) };
}

impl Guest for Plugin {
    fn describe() -> Info {
        Info {
            name: "http-headers".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            description: "Adds the authenticated peer and its attributes to each HTTP/1.1 request."
                .to_owned(),
            wants: Vec::new(),
        }
    }

    fn open(config: String, connection: Connection) -> Result<(), String> {
        let config = Config::parse(&config)?;
        let lines = config.lines(connection.peer.as_deref(), &connection.attributes)?;
        REQUESTS.set(Some(Requests::new(config.prefix(), lines)));
        Ok(())
    }

    fn data(direction: Direction, bytes: Vec<u8>) -> Verdict {
        if direction == Direction::ToClient {
            return Verdict::Pass;
        }
        let outcome = REQUESTS.with_borrow_mut(|requests| match requests {
            Some(requests) => {
                // The bytes of a body: nothing to look for, and nothing to copy.
                if requests.skip(bytes.len()) {
                    Ok(Verdict::Pass)
                } else {
                    requests.take(&bytes).map(Verdict::Replace)
                }
            }
            None => Err("the connection was not opened".to_owned()),
        });
        outcome.unwrap_or_else(|reason| {
            log(Level::Warn, &format!("the connection is ended: {reason}"));
            Verdict::End(reason)
        })
    }

    fn end(_direction: Direction) -> Vec<u8> {
        // What is held back is the beginning of a request without its end: no service can answer it.
        Vec::new()
    }

    fn close() {}
}

export!(Plugin);

//! A node with interceptors of your own: the whole command line, and two things to put before an inlet or an outlet.
//!
//! * `introduce` tells the service who comes: its first line has the peer's identifier and what the project says of it.
//! * `pass` changes nothing, and counts in the log what went through.
//!
//! ```text
//! cargo run --example intercepting_node
//! ```
//! shows all commands, with `--intercept` at those for inlets and outlets:
//!
//! ```text
//! tcp-outlet create --to 5432 --intercept introduce --intercept-config '{"attributes": ["role"]}'
//! ```

use portolan::portal::intercept::{
    ConnectionInfo, Direction, Ended, Filter, Inline, Intercept, Interceptor, Output,
};
use portolan::runtime::Payload;

#[derive(serde::Deserialize)]
struct Introduce {
    /// The attributes that the service gets to know.
    attributes: Vec<String>,
}

impl Intercept for Introduce {
    fn name(&self) -> &str {
        "introduce"
    }

    fn open(&self, connection: &ConnectionInfo) -> Result<Box<dyn Interceptor>, Ended> {
        let peer = connection
            .peer
            .ok_or_else(|| Ended::because("whoever comes must have an identity"))?;
        let mut line = format!("peer={peer}");
        for (name, value) in &connection.attributes {
            // A line break in a value would let its owner write further lines.
            if self.attributes.contains(name) && !value.contains(char::is_control) {
                line += &format!(" {name}={value}");
            }
        }
        Ok(Inline::boxed(Introduction(Some(line + "\n"))))
    }
}

/// The line that was not said yet.
struct Introduction(Option<String>);

impl Filter for Introduction {
    fn data(&mut self, direction: Direction, bytes: Payload, output: &mut Output) -> Result<(), Ended> {
        if direction == Direction::ToService
            && let Some(line) = self.0.take()
        {
            output.write(line.as_bytes());
        }
        output.push(bytes);
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Pass {}

impl Intercept for Pass {
    fn name(&self) -> &str {
        "pass"
    }

    fn open(&self, _: &ConnectionInfo) -> Result<Box<dyn Interceptor>, Ended> {
        Ok(Inline::boxed(Passing::default()))
    }
}

#[derive(Default)]
struct Passing {
    to_service: usize,
    to_client: usize,
}

impl Filter for Passing {
    fn data(&mut self, direction: Direction, bytes: Payload, output: &mut Output) -> Result<(), Ended> {
        match direction {
            Direction::ToService => self.to_service += bytes.len(),
            Direction::ToClient => self.to_client += bytes.len(),
        }
        output.push(bytes);
        Ok(())
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        tracing::info!(
            to_service = self.to_service,
            to_client = self.to_client,
            "a connection has passed"
        );
    }
}

fn main() -> std::process::ExitCode {
    portolan::App::new()
        .interceptor(
            "introduce",
            "Tells the service who comes.",
            |introduce: Introduce| Ok(introduce),
        )
        .interceptor("pass", "Changes nothing and counts.", |pass: Pass| Ok(pass))
        .run()
}

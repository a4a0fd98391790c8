//! The command `portolan`.

use std::process::ExitCode;

fn main() -> ExitCode {
    portolan::App::new().run()
}

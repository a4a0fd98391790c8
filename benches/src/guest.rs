//! Guests of the tests of plugins, as components.

use portolan_plugin::WIT;

use crate::chain::failed;
use crate::load::Failure;

/// A worker that sends each message back: the least that a plugin can do.
///
/// # Errors
/// When it cannot be made.
pub fn echo() -> Result<Vec<u8>, Failure> {
    made(
        include_str!("../../workers/plugin/tests/guests/echo.wat"),
        "worker",
    )
}

/// An interceptor that passes all bytes.
///
/// # Errors
/// When it cannot be made.
pub fn stream() -> Result<Vec<u8>, Failure> {
    made(
        include_str!("../../workers/plugin/tests/guests/stream.wat"),
        "interceptor",
    )
}

/// With the type of its component and what it says of itself.
fn made(wat: &str, world: &str) -> Result<Vec<u8>, Failure> {
    let end = wat
        .rfind(')')
        .ok_or_else(|| Failure("the guest is cut short".into()))?;
    // Name, version, description: one text. No rights are asked for.
    let info = r#"(data (i32.const 1024) "\40\04\00\00\04\00\00\00\40\04\00\00\04\00\00\00\40\04\00\00\04\00\00\00")
        (data (i32.const 1088) "echo"))"#;
    let mut module = wat::parse_str(format!("{}{info}", &wat[..end])).map_err(failed("the guest"))?;
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve
        .push_str("worker.wit", WIT)
        .map_err(failed("the interface"))?;
    let world = resolve.packages[package].worlds[world];
    wit_component::embed_component_metadata(
        &mut module,
        &resolve,
        world,
        wit_component::StringEncoding::UTF8,
    )
    .map_err(failed("the guest"))?;
    Ok(module)
}

//! Plugins that the pages load, made of text: a reader has them from a compiler.

use portolan::plugin::WIT;

/// A worker that sends each message back.
pub fn echo() -> Vec<u8> {
    let rights = r#"(data (i32.const 1056) "\60\04\00\00\05\00\00\00\70\04\00\00\0a\00\00\00")
        (data (i32.const 1120) "reply") (data (i32.const 1136) "from:local")"#;
    made(
        include_str!("../../workers/plugin/tests/guests/echo.wat"),
        "worker",
        (rights, 2),
    )
}

/// An interceptor that turns the bits of 0x55 in each byte when its configuration is `x`.
pub fn stream() -> Vec<u8> {
    made(
        include_str!("../../workers/plugin/tests/guests/stream.wat"),
        "interceptor",
        ("", 0),
    )
}

/// With the type of its component, what it says of itself, and the rights that it asks for: their texts and how many.
fn made(wat: &str, world: &str, (rights, count): (&str, u8)) -> Vec<u8> {
    let end = wat.rfind(')').expect("it ends");
    // Name, version and description are one text.
    let text = r"\40\04\00\00\05\00\00\00";
    let info = format!(
        r#"(data (i32.const 1024) "{text}{text}{text}\20\04\00\00\{count:02x}\00\00\00") (data (i32.const 1088) "guest") {rights})"#
    );
    let mut module = wat::parse_str(format!("{}{info}", &wat[..end])).expect("it is WebAssembly");
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("worker.wit", WIT).expect("it can be read");
    let world = resolve.packages[package].worlds[world];
    wit_component::embed_component_metadata(
        &mut module,
        &resolve,
        world,
        wit_component::StringEncoding::UTF8,
    )
    .expect("it fits");
    module
}

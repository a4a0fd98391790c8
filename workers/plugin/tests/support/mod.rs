//! Guests of the tests: core modules as text, which get the type of their component as those of authors do.

#![allow(dead_code)] // Each test file uses a part of it.

use portolan_plugin::{Engine, EngineOptions, Plugin, Rights, WIT};
use portolan_runtime::{Address, Context, Message, Node, Payload, Route};
use wit_component::StringEncoding;
use wit_parser::Resolve;

/// A core module that carries the type of its component: what `cargo build --target wasm32-unknown-unknown` writes.
pub(crate) fn module(wat: &str, wit: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("worker.wit", wit).unwrap();
    let world = resolve.packages[package].worlds[world];
    let mut module = wat::parse_str(wat).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}

/// The data segments of what a guest says of itself, at 1024.
fn description(name: &str, wants: &[&str]) -> String {
    let texts: Vec<&str> = [name, "1.2.3", "A guest of the tests."]
        .into_iter()
        .chain(wants.iter().copied())
        .collect();
    let bytes = |numbers: &[usize]| -> String {
        numbers
            .iter()
            .flat_map(|number| (*number as u32).to_le_bytes())
            .map(|byte| format!("\\{byte:02x}"))
            .collect()
    };
    // The record, the list of rights, then the texts one after the other.
    let (list, mut at) = (1056, 1056 + 8 * wants.len());
    let mut segments = String::new();
    let mut places = Vec::new();
    for text in texts {
        segments += &format!("(data (i32.const {at}) \"{text}\")\n");
        places.extend([at, text.len()]);
        at += text.len();
    }
    let (own, rights) = places.split_at(6);
    format!(
        "(data (i32.const 1024) \"{}{}\")\n(data (i32.const {list}) \"{}\")\n{segments}",
        bytes(own),
        bytes(&[list, wants.len()]),
        bytes(rights),
    )
}

/// The guest of a file, which asks for these rights.
pub(crate) fn guest(wat: &str, world: &str, wants: &[&str]) -> Vec<u8> {
    let end = wat.rfind(')').unwrap();
    let wat = format!("{}{})", &wat[..end], description("puppet", wants));
    module(&wat, WIT, world)
}

pub(crate) const PUPPET: &str = include_str!("../guests/puppet.wat");

/// The puppet as it comes out of a compiler.
pub(crate) fn puppet() -> Vec<u8> {
    guest(PUPPET, "worker", &["reply", "from:local"])
}

pub(crate) fn engine() -> Engine {
    Engine::new(EngineOptions::default()).unwrap()
}

pub(crate) fn load(bytes: &[u8]) -> Plugin {
    Plugin::load(&engine(), bytes).unwrap()
}

pub(crate) fn rights(texts: &[&str]) -> Rights {
    Rights::parse(texts).unwrap()
}

/// A mailbox to ask from.
pub(crate) fn asker(node: &Node, address: impl Into<Address>) -> Context {
    node.context(address.into()).unwrap()
}

/// Sends bytes and takes the next answer.
pub(crate) async fn ask(ctx: &mut Context, to: impl Into<Route>, body: &[u8]) -> Vec<u8> {
    tell(ctx, to, body).await;
    answer(ctx).await
}

pub(crate) async fn tell(ctx: &mut Context, to: impl Into<Route>, body: &[u8]) {
    let back = Route::from(ctx.address());
    ctx.send_message(Message::new(to, back, Payload::copy_from(body)))
        .await
        .unwrap();
}

pub(crate) async fn answer(ctx: &mut Context) -> Vec<u8> {
    ctx.next().await.unwrap().message.payload.to_vec()
}

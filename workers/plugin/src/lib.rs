//! Workers that are WebAssembly components: code that a node runs without trust in its author.
//!
//! A worker in Rust is part of its node: it is compiled with it, and trusted like it. A **plugin** is neither. It is a file, a component
//! that exports what a worker does and imports what a worker may ask of its node ([`WIT`]), and nothing else; it runs in a sandbox that
//! ends with its memory. So a node's owner can take it from somebody, grant it a few [rights](Rights), bound it by [`Limits`], and
//! replace it while messages flow.
//!
//! Its author reads `docs/plugins.md`; this page is for whoever builds a node that has plugins.
//!
//! ```no_run
//! use portolan_plugin::{Engine, EngineOptions, Plugin, PluginWorker, WorkerSettings};
//! use portolan_runtime::Node;
//!
//! # async fn example(node: &Node) -> Result<(), portolan_plugin::PluginError> {
//! // One engine for the process; compiled code is kept in a folder of the node's state.
//! let engine = Engine::new(EngineOptions { cache: Some("/var/lib/node/compiled".into()) })?;
//! // Blocks while it compiles: not on an arbiter.
//! let plugin = Plugin::load_file(&engine, "audit.wasm".as_ref(), None)?;
//! println!("{} asks for: {}", plugin.info().name, plugin.info().wants);
//! let settings = WorkerSettings::new("audit")
//!     .config(r#"{"level":"info"}"#)
//!     .rights(plugin.info().wants.clone());
//! let worker = PluginWorker::start(node, &plugin, settings).await?;
//! println!("{:?}", worker.status());
//! # Ok(())
//! # }
//! ```
//!
//! # From a file to a worker
//!
//! [`Plugin::load`] makes a component of a core module if need be ([`componentize`]), compiles it, looks whether it fits the interface,
//! and asks it what it is ([`Info`]). [`PluginWorker::start`] makes an instance of it at an address; [`PluginWorker::replace`] puts
//! another plugin in its place. [`Interceptors`] makes one for each connection of a portal.
//!
//! # What holds a plugin
//!
//! * It computes on arbiters that [stand aside](portolan_runtime::Placement::Aside), in turns of 2 ms, and not longer for one
//!   message than [`Limits::time`].
//! * What it sends is checked against its [rights](Rights), then by flow control and access control as every worker's.
//! * When it fails, the next instance is started after a while, longer each time. Messages wait meanwhile, up to
//!   [`Limits::queue`]; whoever sends more does not wait longer than [`Limits::patience`].
//!
//! # What a node brings
//!
//! A folder for compiled code ([`EngineOptions::cache`]), a place for keys and values ([`Storage`]), and what authorities say of peers
//! ([`PeerAttributes`]). What it has to remember for a restart is the file, its digest, configuration and rights.

mod address;
mod component;
mod digest;
mod engine;
mod error;
mod host;
mod instance;
mod interceptor;
mod limits;
mod log;
mod memory;
mod plugin;
mod rights;
mod shape;
mod status;
mod storage;
mod turn;
mod worker;

pub use component::{Kind, MAX_FILE, VERSION, componentize};
pub use digest::{Digest, NotADigest};
pub use engine::{Engine, EngineOptions, MAX_HANDED_OVER};
pub use error::PluginError;
pub use host::PeerAttributes;
pub use instance::{Direction, Side, Verdict};
pub use interceptor::{Connection, Interceptor, InterceptorStatus, Interceptors};
pub use limits::{Limits, MAX_KEY, MAX_LOG_TEXT, MAX_RANDOM, MAX_VALUE};
pub use memory::{INTERCEPTOR_MEMORY, SharedMemory};
pub use plugin::{Info, Plugin};
pub use rights::{Pattern, Right, Rights};
pub use status::{State, Status};
pub use storage::{MemoryStorage, Storage};
pub use worker::{PluginWorker, WorkerSettings};

/// The interface between a plugin and the node, in WIT: what authors generate their bindings from.
pub const WIT: &str = include_str!("../wit/worker.wit");

#[cfg(test)]
mod tests {
    use wit_parser::Resolve;

    #[test]
    fn the_interface_is_valid_and_has_a_world_for_each_kind_of_plugin() {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("worker.wit", super::WIT).unwrap();
        let worlds: Vec<_> = resolve.packages[package].worlds.keys().cloned().collect();
        assert_eq!(worlds, ["worker", "interceptor"]);
        assert_eq!(
            resolve.packages[package].name.to_string(),
            format!("portolan:worker@{}", super::VERSION)
        );
    }
}

//! Workers that are WebAssembly components: code that a node runs without trust in its author.

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
mod plugin;
mod rights;
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

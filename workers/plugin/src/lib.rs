//! Workers that are WebAssembly components: code that a node runs without trust in its author.

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
    }
}

//! Workers that are WebAssembly components: code that a node runs without trust in its author.

//! The keys and values of a plugin worker, in the node's database.

use std::sync::Weak;

use portolan_plugin::Storage;

use crate::engine::running::Running;

/// Those of the worker at one address. They go when the worker is stopped by its owner.
pub(super) struct Kept {
    pub(super) node: Weak<Running>,
    pub(super) worker: String,
}

impl Kept {
    fn with<T>(
        &self,
        body: impl FnOnce(&crate::state::NodeDatabase) -> crate::Result<T>,
    ) -> Result<T, String> {
        let node = self.node.upgrade().ok_or("the node stops")?;
        body(node.node.database()).map_err(|error| error.message)
    }
}

impl Storage for Kept {
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, String> {
        self.with(|database| database.worker_values(&self.worker))
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.with(|database| database.put_worker_value(&self.worker, key, value))
    }

    fn remove(&self, key: &str) -> Result<(), String> {
        self.with(|database| database.delete_worker_value(&self.worker, key))
    }
}

//! The small key-value store of a plugin.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits::{Limits, MAX_KEY, MAX_VALUE};

/// Where the keys and values of one plugin worker are kept, for instance a table in the state of the node.
///
/// The worker reads all of it once, when it starts, and has a copy in memory from then on; each change is written before the plugin
/// is told that it is done. It is called on the threads of plugins, and may block for the time of a write.
pub trait Storage: Send + Sync + 'static {
    /// All keys and values.
    ///
    /// # Errors
    /// A text for the owner.
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, String>;

    /// Sets a key.
    ///
    /// # Errors
    /// A text for the plugin.
    fn put(&self, key: &str, value: &[u8]) -> Result<(), String>;

    /// Removes a key; no error if there is none.
    ///
    /// # Errors
    /// A text for the plugin.
    fn remove(&self, key: &str) -> Result<(), String>;
}

/// A storage in memory: it survives restarts of the plugin, and ends with the last clone.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    entries: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStorage").finish_non_exhaustive()
    }
}

impl Storage for MemoryStorage {
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, String> {
        Ok(self.entries.lock().clone().into_iter().collect())
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.entries.lock().insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn remove(&self, key: &str) -> Result<(), String> {
        self.entries.lock().remove(key);
        Ok(())
    }
}

/// What the plugin sees: bounded, and as large as it was told to be.
pub(crate) struct Bounded {
    kept: Arc<dyn Storage>,
    entries: BTreeMap<String, Vec<u8>>,
    bytes: usize,
    max_keys: usize,
    max_bytes: usize,
}

impl Bounded {
    pub(crate) fn load(kept: Arc<dyn Storage>, limits: &Limits) -> Result<Self, String> {
        let entries: BTreeMap<_, _> = kept.load()?.into_iter().collect();
        let bytes = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        Ok(Self {
            kept,
            entries,
            bytes,
            max_keys: limits.storage_keys,
            max_bytes: limits.storage_bytes,
        })
    }

    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.entries.get(key).cloned()
    }

    pub(crate) fn set(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        if key.len() > MAX_KEY {
            return Err(format!(
                "the key has {} bytes, and {MAX_KEY} is the limit",
                key.len()
            ));
        }
        if value.len() > MAX_VALUE {
            return Err(format!(
                "the value has {} bytes, and {MAX_VALUE} is the limit",
                value.len()
            ));
        }
        let known = self.entries.get(key);
        // Written for nothing, it would only wear the disk.
        if known.is_some_and(|known| known == value) {
            return Ok(());
        }
        let before = known.map(|value| key.len() + value.len());
        if before.is_none() && self.entries.len() >= self.max_keys {
            return Err(format!(
                "there are {} keys already, which is the limit",
                self.entries.len()
            ));
        }
        let bytes = self.bytes - before.unwrap_or(0) + key.len() + value.len();
        // Less than before is always right: the limit may have been lowered.
        if bytes > self.max_bytes && bytes > self.bytes {
            return Err(format!(
                "the storage would have {bytes} bytes, and {} is the limit",
                self.max_bytes
            ));
        }
        self.kept.put(key, value)?;
        self.entries.insert(key.to_owned(), value.to_owned());
        self.bytes = bytes;
        Ok(())
    }

    pub(crate) fn remove(&mut self, key: &str) -> Result<(), String> {
        if self.entries.contains_key(key) {
            self.kept.remove(key)?;
            if let Some(value) = self.entries.remove(key) {
                self.bytes -= key.len() + value.len();
            }
        }
        Ok(())
    }

    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        self.entries
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounded(kept: &MemoryStorage) -> Bounded {
        let limits = Limits {
            storage_keys: 3,
            storage_bytes: 20,
            ..Limits::default()
        };
        Bounded::load(Arc::new(kept.clone()), &limits).unwrap()
    }

    #[test]
    fn keys_and_bytes_are_bounded_and_what_was_refused_changes_nothing() {
        let kept = MemoryStorage::default();
        let mut store = bounded(&kept);
        store.set("a", &[0; 9]).unwrap();
        assert!(store.set("b", &[0; 10]).unwrap_err().contains("20 is the limit"));
        store.set("b", &[0; 9]).unwrap();
        assert!(store.set("a", &[0; 10]).is_err());
        store.set("a", b"").unwrap();
        store.set("c", b"").unwrap();
        assert!(store.set("d", b"").unwrap_err().contains("3 keys"));
        store.remove("b").unwrap();
        store.remove("b").unwrap();
        store.set("d", &[1; 9]).unwrap();
        assert!(store.set(&"k".repeat(257), b"").is_err());
        assert!(store.set("k", &vec![0; MAX_VALUE + 1]).is_err());
        assert_eq!(store.keys(""), ["a", "c", "d"]);
        assert_eq!(bounded(&kept).get("d"), Some(vec![1; 9]));
        assert_eq!(bounded(&kept).bytes, store.bytes);
    }

    #[test]
    fn keys_are_listed_by_prefix() {
        let kept = MemoryStorage::default();
        let mut store = bounded(&kept);
        for key in ["ab", "aa", "b"] {
            store.set(key, b"").unwrap();
        }
        assert_eq!(store.keys("a"), ["aa", "ab"]);
        assert!(store.keys("c").is_empty());
    }
}

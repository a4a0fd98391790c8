//! What inlets send before they know the address of their connection at the outlet.
//!
//! It comes to the outlet's own address, right behind the Ping, and is passed on to the connection that the Ping has made. The
//! connection is found by the channel that the message came out of, which nobody can forge, and by the address that the inlet
//! wants to be answered at.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_runtime::Address;

/// The channel, and the inlet's address of the connection.
type Key = (Address, Address);

/// The connections of an outlet whose inlets may not know their address yet.
#[derive(Debug, Default)]
pub(crate) struct Early(Mutex<HashMap<Key, Address>>);

impl Early {
    /// Where a message goes that came out of this channel, to be answered at `inlet`.
    pub(crate) fn find(&self, channel: &Address, inlet: &Address) -> Option<Address> {
        // A look-up by reference would need a key of its own; this copies two short addresses, for the first messages
        // of a connection only.
        self.0.lock().get(&(channel.clone(), inlet.clone())).cloned()
    }

    /// Passes messages on to `connection` as long as the result lives.
    pub(crate) fn enter(self: &Arc<Self>, channel: Address, inlet: Address, connection: Address) -> Entry {
        let key = (channel, inlet);
        self.0.lock().insert(key.clone(), connection.clone());
        Entry {
            early: Arc::clone(self),
            key,
            connection,
        }
    }
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Entry {
    early: Arc<Early>,
    key: Key,
    connection: Address,
}

impl Entry {
    /// The channel that the messages come out of.
    pub(crate) fn channel(&self) -> &Address {
        &self.key.0
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut entries = self.early.0.lock();
        // An inlet that asks twice under one address has made it the second one's.
        if entries.get(&self.key) == Some(&self.connection) {
            entries.remove(&self.key);
        }
        if entries.is_empty() {
            *entries = HashMap::new();
        }
    }
}

//! What a node remembers of others: the histories of identities, and what authorities said of them.
//!
//! Both are traits, with a bounded implementation in memory. A node that must remember across restarts puts its database
//! behind the same traits; reads of attributes are on the path of messages and must be answered from memory.

mod attribute;
mod identity;

pub use attribute::{AttributeRepository, MemoryAttributeRepository, PeerAttributes, PutOutcome};
pub use identity::{IdentityRepository, MemoryIdentityRepository, verify_received};

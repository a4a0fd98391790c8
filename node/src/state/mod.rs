//! What a node and its owner know from one run to the next.
//!
//! The **home** (`PORTOLAN_HOME`, default `~/.portolan`, mode 0700) holds one database for vaults, identities, projects,
//! credentials and defaults, and a folder for each node:
//!
//! ```text
//! ~/.portolan/
//!   home.sqlite3          vaults, identities, projects, credentials, defaults
//!   nodes/<name>/
//!     node.sqlite3        what the node should be: identity, project, relays, policies, inlets, outlets, workers
//!     authority.sqlite3   members and tickets (project nodes only)
//!     control.sock        the control interface, while it runs
//!     lock                held by the running process: this, not a process id, says that the node runs
//!     node.log            what a background node writes
//! ```
//!
//! Every file is 0600. The home's database is opened for one short transaction and closed again, so that any number of
//! commands and nodes can work on one home; a node's database belongs to whoever holds its lock.
//!
//! | module | idea |
//! |---|---|
//! | `home` | where the home is; nodes by name |
//! | `database` | opening SQLite so that two processes, a full disk or a newer version end in a clear answer |
//! | `records` | rows of the home's database |
//! | `vaults` | secret keys in the home's database |
//! | `rotation` | new keys for identities, by command and when they are due |
//! | `node` | a node's folder, its lock, its database |
//! | `spec` | what is stored |
//! | `names` | which names are allowed, and how to make one up |

mod database;
mod home;
mod names;
mod node;
mod records;
mod rotation;
mod spec;
mod vaults;

pub use database::StateError;
#[cfg(feature = "plugins")]
pub(crate) use database::create_private_folder;
pub use home::{Home, HomeKey};
pub use names::{check_alias, check_node_name, check_plain_name, check_project_name, closest, random_name};
pub use node::{NodeDatabase, NodeFolder, OpenNode};
pub use records::{CredentialRecord, HomeDatabase, IdentityRecord, VaultRecord};
pub use rotation::{
    IDENTITY_KEY_ROTATION, PURPOSE_KEY_ROTATION, RETIRED_KEY_GRACE, Rotated, RotationSchedule,
    SHORTEST_IDENTITY_KEY_ROTATION, SHORTEST_PURPOSE_KEY_ROTATION,
};
pub use spec::{
    InletSpec, NodeRole, NodeSpec, OutletSpec, PluginSpec, PolicySpec, Project, ProjectNodeSpec, RelaySpec,
    WorkerSpec,
};
pub use vaults::{IdentitySource, OwnIdentity, now};

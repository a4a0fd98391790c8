//! The guide in `docs/library/`, page by page. Nothing is here but the pages and the plugins that they load: their programs are compiled
//! and run as they stand by `cargo test --doc -p portolan-guide`.

pub mod guests;

#[doc = include_str!("README.md")]
pub mod start {}
#[doc = include_str!("01-node.md")]
pub mod node {}
#[doc = include_str!("02-worker.md")]
pub mod worker {}
#[doc = include_str!("03-routing.md")]
pub mod routing {}
#[doc = include_str!("04-transports.md")]
pub mod transports {}
#[doc = include_str!("05-relays.md")]
pub mod relays {}
#[doc = include_str!("06-identities.md")]
pub mod identities {}
#[doc = include_str!("07-secure-channels.md")]
pub mod secure_channels {}
#[doc = include_str!("08-credentials.md")]
pub mod credentials {}
#[doc = include_str!("09-portals.md")]
pub mod portals {}
#[doc = include_str!("10-writing-a-worker.md")]
pub mod writing_a_worker {}
#[doc = include_str!("11-writing-a-transport.md")]
pub mod writing_a_transport {}
#[doc = include_str!("12-testing-a-worker.md")]
pub mod testing_a_worker {}
#[doc = include_str!("commands.md")]
pub mod commands {}

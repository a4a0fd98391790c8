//! The actor-model message-routing runtime of Portolan.
//!
//! A **node** is a process, or a part of one, full of small actors with addresses: **workers**. A **message** carries
//! the route that it still has to travel and the route back. Each worker on the way takes itself off the first and,
//! if answers shall come through it, puts itself in front of the second. Nobody needs to know more than the next hop,
//! and because a hop may be a connection to another node, or the encrypting end of a secure channel, the same two
//! lists lead across processes, through relays and into encrypted tunnels.
//!
//! ```
//! use portolan_runtime::{Context, Node, Result, Routed, Worker};
//!
//! struct Echoer;
//!
//! impl Worker for Echoer {
//!     type Message = String;
//!
//!     async fn handle_message(&mut self, ctx: &mut Context, message: Routed<String>) -> Result<()> {
//!         ctx.send(message.return_route().clone(), message.into_body()?).await
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! let node = Node::new()?;
//! node.start_worker("echoer", Echoer)?;
//! let asker = node.clone();
//! let answer = node.block_on(move || async move {
//!     asker.send_and_receive::<String, String>("echoer", "hello".into()).await?.into_body().map_err(Into::into)
//! })?;
//! assert_eq!(answer.map_err(|error: portolan_runtime::Error| error.to_string()), Ok("hello".to_owned()));
//! node.stop_blocking();
//! # Ok(())
//! # }
//! ```
//!
//! # What decides whether a message arrives
//!
//! 1. Somebody must be at its next hop.
//! 2. [Flow control](flow): what came from outside reaches only addresses that were made consumers of that connection
//!    or channel. Nothing is one by default.
//! 3. [Access control](access): the sender's rule for what goes out and the receiver's for what comes in.
//!
//! All three are checked in one place, for every delivery, without allocation. A refusal is counted, logged at a
//! limited rate, and returned to the sender as an error, so that a byte stream can be closed instead of getting a hole.
//!
//! # When a worker runs
//!
//! A [`Passage`] runs when something is sent to it, inside the send. A worker with a mailbox that gets a message from another one
//! on its own thread runs as soon as that one returns; the event loop is not asked. One can be both, with
//! [`Context::set_passage`]: the encryptor and the decryptor of a secure channel are. So a message that came in by a socket is on its
//! way out of the node before that thread looks at anything else.
//!
//! # What is bounded
//!
//! Mailboxes ([`Capacity`]; records of channels, which must keep their order, may be one more from each sender), routes ([`MAX_HOPS`]), addresses ([`MAX_ADDRESS_LENGTH`]), log lines about refusals. A
//! full mailbox loses nothing: its senders wait. Whoever hands on what others have sent waits later, where there is room for that
//! ([`TRANSIT_ROOM`], [`TRANSIT_MEMORY`]).
//!
//! # Modules
//!
//! * [`address`], [`mod@route`], [`message`], [`payload`]: what moves, and between whom.
//! * [`bare`], [`body`], [`wire`]: how it looks in bytes.
//! * [`access`], [`flow`]: who may send to whom.
//! * [`worker`], [`context`], [`node`]: how workers are written, what they can do, where they run.
//! * [`environment`]: chance and the time of day.
//! * [`services`]: echo, uppercase, hop.

pub mod access;
pub mod address;
pub mod bare;
pub mod body;
mod cell;
pub mod context;
pub mod environment;
pub mod error;
pub mod flow;
mod mailbox;
pub mod message;
pub mod node;
pub mod payload;
pub mod route;
mod router;
mod run;
pub mod services;
mod stock;
mod turn;
pub mod wire;
pub mod worker;

pub use access::{AccessControl, AccessRule, Delivery};
pub use address::{Address, MAX_ADDRESS_LENGTH};
pub use body::{Body, Cbor, DecodeError};
pub use cell::Stage;
pub use context::Context;
pub use error::{Denial, Error, Refusal, RefusedDelivery, Result, SendError};
pub use flow::{Flow, FlowId};
pub use mailbox::{Capacity, TRANSIT_COST, TRANSIT_MEMORY, TRANSIT_ROOM};
pub use message::{Envelope, LocalInfo, Message, Peer, PeerIdentifier, Routed};
pub use node::{Node, NodeBuilder};
pub use payload::{Payload, Sealing};
pub use route::{MAX_HOPS, Route};
pub use router::Refusals;
pub use worker::{MailboxOptions, Passage, Placement, Processor, SyncWorker, Worker, WorkerOptions};

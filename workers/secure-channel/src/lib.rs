//! Secure channels: end-to-end encrypted, mutually authenticated paths between two workers, over any route.
//!
//! # What a channel is
//!
//! Two nodes that can exchange messages along some route (a TCP connection, a relay, several of both) shake hands over it.
//! Afterwards each has a worker, the **encryptor**, whose address stands for the other node: what is sent to
//! `[encryptor, hop, hop…]` arrives in the other node at `[hop, hop…]`. There it comes out of the **decryptor**, which knows
//! for certain who sent it and says so in the message's local metadata. Whatever forwards in between sees addresses of
//! sixteen random bytes and ciphertext. Because both ends are workers like others, a channel runs over another channel as
//! well as over a wire.
//!
//! ```text
//!  app ──▶ encryptor ──▶ tcp ══▶ relay ══▶ tcp ──▶ decryptor ──▶ outlet
//!   node of A             (sees ciphertext)          node of B
//! ```
//!
//! # Who is at the other end
//!
//! The handshake is Noise XX: both sides prove that they hold a static key, and each learns the other's in encrypted form.
//! A static key alone says nothing; so both send, inside the handshake, their identity (a chain of signed keys, see
//! `portolan-identity`) and its attestation for the static key, and perhaps credentials: attributes, signed by an
//! authority. The peer is accepted if all of this verifies and the [`TrustPolicy`] wants it. Attributes are stored, for
//! access control to decide by, message by message.
//!
//! # Example
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use portolan_identity::*;
//! # use portolan_runtime::{Node, route, services::Echo};
//! # use portolan_secure_channel::*;
//! # async fn example(alice: LocalIdentity, bob: LocalIdentity) -> Result<(), Box<dyn std::error::Error>> {
//! # let bob_identifier = *bob.identifier();
//! let node = Node::new()?;
//! let channels = SecureChannels::new(
//!     &node,
//!     Arc::new(MemoryIdentityRepository::default()),
//!     Arc::new(MemoryAttributeRepository::default()),
//! );
//! node.start_sync_worker("echo", Echo)?;
//! let listener = channels.listen("api", ListenerOptions::new(ChannelOptions::new(bob)))?;
//! listener.add_consumer(&"echo".into()); // nothing is reachable through a channel unless it is said
//!
//! // Here both ends are in one node; usually the route begins with a connection: route![connection.sender(), "api"].
//! let options = ChannelOptions::new(alice).trust(TrustPolicy::Identifier(bob_identifier));
//! let channel = channels.create("api", options).await?;
//! let answer =
//!     node.send_and_receive::<String, String>(route![channel.address(), "echo"], "hello".into()).await?;
//! assert_eq!(answer.body()?, "hello");
//! # Ok(()) }
//! ```
//!
//! # The end of a channel
//!
//! A channel ends when either side stops it, when the connection under it ends, when a record is missing
//! ([`GapPolicy::Close`]), or with its owner. Its encryptor's address is free at that moment, so that
//! `node.ended(encryptor)` tells portals, relays and sessions above; [`SecureChannel::closed`] says why. There is no
//! keep-alive at this level: liveness is checked above, by pinging through the channel.
//!
//! # What an attacker can do, and what stops it
//!
//! | attack | what stops it |
//! |---|---|
//! | read, alter, inject, reorder, repeat records | AEAD with explicit nonces; replay window; a refused record changes nothing ([`record`]) |
//! | drop records to leave a hole in a stream | the gap is noticed with the next record; the channel closes |
//! | forge handshake messages to kill handshakes | states are kept until a message has authenticated ([`handshake`]) |
//! | strip or alter an offer, to get a weaker suite | the handshake fails; nothing is tried again without ([`extensions`]) |
//! | begin handshakes and abandon them | places per connection and in all, a time-out, at most one handshake per core computing; whoever has had our answer for a second gives way; what finds no place waits, connections taking turns, up to a bound beyond which it is refused, counted and logged |
//! | fill our stores with identities | nothing is stored before the trust policy has accepted the peer |
//! | come back with keys from before a rotation | histories are compared with the stored one; older ones are refused |
//! | present huge histories or many credentials | limits at decode; verification runs beside the message path |
//! | keys of small order | refused |
//! | learn why it was refused | refusals are silent on the wire, counted and logged here |
//! | as a peer, to take nothing, so that others wait at a relay behind what we have sent it | no more than a window is on its way ([`window`]) |
//! | as a peer, to say that more has arrived than was sent | the channel closes |
//! | redirect the responder's traffic | only with a genuine record that was kept back; it is ciphertext still (spec 02 §9.2, S6) |
//! | steal keys later | the keys of a channel are replaced every 32 records and erased; static keys are renewed (`portolan-identity`) |
//!
//! What it does not hide: that two nodes talk, when, and how much; who the *responder* is, from anybody who asks (S8).
//!
//! # Modules
//!
//! | module | idea |
//! |---|---|
//! | [`aead`] | authenticated encryption behind one trait, two providers |
//! | [`handshake`] | Noise XX; pure |
//! | [`extensions`] | what is agreed on beyond the reference protocol; pure |
//! | [`record`] | nonces, rekeying, replay window; pure |
//! | [`window`] | how much may be on its way; pure |
//! | [`wire`] | the messages inside; pure |
//! | [`trust`] | with whom we want a channel |
//! | [`credentials`] | what we present, and its renewal |
//! | [`options`] | settings and limits |
//! | [`channel`] | the workers, and the handle to a channel |
//! | [`error`] | what can go wrong, and whose fault it is |
//!
//! Section numbers are those of the protocol specification, part 02.

pub mod aead;
pub mod channel;
pub mod credentials;
pub mod error;
pub mod extensions;
pub mod handshake;
mod local;
mod log_limit;
pub mod options;
mod peer;
pub mod record;
pub mod trust;
pub mod window;
pub mod wire;

pub use aead::{Suite, Suites};
pub use channel::{
    ChannelInfo, Clock, CloseReason, Counters, Role, SecureChannel, SecureChannelListener, SecureChannels,
};
pub use credentials::{CredentialSource, CurrentCredential, FixedCredential};
pub use error::{Error, PeerError};
pub use local::LocalIdentity;
pub use options::{ChannelOptions, GapPolicy, Limits, ListenerOptions};
pub use trust::TrustPolicy;

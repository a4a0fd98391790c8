//! The TCP transport: moves messages between nodes over TCP connections (spec 01 §6).
//!
//! Each direction of a connection is one version byte (`01`) and then frames: a length of four bytes, big-endian, and
//! as many bytes of CBOR message. There is no encryption and no authentication at this level; secure channels, which
//! are workers like others, bring both, end to end over any number of such connections.
//!
//! A connection is two workers. The **sender** is a terminal address that stands in routes: a message that reaches it
//! loses that hop and is written to the socket. The **receiver** puts the sender in front of the return route of what
//! it reads, so that answers find back, and hands it to the first onward hop, if [flow
//! control](portolan_runtime::flow) lets it.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use portolan_runtime::{Node, route, services::Echo};
//! use portolan_tcp::{TcpOptions, TcpTransport};
//!
//! let node = Node::new()?;
//! let tcp = TcpTransport::new(&node, TcpOptions::default());
//! let listener = tcp.listen("127.0.0.1:4000").await?;
//! node.start_sync_worker("echo", Echo)?;
//! node.add_consumer(listener.flow(), &"echo".into()); // nothing is reachable from outside unless it is said
//!
//! let other = Node::new()?;
//! let connection = TcpTransport::new(&other, TcpOptions::default()).connect("127.0.0.1:4000").await?;
//! let answer = other
//!     .send_and_receive::<String, String>(route![connection.sender(), "echo"], "hello".into())
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! # What a stranger can make grow
//!
//! | what | bound | then |
//! |---|---|---|
//! | connections of a listener | [`TcpOptions::max_connections`] | closed as soon as accepted |
//! | a frame before the peer has authenticated itself | [`TcpOptions::stranger_frame_limit`] | closed on the header |
//! | a frame afterwards | [`TcpOptions::frame_limit`] | closed on the header |
//! | time without version byte, or in the middle of a frame | [`TcpOptions::frame_timeout`] | closed |
//! | time without any frame before authentication | [`TcpOptions::stranger_idle_timeout`] | closed |
//! | memory for a frame | what has arrived of it, twice | – |
//! | messages that wait to be written | 256, 2 MiB | their senders wait |
//! | the same, of what came over other connections | 32 MiB more, of 256 in the process | the other connection waits |
//! | bytes that wait in the socket, for a peer on this host | 512 KiB | more waits in the node, as above |
//! | time in which a peer takes no byte | [`TcpOptions::write_timeout`] | closed |
//! | the same, while another connection waits for that | [`TcpOptions::hold_up_timeout`] | closed, logged and counted |
//!
//! # Modules
//!
//! * [`frame`]: cutting a byte stream into frames; no sockets.
//! * [`transport`]: listening, connecting, listing.
//! * `connection`: the two workers of a connection.
//! * `buffer`: receive buffers that are used again.
//! * `socket`: what the kernel is told of a connection's socket.

mod buffer;
mod connection;
pub mod frame;
mod listener;
mod options;
mod socket;
pub mod transport;

pub use options::TcpOptions;
pub use transport::{TcpConnection, TcpError, TcpListener, TcpTransport};

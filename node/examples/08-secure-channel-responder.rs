//! A secure channel over two transport hops: the side that accepts it.
//!
//! Two nodes shake hands over whatever lies between them. Afterwards each knows for certain who the other is, and what
//! they send is encrypted from end to end: the node in the middle forwards what it cannot read.
//!
//! In three terminals:
//!
//! ```text
//! cargo run --example 08-secure-channel-responder
//! cargo run --example 08-secure-channel-middle
//! cargo run --example 08-secure-channel-initiator
//!
//!   app ──▶ encryptor ══ TCP ══▶ middle ══ TCP ══▶ decryptor ──▶ greeter
//!           └───────────── encrypted and authenticated ──────────┘
//! ```
//!
//! Argument: where to listen (127.0.0.1:4008).
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;
use std::sync::Arc;

use portolan::identity::{
    Identity, KeyType, MemoryAttributeRepository, MemoryIdentityRepository, MemoryPurposeKeyRepository,
    SoftwareVault,
};
use portolan::runtime::{Context, Node, Result, Routed, Worker};
use portolan::secure_channel::{ChannelOptions, ListenerOptions, LocalIdentity, SecureChannels};
use portolan::tcp::{TcpOptions, TcpTransport};

/// Greets its visitors by name.
struct Greeter;

impl Worker for Greeter {
    type Message = String;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<String>) -> Result<()> {
        // The channel has proven who sent this. No message can say so of itself.
        let who = match message.peer() {
            Some(peer) => peer.identifier.to_string(),
            None => "somebody unknown".to_owned(),
        };
        println!("{who} says: {}", message.body()?);
        ctx.send(message.return_route().clone(), format!("hello, {who}"))
            .await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4008".into());

    // Who we are. The next lesson looks at this closely.
    let vault = Arc::new(SoftwareVault::in_memory());
    let identity = Identity::create(vault.as_ref(), portolan::state::now(), KeyType::Ed25519)?;
    let me = LocalIdentity::new(identity, vault, Arc::new(MemoryPurposeKeyRepository::default()));
    println!("I am {}", me.identifier());

    let node = Node::new()?;
    let channels = SecureChannels::new(
        &node,
        Arc::new(MemoryIdentityRepository::default()),
        Arc::new(MemoryAttributeRepository::default()),
    );
    node.start_worker("greeter", Greeter)?;

    // From the network the listener for channels can be reached, and nothing else; through a channel, the greeter.
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let tcp_listener = tcp.listen(&address).await?;
    let listener = channels.listen("api", ListenerOptions::new(ChannelOptions::new(me)))?;
    listener.accept_from(tcp_listener.flow());
    listener.add_consumer(&"greeter".into());
    println!("listening on {}; end with Ctrl-C", tcp_listener.local());

    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}

//! A portal over a secure channel: the end that stands beside the client.
//!
//! While `11-portal-outlet` runs:
//!
//! ```text
//! cargo run --example 11-portal-inlet
//! curl http://127.0.0.1:5011
//! ```
//!
//! Arguments: where clients connect (127.0.0.1:5011), and where the outlet's node is (127.0.0.1:4011); and the identifier
//! that it printed, to accept nobody else.
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;
use std::sync::Arc;

use portolan::identity::{
    Identity, KeyType, MemoryAttributeRepository, MemoryIdentityRepository, MemoryPurposeKeyRepository,
    SoftwareVault,
};
use portolan::portal::{Inlet, InletOptions};
use portolan::runtime::{Node, route};
use portolan::secure_channel::{ChannelOptions, LocalIdentity, SecureChannels, TrustPolicy};
use portolan::tcp::{TcpOptions, TcpTransport};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let bind = arguments.next().unwrap_or_else(|| "127.0.0.1:5011".into());
    let peer = arguments.next().unwrap_or_else(|| "127.0.0.1:4011".into());
    let trust = match arguments.next() {
        Some(identifier) => TrustPolicy::Identifier(identifier.parse()?),
        None => TrustPolicy::Everyone,
    };

    let vault = Arc::new(SoftwareVault::in_memory());
    let identity = Identity::create(vault.as_ref(), portolan::state::now(), KeyType::Ed25519)?;
    let me = LocalIdentity::new(identity, vault, Arc::new(MemoryPurposeKeyRepository::default()));

    let node = Node::new()?;
    let channels = SecureChannels::new(
        &node,
        Arc::new(MemoryIdentityRepository::default()),
        Arc::new(MemoryAttributeRepository::default()),
    );
    // An inlet listens from the start; until it has a route to its outlet, clients are closed at once.
    let inlet = Inlet::start(&node, &bind, InletOptions::default()).await?;

    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let connection = tcp.connect(&peer).await?;
    let options = ChannelOptions::new(me).trust(trust);
    let channel = channels
        .create(route![connection.sender(), "api"], options)
        .await?;
    println!("a channel with {}", channel.peer());

    inlet.connect(route![channel.address(), "outlet"]);
    println!("listening on {}; end with Ctrl-C", inlet.local());

    tokio::select! {
        reason = channel.closed() => println!("the portal is gone: {reason}"),
        end = tokio::signal::ctrl_c() => end?,
    }
    let status = inlet.status();
    println!(
        "{} connections, {} bytes came back",
        status.total(),
        status.to_application()
    );
    node.stop().await;
    Ok(())
}

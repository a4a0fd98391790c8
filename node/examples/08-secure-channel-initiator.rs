//! The side that opens the channel.
//!
//! The address of a channel's encryptor stands in routes like any other hop: what is sent to it arrives in the other
//! node, at the hop behind it, having been read by nobody on the way.
//!
//! While `08-secure-channel-responder` and `08-secure-channel-middle` run:
//!
//! ```text
//! cargo run --example 08-secure-channel-initiator
//! ```
//!
//! Arguments: where the middle is (127.0.0.1:4009); and the identifier that the responder printed, to accept nobody else.
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;
use std::sync::Arc;

use portolan::identity::{
    Identity, KeyType, MemoryAttributeRepository, MemoryIdentityRepository, MemoryPurposeKeyRepository,
    SoftwareVault,
};
use portolan::runtime::{Node, route};
use portolan::secure_channel::{ChannelOptions, LocalIdentity, SecureChannels, TrustPolicy};
use portolan::tcp::{TcpOptions, TcpTransport};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let middle = arguments.next().unwrap_or_else(|| "127.0.0.1:4009".into());
    let trust = match arguments.next() {
        Some(identifier) => TrustPolicy::Identifier(identifier.parse()?),
        None => TrustPolicy::Everyone, // Whoever it is, we shall know who.
    };

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
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let connection = tcp.connect(&middle).await?;

    let channel = channels
        .create(
            route![connection.sender(), "middle", "responder", "api"],
            ChannelOptions::new(me).trust(trust),
        )
        .await?;
    println!("a channel with {}", channel.peer());

    let answer = node
        .send_and_receive::<String, String>(route![channel.address(), "greeter"], "a secret".into())
        .await?;
    println!("greeter answered: {}", answer.into_body()?);

    node.stop().await;
    Ok(())
}

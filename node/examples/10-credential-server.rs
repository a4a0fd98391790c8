//! Credentials: a server that admits holders of an attribute.
//!
//! The server has a policy, written over attributes, and one issuer that it believes. It needs no list of its users and
//! no connection to the issuer: what a peer may do stands in the credential that it brings.
//!
//! While `10-credential-issuer` runs:
//!
//! ```text
//! cargo run --example 10-credential-server
//! ```
//!
//! Argument: where to listen (127.0.0.1:4110).
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;
use std::sync::Arc;

use portolan::identity::{
    AttributeRepository, Identifier, Identity, KeyType, MemoryAttributeRepository, MemoryIdentityRepository,
    MemoryPurposeKeyRepository, SoftwareVault,
};
use portolan::policy::{Decision, Policy, SubjectEnvironment};
use portolan::runtime::services::Echo;
use portolan::runtime::{AccessControl, AccessRule, Delivery, Denial, Node, WorkerOptions};
use portolan::secure_channel::{ChannelOptions, ListenerOptions, LocalIdentity, SecureChannels};
use portolan::state::now;
use portolan::tcp::{TcpOptions, TcpTransport};

/// The issuer's public chain of keys, as its administrator has told us.
const ISSUER: &str = "81825837830101583285f682008158208c7094a385f31f171ead65f5decad6095eae08fc1a88dd61ad18cfde119884e8f41a6955b9001a7c21bc008200815840ac76ed8817784476a142a633a371b19e6121823ff38f7d834f11dd692a0872ba47f4976fd617e6a7a0633c66fd6be8fc4a136e948b55b47817cdca65edd40e0a";

/// Asked for each message that wants to go to a worker.
struct Admission {
    policy: Policy,
    issuer: Identifier,
    /// What credentials have said, each verified when it was presented.
    attributes: Arc<MemoryAttributeRepository>,
}

impl AccessRule for Admission {
    fn check(&self, delivery: &Delivery<'_>) -> Result<(), Denial> {
        let Some(peer) = delivery.incoming_peer() else {
            return Err(Denial("it did not come through a channel".into()));
        };
        let peer = Identifier::from(peer.identifier.0);
        let Some(said) = self.attributes.get(&peer, &self.issuer, now()) else {
            println!("denied    {peer}: the issuer says nothing about it");
            return Err(Denial("the peer has no credential".into()));
        };
        let name = peer.to_string();
        let subject = SubjectEnvironment::new(&name)
            .with_credential(true)
            .with_attributes(said.attributes.map());
        match self.policy.evaluate(&subject) {
            Decision::Allow => {
                println!("admitted  {peer}");
                Ok(())
            }
            Decision::Deny(reason) => {
                println!("denied    {peer}: {reason}");
                Err(Denial(reason.to_string().into()))
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4110".into());
    let issuer = Identity::from_hex(ISSUER, None)?;

    let vault = Arc::new(SoftwareVault::in_memory());
    let identity = Identity::create(vault.as_ref(), now(), KeyType::Ed25519)?;
    let me = LocalIdentity::new(identity, vault, Arc::new(MemoryPurposeKeyRepository::default()));

    let node = Node::new()?;
    let attributes = Arc::new(MemoryAttributeRepository::default());
    let channels = SecureChannels::new(
        &node,
        Arc::new(MemoryIdentityRepository::default()),
        attributes.clone(),
    );

    let admission = Admission {
        policy: Policy::parse("cluster=production")?,
        issuer: *issuer.identifier(),
        attributes,
    };
    let guarded = WorkerOptions::new("echo").incoming(AccessControl::rule(admission));
    node.start_sync_worker(guarded, Echo)?;

    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let tcp_listener = tcp.listen(&address).await?;
    let options = ChannelOptions::new(me).authorities([issuer]);
    let listener = channels.listen("api", ListenerOptions::new(options))?;
    listener.accept_from(tcp_listener.flow());
    listener.add_consumer(&"echo".into());
    println!("listening on {}; end with Ctrl-C", tcp_listener.local());

    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}

//! Credentials: the issuer.
//!
//! A credential is a signed statement of one identity, the issuer, about another: "this one has these attributes". The
//! issuer of this lesson knows one member from the start. Whoever proves, by a secure channel, to be that member gets
//! a credential that says `cluster = production`.
//!
//! In three terminals:
//!
//! ```text
//! cargo run --example 10-credential-issuer
//! cargo run --example 10-credential-server
//! cargo run --example 10-credential-client
//!
//!   client ──── who am I? ───▶ issuer
//!      └── credential, request ──▶ server: does the issuer say what my policy asks for?
//! ```
//!
//! Argument: where to listen (127.0.0.1:4010).
//!
//! The secret keys of issuer and client stand in the source here, so that all three programs know the same identities
//! without anybody having to copy texts between terminals. Outside of lessons, keys are made by a vault and never leave
//! it, and members join with one-time tickets: `portolan project create` does all of this.
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;
use std::sync::Arc;

use portolan::authority::attributes::MemberAttributes;
use portolan::authority::authority::Authority;
use portolan::authority::issuer::{CredentialSettings, DEFAULT_CREDENTIAL_TTL, Issuer};
use portolan::authority::rules::RoleSettings;
use portolan::authority::services::Services;
use portolan::authority::store::Store;
use portolan::identity::{
    Identity, MemoryAttributeRepository, MemoryIdentityRepository, MemoryPurposeKeyRepository, Secret,
    SecretKind, SoftwareVault,
};
use portolan::runtime::Node;
use portolan::secure_channel::{ChannelOptions, ListenerOptions, LocalIdentity, SecureChannels};
use portolan::tcp::{TcpOptions, TcpTransport};

const SECRET: [u8; 32] = *b"issuer's key, public for lessons";
/// When the identity of this key was made: 1 January 2026.
const MADE: u64 = 1_767_225_600;
/// The client.
const MEMBER: &str = "I4bc4bebb9fb43753ad9b1c0ac636d90550bd9fca394575f87113e6993c01a5f8";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4010".into());

    let vault = Arc::new(SoftwareVault::in_memory());
    let key = vault.import(&Secret::new(SecretKind::Ed25519, SECRET.into()))?;
    let identity = Identity::create_with_key(vault.as_ref(), &key, MADE)?;
    let purpose_keys = Arc::new(MemoryPurposeKeyRepository::default());
    println!("I am {}", identity.identifier());

    // What the authority knows of its members, and the one that it knows from the start.
    let authority = Authority::new(
        Store::open_in_memory(*identity.identifier())?,
        RoleSettings::default(),
    );
    let attributes = MemberAttributes::new([("cluster", "production")])?;
    authority.set_pre_trusted([(MEMBER.parse()?, attributes)], portolan::state::now())?;

    let identities = Arc::new(MemoryIdentityRepository::default());
    let settings = CredentialSettings {
        project_id: "lesson".into(),
        include_trust_context_id: false,
        ttl: DEFAULT_CREDENTIAL_TTL,
    };
    let issuer = Issuer::new(
        identity.clone(),
        vault.clone(),
        purpose_keys.clone(),
        identities.clone(),
        settings,
    )?;

    let node = Node::new()?;
    let services = Services::new(Arc::new(authority), Arc::new(issuer)).start(&node)?;

    // The services answer the authenticated peer of a channel, and nobody else.
    let channels = SecureChannels::new(&node, identities, Arc::new(MemoryAttributeRepository::default()));
    let me = LocalIdentity::new(identity, vault, purpose_keys);
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let tcp_listener = tcp.listen(&address).await?;
    let listener = channels.listen("api", ListenerOptions::new(ChannelOptions::new(me)))?;
    listener.accept_from(tcp_listener.flow());
    services.consume(listener.flow());
    println!("listening on {}; end with Ctrl-C", tcp_listener.local());

    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}

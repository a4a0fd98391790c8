//! Credentials: a client that fetches one and presents it.
//!
//! While `10-credential-issuer` and `10-credential-server` run:
//!
//! ```text
//! cargo run --example 10-credential-client
//! ```
//!
//! Arguments: where the issuer is (127.0.0.1:4010), and where the server is (127.0.0.1:4110).
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use portolan::authority::client::AuthorityClient;
use portolan::identity::{
    Identity, MemoryAttributeRepository, MemoryIdentityRepository, MemoryPurposeKeyRepository, Secret,
    SecretKind, SoftwareVault,
};
use portolan::runtime::{Node, route};
use portolan::secure_channel::{ChannelOptions, FixedCredential, LocalIdentity, SecureChannels, TrustPolicy};
use portolan::state::now;
use portolan::tcp::{TcpOptions, TcpTransport};

const SECRET: [u8; 32] = *b"client's key, public for lessons";
/// When the identity of this key was made: 1 January 2026.
const MADE: u64 = 1_767_225_600;
/// The issuer's public chain of keys.
const ISSUER: &str = "81825837830101583285f682008158208c7094a385f31f171ead65f5decad6095eae08fc1a88dd61ad18cfde119884e8f41a6955b9001a7c21bc008200815840ac76ed8817784476a142a633a371b19e6121823ff38f7d834f11dd692a0872ba47f4976fd617e6a7a0633c66fd6be8fc4a136e948b55b47817cdca65edd40e0a";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let issuer_address = arguments.next().unwrap_or_else(|| "127.0.0.1:4010".into());
    let server_address = arguments.next().unwrap_or_else(|| "127.0.0.1:4110".into());

    let vault = Arc::new(SoftwareVault::in_memory());
    let key = vault.import(&Secret::new(SecretKind::Ed25519, SECRET.into()))?;
    let identity = Identity::create_with_key(vault.as_ref(), &key, MADE)?;
    let subject = *identity.identifier();
    let me = LocalIdentity::new(identity, vault, Arc::new(MemoryPurposeKeyRepository::default()));
    println!("I am {subject}");

    let node = Node::new()?;
    let app = node.context("app")?;
    let channels = SecureChannels::new(
        &node,
        Arc::new(MemoryIdentityRepository::default()),
        Arc::new(MemoryAttributeRepository::default()),
    );
    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let server = tcp.connect(&server_address).await?;

    // Without a credential the server knows who we are, and that is not enough.
    let options = ChannelOptions::new(me.clone());
    let channel = channels.create(route![server.sender(), "api"], options).await?;
    let silence = app
        .send_and_receive_within::<String, String>(
            Duration::from_secs(1),
            route![channel.address(), "echo"],
            "let me in".into(),
        )
        .await;
    match silence {
        Err(error) => println!("without a credential: {error}"),
        Ok(_) => println!("without a credential: an answer, which should not happen"),
    }
    channel.stop();

    // The issuer must be the issuer; to it we only prove who we are.
    let issuer = Identity::from_hex(ISSUER, None)?;
    let connection = tcp.connect(&issuer_address).await?;
    let options = ChannelOptions::new(me.clone()).trust(TrustPolicy::Identifier(*issuer.identifier()));
    let channel = channels
        .create(route![connection.sender(), "api"], options)
        .await?;
    let credential = AuthorityClient::new(&app, channel.address())
        .credential(&subject, &issuer, now())
        .await?;
    let said = credential.verify(Some(&subject), std::slice::from_ref(&issuer), now())?;
    for (name, value) in said.attributes.iter() {
        println!(
            "the issuer says: {} = {}",
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(value)
        );
    }

    // With it, the same request is answered.
    let options = ChannelOptions::new(me).credentials(FixedCredential::new(credential));
    let channel = channels.create(route![server.sender(), "api"], options).await?;
    let answer = app
        .send_and_receive::<String, String>(route![channel.address(), "echo"], "hello, production".into())
        .await?;
    println!("with the credential: {}", answer.into_body()?);

    drop(app);
    node.stop().await;
    Ok(())
}

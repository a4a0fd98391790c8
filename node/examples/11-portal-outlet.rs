//! A portal over a secure channel: the end that stands beside the service.
//!
//! A portal carries TCP connections of ordinary programs, which know nothing of nodes. The **inlet** listens where the
//! client is, the **outlet** connects to the service where that is, and between them lies any route.
//!
//! In three terminals:
//!
//! ```text
//! cargo run --example 11-portal-outlet
//! cargo run --example 11-portal-inlet
//! curl http://127.0.0.1:5011
//!
//!   curl ──▶ inlet ──▶ encryptor ══ TCP ══▶ decryptor ──▶ outlet ──▶ service
//! ```
//!
//! Arguments: where to listen (127.0.0.1:4011), and where the service is. Without the second, this program is the
//! service too: a tiny web server on a port of the loopback interface that nobody but the outlet knows.
#![allow(clippy::print_stdout)] // A lesson prints what happens.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use portolan::identity::{
    Identity, KeyType, MemoryAttributeRepository, MemoryIdentityRepository, MemoryPurposeKeyRepository,
    SoftwareVault,
};
use portolan::portal::{Outlet, OutletOptions};
use portolan::runtime::{AccessControl, Node};
use portolan::secure_channel::{ChannelOptions, ListenerOptions, LocalIdentity, SecureChannels};
use portolan::tcp::{TcpOptions, TcpTransport};

/// Any TCP service would do. It answers every request with one line.
fn start_service() -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 25\r\nConnection: close\r\n\r\nhello from far, far away\n";
            // Clients come and go as they like.
            let _ = client
                .read(&mut [0; 4096])
                .and_then(|_| client.write_all(answer.as_bytes()));
        }
    });
    Ok(address)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:4011".into());
    let service = match arguments.next() {
        Some(service) => service,
        None => start_service()?,
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
    // It connects to this service and to nothing else, whatever an inlet may say; and only for authenticated peers. To
    // narrow it further, see lesson 10.
    let options = OutletOptions {
        incoming: AccessControl::AnyPeer,
        ..OutletOptions::default()
    };
    let outlet = Outlet::start(&node, "outlet", &service, options)?;
    println!("the outlet leads to {}", outlet.target());

    let tcp = TcpTransport::new(&node, TcpOptions::default());
    let tcp_listener = tcp.listen(&address).await?;
    let listener = channels.listen("api", ListenerOptions::new(ChannelOptions::new(me)))?;
    listener.accept_from(tcp_listener.flow());
    listener.add_consumer(outlet.address());
    println!("listening on {}; end with Ctrl-C", tcp_listener.local());

    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}

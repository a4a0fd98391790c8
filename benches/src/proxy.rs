//! The plain copying proxy: what a hop costs when it does nothing but copy.
//!
//! One thread with an event loop, and a buffer of 128 KiB for each direction: as much as one read of an inlet takes by
//! default. It copies through user space on purpose (no `splice`): so does everything that encrypts.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

/// Size of the buffer of each direction of each connection, in bytes.
pub const BUFFER: usize = 128 * 1024;

/// Listens at `listen` and copies every connection to and from `to`, until the process is ended. Calls `ready` with the
/// bound address.
///
/// # Errors
/// When the address cannot be bound.
pub fn run(listen: SocketAddr, to: SocketAddr, ready: impl FnOnce(SocketAddr)) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(listen).await?;
        ready(listener.local_addr()?);
        loop {
            let (mut near, _) = listener.accept().await?;
            tokio::task::spawn_local(async move {
                // A connection that fails is its own user's business; the load counts it.
                let mut far = TcpStream::connect(to).await?;
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER).await
            });
        }
    })
}

//! Accepting connections.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_runtime::{Context, Placement};

use crate::transport::{Role, TcpTransport};

/// Pauses after an error of `accept`, for instance when the process is out of file descriptors.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Counts a connection as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(crate) async fn accept(
    ctx: Context,
    socket: std::net::TcpListener,
    transport: TcpTransport,
    flow: Arc<portolan_runtime::Flow>,
) {
    let listener = match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("a TCP listener could not be started: {error}");
            return;
        }
    };
    let open = Arc::new(AtomicUsize::new(0));
    let limit = transport.options().max_connections;
    let mut pause = SHORTEST_PAUSE;
    let stopping = ctx.stopping();
    tokio::pin!(stopping);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopping => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = SHORTEST_PAUSE;
                if open.fetch_add(1, Ordering::Relaxed) >= limit {
                    open.fetch_sub(1, Ordering::Relaxed);
                    tracing::warn!(
                        "a connection from {peer} is closed: {limit} connections are open, which is the limit"
                    );
                    continue;
                }
                let counted = Counted(Arc::clone(&open));
                let started = stream.into_std().and_then(|stream| {
                    transport
                        .start(
                            stream,
                            Some(&flow),
                            Role::Accepted,
                            peer.to_string(),
                            Placement::Next,
                            counted,
                        )
                        .map_err(io::Error::other)
                });
                if let Err(error) = started {
                    tracing::debug!("a connection from {peer} could not be started: {error}");
                }
            }
            Err(error) => {
                // A connection that was reset before it was accepted is nothing to wait for.
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) {
                    continue;
                }
                tracing::warn!("accepting a connection failed, next try in {pause:?}: {error}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

//! Limits and time-outs.

use std::time::Duration;

use crate::frame::MAX_FRAME;

/// Limits and time-outs of connections. The defaults suit a node that faces the Internet.
#[derive(Debug, Clone)]
pub struct TcpOptions {
    /// How long connecting may take, over all addresses of a host name. Default 10 s.
    pub connect_timeout: Duration,
    /// Silence after which the kernel begins to ask whether the peer is still there. Default 30 s; it asks three times,
    /// 10 s apart.
    pub keepalive: Duration,
    /// Longest frame, in bytes, of a peer that has completed a secure channel over the connection. Default and maximum
    /// 16 MiB, the protocol's limit.
    pub frame_limit: usize,
    /// Longest frame, in bytes, before that. Default 1 MiB and 64 KiB: a stock node's messages over a plain connection
    /// fit, a header that announces 16 MiB does not.
    pub stranger_frame_limit: usize,
    /// How long the version byte, or the rest of a begun frame, may take to arrive; a frame gets a second more for each
    /// 64 KiB. Only time spent waiting for the peer counts. Default 10 s.
    pub frame_timeout: Duration,
    /// How long a peer that has not authenticated itself may send no frame. Default 120 s: liveness pings of a stock
    /// node come every 10 s.
    pub stranger_idle_timeout: Duration,
    /// How long a peer may take no byte of what we write. Default 120 s.
    pub write_timeout: Duration,
    /// The same while others wait behind it: what came over another connection for this peer finds no room here any more, and whoever sent it
    /// can send nothing to other nodes either. Then the connection is closed. Default 3 s.
    pub hold_up_timeout: Duration,
    /// Connections of one listener at a time. Default 4096.
    pub max_connections: usize,
}

impl TcpOptions {
    /// How long the rest of a frame of this many bytes may take.
    pub(crate) fn allowance(&self, frame: usize) -> Duration {
        self.frame_timeout + Duration::from_secs(frame as u64 / (64 * 1024))
    }
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(30),
            frame_limit: MAX_FRAME,
            stranger_frame_limit: 1024 * 1024 + 64 * 1024,
            frame_timeout: Duration::from_secs(10),
            stranger_idle_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(120),
            hold_up_timeout: Duration::from_secs(3),
            max_connections: 4096,
        }
    }
}

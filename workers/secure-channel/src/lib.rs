//! Secure channels: handshake, record layer and the workers that run them.

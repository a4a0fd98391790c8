//! Secure channels: handshake, record layer and the workers that run them.
pub mod aead;
pub mod handshake;
pub mod record;
pub mod wire;

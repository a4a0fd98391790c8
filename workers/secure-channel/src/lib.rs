//! Secure channels: handshake, record layer and the workers that run them.
pub mod aead;
pub mod channel;
pub mod credentials;
pub mod error;
pub mod handshake;
mod local;
pub mod options;
mod peer;
pub mod record;
pub mod trust;
pub mod wire;

pub use channel::{
    ChannelInfo, Clock, CloseReason, Counters, Role, SecureChannel, SecureChannelListener, SecureChannels,
};
pub use credentials::{CredentialSource, CurrentCredential, FixedCredential};
pub use error::{Error, PeerError};
pub use local::LocalIdentity;
pub use options::{ChannelOptions, GapPolicy, Limits, ListenerOptions};
pub use trust::TrustPolicy;

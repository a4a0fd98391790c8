//! Relay service and relay client.

//! What a peer can make us hold or compute, at most.
//!
//! The reference has no such limits beyond the size of a message (§9.2, S23). Every artefact that it makes itself is
//! far below them.

/// Bytes of an encoded change history. A handshake message is no longer than this in any case.
pub const MAX_HISTORY_BYTES: usize = 64 * 1024;

/// Changes in a history. Each costs the verifier up to two signature checks, so this is some 10 ms of one core; and an
/// identity that rotates every month lasts ten years.
pub const MAX_CHANGES: usize = 128;

/// Bytes of the signed part of a purpose key attestation. The reference's have 121 to 157.
pub const MAX_ATTESTATION_BYTES: usize = 1024;

/// Bytes of the signed part of a credential: all attributes at their limits, and the rest.
pub const MAX_CREDENTIAL_BYTES: usize = MAX_ATTRIBUTES_BYTES + 4 * 1024;

/// Attributes in a credential.
pub const MAX_ATTRIBUTES: usize = 128;

/// Bytes of the name of an attribute.
pub const MAX_ATTRIBUTE_NAME_BYTES: usize = 256;

/// Bytes of the value of an attribute.
pub const MAX_ATTRIBUTE_VALUE_BYTES: usize = 4 * 1024;

/// Bytes of all names and values of one set of attributes together.
pub const MAX_ATTRIBUTES_BYTES: usize = 16 * 1024;

/// Credentials in one list (§5.5). The reference sends at most one.
pub const MAX_CREDENTIALS: usize = 8;

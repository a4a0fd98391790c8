//! Keys, vaults, identifiers, change histories, purpose keys and credentials.

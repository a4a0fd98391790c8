//! With whom we want a channel at all (spec 02 §7.1).

use std::collections::BTreeSet;
use std::sync::Arc;

use portolan_identity::Identifier;

/// Decides about a peer that has proven who it is, before anything about it is stored.
///
/// What the peer may then *do* is for access control to say, message by message.
#[derive(Clone, Debug, Default)]
pub enum TrustPolicy {
    /// Whoever can prove an identity. Right where access control decides by attribute.
    #[default]
    Everyone,
    /// Exactly this peer.
    Identifier(Identifier),
    /// Any of these peers.
    Identifiers(Arc<BTreeSet<Identifier>>),
    /// A peer of whom one of our authorities says that this attribute has this value, in a credential that it presents or
    /// has presented before.
    Attribute {
        /// The attribute's name.
        name: Arc<str>,
        /// The value that it must have, byte for byte.
        value: Arc<[u8]>,
    },
    /// All of these must accept.
    All(Arc<[TrustPolicy]>),
    /// One of these must accept.
    Any(Arc<[TrustPolicy]>),
}

impl TrustPolicy {
    /// Any of these peers.
    pub fn identifiers(identifiers: impl IntoIterator<Item = Identifier>) -> Self {
        Self::Identifiers(Arc::new(identifiers.into_iter().collect()))
    }

    /// A peer with this attribute.
    pub fn attribute(name: &str, value: impl AsRef<[u8]>) -> Self {
        Self::Attribute {
            name: name.into(),
            value: value.as_ref().into(),
        }
    }

    /// Whether a peer is accepted; `has` says whether an authority of ours says that it has an attribute.
    pub(crate) fn accepts(&self, peer: &Identifier, has: &dyn Fn(&str, &[u8]) -> bool) -> bool {
        match self {
            Self::Everyone => true,
            Self::Identifier(identifier) => identifier == peer,
            Self::Identifiers(identifiers) => identifiers.contains(peer),
            Self::Attribute { name, value } => has(name, value),
            Self::All(policies) => policies.iter().all(|policy| policy.accepts(peer, has)),
            Self::Any(policies) => policies.iter().any(|policy| policy.accepts(peer, has)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_combine() {
        let (a, b) = (Identifier::from([1; 32]), Identifier::from([2; 32]));
        let has = |name: &str, value: &[u8]| (name, value) == ("role", &b"member"[..]);
        let member = TrustPolicy::attribute("role", "member");
        let admin = TrustPolicy::attribute("role", "admin");
        let accepts = |policy: TrustPolicy| (policy.accepts(&a, &has), policy.accepts(&b, &has));
        assert_eq!(accepts(TrustPolicy::Everyone), (true, true));
        assert_eq!(accepts(TrustPolicy::Identifier(a)), (true, false));
        assert_eq!(accepts(TrustPolicy::identifiers([a, b])), (true, true));
        assert_eq!(accepts(TrustPolicy::identifiers([])), (false, false));
        assert_eq!(accepts(member.clone()), (true, true));
        assert_eq!(accepts(admin.clone()), (false, false));
        assert_eq!(
            accepts(TrustPolicy::All([TrustPolicy::Identifier(a), member].into())),
            (true, false)
        );
        assert_eq!(
            accepts(TrustPolicy::Any([TrustPolicy::Identifier(b), admin].into())),
            (false, true)
        );
    }
}

//! What the names of a policy stand for (spec 04, A1.3).

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};

/// A value that a name is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Text. Every attribute is text, also one that looks like a number.
    String(&'a str),
    /// Only `subject.has_credential`.
    Bool(bool),
}

/// Binds names to values.
pub trait Environment {
    /// The value of a name such as `subject.role`; `None` when nothing binds it.
    ///
    /// It must answer the same name in the same way during one evaluation.
    fn get(&self, name: &str) -> Option<Value<'_>>;
}

impl<E: Environment + ?Sized> Environment for &E {
    fn get(&self, name: &str) -> Option<Value<'_>> {
        (**self).get(name)
    }
}

/// Attributes of a credential: bytes to bytes, by exact name and without the prefix `subject.`.
pub trait AttributeSource {
    /// The value of one attribute.
    fn attribute(&self, name: &[u8]) -> Option<&[u8]>;
}

impl<A: AttributeSource + ?Sized> AttributeSource for &A {
    fn attribute(&self, name: &[u8]) -> Option<&[u8]> {
        (**self).attribute(name)
    }
}

/// No attributes.
impl AttributeSource for () {
    fn attribute(&self, _name: &[u8]) -> Option<&[u8]> {
        None
    }
}

impl<A: AttributeSource> AttributeSource for Option<A> {
    fn attribute(&self, name: &[u8]) -> Option<&[u8]> {
        self.as_ref()?.attribute(name)
    }
}

impl AttributeSource for BTreeMap<Vec<u8>, Vec<u8>> {
    fn attribute(&self, name: &[u8]) -> Option<&[u8]> {
        self.get(name).map(Vec::as_slice)
    }
}

impl<V: AsRef<[u8]>> AttributeSource for BTreeMap<String, V> {
    fn attribute(&self, name: &[u8]) -> Option<&[u8]> {
        self.get(std::str::from_utf8(name).ok()?).map(AsRef::as_ref)
    }
}

impl<V: AsRef<[u8]>, S: BuildHasher> AttributeSource for HashMap<Vec<u8>, V, S>
where
    Vec<u8>: Hash,
{
    fn attribute(&self, name: &[u8]) -> Option<&[u8]> {
        self.get(name).map(AsRef::as_ref)
    }
}

/// Pairs in any order; of two with one name the first counts.
impl<N: AsRef<[u8]>, V: AsRef<[u8]>> AttributeSource for [(N, V)] {
    fn attribute(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter()
            .find(|(candidate, _)| candidate.as_ref() == name)
            .map(|(_, value)| value.as_ref())
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> AttributeSource for Vec<(N, V)> {
    fn attribute(&self, name: &[u8]) -> Option<&[u8]> {
        self.as_slice().attribute(name)
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>, const COUNT: usize> AttributeSource for [(N, V); COUNT] {
    fn attribute(&self, name: &[u8]) -> Option<&[u8]> {
        self.as_slice().attribute(name)
    }
}

/// Attribute names with a built-in meaning. A credential that carries one is trying to pass for somebody else: the
/// attribute is not visible to policies, and an authority must refuse to issue it (difference D12).
pub const RESERVED_ATTRIBUTES: [&str; 2] = ["identifier", "has_credential"];

/// Whether an authority must refuse an attribute name. See [`RESERVED_ATTRIBUTES`].
pub fn is_reserved_attribute(name: &[u8]) -> bool {
    RESERVED_ATTRIBUTES
        .iter()
        .any(|reserved| reserved.as_bytes() == name)
}

pub(crate) const SUBJECT: &str = "subject.";
pub(crate) const IDENTIFIER: &str = "subject.identifier";
pub(crate) const HAS_CREDENTIAL: &str = "subject.has_credential";
pub(crate) const RESOURCE_ID: &str = "resource.id";
pub(crate) const ACTION_ID: &str = "action.id";

/// The environment of one decision: a peer, a resource and an action.
///
/// It borrows everything and copies nothing, so that one can be made for each message.
///
/// ```
/// use portolan_policy::{Decision, Policy, SubjectEnvironment};
///
/// let attributes = [("component", "web")];
/// let peer = SubjectEnvironment::new("Iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
///     .with_credential(true)
///     .with_attributes(&attributes)
///     .with_resource("outlet")
///     .with_action(portolan_policy::HANDLE_MESSAGE);
/// let policy = Policy::parse("component=web or component=database").unwrap();
/// assert_eq!(policy.evaluate(&peer), Decision::Allow);
/// ```
#[derive(Clone, Debug)]
pub struct SubjectEnvironment<'a, A = ()> {
    identifier: &'a str,
    has_credential: Option<bool>,
    attributes: A,
    resource: Option<&'a str>,
    action: Option<&'a str>,
}

impl<'a> SubjectEnvironment<'a> {
    /// A peer of which only the identifier is known: `I` and 64 lower-case hexadecimal digits.
    pub fn new(identifier: &'a str) -> Self {
        Self {
            identifier,
            has_credential: None,
            attributes: (),
            resource: None,
            action: None,
        }
    }
}

impl<'a, A: AttributeSource> SubjectEnvironment<'a, A> {
    /// Whether the peer has valid, unexpired attributes from the authority. `None`, the start value, when this node
    /// trusts no authority; `subject.has_credential` is then not bound.
    #[must_use]
    pub fn with_credential(self, has_credential: impl Into<Option<bool>>) -> Self {
        Self {
            has_credential: has_credential.into(),
            ..self
        }
    }

    /// The attributes of the peer's credential. They count only together with `with_credential(true)`.
    ///
    /// Names and values that are not UTF-8 are not visible; neither are [`RESERVED_ATTRIBUTES`].
    #[must_use]
    pub fn with_attributes<B: AttributeSource>(self, attributes: B) -> SubjectEnvironment<'a, B> {
        SubjectEnvironment {
            identifier: self.identifier,
            has_credential: self.has_credential,
            attributes,
            resource: self.resource,
            action: self.action,
        }
    }

    /// The name of the protected resource, such as `outlet`.
    #[must_use]
    pub fn with_resource(self, resource: &'a str) -> Self {
        Self {
            resource: Some(resource),
            ..self
        }
    }

    /// The action; there is one, [`HANDLE_MESSAGE`](crate::HANDLE_MESSAGE).
    #[must_use]
    pub fn with_action(self, action: &'a str) -> Self {
        Self {
            action: Some(action),
            ..self
        }
    }

    /// Reserved names that the credential carries nevertheless, for the log: somebody forges them.
    pub fn forged_attributes(&self) -> impl Iterator<Item = &'static str> + '_ {
        RESERVED_ATTRIBUTES
            .into_iter()
            .filter(|name| self.attributes.attribute(name.as_bytes()).is_some())
    }

    fn attribute(&self, name: &str) -> Option<&str> {
        if self.has_credential != Some(true) || self.is_shadowed(name) {
            return None;
        }
        std::str::from_utf8(self.attributes.attribute(name.as_bytes())?).ok()
    }

    /// Attributes that stock nodes ignore as well: those named like a complete name that is already bound.
    fn is_shadowed(&self, name: &str) -> bool {
        match name {
            RESOURCE_ID => self.resource.is_some(),
            ACTION_ID => self.action.is_some(),
            IDENTIFIER | HAS_CREDENTIAL => true,
            _ => name.strip_prefix(SUBJECT).is_some_and(|inner| {
                inner < name
                    && self
                        .attributes
                        .attribute(inner.as_bytes())
                        .is_some_and(|v| std::str::from_utf8(v).is_ok())
            }),
        }
    }
}

impl<A: AttributeSource> Environment for SubjectEnvironment<'_, A> {
    fn get(&self, name: &str) -> Option<Value<'_>> {
        match name {
            // Before the attributes: nothing that a credential says replaces what the channel proved.
            IDENTIFIER => Some(Value::String(self.identifier)),
            HAS_CREDENTIAL => self.has_credential.map(Value::Bool),
            RESOURCE_ID => self.resource.map(Value::String),
            ACTION_ID => self.action.map(Value::String),
            _ => self.attribute(name.strip_prefix(SUBJECT)?).map(Value::String),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "Iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn built_in_names_win_over_attributes() {
        let attributes = [
            ("identifier", "Ibbbb"),
            ("has_credential", "x"),
            ("role", "admin"),
        ];
        let peer = SubjectEnvironment::new(PEER)
            .with_credential(true)
            .with_attributes(&attributes);
        assert_eq!(peer.get("subject.identifier"), Some(Value::String(PEER)));
        assert_eq!(peer.get("subject.has_credential"), Some(Value::Bool(true)));
        assert_eq!(peer.get("subject.role"), Some(Value::String("admin")));
        assert_eq!(
            peer.forged_attributes().collect::<Vec<_>>(),
            ["identifier", "has_credential"]
        );
        assert!(is_reserved_attribute(b"identifier") && !is_reserved_attribute(b"role"));
    }

    #[test]
    fn without_an_authority_has_credential_is_not_bound_even_when_an_attribute_has_its_name() {
        let attributes = [("has_credential", "true")];
        let peer = SubjectEnvironment::new(PEER).with_attributes(&attributes);
        assert_eq!(peer.get("subject.has_credential"), None);
    }

    #[test]
    fn attributes_count_only_with_a_valid_credential() {
        let attributes = [("role", "admin")];
        let peer = SubjectEnvironment::new(PEER)
            .with_credential(false)
            .with_attributes(&attributes);
        assert_eq!(peer.get("subject.role"), None);
        assert_eq!(
            peer.with_credential(true).get("subject.role"),
            Some(Value::String("admin"))
        );
    }

    #[test]
    fn attributes_that_are_not_utf8_are_skipped() {
        let attributes = BTreeMap::from([
            (b"a".to_vec(), vec![0xff]),
            (vec![0xff], b"b".to_vec()),
            (vec![], b"c".to_vec()),
        ]);
        let peer = SubjectEnvironment::new(PEER)
            .with_credential(true)
            .with_attributes(&attributes);
        assert_eq!(peer.get("subject.a"), None);
        assert_eq!(peer.get("subject."), Some(Value::String("c")));
    }

    #[test]
    fn attributes_named_like_a_bound_name_are_ignored() {
        let attributes = [
            ("resource.id", "x"),
            ("action.id", "x"),
            ("subject.role", "x"),
            ("role", "admin"),
            ("subject.zone", "eu"),
        ];
        let peer = SubjectEnvironment::new(PEER)
            .with_credential(true)
            .with_attributes(&attributes)
            .with_resource("outlet");
        assert_eq!(peer.get("subject.resource.id"), None);
        assert_eq!(peer.get("subject.action.id"), Some(Value::String("x")));
        assert_eq!(peer.get("subject.subject.role"), None);
        assert_eq!(peer.get("subject.subject.zone"), Some(Value::String("eu")));
    }
}

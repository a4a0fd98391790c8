//! Policies: stored as text, compiled once, replaced while everything runs (spec 04 A1).
//!
//! A policy is bound to a resource by name, or to a type of resource; the one by name wins. [`Policies`] holds the compiled
//! ones and answers for a peer. [`Guard`](super::guard::Guard) asks it for each message and remembers the answer
//! until something changes.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use portolan_identity::attributes::RESERVED_NAMES;
use portolan_identity::{AttributeRepository, Identifier, MemoryAttributeRepository};
use portolan_policy::{
    DEFAULT_EXPRESSION, Decision, HANDLE_MESSAGE, Policy, ResourceType, Severity, SubjectEnvironment,
};
use portolan_runtime::PeerIdentifier;

use super::running::Running;
use crate::control::api::{PolicyStatus, PolicyTarget, RESOURCE_TYPES, SetPolicy};
use crate::error::{Error, Result};
use crate::state::{NodeDatabase, PolicySpec};

/// The policies of a node, and what is known of peers: everything that a decision depends on.
pub(crate) struct Policies {
    table: RwLock<Table>,
    attributes: Arc<MemoryAttributeRepository>,
    /// Different after every change of [`Table`].
    generation: AtomicU64,
}

#[derive(Default)]
struct Table {
    types: HashMap<ResourceType, Compiled>,
    resources: HashMap<String, Compiled>,
    /// Whose credentials count. `None`: the node belongs to no project.
    authority: Option<Identifier>,
}

struct Compiled {
    /// As stored.
    text: String,
    /// The default, which nobody has set.
    by_default: bool,
    /// What a policy that cannot be read says: nobody passes, for this reason.
    policy: std::result::Result<Policy, String>,
}

impl Compiled {
    fn stored(text: &str, by_owner: bool) -> Self {
        Self {
            text: text.to_owned(),
            by_default: !by_owner && text == DEFAULT_EXPRESSION,
            policy: Policy::parse_stored(text).map_err(|error| error.to_string()),
        }
    }
}

/// Whose credentials count for a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Issuer {
    /// The authority of the project that the node belongs to at that moment.
    OfNode,
    /// This authority, because the resource leads into another project.
    This(Identifier),
}

/// An allowance, and until when it holds if nothing changes meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// UTC seconds.
    pub(crate) until: u64,
    /// Nothing protects the resource: the node belongs to no project and nobody gave it a policy.
    pub(crate) unprotected: bool,
}

/// Numbers that are different after every change of what decisions depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation {
    policies: u64,
    attributes: u64,
}

impl Policies {
    /// No policies, no authority.
    pub(crate) fn new(attributes: Arc<MemoryAttributeRepository>) -> Self {
        Self {
            table: RwLock::default(),
            attributes,
            generation: AtomicU64::new(0),
        }
    }

    /// Read what is stored, and store the default for each type of which nothing is stored. Policies that the user has set
    /// stay as they are.
    pub(crate) fn restore(&self, database: &NodeDatabase) -> Result<()> {
        let stored = database.policies()?;
        // Workers have no default: until somebody says who else may reach one, only this node does.
        for kind in RESOURCE_TYPES.into_iter().filter(|kind| *kind != "worker") {
            let target = PolicyTarget::Type(kind.to_owned());
            if stored.iter().all(|policy| policy.target != target) {
                let expression = DEFAULT_EXPRESSION.to_owned();
                database.put_policy(&PolicySpec {
                    target,
                    expression,
                    by_owner: false,
                })?;
            }
        }
        for policy in database.policies()? {
            let compiled = Compiled::stored(&policy.expression, policy.by_owner);
            if let Err(reason) = &compiled.policy {
                tracing::error!(target = ?policy.target, "a stored policy cannot be read and denies everybody: {reason}");
            }
            self.insert(&policy.target, compiled)?;
        }
        Ok(())
    }

    fn insert(&self, target: &PolicyTarget, compiled: Compiled) -> Result<()> {
        let mut table = self.table.write();
        match target {
            PolicyTarget::Type(name) => {
                table.types.insert(resource_type(name)?, compiled);
            }
            PolicyTarget::Resource(name) => {
                table.resources.insert(name.clone(), compiled);
            }
        }
        self.changed();
        Ok(())
    }

    /// Called with the lock held, so that whoever sees the new state sees the new number too.
    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// From now on credentials of this authority count.
    pub(crate) fn set_authority(&self, authority: Option<Identifier>) {
        let mut table = self.table.write();
        table.authority = authority;
        self.changed();
    }

    /// The authority of the node's project.
    pub(crate) fn authority(&self) -> Option<Identifier> {
        self.table.read().authority
    }

    /// What was credited to peers.
    pub(crate) fn attributes(&self) -> &Arc<MemoryAttributeRepository> {
        &self.attributes
    }

    /// Check, store and use a policy that a user typed.
    pub(crate) fn set(
        &self,
        database: &NodeDatabase,
        target: &PolicyTarget,
        expression: &str,
    ) -> Result<PolicyStatus> {
        let status = checked(target, expression)?;
        database.put_policy(&PolicySpec {
            target: target.clone(),
            expression: status.expression.clone(),
            by_owner: true,
        })?;
        self.insert(target, Compiled::stored(&status.expression, true))?;
        tracing::info!(target = ?target, expression = status.expression, "policy set");
        Ok(status)
    }

    /// Undo a [`set`](Self::set) for a resource that could not be made after all: the policy that it had before counts
    /// again, if it had one.
    pub(crate) fn put_back(
        &self,
        database: &NodeDatabase,
        target: &PolicyTarget,
        before: Option<PolicyStatus>,
    ) -> Result<()> {
        let Some(before) = before else {
            return self.delete(database, target).map(|_| ());
        };
        database.put_policy(&PolicySpec {
            target: target.clone(),
            expression: before.expression.clone(),
            by_owner: true,
        })?;
        self.insert(target, Compiled::stored(&before.expression, true))
    }

    /// Forget a policy; whether there was one.
    pub(crate) fn delete(&self, database: &NodeDatabase, target: &PolicyTarget) -> Result<bool> {
        let stored = database.delete_policy(target)?;
        let mut table = self.table.write();
        let known = match target {
            PolicyTarget::Type(name) => table.types.remove(&resource_type(name)?).is_some(),
            PolicyTarget::Resource(name) => table.resources.remove(name).is_some(),
        };
        self.changed();
        Ok(stored || known)
    }

    /// All policies: those of types, then those of resources, sorted.
    pub(crate) fn list(&self) -> Vec<PolicyStatus> {
        let table = self.table.read();
        let types = table
            .types
            .iter()
            .map(|(kind, policy)| (PolicyTarget::Type(kind.to_string()), policy));
        let resources = table
            .resources
            .iter()
            .map(|(name, policy)| (PolicyTarget::Resource(name.clone()), policy));
        let mut all: Vec<_> = types
            .chain(resources)
            .map(|(target, policy)| status(target, policy))
            .collect();
        all.sort_by(|a, b| a.target.cmp(&b.target));
        all
    }

    /// One policy.
    pub(crate) fn get(&self, target: &PolicyTarget) -> Option<PolicyStatus> {
        let table = self.table.read();
        let policy = match target {
            PolicyTarget::Type(name) => table.types.get(&ResourceType::from_str(name).ok()?),
            PolicyTarget::Resource(name) => table.resources.get(name),
        }?;
        Some(status(target.clone(), policy))
    }

    /// The expression that decides about a resource; `None` if nobody passes. `(= true true)` stands for "everybody",
    /// where the node belongs to no project and the user has set no policy.
    pub(crate) fn in_force(&self, kind: ResourceType, resource: &str, issuer: Issuer) -> Option<String> {
        let table = self.table.read();
        match table.effective(kind, resource, table.issuer(issuer)) {
            Effective::Everybody => Some("(= true true)".to_owned()),
            Effective::Nobody => None,
            Effective::Policy(policy) => Some(policy.text.clone()),
        }
    }

    /// Different after every change by which somebody may have lost a right.
    pub(crate) fn losses(&self) -> (u64, u64) {
        (self.generation.load(Ordering::Acquire), self.attributes.losses())
    }

    /// Take it before [`decide`](Self::decide): the decision holds as long as it stays.
    pub(crate) fn generation(&self) -> Generation {
        Generation {
            policies: self.generation.load(Ordering::Acquire),
            attributes: self.attributes.generation(),
        }
    }

    /// Decide about a peer at a resource; the reason, if not (04 D13).
    pub(crate) fn decide(
        &self,
        kind: ResourceType,
        resource: &str,
        issuer: Issuer,
        peer: Option<&PeerIdentifier>,
        now: u64,
    ) -> std::result::Result<Allowed, String> {
        let table = self.table.read();
        let authority = table.issuer(issuer);
        let compiled = match table.effective(kind, resource, authority) {
            Effective::Everybody => {
                return Ok(Allowed {
                    until: u64::MAX,
                    unprotected: true,
                });
            }
            Effective::Nobody => {
                return Err(format!(
                    "there is no policy for {kind} `{resource}`, so nobody may pass"
                ));
            }
            Effective::Policy(compiled) => compiled,
        };
        let policy = compiled
            .policy
            .as_ref()
            .map_err(|reason| format!("the policy for {kind} `{resource}` cannot be read: {reason}"))?;
        let Some(peer) = peer else {
            return Err(format!(
                "the policy for {kind} `{resource}` needs a secure channel, and there is none"
            ));
        };
        let peer_text = peer.to_string();
        let attributes =
            authority.and_then(|authority| self.attributes.get(&Identifier::from(peer.0), &authority, now));
        let environment = SubjectEnvironment::new(&peer_text)
            .with_credential(authority.map(|_| attributes.is_some()))
            .with_attributes(attributes.as_ref().map(|known| known.attributes.map()))
            .with_resource(resource)
            .with_action(HANDLE_MESSAGE);
        match policy.evaluate(&environment) {
            Decision::Allow => Ok(Allowed {
                until: attributes
                    .as_ref()
                    .and_then(|known| known.expires_at)
                    .unwrap_or(u64::MAX),
                unprotected: false,
            }),
            Decision::Deny(reason) => {
                let credential = match (authority, &attributes) {
                    (Some(_), None) => " (it has no valid credential of this project)",
                    _ => "",
                };
                Err(format!(
                    "the policy for {kind} `{resource}` denies {peer_text}{credential}: {reason}"
                ))
            }
        }
    }

    /// What the authority that counts for a resource says of a peer: names and values that are text. Names that policies bind
    /// themselves are not among them, whatever a credential says.
    pub(crate) fn attributes_of(
        &self,
        issuer: Issuer,
        peer: &PeerIdentifier,
        now: u64,
    ) -> Vec<(String, String)> {
        let Some(authority) = self.table.read().issuer(issuer) else {
            return Vec::new();
        };
        let Some(known) = self.attributes.get(&Identifier::from(peer.0), &authority, now) else {
            return Vec::new();
        };
        let pairs = known.attributes.map().iter();
        pairs
            .filter(|(name, _)| !RESERVED_NAMES.contains(&name.as_slice()))
            .filter_map(|(name, value)| {
                let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).ok();
                Some((text(name)?, text(value)?))
            })
            .collect()
    }

    /// Whether the node's authority says of a peer that it may register the relay `name` (03 §2.1). Without authority,
    /// everybody may.
    pub(crate) fn may_register(
        &self,
        peer: Option<&PeerIdentifier>,
        name: &str,
        now: u64,
    ) -> std::result::Result<(), String> {
        let Some(authority) = self.authority() else {
            return Ok(());
        };
        let peer = peer.ok_or("registering a relay here needs a secure channel")?;
        let known = self
            .attributes
            .get(&Identifier::from(peer.0), &authority, now)
            .ok_or("you have no valid credential of this project")?;
        let attribute = portolan_relay::protocol::ATTRIBUTE;
        match known.attributes.get(attribute) {
            Some(right) if right == b"*" || right == name.as_bytes() => Ok(()),
            Some(_) => Err(format!(
                "your credential allows another relay than this one (attribute {attribute})"
            )),
            None => Err(format!(
                "your credential does not allow relays (attribute {attribute})"
            )),
        }
    }

    /// Whether the node's authority has credited anything to a peer. Without authority, everybody counts.
    pub(crate) fn has_credential(&self, peer: Option<&PeerIdentifier>, now: u64) -> Option<u64> {
        let Some(authority) = self.authority() else {
            return Some(u64::MAX);
        };
        let known = self.attributes.get(&Identifier::from(peer?.0), &authority, now)?;
        Some(known.expires_at.unwrap_or(u64::MAX))
    }
}

impl Running {
    /// All policies.
    pub(crate) fn list_policies(&self) -> Vec<PolicyStatus> {
        self.core.policies.list()
    }

    /// One policy.
    pub(crate) fn policy(&self, target: &PolicyTarget) -> Result<PolicyStatus> {
        self.core.policies.get(target).ok_or_else(|| unknown(target))
    }

    /// Set a policy; it counts at once, on open portals too.
    pub(crate) fn set_policy(&self, request: &SetPolicy) -> Result<PolicyStatus> {
        self.core
            .policies
            .set(self.node.database(), &request.target, &request.expression)
    }

    /// Forget a policy. Without policy, a resource is closed, unless its type has one.
    pub(crate) fn delete_policy(&self, target: &PolicyTarget) -> Result<()> {
        if self.core.policies.delete(self.node.database(), target)? {
            Ok(())
        } else {
            Err(unknown(target))
        }
    }
}

fn unknown(target: &PolicyTarget) -> Error {
    Error::not_found(match target {
        PolicyTarget::Type(name) => format!("this node has no policy for the type `{name}`"),
        PolicyTarget::Resource(name) => format!("this node has no policy for the resource `{name}`"),
    })
}

enum Effective<'a> {
    Everybody,
    Nobody,
    Policy(&'a Compiled),
}

impl Table {
    fn issuer(&self, issuer: Issuer) -> Option<Identifier> {
        match issuer {
            Issuer::OfNode => self.authority,
            Issuer::This(authority) => Some(authority),
        }
    }

    fn effective(&self, kind: ResourceType, resource: &str, authority: Option<Identifier>) -> Effective<'_> {
        if let Some(policy) = self.resources.get(resource) {
            return Effective::Policy(policy);
        }
        match self.types.get(&kind) {
            // The default asks for a credential, which nobody can have where no authority is trusted. Without project and
            // without a policy of the user's, a node is open, as the reference is (04 A1.2).
            Some(policy) if authority.is_none() && policy.by_default => Effective::Everybody,
            Some(policy) => Effective::Policy(policy),
            None => Effective::Nobody,
        }
    }
}

fn status(target: PolicyTarget, policy: &Compiled) -> PolicyStatus {
    let unreadable = policy.policy.as_ref().err();
    PolicyStatus {
        target,
        expression: policy.text.clone(),
        warnings: unreadable
            .map(|reason| format!("it cannot be read and denies everybody: {reason}"))
            .into_iter()
            .collect(),
    }
}

fn resource_type(name: &str) -> Result<ResourceType> {
    ResourceType::from_str(name)
        .ok()
        .filter(|_| RESOURCE_TYPES.contains(&name))
        .ok_or_else(|| {
            Error::invalid(format!("`{name}` is not a resource type"))
                .hint(format!("use one of {}", RESOURCE_TYPES.join(", ")))
        })
}

/// Parse and check what a user typed (04 D1–D10, D14): errors refuse, warnings are told.
pub(crate) fn checked(target: &PolicyTarget, expression: &str) -> Result<PolicyStatus> {
    if let PolicyTarget::Type(name) = target {
        resource_type(name)?;
    }
    let policy = Policy::parse(expression).map_err(|error| Error::invalid(error.to_string()))?;
    let findings = policy.check();
    if let Some(finding) = findings
        .iter()
        .find(|finding| finding.severity == Severity::Error)
    {
        let error = Error::invalid(format!(
            "the policy can never work: {} in {}",
            finding.message, finding.expression
        ));
        return Err(match &finding.suggestion {
            Some(suggestion) => error.hint(format!("did you mean {suggestion}")),
            None => error,
        });
    }
    Ok(PolicyStatus {
        target: target.clone(),
        expression: policy.to_string(),
        warnings: findings.iter().map(|finding| finding.message.clone()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_identity::Attributes;

    const NOW: u64 = 1000;

    fn peer() -> PeerIdentifier {
        PeerIdentifier([7; 32])
    }

    fn authority() -> Identifier {
        Identifier::from([9; 32])
    }

    fn policies() -> Policies {
        let policies = Policies::new(Arc::default());
        for kind in RESOURCE_TYPES {
            let target = PolicyTarget::Type(kind.into());
            policies
                .insert(&target, Compiled::stored(DEFAULT_EXPRESSION, false))
                .unwrap();
        }
        policies
    }

    fn allows(policies: &Policies, peer: Option<&PeerIdentifier>) -> std::result::Result<(), String> {
        policies
            .decide(ResourceType::TcpOutlet, "outlet", Issuer::OfNode, peer, NOW)
            .map(|_| ())
    }

    #[test]
    fn without_project_and_policy_a_node_is_open_and_with_either_it_is_not() {
        let policies = policies();
        assert_eq!(allows(&policies, None), Ok(()));
        policies
            .insert(
                &PolicyTarget::Resource("outlet".into()),
                Compiled::stored("(= subject.identifier \"Ix\")", true),
            )
            .unwrap();
        assert!(allows(&policies, None).is_err());
        let policies = self::policies();
        policies.set_authority(Some(authority()));
        assert!(allows(&policies, None).is_err());
        assert!(
            allows(&policies, Some(&peer()))
                .unwrap_err()
                .contains("no valid credential")
        );
    }

    #[test]
    fn the_default_that_the_owner_has_written_is_no_default_any_more() {
        let policies = policies();
        let target = PolicyTarget::Type("tcp-outlet".into());
        policies
            .insert(&target, Compiled::stored(DEFAULT_EXPRESSION, true))
            .unwrap();
        assert!(allows(&policies, None).is_err());
        assert!(allows(&policies, Some(&peer())).is_err());
    }

    #[test]
    fn a_policy_by_name_replaces_the_one_of_the_type_and_changes_count_at_once() {
        let policies = policies();
        policies.set_authority(Some(authority()));
        let attributes = Attributes::from_pairs([("app", "web")]).unwrap();
        policies
            .attributes
            .put(
                &Identifier::from(peer().0),
                attributes,
                &authority(),
                NOW,
                Some(NOW + 5),
            )
            .unwrap();
        assert_eq!(allows(&policies, Some(&peer())), Ok(()));
        let before = policies.generation();
        let target = PolicyTarget::Resource("outlet".into());
        let set = |text: &str| {
            let status = checked(&target, text).unwrap();
            policies
                .insert(&target, Compiled::stored(&status.expression, true))
                .unwrap();
        };
        set("app=db");
        assert_ne!(before, policies.generation());
        assert!(allows(&policies, Some(&peer())).unwrap_err().contains("is false"));
        set("app=web");
        assert_eq!(
            policies.decide(
                ResourceType::TcpOutlet,
                "outlet",
                Issuer::OfNode,
                Some(&peer()),
                NOW
            ),
            Ok(Allowed {
                until: NOW + 5,
                unprotected: false
            })
        );
        assert!(
            policies
                .decide(
                    ResourceType::TcpOutlet,
                    "outlet",
                    Issuer::OfNode,
                    Some(&peer()),
                    NOW + 5
                )
                .is_err()
        );
    }

    #[test]
    fn a_relay_name_needs_the_attribute_for_it() {
        let policies = policies();
        assert_eq!(policies.may_register(None, "a", NOW), Ok(()));
        policies.set_authority(Some(authority()));
        let grant = |value: &str| {
            let attributes = Attributes::from_pairs([("ockam-relay", value)]).unwrap();
            let peer = Identifier::from(peer().0);
            policies
                .attributes
                .put(&peer, attributes, &authority(), NOW, None)
                .unwrap();
            policies.may_register(Some(&self::peer()), "a", NOW).is_ok()
        };
        assert!(grant("a"));
        assert!(!grant("ab"));
        assert!(grant("*"));
        assert!(policies.may_register(None, "a", NOW).is_err());
    }

    #[test]
    fn what_a_user_types_is_checked_and_stored_as_s_expression() {
        let target = PolicyTarget::Type("tcp-outlet".into());
        assert_eq!(
            checked(&target, "app=web").unwrap().expression,
            "(= subject.app \"web\")"
        );
        assert!(checked(&target, "a.b or").is_err());
        assert!(checked(&target, "(= subject.level 3)").is_err());
        assert!(checked(&PolicyTarget::Type("tcp_outlet".into()), "a").is_err());
    }

    #[test]
    fn type_policies_that_the_user_set_survive_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::state::Home::at(folder.path()).unwrap();
        let spec = crate::state::NodeSpec {
            name: "n1".into(),
            identity: "default".into(),
            project: None,
            tcp_listener_address: "127.0.0.1:0".into(),
            role: crate::state::NodeRole::Node,
            created_at: 1,
        };
        let node = home.node_folder("n1").unwrap().create(&spec).unwrap();
        let target = PolicyTarget::Type("tcp-outlet".into());
        let first = Policies::new(Arc::default());
        first.restore(node.database()).unwrap();
        first.set(node.database(), &target, "app=web").unwrap();
        let second = Policies::new(Arc::default());
        second.restore(node.database()).unwrap();
        assert_eq!(second.get(&target).unwrap().expression, "(= subject.app \"web\")");
        assert_eq!(
            second.list().len(),
            RESOURCE_TYPES.len() - 1,
            "workers have no default"
        );
        // A resource that could not be made leaves the policy as it was.
        let before = second.get(&target);
        second.set(node.database(), &target, "other").unwrap();
        second.put_back(node.database(), &target, before).unwrap();
        let third = Policies::new(Arc::default());
        third.restore(node.database()).unwrap();
        for policies in [&second, &third] {
            assert_eq!(
                policies.get(&target).unwrap().expression,
                "(= subject.app \"web\")"
            );
        }
        assert!(second.delete(node.database(), &target).unwrap());
        assert!(!second.delete(node.database(), &target).unwrap());
    }
}

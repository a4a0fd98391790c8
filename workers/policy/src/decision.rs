//! What a policy says about a peer, and why (difference D13).

use std::fmt::{self, Display, Formatter};

use crate::environment::{Environment, HAS_CREDENTIAL, SUBJECT, Value};
use crate::expression::Node;
use crate::policy::Policy;

/// The answer of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// The message may pass.
    Allow,
    /// It may not.
    Deny(Reason),
}

impl Decision {
    /// Whether the message may pass.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow)
    }

    /// Why it may not.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Decision::Allow => None,
            Decision::Deny(reason) => Some(reason),
        }
    }
}

impl Display for Decision {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Allow => f.write_str("allowed"),
            Decision::Deny(reason) => write!(f, "denied: {reason}"),
        }
    }
}

/// The kind of a denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The policy is false for this peer.
    False,
    /// A name without value decides, usually an attribute that the peer lacks.
    Missing,
    /// The policy has a value that is neither true nor false.
    NotBoolean,
    /// Values of different types were compared.
    TypeClash,
    /// An operator got an operand of a type that it does not take.
    WrongOperand,
    /// An operator got too many or too few operands.
    WrongArity,
    /// A list starts with a name that is no operator.
    UnknownOperator,
    /// A list starts with something that is no name.
    NotAnOperator,
}

impl Cause {
    /// A short, stable word, for the label of a counter.
    pub fn label(self) -> &'static str {
        match self {
            Cause::False => "false",
            Cause::Missing => "missing",
            Cause::NotBoolean => "not-boolean",
            Cause::TypeClash => "type-clash",
            Cause::WrongOperand => "wrong-operand",
            Cause::WrongArity => "wrong-arity",
            Cause::UnknownOperator => "unknown-operator",
            Cause::NotAnOperator => "not-an-operator",
        }
    }

    /// Whether the policy itself is at fault, whoever the peer is.
    pub fn is_defect(self) -> bool {
        !matches!(self, Cause::False | Cause::Missing)
    }
}

/// How much of a sub-expression a message shows, in characters.
const SHOWN: usize = 200;

/// How many names an explanation lists.
const MAX_BINDINGS: usize = 32;

/// Why a policy denied: the cause and the sub-expression.
///
/// It holds the policy, not a copy of its text, so that a denial costs nothing until somebody prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    cause: Cause,
    policy: Policy,
    at: u32,
}

impl Reason {
    pub(crate) fn new(cause: Cause, policy: &Policy, at: u32) -> Self {
        Self {
            cause,
            policy: policy.clone(),
            at,
        }
    }

    /// The kind of the denial.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The name without value, such as `subject.role`, when the cause is [`Cause::Missing`].
    pub fn missing(&self) -> Option<&str> {
        match (self.cause, self.policy.expression().node(self.at)) {
            (Cause::Missing, Node::Name(name)) => Some(name),
            _ => None,
        }
    }

    /// The sub-expression that decided, at most 200 characters of it.
    pub fn sub_expression(&self) -> String {
        let expression = self.policy.expression();
        let at = if self.cause == Cause::Missing {
            expression.enclosing_list(self.at)
        } else {
            self.at
        };
        expression.excerpt(at, SHOWN)
    }
}

impl Display for Reason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let part = self.sub_expression();
        match self.cause {
            Cause::False => write!(f, "{part} is false"),
            Cause::Missing => match self.missing() {
                Some(HAS_CREDENTIAL) => write!(
                    f,
                    "this node trusts no authority, so nothing is known about credentials, in {part}"
                ),
                Some(name) => match name.strip_prefix(SUBJECT) {
                    Some(attribute) => write!(
                        f,
                        "the peer has no attribute `{}`, in {part}",
                        attribute.escape_debug()
                    ),
                    None => write!(f, "nothing binds the name `{}`, in {part}", name.escape_debug()),
                },
                None => write!(f, "a value is missing in {part}"),
            },
            Cause::NotBoolean => write!(f, "{part} is neither true nor false"),
            Cause::TypeClash => write!(
                f,
                "type clash at {part}: values of different types do not compare"
            ),
            Cause::WrongOperand => write!(f, "an operand is of the wrong type at {part}"),
            Cause::WrongArity => write!(f, "wrong number of operands at {part}"),
            Cause::UnknownOperator => write!(f, "unknown operator at {part}"),
            Cause::NotAnOperator => write!(f, "a list must start with an operator at {part}"),
        }
    }
}

/// A decision together with the values that led to it, for a person. `Display` takes several lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    policy: Policy,
    decision: Decision,
    bindings: Vec<Binding>,
}

/// A name of the policy and what it stood for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// As written in the policy, such as `subject.role`.
    pub name: String,
    /// As it would be written in a policy, such as `"admin"` or `true`; `None` when nothing binds the name.
    pub value: Option<String>,
}

impl Explanation {
    pub(crate) fn new<E: Environment + ?Sized>(policy: &Policy, environment: &E) -> Self {
        let mut bindings: Vec<Binding> = Vec::new();
        for name in policy.names() {
            if bindings.len() == MAX_BINDINGS {
                break;
            }
            if bindings.iter().all(|binding| binding.name != name) {
                let value = environment.get(name).map(|value| match value {
                    Value::Bool(value) => value.to_string(),
                    Value::String(text) => crate::print::quoted(text),
                });
                bindings.push(Binding {
                    name: name.to_owned(),
                    value,
                });
            }
        }
        Self {
            policy: policy.clone(),
            decision: policy.evaluate(environment),
            bindings,
        }
    }

    /// What the policy said.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The names of the policy with their values, each once, in the order in which they are written; the first 32.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }
}

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n  policy: {}",
            self.decision,
            self.policy.expression().excerpt(0, 4 * SHOWN)
        )?;
        for Binding { name, value } in &self.bindings {
            let name = name.escape_debug();
            match value {
                Some(value) => write!(f, "\n  {name} is {value}")?,
                None => write!(f, "\n  {name} has no value")?,
            }
        }
        Ok(())
    }
}

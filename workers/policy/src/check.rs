//! Mistakes that parse (differences D1, D7–D10, D14).
//!
//! A policy that can never be decided denies in silence. Whoever creates one wants to know before they wonder why nobody
//! gets in. The checks run over the translated expression: first types and constants from the leaves to the root, then
//! the findings in the order of the text.

mod operands;

use std::fmt::{self, Display, Formatter};

use crate::environment::{ACTION_ID, Environment, HAS_CREDENTIAL, IDENTIFIER, RESOURCE_ID, SUBJECT, Value};
use crate::evaluate;
use crate::expression::{Expression, Head, Node};
use crate::lexer;
use crate::limits::STOCK_MAX_LEVELS;
use crate::operand::{Kind, Operand};
use crate::operator::Operator;
use crate::policy::{Form, Policy};
use crate::print::quoted;

/// How many findings are reported for one policy: half of them errors, half of them warnings.
pub const MAX_FINDINGS: usize = 20;

/// Longest sub-expression and suggestion in a finding, in characters.
const SHOWN: usize = 400;

/// What to do with a policy that has a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It does what it says, though maybe not what was meant: create it and tell.
    Warning,
    /// It cannot work: refuse it.
    Error,
}

/// Something that whoever creates a policy should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether to refuse the policy.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// The sub-expression that it is about, as it would be stored.
    pub expression: String,
    /// The whole policy as it was probably meant, to be typed instead.
    pub suggestion: Option<String>,
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}\n  in: {}", self.message, self.expression)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "\n  did you mean: {suggestion}"),
            None => Ok(()),
        }
    }
}

pub(crate) fn check(policy: &Policy) -> Vec<Finding> {
    let expression = policy.expression();
    let size = expression.size() as usize;
    let mut checker = Checker {
        expression,
        facts: vec![Fact::default(); size],
        dead: vec![false; size],
        skipped: vec![false; size],
        findings: Vec::new(),
    };
    for at in (0..expression.size()).rev() {
        checker.facts[at as usize] = checker.fact(at);
    }
    for name in policy.stock_negations() {
        let rest = &name["not".len()..];
        let message = format!(
            "`{name}` is the attribute of that name; stock 0.150 nodes read this text as `not {rest}`, so give them the \
             stored S-expression"
        );
        checker.report(Severity::Warning, 0, message, None);
    }
    if policy.levels() > STOCK_MAX_LEVELS {
        let message = format!(
            "nested {} levels deep; more than {STOCK_MAX_LEVELS} crash a stock 0.150 node",
            policy.levels()
        );
        checker.report(Severity::Warning, 0, message, None);
    }
    checker.root();
    for at in 0..expression.size() {
        if checker.is_full(Severity::Error) {
            break;
        }
        checker.node(at, policy.form());
    }
    checker.findings
}

/// What is known of a sub-expression without a peer.
#[derive(Clone, Copy, Default)]
struct Fact {
    /// Its type; `None` where a mistake inside makes it unknowable.
    kind: Option<Kind>,
    /// Its value, if that is always the same boolean.
    constant: Option<bool>,
}

struct Checker<'a> {
    expression: &'a Expression,
    facts: Vec<Fact>,
    /// Never evaluated, because of a constant before it.
    dead: Vec<bool>,
    /// Names that are no values: heads of lists and the operands of `exists?`.
    skipped: Vec<bool>,
    findings: Vec<Finding>,
}

/// Binds nothing; for parts without names.
struct Nothing;

impl Environment for Nothing {
    fn get(&self, _name: &str) -> Option<Value<'_>> {
        None
    }
}

/// Whether some peer, resource and action bind the name.
fn is_bindable(name: &str) -> bool {
    name.starts_with(SUBJECT) || name == RESOURCE_ID || name == ACTION_ID
}

impl Checker<'_> {
    fn fact(&self, at: u32) -> Fact {
        let kind = |kind| Fact {
            kind: Some(kind),
            constant: None,
        };
        match self.expression.node(at) {
            Node::Text(_) => kind(Kind::Text),
            Node::Integer(_) => kind(Kind::Integer),
            Node::Float(_) => kind(Kind::Float),
            Node::Boolean(value) => Fact {
                kind: Some(Kind::Boolean),
                constant: Some(*value),
            },
            Node::Name(name) if is_bindable(name) => kind(Kind::of_unbound(name)),
            Node::Sequence { .. } => kind(Kind::Sequence),
            Node::List {
                head: Head::Empty, ..
            } => kind(Kind::Unit),
            Node::List {
                head: Head::Operator(operator),
                len,
                ..
            } => {
                let operands: Vec<u32> = self.operands(at).collect();
                let correct = operator.arity().allows(len - 1);
                Fact {
                    kind: match (operator, &operands[..]) {
                        (Operator::If, [_, yes, no]) => {
                            self.kind(*yes).zip(self.kind(*no)).map(|(a, b)| a.join(b))
                        }
                        _ => Some(Kind::Boolean),
                    },
                    constant: if correct {
                        self.constant_of(at, *operator, &operands)
                    } else {
                        None
                    },
                }
            }
            Node::Name(_) | Node::List { .. } => Fact::default(),
        }
    }

    fn constant_of(&self, at: u32, operator: Operator, operands: &[u32]) -> Option<bool> {
        let constant = |operand: &u32| self.facts[*operand as usize].constant;
        let lazy = |decisive: bool| {
            if operands.iter().any(|operand| constant(operand) == Some(decisive)) {
                return Some(decisive);
            }
            operands
                .iter()
                .all(|operand| constant(operand).is_some())
                .then_some(!decisive)
        };
        match (operator, operands) {
            (Operator::And, _) => lazy(false),
            (Operator::Or, _) => lazy(true),
            (Operator::Not, [operand]) => constant(operand).map(|value| !value),
            (Operator::If, [test, yes, no]) => constant(if constant(test)? { yes } else { no }),
            (Operator::Exists, []) => Some(true),
            (Operator::Exists, _) => None,
            _ => {
                let literal = |operand: &u32| Operand::of_literal(self.expression.node(*operand)).is_some();
                if !operands.iter().all(literal) {
                    return None;
                }
                match evaluate::evaluate_at(self.expression, at, &Nothing).ok()?.value {
                    Operand::Boolean(value) => Some(value),
                    _ => None,
                }
            }
        }
    }

    fn kind(&self, at: u32) -> Option<Kind> {
        self.facts[at as usize].kind
    }

    /// The elements of a list after its operator.
    fn operands(&self, list: u32) -> impl Iterator<Item = u32> + use<'_> {
        self.expression.children(list).skip(1)
    }

    fn report(&mut self, severity: Severity, at: u32, message: String, suggestion: Option<String>) {
        let (severity, message) = if self.dead[at as usize] {
            (
                Severity::Warning,
                format!("{message} (in a part that is never evaluated)"),
            )
        } else {
            (severity, message)
        };
        if self.is_full(severity) {
            return;
        }
        let expression = self.expression.excerpt(at, SHOWN);
        self.findings.push(Finding {
            severity,
            message,
            expression,
            suggestion,
        });
    }

    /// Each severity has half of the places, so that warnings cannot hide an error.
    fn is_full(&self, severity: Severity) -> bool {
        let found = self
            .findings
            .iter()
            .filter(|finding| finding.severity == severity);
        found.count() >= MAX_FINDINGS / 2
    }

    fn error(&mut self, at: u32, message: String, suggestion: Option<String>) {
        self.report(Severity::Error, at, message, suggestion);
    }

    fn warn(&mut self, at: u32, message: impl Into<String>) {
        self.report(Severity::Warning, at, message.into(), None);
    }

    /// The policy with another text in place of a sub-expression, if that makes a short policy.
    fn instead_of(&self, at: u32, replacement: &str) -> Option<String> {
        if self.is_full(Severity::Error) {
            return None;
        }
        self.expression
            .with_replacement(at, replacement, SHOWN)
            .filter(|text| Policy::parse(text).is_ok())
    }

    fn root(&mut self) {
        // `and` and `or` say themselves which operand is not boolean.
        let says_so = matches!(
            self.expression.node(0),
            Node::List {
                head: Head::Operator(Operator::And | Operator::Or),
                ..
            }
        );
        if let Some(kind) = self.kind(0).filter(|kind| *kind != Kind::Boolean && !says_so) {
            self.error(
                0,
                format!(
                    "the policy must be true or false, but this is {}",
                    operands::describe(kind)
                ),
                None,
            );
        }
        match self.facts[0].constant {
            Some(true) => self.warn(0, "this allows every peer, also one without a credential"),
            Some(false) => self.warn(0, "this denies every peer"),
            None => {}
        }
    }

    fn node(&mut self, at: u32, form: Form) {
        match self.expression.node(at) {
            Node::List {
                head: Head::Operator(operator),
                len,
                ..
            } => {
                self.skipped[at as usize + 1] = true;
                if form == Form::Boolean && *operator == Operator::Equal && self.boolean_term(at) {
                    return;
                }
                if !operator.arity().allows(len - 1) {
                    let message = format!("`{operator}` takes {}, not {}", operator.arity(), len - 1);
                    self.error(at, message, None);
                    // Which operands were meant is anybody's guess.
                    let operands: Vec<u32> = self.operands(at).collect();
                    operands
                        .into_iter()
                        .for_each(|operand| self.skipped[operand as usize] = true);
                    return;
                }
                let operands: Vec<u32> = self.operands(at).collect();
                self.operator(at, *operator, &operands);
            }
            Node::List {
                head: Head::Unknown, ..
            } => {
                self.skipped[at as usize + 1] = true;
                self.unknown_operator(at);
            }
            Node::List {
                head: Head::NotName, ..
            } => {
                let message =
                    "a list must start with an operator: are there parentheses too many?".to_owned();
                self.error(at, message, None);
            }
            Node::Name(name) => self.name(at, name),
            Node::Text(text)
                if text.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) =>
            {
                self.warn(at, "a stock 0.150 node reads this string but damages its control characters when it stores it");
            }
            Node::Float(value) if value.is_nan() => self.warn(at, "`nan` equals nothing, not even itself"),
            _ => {}
        }
    }

    /// Names that the boolean form reads as attributes although something else is meant. True when one was reported.
    fn boolean_term(&mut self, at: u32) -> bool {
        let operands: Vec<u32> = self.operands(at).collect();
        let [name, value] = &operands[..] else {
            return false;
        };
        let (Node::Name(full), Node::Text(value)) =
            (self.expression.node(*name), self.expression.node(*value))
        else {
            return false;
        };
        let Some(attribute) = full.strip_prefix(SUBJECT) else {
            return false;
        };
        let literally = format!("(= {full} {})", quoted(value));
        let bare = &**value == "true";
        let replacement = match attribute {
            "true" | "and" if bare => "(and true)".to_owned(),
            "false" | "or" if bare => "(or false)".to_owned(),
            "true" | "false" | "and" | "or" | "not" | "if" => literally,
            "has_credential" | "subject.has_credential" => {
                format!(
                    "(= {HAS_CREDENTIAL} {})",
                    if &**value == "false" { "false" } else { "true" }
                )
            }
            _ if ["subject.", "resource.", "action."]
                .iter()
                .any(|prefix| attribute.starts_with(prefix)) =>
            {
                format!("(= {attribute} {})", quoted(value))
            }
            _ => return false,
        };
        let message = if attribute == "has_credential" {
            "`has_credential` is true or false, and the boolean form compares it with a string: nobody would be allowed".to_owned()
        } else {
            format!(
                "the boolean form reads `{attribute}` as the attribute of that name (stored as `{full}`); for anything else, \
                 and for an attribute that is really called so, write an S-expression"
            )
        };
        let suggestion = self.instead_of(at, &replacement);
        self.error(at, message, suggestion);
        // Its name is dealt with, and so is its type.
        for operand in operands {
            self.skipped[operand as usize] = true;
        }
        true
    }

    fn name(&mut self, at: u32, name: &str) {
        if !lexer::is_plain_name(name) {
            self.warn(
                at,
                "a stock 0.150 node reads this identifier but damages it when it stores it",
            );
        }
        if self.skipped[at as usize] || is_bindable(name) {
            return;
        }
        let shown = name.escape_debug();
        let list = self.expression.enclosing_list(at);
        if Operator::from_name(name).is_some() {
            let suggestion = (list != at).then(|| self.instead_of(at, "")).flatten();
            self.error(
                list,
                format!("the operator `{shown}` stands where a value is needed"),
                suggestion,
            );
            return;
        }
        let lower = name.to_ascii_lowercase();
        let replacement = if lower == "true" || lower == "false" {
            Some(lower)
        } else if name.contains('.') || !lexer::is_plain_name(name) {
            None
        } else {
            Some(format!("{SUBJECT}{name}"))
        };
        let suggestion = replacement.and_then(|replacement| self.instead_of(at, &replacement));
        let message = format!(
            "nothing ever binds `{shown}`; known are {HAS_CREDENTIAL}, {IDENTIFIER}, {SUBJECT}<attribute>, {RESOURCE_ID} and {ACTION_ID}"
        );
        self.error(list, message, suggestion);
    }
}

//! A policy: an expression and where it came from.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::sync::Arc;

use crate::boolean;
use crate::check::{self, Finding};
use crate::decision::{Cause, Decision, Explanation, Reason};
use crate::environment::Environment;
use crate::error::{ParseError, Problem};
use crate::evaluate::{self, Failure};
use crate::expression::{Expression, Head, Node};
use crate::limits::{MAX_STORED_BYTES, MAX_TEXT_BYTES};
use crate::operand::Operand;
use crate::sexpr;

/// A parsed policy. Cloning is cheap; evaluation needs no parsing.
///
/// Two policies are equal when their expressions are.
#[derive(Clone, Debug)]
pub struct Policy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    expression: Expression,
    form: Form,
    stock_negations: Vec<String>,
}

/// The form in which a policy was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `component=web and not suspended`
    Boolean,
    /// `(and (= subject.component "web") …)`
    SExpression,
}

impl Policy {
    /// Parses what a user typed: the boolean form, and if that does not take the text, the S-expression form.
    ///
    /// # Errors
    ///
    /// A text of more than [`MAX_TEXT_BYTES`], nested deeper than [`MAX_LEVELS`](crate::MAX_LEVELS), or with a mistake;
    /// the error shows the position for both forms.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        limit(text, MAX_TEXT_BYTES)?;
        let not_boolean = match boolean::parse(text) {
            Ok(translation) => {
                return Ok(Self::new(
                    translation.expression,
                    Form::Boolean,
                    translation.stock_negations,
                ));
            }
            // The boolean form understands it and it is too much. As an S-expression the same text may pass (`not not
            // not …` is a list of names) but mean something that nobody wants.
            Err(error) if *error.problem() == Problem::TooDeep => {
                return Err(ParseError::syntax(text, Some(error), None));
            }
            Err(error) => error,
        };
        match sexpr::parse(text) {
            Ok(expression) => Ok(Self::new(expression, Form::SExpression, Vec::new())),
            Err(error) => Err(ParseError::syntax(text, Some(not_boolean), Some(error))),
        }
    }

    /// Parses what a node stored or sent: the S-expression form only.
    ///
    /// # Errors
    ///
    /// As [`Policy::parse`], with [`MAX_STORED_BYTES`] as the limit.
    pub fn parse_stored(text: &str) -> Result<Self, ParseError> {
        limit(text, MAX_STORED_BYTES)?;
        match sexpr::parse(text) {
            Ok(expression) => Ok(Self::new(expression, Form::SExpression, Vec::new())),
            Err(error) => Err(ParseError::syntax(text, None, Some(error))),
        }
    }

    fn new(expression: Expression, form: Form, stock_negations: Vec<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                expression,
                form,
                stock_negations,
            }),
        }
    }

    /// The expression that is stored and evaluated.
    pub fn expression(&self) -> &Expression {
        &self.inner.expression
    }

    /// The form in which it was written.
    pub fn form(&self) -> Form {
        self.inner.form
    }

    /// How deep it is nested. Do not send more than [`STOCK_MAX_LEVELS`](crate::STOCK_MAX_LEVELS) to a stock node.
    pub fn levels(&self) -> usize {
        self.expression().levels()
    }

    /// Looks for mistakes that would only show as silent denials (differences D1, D7–D10, D14).
    ///
    /// For policies that a user creates: refuse those with an [`Error`](crate::Severity::Error) and show the warnings.
    /// Stored and received policies are not checked; they decide as they always did. At most
    /// [`MAX_FINDINGS`](crate::MAX_FINDINGS) findings, in the order of the text.
    pub fn check(&self) -> Vec<Finding> {
        check::check(self)
    }

    /// Decides about a peer. Does not allocate unless the policy has sequences or is nested unusually deep.
    pub fn evaluate<E: Environment + ?Sized>(&self, environment: &E) -> Decision {
        let (cause, at) = match evaluate::evaluate(self.expression(), environment) {
            Ok(outcome) => match outcome.value {
                Operand::Boolean(true) => return Decision::Allow,
                Operand::Boolean(false) => (Cause::False, outcome.blame),
                value if value.is_unknown() => (Cause::Missing, outcome.blame),
                _ => (Cause::NotBoolean, outcome.blame),
            },
            Err(Failure { cause, at }) => (cause, at),
        };
        Decision::Deny(Reason::new(cause, self, at))
    }

    /// Decides about a peer and says why, with the values of the names of the policy.
    pub fn explain<E: Environment + ?Sized>(&self, environment: &E) -> Explanation {
        Explanation::new(self, environment)
    }

    pub(crate) fn stock_negations(&self) -> &[String] {
        &self.inner.stock_negations
    }

    /// The names that are looked up: all but the first elements of lists.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let expression = self.expression();
        let mut after_opening = false;
        (0..expression.size()).filter_map(move |at| {
            let is_head = std::mem::take(&mut after_opening);
            match expression.node(at) {
                Node::Name(name) => (!is_head).then_some(&**name),
                Node::List { head, .. } => {
                    after_opening = matches!(head, Head::Operator(_) | Head::Unknown);
                    None
                }
                _ => None,
            }
        })
    }
}

fn limit(text: &str, limit: usize) -> Result<(), ParseError> {
    if text.len() > limit {
        Err(ParseError::TooLong {
            length: text.len(),
            limit,
        })
    } else {
        Ok(())
    }
}

/// The S-expression, as it is stored. [`Policy::parse_stored`] reads it back.
impl Display for Policy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.expression().fmt(f)
    }
}

/// As [`Policy::parse`].
impl FromStr for Policy {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) || self.expression() == other.expression()
    }
}

impl Eq for Policy {}

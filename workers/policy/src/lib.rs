//! Attribute policies: parse, check, evaluate.
//!
//! # The idea
//!
//! A node protects its outlets, inlets, relays and services with *policies*. A policy is an expression over what is known
//! of the peer at the other end of a secure channel: its identifier, whether it holds a valid credential, and the
//! attributes that the authority wrote into that credential. When a message arrives for a protected worker, the node
//! looks up the policy of the resource, builds an [`Environment`] for the peer, and lets the message pass if the
//! expression is `true`. Everything else denies: `false`, a missing attribute, an error, a value that is not a boolean.
//!
//! People type the **boolean form**:
//!
//! ```text
//! component=web and not suspended=yes
//! ```
//!
//! Stored, printed and evaluated is the **S-expression form**, into which the boolean one is translated at once:
//!
//! ```text
//! (and (= subject.component "web") (not (= subject.suspended "yes")))
//! ```
//!
//! [`Policy::parse`] takes both, [`Policy::parse_stored`] the second only. The language is that of the reference product,
//! release 0.150 ("stock"), with deliberate differences that close its holes; `docs/policies.md` lists them. A policy is
//! decided only by the node that holds it, so no peer sees how.
//!
//! ```
//! use std::collections::BTreeMap;
//! use portolan_policy::{Policy, SubjectEnvironment};
//!
//! let policy = Policy::parse("component=web and not suspended=yes").unwrap();
//! let decide = |attributes: &[(&str, &str)]| {
//!     let attributes: BTreeMap<String, String> =
//!         attributes.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
//!     let peer = SubjectEnvironment::new("I00").with_credential(true).with_attributes(&attributes);
//!     policy.evaluate(&peer).is_allowed()
//! };
//! assert!(decide(&[("component", "web"), ("suspended", "no")]));
//! assert!(!decide(&[("component", "web"), ("suspended", "yes")]));
//! assert!(!decide(&[("component", "web")]), "nobody has said that it is not suspended");
//! ```
//!
//! # A missing attribute
//!
//! is neither true nor false. It makes the comparison around it *unknown*: `web or database` allows a peer that has only
//! `database`, and `not suspended` denies a peer of which nobody said whether it is suspended. A policy never allows what
//! depends on an attribute that is not there.
//!
//! # Bounds
//!
//! Texts are limited in length and nesting ([`MAX_TEXT_BYTES`], [`MAX_LEVELS`]), and no function recurses over its input:
//! a policy from a peer or a disk cannot exhaust the stack, which would take the process with it. All work is linear in
//! the text or nearly so.
//!
//! # Modules
//!
//! - `limits`: the bounds.
//! - `error`: why a text is not a policy, with position and caret.
//! - `lexer`, `sexpr`: the S-expression form. `boolean`: the boolean form and its translation.
//! - `expression`, `operator`: the tree. `print`: writing it so that it reads back.
//! - `environment`: what names stand for.
//! - `operand`, `evaluate`: values, their comparison, and the machine that computes them.
//! - `decision`: allow or deny, with the reason.
//! - `check`: mistakes that parse.
//! - `policy`: the type that ties it together. `resource`: what is protected.

mod boolean;
mod check;
mod decision;
mod environment;
mod error;
mod evaluate;
mod expression;
mod lexer;
mod limits;
mod operand;
mod operator;
mod policy;
mod print;
mod resource;
mod sexpr;

pub use check::{Finding, MAX_FINDINGS, Severity};
pub use decision::{Binding, Cause, Decision, Explanation, Reason};
pub use environment::{
    AttributeSource, Environment, RESERVED_ATTRIBUTES, SubjectEnvironment, Value, is_reserved_attribute,
};
pub use error::{ParseError, Problem, SyntaxError, SyntaxReport};
pub use expression::{Expression, Term, Terms};
pub use limits::{MAX_LEVELS, MAX_STORED_BYTES, MAX_TEXT_BYTES, STOCK_MAX_LEVELS};
pub use operator::Operator;
pub use policy::{Form, Policy};
pub use resource::{DEFAULT_EXPRESSION, HANDLE_MESSAGE, ResourceType, UnknownResourceType};

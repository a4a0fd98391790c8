//! Values during evaluation, and how they compare.

use std::cmp::Ordering;

use smallvec::SmallVec;

use crate::environment::{ACTION_ID, HAS_CREDENTIAL, RESOURCE_ID, SUBJECT, Value};
use crate::expression::Node;

/// A value. Sequences lie in the [`Pool`] of their evaluation, so that every value is small and `Copy`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand<'a> {
    Text(&'a str),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Unit,
    Sequence {
        start: u32,
        len: u32,
        unknown: bool,
    },
    /// It depends on a name that is not bound.
    Unknown(Kind),
}

/// Elements of the sequences of one evaluation.
pub(crate) type Pool<'a> = Vec<Operand<'a>>;

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Integer,
    Float,
    Boolean,
    Unit,
    Sequence,
    /// Of a name that nothing ever binds. It clashes with nothing, since it never has a value.
    Anything,
    /// Of one type or another, depending on what is unknown. Whoever needs a certain type cannot use it.
    Mixed,
}

/// Two values of different types were compared.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Clash;

impl Kind {
    /// The type that the value of an unbound name would have.
    pub(crate) fn of_unbound(name: &str) -> Self {
        match name {
            HAS_CREDENTIAL => Kind::Boolean,
            RESOURCE_ID | ACTION_ID => Kind::Text,
            _ if name.starts_with(SUBJECT) => Kind::Text,
            _ => Kind::Anything,
        }
    }

    pub(crate) fn may_be_boolean(self) -> bool {
        matches!(self, Kind::Boolean | Kind::Anything)
    }

    /// The type of a value that is one or the other.
    pub(crate) fn join(self, other: Self) -> Self {
        if self == other { self } else { Kind::Mixed }
    }
}

impl<'a> From<Value<'a>> for Operand<'a> {
    fn from(value: Value<'a>) -> Self {
        match value {
            Value::String(text) => Operand::Text(text),
            Value::Bool(value) => Operand::Boolean(value),
        }
    }
}

impl<'a> Operand<'a> {
    pub(crate) fn of_literal(node: &'a Node) -> Option<Self> {
        match node {
            Node::Text(text) => Some(Operand::Text(text)),
            Node::Integer(value) => Some(Operand::Integer(*value)),
            Node::Float(value) => Some(Operand::Float(*value)),
            Node::Boolean(value) => Some(Operand::Boolean(*value)),
            Node::Name(_) | Node::List { .. } | Node::Sequence { .. } => None,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Operand::Text(_) => Kind::Text,
            Operand::Integer(_) => Kind::Integer,
            Operand::Float(_) => Kind::Float,
            Operand::Boolean(_) => Kind::Boolean,
            Operand::Unit => Kind::Unit,
            Operand::Sequence { .. } => Kind::Sequence,
            Operand::Unknown(kind) => *kind,
        }
    }

    /// Whether an unbound name decides its value or that of an element.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(
            self,
            Operand::Unknown(_) | Operand::Sequence { unknown: true, .. }
        )
    }
}

pub(crate) fn elements<'p, 'a>(pool: &'p Pool<'a>, start: u32, len: u32) -> &'p [Operand<'a>] {
    pool.get(start as usize..(start + len) as usize)
        .unwrap_or_default()
}

type Pending<'a> = SmallVec<[(Operand<'a>, Operand<'a>); 4]>;

/// Compares two known values; `None` when one is not a number. Sequences: the shorter one first, then by element.
pub(crate) fn compare<'a>(
    pool: &Pool<'a>,
    a: Operand<'a>,
    b: Operand<'a>,
) -> Result<Option<Ordering>, Clash> {
    let mut pending: Pending<'a> = SmallVec::from_iter([(a, b)]);
    while let Some((a, b)) = pending.pop() {
        let ordering = match (a, b) {
            (Operand::Text(a), Operand::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Operand::Integer(a), Operand::Integer(b)) => Some(a.cmp(&b)),
            (Operand::Float(a), Operand::Float(b)) => a.partial_cmp(&b),
            (Operand::Boolean(a), Operand::Boolean(b)) => Some(a.cmp(&b)),
            (Operand::Unit, Operand::Unit) => Some(Ordering::Equal),
            (
                Operand::Sequence {
                    start: a_start,
                    len: a_len,
                    ..
                },
                Operand::Sequence {
                    start: b_start,
                    len: b_len,
                    ..
                },
            ) => {
                if a_len == b_len {
                    push_elements(pool, &mut pending, (a_start, b_start), a_len);
                }
                Some(a_len.cmp(&b_len))
            }
            _ => return Err(Clash),
        };
        if ordering != Some(Ordering::Equal) {
            return Ok(ordering);
        }
    }
    Ok(Some(Ordering::Equal))
}

/// Whether comparing two values, of which one is unknown, may fail for some value of what is unknown.
pub(crate) fn may_clash<'a>(pool: &Pool<'a>, a: Operand<'a>, b: Operand<'a>) -> bool {
    let mut pending: Pending<'a> = SmallVec::from_iter([(a, b)]);
    while let Some((a, b)) = pending.pop() {
        match (a, b) {
            (Operand::Unknown(Kind::Anything), _) | (_, Operand::Unknown(Kind::Anything)) => {}
            (
                Operand::Sequence {
                    start: a_start,
                    len: a_len,
                    ..
                },
                Operand::Sequence {
                    start: b_start,
                    len: b_len,
                    ..
                },
            ) => {
                if a_len == b_len {
                    push_elements(pool, &mut pending, (a_start, b_start), a_len);
                }
            }
            // The elements of an unknown sequence are unknown too.
            _ => match (a.kind(), b.kind()) {
                (Kind::Mixed | Kind::Sequence, _) | (_, Kind::Mixed | Kind::Sequence) => return true,
                (a, b) if a != b => return true,
                _ => {}
            },
        }
    }
    false
}

/// The first elements are pushed last, to be compared first.
fn push_elements<'a>(pool: &Pool<'a>, pending: &mut Pending<'a>, starts: (u32, u32), len: u32) {
    let (a, b) = (elements(pool, starts.0, len), elements(pool, starts.1, len));
    pending.extend(a.iter().copied().zip(b.iter().copied()).rev());
}

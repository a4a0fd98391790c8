//! Evaluation (spec 04, A4.3, with difference D11).
//!
//! A machine with two stacks: lists that are being evaluated, and values. Recursion would let a stored policy decide how
//! much of a thread's stack is used.
//!
//! # Three values
//!
//! A name that is not bound makes the comparison around it *unknown*. `and` is false when an operand is false, `or` true
//! when one is true, whatever the others are; everything else that needs an unknown value is unknown itself, and an
//! unknown policy denies. The rule behind it: a policy may allow only what it would allow *whatever the missing attribute
//! were*. That is why an unknown value keeps its type. `(or (= subject.level 3) (= 1 1))` is an error without the
//! attribute too, since every attribute is a string and the comparison fails for each of them.

use std::cmp::Ordering;

use smallvec::SmallVec;

use crate::decision::Cause;
use crate::environment::Environment;
use crate::expression::{Expression, Head, Node};
use crate::operand::{Clash, Kind, Operand, Pool, compare, elements, may_clash};
use crate::operator::Operator;

/// A value and the node that explains it: what made it false, or the name that is not bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome<'a> {
    pub(crate) value: Operand<'a>,
    pub(crate) blame: u32,
}

/// An error: the evaluation stops and denies.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) at: u32,
}

/// Evaluates a whole expression.
pub(crate) fn evaluate<'a, E>(expression: &'a Expression, environment: &'a E) -> Result<Outcome<'a>, Failure>
where
    E: Environment + ?Sized,
{
    evaluate_at(expression, 0, environment)
}

/// Evaluates the sub-expression at `at`.
pub(crate) fn evaluate_at<'a, E>(
    expression: &'a Expression,
    at: u32,
    environment: &'a E,
) -> Result<Outcome<'a>, Failure>
where
    E: Environment + ?Sized,
{
    let machine = Machine {
        expression,
        environment,
        frames: SmallVec::new(),
        outcomes: SmallVec::new(),
        pool: Pool::new(),
    };
    machine.run(at)
}

/// A list or sequence of which some elements are evaluated.
#[derive(Clone, Copy)]
struct Frame {
    node: u32,
    /// The element that is evaluated next.
    next: u32,
    end: u32,
    /// Where its values start on the stack.
    base: usize,
    form: Form,
    /// The name to blame, once an operand was unknown.
    unknown: Option<u32>,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Operator(Operator),
    Sequence,
}

struct Machine<'a, E: ?Sized> {
    expression: &'a Expression,
    environment: &'a E,
    frames: SmallVec<[Frame; 8]>,
    outcomes: SmallVec<[Outcome<'a>; 8]>,
    pool: Pool<'a>,
}

enum Entered<'a> {
    Value(Outcome<'a>),
    Frame(Frame),
}

enum Step<'a> {
    /// Evaluate the next element.
    Continue,
    /// The list has this value.
    Done(Outcome<'a>),
    /// The list has the value of this sub-expression.
    Become(u32),
}

type Result<T, E = Failure> = std::result::Result<T, E>;

impl<'a, E: Environment + ?Sized> Machine<'a, E> {
    fn run(mut self, mut at: u32) -> Result<Outcome<'a>> {
        loop {
            match self.enter(at)? {
                Entered::Frame(frame) => {
                    at = frame.next;
                    self.frames.push(frame);
                    continue;
                }
                Entered::Value(outcome) => self.outcomes.push(outcome),
            }
            at = loop {
                let Some(mut frame) = self.frames.pop() else {
                    // Every element leaves exactly one value, so the last one is the value of the whole.
                    return self.outcomes.pop().ok_or(Failure {
                        cause: Cause::NotBoolean,
                        at,
                    });
                };
                frame.next = self.expression.end(frame.next);
                match self.step(&mut frame)? {
                    Step::Continue => {
                        self.frames.push(frame);
                        break frame.next;
                    }
                    Step::Become(branch) => {
                        self.outcomes.truncate(frame.base);
                        break branch;
                    }
                    Step::Done(outcome) => {
                        self.outcomes.truncate(frame.base);
                        self.outcomes.push(outcome);
                    }
                }
            };
        }
    }

    fn enter(&self, at: u32) -> Result<Entered<'a>> {
        let value = |value| Ok(Entered::Value(Outcome { value, blame: at }));
        let frame = |form, next, end| {
            let base = self.outcomes.len();
            Ok(Entered::Frame(Frame {
                node: at,
                next,
                end,
                base,
                form,
                unknown: None,
            }))
        };
        let node = self.expression.node(at);
        if let Some(literal) = Operand::of_literal(node) {
            return value(literal);
        }
        match *node {
            Node::Name(ref name) => value(
                self.environment
                    .get(name)
                    .map_or_else(|| Operand::Unknown(Kind::of_unbound(name)), Operand::from),
            ),
            Node::Sequence { len: 0, .. } => value(Operand::Sequence {
                start: 0,
                len: 0,
                unknown: false,
            }),
            Node::Sequence { end, .. } => frame(Form::Sequence, at + 1, end),
            Node::List {
                head: Head::Operator(operator),
                len,
                end,
            } => {
                let operands = len - 1;
                if !operator.arity().allows(operands) {
                    return Err(Failure {
                        cause: Cause::WrongArity,
                        at,
                    });
                }
                match operator {
                    Operator::Exists => value(Operand::Boolean(self.exists(at)?)),
                    Operator::And if operands == 0 => value(Operand::Boolean(true)),
                    Operator::Or | Operator::NotEqual if operands == 0 => value(Operand::Boolean(false)),
                    _ => frame(Form::Operator(operator), at + 2, end),
                }
            }
            Node::List {
                head: Head::Unknown, ..
            } => Err(Failure {
                cause: Cause::UnknownOperator,
                at,
            }),
            Node::List {
                head: Head::NotName, ..
            } => Err(Failure {
                cause: Cause::NotAnOperator,
                at,
            }),
            _ => value(Operand::Unit),
        }
    }

    /// Whether all the names are bound, left to right up to the first that is not.
    fn exists(&self, at: u32) -> Result<bool> {
        for operand in self.expression.children(at).skip(1) {
            match self.expression.node(operand) {
                Node::Name(name) if self.environment.get(name).is_some() => {}
                Node::Name(_) => return Ok(false),
                _ => {
                    return Err(Failure {
                        cause: Cause::WrongOperand,
                        at,
                    });
                }
            }
        }
        Ok(true)
    }

    /// An element of the frame was evaluated; its value is on top of the stack.
    fn step(&mut self, frame: &mut Frame) -> Result<Step<'a>> {
        match frame.form {
            Form::Operator(Operator::And) => self.step_lazy(frame, false),
            Form::Operator(Operator::Or) => self.step_lazy(frame, true),
            Form::Operator(Operator::If) => self.step_if(frame),
            _ if frame.next < frame.end => Ok(Step::Continue),
            Form::Sequence => Ok(Step::Done(self.make_sequence(frame))),
            Form::Operator(operator) => self.apply(frame, operator).map(Step::Done),
        }
    }

    /// `and` and `or`; `decisive` is the value that ends them.
    fn step_lazy(&mut self, frame: &mut Frame, decisive: bool) -> Result<Step<'a>> {
        let Some(operand) = self.outcomes.pop() else {
            return Ok(Step::Continue);
        };
        let last = frame.next >= frame.end;
        match operand.value {
            Operand::Boolean(value) if value == decisive => return Ok(Step::Done(operand)),
            Operand::Boolean(_) => {}
            Operand::Unknown(kind) if kind.may_be_boolean() => {
                frame.unknown.get_or_insert(operand.blame);
            }
            // The value of the last operand is not looked at. If an earlier one was unknown, what comes out is either
            // that value or the decisive one.
            _ if last => {
                let outcome = match frame.unknown {
                    None => operand,
                    Some(blame) => Outcome {
                        value: Operand::Unknown(Kind::Mixed),
                        blame,
                    },
                };
                return Ok(Step::Done(outcome));
            }
            _ => {
                return Err(Failure {
                    cause: Cause::WrongOperand,
                    at: frame.node,
                });
            }
        }
        if !last {
            return Ok(Step::Continue);
        }
        Ok(Step::Done(match frame.unknown {
            Some(blame) => Outcome {
                value: Operand::Unknown(Kind::Boolean),
                blame,
            },
            None => Outcome {
                value: Operand::Boolean(!decisive),
                blame: frame.node,
            },
        }))
    }

    fn step_if(&mut self, frame: &mut Frame) -> Result<Step<'a>> {
        let evaluated = self.outcomes.len() - frame.base;
        let Some(&outcome) = self.outcomes.last() else {
            return Ok(Step::Continue);
        };
        match (evaluated, outcome.value) {
            (1, Operand::Boolean(true)) => Ok(Step::Become(frame.next)),
            (1, Operand::Boolean(false)) => Ok(Step::Become(self.expression.end(frame.next))),
            (1, Operand::Unknown(kind)) if kind.may_be_boolean() => {
                frame.unknown = Some(outcome.blame);
                Ok(Step::Continue)
            }
            (1, _) => Err(Failure {
                cause: Cause::WrongOperand,
                at: frame.node,
            }),
            // The test is unknown. Both branches are evaluated, for an error in either would deny.
            (2, _) => Ok(Step::Continue),
            _ => {
                let branches = &self.outcomes[frame.base + 1..];
                let kind = branches
                    .iter()
                    .map(|branch| branch.value.kind())
                    .reduce(Kind::join);
                let value = Operand::Unknown(kind.unwrap_or(Kind::Mixed));
                Ok(Step::Done(Outcome {
                    value,
                    blame: frame.unknown.unwrap_or(frame.node),
                }))
            }
        }
    }

    fn make_sequence(&mut self, frame: &Frame) -> Outcome<'a> {
        let start = self.pool.len() as u32;
        let outcomes = &self.outcomes[frame.base..];
        let unknown = outcomes
            .iter()
            .find(|outcome| outcome.value.is_unknown())
            .map(|outcome| outcome.blame);
        self.pool.extend(outcomes.iter().map(|outcome| outcome.value));
        let len = outcomes.len() as u32;
        Outcome {
            value: Operand::Sequence {
                start,
                len,
                unknown: unknown.is_some(),
            },
            blame: unknown.unwrap_or(frame.node),
        }
    }

    /// The operators that look at all of their operands.
    fn apply(&self, frame: &Frame, operator: Operator) -> Result<Outcome<'a>> {
        let operands = &self.outcomes[frame.base..];
        let at = frame.node;
        let failure = |cause| Failure { cause, at };
        let clash = |Clash| failure(Cause::TypeClash);
        let blame = operands
            .iter()
            .find(|operand| operand.value.is_unknown())
            .map(|operand| operand.blame);
        let result = match (operator, operands) {
            (Operator::Not, [operand]) => match operand.value {
                Operand::Boolean(value) => Some(!value),
                Operand::Unknown(kind) if kind.may_be_boolean() => None,
                _ => return Err(failure(Cause::WrongOperand)),
            },
            (Operator::Member, [needle, sequence]) => match sequence.value {
                Operand::Sequence { start, len, .. } => self
                    .is_member(needle.value, elements(&self.pool, start, len))
                    .map_err(clash)?,
                Operand::Unknown(Kind::Anything) => None,
                _ => return Err(failure(Cause::WrongOperand)),
            },
            (Operator::Less, operands) => self
                .chain(operands, |o| o == Some(Ordering::Less))
                .map_err(clash)?,
            (Operator::Greater, operands) => self
                .chain(operands, |o| o == Some(Ordering::Greater))
                .map_err(clash)?,
            (Operator::NotEqual, operands) => self
                .chain(operands, |o| o == Some(Ordering::Equal))
                .map_err(clash)?
                .map(|equal| !equal),
            (_, operands) => self
                .chain(operands, |o| o == Some(Ordering::Equal))
                .map_err(clash)?,
        };
        // One unknown operand makes the whole unknown, also where another one would decide.
        Ok(match (result, blame) {
            (Some(value), None) => Outcome {
                value: Operand::Boolean(value),
                blame: at,
            },
            (_, blame) => Outcome {
                value: Operand::Unknown(Kind::Boolean),
                blame: blame.unwrap_or(at),
            },
        })
    }

    /// Whether `holds` for all neighbours, left to right up to the first for which it does not; `None` if that depends
    /// on something unknown.
    fn chain(
        &self,
        operands: &[Outcome<'a>],
        holds: impl Fn(Option<Ordering>) -> bool,
    ) -> Result<Option<bool>, Clash> {
        let mut result = Some(true);
        for pair in operands.windows(2) {
            let (a, b) = (pair[0].value, pair[1].value);
            if a.is_unknown() || b.is_unknown() {
                if may_clash(&self.pool, a, b) {
                    return Err(Clash);
                }
                result = None;
            } else if !holds(compare(&self.pool, a, b)?) {
                return Ok(Some(false));
            }
        }
        Ok(result)
    }

    fn is_member(&self, needle: Operand<'a>, elements: &[Operand<'a>]) -> Result<Option<bool>, Clash> {
        let mut result = Some(false);
        for &element in elements {
            if needle.is_unknown() || element.is_unknown() {
                if may_clash(&self.pool, needle, element) {
                    return Err(Clash);
                }
                result = None;
            } else if compare(&self.pool, needle, element)? == Some(Ordering::Equal) {
                return Ok(Some(true));
            }
        }
        Ok(result)
    }
}

//! Operators and what they are given.

use super::{Checker, Severity, is_bindable};
use crate::boolean::is_identifier;
use crate::environment::{HAS_CREDENTIAL, IDENTIFIER};
use crate::expression::Node;
use crate::lexer;
use crate::operand::{Kind, Operand};
use crate::operator::Operator;
use crate::print::quoted;

impl Checker<'_> {
    pub(super) fn unknown_operator(&mut self, at: u32) {
        let Node::Name(name) = self.expression.node(at + 1) else {
            return;
        };
        let meant = match &**name {
            "==" | "eq" | "equal" | "equals" => Some("="),
            "<>" | "ne" | "/=" => Some("!="),
            "lt" => Some("<"),
            "gt" => Some(">"),
            "&&" | "&" | "AND" | "And" | "all" => Some("and"),
            "||" | "OR" | "Or" | "any" => Some("or"),
            "!" | "NOT" | "Not" => Some("not"),
            "IF" | "If" | "cond" => Some("if"),
            "member" | "in" | "in?" | "contains" | "contains?" => Some("member?"),
            "exists" | "exist?" | "has" | "has?" | "defined?" => Some("exists?"),
            _ => None,
        };
        let known = Operator::ALL.map(Operator::as_str).join(" ");
        let message = format!(
            "unknown operator `{}`; the operators are {known}",
            name.escape_debug()
        );
        let suggestion = meant.and_then(|meant| self.instead_of(at + 1, meant));
        self.error(at, message, suggestion);
    }

    pub(super) fn operator(&mut self, at: u32, operator: Operator, operands: &[u32]) {
        match operator {
            Operator::And => self.lazy(at, operator, operands, false),
            Operator::Or => self.lazy(at, operator, operands, true),
            Operator::Not => operands
                .iter()
                .for_each(|&operand| self.needs_boolean(at, operator, operand)),
            Operator::If => {
                if let [test, yes, no] = *operands {
                    self.needs_boolean(at, operator, test);
                    match self.facts[test as usize].constant {
                        Some(true) => self.kill(no),
                        Some(false) => self.kill(yes),
                        None => {}
                    }
                }
            }
            Operator::Member => {
                if let [needle, sequence] = *operands {
                    self.member(at, needle, sequence);
                }
            }
            Operator::Exists => operands.iter().for_each(|&operand| self.exists(at, operand)),
            Operator::Equal | Operator::NotEqual | Operator::Less | Operator::Greater => {
                self.comparison(at, operator, operands);
            }
        }
    }

    fn lazy(&mut self, at: u32, operator: Operator, operands: &[u32], decisive: bool) {
        let mut decided = false;
        for &operand in operands {
            if decided {
                self.kill(operand);
            }
            self.needs_boolean(at, operator, operand);
            decided |= self.facts[operand as usize].constant == Some(decisive);
        }
    }

    /// Marks a sub-expression as never evaluated. What lies in a marked one is marked already.
    fn kill(&mut self, at: u32) {
        if !self.dead[at as usize] {
            self.dead[at as usize..self.expression.end(at) as usize].fill(true);
        }
    }

    fn needs_boolean(&mut self, at: u32, operator: Operator, operand: u32) {
        let Some(kind) = self.kind(operand).filter(|kind| *kind != Kind::Boolean) else {
            return;
        };
        let suggestion = match self.expression.node(operand) {
            Node::Name(name) if kind == Kind::Text && lexer::is_plain_name(name) => {
                self.instead_of(operand, &format!("(= {name} \"true\")"))
            }
            Node::Text(text) if &**text == "true" || &**text == "false" => self.instead_of(operand, text),
            _ => None,
        };
        let shown = self.expression.excerpt(operand, 60);
        let place = if self.dead[operand as usize] { operand } else { at };
        self.error(
            place,
            format!(
                "`{operator}` needs true or false, but {shown} is {}",
                describe(kind)
            ),
            suggestion,
        );
    }

    fn exists(&mut self, at: u32, operand: u32) {
        self.skipped[operand as usize] = true;
        match self.expression.node(operand) {
            Node::Name(name) if is_bindable(name) => {}
            Node::Name(name) => {
                let message = format!(
                    "nothing ever binds `{}`, so this is always false",
                    name.escape_debug()
                );
                self.warn(at, message);
            }
            Node::Text(text) if lexer::is_plain_name(text) && is_bindable(text) => {
                let suggestion = self.instead_of(operand, text);
                self.error(
                    at,
                    "`exists?` takes identifiers without quotes".to_owned(),
                    suggestion,
                );
            }
            _ => self.error(
                at,
                "`exists?` takes identifiers, such as subject.role".to_owned(),
                None,
            ),
        }
    }

    fn member(&mut self, at: u32, needle: u32, sequence: u32) {
        match self.kind(sequence) {
            Some(Kind::Sequence) => {
                if !matches!(self.expression.node(sequence), Node::Sequence { .. }) {
                    return;
                }
                let elements: Vec<u32> = self.expression.children(sequence).collect();
                let quoted: Vec<String> = elements
                    .iter()
                    .map(|&element| quoted(&self.expression.excerpt(element, 60)))
                    .collect();
                let literals = elements
                    .iter()
                    .all(|&element| Operand::of_literal(self.expression.node(element)).is_some());
                let suggestion = (literals && self.kind(needle) == Some(Kind::Text))
                    .then(|| self.instead_of(sequence, &format!("[{}]", quoted.join(" "))))
                    .flatten();
                let _ = elements
                    .into_iter()
                    .any(|element| self.clashes(at, needle, element, suggestion.clone()));
            }
            Some(kind) => {
                let shown = self.expression.excerpt(sequence, 60);
                let suggestion = match kind {
                    Kind::Text | Kind::Integer | Kind::Float => {
                        self.instead_of(sequence, &format!("[{shown}]"))
                    }
                    _ => None,
                };
                let message = format!(
                    "`member?` looks in a sequence `[…]`, but {shown} is {}",
                    describe(kind)
                );
                self.error(at, message, suggestion);
            }
            None => {}
        }
    }

    fn comparison(&mut self, at: u32, operator: Operator, operands: &[u32]) {
        if operator == Operator::NotEqual && operands.len() != 2 {
            self.warn(at, match operands.len() {
                0 | 1 => "`!=` with fewer than two operands is always false",
                _ => "`!=` with more than two operands means: not all neighbours are equal; it does not mean: all differ",
            });
        }
        for pair in operands.windows(2) {
            let suggestion = self
                .matching(pair[0], pair[1])
                .or_else(|| self.matching(pair[1], pair[0]));
            if self.clashes(at, pair[0], pair[1], suggestion) {
                return;
            }
        }
        if matches!(operator, Operator::Less | Operator::Greater) {
            self.ordering(at, operands);
        }
        for pair in operands.windows(2) {
            self.identifier_text(at, pair[0], pair[1]);
            self.identifier_text(at, pair[1], pair[0]);
        }
    }

    fn ordering(&mut self, at: u32, operands: &[u32]) {
        let lengths = |at: &u32| match self.expression.node(*at) {
            Node::Sequence { len, .. } => Some(*len),
            _ => None,
        };
        let differ = operands.windows(2).any(|pair| {
            lengths(&pair[0])
                .zip(lengths(&pair[1]))
                .is_some_and(|(a, b)| a != b)
        });
        if differ {
            self.warn(
                at,
                "a shorter sequence is always less than a longer one, whatever is in them",
            );
        }
        let number = |at: &u32| match self.expression.node(*at) {
            Node::Text(text) => text.parse::<f64>().is_ok_and(f64::is_finite),
            _ => false,
        };
        let texts = operands
            .iter()
            .all(|operand| self.kind(*operand) == Some(Kind::Text));
        if texts && operands.iter().any(number) {
            self.warn(
                at,
                "strings are compared character by character, not as numbers: \"10\" is less than \"9\"",
            );
        }
    }

    /// A text that no peer has as its identifier.
    fn identifier_text(&mut self, at: u32, name: u32, text: u32) {
        let (Node::Name(name), Node::Text(value)) = (self.expression.node(name), self.expression.node(text))
        else {
            return;
        };
        if &**name != IDENTIFIER
            || (is_identifier(value) && !value.contains(|c: char| matches!(c, 'A'..='F')))
        {
            return;
        }
        let suggestion = if is_identifier(value) {
            self.instead_of(text, &quoted(&format!("I{}", value[1..].to_ascii_lowercase())))
        } else {
            None
        };
        let message =
            "no peer has this identifier: it is `I` and 64 lower-case hexadecimal digits".to_owned();
        self.report(Severity::Warning, at, message, suggestion);
    }

    /// Reports two operands whose types do not compare.
    fn clashes(&mut self, at: u32, a: u32, b: u32, suggestion: Option<String>) -> bool {
        let Some((a_kind, b_kind)) = self.kind(a).zip(self.kind(b)).filter(|(a, b)| a != b) else {
            return false;
        };
        let (shown_a, shown_b) = (self.expression.excerpt(a, 60), self.expression.excerpt(b, 60));
        let note = match (self.expression.node(a), self.expression.node(b)) {
            (Node::Name(name), _) | (_, Node::Name(name)) if &**name != HAS_CREDENTIAL => {
                "; attributes are always strings"
            }
            _ => "",
        };
        let message = format!(
            "values of different types do not compare: {shown_a} is {}, {shown_b} is {}{note}",
            describe(a_kind),
            describe(b_kind)
        );
        self.error(at, message, suggestion);
        true
    }

    /// The policy with the literal `b` written so that it compares with `a`.
    fn matching(&self, a: u32, b: u32) -> Option<String> {
        let replacement = match (self.expression.node(a), self.expression.node(b)) {
            (Node::Name(name), Node::Text(text))
                if &**name == HAS_CREDENTIAL && matches!(&**text, "true" | "false") =>
            {
                text.to_string()
            }
            (Node::Name(name), Node::Integer(_) | Node::Float(_) | Node::Boolean(_))
                if &**name != HAS_CREDENTIAL =>
            {
                quoted(&self.expression.excerpt(b, 60))
            }
            (Node::Float(_), Node::Integer(value)) => format!("{value}.0"),
            _ => return None,
        };
        self.instead_of(b, &replacement)
    }
}

pub(super) fn describe(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "a string",
        Kind::Integer => "an integer",
        Kind::Float => "a floating point number",
        Kind::Boolean => "true or false",
        Kind::Unit => "the empty list",
        Kind::Sequence => "a sequence",
        Kind::Anything | Kind::Mixed => "sometimes of one type and sometimes of another",
    }
}

//! The boolean form (spec 04, A3): what people type. It is translated into an S-expression at once.
//!
//! ```text
//! expr     = and-expr *( "or" and-expr )
//! and-expr = not-expr *( "and" not-expr )
//! not-expr = "not" not-expr / "(" expr ")" / identifier / name [ "=" value ]
//! ```
//!
//! Keywords end at white space, at a parenthesis or at the end of the text (differences D1, D2), white space may stand
//! around everything (D5), identifiers are put into lower case (D3), and a chain of one keyword becomes one list (D6).

use crate::error::{Problem, SyntaxError};
use crate::expression::{Builder, Expression, Node};
use crate::limits::MAX_LEVELS;

/// A translated text.
pub(crate) struct Translation {
    pub(crate) expression: Expression,
    /// Terms that stock 0.150 takes for a negation of the rest, such as `notes` for `not es`. The first few.
    pub(crate) stock_negations: Vec<String>,
}

/// How many terms are kept for the warning that stock 0.150 reads them otherwise.
const MAX_STOCK_NEGATIONS: usize = 8;

enum Item<'a> {
    Attribute { name: &'a str, value: &'a str },
    Identifier(String),
    Not,
    And,
    Or,
}

/// One open parenthesis, or the text itself.
#[derive(Default)]
struct Group {
    /// Terms of the chain of `and` that is being read.
    ands: usize,
    /// Finished operands of the chain of `or`.
    ors: usize,
    /// `not` before the next term.
    nots: usize,
    opened_at: usize,
}

/// A finished sub-expression in `Parser::items`, which are in postfix order.
struct Operand {
    start: usize,
    levels: usize,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Postfix: operands before their operator. With each item the start of the sub-expression that it ends.
    items: Vec<(Item<'a>, usize)>,
    operands: Vec<Operand>,
    groups: Vec<Group>,
    stock_negations: Vec<String>,
}

type Result<T> = std::result::Result<T, SyntaxError>;

/// Parses a text in the boolean form. The caller bounds its length.
pub(crate) fn parse(text: &str) -> Result<Translation> {
    let mut parser = Parser {
        text,
        at: 0,
        items: Vec::new(),
        operands: Vec::new(),
        groups: vec![Group::default()],
        stock_negations: Vec::new(),
    };
    parser.run()?;
    Ok(Translation {
        expression: parser.translate(),
        stock_negations: parser.stock_negations,
    })
}

impl<'a> Parser<'a> {
    fn run(&mut self) -> Result<()> {
        let mut keyword = None;
        loop {
            self.term(keyword)?;
            // After a term: any number of closing parentheses, then a keyword or the end.
            loop {
                self.skip_blank();
                if !self.rest().starts_with(')') {
                    break;
                }
                if self.groups.len() == 1 {
                    return Err(self.problem(Problem::UnmatchedList));
                }
                self.at += 1;
                self.finish_group()?;
            }
            if self.rest().is_empty() {
                break;
            }
            keyword = Some(self.connective()?);
        }
        if let [_, .., innermost] = &self.groups[..] {
            return Err(SyntaxError::at(innermost.opened_at, Problem::UnclosedList));
        }
        self.finish_group()
    }

    /// `*( "not" / "(" ) name [ "=" value ]`
    fn term(&mut self, mut keyword: Option<&'static str>) -> Result<()> {
        loop {
            self.skip_blank();
            let start = self.at;
            if self.rest().starts_with('(') {
                if self.groups.len() > MAX_LEVELS {
                    return Err(self.problem(Problem::TooDeep));
                }
                self.at += 1;
                self.groups.push(Group {
                    opened_at: start,
                    ..Group::default()
                });
                keyword = None;
            } else if self.at_keyword("not") && !self.is_name_not() {
                self.at += "not".len();
                self.group().nots += 1;
                keyword = Some("not");
            } else {
                return self.name(keyword);
            }
        }
    }

    /// Whether the word `not` at this place can only be the name of an attribute: nothing to negate follows.
    fn is_name_not(&self) -> bool {
        let rest = self
            .rest()
            .get("not".len()..)
            .unwrap_or_default()
            .trim_start_matches(BLANK);
        rest.is_empty() || rest.starts_with([')', '='])
    }

    fn name(&mut self, keyword: Option<&'static str>) -> Result<()> {
        let start = self.at;
        let run = self.word();
        if !run.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '-') {
            self.at = start;
            return Err(self.problem(match keyword {
                Some(keyword) if self.rest().is_empty() => Problem::DanglingKeyword(keyword),
                None if self.text.trim_matches(BLANK).is_empty() => Problem::Empty,
                _ => Problem::ExpectedTerm,
            }));
        }
        if is_read_as_negation_by_stock(run) && self.stock_negations.len() < MAX_STOCK_NEGATIONS {
            self.stock_negations.push(run.to_owned());
        }
        let end = self.at;
        self.skip_blank();
        let value = if self.rest().starts_with('=') {
            if is_identifier(run) {
                return Err(self.problem(Problem::IdentifierWithValue));
            }
            self.at += 1;
            self.skip_blank();
            Some(self.value()?)
        } else {
            self.at = end;
            None
        };
        let item = match value {
            None if is_identifier(run) => Item::Identifier(format!("I{}", run[1..].to_ascii_lowercase())),
            _ => Item::Attribute {
                name: run,
                value: value.unwrap_or("true"),
            },
        };
        self.operands.push(Operand {
            start: self.items.len(),
            levels: 1,
        });
        self.items.push((item, self.items.len()));
        self.finish_term()
    }

    fn value(&mut self) -> Result<&'a str> {
        if let Some(quoted) = self.rest().strip_prefix('"') {
            return match quoted.split_once('"') {
                None => Err(self.problem(Problem::UnclosedString)),
                Some(("", _)) => Err(self.problem(Problem::ExpectedValue)),
                Some((value, _)) => {
                    self.at += value.len() + 2;
                    Ok(value)
                }
            };
        }
        match self.word() {
            "" => Err(self.problem(Problem::ExpectedValue)),
            value => Ok(value),
        }
    }

    /// `and` or `or`, after a term.
    fn connective(&mut self) -> Result<&'static str> {
        if self.at_keyword("and") {
            self.at += "and".len();
            Ok("and")
        } else if self.at_keyword("or") {
            self.at += "or".len();
            self.finish_ands()?;
            Ok("or")
        } else {
            Err(self.problem(Problem::LeftOver))
        }
    }

    /// The last operand is a complete term of the innermost group.
    fn finish_term(&mut self) -> Result<()> {
        let nots = std::mem::take(&mut self.group().nots);
        for _ in 0..nots {
            self.combine(Item::Not, 1)?;
        }
        self.group().ands += 1;
        Ok(())
    }

    fn finish_ands(&mut self) -> Result<()> {
        let ands = std::mem::take(&mut self.group().ands);
        if ands > 1 {
            self.combine(Item::And, ands)?;
        }
        self.group().ors += 1;
        Ok(())
    }

    fn finish_group(&mut self) -> Result<()> {
        self.finish_ands()?;
        let ors = self.group().ors;
        if ors > 1 {
            self.combine(Item::Or, ors)?;
        }
        if self.groups.len() > 1 {
            self.groups.pop();
            self.finish_term()?;
        }
        Ok(())
    }

    /// Makes one operand of the last `count`.
    fn combine(&mut self, operator: Item<'a>, count: usize) -> Result<()> {
        let first = self.operands.len() - count;
        let start = self.operands[first].start;
        let levels = 1 + self
            .operands
            .drain(first..)
            .map(|operand| operand.levels)
            .max()
            .unwrap_or_default();
        if levels > MAX_LEVELS {
            return Err(self.problem(Problem::TooDeep));
        }
        self.operands.push(Operand { start, levels });
        self.items.push((operator, start));
        Ok(())
    }

    /// The items in postfix order become lists in prefix order.
    fn translate(&mut self) -> Expression {
        enum Step {
            Item(usize),
            Close,
        }
        let mut builder = Builder::default();
        let mut steps = vec![Step::Item(self.items.len() - 1)];
        while let Some(step) = steps.pop() {
            let Step::Item(at) = step else {
                // Only sequences can clash, and the boolean form has none.
                let _ = builder.close();
                continue;
            };
            let (item, start) = &self.items[at];
            builder.open(false);
            let equals = |builder: &mut Builder, name: String, value: &str| {
                for node in [
                    Node::Name("=".into()),
                    Node::Name(name.into()),
                    Node::Text(value.into()),
                ] {
                    builder.atom(node);
                }
            };
            match item {
                Item::Attribute { name, value } => equals(&mut builder, format!("subject.{name}"), value),
                Item::Identifier(identifier) => {
                    equals(&mut builder, "subject.identifier".to_owned(), identifier)
                }
                Item::Not => builder.atom(Node::Name("not".into())),
                Item::And => builder.atom(Node::Name("and".into())),
                Item::Or => builder.atom(Node::Name("or".into())),
            }
            steps.push(Step::Close);
            // The last operand ends right before its operator, each earlier one before the start of the next. The
            // first is pushed last and so comes out first.
            let mut operand_end = at;
            while operand_end > *start {
                steps.push(Step::Item(operand_end - 1));
                operand_end = self.items[operand_end - 1].1;
            }
        }
        builder.finish()
    }

    fn group(&mut self) -> &mut Group {
        let last = self.groups.len() - 1;
        &mut self.groups[last]
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blank(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches(BLANK).len();
    }

    /// The longest run of characters of a name.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let is_rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let length = rest.find(|c| !is_rest(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn at_keyword(&self, keyword: &str) -> bool {
        let after = self.rest().strip_prefix(keyword);
        after.is_some_and(|after| {
            after.is_empty() || after.starts_with(BLANK) || after.starts_with(['(', ')'])
        })
    }

    fn problem(&self, problem: Problem) -> SyntaxError {
        SyntaxError::at(self.at, problem)
    }
}

const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

/// `I` and 64 hexadecimal digits in either case.
pub(crate) fn is_identifier(name: &str) -> bool {
    name.strip_prefix('I')
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|c| c.is_ascii_hexdigit()))
}

/// In stock 0.150 the keyword `not` needs no boundary: it is cut off whenever the rest can start a name.
fn is_read_as_negation_by_stock(name: &str) -> bool {
    let rest = name.strip_prefix("not").unwrap_or_default();
    rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '-')
}

//! Why a text is not a policy, and where (difference D15).

use std::fmt::{self, Display, Formatter};

use crate::limits::MAX_LEVELS;
use crate::print::is_hidden;

/// What is wrong at one place of a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// There is nothing but white space and comments.
    #[error("the expression is empty")]
    Empty,
    /// Too many open parentheses and brackets, or negations.
    #[error("nested deeper than {MAX_LEVELS} levels")]
    TooDeep,

    /// Boolean form: a term has to start here.
    #[error("expected a name, an identifier, `not` or `(`")]
    ExpectedTerm,
    /// Boolean form: `and`, `or` or `not` is the last thing.
    #[error("`{0}` needs a term after it")]
    DanglingKeyword(&'static str),
    /// Boolean form: the text goes on after a complete term.
    #[error("text left over: expected `and`, `or` or the end")]
    LeftOver,
    /// Boolean form: nothing after `=`.
    #[error(
        "expected a value: letters, digits, `.`, `_`, `-`, or text in double quotes; it must not be empty"
    )]
    ExpectedValue,
    /// Boolean form: a full identifier is a term of its own.
    #[error("an identifier takes no value")]
    IdentifierWithValue,

    /// `(` without `)`.
    #[error("unclosed `(`")]
    UnclosedList,
    /// `[` without `]`.
    #[error("unclosed `[`")]
    UnclosedSequence,
    /// `)` that closes nothing, or a `[`.
    #[error("unmatched `)`")]
    UnmatchedList,
    /// `]` that closes nothing, or a `(`.
    #[error("unmatched `]`")]
    UnmatchedSequence,
    /// The first element of the expression decides what is computed.
    #[error("the first element must be an operator: and or not if < > = != member? exists?")]
    NoOperator,
    /// Neighbouring elements of a `[…]` differ in type.
    #[error("the elements of a `[…]` must be of one type")]
    MixedSequence,

    /// A character with no meaning outside of strings and comments.
    #[error("unexpected character {0:?}")]
    UnexpectedCharacter(char),
    /// A word that is neither a number nor an identifier.
    #[error(
        "neither a number nor an identifier (an identifier starts with a letter or one of ! $ % & * / < = > ? ~ _ ^)"
    )]
    Reserved,
    /// `'x'`
    #[error("a string is written in double quotes")]
    SingleQuotes,
    /// Strings and words with nothing between them.
    #[error("white space is missing beside this string")]
    Adjacent,
    /// `$` or `@` without a name that may follow.
    #[error("not an identifier after `$` or `@`")]
    BadName,
    /// The value does not fit.
    #[error("this integer does not fit into 64 bits")]
    Integer,
    /// A float in a notation that has no value here.
    #[error("floats are written in decimal, without underscores")]
    Float,
    /// Bytes written as `\hh` make no text.
    #[error("this string is not valid UTF-8")]
    Utf8,
    /// A string that never ends.
    #[error("this string is not closed")]
    UnclosedString,
    /// A backslash before something unknown.
    #[error(r#"unknown escape: use \" \' \\ \t \n \r \hh or \u{{hex}}"#)]
    BadEscape,
    /// A control character inside a string.
    #[error(r"control characters in a string are written as escapes, such as \n or \u{{1f}}")]
    RawControl,
    /// A character that makes text look different from what it is.
    #[error("bidirectional override characters are not allowed")]
    Bidirectional,
    /// A block comment that never ends.
    #[error("this comment is not closed")]
    UnclosedComment,
    /// Readers disagree on whether it ends the comment.
    #[error("a lone carriage return in a comment")]
    CarriageReturnInComment,
}

/// A [`Problem`] and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    offset: usize,
    problem: Problem,
}

impl SyntaxError {
    pub(crate) fn at(offset: usize, problem: Problem) -> Self {
        Self { offset, problem }
    }

    /// Byte offset into the text.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

/// A text that is not a policy.
///
/// `Display` shows, for each form that was tried, a line with the position and the reason, and the text with a caret
/// under that position. [`ParseError::summary`] says it in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The text was not looked at.
    #[error("the policy is {length} bytes long; at most {limit} are allowed")]
    TooLong {
        /// Bytes in the text.
        length: usize,
        /// The bound: [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES) or [`MAX_STORED_BYTES`](crate::MAX_STORED_BYTES).
        limit: usize,
    },
    /// No form takes the text.
    #[error("{0}")]
    Syntax(Box<SyntaxReport>),
}

/// The text and what each form says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxReport {
    text: Box<str>,
    boolean: Option<SyntaxError>,
    s_expression: Option<SyntaxError>,
}

impl ParseError {
    pub(crate) fn syntax(
        text: &str,
        boolean: Option<SyntaxError>,
        s_expression: Option<SyntaxError>,
    ) -> Self {
        ParseError::Syntax(Box::new(SyntaxReport {
            text: text.into(),
            boolean,
            s_expression,
        }))
    }

    /// What the boolean form says; `None` when it was not tried.
    pub fn boolean(&self) -> Option<&SyntaxError> {
        match self {
            ParseError::Syntax(report) => report.boolean.as_ref(),
            ParseError::TooLong { .. } => None,
        }
    }

    /// What the S-expression form says; `None` when it was not tried.
    pub fn s_expression(&self) -> Option<&SyntaxError> {
        match self {
            ParseError::Syntax(report) => report.s_expression.as_ref(),
            ParseError::TooLong { .. } => None,
        }
    }

    /// One sentence, from the form that understood more of the text.
    pub fn summary(&self) -> String {
        let ParseError::Syntax(report) = self else {
            return self.to_string();
        };
        let likely = match (&report.boolean, &report.s_expression) {
            (Some(boolean), Some(other)) if other.offset > boolean.offset || starts_as_list(&report.text) => {
                other
            }
            (Some(error), _) | (None, Some(error)) => error,
            (None, None) => return "not a policy".to_owned(),
        };
        let place = Place::of(&report.text, likely.offset);
        format!("the policy is wrong at {}: {}", place.position(), likely.problem)
    }
}

/// Whether whoever wrote this meant an S-expression.
fn starts_as_list(text: &str) -> bool {
    let inner = text.trim_start().trim_start_matches(['(', ' ']);
    inner.starts_with(['<', '>', '=', '!'])
        || (text.trim_start().starts_with('(') && text.contains("subject."))
}

impl Display for SyntaxReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let forms = [
            ("boolean form", &self.boolean),
            ("S-expression form", &self.s_expression),
        ];
        let mut first = true;
        for (form, error) in forms {
            let Some(error) = error else { continue };
            if !first {
                f.write_str("\n")?;
            }
            first = false;
            let place = Place::of(&self.text, error.offset);
            write!(
                f,
                "{form}, {}: {}\n  {}\n  {:>caret$}",
                place.position(),
                error.problem,
                place.line,
                '^',
                caret = place.caret
            )?;
        }
        Ok(())
    }
}

/// How much of a long line is shown on either side of the caret, in characters.
const SHOWN: usize = 40;

/// A place in a text as a person sees it.
struct Place {
    /// Characters from the start of the text, from 1.
    position: usize,
    /// Line and column from 1, for a text of several lines.
    line_and_column: Option<(usize, usize)>,
    /// The line, or the part of it around the place; nothing in it moves a terminal's cursor.
    line: String,
    /// Where the caret goes under it, from 1.
    caret: usize,
}

impl Place {
    fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let after = &text[before.len()..];
        let (earlier_lines, line_before) = before
            .rsplit_once('\n')
            .map_or((None, before), |(e, l)| (Some(e), l));
        let line_after = after.split('\n').next().unwrap_or_default();
        let column = line_before.chars().count();
        let skipped = column.saturating_sub(SHOWN);
        let visible = |c: char| if c.is_control() || is_hidden(c) { ' ' } else { c };
        let mut line = String::new();
        if skipped > 0 {
            line.push('…');
        }
        line.extend(line_before.chars().skip(skipped).map(visible));
        let caret = line.chars().count() + 1;
        line.extend(line_after.chars().take(SHOWN).map(visible));
        if line_after.chars().nth(SHOWN).is_some() {
            line.push('…');
        }
        let several = text.trim_end().contains('\n');
        let number = earlier_lines.map_or(1, |earlier| earlier.matches('\n').count() + 2);
        Self {
            position: before.chars().count() + 1,
            line_and_column: several.then_some((number, column + 1)),
            line: line.trim_end().to_owned(),
            caret,
        }
    }

    fn position(&self) -> String {
        match self.line_and_column {
            None => format!("position {}", self.position),
            Some((line, column)) => format!("position {} (line {line}, column {column})", self.position),
        }
    }
}

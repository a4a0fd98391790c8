//! Printing an expression so that it reads back as the same one (difference D14).

use std::fmt::{self, Display, Formatter, Write};

use crate::expression::{Expression, Node};
use crate::lexer;

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write(f, 0, None)
    }
}

impl Expression {
    /// Prints the sub-expression at `at`. A `replacement` stands for the node with its index; an empty one removes it.
    fn write(&self, f: &mut impl Write, at: u32, replacement: Option<(u32, &str)>) -> fmt::Result {
        let end = self.end(at);
        let mut open: Vec<(u32, char)> = Vec::new();
        let mut next = at;
        let mut after_opening = true;
        while next < end {
            let removed = replacement == Some((next, ""));
            if !after_opening && !removed {
                f.write_char(' ')?;
            }
            after_opening &= removed;
            let node_end = self.end(next);
            match (replacement, self.node(next)) {
                (Some((replaced, text)), _) if replaced == next => {
                    f.write_str(text)?;
                    next = node_end;
                }
                (_, Node::List { .. }) => {
                    f.write_char('(')?;
                    open.push((node_end, ')'));
                    after_opening = true;
                    next += 1;
                }
                (_, Node::Sequence { .. }) => {
                    f.write_char('[')?;
                    open.push((node_end, ']'));
                    after_opening = true;
                    next += 1;
                }
                (_, atom) => {
                    write_atom(f, atom)?;
                    next += 1;
                }
            }
            while let Some(&(_, closing)) = open.last().filter(|(closes, _)| *closes == next) {
                f.write_char(closing)?;
                open.pop();
                after_opening = false;
            }
        }
        Ok(())
    }

    /// The sub-expression at `at`, cut after `limit` characters.
    pub(crate) fn excerpt(&self, at: u32, limit: usize) -> String {
        self.excerpt_with(at, limit, None).unwrap_or_else(|cut| cut + "…")
    }

    /// The whole expression with the node at `at` replaced; `None` when that is longer than `limit` characters.
    pub(crate) fn with_replacement(&self, at: u32, replacement: &str, limit: usize) -> Option<String> {
        self.excerpt_with(0, limit, Some((at, replacement))).ok()
    }

    fn excerpt_with(
        &self,
        at: u32,
        limit: usize,
        replacement: Option<(u32, &str)>,
    ) -> Result<String, String> {
        let mut writer = Cut {
            text: String::new(),
            left: limit,
        };
        match self.write(&mut writer, at, replacement) {
            Ok(()) => Ok(writer.text),
            Err(fmt::Error) => Err(writer.text),
        }
    }
}

/// Takes a number of characters, then fails, so that a long expression is not printed for a short message.
struct Cut {
    text: String,
    left: usize,
}

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(character);
        }
        Ok(())
    }
}

fn write_atom(f: &mut impl Write, atom: &Node) -> fmt::Result {
    match atom {
        Node::Text(text) => write_quoted(f, text),
        Node::Integer(value) => write!(f, "{value}"),
        Node::Boolean(value) => write!(f, "{value}"),
        Node::Float(value) if value.is_nan() => {
            f.write_str(if value.is_sign_negative() { "-nan" } else { "nan" })
        }
        Node::Float(value) if value.is_infinite() => f.write_str(if *value < 0.0 { "-inf" } else { "+inf" }),
        // `Debug` keeps the point or the exponent that makes it a float, and never writes hundreds of digits.
        Node::Float(value) => write!(f, "{value:?}"),
        Node::Name(name) if lexer::is_plain_name(name) => f.write_str(name),
        Node::Name(name) => {
            f.write_char('$')?;
            write_quoted(f, name)
        }
        Node::List { .. } | Node::Sequence { .. } => Ok(()),
    }
}

/// A string literal.
pub(crate) fn quoted(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    // Writing into a `String` cannot fail.
    let _ = write_quoted(&mut literal, text);
    literal
}

fn write_quoted(f: &mut impl Write, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\t' => f.write_str("\\t")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            _ if is_hidden(character) => write!(f, "\\u{{{:x}}}", u32::from(character))?,
            _ => f.write_char(character)?,
        }
    }
    f.write_char('"')
}

/// Characters that a terminal or an editor does not show, or lets change how the rest looks.
pub(crate) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

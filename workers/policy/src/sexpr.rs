//! The S-expression form (spec 04, A4.2): what is stored, printed and evaluated.

use crate::error::{Problem, SyntaxError};
use crate::expression::{Builder, Expression, Node};
use crate::lexer::{Lexer, Token};
use crate::limits::MAX_LEVELS;

/// Parses a text as an S-expression. The caller bounds its length.
pub(crate) fn parse(text: &str) -> Result<Expression, SyntaxError> {
    let mut lexer = Lexer::new(text);
    let mut builder = Builder::default();
    // Several items at the top form one list; whether there are several is known at the end.
    builder.open(false);
    let mut openings: Vec<usize> = Vec::new();
    let mut items = 0usize;
    let mut first = 0;
    while let Some((at, token)) = lexer.next()? {
        if openings.is_empty() {
            items += 1;
            if items == 1 {
                first = at;
            }
        }
        match token {
            Token::Open | Token::OpenSequence => {
                if openings.len() >= MAX_LEVELS {
                    return Err(SyntaxError::at(at, Problem::TooDeep));
                }
                openings.push(at);
                builder.open(token == Token::OpenSequence);
            }
            Token::Close => {
                if openings.pop().is_none() || builder.innermost_is_sequence() != Some(false) {
                    return Err(SyntaxError::at(at, Problem::UnmatchedList));
                }
                close(&mut builder, at)?;
            }
            Token::CloseSequence => {
                let opening = openings.pop();
                let Some(opening) = opening.filter(|_| builder.innermost_is_sequence() == Some(true)) else {
                    return Err(SyntaxError::at(at, Problem::UnmatchedSequence));
                };
                close(&mut builder, opening)?;
            }
            Token::Text(text) => builder.atom(Node::Text(text.into())),
            Token::Integer(value) => builder.atom(Node::Integer(value)),
            Token::Float(value) => builder.atom(Node::Float(value)),
            Token::Boolean(value) => builder.atom(Node::Boolean(value)),
            Token::Name(name) => builder.atom(Node::Name(name.into())),
        }
    }
    if let Some(&opening) = openings.last() {
        let sequence = builder.innermost_is_sequence() == Some(true);
        return Err(SyntaxError::at(
            opening,
            if sequence {
                Problem::UnclosedSequence
            } else {
                Problem::UnclosedList
            },
        ));
    }
    if items == 0 {
        return Err(SyntaxError::at(text.len(), Problem::Empty));
    }
    close(&mut builder, first)?;
    builder.unwrap_single_root();
    if builder.levels() > MAX_LEVELS {
        return Err(SyntaxError::at(first, Problem::TooDeep));
    }
    if !builder.starts_with_operator() {
        return Err(SyntaxError::at(first, Problem::NoOperator));
    }
    Ok(builder.finish())
}

fn close(builder: &mut Builder, opening: usize) -> Result<(), SyntaxError> {
    if builder.close() {
        Ok(())
    } else {
        Err(SyntaxError::at(opening, Problem::MixedSequence))
    }
}

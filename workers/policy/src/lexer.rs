//! Tokens of the S-expression form (spec 04, A4.1): those of the WebAssembly text format.

use crate::error::{Problem, SyntaxError};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Open,
    Close,
    OpenSequence,
    CloseSequence,
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Name(String),
}

pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

type Result<T> = std::result::Result<T, SyntaxError>;

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next token and the byte offset at which it starts.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, Token)>> {
        self.skip_blank()?;
        let start = self.at;
        let Some(first) = self.peek() else { return Ok(None) };
        let token = match first {
            '(' => self.single(Token::Open),
            ')' => self.single(Token::Close),
            '[' => self.single(Token::OpenSequence),
            ']' => self.single(Token::CloseSequence),
            '"' => self.run()?,
            other if is_word_char(other) => self.run()?,
            other => return Err(SyntaxError::at(start, Problem::UnexpectedCharacter(other))),
        };
        Ok(Some((start, token)))
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn single(&mut self, token: Token) -> Token {
        self.at += 1;
        token
    }

    /// Skips white space and comments. Comments nest; a counter follows them, not the stack.
    fn skip_blank(&mut self) -> Result<()> {
        loop {
            let rest = self.rest();
            if rest.starts_with([' ', '\t', '\r', '\n']) {
                self.at += 1;
            } else if rest.starts_with(";;") {
                self.skip_line_comment()?;
            } else if rest.starts_with("(;") {
                self.skip_block_comment()?;
            } else {
                return Ok(());
            }
        }
    }

    fn skip_line_comment(&mut self) -> Result<()> {
        while let Some(character) = self.peek() {
            reject_bidirectional(self.at, character)?;
            // Some readers end a line at a lone carriage return and some do not: what follows would be a comment for
            // one and policy for the other.
            if character == '\r' && !self.rest().starts_with("\r\n") && self.rest().len() > 1 {
                return Err(SyntaxError::at(self.at, Problem::CarriageReturnInComment));
            }
            self.at += character.len_utf8();
            if character == '\n' {
                break;
            }
        }
        Ok(())
    }

    fn skip_block_comment(&mut self) -> Result<()> {
        let start = self.at;
        let mut levels = 0usize;
        loop {
            let rest = self.rest();
            if rest.starts_with("(;") {
                levels += 1;
                self.at += 2;
            } else if rest.starts_with(";)") {
                levels -= 1;
                self.at += 2;
                if levels == 0 {
                    return Ok(());
                }
            } else if let Some(character) = self.peek() {
                reject_bidirectional(self.at, character)?;
                self.at += character.len_utf8();
            } else {
                return Err(SyntaxError::at(start, Problem::UnclosedComment));
            }
        }
    }

    /// A maximal run of word characters and string literals, which is one token.
    fn run(&mut self) -> Result<Token> {
        let start = self.at;
        let mut string: Option<(usize, String)> = None;
        let mut strings = 0usize;
        while let Some(character) = self.peek() {
            if character == '"' {
                let at = self.at;
                string = Some((at, self.string()?));
                strings += 1;
            } else if is_word_char(character) {
                self.at += 1;
            } else {
                break;
            }
        }
        let run = &self.text[start..self.at];
        match string {
            None => word(run).map_err(|problem| SyntaxError::at(start, problem)),
            Some((at, text)) if strings == 1 && run.ends_with('"') => match &self.text[start..at] {
                "" => Ok(Token::Text(text)),
                "$" if !text.is_empty() => Ok(Token::Name(text)),
                "@" if matches_pattern(&text) => Ok(Token::Name(text)),
                "$" | "@" => Err(SyntaxError::at(start, Problem::BadName)),
                _ => Err(SyntaxError::at(at, Problem::Adjacent)),
            },
            Some((at, _)) => Err(SyntaxError::at(at, Problem::Adjacent)),
        }
    }

    /// A string literal; `at` stands on its opening quote.
    fn string(&mut self) -> Result<String> {
        let start = self.at;
        self.at += 1;
        // Bytes, because `\hh` writes one byte and only the whole has to be UTF-8.
        let mut bytes = Vec::new();
        loop {
            let at = self.at;
            let Some(character) = self.peek() else {
                return Err(SyntaxError::at(start, Problem::UnclosedString));
            };
            self.at += character.len_utf8();
            match character {
                '"' => break,
                '\\' => self.escape(at, &mut bytes)?,
                '\0'..='\x1f' | '\x7f' => return Err(SyntaxError::at(at, Problem::RawControl)),
                _ => {
                    reject_bidirectional(at, character)?;
                    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        String::from_utf8(bytes).map_err(|_| SyntaxError::at(start, Problem::Utf8))
    }

    /// An escape; `start` is the offset of its backslash, behind which `at` stands.
    fn escape(&mut self, start: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let bad = || SyntaxError::at(start, Problem::BadEscape);
        let rest = self.rest();
        let mut characters = rest.chars();
        let first = characters.next().ok_or_else(bad)?;
        let byte = match first {
            '"' | '\'' | '\\' => first as u8,
            't' => b'\t',
            'n' => b'\n',
            'r' => b'\r',
            'u' => {
                let inner = rest
                    .strip_prefix("u{")
                    .and_then(|rest| rest.split_once('}'))
                    .ok_or_else(bad)?
                    .0;
                let digits = digits(inner, 16).ok_or_else(bad)?;
                let scalar = u32::from_str_radix(&digits, 16)
                    .ok()
                    .and_then(char::from_u32)
                    .ok_or_else(bad)?;
                bytes.extend_from_slice(scalar.encode_utf8(&mut [0; 4]).as_bytes());
                self.at += inner.len() + 3;
                return Ok(());
            }
            _ => {
                let high = first.to_digit(16).ok_or_else(bad)?;
                let low = characters.next().and_then(|c| c.to_digit(16)).ok_or_else(bad)?;
                bytes.push((high * 16 + low) as u8);
                self.at += 2;
                return Ok(());
            }
        };
        bytes.push(byte);
        self.at += 1;
        Ok(())
    }
}

fn reject_bidirectional(at: usize, character: char) -> Result<()> {
    match character {
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Err(SyntaxError::at(at, Problem::Bidirectional)),
        _ => Ok(()),
    }
}

fn is_word_char(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || (character.is_ascii() && b"!#$%&'*+-./:<=>?@\\^_`|~".contains(&(character as u8)))
}

/// What a run of word characters stands for.
fn word(run: &str) -> std::result::Result<Token, Problem> {
    if let Some(name) = run.strip_prefix('$') {
        return if name.is_empty() {
            Err(Problem::BadName)
        } else {
            Ok(Token::Name(name.to_owned()))
        };
    }
    if let Some(name) = run.strip_prefix('@') {
        return if matches_pattern(name) {
            Ok(Token::Name(name.to_owned()))
        } else {
            Err(Problem::BadName)
        };
    }
    match run {
        "true" => return Ok(Token::Boolean(true)),
        "false" => return Ok(Token::Boolean(false)),
        _ => {}
    }
    if let Some(number) = number(run) {
        return number;
    }
    match run {
        _ if matches_pattern(run) => Ok(Token::Name(run.to_owned())),
        _ if run.starts_with('\'') => Err(Problem::SingleQuotes),
        _ => Err(Problem::Reserved),
    }
}

/// Whether a name is written without `$"…"`: it reads back as itself.
pub(crate) fn is_plain_name(name: &str) -> bool {
    name.chars().all(is_word_char)
        && word(name).is_ok_and(|token| matches!(token, Token::Name(read) if read == name))
}

/// `^[a-zA-Z!$%&*/<=>?~_^][a-zA-Z0-9!$%&*/<=>?~_^.+-@]*$`, in which `+-@` is a range.
fn matches_pattern(name: &str) -> bool {
    let first = |c: u8| c.is_ascii_alphabetic() || b"!$%&*/<=>?~_^".contains(&c);
    match name.as_bytes() {
        [head, tail @ ..] => first(*head) && tail.iter().all(|&c| first(c) || (b'+'..=b'@').contains(&c)),
        [] => false,
    }
}

/// `None` when the run is no number at all.
fn number(run: &str) -> Option<std::result::Result<Token, Problem>> {
    let (negative, unsigned) = match run.as_bytes().first()? {
        b'-' => (true, &run[1..]),
        b'+' => (false, &run[1..]),
        _ => (false, run),
    };
    let signed = |magnitude: f64| Some(Ok(Token::Float(if negative { -magnitude } else { magnitude })));
    match unsigned {
        "inf" => return signed(f64::INFINITY),
        "nan" => return signed(f64::NAN.copysign(1.0)),
        _ if unsigned
            .strip_prefix("nan:0x")
            .is_some_and(|payload| digits(payload, 16).is_some()) =>
        {
            return signed(f64::NAN.copysign(1.0));
        }
        _ => {}
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (radix, body) = unsigned
        .strip_prefix("0x")
        .map_or((10, unsigned), |hex| (16, hex));
    if let Some(digits) = digits(body, radix) {
        // The sign belongs to the number: the smallest i64 has no positive counterpart.
        let text = if negative { format!("-{digits}") } else { digits };
        return Some(
            i64::from_str_radix(&text, radix)
                .map(Token::Integer)
                .map_err(|_| Problem::Integer),
        );
    }
    if !is_float(body, radix) {
        return None;
    }
    // Hexadecimal floats and underscores in floats are words of the language without a value.
    if radix == 16 || body.contains('_') {
        return Some(Err(Problem::Float));
    }
    match body.parse::<f64>() {
        Ok(magnitude) => signed(magnitude),
        Err(_) => Some(Err(Problem::Float)),
    }
}

/// The digits without their underscores, which may stand singly between digits.
fn digits(text: &str, radix: u32) -> Option<String> {
    let parts_are_digits = text
        .split('_')
        .all(|part| !part.is_empty() && part.chars().all(|c| c.is_digit(radix)));
    parts_are_digits.then(|| text.chars().filter(|&c| c != '_').collect())
}

fn is_float(body: &str, radix: u32) -> bool {
    let marks: &[char] = if radix == 16 { &['p', 'P'] } else { &['e', 'E'] };
    let (mantissa, exponent) = match body.split_once(marks) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (body, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_is_number = exponent.is_none_or(|text| {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        digits(unsigned, 10).is_some()
    });
    digits(whole, radix).is_some()
        && (fraction.is_empty() || digits(fraction, radix).is_some())
        && exponent_is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> std::result::Result<Vec<Token>, Problem> {
        let mut lexer = Lexer::new(text);
        let mut all = Vec::new();
        loop {
            match lexer.next() {
                Ok(Some((_, token))) => all.push(token),
                Ok(None) => return Ok(all),
                Err(error) => return Err(error.problem().clone()),
            }
        }
    }

    fn one(text: &str) -> std::result::Result<Token, Problem> {
        tokens(text).map(|mut all| {
            assert_eq!(all.len(), 1, "{text}");
            all.remove(0)
        })
    }

    #[test]
    fn numbers_are_read_as_the_text_format_writes_them() {
        for (text, value) in [
            ("0", 0),
            ("007", 7),
            ("+4", 4),
            ("-0x10", -16),
            ("1_000", 1000),
            ("0xfF", 255),
            ("-9223372036854775808", i64::MIN),
            ("-0x8000000000000000", i64::MIN),
        ] {
            assert_eq!(one(text), Ok(Token::Integer(value)), "{text}");
        }
        for (text, value) in [
            ("1.", 1.0),
            ("1e3", 1000.0),
            ("1.5E-2", 0.015),
            ("-0.0", -0.0),
            ("1e400", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
        ] {
            assert_eq!(one(text), Ok(Token::Float(value)), "{text}");
        }
        for text in ["nan", "-nan", "+nan", "nan:0x1"] {
            assert!(
                matches!(one(text), Ok(Token::Float(value)) if value.is_nan()),
                "{text}"
            );
        }
    }

    #[test]
    fn malformed_numbers_are_refused() {
        for text in ["9223372036854775808", "0xffffffffffffffff"] {
            assert_eq!(one(text), Err(Problem::Integer), "{text}");
        }
        for text in ["0x1p4", "0x1.8", "1_0.5", "1e1_0"] {
            assert_eq!(one(text), Err(Problem::Float), "{text}");
        }
        for text in [
            "1__0", "1_", "0x", "0x_1", "0X1", ".5", "1true", "1e", "+a", "-a", ":a", "a#", "a'b", "a|b",
            "\\",
        ] {
            assert_eq!(one(text), Err(Problem::Reserved), "{text}");
        }
    }

    #[test]
    fn names_follow_the_pattern_unless_a_dollar_says_otherwise() {
        for (text, name) in [
            ("subject.ockam-relay", "subject.ockam-relay"),
            ("True", "True"),
            ("nan:0x", "nan:0x"),
            ("a:b@c", "a:b@c"),
            ("$true", "true"),
            ("$#", "#"),
            ("$\"a b\"", "a b"),
            ("@subject.a", "subject.a"),
            ("@\"a\"", "a"),
        ] {
            assert_eq!(one(text), Ok(Token::Name(name.to_owned())), "{text}");
        }
        for text in ["$", "@", "$\"\"", "@\"a b\"", "@1"] {
            assert_eq!(one(text), Err(Problem::BadName), "{text}");
        }
    }

    #[test]
    fn strings_take_the_escapes_of_the_text_format() {
        assert_eq!(
            one(r#""\"\'\\\t\n\r""#),
            Ok(Token::Text("\"'\\\t\n\r".to_owned()))
        );
        assert_eq!(one(r#""tr\u{75}e \c3\a9""#), Ok(Token::Text("true é".to_owned())));
        assert_eq!(one(r#""\00a""#), Ok(Token::Text("\0a".to_owned())));
        assert_eq!(one(r#""\ff""#), Err(Problem::Utf8));
        for text in [
            r#""\4""#,
            r#""\x""#,
            r#""\u{d800}""#,
            r#""\u{}""#,
            r#""\u{110000}""#,
            r#""\u75""#,
        ] {
            assert_eq!(one(text), Err(Problem::BadEscape), "{text}");
        }
        assert_eq!(one("\"a\tb\""), Err(Problem::RawControl));
        assert_eq!(one("\"a\u{7f}\""), Err(Problem::RawControl));
        assert_eq!(one("\"\u{202e}\""), Err(Problem::Bidirectional));
        assert_eq!(one("\"abc"), Err(Problem::UnclosedString));
        for text in ["a\"b\"", "\"a\"\"b\"", "\"a\"b", "$\"a\"b"] {
            assert_eq!(one(text), Err(Problem::Adjacent), "{text}");
        }
    }

    #[test]
    fn comments_nest_and_hide_nothing_from_a_reader() {
        assert_eq!(tokens("a ;; b\n(; c (; d ;) ;) e").map(|all| all.len()), Ok(2));
        assert_eq!(tokens("(; a"), Err(Problem::UnclosedComment));
        assert_eq!(tokens(";; \u{202e}"), Err(Problem::Bidirectional));
        assert_eq!(tokens("(; \u{2066} ;)"), Err(Problem::Bidirectional));
        assert_eq!(tokens(";; a\rb"), Err(Problem::CarriageReturnInComment));
        assert_eq!(tokens("a ;; b\r\nc").map(|all| all.len()), Ok(2));
        let nested = format!("{}{}a", "(;".repeat(100_000), ";)".repeat(100_000));
        assert_eq!(tokens(&nested).map(|all| all.len()), Ok(1));
        for text in [";", "a,b", "{", "é"] {
            assert!(
                matches!(tokens(text), Err(Problem::UnexpectedCharacter(_))),
                "{text}"
            );
        }
    }
}

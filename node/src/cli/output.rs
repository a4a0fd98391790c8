//! What commands print, and where.
//!
//! The **result** goes to stdout; everything else (progress, notes, warnings, errors) goes to stderr. A result has up to
//! three forms: plain, for people; machine, the shortest useful text; JSON. Without `--output`, a terminal gets the plain
//! form; a pipe gets the machine form, without a line end so that `x=$(portolan …)` and files hold nothing else, or JSON
//! where there is no machine form (05 §3.1).

use std::io::{self, BufRead, IsTerminal, Write};

use serde_json::Value;

use crate::control::api::ErrorBody;
use crate::error::{Error, Result};

/// The form that `--output` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Plain,
    Json,
}

/// What a command found out or did.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    plain: String,
    machine: Option<String>,
    json: Value,
}

impl Answer {
    /// A result with a form for people and one for programs.
    pub(crate) fn new(plain: impl Into<String>, json: Value) -> Self {
        Self {
            plain: plain.into(),
            machine: None,
            json,
        }
    }

    /// The same, with a machine form: what a script would want to put into a variable.
    pub(crate) fn machine(mut self, text: impl Into<String>) -> Self {
        self.machine = Some(text.into());
        self
    }
}

/// Where a command prints, and how.
#[derive(Debug, Clone)]
pub(crate) struct Terminal {
    pub(crate) format: Option<Format>,
    pub(crate) compact: bool,
    pub(crate) quiet: bool,
    pub(crate) no_input: bool,
    pub(crate) color: bool,
    pub(crate) stdout_is_terminal: bool,
    pub(crate) stderr_is_terminal: bool,
}

#[derive(Clone, Copy)]
enum Color {
    Green,
    Red,
    Yellow,
    Cyan,
}

impl Terminal {
    /// The terminal of this process.
    pub(crate) fn new(
        format: Option<Format>,
        compact: bool,
        quiet: bool,
        no_color: bool,
        no_input: bool,
    ) -> Self {
        let stderr_is_terminal = io::stderr().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            format,
            compact,
            quiet,
            no_input,
            color: stderr_is_terminal && !no_color && !dumb,
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal,
        }
    }

    /// Whether results and errors are to be JSON.
    pub(crate) fn wants_json(&self) -> bool {
        self.format == Some(Format::Json) || (self.format.is_none() && self.compact)
    }

    /// The text of an answer, as it goes to stdout.
    fn render(&self, answer: &Answer) -> String {
        let json = || {
            let text = if self.compact {
                serde_json::to_string(&answer.json)
            } else {
                serde_json::to_string_pretty(&answer.json)
            };
            // A value made of strings and numbers always has a text.
            text.unwrap_or_default()
        };
        let plain = || format!("{}\n", answer.plain.trim_end());
        let end = if self.stdout_is_terminal { "\n" } else { "" };
        if self.wants_json() {
            format!("{}{end}", json())
        } else if self.format == Some(Format::Plain) || self.stdout_is_terminal {
            plain()
        } else if let Some(machine) = &answer.machine {
            machine.clone()
        } else {
            json()
        }
    }

    /// Print the result.
    ///
    /// # Errors
    ///
    /// When stdout cannot be written. A reader that went away (`| head`) is no error.
    pub(crate) fn answer(&self, answer: &Answer) -> Result<()> {
        self.raw(self.render(answer).as_bytes())
    }

    /// Print these bytes to stdout.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<()> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::failed(format!("the result cannot be written: {error}")))
            }
            _ => Ok(()),
        }
    }

    fn paint(&self, color: Color, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match color {
            Color::Green => 32,
            Color::Red => 31,
            Color::Yellow => 33,
            Color::Cyan => 36,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    fn line(&self, color: Color, mark: &str, text: &str) {
        // Nothing can be done about a stderr that is gone.
        let mut err = io::stderr().lock();
        for (number, line) in text.lines().enumerate() {
            let mark = if number == 0 {
                self.paint(color, mark)
            } else {
                " ".to_owned()
            };
            let _ = writeln!(err, "{mark} {line}");
        }
    }

    /// Something was done.
    pub(crate) fn done(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.line(Color::Green, "✔", text.as_ref());
        }
    }

    /// Something worth knowing.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.line(Color::Cyan, ">", text.as_ref());
        }
    }

    /// Something that is probably not as wanted.
    pub(crate) fn warn(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.line(Color::Yellow, "!", text.as_ref());
        }
    }

    /// The command failed.
    pub(crate) fn error(&self, error: &Error) {
        if self.wants_json() {
            let body = serde_json::json!({ "error": ErrorBody::from(error.clone()) });
            let _ = writeln!(io::stderr().lock(), "{body}");
            return;
        }
        let mut text = error.message.clone();
        if let Some(hint) = &error.hint {
            text.push('\n');
            text.push_str(hint);
        }
        self.line(Color::Red, "✗", &text);
    }

    /// Whether a question can be asked at all.
    pub(crate) fn can_ask(&self) -> bool {
        self.stderr_is_terminal && io::stdin().is_terminal() && !self.quiet && !self.no_input
    }

    /// Ask for consent to delete something. `yes` is the command's `--yes`.
    ///
    /// # Errors
    ///
    /// When the answer is no, and when no question can be asked: then `--yes` is needed.
    pub(crate) fn confirm(&self, yes: bool, question: &str) -> Result<()> {
        if yes {
            return Ok(());
        }
        if !self.can_ask() {
            // The question starts a line; here it starts a sentence in the middle.
            let mut letters = question.chars();
            let first = letters
                .next()
                .map(|letter| letter.to_lowercase().to_string())
                .unwrap_or_default();
            return Err(Error::invalid(format!(
                "{first}{} needs a confirmation, and nobody can be asked here",
                letters.as_str()
            ))
            .hint("add --yes"));
        }
        let mut err = io::stderr().lock();
        let _ = write!(err, "{} {question}? [y/N] ", self.paint(Color::Yellow, "?"));
        let _ = err.flush();
        drop(err);
        let mut line = String::new();
        let _ = io::stdin().lock().read_line(&mut line);
        match line.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Error::new(crate::ErrorCode::Interrupted, "nothing was changed")),
        }
    }
}

/// Rows under headings, columns aligned, two spaces between them.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Names and values, one pair a line, values aligned. Pairs without a value are left out.
pub(crate) fn card(pairs: &[(&str, String)]) -> String {
    let shown: Vec<_> = pairs.iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = shown
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for (name, value) in shown {
        for (number, line) in value.lines().enumerate() {
            let name = if number == 0 { name } else { &"" };
            let padding = width - name.chars().count();
            out.push_str(&format!("{name}{:padding$}  {line}\n", ""));
        }
    }
    out
}

/// `1 node`, `2 nodes`.
pub(crate) fn count(number: usize, one: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{number} {one}s")
    }
}

/// A number of seconds for people: `10 min`, `1 h 30 min`, `30 d`.
pub(crate) fn span(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, name) in units {
        if rest >= size && parts.len() < 2 {
            parts.push(format!("{} {name}", rest / size));
            rest %= size;
        } else if !parts.is_empty() {
            break;
        }
    }
    if parts.is_empty() {
        "0 s".to_owned()
    } else {
        parts.join(" ")
    }
}

/// When something ends, seen from now: `in 9 min 59 s`, `ended 3 s ago`.
pub(crate) fn until(end: u64, now: u64) -> String {
    if end > now {
        format!("in {}", span(end - now))
    } else {
        format!("ended {} ago", span(now - end))
    }
}

/// `role=client, team=a`. Others have chosen them: control characters do not get to the terminal.
pub(crate) fn attributes<'a>(attributes: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let shown: Vec<_> = attributes
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    shown.join(", ").replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminal(format: Option<Format>, is_terminal: bool) -> Terminal {
        Terminal {
            format,
            compact: false,
            quiet: false,
            no_input: true,
            color: false,
            stdout_is_terminal: is_terminal,
            stderr_is_terminal: is_terminal,
        }
    }

    #[test]
    fn a_pipe_gets_the_machine_form_alone_and_a_terminal_the_plain_one() {
        let answer = Answer::new("Ticket made.", serde_json::json!({"a": 1})).machine("abc");
        assert_eq!(terminal(None, false).render(&answer), "abc");
        assert_eq!(terminal(None, true).render(&answer), "Ticket made.\n");
        assert_eq!(
            terminal(Some(Format::Plain), false).render(&answer),
            "Ticket made.\n"
        );
        assert_eq!(
            terminal(Some(Format::Json), false).render(&answer),
            "{\n  \"a\": 1\n}"
        );
        let without = Answer::new("x", serde_json::json!([]));
        assert_eq!(terminal(None, false).render(&without), "[]");
        let compact = Terminal {
            compact: true,
            ..terminal(None, true)
        };
        assert_eq!(compact.render(&answer), "{\"a\":1}\n");
    }

    #[test]
    fn deleting_without_a_terminal_asks_for_yes() {
        let error = terminal(None, false)
            .confirm(false, "deleting the node `n1`")
            .unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("add --yes"));
        terminal(None, false)
            .confirm(true, "deleting the node `n1`")
            .unwrap();
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [
            vec!["größe".to_owned(), "up".to_owned()],
            vec!["n1".to_owned(), "stopped".to_owned()],
        ];
        assert_eq!(
            table(&["NAME", "STATUS"], &rows),
            "NAME   STATUS\ngröße  up\nn1     stopped\n"
        );
        let pairs = [
            ("Name", "n1".to_owned()),
            ("Gone", String::new()),
            ("Relays", "a\nb".to_owned()),
        ];
        assert_eq!(card(&pairs), "Name    n1\nRelays  a\n        b\n");
    }

    #[test]
    fn spans_are_said_as_people_say_them() {
        assert_eq!(span(0), "0 s");
        assert_eq!(span(600), "10 min");
        assert_eq!(span(5400), "1 h 30 min");
        assert_eq!(span(86_401), "1 d");
        assert_eq!(until(10, 7), "in 3 s");
        assert_eq!(until(7, 10), "ended 3 s ago");
    }
}

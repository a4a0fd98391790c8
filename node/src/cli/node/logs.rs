//! What a background node wrote.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::default_or;
use crate::cli::context::Context;
use crate::cli::output::Answer;
use crate::cli::values;
use crate::error::{Error, ErrorCode, Result};

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// Default: the default node.
    #[arg(value_parser = values::node)]
    name: Option<String>,
    /// Go on printing what is written.
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines.
    #[arg(short = 'n', long, value_name = "NUMBER")]
    lines: Option<usize>,
    /// Print the path of the file instead.
    #[arg(long, conflicts_with_all = ["follow", "lines"])]
    path: bool,
}

impl Logs {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let folder = default_or(context, self.name)?;
        let path = folder.log();
        if self.path || context.terminal.wants_json() {
            let shown = path.display().to_string();
            return context
                .terminal
                .answer(&Answer::new(shown.clone(), json!({ "path": path })).machine(shown));
        }
        let mut file = open_log(&path)?;
        let fail =
            |error: std::io::Error| Error::state(format!("{} cannot be read: {error}", path.display()));
        if let Some(lines) = self.lines {
            skip_to_last(&mut file, lines).map_err(fail)?;
        }
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = file.read(&mut buffer).map_err(fail)?;
            if length > 0 {
                context.terminal.raw(buffer.get(..length).unwrap_or_default())?;
            } else if self.follow {
                tokio::time::sleep(Duration::from_millis(200)).await;
                // A log that was moved aside is read to its end; then the new one is.
                if let Some(next) = successor(&file, &path) {
                    file = next;
                }
            } else {
                return Ok(());
            }
        }
    }
}

fn open_log(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(
            ErrorCode::NotFound,
            "the node has no log: it has never run in the background",
        ),
        _ => Error::state(format!("{} cannot be read: {error}", path.display())),
    })
}

/// The file that has taken the place of `file` at `path`, if one has.
fn successor(file: &File, path: &Path) -> Option<File> {
    use std::os::unix::fs::MetadataExt;
    let next = File::open(path).ok()?;
    let (old, new) = (file.metadata().ok()?, next.metadata().ok()?);
    (old.ino() != new.ino() || old.dev() != new.dev()).then_some(next)
}

/// Move to where the last `lines` lines begin.
fn skip_to_last(file: &mut File, lines: usize) -> std::io::Result<()> {
    const STEP: u64 = 64 * 1024;
    let mut position = file.metadata()?.len();
    let mut ends = 0;
    let mut buffer = Vec::new();
    while position > 0 {
        let start = position.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        buffer.clear();
        file.by_ref().take(position - start).read_to_end(&mut buffer)?;
        for (index, byte) in buffer.iter().enumerate().rev() {
            if *byte != b'\n' {
                continue;
            }
            // The end of the last line is not the end of a line before it.
            if ends == lines {
                file.seek(SeekFrom::Start(start + index as u64 + 1))?;
                return Ok(());
            }
            ends += 1;
        }
        position = start;
    }
    file.rewind()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_lines_of_a_log_are_found() {
        let mut file = tempfile::tempfile().unwrap();
        for number in 0..20_000 {
            writeln!(file, "line {number}").unwrap();
        }
        let last = |file: &mut File, lines| {
            skip_to_last(file, lines).unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            text.lines().count()
        };
        for lines in [1, 2, 10_000, 20_000, 30_000] {
            assert_eq!(last(&mut file, lines), lines.min(20_000));
        }
        assert_eq!(last(&mut file, 0), 0);
    }
}

//! Where log lines go: stderr, or the node's own file, which never grows beyond a bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// A log file of this size becomes `node.log.1`, in place of the one before, and a new one is begun: a node keeps at most
/// twice this much.
const MAX_LOG: u64 = 16 * 1024 * 1024;

/// Start the log of this process at `level`, unless `PORTOLAN_LOG` says otherwise; into `file`, or to stderr.
pub(super) fn start(level: &str, file: Option<&Path>) {
    let wanted = std::env::var("PORTOLAN_LOG")
        .ok()
        .filter(|filter| !filter.is_empty());
    let filter =
        EnvFilter::try_new(wanted.as_deref().unwrap_or(level)).unwrap_or_else(|_| EnvFilter::new(level));
    let json = std::env::var("PORTOLAN_LOG_FORMAT").is_ok_and(|format| format == "json");
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // Starting fails only if a log was started before, which happens in tests.
    let _ = match (file.and_then(|path| Bounded::open(path, MAX_LOG).ok()), json) {
        (Some(file), true) => log.with_writer(file).json().try_init(),
        (Some(file), false) => log.with_writer(file).try_init(),
        (None, true) => log.with_writer(io::stderr).json().try_init(),
        (None, false) => log.with_writer(io::stderr).try_init(),
    };
}

/// A file that is moved aside when it has reached a size.
struct Bounded {
    path: PathBuf,
    limit: u64,
    state: Mutex<(File, u64)>,
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

impl Bounded {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        Ok(Self {
            path: path.to_path_buf(),
            limit,
            state: Mutex::new(open(path)?),
        })
    }
}

/// One line of the log.
struct Line<'a>(&'a Bounded);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        if state.1 >= self.0.limit {
            let mut aside = self.0.path.clone().into_os_string();
            aside.push(".1");
            std::fs::rename(&self.0.path, aside)?;
            *state = open(&self.0.path)?;
        }
        let written = state.0.write(bytes)?;
        state.1 += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.state.lock().0.flush()
    }
}

impl<'a> MakeWriter<'a> for Bounded {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_at_most_twice_its_bound_and_loses_only_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        let log = Bounded::open(&path, 1000).unwrap();
        for number in 0..1000 {
            log.make_writer()
                .write_all(format!("line {number}\n").as_bytes())
                .unwrap();
        }
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let (old, new) = (read(&folder.path().join("node.log.1")), read(&path));
        assert!(old.len() < 1100 && new.len() < 1100);
        let all = old + &new;
        assert!(all.ends_with("line 999\n"));
        let first: usize = all.lines().next().unwrap()["line ".len()..].parse().unwrap();
        assert_eq!(all.lines().count(), 1000 - first, "no line between is missing");
    }
}

//! A file that is rotated when it is full, and never has half a line.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file that lines are added to.
#[derive(Debug)]
pub(super) struct Rotated {
    path: PathBuf,
    max_bytes: u64,
    keep: u32,
    open: Option<(File, u64)>,
}

impl Rotated {
    pub(super) fn new(path: PathBuf, max_bytes: u64, keep: u32) -> Self {
        Self {
            path,
            max_bytes,
            keep,
            open: None,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Add whole lines: all of them or none.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let (mut file, mut size) = match self.open.take() {
            Some(open) if self.is_still_there(&open.0) => open,
            _ => self.open_file()?,
        };
        if size > 0 && size + lines.len() as u64 > self.max_bytes {
            drop(file);
            self.rotate()?;
            (file, size) = self.open_file()?;
        }
        match file.write_all(lines) {
            Ok(()) => {
                self.open = Some((file, size + lines.len() as u64));
                Ok(())
            }
            Err(error) => {
                // The part that did get in. If even that fails, the next start of a line mends it.
                let _ = file.set_len(size);
                Err(error)
            }
        }
    }

    /// Somebody may have moved or removed it; then there is a new one.
    fn is_still_there(&self, file: &File) -> bool {
        match (file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
            _ => false,
        }
    }

    fn open_file(&self) -> io::Result<(File, u64)> {
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)?;
        let mut size = file.metadata()?.len();
        if size > 0 {
            // A line that was cut off by the end of a machine gets its end, so that the next one is a line.
            let mut last = [0];
            file.seek(SeekFrom::Start(size - 1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                size += 1;
            }
        }
        Ok((file, size))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    fn rotate(&self) -> io::Result<()> {
        if self.keep == 0 {
            return std::fs::remove_file(&self.path);
        }
        for number in (1..self.keep).rev() {
            match std::fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.numbered(1))
    }
}

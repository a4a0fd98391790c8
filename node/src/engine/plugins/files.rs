//! The copies of plugins in the node's folder: whole or not there, and private.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use portolan_plugin::{Digest, MAX_FILE};

use super::plugin_error;
use crate::error::{Error, Result};
use crate::state::StateError;

/// Where a node keeps them.
pub(super) fn folder(node: &Path) -> PathBuf {
    node.join("plugins")
}

fn bytes_of(path: &Path) -> std::io::Result<Vec<u8>> {
    // Who opens a pipe that nobody writes to waits for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Read what an owner names.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    bytes_of(path).map_err(|error| {
        Error::invalid(format!(
            "the plugin's file {} cannot be read: {error}",
            path.display()
        ))
    })
}

/// Whether a copy is what it was.
pub(super) fn verify(path: &Path, wanted: &Digest) -> Result<()> {
    let bytes = bytes_of(path).map_err(|error| {
        plugin_error(portolan_plugin::PluginError::Unreadable {
            path: path.display().to_string(),
            reason: error.to_string(),
        })
    })?;
    let found = Digest::of(&bytes);
    if found == *wanted {
        Ok(())
    } else {
        Err(plugin_error(portolan_plugin::PluginError::Digest {
            pinned: *wanted,
            found,
        }))
    }
}

/// Write a copy: it is complete under its name, or not there.
pub(super) fn keep(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |error| Error::from(StateError::io(path, error));
    if let Some(folder) = path.parent() {
        crate::state::create_private_folder(folder)?;
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&part);
        fail(error)
    })
}

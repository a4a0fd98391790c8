//! The Unix socket in a node's folder, whatever the length of the folder's path.
//!
//! The kernel takes 107 bytes for the path of a socket. A longer one is reached through the folder's descriptor,
//! `/proc/self/fd/<n>/control.sock`, which is short.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The name of the socket in the node's folder.
pub const NAME: &str = "control.sock";
/// `sun_path` holds 108 bytes, the last of which is zero.
const LONGEST: usize = 107;

/// A path by which the kernel takes the socket, and what must stay open as long as the path is used.
fn short_path(folder: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let plain = folder.join(NAME);
    if plain.as_os_str().len() <= LONGEST {
        return Ok((plain, None));
    }
    let open = File::open(folder)?;
    let through = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
    if !through.exists() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidFilename,
            format!("its path is longer than {LONGEST} bytes and /proc is not mounted"),
        ));
    }
    Ok((through.join(NAME), Some(open)))
}

/// Bind the socket: mode 0600, a stale file of a killed process removed. Only the holder of the node's lock may call it.
pub(crate) fn bind(folder: &Path) -> Result<UnixListener> {
    let fail = |error: io::Error| {
        Error::state(format!(
            "the control socket in {} cannot be made: {error}",
            folder.display()
        ))
        .hint("set PORTOLAN_HOME to a writable folder with a short path")
    };
    let (path, _folder) = short_path(folder).map_err(fail)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    // The folder is 0700, so nobody comes in between these two steps.
    let listener = UnixListener::bind(&path).map_err(fail)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    Ok(listener)
}

/// Connect to the socket of a running node.
pub(crate) fn connect(folder: &Path) -> io::Result<UnixStream> {
    let (path, _folder) = short_path(folder)?;
    let stream = UnixStream::connect(path)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_works_in_a_folder_with_a_long_path_and_is_private() {
        let root = tempfile::tempdir().unwrap();
        for folder in [
            root.path().join("short"),
            root.path().join("l".repeat(120)).join("o".repeat(120)),
        ] {
            std::fs::create_dir_all(&folder).unwrap();
            for _ in 0..2 {
                // The second time a stale file is in the way.
                let listener = bind(&folder).unwrap();
                let mode = folder.join(NAME).metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
                connect(&folder).unwrap();
                listener.accept().unwrap();
            }
        }
    }
}

//! Opening SQLite so that two processes at once, a full disk, a damaged file or one of a newer version end in a clear
//! answer.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode as SqliteCode, OpenFlags, TransactionBehavior};

use crate::error::Error;

/// How long a statement waits for another process to finish its transaction. Transactions take milliseconds; whoever
/// waits this long waits for a process that hangs.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// No space left on the device.
    #[error("the disk that holds {} is full", .0.display())]
    Full(PathBuf),
    /// The file system, the file or its folder cannot be written.
    #[error("{} cannot be written (read-only or not yours)", .0.display())]
    ReadOnly(PathBuf),
    /// Not a database, or a damaged one.
    #[error("{} is damaged or is not a database", .0.display())]
    Corrupt(PathBuf),
    /// Written by a version that knows more.
    #[error("{} was written by a newer version (its format is {found}, this binary knows {known})", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Another process held it for longer than the limit.
    #[error("{} is locked by another process that does not finish", .0.display())]
    Busy(PathBuf),
    /// The operating system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// SQLite refused for another reason.
    #[error("{}: {source}", .path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row holds what this version cannot read.
    #[error("{}: an entry cannot be read: {what}", .path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Which entry, and why.
        what: String,
    },
}

impl StateError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StateError::Full(path),
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => StateError::ReadOnly(path),
            _ => StateError::Io { path, source },
        }
    }

    pub(crate) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        match source.sqlite_error_code() {
            Some(SqliteCode::DiskFull) => StateError::Full(path),
            // What was opened to read only because there was no room to write.
            Some(SqliteCode::ReadOnly) if disk_is_full(&path) => StateError::Full(path),
            Some(SqliteCode::ReadOnly | SqliteCode::PermissionDenied | SqliteCode::CannotOpen) => {
                StateError::ReadOnly(path)
            }
            Some(SqliteCode::DatabaseCorrupt | SqliteCode::NotADatabase) => StateError::Corrupt(path),
            Some(SqliteCode::DatabaseBusy | SqliteCode::DatabaseLocked) => StateError::Busy(path),
            // A write-ahead log that cannot grow, or a shared-memory file that cannot be made, is reported as an I/O
            // error; on a full disk that is what it is.
            Some(SqliteCode::SystemIoFailure) if disk_is_full(&path) => StateError::Full(path),
            _ => StateError::Sqlite {
                path,
                source: source.into(),
            },
        }
    }
}

fn disk_is_full(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(path);
    rustix::fs::statvfs(folder).is_ok_and(|disk| disk.f_bavail == 0 || disk.f_favail == 0)
}

impl From<StateError> for Error {
    fn from(error: StateError) -> Self {
        let hint = match &error {
            StateError::Full(_) => Some("free some space and run the command again; nothing was changed"),
            StateError::ReadOnly(_) => {
                Some("make the folder writable for this user, or set PORTOLAN_HOME to another one")
            }
            StateError::Corrupt(_) => {
                Some("restore the file from a back-up, or start over with `portolan reset`")
            }
            StateError::Newer { .. } => {
                Some("use the newer binary, or set PORTOLAN_HOME to another folder for this one")
            }
            StateError::Busy(_) => Some("run the command again; `portolan node list` shows what runs"),
            StateError::Io { .. } | StateError::Sqlite { .. } | StateError::Row { .. } => None,
        };
        let out = Error::state(error.to_string());
        match hint {
            Some(hint) => out.hint(hint),
            None => out,
        }
    }
}

/// Create a folder of mode 0700, and its parents, if it is not there.
pub(crate) fn create_private_folder(path: &Path) -> Result<(), StateError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StateError::io(path, source))
}

/// Open a database and bring it to the newest schema. `migrations[i]` leads from version `i` to `i + 1`.
pub(crate) fn open(path: &Path, migrations: &[&str]) -> Result<Connection, StateError> {
    // SQLite gives its side files the mode of the database, so the first creation decides.
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(StateError::io(path, error)),
    }
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match try_open(path, migrations) {
            // Changing the journal mode, and the first read after a crash, report "busy" without waiting.
            Err(StateError::Busy(_)) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            // Who only wants to look needs no room: `node list` works on a full disk.
            Err(error @ (StateError::Full(_) | StateError::ReadOnly(_))) => {
                return open_to_look(path, migrations).ok_or(error);
            }
            result => return result,
        }
    }
}

/// Opens a database where SQLite has no room for the side files that even a reader makes. Only if all that was written is
/// in the file itself, and its schema is ours; writing then fails as it would have before.
fn open_to_look(path: &Path, migrations: &[&str]) -> Option<Connection> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if std::fs::metadata(log).is_ok_and(|log| log.len() > 0) {
        return None;
    }
    let encoded: String = path
        .to_str()?
        .chars()
        .map(|c| match c {
            '%' => "%25".to_owned(),
            '?' => "%3f".to_owned(),
            '#' => "%23".to_owned(),
            other => other.to_string(),
        })
        .collect();
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(format!("file:{encoded}?immutable=1"), flags).ok()?;
    connection.execute_batch("PRAGMA trusted_schema = OFF;").ok()?;
    let found = version(&connection).ok()??;
    (found == migrations.len() as i64).then_some(connection)
}

fn try_open(path: &Path, migrations: &[&str]) -> Result<Connection, StateError> {
    let fail = |source| StateError::sqlite(path, source);
    let connection = Connection::open(path).map_err(fail)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
    let mode: String = connection
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .map_err(fail)?;
    if mode != "wal" {
        connection
            .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
            .map_err(fail)?;
    }
    // FULL: what a command has confirmed survives a power cut, not only a crash.
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;")
        .map_err(fail)?;
    migrate(connection, path, migrations)
}

/// Bring a database to the newest schema.
fn migrate(mut connection: Connection, path: &Path, migrations: &[&str]) -> Result<Connection, StateError> {
    let fail = |source| StateError::sqlite(path, source);
    let known = migrations.len() as i64;
    if version(&connection).map_err(fail)? != Some(known) {
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(fail)?;
        // Another process may have been faster.
        let found = version(&transaction).map_err(fail)?.unwrap_or(0);
        if found > known {
            return Err(StateError::Newer {
                path: path.to_path_buf(),
                found,
                known,
            });
        }
        for migration in migrations.iter().skip(usize::try_from(found).unwrap_or(0)) {
            transaction.execute_batch(migration).map_err(fail)?;
        }
        transaction
            .execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL);
                 DELETE FROM schema_version;
                 INSERT INTO schema_version (version) VALUES ({known});"
            ))
            .map_err(fail)?;
        transaction.commit().map_err(fail)?;
    }
    Ok(connection)
}

/// A database in the memory of this process, and its newest schema. It is there as long as one connection to it is open;
/// every further one opened by the same name sees the same data.
pub(crate) fn open_in_memory(name: &str, migrations: &[&str]) -> Result<Connection, StateError> {
    let shown = Path::new("(memory)");
    let fail = |source| StateError::sqlite(shown, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // A name that begins with a slash is shared by the connections of the process, and nobody else sees it.
    let connection = Connection::open_with_flags(format!("file:/{name}?vfs=memdb"), flags).map_err(fail)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
    connection
        .execute_batch("PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;")
        .map_err(fail)?;
    migrate(connection, shown, migrations)
}

fn version(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let exists: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'schema_version')",
        [],
        |row| row.get(0),
    )?;
    if !exists {
        return Ok(None);
    }
    connection.query_row("SELECT max(version) FROM schema_version", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const ONE: &[&str] = &["CREATE TABLE a (x INTEGER);"];
    const TWO: &[&str] = &[
        "CREATE TABLE a (x INTEGER);",
        "ALTER TABLE a ADD COLUMN y INTEGER;",
    ];

    #[test]
    fn a_database_is_private_and_keeps_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sqlite3");
        open(&path, ONE)
            .unwrap()
            .execute("INSERT INTO a VALUES (7)", [])
            .unwrap();
        let connection = open(&path, ONE).unwrap();
        let x: i64 = connection
            .query_row("SELECT x FROM a", [], |row| row.get(0))
            .unwrap();
        assert_eq!(x, 7);
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn an_older_schema_is_brought_up_to_date_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sqlite3");
        open(&path, ONE)
            .unwrap()
            .execute("INSERT INTO a VALUES (7)", [])
            .unwrap();
        let connection = open(&path, TWO).unwrap();
        let y: Option<i64> = connection
            .query_row("SELECT y FROM a", [], |row| row.get(0))
            .unwrap();
        assert_eq!(y, None);
        drop(connection);
        let error = open(&path, ONE).unwrap_err();
        assert!(
            matches!(
                error,
                StateError::Newer {
                    found: 2,
                    known: 1,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_no_database_is_called_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sqlite3");
        std::fs::write(
            &path,
            b"certainly not a database, but long enough to be looked at",
        )
        .unwrap();
        assert!(matches!(open(&path, ONE).unwrap_err(), StateError::Corrupt(_)));
    }

    #[test]
    fn many_processes_may_create_one_database_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sqlite3");
        std::thread::scope(|scope| {
            for number in 0..16 {
                let path = &path;
                scope.spawn(move || {
                    open(path, TWO)
                        .unwrap()
                        .execute("INSERT INTO a (x) VALUES (?1)", [number])
                        .unwrap();
                });
            }
        });
        let connection = open(&path, TWO).unwrap();
        let count: i64 = connection
            .query_row("SELECT count(*) FROM a", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 16);
    }
}

//! A node's folder: its lock, its database, its control socket.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::database::{self, StateError, create_private_folder};
use super::home::Home;
use super::spec::{InletSpec, NodeSpec, OutletSpec, PluginSpec, PolicySpec, Project, RelaySpec, WorkerSpec};
use crate::control::api::PolicyTarget;
use crate::control::socket;
use crate::error::{Error, Result};

/// One entry leads from one version of the schema to the next. Never change an entry that was released: add one.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE value (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;
    CREATE TABLE resource (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        record TEXT NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT;
",
    "
    CREATE TABLE worker_value (
        worker TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (worker, key)
    ) STRICT;
",
];

/// How long to try for the lock while somebody merely looks whether the node runs. Looking takes microseconds.
const LOCK_RETRY: Duration = Duration::from_secs(2);

/// The folder of a node, which may not exist. Cheap to clone; holds nothing open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFolder {
    home: Home,
    name: String,
    path: PathBuf,
}

impl NodeFolder {
    /// `name` was checked by the caller.
    pub(super) fn new(home: Home, name: &str) -> Self {
        let path = home.path().join("nodes").join(name);
        Self {
            home,
            name: name.to_owned(),
            path,
        }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The home that it is in.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is such a node: it has been given a database.
    pub fn exists(&self) -> bool {
        self.path.join("node.sqlite3").exists()
    }

    /// What a background node writes.
    pub fn log(&self) -> PathBuf {
        self.path.join("node.log")
    }

    /// Members and tickets of a project node.
    pub fn authority_database(&self) -> PathBuf {
        self.path.join("authority.sqlite3")
    }

    /// Whether a process runs this node: whether its lock is held.
    pub fn is_running(&self) -> bool {
        let Ok(file) = File::open(self.path.join("lock")) else {
            return false;
        };
        // A shared lock, so that looking never looks like running to another who looks.
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// The process id of the running node, for people and for signals. Meaningful only while [`is_running`] is true.
    ///
    /// [`is_running`]: Self::is_running
    pub fn pid(&self) -> Option<u32> {
        let mut text = String::new();
        File::open(self.path.join("lock"))
            .ok()?
            .take(32)
            .read_to_string(&mut text)
            .ok()?;
        text.trim().parse().ok()
    }

    /// What the node should be, read without the lock.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or holds no spec.
    pub fn spec(&self) -> Result<NodeSpec> {
        self.read()?.spec()
    }

    /// The node's database, for reading while its process may write.
    ///
    /// # Errors
    ///
    /// When the database cannot be opened.
    pub fn read(&self) -> Result<NodeDatabase> {
        Ok(NodeDatabase::open(&self.path.join("node.sqlite3"))?)
    }

    /// Where the running node listens for other nodes, `ip:port`.
    ///
    /// # Errors
    ///
    /// [`Unreachable`](crate::ErrorCode::Unreachable) when it does not run.
    pub fn bound_address(&self) -> Result<String> {
        let not_running = || {
            Error::unreachable(format!("the node `{}` is not running", self.name))
                .hint(format!("start it: portolan node start {}", self.name))
        };
        if !self.is_running() {
            return Err(not_running());
        }
        self.read()?.bound_address()?.ok_or_else(not_running)
    }

    /// Take the lock of an existing node and open its database.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorCode::AlreadyExists) when it runs.
    pub fn open(&self) -> Result<OpenNode> {
        if !self.exists() {
            return Err(Error::not_found(format!(
                "there is no node named `{}`",
                self.name
            )));
        }
        self.lock()
    }

    /// Create the folder, take the lock, and write `spec`. A stopped node of that name is made anew: its relays,
    /// policies, inlets and outlets are forgotten (`node start` would have restored them).
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorCode::AlreadyExists) when it runs.
    pub fn create(&self, spec: &NodeSpec) -> Result<OpenNode> {
        create_private_folder(&self.path)?;
        let node = self.lock()?;
        node.database.clear()?;
        // Copies of plugins that the older node of this name had.
        let _ = std::fs::remove_dir_all(self.path.join("plugins"));
        node.database.set_spec(spec)?;
        Ok(node)
    }

    fn lock(&self) -> Result<OpenNode> {
        let path = self.path.join("lock");
        let io = |source| Error::from(StateError::io(&path, source));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        let running = || {
            Error::exists(format!("the node `{}` is already running", self.name)).hint(format!(
                "stop it first: portolan node stop {}, or choose another name",
                self.name
            ))
        };
        let deadline = Instant::now() + LOCK_RETRY;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(io(source)),
                // Held by one who runs the node, or shared by one who looks; the second is over in an instant.
                Err(TryLockError::WouldBlock) if self.is_running() || Instant::now() > deadline => {
                    return Err(running());
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        self.opened(file)
    }

    fn opened(&self, mut lock: File) -> Result<OpenNode> {
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|source| StateError::io(&self.path.join("lock"), source))?;
        Ok(OpenNode {
            database: NodeDatabase::open(&self.path.join("node.sqlite3"))?,
            folder: self.clone(),
            lock,
        })
    }

    /// Open the node with the lock that another process has [handed over](OpenNode::hand_over). If `handed` is anything else,
    /// this is [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorCode::AlreadyExists) when it runs.
    pub fn take_over(&self, handed: File) -> Result<OpenNode> {
        let is_the_lock = match (handed.metadata(), std::fs::metadata(self.path.join("lock"))) {
            (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
            _ => false,
        };
        // Whoever holds a lock gets it again.
        if is_the_lock && handed.try_lock().is_ok() {
            self.opened(handed)
        } else {
            self.open()
        }
    }

    /// Remove the folder. The node must not run.
    ///
    /// # Errors
    ///
    /// When it runs, or when something cannot be removed.
    pub fn remove(&self) -> Result<()> {
        match self.lock() {
            Ok(node) => {
                let removed = std::fs::remove_dir_all(&self.path);
                drop(node);
                removed.map_err(|source| StateError::io(&self.path, source).into())
            }
            Err(error) if error.code == crate::ErrorCode::AlreadyExists => Err(error),
            // A folder whose database is damaged or whose disk is full can still be removed.
            Err(_) => std::fs::remove_dir_all(&self.path)
                .map_err(|source| StateError::io(&self.path, source).into()),
        }
    }
}

/// A node whose lock this process holds: nobody else runs it. The lock ends with this value, or with the process.
#[derive(Debug)]
pub struct OpenNode {
    folder: NodeFolder,
    database: NodeDatabase,
    lock: File,
}

impl OpenNode {
    /// The lock, for the process that shall run the node: it stays locked as long as any process has this file open, so that
    /// nobody comes in between.
    pub fn hand_over(self) -> File {
        self.lock
    }

    /// Let go of the lock: the node has stopped, and others may run it, however long this value stays.
    pub(crate) fn release(&self) {
        // What cannot be unlocked is unlocked when the file is closed.
        let _ = self.lock.unlock();
    }

    /// The folder.
    pub fn folder(&self) -> &NodeFolder {
        &self.folder
    }

    /// The home.
    pub fn home(&self) -> &Home {
        self.folder.home()
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.folder.name()
    }

    /// What the node should be.
    pub fn database(&self) -> &NodeDatabase {
        &self.database
    }

    /// The project that the node belongs to at this moment: the one it was created with, else the default one.
    ///
    /// # Errors
    ///
    /// When the named project is not known any more, or a database cannot be read.
    pub fn project(&self) -> Result<Option<Project>> {
        match self.database.spec()?.project {
            Some(name) => self.home().project(&name).map(Some),
            None => self.home().default_project(),
        }
    }

    /// Bind the control socket: mode 0600, a stale file from a killed process removed.
    ///
    /// # Errors
    ///
    /// When it cannot be bound; says so when the path of the home is too long.
    pub fn control_listener(&self) -> Result<std::os::unix::net::UnixListener> {
        socket::bind(self.folder.path())
    }
}

/// What a node should be. Owned by whoever holds the node's lock; others may read.
#[derive(Debug)]
pub struct NodeDatabase {
    connection: Mutex<Connection>,
    path: PathBuf,
}

const SPEC: &str = "spec";
const BOUND_ADDRESS: &str = "bound-address";
const AUTHORITY: &str = "authority";

const RELAY: &str = "relay";
const POLICY: &str = "policy";
const OUTLET: &str = "tcp-outlet";
const INLET: &str = "tcp-inlet";
const WORKER: &str = "worker";
const PLUGIN: &str = "plugin";

impl NodeDatabase {
    fn open(path: &Path) -> Result<Self, StateError> {
        Ok(Self {
            connection: Mutex::new(database::open(path, MIGRATIONS)?),
            path: path.to_path_buf(),
        })
    }

    fn fail(&self, source: rusqlite::Error) -> Error {
        StateError::sqlite(&self.path, source).into()
    }

    fn write<T>(&self, body: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let mut connection = self.connection.lock();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| self.fail(source))?;
        let value = body(&transaction).map_err(|source| self.fail(source))?;
        transaction.commit().map_err(|source| self.fail(source))?;
        Ok(value)
    }

    fn row(&self, what: &str, error: impl std::fmt::Display) -> Error {
        StateError::Row {
            path: self.path.clone(),
            what: format!("{what}: {error}"),
        }
        .into()
    }

    fn value(&self, key: &str) -> Result<Option<String>> {
        self.connection
            .lock()
            .query_row("SELECT value FROM value WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(|source| self.fail(source))
    }

    fn set_value(&self, key: &str, value: &str) -> Result<()> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO value (key, value) VALUES (?1, ?2)",
                [key, value],
            )?;
            Ok(())
        })
    }

    fn clear(&self) -> Result<()> {
        self.write(|transaction| {
            transaction.execute_batch("DELETE FROM value; DELETE FROM resource; DELETE FROM worker_value;")
        })
    }

    fn list<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>> {
        let connection = self.connection.lock();
        let mut statement = connection
            .prepare("SELECT name, record FROM resource WHERE kind = ?1 ORDER BY position, name")
            .map_err(|source| self.fail(source))?;
        let rows = statement
            .query_map([kind], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })
            .map_err(|source| self.fail(source))?;
        rows.map(|row| {
            let (name, record) = row.map_err(|source| self.fail(source))?;
            serde_json::from_str(&record).map_err(|error| self.row(&format!("{kind} `{name}`"), error))
        })
        .collect()
    }

    fn put<T: Serialize>(&self, kind: &str, name: &str, record: &T) -> Result<()> {
        let record = serde_json::to_string(record).map_err(|error| self.row(kind, error))?;
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO resource (kind, name, record, position)
                 VALUES (?1, ?2, ?3, (SELECT coalesce(max(position), 0) + 1 FROM resource))
                 ON CONFLICT (kind, name) DO UPDATE SET record = excluded.record",
                params![kind, name, record],
            )?;
            Ok(())
        })
    }

    fn delete(&self, kind: &str, name: &str) -> Result<bool> {
        self.write(|transaction| {
            Ok(transaction.execute("DELETE FROM resource WHERE kind = ?1 AND name = ?2", [kind, name])? > 0)
        })
    }

    /// What the node should be.
    pub fn spec(&self) -> Result<NodeSpec> {
        let text = self
            .value(SPEC)?
            .ok_or_else(|| self.row("node", "nothing is written about it"))?;
        serde_json::from_str(&text).map_err(|error| self.row("node", error))
    }

    /// Write what the node should be.
    pub fn set_spec(&self, spec: &NodeSpec) -> Result<()> {
        let text = serde_json::to_string(spec).map_err(|error| self.row("node", error))?;
        self.set_value(SPEC, &text)
    }

    /// Where the node listened for other nodes when it ran last, `ip:port`.
    pub fn bound_address(&self) -> Result<Option<String>> {
        self.value(BOUND_ADDRESS)
    }

    /// Write where the node listens for other nodes.
    pub fn set_bound_address(&self, address: &str) -> Result<()> {
        self.set_value(BOUND_ADDRESS, address)
    }

    /// The identifier of the authority of the project that the node belonged to when it ran last.
    pub fn authority(&self) -> Result<Option<String>> {
        self.value(AUTHORITY)
    }

    /// Write whose credentials count.
    pub fn set_authority(&self, identifier: &str) -> Result<()> {
        self.set_value(AUTHORITY, identifier)
    }

    /// Relays, oldest first.
    pub fn relays(&self) -> Result<Vec<RelaySpec>> {
        self.list(RELAY)
    }

    /// Write a relay, replacing the one of that name.
    pub fn put_relay(&self, relay: &RelaySpec) -> Result<()> {
        self.put(RELAY, &relay.name, relay)
    }

    /// Forget a relay; whether there was one.
    pub fn delete_relay(&self, name: &str) -> Result<bool> {
        self.delete(RELAY, name)
    }

    /// Policies, oldest first.
    pub fn policies(&self) -> Result<Vec<PolicySpec>> {
        self.list(POLICY)
    }

    /// Write a policy, replacing the one of that target.
    pub fn put_policy(&self, policy: &PolicySpec) -> Result<()> {
        self.put(POLICY, &policy_key(&policy.target), policy)
    }

    /// Forget a policy; whether there was one.
    pub fn delete_policy(&self, target: &PolicyTarget) -> Result<bool> {
        self.delete(POLICY, &policy_key(target))
    }

    /// Outlets, oldest first.
    pub fn outlets(&self) -> Result<Vec<OutletSpec>> {
        self.list(OUTLET)
    }

    /// Write an outlet, replacing the one of that address.
    pub fn put_outlet(&self, outlet: &OutletSpec) -> Result<()> {
        self.put(OUTLET, &outlet.address, outlet)
    }

    /// Forget an outlet; whether there was one.
    pub fn delete_outlet(&self, address: &str) -> Result<bool> {
        self.delete(OUTLET, address)
    }

    /// Inlets, oldest first.
    pub fn inlets(&self) -> Result<Vec<InletSpec>> {
        self.list(INLET)
    }

    /// Write an inlet, replacing the one of that name.
    pub fn put_inlet(&self, inlet: &InletSpec) -> Result<()> {
        self.put(INLET, &inlet.alias, inlet)
    }

    /// Forget an inlet; whether there was one.
    pub fn delete_inlet(&self, alias: &str) -> Result<bool> {
        self.delete(INLET, alias)
    }

    /// Workers that were started by name, oldest first.
    pub fn workers(&self) -> Result<Vec<WorkerSpec>> {
        self.list(WORKER)
    }

    /// Write a worker, replacing the one of that address.
    pub fn put_worker(&self, worker: &WorkerSpec) -> Result<()> {
        self.put(WORKER, &worker.address, worker)
    }

    /// Forget a worker and the values that it kept; whether there was one.
    pub fn delete_worker(&self, address: &str) -> Result<bool> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM worker_value WHERE worker = ?1", [address])?;
            let gone = transaction.execute(
                "DELETE FROM resource WHERE kind = ?1 AND name = ?2",
                [WORKER, address],
            )?;
            Ok(gone > 0)
        })
    }

    /// What a worker keeps.
    pub fn worker_values(&self, worker: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let connection = self.connection.lock();
        let mut statement = connection
            .prepare("SELECT key, value FROM worker_value WHERE worker = ?1")
            .map_err(|source| self.fail(source))?;
        let rows = statement
            .query_map([worker], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(|source| self.fail(source))?;
        rows.collect::<rusqlite::Result<_>>()
            .map_err(|source| self.fail(source))
    }

    /// Keep a value for a worker.
    pub fn put_worker_value(&self, worker: &str, key: &str, value: &[u8]) -> Result<()> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO worker_value (worker, key, value) VALUES (?1, ?2, ?3)",
                params![worker, key, value],
            )?;
            Ok(())
        })
    }

    /// Forget a value of a worker, if there is one.
    pub fn delete_worker_value(&self, worker: &str, key: &str) -> Result<()> {
        self.write(|transaction| {
            transaction.execute(
                "DELETE FROM worker_value WHERE worker = ?1 AND key = ?2",
                [worker, key],
            )?;
            Ok(())
        })
    }

    /// Plugins, oldest first.
    pub fn plugins(&self) -> Result<Vec<PluginSpec>> {
        self.list(PLUGIN)
    }

    /// Write a plugin, replacing the one of that name.
    pub fn put_plugin(&self, plugin: &PluginSpec) -> Result<()> {
        self.put(PLUGIN, &plugin.name, plugin)
    }

    /// Forget a plugin; whether there was one.
    pub fn delete_plugin(&self, name: &str) -> Result<bool> {
        self.delete(PLUGIN, name)
    }
}

fn policy_key(target: &PolicyTarget) -> String {
    match target {
        PolicyTarget::Type(name) => format!("type/{name}"),
        PolicyTarget::Resource(name) => format!("resource/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;
    use crate::state::NodeRole;

    fn spec(name: &str) -> NodeSpec {
        NodeSpec {
            name: name.into(),
            identity: "default".into(),
            project: None,
            tcp_listener_address: "127.0.0.1:0".into(),
            role: NodeRole::Node,
            created_at: 1,
        }
    }

    fn relay(name: &str) -> RelaySpec {
        RelaySpec {
            name: name.into(),
            relay_address: name.into(),
            at: "/project/default".into(),
            authorized: None,
        }
    }

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home")).unwrap();
        (folder, home)
    }

    #[test]
    fn two_nodes_of_one_name_cannot_run() {
        let (_folder, home) = home();
        let folder = home.node_folder("n1").unwrap();
        let running = folder.create(&spec("n1")).unwrap();
        assert!(folder.is_running());
        assert_eq!(folder.pid(), Some(std::process::id()));
        assert_eq!(
            folder.create(&spec("n1")).unwrap_err().code,
            ErrorCode::AlreadyExists
        );
        assert_eq!(folder.open().unwrap_err().code, ErrorCode::AlreadyExists);
        assert_eq!(folder.remove().unwrap_err().code, ErrorCode::AlreadyExists);
        drop(running);
        assert!(!folder.is_running());
        folder.open().unwrap();
    }

    #[test]
    fn a_node_that_is_handed_over_is_never_free() {
        let (_folder, home) = home();
        let folder = home.node_folder("n1").unwrap();
        let handed = folder.create(&spec("n1")).unwrap().hand_over();
        assert!(folder.is_running());
        assert_eq!(folder.open().unwrap_err().code, ErrorCode::AlreadyExists);
        let node = folder.take_over(handed).unwrap();
        assert_eq!(node.database().spec().unwrap(), spec("n1"));
        assert_eq!(folder.open().unwrap_err().code, ErrorCode::AlreadyExists);
        // What is not the lock gives no right to the node.
        let other = || File::open("/dev/null").unwrap();
        assert_eq!(
            folder.take_over(other()).unwrap_err().code,
            ErrorCode::AlreadyExists
        );
        drop(node);
        // Nor does the lock of a node that another process runs.
        let run = folder.open().unwrap();
        let same_file = File::open(folder.path().join("lock")).unwrap();
        assert_eq!(
            folder.take_over(same_file).unwrap_err().code,
            ErrorCode::AlreadyExists
        );
        drop(run);
        folder.take_over(other()).unwrap();
    }

    #[test]
    fn what_was_configured_is_there_after_the_process_is_gone() {
        let (_folder, home) = home();
        let folder = home.node_folder("n1").unwrap();
        {
            let node = folder.create(&spec("n1")).unwrap();
            node.database().put_relay(&relay("b")).unwrap();
            node.database().put_relay(&relay("a")).unwrap();
            node.database().put_relay(&relay("b")).unwrap();
            let target = PolicyTarget::Type("tcp-outlet".into());
            node.database()
                .put_policy(&PolicySpec {
                    target,
                    expression: "(= 1 1)".into(),
                    by_owner: true,
                })
                .unwrap();
        }
        let node = folder.open().unwrap();
        assert_eq!(node.database().spec().unwrap(), spec("n1"));
        assert_eq!(node.database().relays().unwrap(), [relay("b"), relay("a")]);
        assert_eq!(node.database().policies().unwrap().len(), 1);
        assert!(node.database().delete_relay("b").unwrap());
        assert!(!node.database().delete_relay("b").unwrap());
    }

    #[test]
    fn a_stopped_node_that_is_created_again_is_new() {
        let (_folder, home) = home();
        let folder = home.node_folder("n1").unwrap();
        folder
            .create(&spec("n1"))
            .unwrap()
            .database()
            .put_relay(&relay("a"))
            .unwrap();
        let again = folder.create(&spec("n1")).unwrap();
        assert!(again.database().relays().unwrap().is_empty());
    }

    #[test]
    fn only_one_of_many_who_start_a_node_at_once_gets_it_though_others_look() {
        let (_folder, home) = home();
        let folder = home.node_folder("n1").unwrap();
        drop(folder.create(&spec("n1")).unwrap());
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    folder.is_running();
                }
            });
            let opened: Vec<_> = (0..8).map(|_| scope.spawn(|| folder.open())).collect();
            let opened: Vec<_> = opened.into_iter().map(|thread| thread.join().unwrap()).collect();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            looking.join().unwrap();
            assert_eq!(opened.iter().filter(|result| result.is_ok()).count(), 1);
        });
    }

    #[test]
    fn an_address_of_a_node_that_does_not_run_is_not_given() {
        let (_folder, home) = home();
        let folder = home.node_folder("n1").unwrap();
        let node = folder.create(&spec("n1")).unwrap();
        node.database().set_bound_address("127.0.0.1:5000").unwrap();
        assert_eq!(folder.bound_address().unwrap(), "127.0.0.1:5000");
        drop(node);
        assert_eq!(folder.bound_address().unwrap_err().code, ErrorCode::Unreachable);
    }
}

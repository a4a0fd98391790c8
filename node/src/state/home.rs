//! The home folder: where it is, what is in it, nodes by name.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_identity::sealed::Sealer;
use zeroize::Zeroizing;

use super::database::{StateError, create_private_folder};
use super::names::{check_node_name, closest, random_name};
use super::node::NodeFolder;
use super::records::{HomeDatabase, IdentityRecord};
use super::spec::Project;
use crate::error::{Error, Result};

/// The home folder. Cheap to clone; holds nothing open, unless it is [in memory](Self::in_memory).
#[derive(Clone)]
pub struct Home {
    path: PathBuf,
    /// What opens sealed keys, once a key was needed: deriving it from a passphrase is slow on purpose. Shared by clones.
    sealer: Arc<Mutex<Option<Option<Arc<Sealer>>>>>,
    /// What opens the keys of this home.
    key: Arc<HomeKey>,
    memory: Option<Arc<Memory>>,
}

/// What seals the secret keys of a home, and opens them.
pub enum HomeKey {
    /// `PORTOLAN_PASSPHRASE` or `PORTOLAN_KEY_FILE`, if one is set; else nothing. As the command line does.
    Environment,
    /// Nothing: the mode of the files alone protects the keys.
    Unsealed,
    /// A passphrase. Deriving the key from it takes a fraction of a second, on purpose.
    Passphrase(Zeroizing<Vec<u8>>),
    /// 32 bytes of a random generator.
    Key(Zeroizing<[u8; 32]>),
}

/// A home without a database on the disk.
struct Memory {
    /// By which every connection finds the same database.
    name: String,
    /// Folders of nodes: their locks, and what they should be.
    _folder: tempfile::TempDir,
    /// As long as it is open, the database is there.
    _open: Mutex<HomeDatabase>,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Home({})", self.path.display())
    }
}

impl PartialEq for Home {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for Home {}

impl Home {
    /// The home of this process: `PORTOLAN_HOME`, or `.portolan` in `HOME`, which is needed only then. The folder is
    /// created if it is not there. A binary that was linked under the reference's name, so that scripts written for that
    /// run, takes `OCKAM_HOME` too.
    ///
    /// # Errors
    ///
    /// When neither variable is set, or the folder cannot be created.
    pub fn open() -> Result<Self> {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let linked = std::env::args_os()
            .next()
            .is_some_and(|own| Path::new(&own).file_name() == Some("ockam".as_ref()));
        let other = || named("OCKAM_HOME").filter(|_| linked);
        Self::at(Self::locate(
            named("PORTOLAN_HOME").or_else(other),
            std::env::var_os("HOME"),
        )?)
    }

    fn locate(portolan_home: Option<OsString>, home: Option<OsString>) -> Result<PathBuf> {
        let not_empty = |value: &OsString| !value.is_empty();
        if let Some(path) = portolan_home.filter(not_empty) {
            return Ok(PathBuf::from(path));
        }
        match home.filter(not_empty) {
            Some(home) => Ok(Path::new(&home).join(".portolan")),
            None => Err(Error::state(
                "the folder for the state is unknown: neither PORTOLAN_HOME nor HOME is set",
            )
            .hint("set PORTOLAN_HOME to a folder that this user can write")),
        }
    }

    /// The home at this path, created if it is not there.
    ///
    /// # Errors
    ///
    /// When the folder cannot be created or is not a folder.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self> {
        let path = std::path::absolute(path.into())
            .map_err(|error| Error::state(format!("the home folder has no absolute path: {error}")))?;
        if path.exists() && !path.is_dir() {
            return Err(Error::state(format!("{} is not a folder", path.display()))
                .hint("set PORTOLAN_HOME to a folder"));
        }
        create_private_folder(&path)?;
        Ok(Self {
            path,
            sealer: Arc::default(),
            key: Arc::new(HomeKey::Environment),
            memory: None,
        })
    }

    /// A home whose database, and with it every secret key, is in the memory of this process and nowhere else. It is gone
    /// with the last clone of this value.
    ///
    /// What a node should be (its policies and portals), and the members of a project that is served from here, is in a
    /// folder of mode 0700 under the system's temporary folder, which is removed with this value; a process that is killed
    /// leaves that folder behind, with no key in it.
    ///
    /// # Errors
    ///
    /// When the temporary folder cannot be made.
    pub fn in_memory() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("portolan-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .tempdir()
            .map_err(|source| StateError::io(&std::env::temp_dir(), source))?;
        let mut random = [0u8; 16];
        getrandom::fill(&mut random)
            .map_err(|error| Error::failed(format!("the system gives no random numbers: {error}")))?;
        let name = format!("portolan-{}", hex::encode(random));
        let open = HomeDatabase::open_in_memory(&name)?;
        Ok(Self {
            path: folder.path().to_owned(),
            sealer: Arc::default(),
            key: Arc::new(HomeKey::Unsealed),
            memory: Some(Arc::new(Memory {
                name,
                _folder: folder,
                _open: Mutex::new(open),
            })),
        })
    }

    /// The same home, whose secret keys are opened with `key`. If they are not sealed yet, the first use seals all of them.
    #[must_use]
    pub fn with_key(mut self, key: HomeKey) -> Self {
        self.key = Arc::new(key);
        self.sealer = Arc::default();
        self
    }

    /// What opens its keys.
    pub(super) fn key(&self) -> &HomeKey {
        &self.key
    }

    /// What opens sealed keys; `find` is asked the first time.
    pub(super) fn sealer(
        &self,
        find: impl FnOnce() -> Result<Option<Arc<Sealer>>>,
    ) -> Result<Option<Arc<Sealer>>> {
        let mut known = self.sealer.lock();
        if let Some(sealer) = &*known {
            return Ok(sealer.clone());
        }
        let sealer = find()?;
        *known = Some(sealer.clone());
        Ok(sealer)
    }

    /// Where it is: an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Open the home's database, for one or a few short transactions. Do not keep it.
    ///
    /// # Errors
    ///
    /// [`StateError`] says why: full, read-only, damaged, newer.
    pub fn database(&self) -> Result<HomeDatabase> {
        Ok(match &self.memory {
            Some(memory) => HomeDatabase::open_in_memory(&memory.name)?,
            None => HomeDatabase::open(&self.path.join("home.sqlite3"))?,
        })
    }

    /// The folder of a node, which may not exist.
    ///
    /// # Errors
    ///
    /// When `name` is not a node name.
    pub fn node_folder(&self, name: &str) -> Result<NodeFolder> {
        check_node_name(name)?;
        Ok(NodeFolder::new(self.clone(), name))
    }

    /// The folder of an existing node.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorCode::NotFound) with the name that was probably meant.
    pub fn node(&self, name: &str) -> Result<NodeFolder> {
        let folder = self.node_folder(name)?;
        if folder.exists() {
            return Ok(folder);
        }
        let error = Error::not_found(format!("there is no node named `{name}`"));
        let names = self.node_names()?;
        Err(match closest(name, names.iter().map(String::as_str)) {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None => error.hint("`portolan node list` shows the nodes of this home"),
        })
    }

    /// The names of all nodes, sorted.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn node_names(&self) -> Result<Vec<String>> {
        let folder = self.path.join("nodes");
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StateError::io(&folder, error).into()),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| check_node_name(name).is_ok() && NodeFolder::new(self.clone(), name).exists())
            .collect();
        names.sort();
        Ok(names)
    }

    /// A name for a new node that no node has.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read, or all names are taken.
    pub fn free_node_name(&self) -> Result<String> {
        let names = self.node_names()?;
        random_name(|name| names.iter().any(|taken| taken == name))
    }

    /// The default node's name, if there is one and it still exists.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn default_node(&self) -> Result<Option<String>> {
        let name = self.database()?.setting("default-node")?;
        Ok(name.filter(|name| self.node_folder(name).is_ok_and(|folder| folder.exists())))
    }

    /// Make `name` the default node.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub fn set_default_node(&self, name: &str) -> Result<()> {
        self.database()?.set_setting("default-node", name)
    }

    /// A project by local name.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorCode::NotFound) with the name that was probably meant.
    pub fn project(&self, name: &str) -> Result<Project> {
        self.database()?.project(name)
    }

    /// The default project, if there is one.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn default_project(&self) -> Result<Option<Project>> {
        self.database()?.default_project()
    }

    /// An identity by local name.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorCode::NotFound) with the name that was probably meant.
    pub fn identity(&self, name: &str) -> Result<IdentityRecord> {
        self.database()?.identity(name)
    }

    /// Remove everything that belongs to Portolan, and only that: nodes, database, side files. What an installer put
    /// there (`bin`, `env`), and what others did, stays. No node may run.
    ///
    /// # Errors
    ///
    /// [`StateError`], when something cannot be removed. It can be repeated. A home in memory is dropped instead.
    pub fn reset(&self) -> Result<()> {
        if self.memory.is_some() {
            return Err(Error::invalid("a home in memory is not emptied but dropped"));
        }
        let nodes = self.path.join("nodes");
        match std::fs::remove_dir_all(&nodes) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StateError::io(&nodes, error).into());
            }
            _ => {}
        }
        for name in [
            "home.sqlite3-wal",
            "home.sqlite3-shm",
            "home.sqlite3-journal",
            "home.sqlite3",
        ] {
            let path = self.path.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StateError::io(&path, error).into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn home_is_needed_only_without_portolan_home() {
        assert_eq!(Home::locate(Some("/x".into()), None).unwrap(), Path::new("/x"));
        assert_eq!(
            Home::locate(None, Some("/h".into())).unwrap(),
            Path::new("/h/.portolan")
        );
        assert_eq!(
            Home::locate(Some("".into()), Some("/h".into())).unwrap(),
            Path::new("/h/.portolan")
        );
        assert!(
            Home::locate(None, None)
                .unwrap_err()
                .message
                .contains("PORTOLAN_HOME")
        );
    }

    #[test]
    fn a_home_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("a/b")).unwrap();
        let mode = home.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_home_in_memory_writes_no_key_to_the_disk_and_leaves_nothing() {
        let home = Home::in_memory().unwrap();
        let path = home.path().to_owned();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let own = home.acting_identity(None).unwrap();
        // Another connection sees the same.
        assert_eq!(
            home.clone().identity("default").unwrap().identifier,
            own.record.identifier
        );
        let other = Home::in_memory().unwrap();
        assert!(other.database().unwrap().identities().unwrap().is_empty());
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        drop((own, home));
        assert!(!path.exists());
    }

    #[test]
    fn threads_work_on_one_home_in_memory_at_once() {
        let home = Home::in_memory().unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let home = &home;
                scope.spawn(move || {
                    home.create_identity(Some(&format!("i{number}")), None, Default::default())
                        .unwrap();
                });
            }
        });
        assert_eq!(home.database().unwrap().identities().unwrap().len(), 8);
    }

    #[test]
    fn a_home_that_was_sealed_with_a_passphrase_needs_it() {
        let folder = tempfile::tempdir().unwrap();
        let passphrase = |text: &str| HomeKey::Passphrase(Zeroizing::new(text.as_bytes().to_vec()));
        let home = || Home::at(folder.path()).unwrap();
        home()
            .with_key(passphrase("correct"))
            .acting_identity(None)
            .unwrap();
        for key in [HomeKey::Unsealed, passphrase("wrong")] {
            let error = home().with_key(key).acting_identity(None).unwrap_err();
            assert_eq!(error.code, crate::ErrorCode::State);
        }
        home()
            .with_key(passphrase("correct"))
            .acting_identity(None)
            .unwrap();
    }

    #[test]
    fn reset_leaves_what_is_not_ours_and_can_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path()).unwrap();
        home.database().unwrap().set_setting("a", "b").unwrap();
        std::fs::create_dir_all(folder.path().join("nodes/n1")).unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        std::fs::write(folder.path().join("env"), "x").unwrap();
        home.reset().unwrap();
        home.reset().unwrap();
        let mut left: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["bin", "env"]);
    }

    #[test]
    fn an_unknown_node_is_answered_with_the_name_that_was_meant() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path()).unwrap();
        let error = home.node("blue").unwrap_err();
        assert_eq!(error.code, crate::ErrorCode::NotFound);
    }
}

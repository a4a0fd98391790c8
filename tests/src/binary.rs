//! Where the binary under test is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// The `portolan` binary that the scenarios start: `PORTOLAN_BIN` when set, else the one that cargo builds into the same
/// target folder and profile as the running test.
///
/// Without `PORTOLAN_BIN` cargo is asked to build it first, so that `cargo test -p portolan-tests` never tests yesterday's
/// binary; `tests/run` sets it, since that question costs a fraction of a second for each test.
///
/// # Panics
/// When there is no binary and none can be built.
pub fn portolan() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(find).clone()
}

fn find() -> PathBuf {
    if let Some(given) = std::env::var_os("PORTOLAN_BIN") {
        let given = PathBuf::from(given);
        assert!(given.is_file(), "PORTOLAN_BIN={}: no such file", given.display());
        return given;
    }
    // target/<profile>/deps/<test binary> or target/<profile>/<binary>.
    let own = std::env::current_exe().expect("a running program has a path");
    let folder = own
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .expect("an executable is in a folder");
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "-p", "portolan", "--bin", "portolan"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        let status = build
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo can be started");
        assert!(status.success(), "the binary under test does not build");
    }
    let path = folder.join("portolan");
    assert!(
        path.is_file(),
        "{} does not exist: build it, or set PORTOLAN_BIN",
        path.display()
    );
    path
}

/// A program of `node/examples/`, built first unless `tests/run` has built all of them.
///
/// # Panics
/// When there is none of that name and none can be built.
pub fn example(name: &str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    built
        .entry(name.to_owned())
        .or_insert_with(|| find_example(name))
        .clone()
}

fn find_example(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let folder = own
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .expect("an executable is in a folder");
    if std::env::var_os("PORTOLAN_BIN").is_none()
        && let Some(cargo) = std::env::var_os("CARGO")
    {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "-p", "portolan", "--example", name]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        let status = build
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo can be started");
        assert!(status.success(), "the example {name} does not build");
    }
    let path = folder.join("examples").join(name);
    assert!(path.is_file(), "{} does not exist: build it", path.display());
    path
}

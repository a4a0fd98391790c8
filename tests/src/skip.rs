//! Tests that cannot be run here, said aloud.

use std::io::Write;

/// Notes that the running test cannot be run here and why. `tests/run` lists these at its end; the runner itself counts the
/// test as passed, since Rust's test harness cannot skip at run time.
pub fn because(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("SKIPPED {name}: {reason}");
    if let Some(path) = std::env::var_os("PORTOLAN_TESTS_SKIPPED")
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path)
    {
        // One write per line, so that lines of several processes do not mix.
        let _ = file.write_all(format!("{name}\t{reason} (seen at run time)\n").as_bytes());
    }
}

/// Whether this process may do what only root may. Says why the test is skipped when not.
pub fn unless_root(what_for: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    because(&format!("needs root to {what_for}"));
    false
}

/// Whether `command` is installed. Says that the test is skipped when not.
pub fn unless_installed(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(command).is_file());
    if !found {
        because(&format!("needs the command {command}"));
    }
    found
}

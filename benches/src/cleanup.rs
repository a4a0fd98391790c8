//! Processes and folders that go away however the run ends: at its end, by a panic, by Ctrl-C.

use std::path::PathBuf;
use std::process::Child;
use std::sync::Mutex;

use portolan_tests::process;

/// What the run has made on this machine.
#[derive(Debug)]
enum Made {
    Process(Child),
    /// A home: the processes that have it as `PORTOLAN_HOME`, and the folder.
    Home(PathBuf),
    Folder(PathBuf),
}

static MADE: Mutex<Vec<Made>> = Mutex::new(Vec::new());

fn made() -> std::sync::MutexGuard<'static, Vec<Made>> {
    // What is listed here has to go away after a panic too.
    MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Hands over a child process; its id.
pub fn process(child: Child) -> u32 {
    let pid = child.id();
    made().push(Made::Process(child));
    pid
}

/// Hands over a home folder, with the nodes that run in it.
pub fn home(path: PathBuf) {
    made().push(Made::Home(path));
}

/// Hands over a folder.
pub fn folder(path: PathBuf) {
    made().push(Made::Folder(path));
}

/// Ends and removes everything handed over so far, newest first.
pub fn everything() {
    loop {
        // The lock is not held while waiting for a process, so that a second caller does not wait for the first.
        let Some(next) = made().pop() else { return };
        match next {
            Made::Process(mut child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Made::Home(path) => {
                process::of_home(&path).into_iter().for_each(process::kill);
                let _ = std::fs::remove_dir_all(&path);
            }
            Made::Folder(path) => {
                let _ = std::fs::remove_dir_all(&path);
            }
        }
    }
}

/// Cleans up when dropped, which happens at the end and when a panic unwinds.
#[derive(Debug)]
pub struct AtEnd;

impl Drop for AtEnd {
    fn drop(&mut self) {
        everything();
    }
}

/// From now on Ctrl-C and SIGTERM clean up and end the process with the usual code (130, 143).
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signals() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let code = runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let (Ok(mut interrupt), Ok(mut terminate)) =
                    (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
                else {
                    // Without handlers the signals do what they do by default.
                    std::future::pending::<()>().await;
                    return 1;
                };
                tokio::select! {
                    _ = interrupt.recv() => 130,
                    _ = terminate.recv() => 143,
                }
            });
            eprintln!("\ninterrupted: cleaning up");
            everything();
            std::process::exit(code);
        })?;
    Ok(())
}

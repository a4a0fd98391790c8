//! CPU time, memory and environment of a process, as `/proc` tells them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};

/// The processes that have `PORTOLAN_HOME=home` in their environment: every node of that home, background or foreground,
/// known to its own list or lost.
pub fn of_home(home: &Path) -> Vec<u32> {
    let wanted = format!("PORTOLAN_HOME={}", home.display()).into_bytes();
    let own = std::process::id();
    all()
        .filter(|&pid| pid != own)
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environment| environment.split(|&b| b == 0).any(|variable| variable == wanted))
        })
        .filter(|&pid| !is_zombie(pid))
        .collect()
}

fn all() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
}

/// The fields of `/proc/PID/stat` after the name (which may have blanks and parentheses); the first is the state.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_ascii_whitespace().map(str::to_owned).collect())
}

fn is_zombie(pid: u32) -> bool {
    stat(pid).is_none_or(|fields| fields[0] == "Z")
}

/// Whether the process exists and has not ended.
pub fn is_alive(pid: u32) -> bool {
    !is_zombie(pid)
}

/// User and system time that the process and its children that have ended used so far. Resolution: one clock tick, 10 ms on
/// the usual kernels. Zero for a process that is gone.
pub fn cpu_time(pid: u32) -> Duration {
    // utime, stime, cutime, cstime are fields 14 to 17 of the line, 11 to 14 after the name.
    let ticks: u64 = stat(pid).map_or(0, |fields| {
        fields[11..15].iter().filter_map(|f| f.parse::<u64>().ok()).sum()
    });
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Memory of the process that is in RAM, in KiB (`VmRSS`). Zero for a process that is gone.
pub fn resident_kib(pid: u32) -> u64 {
    status_field(pid, "VmRSS:")
}

/// The peak of [`resident_kib`] so far (`VmHWM`).
pub fn peak_resident_kib(pid: u32) -> u64 {
    status_field(pid, "VmHWM:")
}

fn status_field(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// Number of open file descriptors.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count())
}

/// Sends SIGKILL, the way a machine takes a process away.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Sends SIGTERM, the way a supervisor asks for an end.
pub fn terminate(pid: u32) {
    signal(pid, Signal::TERM);
}

/// Sends SIGSTOP: the process exists and does nothing, as on a machine that sleeps.
pub fn pause(pid: u32) {
    signal(pid, Signal::STOP);
}

/// Sends SIGCONT.
pub fn resume(pid: u32) {
    signal(pid, Signal::CONT);
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may be gone already, which is what we want.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

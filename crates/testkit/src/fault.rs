//! Breaking things.

use rustix::process::{Signal, kill_process};

use crate::program::pid_of;

/// Ends the process at once.
pub fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

/// Halts the process, until [`resume`].
pub fn halt(pid: u32) {
    send(pid, Signal::STOP);
}

/// Lets a halted process go on.
pub fn resume(pid: u32) {
    send(pid, Signal::CONT);
}

/// Whether a process of this id lives (a zombie does not).
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z') && !rest.starts_with('X'))
}

/// The user whose rights a process has; `None`: it is gone.
#[must_use]
pub fn owner(pid: u32) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/{pid}")).ok().map(|found| found.uid())
}

/// The children of a process that live, each with the name that the kernel shows.
#[must_use]
pub fn children(pid: u32) -> Vec<(u32, String)> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let all = listed.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| is_alive(*pid));
    let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    all.map(|pid| (pid, name(pid))).collect()
}

/// The parts of a program that its keeper started, oldest first: all but one finish what they have.
#[must_use]
pub fn parts(keeper: u32) -> Vec<u32> {
    let ours = ["synego", "synego-sidecar", "synego-master"];
    children(keeper).into_iter().filter(|(_, name)| ours.contains(&name.as_str())).map(|(pid, _)| pid).collect()
}

/// The processes of the services of a program, each with its name: what its keeper has beside parts.
#[must_use]
pub fn services(keeper: u32) -> Vec<(u32, String)> {
    children(keeper).into_iter().filter(|(_, name)| !name.starts_with("synego")).collect()
}

/// Resident memory of a process, in bytes; 0 when it is gone.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Memory that a process has for itself alone, in bytes: without what it shares with others, such as its program.
#[must_use]
pub fn own_bytes(pid: u32) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let own = smaps.lines().filter(|line| line.starts_with("Private_Dirty:"));
    let kib = own.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.sum::<u64>() * 1024
}

fn send(pid: u32, signal: Signal) {
    let pid = pid_of(pid).expect("a process id");
    kill_process(pid, signal).expect("the signal is delivered");
}

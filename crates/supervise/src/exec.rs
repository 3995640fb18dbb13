//! The helper inside our own programs through which processes are started: it asks the kernel to kill the process when
//! its parent dies, then becomes it. The same program, called otherwise, is the guard of the groups.
//!
//! The request must be made by the child itself, between fork and exec; doing so in place would need `unsafe`
//! (`pre_exec`), so the child is first our own program and execs from there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::rights::Change;
use crate::{group, kin};

/// First argument of the helper that becomes a process.
pub(crate) const EXEC: &str = "__exec";
/// First argument of the guard.
pub(crate) const GUARD: &str = "__guard";
/// Our own program, also after its file was replaced.
pub(crate) const SELF: &str = "/proc/self/exe";

static IS_HELPER: AtomicBool = AtomicBool::new(false);

/// Must be the first call in `main` of every program that supervises: serves the two helper calls and returns their exit
/// code, or returns `None` at once in every other case, and lets this program start processes through itself.
pub fn main() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_ref().and_then(|first| first.to_str()) {
        Some(EXEC) => Some(exec(args)),
        Some(GUARD) => Some(guard()),
        _ => {
            IS_HELPER.store(true, Ordering::Relaxed);
            None
        }
    }
}

/// Whether this program can start processes through itself.
pub(crate) fn is_available() -> bool {
    IS_HELPER.load(Ordering::Relaxed)
}

/// `__exec PARENT CHANGE NAME PROGRAM ARGS…`: takes the rights that `CHANGE` says, dies with `PARENT`, waits for its word on
/// stdin, and becomes `PROGRAM` under the name `NAME`. Returns only when that fails: 126, as a shell does.
fn exec(mut args: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let parent = args.next().and_then(|text| text.to_str()?.parse::<i32>().ok());
    let change = args.next().and_then(|word| Change::from_word(word.to_str()?));
    let (Some(parent), Some(change), Some(name), Some(program)) = (parent, change, args.next(), args.next()) else {
        return ExitCode::FAILURE;
    };
    let failed = |problem: &dyn std::fmt::Display| {
        // Goes to the output of the process, where people look first.
        let _told = writeln!(std::io::stderr(), "cannot start `{}`: {problem}", program.display());
        ExitCode::from(126)
    };
    // With other rights, what was asked of the kernel before is forgotten.
    if let Err(problem) = change.make() {
        return failed(&problem);
    }
    let asked = set_parent_process_death_signal(Some(Signal::KILL));
    // The parent may have died before the request was in force.
    if asked.is_err() || getppid().is_none_or(|now| now.as_raw_pid() != parent) {
        return ExitCode::FAILURE;
    }
    // Not before the guard knows of this group: what the program starts must not outlive a parent that is killed now.
    if std::io::stdin().read_exact(&mut [0]).is_err() {
        return ExitCode::FAILURE;
    }
    let error = Command::new(&program).arg0(name).args(args).stdin(Stdio::null()).exec();
    match change.uid() {
        Some(uid) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            failed(&format!("the user {uid} may not execute it, or not enter its folder: {error}"))
        }
        _ => failed(&error),
    }
}

/// `__guard`: reads `+GROUP START MARK`, `*GROUP PID START` and `-GROUP` lines; at the end of the input, which is the end
/// of the parent, kills every group that is still there, every process that bears its mark, and those that were named.
fn guard() -> ExitCode {
    // Otherwise that of the link by which it was started; only for people's eyes.
    let _shown = rustix::thread::set_name(c"synego-guard");
    let mut groups: BTreeMap<u32, (u64, String, BTreeMap<u32, u64>)> = BTreeMap::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Some((sign, rest)) = line.split_at_checked(1) else { continue };
        let mut words = rest.split(' ');
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let pid = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
        match (sign, pid(number()), number()) {
            ("+", Some(group), Some(start)) => {
                let mark = words.next().unwrap_or_default().to_owned();
                groups.insert(group, (start, mark, BTreeMap::new()));
            }
            ("*", Some(group), stray) => {
                if let (Some((.., strays)), Some(stray), Some(start)) = (groups.get_mut(&group), pid(stray), number()) {
                    strays.insert(stray, start);
                }
            }
            ("-", Some(group), _) => drop(groups.remove(&group)),
            _ => {}
        }
    }
    let (mut marks, mut known) = (BTreeSet::new(), BTreeMap::new());
    for (group, (start, mark, strays)) in groups {
        group::kill_left_behind(group, start);
        marks.insert(mark);
        known.extend(strays);
    }
    if !marks.is_empty() {
        kin::kill_marked(&marks, &known);
    }
    ExitCode::SUCCESS
}

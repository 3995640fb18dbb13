//! Our side of the guard: a helper process that outlives us by a moment and ends the groups that we could not end.
//!
//! `PDEATHSIG` reaches only a group's leader; `npm start` and its like leave children behind. The guard holds the reading
//! end of a pipe: when we die, however we die, the pipe closes and it kills the groups that it was told, and what left them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::stat::Stat;
use crate::{exec, kin, stat};

static GUARD: Mutex<Guard> = Mutex::new(Guard { running: None, groups: BTreeMap::new() });

struct Guard {
    running: Option<(Child, ChildStdin)>,
    groups: BTreeMap<u32, Watched>,
}

/// One group, and what left it.
struct Watched {
    start: u64,
    mark: String,
    strays: BTreeMap<u32, u64>,
}

/// From now on the group `leader`, and whatever bears its mark, ends when we do. Without the helper (see [`exec`]) this
/// does nothing.
pub(crate) fn watch(leader: u32, mark: &str) {
    let Some(start) = stat::of(leader).map(|stat| stat.start) else { return };
    tell(|guard| {
        let watched = Watched { start, mark: mark.to_owned(), strays: BTreeMap::new() };
        guard.groups.insert(leader, watched);
        format!("+{leader} {start} {mark}\n")
    });
}

/// These left the group of `leader`, and end when we do all the same, should they have lost their mark.
pub(crate) fn strays<'a>(leader: u32, strays: impl Iterator<Item = &'a Stat>) {
    let strays: BTreeMap<u32, u64> = strays.map(|stray| (stray.pid, stray.start)).collect();
    let lines = {
        let mut guard = GUARD.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watched) = guard.groups.get_mut(&leader) else { return };
        let new = strays.iter().filter(|(pid, start)| watched.strays.get(pid) != Some(start));
        let lines: String = new.map(|(pid, start)| format!("*{leader} {pid} {start}\n")).collect();
        watched.strays = strays;
        lines
    };
    if !lines.is_empty() {
        tell(|_| lines);
    }
}

/// The group `leader` is gone.
pub(crate) fn forget(leader: u32) {
    tell(|guard| {
        guard.groups.remove(&leader);
        format!("-{leader}\n")
    });
}

fn tell(change: impl FnOnce(&mut Guard) -> String) {
    if !exec::is_available() {
        return;
    }
    let mut guard = GUARD.lock().unwrap_or_else(PoisonError::into_inner);
    let line = change(&mut guard);
    let told = match &mut guard.running {
        Some((_, input)) => input.write_all(line.as_bytes()),
        None => Err(io::ErrorKind::NotConnected.into()),
    };
    if told.is_err()
        && let Err(error) = begin(&mut guard)
    {
        tracing::warn!(cause = %error, "no guard: a kill of this process may leave children of services behind");
    }
}

/// Starts the guard, the first or one in place of one that was killed, and tells it all groups.
fn begin(guard: &mut Guard) -> io::Result<()> {
    if let Some((mut old, input)) = guard.running.take() {
        drop(input);
        old.wait()?;
        kin::collected(old.id());
    }
    // A group of its own: a Ctrl-C at the terminal is not meant for it.
    let mut child = Command::new(exec::SELF)
        .arg0("synego-guard")
        .arg(exec::GUARD)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .spawn()?;
    kin::waited_for(child.id());
    let mut input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    for (group, Watched { start, mark, strays }) in &guard.groups {
        writeln!(input, "+{group} {start} {mark}")?;
        for (pid, start) in strays {
            writeln!(input, "*{group} {pid} {start}")?;
        }
    }
    guard.running = Some((child, input));
    Ok(())
}

//! Our side of the guard: a helper process that outlives us by a moment and ends the groups that we could not end.
//!
//! `PDEATHSIG` reaches only a group's leader; `npm start` and its like leave children behind. The guard holds the reading
//! end of a pipe: when we die, however we die, the pipe closes and it kills the groups that it was told.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::{exec, stat};

static GUARD: Mutex<Guard> = Mutex::new(Guard { running: None, groups: BTreeMap::new() });

struct Guard {
    running: Option<(Child, ChildStdin)>,
    groups: BTreeMap<u32, u64>,
}

/// From now on the group `leader` ends when we do. Without the helper (see [`exec`]) this does nothing.
pub(crate) fn watch(leader: u32) {
    let Some(start) = stat::of(leader).map(|stat| stat.start) else { return };
    tell(|guard| {
        guard.groups.insert(leader, start);
        format!("+{leader} {start}\n")
    });
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
    let mut input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    for (group, start) in &guard.groups {
        writeln!(input, "+{group} {start}")?;
    }
    guard.running = Some((child, input));
    Ok(())
}

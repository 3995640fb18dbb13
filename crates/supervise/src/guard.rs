//! Our side of the guard: a helper process that outlives us by a moment and ends the groups that we could not end.
//!
//! `PDEATHSIG` reaches only a group's leader; `npm start` and its like leave children behind. The guard holds the reading
//! end of a pipe: when we die, however we die, the pipe closes and it kills the groups that it was told, and what left them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::pipe::PipeFlags;
use synego_runtime::keeper::{self, Holding};

use crate::{exec, kin, stat};

/// What the keeper knows the pipe of the guard by.
const KEY: &str = "guard";

/// Of the processes that end with us.
static OURS: Mutex<Guard> = Mutex::new(Guard::new(false));
/// Of those that end with our keeper.
static KEPT: Mutex<Guard> = Mutex::new(Guard::new(true));

struct Guard {
    is_kept: bool,
    running: Option<Running>,
    groups: BTreeMap<u32, Watched>,
}

impl Guard {
    const fn new(is_kept: bool) -> Self {
        Self { is_kept, running: None, groups: BTreeMap::new() }
    }
}

/// One group, and what left it.
struct Watched {
    start: u64,
    mark: String,
    strays: BTreeMap<u32, u64>,
}

struct Running {
    /// `None`: a former part of this program started it.
    child: Option<Child>,
    input: File,
    /// Our keeper holds the pipe too: the guard outlives us as long as that lives.
    _held: Option<Holding>,
}

/// From now on the group `leader`, and whatever bears its mark, ends when we do, or, where it is kept, when our keeper does.
/// Without the helper (see [`exec`]) this does nothing.
pub(crate) fn watch(leader: u32, mark: &str, is_kept: bool) {
    let Some(start) = stat::of(leader).map(|stat| stat.start) else { return };
    tell(is_kept, |guard| {
        let watched = Watched { start, mark: mark.to_owned(), strays: BTreeMap::new() };
        guard.groups.insert(leader, watched);
        format!("+{leader} {start} {mark}\n")
    });
}

/// These, by their start times, left the group of `leader`, and end with it all the same, should they have lost their mark.
pub(crate) fn strays(leader: u32, is_kept: bool, strays: &BTreeMap<u32, u64>) {
    let lines = {
        let mut guard = of(is_kept).lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watched) = guard.groups.get_mut(&leader) else { return };
        let new = strays.iter().filter(|(pid, start)| watched.strays.get(pid) != Some(start));
        let lines: String = new.map(|(pid, start)| format!("*{leader} {pid} {start}\n")).collect();
        watched.strays.clone_from(strays);
        lines
    };
    if !lines.is_empty() {
        tell(is_kept, |_| lines);
    }
}

/// The group `leader` is gone.
pub(crate) fn forget(leader: u32, is_kept: bool) {
    tell(is_kept, |guard| {
        guard.groups.remove(&leader);
        format!("-{leader}\n")
    });
}

fn of(is_kept: bool) -> &'static Mutex<Guard> {
    if is_kept { &KEPT } else { &OURS }
}

fn tell(is_kept: bool, change: impl FnOnce(&mut Guard) -> String) {
    if !exec::is_available() || (is_kept && keeper::has_left()) {
        return;
    }
    let mut guard = of(is_kept).lock().unwrap_or_else(PoisonError::into_inner);
    if is_kept && guard.running.is_none() {
        guard.running = left_behind();
    }
    let line = change(&mut guard);
    let told = match &mut guard.running {
        Some(running) => running.input.write_all(line.as_bytes()),
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
    if let Some(Running { child: Some(mut old), input, .. }) = guard.running.take() {
        drop(input);
        old.wait()?;
        kin::collected(old.id());
    }
    let (theirs, own) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // A group of its own: a Ctrl-C at the terminal is not meant for it.
    let child = Command::new(exec::SELF)
        .arg0("synego-guard")
        .arg(exec::GUARD)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .spawn()?;
    kin::waited_for(child.id());
    let held = if guard.is_kept { keeper::hold(KEY, "", &[own.as_fd()]) } else { None };
    let mut input = File::from(own);
    for (group, Watched { start, mark, strays }) in &guard.groups {
        writeln!(input, "+{group} {start} {mark}")?;
        for (pid, start) in strays {
            writeln!(input, "*{group} {pid} {start}")?;
        }
    }
    guard.running = Some(Running { child: Some(child), input, _held: held });
    Ok(())
}

/// The guard of a former part of this program, which knows the groups that were left with it.
fn left_behind() -> Option<Running> {
    let input = keeper::claim(KEY)?.fds.pop()?;
    let held = keeper::hold(KEY, "", &[input.as_fd()]);
    Some(Running { child: None, input: File::from(input), _held: held })
}

//! A process group: signalled as a whole, and known to be gone as a whole.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::spec::StopBy;
use crate::stat;

/// Sends a signal to every process of a group; a group that is gone is no error.
pub(crate) fn signal(group: u32, signal: Signal) {
    if let Some(group) = pid_of(group) {
        // `ESRCH`: it is gone, which is what most signals are for.
        let _gone = kill_process_group(group, signal);
    }
}

/// TERM (or what takes its part), and CONT so that one that is stopped hears it.
pub(crate) fn terminate(group: u32, by: StopBy) {
    let term = match by {
        StopBy::Term => Signal::TERM,
        StopBy::Quit => Signal::QUIT,
        StopBy::Int => Signal::INT,
        StopBy::Hup => Signal::HUP,
        StopBy::Usr1 => Signal::USR1,
        StopBy::Usr2 => Signal::USR2,
    };
    signal(group, term);
    signal(group, Signal::CONT);
}

/// Whether a process of the group still runs; zombies, which only wait for their parent, do not.
pub(crate) fn is_alive(group: u32) -> bool {
    let is_gone = pid_of(group).is_none_or(|group| test_kill_process_group(group) == Err(Errno::SRCH));
    !is_gone && stat::all().any(|found| found.group == group && !found.is_dead())
}

/// Kills a group whose supervisor died, unless its number belongs to another process by now: `start` is the start time
/// of the leader it was given for.
pub(crate) fn kill_left_behind(group: u32, start: u64) {
    // The kernel reuses no number that a group still bears: a leader of another start means that the group is gone.
    let is_other = stat::of(group).is_some_and(|leader| leader.start != start);
    if !is_other {
        signal(group, Signal::KILL);
    }
}

fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw)
}

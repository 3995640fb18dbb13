//! One keeper hands over, and how that is seen from outside.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use synego_runtime::clock;
use synego_supervise::stat;

use super::processes::{self, Process};

/// A newer part must serve within 60 s; then its keeper becomes the newer program.
const TAKES: Duration = Duration::from_secs(75);
/// Time in which a keeper starts the newer part.
const BEGINS: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOKS: Duration = Duration::from_millis(20);
/// A part that is gone has either failed or been taken for gone in the moment in which its keeper changed.
const SURE: Duration = Duration::from_millis(500);

/// Has a process hand over to the program on the disk; returns once it is that program itself.
///
/// # Errors
/// Why it is not, in words; then the former part serves on.
pub(super) async fn hand_over(process: &Process) -> Result<(), String> {
    let next = process.on_disk().ok_or("its program is gone from the disk")?;
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw).ok_or("it has no process id")?;
    if !process.is_there() {
        return Err("it ended meanwhile".into());
    }
    kill_process(pid, Signal::USR2).map_err(|error| format!("it cannot be told: {error}"))?;
    let begun = clock::now();
    let (mut seen, mut missed) = (false, None);
    loop {
        if process.runs() == Some(next) {
            return Ok(());
        }
        if !process.is_there() {
            return Err("it ended meanwhile".into());
        }
        let waited = clock::now().duration_since(begun);
        if stat::all().any(|other| other.parent == process.pid && processes::runs(other.pid) == Some(next)) {
            (seen, missed) = (true, None);
        } else if seen {
            let since = *missed.get_or_insert(clock::now());
            if clock::now().duration_since(since) > SURE {
                return Err(format!("the newer part ended after {:.1} s", waited.as_secs_f64()));
            }
        } else if waited > BEGINS {
            return Err(format!("no newer part began within {} s: it may be starting or ending", BEGINS.as_secs()));
        }
        if waited > TAKES {
            return Err(format!("the newer part does not serve within {} s", TAKES.as_secs()));
        }
        tokio::time::sleep(LOOKS).await;
    }
}

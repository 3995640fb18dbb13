//! Who is at the other end of the socket, as the kernel says.

use synego_model::Reason;
use synego_wire::status;
use tokio::sync::watch;
use tonic::Status;

use super::Started;

/// Most ancestors that are looked at.
const MAX_DEPTH: usize = 64;
/// Time for the parent to learn which process it started, when that one is quicker to attach.
const PARENT_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);

/// The process that opened a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// Its id; 0: the kernel does not say (another namespace).
    pub(crate) pid: u32,
}

/// What the kernel shows of a process.
struct Shown {
    ended: bool,
    parent: u32,
}

fn look(pid: u32) -> Option<Shown> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything, so that fields count from the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Shown { ended: matches!(state, "Z" | "X" | "x"), parent })
}

/// Whether a process runs; one that ended and was not collected yet does not.
pub(crate) fn lives(pid: u32) -> bool {
    look(pid).is_some_and(|shown| !shown.ended)
}

fn descends(mut pid: u32, from: u32) -> bool {
    for _ in 0..MAX_DEPTH {
        if pid == from {
            return true;
        }
        match look(pid) {
            Some(shown) if shown.parent > 1 => pid = shown.parent,
            _ => return false,
        }
    }
    false
}

/// Refuses a process that is neither one this sidecar started nor started by it; gives the generation that it is of,
/// where that is known.
pub(crate) async fn check(peer: Peer, parent_of: Option<&watch::Receiver<Started>>) -> Result<Option<u32>, Status> {
    let Some(parent_of) = parent_of else { return Ok(None) };
    if peer.pid == 0 {
        return Ok(None);
    }
    let mut parent_of = parent_of.clone();
    let of = |started: &Started| {
        let mut all = started.iter().filter(|(_, pid)| **pid != 0);
        all.find(|(_, pid)| descends(peer.pid, **pid)).map(|(generation, _)| *generation)
    };
    let ours = parent_of.wait_for(|started| of(started).is_some());
    if let Ok(Ok(started)) = tokio::time::timeout(PARENT_WITHIN, ours).await
        && let Some(generation) = of(&started)
    {
        return Ok(Some(generation));
    }
    let message = format!("process {} was not started by this sidecar", peer.pid);
    Err(status::refusal(Reason::Denied, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_ended_even_when_no_one_collected_it() -> std::io::Result<()> {
        let own = std::process::id();
        assert!(lives(own));
        let mut child = std::process::Command::new("true").spawn()?;
        while lives(child.id()) {
            std::thread::yield_now();
        }
        assert!(look(child.id()).is_some_and(|shown| shown.parent == own), "it is a zombie of ours");
        child.wait()?;
        assert!(look(child.id()).is_none());
        Ok(())
    }

    #[test]
    fn descent_goes_over_several_generations() -> std::io::Result<()> {
        use std::io::BufRead as _;
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 30 & echo $!; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?).read_line(&mut line)?;
        let grandchild: u32 = line.trim().parse().map_err(std::io::Error::other)?;
        assert!(descends(grandchild, child.id()));
        assert!(descends(grandchild, std::process::id()));
        assert!(!descends(std::process::id(), grandchild));
        for pid in [grandchild, child.id()] {
            let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            rustix::process::kill_process(pid.ok_or(std::io::ErrorKind::NotFound)?, rustix::process::Signal::KILL)?;
        }
        child.wait()?;
        Ok(())
    }
}

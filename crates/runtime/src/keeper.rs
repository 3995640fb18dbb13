//! The keeper: a small process that does not proxy, and holds what must outlive the part that does.
//!
//! A program that serves becomes a keeper first ([`begin`]) and does its work in a child of that, its *part*: the same
//! program with the same arguments. The keeper is the process that the user, systemd or PM2 started. It hands signals on
//! and ends with its part's exit code. What the part listens on, the processes that it started and the ends of their
//! output are held by the keeper too, under keys with notes ([`hold`], [`start`]). When the part dies by a signal it is
//! started again, and finds all of that ([`claim`]); clients wait in the queue of the kernel meanwhile. On USR2 a part of
//! the newer program takes over while the former one finishes what it has; then the keeper becomes that program in place.
//!
//! **Invariants.** One thread, no asynchronous runtime, nothing that grows with traffic. When the keeper dies, so does its
//! part, and with both whatever they started. A part without a keeper (in tests, or with `SYNEGO_KEEPER=off`) behaves the
//! same, but for what it would have been given: each function says so.

mod held;
mod link;
mod message;
mod parts;
mod serve;
mod signals;
mod state;
mod store;
mod takeover;
mod turn;

use std::process::ExitCode;

pub use held::{Held, Holding, Kept, Sockets, claim, claim_all, claim_sockets, forget, hold, is_left, start};
pub(crate) use link::{Stops, say, stops, take_told};
pub use link::{is_again, is_linked, is_successor, parent_of_processes, ready, top};
pub use message::{Command, Exit};
pub(crate) use turn::give_turn;
pub use turn::{Share, has_left, is_anothers, leaving, share, turn, yielding};

use crate::config;

/// Says to a keeper that it is one, and to a part whose it is: the keeper's process id.
pub(crate) const VARIABLE: &str = "SYNEGO_KEEPER";
/// In its place: work without a keeper.
const OFF: &str = "off";
/// Likewise: with one in any case.
const ON: &str = "on";
/// Our own program, also after its file was replaced.
const SELF: &str = "/proc/self/exe";

/// Must stand at the beginning of `main`, before any thread: runs the keeper, and returns its exit code, where this
/// process is one; connects with the keeper where this process is its part.
pub fn main() -> Option<ExitCode> {
    let keeper = config::env(VARIABLE)?.parse::<i32>().ok()?;
    let parent = rustix::process::getppid().map(rustix::process::Pid::as_raw_pid);
    if rustix::process::getpid().as_raw_pid() == keeper {
        name("synego-keeper");
        // Services inherit it, as they did of the part.
        let _limit = config::raise_file_limit();
        return Some(serve::run());
    }
    if parent == Some(keeper) {
        let file = std::env::current_exe().ok().and_then(|file| Some(file.file_name()?.to_str()?.to_owned()));
        name(&file.unwrap_or_default());
        return link::connect(keeper.unsigned_abs()).err().map(|error| {
            // The keeper tells by the exit code that its part never served.
            crate::usage_error(&[format!("the keeper does not answer: {error}")]);
            ExitCode::FAILURE
        });
    }
    None
}

/// Whether a program that starts no processes is to have a keeper all the same: as much memory again, for a port that is
/// never closed and for newer programs that take over.
#[must_use]
pub fn is_asked_for() -> bool {
    config::env(VARIABLE).as_deref() == Some(ON)
}

/// Makes a keeper of this process, unless it is a part already: to be called once it is known that this program serves,
/// before any thread. Returns in a part, and where there is to be no keeper; an exit code when it cannot be made.
#[must_use]
pub fn begin() -> Option<ExitCode> {
    if is_linked() || config::env(VARIABLE).as_deref() == Some(OFF) {
        return None;
    }
    let error = state::begin();
    Some(crate::usage_error(&[format!(
        "this program cannot become its own keeper: {error}; `{VARIABLE}={OFF}` works without one"
    )]))
}

/// The name that the kernel shows of a process: without it, that of the link by which it was started.
fn name(name: &str) {
    let short: String = name.chars().take(15).collect();
    if let Ok(short) = std::ffi::CString::new(short) {
        // Only for people's eyes.
        let _shown = rustix::thread::set_name(&short);
    }
}

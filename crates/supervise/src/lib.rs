//! Processes of services: started, watched, proved ready, captured, restarted with back-off, and ended as a whole group.
//!
//! A [`Supervisor`] is the parent of one process: build → start → ready → exit → back-off → start again, told by a
//! [`ProcessState`]. A [`Prober`] asks a process, ours or not, how it is. An [`OutputSink`] takes what it prints.
//!
//! **Invariants.** Each process leads a group of its own, and the group ends with it: TERM, then KILL when its grace is
//! over. When we are killed ourselves, the kernel kills each leader (`PDEATHSIG`, set by [`exec`]) and a guard process
//! kills what is left of the groups. Where this program is the part of a keeper ([`synego_runtime::keeper`]), that one is
//! the parent of processes with a [`ProcessSpec::keep`]: they outlive us, and the next part takes them over as they are.
//! What leaves its group on purpose (`setsid`), or loses its parent, is followed ([`kin`]) and ends with the rest. Nothing of
//! a process's output can make it wait, and nothing of it grows without bound. Deliberately absent: traffic, meshes.

mod build;
mod caps;
mod capture;
mod cgroup;
mod environment;
pub mod exec;
mod group;
mod guard;
mod keep;
mod kin;
mod launch;
mod leader;
mod listening;
mod notify;
pub mod output;
mod place;
mod port;
mod probe;
mod prober;
mod readiness;
mod restart;
mod rights;
mod spec;
pub mod stat;
mod state;
mod supervisor;

pub use build::build;
pub use caps::groups;
pub use environment::read_variables;
pub use keep::end_left;
pub use output::{Level, OutputLine, OutputSink};
pub use port::free_port;
pub use probe::{ProbeContext, run as probe};
pub use prober::{ProbeState, Prober};
pub use restart::RestartPolicy;
pub use rights::{Person, Rights, rights};
pub use spec::{ProcessSpec, StopBy};
pub use state::{ExitOutcome, Phase, ProcessEvent, ProcessState};
pub use supervisor::Supervisor;

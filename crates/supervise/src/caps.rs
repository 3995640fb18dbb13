//! How much of the machine a process may take: held by a control group of its own, else watched by us.
//!
//! Without a control group memory is added up from `/proc` twice a second, over all processes of the start, and a share of
//! the CPU becomes a lower priority: it yields to others, and takes more while nobody else wants it.

use std::path::PathBuf;

use rustix::process::Pid;
use synego_model::{CapSpec, text};

use crate::cgroup::{Base, Own};
use crate::stat::Stat;

/// Looks in a row that see too much memory until it counts.
const LOOKS: u32 = 2;
/// From here on one look is enough; of the cap.
const FAR: f64 = 1.25;
/// What one step of priority is worth, as the kernel has it.
const STEP: f64 = 1.25;

/// Whether processes can be held by control groups here: where, or why they are watched instead.
///
/// # Errors
/// A sentence that says what is missing.
pub fn groups() -> Result<PathBuf, String> {
    Base::look().map(|base| base.dir().to_owned())
}

/// What holds the processes of one start.
#[derive(Debug)]
pub(crate) struct Held {
    own: Option<Own>,
    /// What is watched; bytes.
    watched: Option<u64>,
    words: String,
    /// Looks in a row that saw too much.
    over: u32,
    /// The machine's count of kills for want of memory at the last look.
    kills: Option<u64>,
}

impl Held {
    /// Holds the process `pid`, and what it will start, to `caps`.
    ///
    /// - `name`: of its group, where it gets one; no other start has it.
    pub(crate) fn hold(caps: CapSpec, name: &str, pid: u32) -> Self {
        if caps.is_none() {
            return Self::by(caps, None);
        }
        let made = Base::get().and_then(|base| {
            let own = base.hold(name, caps, pid);
            let own = own.map_err(|error| format!("cannot make a group in {}: {error}", base.dir().display()))?;
            Ok((own, base.holds(caps)))
        });
        let made = made.inspect_err(|why| tracing::debug!(pid, cause = why, "not held by a control group")).ok();
        if let (Some(milli), false) = (caps.cpu_milli, made.as_ref().is_some_and(|(_, (_, cpu))| *cpu)) {
            lower(pid, cores(milli));
        }
        Self::by(caps, made)
    }

    /// What holds the processes of a start that a former part of this program made, and gave that name.
    pub(crate) fn again(caps: CapSpec, name: &str) -> Self {
        let found = (!caps.is_none()).then(Base::get).and_then(Result::ok);
        Self::by(caps, found.and_then(|base| Some((base.found(name)?, base.holds(caps)))))
    }

    /// - `group`: with whether memory and CPU are held by it.
    fn by(caps: CapSpec, group: Option<(Own, (bool, bool))>) -> Self {
        let (own, by_group) = group.map_or((None, (false, false)), |(own, by)| (Some(own), by));
        let how = |by_group, other: &'static str| if by_group { "by its control group" } else { other };
        let memory = caps.memory.map(|bytes| format!("memory {} {}", text::size(bytes), how(by_group.0, "watched")));
        let cpu = caps.cpu_milli.map(|milli| format!("cpu {} {}", cores(milli), how(by_group.1, "by its priority")));
        Self {
            own,
            watched: caps.memory.filter(|_| !by_group.0),
            words: memory.into_iter().chain(cpu).collect::<Vec<_>>().join(", "),
            over: 0,
            kills: machine_kills(),
        }
    }

    /// How it is held, for people; empty: it is not.
    pub(crate) fn words(&self) -> &str {
        &self.words
    }

    /// What we watch; bytes.
    pub(crate) fn watched(&self) -> Option<u64> {
        self.watched
    }

    /// Takes a look: `of` are all processes of the start, `resident` is what they have by the cheap count. How much they
    /// have, if that is too much for good.
    pub(crate) fn look(&mut self, of: &[Stat], resident: u64) -> Option<u64> {
        self.kills = machine_kills();
        let cap = self.watched?;
        // Shared pages count for each in the cheap count: too much of it may be right.
        let used = if resident > cap { proportional(of) } else { resident };
        if used <= cap {
            self.over = 0;
            return None;
        }
        self.over += 1;
        (self.over >= LOOKS || is_far(used, cap)).then_some(used)
    }

    /// Whether the kernel killed for want of memory since the last look: one of these processes where they have a group of
    /// their own, else anyone on this machine.
    pub(crate) fn kernel_killed(&self) -> bool {
        match (self.own.as_ref().and_then(Own::oom_kills), self.kills, machine_kills()) {
            (Some(kills), ..) => kills > 0,
            (None, Some(before), Some(now)) => now > before,
            _ => false,
        }
    }
}

/// Whether it is so far over its cap that nothing can be waited for.
pub(crate) fn is_far(used: u64, cap: u64) -> bool {
    used as f64 > cap as f64 * FAR
}

/// What all of them have, each shared page divided among those that share it; bytes.
pub(crate) fn proportional(of: &[Stat]) -> u64 {
    let one = |stat: &Stat| {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", stat.pid)).unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        // Of another user it cannot be read.
        kib.map_or(stat.memory_bytes, |kib| kib * 1_024)
    };
    of.iter().map(one).sum()
}

/// Kills for want of memory since the machine started.
fn machine_kills() -> Option<u64> {
    kills_in(&std::fs::read_to_string("/proc/vmstat").ok()?)
}

fn kills_in(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

fn cores(milli: u32) -> f64 {
    f64::from(milli) / 1_000.0
}

/// Gives the group of `pid` the priority that is worth so many cores of one.
fn lower(pid: u32, cores: f64) {
    let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Err(error) = rustix::process::setpriority_pgrp(group, nice(cores)) {
        tracing::warn!(pid, cause = %error, "its priority cannot be lowered");
    }
}

/// The step of priority whose weight among equals is that share of a core: 0 from one core on, at most 19.
fn nice(cores: f64) -> i32 {
    // Counted down instead of by logarithms: for these alone the programs would load the mathematics library.
    let mut steps = 0;
    let mut next = STEP.sqrt().recip();
    while steps < 19 && cores < next {
        steps += 1;
        next /= STEP;
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_share_is_a_lower_priority() {
        let of = |cores| nice(cores);
        assert_eq!([of(4.0), of(1.0), of(0.5), of(0.1), of(0.001)], [0, 0, 3, 10, 19]);
    }

    #[test]
    fn the_kernels_count_of_kills_is_read() {
        assert_eq!(kills_in("nr_free_pages 7\noom_kill 3\nnuma_hit 1\n"), Some(3));
        assert_eq!(kills_in("nr_free_pages 7\n"), None);
    }

    #[test]
    fn too_much_counts_when_it_is_seen_twice_or_is_far_too_much() {
        let mut held = Held { own: None, watched: Some(1_000), words: String::new(), over: 0, kills: None };
        let one =
            |bytes| vec![Stat { pid: 0, state: 'S', parent: 1, group: 1, cpu_ticks: 0, start: 0, memory_bytes: bytes }];
        let mut look = |bytes| held.look(&one(bytes), bytes);
        assert_eq!([look(900), look(1_100), look(900), look(1_100)], [None; 4]);
        assert_eq!(look(1_150), Some(1_150));
        assert_eq!(look(500), None);
        assert_eq!(look(1_300), Some(1_300));
    }
}

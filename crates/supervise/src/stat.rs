//! What the kernel tells of a process: state, memory, CPU, children; read from `/proc`.

/// One process, as `/proc/PID/stat` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its id.
    pub pid: u32,
    /// `R` runs, `S` sleeps, `T` stopped by a signal, `Z` dead, and others.
    pub state: char,
    /// Its parent.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// CPU time it used, user and system; clock ticks.
    pub cpu_ticks: u64,
    /// When it started; clock ticks since boot. With the id this names a process for good.
    pub start: u64,
    /// Resident memory; bytes.
    pub memory_bytes: u64,
}

impl Stat {
    /// Whether it is stopped by a signal (STOP, TSTP), not by a debugger.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.state == 'T'
    }

    /// Whether it ended and only waits to be collected.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// What a process and all its descendants use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Resident memory; bytes. Shared pages count for each.
    pub memory_bytes: u64,
    /// CPU time, user and system; clock ticks.
    pub cpu_ticks: u64,
}

/// The process `pid`; `None` when there is none.
#[must_use]
pub fn of(pid: u32) -> Option<Stat> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// All processes that can be seen.
pub fn all() -> impl Iterator<Item = Stat> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| of(entry.file_name().to_str()?.parse().ok()?))
}

/// What `pid` and all its descendants use; `None` when it is gone.
#[must_use]
pub fn usage(pid: u32) -> Option<Usage> {
    let own = of(pid)?;
    let mut usage = Usage { memory_bytes: own.memory_bytes, cpu_ticks: own.cpu_ticks };
    // A bound for the walk: children may come faster than we read.
    let mut left = 1_000;
    let mut open = children(pid);
    while let (Some(child), true) = (open.pop(), left > 0) {
        left -= 1;
        if let Some(stat) = of(child) {
            usage.memory_bytes += stat.memory_bytes;
            usage.cpu_ticks += stat.cpu_ticks;
            open.extend(children(child));
        }
    }
    Some(usage)
}

/// The children of a process; none when it is gone.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    // Children are listed by the thread that made them.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

fn parse(text: &str) -> Option<Stat> {
    // The name in parentheses may hold anything, parentheses too: the last one closes it. Fields are counted from 1.
    let (head, tail) = text.rsplit_once(')')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let number = |index: usize| field(index)?.parse::<u64>().ok();
    Some(Stat {
        pid: head.split(' ').next()?.parse().ok()?,
        state: field(3)?.chars().next()?,
        parent: field(4)?.parse().ok()?,
        group: field(5)?.parse().ok()?,
        cpu_ticks: number(14)? + number(15)?,
        start: number(22)?,
        memory_bytes: number(24)? * u64::try_from(rustix::param::page_size()).unwrap_or(4096),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_hostile_name_is_read() {
        let text = "42 (a) S (b)) T 7 42 42 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 99 1000 5 18446744073709551615";
        let stat = parse(text).unwrap();
        assert_eq!((stat.pid, stat.state, stat.parent, stat.group), (42, 'T', 7, 42));
        assert_eq!((stat.cpu_ticks, stat.start), (42, 99));
        assert!(stat.is_paused());
        assert_eq!(parse("42 (a"), None);
    }

    #[test]
    fn this_process_is_found_and_uses_memory() {
        let own = of(std::process::id()).unwrap();
        assert!(own.memory_bytes > 100_000 && !own.is_dead());
        assert!(usage(own.pid).unwrap().memory_bytes >= own.memory_bytes / 2);
        assert!(all().any(|found| found.pid == own.pid));
        assert_eq!(of(0), None);
    }
}

//! Control groups, version 2: one of its own for each start of a process that is capped.
//!
//! They are used where a whole subtree is ours: our own group can be written, has the controllers, and holds no process
//! but us and what we started. That is so under a unit of systemd with `Delegate=`, and in a container that may write its
//! groups. Elsewhere the caller has other means.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use synego_model::CapSpec;
use synego_runtime::keeper;

use crate::stat;

/// Where version 2 says which group is ours.
const OWN: &str = "/proc/self/cgroup";
const MOUNTS: &str = "/proc/self/mountinfo";
/// Beginning of the names of the groups that we make.
const PREFIX: &str = "synego-";
/// The group in which we are ourselves, since one with controllers for others must hold none.
const LEAF: &str = "synego-itself";
/// Length of the period of a share of the CPU; microseconds.
const PERIOD_US: u64 = 100_000;

/// Our subtree, once it was made ready; why not, otherwise.
static BASE: Mutex<Option<Result<Base, String>>> = Mutex::new(None);

/// A group below which ours are made.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    dir: PathBuf,
    has_memory: bool,
    has_cpu: bool,
}

/// The group of one start. It is removed when it is dropped; its processes must have ended by then.
#[derive(Debug)]
pub(crate) struct Own {
    dir: PathBuf,
}

impl Base {
    /// The subtree that is ours, made ready by the first call.
    pub(crate) fn get() -> Result<Self, String> {
        let mut base = BASE.lock().unwrap_or_else(PoisonError::into_inner);
        base.get_or_insert_with(|| Self::find().and_then(Self::prepared)).clone()
    }

    /// Whether there is one, without changing anything: where, or why not.
    pub(crate) fn look() -> Result<Self, String> {
        if let Some(base) = &*BASE.lock().unwrap_or_else(PoisonError::into_inner) {
            return base.clone();
        }
        Self::find()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn holds(&self, caps: CapSpec) -> (bool, bool) {
        (self.has_memory && caps.memory.is_some(), self.has_cpu && caps.cpu_milli.is_some())
    }

    fn find() -> Result<Self, String> {
        let read = |file: &str| fs::read_to_string(file).map_err(|error| format!("{file}: {error}"));
        let dir = own_dir(&read(OWN)?, &read(MOUNTS)?).ok_or("cgroup v2 is not mounted here")?;
        Self::at(above_leaf(dir))
    }

    /// The group `dir`, which must be ours alone.
    fn at(dir: PathBuf) -> Result<Self, String> {
        let shown = dir.display().to_string();
        let controllers =
            fs::read_to_string(dir.join("cgroup.controllers")).map_err(|error| format!("{shown}: {error}"))?;
        let has = |name: &str| controllers.split_whitespace().any(|controller| controller == name);
        let base = Self { has_memory: has("memory"), has_cpu: has("cpu"), dir };
        if !base.has_memory && !base.has_cpu {
            return Err(format!("cgroup v2 at {shown} has neither the memory nor the cpu controller"));
        }
        let writable = rustix::fs::access(&base.dir, rustix::fs::Access::WRITE_OK).is_ok();
        if !writable {
            return Err(format!("cgroup v2 at {shown} cannot be written: it is not delegated to this user"));
        }
        match base.processes()?.into_iter().find(|pid| !is_ours(*pid)) {
            Some(other) => Err(format!("cgroup v2 at {shown} also holds process {other}, which is not ours")),
            None => Ok(base),
        }
    }

    fn processes(&self) -> Result<Vec<u32>, String> {
        let file = self.dir.join("cgroup.procs");
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Moves what is in it to a leaf, and has it pass its controllers on.
    fn prepared(self) -> Result<Self, String> {
        let failed = |what: &str, error: io::Error| format!("{what} in {}: {error}", self.dir.display());
        self.clean();
        let leaf = self.dir.join(LEAF);
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("cannot make a group", error));
            }
            _ => {}
        }
        for pid in self.processes()? {
            fs::write(leaf.join("cgroup.procs"), pid.to_string())
                .map_err(|error| failed("cannot move into a leaf", error))?;
        }
        let wanted: Vec<&str> = [(self.has_memory, "+memory"), (self.has_cpu, "+cpu")]
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, w)| *w)
            .collect();
        fs::write(self.dir.join("cgroup.subtree_control"), wanted.join(" "))
            .map_err(|error| failed("cannot pass controllers on", error))?;
        Ok(self)
    }

    /// Removes groups of starts that are over; one that still holds processes stays.
    fn clean(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                let _holds_some = fs::remove_dir(entry.path());
            }
        }
    }

    /// The group of that name, if a former part of this program made it.
    pub(crate) fn found(&self, name: &str) -> Option<Own> {
        let dir = self.dir.join(format!("{PREFIX}{name}"));
        dir.is_dir().then_some(Own { dir })
    }

    /// A new group with these caps, and `pid` in it.
    pub(crate) fn hold(&self, name: &str, caps: CapSpec, pid: u32) -> io::Result<Own> {
        self.clean();
        let own = Own { dir: self.dir.join(format!("{PREFIX}{name}")) };
        fs::create_dir(&own.dir)?;
        let (memory, cpu) = self.holds(caps);
        if let (true, Some(bytes)) = (memory, caps.memory) {
            fs::write(own.dir.join("memory.max"), bytes.to_string())?;
            // The cap is on what it has, not on how much of it is in memory. Absent where there is no swap.
            let _no_swap = fs::write(own.dir.join("memory.swap.max"), "0");
            // One without its other processes is of no use.
            fs::write(own.dir.join("memory.oom.group"), "1")?;
        }
        if let (true, Some(milli)) = (cpu, caps.cpu_milli) {
            let quota = (u64::from(milli) * PERIOD_US / 1_000).max(1_000);
            fs::write(own.dir.join("cpu.max"), format!("{quota} {PERIOD_US}"))?;
        }
        fs::write(own.dir.join("cgroup.procs"), pid.to_string())?;
        Ok(own)
    }
}

impl Own {
    /// How many of its processes the kernel killed because there was no memory; `None`: nobody counts them.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        let events = fs::read_to_string(self.dir.join("memory.events")).ok()?;
        Some(events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if keeper::is_anothers() {
            // What is in it goes on with the successor of this part.
            return;
        }
        // Whoever is still there left its group, its parent and its mark. Absent before Linux 5.14.
        let _killed = fs::write(self.dir.join("cgroup.kill"), "1");
        // One that still holds somebody is removed later.
        let _holds_some = fs::remove_dir(&self.dir);
    }
}

/// The folder of our own group, from the text of `OWN` and `MOUNTS`.
fn own_dir(own: &str, mounts: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (root, point) = mounts.lines().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let mut fields = head.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        tail.starts_with("cgroup2 ").then_some((root, point))
    })?;
    let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
    Some(Path::new(point).join(below.trim_start_matches('/')))
}

/// The group whose leaf we were moved to, by a former part of this program, or else our own.
fn above_leaf(dir: PathBuf) -> PathBuf {
    match dir.parent() {
        Some(above) if dir.file_name().is_some_and(|name| name == LEAF) => above.to_owned(),
        _ => dir,
    }
}

/// Whether a process is of this program, its keeper included, or descends from it.
fn is_ours(pid: u32) -> bool {
    let own = keeper::top();
    let mut next = Some(pid);
    // A bound for the walk: parents may change while we look.
    for _ in 0..64 {
        match next {
            Some(pid) if pid == own => return true,
            Some(pid) if pid > 1 => next = stat::of(pid).map(|found| found.parent),
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(controllers: &str, processes: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), controllers).unwrap();
        fs::write(dir.path().join("cgroup.procs"), processes).unwrap();
        dir
    }

    #[test]
    fn our_own_group_is_found_on_a_machine_with_one_version_and_with_both() {
        let one = "25 1 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        let path = own_dir("0::/system.slice/shop.service\n", one);
        assert_eq!(path, Some("/sys/fs/cgroup/system.slice/shop.service".into()));
        let both = "31 2 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n32 2 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(own_dir("4:memory:/x\n0::/\n", both), Some("/sys/fs/cgroup/unified".into()));
        let inside = "40 1 0:22 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(own_dir("0::/docker/abc/x\n", inside), Some("/sys/fs/cgroup/x".into()));
        assert_eq!(own_dir("4:memory:/x\n", one), None);
        assert_eq!(
            above_leaf("/sys/fs/cgroup/shop.service/synego-itself".into()),
            Path::new("/sys/fs/cgroup/shop.service")
        );
        assert_eq!(above_leaf("/sys/fs/cgroup/shop.service".into()), Path::new("/sys/fs/cgroup/shop.service"));
    }

    #[test]
    fn a_group_without_controllers_or_with_others_in_it_is_not_used() {
        let own = std::process::id().to_string();
        let without = Base::at(folder("hugetlb", &own).path().to_owned()).unwrap_err();
        assert!(without.contains("neither the memory nor the cpu controller"), "{without}");
        let shared = Base::at(folder("memory cpu", &format!("{own}\n1\n")).path().to_owned()).unwrap_err();
        assert!(shared.ends_with("also holds process 1, which is not ours"), "{shared}");
    }

    #[test]
    fn a_start_gets_a_group_with_its_caps_and_the_kernels_kills_are_read_from_it() {
        let own = std::process::id().to_string();
        let dir = folder("cpuset cpu memory pids", &own);
        let base = Base::at(dir.path().to_owned()).unwrap().prepared().unwrap();
        let said = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
        assert_eq!(said("synego-itself/cgroup.procs"), own);
        assert_eq!(said("cgroup.subtree_control"), "+memory +cpu");
        let caps = CapSpec { memory: Some(64 << 20), cpu_milli: Some(1_500) };
        let held = base.hold("users-1", caps, 4_711).unwrap();
        for (file, text) in [
            ("memory.max", "67108864"),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "1"),
            ("cpu.max", "150000 100000"),
            ("cgroup.procs", "4711"),
        ] {
            assert_eq!(said(&format!("synego-users-1/{file}")), text, "{file}");
        }
        assert_eq!(held.oom_kills(), None);
        fs::write(held.dir.join("memory.events"), "low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 1\n")
            .unwrap();
        assert_eq!(held.oom_kills(), Some(2));
    }
}

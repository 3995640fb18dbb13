//! Which processes of Synego run on this machine, of which program, and what is on the disk in its place.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use synego_supervise::stat::{self, Stat};

use super::program;
use crate::failure::Failure;

/// The programs, in the order in which they hand over: callers know less of a newer word than those who say it.
pub(super) const PROGRAMS: [&str; 3] = ["synego-sidecar", "synego", "synego-master"];
/// The name that the kernel shows of a keeper.
const KEEPER: &str = "synego-keeper";
/// What the kernel adds to the path of a program whose file was replaced.
const REPLACED: &str = " (deleted)";

/// A file, whatever it is called: its device and its number there.
pub(super) type Identity = (u64, u64);

/// A process that people started: a keeper, or a program without one.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// With the id this names it for good.
    pub(super) start: u64,
    /// One of [`PROGRAMS`].
    pub(super) program: &'static str,
    /// Its command line.
    pub(super) command: String,
    /// Where its program was started from, as it sees the disk.
    pub(super) file: PathBuf,
    pub(super) has_keeper: bool,
}

impl Process {
    /// For people: its id, its program, and its instance or service where its command line names one.
    pub(super) fn label(&self) -> String {
        let words = || self.command.split(' ');
        let after = |flag: &str| words().zip(words().skip(1)).find(|(word, _)| *word == flag).map(|(_, name)| name);
        let name = after("--instance").or_else(|| after("--service")).map(|name| format!(" {name}"));
        format!("{} {}{}", self.pid, self.program, name.unwrap_or_default())
    }

    /// Of the program that it runs; `None`: it has ended, or is another's.
    pub(super) fn runs(&self) -> Option<Identity> {
        runs(self.pid)
    }

    /// Of the file that it would hand over to.
    pub(super) fn on_disk(&self) -> Option<Identity> {
        fs::metadata(self.seen()).ok().map(|found| identity(&found))
    }

    pub(super) fn is_current(&self) -> bool {
        self.runs().is_some() && self.runs() == self.on_disk()
    }

    /// Whether it lives still.
    pub(super) fn is_there(&self) -> bool {
        stat::of(self.pid).is_some_and(|now| now.start == self.start && !now.is_dead())
    }

    /// The version of the program that it runs.
    pub(super) fn version(&self) -> Result<String, String> {
        program::version(Path::new(&format!("/proc/{}/exe", self.pid))).map(|(_, version)| version)
    }

    /// The version of the file that it would hand over to, which must be the same program.
    pub(super) fn next_version(&self) -> Result<String, String> {
        let (name, version) =
            program::version(&self.seen()).map_err(|error| format!("{}: {error}", self.file.display()))?;
        if name == self.program {
            Ok(version)
        } else {
            Err(format!("{} is {name}, not {}", self.file.display(), self.program))
        }
    }

    /// The file as this process reaches it: the other one may have a root of its own.
    fn seen(&self) -> PathBuf {
        let inside = self.file.strip_prefix("/").unwrap_or(&self.file);
        Path::new(&format!("/proc/{}/root", self.pid)).join(inside)
    }
}

/// The processes of Synego, in the order in which they hand over.
///
/// - `wanted`: their ids; none: all of this user.
/// - Errors: for the first id that is none of them.
pub(super) fn find(wanted: &[u32]) -> Result<Vec<Process>, Failure> {
    let mut all: Vec<Process> = stat::all().filter_map(|stat| process(&stat)).collect();
    for pid in wanted {
        if !all.iter().any(|process| process.pid == *pid) {
            return Err(Failure::misuse(format!("process {pid} is none of Synego's that can hand over"))
                .help("`pgrep -a synego-keeper` lists them"));
        }
    }
    all.retain(|process| wanted.is_empty() || wanted.contains(&process.pid));
    all.sort_by_key(|process| (PROGRAMS.iter().position(|name| *name == process.program), process.start, process.pid));
    Ok(all)
}

pub(super) fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// Of the program that a process runs.
pub(super) fn runs(pid: u32) -> Option<Identity> {
    fs::metadata(format!("/proc/{pid}/exe")).ok().map(|found| identity(&found))
}

fn process(stat: &Stat) -> Option<Process> {
    let pid = stat.pid;
    if stat.is_dead() || pid == std::process::id() {
        return None;
    }
    // What another user runs is not run by us, root least of all: it may only look like a program of ours.
    if fs::metadata(format!("/proc/{pid}")).ok()?.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?.into_os_string().into_string().ok()?;
    let exe = PathBuf::from(exe.strip_suffix(REPLACED).unwrap_or(&exe));
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<String> = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let has_keeper = name(pid).as_deref() == Some(KEEPER);
    let file = started_from(&exe, words.first()?, pid);
    let known = |file: &Path| PROGRAMS.into_iter().find(|name| file.file_name().is_some_and(|own| own == *name));
    let program = known(&file).or_else(|| known(&exe))?;
    // Parts belong to their keeper, and a command ends by itself.
    let serves = has_keeper || (program != "synego" || words.iter().any(|word| word == "up" || word == "start"));
    if !serves || (!has_keeper && name(stat.parent).as_deref() == Some(KEEPER)) {
        return None;
    }
    Some(Process { pid, start: stat.start, program, command: words.join(" "), file, has_keeper })
}

/// The path by which a program was started, when that is one, so that a link that is moved is followed; else its file.
fn started_from(exe: &Path, word: &str, pid: u32) -> PathBuf {
    if !word.contains('/') {
        return exe.to_owned();
    }
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let file = folder.join(word);
    if file.file_name() == exe.file_name() { file } else { exe.to_owned() }
}

fn name(pid: u32) -> Option<String> {
    let text = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(OsString::from_vec(text).to_string_lossy().trim_end().to_owned())
}

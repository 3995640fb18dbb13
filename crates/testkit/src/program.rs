//! One of our programs (or any other) as a child of the test: its output kept, its end certain.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// The root of the project.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the root of the project")
}

/// The built program `name`, in the same profile as the test.
///
/// # Panics
/// When it is not built: `cargo build --workspace --bins` builds all.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("the path of the test");
    while folder.pop() {
        let candidate = folder.join(name);
        if candidate.is_file() {
            return candidate;
        }
        if folder.file_name() == Some(OsStr::new("target")) {
            break;
        }
    }
    panic!("`{name}` is not built: run `cargo build --workspace --bins`")
}

/// A running child with its output in a file.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Program {
    /// Starts `program` in a process group of its own; what it writes goes to a file in `folder`. It is killed when the
    /// thread that started it ends, so also when the test is killed: by the helper of our own programs, which asks the
    /// kernel for it and then becomes `program`.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        cwd: &Path,
        env: &BTreeMap<String, String>,
        folder: &Path,
    ) -> Self {
        let number = fs::read_dir(folder).expect("the folder of the test").count();
        let log = folder.join(format!("{name}-{number}.log"));
        let output = File::create(&log).expect("a log file");
        let mut child = Command::new(binary("synego"))
            .args(["__exec", &std::process::id().to_string(), "-", &program.display().to_string()])
            .arg(program)
            .args(args)
            .current_dir(cwd)
            .envs(env)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        // The helper waits for this word. One that has ended already says why in its log.
        let _is_there = child.stdin.take().map(|mut word| word.write_all(b"\n"));
        Self { name: name.to_owned(), child, log, status: None }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote until now.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = pid_of(self.pid()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Its status, once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("its status");
        }
        self.status
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it has not ended `within`, with its output.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(start.elapsed() < within, "{} has not ended within {within:?}:\n{}", self.name, self.output());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// TERM, and then its end.
    pub fn stop(&mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(within)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::TERM);
            let start = Instant::now();
            while self.ended().is_none() && start.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if let Some(pid) = pid_of(self.pid()) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            let output = self.output();
            let from = output.len().saturating_sub(6000);
            let from = (from..=output.len()).find(|index| output.is_char_boundary(*index)).unwrap_or(0);
            eprintln!("── {} wrote last:\n{}", self.name, &output[from..]);
        }
    }
}

/// The typed form of a process id; `None` for zero.
#[must_use]
pub fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// A variable in the environment with which a process was started.
#[must_use]
pub fn variable_of(pid: u32, name: &str) -> Option<String> {
    let block = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let pairs = block.split(|byte| *byte == 0).filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

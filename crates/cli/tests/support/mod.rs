//! The built `synego` in a folder of its own, with an environment of its own.
#![expect(dead_code, reason = "each test file uses its part")]

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A folder with files, and what `synego` needs around it; all gone at the end.
pub(crate) struct Place {
    dir: TempDir,
}

/// What a command came to.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The one JSON object on stdout.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error} in {:?}, stderr {:?}", self.out, self.err))
    }

    /// Panics with everything that was said unless the exit code is `code`.
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }
}

impl Place {
    /// A folder with these files.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let place = Self { dir: tempfile::Builder::new().prefix("sy").tempdir().expect("a folder") };
        for (name, text) in files {
            place.write(name, text);
        }
        place
    }

    /// The project's folder.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("shop")
    }

    /// Writes a file of the project.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, text).expect("a file");
    }

    /// The program with these arguments, not started yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        std::fs::create_dir_all(self.path()).expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_synego"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", path())
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .env("HOME", self.dir.path())
            .env("SYNEGO_RUNTIME_DIR", self.dir.path().join("run"))
            .env("SYNEGO_STATE_DIR", self.dir.path().join("state"))
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        Said::of(&self.command(arguments).output().expect("synego runs"))
    }

    /// Runs it in a folder of the project.
    pub(crate) fn run_in(&self, folder: &Path, arguments: &[&str]) -> Said {
        Said::of(&self.command(arguments).current_dir(folder).output().expect("synego runs"))
    }
}

fn path() -> String {
    synego_runtime::config::env("PATH").unwrap_or_default()
}

/// A mesh in the background, ended with the test; also when the test is killed, by a shell that waits for its end.
pub(crate) struct Up<'a> {
    place: &'a Place,
    heir: Child,
}

impl<'a> Up<'a> {
    /// What `up -d` starts in this place.
    pub(crate) fn of(place: &'a Place) -> Self {
        let down = place.command(&["down", "--now", "-q"]);
        let mut heir = Command::new("sh");
        heir.args(["-c", "read -r word || exec \"$@\"", "heir"]).arg(down.get_program()).args(down.get_args());
        heir.env_clear().envs(down.get_envs().filter_map(|(name, value)| Some((name, value?))));
        heir.current_dir(place.path()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // What is sent to the group of the test is not meant for it.
        let heir = heir.process_group(0).spawn().expect("a shell");
        Self { place, heir }
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        // A mesh that has ended already is no failure.
        self.place.run(&["down", "--now", "-q"]);
        // Without the word it would end the mesh once more.
        let _told = self.heir.stdin.take().map(|mut stdin| stdin.write_all(b"ended\n"));
        let _ended = self.heir.wait();
    }
}

/// Kills a program that the test started, whatever happens.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `look` finds something; panics after 20 s.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = synego_runtime::clock::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} did not happen within 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The first of three ports in a row that are free, below those that the machine hands out by itself; another one each
/// time.
pub(crate) fn three_ports() -> u16 {
    static TAKEN: std::sync::Mutex<u16> = std::sync::Mutex::new(0);
    let mut taken = TAKEN.lock().expect("no test panics here");
    let first = (20_000 + u16::try_from(std::process::id() % 8_000).expect("small")).max(*taken);
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let found = (first..32_000).step_by(3).find(|port| (*port..port + 3).all(is_free)).expect("three free ports");
    *taken = found + 3;
    found
}

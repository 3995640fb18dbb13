//! What the tests with real processes share.

use std::path::Path;
use std::time::Duration;

use synego_model::process::ServiceAddress;
use synego_model::{CommandLine, ReadySpec};
use synego_runtime::logs::LineWriter;
use synego_runtime::{Stop, Stopper};
use synego_supervise::{OutputSink, Phase, ProcessSpec, ProcessState, Supervisor, stat};
use tokio::sync::watch;

/// Longest wait for a condition; only a failed test waits so long.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn command(words: &[&str]) -> CommandLine {
    let mut words = words.iter().map(|word| (*word).to_owned());
    CommandLine { program: words.next().unwrap_or_default(), args: words.collect() }
}

pub(crate) fn sh(script: &str) -> CommandLine {
    command(&["sh", "-c", script])
}

/// A process without address, port or build: ready once started.
pub(crate) fn spec(command: CommandLine, dir: &Path) -> ProcessSpec {
    let ready = ReadySpec { by: None, within: LONG };
    ProcessSpec { ready, ..ProcessSpec::new("users-1", command, dir.to_owned(), dir.to_owned()) }
}

/// A process that is told its port.
pub(crate) fn with_port(mut spec: ProcessSpec) -> ProcessSpec {
    let port = synego_supervise::free_port().expect("a free port");
    spec.env.insert("PORT".to_owned(), port.to_string());
    spec.address = Some(ServiceAddress::Tcp(([127, 0, 0, 1], port).into()));
    spec
}

/// A supervised process with all that a test looks at.
pub(crate) struct Run {
    pub(crate) supervisor: Supervisor,
    pub(crate) state: watch::Receiver<ProcessState>,
    pub(crate) output: OutputSink,
    pub(crate) stopper: Stopper,
}

pub(crate) fn start(spec: ProcessSpec) -> Run {
    let (stopper, stop): (Stopper, Stop) = Stopper::new();
    let output = OutputSink::new("users", "users-1", LineWriter::discard());
    let (supervisor, state) = Supervisor::start(spec, output.clone(), stop);
    Run { supervisor, state, output, stopper }
}

impl Run {
    /// Waits for a state.
    pub(crate) async fn until(&mut self, what: &str, is_there: impl FnMut(&ProcessState) -> bool) -> ProcessState {
        let waited = tokio::time::timeout(LONG, self.state.wait_for(is_there)).await;
        let found = waited.map(|found| found.map(|found| found.clone()));
        match found {
            Ok(Ok(state)) => state,
            _ => panic!("never {what}: {:?}, output {:?}", *self.state.borrow(), self.messages()),
        }
    }

    pub(crate) async fn ready(&mut self) -> ProcessState {
        self.until("ready", |state| state.phase == Phase::Ready).await
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        self.output.last(100).iter().map(|line| line.message.clone()).collect()
    }

    /// Waits for a line of the output that begins so, and returns the rest of it.
    pub(crate) async fn line(&self, begin: &str) -> String {
        let (past, mut next) = self.output.follow(usize::MAX);
        let rest = |message: &str| message.strip_prefix(begin).map(str::to_owned);
        if let Some(found) = past.iter().find_map(|line| rest(&line.message)) {
            return found;
        }
        let wait = async {
            loop {
                if let Some(found) = rest(&next.recv().await.expect("output").message) {
                    return found;
                }
            }
        };
        tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("no line `{begin}`: {:?}", self.messages()))
    }
}

/// Waits until `is_there`.
pub(crate) async fn eventually(what: &str, mut is_there: impl FnMut() -> bool) {
    let wait = async {
        while !is_there() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("never {what}"));
}

/// Whether a process runs (a dead one that nobody collected does not).
pub(crate) fn runs(pid: u32) -> bool {
    stat::of(pid).is_some_and(|found| !found.is_dead())
}

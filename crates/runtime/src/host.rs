//! The frame of every program: threads, logs, signals, and its one exit.

use std::fmt::Display;
use std::future::Future;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::config::{self, Setting};
use crate::keeper;
use crate::lifecycle::{Readiness, Stop, Stopper};
use crate::logs::{self, LogConfig, LogHandle};
use crate::parent;
use crate::tasks::{self, Kind};
use crate::telemetry::Metrics;

/// Exit code of a command line or configuration that cannot be used (`EX_USAGE`).
const USAGE: u8 = 64;
/// Exit code of a process that failed by itself (`EX_SOFTWARE`).
const SOFTWARE: u8 = 70;
/// A file would grow past the limit of the process (`RLIMIT_FSIZE`).
const SIGXFSZ: i32 = rustix::process::Signal::XFSZ.as_raw();
/// Time for the last lines of the log at the end of a process.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The code of a second signal; 0: there was none. It wins over whatever the program returns meanwhile.
static FORCED: AtomicU8 = AtomicU8::new(0);

/// What the frame of a program needs to know.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Its name, such as `synego-master`.
    pub name: &'static str,
    /// How it logs.
    pub logs: LogConfig,
}

impl HostConfig {
    /// JSON lines to stderr.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, logs: LogConfig::default() }
    }
}

/// What a running program has from its frame. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Host {
    stopper: Stopper,
    stop: Stop,
    metrics: Metrics,
    readiness: Readiness,
    hangups: watch::Receiver<u64>,
    logs: LogHandle,
    file_limit: u64,
}

impl Host {
    /// Ends with the process: a first TERM or INT, [`Host::stopper`], or a critical task that failed.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Ends the process from inside.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// The metrics of the process.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// The readiness of the process.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Changes with each HUP: the file shall be read again.
    #[must_use]
    pub fn hangups(&self) -> watch::Receiver<u64> {
        self.hangups.clone()
    }

    /// The log of the process.
    #[must_use]
    pub fn logs(&self) -> LogHandle {
        self.logs.clone()
    }

    /// Tells whoever started this program, if that wants to know (systemd, PM2), once `ready` returns, and that it is alive,
    /// to its end.
    pub fn tell_parent(&self, ready: impl Future<Output = ()> + Send + 'static) {
        tasks::spawn("parent", Kind::Connection, parent::tell(ready, self.stop()));
    }

    /// Files that the process may have open, after the limit was raised.
    #[must_use]
    pub fn file_limit(&self) -> u64 {
        self.file_limit
    }
}

/// Runs a program to its end: begins to log, raises the file limit, begins the control runtime on this thread, listens to signals.
///
/// The first TERM or INT stops (drains), a second one ends the process at once with 143 or 130. HUP is told by
/// [`Host::hangups`]; USR1 opens the logs anew. When a critical task failed the code is 70 unless `main` said another.
pub fn run<M, F>(config: HostConfig, main: M) -> ExitCode
where
    M: FnOnce(Host) -> F,
    F: Future<Output = ExitCode>,
{
    let logs = match logs::init(&config.logs) {
        Ok(logs) => logs,
        Err(problem) => return usage_error(&[problem]),
    };
    let file_limit = config::raise_file_limit();
    // One thread: what moves knowledge waits nearly always, and requests have workers of their own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&format!("cannot begin: {error}")),
    };
    for text in keeper::take_told() {
        tracing::warn!("{text}");
    }
    let (stopper, stop) = Stopper::new();
    tasks::set_host(stopper.clone());
    let (hangup, hangups) = watch::channel(0);
    let (metrics, readiness) = (Metrics::new(config.name), Readiness::new());
    let host = Host { stopper: stopper.clone(), stop, metrics, readiness, hangups, logs, file_limit };
    // A panic of the assembly itself ends the process, but not before it is written down.
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            if let Err(error) = listen_to_signals(stopper, hangup) {
                return failure(&format!("cannot listen to signals: {error}"));
            }
            main(host).await
        })
    }));
    let code = outcome.unwrap_or_else(|_| ExitCode::from(SOFTWARE));
    // What still runs was told to end; a blocking call that hangs must not hold the process.
    runtime.shutdown_timeout(LAST_WORDS);
    let failed = tasks::failed_critical().is_some() && code == ExitCode::SUCCESS;
    logs::flush_all(LAST_WORDS);
    match FORCED.load(Ordering::Relaxed) {
        0 if failed => ExitCode::from(SOFTWARE),
        0 => code,
        forced => ExitCode::from(forced),
    }
}

fn listen_to_signals(stopper: Stopper, hangup: watch::Sender<u64>) -> std::io::Result<()> {
    let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (mut hup, mut usr1) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?);
    // A limit on the size of files costs lines of the log, not the process: the write fails instead.
    let mut too_large = signal(SignalKind::from_raw(SIGXFSZ))?;
    tasks::spawn("signal_file_size", Kind::Critical, async move { while too_large.recv().await.is_some() {} });
    tasks::spawn("keeper_turn", Kind::Critical, keeper::give_turn());
    match keeper::stops() {
        // Signals to the whole group reach keeper and part alike: the keeper's word alone says which is a second one.
        Some(stops) => {
            tasks::spawn("keeper_stop", Kind::Critical, stop_on_word(stops, stopper.clone()));
            tasks::spawn("signal_stop", Kind::Critical, stop_on_first(term, int, stopper))
        }
        None => tasks::spawn("signal_stop", Kind::Critical, stop_on_signals(term, int, stopper)),
    };
    // It is the keeper's. One that is sent to all processes of a name, or where there is no keeper, must end nobody.
    let mut usr2 = signal(SignalKind::user_defined2())?;
    tasks::spawn("signal_upgrade", Kind::Critical, async move {
        while usr2.recv().await.is_some() {
            if !keeper::is_linked() {
                tracing::warn!(
                    "USR2 changes nothing: without a keeper (`SYNEGO_KEEPER=on`) no newer program can take over"
                );
            }
        }
    });
    tasks::spawn("signal_hangup", Kind::Critical, async move {
        while hup.recv().await.is_some() {
            hangup.send_modify(|count| *count += 1);
        }
    });
    tasks::spawn("signal_reopen", Kind::Critical, async move {
        while usr1.recv().await.is_some() {
            logs::reopen_all();
            tracing::info!("logs opened anew");
        }
    });
    Ok(())
}

async fn stop_on_signals(mut term: Signal, mut int: Signal, stopper: Stopper) {
    let mut is_second = false;
    loop {
        let (name, code) = tokio::select! {
            _ = term.recv() => ("TERM", 143),
            _ = int.recv() => ("INT", 130),
        };
        if is_second {
            tracing::warn!(signal = name, "ended at once");
            FORCED.store(code, Ordering::Relaxed);
            stopper.cut();
            exit_now(code);
        }
        tracing::info!(signal = name, "stopping");
        stopper.stop();
        is_second = true;
    }
}

/// The same by the word of the keeper.
async fn stop_on_word(mut stops: watch::Receiver<keeper::Stops>, stopper: Stopper) {
    loop {
        // The first word may have come before anyone listened.
        let said = stops.borrow_and_update().clone();
        if said.again {
            let code = if said.signal == "INT" { 130 } else { 143 };
            tracing::warn!(signal = said.signal, "ended at once");
            FORCED.store(code, Ordering::Relaxed);
            stopper.cut();
            exit_now(code);
        } else if !said.signal.is_empty() {
            tracing::info!(signal = said.signal, "stopping");
            stopper.stop();
        }
        if stops.changed().await.is_err() {
            return;
        }
    }
}

/// Stops at the first signal; further ones say nothing new.
async fn stop_on_first(mut term: Signal, mut int: Signal, stopper: Stopper) {
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stopper.stop();
    }
}

/// Gives what hears of the cut a moment (supervised processes are killed by it), then ends the process.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn exit_now(code: u8) {
    let end = std::thread::Builder::new().name("exit".to_owned()).spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        logs::flush_all(LAST_WORDS);
        std::process::exit(code.into())
    });
    if end.is_err() {
        std::process::exit(code.into());
    }
}

/// Prints problems of a command line or a configuration, all at once, and gives the exit code for it (64).
pub fn usage_error<P: Display>(problems: &[P]) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    for problem in problems {
        // With stderr gone nobody can be told.
        let _told = writeln!(stderr, "error: {problem}");
    }
    ExitCode::from(USAGE)
}

/// Prints the settings in force, one a line with its origin, secrets masked; for `--check`.
pub fn print_effective(settings: &[Setting]) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    for setting in settings {
        if writeln!(stdout, "{setting}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn failure(problem: &str) -> ExitCode {
    tracing::error!("{problem}");
    logs::flush_all(LAST_WORDS);
    ExitCode::FAILURE
}

//! Starting of tasks and threads: each has a name, and a kind that says what its failure means.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use crate::clock;
use crate::lifecycle::Stopper;

/// What the failure (a panic) of a task means. A task that may fail and be begun again is started by [`restart`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The process cannot do its work without it: the host stops.
    Critical,
    /// It serves one connection, request or instance: it is logged and counted, and nothing else ends.
    Connection,
}

static PANICS: AtomicU64 = AtomicU64::new(0);
static RESTARTS: AtomicU64 = AtomicU64::new(0);
static HOST: Mutex<Option<Stopper>> = Mutex::new(None);
static FAILED: Mutex<Option<&'static str>> = Mutex::new(None);

/// First wait before a failed task is begun again; doubled up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait before a failed task is begun again.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Starts a task on the current runtime. A panic in it is logged, counted, and told to who awaits the handle.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn spawn<F>(name: &'static str, kind: Kind, task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(watched(name, kind, task))
}

/// As [`spawn`], on another runtime.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn spawn_on<F>(runtime: &tokio::runtime::Handle, name: &'static str, kind: Kind, task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    runtime.spawn(watched(name, kind, task))
}

/// As [`spawn`], for a task that stays on its thread; only inside a `LocalSet`. Its clock is read once for each of its
/// wake-ups ([`clock::in_steps`]).
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn spawn_local<F>(name: &'static str, kind: Kind, task: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(clock::in_steps(watched(name, kind, task)))
}

/// Runs blocking work on the runtime's threads for it. A panic is logged, counted and told to who awaits the handle.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn spawn_blocking<R: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> R + Send + 'static,
) -> JoinHandle<R> {
    tokio::task::spawn_blocking(move || {
        std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            failed(name, Kind::Connection, panic.as_ref());
            resume_unwind(panic)
        })
    })
}

/// Starts a thread with a name (Linux shows the first 15 bytes).
///
/// # Errors
/// When the machine allows no more threads.
pub fn thread<R: Send + 'static>(
    name: &'static str,
    kind: Kind,
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<std::thread::JoinHandle<R>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            failed(name, kind, panic.as_ref());
            resume_unwind(panic)
        })
    })
}

/// How one run of a task ended: `()` is a good end, an error asks for another run.
pub trait Outcome {
    /// What went wrong, if something did.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: std::fmt::Display> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// Starts a task that is begun again, with back-off (100 ms × 2 up to 30 s, ± 20 %), when it panics or returns an
/// error; it is over when it returns `()` or `Ok(())`. The back-off is reset by a run of 30 s.
pub fn restart<F, M>(name: &'static str, mut make: M) -> JoinHandle<()>
where
    M: FnMut() -> F + Send + 'static,
    F: Future + Send + 'static,
    F::Output: Outcome + Send,
{
    spawn(name, Kind::Connection, async move {
        let mut wait = BACKOFF_MIN;
        loop {
            let began = clock::now();
            let failure = match AssertUnwindSafe(make()).catch_unwind().await {
                Ok(outcome) => outcome.failure(),
                Err(panic) => {
                    PANICS.fetch_add(1, Ordering::Relaxed);
                    Some(format!("panicked: {}", message_of(panic.as_ref())))
                }
            };
            let Some(failure) = failure else { return };
            if clock::now().duration_since(began) >= BACKOFF_MAX {
                wait = BACKOFF_MIN;
            }
            RESTARTS.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(task = name, cause = failure, wait_ms = wait.as_millis(), "task failed and begins again");
            tokio::time::sleep(jittered(wait)).await;
            wait = (wait * 2).min(BACKOFF_MAX);
        }
    })
}

/// `wait` ± 20 %, so that many of a kind do not come back at once. The draw needs no quality, only difference.
#[must_use]
pub fn jittered(wait: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    // Every `RandomState` has other keys, so its hash of a constant is a fresh draw.
    let draw = RandomState::new().hash_one(0_u8) % 401;
    wait * u32::try_from(800 + draw).unwrap_or(1000) / 1000
}

/// Panics in tasks and threads since the process started.
#[must_use]
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Tasks begun again since the process started.
#[must_use]
pub fn restarts() -> u64 {
    RESTARTS.load(Ordering::Relaxed)
}

/// From now on a failed [`Kind::Critical`] task stops this host.
pub(crate) fn set_host(stopper: Stopper) {
    *HOST.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(stopper);
}

/// The critical task that failed, if one did.
pub(crate) fn failed_critical() -> Option<&'static str> {
    *FAILED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Not `async`: that would hold the task twice, as its argument and as what it waits for.
fn watched<F: Future>(name: &'static str, kind: Kind, task: F) -> impl Future<Output = F::Output> {
    AssertUnwindSafe(task).catch_unwind().map(move |outcome| {
        outcome.unwrap_or_else(|panic| {
            failed(name, kind, panic.as_ref());
            resume_unwind(panic)
        })
    })
}

fn failed(name: &'static str, kind: Kind, panic: &(dyn Any + Send)) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    tracing::error!(task = name, ?kind, cause = message_of(panic), "task panicked");
    if kind == Kind::Critical {
        *FAILED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(name);
        if let Some(stopper) = &*HOST.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            stopper.stop();
        }
    }
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}

#[cfg(test)]
#[path = "tasks/tests.rs"]
mod tests;

//! Builds before a start: one at a time for each command, and one for all instances that ask at the same time.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use synego_model::CommandLine;
use synego_runtime::clock;

use crate::capture::Capture;
use crate::environment;
use crate::launch::{Start, launch};
use crate::output::OutputSink;
use crate::spec::ProcessSpec;

/// Longest build.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// A build that began so shortly before it was asked for serves too: instances of a service start together.
const SHARED_WITHIN: Duration = Duration::from_secs(1);
/// Time for the last lines after the end of a build.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(500);

/// When the last successful build of a command began.
type LastSuccess = Arc<tokio::sync::Mutex<Option<Instant>>>;
static BUILDS: LazyLock<Mutex<HashMap<(PathBuf, String), LastSuccess>>> = LazyLock::new(Mutex::default);

/// Builds what a process is made of, before its start: a failure changes nothing.
///
/// # Errors
/// A sentence: how the build ended, with the line that most likely says why.
pub async fn build(spec: &ProcessSpec, output: &OutputSink) -> Result<(), String> {
    match &spec.build {
        // What was built before it was asked for is what runs already.
        Some(command) => run(command, spec, output, Duration::ZERO).await,
        None => Ok(()),
    }
}

/// The same before a first start; the success of one that another instance asked for at the same time serves too.
pub(crate) async fn of(spec: &ProcessSpec, command: &CommandLine, output: &OutputSink) -> Result<(), String> {
    run(command, spec, output, SHARED_WITHIN).await
}

/// Runs a build to its end, or takes the success of one that another instance asked for at the same time. When the
/// future is dropped the build is killed with its whole group.
///
/// # Errors
/// A sentence: how it ended, with the line that most likely says why.
async fn run(
    command: &CommandLine,
    spec: &ProcessSpec,
    output: &OutputSink,
    shared_within: Duration,
) -> Result<(), String> {
    let asked = clock::now();
    let last_success = {
        let mut builds = BUILDS.lock().unwrap_or_else(PoisonError::into_inner);
        builds.entry((spec.cwd.clone(), command.to_string())).or_default().clone()
    };
    let mut succeeded = last_success.lock().await;
    if succeeded.is_some_and(|began| began + shared_within >= asked) {
        return Ok(());
    }
    let began = clock::now();
    let env = environment::of(spec)?;
    let start = Start { command, cwd: &spec.cwd, env: &env, run_as: &spec.run_as };
    let (mut leader, pipes) = launch(start).await?;
    let capture = Capture::begin(pipes, leader.pid(), true, output, None);
    let Ok(exit) = tokio::time::timeout(LIMIT, leader.exited()).await else {
        return Err(format!("`{command}` ran longer than {} minutes", LIMIT.as_secs() / 60));
    };
    leader.sweep(Duration::ZERO).await;
    let last = capture.finish(LAST_LINES_WITHIN).await;
    if exit.code == Some(0) {
        *succeeded = Some(began);
        return Ok(());
    }
    Err(format!("`{command}` {exit}{}", last.reason()))
}

//! The start of a process: as leader of its own group, with nothing of ours open, from a thread that never ends.
//!
//! The kernel sends `PDEATHSIG` when the *thread* that started the process ends, so every start happens on one thread
//! that lives as long as we do.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use rustix::pipe::PipeFlags;
use synego_model::{CapSpec, CommandLine, RunAs};
use synego_runtime::{keeper, tasks};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use crate::caps::Held;
use crate::keep::{Keep, Note};
use crate::leader::Leader;
use crate::rights::Change;
use crate::{exec, kin};

/// Our ends of its stdout and stderr.
pub(crate) type Pipes = (OwnedFd, OwnedFd);
type Job = Box<dyn FnOnce() + Send>;
static LAUNCHER: OnceLock<Option<Sender<Job>>> = OnceLock::new();

/// What is started, where, and as whom.
pub(crate) struct Start<'a> {
    pub(crate) command: &'a CommandLine,
    pub(crate) cwd: &'a Path,
    /// All its variables, but for the one that marks its processes.
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) run_as: &'a RunAs,
}

/// Starts a command that is not capped, and ends with us.
///
/// # Errors
/// As [`launch_held`].
pub(crate) async fn launch(start: Start<'_>) -> Result<(Leader, Pipes), String> {
    let free = |pid, _: &str| Held::hold(CapSpec::default(), "", pid);
    launch_held(start, None, free).await.map(|(leader, _, pipes)| (leader, pipes))
}

/// Starts a command.
///
/// - `keep`: how our keeper keeps it, where we have one; without it, it ends with us.
/// - `hold`: is given the process and its mark before it becomes the program, to cap it.
///
/// # Errors
/// A sentence: the program was not found or cannot be executed, the folder is missing, its user is not known, or the machine
/// refused.
pub(crate) async fn launch_held(
    Start { command, cwd, env, run_as }: Start<'_>,
    keep: Option<Keep<'_>>,
    hold: impl FnOnce(u32, &str) -> Held,
) -> Result<(Leader, Held, Pipes), String> {
    let program = resolve(&command.program, cwd, env.get("PATH").map_or("", String::as_str))?;
    if !cwd.is_dir() {
        return Err(format!("cannot start `{command}`: the folder `{}` is missing", cwd.display()));
    }
    let failed = |error: io::Error| format!("cannot start `{command}`: {error}");
    let change = Change::of(run_as).map_err(|problem| format!("cannot start `{command}`: {problem}"))?;
    let mark = kin::mark();
    if let (Some(keep), Some(keeper), true) = (keep, keeper::parent_of_processes(), exec::is_available()) {
        let helper = keeper::Command {
            // Ours, and not the keeper's: that may still be of another version, with other arguments.
            program: format!("/proc/{}/exe", std::process::id()).into(),
            name: "synego".to_owned(),
            args: [exec::EXEC.to_owned(), keeper.to_string(), change.word(), command.program.clone()]
                .into_iter()
                .chain([program.display().to_string()])
                .chain(command.args.iter().cloned())
                .collect(),
            env: env
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .chain([(kin::MARK.to_owned(), mark.clone())])
                .collect(),
            cwd: cwd.to_owned(),
        };
        let started = by_keeper(helper, keep, mark, hold).await;
        return started.map_err(|problem| format!("cannot start `{command}`: {problem}"));
    }
    let mut start = if exec::is_available() {
        let mut start = Command::new(exec::SELF);
        start.arg(exec::EXEC).arg(std::process::id().to_string()).arg(change.word()).arg(&command.program).arg(program);
        start.stdin(Stdio::piped());
        start
    } else if change != Change::default() {
        return Err(format!(
            "cannot start `{command}`: a user or a number of files needs the helper of `synego_supervise::main`"
        ));
    } else {
        let mut start = Command::new(program);
        start.arg0(&command.program).stdin(Stdio::null());
        start
    };
    start.args(&command.args).current_dir(cwd).env_clear().envs(env).env(kin::MARK, &mark);
    start.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut child = on_launcher(move || start.spawn()).await.map_err(failed)?;
    let parts = (child.id(), child.stdout.take(), child.stderr.take());
    let (Some(pid), Some(stdout), Some(stderr)) = parts else {
        return Err(failed(io::ErrorKind::BrokenPipe.into()));
    };
    let word = child.stdin.take();
    // From here on the group is guarded: now the helper may become the program.
    let held = hold(pid, &mark);
    let leader = Leader::new(child, pid, mark);
    if let Some(mut word) = word {
        word.write_all(b"\n").await.map_err(failed)?;
    }
    Ok((leader, held, (stdout.into_owned_fd().map_err(failed)?, stderr.into_owned_fd().map_err(failed)?)))
}

/// The same, as a child of our keeper.
async fn by_keeper(
    helper: keeper::Command,
    Keep { key, note, notify }: Keep<'_>,
    mark: String,
    hold: impl FnOnce(u32, &str) -> Held,
) -> Result<(Leader, Held, Pipes), String> {
    let told = |error: rustix::io::Errno| error.to_string();
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(told);
    let ((stdin, word), (stdout, printed), (stderr, errors)) = (pipe()?, pipe()?, pipe()?);
    let fds: Vec<BorrowedFd<'_>> =
        [stdout.as_fd(), stderr.as_fd()].into_iter().chain(notify.map(AsFd::as_fd)).collect();
    let note = Note { mark, ..note };
    let kept = keeper::start(&key, &note.text(), helper, [stdin, printed, errors], &fds).await?;
    let held = hold(kept.pid(), &note.mark);
    // From here on the group is guarded: now the helper may become the program.
    let leader = Leader::kept(kept, note);
    rustix::io::write(&word, b"\n").map_err(told)?;
    Ok((leader, held, (stdout, stderr)))
}

async fn on_launcher(start: impl FnOnce() -> io::Result<Child> + Send + 'static) -> io::Result<Child> {
    let launcher = LAUNCHER.get_or_init(|| {
        kin::inherit();
        let (jobs, todo) = channel::<Job>();
        let run = move || todo.into_iter().for_each(|job| job());
        tasks::thread("launcher", tasks::Kind::Critical, run).ok().map(|_| jobs)
    });
    let no_thread = || io::Error::other("the launcher thread is gone");
    let (answer, child) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let job: Job = Box::new(move || {
        let _entered = runtime.enter();
        // Whoever asked may be gone: then the child is dropped, and killed by that.
        let _asked = answer.send(start());
    });
    launcher.as_ref().ok_or_else(no_thread)?.send(job).map_err(|_| no_thread())?;
    child.await.map_err(|_| no_thread())?
}

/// The file of a program: one with a slash is taken relative to `cwd`, another is looked up in `path`.
fn resolve(program: &str, cwd: &Path, path: &str) -> Result<PathBuf, String> {
    let is_program = |file: &Path| {
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        let file = cwd.join(program);
        return match std::fs::metadata(&file) {
            Err(error) => Err(format!("cannot start `{program}`: {}: {error}", file.display())),
            Ok(_) if !is_program(&file) => {
                Err(format!("cannot start `{program}`: {} is not executable", file.display()))
            }
            Ok(_) => Ok(file),
        };
    }
    let path = if path.is_empty() { "/usr/local/bin:/usr/bin:/bin" } else { path };
    let found = path.split(':').map(|dir| cwd.join(dir).join(program)).find(|file| is_program(file));
    found.ok_or_else(|| format!("cannot start `{program}`: no such program in PATH"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_the_path_or_relative_to_its_folder() {
        assert!(resolve("sh", Path::new("/"), "/nowhere:/bin").is_ok());
        assert_eq!(resolve("bin/sh", Path::new("/"), ""), Ok(PathBuf::from("/bin/sh")));
        let missing = resolve("frobnicate", Path::new("/"), "/bin").unwrap_err();
        assert_eq!(missing, "cannot start `frobnicate`: no such program in PATH");
        let closed = resolve("./passwd", Path::new("/etc"), "").unwrap_err();
        assert!(closed.ends_with("passwd is not executable"), "{closed}");
        assert!(resolve("./nothing", Path::new("/etc"), "").unwrap_err().contains("No such file"));
    }
}

//! How a keeper becomes another program and stays the same process: all that it has goes through a socket that the next
//! program finds as its stdin.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};

use super::message::{self, Entry};
use super::parts::Part;
use super::serve::{Keeper, sockets};
use super::store::Store;
use super::{SELF, VARIABLE};

/// What goes from program to program; stdin comes first among its descriptors, then the sockets of the parts.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    program: PathBuf,
    has_served: bool,
    parts: Vec<PartState>,
    entries: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PartState {
    pid: u32,
    has_socket: bool,
    is_ready: bool,
    serves: bool,
}

/// The same, taken up.
pub(super) struct Taken {
    pub(super) program: PathBuf,
    pub(super) has_served: bool,
    pub(super) store: Store,
    pub(super) serving: Option<Part>,
    pub(super) formers: Vec<Part>,
}

/// Becomes a keeper that has nothing yet. Returns only when that fails.
pub(super) fn begin() -> io::Error {
    let program = match std::env::current_exe() {
        Ok(program) => started_from(program),
        Err(error) => return error,
    };
    let state = State { program, has_served: false, parts: Vec::new(), entries: Vec::new() };
    become_with(SELF.as_ref(), &state, &[io::stdin().as_fd()])
}

/// Where a newer program will be found: the path by which this one was started, where that is one, so that a link that
/// is moved is followed; else its file.
fn started_from(exe: PathBuf) -> PathBuf {
    let word = std::env::args_os().next().map(PathBuf::from).filter(|word| word.components().count() > 1);
    let path = word.and_then(|word| std::path::absolute(word).ok());
    path.filter(|path| path.file_name() == exe.file_name() && path.canonicalize().is_ok_and(|real| real == exe))
        .unwrap_or(exe)
}

/// Becomes `program` with all that `keeper` has. Returns only when that fails.
pub(super) fn become_program(keeper: &Keeper, program: &Path) -> io::Error {
    let (entries, held) = keeper.store.all();
    let all = || keeper.serving.iter().map(|part| (part, true)).chain(keeper.formers.iter().map(|part| (part, false)));
    let shown = |(part, serves): (&Part, bool)| PartState {
        pid: part.pid,
        has_socket: part.socket.is_some(),
        is_ready: part.is_ready,
        serves,
    };
    let state = State {
        program: keeper.program.clone(),
        has_served: keeper.has_served,
        parts: all().map(shown).collect(),
        entries,
    };
    let stdin = io::stdin();
    let mut fds: Vec<BorrowedFd<'_>> = vec![stdin.as_fd()];
    fds.extend(sockets(all().map(|(part, _)| part)));
    fds.extend(held);
    become_with(program, &state, &fds)
}

fn become_with(program: &Path, state: &State, fds: &[BorrowedFd<'_>]) -> io::Error {
    let attempt = || -> io::Result<io::Error> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        let (own, next) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        message::send(own.as_fd(), state, fds)?;
        let mut args = std::env::args_os();
        let mut start = std::process::Command::new(program);
        start.arg0(args.next().unwrap_or_else(|| program.into()));
        let error = start.args(args).env(VARIABLE, std::process::id().to_string()).stdin(Stdio::from(next)).exec();
        // It may have been replaced already.
        rustix::stdio::dup2_stdin(&stdin)?;
        Ok(error)
    };
    attempt().unwrap_or_else(|error| error)
}

/// Takes up what the former program left.
pub(super) fn take_up() -> io::Result<Taken> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "its state is not there");
    let (state, fds) = message::recv::<State>(socket.as_fd(), true)?.ok_or_else(broken)?;
    let mut fds = fds.into_iter();
    rustix::stdio::dup2_stdin(fds.next().ok_or_else(broken)?)?;
    let (mut serving, mut formers) = (None, Vec::new());
    for part in state.parts {
        let socket = if part.has_socket { Some(fds.next().ok_or_else(broken)?) } else { None };
        let known = Part::known(part.pid, socket, part.is_ready);
        if part.serves { serving = Some(known) } else { formers.push(known) }
    }
    let store = Store::of(state.entries, fds);
    Ok(Taken { program: state.program, has_served: state.has_served, store, serving, formers })
}

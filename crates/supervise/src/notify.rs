//! The notify socket of a process: `READY=1`, `STATUS=…`, `STOPPING=1`, as systemd's services say it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use synego_runtime::config::{self, Owner};
use synego_runtime::keeper;
use tokio::net::UnixDatagram;

use crate::output::MAX_FIELD;

/// Sockets made by this program so far.
static SOCKETS: AtomicU32 = AtomicU32::new(0);

/// What a process said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It is ready.
    Ready,
    /// How it is, for people.
    Status(String),
    /// It ends by itself.
    Stopping,
}

/// A socket for one start of a process; its file is removed with it.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl NotifySocket {
    /// Makes `notify-NAME-PID-NUMBER.sock` in `dir`, which only this user changes: two generations of one process may listen
    /// at a time, and one that a former part of this program made.
    ///
    /// - `owner`: who may write to it besides this user and root.
    pub(crate) fn bind(dir: &Path, name: &str, owner: Option<Owner>) -> io::Result<Self> {
        let number = SOCKETS.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("notify-{name}-{}-{number}.sock", std::process::id()));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let made = Self { socket: UnixDatagram::bind(&path)?, path };
        if owner.is_some() {
            config::give(&made.path, owner)?;
        }
        Ok(made)
    }

    /// One that a former part of this program made.
    pub(crate) fn adopt(path: PathBuf, socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::from_std(socket.into())?, path })
    }

    /// For the variable `NOTIFY_SOCKET`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is said next. One datagram may say several things; what nobody understands is passed over.
    pub(crate) async fn next(&self) -> Vec<Said> {
        let mut buffer = [0; MAX_FIELD];
        loop {
            let Ok(length) = self.socket.recv(&mut buffer).await else { return std::future::pending().await };
            let said = parse(&String::from_utf8_lossy(&buffer[..length]));
            if !said.is_empty() {
                return said;
            }
        }
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        if keeper::is_anothers() {
            return;
        }
        // Someone may have cleared the folder before us.
        let _gone = std::fs::remove_file(&self.path);
    }
}

fn parse(text: &str) -> Vec<Said> {
    let entries = text.lines().filter_map(|line| line.split_once('='));
    entries
        .filter_map(|(name, value)| match (name, value) {
            ("READY", "1") => Some(Said::Ready),
            ("STOPPING", "1") => Some(Said::Stopping),
            ("STATUS", status) => Some(Said::Status(status.chars().filter(|c| !c.is_control()).collect())),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_datagram_may_say_several_things() {
        let said = parse("STATUS=warm\u{1b}ing up\nREADY=1\nMAINPID=7\nFOO\nREADY=0\n");
        assert_eq!(said, [Said::Status("warming up".into()), Said::Ready]);
        assert_eq!(parse("STOPPING=1"), [Said::Stopping]);
    }
}

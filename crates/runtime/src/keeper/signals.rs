//! The signals that a keeper hears, each by a socket of its own, so that none is lost and each is counted.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

/// Those that are heard; what comes first is heard first.
const HEARD: [Signal; 6] = [Signal::TERM, Signal::INT, Signal::CHILD, Signal::HUP, Signal::USR1, Signal::USR2];

/// Hears signals from now on.
#[derive(Debug)]
pub(super) struct Signals {
    heard: Vec<(Signal, UnixStream)>,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        let hear = |signal: Signal| {
            let (own, theirs) = UnixStream::pair()?;
            own.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(signal.as_raw(), theirs)?;
            Ok((signal, own))
        };
        Ok(Self { heard: HEARD.into_iter().map(hear).collect::<io::Result<_>>()? })
    }

    /// What has something to read once a signal came.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.heard.iter().map(|(_, socket)| socket.as_fd())
    }

    /// The signals that came since the last call, each as often as it came.
    pub(super) fn take(&mut self) -> Vec<Signal> {
        let mut came = Vec::new();
        for (signal, socket) in &mut self.heard {
            let mut bytes = [0; 64];
            while let Ok(count @ 1..) = socket.read(&mut bytes) {
                came.extend(std::iter::repeat_n(*signal, count));
            }
        }
        came
    }
}

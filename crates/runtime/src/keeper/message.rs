//! What keeper and part say to each other, and how it travels with file descriptors over their socket.
//!
//! A message is one packet where it fits; what is larger lies in a file in memory that goes with it, and descriptors
//! that are more than one packet takes follow in packets of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::MemfdFlags;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Descriptors in one packet; the kernel takes 253.
const FDS: usize = 250;
/// Longest text that goes in the packet itself; bytes.
const INLINE: usize = 32 * 1024;
/// Length of the head of a packet: where the text is, and how many descriptors belong to it.
const HEAD: usize = 5;

/// From the part to its keeper. Words are only added: an older program passes over those that it does not know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToKeeper {
    /// Hold these descriptors and this note under a key, in place of what is there.
    Hold { key: String, note: String },
    /// Another note for what is held there.
    Note { key: String, note: String },
    /// Let go of what is held there.
    Release { key: String },
    /// Start a process; the first three descriptors are its own, the others are held with the note.
    Start { ticket: u64, key: String, note: String, command: Command },
    /// The part serves.
    Ready,
    /// The part that takes over can do no more beside its predecessor.
    WantsTurn,
    /// The part has let go of everything but the connections that it has.
    Yielded,
    /// A word for whoever started the keeper, by its notify socket.
    Say { word: String },
}

/// What is started.
#[derive(Debug, Serialize, Deserialize)]
pub struct Command {
    /// File of the program.
    pub program: PathBuf,
    /// Its name, as it sees it.
    pub name: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// All of its variables.
    pub env: BTreeMap<String, String>,
    /// Its folder.
    pub cwd: PathBuf,
}

/// From the keeper to its part.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToPart {
    /// What a process that was asked for came to: its id, or why there is none.
    Started { ticket: u64, outcome: Result<u32, String> },
    /// A process has ended.
    Exited { key: String, pid: u32, exit: Exit },
    /// End; `again`: at once.
    Stop { signal: String, again: bool },
    /// Let go of everything but the connections that there are and come.
    Yield,
    /// What is held now, as far as it is another than this part was told at its start: its descriptors go with it.
    Left { entries: Vec<Entry>, keys: Vec<String> },
    /// What the predecessor held is free.
    Turn,
    /// Take no more connections, finish what there is, and end; the processes stay.
    Leave,
    /// Something that people shall know.
    Told { text: String },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (_, Some(signal)) => write!(f, "was ended by signal {signal}"),
            (code, None) => write!(f, "ended with code {}", code.unwrap_or_default()),
        }
    }
}

/// A process that the keeper started.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) exit: Option<Exit>,
}

/// What is held under one key; its descriptors travel beside it, in the order of the keys.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) note: String,
    pub(super) fds: usize,
    pub(super) process: Option<Process>,
}

/// The first thing that a part hears: stdin comes before the descriptors of the entries.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Inventory {
    pub(super) entries: Vec<Entry>,
    /// Whether a part serves already and this one takes over from it.
    pub(super) succeeds: bool,
    /// Whether a part has served before.
    pub(super) again: bool,
    /// What people shall know of the time before.
    pub(super) told: Vec<String>,
}

/// Sends a message and waits until it is taken.
pub(super) fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let count = u32::try_from(fds.len()).unwrap_or(u32::MAX);
    let is_inline = text.len() <= INLINE && fds.len() <= FDS;
    if is_inline {
        return packet(socket, &[head(true, count).as_slice(), &text].concat(), fds, SendFlags::NOSIGNAL);
    }
    let mut file = std::fs::File::from(rustix::fs::memfd_create("synego-keeper", MemfdFlags::CLOEXEC)?);
    file.write_all(&text)?;
    packet(socket, &head(false, count), &[file.as_fd()], SendFlags::NOSIGNAL)?;
    fds.chunks(FDS).try_for_each(|some| packet(socket, &[0], some, SendFlags::NOSIGNAL))
}

/// A message without descriptors as one packet.
pub(super) fn small<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    Ok([head(true, 0).as_slice(), &serde_json::to_vec(message)?].concat())
}

/// Sends such a packet if it can be taken now.
pub(super) fn send_small(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    packet(socket, bytes, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

/// The next message; `None`: the other end is closed.
///
/// - `wait`: whether to wait for it; without, none is the error `WouldBlock`.
pub(super) fn recv<T: DeserializeOwned>(socket: BorrowedFd<'_>, wait: bool) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let mut buffer = vec![0; HEAD + INLINE];
    let mut fds = Vec::new();
    let length = take(socket, &mut buffer, &mut fds, flags)?;
    if length == 0 {
        return Ok(None);
    }
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "no message of a keeper");
    let (head, text) = buffer.get(..length).and_then(|bytes| bytes.split_first_chunk::<HEAD>()).ok_or_else(broken)?;
    let [is_inline, a, b, c, d] = *head;
    if is_inline == 1 {
        return Ok(Some((serde_json::from_slice(text)?, fds)));
    }
    let count = usize::try_from(u32::from_le_bytes([a, b, c, d])).map_err(io::Error::other)?;
    let mut file = std::fs::File::from(fds.pop().ok_or_else(broken)?);
    file.rewind()?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    while fds.len() < count {
        if take(socket, &mut [0; 1], &mut fds, RecvFlags::empty())? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Some((serde_json::from_slice(&text)?, fds)))
}

fn head(is_inline: bool, count: u32) -> [u8; HEAD] {
    let [a, b, c, d] = count.to_le_bytes();
    [u8::from(is_inline), a, b, c, d]
}

fn packet(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors for one packet"));
    }
    rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags))?;
    Ok(())
}

fn take(socket: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, flags: RecvFlags) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let taken =
        rustix::io::retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags))?.bytes;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            fds.extend(some);
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn a_message_that_fits_no_packet_arrives_with_all_its_descriptors() -> io::Result<()> {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let file = std::fs::File::open("/dev/null")?;
        let fds = vec![file.as_fd(); 2 * FDS + 3];
        let note = "n".repeat(3 * INLINE);
        send(one.as_fd(), &ToKeeper::Hold { key: "a".into(), note: note.clone() }, &fds)?;
        send(one.as_fd(), &ToKeeper::Ready, &[])?;
        let (first, with) = recv::<ToKeeper>(other.as_fd(), true)?.expect("a message");
        assert!(matches!(first, ToKeeper::Hold { note: found, .. } if found == note));
        assert_eq!(with.len(), fds.len());
        let (second, with) = recv::<ToKeeper>(other.as_fd(), false)?.expect("a message");
        assert!(matches!(second, ToKeeper::Ready) && with.is_empty());
        let none = recv::<ToKeeper>(other.as_fd(), false).expect_err("nothing is there");
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        drop(one);
        assert!(recv::<ToKeeper>(other.as_fd(), true)?.is_none());
        Ok(())
    }
}

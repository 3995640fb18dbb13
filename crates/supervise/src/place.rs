//! The place where a process is about to listen: nobody else may answer there, and of a socket no file may be left.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use synego_model::process::ServiceAddress;
use tokio::net::{TcpStream, UnixStream};

/// How often a predecessor is given a moment to let go, and how long.
const LOOKS: u32 = 10;
const LOOK: Duration = Duration::from_millis(50);
/// Longest path of a socket that the kernel takes; bytes.
const LONGEST: usize = 107;

/// Makes sure that a process can listen there; the file of a socket on which nobody answers is removed.
///
/// # Errors
/// A sentence: somebody answers there, or what is there is no socket or cannot be removed, or its path is too long.
pub(crate) async fn free(address: &ServiceAddress) -> Result<(), String> {
    if let ServiceAddress::Unix(path) = address {
        let length = path.as_os_str().len();
        if length > LONGEST {
            return Err(format!("the path of {address} is longer than the {LONGEST} bytes of a socket's: {length}"));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(format!("the folder of {address} is missing: make {}", folder.display()));
        }
    }
    for _ in 0..LOOKS {
        let answers = match address {
            ServiceAddress::Tcp(tcp) => TcpStream::connect(tcp).await.is_ok(),
            ServiceAddress::Unix(path) => UnixStream::connect(path).await.is_ok(),
        };
        if !answers {
            return match address {
                ServiceAddress::Tcp(_) => Ok(()),
                ServiceAddress::Unix(path) => {
                    remove(path).map_err(|error| format!("cannot make room for {address}: {error}"))
                }
            };
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(format!("another process listens on {address} already"))
}

/// Removes the file that the socket of an ended process leaves, where it is one.
pub(crate) fn leave(address: &ServiceAddress) {
    if let ServiceAddress::Unix(path) = address
        && let Err(error) = remove(path)
    {
        tracing::debug!(%address, cause = %error, "the file of a socket stays");
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is no socket: remove it, or name another path")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_nobody_answers_on_makes_room_and_nothing_else_does() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("app.sock");
        let address = ServiceAddress::Unix(path.clone());
        assert_eq!(free(&address).await, Ok(()), "nothing is there");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let taken = free(&address).await.expect_err("somebody listens");
        assert_eq!(taken, format!("another process listens on unix:{} already", path.display()));
        drop(listener);
        assert_eq!(free(&address).await, Ok(()));
        assert!(!path.exists(), "what a killed predecessor left is removed");
        std::fs::write(&path, "precious").expect("a file");
        let other = free(&address).await.expect_err("a file of somebody's");
        assert!(other.ends_with("it is no socket: remove it, or name another path"), "{other}");
        leave(&address);
        assert!(path.exists(), "it is not ours to remove");
    }

    #[tokio::test]
    async fn a_path_that_no_socket_can_have_is_told() {
        let long = ServiceAddress::Unix(format!("/tmp/{}", "a".repeat(120)).into());
        assert!(free(&long).await.expect_err("too long").contains("longer than the 107 bytes"));
        let nowhere = ServiceAddress::Unix("/nowhere/app.sock".into());
        assert_eq!(
            free(&nowhere).await,
            Err("the folder of unix:/nowhere/app.sock is missing: make /nowhere".to_owned())
        );
    }
}

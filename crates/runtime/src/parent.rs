//! What whoever started this program is told: systemd (or what speaks as it does) by its notify socket, PM2 (or another
//! program of Node.js) by its channel.
//!
//! `READY=1` once the program is ready, `STOPPING=1` when its end begins, and in between `WATCHDOG=1` from the thread that
//! does the control work: when that stands still, the parent starts the program anew.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Stdio;
use std::time::Duration;

use crate::config;
use crate::keeper;
use crate::lifecycle::Stop;

/// The notify socket of a parent.
#[derive(Debug)]
pub(crate) struct Notify {
    socket: UnixDatagram,
    to: SocketAddr,
}

impl Notify {
    /// The one that the environment names, if it names one that can be used.
    pub(crate) fn of_environment() -> Option<Self> {
        Self::named(&config::env("NOTIFY_SOCKET")?)
    }

    fn named(name: &str) -> Option<Self> {
        match open(name) {
            Ok((socket, to)) => Some(Self { socket, to }),
            Err(error) => {
                tracing::warn!(socket = name, cause = %error, "the parent's notify socket cannot be used");
                None
            }
        }
    }

    pub(crate) fn say(&self, word: &str) {
        if let Err(error) = self.socket.send_to_addr(word.as_bytes(), &self.to) {
            tracing::warn!(word, cause = %error, "the parent cannot be told");
        }
    }
}

/// Words for the parent.
#[derive(Debug)]
struct Parent {
    socket: Option<Notify>,
    /// How often the watchdog wants to hear of us.
    watchdog: Option<Duration>,
    /// The file descriptor of a channel of Node.js.
    channel: Option<u8>,
}

/// Tells the parent, if it wants to know, until the end has begun. `ready` returns once the program is ready.
pub(crate) async fn tell(ready: impl Future<Output = ()>, stop: Stop) {
    let parent = Parent::of_environment(config::env);
    let beats = async {
        match parent.watchdog {
            Some(wanted) => {
                let mut every = tokio::time::interval(wanted / 2);
                loop {
                    every.tick().await;
                    parent.say("WATCHDOG=1");
                }
            }
            None => std::future::pending().await,
        }
    };
    let life = async {
        ready.await;
        parent.say("READY=1");
        parent.say_in_channel().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = beats => {}
        () = life => {}
        () = stop.stopped() => {}
    }
    if keeper::is_anothers() {
        // The program goes on without this part.
        return;
    }
    parent.say("STOPPING=1");
    // The drain may take longer than the watchdog waits.
    if let Some(wanted) = parent.watchdog {
        let mut every = tokio::time::interval(wanted / 2);
        loop {
            every.tick().await;
            parent.say("WATCHDOG=1");
        }
    }
}

impl Parent {
    fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let socket = variable("NOTIFY_SOCKET").and_then(|name| Notify::named(&name));
        let of_us = variable("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(keeper::top()));
        let watchdog = variable("WATCHDOG_USEC").and_then(|us| us.parse().ok()).filter(|us| *us > 0 && of_us);
        let channel = variable("NODE_CHANNEL_FD").and_then(|number| number.parse().ok()).filter(|number| *number < 10);
        Self { watchdog: watchdog.filter(|_| socket.is_some()).map(Duration::from_micros), socket, channel }
    }

    fn say(&self, word: &str) {
        // Systemd hears the process that it started, which is the keeper where there is one.
        if let Some(socket) = &self.socket
            && !keeper::say(word)
        {
            socket.say(word);
        }
    }

    /// `process.send('ready')` of Node.js is this line. The channel is a file descriptor that was handed down without a
    /// name; only a child can take it up by its number.
    async fn say_in_channel(&self) {
        let Some(channel) = self.channel else { return };
        let mut shell = tokio::process::Command::new("/bin/sh");
        shell.arg("-c").arg(format!("printf '\"ready\"\\n' >&{channel}")).stdin(Stdio::null()).stdout(Stdio::null());
        match shell.stderr(Stdio::null()).status().await {
            Ok(status) if status.success() => {}
            Ok(status) => tracing::warn!(channel, %status, "the parent's channel cannot be used"),
            Err(error) => tracing::warn!(channel, cause = %error, "the parent's channel cannot be used"),
        }
    }
}

/// The socket of that name; one that begins with `@` lies in no folder.
fn open(name: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Parent {
        let all: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Parent::of_environment(|name| all.get(name).cloned())
    }

    #[test]
    fn a_watchdog_that_watches_somebody_else_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify").display().to_string();
        let own = std::process::id().to_string();
        let socket = ("NOTIFY_SOCKET", path.as_str());
        assert_eq!(of(&[socket, ("WATCHDOG_USEC", "3000000")]).watchdog, Some(Duration::from_secs(3)));
        assert_eq!(
            of(&[socket, ("WATCHDOG_USEC", "9"), ("WATCHDOG_PID", &own)]).watchdog,
            Some(Duration::from_micros(9))
        );
        assert_eq!(of(&[socket, ("WATCHDOG_USEC", "9"), ("WATCHDOG_PID", "1")]).watchdog, None);
        assert_eq!(of(&[socket, ("WATCHDOG_USEC", "0")]).watchdog, None);
        assert_eq!(of(&[("WATCHDOG_USEC", "9")]).watchdog, None, "nobody listens");
        assert!(of(&[]).socket.is_none() && of(&[]).channel.is_none());
    }

    #[tokio::test]
    async fn a_parent_hears_of_the_start_the_life_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let heard = tokio::net::UnixDatagram::bind(&path).unwrap();
        let parent = of(&[("NOTIFY_SOCKET", &path.display().to_string())]);
        for word in ["READY=1", "WATCHDOG=1", "STOPPING=1"] {
            parent.say(word);
            let mut buffer = [0; 64];
            let length = heard.recv(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], word.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_name_without_a_folder_works_too() {
        let name = format!("synego-test-{}", std::process::id());
        let heard = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        of(&[("NOTIFY_SOCKET", &format!("@{name}"))]).say("READY=1");
        let mut buffer = [0; 64];
        let length = heard.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
    }
}

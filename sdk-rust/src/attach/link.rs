//! The link as the program sees it: its state, to look at and to wait for.

use tokio::sync::watch;

use crate::codes::Code;
use crate::errors::Error;

/// Where the link to the sidecar is.
#[derive(Debug, Clone)]
pub enum LinkState {
    /// There is no sidecar: the program runs alone.
    Off,
    /// Not attached; this attempt in a row is under way.
    Connecting {
        /// From 1.
        attempt: u32,
    },
    /// Attached.
    Attached(Attachment),
    /// The sidecar said that it never will work: the program runs on as if it had no SDK.
    Refused(Error),
    /// The program is at its end.
    Closed,
}

/// What the sidecar said when it accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the mesh.
    pub mesh: String,
    /// Name of this instance, such as `users-1`.
    pub instance: String,
    /// Zone of the machine, or empty.
    pub zone: String,
    /// Version of the protocol that both speak.
    pub protocol: u32,
}

/// The link to the sidecar.
#[derive(Debug, Clone)]
pub struct Link(watch::Receiver<LinkState>);

impl Link {
    pub(crate) fn new(state: watch::Receiver<LinkState>) -> Self {
        Self(state)
    }

    /// Where it is now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.0.borrow().clone()
    }

    /// Waits until it is somewhere else.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when the program has dropped its client.
    pub async fn changed(&mut self) -> Result<(), Error> {
        self.0.changed().await.map_err(|_| Error::new(Code::Unavailable, "the program has no link to a sidecar"))
    }

    /// Waits until it is attached.
    ///
    /// # Errors
    /// The refusal when the sidecar refuses; [`Code::Unavailable`] when there is no sidecar or the program ends.
    pub async fn attached(&mut self) -> Result<Attachment, Error> {
        let is_settled = |state: &LinkState| !matches!(state, LinkState::Connecting { .. });
        let ended = || Error::new(Code::Unavailable, "the program has no link to a sidecar");
        let state = self.0.wait_for(is_settled).await.map_err(|_| ended())?.clone();
        match state {
            LinkState::Attached(attachment) => Ok(attachment),
            LinkState::Refused(error) => Err(error),
            _ => Err(ended()),
        }
    }
}

//! The certificate of one part of the mesh: taken from the disk, enrolled for, and renewed before it ends.
//!
//! [`open`] returns once there is a certificate; [`Keeper::run`] renews it a little before half of its life and follows the
//! roots that masters tell. What uses the certificate holds the [`Own`], into which each new one is installed: nothing
//! is rebuilt for it.
//!
//! **Invariants.** A key never leaves its process but for its owner's file. What is on the disk is whole: certificate,
//! key and roots are one file, replaced by rename. A certificate in force stays so until a newer one is there.

mod ask;
mod disk;
mod first;
mod given;
mod keep;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use synego_identity::{Credential, Own};
use synego_model::{HandshakesRefused, Identity, IdentityReport, MeshName, PeerSeen, Role};
use synego_runtime::telemetry::Metrics;
use synego_wire::pb;
use tokio::sync::watch;

use crate::authority::{AuthorityHandle, unix_ms};
use crate::uplink::MasterAddress;

pub use self::first::open;
pub use self::keep::Keeper;

/// First and longest wait before the next attempt.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Who gives certificates.
#[derive(Clone)]
pub enum Source {
    /// Masters; one in this process asks for nothing.
    Masters(Vec<MasterAddress>),
    /// The authority of this very process.
    Authority(AuthorityHandle),
}

/// What a keeper needs to know.
#[derive(Clone)]
pub struct KeeperConfig {
    /// The mesh; `None`: whichever the masters serve.
    pub mesh: Option<MeshName>,
    /// What this part is there.
    pub role: Role,
    /// Who holds the certificate: `users-1@vm1`, `users@vm1`, `master@vm1`.
    pub holder: String,
    /// Who gives it.
    pub source: Source,
    /// Where it is kept; `None`: nowhere, for those that get it again without a token.
    pub file: Option<PathBuf>,
    /// The file of the join token, for the first time.
    pub token_file: Option<PathBuf>,
    /// Where its metrics go.
    pub metrics: Metrics,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// It never had one.
    #[error(
        "{holder} has no certificate of the mesh yet: make a token on a machine of the mesh, `synego token create --out FILE`, and start this with `--token-file FILE`"
    )]
    NoToken {
        /// Who.
        holder: String,
    },
    /// It was off for too long.
    #[error(
        "the certificate of {holder} ended {ago} ago, while this was off: make a new token on a machine of the mesh, `synego token create --out FILE`, and start this with `--token-file FILE`"
    )]
    Ended {
        /// Who.
        holder: String,
        /// For how long, in words.
        ago: String,
    },
    /// The token cannot be read.
    #[error("the token file {path}: {cause}")]
    TokenFile {
        /// The file.
        path: String,
        /// Why.
        cause: String,
    },
    /// The masters do not give one.
    #[error("{0}")]
    Refused(String),
    /// No master answered in time.
    #[error("no master gave a certificate within {within:?}: {last}")]
    NotInTime {
        /// The limit.
        within: Duration,
        /// What the last try failed with.
        last: String,
    },
    /// What is kept cannot be used.
    #[error("the certificate file {path}: {cause}")]
    Kept {
        /// The file.
        path: String,
        /// Why.
        cause: String,
    },
    /// The process ends.
    #[error("stopped")]
    Stopped,
}

/// When the certificate is renewed, and why that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Renewal {
    pub(crate) at_unix_ms: u64,
    pub(crate) error: String,
}

/// A way to a running [`Keeper`]. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub struct CredentialHandle {
    inner: Arc<Inner>,
}

struct Inner {
    own: Own,
    renewal: Mutex<Renewal>,
    trust: watch::Sender<Option<pb::Trust>>,
}

impl CredentialHandle {
    pub(crate) fn new(own: Own) -> Self {
        Self { inner: Arc::new(Inner { own, renewal: Mutex::default(), trust: watch::Sender::new(None) }) }
    }

    /// Who it is, for connections.
    #[must_use]
    pub fn own(&self) -> Own {
        self.inner.own.clone()
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.inner.own.identity().clone()
    }

    /// Takes up whom a master says to trust; what cannot be read is kept out.
    pub(crate) fn heard(&self, trust: &pb::Trust) {
        match self.inner.own.trust(&trust.root) {
            Ok(()) => {
                self.inner.trust.send_if_modified(|told| {
                    let is_new = told.as_ref() != Some(trust);
                    *told = Some(trust.clone());
                    is_new
                });
            }
            Err(error) => tracing::warn!(id = %self.inner.own.identity(), cause = %error, "broken roots kept out"),
        }
    }

    pub(crate) fn trust(&self) -> watch::Receiver<Option<pb::Trust>> {
        self.inner.trust.subscribe()
    }

    pub(crate) fn renewal(&self) -> Renewal {
        self.inner.renewal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_renewal(&self, renewal: Renewal) {
        *self.inner.renewal.lock().unwrap_or_else(PoisonError::into_inner) = renewal;
    }

    /// What is told of it to masters and people.
    #[must_use]
    pub fn report(&self) -> IdentityReport {
        let own = &self.inner.own;
        let current = own.current();
        let Renewal { at_unix_ms, error } = self.renewal();
        let peer = |seen: synego_identity::PeerSeen| PeerSeen {
            id: seen.id.to_string(),
            handshakes: seen.handshakes,
            last_unix_ms: seen.last_unix_ms,
        };
        let refused = |(side, cause, handshakes): (synego_identity::Side, synego_identity::Cause, u64)| {
            HandshakesRefused { cause: cause.word().to_owned(), handshakes, side: side.word().to_owned() }
        };
        IdentityReport {
            id: own.identity().to_string(),
            serial: current.as_ref().map(|shown| shown.serial.clone()).unwrap_or_default(),
            issuer: current.as_ref().and_then(|shown| shown.issuer).map(|root| root.to_string()).unwrap_or_default(),
            not_after_unix_ms: current.as_ref().map_or(0, |shown| unix_ms(shown.not_after)),
            renew_unix_ms: at_unix_ms,
            renewal_error: error,
            trusted: own.trusted().iter().map(|root| root.fingerprint.to_string()).collect(),
            peers: own.peers().into_iter().map(peer).collect(),
            refused: own.refusals().into_iter().map(refused).collect(),
        }
    }
}

/// A certificate as it was given, with what belongs to it.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) credential: Credential,
    pub(crate) roots: Vec<Vec<u8>>,
    /// When it was given: milliseconds since 1970-01-01 UTC.
    pub(crate) since_unix_ms: u64,
    /// When it ends: milliseconds since 1970-01-01 UTC.
    pub(crate) not_after_unix_ms: u64,
}

//! Who one part of the mesh is and whom it trusts: changed at any moment, in force from the next handshake on.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::RootCertStore;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use synego_model::Identity;
use synego_runtime::clock;
use tokio::sync::watch;

use crate::keys::{Fingerprint, PrivateKey};
use crate::refused::{Cause, Refused, Side};
use crate::settings;
use crate::svid::{Presented, Unread};
use crate::tally::{PeerSeen, Tally};

/// Certificates of a chain, and roots, that are taken at most.
const MOST: usize = 16;
/// Of how many refusals the text is kept.
const MOST_REFUSERS: usize = 32;

/// A certificate with what belongs to it.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The certificate, then whatever others need to find the root; a master adds the root itself, for those who know
    /// no more of it than its fingerprint.
    pub chain_der: Vec<Vec<u8>>,
    /// The key of the certificate.
    pub key: PrivateKey,
}

/// The certificate in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Whose it is.
    pub identity: Identity,
    /// Its number, in hexadecimal digits.
    pub serial: String,
    /// The key of the trusted root that issued it; `None` when that root is not trusted here.
    pub issuer: Option<Fingerprint>,
    /// Since when it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// A root that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootShown {
    /// Its key.
    pub fingerprint: Fingerprint,
    /// Its number, in hexadecimal digits.
    pub serial: String,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// Why a certificate or a root is not taken; what was in force stays so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// There is none, or there are too many.
    #[error("{0} certificates: at least 1 and at most {MOST} are expected")]
    Count(usize),
    /// One cannot be read.
    #[error("certificate {0}: {1}")]
    Unread(usize, Unread),
    /// The certificate is not one of a part of the mesh.
    #[error("the certificate is refused, {0}: {meaning}", meaning = .0.meaning())]
    Form(Cause),
    /// It is somebody else's.
    #[error("the certificate is one of {came}, not of {own}")]
    OtherIdentity {
        /// Whose it is.
        came: Identity,
        /// Who this is.
        own: Identity,
    },
    /// It belongs to another key.
    #[error("the certificate belongs to another key")]
    KeyMismatch,
    /// A root that issues nothing.
    #[error("certificate {0} is no root: it may not issue others")]
    NoRoot(usize),
}

/// The handle of one part of the mesh. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub struct Own(Arc<Inner>);

struct Inner {
    identity: Identity,
    installed: ArcSwapOption<Installed>,
    trust: ArcSwap<Trust>,
    changes: watch::Sender<u64>,
    tally: Tally,
    /// Who refused us last, when, and how it was told; the newest first.
    refusers: Mutex<VecDeque<(SocketAddr, Instant, String)>>,
}

/// What this part shows of itself.
pub(crate) struct Installed {
    pub(crate) certified: Arc<CertifiedKey>,
    read: Presented,
}

/// Whom this part believes.
pub(crate) struct Trust {
    pub(crate) roots: RootCertStore,
    /// `None`: no roots, so nobody is believed.
    pub(crate) clients: Option<Arc<dyn ClientCertVerifier>>,
    shown: Vec<(RootShown, Option<Vec<u8>>)>,
}

impl Trust {
    fn nobody() -> Self {
        Self { roots: RootCertStore::empty(), clients: None, shown: Vec::new() }
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Own({})", self.0.identity)
    }
}

impl Own {
    /// One that has no certificate and trusts nobody yet.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self(Arc::new(Inner {
            identity,
            installed: ArcSwapOption::empty(),
            trust: ArcSwap::from_pointee(Trust::nobody()),
            changes: watch::Sender::new(0),
            tally: Tally::default(),
            refusers: Mutex::default(),
        }))
    }

    /// Who this is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Shows another certificate from the next handshake on; connections that are open go on.
    ///
    /// # Errors
    /// [`InstallError`]; the former certificate stays.
    pub fn install(&self, credential: &Credential) -> Result<(), InstallError> {
        let chain = &credential.chain_der;
        let (Some(leaf), 1..=MOST) = (chain.first(), chain.len()) else {
            return Err(InstallError::Count(chain.len()));
        };
        for (at, der) in chain.iter().enumerate() {
            Presented::read(der).map_err(|unread| InstallError::Unread(at, unread))?;
        }
        let read = Presented::read(leaf).map_err(|unread| InstallError::Unread(0, unread))?;
        let came = read.identity().map_err(InstallError::Form)?;
        if came != self.0.identity {
            return Err(InstallError::OtherIdentity { came, own: self.0.identity.clone() });
        }
        if read.public_key != credential.key.public_key_der() {
            return Err(InstallError::KeyMismatch);
        }
        let chain = chain.iter().cloned().map(CertificateDer::from).collect();
        let certified = CertifiedKey::from_der(chain, credential.key.for_tls(), settings::provider())
            .map_err(|_| InstallError::KeyMismatch)?;
        self.0.installed.store(Some(Arc::new(Installed { certified: Arc::new(certified), read })));
        self.0.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// Believes what these roots issued, and nothing else, from the next handshake on.
    ///
    /// # Errors
    /// [`InstallError`]; the former roots stay.
    pub fn trust(&self, roots: &[Vec<u8>]) -> Result<(), InstallError> {
        if roots.is_empty() || roots.len() > MOST {
            return Err(InstallError::Count(roots.len()));
        }
        let mut trust = Trust::nobody();
        for (at, der) in roots.iter().enumerate() {
            let read = Presented::read(der).map_err(|unread| InstallError::Unread(at, unread))?;
            if !read.is_authority {
                return Err(InstallError::NoRoot(at));
            }
            trust.roots.add(der.clone().into()).map_err(|_| InstallError::Unread(at, Unread))?;
            let fingerprint = Fingerprint::of(&read.public_key);
            let shown = RootShown { fingerprint, serial: read.serial, not_after: read.not_after };
            trust.shown.push((shown, read.subject_key_id));
        }
        trust.clients = settings::verifier_of_clients(&trust.roots);
        self.0.trust.store(Arc::new(trust));
        self.0.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// The certificate in force; `None`: there is none yet.
    #[must_use]
    pub fn current(&self) -> Option<Shown> {
        let installed = self.0.installed.load();
        let read = &installed.as_ref()?.read;
        let trust = self.0.trust.load();
        let issued = |(_, id): &&(RootShown, Option<Vec<u8>>)| id.is_some() && *id == read.authority_key_id;
        Some(Shown {
            identity: self.0.identity.clone(),
            serial: read.serial.clone(),
            issuer: trust.shown.iter().find(issued).map(|(root, _)| root.fingerprint),
            not_before: read.not_before,
            not_after: read.not_after,
        })
    }

    /// The roots in force.
    #[must_use]
    pub fn trusted(&self) -> Vec<RootShown> {
        self.0.trust.load().shown.iter().map(|(root, _)| root.clone()).collect()
    }

    /// Counts every change of the certificate or the roots.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Handshakes that were refused, by side and cause; only those that there were.
    #[must_use]
    pub fn refusals(&self) -> Vec<(Side, Cause, u64)> {
        self.0.tally.refusals()
    }

    /// Handshakes that were made, by side.
    #[must_use]
    pub fn handshakes(&self) -> [(Side, u64); 2] {
        self.0.tally.handshakes()
    }

    /// With whom there were handshakes, the last one first; the oldest are forgotten.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerSeen> {
        self.0.tally.peers()
    }

    pub(crate) fn installed(&self) -> Option<Arc<Installed>> {
        self.0.installed.load_full()
    }

    pub(crate) fn trust_in_force(&self) -> Arc<Trust> {
        self.0.trust.load_full()
    }

    /// What keeps this side from any handshake.
    pub(crate) fn unfit(&self, now: SystemTime) -> Option<Cause> {
        match &*self.0.installed.load() {
            None => Some(Cause::NotEnrolled),
            Some(own) if own.read.not_after < now => Some(Cause::OwnExpired),
            Some(_) => None,
        }
    }

    /// A handshake was made.
    pub(crate) fn met(&self, side: Side, peer: Option<&Identity>) {
        self.0.tally.met(side, peer);
    }

    /// A handshake was refused: counted, and told in the log.
    pub(crate) fn refused(&self, refused: &Refused) {
        self.0.tally.refused(&self.0.identity, refused);
        if refused.cause == Cause::RefusedByPeer {
            let mut refusers = self.0.refusers.lock().unwrap_or_else(PoisonError::into_inner);
            refusers.truncate(MOST_REFUSERS - 1);
            refusers.push_front((refused.address, clock::now(), refused.to_string()));
        }
    }

    /// How whoever is at this address refused us since then, if it did.
    pub(crate) fn refused_by(&self, address: &SocketAddr, since: Instant) -> Option<String> {
        let refusers = self.0.refusers.lock().unwrap_or_else(PoisonError::into_inner);
        let found = refusers.iter().find(|(refuser, when, _)| refuser == address && *when >= since);
        found.map(|(_, _, text)| text.clone())
    }
}

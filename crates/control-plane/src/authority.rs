//! The certificate authority of a master: its roots sealed in the store, what it issues written down, its rotation.
//!
//! [`AuthorityHandle::open`] makes the first root or opens those that are there. Whoever issues first writes down for
//! whom, until when and by which root: a rotation then knows for whom it waits, also after a restart of the master.
//!
//! **Invariants.** A root's key leaves this process sealed, or by [`AuthorityHandle::export`]. No step of a rotation is
//! taken twice or left out: each is one compare-and-swap. Deliberately absent: a list of revoked certificates, since
//! they are short-lived.

mod kept;
mod run;
pub(crate) mod state;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use synego_identity::{Authority, AuthorityError, Fingerprint, IssueError, Issued, SealingKey};
use synego_model::{Identity, MeshName, Role};
use synego_runtime::clock;
use synego_wire::pb;
use tokio::sync::watch;

use self::kept::{kept, opened, written};
use self::state::{Holder, KeptRoot, State, Unfit};
use crate::store::{Expected, Store, StoreError};

/// Where the state is kept.
const STATE: &str = "ca/state";
/// Below which keys it is kept who holds a certificate.
const HOLDERS: &str = "ca/holders/";
/// What an authority is opened with.
pub struct AuthorityConfig {
    /// Where it is kept.
    pub store: Arc<dyn Store>,
    /// What its roots are sealed with.
    pub key: SealingKey,
    /// Its mesh.
    pub mesh: MeshName,
    /// How long a certificate lives.
    pub life: Duration,
    /// Certificate and key (PEM) of a root from elsewhere, for a mesh that has none yet.
    pub first_root: Option<(String, String)>,
}

/// Why the authority did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A root could not be made, read or opened.
    #[error(transparent)]
    Root(#[from] AuthorityError),
    /// What is kept cannot be read.
    #[error("what the store keeps of the authority cannot be read: {0}")]
    Broken(String),
    /// The certificate was not issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The rotation is not at a point where this could be done.
    #[error("{0}")]
    Unfit(String),
}

impl From<Unfit> for CaError {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit.to_string())
    }
}

/// A certificate with what belongs to it.
#[derive(Debug, Clone)]
pub struct Given {
    /// The certificate, DER; for a master the root after it.
    pub chain: Vec<Vec<u8>>,
    /// Since when it is valid: milliseconds since 1970-01-01 UTC.
    pub not_before_unix_ms: u64,
    /// Until when it is valid: milliseconds since 1970-01-01 UTC.
    pub not_after_unix_ms: u64,
}

/// For whom a certificate is.
#[derive(Debug, Clone)]
pub struct For<'a> {
    /// Who it will be.
    pub identity: &'a Identity,
    /// Who holds it: `users-1@vm1`, `users@vm1` or `master@vm1`.
    pub holder: &'a str,
    /// Whether it lives in this very process.
    pub local: bool,
}

/// The authority of one master. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub struct AuthorityHandle {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    key: SealingKey,
    mesh: MeshName,
    life_ms: AtomicU64,
    in_force: watch::Sender<Arc<InForce>>,
}

/// The state with its roots opened.
pub(crate) struct InForce {
    pub(crate) state: State,
    roots: BTreeMap<String, Authority>,
    expected: Expected,
}

impl InForce {
    fn issuer(&self) -> Result<&Authority, CaError> {
        let issuer = self.roots.get(&self.state.issuer);
        issuer.ok_or_else(|| CaError::Broken("the root that issues is not among the roots".into()))
    }

    /// Whom to trust, as it is told to sidecars.
    pub(crate) fn trust(&self) -> pb::Trust {
        let of = |kept: &KeptRoot| self.roots.get(&kept.fingerprint).map(|root| root.root().certificate_der.clone());
        pb::Trust {
            root: self.state.roots.iter().filter_map(of).collect(),
            issuer: self.state.issuer.clone(),
            renew_now: self.state.renews_now(),
        }
    }
}

impl AuthorityHandle {
    /// Opens the authority that the store keeps; where it keeps none, makes one.
    ///
    /// # Errors
    /// [`CaError`]: above all when the roots were sealed with another key.
    pub async fn open(config: AuthorityConfig) -> Result<Self, CaError> {
        let AuthorityConfig { store, key, mesh, life, first_root } = config;
        let entry = match store.get(STATE).await? {
            Some(entry) => entry,
            None => {
                let root = match first_root {
                    Some((certificate, private)) => Authority::from_pem(mesh.clone(), &certificate, &private)?,
                    None => Authority::create(mesh.clone(), now())?,
                };
                let state = State::first(kept(&root, &key, clock::unix_ms())?);
                let made = store.put(STATE, written(&state)?, Expected::Absent).await;
                match made {
                    Ok(_) => tracing::info!(root = %root.root().fingerprint, "authority made"),
                    // Another master was faster: its root is the root.
                    Err(StoreError::Conflict { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                store.get(STATE).await?.ok_or_else(|| CaError::Broken("it is gone".into()))?
            }
        };
        let in_force = opened(&entry, &key, &mesh)?;
        let life_ms = AtomicU64::new(millis(life));
        let in_force = watch::Sender::new(Arc::new(in_force));
        let handle = Self { inner: Arc::new(Inner { store, key, mesh, life_ms, in_force }) };
        handle.forget(|holder, now| holder.local || holder.not_after_unix_ms <= now).await?;
        Ok(handle)
    }

    /// Its mesh.
    #[must_use]
    pub fn mesh(&self) -> &MeshName {
        &self.inner.mesh
    }

    /// How long the next certificates live.
    #[must_use]
    pub fn life(&self) -> Duration {
        Duration::from_millis(self.inner.life_ms.load(Ordering::Relaxed))
    }

    /// From now on certificates live so long.
    pub fn set_life(&self, life: Duration) {
        self.inner.life_ms.store(millis(life), Ordering::Relaxed);
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<InForce>> {
        self.inner.in_force.subscribe()
    }

    /// The store that it is kept in: a file is opened once in a process.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.inner.store)
    }

    fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.inner.in_force.borrow())
    }

    /// Whom to trust now.
    pub(crate) fn trust(&self) -> pb::Trust {
        self.in_force().trust()
    }

    /// The key of the root that issues now.
    ///
    /// # Errors
    /// [`CaError::Broken`].
    pub fn issuer(&self) -> Result<Fingerprint, CaError> {
        Ok(self.in_force().issuer()?.root().fingerprint)
    }

    /// A certificate for an operator's key, for so long. No rotation waits for operators: they come and go, and get
    /// another one when their root has gone.
    ///
    /// # Errors
    /// [`CaError::Issue`] when the request is refused.
    pub(crate) fn issue_operator(&self, request: &[u8], id: &Identity, life: Duration) -> Result<Issued, CaError> {
        Ok(self.in_force().issuer()?.issue(request, id, life, now())?)
    }

    /// Issues a certificate for the key of `request`, once it is written down for whom.
    ///
    /// # Errors
    /// [`CaError::Issue`] when the request is refused, [`CaError::Store`].
    pub async fn issue(&self, request: &[u8], to: For<'_>) -> Result<Given, CaError> {
        loop {
            let in_force = self.in_force();
            let authority = in_force.issuer()?;
            let issued = authority.issue(request, to.identity, self.life(), now())?;
            let holder = Holder {
                name: to.holder.to_owned(),
                master: to.identity.role == Role::Master,
                serial: issued.serial,
                issuer: in_force.state.issuer.clone(),
                // A certificate says it in whole seconds.
                not_after_unix_ms: unix_ms(issued.not_after) / 1000 * 1000,
                local: to.local,
            };
            let value = serde_json::to_vec(&holder).map_err(|error| CaError::Broken(error.to_string()))?;
            let key = match &to.identity.role {
                // Nobody stands in for a holder of another service.
                Role::Service(service) => format!("{HOLDERS}svc/{service}/{}", to.holder),
                Role::Master => format!("{HOLDERS}master/{}", to.holder),
                Role::Operator(name) => format!("{HOLDERS}operator/{name}"),
            };
            self.inner.store.put(&key, value, Expected::Any).await?;
            // A rotation that took a step meanwhile did not count this one: it shall get one of the new root.
            if self.in_force().state.issuer != in_force.state.issuer {
                continue;
            }
            let mut chain = vec![issued.certificate_der];
            if to.identity.role == Role::Master {
                // Those who join know no more of the mesh than the key of its root: they look for it in the chain.
                chain.push(authority.root().certificate_der.clone());
            }
            return Ok(Given {
                chain,
                not_before_unix_ms: unix_ms(issued.not_before),
                not_after_unix_ms: holder.not_after_unix_ms,
            });
        }
    }

    /// Begins to go over to a new root, or hastens what goes on.
    ///
    /// # Errors
    /// [`CaError::Unfit`] while one goes on, unless `fast` hastens it.
    pub(crate) async fn rotate(&self, fast: bool) -> Result<(), CaError> {
        let root = Authority::create(self.inner.mesh.clone(), now())?;
        self.change(|state, now| match (&state.rotation, fast) {
            (Some(_), true) => Ok(state.hasten()?),
            _ => Ok(state.rotate(kept(&root, &self.inner.key, now)?, fast, now)?),
        })
        .await
    }

    /// Goes back to the root from before.
    ///
    /// # Errors
    /// [`CaError::Unfit`] without a rotation, or when it goes back already.
    pub(crate) async fn abort(&self) -> Result<(), CaError> {
        self.change(|state, now| Ok(state.abort(now)?)).await
    }

    /// Goes over to a root from elsewhere: at once while nobody but masters holds a certificate, else by a rotation.
    ///
    /// # Errors
    /// [`CaError::Root`] when it is none, [`CaError::Unfit`] while a rotation goes on.
    pub(crate) async fn import(&self, certificate: &str, key: &str) -> Result<(), CaError> {
        let root = Authority::from_pem(self.inner.mesh.clone(), certificate, key)?;
        let is_alone = self.holders().await?.iter().all(|holder| holder.master);
        self.change(|state, now| {
            let kept = kept(&root, &self.inner.key, now)?;
            let rotated = state.rotate(kept.clone(), false, now)?;
            Ok(if is_alone { State::first(kept) } else { rotated })
        })
        .await
    }

    /// Certificate and key of the root that issues, as PEM.
    ///
    /// # Errors
    /// [`CaError::Broken`].
    pub(crate) fn export(&self) -> Result<pb::CaPem, CaError> {
        let (certificate, key) = self.in_force().issuer()?.to_pem();
        Ok(pb::CaPem { certificate, key: key.to_string() })
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    digits.chunks_exact(2).map(|pair| u8::try_from(pair.first()? * 16 + pair.get(1)?).ok()).collect()
}

/// The wall clock, for certificates.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(clock::unix_ms())
}

/// Milliseconds since 1970-01-01 UTC.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

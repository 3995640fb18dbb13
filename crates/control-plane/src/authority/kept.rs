//! What an authority keeps in the store: its state, changed by compare-and-swap, and who holds its certificates.

use std::collections::BTreeMap;
use std::sync::Arc;

use synego_identity::{Authority, AuthorityError, SealingKey};
use synego_model::MeshName;
use synego_runtime::clock;

use super::state::{Holder, KeptRoot, State};
use super::{AuthorityHandle, CaError, HOLDERS, InForce, STATE, hex, unhex};
use crate::store::{Entry, Expected, StoreError};

/// How often a write is tried again that met another.
const TRIES: usize = 8;

impl AuthorityHandle {
    /// Those who hold a certificate that is alive.
    pub(super) async fn holders(&self) -> Result<Vec<Holder>, CaError> {
        let now = clock::unix_ms();
        let entries = self.inner.store.list(HOLDERS).await?;
        let read = |entry: &Entry| serde_json::from_slice::<Holder>(&entry.value).ok();
        Ok(entries.iter().filter_map(read).filter(|holder| holder.not_after_unix_ms > now).collect())
    }

    /// Forgets those who hold a certificate of which `is_over` says so.
    pub(super) async fn forget(&self, is_over: impl Fn(&Holder, u64) -> bool) -> Result<(), CaError> {
        let now = clock::unix_ms();
        for entry in self.inner.store.list(HOLDERS).await? {
            // What cannot be read is of no use to anybody.
            let is_over = serde_json::from_slice::<Holder>(&entry.value).map_or(true, |holder| is_over(&holder, now));
            if is_over {
                match self.inner.store.remove(&entry.key, Expected::Revision(entry.revision)).await {
                    Ok(()) | Err(StoreError::Conflict { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Writes the next state, made of the one in force; another writer's comes first and is taken as the base then.
    pub(super) async fn change(&self, next: impl Fn(&State, u64) -> Result<State, CaError>) -> Result<(), CaError> {
        let mut last = None;
        for _ in 0..TRIES {
            let in_force = self.reload().await?;
            let state = next(&in_force.state, clock::unix_ms())?;
            match self.inner.store.put(STATE, written(&state)?, in_force.expected).await {
                Ok(_) => {
                    self.reload().await?;
                    return Ok(());
                }
                Err(conflict @ StoreError::Conflict { .. }) => last = Some(conflict),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.map_or_else(|| CaError::Broken("it is gone".into()), CaError::Store))
    }

    /// Reads the state anew, and puts it in force if it is another one.
    pub(super) async fn reload(&self) -> Result<Arc<InForce>, CaError> {
        let entry = self.inner.store.get(STATE).await?;
        let before = self.in_force();
        let Some(entry) = entry else { return Err(CaError::Broken("it is gone".into())) };
        if Expected::Revision(entry.revision) == before.expected {
            return Ok(before);
        }
        let next = Arc::new(opened(&entry, &self.inner.key, &self.inner.mesh)?);
        self.inner.in_force.send_replace(Arc::clone(&next));
        Ok(next)
    }
}

/// What is kept, with its roots opened.
///
/// # Errors
/// [`CaError`], above all when the roots were sealed with another key.
pub(super) fn opened(entry: &Entry, key: &SealingKey, mesh: &MeshName) -> Result<InForce, CaError> {
    let state: State = serde_json::from_slice(&entry.value).map_err(|error| CaError::Broken(error.to_string()))?;
    let mut roots = BTreeMap::new();
    for kept in &state.roots {
        let sealed = unhex(&kept.sealed).ok_or_else(|| CaError::Broken("a root is no hexadecimal text".into()))?;
        let root = Authority::from_sealed(&sealed, key)?;
        if root.mesh() != mesh {
            let message = format!("the store belongs to the mesh {}, not to {mesh}", root.mesh());
            return Err(CaError::Broken(message));
        }
        roots.insert(kept.fingerprint.clone(), root);
    }
    let in_force = InForce { state, roots, expected: Expected::Revision(entry.revision) };
    in_force.issuer()?;
    Ok(in_force)
}

/// A root as it is kept: sealed.
///
/// # Errors
/// When it cannot be sealed.
pub(super) fn kept(root: &Authority, key: &SealingKey, now_unix_ms: u64) -> Result<KeptRoot, CaError> {
    let sealed = root.to_sealed(key).map_err(AuthorityError::from)?;
    Ok(KeptRoot { fingerprint: root.root().fingerprint.to_string(), sealed: hex(&sealed), added_unix_ms: now_unix_ms })
}

/// A state as it is kept.
///
/// # Errors
/// [`CaError::Broken`].
pub(super) fn written(state: &State) -> Result<Vec<u8>, CaError> {
    serde_json::to_vec(state).map_err(|error| CaError::Broken(error.to_string()))
}

//! Whether the process may be given work: when all its named parts are up.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// The parts that are not up yet. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    missing: Arc<watch::Sender<BTreeMap<&'static str, usize>>>,
}

/// Held by a part until it is up; dropped then.
#[derive(Debug)]
pub struct ReadinessGuard {
    name: &'static str,
    missing: Arc<watch::Sender<BTreeMap<&'static str, usize>>>,
}

impl Readiness {
    /// With no part that is missing.
    #[must_use]
    pub fn new() -> Self {
        Self { missing: Arc::new(watch::Sender::new(BTreeMap::new())) }
    }

    /// Not ready until the guard is dropped, because of `name`.
    #[must_use]
    pub fn guard(&self, name: &'static str) -> ReadinessGuard {
        self.missing.send_modify(|missing| *missing.entry(name).or_insert(0) += 1);
        ReadinessGuard { name, missing: self.missing.clone() }
    }

    /// Not ready from now on, because of `name`: the first step of every drain.
    pub fn fail(&self, name: &'static str) {
        self.missing.send_modify(|missing| *missing.entry(name).or_insert(0) += 1);
    }

    /// The parts that are missing, sorted; none: ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.missing.borrow().keys().copied().collect()
    }

    /// Whether no part is missing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing.borrow().is_empty()
    }

    /// Returns once no part is missing.
    pub async fn ready(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let mut changes = self.missing.subscribe();
        let _nothing = changes.wait_for(BTreeMap::is_empty).await;
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ReadinessGuard {
    fn drop(&mut self) {
        self.missing.send_modify(|missing| {
            if let Some(count) = missing.get_mut(self.name) {
                *count -= 1;
                if *count == 0 {
                    missing.remove(self.name);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_once_every_part_is_up_and_never_again_after_a_fail() {
        let readiness = Readiness::new();
        let (mesh, ingress, second) = (readiness.guard("mesh"), readiness.guard("ingress"), readiness.guard("mesh"));
        assert_eq!(readiness.missing(), ["ingress", "mesh"]);
        drop((mesh, ingress));
        assert_eq!(readiness.missing(), ["mesh"]);
        drop(second);
        readiness.ready().await;
        readiness.fail("draining");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.missing(), ["draining"]);
    }
}

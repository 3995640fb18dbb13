//! An authority as it is shown: its roots, and how far a rotation has come.

use synego_runtime::clock;
use synego_wire::pb;

use super::state::{KeptRoot, Reported, STEPS, Step};
use super::{AuthorityHandle, CaError, millis, unix_ms};

/// Most of those that are waited for that are named.
const NAMED: usize = 100;

impl AuthorityHandle {
    /// How it is; `reported`: what those say that are linked.
    ///
    /// # Errors
    /// [`CaError::Store`].
    pub(crate) async fn view(&self, reported: &[Reported]) -> Result<pb::CaView, CaError> {
        let holders = self.holders().await?;
        let in_force = self.in_force();
        let now = clock::unix_ms();
        let waiting = in_force.state.waiting(&holders, reported, now);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let rotation = in_force.state.rotation.as_ref();
        let until = waiting.iter().map(|one| one.holder.not_after_unix_ms).max().unwrap_or_default();
        // Between the two ends lies one life of those that are renewed at the last moment.
        let more = rotation.map_or(0, |rotation| if rotation.step == Step::Trust { millis(self.life()) } else { 0 });
        Ok(pb::CaView {
            mesh: self.inner.mesh.to_string(),
            root: self.roots(),
            step: rotation.map_or("idle", |rotation| rotation.step.word()).to_owned(),
            step_number: rotation.map_or(0, |rotation| rotation.step.number()),
            steps: STEPS,
            since_unix_ms: rotation.map_or(0, |rotation| rotation.since_unix_ms),
            until_unix_ms: rotation.map_or(0, |_| until.max(now) + more),
            done: count(holders.len() - waiting.len()),
            of: count(holders.len()),
            waiting: waiting
                .iter()
                .take(NAMED)
                .map(|one| pb::WaitingView {
                    holder: one.holder.name.clone(),
                    cause: one.cause.to_owned(),
                    not_after_unix_ms: one.holder.not_after_unix_ms,
                })
                .collect(),
            fast: rotation.is_some_and(|rotation| rotation.fast),
            life_ms: millis(self.life()),
            unix_ms: now,
            aborting: rotation.is_some_and(|rotation| rotation.aborting),
        })
    }

    /// The roots, oldest first.
    pub(crate) fn roots(&self) -> Vec<pb::RootView> {
        let in_force = self.in_force();
        let view = |kept: &KeptRoot| {
            let root = in_force.roots.get(&kept.fingerprint)?.root();
            Some(pb::RootView {
                fingerprint: kept.fingerprint.clone(),
                serial: root.serial.clone(),
                not_after_unix_ms: unix_ms(root.not_after),
                issues: kept.fingerprint == in_force.state.issuer,
                added_unix_ms: kept.added_unix_ms,
            })
        };
        in_force.state.roots.iter().filter_map(view).collect()
    }
}

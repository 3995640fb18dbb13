//! The authority's own task: it takes the steps of a rotation, follows what other masters write, and forgets.

use std::sync::Arc;
use std::time::Duration;

use synego_runtime::clock;
use synego_runtime::lifecycle::Stop;
use tokio::time::MissedTickBehavior;

use super::state::Reported;
use super::{AuthorityHandle, CaError, STATE};

/// How often a rotation is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often those are forgotten whose certificates have ended.
const FORGET_EVERY: Duration = Duration::from_secs(600);

impl AuthorityHandle {
    /// Runs until `stop`. `ask` gives what those say that are linked; nothing while that is not known.
    pub(crate) async fn run<F>(self, ask: impl Fn() -> F, stop: Stop)
    where
        F: Future<Output = Option<Vec<Reported>>>,
    {
        let mut written = self.inner.store.watch(STATE);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut forgets = tokio::time::interval(FORGET_EVERY);
        let mut told = String::new();
        loop {
            let outcome = tokio::select! {
                () = stop.stopped() => return,
                Ok(()) = written.changed() => self.reload().await.map(|_| ()),
                _ = looks.tick() => self.look(&ask).await,
                _ = forgets.tick() => self.forget(|holder, now| holder.not_after_unix_ms <= now).await,
            };
            // The same failure each second is told once.
            let failure = outcome.err().map(|error| error.to_string()).unwrap_or_default();
            if !failure.is_empty() && failure != told {
                tracing::error!(cause = failure, "the authority cannot go on, and tries again");
            }
            told = failure;
        }
    }

    /// Takes the next step of a rotation, if there is one and nobody is waited for.
    async fn look<F>(&self, ask: &impl Fn() -> F) -> Result<(), CaError>
    where
        F: Future<Output = Option<Vec<Reported>>>,
    {
        if self.in_force().state.rotation.is_none() {
            return Ok(());
        }
        let Some(reported) = ask().await else { return Ok(()) };
        let holders = self.holders().await?;
        let before = self.in_force();
        let Some(next) = before.state.advance(&holders, &reported, clock::unix_ms()) else { return Ok(()) };
        let expected = Arc::clone(&before);
        self.change(move |state, _| if *state == expected.state { Ok(next.clone()) } else { Ok(state.clone()) })
            .await?;
        let after = self.in_force();
        let step = after.state.rotation.as_ref().map_or("done", |rotation| rotation.step.word());
        tracing::info!(issuer = after.state.issuer, roots = after.state.roots.len(), step, "rotation of the root");
        Ok(())
    }
}

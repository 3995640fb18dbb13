//! A job that is asked for once more.

use std::sync::Arc;

use synego_control_plane::order::{Outcome, Step};
use synego_data_plane::Tenure;
use synego_supervise::Phase;

use super::Conductor;
use crate::generation::Generation;
use crate::orders::Teller;
use crate::proof;

impl Conductor {
    /// A job, and what has ended as it should, has nothing that goes on meanwhile: it runs once more.
    pub(super) async fn once_more(&mut self, former: &Arc<Generation>, steps: Teller) {
        let generations = (former.number, former.number);
        if former.state().is_some_and(|state| state.phase != Phase::Stopped) {
            let step = Step::of(Outcome::Skipped, "it is a job, and still runs");
            return steps.tell(Step { generations, ..step }).await;
        }
        let number = former.number.wrapping_add(1);
        let generations = (former.number, number);
        steps.tell(Step { generations, ..Step::of(Outcome::Starting, "") }).await;
        let env = proof::with_number(former.env.clone(), number);
        let next =
            Generation { number, env, process: None, tenure: Tenure::new(self.workers), ..former.as_ref().clone() };
        // It was built just now.
        self.is_built = true;
        let Some((supervisor, state)) = self.launch(&next, false, 0) else { return };
        let mut process = state.clone();
        self.supervisor = Some(supervisor);
        self.current.send_replace(Arc::new(Generation { process: Some(state), ..next }));
        self.note(None);
        let over = process.wait_for(|state| matches!(state.phase, Phase::Ready | Phase::Stopped | Phase::CrashLoop));
        let Ok(over) = over.await.map(|state| state.clone()) else { return };
        let words = over.cause.as_ref().map(ToString::to_string).unwrap_or_default();
        let outcome = if over.phase == Phase::Ready || over.is_done() { Outcome::Done } else { Outcome::Failed };
        steps.tell(Step { generations, lines: over.last_lines, ..Step::of(outcome, words) }).await;
    }
}

//! The state of the instance, from all that is known of it: its process, its probe, its own word, its drain.

use synego_model::{Cause, InstanceState};

/// What is known of the process, where this sidecar is its parent.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessFacts {
    /// It runs and has been ready since it started.
    pub is_ready: bool,
    /// It runs, but is halted by a signal.
    pub is_halted: bool,
    /// It has ended as it should, and is not started again.
    pub is_done: bool,
    /// It is started again and again in vain, or cannot be started.
    pub has_failed: bool,
    /// Why it is not ready.
    pub cause: Option<Cause>,
}

/// Everything that the state follows from.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The process; `None`: another is its parent.
    pub process: Option<ProcessFacts>,
    /// The probe: `Ok` when it passes; `None`: there is none, or it has not judged yet.
    pub probe: Option<Result<(), Cause>>,
    /// Whether a probe will judge, so that without its verdict nothing is ready.
    pub is_probed: bool,
    /// The service's own word.
    pub said: Option<(InstanceState, Option<Cause>)>,
    /// The instance drains.
    pub is_draining: bool,
}

/// The state and its cause. What is done is gone, with its cause. Else the worse of two wins: drain, then process, then
/// probe, then the service's own word.
#[must_use]
pub fn of(facts: &Facts) -> (InstanceState, Option<Cause>) {
    if let Some(process) = facts.process.as_ref().filter(|process| process.is_done) {
        return (InstanceState::Gone, process.cause.clone());
    }
    if facts.is_draining {
        return (InstanceState::Draining, None);
    }
    if let Some(process) = &facts.process {
        if process.has_failed || process.is_halted {
            return (InstanceState::Unhealthy, process.cause.clone());
        }
        if !process.is_ready {
            return (InstanceState::Starting, process.cause.clone());
        }
    }
    match &facts.probe {
        Some(Err(cause)) => return (InstanceState::Unhealthy, Some(cause.clone())),
        None if facts.is_probed && facts.process.is_none() => return (InstanceState::Starting, None),
        _ => {}
    }
    match &facts.said {
        Some((InstanceState::Ready, _)) | None => (InstanceState::Ready, None),
        Some((state, cause)) => (*state, cause.clone()),
    }
}

#[cfg(test)]
mod tests {
    use synego_model::Reason;

    use super::*;

    fn cause(reason: Reason) -> Cause {
        Cause { reason, message: String::new(), since_unix_ms: 0 }
    }

    fn running() -> Facts {
        let process = ProcessFacts { is_ready: true, is_halted: false, is_done: false, has_failed: false, cause: None };
        Facts { process: Some(process), ..Facts::default() }
    }

    #[test]
    fn a_running_process_without_anything_else_is_ready() {
        assert_eq!(of(&running()), (InstanceState::Ready, None));
    }

    #[test]
    fn a_process_found_running_is_ready_only_after_its_first_probe() {
        let mut facts = Facts { is_probed: true, ..Facts::default() };
        assert_eq!(of(&facts).0, InstanceState::Starting);
        facts.probe = Some(Ok(()));
        assert_eq!(of(&facts).0, InstanceState::Ready);
        facts.probe = Some(Err(cause(Reason::ProbeFailed)));
        assert_eq!(of(&facts), (InstanceState::Unhealthy, Some(cause(Reason::ProbeFailed))));
    }

    #[test]
    fn a_halted_process_is_unhealthy_though_its_probe_passed_a_moment_ago() {
        let mut facts = running();
        facts.probe = Some(Ok(()));
        facts.process = facts.process.map(|process| ProcessFacts {
            is_halted: true,
            cause: Some(cause(Reason::ProcessStopped)),
            ..process
        });
        assert_eq!(of(&facts), (InstanceState::Unhealthy, Some(cause(Reason::ProcessStopped))));
    }

    #[test]
    fn the_service_may_say_that_it_is_worse_but_not_better() {
        let mut facts = running();
        facts.said = Some((InstanceState::Degraded, Some(cause(Reason::SaidByService))));
        assert_eq!(of(&facts).0, InstanceState::Degraded);
        facts.said = Some((InstanceState::Ready, None));
        facts.probe = Some(Err(cause(Reason::ProbeFailed)));
        assert_eq!(of(&facts).0, InstanceState::Unhealthy);
    }

    #[test]
    fn a_job_that_is_done_is_gone_and_says_so_to_the_end() {
        let cause = Some(cause(Reason::JobDone));
        let process = ProcessFacts { is_ready: false, is_halted: false, is_done: true, has_failed: true, cause };
        let mut facts = Facts { process: Some(process), ..Facts::default() };
        let done = of(&facts);
        assert_eq!((done.0, done.1.clone().map(|cause| cause.reason)), (InstanceState::Gone, Some(Reason::JobDone)));
        facts.is_draining = true;
        assert_eq!(of(&facts), done);
    }

    #[test]
    fn a_drain_is_final() {
        let facts = Facts { is_draining: true, ..running() };
        assert_eq!(of(&facts).0, InstanceState::Draining);
    }
}

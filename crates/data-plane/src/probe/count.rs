//! Steps on a request's way, each by itself, for counts of instructions.
//!
//! A step is pure: no socket, no task, no draw that differs from one process to the next. Its set-up makes all that it
//! needs, and the same thing is done in every run, so that `bench/count.py` counts the same in every process.

mod h1;
mod h2;
mod hop;
mod pick;
mod route;
mod whole;

use synego_model::BalanceKind;

/// One run of a step; whether it did what it is counted for.
pub type Run = Box<dyn FnMut() -> bool>;

/// Something that is counted.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// `group/what`, as in `bench/budget.json`.
    pub name: &'static str,
    /// Makes what the runs need; `None`: the step cannot be taken, which is a mistake in it.
    pub set_up: fn() -> Option<Run>,
}

const fn step(name: &'static str, set_up: fn() -> Option<Run>) -> Step {
    Step { name, set_up }
}

/// All that is counted, in the order of a request's life.
pub const STEPS: &[Step] = &[
    step("h1/read-request-1", || h1::read_request(h1::PLAIN, 1)),
    step("h1/read-request-12", || h1::read_request(h1::BROWSER, 12)),
    step("h1/read-answer-8", h1::read_answer),
    step("h1/read-chunks-16", h1::read_chunks),
    step("h1/write-request-12", h1::write_request),
    step("h1/write-answer-8", h1::write_answer),
    step("h2/read-request-first", h2::read_request_first),
    step("h2/read-request-again", h2::read_request_again),
    step("h2/read-answer-again", h2::read_answer_again),
    step("h2/write-request-first", h2::write_request_first),
    step("h2/write-request-again", h2::write_request_again),
    step("h2/write-answer-again", h2::write_answer_again),
    step("hop/check-1", || hop::check(h1::PLAIN)),
    step("hop/check-12", || hop::check(h1::BROWSER)),
    step("hop/forward-12", hop::forward),
    step("hop/trace-new", hop::trace_new),
    step("hop/trace-kept", hop::trace_kept),
    step("hop/log-line", hop::log_line),
    step("path/plain", || hop::canonical("/users/7/orders", "/users/7/orders")),
    step("path/escaped", || hop::canonical("/caf%c3%a9/%6denu/./today", "/caf%C3%A9/menu/today")),
    step("route/10", || route::find(10)),
    step("route/10000", || route::find(10_000)),
    step("pick/load-2", || pick::pick(BalanceKind::Load, 2)),
    step("pick/load-1000", || pick::pick(BalanceKind::Load, 1000)),
    step("pick/least-2", || pick::pick(BalanceKind::Least, 2)),
    step("pick/least-1000", || pick::pick(BalanceKind::Least, 1000)),
    step("pick/round-robin-2", || pick::pick(BalanceKind::RoundRobin, 2)),
    step("pick/round-robin-1000", || pick::pick(BalanceKind::RoundRobin, 1000)),
    step("pick/hash-2", || pick::pick(pick::by_header(), 2)),
    step("pick/hash-1000", || pick::pick(pick::by_header(), 1000)),
    step("pick/exchange-2", pick::exchange),
    step("metrics/exchange", hop::metrics),
    step("metrics/exchange-beyond", hop::metrics_beyond),
    step("whole/request-1", || whole::relay(h1::PLAIN)),
    step("whole/request-12", || whole::relay(h1::BROWSER)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_does_what_it_is_counted_for() {
        for step in STEPS {
            let mut run = (step.set_up)().unwrap_or_else(|| panic!("{} has no set-up", step.name));
            assert!((0..50).all(|_| run()), "{} went wrong", step.name);
        }
    }

    #[test]
    fn every_step_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), STEPS.len());
    }
}

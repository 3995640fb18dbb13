//! What a person can order of an instance or its machine, and the steps that follow.
//!
//! An order names an instance or a service, never a command: what runs is said by the machine's own file alone.

use std::time::Duration;

use synego_model::ServiceName;
use synego_wire::pb;
use tokio::sync::mpsc;

/// Longest message of a step, in bytes, and most lines with it.
const MAX_MESSAGE: usize = 4 * 1024;
const MAX_LINES: usize = 10;
/// Most instances of a service on a machine.
pub const MAX_INSTANCES: u32 = 256;
/// Longest time for a drain.
pub const MAX_DRAIN: Duration = Duration::from_secs(600);

/// What is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Replace the process by a new generation that proves itself first.
    Reload {
        /// The same for all instances that one wish reaches.
        round: u64,
    },
    /// Take no further requests and finish those that run; the process stays.
    Drain {
        /// Time for it; `None`: the service's own.
        within: Option<Duration>,
    },
    /// Take requests again.
    Undrain,
    /// Run so many instances of a service on this machine.
    Scale {
        /// The service.
        service: ServiceName,
        /// How many; `None`: as many as the machine's file says.
        instances: Option<u32>,
    },
}

/// How far an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outcome {
    /// Others are before it.
    #[default]
    Waiting,
    /// What the new process is made of is built.
    Building,
    /// The new process proves itself.
    Starting,
    /// Requests wait while the process is started again.
    Parking,
    /// What runs is finished.
    Draining,
    /// It was obeyed.
    Done,
    /// It was not, and everything is as it was.
    Failed,
    /// It was not tried, since another one failed before.
    Skipped,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// How far it is.
    pub outcome: Outcome,
    /// Why, or what is waited for.
    pub message: String,
    /// Generation of the process before, and the one that serves now.
    pub generations: (u32, u32),
    /// What the process printed last, where it failed.
    pub lines: Vec<String>,
    /// Requests and streams that are open.
    pub open: (u32, u32),
    /// Instances before and now, for a scale.
    pub instances: (u32, u32),
}

/// One who obeys.
pub trait Commanded: Send + Sync {
    /// Begins to obey; the channel ends with the last step.
    fn obey(&self, order: Order) -> mpsc::Receiver<Step>;
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Building,
        Self::Starting,
        Self::Parking,
        Self::Draining,
        Self::Done,
        Self::Failed,
        Self::Skipped,
    ];

    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Building => "building",
            Self::Starting => "starting",
            Self::Parking => "parking",
            Self::Draining => "draining",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// Of a word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.word() == word)
    }

    /// Whether nothing follows.
    #[must_use]
    pub fn is_last(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Skipped)
    }
}

impl Step {
    /// A step with a word for people.
    #[must_use]
    pub fn of(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), ..Self::default() }
    }

    pub(crate) fn to_wire(&self, query: u64) -> pb::OrderStep {
        let short = |text: &str| text.chars().take(MAX_MESSAGE / 4).collect::<String>();
        pb::OrderStep {
            query,
            outcome: self.outcome.word().to_owned(),
            message: short(&self.message),
            from: self.generations.0,
            to: self.generations.1,
            line: self.lines.iter().take(MAX_LINES).map(|line| short(line)).collect(),
            open_requests: self.open.0,
            open_streams: self.open.1,
            before: self.instances.0,
            after: self.instances.1,
        }
    }

    /// As a sidecar said it; `None`: in a word that is not known.
    pub(crate) fn of_wire(step: pb::OrderStep) -> Option<Self> {
        Some(Self {
            outcome: Outcome::of(&step.outcome)?,
            message: step.message,
            generations: (step.from, step.to),
            lines: step.line,
            open: (step.open_requests, step.open_streams),
            instances: (step.before, step.after),
        })
    }

    /// As people are told, of this instance.
    #[must_use]
    pub fn told(&self, instance: &str) -> pb::LifecycleStep {
        pb::LifecycleStep {
            instance: instance.to_owned(),
            outcome: self.outcome.word().to_owned(),
            message: self.message.clone(),
            from: self.generations.0,
            to: self.generations.1,
            line: self.lines.clone(),
            open_requests: self.open.0,
            open_streams: self.open.1,
            before: self.instances.0,
            after: self.instances.1,
        }
    }
}

impl Order {
    /// The order in a message; `None`: there is none in it that can be obeyed.
    pub(crate) fn of_wire(order: &pb::Order) -> Option<Self> {
        Some(match order.is.as_ref()? {
            pb::order::Is::Reload(reload) => Self::Reload { round: reload.round },
            pb::order::Is::Drain(drain) => {
                let within = Duration::from_millis(drain.within_ms.into()).min(MAX_DRAIN);
                Self::Drain { within: (!within.is_zero()).then_some(within) }
            }
            pb::order::Is::Undrain(_) => Self::Undrain,
            pb::order::Is::Scale(scale) => Self::Scale {
                service: scale.service.parse().ok()?,
                instances: (!scale.as_in_file).then_some(scale.instances.min(MAX_INSTANCES)),
            },
        })
    }

    pub(crate) fn to_wire(&self) -> pb::Order {
        let is = match self {
            Self::Reload { round } => pb::order::Is::Reload(pb::Reload { round: *round }),
            Self::Drain { within } => {
                let within_ms = within.map_or(0, |within| u32::try_from(within.as_millis()).unwrap_or(u32::MAX).max(1));
                pb::order::Is::Drain(pb::DrainOrder { within_ms })
            }
            Self::Undrain => pb::order::Is::Undrain(true),
            Self::Scale { service, instances } => pb::order::Is::Scale(pb::Scale {
                service: service.to_string(),
                instances: instances.unwrap_or_default(),
                as_in_file: instances.is_none(),
            }),
        };
        pb::Order { is: Some(is) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_and_its_steps_travel_whole() {
        let service: ServiceName = "users".parse().expect("a name");
        for order in [
            Order::Reload { round: 7 },
            Order::Drain { within: None },
            Order::Drain { within: Some(Duration::from_secs(9)) },
            Order::Undrain,
            Order::Scale { service: service.clone(), instances: Some(0) },
            Order::Scale { service, instances: None },
        ] {
            assert_eq!(Order::of_wire(&order.to_wire()), Some(order));
        }
        let step = Step {
            outcome: Outcome::Failed,
            message: "exited with code 1".into(),
            generations: (3, 3),
            lines: vec!["Error: no".into()],
            open: (1, 2),
            instances: (3, 4),
        };
        assert_eq!(Step::of_wire(step.to_wire(9)), Some(step));
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::of(outcome.word()), Some(outcome));
        }
    }

    #[test]
    fn an_order_names_what_is_there_and_nothing_that_runs() {
        let bad = pb::Scale { service: "../sh".into(), instances: 1, as_in_file: false };
        assert_eq!(Order::of_wire(&pb::Order { is: Some(pb::order::Is::Scale(bad)) }), None);
        let many = pb::Scale { service: "users".into(), instances: 9_999, as_in_file: false };
        let order = Order::of_wire(&pb::Order { is: Some(pb::order::Is::Scale(many)) });
        assert!(matches!(order, Some(Order::Scale { instances: Some(MAX_INSTANCES), .. })));
        assert_eq!(Order::of_wire(&pb::Order { is: None }), None);
    }
}

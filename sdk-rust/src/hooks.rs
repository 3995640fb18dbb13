//! What the service does when it starts, drains and stops.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

/// What a hook or check came to, in one form.
pub type Reported = Result<(), Box<dyn StdError + Send + Sync>>;

/// What a hook or a check may yield: nothing, or a result with any error.
pub trait Outcome {
    /// The outcome in one form.
    ///
    /// # Errors
    /// The failure of the hook or check.
    fn report(self) -> Reported;
}

impl Outcome for () {
    fn report(self) -> Reported {
        Ok(())
    }
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Outcome for Result<T, E> {
    fn report(self) -> Reported {
        self.map(drop).map_err(Into::into)
    }
}

/// Why a drain begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DrainCause {
    /// The mesh or this instance stops.
    Stop,
    /// A successor took over.
    Reload,
    /// Fewer instances are wanted.
    ScaleDown,
    /// A person asked for it.
    Operator,
}

/// A drain: finish what runs, take up nothing new.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Why.
    pub cause: DrainCause,
    /// When all of it must be over.
    pub deadline: Instant,
}

impl Drain {
    /// Time left for all of it.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

type Boxed = Pin<Box<dyn Future<Output = Reported> + Send>>;
type Hook<A> = Box<dyn FnOnce(A) -> Boxed + Send>;

/// The hooks of one kind, run in the order in which they were given.
pub(crate) struct Hooks<A>(Vec<Hook<A>>);

impl<A> Default for Hooks<A> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<A: Copy> Hooks<A> {
    pub(crate) fn push<F, Fut>(&mut self, hook: F)
    where
        F: FnOnce(A) -> Fut + Send + 'static,
        Fut: Future<Output: Outcome> + Send + 'static,
    {
        self.0.push(Box::new(move |argument| {
            let run = hook(argument);
            Box::pin(async move { run.await.report() })
        }));
    }

    /// Runs all, each until `deadline`; the first failure ends it.
    pub(crate) async fn run(self, argument: A, deadline: Instant) -> Reported {
        for hook in self.0 {
            tokio::time::timeout_at(deadline, hook(argument)).await.unwrap_or_else(|late| Err(late.into()))?;
        }
        Ok(())
    }
}

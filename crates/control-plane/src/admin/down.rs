//! Ending what this process runs: the wish is handed to whoever assembled the process.

use std::time::Duration;

use synego_model::Reason;
use synego_wire::{pb, status};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Answers;
use crate::master::Shared;

/// Time for an end when none was said: that of a drain.
const USUAL: Duration = Duration::from_secs(25);
/// Longest time for an end.
const LONGEST_MS: u32 = 600_000;
/// Steps on their way to the asker.
const STEPS: usize = 256;

/// A wish to end everything that this process runs.
#[derive(Debug)]
pub struct DownAsked {
    /// Time for all of it.
    pub within: Duration,
    /// End at once.
    pub now: bool,
    /// Where each step is told; dropped when all has ended.
    pub steps: mpsc::Sender<DownStep>,
}

/// One step of an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownStep {
    /// Id of the instance, or `gateway`, `master`.
    pub instance: String,
    /// What became of it.
    pub outcome: DownOutcome,
    /// Streams that are open or were cut off.
    pub open_streams: u32,
    /// Requests that are open or were cut off.
    pub open_requests: u32,
}

/// How far an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownOutcome {
    /// It takes nothing new and finishes what runs.
    Draining,
    /// It ended.
    Ended,
    /// It ended before all of its work was done.
    CutOff,
}

impl DownOutcome {
    fn word(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Ended => "ended",
            Self::CutOff => "cut_off",
        }
    }
}

pub(super) async fn down(shared: &Shared, request: pb::DownRequest) -> Result<Answers<pb::DownProgress>, Status> {
    if request.within_ms > LONGEST_MS {
        let message = format!("within_ms: is {}, expected 0 to {LONGEST_MS}", request.within_ms);
        return Err(status::refusal(Reason::InvalidMessage, message));
    }
    let nobody = || Status::unimplemented("this master cannot be ended by its API: send it SIGTERM");
    if !shared.may_go_down() {
        return Err(nobody());
    }
    let within = if request.within_ms == 0 { USUAL } else { Duration::from_millis(u64::from(request.within_ms)) };
    let (steps, told) = mpsc::channel(STEPS);
    shared.downs.send(DownAsked { within, now: request.now, steps }).await.map_err(|_| nobody())?;
    let progress = |step: DownStep| {
        Ok(pb::DownProgress {
            instance: step.instance,
            outcome: step.outcome.word().to_owned(),
            open_streams: step.open_streams,
            open_requests: step.open_requests,
        })
    };
    Ok(Box::pin(ReceiverStream::new(told).map(progress)))
}

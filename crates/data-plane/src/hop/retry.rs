//! Whether a request may be tried again: what became of the try, and what a repeat would do.

use synego_balance::Failure;
use synego_identity::Refused;
use synego_model::Reason;

use super::answer::Refusal;
use super::deadline::Lapse;
use crate::h1;
use crate::pool::SendError;

/// What became of a request that has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Surely nothing: any request may be repeated.
    NotProcessed,
    /// Perhaps all of it: only an idempotent one may be repeated.
    Unknown,
    /// A repeat would fare no better.
    Final,
}

/// A try without an answer that could be passed on.
#[derive(Debug)]
pub(crate) struct Miss {
    pub(crate) refusal: Refusal,
    pub(crate) failure: Failure,
    pub(crate) fate: Fate,
}

impl Fate {
    /// Whether a further try is right, budget and count aside.
    ///
    /// - `idempotent`: whether the method says so.
    /// - `can_repeat`: whether the body can be sent again.
    pub(crate) fn allows_repeat(self, idempotent: bool, can_repeat: bool) -> bool {
        can_repeat && (self == Self::NotProcessed || (self == Self::Unknown && idempotent))
    }
}

impl Miss {
    pub(crate) fn connect(message: String) -> Self {
        let refusal = Refusal::new(Reason::ConnectFailed, message);
        Self { refusal, failure: Failure::Connect, fate: Fate::NotProcessed }
    }

    pub(crate) fn lapse(lapse: Lapse, service: &impl std::fmt::Display) -> Self {
        let (reason, message, failure, fate) = match lapse {
            Lapse::Total => {
                (Reason::DeadlineExceeded, "the time of the request is over", Failure::TimedOut, Fate::Final)
            }
            Lapse::Try => {
                (Reason::DeadlineExceeded, "no answer in the time of a try", Failure::TimedOut, Fate::Unknown)
            }
            Lapse::Idle => (Reason::IdleTimeout, "nothing moved in either direction", Failure::TimedOut, Fate::Final),
            Lapse::ClientSilent => {
                (Reason::ClientTooSlow, "the body of the request came too slowly", Failure::Abandoned, Fate::Final)
            }
        };
        Self { refusal: Refusal::new(reason, format!("{message}, to {service}")), failure, fate }
    }

    /// The other side did not take our certificate, and ended the connection for it.
    pub(crate) fn not_taken(error: &SendError, whom: &impl std::fmt::Display, refused: &str) -> Self {
        // Where it is known of this very connection, nothing of the request was looked at.
        let is_certain = match error {
            SendError::Unsent => true,
            SendError::Reset(cause) => match cause.downcast_ref::<h1::Error>() {
                Some(h1::Error::Io(error)) => error.get_ref().is_some_and(|inner| inner.is::<Refused>()),
                _ => false,
            },
            _ => false,
        };
        let fate = if is_certain { Fate::NotProcessed } else { Fate::Unknown };
        let refusal = Refusal::new(Reason::ConnectFailed, format!("cannot reach {whom}: {refused}"));
        Self { refusal, failure: Failure::Connect, fate }
    }

    pub(crate) fn send(error: &SendError, whom: &impl std::fmt::Display) -> Self {
        let refused =
            |reason, message: String, failure, fate| Self { refusal: Refusal::new(reason, message), failure, fate };
        match error {
            SendError::Unsent => refused(
                Reason::UpstreamReset,
                format!("the new connection to {whom} ended before the request was sent"),
                Failure::Reset,
                Fate::NotProcessed,
            ),
            SendError::Refused => refused(
                Reason::Draining,
                format!("{whom} takes no further stream on this connection"),
                Failure::Shed,
                Fate::NotProcessed,
            ),
            SendError::BadResponse(cause) => refused(
                Reason::BadResponse,
                format!("the answer of {whom} broke the rules of its protocol: {cause}"),
                Failure::Reset,
                Fate::Final,
            ),
            SendError::Client(cause) => refused(
                Reason::BadRequest,
                format!("the body of the request broke off: {cause}"),
                Failure::Abandoned,
                Fate::Final,
            ),
            SendError::Reset(cause) => refused(
                Reason::UpstreamReset,
                format!("the connection to {whom} ended before its answer came: {cause}"),
                Failure::Reset,
                Fate::Unknown,
            ),
        }
    }
}

/// What an answer that a peer's sidecar (or SDK) made itself means for the try; `None`: it is an answer like any other.
pub(crate) fn of_peer(reason: Reason) -> Option<(Fate, Failure)> {
    match reason {
        Reason::ConnectFailed => Some((Fate::NotProcessed, Failure::Connect)),
        Reason::Draining
        | Reason::Overloaded
        | Reason::Starting
        | Reason::ProbeFailed
        | Reason::ProcessExited
        | Reason::ProcessStopped
        | Reason::CrashLoop
        | Reason::NoReadyEndpoint
        | Reason::SaidByService
        | Reason::QueueFull
        | Reason::HandlerStuck => Some((Fate::NotProcessed, Failure::Shed)),
        Reason::UpstreamReset => Some((Fate::Unknown, Failure::Reset)),
        Reason::DeadlineExceeded => Some((Fate::Unknown, Failure::TimedOut)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_surely_not_processed_is_repeated_for_every_method() {
        for (fate, idempotent, expected) in [
            (Fate::NotProcessed, false, true),
            (Fate::NotProcessed, true, true),
            (Fate::Unknown, false, false),
            (Fate::Unknown, true, true),
            (Fate::Final, true, false),
        ] {
            assert_eq!(fate.allows_repeat(idempotent, true), expected, "{fate:?} {idempotent}");
            assert!(!fate.allows_repeat(idempotent, false), "a body that is gone is never repeated");
        }
    }

    #[test]
    fn a_peer_that_did_nothing_blames_itself_only_when_it_cannot_reach_its_service() {
        assert_eq!(of_peer(Reason::ConnectFailed), Some((Fate::NotProcessed, Failure::Connect)));
        assert_eq!(of_peer(Reason::Draining), Some((Fate::NotProcessed, Failure::Shed)));
        assert_eq!(of_peer(Reason::Overloaded), Some((Fate::NotProcessed, Failure::Shed)));
        assert_eq!(of_peer(Reason::UpstreamReset), Some((Fate::Unknown, Failure::Reset)));
        assert_eq!(of_peer(Reason::InvalidBody), None);
        assert_eq!(of_peer(Reason::BadResponse), None);
    }

    #[test]
    fn a_lapse_of_the_whole_is_final() {
        assert_eq!(Miss::lapse(Lapse::Total, &"users").fate, Fate::Final);
        assert_eq!(Miss::lapse(Lapse::Try, &"users").fate, Fate::Unknown);
        assert_eq!(Miss::lapse(Lapse::ClientSilent, &"users").failure, Failure::Abandoned);
    }
}

//! pick and send: one try, and another one elsewhere when the first did nothing that could not be repeated.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use http::StatusCode;
use rand::Rng;
use smallvec::SmallVec;
use synego_balance::{PickError, Slot, backoff_ceiling};
use synego_identity::ConnectError;
use synego_model::{InstanceId, Limits, Reason, ServiceName};
use synego_runtime::{clock, tasks};

use super::answer::{self, Refusal};
use super::deadline::{self, Lapse};
use super::outgoing::Outgoing;
use super::record::Exchange;
use super::retry::{self, Fate, Miss};
use super::station::{Station, To, Way};
use super::timer::Alarm;
use super::{head, headers};
use crate::message::{Answer, Body, Frame};
use crate::pool::{Received, SendError, Speak, Target, Within};
use crate::upstreams::{Flight, Service};

/// Time for a connection to the own service.
const OWN_CONNECT: Duration = Duration::from_millis(300);

/// The head of an answer, and what its body needs.
pub(crate) struct Sent {
    pub(crate) answer: Answer<Received>,
    /// `None`: it went to the own service.
    pub(crate) flight: Option<Flight>,
    /// When the head came.
    pub(crate) at: Instant,
}

/// Where one try goes.
struct Try {
    target: Rc<Target>,
    speak: Speak,
    connect: Duration,
    flight: Option<Flight>,
    id: Option<InstanceId>,
    /// When it was picked.
    began: Instant,
}

/// Who is tried, as messages name it.
struct Whom<'a> {
    id: Option<InstanceId>,
    service: &'a ServiceName,
}

impl fmt::Display for Whom<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => id.fmt(f),
            None => self.service.fmt(f),
        }
    }
}

/// Sends a request until it has an answer or no further try is right.
///
/// # Errors
/// Why there is no answer, as the last try saw it.
pub(crate) async fn send(
    station: &Station,
    limits: &Limits,
    way: &Way,
    outgoing: &Outgoing<'_>,
    exchange: &mut Exchange,
    alarm: &mut Alarm,
) -> Result<Sent, Refusal> {
    if let To::Service(service) = &way.to {
        service.budget.borrow_mut().deposit(exchange.started);
    }
    let mut tried: SmallVec<[Slot; 4]> = SmallVec::new();
    let mut missed: Option<Refusal> = None;
    loop {
        // pick
        let mut picked = match pick(station, limits, way, outgoing, &tried).await {
            Ok(picked) => picked,
            Err(refusal) => return Err(missed.unwrap_or(refusal)),
        };
        exchange.tried(picked.id.clone());
        tried.extend(picked.flight.as_ref().map(|flight| flight.slot));
        // send
        let began = picked.began;
        let whom = Whom { id: picked.id.clone(), service: &way.account.service };
        let miss = match attempt(station, limits, outgoing, &picked, &whom, alarm).await {
            Ok(answer) => {
                let peer = picked.flight.as_ref().and(headers::reason(&answer.fields)).and_then(retry::of_peer);
                let at = clock::now();
                let Some((fate, failure)) = peer else {
                    note_answer(station, &mut picked, &answer, began, at);
                    return Ok(Sent { answer, flight: picked.flight, at });
                };
                note_failure(station, &mut picked, failure);
                if !may_repeat(fate, way, outgoing, tried.len()) {
                    return Ok(Sent { answer, flight: picked.flight, at });
                }
                drain(answer);
                None
            }
            Err(miss) => Some(miss),
        };
        if let Some(miss) = miss {
            note_failure(station, &mut picked, miss.failure);
            if !may_repeat(miss.fate, way, outgoing, tried.len()) {
                return Err(miss.refusal);
            }
            missed = Some(miss.refusal);
        }
    }
}

/// An instance for the next try; the own service has only itself.
async fn pick(
    station: &Station,
    limits: &Limits,
    way: &Way,
    outgoing: &Outgoing<'_>,
    tried: &[Slot],
) -> Result<Try, Refusal> {
    let mut began = clock::now();
    match &way.to {
        To::Own { address, speak, idle_limit, .. } => Ok(Try {
            target: station.pool.target(address, &way.account.service, *idle_limit),
            speak: *speak,
            connect: OWN_CONNECT,
            flight: None,
            id: None,
            began,
        }),
        To::Service(service) => {
            let key = outgoing.hash_key(&way.policy);
            let mut picked = service.pick(key, tried, began, &mut station.rng.borrow_mut());
            if matches!(picked, Err(PickError::AllTried)) {
                // Only those that failed are left: they get a moment.
                let ceiling = backoff_ceiling(tried.len() as u32);
                let wait = station.rng.borrow_mut().random_range(Duration::ZERO..=ceiling);
                tokio::time::sleep(wait).await;
                began = clock::now();
                picked = service.pick(key, &[], began, &mut station.rng.borrow_mut());
            }
            let picked = picked.map_err(|error| not_picked(&error, service))?;
            let speak = if outgoing.head.is_http2() { Speak::Http2 } else { Speak::Http1 };
            Ok(Try {
                target: station.pool.target(&picked.address, &service.name, limits.pool_idle),
                speak,
                connect: way.policy.connect,
                flight: Some(picked.flight),
                id: Some(picked.id),
                began,
            })
        }
    }
}

fn not_picked(error: &PickError, service: &Service) -> Refusal {
    let name = &service.name;
    match error {
        PickError::NoEndpoint { known } => {
            Refusal::new(Reason::NoReadyEndpoint, format!("no ready endpoint for {name}, {known} known"))
        }
        PickError::AllTried => Refusal::new(Reason::NoReadyEndpoint, format!("every endpoint of {name} was tried")),
        PickError::AllFull => {
            Refusal::new(Reason::Overloaded, format!("every endpoint of {name} has as many requests as it may have"))
        }
    }
}

/// One try: connects if it must, sends, waits for the head of the answer.
async fn attempt(
    station: &Station,
    limits: &Limits,
    outgoing: &Outgoing<'_>,
    picked: &Try,
    whom: &Whom<'_>,
    alarm: &mut Alarm,
) -> Result<Answer<Received>, Miss> {
    let began = picked.began;
    let mut fresh = false;
    loop {
        let within = Within { made: picked.connect, there: outgoing.time_to(picked.connect, began) };
        let connect = picked.target.ready(picked.speak, limits, within, fresh);
        let ready = connect.await.map_err(|error| match error {
            ConnectError::TimedOut { .. } if within.there < within.made => Miss::lapse(Lapse::Total, whom),
            error => Miss::connect(format!("cannot reach {whom}: {error}")),
        })?;
        let is_reused = ready.is_reused();
        let answer = std::pin::pin!(ready.send(outgoing, limits));
        let error = match in_time(answer, outgoing, began, alarm).await {
            Ok(Ok(answer)) => return checked(outgoing, answer, limits, whom),
            Ok(Err(error)) => error,
            Err(lapse) => return Err(Miss::lapse(lapse, whom)),
        };
        tracing::debug!(hop = station.kind.word(), %whom, ?error, is_reused, "try failed");
        if deadline::was_its_time(outgoing.deadline.of_stream(), clock::now()) {
            return Err(Miss::lapse(Lapse::Total, whom));
        }
        if !is_reused
            && matches!(error, SendError::Unsent | SendError::Reset(_))
            && let Some(refused) = picked.target.refused_since(began)
        {
            return Err(Miss::not_taken(&error, whom, &refused));
        }
        // A connection that was kept may have died unseen: that says nothing about the instance.
        let died = match error {
            SendError::Unsent => true,
            SendError::Reset(_) => {
                picked.flight.is_none()
                    && Fate::Unknown.allows_repeat(outgoing.head.is_idempotent(), outgoing.intake.can_repeat())
            }
            _ => false,
        };
        if fresh || !is_reused || !died {
            return Err(Miss::send(&error, whom));
        }
        fresh = true;
    }
}

/// Waits for an answer while the limits of the request hold.
async fn in_time<F: Future>(
    mut answer: Pin<&mut F>,
    outgoing: &Outgoing<'_>,
    began: Instant,
    alarm: &mut Alarm,
) -> Result<F::Output, Lapse> {
    let mut now = began;
    loop {
        let look = outgoing.deadline.look(began, outgoing.intake.progress(), now);
        let outcome = poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => alarm.poll(look, cx).map(|()| None),
        });
        if let Some(answer) = outcome.await {
            return Ok(answer);
        }
        now = clock::now();
        if outgoing.intake.is_too_slow(now) {
            return Err(Lapse::ClientSilent);
        }
        let (when, lapse) = outgoing.deadline.next(began, outgoing.intake.progress());
        if when <= now {
            return Err(lapse);
        }
    }
}

/// An answer that keeps to the rules: no upgrade unasked, no head beyond the limits.
fn checked(
    outgoing: &Outgoing<'_>,
    answer: Answer<Received>,
    limits: &Limits,
    whom: &Whom<'_>,
) -> Result<Answer<Received>, Miss> {
    let (size, largest) = answer.fields.sizes();
    let changes = answer.status == StatusCode::SWITCHING_PROTOCOLS;
    let unasked = changes && !(outgoing.head.is_upgrade && head::asks_for_websocket(&answer.fields));
    let too_many = answer.fields.len() > limits.header_count as usize;
    let fault = match (unasked, too_many || size > limits.headers || largest > limits.header) {
        (true, _) => "changed the protocol unasked",
        (_, true) => "has a head beyond the limits",
        _ => return Ok(answer),
    };
    let refusal = Refusal::new(Reason::BadResponse, format!("the answer of {whom} {fault}"));
    Err(Miss { refusal, failure: synego_balance::Failure::Reset, fate: Fate::Final })
}

/// Whether another try is right, allowed, and affordable.
fn may_repeat(fate: Fate, way: &Way, outgoing: &Outgoing<'_>, tries: usize) -> bool {
    let To::Service(service) = &way.to else { return false };
    let now = clock::now();
    let in_time = outgoing.deadline.ends(outgoing.intake.progress()).is_none_or(|end| end > now);
    tries <= way.policy.retries as usize
        && in_time
        && fate.allows_repeat(outgoing.head.is_idempotent(), outgoing.intake.can_repeat())
        && service.budget.borrow_mut().try_withdraw(now)
}

fn note_answer(station: &Station, picked: &mut Try, answer: &Answer<Received>, began: Instant, now: Instant) {
    let Some(flight) = &mut picked.flight else { return };
    let failed = answer.status.is_server_error() || answer::grpc_status(&answer.fields).is_some_and(answer::is_failure);
    flight.answered(began, now, failed, &mut *station.rng.borrow_mut());
}

fn note_failure(station: &Station, picked: &mut Try, failure: synego_balance::Failure) {
    if let Some(flight) = &mut picked.flight {
        flight.failed(failure, &mut *station.rng.borrow_mut());
    }
}

/// Reads the little that a refusal holds, so that its connection can be used again.
fn drain(answer: Answer<Received>) {
    const MOST: usize = 16 * 1024;
    let Answer { mut body, .. } = answer;
    tasks::spawn_local("drain-refusal", tasks::Kind::Connection, async move {
        let mut read = 0;
        let all = poll_fn(|cx| {
            while read < MOST {
                match ready!(body.poll_frame(cx)) {
                    Some(Ok(Frame::Data(data))) => read += data.len(),
                    _ => break,
                }
            }
            Poll::Ready(())
        });
        let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
    });
}

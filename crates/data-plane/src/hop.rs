//! The life of a request at a hop, the same at all three: accept → route → admit → pick → send → answer.
//!
//! Read [`relay`] from top to bottom; each step has its file below `hop/`, each hop its table in `ingress`, `outbound`
//! and `inbound`.

pub(crate) mod accept;
pub(crate) mod access;
pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod copy;
pub(crate) mod deadline;
pub(crate) mod early;
pub(crate) mod ending;
pub(crate) mod farewell;
pub(crate) mod hand;
pub(crate) mod head;
pub(crate) mod headers;
pub(crate) mod intake;
pub(crate) mod introduced;
pub(crate) mod leave;
pub(crate) mod line;
pub(crate) mod outgoing;
pub(crate) mod path;
pub(crate) mod record;
pub(crate) mod retry;
pub(crate) mod send;
pub(crate) mod station;
pub(crate) mod timer;
pub(crate) mod trace;
pub(crate) mod upgrade;

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_util::FutureExt;
use http::{StatusCode, Version};
use synego_model::Reason;
use synego_runtime::clock;

use answer::Refusal;
use body::{AnswerBody, Bounds, Relayed};
use connection::Client;
use deadline::Deadline;
use early::Early;
use head::{Form, Head};
use intake::{Intake, Source};
use leave::Leave;
use outgoing::Outgoing;
use record::Exchange;
use send::Sent;
use station::{Station, Table, To};
use timer::Alarm;
use upgrade::Tunnel;

use crate::fields::{Fields, Name};
use crate::h1::Fault;
use crate::message::{Answer, Body, Request};
use crate::tenure::Tenure;
use crate::upstreams::Flight;

/// Bytes of a refused request's body that are still read, so that its client sees the answer.
const DISCARD: u64 = 256 * 1024;

/// What a client gets.
pub(crate) struct Reply {
    pub(crate) answer: Answer<AnswerBody>,
    /// What the connection becomes after the head of the answer.
    pub(crate) tunnel: Option<Box<Tunnel>>,
}

/// One request and its answer. A panic on the way is this request's alone: it gets 500 `internal`.
///
/// - `alarm`: may have been used for others before.
/// - `early`: takes what comes before the answer.
pub(crate) async fn exchange(
    station: Rc<Station>,
    client: Rc<Client>,
    request: Box<Request>,
    body: Source,
    alarm: &mut Alarm,
    early: &Early,
) -> Reply {
    let form = Form::of(&request, client.trusted);
    let mut exchange = Exchange::begin(&station, request.version, clock::now());
    let relayed =
        AssertUnwindSafe(relay(&station, &client, request, body, &mut exchange, (alarm, early))).catch_unwind().await;
    let answer = match relayed {
        Ok(Ok(relay)) => return pass_on(&station, relay, exchange),
        Ok(Err(refusal)) => refuse(&station, &refusal, form, exchange).await,
        Err(_) => {
            let refusal = Refusal::new(Reason::Internal, "the mesh failed on this request");
            refuse(&station, &refusal, form, exchange).await
        }
    };
    Reply { answer, tunnel: None }
}

/// The answer to a head that cannot be read.
pub(crate) fn unreadable(station: &Rc<Station>, client: &Client, fault: Fault, version: Version) -> Answer<AnswerBody> {
    let mut exchange = Exchange::begin(station, version, clock::now());
    exchange.is_named(&mut Fields::new(), client.trusted);
    let form = Form { is_http2: version == Version::HTTP_2, ..Form::default() };
    told(station, &Refusal::unreadable(fault, &client.limits), form, exchange)
}

/// answer: our own, which says why.
async fn refuse(station: &Station, refusal: &Refusal, form: Form, exchange: Exchange) -> Answer<AnswerBody> {
    if let Some(intake) = exchange.intake().filter(|_| !form.waits) {
        Box::pin(intake.discard(DISCARD)).await;
    }
    told(station, refusal, form, exchange)
}

fn told(station: &Station, refusal: &Refusal, form: Form, mut exchange: Exchange) -> Answer<AnswerBody> {
    let answer = answer::refuse(refusal, form, &exchange.request_id(), &mut *station.rng.borrow_mut());
    let grpc = form.is_grpc.then_some(refusal.reason.code() as u16);
    // The status of an answer to gRPC is always 200: what counts is the reason.
    let status = if form.is_grpc { refusal.reason.status() } else { answer.status.as_u16() };
    exchange.answered(status, Some(refusal.reason), grpc, clock::now());
    exchange.explained(&refusal.message);
    let is_heard = !exchange.intake().is_some_and(|intake| intake.is_broken());
    exchange.finish(is_heard);
    answer
}

/// A request on its way to its answer.
struct Relay {
    sent: Sent,
    intake: Intake,
    bounds: Bounds,
    is_upgrade: bool,
    tenure: Tenure,
}

async fn relay(
    station: &Rc<Station>,
    client: &Client,
    mut request: Box<Request>,
    body: Source,
    exchange: &mut Exchange,
    (alarm, early): (&mut Alarm, &Early),
) -> Result<Relay, Refusal> {
    // accept: who asks, and whether it can be read in one way only.
    let fits = head::check_sizes(&request, station.table.before(client.trusted), &client.limits);
    station.table.prove(&mut request.fields, client);
    exchange.is_named(&mut request.fields, client.trusted);
    fits?;
    let head = Head::check(&request, body.is_ended())?;
    exchange.checked(&head);
    let mut fields = request.into_fields();
    let lowest_rate = if head.is_grpc { 0 } else { client.limits.body_rate };
    let intake = Intake::new(body, client.limits.replay, lowest_rate, exchange.started);
    exchange.taking(intake.clone());
    if station.server.is_draining() {
        return Err(Refusal::new(Reason::Draining, "this instance is draining"));
    }

    // route: which service, under which policy.
    let way = station.table.route(station, client, &head, &fields).await?;
    exchange.routed(way.account.clone());
    if let To::Own { tenure, .. } = &way.to {
        exchange.holds(tenure);
    }

    // admit: a place among the requests in flight.
    exchange.admitted(station.table.admit(station, &client.limits)?);

    // pick, send: to one of the instances, to another one if that did nothing.
    let has_try = !matches!(station.table, Table::Inbound(_));
    let deadline = Deadline::of(&fields, head.is_grpc, has_try, &way.policy, &client.limits, exchange.started);
    headers::forward_request(&mut fields);
    station.table.address(&mut fields, client, &head);
    let is_upgrade = head.is_upgrade;
    if is_upgrade {
        headers::ask_for_websocket(&mut fields);
    }
    let outgoing = Outgoing { head, fields: fields.into(), intake: intake.clone(), deadline, early };
    let sent = send::send(station, &client.limits, &way, &outgoing, exchange, alarm).await?;
    intake.settle();

    let has_length = sent.answer.fields.has(Name::ContentLength);
    let bounds = Bounds::of(outgoing.head.is_grpc, has_length, &way.policy, &client.limits, &outgoing.deadline);
    let tenure = match way.to {
        To::Own { tenure, .. } => tenure,
        To::Service(_) => Tenure::default(),
    };
    Ok(Relay { sent, intake, bounds, is_upgrade, tenure })
}

/// answer: the upstream's own, with the fields of its connection taken off and ours put on.
fn pass_on(station: &Rc<Station>, relay: Relay, mut exchange: Exchange) -> Reply {
    let Relay { sent, intake, bounds, is_upgrade, tenure } = relay;
    let Sent { answer, mut flight, at } = sent;
    let Answer { status, mut fields, body } = answer;
    headers::remove_hop_by_hop(&mut fields);
    station.table.clear_answer(&mut fields);
    exchange.tell_request_id(&mut fields);
    exchange.answered(status.as_u16(), headers::reason(&fields), answer::grpc_status(&fields), at);

    if is_upgrade && status == StatusCode::SWITCHING_PROTOCOLS {
        headers::ask_for_websocket(&mut fields);
        exchange.is_stream();
        flight.iter_mut().for_each(Flight::becomes_stream);
        let tunnel = body.into_tunnel().map(|(upstream, front)| {
            Box::new(Tunnel { upstream, front, exchange, flight, idle: bounds.silence, tenure })
        });
        return Reply { answer: Answer { status, fields, body: AnswerBody::empty() }, tunnel };
    }
    let is_events = fields.get(Name::ContentType).is_some_and(|kind| kind.starts_with(b"text/event-stream"));
    if is_events {
        exchange.is_stream();
        flight.iter_mut().for_each(Flight::becomes_stream);
    }
    let leave = (is_events || bounds.is_grpc).then(|| Leave::of(tenure, is_events)).flatten();
    let relayed = Relayed::new(body, flight, intake, exchange, bounds, at, leave);
    Reply { answer: Answer { status, fields, body: AnswerBody::relayed(relayed) }, tunnel: None }
}

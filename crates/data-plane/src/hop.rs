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
pub(crate) mod ending;
pub(crate) mod head;
pub(crate) mod headers;
pub(crate) mod intake;
pub(crate) mod line;
pub(crate) mod marks;
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
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Body;
use synego_model::Reason;
use synego_runtime::clock;

use answer::Refusal;
use body::{AnswerBody, Bounds, Relayed};
use connection::Client;
use deadline::Deadline;
use head::{Form, Head};
use intake::{Intake, Source};
use marks::Marks;
use outgoing::Outgoing;
use record::Exchange;
use send::Sent;
use station::{Station, Table};
use upgrade::Tunnel;

use crate::h1::Fault;
use crate::upstreams::Flight;

/// Bytes of a refused request's body that are still read, so that its client sees the answer.
const DISCARD: u64 = 256 * 1024;

/// What a client gets.
pub(crate) struct Reply {
    pub(crate) answer: Response<AnswerBody>,
    /// What the connection becomes after the head of the answer.
    pub(crate) tunnel: Option<Box<Tunnel>>,
}

/// One request and its answer. A panic on the way is this request's alone: it gets 500 `internal`.
pub(crate) async fn exchange(
    station: Rc<Station>,
    client: Rc<Client>,
    request: Box<Request<()>>,
    body: Source,
) -> Reply {
    let marks = Marks::of(request.headers());
    let form = Form::of(&request, client.trusted, marks);
    let mut exchange = Exchange::begin(&station, request.version(), clock::now());
    let relayed = AssertUnwindSafe(relay(&station, &client, request, body, marks, &mut exchange)).catch_unwind().await;
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
pub(crate) fn unreadable(
    station: &Rc<Station>,
    client: &Client,
    fault: Fault,
    version: Version,
) -> Response<AnswerBody> {
    let mut exchange = Exchange::begin(station, version, clock::now());
    exchange.is_named(&mut HeaderMap::new(), Marks::default(), client.trusted);
    let form = Form { is_http2: version == Version::HTTP_2, ..Form::default() };
    told(station, &Refusal::unreadable(fault, &client.limits), form, exchange)
}

/// answer: our own, which says why.
async fn refuse(station: &Station, refusal: &Refusal, form: Form, exchange: Exchange) -> Response<AnswerBody> {
    if let Some(intake) = exchange.intake().filter(|_| !form.waits) {
        Box::pin(intake.discard(DISCARD)).await;
    }
    told(station, refusal, form, exchange)
}

fn told(station: &Station, refusal: &Refusal, form: Form, mut exchange: Exchange) -> Response<AnswerBody> {
    let answer = answer::refuse(refusal, form, &exchange.request_id(), &mut *station.rng.borrow_mut());
    let grpc = form.is_grpc.then_some(refusal.reason.code() as u16);
    // The status of an answer to gRPC is always 200: what counts is the reason.
    let status = if form.is_grpc { refusal.reason.status() } else { answer.status().as_u16() };
    exchange.answered(status, Some(refusal.reason), grpc, clock::now());
    exchange.explained(&refusal.message);
    let is_heard = !exchange.intake().is_some_and(|intake| intake.is_broken());
    exchange.finish(is_heard);
    answer
}

/// A request on its way to its answer.
struct Relay {
    sent: Sent,
    marks: Marks,
    intake: Intake,
    bounds: Bounds,
    is_upgrade: bool,
}

async fn relay(
    station: &Rc<Station>,
    client: &Client,
    mut request: Box<Request<()>>,
    body: Source,
    marks: Marks,
    exchange: &mut Exchange,
) -> Result<Relay, Refusal> {
    // accept: who asks, and whether it can be read in one way only.
    let fits = head::check_sizes(&request, station.table.before(client.trusted), &client.limits);
    station.table.prove(request.headers_mut(), marks, client);
    exchange.is_named(request.headers_mut(), marks, client.trusted);
    fits?;
    let head = Head::check(&request, body.is_end_stream(), marks)?;
    exchange.checked(&head);
    let mut headers = std::mem::take(request.headers_mut());
    drop(request);
    let lowest_rate = if head.is_grpc { 0 } else { client.limits.body_rate };
    let intake = Intake::new(body, client.limits.replay, lowest_rate, exchange.started);
    exchange.taking(intake.clone());
    if station.server.is_draining() {
        return Err(Refusal::new(Reason::Draining, "this instance is draining"));
    }

    // route: which service, under which policy.
    let way = station.table.route(station, client, &head, &headers).await?;
    exchange.routed(way.route.clone(), way.service.clone());

    // admit: a place among the requests in flight.
    exchange.admitted(station.table.admit(station, &client.limits)?);

    // pick, send: to one of the instances, to another one if that did nothing.
    let has_try = !matches!(station.table, Table::Inbound(_));
    let deadline = Deadline::of(&headers, marks, head.is_grpc, has_try, &way.policy, &client.limits, exchange.started);
    headers::forward_request(&mut headers, marks);
    station.table.address(&mut headers, marks, client, &head);
    let is_upgrade = head.is_upgrade;
    if is_upgrade {
        headers::ask_for_websocket(&mut headers);
    }
    let outgoing = Outgoing { head, headers: headers.into(), intake: intake.clone(), deadline };
    let sent = send::send(station, &client.limits, &way, &outgoing, exchange).await?;
    intake.settle();

    let answer_marks = Marks::of(sent.answer.headers());
    let has_length = answer_marks.has(Marks::CONTENT_LENGTH);
    let bounds = Bounds::of(outgoing.head.is_grpc, has_length, &way.policy, &client.limits, &outgoing.deadline);
    Ok(Relay { sent, marks: answer_marks, intake, bounds, is_upgrade })
}

/// answer: the upstream's own, with the fields of its connection taken off and ours put on.
fn pass_on(station: &Rc<Station>, relay: Relay, mut exchange: Exchange) -> Reply {
    let Relay { sent, marks, intake, bounds, is_upgrade } = relay;
    let Sent { answer, mut flight, at } = sent;
    let (mut parts, body) = answer.into_parts();
    parts.version = Version::HTTP_11;
    headers::remove_hop_by_hop(&mut parts.headers, marks);
    station.table.clear_answer(&mut parts.headers, marks);
    parts.headers.insert(trace::REQUEST_ID, exchange.request_id());
    let reason = if marks.has(Marks::INTERNAL) { headers::reason(&parts.headers) } else { None };
    let grpc_status = if marks.has(Marks::GRPC_STATUS) { answer::grpc_status(&parts.headers) } else { None };
    exchange.answered(parts.status.as_u16(), reason, grpc_status, at);

    if is_upgrade && parts.status == StatusCode::SWITCHING_PROTOCOLS {
        headers::ask_for_websocket(&mut parts.headers);
        exchange.is_stream();
        flight.iter_mut().for_each(Flight::becomes_stream);
        let tunnel = body
            .into_tunnel()
            .map(|(upstream, front)| Box::new(Tunnel { upstream, front, exchange, flight, idle: bounds.silence }));
        return Reply { answer: Response::from_parts(parts, AnswerBody::empty()), tunnel };
    }
    if marks.has(Marks::CONTENT_TYPE)
        && parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
    {
        exchange.is_stream();
        flight.iter_mut().for_each(Flight::becomes_stream);
    }
    let relayed = Relayed::new(body, flight, intake, exchange, bounds, at);
    Reply { answer: Response::from_parts(parts, AnswerBody::relayed(relayed)), tunnel: None }
}

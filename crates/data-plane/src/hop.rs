//! The life of a request at a hop, the same at all three: accept → route → admit → pick → send → answer.
//!
//! Read [`relay`] from top to bottom; each step has its file below `hop/`, each hop its table in `ingress`, `outbound`
//! and `inbound`.

pub(crate) mod accept;
pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod copy;
pub(crate) mod deadline;
pub(crate) mod head;
pub(crate) mod headers;
pub(crate) mod intake;
pub(crate) mod line;
pub(crate) mod outgoing;
pub(crate) mod pace;
pub(crate) mod path;
pub(crate) mod record;
pub(crate) mod retry;
pub(crate) mod send;
pub(crate) mod station;
pub(crate) mod strict;
pub(crate) mod trace;
pub(crate) mod upgrade;
pub(crate) mod watched;

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_util::FutureExt;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use synego_model::Reason;
use synego_runtime::clock;

use answer::Refusal;
use body::{AnswerBody, Bounds, Relayed};
use connection::Client;
use deadline::Deadline;
use head::{Form, Head};
use intake::Intake;
use outgoing::Outgoing;
use record::Exchange;
use send::Sent;
use station::{Station, Table};

/// Bytes of a refused request's body that are still read, so that its client sees the answer.
const DISCARD: u64 = 256 * 1024;

/// One request and its answer. A panic on the way is this request's alone: it gets 500 `internal`.
async fn exchange(station: Rc<Station>, client: Rc<Client>, request: Request<Incoming>) -> Response<AnswerBody> {
    let form = Form::of(&request, client.trusted);
    let mut exchange = Exchange::begin(&station, client.pace.begin(), request.version(), clock::now());
    let relayed = AssertUnwindSafe(relay(&station, &client, request, &mut exchange)).catch_unwind().await;
    let mut answer = match relayed {
        Ok(Ok(relay)) => pass_on(&station, relay, exchange),
        Ok(Err(refusal)) => refuse(&station, &refusal, form, exchange).await,
        Err(_) => {
            let refusal = Refusal::new(Reason::Internal, "the mesh failed on this request");
            refuse(&station, &refusal, form, exchange).await
        }
    };
    if client.pace.is_ending() && !form.is_http2 && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// answer: our own, which says why.
async fn refuse(station: &Station, refusal: &Refusal, form: Form, mut exchange: Exchange) -> Response<AnswerBody> {
    if let Some(intake) = exchange.intake().filter(|_| !form.waits) {
        intake.discard(DISCARD).await;
    }
    let answer = answer::refuse(refusal, form, &exchange.request_id(), &mut *station.rng.borrow_mut());
    let grpc = form.is_grpc.then_some(refusal.reason.code() as u16);
    // The status of an answer to gRPC is always 200: what counts is the reason.
    let status = if form.is_grpc { refusal.reason.status() } else { answer.status().as_u16() };
    exchange.answered(status, Some(refusal.reason), grpc);
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
    is_upgrade: Option<OnUpgrade>,
}

async fn relay(
    station: &Rc<Station>,
    client: &Client,
    mut request: Request<Incoming>,
    exchange: &mut Exchange,
) -> Result<Relay, Refusal> {
    // accept: who asks, and whether it can be read in one way only.
    station.table.clear(request.headers_mut());
    {
        let mut rng = station.rng.borrow_mut();
        let request_id = trace::request_id(request.headers_mut(), client.trusted, &mut *rng);
        let trace = trace::Trace::take(request.headers_mut(), &mut *rng);
        exchange.named(request_id, trace, station.table.caller(request.headers()));
    }
    if let Some(fault) = exchange.fault() {
        return Err(Refusal::unreadable(fault));
    }
    let head = Head::check(&request, &client.limits)?;
    exchange.checked(&head);
    let upgrade = head.is_upgrade.then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let mut headers = parts.headers;
    let lowest_rate = if head.is_grpc { 0 } else { client.limits.body_rate };
    let intake = Intake::new(body, client.limits.replay, lowest_rate, exchange.started);
    exchange.taking(intake.clone());
    if station.server.is_draining() {
        return Err(Refusal::new(Reason::Draining, "this instance is draining"));
    }

    // route: which service, under which policy.
    let way = station.table.route(station, &head, &headers).await?;
    exchange.routed(way.route.clone(), way.service.clone());

    // admit: a place among the requests in flight.
    exchange.admitted(station.table.admit(station, &client.limits)?);

    // pick, send: to one of the instances, to another one if that did nothing.
    let has_try = !matches!(station.table, Table::Inbound(_));
    let deadline = Deadline::of(&headers, head.is_grpc, has_try, &way.policy, &client.limits, exchange.started);
    headers::forward_request(&mut headers);
    station.table.address(&mut headers, client, &head);
    if upgrade.is_some() {
        headers::ask_for_websocket(&mut headers);
    }
    let outgoing = Outgoing { head, headers, intake: intake.clone(), deadline };
    let sent = send::send(station, &client.limits, &way, &outgoing, exchange).await?;
    intake.settle();

    let has_length = sent.answer.headers().contains_key(CONTENT_LENGTH);
    let bounds = Bounds::of(outgoing.head.is_grpc, has_length, &way.policy, &client.limits, &outgoing.deadline);
    Ok(Relay { sent, intake, bounds, is_upgrade: upgrade })
}

/// answer: the upstream's own, with the fields of its connection taken off and ours put on.
fn pass_on(station: &Rc<Station>, relay: Relay, mut exchange: Exchange) -> Response<AnswerBody> {
    let Relay { sent, intake, bounds, is_upgrade } = relay;
    let Sent { mut answer, lease, flight } = sent;
    let upstream_upgrade =
        (answer.status() == StatusCode::SWITCHING_PROTOCOLS).then(|| hyper::upgrade::on(&mut answer));
    let (mut parts, body) = answer.into_parts();
    parts.version = Version::HTTP_11;
    headers::remove_hop_by_hop(&mut parts.headers);
    station.table.clear_answer(&mut parts.headers);
    parts.headers.insert(trace::REQUEST_ID, exchange.request_id());
    let reason = headers::reason(&parts.headers);
    exchange.answered(parts.status.as_u16(), reason, answer::grpc_status(&parts.headers));

    if let (Some(upstream), Some(client)) = (upstream_upgrade, is_upgrade) {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        exchange.becomes_tunnel();
        upgrade::tunnel(station, client, upstream, exchange, flight, bounds.silence);
        return Response::from_parts(parts, AnswerBody::empty());
    }
    if parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        exchange.is_stream();
    }
    let relayed = Relayed::new(body, lease, flight, intake, exchange, bounds);
    Response::from_parts(parts, AnswerBody::relayed(relayed))
}

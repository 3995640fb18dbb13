//! What a hop does with the head of a request besides reading and routing it, and what it remembers.

use std::hint::black_box;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use synego_model::Limits;
use synego_runtime::logs::Level;

use super::{Run, h1};
use crate::account::Account;
use crate::calls::CallBook;
use crate::fields::Fields;
use crate::hop::head::{self, Form, Head};
use crate::hop::line::{self, Line};
use crate::hop::trace::{self, Trace};
use crate::hop::{headers, path};
use crate::metrics::{HopKind, Hub, WorkerMetrics};

/// Draws are the same in every process.
pub(super) const SEED: u64 = 7;

const ID: &str = "5f0c2a9e17b34d6688a1c3e5f7092b4d";

/// Whether a request can be read in one way only, and within its limits.
pub(super) fn check(text: &str) -> Option<Run> {
    let request = h1::request_of(text)?;
    let limits = Limits::default();
    Some(Box::new(move || {
        let form = Form::of(&request, false);
        let fits = head::check_sizes(&request, 0, &limits).is_ok();
        let host = Head::check(&request, true).map(|head| head.host().len());
        fits && !form.is_grpc && host.ok() == Some("shop.example.com".len())
    }))
}

/// Makes fields ready for the next hop; a copy of them is made for each run, which is part of it.
pub(super) fn forward() -> Option<Run> {
    let request = h1::request_of(h1::BROWSER)?;
    Some(Box::new(move || {
        let mut fields = request.fields.clone();
        headers::forward_request(&mut fields);
        headers::say_forwarded(&mut fields, "192.0.2.17", "shop.example.com", false);
        fields.len() == 12 - 1 + 3
    }))
}

/// A request that comes without an id and without a trace.
pub(super) fn trace_new() -> Option<Run> {
    let mut rng = SmallRng::seed_from_u64(SEED);
    Some(Box::new(move || {
        let mut fields = Fields::new();
        let id = trace::request_id(&mut fields, false, &mut rng);
        let trace = Trace::take(&mut fields, &mut rng);
        trace.trace_id > 0 && id.as_str().len() == 32 && fields.len() == 2
    }))
}

/// A request of a peer, whose id and trace go on.
pub(super) fn trace_kept() -> Option<Run> {
    let mut rng = SmallRng::seed_from_u64(SEED);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    Some(Box::new(move || {
        let mut fields: Fields = [("x-request-id", ID), ("traceparent", parent)].into_iter().collect();
        let id = trace::request_id(&mut fields, true, &mut rng);
        let trace = Trace::take(&mut fields, &mut rng);
        trace.trace_id == 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736 && id.as_str() == ID && fields.len() == 2
    }))
}

/// One line of the access log, as text.
pub(super) fn log_line() -> Option<Run> {
    let (trace_id, span_id) = (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7);
    let trace = Trace { trace_id, span_id, is_sampled: true };
    let writer = line::writer("orders", "orders-1@vm1");
    Some(Box::new(move || {
        let line = Line {
            unix_us: 1_795_420_800_042_007,
            level: Level::Info,
            hop: HopKind::Inbound.word(),
            writer: &writer,
            method: Some("GET"),
            path: Some("/users/7/orders"),
            host: Some("shop.example.com"),
            route: None,
            service: Some("orders"),
            endpoint: None,
            status: 200,
            reason: None,
            detail: None,
            bytes_in: 0,
            bytes_out: 1024,
            duration: Duration::from_micros(1734),
            upstream: Some(Duration::from_micros(1648)),
            tries: 1,
            request_id: Some(ID),
            trace: Some(trace),
            caller: Some("gateway"),
            protocol: "http/1.1",
            grpc_status: None,
            complete: true,
        };
        line.json().ends_with("\"complete\":true}}")
    }))
}

pub(super) fn canonical(given: &'static str, expected: &'static str) -> Option<Run> {
    // Not known to the compiler, as no path is.
    Some(Box::new(move || path::canonical(black_box(given)).is_ok_and(|path| path == expected)))
}

/// An exchange of a route that was counted before.
pub(super) fn metrics() -> Option<Run> {
    let metrics = WorkerMetrics::new(Hub::default());
    let calls = CallBook::default().page(0).counts(&"orders".parse().ok()?);
    let service = "orders".parse().ok()?;
    let account = Account::new(&metrics, HopKind::Ingress, &service, "/users/:id/orders".into(), Some(calls));
    Some(Box::new(move || {
        account.ended(black_box(200), None, black_box(Duration::from_micros(1734)), black_box(1), black_box(false));
        true
    }))
}

/// The first exchange of a route for which there is no cell any more.
pub(super) fn metrics_beyond() -> Option<Run> {
    let metrics = WorkerMetrics::new(Hub::default());
    for route in 0..2000 {
        metrics.cell(HopKind::Ingress, "orders", &format!("/r{route}"));
    }
    Some(Box::new(move || {
        metrics.cell(HopKind::Ingress, "orders", "/r1999").ended(
            black_box(200),
            None,
            black_box(Duration::from_micros(1734)),
        );
        true
    }))
}

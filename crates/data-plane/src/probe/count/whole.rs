//! All that an ingress does for one request between reading its bytes and having those for the upstream, in its order;
//! and what it counts when the request is over.

use std::time::Duration;

use bytes::BytesMut;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use synego_model::{BalanceKind, Epoch, Limits, Policy, Route, Snapshot};

use super::hop::SEED;
use super::{Run, pick};
use crate::account::Account;
use crate::calls::CallBook;
use crate::h1::out::Out;
use crate::h1::{parse, write};
use crate::hop::deadline::Deadline;
use crate::hop::head::{self, Form, Head};
use crate::hop::headers;
use crate::hop::intake::Progress;
use crate::hop::trace::{self, Trace};
use crate::metrics::{HopKind, Hub, WorkerMetrics};
use crate::router::{Asked, Router};

pub(super) fn relay(text: &'static str) -> Option<Run> {
    let route = Route::new("/users/:id/orders".parse().ok()?, "orders".parse().ok()?, "count");
    let router = Router::new(Snapshot::new(Epoch(1), [], vec![route], Limits::default()).routes());
    let (mut balancer, now) = pick::warm(BalanceKind::Load, 2)?;
    let service = "orders".parse().ok()?;
    let calls = CallBook::default().page(0).counts(&service);
    let metrics = WorkerMetrics::new(Hub::default());
    // By the number of the route, as an ingress knows them.
    let accounts = [Account::new(&metrics, HopKind::Ingress, &service, "/users/:id/orders".into(), Some(calls))];
    let (limits, policy) = (Limits::default(), Policy::default());
    let mut rng = SmallRng::seed_from_u64(SEED);
    let mut out = Out::default();
    Some(Box::new(move || {
        let mut buf = BytesMut::new();
        buf.extend_from_slice(text.as_bytes());
        let Ok(Some((mut request, _))) = parse::request(&mut buf) else { return false };
        let form = Form::of(&request, false);
        if head::check_sizes(&request, 0, &limits).is_err() || form.is_grpc {
            return false;
        }
        headers::remove_internal(&mut request.fields);
        let id = trace::request_id(&mut request.fields, false, &mut rng);
        Trace::take(&mut request.fields, &mut rng);
        let Ok(head) = Head::check(&request, true) else { return false };
        let mut fields = std::mem::take(&mut request.fields);
        drop(request);

        let (path, query) = (head.path(), head.query());
        let asked = Asked { host: head.host(), path, query, method: &head.method, fields: &fields };
        let Some(account) = router.find(&asked).and_then(|route| accounts.get(route.number)) else { return false };
        let Ok(slot) = balancer.pick(None, &[], now, &mut rng) else { return false };
        balancer.begin(slot, now);

        let deadline = Deadline::of(&fields, head.is_grpc, true, &policy, &limits, now);
        headers::forward_request(&mut fields);
        headers::say_forwarded(&mut fields, "192.0.2.17", head.authority(), false);
        deadline.write(&mut fields, now, Progress::Ended { at: now });
        out.tail().clear();
        let framing = write::request(&mut out, &head, &fields, Some(0));
        drop(fields);

        balancer.answered(slot, Duration::from_millis(1), false, now, &mut rng);
        balancer.end(slot);
        account.ended(200, None, Duration::from_millis(1), 1, false);
        framing == write::Framing::None && out.len() > text.len() && id.as_str().len() == 32
    }))
}

//! What is remembered of one exchange: counted in the metrics and written as one line of the access log, exactly once.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::Version;
use smallvec::SmallVec;
use synego_model::{InstanceId, Reason};
use synego_runtime::clock;
use synego_runtime::logs::{Kind, Level};

use super::head::Head;
use super::intake::Intake;
use super::line::Line;
use super::station::Station;
use super::trace::{self, RequestId, Trace};
use crate::account::Account;
use crate::fields::{self, Fields, Name};
use crate::load::Permit;
use crate::server::Busy;
use crate::tenure::Tenure;
use crate::workers::NO_LINES;

/// The status of an exchange whose client went away before it was answered, as in Nginx's logs.
const CLIENT_GONE: u16 = 499;

/// The name of a service that calls, as it was told.
type Caller = SmallVec<[u8; 40]>;

/// One exchange, from its head to the last byte of its answer.
pub(crate) struct Exchange {
    station: Rc<Station>,
    busy: Busy,
    permit: Option<Permit>,
    /// It is open on a generation of the service's process.
    held: Option<Busy>,
    pub(crate) started: Instant,
    head: Option<Rc<Head>>,
    version: Version,
    /// Of the route and service that it is for; `None`: it came to none.
    account: Option<Rc<Account>>,
    endpoint: Option<InstanceId>,
    status: u16,
    reason: Option<Reason>,
    detail: Option<Box<str>>,
    tunnel_in: u64,
    bytes_out: u64,
    intake: Option<Intake>,
    head_after: Option<Duration>,
    tries: u32,
    request_id: Option<RequestId>,
    trace: Option<Trace>,
    caller: Option<Caller>,
    grpc_status: Option<u16>,
    complete: bool,
    written: bool,
}

impl Exchange {
    pub(crate) fn begin(station: &Rc<Station>, version: Version, now: Instant) -> Self {
        Self {
            busy: station.cells.request(),
            station: station.clone(),
            permit: None,
            held: None,
            started: now,
            head: None,
            version,
            account: None,
            endpoint: None,
            status: CLIENT_GONE,
            reason: None,
            detail: None,
            tunnel_in: 0,
            bytes_out: 0,
            intake: None,
            head_after: None,
            tries: 0,
            request_id: None,
            trace: None,
            caller: None,
            grpc_status: None,
            complete: false,
            written: false,
        }
    }

    /// Finds in the headers of its request who asks, in which trace; writes what the next hop reads of that.
    pub(crate) fn is_named(&mut self, fields: &mut Fields, trusted: bool) {
        let table = &self.station.table;
        table.clear(fields);
        let mut rng = self.station.rng.borrow_mut();
        self.request_id = Some(trace::request_id(fields, trusted, &mut *rng));
        self.trace = Some(Trace::take(fields, &mut *rng));
        self.caller = table.caller(fields).map(SmallVec::from_slice);
    }

    /// Says in an answer which request it is of.
    pub(crate) fn tell_request_id(&self, fields: &mut Fields) {
        if let Some(id) = &self.request_id {
            fields.set(Name::RequestId, id.as_bytes());
        }
    }

    pub(crate) fn request_id(&self) -> RequestId {
        self.request_id.clone().unwrap_or_default()
    }

    pub(crate) fn checked(&mut self, head: &Rc<Head>) {
        self.head = Some(head.clone());
    }

    pub(crate) fn routed(&mut self, account: Rc<Account>) {
        self.account = Some(account);
    }

    pub(crate) fn admitted(&mut self, permit: Option<Permit>) {
        self.permit = permit;
        self.count_in_flight(1);
    }

    /// It goes to a generation of the service's process, and is counted there to its end.
    pub(crate) fn holds(&mut self, tenure: &Tenure) {
        self.held = tenure.hold(self.station.worker);
    }

    /// Where a hop has no balancer that counts them.
    fn count_in_flight(&self, change: i64) {
        if let (Some(_), Some(account)) = (&self.permit, &self.account) {
            account.add_in_flight(change);
        }
    }

    /// It carries bytes, not a message.
    pub(crate) fn speaks_bytes(&mut self, caller: &str) {
        self.version = Version::HTTP_09;
        self.caller = Some(SmallVec::from_slice(caller.as_bytes()));
    }

    /// The body of its request, once there is any.
    pub(crate) fn intake(&self) -> Option<Intake> {
        self.intake.clone()
    }

    pub(crate) fn taking(&mut self, intake: Intake) {
        self.intake = Some(intake);
    }

    /// A try goes to this instance; `None`: to the own service.
    pub(crate) fn tried(&mut self, endpoint: Option<InstanceId>) {
        self.tries += 1;
        self.endpoint = endpoint;
    }

    /// The head of the answer is known.
    pub(crate) fn answered(&mut self, status: u16, reason: Option<Reason>, grpc_status: Option<u16>, now: Instant) {
        self.status = status;
        self.reason = reason;
        self.grpc_status = grpc_status;
        self.head_after = Some(now.duration_since(self.started));
    }

    /// It lasts: from now on it counts as a stream, not as a request.
    pub(crate) fn is_stream(&mut self) {
        self.busy.becomes_stream();
        if let Some(held) = &mut self.held {
            held.becomes_stream();
        }
        if let Some(permit) = &mut self.permit {
            permit.becomes_stream();
        }
    }

    /// Removes from trailers what must not go on from here.
    pub(crate) fn clear_answer(&self, trailers: &mut Fields) {
        self.station.table.clear_answer(trailers);
    }

    /// Why the mesh answered, in words.
    pub(crate) fn explained(&mut self, detail: &str) {
        self.detail = Some(detail.into());
    }

    pub(crate) fn failed(&mut self, reason: Reason) {
        self.reason = Some(reason);
    }

    pub(crate) fn set_grpc_status(&mut self, status: u16) {
        self.grpc_status = Some(status);
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// Counts the bytes of a tunnel in both directions.
    pub(crate) fn tunnelled(&mut self, bytes_in: u64, bytes_out: u64) {
        self.tunnel_in += bytes_in;
        self.bytes_out += bytes_out;
    }

    /// The exchange is over; what follows is not part of it.
    pub(crate) fn finish(&mut self, complete: bool) {
        if !self.written {
            self.finish_at(complete, clock::now());
        }
    }

    /// The same, at a time that was just read.
    pub(crate) fn finish_at(&mut self, complete: bool, now: Instant) {
        if self.written {
            return;
        }
        self.written = true;
        self.complete = complete;
        let duration = now.duration_since(self.started);
        self.count_in_flight(-1);
        if let Some(permit) = self.permit.take() {
            permit.end(duration, self.status >= 500);
        }
        self.busy.end();
        self.held = None;
        self.count(duration);
        if self.station.log.is_on() && self.is_kept() {
            self.write(duration);
        }
    }

    /// Whether it failed: with 5xx, or with a status of gRPC that says so.
    fn has_failed(&self) -> bool {
        self.status >= 500 || self.grpc_status.is_some_and(super::answer::is_failure)
    }

    /// Failures are always logged, of the rest a share; all hops of one trace decide alike.
    fn is_kept(&self) -> bool {
        let share = self.station.log_share.load(Relaxed);
        if share == NO_LINES {
            return false;
        }
        let draw = self.trace.map_or(0, |trace| (trace.trace_id % 100) as u8);
        draw < share || self.has_failed() || self.reason.is_some() || !self.complete
    }

    fn count(&self, duration: Duration) {
        match &self.account {
            Some(account) => account.ended(self.status, self.reason, duration, self.tries, self.has_failed()),
            None => self.station.nowhere().ended(self.status, self.reason, duration),
        }
    }

    fn write(&self, duration: Duration) {
        let (head, account) = (self.head.as_deref(), self.account.as_deref());
        let level = if self.has_failed() || self.reason.is_some() { Level::Warn } else { Level::Info };
        let line = Line {
            unix_us: clock::unix_us().saturating_sub(duration.as_micros() as u64),
            level,
            hop: self.station.kind.word(),
            writer: &self.station.writer,
            method: head.map(|head| head.method.as_str()),
            path: head.map(Head::path),
            host: head.map(Head::host),
            route: account.map(|account| &*account.route).filter(|route| !route.is_empty()),
            service: account.map(|account| account.service.as_str()),
            endpoint: self.endpoint.as_ref().map(InstanceId::as_str),
            status: self.status,
            reason: self.reason.map(Reason::word),
            detail: self.detail.as_deref(),
            bytes_in: self.tunnel_in + self.intake.as_ref().map_or(0, Intake::bytes),
            bytes_out: self.bytes_out,
            duration,
            upstream: self.head_after,
            tries: self.tries,
            request_id: self.request_id.as_ref().map(RequestId::as_str),
            trace: self.trace,
            caller: self.caller.as_deref().and_then(fields::ascii),
            protocol: match (head.is_some_and(|head| head.is_grpc), self.version) {
                (true, _) => "grpc",
                (_, Version::HTTP_2) => "h2",
                // No version of HTTP that is served: bytes.
                (_, Version::HTTP_09) => "tcp",
                _ => "http/1.1",
            },
            grpc_status: self.grpc_status,
            complete: self.complete,
        };
        self.station.log.write_as(level, Kind::Access, line.json());
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.finish(false);
        if let Some(head) = self.head.take() {
            head.give_back();
        }
    }
}

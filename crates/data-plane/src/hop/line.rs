//! The access log: one line of JSON for each exchange at each hop.
//!
//! Written by hand: there is one line for each request, and its form never changes.

use std::cell::RefCell;
use std::time::Duration;

use synego_runtime::clock;

use super::trace::{Trace, hex16, hex32};

/// What a line mostly takes.
const ROOM: usize = 640;
/// The part of a stamp that changes with the second only, as in `2026-03-01T09:05:00`.
const SECOND: usize = 19;

thread_local! {
    /// The second of the last line, and its stamp.
    static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// One line of the access log. Absent fields are not known at that point, or do not apply.
pub(crate) struct Line<'a> {
    /// When the exchange began: milliseconds since 1970-01-01 UTC.
    pub(crate) unix_ms: u64,
    pub(crate) hop: &'static str,
    pub(crate) node: &'a str,
    pub(crate) method: Option<&'a str>,
    pub(crate) path: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
    pub(crate) route: Option<&'a str>,
    pub(crate) service: Option<&'a str>,
    pub(crate) endpoint: Option<&'a str>,
    pub(crate) status: u16,
    pub(crate) reason: Option<&'static str>,
    /// Why, in words, where this hop answered itself.
    pub(crate) detail: Option<&'a str>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) duration: Duration,
    /// Until the head of the answer.
    pub(crate) upstream: Option<Duration>,
    pub(crate) tries: u32,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) trace: Option<Trace>,
    pub(crate) caller: Option<&'a str>,
    pub(crate) protocol: &'static str,
    pub(crate) grpc_status: Option<u16>,
    /// Whether the answer reached its end.
    pub(crate) complete: bool,
}

impl Line<'_> {
    /// The line as JSON, without its end.
    pub(crate) fn json(&self) -> String {
        let mut out = Json(String::with_capacity(ROOM));
        out.0.push_str("{\"ts\":\"");
        stamp(self.unix_ms, &mut out.0);
        out.0.push('"');
        out.text("hop", Some(self.hop));
        out.text("node", Some(self.node));
        out.text("method", self.method);
        out.text("path", self.path);
        out.text("host", self.host);
        out.text("route", self.route);
        out.text("service", self.service);
        out.text("endpoint", self.endpoint);
        out.number("status", u64::from(self.status));
        out.text("reason", self.reason);
        out.text("detail", self.detail);
        out.number("bytes_in", self.bytes_in);
        out.number("bytes_out", self.bytes_out);
        out.milliseconds("duration_ms", self.duration);
        if let Some(upstream) = self.upstream {
            out.milliseconds("upstream_ms", upstream);
        }
        out.number("tries", u64::from(self.tries));
        out.text("request_id", self.request_id);
        if let Some(trace) = self.trace {
            out.text("trace_id", std::str::from_utf8(&hex32(trace.trace_id)).ok());
            out.text("span_id", std::str::from_utf8(&hex16(trace.span_id)).ok());
        }
        out.text("caller", self.caller);
        out.text("protocol", Some(self.protocol));
        if let Some(status) = self.grpc_status {
            out.number("grpc_status", u64::from(status));
        }
        out.key("complete");
        out.0.push_str(if self.complete { "true}" } else { "false}" });
        out.0
    }
}

/// An object that is being written, its first member apart.
struct Json(String);

impl Json {
    fn key(&mut self, key: &str) {
        self.0.push_str(",\"");
        self.0.push_str(key);
        self.0.push_str("\":");
    }

    fn text(&mut self, key: &str, text: Option<&str>) {
        let Some(text) = text else { return };
        self.key(key);
        if text.bytes().any(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\')) {
            // What must be escaped is rare, and somebody else knows how.
            self.0.push_str(&serde_json::to_string(text).unwrap_or_default());
        } else {
            self.0.push('"');
            self.0.push_str(text);
            self.0.push('"');
        }
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        digits(number, 1, &mut self.0);
    }

    /// With three places behind the point.
    fn milliseconds(&mut self, key: &str, duration: Duration) {
        self.key(key);
        let us = duration.as_micros() as u64;
        digits(us / 1000, 1, &mut self.0);
        self.0.push('.');
        digits(us % 1000, 3, &mut self.0);
    }
}

/// A number with so many digits at least.
fn digits(number: u64, least: usize, out: &mut String) {
    let mut digits = [b'0'; 20];
    let mut rest = number;
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 && count >= least {
            break;
        }
    }
    let used = digits.get(digits.len() - count..).unwrap_or_default();
    out.push_str(std::str::from_utf8(used).unwrap_or_default());
}

/// RFC 3339 with milliseconds.
fn stamp(unix_ms: u64, out: &mut String) {
    LAST.with_borrow_mut(|(second, text)| {
        if *second != unix_ms / 1000 || text.is_empty() {
            *second = unix_ms / 1000;
            *text = clock::rfc3339(unix_ms);
        }
        out.push_str(text.get(..SECOND).unwrap_or_default());
    });
    out.push('.');
    digits(unix_ms % 1000, 3, out);
    out.push('Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line<'static> {
        Line {
            unix_ms: 1_795_420_800_042,
            hop: "inbound",
            node: "users-1@vm1",
            method: Some("GET"),
            path: Some("/users/7"),
            host: None,
            route: None,
            service: Some("users"),
            endpoint: None,
            status: 200,
            reason: None,
            detail: None,
            bytes_in: 0,
            bytes_out: 1024,
            duration: Duration::from_micros(12_034),
            upstream: Some(Duration::from_nanos(999)),
            tries: 1,
            request_id: Some("id-1"),
            trace: Some(Trace { trace_id: 10, span_id: 0xff, is_sampled: false }),
            caller: None,
            protocol: "http/1.1",
            grpc_status: Some(0),
            complete: true,
        }
    }

    #[test]
    fn a_line_is_json_with_what_is_known() {
        let said: serde_json::Value = serde_json::from_str(&line().json()).expect("JSON");
        let expected = serde_json::json!({
            "ts": clock::rfc3339(1_795_420_800_042), "hop": "inbound", "node": "users-1@vm1", "method": "GET",
            "path": "/users/7", "service": "users", "status": 200, "bytes_in": 0, "bytes_out": 1024,
            "duration_ms": 12.034, "upstream_ms": 0.0, "tries": 1, "request_id": "id-1",
            "trace_id": format!("{:032x}", 10), "span_id": format!("{:016x}", 0xff), "protocol": "http/1.1",
            "grpc_status": 0, "complete": true,
        });
        assert_eq!(said, expected);
    }

    #[test]
    fn what_json_must_escape_is_escaped() {
        let detail = "a \"b\" \\ \n ä";
        let text = Line { detail: Some(detail), ..line() }.json();
        let said: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(said["detail"], detail);
        assert!(!text.contains('\n'), "a line is one");
    }
}

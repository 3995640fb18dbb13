//! The access log: one line of JSON for each exchange at each hop, in the form that every line of the mesh has.
//!
//! Written by hand: there is one line for each request, and its form never changes.

use std::borrow::Cow;
use std::cell::RefCell;
use std::time::Duration;

use synego_runtime::clock;
use synego_runtime::logs::Level;

use super::trace::{Trace, hex16, hex32};

/// What a line mostly takes.
const ROOM: usize = 768;
/// The part of a stamp that changes with the second only, as in `2026-03-01T09:05:00`.
const SECOND: usize = 19;

thread_local! {
    /// The second of the last line, and its stamp.
    static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// One line of the access log. Absent fields are not known at that point, or do not apply.
pub(crate) struct Line<'a> {
    /// When the exchange began: microseconds since 1970-01-01 UTC.
    pub(crate) unix_us: u64,
    pub(crate) level: Level,
    pub(crate) hop: &'static str,
    /// See [`writer`].
    pub(crate) writer: &'a str,
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

/// Who writes lines, as their members: made once, since it is the same in all lines of a hop.
pub(crate) fn writer(service: &str, instance: &str) -> String {
    format!("\"service\":{},\"instance\":{}", quoted(service), quoted(instance))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// Writes a key and a value that is there: one text that is known beforehand, then the value.
macro_rules! member {
    ($out:ident, $key:literal, safe $value:expr) => {
        if let Some(value) = $value {
            $out.push_str(concat!(",\"", $key, "\":\""));
            $out.push_str(value);
            $out.push('"');
        }
    };
    ($out:ident, $key:literal, text $value:expr) => {
        member!($out, $key, safe $value.map(escaped).as_deref())
    };
    ($out:ident, $key:literal, number $value:expr) => {
        if let Some(value) = $value {
            $out.push_str(concat!(",\"", $key, "\":"));
            digits(u64::from(value), 1, &mut $out);
        }
    };
    ($out:ident, $key:literal, time $value:expr) => {
        if let Some(value) = $value {
            $out.push_str(concat!(",\"", $key, "\":"));
            milliseconds(value, &mut $out);
        }
    };
}

impl Line<'_> {
    /// The line as JSON, without its end.
    pub(crate) fn json(&self) -> String {
        let mut out = String::with_capacity(ROOM);
        let path = self.path.map(escaped);
        let path = path.as_deref();
        out.push_str("{\"time\":\"");
        stamp(self.unix_us, &mut out);
        out.push_str("\",\"level\":\"");
        out.push_str(self.level.word());
        out.push_str("\",\"kind\":\"access\",");
        out.push_str(self.writer);
        member!(out, "request_id", text self.request_id);
        let (trace_id, span_id) = self.trace.map(|trace| (hex32(trace.trace_id), hex16(trace.span_id))).unzip();
        member!(out, "trace_id", safe trace_id.as_ref().and_then(|digits| std::str::from_utf8(digits).ok()));
        out.push_str(",\"message\":\"");
        out.push_str(self.method.unwrap_or(self.protocol));
        out.push(' ');
        if let Some(path) = path {
            out.push_str(path);
            out.push(' ');
        }
        digits(u64::from(self.status), 1, &mut out);
        out.push_str("\",\"fields\":{\"hop\":\"");
        out.push_str(self.hop);
        out.push('"');
        // Methods and the names of services and instances hold nothing that JSON must escape.
        member!(out, "method", safe self.method);
        member!(out, "path", safe path);
        member!(out, "host", text self.host);
        member!(out, "route", text self.route);
        member!(out, "service", safe self.service);
        member!(out, "endpoint", safe self.endpoint);
        member!(out, "status", number Some(self.status));
        member!(out, "reason", safe self.reason);
        member!(out, "detail", text self.detail);
        member!(out, "bytes_in", number Some(self.bytes_in));
        member!(out, "bytes_out", number Some(self.bytes_out));
        member!(out, "duration_ms", time Some(self.duration));
        member!(out, "upstream_ms", time self.upstream);
        member!(out, "tries", number Some(self.tries));
        member!(out, "span_id", safe span_id.as_ref().and_then(|digits| std::str::from_utf8(digits).ok()));
        member!(out, "caller", text self.caller);
        member!(out, "protocol", safe Some(self.protocol));
        member!(out, "grpc_status", number self.grpc_status);
        out.push_str(if self.complete { ",\"complete\":true}}" } else { ",\"complete\":false}}" });
        out
    }
}

/// The text as it stands between the quotes of JSON.
fn escaped(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\')) {
        // What must be escaped is rare, and somebody else knows how.
        let quoted = quoted(text);
        Cow::Owned(quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned())
    } else {
        Cow::Borrowed(text)
    }
}

/// With three places behind the point.
fn milliseconds(duration: Duration, out: &mut String) {
    let us = duration.as_micros() as u64;
    digits(us / 1000, 1, out);
    out.push('.');
    digits(us % 1000, 3, out);
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

/// RFC 3339 with microseconds.
fn stamp(unix_us: u64, out: &mut String) {
    LAST.with_borrow_mut(|(second, text)| {
        if *second != unix_us / 1_000_000 || text.is_empty() {
            *second = unix_us / 1_000_000;
            *text = clock::rfc3339(unix_us / 1_000);
        }
        out.push_str(text.get(..SECOND).unwrap_or_default());
    });
    out.push('.');
    digits(unix_us % 1_000_000, 6, out);
    out.push('Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line<'static> {
        Line {
            unix_us: 1_795_420_800_042_007,
            level: Level::Info,
            hop: "inbound",
            writer: r#""service":"users","instance":"users-1@vm1""#,
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
            "time": clock::rfc3339_us(1_795_420_800_042_007), "level": "info", "kind": "access", "service": "users",
            "instance": "users-1@vm1", "request_id": "id-1", "trace_id": format!("{:032x}", 10),
            "message": "GET /users/7 200",
            "fields": {
                "hop": "inbound", "method": "GET", "path": "/users/7", "service": "users", "status": 200, "bytes_in": 0,
                "bytes_out": 1024, "duration_ms": 12.034, "upstream_ms": 0.0, "tries": 1,
                "span_id": format!("{:016x}", 0xff), "protocol": "http/1.1", "grpc_status": 0, "complete": true,
            },
        });
        assert_eq!(said, expected);
    }

    #[test]
    fn what_json_must_escape_is_escaped() {
        let odd = "a \"b\" \\ \n ä";
        let text = Line { detail: Some(odd), path: Some(odd), request_id: Some(odd), ..line() }.json();
        let said: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (&said["fields"]["detail"], &said["fields"]["path"], &said["request_id"]),
            (&odd.into(), &odd.into(), &odd.into())
        );
        assert_eq!(said["message"], format!("GET {odd} 200"));
        assert!(!text.contains('\n'), "a line is one");
    }

    #[test]
    fn a_line_is_read_back_as_every_line_of_the_mesh_is() {
        let entry = synego_runtime::logs::Entry::parse(&line().json()).expect("a line");
        assert_eq!((entry.unix_us, entry.kind), (1_795_420_800_042_007, synego_runtime::logs::Kind::Access));
        assert_eq!((entry.instance.as_str(), entry.request_id.as_str()), ("users-1@vm1", "id-1"));
        let tunnel = Line { method: None, path: None, protocol: "tcp", ..line() }.json();
        let entry = synego_runtime::logs::Entry::parse(&tunnel).expect("a line");
        assert_eq!(entry.message, "tcp 200");
    }

    #[test]
    fn the_writer_is_named_as_json_needs_it() {
        assert_eq!(writer("ingress", "master@\"x\""), r#""service":"ingress","instance":"master@\"x\"""#);
    }
}

//! Which of the fields that matter to a hop a message has, found in one pass: most have few of them, and looking for
//! each in the map costs more than all the rest of a step.

use http::HeaderMap;

/// A set of kinds of fields; a kind that is not in it is surely absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks(u16);

impl Marks {
    /// Fields of one connection, `Connection` itself included.
    pub(crate) const HOP_BY_HOP: Self = Self(1);
    pub(crate) const EXPECT: Self = Self(1 << 1);
    pub(crate) const TRACE: Self = Self(1 << 2);
    pub(crate) const REQUEST_ID: Self = Self(1 << 3);
    /// Times that a caller gives.
    pub(crate) const TIMEOUT: Self = Self(1 << 4);
    /// Who is behind a request, as proxies say it; and baggage.
    pub(crate) const FORWARDED: Self = Self(1 << 5);
    /// What only the mesh may say, in both spellings.
    pub(crate) const INTERNAL: Self = Self(1 << 6);
    pub(crate) const ACCEPT: Self = Self(1 << 7);
    pub(crate) const CONTENT_TYPE: Self = Self(1 << 8);
    pub(crate) const CONTENT_LENGTH: Self = Self(1 << 9);
    /// Load reports of services.
    pub(crate) const LOAD_REPORT: Self = Self(1 << 10);
    pub(crate) const GRPC_STATUS: Self = Self(1 << 11);

    /// What is in these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |marks, name| marks | Self::of_name(name.as_str()).0))
    }

    pub(crate) fn has(self, kind: Self) -> bool {
        self.0 & kind.0 != 0
    }

    fn of_name(name: &str) -> Self {
        match name {
            "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "te" => {
                Self::HOP_BY_HOP
            }
            "expect" => Self::EXPECT,
            "traceparent" | "tracestate" => Self::TRACE,
            "x-request-id" => Self::REQUEST_ID,
            "grpc-timeout" | "connect-timeout-ms" => Self::TIMEOUT,
            "x-synego-timeout" => Self(Self::TIMEOUT.0 | Self::INTERNAL.0),
            "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "forwarded" | "baggage" => Self::FORWARDED,
            "accept" => Self::ACCEPT,
            "content-type" => Self::CONTENT_TYPE,
            "content-length" => Self::CONTENT_LENGTH,
            "endpoint-load-metrics" | "endpoint-load-metrics-bin" => Self::LOAD_REPORT,
            "grpc-status" => Self::GRPC_STATUS,
            _ if name.starts_with("x-synego-") || name.starts_with("x_synego_") => Self::INTERNAL,
            _ => Self(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_is_there_is_marked_and_what_is_not_is_not() {
        let mut headers = HeaderMap::new();
        assert_eq!(Marks::of(&headers), Marks::default());
        for name in ["host", "te", "x-synego-timeout", "content-type"] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        let marks = Marks::of(&headers);
        for kind in [Marks::HOP_BY_HOP, Marks::TIMEOUT, Marks::INTERNAL, Marks::CONTENT_TYPE] {
            assert!(marks.has(kind));
        }
        assert!(!marks.has(Marks::TRACE) && !marks.has(Marks::FORWARDED) && !marks.has(Marks::EXPECT));
    }
}

//! Names of fields that a hop knows: a number each, so that looking for one compares no text.

/// The names that are known, by what they mean here and how they are written.
macro_rules! names {
    ($($name:ident $text:literal,)*) => {
        /// The name of a field.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Name {
            $($name,)*
            /// Another one that only the mesh may say, in either spelling: `x-synego-…`, `x_synego_…`.
            Internal,
            /// Any other.
            Other,
        }

        impl Name {
            /// How it is written; empty for those that stand for many.
            pub(crate) const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => {
                        const TEXT: &str = match std::str::from_utf8($text) {
                            Ok(text) => text,
                            Err(_) => panic!("a name is ASCII"),
                        };
                        TEXT
                    })*
                    Self::Internal | Self::Other => "",
                }
            }

            /// Which one `text` is; it is in lower case.
            pub(crate) fn of(text: &[u8]) -> Self {
                match text {
                    $($text => Self::$name,)*
                    [b'x', b'-' | b'_', b's', b'y', b'n', b'e', b'g', b'o', b'-' | b'_', ..] => Self::internal(text),
                    _ => Self::Other,
                }
            }
        }
    };
}

names! {
    Accept b"accept",
    Allow b"allow",
    Authorization b"authorization",
    Baggage b"baggage",
    Caller b"x-synego-caller",
    ConnectTimeout b"connect-timeout-ms",
    Connection b"connection",
    ContentLength b"content-length",
    ContentType b"content-type",
    Cookie b"cookie",
    Date b"date",
    Expect b"expect",
    Fallback b"x-synego-fallback",
    Forwarded b"forwarded",
    ForwardedFor b"x-forwarded-for",
    ForwardedHost b"x-forwarded-host",
    ForwardedProto b"x-forwarded-proto",
    GrpcMessage b"grpc-message",
    GrpcStatus b"grpc-status",
    GrpcTimeout b"grpc-timeout",
    Host b"host",
    KeepAlive b"keep-alive",
    LoadReport b"endpoint-load-metrics",
    LoadReportBin b"endpoint-load-metrics-bin",
    ProxyAuthorization b"proxy-authorization",
    ProxyConnection b"proxy-connection",
    Reason b"x-synego-reason",
    RequestId b"x-request-id",
    RetryAfter b"retry-after",
    SetCookie b"set-cookie",
    Te b"te",
    Timeout b"x-synego-timeout",
    TraceParent b"traceparent",
    TraceState b"tracestate",
    TransferEncoding b"transfer-encoding",
    Upgrade b"upgrade",
    Vary b"vary",
}

impl Name {
    fn internal(text: &[u8]) -> Self {
        if text.starts_with(b"x-synego-") || text.starts_with(b"x_synego_") { Self::Internal } else { Self::Other }
    }

    /// Whether it stands for one name alone.
    pub(crate) const fn is_known(self) -> bool {
        !matches!(self, Self::Internal | Self::Other)
    }
}

/// A set of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Names(u64);

impl Names {
    /// Those that hold for one connection alone, `Connection` itself included.
    pub(crate) const HOP_BY_HOP: Self = Self::of(&[
        Name::Connection,
        Name::KeepAlive,
        Name::ProxyConnection,
        Name::Te,
        Name::TransferEncoding,
        Name::Upgrade,
    ]);
    /// Those that only the mesh may say.
    pub(crate) const INTERNAL: Self =
        Self::of(&[Name::Caller, Name::Fallback, Name::Internal, Name::Reason, Name::Timeout]);
    /// Who is behind a request, as proxies say it.
    pub(crate) const FORWARDED: Self =
        Self::of(&[Name::Forwarded, Name::ForwardedFor, Name::ForwardedHost, Name::ForwardedProto]);
    /// Load reports of services to their callers (ORCA).
    pub(crate) const LOAD_REPORTS: Self = Self::of(&[Name::LoadReport, Name::LoadReportBin]);
    /// Those that may hold a secret.
    pub(crate) const SECRET: Self =
        Self::of(&[Name::Authorization, Name::Cookie, Name::ProxyAuthorization, Name::SetCookie]);

    pub(crate) const fn of(names: &[Name]) -> Self {
        let mut set = 0;
        let mut rest = names;
        while let [first, tail @ ..] = rest {
            set |= 1 << *first as u8;
            rest = tail;
        }
        Self(set)
    }

    pub(crate) const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    pub(crate) const fn has(self, name: Name) -> bool {
        self.0 & (1 << name as u8) != 0
    }

    /// Whether the two have one in common.
    pub(crate) const fn meets(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    pub(super) fn add(&mut self, name: Name) {
        self.0 |= 1 << name as u8;
    }

    pub(super) fn remove(&mut self, others: Self) {
        self.0 &= !others.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_by_its_text_alone() {
        for name in [Name::Accept, Name::Host, Name::Te, Name::Caller, Name::TraceParent, Name::Vary] {
            assert_eq!(Name::of(name.text().as_bytes()), name);
        }
        for text in ["x-synego-x", "x_synego_caller", "x-synego-"] {
            assert_eq!(Name::of(text.as_bytes()), Name::Internal, "{text}");
        }
        for text in ["", "hos", "hosts", "x-synego", "x-synego_x", "x_synego-x", "accept-encoding"] {
            assert_eq!(Name::of(text.as_bytes()), Name::Other, "{text}");
        }
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let set = Names::of(&[Name::Host, Name::Other]);
        assert!(set.has(Name::Host) && set.has(Name::Other) && !set.has(Name::Te));
        assert!(Names::INTERNAL.meets(Names::of(&[Name::Timeout])) && !Names::HOP_BY_HOP.meets(set));
    }
}

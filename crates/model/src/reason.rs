//! Why the mesh itself answered, or why an instance is in its state: one closed list with a page for each word.

use serde::{Deserialize, Serialize};

/// The sixteen status codes of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words of gRPC")]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// The caller's: the same request fails again.
    Caller,
    /// The called service's or its machine's.
    Upstream,
    /// Our own.
    Local,
}

impl Blame {
    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Upstream => "upstream",
            Self::Local => "local",
        }
    }
}

/// Whether a repeat helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// It fails too, or might do the work twice.
    Never,
    /// The same may work after a while.
    Later,
    /// Nothing was processed: another instance may be asked at once.
    OtherEndpoint,
}

impl Retry {
    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Later => "later",
            Self::OtherEndpoint => "other_endpoint",
        }
    }
}

macro_rules! reasons {
    ($($variant:ident = $number:literal $word:literal $status:literal $code:ident $blame:ident $retry:ident: $meaning:literal;)*) => {
        /// Why the mesh itself answered, or why an instance is in its state. Numbers equal those of `reason.proto`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Reason {
            $(#[doc = $meaning] $variant = $number,)*
        }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The permanent word.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Status of the HTTP answer.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// Status of the gRPC answer.
            #[must_use]
            pub fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }

            /// Whose fault it is.
            #[must_use]
            pub fn blame(self) -> Blame {
                match self { $(Self::$variant => Blame::$blame,)* }
            }

            /// Whether a repeat helps.
            #[must_use]
            pub fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry,)* }
            }

            /// What happened, in one line.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// The page: meaning, cause, remedy, as Markdown.
            #[must_use]
            pub fn page(self) -> &'static str {
                match self { $(Self::$variant => include_str!(concat!("reason/", $word, ".md")),)* }
            }

            /// The reason of a number of `reason.proto`.
            #[must_use]
            pub fn from_number(number: i32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    NoRoute = 1 "no_route" 404 Unimplemented Caller Never: "no route matches the host, path, method and headers";
    UnknownService = 2 "unknown_service" 404 Unimplemented Caller Never: "the name that was called is no service of the mesh";
    NoReadyEndpoint = 3 "no_ready_endpoint" 503 Unavailable Upstream Later: "the service is known, but none of its instances may take a request now";
    ConnectFailed = 10 "connect_failed" 502 Unavailable Upstream OtherEndpoint: "no connection to the instance could be made in time";
    UpstreamReset = 11 "upstream_reset" 502 Unavailable Upstream Never: "the connection ended before the head of the answer came";
    BadResponse = 12 "bad_response" 502 Internal Upstream Never: "the answer broke the rules of its protocol";
    DeadlineExceeded = 13 "deadline_exceeded" 504 DeadlineExceeded Upstream Later: "the time of the request, or of its last try, was over";
    IdleTimeout = 14 "idle_timeout" 504 DeadlineExceeded Upstream Later: "a stream was silent for longer than its limit";
    Overloaded = 20 "overloaded" 503 Unavailable Upstream Later: "more requests than may be in flight or wait";
    Draining = 21 "draining" 503 Unavailable Upstream OtherEndpoint: "the instance is draining and takes no new request";
    Denied = 22 "denied" 403 PermissionDenied Caller Never: "policy does not allow this caller";
    RateLimited = 23 "rate_limited" 429 ResourceExhausted Caller Later: "the limit of the rate was reached";
    BadRequest = 30 "bad_request" 400 Internal Caller Never: "the request can be read in two ways, or breaks the rules of its protocol";
    HeadersTooLarge = 31 "headers_too_large" 431 Internal Caller Never: "the head of the request is larger than the limit";
    TargetTooLong = 32 "target_too_long" 414 Internal Caller Never: "the target of the request is longer than the limit";
    BodyTooLarge = 33 "body_too_large" 413 ResourceExhausted Caller Never: "the body of the request is larger than the limit";
    MethodNotAllowed = 34 "method_not_allowed" 405 Unimplemented Caller Never: "the mesh does not pass on requests of this method";
    ClientTooSlow = 35 "client_too_slow" 408 Cancelled Caller Later: "the client sent its request too slowly";
    Internal = 36 "internal" 500 Internal Local Never: "the mesh itself failed";
    UnsupportedType = 37 "unsupported_type" 415 InvalidArgument Caller Never: "the body is of a type that the called API does not speak";
    InvalidBody = 50 "invalid_body" 400 InvalidArgument Caller Never: "the body does not have the form that the handler declares";
    QueueFull = 51 "queue_full" 503 Unavailable Upstream Later: "the waiting line of the handler is full";
    QueueTimeout = 52 "queue_timeout" 503 Unavailable Upstream Later: "the call waited longer in line than the handler allows";
    HandlerStuck = 53 "handler_stuck" 503 Unavailable Upstream OtherEndpoint: "too many runs of this handler ignored their time limit";
    HandlerTimeout = 54 "handler_timeout" 504 DeadlineExceeded Upstream Never: "the run lasted longer than the handler allows";
    HandlerCrashed = 55 "handler_crashed" 500 Internal Upstream Never: "the worker of the handler ended in the middle of the run";
    NoHandler = 56 "no_handler" 404 Unimplemented Caller Never: "no handler of the service takes this method and path";
    NoSidecar = 60 "no_sidecar" 503 Unavailable Local Never: "the program runs without a sidecar, so it cannot call a service by name";
    SidecarUnreachable = 61 "sidecar_unreachable" 503 Unavailable Local Later: "the outbound of the sidecar did not answer";
    ProtocolUnsupported = 70 "protocol_unsupported" 400 FailedPrecondition Caller Never: "the two sides have no version of the protocol in common";
    InstanceTaken = 71 "instance_taken" 409 AlreadyExists Caller Later: "another living process already is this instance";
    InvalidMessage = 72 "invalid_message" 400 InvalidArgument Caller Never: "a message broke a documented range";
    WrongMesh = 73 "wrong_mesh" 403 PermissionDenied Caller Never: "the other side belongs to another mesh";
    EpochConflict = 74 "epoch_conflict" 409 Aborted Caller Later: "the mesh moved on since the change was planned";
    ManifestRefused = 75 "manifest_refused" 400 InvalidArgument Caller Never: "the manifest has mistakes and was refused whole";
    NotLive = 76 "not_live" 409 FailedPrecondition Caller Never: "the change needs more than a live change may do";
    Unauthenticated = 77 "unauthenticated" 401 Unauthenticated Caller Never: "the admin API does not know who asks";
    TokenRefused = 78 "token_refused" 403 PermissionDenied Caller Never: "the join token cannot be used";
    NotEnrolled = 79 "not_enrolled" 401 Unauthenticated Caller Never: "the other side has no valid certificate of this mesh";
    Starting = 90 "starting" 503 Unavailable Upstream Later: "the process has not said or shown yet that it is ready";
    ProbeFailed = 91 "probe_failed" 503 Unavailable Upstream Later: "the probe fails";
    ProcessExited = 92 "process_exited" 503 Unavailable Upstream Later: "the process ended";
    ProcessStopped = 93 "process_stopped" 503 Unavailable Upstream Later: "the process is stopped by a signal";
    CrashLoop = 94 "crash_loop" 503 Unavailable Upstream Later: "the process ended so often that starts are far apart now";
    ReportMissing = 95 "report_missing" 503 Unavailable Upstream Later: "the sidecar does not report";
    SidecarGone = 96 "sidecar_gone" 503 Unavailable Upstream Later: "the stream of the sidecar to the master ended";
    Ejected = 97 "ejected" 503 Unavailable Upstream Later: "callers see failures in a row and leave the instance out";
    SaidByService = 98 "said_by_service" 503 Unavailable Upstream Later: "the service itself says so";
    LoopBlocked = 99 "loop_blocked" 503 Unavailable Upstream Later: "the loop of the service does not answer on its link";
    ReplaceWanted = 100 "replace_wanted" 503 Unavailable Upstream Later: "the service asks for a successor";
    BuildFailed = 101 "build_failed" 503 Unavailable Upstream Never: "the build command failed, so the process was not started";
    StartFailed = 102 "start_failed" 503 Unavailable Upstream Never: "the process could not be started";
    NotReadyInTime = 103 "not_ready_in_time" 503 Unavailable Upstream Later: "the process was not ready within its limit";
    ReloadFailed = 104 "reload_failed" 503 Unavailable Upstream Later: "the successor of the process failed to prove itself";
    JobDone = 105 "job_done" 503 Unavailable Upstream Never: "the job has ended with code 0, as it should";
    OutOfMemory = 106 "out_of_memory" 503 Unavailable Upstream Later: "the process had more memory than it may, or than there is";
}

impl Reason {
    /// The reason of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.word() == word)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_word_and_number_and_has_its_page() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_word(reason.word()), Some(*reason));
            assert_eq!(Reason::from_number(*reason as i32), Some(*reason));
            for part in ["meaning", "cause", "remedy"] {
                assert!(reason.page().to_lowercase().contains(&format!("## {part}")), "{reason} has no {part}");
            }
        }
    }

    #[test]
    fn words_are_unique() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}

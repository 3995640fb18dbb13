//! Keys of `policy`: what happens to a request.

use super::shape::{Keys, Shape, Short};
use super::{Effect, Key, Section, key};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;

static TIMEOUT: Shape = Shape::Duration { min: 1, max: HOUR };
static ZERO_TO_HOUR: Shape = Shape::Duration { min: 0, max: HOUR };
static SHARE: Shape = Shape::Share(&[]);
static TEXT: Shape = Shape::Text("text");
static BOOL: Shape = Shape::Bool;
static SIZE: Shape = Shape::Size { min: 1, max: 1 << 40 };
static RATE: Shape = Shape::Rate;

use Effect::Live;

static RETRIES: Section = Section {
    shorts: &[Short::Scalar("max")],
    ..Section::of(
        "retries",
        "services.NAME.policy.retries",
        &[
            key(
                "max",
                &Shape::Count { min: 0, max: 3, words: &[] },
                "1",
                Live,
                "max: 2",
                "further tries after the first",
            ),
            key(
                "when",
                &Shape::List { of: &TEXT, max: 16 },
                "[connect, refused, reset, try_timeout]",
                Live,
                "when: [connect, 503]",
                "after which outcomes another try is made; what may have been read is tried again only if idempotent",
            ),
            key(
                "backoff",
                &TIMEOUT,
                "25ms",
                Live,
                "backoff: 25ms",
                "wait before the next try, doubled each time, with jitter",
            ),
            key("budget", &SHARE, "20%", Live, "budget: 20%", "tries allowed on top of the requests of the last 10 s"),
            key("floor", &RATE, "10/s", Live, "floor: 10/s", "tries that are always allowed"),
            key(
                "idempotency_key",
                &BOOL,
                "false",
                Live,
                "idempotency_key: true",
                "a request with `Idempotency-Key` may be tried again",
            ),
        ],
    )
};

static LIMIT: Section = Section {
    shorts: &[Short::Scalar("at_once")],
    ..Section::of(
        "limit",
        "services.NAME.policy.limit",
        &[
            key(
                "at_once",
                &Shape::Count { min: 1, max: 100_000, words: &["auto"] },
                "auto",
                Live,
                "at_once: 64",
                "requests at once in one instance",
            ),
            key(
                "queue",
                &Shape::Count { min: 0, max: 100_000, words: &[] },
                "1000",
                Live,
                "queue: 100",
                "requests that wait beyond them",
            ),
            key("wait", &TIMEOUT, "1s", Live, "wait: 1s", "how long one waits before it gets 503 `overloaded`"),
        ],
    )
};

static HASH: Section = Section {
    either: &[&["header", "cookie", "query"]],
    ..Section::of(
        "hash",
        "services.NAME.policy.balance.hash",
        &[
            key("header", &TEXT, "", Live, "header: x-user", "the header whose value decides"),
            key("cookie", &TEXT, "", Live, "cookie: session", "the cookie whose value decides"),
            key("query", &TEXT, "", Live, "query: id", "the query parameter whose value decides"),
        ],
    )
};

static BALANCE: Section = Section {
    shorts: &[Short::Scalar("by")],
    either: &[&["by", "hash"]],
    ..Section::of(
        "balance",
        "services.NAME.policy.balance",
        &[
            key(
                "by",
                &Shape::Word { what: "way to balance", built: &["load", "least", "round_robin", "random"], later: &[] },
                "load",
                Live,
                "by: least",
                "how an instance is picked: `load` is response time × (requests in flight + 1) on two drawn at random",
            ),
            key(
                "hash",
                &Shape::Map(&HASH),
                "",
                Live,
                "hash: { header: x-user }",
                "the same value goes to the same instance",
            ),
            key(
                "slow_start",
                &ZERO_TO_HOUR,
                "10s",
                Live,
                "slow_start: 10s",
                "how long a new instance gets less than its share",
            ),
            key(
                "zone",
                &Shape::Word { what: "zone rule", built: &["prefer", "strict", "ignore"], later: &[] },
                "prefer",
                Live,
                "zone: prefer",
                "whether instances of the own zone come first",
            )
            .later(),
            key("panic", &SHARE, "50%", Live, "panic: 50%", "with fewer ready than this, all instances are used"),
        ],
    )
};

static EJECT: Section = Section::of(
    "eject",
    "services.NAME.policy.eject",
    &[
        key(
            "failures",
            &Shape::Count { min: 1, max: 1_000, words: &[] },
            "5",
            Live,
            "failures: 5",
            "failures in a row that leave an instance out",
        ),
        key(
            "first",
            &Shape::Duration { min: 100, max: HOUR },
            "30s",
            Live,
            "first: 30s",
            "how long the first time; each further time longer by as much",
        ),
        key("max", &Shape::Duration { min: 100, max: 24 * HOUR }, "300s", Live, "max: 300s", "the longest time"),
        key(
            "at_most",
            &SHARE,
            "50%",
            Live,
            "at_most: 50%",
            "the largest share of instances left out; the last ready one never is",
        ),
    ],
);

static PARK: Section = Section::of(
    "park",
    "services.NAME.policy.park",
    &[
        key("within", &TIMEOUT, "10s", Live, "within: 10s", "how long a request waits while every instance restarts"),
        key("max", &Shape::Count { min: 1, max: 100_000, words: &[] }, "1000", Live, "max: 1000", "how many wait"),
    ],
);

static MIRROR: Section = Section::of(
    "mirror",
    "services.NAME.policy.mirror",
    &[
        key("to", &TEXT, "", Live, "to: 1.5.0", "the version or service that gets a copy"),
        key("share", &SHARE, "100%", Live, "share: 10%", "how many of the requests are copied"),
    ],
);

static FAULT: Section = Section::of(
    "fault",
    "services.NAME.policy.fault",
    &[
        key("delay", &ZERO_TO_HOUR, "", Live, "delay: 200ms", "waits before the request goes on"),
        key(
            "status",
            &Shape::Count { min: 400, max: 599, words: &[] },
            "",
            Live,
            "status: 503",
            "answers with this instead",
        ),
        key("share", &SHARE, "100%", Live, "share: 5%", "how many of the requests"),
        key("until", &TEXT, "", Live, "until: 2026-11-22T18:00:00Z", "when it ends; at most 24 h ahead"),
    ],
);

static RATE_LIMIT: Section = Section {
    shorts: &[Short::Scalar("limit")],
    ..Section::of(
        "rate",
        "services.NAME.policy.rate",
        &[
            key("limit", &RATE, "", Live, "limit: 50/s", "requests in a time"),
            key(
                "burst",
                &Shape::Count { min: 1, max: 1_000_000, words: &[] },
                "",
                Live,
                "burst: 100",
                "how many at once beyond it",
            ),
            key("by", &TEXT, "client", Live, "by: caller", "for each client, caller or value of a header"),
            key("shared", &Shape::Name, "", Live, "shared: cache", "the resource in which all masters count together"),
        ],
    )
};

/// What can be done to the fields of a message; also for the answers of the edge.
pub(crate) static FIELD_KEYS: &[Key] = &[
    key("set", &FIELD_MAP, "{}", Live, "set: { x-a: b }", "fields that replace what is there"),
    key("add", &FIELD_MAP, "{}", Live, "add: { x-a: b }", "fields beside what is there"),
    key("remove", &Shape::List { of: &TEXT, max: 64 }, "[]", Live, "remove: [x-a]", "fields that go"),
];
static FIELDS: Section = Section::of("fields", "services.NAME.policy.headers", FIELD_KEYS);
static FIELD_MAP: Shape =
    Shape::Named { noun: "field", keys: Keys::Free, of: &TEXT, max: 64, shorts: &[], pair: "NAME: value" };

static HEADERS: Section = Section::of(
    "headers",
    "services.NAME.policy.headers",
    &[
        key("request", &Shape::Map(&FIELDS), "{}", Live, "request: { remove: [x-a] }", "fields of the request"),
        key("response", &Shape::Map(&FIELDS), "{}", Live, "response: { set: { x-a: b } }", "fields of the answer"),
    ],
);

static KEYS: &[Key] = &[
    key("timeout", &TIMEOUT, "30s", Live, "timeout: 2s", "the whole of a request that is no stream"),
    key("try_timeout", &TIMEOUT, "10s", Live, "try_timeout: 800ms", "one try; at most `timeout`"),
    key("connect", &TIMEOUT, "1s", Live, "connect: 500ms", "connecting to an instance"),
    key("idle", &TIMEOUT, "5m", Live, "idle: 10m", "silence of a stream in both directions"),
    key("balance", &Shape::Map(&BALANCE), "", Live, "balance: least", "how an instance is picked"),
    key(
        "eject",
        &Shape::Either(&[&Shape::Off, &Shape::Map(&EJECT)]),
        "",
        Live,
        "eject: { failures: 3 }",
        "when callers leave an instance out; `false`: never",
    ),
    key(
        "retries",
        &Shape::Map(&RETRIES),
        "1",
        Live,
        "retries: 1",
        "further tries, never of what may have been read unless it is idempotent",
    )
    .later(),
    key("limit", &Shape::Map(&LIMIT), "auto", Live, "limit: 64", "requests at once in one instance").later(),
    key(
        "park",
        &Shape::Either(&[&Shape::Off, &Shape::Map(&PARK)]),
        "",
        Live,
        "park: { within: 5s }",
        "requests wait while every instance restarts; `false`: they are refused",
    ),
    key(
        "split",
        &Shape::Named { noun: "version", keys: Keys::Free, of: &SHARE, max: 16, shorts: &[], pair: "VERSION: share" },
        "",
        Live,
        "split: { 1.4.2: 95%, 1.5.0: 5% }",
        "shares of the versions of a service, together 100%",
    )
    .later(),
    key(
        "mirror",
        &Shape::Map(&MIRROR),
        "",
        Live,
        "mirror: { to: 1.5.0, share: 10% }",
        "a copy of requests whose answers are dropped",
    )
    .later(),
    key(
        "fault",
        &Shape::Map(&FAULT),
        "",
        Live,
        "fault: { delay: 200ms, until: 2026-11-22T18:00:00Z }",
        "trouble on purpose, with an end",
    )
    .later(),
    key("rate", &Shape::Map(&RATE_LIMIT), "", Live, "rate: 50/s", "more than this gets 429 `rate_limited`").later(),
    key(
        "priority",
        &Shape::Word { what: "priority", built: &["critical", "normal", "background"], later: &[] },
        "normal",
        Live,
        "priority: background",
        "who is shed last",
    )
    .later(),
    key("body", &SIZE, "", Live, "body: 1MiB", "the largest body").later(),
    key(
        "headers",
        &Shape::Map(&HEADERS),
        "",
        Live,
        "headers: { request: { remove: [x-a] } }",
        "fields of both directions",
    )
    .later(),
];

/// `policy`.
pub(crate) static POLICY: Section = Section {
    synonyms: &[
        ("retry", "retries"),
        ("load_balancing", "balance"),
        ("lb", "balance"),
        ("outlier", "eject"),
        ("deadline", "timeout"),
        ("weights", "split"),
    ],
    ..Section::of("policy", "services.NAME.policy", KEYS)
};
/// The shape of `policy`.
pub(crate) static POLICY_SHAPE: Shape = Shape::Map(&POLICY);

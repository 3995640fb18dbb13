//! Keys of how a process lives: restarts, its end, reloading, handlers.

use super::probes::EVERY;
use super::routes::PAIRS;
use super::shape::{Keys, Shape, Short};
use super::{Effect, Section, key};

use Effect::{Live, Nothing, Roll};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

static TEXT: Shape = Shape::Text("text");
static TEXTS: Shape = Shape::List { of: &TEXT, max: 256 };

pub(super) static RESTART: Section = Section {
    shorts: &[Short::Scalar("when")],
    ..Section::of(
        "restart",
        "services.NAME.restart",
        &[
            key(
                "when",
                &Shape::Word { what: "rule", built: &["always", "on_failure", "never"], later: &[] },
                "always",
                Live,
                "when: never",
                "`never` is a job",
            ),
            key(
                "backoff",
                &Shape::Duration { min: 1, max: 10 * MINUTE },
                "100ms",
                Live,
                "backoff: 100ms",
                "wait before the first restart, doubled each time",
            ),
            key("max", &Shape::Duration { min: 1, max: 60 * MINUTE }, "30s", Live, "max: 30s", "the longest wait"),
            key(
                "tries",
                &Shape::Count { min: 1, max: 1_000, words: &[] },
                "5",
                Live,
                "tries: 5",
                "restarts in `window` that make it unhealthy",
            ),
            key(
                "window",
                &Shape::Duration { min: SECOND, max: 60 * MINUTE },
                "60s",
                Live,
                "window: 60s",
                "the time in which restarts are counted",
            ),
        ],
    )
};

pub(super) static STOP: Section = Section {
    shorts: &[Short::Scalar("within")],
    ..Section::of(
        "stop",
        "services.NAME.stop",
        &[
            key(
                "within",
                &Shape::Duration { min: 0, max: 10 * MINUTE },
                "25s",
                Live,
                "within: 25s",
                "the one deadline of draining",
            ),
            key(
                "signal",
                &Shape::Word { what: "signal", built: &["TERM", "INT", "QUIT", "HUP", "USR1", "USR2"], later: &[] },
                "TERM",
                Live,
                "signal: INT",
                "what the process gets",
            ),
        ],
    )
};

pub(super) static WATCH: Section = Section {
    shorts: &[Short::List("files")],
    ..Section::of(
        "watch",
        "services.NAME.watch",
        &[
            key("files", &TEXTS, "", Live, "files: [\"src/**\"]", "files whose change reloads it"),
            key("ignore", &TEXTS, "[]", Live, "ignore: [\"**/*.tmp\"]", "files that do not count"),
            key(
                "debounce",
                &Shape::Duration { min: 10, max: MINUTE },
                "300ms",
                Live,
                "debounce: 300ms",
                "quiet time before it reloads",
            ),
        ],
    )
};

pub(super) static RELOAD: Section = Section::of(
    "reload",
    "services.NAME.reload",
    &[
        key(
            "max_surge",
            &Shape::Count { min: 0, max: 256, words: &[] },
            "1",
            Live,
            "max_surge: 1",
            "instances beyond the wanted number",
        ),
        key(
            "max_unavailable",
            &Shape::Count { min: 0, max: 256, words: &[] },
            "0",
            Live,
            "max_unavailable: 0",
            "instances missing from it",
        ),
    ],
);

static TUNE: Section = Section {
    many: true,
    ..Section::of(
        "handler",
        "services.NAME.handlers",
        &[
            key("limit", &Shape::Count { min: 1, max: 100_000, words: &[] }, "", Live, "limit: 8", "calls at once"),
            key("queue", &Shape::Count { min: 0, max: 100_000, words: &[] }, "", Live, "queue: 100", "calls that wait"),
            key("queue_timeout", &EVERY, "", Live, "queue_timeout: 1s", "how long one waits"),
            key("timeout", &Shape::Duration { min: 1, max: 60 * MINUTE }, "", Live, "timeout: 5s", "how long one runs"),
        ],
    )
};

pub(super) static HANDLERS: Section = Section {
    shorts: &[Short::Scalar("dir")],
    ..Section::of(
        "handlers",
        "services.NAME.handlers",
        &[
            key("dir", &Shape::Path("folder"), "", Roll, "dir: ./handlers", "a file tree of handlers"),
            key(
                "tune",
                &Shape::Named {
                    noun: "handler",
                    keys: Keys::Free,
                    of: &Shape::Map(&TUNE),
                    max: 256,
                    shorts: &[],
                    pair: "PATTERN: { limit: … }",
                },
                "{}",
                Live,
                "tune: { \"POST /reports\": { limit: 2 } }",
                "bounds of single handlers",
            ),
        ],
    )
};

pub(super) static SERVICE_LOGS: Section = Section::of(
    "logs",
    "services.NAME.logs",
    &[
        key(
            "level",
            &Shape::Word { what: "level", built: &["error", "warn", "info", "debug", "trace"], later: &[] },
            "",
            Live,
            "level: debug",
            "the least important line; without it an SDK is told `info`, and all that is printed is kept",
        ),
        key(
            "format",
            &Shape::Word { what: "format", built: &["json", "text"], later: &[] },
            "json",
            Nothing,
            "format: text",
            "how its sidecar writes lines under PM2 or systemd; files are always JSON",
        ),
    ],
);

pub(super) static SERVICE_KUBERNETES: Section = Section::of(
    "kubernetes",
    "services.NAME.kubernetes",
    &[
        key("image", &TEXT, "", Nothing, "image: registry.example.com/users:1", "the image"),
        key(
            "replicas",
            &Shape::Count { min: 0, max: 10_000, words: &[] },
            "",
            Nothing,
            "replicas: 3",
            "how many there",
        ),
        key("service_account", &TEXT, "", Nothing, "service_account: users", "its account"),
        key("annotations", &PAIRS, "{}", Nothing, "annotations: { a: b }", "for tools of the cluster"),
    ],
);

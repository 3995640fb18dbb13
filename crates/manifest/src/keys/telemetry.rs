//! Keys of `telemetry`: what is written down, counted, traced and remembered.

use super::shape::Shape;
use super::{Effect, Section, key};

use Effect::Live;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

static LOGS: Section = Section::of(
    "logs",
    "telemetry.logs",
    &[
        key("dir", &Shape::Path("folder"), "./logs", Live, "dir: /var/log/shop", "where log files go"),
        key(
            "level",
            &Shape::Word { what: "level", built: &["error", "warn", "info", "debug", "trace"], later: &[] },
            "info",
            Live,
            "level: debug",
            "the least important line that is written",
        ),
        key(
            "format",
            &Shape::Word { what: "format", built: &["json", "text"], later: &[] },
            "json",
            Live,
            "format: text",
            "how a line is written to standard error; files are JSON",
        ),
        key(
            "keep",
            &Shape::Duration { min: HOUR, max: 3650 * DAY },
            "14d",
            Live,
            "keep: 30d",
            "how long files are kept",
        ),
        key(
            "max_size",
            &Shape::Size { min: 1 << 20, max: 1 << 44 },
            "1GiB",
            Live,
            "max_size: 4GiB",
            "how much they may take together",
        ),
        key(
            "access",
            &Shape::Share(&["all", "errors", "off"]),
            "all",
            Live,
            "access: errors",
            "which exchanges get a line",
        ),
    ],
);

static METRICS: Section = Section::of(
    "metrics",
    "telemetry.metrics",
    &[key(
        "series",
        &Shape::Count { min: 100, max: 1_000_000, words: &[] },
        "10000",
        Live,
        "series: 20000",
        "series of one process",
    )],
);

static TRACES: Section = Section::of(
    "traces",
    "telemetry.traces",
    &[
        key("otlp", &Shape::Url, "", Live, "otlp: http://127.0.0.1:4318", "where traces are sent"),
        key("sample", &Shape::Share(&[]), "1%", Live, "sample: 5%", "how many are"),
    ],
);

static EXPLAIN: Section = Section::of(
    "explain",
    "telemetry.explain",
    &[
        key(
            "keep",
            &Shape::Count { min: 0, max: 1_000_000, words: &[] },
            "10000",
            Live,
            "keep: 10000",
            "failures that can be explained later",
        ),
        key("sample", &Shape::Share(&[]), "1%", Live, "sample: 1%", "how many of the other requests"),
    ],
);

pub(super) static TELEMETRY: Section = Section::of(
    "telemetry",
    "telemetry",
    &[
        key("logs", &Shape::Map(&LOGS), "", Live, "logs: { access: errors }", "what is written down"),
        key("metrics", &Shape::Map(&METRICS), "", Live, "metrics: { series: 20000 }", "what is counted").later(),
        key("traces", &Shape::Map(&TRACES), "", Live, "traces: { otlp: http://127.0.0.1:4318 }", "what is traced")
            .later(),
        key("explain", &Shape::Map(&EXPLAIN), "", Live, "explain: { sample: 1% }", "what `synego explain` remembers")
            .later(),
    ],
);

//! Keys of `health` and `ready`: how it is found out whether a process is well.

use super::shape::{Shape, Short};
use super::{Effect, Section, key};

use Effect::{Live, NextStart};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

static COMMAND: Shape = Shape::Command;
static TIMES: Shape = Shape::Count { min: 1, max: 10, words: &[] };
pub(super) static EVERY: Shape = Shape::Duration { min: 100, max: 5 * MINUTE };
static GRPC: Shape = Shape::Text("`true` or a name");
static TRUE: Shape = Shape::Word { what: "probe", built: &["true"], later: &[] };

pub(super) static HEALTH: Section = Section {
    shorts: &[Short::Scalar("http")],
    either: &[&["http", "grpc", "tcp", "exec"]],
    synonyms: &[("path", "http"), ("interval", "every"), ("command", "exec"), ("cmd", "exec"), ("threshold", "down")],
    ..Section::of(
        "health",
        "services.NAME.health",
        &[
            key("http", &Shape::UrlPath, "", Live, "http: /healthz", "`GET` of this path answers 2xx or 3xx"),
            key(
                "grpc",
                &GRPC,
                "",
                Live,
                "grpc: true",
                "`grpc.health.v1` answers `SERVING`; a name asks for that service",
            ),
            key("tcp", &TRUE, "", Live, "tcp: true", "the port takes a connection"),
            key("exec", &COMMAND, "", Live, "exec: ./check.sh", "the command ends with code 0"),
            key("every", &EVERY, "1s", Live, "every: 2s", "time between probes"),
            key("timeout", &EVERY, "1s", Live, "timeout: 500ms", "time for one probe"),
            key("down", &TIMES, "3", Live, "down: 3", "failures in a row that make it unhealthy"),
            key("up", &TIMES, "2", Live, "up: 2", "successes in a row that make it ready again"),
        ],
    )
};

pub(super) static READY: Section = Section {
    shorts: &[Short::Words(&["port", "notify"], "http")],
    either: &[&["port", "notify", "http", "grpc", "tcp", "exec", "log"]],
    synonyms: &[("path", "http"), ("timeout", "within"), ("command", "exec")],
    ..Section::of(
        "ready",
        "services.NAME.ready",
        &[
            key("port", &TRUE, "", NextStart, "port: true", "its port takes connections"),
            key("notify", &TRUE, "", NextStart, "notify: true", "it says `READY=1` on `NOTIFY_SOCKET`"),
            key("http", &Shape::UrlPath, "", NextStart, "http: /readyz", "`GET` of this path answers 2xx or 3xx"),
            key("grpc", &GRPC, "", NextStart, "grpc: true", "`grpc.health.v1` answers `SERVING`"),
            key("tcp", &TRUE, "", NextStart, "tcp: true", "the port takes a connection"),
            key("exec", &COMMAND, "", NextStart, "exec: ./ready.sh", "the command ends with code 0"),
            key(
                "log",
                &Shape::Pattern,
                "",
                NextStart,
                "log: \"^listening\"",
                "a line of its output has this text; `^` and `$` anchor it",
            ),
            key(
                "within",
                &Shape::Duration { min: SECOND, max: 30 * MINUTE },
                "30s",
                NextStart,
                "within: 60s",
                "how long it may take",
            ),
        ],
    )
};

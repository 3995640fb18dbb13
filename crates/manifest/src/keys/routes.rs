//! Keys of `routes`, `uses`, `allow` and `deny`: who is reached where, and by whom.

use super::policy::POLICY_SHAPE;
use super::shape::{Keys, Shape, Short};
use super::{Effect, Section, key};

use Effect::Live;

const MINUTE: u64 = 60_000;

static TEXT: Shape = Shape::Text("text");
static BOOL: Shape = Shape::Bool;
static METHODS: Shape = Shape::List { of: &Shape::Method, max: 16 };
pub(super) static PAIRS: Shape =
    Shape::Named { noun: "condition", keys: Keys::Free, of: &TEXT, max: 16, shorts: &[], pair: "NAME: value" };

static CALLER: Section = Section {
    many: true,
    shorts: &[Short::Scalar("caller")],
    ..Section::of(
        "access rule",
        "services.NAME.allow",
        &[
            key("caller", &Shape::Name, "", Live, "caller: orders", "a service, or `ingress`"),
            key("method", &METHODS, "[]", Live, "method: [GET]", "methods; without any all"),
            key("path", &Shape::UrlPath, "", Live, "path: /admin", "a path and all below it; `:id` is one segment"),
        ],
    )
};

pub(super) static CALLERS: Shape = Shape::List { of: &Shape::Map(&CALLER), max: 256 };

static ROUTE: Section = Section {
    many: true,
    shorts: &[Short::Scalar("path")],
    either: &[&["path", "regex"]],
    ..Section::of(
        "route",
        "services.NAME.routes",
        &[
            key("host", &Shape::Host, "", Live, "host: old.example.com", "the host; without one every host"),
            key("path", &Shape::RoutePath, "/", Live, "path: /users", "a prefix by segments; `:id` is one segment"),
            key("regex", &Shape::Pattern, "", Live, "regex: /v[12]/.*", "a pattern of the path, anchored at the start")
                .later(),
            key("exact", &BOOL, "false", Live, "exact: true", "whether the path must be equal, not only begin so"),
            key("method", &METHODS, "[]", Live, "method: [GET, POST]", "methods; without any all"),
            key("headers", &PAIRS, "{}", Live, "headers: { x-canary: \"1\" }", "headers that must have these values"),
            key("query", &PAIRS, "{}", Live, "query: { v: \"2\" }", "query parameters that must have these values"),
            key("name", &TEXT, "", Live, "name: export", "what metrics call it").later(),
            key("rewrite", &Shape::UrlPath, "", Live, "rewrite: /users", "what the path becomes").later(),
            key("to", &TEXT, "", Live, "to: 1.5.0", "the version that answers").later(),
            key(
                "policy",
                &POLICY_SHAPE,
                "",
                Live,
                "policy: { timeout: 2m }",
                "how its requests are treated; the service's policy holds for the rest",
            ),
            key(
                "allow",
                &CALLERS,
                "",
                Live,
                "allow: [ingress]",
                "who may call by it, of those that the service allows",
            ),
            key("deny", &CALLERS, "[]", Live, "deny: [reports]", "who may not; it wins over `allow`"),
        ],
    )
};

pub(super) static ROUTES: Shape = Shape::List { of: &Shape::Map(&ROUTE), max: 256 };

static USE: Section = Section {
    many: true,
    ..Section::of(
        "use",
        "services.NAME.uses",
        &[
            key(
                "timeout",
                &Shape::Duration { min: 1, max: 60 * MINUTE },
                "",
                Live,
                "timeout: 800ms",
                "may only shorten what the callee says",
            )
            .later(),
            key(
                "retries",
                &Shape::Count { min: 0, max: 3, words: &[] },
                "",
                Live,
                "retries: 0",
                "may only lower what the callee says",
            )
            .later(),
            key(
                "priority",
                &Shape::Word { what: "priority", built: &["critical", "normal", "background"], later: &[] },
                "",
                Live,
                "priority: background",
                "who is shed last",
            )
            .later(),
        ],
    )
};

pub(super) static USES: Shape = Shape::Named {
    noun: "use",
    keys: Keys::Names,
    of: &Shape::Map(&USE),
    max: 256,
    shorts: &[Short::Names],
    pair: "NAME: {}",
};

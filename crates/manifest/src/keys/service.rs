//! Keys of a service: what it is to the mesh, and how this machine runs it.

use super::policy::POLICY_SHAPE;
use super::shape::{Keys, Shape, Short};
use super::{Effect, Key, Section, key};

use Effect::{Live, NextStart, Nothing, Roll, Scale};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

static TEXT: Shape = Shape::Text("text");
static BOOL: Shape = Shape::Bool;
static NAMES: Shape = Shape::List { of: &Shape::Name, max: 256 };
static COMMAND: Shape = Shape::Command;
static FILES: Shape = Shape::List { of: &Shape::Path("file"), max: 64 };
static TEXTS: Shape = Shape::List { of: &TEXT, max: 256 };
static METHODS: Shape = Shape::List { of: &Shape::Method, max: 16 };
static LABELS: Shape =
    Shape::Named { noun: "label", keys: Keys::Free, of: &TEXT, max: 16, shorts: &[], pair: "NAME: value" };
static PAIRS: Shape =
    Shape::Named { noun: "condition", keys: Keys::Free, of: &TEXT, max: 16, shorts: &[], pair: "NAME: value" };
static ENV: Shape =
    Shape::Named { noun: "variable", keys: Keys::Variables, of: &TEXT, max: 1_024, shorts: &[], pair: "NAME: value" };
static EVERY: Shape = Shape::Duration { min: 100, max: 5 * MINUTE };
static TIMES: Shape = Shape::Count { min: 1, max: 10, words: &[] };
static GRPC: Shape = Shape::Text("`true` or a name");
static TRUE: Shape = Shape::Word { what: "probe", built: &["true"], later: &[] };

static CALLER: Section = Section {
    many: true,
    shorts: &[Short::Scalar("caller")],
    ..Section::of(
        "access rule",
        "services.NAME.allow",
        &[
            key("caller", &Shape::Name, "", Live, "caller: orders", "a service, or `ingress`"),
            key("method", &METHODS, "[]", Live, "method: [GET]", "methods"),
            key("path", &Shape::UrlPath, "", Live, "path: /admin", "a path"),
        ],
    )
};
static CALLERS: Shape = Shape::List { of: &Shape::Map(&CALLER), max: 256 };

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
            key("allow", &CALLERS, "[]", Live, "allow: [ingress]", "who may call").later(),
            key("deny", &CALLERS, "[]", Live, "deny: [reports]", "who may not").later(),
        ],
    )
};
static ROUTES: Shape = Shape::List { of: &Shape::Map(&ROUTE), max: 256 };

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
static USES: Shape = Shape::Named {
    noun: "use",
    keys: Keys::Names,
    of: &Shape::Map(&USE),
    max: 256,
    shorts: &[Short::Names],
    pair: "NAME: {}",
};

static HEALTH: Section = Section {
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

static READY: Section = Section {
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

static RESTART: Section = Section {
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

static STOP: Section = Section {
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
            key("signal", &TEXT, "TERM", Live, "signal: INT", "what the process gets"),
        ],
    )
};

static WATCH: Section = Section {
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

static RELOAD: Section = Section::of(
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

static HANDLERS: Section = Section {
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

static SERVICE_LOGS: Section = Section::of(
    "logs",
    "services.NAME.logs",
    &[
        key(
            "level",
            &Shape::Word { what: "level", built: &["error", "warn", "info", "debug", "trace"], later: &[] },
            "info",
            Live,
            "level: debug",
            "the least important line",
        ),
        key(
            "format",
            &Shape::Word { what: "format", built: &["json", "text"], later: &[] },
            "json",
            Live,
            "format: text",
            "how a line is written",
        ),
    ],
);

static SERVICE_KUBERNETES: Section = Section::of(
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

/// Keys that only a service itself can say.
static OWN_KEYS: &[Key] = &[
    key("run", &COMMAND, "", Roll, "run: node server.js", "the program that is started, without a shell"),
    key(
        "address",
        &Shape::Either(&[&Shape::Target, &Shape::List { of: &Shape::Target, max: 256 }]),
        "",
        Live,
        "address: 127.0.0.1:9000",
        "where it runs already; it is not supervised",
    ),
    key(
        "build",
        &COMMAND,
        "",
        NextStart,
        "build: go build -o bin/orders ./orders",
        "runs before each start; its failure changes nothing",
    ),
    key("version", &TEXT, "", Roll, "version: 1.4.2", "what is running, for people and metrics"),
    key(
        "port",
        &Shape::Count { min: 1, max: 65_535, words: &["auto"] },
        "auto",
        Roll,
        "port: 9000",
        "where the process listens, told in `PORT`; a fixed one allows one instance",
    ),
    key(
        "socket",
        &Shape::Path("socket"),
        "",
        Roll,
        "socket: ./run/app.sock",
        "the Unix socket on which the process listens",
    )
    .later(),
    key(
        "routes",
        &ROUTES,
        "",
        Live,
        "routes: [/users]",
        "places it answers; `[]` keeps it inside; without the key the service says them itself, and a lone one gets `/`",
    ),
    key("uses", &USES, "[]", Live, "uses: [users]", "services and resources it calls"),
    key("after", &NAMES, "[]", NextStart, "after: [migrate]", "services that must be ready before it starts"),
];

/// Keys that `defaults` can say for all.
static COMMON_KEYS: &[Key] = &[
    key(
        "cwd",
        &Shape::Path("folder"),
        "",
        Roll,
        "cwd: web",
        "where it runs; the folder of the file if nothing is said",
    ),
    key(
        "env",
        &ENV,
        "{}",
        Roll,
        "env: { NODE_ENV: production }",
        "variables, over inherited ones and those of `env_file`",
    ),
    key("env_file", &FILES, "[]", Roll, "env_file: [.env]", "files of variables, read anew at each start"),
    key(
        "instances",
        &Shape::Count { min: 0, max: 256, words: &["cores"] },
        "1",
        Scale,
        "instances: 2",
        "processes on each of its machines",
    ),
    key(
        "protocol",
        &Shape::Word { what: "protocol", built: &["http", "grpc", "tcp"], later: &["udp"] },
        "http",
        Roll,
        "protocol: grpc",
        "what it speaks; never guessed",
    ),
    key(
        "health",
        &Shape::Map(&HEALTH),
        "",
        Live,
        "health: /healthz",
        "how its health is probed; without it by its process and port alone",
    ),
    key(
        "ready",
        &Shape::Map(&READY),
        "",
        NextStart,
        "ready: { log: \"^listening\" }",
        "what proves that it is ready; without it its `health`, else its port",
    ),
    key("labels", &LABELS, "{}", Live, "labels: { team: shop }", "for metrics and selectors"),
    key("policy", &POLICY_SHAPE, "", Live, "policy: { timeout: 2s }", "how its requests are treated"),
    key("nodes", &super::mesh::SELECTOR, "", Scale, "nodes: [vm3]", "machines it runs on").later(),
    key("allow", &CALLERS, "[]", Live, "allow: [ingress]", "who may call it, of those that use it").later(),
    key("deny", &CALLERS, "[]", Live, "deny: [reports]", "who may not").later(),
    key("config", &Shape::Free, "{}", Live, "config: { theme: dark }", "handed to the service by its SDK; any keys")
        .later(),
    key("metrics", &Shape::UrlPath, "", Live, "metrics: /metrics", "where the service shows its own").later(),
    key("user", &TEXT, "", Roll, "user: shop", "whose rights it has").later(),
    key("group", &TEXT, "", Roll, "group: shop", "whose rights it has").later(),
    key("pass_env", &TEXTS, "[\"*\"]", Roll, "pass_env: [PATH, \"LC_*\"]", "variables it inherits").later(),
    key(
        "restart",
        &Shape::Map(&RESTART),
        "always",
        Live,
        "restart: never",
        "when it is started again; `never` is a job",
    )
    .later(),
    key("stop", &Shape::Map(&STOP), "25s", Live, "stop: 60s", "how it is ended").later(),
    key("memory", &Shape::Size { min: 1 << 20, max: 1 << 44 }, "", Roll, "memory: 512MiB", "over it, it is restarted")
        .later(),
    key("cpu", &Shape::Cores, "", Roll, "cpu: 0.5", "cores it may use").later(),
    key("files", &Shape::Count { min: 16, max: 10_000_000, words: &[] }, "", Roll, "files: 65536", "files it may open")
        .later(),
    key("watch", &Shape::Map(&WATCH), "", Live, "watch: [\"src/**\"]", "files whose change reloads it").later(),
    key("reload", &Shape::Map(&RELOAD), "", Live, "reload: { max_surge: 1 }", "how many are replaced at once").later(),
    key("handlers", &Shape::Map(&HANDLERS), "", Live, "handlers: ./handlers", "handlers in a file tree").later(),
    key("logs", &Shape::Map(&SERVICE_LOGS), "", Live, "logs: { level: debug }", "what its own lines look like").later(),
    key(
        "kubernetes",
        &Shape::Map(&SERVICE_KUBERNETES),
        "",
        Nothing,
        "kubernetes: { image: shop/users }",
        "read by `synego k8s` alone",
    )
    .later(),
];

const EITHER: &[&[&str]] = &[&["run", "address"], &["port", "socket"]];
const SYNONYMS: &[(&str, &str)] = &[
    ("replicas", "instances"),
    ("scale", "instances"),
    ("count", "instances"),
    ("command", "run"),
    ("cmd", "run"),
    ("exec", "run"),
    ("script", "run"),
    ("start", "run"),
    ("entrypoint", "run"),
    ("environment", "env"),
    ("envs", "env"),
    ("depends_on", "after"),
    ("requires", "after"),
    ("healthcheck", "health"),
    ("probe", "health"),
    ("ports", "port"),
    ("path", "routes"),
    ("paths", "routes"),
    ("route", "routes"),
    ("upstream", "address"),
    ("proxy_pass", "address"),
    ("workdir", "cwd"),
    ("working_dir", "cwd"),
    ("dir", "cwd"),
];

/// One of `services`.
pub(crate) static SERVICE: Section = Section {
    many: true,
    either: EITHER,
    synonyms: SYNONYMS,
    more: COMMON_KEYS,
    ..Section::of("service", "services", OWN_KEYS)
};
/// `defaults`.
pub(crate) static DEFAULTS: Section =
    Section { synonyms: COMMON_SYNONYMS, ..Section::of("defaults", "defaults", COMMON_KEYS) };

const COMMON_SYNONYMS: &[(&str, &str)] =
    &[("replicas", "instances"), ("environment", "env"), ("healthcheck", "health"), ("workdir", "cwd")];

//! Keys of a service: what it is to the mesh, and how this machine runs it.

use super::policy::POLICY_SHAPE;
use super::probes::{HEALTH, READY};
use super::process::{HANDLERS, RELOAD, RESTART, SERVICE_KUBERNETES, SERVICE_LOGS, STOP, WATCH};
use super::routes::{CALLERS, ROUTES, USES};
use super::shape::{Keys, Shape};
use super::{Effect, Key, Section, key};

use Effect::{Live, NextStart, Nothing, Roll, Scale};

static TEXT: Shape = Shape::Text("text");
static NAMES: Shape = Shape::List { of: &Shape::Name, max: 256 };
static COMMAND: Shape = Shape::Command;
static FILES: Shape = Shape::List { of: &Shape::Path("file"), max: 64 };
static TEXTS: Shape = Shape::List { of: &TEXT, max: 256 };
static LABELS: Shape =
    Shape::Named { noun: "label", keys: Keys::Free, of: &TEXT, max: 16, shorts: &[], pair: "NAME: value" };
static ENV: Shape =
    Shape::Named { noun: "variable", keys: Keys::Variables, of: &TEXT, max: 1_024, shorts: &[], pair: "NAME: value" };

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
        "socket: auto",
        "a Unix socket where the process listens instead, told in `SOCKET`; `auto` names one for each, a path allows one",
    ),
    key(
        "routes",
        &ROUTES,
        "",
        Live,
        "routes: [/users]",
        "places it answers; `[]` keeps it inside; without the key the service says them itself, and a lone one gets `/`",
    ),
    key("uses", &USES, "[]", Live, "uses: [users]", "services and resources it calls"),
    key(
        "after",
        &NAMES,
        "[]",
        NextStart,
        "after: [migrate]",
        "services that must be ready, jobs that must be done, before it starts",
    ),
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
    key("allow", &CALLERS, "", Live, "allow: [ingress]", "who may call it, of those that use it; `[]`: nobody"),
    key("deny", &CALLERS, "[]", Live, "deny: [reports]", "who may not; it wins over `allow`"),
    key("config", &Shape::Free, "{}", Live, "config: { theme: dark }", "handed to the service by its SDK; any keys")
        .later(),
    key("metrics", &Shape::UrlPath, "", Live, "metrics: /metrics", "where the service shows its own").later(),
    key("user", &TEXT, "", Roll, "user: shop", "whose rights it has, by name or number; for another's, run as root"),
    key("group", &TEXT, "", Roll, "group: shop", "the group of its rights; the user's own if nothing is said"),
    key(
        "pass_env",
        &TEXTS,
        "[\"*\"]",
        Roll,
        "pass_env: [PATH, \"LC_*\"]",
        "variables it inherits of whoever starts it; `*` is any text",
    ),
    key(
        "restart",
        &Shape::Map(&RESTART),
        "always",
        Live,
        "restart: never",
        "after which ends it is started again; `never` is a job",
    ),
    key("stop", &Shape::Map(&STOP), "25s", Live, "stop: 60s", "how it is ended"),
    key(
        "memory",
        &Shape::Size { min: 1 << 20, max: 1 << 44 },
        "",
        Roll,
        "memory: 512MiB",
        "what each instance may have with all it starts; over it, it is restarted",
    ),
    key("cpu", &Shape::Cores, "", Roll, "cpu: 0.5", "cores that each instance may use"),
    key(
        "files",
        &Shape::Count { min: 16, max: 10_000_000, words: &[] },
        "",
        Roll,
        "files: 65536",
        "how many files it may have open; as many as Synego if nothing is said",
    ),
    key("watch", &Shape::Map(&WATCH), "", Live, "watch: [\"src/**\"]", "files whose change reloads it"),
    key("reload", &Shape::Map(&RELOAD), "", Live, "reload: { max_surge: 1 }", "how many are replaced at once"),
    key("handlers", &Shape::Map(&HANDLERS), "", Live, "handlers: ./handlers", "handlers in a file tree").later(),
    key("logs", &Shape::Map(&SERVICE_LOGS), "", Live, "logs: { level: debug }", "which of its lines are written down"),
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

//! Keys of the manifest itself: the mesh as a whole, its machines, masters, secrets, resources, telemetry.

use super::gateway::GATEWAY;
use super::limits::LIMITS;
use super::masters::MASTERS;
use super::service::{DEFAULTS, SERVICE};
use super::shape::{Keys, Shape, Short};
use super::telemetry::TELEMETRY;
use super::{Effect, Key, Section, key};

use Effect::{Live, Never, Nothing, Own, Roll};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

static TEXT: Shape = Shape::Text("text");
static BOOL: Shape = Shape::Bool;
static FILE: Shape = Shape::Path("file");
static FILES: Shape = Shape::List { of: &FILE, max: 64 };
static LABELS: Shape =
    Shape::Named { noun: "label", keys: Keys::Free, of: &TEXT, max: 16, shorts: &[], pair: "NAME: value" };
static NAMES: Shape = Shape::List { of: &Shape::Name, max: 1_024 };

/// Which machines: a list of their names, or labels that must all match.
pub(crate) static SELECTOR: Shape = Shape::Either(&[&NAMES, &LABELS]);

static NODE: Section = Section {
    many: true,
    ..Section::of(
        "node",
        "nodes",
        &[
            key("address", &TEXT, "", Own, "address: 10.0.0.11", "where the others reach it"),
            key("zone", &TEXT, "", Live, "zone: a", "what fails together with it"),
            key("labels", &LABELS, "{}", Live, "labels: { role: edge }", "for selectors"),
        ],
    )
};

static SECRET: Section = Section {
    many: true,
    either: &[&["env", "file", "command"]],
    ..Section::of(
        "secret",
        "secrets",
        &[
            key("env", &TEXT, "", Roll, "env: DB_PASSWORD", "the variable that holds it"),
            key("file", &FILE, "", Roll, "file: /etc/shop/db", "the file that holds it"),
            key("command", &Shape::Command, "", Roll, "command: pass show shop/db", "the command that prints it"),
            key(
                "refresh",
                &Shape::Duration { min: MINUTE, max: 30 * DAY },
                "",
                Roll,
                "refresh: 1h",
                "how often it is fetched anew",
            ),
        ],
    )
};

static RESOURCE: Section = Section {
    many: true,
    shorts: &[Short::Scalar("url")],
    ..Section::of(
        "resource",
        "resources",
        &[
            key(
                "url",
                &Shape::Url,
                "",
                Live,
                "url: redis://127.0.0.1:6379",
                "where it is; its kind is that of the scheme",
            ),
            key("ca", &FILE, "", Live, "ca: ./ca.pem", "whom its certificate is checked by"),
            key("pool", &Shape::Count { min: 1, max: 10_000, words: &[] }, "", Live, "pool: 20", "connections at once"),
            key("required", &BOOL, "false", Live, "required: true", "whether its users start only once it answers"),
        ],
    )
};

static CA: Section = Section::of(
    "ca",
    "identity.ca",
    &[
        key("cert", &FILE, "", Own, "cert: ./ca.pem", "the certificate of the authority"),
        key("key", &FILE, "", Own, "key: ./ca.key", "its key"),
    ],
);

static IDENTITY: Section = Section::of(
    "identity",
    "identity",
    &[
        key(
            "mtls",
            &Shape::Word { what: "mode", built: &["required", "off"], later: &[] },
            "required",
            Own,
            "mtls: required",
            "whether every hop is mutual TLS",
        ),
        key(
            "life",
            &Shape::Duration { min: 10 * MINUTE, max: 90 * DAY },
            "24h",
            Live,
            "life: 24h",
            "how long a certificate lives",
        ),
        key(
            "ca",
            &Shape::Map(&CA),
            "",
            Own,
            "ca: { cert: ./ca.pem, key: ./ca.key }",
            "an authority of your own to begin with; later ones by `synego ca import`",
        ),
    ],
);

static KUBERNETES: Section = Section::of(
    "kubernetes",
    "kubernetes",
    &[
        key("namespace", &TEXT, "", Nothing, "namespace: shop", "where everything goes"),
        key("registry", &TEXT, "", Nothing, "registry: registry.example.com/shop", "what image names begin with"),
        key("pull_secret", &TEXT, "", Nothing, "pull_secret: registry", "the secret for pulling images"),
        key(
            "edge",
            &Shape::Word { what: "edge", built: &["nginx", "gateway-api"], later: &[] },
            "nginx",
            Nothing,
            "edge: gateway-api",
            "what the gateway becomes",
        ),
    ],
);

static NODES: Shape = Shape::Either(&[
    &Shape::Word { what: "set of nodes", built: &["local"], later: &[] },
    &Shape::Later(&Shape::Named {
        noun: "node",
        keys: Keys::Names,
        of: &Shape::Map(&NODE),
        max: 1_024,
        shorts: &[],
        pair: "NAME: { address: … }",
    }),
]);

const fn named(noun: &'static str, of: &'static Shape, pair: &'static str) -> Shape {
    Shape::Named { noun, keys: Keys::Names, of, max: MAX_ENTRIES, shorts: &[], pair }
}

/// `services`.
pub(crate) static SERVICES: Shape = named("service", &Shape::Map(&SERVICE), "NAME: { run: … }");
/// `resources`.
pub(crate) static RESOURCES: Shape = named("resource", &Shape::Map(&RESOURCE), "NAME: URL");
/// `secrets`.
pub(crate) static SECRETS: Shape = named("secret", &Shape::Map(&SECRET), "NAME: { file: … }");

static KEYS: &[Key] = &[
    key(
        "mesh",
        &Shape::Name,
        "",
        Never,
        "mesh: shop",
        "name of the mesh, the folder's if nothing is said; also the trust domain",
    ),
    key(
        "include",
        &FILES,
        "[]",
        Nothing,
        "include: [teams/*.yaml]",
        "files that hold more services, resources and secrets",
    ),
    key("vars_file", &FILES, "[]", Nothing, "vars_file: [.env]", "files that feed `${NAME}`; the environment wins")
        .later(),
    key("nodes", &NODES, "local", Own, "nodes: local", "the machines; `local`: this one alone"),
    key(
        "access",
        &Shape::Word { what: "mode", built: &["enforce", "observe", "open"], later: &[] },
        "enforce",
        Live,
        "access: observe",
        "what happens to calls that `uses`, `allow` and `deny` do not permit",
    ),
    key("identity", &Shape::Map(&IDENTITY), "", Own, "identity: { life: 24h }", "certificates of the mesh"),
    key("masters", &Shape::Map(&MASTERS), "", Live, "masters: [m1:3001, m2:3001]", "who leads, and where"),
    key("gateway", &Shape::Map(&GATEWAY), "", Effect::Edge, "gateway: { listen: 8080 }", "what faces the world"),
    key("limits", &Shape::Map(&LIMITS), "", Live, "limits: { target: 16KiB }", "bounds inside the mesh"),
    key(
        "telemetry",
        &Shape::Map(&TELEMETRY),
        "",
        Live,
        "telemetry: { logs: { access: errors } }",
        "logs, metrics and traces",
    ),
    key(
        "secrets",
        &SECRETS,
        "{}",
        Roll,
        "secrets: { db: { file: /etc/shop/db } }",
        "where secrets come from; `${secret:db}` names one",
    )
    .later(),
    key(
        "resources",
        &RESOURCES,
        "{}",
        Live,
        "resources: { cache: redis://127.0.0.1:6379 }",
        "databases and the like that services use",
    )
    .later(),
    key(
        "defaults",
        &Shape::Map(&DEFAULTS),
        "",
        Live,
        "defaults: { policy: { timeout: 5s } }",
        "what holds for every service that says nothing itself",
    ),
    key(
        "services",
        &SERVICES,
        "{}",
        Effect::Scale,
        "services: { hello: { run: node server.js } }",
        "what the mesh is made of",
    ),
    key(
        "kubernetes",
        &Shape::Map(&KUBERNETES),
        "",
        Nothing,
        "kubernetes: { namespace: shop }",
        "read by `synego k8s` alone",
    )
    .later(),
];

/// The manifest.
pub(crate) static ROOT: Section = Section {
    synonyms: &[
        ("name", "mesh"),
        ("project", "mesh"),
        ("service", "services"),
        ("apps", "services"),
        ("processes", "services"),
        ("nginx", "gateway"),
        ("ingress", "gateway"),
        ("master", "masters"),
        ("logging", "telemetry"),
        ("imports", "include"),
    ],
    ..Section::of("manifest", "manifest", KEYS)
};
/// The shape of the manifest.
pub(crate) static ROOT_SHAPE: Shape = Shape::Map(&ROOT);
/// Most services, resources or secrets.
pub(crate) const MAX_ENTRIES: usize = 1_024;
/// What an included file may hold.
pub(crate) const INCLUDED: &[&str] = &["services", "resources", "secrets"];

//! Keys of `gateway`: what faces the world.

use super::edge::{CORS, FIELD_RULE, GZIP, LOGIN, NGINX, REDIRECT, TLS, UPLOAD};
use super::limits::EDGE_LIMITS;
use super::shape::{Keys, Shape, Short};
use super::{Effect, Key, Section, key};

use Effect::{Edge, Own, Socket};

const DAY: u64 = 86_400_000;

static TEXT: Shape = Shape::Text("text");
static BOOL: Shape = Shape::Bool;
static FILE: Shape = Shape::Path("file");
static FOLDER: Shape = Shape::Path("folder");
static CACHE: Shape = Shape::Duration { min: 0, max: 365 * DAY };
static CIDRS: Shape = Shape::List { of: &Shape::Cidr, max: 256 };

const fn places(of: &'static Shape, pair: &'static str) -> Shape {
    Shape::Named { noun: "place", keys: Keys::Places, of, max: 256, shorts: &[], pair }
}

static LISTEN: Section = Section {
    shorts: &[Short::Scalar("address")],
    many: true,
    ..Section::of(
        "listener",
        "gateway.listen",
        &[
            key(
                "address",
                &Shape::Bind,
                "",
                Socket,
                "address: 127.0.0.1:8080",
                "where; a bare port binds every interface",
            ),
            key(
                "protocol",
                &Shape::Word {
                    what: "protocol",
                    built: &["http", "grpc"],
                    later: &["https", "grpcs", "tcp", "tls", "udp"],
                },
                "",
                Socket,
                "protocol: grpc",
                "what is spoken there; the names `http`, `https`, `grpc` and `grpcs` imply it",
            ),
            key("to", &Shape::Name, "", Socket, "to: db-proxy", "the service behind a listener of bytes").later(),
            key(
                "proxy_protocol",
                &CIDRS,
                "",
                Socket,
                "proxy_protocol: [10.0.0.0/8]",
                "load balancers that say by the PROXY protocol whose connection they pass on, and must",
            ),
        ],
    )
};

static STATIC: Section = Section {
    shorts: &[Short::Scalar("dir")],
    many: true,
    ..Section::of(
        "static folder",
        "gateway.static",
        &[
            key("dir", &FOLDER, "", Edge, "dir: ./public", "the folder"),
            key("index", &TEXT, "index.html", Edge, "index: index.html", "the file that is served for a folder"),
            key("cache", &CACHE, "1h", Edge, "cache: 30d", "how long a client may keep a file"),
            key("list", &BOOL, "false", Edge, "list: true", "whether a folder without index is listed"),
        ],
    )
};

static SPA: Section = Section {
    shorts: &[Short::Scalar("dir")],
    many: true,
    ..Section::of(
        "single-page application",
        "gateway.spa",
        &[
            key("dir", &FOLDER, "", Edge, "dir: ./web/dist", "the folder"),
            key("index", &TEXT, "index.html", Edge, "index: index.html", "the file that unknown paths get"),
        ],
    )
};

static KEYS: &[Key] = &[
    key(
        "engine",
        &Shape::Word { what: "engine", built: &["nginx", "master"], later: &[] },
        "",
        Own,
        "engine: master",
        "who serves; without it Nginx where it is found, else the master, which knows routes only",
    ),
    key(
        "nodes",
        &super::mesh::SELECTOR,
        "",
        Own,
        "nodes: { role: edge }",
        "machines that face the world; those with a master if nothing is said",
    )
    .later(),
    key("nginx", &Shape::Map(&NGINX), "", Edge, "nginx: { workers: 4 }", "the program and what is yours in it").later(),
    key(
        "listen",
        &Shape::Named {
            noun: "listener",
            keys: Keys::Listeners,
            of: &Shape::Map(&LISTEN),
            max: 32,
            shorts: &[Short::Scalar("http")],
            pair: "NAME: address",
        },
        "{ http: 8080 }",
        Socket,
        "listen: { http: 80, grpc: 8081 }",
        "addresses that face the world; a bare port binds every interface",
    ),
    key(
        "hosts",
        &Shape::List { of: &Shape::Host, max: 1_024 },
        "[]",
        Edge,
        "hosts: [shop.example.com]",
        "hosts that are served; others get 404 `no_route`",
    ),
    key("tls", &Shape::Map(&TLS), "", Edge, "tls: { acme: ops@example.com }", "certificates of the edge").later(),
    key("redirect_http", &BOOL, "", Edge, "redirect_http: false", "plain HTTP leads to HTTPS").later(),
    key(
        "redirects",
        &REDIRECTS,
        "{}",
        Edge,
        "redirects: { www.shop.example.com/: https://shop.example.com/ }",
        "places that lead elsewhere",
    )
    .later(),
    key("static", &STATICS, "{}", Edge, "static: { /static: ./public }", "folders of files"),
    key("spa", &SPAS, "{}", Edge, "spa: { /: ./web/dist }", "single-page applications: unknown paths get the index"),
    key("uploads", &UPLOADS, "{}", Edge, "uploads: { /upload: { dir: ./uploads } }", "places that take files").later(),
    key("gzip", &Shape::Either(&[&BOOL, &Shape::Map(&GZIP)]), "true", Edge, "gzip: true", "compression of answers")
        .later(),
    key("headers", &FIELD_RULES, "{}", Edge, "headers: { /: { set: { x-frame-options: DENY } } }", "fields of answers")
        .later(),
    key(
        "cors",
        &CORS_RULES,
        "{}",
        Edge,
        "cors: { /api: { origins: [https://a.example.com] } }",
        "who may call from a browser",
    )
    .later(),
    key(
        "allow",
        &CIDR_RULES,
        "{}",
        Edge,
        "allow: { /admin: [203.0.113.0/24] }",
        "client addresses that alone are let in",
    )
    .later(),
    key("deny", &CIDR_RULES, "{}", Edge, "deny: { /: [198.51.100.0/24] }", "client addresses that are kept out")
        .later(),
    key("login", &LOGINS, "{}", Edge, "login: { /admin: { users: ./users.txt } }", "places behind a login").later(),
    key("trusted_proxies", &CIDRS, "[]", Edge, "trusted_proxies: [10.0.0.0/8]", "whose `X-Forwarded-*` count").later(),
    key("limits", &Shape::Map(&EDGE_LIMITS), "", Edge, "limits: { rate: 50/s }", "bounds at the edge").later(),
    key(
        "error_pages",
        &Shape::Named { noun: "status", keys: Keys::Free, of: &FILE, max: 64, shorts: &[], pair: "STATUS: FILE" },
        "{}",
        Edge,
        "error_pages: { 5xx: ./sorry.html }",
        "pages for those that accept HTML",
    )
    .later(),
];

static REDIRECTS: Shape = places(&Shape::Map(&REDIRECT), "PLACE: URL");
static STATICS: Shape = places(&Shape::Map(&STATIC), "PLACE: folder");
static SPAS: Shape = places(&Shape::Map(&SPA), "PLACE: folder");
static UPLOADS: Shape = places(&Shape::Map(&UPLOAD), "PLACE: { dir: … }");
static FIELD_RULES: Shape = places(&Shape::Map(&FIELD_RULE), "PLACE: { set: … }");
static CORS_RULES: Shape = places(&Shape::Map(&CORS), "PLACE: { origins: … }");
static CIDR_RULES: Shape = places(&CIDRS, "PLACE: [cidr]");
static LOGINS: Shape = places(&Shape::Map(&LOGIN), "PLACE: { users: FILE }");

/// `gateway`.
pub(crate) static GATEWAY: Section = Section {
    synonyms: &[
        ("port", "listen"),
        ("server_name", "hosts"),
        ("domains", "hosts"),
        ("ssl", "tls"),
        ("root", "static"),
        ("upload", "uploads"),
        ("compression", "gzip"),
    ],
    ..Section::of("gateway", "gateway", KEYS)
};

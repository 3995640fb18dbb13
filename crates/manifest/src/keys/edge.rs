//! Keys of the edge that come later: TLS, redirects, uploads, compression, CORS, logins.

use super::policy::FIELD_KEYS;
use super::shape::{Shape, Short};
use super::{Effect, Section, key};

use Effect::Edge;

const DAY: u64 = 86_400_000;

static TEXT: Shape = Shape::Text("text");
static BOOL: Shape = Shape::Bool;
static FILE: Shape = Shape::Path("file");
static FOLDER: Shape = Shape::Path("folder");
static CACHE: Shape = Shape::Duration { min: 0, max: 365 * DAY };

pub(super) static NGINX: Section = Section::of(
    "nginx",
    "gateway.nginx",
    &[
        key("binary", &FILE, "nginx", Edge, "binary: /usr/sbin/nginx", "the program"),
        key(
            "workers",
            &Shape::Count { min: 1, max: 1_024, words: &["auto"] },
            "auto",
            Edge,
            "workers: 4",
            "its worker processes",
        ),
        key("user", &TEXT, "", Edge, "user: www-data", "whose rights its workers have"),
        key("include", &FILE, "", Edge, "include: ./own.conf", "a file of your own, tested by `nginx -t` only"),
    ],
);

static ACME: Section = Section {
    shorts: &[Short::Scalar("email")],
    ..Section::of(
        "acme",
        "gateway.tls.acme",
        &[
            key("email", &TEXT, "", Edge, "email: ops@example.com", "whom the authority writes to"),
            key("directory", &Shape::Url, "", Edge, "directory: https://acme.example.com/directory", "the authority"),
            key(
                "challenge",
                &Shape::Word { what: "challenge", built: &["http", "tls_alpn"], later: &[] },
                "http",
                Edge,
                "challenge: http",
                "how the name is proved",
            ),
        ],
    )
};

static CERTIFICATE: Section = Section {
    many: true,
    ..Section::of(
        "certificate",
        "gateway.tls.certificates",
        &[
            key("cert", &FILE, "", Edge, "cert: ./tls/cert.pem", "the chain"),
            key("key", &FILE, "", Edge, "key: ./tls/key.pem", "its key"),
        ],
    )
};

pub(super) static TLS: Section = Section {
    either: &[&["acme", "certificates", "self_signed"]],
    ..Section::of(
        "tls",
        "gateway.tls",
        &[
            key(
                "acme",
                &Shape::Map(&ACME),
                "",
                Edge,
                "acme: ops@example.com",
                "certificates fetched and renewed by themselves",
            ),
            key(
                "certificates",
                &Shape::List { of: &Shape::Map(&CERTIFICATE), max: 256 },
                "",
                Edge,
                "certificates: [{ cert: a.pem, key: a.key }]",
                "certificates from files",
            ),
            key("self_signed", &BOOL, "", Edge, "self_signed: true", "one that no client trusts by itself"),
            key(
                "min",
                &Shape::Word { what: "TLS version", built: &["1.2", "1.3"], later: &[] },
                "1.2",
                Edge,
                "min: 1.3",
                "the oldest version that is spoken",
            ),
            key("hsts", &CACHE, "", Edge, "hsts: 180d", "how long browsers insist on TLS"),
            key("client_ca", &FILE, "", Edge, "client_ca: ./clients.pem", "whose clients alone are let in"),
        ],
    )
};

pub(super) static REDIRECT: Section = Section {
    shorts: &[Short::Scalar("to")],
    many: true,
    ..Section::of(
        "redirect",
        "gateway.redirects",
        &[
            key("to", &Shape::Url, "", Edge, "to: https://shop.example.com/", "where it leads"),
            key("code", &Shape::Count { min: 301, max: 308, words: &[] }, "308", Edge, "code: 302", "the status"),
        ],
    )
};

static NOTIFY: Section = Section {
    shorts: &[Short::Scalar("service")],
    ..Section::of(
        "notify",
        "gateway.uploads",
        &[
            key("service", &Shape::Name, "", Edge, "service: media", "the service that is told"),
            key("path", &Shape::UrlPath, "/", Edge, "path: /uploaded", "its path"),
        ],
    )
};

pub(super) static UPLOAD: Section = Section {
    many: true,
    ..Section::of(
        "upload",
        "gateway.uploads",
        &[
            key("dir", &FOLDER, "", Edge, "dir: ./uploads", "where files are put"),
            key(
                "max_size",
                &Shape::Size { min: 1, max: 1 << 44 },
                "100MiB",
                Edge,
                "max_size: 100MiB",
                "the largest file",
            ),
            key(
                "types",
                &Shape::List { of: &TEXT, max: 64 },
                "[]",
                Edge,
                "types: [image/png]",
                "media types that are taken",
            ),
            key("keep", &CACHE, "", Edge, "keep: 30d", "how long a file is kept"),
            key("notify", &Shape::Map(&NOTIFY), "", Edge, "notify: media", "who is told"),
            key("serve", &Shape::Place, "", Edge, "serve: /files", "where they can be fetched"),
        ],
    )
};

pub(super) static GZIP: Section = Section::of(
    "gzip",
    "gateway.gzip",
    &[
        key("types", &Shape::List { of: &TEXT, max: 64 }, "[]", Edge, "types: [text/css]", "media types"),
        key(
            "min_size",
            &Shape::Size { min: 1, max: 1 << 30 },
            "1KiB",
            Edge,
            "min_size: 4KiB",
            "smaller answers stay as they are",
        ),
        key("level", &Shape::Count { min: 1, max: 9, words: &[] }, "5", Edge, "level: 6", "effort"),
    ],
);

pub(super) static CORS: Section = Section {
    many: true,
    ..Section::of(
        "CORS rule",
        "gateway.cors",
        &[
            key(
                "origins",
                &Shape::List { of: &TEXT, max: 64 },
                "",
                Edge,
                "origins: [https://a.example.com]",
                "who may call from a browser",
            ),
            key(
                "methods",
                &Shape::List { of: &Shape::Method, max: 16 },
                "[GET, HEAD, POST]",
                Edge,
                "methods: [GET, PUT]",
                "methods",
            ),
            key("headers", &Shape::List { of: &TEXT, max: 64 }, "[]", Edge, "headers: [x-user]", "request headers"),
            key("credentials", &BOOL, "false", Edge, "credentials: true", "whether cookies go along"),
            key("max_age", &CACHE, "1h", Edge, "max_age: 24h", "how long a browser remembers"),
        ],
    )
};

static JWT: Section = Section::of(
    "jwt",
    "gateway.login",
    &[
        key("issuer", &TEXT, "", Edge, "issuer: https://id.example.com", "who signs"),
        key("jwks", &Shape::Url, "", Edge, "jwks: https://id.example.com/keys", "where its keys are"),
        key("audience", &TEXT, "", Edge, "audience: shop", "whom it must be made for"),
    ],
);

pub(super) static LOGIN: Section = Section {
    many: true,
    either: &[&["users", "jwt"]],
    ..Section::of(
        "login",
        "gateway.login",
        &[
            key("users", &FILE, "", Edge, "users: ./users.txt", "names and hashed passwords"),
            key(
                "jwt",
                &Shape::Map(&JWT),
                "",
                Effect::Live,
                "jwt: { issuer: https://id.example.com, audience: shop }",
                "signed tokens",
            ),
        ],
    )
};

pub(super) static FIELD_RULE: Section =
    Section { many: true, ..Section::of("header rule", "gateway.headers", FIELD_KEYS) };

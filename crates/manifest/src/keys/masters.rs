//! Keys of `masters`: who leads, where, and how sidecars are judged.

use super::shape::{Shape, Short};
use super::{Effect, Section, key};

use Effect::{Live, Own, Socket};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

static TEXT: Shape = Shape::Text("text");
static FILE: Shape = Shape::Path("file");

static ETCD: Section = Section {
    shorts: &[Short::List("endpoints")],
    ..Section::of(
        "etcd",
        "masters.store",
        &[
            key(
                "endpoints",
                &Shape::List { of: &Shape::Url, max: 16 },
                "",
                Own,
                "endpoints: [https://10.0.0.11:2379]",
                "its members",
            ),
            key("prefix", &TEXT, "", Own, "prefix: /shop", "what all keys begin with"),
            key("ca", &FILE, "", Own, "ca: ./etcd-ca.pem", "whom its certificate is checked by"),
            key("cert", &FILE, "", Own, "cert: ./etcd.pem", "the own certificate"),
            key("key", &FILE, "", Own, "key: ./etcd.key", "its key"),
        ],
    )
};

static STORE: Section = Section {
    either: &[&["redb", "etcd"]],
    ..Section::of(
        "store",
        "masters.store",
        &[
            key("redb", &FILE, "", Own, "redb: ./mesh.redb", "a file, for one master"),
            key("etcd", &Shape::Map(&ETCD), "", Own, "etcd: [https://10.0.0.11:2379]", "for several masters"),
        ],
    )
};

pub(super) static MASTERS: Section = Section {
    shorts: &[Short::List("join")],
    synonyms: &[("store_path", "store"), ("port", "ingress"), ("host", "ingress"), ("addresses", "join")],
    ..Section::of(
        "masters",
        "masters",
        &[
            key(
                "ingress",
                &Shape::Bind,
                "127.0.0.1:3000",
                Socket,
                "ingress: 3000",
                "where a master takes requests from the gateway; a bare port binds the loopback",
            ),
            key("mesh", &Shape::Bind, "127.0.0.1:3001", Socket, "mesh: 3001", "where sidecars reach a master"),
            key(
                "admin",
                &Shape::Bind,
                "127.0.0.1:3002",
                Socket,
                "admin: 3002",
                "where people and tools reach a master",
            ),
            key(
                "join",
                &Shape::List { of: &Shape::Reach, max: 16 },
                "[]",
                Live,
                "join: [m1:3001, m2:3001]",
                "mesh addresses of masters elsewhere",
            ),
            key("nodes", &super::mesh::SELECTOR, "", Own, "nodes: [vm1, vm2, vm3]", "machines that run a master")
                .later(),
            key("token_file", &FILE, "", Own, "token_file: /etc/shop/token", "the token for the first enrolment"),
            key(
                "store",
                &Shape::Either(&[&Shape::Word { what: "store", built: &["redb"], later: &[] }, &Shape::Map(&STORE)]),
                "redb",
                Own,
                "store: { etcd: [https://10.0.0.11:2379] }",
                "where masters keep what was declared",
            )
            .later(),
            key(
                "report",
                &Shape::Duration { min: 250, max: 10 * SECOND },
                "1s",
                Live,
                "report: 1s",
                "how often a sidecar reports",
            ),
            key(
                "suspect",
                &Shape::Duration { min: 250, max: 5 * MINUTE },
                "3s",
                Live,
                "suspect: 3s",
                "silence after which an instance is degraded",
            ),
            key(
                "gone",
                &Shape::Duration { min: 250, max: 5 * MINUTE },
                "10s",
                Live,
                "gone: 10s",
                "silence after which an instance is gone",
            ),
        ],
    )
};

//! Examples of the design, as far as their keys are honoured, and the committed schema.

mod common;

use std::path::PathBuf;

use common::Case;
use synego_manifest::{LogFormat, Manifest, OsDisk, Request, load};
use synego_model::gateway::{Engine, ListenProtocol};
use synego_model::policy::{BalanceKind, HashKey};
use synego_model::process::{ReadyBy, Target};
use synego_model::{AccessLines, Probe, Protocol};

fn read(text: &str) -> Manifest {
    let outcome = Case::read(text).load();
    let told: String = outcome.diagnostics.iter().map(|diagnostic| diagnostic.render() + "\n").collect();
    outcome.manifest.unwrap_or_else(|| panic!("{told}"))
}

#[test]
fn access_is_read_with_callers_methods_and_paths() {
    let text = "access: observe\ndefaults: { deny: [reports] }\nservices:\n  users:\n    run: ./users\n    \
                routes: [/users, { path: /users/keys, allow: [] }]\n    \
                allow: [ingress, { caller: orders, method: [GET], path: \"/users/:id\" }]\n  \
                orders: { run: ./orders, routes: [], uses: [users] }\n  \
                reports: { run: ./reports, routes: [], deny: [] }\n";
    let outcome = Case::read(text).load();
    let told: Vec<String> = outcome.diagnostics.iter().map(|found| found.render()).collect();
    let manifest = outcome.manifest.unwrap_or_else(|| panic!("{told:#?}"));
    assert_eq!(manifest.declaration.access.word(), "observe");
    let users = &manifest.declaration.services["users"];
    let judge = |caller: &str, method: &str, path: &str| {
        let caller = caller.parse().expect("a caller");
        users.rules.judge(&caller, Some((method, path))).is_ok()
    };
    assert!(judge("ingress", "POST", "/x") && judge("orders", "GET", "/users/7"));
    assert!(!judge("orders", "POST", "/users/7") && !judge("orders", "GET", "/x") && !judge("reports", "GET", "/x"));
    assert_eq!(manifest.declaration.services["orders"].rules.deny.len(), 1, "defaults hold where nothing is said");
    assert!(manifest.declaration.services["reports"].rules.is_empty());
    let rules: Vec<bool> = users.routes.iter().flatten().map(|route| route.rules.is_empty()).collect();
    assert_eq!(rules, [true, false], "an empty `allow` is said: nobody");
}

#[test]
fn the_smallest_mesh_is_three_lines() {
    let manifest = read("services:\n  hello:\n    run: node server.js\n");
    assert_eq!(manifest.local.len(), 1);
    assert_eq!(manifest.local[0].instances(), 1);
    assert_eq!(manifest.declaration.services["hello"].routes, None, "a lone service gets `/` from whoever routes");
    assert_eq!(manifest.gateway.listen[0].address.to_string(), "0.0.0.0:8080");
    assert_eq!(manifest.gateway.engine, None);
}

const LAPTOP: &str = r#"
mesh: shop
gateway:
  listen: 8080
  static: { /static: ./public }
  spa: { /: ./web/dist }
services:
  users:
    run: node services/users.js
    instances: 2
    routes: [/api/users]
    health: /healthz
  orders:
    build: go build -o bin/orders ./orders
    run: ./bin/orders
    protocol: grpc
    routes: [/shop.v1.Orders]
    uses: [users]
  legacy:
    address: 127.0.0.1:9000
    routes: [old.example.com/]
"#;

#[test]
fn a_laptop_runs_three_services() {
    let manifest = read(LAPTOP);
    assert_eq!(manifest.declaration.mesh.as_str(), "shop");
    let services = &manifest.declaration.services;
    assert_eq!(services["orders"].protocol, Protocol::Grpc);
    assert_eq!(services["orders"].uses[0].as_str(), "users");
    assert_eq!(
        services["users"].health.as_ref().map(|health| health.probe.clone()),
        Some(Probe::Http("/healthz".into()))
    );
    let legacy = manifest.local.iter().find(|local| local.spec.name.as_str() == "legacy");
    assert_eq!(legacy.map(|local| local.target.clone()), Some(Target::Found(vec!["127.0.0.1:9000".into()])));
    let route =
        services["legacy"].routes.as_ref().map(|routes| (routes[0].place.to_string(), routes[0].origin.clone()));
    assert_eq!(route, Some(("old.example.com/".into(), "synego.yaml:21".into())));
    let folder = PathBuf::from(Case::FOLDER);
    assert_eq!(manifest.gateway.spa_places[0].dir, folder.join("web/dist"));
    assert_eq!(manifest.gateway.static_places[0].place.to_string(), "/static");
}

#[test]
fn every_honoured_key_arrives_in_the_model() {
    let manifest = read(
        r#"
mesh: full
nodes: local
masters: { ingress: 0, mesh: 127.0.0.1:4001, admin: "[::1]:4002", join: [m1:3001], report: 500ms, suspect: 2s, gone: 20s }
gateway:
  engine: nginx
  listen: { http: 80, grpc: 127.0.0.1:8081, inner: { address: 8082, protocol: http } }
  hosts: [shop.example.com, "*.example.com"]
  static: { /files: { dir: /srv/files, index: home.html, cache: 30d, list: true } }
limits: { headers: 32KiB, body_rate: 2KiB/s, connections: 5000, in_flight: 512 }
telemetry: { logs: { dir: /var/log/full, level: debug, format: text, keep: 30d, max_size: 2GiB, access: 10% } }
services:
  a:
    run: [./a, --flag]
    instances: cores
    ready: notify
    after: [b]
    labels: { team: x }
    version: 2.0
    policy: { connect: 200ms, idle: 10m, balance: { hash: { header: X-User }, slow_start: 0s, panic: 20% }, eject: false }
    routes:
      - { host: a.example.com, path: /v1, exact: true, method: [GET], headers: { X-Canary: "1" }, query: { v: "2" }, policy: { timeout: 2m } }
      - path: "*.example.com/wild/:id"
  b:
    run: ./b
    port: 9000
    protocol: tcp
    ready: { log: "^listening", within: 60s }
    health: { exec: [./check, now], every: 2s, timeout: 500ms, down: 5, up: 1 }
  c:
    address: [10.0.0.1:80, unix:run/c.sock]
    routes: []
    health: { grpc: shop.C }
"#,
    );
    assert_eq!(manifest.masters.ingress.to_string(), "127.0.0.1:0");
    assert_eq!(manifest.masters.admin.to_string(), "[::1]:4002");
    assert_eq!(manifest.masters.join, ["m1:3001"]);
    assert_eq!(manifest.declaration.liveness.gone.as_secs(), 20);
    assert_eq!(manifest.gateway.engine, Some(Engine::Nginx));
    let listen: Vec<String> = manifest
        .gateway
        .listen
        .iter()
        .map(|one| format!("{} {} {}", one.name, one.address, one.protocol == ListenProtocol::Grpc))
        .collect();
    assert_eq!(listen, ["http 0.0.0.0:80 false", "inner 0.0.0.0:8082 false", "grpc 127.0.0.1:8081 true"]);
    assert_eq!(manifest.gateway.hosts.len(), 2);
    assert_eq!(manifest.gateway.static_places[0].cache.as_secs(), 30 * 86_400);
    assert_eq!(manifest.declaration.limits.headers, 32 << 10);
    assert_eq!(manifest.declaration.limits.body_rate, 2048);
    assert_eq!(manifest.declaration.limits.connections, Some(5000));
    assert_eq!((manifest.logs.format, manifest.declaration.access_lines), (LogFormat::Text, AccessLines::Share(10)));
    let a = &manifest.declaration.services["a"];
    assert_eq!(a.instances, 4);
    assert_eq!(a.policy.balance.kind, BalanceKind::Hash(HashKey::Header("x-user".into())));
    assert_eq!((a.policy.balance.panic_percent, a.policy.eject.is_none()), (20, true));
    let routes = a.routes.clone().unwrap_or_default();
    assert_eq!(routes[0].headers, [("x-canary".to_owned(), "1".to_owned())]);
    assert_eq!(
        routes[0].policy.as_ref().map(|policy| (policy.timeout.as_secs(), policy.connect.as_millis())),
        Some((120, 200))
    );
    assert_eq!(routes[1].place.to_string(), "*.example.com/wild/:id");
    let local = |name: &str| manifest.local.iter().find(|local| local.spec.name.as_str() == name).cloned();
    assert_eq!(
        local("a").map(|a| (a.ready.by, a.after.len(), a.version)),
        Some((Some(ReadyBy::Notify), 1, "2.0".to_owned()))
    );
    assert_eq!(local("b").map(|b| b.ready.by), Some(Some(ReadyBy::Log("^listening".into()))));
    let health = manifest.declaration.services["b"].health.clone();
    assert!(matches!(health.map(|health| health.probe), Some(Probe::Exec(command)) if command.args == ["now"]));
    let found = local("c").map(|c| c.target);
    assert_eq!(found, Some(Target::Found(vec!["10.0.0.1:80".into(), format!("unix:{}/run/c.sock", Case::FOLDER)])));
}

#[test]
fn production_is_refused_only_for_what_is_not_honoured_yet() {
    let outcome = Case::read(
        "mesh: shop\nmasters:\n  nodes: [vm1, vm2, vm3]\n  token_file: /etc/shop/token\n  store: { etcd: [\"https://10.0.0.11:2379\"] }\n\
         gateway:\n  nodes: { role: edge }\n  listen: { http: 80, https: 443, grpcs: 8443 }\n  tls: { acme: ops@example.com, hsts: 180d }\n  \
         redirects: { www.shop.example.com/: \"https://shop.example.com/\" }\n  uploads: { /upload: { dir: /var/lib/shop/uploads, max_size: 200MiB, notify: media, serve: /files } }\n  \
         allow: { /api/admin: [203.0.113.0/24] }\n  limits: { rate: 50/s }\n  error_pages: { 5xx: ./errors/sorry.html }\n\
         secrets: { db: { file: /etc/shop/db_password } }\nresources:\n  db: mysql://10.0.0.21:3306/shop\n\
         telemetry: { logs: { dir: /var/log/shop, access: 10% }, traces: { otlp: \"http://10.0.0.30:4318\" } }\n\
         defaults: { user: shop, memory: 512MiB, policy: { timeout: 5s, retries: { budget: 10% } } }\n\
         services:\n  migrate: { run: ./bin/migrate, restart: never, nodes: [vm1], uses: [db] }\n  \
         users:\n    run: node services/users.js\n    routes: [/api/users, { path: /api/users/export, method: [GET], policy: { timeout: 2m, priority: background } }]\n    \
         policy: { split: { 1.4.2: 95%, 1.5.0: 5% } }\n  orders:\n    run: ./bin/orders\n    uses: { users: { timeout: 800ms }, db: {} }\n    routes: [/shop.v1.Orders]\n    allow: [ingress]\n",
    )
    .load();
    let other: Vec<String> = outcome
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.code != "not_yet")
        .map(synego_model::Diagnostic::render)
        .collect();
    assert!(other.is_empty(), "{}", other.join("\n"));
    assert_eq!(outcome.errors(), 19);
}

#[test]
fn the_older_form_starts_a_master() {
    let case = Case::read(
        "# file: synego.config.json\n{\"nodes\":[{\"type\":\"master\",\"host\":\"localhost\",\"port\":3000}]}\n",
    );
    let outcome = case.load();
    let told: Vec<String> = outcome.diagnostics.iter().map(synego_model::Diagnostic::render).collect();
    assert_eq!(
        told,
        ["synego.config.json:1:2: warning[older_form]: `nodes` is an older form, still understood\n  \
          1 | {\"nodes\":[{\"type\":\"master\",\"host\":\"localhost\",\"port\":3000}]}\n    |  ^^^^^^^ today it is written otherwise\n    \
          = help: write `masters: { ingress: localhost:3000 }`; `synego init --from FILE` rewrites all of it"]
    );
    let masters = outcome.manifest.map(|manifest| manifest.masters);
    let shown = masters.map(|masters| format!("{} {} {}", masters.ingress, masters.mesh, masters.admin));
    assert_eq!(shown.as_deref(), Some("127.0.0.1:3000 127.0.0.1:3001 127.0.0.1:3002"));
    let two = Case::read(
        "nodes:\n  - { type: master, host: 10.0.0.1, port: 4000 }\n  - { type: master, host: m2, port: 4000 }\n",
    )
    .load();
    assert_eq!(two.manifest.map(|manifest| manifest.masters.join), Some(vec!["m2:4001".to_owned()]));
}

#[test]
fn the_older_edge_is_understood() {
    let manifest = read(
        r#"
http_port: 8090
server_name: localhost shop.example.com
comment_1: this is what it does
logs: { dir: ./log, comment: x }
static_serving: [{ url_path: /static, root_path: ./public }]
spa_serving: [{ url_path: /, root_path: ./web }]
reverse_proxy:
  - { enabled: true, url_path: /api, pass_to: "http://127.0.0.1:3000" }
  - { enabled: true, url_path: /old, pass_to: "http://127.0.0.1:9000/" }
  - { enabled: false, url_path: /off, pass_to: "http://127.0.0.1:9001" }
"#,
    );
    assert_eq!(manifest.gateway.listen[0].address.port(), 8090);
    assert_eq!(manifest.gateway.hosts.len(), 1);
    assert_eq!(manifest.gateway.spa_places[0].place.to_string(), "/");
    assert!(manifest.logs.dir.ends_with("log"));
    assert_eq!(manifest.declaration.services.len(), 1);
    assert_eq!(manifest.local[0].target, Target::Found(vec!["127.0.0.1:9000".into()]));
}

#[test]
fn the_older_kernel_is_understood_as_far_as_it_goes() {
    let manifest = read(
        "http: { port: 8091 }\ngrpc: { port: 8092 }\nws: { port: 8093 }\ncli: { ipc_path: /tmp/x }\nshakehand: { port: 4001 }\n",
    );
    assert_eq!(manifest.masters.mesh.port(), 4001);
    assert_eq!(manifest.gateway.listen.len(), 2);
    let worker = read("master: { host: 10.0.0.1, ws: 3001 }\n");
    assert_eq!(worker.masters.join, ["10.0.0.1:3001"]);
    let later = Case::read("worker_connections: 4096\nupload: { url_path: /up, temp_path: ./tmp }\nhttps: { port: 443, key: k, cert: c }\n").load();
    let codes: Vec<&str> =
        later.diagnostics.iter().filter(|one| one.code != "older_form").map(|one| one.code.as_str()).collect();
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == "not_yet"), "{codes:?}");
}

#[test]
fn a_manifest_is_read_from_the_real_disk() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("teams"))?;
    std::fs::write(folder.path().join("synego.yaml"), "include: [teams/*.yaml]\n")?;
    std::fs::write(folder.path().join("teams/a.yaml"), "services: { a: { run: ./a } }\n")?;
    let environment = std::collections::BTreeMap::new();
    let below = folder.path().join("teams");
    let request = Request {
        start: &below,
        file: None,
        profile: None,
        environment: &environment,
        cores: 1,
        disk: &OsDisk,
        strict: false,
    };
    let outcome = load(&request);
    assert_eq!(outcome.summary(), "../synego.yaml: 1 service, 1 route, no problem");
    let named = load(&Request { file: Some(std::path::Path::new("a.yaml")), ..request });
    assert_eq!(named.manifest.map(|manifest| manifest.root), Some(below.clone()));
    let missing = load(&Request { file: Some(std::path::Path::new("none.yaml")), ..request });
    assert_eq!(missing.diagnostics[0].code, "no_file");
    assert_eq!(missing.title(), "none.yaml");
    Ok(())
}

#[test]
fn the_committed_schema_is_the_one_of_the_types() -> std::io::Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../schema/synego.schema.json");
    let text = serde_json::to_string_pretty(&synego_manifest::schema())? + "\n";
    if option_env!("SYNEGO_UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        std::fs::write(&path, &text)?;
    }
    assert_eq!(std::fs::read_to_string(&path)?, text, "write it anew with `synego schema`");
    Ok(())
}

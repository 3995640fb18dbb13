//! Who may call whom, and who may ask the admin API what, against the real programs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use synego_testkit::http::{self, Answer, HttpClient};
use synego_testkit::{Mesh, ports, wait};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `orders` uses `users`; `reports` uses nothing; `vault` lets nobody in and is probed all the same.
fn manifest() -> String {
    let server = synego_testkit::program::root().join("examples/hello/server.js");
    let run = format!("run: [node, {}]", server.display());
    format!(
        "mesh: access\ngateway: {{ listen: \"${{SHOP_HTTP}}\" }}\n\
         masters: {{ ingress: 0, mesh: 0, admin: \"${{SHOP_ADMIN}}\" }}\nservices:\n  \
         users: {{ {run}, routes: [/users, {{ path: /users/keys, allow: [orders] }}] }}\n  \
         orders: {{ {run}, routes: [], uses: [users, vault] }}\n  \
         reports: {{ {run}, routes: [] }}\n  \
         vault: {{ {run}, routes: [/vault], health: {{ http: /healthz, every: 100ms }}, allow: [] }}\n"
    )
}

/// A call by name through the sidecar of a service's first instance.
async fn call(mesh: &Mesh, caller: &str, callee: &str, path: &str) -> Answer {
    let (_, pid) = mesh.pids(caller).into_iter().next().expect("an instance");
    let outbound = synego_testkit::program::variable_of(pid, "SYNEGO_OUTBOUND").expect("an outbound");
    let url = format!("{outbound}{path}");
    HttpClient::default().request("GET", &url, &[("host", callee)], "").await.expect("an answer")
}

fn reason(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.header("x-synego-reason").to_owned())
}

fn denied() -> (u16, String) {
    (403, "denied".to_owned())
}

/// Puts a changed manifest in force, without touching any process.
fn apply(mesh: &Mesh, manifest: &str) {
    fs::write(mesh.home.path().join("manifest/synego.yaml"), manifest).expect("the manifest");
    let applied = mesh.synego(&["apply", "-y"]);
    assert_eq!(applied.status.code(), Some(0), "{}{}", text(&applied.stdout), text(&applied.stderr));
}

async fn until_status(mesh: &Mesh, caller: &str, callee: &str, path: &str, status: u16) {
    wait::until(&format!("{caller} gets {status} of {callee}{path}"), Duration::from_secs(5), || async {
        let answer = call(mesh, caller, callee, path).await;
        wait::that(answer.status.as_u16() == status, answer.text())
    })
    .await;
}

/// The warnings of this code that `synego status` shows.
fn warnings(mesh: &Mesh, code: &str) -> Vec<String> {
    let status = mesh.try_json(&["status"]).expect("a status");
    let all = status["warnings"].as_array().cloned().unwrap_or_default();
    all.iter().filter(|one| one["code"] == code).map(|one| one["message"].to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_calls_what_it_uses_and_nothing_else_and_the_403_names_the_line_to_add() {
    let mesh = Mesh::of(&manifest()).await;
    until_status(&mesh, "orders", "users", "/users/7", 200).await;
    let answer = call(&mesh, "reports", "users", "/users/7").await;
    assert_eq!(reason(&answer), denied(), "{}", answer.text());
    let line = "reports may not call users: add `users` to `uses` of `services.reports`";
    assert_eq!(answer.json()["msg"], line);
    let unknown = call(&mesh, "reports", "nobody", "/").await;
    assert_eq!(reason(&unknown), (404, "unknown_service".to_owned()));

    // The page and the status tell the same line.
    wait::until("the status tells of it", Duration::from_secs(5), || async {
        let told = warnings(&mesh, "denied");
        wait::that(told.iter().any(|message| message.contains(line)), format!("{told:?}"))
    })
    .await;
    let explained = mesh.try_json(&["explain", "denied"]).expect("the page");
    assert!(explained["items"][0]["calls"].to_string().contains(line), "{explained}");
    let metrics = http::get(&format!("http://127.0.0.1:{}/metrics", mesh.variable("SHOP_ADMIN"))).await.expect("plain");
    let counted = r#"synego_outbound_denials_total{service="users",caller="reports",verdict="refused"}"#;
    assert!(metrics.text().contains(counted), "{}", metrics.text());

    // The line is added: no process and no connection is touched.
    let pids = [mesh.pids("reports"), mesh.pids("users")];
    apply(&mesh, &manifest().replace("reports: { run", "reports: { uses: [users], run"));
    until_status(&mesh, "reports", "users", "/users/7", 200).await;
    assert_eq!([mesh.pids("reports"), mesh.pids("users")], pids);
    apply(&mesh, &manifest());
    until_status(&mesh, "reports", "users", "/users/7", 403).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_narrow_by_caller_method_and_path_also_for_the_ingress_and_probes_always_pass() {
    let mesh = Mesh::of(&manifest()).await;
    until_status(&mesh, "orders", "users", "/users/keys", 200).await;
    let client = HttpClient::default();
    assert_eq!(client.get(&mesh.url("/users/7")).await.expect("an answer").status.as_u16(), 200);
    for path in ["/users/keys", "/users/keys/1", "/users//keys", "/users/x/../keys", "/users/%6beys"] {
        let answer = client.get(&mesh.url(path)).await.expect("an answer");
        assert_eq!(reason(&answer), denied(), "{path}: {}", answer.text());
        let line = "add `ingress` to `allow` of the route `/users/keys` of `services.users`";
        assert!(answer.text().contains(line), "{}", answer.text());
    }
    // `allow: []` closes a service to everyone but its own sidecar's probe.
    for answer in [client.get(&mesh.url("/vault")).await.expect("an answer"), call(&mesh, "orders", "vault", "/").await]
    {
        assert_eq!(reason(&answer), denied(), "{}", answer.text());
    }
    assert!(mesh.instances("vault").iter().all(|one| one["state"] == "ready"), "{:?}", mesh.instances("vault"));

    let methods = manifest().replace("allow: []", "allow: [ingress, { caller: orders, method: [POST], path: /in }]");
    apply(&mesh, &methods);
    wait::until("the ingress is let in", Duration::from_secs(5), || async {
        let answer = client.get(&mesh.url("/vault")).await?;
        wait::that(answer.status.as_u16() == 200, answer.text())
    })
    .await;
    let answer = call(&mesh, "orders", "vault", "/in").await;
    assert!(answer.text().contains("orders may not GET /in of vault"), "{}", answer.text());
    let (_, pid) = mesh.pids("orders").into_iter().next().expect("an instance");
    let url = synego_testkit::program::variable_of(pid, "SYNEGO_URL_VAULT").expect("a port of its own");
    let posted = client.request("POST", &format!("{url}/in/1"), &[], "x").await.expect("an answer");
    assert_eq!(posted.status.as_u16(), 200, "{}", posted.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observing_mesh_reports_what_would_be_denied_and_an_open_one_asks_nobody() {
    let mesh = Mesh::of(&format!("access: observe\n{}", manifest())).await;
    let status = |mesh: &Mesh| mesh.try_json(&["status"]).expect("a status")["access"].clone();
    assert_eq!(status(&mesh), "observe");
    until_status(&mesh, "reports", "users", "/users/7", 200).await;
    wait::until("it is reported", Duration::from_secs(5), || async {
        let told = warnings(&mesh, "would_be_denied");
        let line = "add `users` to `uses` of `services.reports`";
        wait::that(told.iter().any(|message| message.contains(line)), format!("{told:?}"))
    })
    .await;
    assert_eq!(warnings(&mesh, "access_observe").len(), 1);

    apply(&mesh, &manifest());
    until_status(&mesh, "reports", "users", "/users/7", 403).await;
    assert_eq!(status(&mesh), "enforce");
    apply(&mesh, &format!("access: open\n{}", manifest()));
    until_status(&mesh, "reports", "vault", "/", 200).await;
    assert_eq!(warnings(&mesh, "access_open").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_no_manifest_names_calls_by_its_own_word_and_is_called_by_everyone() {
    let mesh = Mesh::of(&manifest().replace("mesh: 0", "mesh: \"${SHOP_MESH}\"")).await;
    let target = ports::free();
    let port = target.to_string();
    let server = synego_testkit::program::root().join("examples/hello/server.js").display().to_string();
    let sidecar = |name: &str, outbound: u16, more: &[&str]| {
        let (master, outbound) = (format!("127.0.0.1:{}", mesh.variable("SHOP_MESH")), outbound.to_string());
        let token = mesh.home.token().display().to_string();
        let mut args = vec!["--service", name, "--master", &master, "--token-file", &token];
        args.extend(["--outbound", &outbound, "--inbound", "0", "--admin", "0"]);
        args.extend(more);
        mesh.home.start("synego-sidecar", &args)
    };
    let (guest, stranger) = (ports::free(), ports::free());
    let _guest = sidecar("guest", guest, &["--uses", "users", "--port", &port, "--", "node", &server]);
    let _stranger = sidecar("stranger", stranger, &["--", "node", &server]);
    let by_name = async |outbound: u16, callee: &str| {
        let url = format!("http://127.0.0.1:{outbound}/users/7");
        HttpClient::default().request("GET", &url, &[("host", callee)], "").await
    };
    wait::until("its own word is its permission", Duration::from_secs(20), || async {
        let answer = by_name(guest, "users").await?;
        wait::that(answer.status.as_u16() == 200, answer.text())
    })
    .await;
    wait::until("without one it may not", Duration::from_secs(20), || async {
        let answer = by_name(stranger, "users").await?;
        wait::that(answer.text().contains("start its sidecar with `--uses users`"), answer.text())
    })
    .await;
    until_status(&mesh, "reports", "guest", "/", 200).await;
    assert!(warnings(&mesh, "undeclared_caller").iter().any(|message| message.contains("guest")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_change_over_tcp_needs_a_token_and_each_one_is_written_down() {
    let mesh = Mesh::of(&manifest()).await;
    let admin = format!("127.0.0.1:{}", mesh.variable("SHOP_ADMIN"));
    let ask = async |method: &str, lines: &str| {
        let text =
            format!("{method} /synego.v1.Admin/Down HTTP/1.1\r\n{lines}content-length: 0\r\nconnection: close\r\n\r\n");
        let answer = http::raw(&admin, &text).await.expect("an answer");
        answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()).unwrap_or_else(|| panic!("{answer}"))
    };
    let token = mesh.home.path().join("token");
    let out = token.display().to_string();
    let made = mesh.synego(&["login", "--name", "ci", "--out", &out]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let mode = |path: &std::path::Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let secret = fs::read_to_string(&token).expect("a token");
    assert_eq!((mode(&token), secret.trim().len()), (0o600, 144));
    assert!(!text(&made.stdout).contains(secret.trim()) && !text(&made.stderr).contains(secret.trim()));

    let (host, grpc) = (format!("host: {admin}\r\n"), "content-type: application/grpc\r\n");
    let bearer = format!("authorization: Bearer {}\r\n", secret.trim());
    assert_eq!(ask("POST", &format!("{host}{grpc}")).await, 401, "without token");
    assert_eq!(ask("POST", &format!("{host}{grpc}{bearer}origin: https://evil.example\r\n")).await, 403);
    assert_eq!(ask("POST", &format!("host: evil.example\r\n{grpc}{bearer}")).await, 403);
    assert_eq!(ask("GET", &format!("{host}{grpc}{bearer}")).await, 405);
    assert_eq!(ask("POST", &format!("{host}{bearer}content-type: text/plain\r\n")).await, 415);
    for path in ["/metrics", "/healthz", "/livez"] {
        assert_eq!(
            http::get(&format!("http://{admin}{path}")).await.expect("an answer").status.as_u16(),
            200,
            "{path}"
        );
    }

    // By the tool: looking needs nothing, a change a token that is kept.
    let tcp = |args: &[&str]| mesh.synego(&[&["--admin", &admin], args].concat());
    assert_eq!(tcp(&["status"]).status.code(), Some(0));
    let changed = manifest().replace("reports: { run", "reports: { uses: [users], run");
    fs::write(mesh.home.path().join("manifest/synego.yaml"), changed).expect("the manifest");
    let refused = tcp(&["apply", "-y"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("unauthenticated"), "{}", text(&refused.stderr));
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).expect("the mode");
    let open = tcp(&["login", "--token-file", &out]);
    assert!(text(&open.stderr).contains("others may read it (mode 644)"), "{}", text(&open.stderr));
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("the mode");
    let kept = tcp(&["login", "--token-file", &out]);
    assert_eq!(kept.status.code(), Some(0), "{}", text(&kept.stderr));
    assert_eq!(mode(&mesh.home.path().join("state/logins.json")), 0o600);
    let applied = tcp(&["apply", "-y"]);
    assert_eq!(applied.status.code(), Some(0), "{}", text(&applied.stderr));

    let list = mesh.try_json(&["login", "--list"]).expect("the tokens");
    let id = list["items"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!((list["items"][0]["login"].as_str(), list["items"][0]["role"].as_str()), (Some("ci"), Some("write")));
    assert_eq!(mesh.synego(&["login", "--revoke", &id]).status.code(), Some(0));
    assert_eq!(tcp(&["apply", "-y"]).status.code(), Some(1), "a revoked token is worthless");

    // Sockets and folders are this user's alone.
    let socket = mesh.home.path().join("run/access/admin.sock");
    assert_eq!((mode(&socket), mode(socket.parent().expect("a folder"))), (0o600, 0o700));
    let lines = wait::until("all is written down", Duration::from_secs(5), || async {
        let folder = fs::read_dir(mesh.home.path().join("manifest/logs")).map_err(|error| error.to_string())?;
        let files = folder.filter_map(Result::ok).filter(|file| file.file_name().to_string_lossy().contains(".audit."));
        let all: String = files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect();
        wait::that(all.lines().count() >= 3, all.clone())?;
        Ok(all)
    })
    .await;
    let applied: Vec<serde_json::Value> = lines
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &serde_json::Value| line["what"] == "Apply")
        .collect();
    assert_eq!((applied[0]["who"].as_str(), applied[0]["outcome"].as_str()), (Some("ci"), Some("done")), "{lines}");
    assert_ne!(applied[0]["before"], applied[0]["after"]);
    assert!(!lines.contains(secret.trim()));
}

//! Files, single-page applications and hosts.

use std::path::Path;

use ::http::Method;

use crate::edge::{Edge, config, files, gateway, spa};
use crate::http::{ask, get};
use crate::master::Master;

fn write(dir: &Path, file: &str, text: &str) {
    let path = dir.join(file);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
    std::fs::write(path, text).expect("write");
}

#[tokio::test]
async fn a_static_folder_serves_its_files_and_only_at_its_place() {
    let (dir, master) = (tempfile::tempdir().expect("dir"), Master::start("one").await);
    let public = dir.path().join("my public files");
    write(&public, "a.css", "css");
    write(&public, "docs/index.html", "docs");
    write(&public, "empty/.keep", "");
    write(&public, ".env", "SECRET=1");
    write(&public, ".well-known/security.txt", "mail us");
    let mut wanted = gateway();
    wanted.static_places = vec![files("/static", &public)];
    let edge = Edge::start(config(wanted, &[master.address])).await;
    let http = edge.http();

    let file = get(http, "/static/a.css").await;
    assert_eq!((file.status.as_u16(), file.text().as_str()), (200, "css"));
    assert_eq!((file.header("content-type"), file.header("cache-control")), ("text/css", "public, max-age=3600"));
    let again = ask(http, Method::GET, "/static/a.css", &[("if-none-match", file.header("etag"))]).await;
    assert_eq!(again.status, 304);
    assert_eq!(get(http, "/static/docs/").await.text(), "docs");
    assert_eq!(get(http, "/static/docs").await.header("location"), "/static/docs/");
    let place = get(http, "/static?x=1").await;
    assert_eq!((place.status.as_u16(), place.header("location")), (308, "/static/?x=1"));
    assert_eq!(get(http, "/static/.well-known/security.txt").await.text(), "mail us");
    for path in ["/static/none.css", "/static/.env", "/static/empty/", "/staticx", "/static/../.env", "/"] {
        let answer = get(http, path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.text().starts_with("no route of the master for GET"), "{path}: {}", answer.text());
    }
    let post = ask(http, Method::POST, "/static/a.css", &[]).await;
    assert_eq!(post.text(), "no route of the master for POST /static/a.css");
    edge.stop().await;
    master.kill().await;
}

#[tokio::test]
async fn a_folder_is_listed_only_where_it_shall_be() {
    let (dir, master) = (tempfile::tempdir().expect("dir"), Master::start("one").await);
    write(dir.path(), "report.pdf", "pdf");
    write(dir.path(), "index.html", "an index");
    let mut wanted = gateway();
    let mut listed = files("/files", dir.path());
    (listed.list, listed.index, listed.cache) = (true, String::new(), std::time::Duration::ZERO);
    wanted.static_places = vec![listed];
    let edge = Edge::start(config(wanted, &[master.address])).await;
    let list = get(edge.http(), "/files/").await;
    assert!(list.text().contains("report.pdf") && list.text().contains("index.html"), "{}", list.text());
    assert_eq!(get(edge.http(), "/files/report.pdf").await.header("cache-control"), "no-cache");
    edge.stop().await;
    master.kill().await;
}

#[tokio::test]
async fn a_spa_at_the_root_swallows_no_dynamic_route() {
    let (dir, master) = (tempfile::tempdir().expect("dir"), Master::start("one").await);
    write(dir.path(), "index.html", "<h1>shop</h1>");
    write(dir.path(), "favicon.ico", "icon");
    write(dir.path(), "assets/index-BX3kqLr2.js", "hashed");
    write(dir.path(), "my-component.js", "not hashed");
    let mut wanted = gateway();
    wanted.spa_places = vec![spa("/", dir.path())];
    let edge = Edge::start(config(wanted, &[master.address])).await;
    let http = edge.http();

    for path in ["/", "/users/7/orders", "/deep/er?x=1", "/index.html"] {
        let page = get(http, path).await;
        assert_eq!((page.status.as_u16(), page.text().as_str()), (200, "<h1>shop</h1>"), "{path}");
        assert_eq!((page.header("cache-control"), page.header("content-type")), ("no-cache", "text/html"), "{path}");
        assert_eq!(page.header("x-synego-reason"), "", "{path}");
    }
    let head = ask(http, Method::HEAD, "/users/7", &[]).await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, "13"));
    let hashed = get(http, "/assets/index-BX3kqLr2.js").await;
    assert_eq!(hashed.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(hashed.header("content-type"), "application/javascript");
    for path in ["/favicon.ico", "/my-component.js"] {
        assert_eq!(get(http, path).await.header("cache-control"), "no-cache", "{path}");
    }

    assert_eq!(get(http, "/api/name").await.text(), "one");
    let missing = get(http, "/api/missing").await;
    assert_eq!((missing.status.as_u16(), missing.text().as_str()), (404, "no such user"));
    let broken = get(http, "/api/broken").await;
    assert_eq!((broken.status.as_u16(), broken.text().as_str()), (502, "its own 502"));
    let raw = get(http, "/api/echo?a=%2Fb&c").await.text();
    assert!(raw.starts_with("GET /api/echo?a=%2Fb&c\n"), "{raw}");
    let escaped = ask(http, Method::POST, "/users/%37%2F", &[]).await;
    assert_eq!(escaped.text(), "no route of the master for POST /users/%37%2F");
    let posted = ask(http, Method::POST, "/users/7", &[]).await;
    assert_eq!((posted.status.as_u16(), posted.header("x-synego-reason")), (404, "no_route"));
    assert_eq!(posted.text(), "no route of the master for POST /users/7");
    assert_eq!(ask(http, Method::DELETE, "/index.html", &[]).await.status, 404);
    edge.stop().await;
    master.kill().await;
}

#[tokio::test]
async fn with_every_master_away_pages_still_open_and_programs_are_told_the_truth() {
    let (dir, master) = (tempfile::tempdir().expect("dir"), Master::start("one").await);
    write(dir.path(), "index.html", "<h1>shop</h1>");
    let mut wanted = gateway();
    wanted.spa_places = vec![spa("/", dir.path())];
    let edge = Edge::start(config(wanted, &[master.address])).await;
    master.kill().await;
    let page = ask(edge.http(), Method::GET, "/users/7", &[("accept", "text/html,*/*;q=0.8")]).await;
    assert_eq!((page.status.as_u16(), page.text().as_str()), (200, "<h1>shop</h1>"));
    assert_eq!(get(edge.http(), "/").await.text(), "<h1>shop</h1>");
    let api = ask(edge.http(), Method::GET, "/api/users/7", &[("accept", "application/json")]).await;
    assert_eq!(api.reason(), (502, "connect_failed".to_owned()));
    let posted = ask(edge.http(), Method::POST, "/api/users", &[]).await;
    assert_eq!(posted.reason(), (502, "connect_failed".to_owned()));
    edge.stop().await;
}

#[tokio::test]
async fn a_spa_below_a_path_has_its_own_pages_beside_the_routes() {
    let (dir, master) = (tempfile::tempdir().expect("dir"), Master::start("one").await);
    write(dir.path(), "index.html", "app");
    write(dir.path(), "main.js", "js");
    let mut wanted = gateway();
    wanted.spa_places = vec![spa("/app", dir.path())];
    let edge = Edge::start(config(wanted, &[master.address])).await;
    let http = edge.http();
    assert_eq!(get(http, "/app").await.header("location"), "/app/");
    for (path, text) in [("/app/", "app"), ("/app/main.js", "js"), ("/app/users/7", "app"), ("/api/name", "one")] {
        assert_eq!(get(http, path).await.text(), text, "{path}");
    }
    assert_eq!(get(http, "/application").await.status, 404);
    edge.stop().await;
    master.kill().await;
}

#[tokio::test]
async fn only_named_hosts_are_served_each_with_its_own_places() {
    let (dir, master) = (tempfile::tempdir().expect("dir"), Master::start("one").await);
    for name in ["all", "admin", "other"] {
        write(&dir.path().join(name), "f.txt", name);
    }
    let mut wanted = gateway();
    wanted.hosts = ["example.com", "*.example.com"].map(|host| host.parse().expect("a host")).into();
    wanted.static_places = vec![
        files("/static", &dir.path().join("all")),
        files("admin.example.com/static", &dir.path().join("admin")),
        files("other.org/static", &dir.path().join("other")),
    ];
    let edge = Edge::start(config(wanted, &[master.address])).await;
    let on = async |host: &str, path: &str| ask(edge.http(), Method::GET, path, &[("host", host)]).await;
    assert_eq!(on("example.com", "/static/f.txt").await.text(), "all");
    assert_eq!(on("shop.example.com:8080", "/static/f.txt").await.text(), "all");
    assert_eq!(on("ADMIN.example.com", "/static/f.txt").await.text(), "admin");
    assert_eq!(on("a.b.example.com", "/api/name").await.text(), "one");
    for host in ["other.org", "example.com.evil.org", "127.0.0.1", "badexample.com"] {
        let refused = ask(edge.http(), Method::GET, "/static/f.txt", &[("host", host), ("x-request-id", "id-1")]).await;
        assert_eq!(refused.reason(), (404, "no_route".to_owned()), "{host}");
        assert_eq!(refused.header("x-request-id"), "id-1");
    }
    edge.stop().await;
    master.kill().await;
}

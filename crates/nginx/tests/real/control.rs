//! Changes of a running Nginx, and refusals.

use synego_nginx::{UpdateError, check, prepare, render, update};

use crate::edge::{Edge, binary, config, eventually, files, free, gateway};
use crate::http::get;
use crate::master::Master;

#[tokio::test]
async fn a_good_change_comes_into_force_and_a_broken_one_leaves_all_as_it_is() {
    let (one, two) = (Master::start("one").await, Master::start("two").await);
    let edge = Edge::start(config(gateway(), &[one.address])).await;
    let (binary, prefix, file) = (binary().await, edge.prefix(), edge.prefix().join("nginx.conf"));
    assert_eq!(get(edge.http(), "/api/name").await.text(), "one");

    let before = std::fs::read_to_string(&file).expect("read");
    let mut hostile = edge.config.clone();
    hostile.gateway.static_places = vec![files("/static", std::path::Path::new("/srv/a;b"))];
    let refused = update(&binary, &hostile, &prefix, Some(edge.pid())).await;
    assert!(matches!(refused, Err(UpdateError::Render(_))), "{refused:?}");
    let mut unknown = edge.config.clone();
    unknown.user = Some("no-such-user-here".to_owned());
    let refused = update(&binary, &unknown, &prefix, Some(edge.pid())).await;
    assert!(
        matches!(&refused, Err(UpdateError::Check(error)) if error.text.contains("no-such-user-here")),
        "{refused:?}"
    );
    assert_eq!(std::fs::read_to_string(&file).expect("read"), before);
    assert_eq!(get(edge.http(), "/api/name").await.text(), "one");

    let mut wanted = edge.config.clone();
    wanted.masters = vec![two.address];
    update(&binary, &wanted, &prefix, Some(edge.pid())).await.expect("a change");
    eventually("the second master", || async { get(edge.http(), "/api/name").await.text() == "two" }).await;
    let left: Vec<_> = std::fs::read_dir(&prefix).expect("dir").flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("nginx.conf.")), "{left:?}");
    edge.stop().await;
    one.kill().await;
    two.kill().await;
}

#[tokio::test]
async fn requests_under_way_survive_a_reload() {
    let master = Master::start("one").await;
    let edge = Edge::start(config(gateway(), &[master.address])).await;
    let (binary, prefix) = (binary().await, edge.prefix());
    for n in 0..200 {
        if n % 50 == 25 {
            update(&binary, &edge.config, &prefix, Some(edge.pid())).await.expect("a reload");
        }
        assert_eq!(get(edge.http(), "/api/name").await.status, 200, "request {n}");
    }
    edge.stop().await;
    master.kill().await;
}

#[tokio::test]
async fn a_text_that_nginx_refuses_is_told_with_its_line_and_key() {
    let (binary, dir) = (binary().await, tempfile::tempdir().expect("dir"));
    prepare(dir.path()).expect("a prefix");
    let mut wanted = config(gateway(), &[free()]);
    wanted.gateway.static_places = vec![files("/static", dir.path())];
    let text = render(&wanted).expect("a text");
    check(&binary, &text, dir.path()).await.expect("a good text");
    let broken = text.replace("autoindex off;", "autoindex perhaps;");
    let error = check(&binary, &broken, dir.path()).await.expect_err("a refusal");
    assert_eq!(error.key.as_deref(), Some("gateway.static \"/static\""));
    assert!(error.text.contains("perhaps"), "{error}");
    let line = broken.lines().position(|line| line.contains("perhaps")).map(|at| at + 1);
    assert_eq!(error.line, line);
}

#[tokio::test]
async fn every_golden_file_is_one_that_nginx_takes() {
    let (binary, dir) = (binary().await, tempfile::tempdir().expect("dir"));
    prepare(dir.path()).expect("a prefix");
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nginx/golden");
    let files: Vec<_> = std::fs::read_dir(golden).expect("golden files").flatten().collect();
    assert!(files.len() >= 3);
    for file in files {
        // Its user is none of this machine.
        let text = std::fs::read_to_string(file.path()).expect("read").replace("user \"shop\";\n", "");
        check(&binary, &text, dir.path()).await.unwrap_or_else(|error| panic!("{}: {error}", file.path().display()));
    }
}

/// As root this starts Nginx as `nobody`; for people every other test of this file shows the same.
#[tokio::test]
async fn nginx_needs_no_root() {
    let (binary, master) = (binary().await, Master::start("one").await);
    let dir = tempfile::tempdir().expect("dir");
    let mut wanted = config(gateway(), &[master.address]);
    wanted.user = None;
    update(&binary, &wanted, dir.path(), None).await.expect("a configuration");
    let line = synego_nginx::command(&binary, dir.path());
    let mut start = if rustix::process::geteuid().is_root() {
        for path in ["", "temp", "empty", "nginx.conf", "nginx.pid"] {
            // `nginx -t` made the file of the process id.
            std::os::unix::fs::chown(dir.path().join(path), Some(65_534), Some(65_534)).expect("chown");
        }
        let temp = std::fs::read_dir(dir.path().join("temp")).expect("temp").flatten();
        temp.for_each(|entry| std::os::unix::fs::chown(entry.path(), Some(65_534), Some(65_534)).expect("chown"));
        let mut start = tokio::process::Command::new("setpriv");
        start.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&line.program);
        start
    } else {
        tokio::process::Command::new(&line.program)
    };
    let mut running =
        start.args(&line.args).stderr(std::process::Stdio::null()).kill_on_drop(true).spawn().expect("start");
    let address = wanted.gateway.listen[0].address;
    eventually("up", || async { tokio::net::TcpStream::connect(address).await.is_ok() }).await;
    assert_eq!(get(address, "/api/name").await.text(), "one");
    let pid = running.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::QUIT).expect("kill");
    assert!(running.wait().await.expect("an end").success());
    master.kill().await;
}

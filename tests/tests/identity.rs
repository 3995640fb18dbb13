//! Certificates of real programs: joining by a token, restarts, rotations, and masters that are killed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use synego_testkit::daemons::until_answered;
use synego_testkit::{Daemons, fault, load};

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_joins_by_a_token_once_and_comes_back_without() {
    let mut mesh = Daemons::start("3600s");
    let token = mesh.token();
    mesh.start_sidecar("users-1", Some(&token));
    let first = mesh.enrolled("users-1").await;
    mesh.answers("/users").await;
    assert!(first["id"].as_str().is_some_and(|id| id.ends_with("/svc/users")), "{first}");
    fs::remove_file(&token).expect("removed");
    let kept: Vec<PathBuf> = kept(&mesh.home.path().join("state"));
    assert!(!kept.is_empty(), "something is kept");
    for file in &kept {
        assert_eq!(fs::metadata(file).expect("there").permissions().mode() & 0o077, 0, "{}", file.display());
    }
    let mut sidecar = mesh.sidecars.remove(0);
    fault::kill(sidecar.pid());
    let _killed = sidecar.wait(Duration::from_secs(5));
    mesh.start_sidecar("users-1", None);
    mesh.answers("/users").await;
    assert_eq!(mesh.enrolled("users-1").await["serial"], first["serial"]);
}

/// All files below a folder.
fn kept(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").filter_map(Result::ok);
    entries.flat_map(|entry| if entry.path().is_dir() { kept(&entry.path()) } else { vec![entry.path()] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn join_token_used_twice_is_refused_and_never_logged() {
    let mut mesh = Daemons::start("3600s");
    let token = mesh.token();
    let secret = fs::read_to_string(&token).expect("readable").trim().rsplit('.').next().expect("a secret").to_owned();
    mesh.start_sidecar("users-1", Some(&token));
    mesh.enrolled("users-1").await;
    mesh.start_sidecar("orders-1", Some(&token));
    let mut second = mesh.sidecars.remove(1);
    assert!(!second.wait(Duration::from_secs(20)).success());
    let said = second.output();
    assert!(said.contains("has been used already, by users-1@vm1") && said.contains("synego token create"), "{said}");
    mesh.start_sidecar("inventory-1", None);
    let mut third = mesh.sidecars.remove(1);
    assert!(!third.wait(Duration::from_secs(20)).success());
    assert!(third.output().contains("--token-file"), "{}", third.output());
    for file in kept(mesh.home.path()).iter().filter(|file| **file != token) {
        let text = fs::read(file).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&text).contains(&secret), "{}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_master_on_the_same_store_is_told_so() {
    let mesh = Daemons::start("3600s");
    let _up = mesh.token();
    let mut second = mesh.home.start("synego-master", &["--ingress", "0", "--mesh", "0", "--admin", "0"]);
    assert!(!second.wait(Duration::from_secs(20)).success());
    assert!(second.output().contains("in use by another process"), "{}", second.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_killed_in_the_middle_of_a_rotation_goes_on_with_it() {
    let mut mesh = Daemons::start("3600s");
    let (one, two) = (mesh.token(), mesh.token());
    mesh.start_sidecar("users-1", Some(&one));
    let orders = mesh.start_sidecar("orders-1", Some(&two));
    let first = mesh.enrolled("users-1").await;
    mesh.enrolled("orders-1").await;
    let peer = format!("http://127.0.0.1:{}/", orders.outbound);
    until_answered(&peer, &[("host", "users")]).await;
    // By way of the sidecars alone: the master's own ingress ends with it.
    let load =
        tokio::spawn(async move { load::gets_with(&peer, &[("host", "users")], 100, Duration::from_secs(10)).await });
    let begun = mesh.json(&["ca", "rotate", "--fast", "-y"]).expect("a rotation");
    assert_ne!(begun["items"][0]["step"], "idle", "the fault meets a rotation: {begun}");
    mesh.kill_master();
    mesh.start_master();
    let done = mesh.rotated(Duration::from_secs(60)).await;
    assert_eq!(done["roots"].as_array().map(Vec::len), Some(1), "{done}");
    let report = load.await.expect("the load");
    assert_eq!(report.failures, [], "of {} requests", report.sent);
    for instance in ["users-1", "orders-1"] {
        let now = mesh.enrolled(instance).await;
        assert_ne!(now["serial"], first["serial"]);
        assert_eq!(now["issuer"], done["roots"][0]["fingerprint"], "{now}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_under_load_at_the_ingress_fails_no_request() {
    let mut mesh = Daemons::start("3600s");
    let token = mesh.token();
    mesh.start_sidecar("users-1", Some(&token));
    mesh.enrolled("users-1").await;
    mesh.answers("/users").await;
    let url = mesh.ingress("/users");
    let load = tokio::spawn(async move { load::gets(&url, 100, Duration::from_secs(12)).await });
    let _begun = mesh.json(&["ca", "rotate", "--fast", "-y"]).expect("a rotation");
    let done = mesh.rotated(Duration::from_secs(60)).await;
    assert!(!load.is_finished(), "the rotation took place under load");
    let report = load.await.expect("the load");
    assert_eq!(report.failures, [], "of {} requests", report.sent);
    assert_eq!(mesh.enrolled("users-1").await["issuer"], done["roots"][0]["fingerprint"]);
}

//! Certificates that live shortly, under load: they are renewed, their root is rotated and the masters are away for half a
//! life, and no request fails and nobody ever meets a certificate that has ended.
//!
//! Small in the suite. `make soak-identity` runs it at the length of the acceptance: certificates of 60 s, 500 requests a
//! second, 10 minutes, masters away for 30 s (`SYNEGO_SOAK_LIFE`, `SYNEGO_SOAK_RATE`, `SYNEGO_SOAK_SECONDS`,
//! `SYNEGO_SOAK_AWAY`). The small one hastens its rotation, and its masters are away for less: a few seconds are no room for
//! a slow machine.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use synego_testkit::daemons::{Ports, metric, until_answered};
use synego_testkit::{Daemons, load, wait};

/// How large the soak is.
struct Size {
    life: Duration,
    length: Duration,
    /// How long the masters are away.
    away: Duration,
    rate: u32,
}

impl Size {
    fn of_the_environment() -> Self {
        let number =
            |name: &str, usual: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
        let rate = u32::try_from(number("SYNEGO_SOAK_RATE", 100)).expect("a rate");
        Self {
            life: Duration::from_secs(number("SYNEGO_SOAK_LIFE", 10)),
            length: Duration::from_secs(number("SYNEGO_SOAK_SECONDS", 18)),
            away: Duration::from_secs(number("SYNEGO_SOAK_AWAY", 2)),
            rate,
        }
    }

    /// Whether a rotation has time to wait until every certificate is renewed by itself.
    fn is_patient(&self) -> bool {
        self.length >= self.life * 6
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn short_lives_a_rotation_and_masters_that_are_away_fail_no_request() {
    let size = Size::of_the_environment();
    let mut mesh = Daemons::start(&format!("{}s", size.life.as_secs()));
    let tokens = [mesh.token(), mesh.token(), mesh.token()];
    let users = [mesh.start_sidecar("users-1", Some(&tokens[0])), mesh.start_sidecar("users-2", Some(&tokens[1]))];
    let orders = mesh.start_sidecar("orders-1", Some(&tokens[2]));
    for instance in ["users-1", "users-2", "orders-1"] {
        mesh.enrolled(instance).await;
    }
    let peer = format!("http://127.0.0.1:{}/", orders.outbound);
    until_answered(&peer, &[("host", "users")]).await;

    let begun = Instant::now();
    let loaded = {
        let peer = peer.clone();
        tokio::spawn(async move { load::gets_with(&peer, &[("host", "users")], size.rate, size.length).await })
    };
    // Connections are kept for long: whoever wants to see handshakes has to make some.
    let over = Arc::new(AtomicBool::new(false));
    let stranger = {
        let (over, pause) = (Arc::clone(&over), size.life / 30);
        std::thread::spawn(move || look_at_certificates(&users, &over, pause))
    };
    let bursts = {
        let (over, peer) = (Arc::clone(&over), peer.clone());
        tokio::spawn(async move { bursts(&peer, &over).await })
    };

    // One after the other: what comes next begins when what was before has been seen to end.
    let mut rotate = vec!["ca", "rotate", "-y"];
    if size.is_patient() {
        let serial = mesh.enrolled("users-1").await["serial"].clone();
        renewed(&mesh, &serial, size.life).await;
    } else {
        rotate.push("--fast");
    }
    let _begun = mesh.json(&rotate).expect("a rotation");
    let done = mesh.rotated(size.life * 3).await;
    assert_eq!(done["roots"].as_array().map(Vec::len), Some(1), "{done}");
    eprintln!("the root was rotated {:.0} s after the begin", begun.elapsed().as_secs_f64());
    let serial = mesh.enrolled("users-1").await["serial"].clone();
    mesh.stop_master();
    tokio::time::sleep(size.away).await;
    mesh.start_master();
    renewed(&mesh, &serial, size.life).await;
    eprintln!("renewed again {:.0} s after the begin", begun.elapsed().as_secs_f64());
    assert!(!loaded.is_finished(), "all of it took place under load");

    let report = loaded.await.expect("the load");
    over.store(true, Ordering::Relaxed);
    let (looks, ended) = stranger.join().expect("the stranger");
    let (burst, burst_failures) = bursts.await.expect("the bursts");
    let (made, refused) = handshakes(&[users[0], users[1], orders]).await;
    eprintln!(
        "{} requests at {} a second, p99 {:.1} ms, {} failed; {burst} more in bursts, {} failed; {} handshakes made, \
         refused: {refused:?}; {looks} looks at a certificate, {ended} of them at one that had ended",
        report.sent,
        size.rate,
        report.quantile(0.99).as_secs_f64() * 1e3,
        report.failures.len(),
        burst_failures.len(),
        made,
    );
    assert_eq!(report.failures.iter().take(3).collect::<Vec<_>>(), Vec::<&(Duration, String)>::new());
    assert_eq!(burst_failures, Vec::<String>::new());
    assert!(looks > 10 && ended == 0, "{ended} of {looks} certificates had ended");
    assert!(made > 20, "handshakes took place: {made}");
    for cause in ["expired", "own_expired", "not_enrolled", "unknown_authority", "not_yet_valid", "refused_by_peer"] {
        assert_eq!(refused.get(cause), None, "{refused:?}");
    }
}

/// Waits until `users-1` has another certificate than this one.
async fn renewed(mesh: &Daemons, serial: &serde_json::Value, life: Duration) {
    wait::until("a renewal", life, || async {
        let now = mesh.identity("users-1")?;
        wait::that(now["serial"] != *serial && now["serial"].is_string(), format!("{now}"))
    })
    .await;
}

/// Looks at the certificates that these inbounds show, as anybody can; how many there were, and how many had ended.
fn look_at_certificates(inbounds: &[Ports; 2], over: &AtomicBool, pause: Duration) -> (usize, usize) {
    let (mut looks, mut ended) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        for at in inbounds {
            let script = format!(
                "openssl s_client -connect 127.0.0.1:{} </dev/null 2>/dev/null | openssl x509 -noout -checkend 0",
                at.inbound
            );
            let looked = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::null()).output();
            // One that could not be made counts as none; there must be enough of them in the end.
            let said = looked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            looks += usize::from(said.contains("will"));
            ended += usize::from(said.contains("will expire"));
        }
        std::thread::sleep(pause);
    }
    (looks, ended)
}

/// Calls that come all at once, by which the pool of a sidecar needs connections that it does not have; how many there
/// were, and what failed.
async fn bursts(url: &str, over: &AtomicBool) -> (usize, Vec<String>) {
    let (mut sent, mut failures) = (0, Vec::new());
    // A pooled connection that nobody needed is closed after 30 s.
    let mut every = tokio::time::interval(Duration::from_secs(35));
    while !over.load(Ordering::Relaxed) {
        tokio::select! {
            _ = every.tick() => {}
            () = tokio::time::sleep(Duration::from_millis(200)) => continue,
        }
        let all = (0..64).map(|_| synego_testkit::http::HttpClient::default());
        let calls = all.map(|client| async move { client.request("GET", url, &[("host", "users")], "").await });
        for outcome in futures_util::future::join_all(calls).await {
            sent += 1;
            match outcome {
                Ok(answer) if answer.status.is_success() => {}
                other => failures.push(format!("{other:?}")),
            }
        }
    }
    (sent, failures)
}

/// Handshakes that these sidecars made, and those that they refused but for the strangers': by cause.
async fn handshakes(sidecars: &[Ports]) -> (u64, BTreeMap<String, u64>) {
    let (mut made, mut refused) = (0.0, BTreeMap::new());
    for at in sidecars {
        let samples = metric(at.admin, "synego_tls_handshakes_total").await.expect("metrics");
        made += samples.iter().map(|(_, count)| count).sum::<f64>();
        for (labels, count) in metric(at.admin, "synego_tls_refused_total").await.expect("metrics") {
            let cause = labels.split("cause=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            // Those who only look show no certificate.
            if count > 0.0 && cause != "no_certificate" {
                *refused.entry(cause.to_owned()).or_default() += count as u64;
            }
        }
    }
    (made as u64, refused)
}

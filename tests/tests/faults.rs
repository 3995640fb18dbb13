//! What the mesh does when things break: processes, sidecars and masters are killed or halted under load.

mod common;

use std::time::{Duration, Instant};

use common::{shop_folder, start_shop};
use serde_json::Value;
use synego_testkit::http::HttpClient;
use synego_testkit::mesh::Home;
use synego_testkit::{Mesh, Program, fault, load, ports, wait};

const RATE: u32 = 200;
const LENGTH: Duration = Duration::from_secs(30);

fn ready_instances(mesh: &Mesh, service: &str) -> Vec<String> {
    let is_ready = |item: &&Value| item["state"] == "ready";
    mesh.instances(service)
        .iter()
        .filter(is_ready)
        .map(|item| item["instance"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_a_process_fails_no_get_and_it_comes_back() {
    let mesh = start_shop().await;
    let url = mesh.url("/api/users/1");
    let load = tokio::spawn(async move { load::gets(&url, RATE, LENGTH).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (instance, pid) = mesh.pids("users").into_iter().next().expect("an instance");
    fault::kill(pid);
    let killed = Instant::now();
    wait::until("its process is not that of a ready instance", Duration::from_secs(1), || async {
        wait::that(mesh.pids("users").iter().all(|(_, other)| *other != pid), "status still shows the dead process")
    })
    .await;
    assert!(killed.elapsed() < Duration::from_millis(1500), "status shows it within a second");
    wait::until("it is ready again", Duration::from_secs(15), || async {
        wait::that(ready_instances(&mesh, "users").contains(&instance), "not ready yet")
    })
    .await;
    let report = load.await.expect("the load");
    assert!(!fault::is_alive(pid), "the fault took place");
    assert_eq!(report.failures, [], "of {} requests", report.sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn halting_a_process_slows_only_its_requests_and_it_is_left_out() {
    let mesh = start_shop().await;
    let url = mesh.url("/api/users/1");
    let load = tokio::spawn(async move { load::gets(&url, RATE, LENGTH).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (instance, pid) = mesh.pids("users").into_iter().next().expect("an instance");
    fault::halt(pid);
    wait::until("it is not ready any more", Duration::from_secs(3), || async {
        wait::that(!ready_instances(&mesh, "users").contains(&instance), "still ready")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    fault::resume(pid);
    wait::until("it is ready again", Duration::from_secs(10), || async {
        wait::that(ready_instances(&mesh, "users").contains(&instance), "not ready yet")
    })
    .await;
    let report = load.await.expect("the load");
    assert_eq!(report.failures, [], "of {} requests", report.sent);
    // It stood still for at least five seconds, so a request that it held took about as long, and no other one did:
    // those that were with it, and the few that were sent there until it looked slower than the other one.
    let held = report.slower_than(Duration::from_secs(4));
    println!("{} requests, it held {held}", report.sent);
    assert!(held <= 40, "it held {held} of {} requests", report.sent);
}

/// A mesh of daemons: masters and sidecars as programs of their own, each service in one process with its sidecar.
struct Daemons {
    // In this order they end: the folder goes last, when nobody writes into it any more.
    sidecars: Vec<(String, Program, u16)>,
    masters: Vec<(Program, [u16; 3])>,
    /// Instances that have their certificates.
    enrolled: Vec<String>,
    home: Home,
}

impl Daemons {
    fn start(masters: usize) -> Self {
        let home = Home::default();
        let mut daemons = Self { home, masters: Vec::new(), sidecars: Vec::new(), enrolled: Vec::new() };
        for _ in 0..masters {
            let ports = [ports::free(), ports::free(), ports::free()];
            daemons.start_master(ports);
        }
        for (service, number, command, routes, uses) in [
            ("users", 1, "node users/main.js", &["/api/users"][..], &[][..]),
            ("users", 2, "node users/main.js", &["/api/users"][..], &[][..]),
            ("inventory", 1, "../../target/debug/shop-inventory", &["/api/stock"][..], &[][..]),
            ("orders", 1, "orders/bin/orders", &["/api/orders"][..], &["users", "inventory"][..]),
        ] {
            daemons.start_sidecar(service, number, command, routes, uses);
        }
        daemons
    }

    fn start_master(&mut self, ports: [u16; 3]) {
        let [ingress, mesh, admin] = ports.map(|port| port.to_string());
        let state = self.home.path().join(format!("state/master-{mesh}")).display().to_string();
        let args = ["--ingress", &ingress, "--mesh", &mesh, "--admin", &admin, "--state", &state];
        self.masters.push((self.home.start("synego-master", &args), ports));
    }

    fn start_sidecar(&mut self, service: &str, number: u32, command: &str, routes: &[&str], uses: &[&str]) {
        let instance = format!("{service}-{number}");
        let outbound = ports::free();
        let mut args: Vec<String> = ["--service", service, "--instance", &instance, "--inbound", "0", "--admin", "0"]
            .map(str::to_owned)
            .to_vec();
        args.extend(["--outbound".to_owned(), outbound.to_string()]);
        for (_, [_, mesh, _]) in &self.masters {
            args.extend(["--master".to_owned(), format!("127.0.0.1:{mesh}")]);
        }
        if !self.enrolled.contains(&instance) {
            let token = self.home.token();
            args.extend(["--token-file".to_owned(), token.display().to_string()]);
            self.enrolled.push(instance.clone());
        }
        args.extend(routes.iter().flat_map(|route| ["--route".to_owned(), (*route).to_owned()]));
        args.extend(uses.iter().flat_map(|name| ["--uses".to_owned(), (*name).to_owned()]));
        args.push("--".into());
        args.extend(command.split(' ').map(str::to_owned));
        let logs = self.home.path().join("logs");
        let binary = synego_testkit::program::binary("synego-sidecar");
        let program = Program::start(&instance, &binary, &args, &shop_folder(), &self.home.variables(), &logs);
        self.sidecars.push((instance, program, outbound));
    }

    fn ingress(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.masters[0].1[0])
    }

    fn status(&self, args: &[&str]) -> Result<Value, String> {
        let admin = format!("127.0.0.1:{}", self.masters.last().map_or(0, |(_, ports)| ports[2]));
        let output = std::process::Command::new(synego_testkit::program::binary("synego"))
            .args(["--admin", &admin, "-o", "json", "status"])
            .args(args)
            .envs(self.home.variables())
            .current_dir(self.home.path())
            .output()
            .map_err(|error| error.to_string())?;
        serde_json::from_slice(&output.stdout).map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The instances that status shows, with their states.
    fn states(&self) -> Result<Vec<(String, String)>, String> {
        let status = self.status(&[])?;
        let services = status["items"].as_array().cloned().unwrap_or_default();
        let of = |service: &Value| service["instances"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(services.iter().flat_map(of).map(|item| (text(&item["instance"]), text(&item["state"]))).collect())
    }

    async fn ready(&self, wanted: usize) {
        wait::until("all instances are ready", Duration::from_secs(30), || async {
            let states = self.states()?;
            let ready = states.iter().filter(|(_, state)| state == "ready").count();
            wait::that(ready == wanted, format!("{states:?}"))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_a_sidecar_fails_no_get_and_its_instance_comes_back_with_it() {
    let mut mesh = Daemons::start(1);
    mesh.ready(4).await;
    let url = mesh.ingress("/api/users/1");
    let load = tokio::spawn(async move { load::gets(&url, RATE, LENGTH).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let at = mesh.sidecars.iter().position(|(name, _, _)| name == "users-2").expect("the sidecar");
    let (_, mut sidecar, _) = mesh.sidecars.remove(at);
    fault::kill(sidecar.pid());
    wait::until("its instance is out of status", Duration::from_secs(1), || async {
        let states = mesh.states()?;
        let is_out = states.iter().all(|(name, state)| !name.starts_with("users-2") || state == "gone");
        wait::that(is_out, format!("{states:?}"))
    })
    .await;
    assert!(!sidecar.wait(Duration::from_secs(5)).success(), "the fault took place");
    mesh.start_sidecar("users", 2, "node users/main.js", &["/api/users"], &[]);
    mesh.ready(4).await;
    let report = load.await.expect("the load");
    assert_eq!(report.failures, [], "of {} requests", report.sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_master_services_go_on_and_a_sidecar_starts_from_its_snapshot_on_disk() {
    let mut mesh = Daemons::start(1);
    mesh.ready(4).await;
    let outbound =
        |mesh: &Daemons, name: &str| mesh.sidecars.iter().find(|(own, _, _)| own == name).map(|(_, _, port)| *port);
    let client = HttpClient::default();
    let order = async |mesh: &Daemons, user: u64| {
        // By way of the sidecar of `users-1`: orders, which asks users and inventory.
        let url = format!("http://127.0.0.1:{}/api/orders", outbound(mesh, "users-1").unwrap_or_default());
        let body = format!(r#"{{"user_id":{user},"sku":"tea-green","quantity":1}}"#);
        let headers = [("host", "orders"), ("content-type", "application/json")];
        client.request("POST", &url, &headers, body).await
    };
    // What the master knows is on its way to the sidecars a moment longer.
    wait::until("an order goes through all three services", Duration::from_secs(10), || async {
        let answer = order(&mesh, 1).await?;
        wait::that(answer.status.as_u16() == 201, answer.text())
    })
    .await;

    let (mut master, ports) = mesh.masters.remove(0);
    fault::kill(master.pid());
    assert!(!master.wait(Duration::from_secs(5)).success(), "the fault took place");

    let mut failed = Vec::new();
    for number in 0..10_000_u32 {
        let port = outbound(&mesh, "orders-1").unwrap_or_default();
        let url = format!("http://127.0.0.1:{port}/api/users/1");
        let answer = if number % 10 == 0 {
            let url =
                format!("http://127.0.0.1:{}/api/stock/tea-green", outbound(&mesh, "orders-1").unwrap_or_default());
            client.request("GET", &url, &[("host", "inventory")], "").await
        } else {
            client.request("GET", &url, &[("host", "users")], "").await
        };
        match answer {
            Ok(answer) if answer.status.is_success() => {}
            other => failed.push(format!("{number}: {other:?}")),
        }
    }
    assert_eq!(failed, Vec::<String>::new(), "of 10,000 requests");
    // The whole chain, still without a master.
    assert_eq!(order(&mesh, 1).await.expect("an answer").status.as_u16(), 201);

    // A sidecar that starts now finds the others in its snapshot on disk.
    let at = mesh.sidecars.iter().position(|(name, _, _)| name == "orders-1").expect("the sidecar");
    let (_, mut sidecar, _) = mesh.sidecars.remove(at);
    sidecar.stop(Duration::from_secs(30));
    mesh.masters.push((master, ports));
    mesh.start_sidecar("orders", 1, "orders/bin/orders", &["/api/orders"], &["users", "inventory"]);
    wait::until("the restarted sidecar reaches users", Duration::from_secs(10), || async {
        let url = format!("http://127.0.0.1:{}/api/users/1", outbound(&mesh, "orders-1").unwrap_or_default());
        let answer = client.request("GET", &url, &[("host", "users")], "").await?;
        wait::that(answer.status.is_success(), answer.text())
    })
    .await;

    mesh.masters.clear();
    mesh.start_master(ports);
    wait::until("all is reported", Duration::from_secs(5), || async {
        let states = mesh.states()?;
        let ready = states.iter().filter(|(_, state)| state == "ready").count();
        wait::that(ready == 4, format!("{states:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_one_of_two_masters_behind_nginx_loses_no_request() {
    let home = Home::default();
    let mut masters = Daemons { home, masters: Vec::new(), sidecars: Vec::new(), enrolled: Vec::new() };
    let ports: Vec<[u16; 3]> = (0..2).map(|_| [ports::free(), ports::free(), ports::free()]).collect();
    let folder = masters.home.path().join("manifest");
    std::fs::create_dir(&folder).expect("a folder");
    let port = ports::free();
    let shop = shop_folder().display().to_string();
    let manifest = format!(
        "mesh: twin\ngateway: {{ listen: {port} }}\nmasters: [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]\nservices:\n  users:\n    \
         run: node users/main.js\n    cwd: {shop}\n    instances: 2\n    routes: [/api/users]\n",
        ports[0][1], ports[1][1]
    );
    std::fs::write(folder.join("synego.yaml"), &manifest).expect("the manifest");
    // The second master begins with the root of the first one.
    let root = folder.join("root.pem").display().to_string();
    let second = format!("{manifest}identity: {{ ca: {{ cert: {root}, key: {root} }} }}\n");
    std::fs::write(folder.join("second.yaml"), second).expect("the manifest of the second");
    for ([ingress, mesh, admin], file) in ports.iter().zip(["synego.yaml", "second.yaml"]) {
        let file = folder.join(file).display().to_string();
        let [ingress, mesh, admin] = [ingress, mesh, admin].map(ToString::to_string);
        let state = masters.home.path().join(format!("state/master-{mesh}")).display().to_string();
        let args = ["--file", &file, "--ingress", &ingress, "--mesh", &mesh, "--admin", &admin, "--state", &state];
        let master = masters.home.start("synego-master", &args);
        masters.masters.push((master, ports[0]));
        if masters.masters.len() == 1 {
            let _said = masters.home.ask(&["ca", "export", "--out", &root]);
        }
    }
    let token = masters.home.token().display().to_string();
    let logs = masters.home.path().join("logs");
    let up = Program::start(
        "up",
        &synego_testkit::program::binary("synego"),
        ["up", "--token-file", &token],
        &folder,
        &masters.home.variables(),
        &logs,
    );
    let url = format!("http://127.0.0.1:{port}/api/users/1");
    let client = HttpClient::default();
    wait::until("the gateway answers", Duration::from_secs(30), || async {
        let answer = client.get(&url).await?;
        wait::that(answer.status.is_success(), answer.text())
    })
    .await;
    let load = tokio::spawn({
        let url = url.clone();
        async move { load::gets(&url, RATE, LENGTH).await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (mut master, _) = masters.masters.remove(0);
    fault::kill(master.pid());
    assert!(!master.wait(Duration::from_secs(5)).success(), "the fault took place");
    let report = load.await.expect("the load");
    assert_eq!(report.failures, [], "of {} requests", report.sent);
    drop(up);
}
